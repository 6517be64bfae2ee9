"""tinyknop on an ESP32: MicroPython runs this at power-on. board.json and tinyknop.json are beside it."""

import board

board.run(watchdog_ms=30000)
