"""netlink: takes the words of the `ipset` program to the kernel itself, without a child process.

Understands `create`, `add`, `del` and `list` of hash:ip,port sets with a time-out, always with `-exist`, and nothing
else. The kernel answers during the send, so nothing here ever waits.
"""

import errno
import socket

from tinyknop import net, netlink
from tinyknop.compat import MICROPYTHON
from tinyknop.errors import PortError

OPTIONS = {}

BATCH = 64  # messages per send: their answers, 36 bytes each and charged as 768, must fit a 208 KB receive buffer
ANSWER = 1024  # a `recv` gives one answer, of 36 bytes, or of a few hundred before Linux 4.3 (no NETLINK_CAP_ACK)
LISTING = 65536  # more than the largest part of a list that the kernel makes (32 KB)

_FAMILIES = (("inet", netlink.AF_INET), ("inet6", netlink.AF_INET6))


def _reason(code, name):
    """Returns what an error number means for the owner of the set."""
    known = (
        (errno.EPERM, "not allowed; this needs CAP_NET_ADMIN (root, or AmbientCapabilities= in a systemd unit)"),
        (errno.ENOENT, "there is no set %s" % name),
        (errno.EEXIST, "there is a set %s of another type or with other options" % name),
        (errno.EINVAL, "the kernel refuses it; is the module ip_set_hash_ipport there?"),
        (netlink.IPSET_NO_TYPE, "this kernel has no hash:ip,port sets; it needs the module ip_set_hash_ipport"),
        (netlink.IPSET_FULL, "set %s is full, make it larger (maxelem)" % name),
    )
    for number, text in known:
        if number == code:
            return text
    return "set %s: the kernel answers error %d" % (name, code)


def _whole(text, top):
    """Returns a decimal number from 0 to `top`; raises ValueError."""
    if not text or len(text) > 10 or not all("0" <= c <= "9" for c in text) or int(text) > top:
        raise ValueError("%r is not a number from 0 to %d" % (text, top))
    return int(text)


def _parse_entry(text):
    """Returns (packed address, protocol's number, port) of "192.0.2.7,tcp:22"; raises ValueError."""
    address, _, rest = text.partition(",")
    proto, _, port = rest.partition(":")
    known = [number for name, number in netlink.PROTOCOLS if name == proto]
    number = known[0] if known else _whole(proto, 255)
    if "/" in port:  # ICMP: type and code
        kind, _, code = port.partition("/")
        return net.packed(address), number, _whole(kind, 255) << 8 | _whole(code, 255)
    return net.packed(address), number, _whole(port, 65535)


def _print_entry(entry):
    address, number, port, timeout = entry
    proto = str(number)
    for name, known in netlink.PROTOCOLS:
        if known == number:
            proto = name
    port = "%d/%d" % (port >> 8, port & 255) if proto in ("icmp", "icmpv6") else str(port)
    text = "%s,%s:%s" % (net.printed(address), proto, port)
    return text if timeout is None else "%s timeout %d" % (text, timeout)


def _create(seq, name, words):
    if not words or words[0] != "hash:ip,port" or len(words) % 2 == 0:
        raise ValueError("only sets of type hash:ip,port can be made")
    family, timeout, maxelem = "inet", None, None
    for i in range(1, len(words), 2):
        if words[i] == "family":
            family = words[i + 1]
        elif words[i] == "timeout":
            timeout = _whole(words[i + 1], netlink.IPSET_LONGEST)
        elif words[i] == "maxelem":
            maxelem = _whole(words[i + 1], 0xFFFFFFFF)
        else:
            raise ValueError("%r is not an option here" % words[i])
    if timeout is None:
        raise ValueError("a set without a time-out would keep entries for ever")
    for known, number in _FAMILIES:
        if known == family:
            return netlink.ipset_create(seq, name, number, maxelem, timeout)
    raise ValueError("%r is not a family" % family)


