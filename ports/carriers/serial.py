"""serial: a console cable. One lasting session with the router's command line, or with a POSIX shell, behind it.

The line is pyserial's on CPython, a plain tty where that is missing and on MicroPython's unix port, and a
`machine.UART` on boards (device = "uart:1", or "uart:1:17:16" with the pins for tx and rx). Nothing here waits: a line
is read when there is something, and written as far as it takes.
"""

import errno
import os

from tinyknop.ports.shared import dialogue

from tinyknop.compat import MICROPYTHON
from tinyknop.errors import ConfigError, PortError

OPTIONS = {
    "device": None,  # /dev/ttyUSB0, better /dev/serial/by-id/...: that name stays when it is plugged in again
    "baud": "9600",
    "rtscts": "no",
    "xonxoff": "no",
}
OPTIONS.update(dialogue.OPTIONS)

PIECE = 2048  # bytes of one read; a console takes some ms for as much
BURST = 256  # bytes of one write: a tty that can be written takes so many without waiting
SILENT = "nothing came from the router: is the cable in, the router on, baud = %s right?"
GARBLED = "what comes from the router is no text: is baud = %s right?"


class Carrier(dialogue.Carrier):
    """A router or shell at the end of a line; `dialogue.Carrier` holds the session."""

    def __init__(self, name, options):
        dialogue.Carrier.__init__(self, name, options, OPTIONS)
        self.device = self.options["device"]
        if not self.device:
            raise ConfigError(self.where, 'carrier.%s: device is missing, as in device = "/dev/ttyUSB0"' % name)
        self.baud = self.whole("baud", 50, 4000000)
        self.flow = (self.yes("rtscts"), self.yes("xonxoff"))

    async def connect(self):
        """Opens the line; raises PortError where it is not there, or in use."""
        try:
            return line(self.device, self.baud, self.flow)
        except OSError as error:
            raise PortError(self.name, "%s: %s" % (self.device, _reason(error)))
        except ValueError as error:
            raise PortError(self.name, "%s: %s" % (self.device, error))

    async def why(self, error):
        """Returns the reason of a failed dialogue, with what may be wrong with the line where no prompt was found."""
        said = await dialogue.Carrier.why(self, error)
        advice = "" if self.trouble or error.stage not in ("prompt", "login") else self.advice(*self.counted)
        return "%s (%s)" % (said, advice) if advice else said

    def advice(self, received, garbled):
        """Returns what may be wrong, or "", by how many bytes came and how many of them are no text."""
        if not received:
            return SILENT % self.baud
        return GARBLED % self.baud if 4 * garbled > received else ""


def _reason(error):
    known = (
        (errno.ENOENT, "not there: is the adapter plugged in?"),
        (errno.EACCES, "not allowed: add the daemon's user to the device's group (often dialout)"),
        (errno.EAGAIN, "another program uses it"),
        (errno.EIO, "the device is gone"),
        (errno.ENODEV, "the device is gone"),
    )
    for number, text in known:
        if number == error.errno:
            return text
    return str(error)


def line(device, baud, flow):
    """Opens a device; returns its line, with `file`, `read`, `write` and `close`. Raises OSError or ValueError."""
    if device.startswith("uart:"):
        return _Uart(device, baud, flow)
    if MICROPYTHON:
        return _Plain(device, baud, flow)
    try:
        import serial
    except ImportError:
        return _Tty(device, baud, flow)
    return _PySerial(serial, device, baud, flow)


