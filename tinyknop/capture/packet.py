"""packet: sees knocks on an interface before any firewall does, so no port has to be open. Linux, CAP_NET_RAW.

It takes every UDP datagram to the port whatever its IP address, like fwknopd's pcap. It never sends, and what cannot be
a knock is thrown away by a filter in the kernel (`filters.py`) before it costs us anything.
"""

import errno
import socket
import struct

from tinyknop import log, netlink
from tinyknop.capture import QUOTA, filter_of, filters, ip, number, roomy, yes
from tinyknop.compat import MICROPYTHON, monotonic, urandom, wall
from tinyknop.errors import ConfigError, PortError

# filter is tcpdump's language, or "none"; "" and "udp port N" are built in. snap: bytes of the longest IP packet.
OPTIONS = {"interface": "any", "port": "62201", "promisc": "N", "filter": "", "any_direction": "N"}
OPTIONS.update({"exit_at_down": "N", "snap": "%d" % filters.SNAP})

RETRY_MS, RETRY_MAX_MS = 250, 2000  # how often to look for an interface that went away; a look takes 0.05 ms
GONE_MS = 10000  # fwknopd gives up after 102 rounds of 0.1 s
AF_PACKET, SOL_PACKET, ETH_P_ALL = 17, 263, 3
ADD_MEMBERSHIP, STATISTICS, FANOUT, FANOUT_DATA, IGNORE_OUTGOING = 1, 6, 18, 22, 23
PROMISC = 1
FANOUT_CBPF, FANOUT_INBOUND = 6, 0x4000
NOTHING = [(filters.RET, 0, 0, 0)]


