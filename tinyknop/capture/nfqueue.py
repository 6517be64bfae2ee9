"""nfqueue: takes knocks out of the kernel's queue for user space, so no program behind us sees them. CAP_NET_ADMIN.

It makes the rules that fill the queue, as fwknopd does, and removes exactly those. They carry --queue-bypass: should we
be killed, what they match goes on to the firewall as if they were not there. Anything but IPv4 UDP is the owner's rule:
with binary = "" none are made or removed.
"""

import errno
import socket
import struct

from tinyknop import child, log, netlink
from tinyknop.capture import QUOTA, ip, number
from tinyknop.compat import MICROPYTHON
from tinyknop.errors import ConfigError, PortError

OPTIONS = {"interface": "", "port": "62201", "table": "mangle", "chain": "FWKNOP_NFQ", "queue": "1"}
OPTIONS["binary"] = "iptables"

PACKET, VERDICT, CONFIG = 0x300, 0x301, 0x302  # messages of nfnetlink's subsystem 3
BIND = struct.pack(">BBH", 1, 0, netlink.AF_INET)
COPY_ALL = struct.pack(">IB", 0xFFFF, 2)
DROP, ACCEPT = 0, 1
LOCAL_IN = 1  # the hook of INPUT
LONGEST = 65535 + 4096  # bytes of a message: the packet and what the kernel tells about it

_owners: dict = {}  # (binary, table, chain) -> the capture that made the chain last; a reload starts the new one first


class Capture:
    """One queue, and the chain that fills it."""

    def __init__(self, options, sink):
        self.where = options.get("where", "capture")
        self.port = number(options, "port", OPTIONS["port"], 1, 65535)
        self.queue = number(options, "queue", OPTIONS["queue"], 0, 65535)
        self.interface, self.table, self.chain = [
            _word(options, name, self.where) for name in ("interface", "table", "chain")
        ]
        self.binary = options.get("binary", OPTIONS["binary"])
        self.sink = sink
        self.over = None
        self.received = 0
        self.dropped = 0
        self._sock = None

    def describe(self):
        return "nfqueue %d:%d" % (self.queue, self.port)

    def start(self, loop):
        """Binds the queue and starts making the rules; raises PortError for a lack of rights or a queue in use."""
        self._loop = loop
        try:
            sock = self._sock = bound(self.queue)
        except OSError as error:
            raise PortError(self.describe(), _why_not(error))
        loop.reader(sock, lambda: self._drain(sock))
        if self.binary:
            _owners[self._place()] = self
            self._setting_up = loop.spawn(self._set_up())

    def stop(self):
        """Returns a task that removes the rules and then leaves the queue; nothing more is handed on."""
        self.sink = _ignore
        return self._loop.spawn(self._leave(self._sock)) if self._sock else None

    async def _leave(self, sock):
        if self.binary:
            await self._setting_up
            if _owners.get(self._place()) is self:
                del _owners[self._place()]
                if await self._clear():
                    log.error("%s: chain %s of table %s could not be removed", self.describe(), self.chain, self.table)
        if self._sock is not None:  # not stopped twice
            self._loop.reader(sock, None)
            sock.close()
            self._sock = None

    def _place(self):
        return (self.binary, self.table, self.chain)

    async def _set_up(self):
        await self._clear()
        rule = ["-i", self.interface] if self.interface else []
        rule += ["-p", "udp", "-m", "udp", "--dport", "%d" % self.port]
        rule += ["-j", "NFQUEUE", "--queue-num", "%d" % self.queue, "--queue-bypass"]
        for words in (["-N", self.chain], ["-A", self.chain] + rule, ["-I", "INPUT", "1", "-j", self.chain]):
            status, output = await self._iptables(words)
            if status:
                said = output.decode("utf-8", "replace").strip()
                log.error("%s: %s: %s", self.describe(), " ".join(words), said or "exit status %d" % status)
                if self.over:
                    self.over("the rules that fill the queue cannot be made", 1)
                return

    async def _clear(self):
        """Removes our jump, as often as it is there (a kill -9 leaves one), and our chain; returns 0 if it could."""
        for _ in range(16):
            if (await self._iptables(["-D", "INPUT", "-j", self.chain]))[0]:
                break
        await self._iptables(["-F", self.chain])
        return (await self._iptables(["-X", self.chain]))[0]

    async def _iptables(self, words):
        try:
            return await child.run([self.binary, "-w", "-t", self.table] + words)
        except OSError as error:
            return 127, b"no child process: error %d" % (error.errno or 0)

    def _drain(self, sock):
        """Hands on what is there, at most QUOTA datagrams; a packet for this machine ends here, others go on."""
        recv, sink = sock.recv, self.sink
        for _ in range(QUOTA):
            try:
                data = recv(LONGEST)
            except OSError as error:
                if error.errno in (errno.EAGAIN, 4):  # 4: EINTR
                    return
                self.dropped += 1  # ENOBUFS, which only says that some were lost, as in any burst
                continue
            for kind, _, _, body in netlink.messages(data):
                if kind != PACKET:
                    continue
                number, hook, packet = packet_of(body)
                sock.send(verdict(self.queue, number, DROP if hook == LOCAL_IN else ACCEPT))
                datagram = ip.parse_any(packet)
                if datagram is None:
                    self.dropped += 1
                else:
                    self.received += 1
                    sink(datagram)


