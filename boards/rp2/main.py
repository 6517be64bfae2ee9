"""tinyknop on a Pico W: MicroPython runs this at power-on. board.json and tinyknop.json are beside it."""

import board

board.run(watchdog_ms=8000)  # 8,388 is the most that the chip takes
