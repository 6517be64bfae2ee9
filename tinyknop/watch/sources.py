"""Where lines come from: a file that rotates, a FIFO, /dev/kmsg, syslog datagrams on loopback, an NFLOG group.

Each has `start(loop, sink)`, `stop`, `describe` and `skipped`. `sink(line)` gets bytes; it returns False for one too
many at this moment, which a file offers again and the others count as skipped. None makes the daemon wait.
"""

import os
import socket

from tinyknop import compat, log, net
from tinyknop.errors import PortError

_LOOK = 500  # ms between two looks at a file
_PAUSE = 20  # ms between two chunks where there is more
_CHUNK = 8192  # bytes of a file at once: forty lines, so that a large file delays no knock
_LONGEST = 65536  # bytes of a line, a record or a datagram; the rest is left out
_QUOTA = 64  # datagrams or records a wake-up
_MANY = 16  # lines of a datagram, which has one as a rule: 60,000 empty ones would take a tenth of a second
_AGAIN, _INTERRUPTED, _LOST = 11, 4, 32  # EAGAIN, EINTR; EPIPE: the kernel's ring was written over

_WHY = {1: "not allowed, this needs CAP_NET_ADMIN", 13: "not allowed", 16: "another program has it", 98: "it is in use"}


class _Source:
    """What all have: the lines that the sink did not take."""

    skipped = 0

    def start(self, loop, sink):
        self._loop, self._sink = loop, sink

    def _hand(self, lines):
        """Gives lines to the sink until it has had too much."""
        for line in lines:
            if self._sink(line) is False:
                self.skipped += 1
                return


class _Lines:
    """Cuts bytes into lines; keeps the beginning of one that is not whole yet."""

    def __init__(self):
        self._rest = b""

    def cut(self, data):
        parts = (self._rest + data).split(b"\n")
        self._rest = parts.pop()[:_LONGEST]
        return parts


class File(_Source):
    """Follows a file from its present end, through rotation by renaming and by truncating."""

    def __init__(self, path):
        self._path = path
        self._file = self._timer = None
        self._which: tuple = ()  # what `_identity` said of the file that is open
        self._lines, self._held = _Lines(), []

    def describe(self):
        return "file " + self._path

    def start(self, loop, sink):
        super().start(loop, sink)
        self._open(True)
        if self._which and not self._which[2]:
            raise PortError(self.describe(), 'it is no ordinary file: kind = "fifo" or "kmsg" may be meant')
        self._look()

    def stop(self):
        if self._timer is not None:
            self._timer.cancel()
        self._close()

    def _open(self, at_end):
        try:
            # Before it is opened: if another file takes the name now, that one is read twice rather than never.
            self._which = _identity(self._path)
            if not self._which[2]:  # to open a FIFO, or to read a device, could take for ever
                return
            self._file = open(self._path, "rb")
            if at_end:
                self._file.seek(0, 2)
        except OSError:  # not there at this moment, or not yet
            self._close()

    def _close(self):
        if self._file is not None:
            self._file.close()
            self._file = None

    def _look(self):
        """Takes what is new; comes back at once where there is more."""
        full = False
        try:
            if self._file is None:
                self._open(False)
            if self._file is not None and not self._held:
                data = self._file.read(_CHUNK)
                full = len(data) == _CHUNK
                self._held = self._lines.cut(data)
                if not data:
                    self._turned(self._file)
            while self._held and self._sink(self._held[0]) is not False:
                self._held.pop(0)
        except OSError as error:
            log.debug("%s: %s", self._path, error)
            self._close()
        self._timer = self._loop.at(compat.monotonic() + (_PAUSE if full else _LOOK), self._look)

    def _turned(self, file):
        """At the end of what is there: sees whether another file has taken this name, or this one was cut."""
        try:
            which = _identity(self._path)
        except OSError:  # the name is gone, but whoever wrote here may still do
            return
        if which[0] != self._which[0]:
            self._close()
            self._lines = _Lines()
            self._open(False)
        elif which[1] < file.tell():
            file.seek(0)


def _identity(path):
    """Returns (device and inode, size, whether it is an ordinary file); raises OSError where the name is gone."""
    status = os.stat(path)
    return (status[2], status[1]), status[6], status[0] & 0o170000 == 0o100000


