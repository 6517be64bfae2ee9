"""netlink: takes the words of `ipset`, `nft`, `conntrack -D` and `ss -K` to the kernel itself, without a child process.

Of ipset it understands `create` of hash:ip,port sets with a time-out, and `add`, `del` and `list` of these and of
hash:net,port and hash:ip sets, with a time-out or without, always with `-exist`; of nft `-f -` with a script of what
tinyknop/nft.py knows, one transaction each, and lists; of the two others what tinyknop/conntrack.py says. The kernel
answers during the send, so nothing here ever waits.
"""

import errno
import socket

from tinyknop.ports.shared.sets import encode, printed

from tinyknop import loop, netlink
from tinyknop.compat import MICROPYTHON
from tinyknop.errors import PortError

OPTIONS: dict = {}

BATCH = 64  # messages per send: their answers, 36 bytes each and charged as 768, must fit a 208 KB receive buffer
ANSWER = 1024  # a `recv` gives one answer, of 36 bytes, or of a few hundred before Linux 4.3 (no NETLINK_CAP_ACK)
LISTING = 65536  # more than the largest part of a list that the kernel makes (32 KB)

FIREWALL = 12  # NETLINK_NETFILTER
TRIES = 5  # of a transaction or a list that somebody else's came between
_EINTR, _EBUSY, _ENFILE = 4, 16, 23  # the same on all machines; MicroPython does not name them
_AGAIN = (errno.EAGAIN, _EINTR)  # we name no generation of the ruleset, so there is no ERESTART
_INTERRUPTED = 16  # a list's flag: it was changed meanwhile


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
        (
            errno.EPERM,
            "not allowed; this needs CAP_NET_ADMIN (root, or AmbientCapabilities= in a systemd unit), and a "
            "table that is no other program's own (flags owner: NftablesTableOwner=no in firewalld.conf)",
        ),
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


class Carrier:
    """Two netlink sockets, opened when they are first needed."""

    outlives_us = False

    def __init__(self, name="netlink", options=None):
        self.name = name
        self.socket = self.spare = None  # the latter for lists
        self.seq = 0

    def describe(self):
        """Returns the carrier's name for log lines."""
        return self.name

    async def start(self):
        """Opens the socket; raises PortError where the kernel has no nfnetlink."""
        if self.socket is None:
            self.socket = self._open(FIREWALL)
            self.spare = self.spare or self._open(FIREWALL)

    def _open(self, protocol):
        try:
            made = socket.socket(16, 3, protocol)  # AF_NETLINK, SOCK_RAW (3 on MIPS too)
            made.bind(netlink.address(MICROPYTHON))
        except OSError as error:
            raise PortError(self.name, "no netlink socket: error %s" % error.errno)
        made.setblocking(False)
        try:
            made.setsockopt(270, 10, 1)  # NETLINK_CAP_ACK: an answer need not repeat the question
        except OSError:  # before Linux 4.3
            pass
        return made

    async def stop(self):
        """Closes the sockets; the next word opens them again."""
        self._close()
        if self.spare is not None:
            self.spare.close()
            self.spare = None

    def _close(self):
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    async def say(self, *words, text=None):
        """Tells the kernel one command, to nft with a script as `text`; returns what `list` prints, else ""."""
        program = words[0].split("/")[-1]
        if program not in ("nft", "conntrack", "ss"):
            return "".join(await self.parts(*words)) if "list" in words else await self.say_all([words])
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

    async def parts(self, *words):
        """Returns an iterator of what `list` prints of a set, a few hundred entries at a time, each with its head.

        The kernel makes each part when it is read, on a socket of its own: meanwhile others may have ours.
        """
        await self.start()
        self.seq = (self.seq + 2) & 0x3FFFFFFF
        try:
            if words[0] == "ipset":
                message, name = encode(self.seq, words)
                return printed(name, self._dump(message, self.seq, lambda code: _reason(code, name)))
            from tinyknop import nft

            head, elements = nft.questions(self.seq - 1, words[1:])
            answers = [(kind, body) for kind, _, _, body in self._converse(head)]
        except ValueError as error:
            raise PortError(self.name, "%s: %s" % (" ".join(words), error))
        codes = [netlink.error_of(body) for kind, body in answers if kind == netlink.ERROR]
        if [code for code in codes if code]:
            raise PortError(self.name, "nft: %s: %s" % (" ".join(words[1:]), _nft_reason(max(codes))))
        about = [(0, body) for kind, body in answers if kind != netlink.ERROR]
        bodies = self._dump(elements, self.seq, lambda code: "nft: " + _nft_reason(code))
        return (nft.printed(words[1:], about + [(1, body)]) for body in bodies)

    def _dump(self, question, number, reason):
        """Yields the bodies of the kernel's answers to the question for a list; raises PortError."""
        own, self.spare = self.spare or self._open(FIREWALL), None
        try:
            own.send(question)
            while True:
                for kind, _, seq, body in netlink.messages(own.recv(LISTING)):
                    if seq != number:  # a second answer to the question before
                        continue
                    if kind not in (netlink.ERROR, netlink.DONE):
                        yield body
                        continue
                    own, self.spare = None, own
                    if netlink.error_of(body):
                        raise PortError(self.name, reason(netlink.error_of(body)))
                    return
        except OSError as error:
            raise PortError(self.name, "netlink: error %s" % error.errno)
        finally:
            if own is not None:  # what it still holds belongs to no question of ours
                own.close()

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
        own = self.socket = self.socket or self._open(FIREWALL)
        try:
            own.send(data)
            while True:
                part = netlink.messages(own.recv(LISTING))
                found += part
                if not part or part[-1][0] == netlink.DONE:
                    return found
        except OSError as error:
            if error.errno == errno.EAGAIN:  # that was all
                return found
            self._close()  # what it still holds belongs to no question of ours
            raise PortError(self.name, "netlink: error %s" % error.errno)

    async def say_all(self, commands):
        """Tells the kernel many commands, each tried whatever became of the others; then raises the first failure."""
        failed = None
        for at in range(0, len(commands), BATCH):
            if at:
                await loop.sleep(0)  # packets wait to be read
            await self.start()
            batch, wrong = self._encoded(commands[at : at + BATCH])
            failed = self._exchange(batch, failed or wrong)
        if failed:
            raise PortError(self.name, failed)
        return ""

    def _encoded(self, commands):
        """Returns [(sequence number, message, set's name, words)], and what is wrong with the first that is none."""
        batch, failed = [], None
        for words in commands:
            self.seq = (self.seq + 1) & 0x3FFFFFFF
            try:
                batch.append((self.seq,) + encode(self.seq, words) + (words,))
            except ValueError as error:
                failed = failed or "%s: %s" % (" ".join(words), error)
        return batch, failed

    def _exchange(self, batch, failed):
        """Returns the first failure: the one that is given, or one of these commands, or None."""
        waiting = {}
        own = self.socket = self.socket or self._open(FIREWALL)
        for seq, _, name, words in batch:
            waiting[seq] = (name, words)
        try:
            if batch:
                own.send(b"".join([data for _, data, _, _ in batch]))
            while waiting:
                for kind, _, seq, body in netlink.messages(own.recv(ANSWER)):
                    if kind != netlink.ERROR or seq not in waiting:
                        continue
                    name, words = waiting.pop(seq)
                    code = netlink.error_of(body)
                    if code and failed is None:
                        failed = "%s: %s" % (" ".join(words), _reason(code, name))
        except OSError as error:
            self._close()  # what it still holds belongs to no question of ours
            return failed or "netlink: error %s with %d answers missing" % (error.errno, len(waiting))
        return failed
