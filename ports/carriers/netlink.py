"""netlink: takes the words of `ipset`, `nft`, `conntrack -D` and `ss -K` to the kernel itself, without a child process.

Of ipset it understands `create` of hash:ip,port sets with a time-out, and `add`, `del` and `list` of these and of
hash:net,port and hash:ip sets, with a time-out or without, always with `-exist`; of nft `-f -` with a script of what
tinyknop/nft.py knows, one transaction each, and lists; of the two others what tinyknop/conntrack.py says. The kernel
answers during the send, so nothing here ever waits.
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

TRIES = 5  # of a transaction or a list that somebody else's came between
_EINTR, _EBUSY, _ENFILE = 4, 16, 23  # the same on all machines; MicroPython does not name them
_AGAIN = (errno.EAGAIN, _EINTR)  # we name no generation of the ruleset, so there is no ERESTART
_INTERRUPTED = 16  # a list's flag: it was changed meanwhile

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


def _nft_reason(code):
    known = (
        (errno.EPERM, "not allowed; this needs CAP_NET_ADMIN (root, or AmbientCapabilities= in a systemd unit)"),
        (errno.ENOENT, "the table, chain, set, element or kernel module is missing"),
        (errno.EEXIST, "it is there already, and different"),
        (_EBUSY, "it is in use, or there already and different"),
        (_ENFILE, "the set is full, make it larger (maxelem)"),
        (errno.EOPNOTSUPP, "this kernel has no nf_tables, or lacks a part of it"),
    )
    for number, text in known:
        if number == code:
            return text
    return "the kernel answers error %d" % code


def _whole(text, top):
    """Returns a decimal number from 0 to `top`; raises ValueError."""
    if not text or len(text) > 10 or not all("0" <= c <= "9" for c in text) or int(text) > top:
        raise ValueError("%r is not a number from 0 to %d" % (text, top))
    return int(text)


def _parse_entry(text):
    """Returns (packed address, protocol's number, port) of "192.0.2.7,tcp:22"; raises ValueError.

    The last two are None where there is nothing but an address.
    """
    address, comma, rest = text.partition(",")
    if not comma:
        return net.packed(address), None, None
    proto, _, port = rest.partition(":")
    known = [number for name, number in netlink.PROTOCOLS if name == proto]
    number = known[0] if known else _whole(proto, 255)
    if "/" in port:  # ICMP: type and code
        kind, _, code = port.partition("/")
        return net.packed(address), number, _whole(kind, 255) << 8 | _whole(code, 255)
    return net.packed(address), number, _whole(port, 65535)


def _print_entry(entry):
    address, number, port, timeout, prefix = entry
    text, proto = net.printed(address) if address else "?", str(number)
    if prefix is not None and prefix < 8 * len(address):
        text += "/%d" % prefix
    for name, known in netlink.PROTOCOLS:
        if known == number:
            proto = name
    if proto in ("icmp", "icmpv6"):
        port = "%d/%d" % (port >> 8, port & 255)
    if number is not None:
        text += ",%s:%s" % (proto, port)
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
    if command == "add" and (len(rest) == 1 or len(rest) == 3 and rest[1] == "timeout"):
        seconds = _whole(rest[2], netlink.IPSET_LONGEST) if len(rest) == 3 else None
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
    options = ("hashsize", "maxelem", "timeout", "netmask", "bitmask")
    shown += ["%s %d" % (key, header[key]) for key in options if key in header]
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
            self.socket = self._open(12)  # NETLINK_NETFILTER

    def _open(self, protocol):
        try:
            made = socket.socket(16, 3, protocol)  # AF_NETLINK, SOCK_RAW (3 on MIPS too)
            made.bind(netlink.address(MICROPYTHON))
        except OSError as error:
            raise PortError(self.name, "no netlink socket: error %d" % error.errno)
        made.setblocking(False)
        try:
            made.setsockopt(270, 10, 1)  # NETLINK_CAP_ACK: an answer need not repeat the question
        except OSError:  # before Linux 4.3
            pass
        return made

    async def stop(self):
        """Closes the socket; the next word opens it again."""
        self._close()

    def _close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    async def say(self, *words, text=None):
        """Tells the kernel one command, to nft with a script as `text`; returns what `list` prints, else ""."""
        program = words[0].split("/")[-1]
        if program not in ("nft", "conntrack", "ss"):
            return await self.say_all([words])
        await self.start()
        try:
            if program != "nft":
                return self._cut(words)
            if words[1:] == ("-f", "-"):
                return self._transact([line for line in (text or "").split("\n") if line])
            return self._list(words[1:])
        except ValueError as error:
            raise PortError(self.name, "%s: %s" % (program, error))

    def _cut(self, words):
        """Deletes conntrack entries, or resets connections to this machine; none to be found is no error."""
        from tinyknop import conntrack

        self.seq = (self.seq + 1) & 0x3FFFFFFF
        if words[0] == "conntrack":
            answers = self._converse(conntrack.entries(self.seq, words))
        else:
            far, port = conntrack.peer(words)
            firewall, self.socket = self.socket, self._open(conntrack.SOCK_DIAG)
            try:
                answers = []
                for family in (netlink.AF_INET6, netlink.AF_INET)[: 2 if len(far) == 4 else 1]:
                    for kind, _, _, body in self._converse(conntrack.sockets(self.seq, family, port)):
                        if kind == conntrack.BY_FAMILY and conntrack.far_end(body) == far:
                            answers += self._converse(conntrack.destroy(self.seq, body))
            finally:
                self._close()
                self.socket = firewall
        codes = [netlink.error_of(body) for kind, _, _, body in answers if kind == netlink.ERROR]
        codes = [code for code in codes if code not in (0, errno.ENOENT)]
        if codes:
            raise PortError(self.name, "%s: %s" % (" ".join(words), _nft_reason(codes[0])))
        return ""

    def _transact(self, lines):
        """Sends an nft script as one transaction: all of it holds, or nothing."""
        from tinyknop import nft

        for _ in range(TRIES):
            at = self.seq + 1
            self.seq = (at + len(lines) + 1) & 0x3FFFFFFF
            answers = self._converse(nft.batch(at, lines))
            answers = [(seq, netlink.error_of(body)) for kind, _, seq, body in answers if kind == netlink.ERROR]
            failed = [answer for answer in answers if answer[1]]
            if not failed and (at + len(lines), 0) in answers:
                return ""
            if failed and failed[0][1] not in _AGAIN:
                break
        if not failed:
            raise PortError(self.name, "nft: no answer from the kernel")
        seq, code = failed[0]
        line = lines[seq - at - 1] if at < seq <= at + len(lines) else "transaction"
        raise PortError(self.name, "nft: %s: %s" % (line, _nft_reason(code)))

    def _list(self, words):
        from tinyknop import nft

        for _ in range(TRIES):
            bodies, codes, whole = [], [], True
            for number, data in enumerate(nft.questions(self.seq + 1, words)):
                self.seq = (self.seq + 1) & 0x3FFFFFFF
                for kind, flags, _, body in self._converse(data):
                    whole = whole and not flags & _INTERRUPTED
                    if kind in (netlink.ERROR, netlink.DONE):
                        codes.append(netlink.error_of(body))
                    else:
                        bodies.append((number, body))
            codes = [code for code in codes if code]
            if whole and not codes:
                return nft.printed(words, bodies)
            if codes and codes[0] not in _AGAIN:
                break
        why = _nft_reason(codes[0]) if codes else "others change it all the time"
        raise PortError(self.name, "nft: %s: %s" % (" ".join(words), why))

    def _converse(self, data):
        """Returns all messages that the kernel answers to what is sent: it has answered when the send returns."""
        found = []
        try:
            self.socket.send(data)
            while True:
                part = netlink.messages(self.socket.recv(LISTING))
                found += part
                if not part or part[-1][0] == netlink.DONE:
                    return found
        except OSError as error:
            if error.errno == errno.EAGAIN:  # that was all
                return found
            self._close()  # what it still holds belongs to no question of ours
            raise PortError(self.name, "netlink: error %d" % error.errno)

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