class _Tty:
    """A tty of this machine. `sink` is what to watch before writing."""

    said = ""  # what the way there has to say, as ssh has

    def __init__(self, device, baud, flow):
        self.file = os.open(device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.sink = self.file
        try:
            import fcntl

            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as pyserial does: two daemons would interleave
            make_raw(self.file, baud, flow)
        except (OSError, ValueError):
            os.close(self.file)
            raise

    def read(self):
        """Returns the bytes that are there, none (b"") where the line is gone; None where nothing is there just now.

        A line without VMIN answers nothing at all both when it is idle and when it is gone: this one is read only
        when the poll says that there is something.
        """
        try:
            return os.read(self.file, PIECE)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            raise

    def write(self, data):
        """Writes what the line takes now; returns how many bytes."""
        try:
            return os.write(self.file, data[:BURST])
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return 0
            raise

    def close(self):
        """Lets go of the line."""
        discard(self.file)
        os.close(self.file)


class _PySerial(_Tty):
    """pyserial's: it knows unusual speeds and systems."""

    def __init__(self, serial, device, baud, flow):
        try:
            self.port = serial.Serial(
                device, baud, timeout=0, write_timeout=0, rtscts=flow[0], xonxoff=flow[1], exclusive=True
            )
        except ImportError:
            raise ValueError("pyserial cannot be used here")
        self.file = self.sink = self.port.fileno()

    def close(self):
        """Lets go of the line."""
        discard(self.file)
        self.port.close()


class _Plain:
    """The same on MicroPython, which cannot open a file without waiting, nor make it so later."""

    said = ""

    def __init__(self, device, baud, flow):
        self.file = self.sink = open(device, "r+b")
        self.buffer = bytearray(PIECE)
        try:
            make_raw(self.file.fileno(), baud, flow)
        except (OSError, ValueError):
            self.file.close()
            raise

    def read(self):
        """Returns the bytes that are there; none means that the line is gone."""
        count = self.file.readinto(self.buffer)
        return None if count is None else bytes(self.buffer[:count])

    def write(self, data):
        """Writes what the line takes now; returns how many bytes."""
        return self.file.write(data[:BURST])

    def close(self):
        """Lets go of the line."""
        self.file.close()


class _Uart:
    """A board's own line; pulled plugs cannot be seen here."""

    said = ""

    def __init__(self, device, baud, flow):
        try:
            from machine import UART
        except ImportError:
            raise ValueError("only a board has such a line")
        numbers = [int(part) for part in device.split(":")[1:]]
        pins = {"tx": numbers[1], "rx": numbers[2]} if len(numbers) == 3 else {}
        if flow[1]:
            raise ValueError("a board's line knows no xonxoff")
        if flow[0]:
            pins["flow"] = UART.RTS | UART.CTS
        self.file = self.sink = UART(numbers[0], baudrate=baud, timeout=0, rxbuf=1024, **pins)

    def read(self):
        """Returns the bytes that are there, None where there are none."""
        return self.file.read() or None

    def write(self, data):
        """Writes what the line takes now; returns how many bytes."""
        return self.file.write(data[:BURST]) or 0

    def close(self):
        """Lets go of the line."""
        self.file.deinit()


def discard(descriptor):
    """Forgets what the line has not taken: closing it would wait for that, 30 s where the other end is stuck."""
    import termios

    try:
        termios.tcflush(descriptor, termios.TCIOFLUSH)
    except termios.error:  # the adapter is out
        pass


def make_raw(descriptor, baud, flow):
    """Sets a tty to 8 bits, no parity, its bytes untouched, and reads that never wait; raises ValueError or OSError."""
    import termios

    speed = getattr(termios, "B%d" % baud, None)
    if speed is None:
        raise ValueError("baud = %d: not a speed that this system knows by name (pyserial may know it)" % baud)
    attributes = termios.tcgetattr(descriptor)
    control = attributes[6]
    for index in (4, 5, 6):  # VMIN and VTIME: 6 and 5, on MIPS 4 and 5. MicroPython does not name them: its numbers
        if isinstance(control[index], int) or index in (getattr(termios, "VMIN", 0), getattr(termios, "VTIME", 0)):
            control[index] = 0
    hardware, software = flow
    # Linux' numbers where the module does not name them: IGNBRK; IXON, IXOFF; CS8, CREAD, CLOCAL; CRTSCTS.
    incoming = 0o1 | (getattr(termios, "IXON", 0o2000) | getattr(termios, "IXOFF", 0o10000) if software else 0)
    lines = getattr(termios, "CS8", 0o60) | getattr(termios, "CREAD", 0o200) | getattr(termios, "CLOCAL", 0o4000)
    lines |= getattr(termios, "CRTSCTS", 0o20000000000) if hardware else 0
    termios.tcsetattr(descriptor, termios.TCSANOW, [incoming, 0, lines | speed, 0, speed, speed, control])
