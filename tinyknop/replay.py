"""Digests seen, and their file in fwknop's format (docs/fwknopd.md section 9.1): either daemon can take over.

With ageing on a digest is kept for twice the age window after its arrival, and until its stamp is too old; the newest
stamp ever dropped is kept, and what is stamped at or before it is refused whatever the settings later say. What is
stamped before the machine started is refused, too. With ageing off all digests are kept and fsynced. Comment lines,
which fwknopd skips, carry what the store has to remember besides, and an eighth word, which it passes over, a stamp
that was further ahead than the window:

    # tinyknop floor=STAMP clock=SECONDS
"""

import heapq

from . import compat, log, net
from .errors import Rejected
from .lines import Lines
from .spa import BASE64, from_base64, to_base64

HEADER = b"# <digest> <proto> <src_ip> <src_port> <dst_ip> <dst_port> <time>\n"
LIMIT = 500000  # digests; past it a knock is refused rather than a digest forgotten
_SIZE = 4096  # bytes of heap for each digest on MicroPython: 300 are its own, 1,200 its grant's; holes cost as much


class Replay:
    """The store of digests; `known` and `add` are all that the gate sees."""

    def __init__(self, path, ageing=True, max_age=120, enabled=True, limit=LIMIT):
        self.path = path
        self.ageing = ageing
        self.max_age = max_age
        self.enabled = enabled
        self.limit = limit
        self.floor = 0  # packets stamped at or before this are refused; a stamp ahead of the clock never gets here
        self.clock = 0  # the highest wall time seen
        self._booted = 0  # as floor, but goes with the clock where that is set
        self._seen = {}  # digest -> file line without its digest
        self._queue = []  # heap of (monotonic ms at which it may go, digest, stamp)
        self._lines = Lines(path)

    def load(self, anyway=False):
        """Reads the file, as far as there is one, and writes it anew; raises OSError where that fails.

        With `anyway` it need not be written: no knock is accepted until it can be.
        """
        if self.enabled:
            self.limit = min(self.limit, compat.room(_SIZE))
            self.read()
            try:
                self.compact()
            except OSError as error:
                if not anyway:
                    raise
                log.warning("%s: cannot be written anew: %s; until it can no knock is accepted", self.path, error)

    def read(self):
        """Reads the file; raises OSError.

        What is stamped before the machine started is refused from now on: a digest may have been lost with the power.
        """
        now, age = compat.wall(), self.max_age
        for number, line in enumerate(self._lines.read(True)):
            line = line.strip()
            if line.startswith(b"# tinyknop "):
                self._remember(line)
            elif line and not line.startswith(b"#"):
                entry = _parsed(line)
                if entry is None:
                    log.warning("*Skipping invalid digest file entry in %s at line %d.", self.path, number + 1)
                    continue
                digest, arrived, stamp, rest = entry
                self.clock = max(self.clock, arrived)
                stamp = stamp or arrived + age
                if self.ageing and stamp + age <= now:
                    self.floor = max(self.floor, stamp)
                elif digest not in self._seen:
                    self._keep(digest, rest, stamp, stamp + age - now)
        self._booted = compat.boot_wall()

    def _keep(self, digest, rest, stamp, seconds):
        self._seen[digest] = rest
        heapq.heappush(self._queue, (compat.monotonic() + 1000 * seconds, digest, stamp))

    def _remember(self, line):
        for word in line.split()[2:]:
            name, _, value = word.partition(b"=")
            if _whole(value):
                if name == b"floor":
                    self.floor = max(self.floor, int(value))
                elif name == b"clock":
                    self.clock = int(value)

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
        self._forget(now)
        if len(self._seen) >= self.limit:
            raise Rejected("full", "the replay store holds %d digests, its bound" % self.limit)
        rest, age = _rest(datagram, now), self.max_age
        if stamp > now + age:
            rest += b" %d" % stamp
        self._append(to_base64(digest) + b" " + rest + b"\n")
        self._keep(digest, rest, stamp, 2 * age)
        if now < self.clock - age:
            raise Rejected("clock", "the clock is %d s behind what it was; set it" % (self.clock - now))
        self.clock = max(self.clock, now)
        if stamp <= max(self.floor, self._booted):
            raise Rejected("replay", "stamped before the last restart of this machine, or long ago")

    def stepped(self, seconds):
        """Moves the highest time seen, and the start, with a step back of the wall clock that the process saw."""
        if seconds < 0 and self.enabled:
            self.clock += seconds
            self._booted = compat.boot_wall()
            self.compact()

    def adopt(self, other):
        """Takes over what another store knows, in whose place it comes while packets of that are still young."""
        # Where the other one was switched off it does not know what it let in.
        self.floor = max(self.floor, other.floor if other.enabled else compat.wall() - 1)
        self.clock = max(self.clock, other.clock)
        for _, digest, stamp in other._queue:
            if digest not in self._seen:
                self._keep(digest, other._seen[digest], stamp, 2 * self.max_age)
        try:
            self.compact()
        except OSError as error:
            log.warning("%s: cannot be written anew: %s", self.path, error)

    def compact(self):
        """Writes the file anew with what is still kept; raises OSError."""
        note = "# tinyknop floor=%d clock=%d\n" % (self.floor, self.clock)
        lines = [HEADER]
        for _, digest, _ in self._queue:
            lines.append(to_base64(digest) + b" " + self._seen[digest] + b"\n")
        lines.append(note.encode())  # last: it holds against the times of the lines before it
        self._lines.rewrite(lines)

    def _forget(self, now):
        """Drops what may go at the wall-clock second `now`, and remembers the newest stamp among it."""
        queue, ms = self._queue, compat.monotonic()
        while self.ageing and queue and queue[0][0] <= ms:
            _, digest, stamp = heapq.heappop(queue)
            left = stamp + self.max_age - now
            if left > 0:  # the clock was set back, or the window made wider
                heapq.heappush(queue, (ms + 1000 * left, digest, stamp))
            else:
                self.floor = max(self.floor, stamp)
                del self._seen[digest]

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


def _whole(word):
    """Tells whether a word is a number; a longer one is a fault of the disk, and `int` may refuse it."""
    return len(word) <= 12 and word.isdigit()


def _parsed(line):
    """Returns (digest, arrival, stamp or 0, rest of the line), or None for a line that is no entry."""
    words = line.split()
    if len(words) not in (7, 8) or len(words[0]) != 43 or not compat.only_in(words[0], BASE64):
        return None
    if not all([_whole(word) for word in words[6:]]):
        return None
    try:
        net.packed(words[2].decode())
        net.packed(words[4].decode())
    except ValueError:
        return None
    return from_base64(words[0]), int(words[6]), int((words[7:] or (0,))[0]), b" ".join(words[1:])