class Fifo(_Source):
    """A FIFO that a syslog daemon writes to; CPython only, since MicroPython cannot open one without waiting."""

    def __init__(self, path):
        if compat.MICROPYTHON:
            raise ValueError('a FIFO or /dev/kmsg needs CPython: take kind = "file", "syslog" or "nflog"')
        self._path = path
        self._fd = -1
        self._lines = _Lines()

    def describe(self):
        return "fifo " + self._path

    def start(self, loop, sink):
        super().start(loop, sink)
        try:
            if _identity(self._path)[2]:  # poll would report it for ever
                raise PortError(self.describe(), 'it is an ordinary file: kind = "file" follows it')
            self._fd = self._opened()
        except OSError as error:
            raise PortError(self.describe(), "cannot be opened: %s" % error)
        loop.reader(self._fd, self._drain)

    def stop(self):
        if self._fd >= 0:
            self._loop.reader(self._fd, None)
            os.close(self._fd)
            self._fd = -1

    def _opened(self):
        return os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)  # with a writer of its own it has no end

    def _drain(self):
        try:
            data = os.read(self._fd, _CHUNK)
        except OSError:  # somebody else took what was there
            return
        self._hand(self._lines.cut(data))


class Kmsg(Fifo):
    """The kernel's own ring, from now on: a record a read, `6,1234,5678,-;text`."""

    def describe(self):
        return "kmsg " + self._path

    def _opened(self):
        fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.lseek(fd, 0, 2)
        except OSError:  # a FIFO in a test
            pass
        return fd

    def _drain(self):
        for _ in range(_QUOTA):
            try:
                record = os.read(self._fd, _LONGEST)
            except OSError as error:
                if error.errno == _LOST:
                    continue
                return
            if not record:
                return
            self._hand([record.partition(b";")[2].partition(b"\n")[0]])


class Datagrams(_Source):
    """What a socket brings: syslog datagrams on loopback (`*.* @127.0.0.1:PORT` of rsyslog), or an NFLOG group."""

    def __init__(self, what, opened, lines):
        self._what, self._opened, self._lines = what, opened, lines
        self._socket = None

    def describe(self):
        return self._what

    def start(self, loop, sink):
        super().start(loop, sink)
        try:
            made = self._socket = self._opened()
        except OSError as error:
            raise PortError(self._what, "cannot be opened: " + _WHY.get(error.errno or 0, "error %s" % error.errno))
        loop.reader(made, lambda: self._drain(made))

    def stop(self):
        if self._socket is not None:
            self._loop.reader(self._socket, None)
            self._socket.close()
            self._socket = None

    def _drain(self, made):
        for _ in range(_QUOTA):
            try:
                data = made.recv(_LONGEST)
            except OSError as error:
                if error.errno not in (_AGAIN, _INTERRUPTED):
                    log.debug("%s: error %d; some were lost", self._what, error.errno)  # ENOBUFS, in a flood
                return
            self._hand(self._lines(data))


def _syslog(host, port):
    def opened():
        made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        made.setblocking(False)
        try:
            made.bind(compat.sockaddr(host, port))
        except OSError:
            made.close()
            raise
        return made

    return Datagrams("syslog %s:%d" % (host, port), opened, lambda data: data.split(b"\n", _MANY)[:_MANY])


def make(kind, path, number, host):
    """Returns the source of a kind; raises ValueError with what to write."""
    if kind in ("file", "fifo", "kmsg"):
        path = path or ("/dev/kmsg" if kind == "kmsg" else "")
        if path[:1] != "/":
            raise ValueError('kind = "%s" needs path = "/..."' % kind)
        return {"file": File, "fifo": Fifo, "kmsg": Kmsg}[kind](path)
    if kind == "syslog":
        packed = net.packed(host)
        if packed[0] != 127 and packed != bytes(15) + b"\x01":
            raise ValueError("address = %s: syslog is heard on loopback only, since anybody can forge it" % host)
        return _syslog(host, number)
    if kind == "nflog":
        from . import nflog

        return Datagrams("nflog group %d" % number, lambda: nflog.bound(number), nflog.lines)
    raise ValueError('kind = "%s": it is file, fifo, kmsg, syslog or nflog' % kind)
