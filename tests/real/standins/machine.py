"""Stands in for a board's `machine` on MicroPython's unix port: UARTs are ptys, and pins are lines in a file.

UART_1 in the environment is the pty of UART 1, PINS the file; what else happens is told there too.
"""

import io
import os
import select
import sys
import termios

_POLL, _IN, _OUT = 3, 1, 4


def _tell(text):
    with open(os.getenv("PINS"), "a") as file:
        file.write(text + "\n")


class Pin:
    OUT = 1

    def __init__(self, name, mode, value=None):
        self.name = name
        self.value(value)

    def value(self, level):
        _tell("pin %s %d" % (self.name, level))


class UART(io.IOBase):
    """As a board's: `read` gives what is there, and `select.poll` takes it."""

    RTS, CTS = 1, 2

    def __init__(self, number, baudrate, timeout, rxbuf, tx=None, rx=None):
        assert timeout == 0
        self.file = open(os.getenv("UART_%d" % number), "r+b")
        settings = termios.tcgetattr(self.file.fileno())
        for index in (5, 6):
            settings[6][index] = 0
        settings[0] = settings[1] = settings[3] = 0
        termios.tcsetattr(self.file.fileno(), termios.TCSANOW, settings)
        self.poll = select.poll()
        self.poll.register(self.file, _IN)
        self.buffer = bytearray(rxbuf)

    def read(self):
        count = self.file.readinto(self.buffer)
        return bytes(self.buffer[:count]) if count else None

    def write(self, data):
        return self.file.write(data)

    def deinit(self):
        self.file.close()

    def ioctl(self, request, flags):
        if request != _POLL:
            return 0
        return flags & (_OUT | (_IN if self.poll.poll(0) else 0))


class RTC:
    def datetime(self, parts):
        _tell("clock %d-%02d-%02d %02d:%02d:%02d" % (parts[:3] + parts[4:7]))


class WDT:
    def __init__(self, timeout):
        assert timeout <= 30000
        _tell("watchdog %d" % timeout)

    def feed(self):
        pass


def reset():
    _tell("reset")
    sys.exit(9)
