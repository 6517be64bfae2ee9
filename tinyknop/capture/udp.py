"""udp: a plain UDP socket. Needs no rights and runs on boards, but the port must be open in the firewall.

The socket does not say which of our addresses a datagram was for: unless `address` is one, that's 0.0.0.0.
"""

import errno
import socket

from tinyknop import compat, log, net
from tinyknop.capture import QUOTA, port_of, roomy
from tinyknop.errors import ConfigError, PortError
from tinyknop.gate import Datagram

OPTIONS = {"address": "", "port": "62201"}

LONGEST = 1500  # fwknopd's MAX_SPA_PACKET_LEN
UNKNOWN = b"\0\0\0\0"


class Capture:
    """One socket on `address`, or one each for IPv4 and IPv6."""

    kind = "udp"

    def __init__(self, options, sink):
        where = options.get("where", "capture")
        self.address = options.get("address") or ""
        self.port = port_of(options)
        try:
            packed = net.packed(self.address) if self.address else UNKNOWN
        except ValueError as error:
            raise ConfigError(where, "address = %s: %s" % (self.address, error))
        self.destination = packed if packed.strip(b"\0") else UNKNOWN
        self.sink = sink
        self.over = None
        self.received = 0
        self.dropped = 0
        self.sockets = []
        self._loop = None

    def describe(self):
        return "%s %s:%d" % (self.kind, self.address or "*", self.port)

    def start(self, loop):
        """Opens the sockets; raises PortError if there is none to be had, or the port is taken."""
        self._loop = loop
        if self.address:
            self._open(socket.AF_INET6 if ":" in self.address else socket.AF_INET, self.address)
            return
        self._open(socket.AF_INET, "0.0.0.0")
        try:
            self._open(socket.AF_INET6, "::")
        except (PortError, AttributeError) as error:  # AttributeError: a board without IPv6
            log.debug("%s: no IPv6: %s", self.describe(), error)

    def stop(self):
        """Closes everything."""
        for sock in self.sockets:
            self._loop.reader(sock, None)
            sock.close()
        self.sockets = []

    def _open(self, family, address):
        sock = None
        try:
            sock = self._socket(family)
            sock.setblocking(False)
            if ":" in address:
                sock.setsockopt(41, 26, 1)  # IPV6_V6ONLY: IPv4 has a socket of its own
            sock.bind(compat.sockaddr(address, self.port))
            self._bound(sock)
        except OSError as error:
            if sock:
                sock.close()
            raise PortError(self.describe(), _why_not(error))
        self.sockets.append(sock)
        self._loop.reader(sock, lambda: self._drain(sock))

    def _socket(self, family):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        roomy(sock)
        return sock

    def _bound(self, sock):
        pass

    def _drain(self, sock):
        """Hands on what is there, at most QUOTA datagrams, so that a flood never holds up the timers."""
        for _ in range(QUOTA):
            try:
                data, sender = sock.recvfrom(LONGEST + 1)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, 4):  # 4: EINTR
                    log.debug("%s: error %d", self.describe(), error.errno)  # reading it has cleared it
                return
            if len(data) > LONGEST:
                self.dropped += 1
                continue
            self.received += 1
            source, sport = compat.peer(sender)
            self.sink(Datagram(data, source, sport, self.destination, self.port, 17))


def _why_not(error):
    if error.errno == errno.EADDRINUSE:
        return "another program has this port (`ss -lpn` names it)"
    if error.errno == errno.EACCES:
        return "not allowed; a port below 1024 needs CAP_NET_BIND_SERVICE (root)"
    return "cannot listen there: error %d (EADDRNOTAVAIL: the address is not one of this machine)" % error.errno
