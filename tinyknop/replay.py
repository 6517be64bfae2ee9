"""Digests seen, and their file in fwknop's format (docs/fwknopd.md section 9.1): either daemon can take over.

With ageing on a digest is kept for twice the age window after its arrival; the newest stamp ever dropped is kept, and
what is stamped at or before it is refused whatever the settings later say. With ageing off all are kept and fsynced.
Comment lines, which fwknopd skips, carry what the store has to remember besides:

    # tinyknop floor=STAMP clock=SECONDS boot=ID
"""

from . import compat, log, net
from .errors import Rejected
from .lines import Lines
from .spa import BASE64, from_base64, to_base64

HEADER = b"# <digest> <proto> <src_ip> <src_port> <dst_ip> <dst_port> <time>\n"
LIMIT = 500000  # digests; past it a knock is refused rather than a digest forgotten


class Replay:
    """The store of digests; `known` and `add` are all that the gate sees."""

    def __init__(self, path, ageing=True, max_age=120, enabled=True, limit=LIMIT):
        self.path = path
        self.ageing = ageing
        self.max_age = max_age
        self.enabled = enabled
        self.limit = limit
        self.floor = 0  # packets stamped at or before this are refused
        self.clock = 0  # the highest wall time seen
        self._seen = {}  # digest -> file line without its digest
        self._queue = []  # (monotonic ms at which it may go, digest, stamp), oldest first
        self._head = 0
        self._lines = Lines(path)

    def load(self):
        """Reads the file, as far as there is one, and writes it anew; raises OSError."""
        if self.enabled:
            self.read()
            self.compact()

    def read(self):
        """Reads the file; raises OSError.

        After a reboot what is stamped before it is refused: a digest may have been lost with the power.
        """
        now = compat.wall()
        boot = ""
        entries = []
        for number, line in enumerate(self._lines.read()):
            if line.startswith(b"# tinyknop "):
                boot = self._remember(line) or boot
            elif line and not line.startswith(b"#"):
                entry = _parsed(line)
                if entry is None:
                    log.warning("*Skipping invalid digest file entry in %s at line %d.", self.path, number + 1)
                else:
                    entries.append(entry)
                    self.clock = max(self.clock, entry[1])
        self._fill(entries, now)
        if boot != compat.boot_id() or not boot:
            self.floor = max(self.floor, min(compat.boot_wall(), now))

    def _fill(self, entries, now):
        age = self.max_age
        for digest, arrived, rest in sorted(entries, key=lambda entry: entry[1]):
            left = min(arrived + 2 * age - now, 2 * age)
            if self.ageing and left <= 0:
                self.floor = max(self.floor, arrived + age)
                continue
            self._seen[digest] = rest
            self._queue.append((compat.monotonic() + left * 1000, digest, arrived + age))

    def _remember(self, line):
        boot = ""
        try:
            words = line.decode().split(" ")[2:]
        except UnicodeError:
            return boot
        for word in words:
            name, equals, value = word.partition("=")
            if name == "boot":
                boot = value
            elif value and compat.only_in(value.encode(), b"0123456789"):
                if name == "floor":
                    self.floor = int(value)
                elif name == "clock":
                    self.clock = int(value)
        return boot

    def known(self, digest):
        """Tells whether a packet with this SHA-256 (32 bytes) was here."""
        return digest in self._seen

    def entry(self, digest):
        """Returns the file's line about a digest, without it, or None."""
        rest = self._seen.get(digest)
        return rest and rest.decode()

    def add(self, digest, datagram, stamp, now):
        """Writes a packet's digest down; raises Rejected where the packet must not be honoured.

        Stages: full (the file cannot be written, or the store is at its bound), clock (ours is behind what it was),
        replay (stamped before what the store still remembers). The digest is written in the last two cases too.
        """
        if not self.enabled:
            return
        self._forget()
        if len(self._seen) >= self.limit:
            raise Rejected("full", "the replay store holds %d digests, its bound" % self.limit)
        rest = _rest(datagram, now)
        self._append(to_base64(digest) + b" " + rest + b"\n")
        self._seen[digest] = rest
        self._queue.append((compat.monotonic() + 2000 * self.max_age, digest, stamp))
        if now < self.clock - self.max_age:
            raise Rejected("clock", "the clock is %d s behind what it was; set it" % (self.clock - now))
        self.clock = max(self.clock, now)
        if stamp <= self.floor:
            raise Rejected("replay", "stamped before the last restart of this machine, or long ago")

    def stepped(self, seconds):
        """Moves the highest time seen with a step back of the wall clock that the running process saw."""
        if seconds < 0 and self.enabled:
            self.clock += seconds
            self.compact()

    def compact(self):
        """Writes the file anew with what is still kept; raises OSError."""
        note = "# tinyknop floor=%d clock=%d boot=%s\n" % (self.floor, self.clock, compat.boot_id())
        lines = [HEADER]
        for i in range(self._head, len(self._queue)):
            digest = self._queue[i][1]
            lines.append(to_base64(digest) + b" " + self._seen[digest] + b"\n")
        lines.append(note.encode())  # last: it holds against the times of the lines before it
        self._lines.rewrite(lines)

    def _forget(self):
        """Drops what may go and remembers the newest stamp among it."""
        if not self.ageing:
            return
        now = compat.monotonic()
        queue, head = self._queue, self._head
        while head < len(queue) and queue[head][0] <= now:
            self.floor = max(self.floor, queue[head][2])
            self._seen.pop(queue[head][1], None)
            head += 1
        self._head = head
        if head > 1000 and head > len(queue) // 2:
            self._queue = queue[head:]
            self._head = 0

    def _append(self, line):
        try:
            if self._lines.overgrown(len(self._seen)):
                self.compact()
            self._lines.append(line, not self.ageing)
        except OSError as error:
            raise Rejected("full", "the digest cache cannot be written: %s" % error)


def _rest(datagram, now):
    """Returns the line of a datagram without its digest; fwknopd reads IPv4 only, so IPv6 is written as 0.0.0.0."""
    source = net.printed(datagram.source) if len(datagram.source) == 4 else "0.0.0.0"
    destination = net.printed(datagram.destination) if len(datagram.destination) == 4 else "0.0.0.0"
    return ("%d %s %d %s %d %d" % (datagram.proto, source, datagram.sport, destination, datagram.dport, now)).encode()


def _parsed(line):
    """Returns (digest, arrival, rest of the line), or None for a line that is no entry."""
    words = line.split()
    if len(words) != 7 or len(words[0]) != 43 or not compat.only_in(words[0], BASE64):
        return None
    if not compat.only_in(words[6], b"0123456789") or len(words[6]) > 12:
        return None
    try:
        net.packed(words[2].decode())
        net.packed(words[4].decode())
    except ValueError:
        return None
    return from_base64(words[0]), int(words[6]), b" ".join(words[1:])