def encode(seq, words):
    """Returns (message, set's name) for the words of one `ipset` command; raises ValueError where it knows none."""
    rest = [word for word in words[1:] if word != "-exist"]
    if words[0] != "ipset" or len(rest) < 2 or not 1 <= len(rest[1]) <= netlink.IPSET_MAXNAME:
        raise ValueError("not an ipset command with the name of a set")
    command, name, rest = rest[0], rest[1], rest[2:]
    if command == "list" and not rest:
        return netlink.ipset_list(seq, name), name
    if command == "create":
        return _create(seq, name, rest), name
    if command == "del" and len(rest) == 1:
        return netlink.ipset_entry(netlink.IPSET_DEL, seq, name, _parse_entry(rest[0])), name
    if command == "add" and len(rest) == 3 and rest[1] == "timeout":
        seconds = _whole(rest[2], netlink.IPSET_LONGEST)
        return netlink.ipset_entry(netlink.IPSET_ADD, seq, name, _parse_entry(rest[0]), seconds), name
    raise ValueError("not a command that this carrier knows")


def _print_set(name, bodies):
    """Returns the text that `ipset list` prints, less what it says about the set's memory."""
    type_name, header, entries = "", {}, []
    for body in bodies:
        kind, about, more = netlink.ipset_listed(body)
        if about:
            type_name, header = kind, about
        entries += more
    shown = ["inet6" if header.get("family") == netlink.AF_INET6 else "inet"]
    shown += ["%s %d" % (key, header[key]) for key in ("hashsize", "maxelem", "timeout") if key in header]
    lines = ["Name: " + name, "Type: " + type_name, "Revision: %d" % header.get("revision", 0)]
    lines += ["Header: family " + " ".join(shown), "References: %d" % header.get("references", 0)]
    lines += ["Number of entries: %d" % len(entries), "Members:"]
    return "\n".join(lines + [_print_entry(entry) for entry in entries]) + "\n"


class Carrier:
    """One netlink socket, opened when it is first needed."""

    outlives_us = False

    def __init__(self, name="netlink", options=None):
        self.name = name
        self.socket = None
        self.seq = 0

    def describe(self):
        """Returns the carrier's name for log lines."""
        return self.name

    async def start(self):
        """Opens the socket; raises PortError where the kernel has no nfnetlink."""
        if self.socket is None:
            try:
                self.socket = socket.socket(16, 3, 12)  # AF_NETLINK, SOCK_RAW (3 on MIPS too), NETLINK_NETFILTER
                self.socket.bind(netlink.address(MICROPYTHON))
            except OSError as error:
                self.socket = None
                raise PortError(self.name, "no netlink socket: error %d" % error.errno)
            self.socket.setblocking(False)
            try:
                self.socket.setsockopt(270, 10, 1)  # NETLINK_CAP_ACK: an answer need not repeat the question
            except OSError:  # before Linux 4.3
                pass

    async def stop(self):
        """Closes the socket; the next word opens it again."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    async def say(self, *words, text=None):
        """Tells the kernel one `ipset` command; returns what `list` prints, "" for the others."""
        return await self.say_all([words])

    async def say_all(self, commands):
        """Tells the kernel many commands, each tried whatever became of the others; then raises the first failure."""
        await self.start()
        failed, listed = None, []
        for at in range(0, len(commands), BATCH):
            batch = []
            for words in commands[at : at + BATCH]:
                try:
                    self.seq = (self.seq + 1) & 0x3FFFFFFF
                    batch.append((self.seq,) + encode(self.seq, words) + (words,))
                except ValueError as error:
                    failed = failed or "%s: %s" % (" ".join(words), error)
            wrong, bodies = await self._exchange(batch)
            failed = failed or wrong
            listed += bodies
        if failed:
            raise PortError(self.name, failed)
        return _print_set(commands[-1][-1], listed) if listed else ""

    async def _exchange(self, batch):
        """Returns (the first failure or None, the bodies of what was listed)."""
        waiting, failed, bodies = {}, None, []
        for seq, _, name, words in batch:
            waiting[seq] = (name, words)
        try:
            if batch:
                self.socket.send(b"".join([data for _, data, _, _ in batch]))
            size = LISTING if any("list" in words for _, _, _, words in batch) else ANSWER
            while waiting:
                for kind, _, seq, body in netlink.messages(self.socket.recv(size)):
                    if seq not in waiting:
                        continue
                    if kind not in (netlink.ERROR, netlink.DONE):
                        bodies.append(body)
                        continue
                    name, words = waiting.pop(seq)
                    code = netlink.error_of(body)
                    if code and failed is None:
                        failed = "%s: %s" % (" ".join(words), _reason(code, name))
        except OSError as error:
            await self.stop()  # what it still holds belongs to no question of ours
            return failed or "netlink: error %d with %d answers missing" % (error.errno, len(waiting)), bodies
        return failed, bodies