def _ignore(datagram):
    pass


def _word(options, name, where):
    """Returns one word for iptables' command line, which must not look like an option."""
    text = str(options.get(name) or OPTIONS[name])
    if len(text) > 28 or text[:1] in ("-", "!") or not all("!" <= c <= "~" for c in text):
        raise ConfigError(where, "%s = %s: it is a name of at most 28 characters" % (name, text))
    return text


def config(queue, seq, data):
    """Returns the message that sets up a queue with these attributes, and asks to be answered."""
    return netlink.netfilter(CONFIG >> 8, CONFIG & 255, netlink.ACK, seq, data, resource=queue)


def verdict(queue, number, what):
    """Returns the message that lets one packet of a queue go on or end."""
    body = netlink.attr(2, struct.pack(">II", what, number))
    return netlink.netfilter(VERDICT >> 8, VERDICT & 255, 0, 0, body, resource=queue)


def packet_of(body):
    """Returns (the packet's number in the queue, its hook, its bytes from the IP header on)."""
    number, hook, packet = 0, 0, b""
    for kind, value in netlink.attrs(body[4:]):
        if kind == 1:
            number, _, hook = struct.unpack(">IHB", value[:7])
        elif kind == 10:
            packet = value
    return number, hook, packet


def bound(queue):
    """Returns a netlink socket to which the kernel gives a queue's packets whole; raises OSError."""
    sock = socket.socket(16, 3, 12)  # AF_NETLINK, SOCK_RAW (3 on MIPS too), NETLINK_NETFILTER
    try:
        sock.setblocking(False)  # the answer is there when the question has been sent
        sock.bind(netlink.address(MICROPYTHON))
        for seq, data in ((1, netlink.attr(1, BIND)), (2, netlink.attr(2, COPY_ALL))):
            sock.send(config(queue, seq, data))
            for kind, _, answered, body in netlink.messages(sock.recv(4096)):
                if kind == netlink.ERROR and answered == seq and netlink.error_of(body):
                    raise OSError(netlink.error_of(body), "nfqueue")
    except OSError:
        sock.close()
        raise
    return sock


def _why_not(error):
    if error.errno == errno.EPERM:
        return "not allowed (this needs CAP_NET_ADMIN), or another program has this queue"
    if error.errno == 16:  # EBUSY
        return "another program has this queue (/proc/net/netfilter/nfnetlink_queue lists them)"
    return "no such queue: error %d; does this kernel have the module nfnetlink_queue?" % error.errno
