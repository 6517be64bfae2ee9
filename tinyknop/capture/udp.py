"""udp: a plain UDP socket. Needs no rights and runs on boards, but the port must be open in the firewall.

The socket does not say which of our addresses a datagram was for: unless `address` is one, that's 0.0.0.0.
"""

import errno
import socket

from tinyknop import compat, log, net
from tinyknop.capture import QUOTA, filters, port_of, roomy
from tinyknop.errors import ConfigError, PortError
from tinyknop.gate import Datagram

OPTIONS = {"address": "", "port": "62201"}

LONGEST = 1500  # fwknopd's MAX_SPA_PACKET_LEN
UNKNOWN = b"\0\0\0\0"
REUSEPORT = 512 if socket.SOL_SOCKET == 0xFFFF else 15  # MIPS has numbers of its own
ATTACH_REUSEPORT = 51  # SO_ATTACH_REUSEPORT_CBPF


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
        self.program = self.sifted()
        self.fence = None
        self._groups = []
        self.words = ()  # of hints, see `compare`

    def describe(self):
        return "%s %s:%d" % (self.kind, self.address or "*", self.port)

    def sifted(self, then=filters.KEEP):
        """Returns the program of the kernel's filter, at the end of which `then` decides."""
        return filters.payload(then)

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
        if self.fence:
            self.fence.stop()
        for sock in self.sockets:
            self._loop.reader(sock, None)
            sock.close()
        self.sockets = []

    def _open(self, family, address):
        sock = None
        try:
            sock = self._socket(family)
            self._bind(sock, address)
            self._bound(sock)
        except OSError as error:
            if sock:
                sock.close()
            raise PortError(self.describe(), _why_not(error))
        self.sockets.append(sock)
        self._loop.reader(sock, lambda: self._drain(sock))
        self._groups.append(
            (
                sock,
                lambda: self._another(sock, family, address),
                lambda program: filters.attach(sock, program, socket.SOL_SOCKET, ATTACH_REUSEPORT),
            )
        )

    def _bind(self, sock, address):
        sock.setblocking(False)
        if ":" in address:
            sock.setsockopt(41, 26, 1)  # IPV6_V6ONLY: IPv4 has a socket of its own
        sock.bind(compat.sockaddr(address, self.port))

    def _another(self, first, family, address):
        """Opens a further socket beside `first`, which until now was bound so that nobody else could have its port."""
        first.setsockopt(socket.SOL_SOCKET, REUSEPORT, 1)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, REUSEPORT, 1)
            self._sift(sock)
            self._bind(sock, address)
        except OSError:
            sock.close()
            raise
        return sock

    def _socket(self, family):
        sock = socket.socket(family, socket.SOCK_DGRAM)
        roomy(sock)
        self._sift(sock)
        return sock

    def _sift(self, sock):
        """Has the kernel drop what cannot be a knock, where it can."""
        try:
            filters.attach(sock, self.program)
        except (OSError, ImportError) as error:  # ImportError: a board
            log.debug("no socket filter here: %s", error)

    def _bound(self, sock):
        pass

    def _drain(self, sock):
        """Hands on what is there, at most a quota of datagrams, so that a flood never holds up the timers."""
        sink, fence, bogus = self.sink, self.fence, 0
        quota, heard, listed = fence.turn(sock) if fence else (QUOTA, None, ())
        for _ in range(quota):
            try:
                data, sender = sock.recvfrom(LONGEST + 1)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, 4):  # 4: EINTR
                    log.debug("%s: error %d", self.describe(), error.errno)  # reading it has cleared it
                return
            source, sport = compat.peer(sender)
            if len(data) > LONGEST or (listed and source[:8] in listed):
                self.dropped += 1
            else:
                self.received += 1
                if sink(Datagram(data, source, sport, self.destination, self.port, 17)):
                    continue
            bogus += 1
            if heard:
                heard(source)
        if fence:
            fence.full(sock, bogus)
        elif bogus * 2 > QUOTA:
            from tinyknop.capture.fair import Fence  # few are ever flooded, and a router has little memory

            self.fence = Fence(self.describe(), self._loop, self._drain, self._groups, self.words)


def _why_not(error):
    if error.errno == errno.EADDRINUSE:
        return "another program has this port (`ss -lpn` names it)"
    if error.errno == errno.EACCES:
        return "not allowed; a port below 1024 needs CAP_NET_BIND_SERVICE (root)"
    return "cannot listen there: error %d (EADDRNOTAVAIL: the address is not one of this machine)" % error.errno
