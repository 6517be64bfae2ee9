"""tcp: a listener for knocks inside a TCP connection. Needs no rights, but the port must be open in the firewall.

It reads a little from whoever connects, for a moment, and never answers. With read = "N" it throws away what it reads,
as fwknopd's own TCP server does: a packet capture beside it sees the knock.
"""

import errno
import socket

from tinyknop import compat
from tinyknop.capture import QUOTA, udp, yes
from tinyknop.gate import Datagram

OPTIONS = {"address": "", "port": "62201", "read": "Y"}

# Connections at once, in all and of one source (an IPv6 source is its /64); the oldest makes room.
MOST, MOST_OF_ONE = 64, 4
QUIET_MS, LONGEST_MS = 1000, 2000  # a knock comes in one piece, right after the handshake


class Capture(udp.Capture):
    """A listener on `address`, or one each for IPv4 and IPv6."""

    kind = "tcp"

    def __init__(self, options, sink):
        udp.Capture.__init__(self, options, sink)
        self.read = yes(options, "read", "Y")
        self.open = []  # connections, oldest first

    def stop(self):
        """Closes everything; what has been read in part is forgotten."""
        self.read = False
        for one in list(self.open):
            one.end()
        udp.Capture.stop(self)

    def through(self, data):
        """Tells whether nothing more has to be read."""
        return False

    def sifted(self, then=None):
        return None  # nothing: a filter of a listener would see the handshake

    def _socket(self, family):
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return sock

    def _bound(self, sock):
        sock.listen(MOST)

    def _drain(self, sock):
        """Takes the connections that wait, at most QUOTA."""
        for _ in range(QUOTA):
            try:
                connection, address = sock.accept()
            except OSError as error:
                # 23, 24: no descriptors left (ENFILE, EMFILE); the poll would report it again and again, so make room.
                if error.errno in (23, 24) and self.open:
                    self.open[0].give_way()
                return
            peer = compat.peer(address)
            same = [one for one in self.open if one.peer[0][:8] == peer[0][:8]]
            crowd, most = (same, MOST_OF_ONE) if len(same) >= MOST_OF_ONE else (self.open, MOST)
            if len(crowd) >= most:
                crowd[0].give_way()
            self.open.append(_Connection(self, connection, peer))


class _Connection:
    """One that is being read."""

    def __init__(self, capture, sock, peer):
        sock.setblocking(False)
        self.capture, self.sock, self.peer = capture, sock, peer
        self.data = b""
        loop, now = capture._loop, compat.monotonic()
        self.deadline = loop.at(now + LONGEST_MS, self.end)
        self.quiet = loop.at(now + QUIET_MS, self.end)
        loop.reader(sock, self.more)

    def more(self):
        """Reads what is there."""
        try:
            part = self.sock.recv(udp.LONGEST + 1 - len(self.data))
        except OSError as error:
            if error.errno not in (errno.EAGAIN, 4):  # 4: EINTR
                self.end()
            return
        self.data += part
        if not part or len(self.data) > udp.LONGEST or self.capture.through(self.data):
            self.end()
            return
        self.quiet.cancel()
        self.quiet = self.capture._loop.at(compat.monotonic() + QUIET_MS, self.end)

    def give_way(self):
        """Ends to make room; where many connect at once, what it has sent was not read yet."""
        self.more()
        if self in self.capture.open:
            self.end()

    def end(self):
        """Closes the connection and hands on what has been read."""
        capture = self.capture
        self.quiet.cancel()
        self.deadline.cancel()
        capture.open.remove(self)
        capture._loop.reader(self.sock, None)
        destination = self._destination()
        self.sock.close()
        if not capture.read or not self.data:
            return
        if len(self.data) > udp.LONGEST:
            capture.dropped += 1
            return
        capture.received += 1
        capture.sink(Datagram(self.data, self.peer[0], self.peer[1], destination, capture.port, 6))

    def _destination(self):
        try:
            return compat.peer(self.sock.getsockname())[0]
        except (OSError, AttributeError):  # AttributeError: MicroPython, which has none
            return self.capture.destination