class Capture:
    """One interface, or all of them ("any"); survives that it goes down, away, and comes back under another index."""

    def __init__(self, options, sink):
        self.where = options.get("where", "capture")
        self.interface = options.get("interface") or "any"
        self.port, text = filter_of(options)
        self.text = text
        self.promisc, self.own = yes(options, "promisc"), yes(options, "any_direction")
        self.exits = yes(options, "exit_at_down")
        self.snap = number(options, "snap", filters.SNAP, 1, 32768)
        if not 1 <= len(self.interface.encode()) <= 15:
            raise ConfigError(self.where, 'interface = "%s": a name has at most 15 characters' % self.interface)
        self.program = self.sifted() or self._inbound(filters.compiled(text, self.where))
        self.parse = ip.parse if text is None else ip.parse_any
        self.name = "packet %s" % self.interface + (":%d" % self.port if text is None else ' "%s"' % text)
        self.sink = sink
        self.over = None
        self.received = 0
        self.malformed = 0
        self.failing_since = None  # wall-clock second, while the interface is down
        self.sockets = []
        self.index = 0
        self._lost = 0  # by the kernel, because a socket's buffer was full
        self.words = ()  # of hints, see `compare`
        self._timer = None
        self._group = self.fence = None  # what a flood needs, and then has
        self._said = False
        self._wait = RETRY_MS
        self._gone = None  # since when (ms) there has been no such interface

    def describe(self):
        return self.name

    def start(self, loop):
        """Opens the capture; raises ConfigError for an interface that is not there, PortError for a lack of rights."""
        self._loop = loop
        index, up = look_up(self.interface)
        if index is None:
            reason = 'interface = "%s": there is no such interface here (`ip link` lists them; "any" means all)'
            raise ConfigError(self.where, reason % self.interface)
        self._open(index)
        if not up:
            log.warning("%s: the interface is down", self.describe())

    def stop(self):
        """Closes everything."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._close()

    def sifted(self, then=filters.KEEP):
        """Returns the program of the kernel's filter, at the end of which `then` decides; None for an owner's own."""
        return self._inbound(filters.knock(self.port, then)) if self.text is None else None

    def _inbound(self, program):
        return program if self.own else filters.inbound(program)

    @property
    def dropped(self):
        """What was lost: by the kernel, because we were too slow, or here, because it was malformed."""
        self._count_lost()
        return self._lost + self.malformed

    def _open(self, index):
        group = int.from_bytes(urandom(2), "big") | (FANOUT_CBPF | (0 if self.own else FANOUT_INBOUND)) << 16
        try:
            sock = make_socket(index, self.program, self.promisc, self.own)
        except OSError as error:
            raise PortError(self.describe(), why_not(error))
        self.index = index
        self.sockets.append(sock)
        self._loop.reader(sock, lambda: self._drain(sock))
        try:
            sock.setsockopt(SOL_PACKET, FANOUT, group)
        except OSError as error:
            self._unfair(error)
            return
        self._group = (
            sock,
            lambda: make_socket(self.index, self.program, False, self.own, group),
            lambda program: filters.attach(sock, program, SOL_PACKET, FANOUT_DATA),
        )

    def _unfair(self, error):
        """Says, once, that a flood will meet no fence."""
        if not self._said:
            reason = "this kernel does not share packets out by their source (error %d): one queue for everybody"
            log.info("%s: " + reason, self.name, error.errno)
        self._said = True

    def _close(self):
        self._count_lost()
        if self.fence:
            self.fence.stop()
        for sock in self.sockets:
            self._loop.reader(sock, None)
            sock.close()
        self.sockets = []
        self._group = self.fence = None

    def _count_lost(self):
        if not MICROPYTHON:  # which has no getsockopt
            for sock in self.sockets + (self.fence.others() if self.fence else []):
                self._lost += struct.unpack("@II", sock.getsockopt(SOL_PACKET, STATISTICS, 8))[1]  # reading clears it

    def _drain(self, sock):
        """Hands on what is there, at most a quota of datagrams, so that a flood never holds up the timers."""
        recv, parse, sink, size, fence = sock.recv, self.parse, self.sink, self.snap, self.fence
        quota, heard, listed = fence.turn(sock) if fence else (QUOTA, None, ())
        bogus = 0
        for _ in range(quota):
            try:
                data = recv(size)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, 4):  # 4: EINTR
                    self._trouble(error)
                return
            if listed and ip.source_of(data)[:8] in listed:
                self._lost += 1
                continue
            datagram = parse(data)
            if datagram is None:
                self.malformed += 1
            else:
                self.received += 1
                if sink(datagram):
                    continue
            bogus += 1
            if heard:
                heard(ip.source_of(data))
        if fence:
            fence.full(sock, bogus)
        elif bogus * 2 > QUOTA and self._group:
            from tinyknop.capture.fair import Fence  # few are ever flooded, and a router has little memory

            self.fence = Fence(self.name, self._loop, self._drain, [self._group], self.words)

    def _trouble(self, error):
        """ENETDOWN as a rule (its number differs between machines): the kernel takes an interface up again itself."""
        if self._timer:  # again, before anything got better: not until the timer, or we might spin
            self._close()
            return
        log.warning("%s: the interface went down (error %d); waiting for it", self.describe(), error.errno)
        self._wait = RETRY_MS
        self.failing_since = wall()
        self._later()

    def _later(self):
        self._timer = self._loop.at(monotonic() + self._wait, self._retry)
        self._wait = min(self._wait * 2, RETRY_MAX_MS)

    def _retry(self):
        """Goes on once the interface is up again; one that was made anew has another index and needs a new socket."""
        index, up = look_up(self.interface)
        if not up:
            if self.over and self._lost_for_good(index):
                self._timer = None
                self.over("The interface disappeared: %s" % self.interface, 1)
            else:
                self._later()
            return
        self._gone = None
        if index != self.index or not self.sockets or self._said:  # some kernels share out nothing while it is down
            self._close()
            try:
                self._open(index)
            except PortError as error:
                log.debug("%s", error)
                self._later()
                return
        self._timer = self.failing_since = None
        log.info("%s: the interface is back", self.describe())

    def _lost_for_good(self, index):
        """Tells whether to give up: the interface has not only been down but gone for GONE_MS, and we were told to."""
        if index is not None:
            self._gone = None
            return False
        now = monotonic()
        self._gone = self._gone or now
        return self.exits and now - self._gone >= GONE_MS


def make_socket(index, program, promisc, own, group=None):
    """Returns a packet socket whose filter is there before it hears anything; `own`: also what this machine sends.

    `group`: of the fan-out, which it joins before it can hear anything that another member hears too.
    """
    everywhere = not index and not MICROPYTHON  # CPython's bind knows names alone, and "all" has none
    sock = socket.socket(AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL) if everywhere else 0)
    try:
        sock.setblocking(False)
        filters.attach(sock, program if group is None else NOTHING)
        if group is None:
            roomy(sock)
        try:
            sock.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 0 if own else 1)
        except OSError:  # before Linux 4.20; the filter drops them as well
            pass
        if promisc and index:
            sock.setsockopt(SOL_PACKET, ADD_MEMBERSHIP, struct.pack("@iHH", index, PROMISC, 0) + bytes(8))
        if everywhere:
            discard(sock)  # it has heard all since it was made
        else:
            sock.bind(address_of(index))
        if group is not None:
            sock.setsockopt(SOL_PACKET, FANOUT, group)
            filters.attach(sock, program)
    except OSError:
        sock.close()
        raise
    return sock


def address_of(index):
    """Returns what `bind` takes for an interface's index (0, on MicroPython: all of them)."""
    if MICROPYTHON:  # struct sockaddr_ll
        return struct.pack("@H", AF_PACKET) + struct.pack(">H", ETH_P_ALL) + struct.pack("@i", index) + bytes(12)
    return (socket.if_indextoname(index), ETH_P_ALL)


def discard(sock):
    """Empties a socket's queue of what came before its filter; bounded, as more than that never fitted in."""
    for _ in range(4096):
        try:
            sock.recv(1)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return
            raise


def look_up(interface):
    """Returns (index, is it up) of an interface in our own network namespace, (None, False) if there is none.

    Asks the kernel: /sys shows the namespace that it was mounted in, which need not be ours.
    """
    if interface == "any":
        return 0, True
    sock = socket.socket(16, 3, 0)  # AF_NETLINK, SOCK_RAW (3 on MIPS too), NETLINK_ROUTE
    try:
        sock.setblocking(False)  # the answer is there when the question has been sent
        sock.bind(netlink.address(MICROPYTHON))
        sock.send(netlink.link_query(1, interface))
        for kind, _, _, body in netlink.messages(sock.recv(32768)):
            if kind == netlink.RTM_NEWLINK and len(body) >= 12:
                return netlink.link_of(body)
    except OSError as error:
        log.debug("looking for interface %s: error %d", interface, error.errno)
    finally:
        sock.close()
    return None, False


def why_not(error):
    """Returns what the owner has to do about a packet socket that cannot be had."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return "not allowed to see packets; this needs CAP_NET_RAW (root, or AmbientCapabilities= in a systemd unit)"
    if error.errno == errno.ENODEV:
        return "the interface has just gone"
    if error.errno == errno.ENOMEM:
        return "the filter is too long for this kernel (sysctl net.core.optmem_max)"
    return "no packet socket: error %d; does this kernel have CONFIG_PACKET?" % error.errno
