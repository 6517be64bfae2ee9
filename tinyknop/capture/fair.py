"""Fair queues for captures that read sockets: who floods fills a queue of his own, not that of everybody. Linux.

In calm there is one socket, which costs no more than it ever did. When it brings a whole quota at a time, further
sockets of its group are opened, and a program in the kernel chooses among them by the source: each source has its
queue, and all are read in turn. Sources with many bogus packets are listed for some seconds in that program, which
sends them to the first socket, then the penalty queue. They are not dropped, since a source can be forged. An IPv6
source is its /64. Packets with the hint of a stanza have the last queue, whoever sends them.
"""

import socket

from tinyknop import hints, log
from tinyknop.capture import BUFFER, QUOTA, filters
from tinyknop.compat import monotonic, urandom

QUEUES = 17  # sockets under flood, among them the penalty queue, and one for packets with a hint
ROOM = BUFFER // 32  # bytes of each but the first: 500 packets, as what waits longer only delays what comes later
SHARE = 4  # datagrams of a queue in its turn: all queues together hold up a timer by a quarter of a millisecond
PENALTY_SHARE = 8  # of the penalty queue, which as a rule is the only one that is full
TICK_MS = 100  # between two looks at who floods; a new program stops us for a grace period of RCU, up to 16 ms
MANY, FEW = 50, 5  # bogus packets of a source in that time; fewer while queues are full and nobody has so many
LISTED_MS = 3000
MOST = 1000  # sources in the list: 1,700 instructions of the 4,096 that a program may have
PREFERRED = 2000  # hints in the program, two thirds of which may be the list
COUNTED = 4096  # sources counted in one tick
CALM_MS = 10000  # without any of this, one socket will do again

EVERYBODY = [(filters.RET, 0, 0, 0)]  # all to the first socket


class Fence:
    """The queues of one capture, from its first flood on."""

    def __init__(self, name, loop, drain, groups, words=()):
        """`drain(sock)` reads at most a quota of datagrams (see `turn`), and calls `full` where it took so many.

        A group is (a socket that is being read, another, attach): `another()` returns a further socket, and
        `attach(program)` puts in place what chooses among them; both may raise OSError. For `words` see `prefer`.
        """
        self.listed = {}  # source -> until when (ms)
        self.flooded = False
        self._words = words
        self._misused = 0  # bogus packets with a hint since the last look
        self._name, self._loop, self._drain = name, loop, drain
        self._groups = [([first], another, attach) for first, another, attach in groups]
        self._counts = {}
        self._many = MANY
        self._late = self._busy = False  # the penalty queue was full, or another one
        self._timer = None
        self._calm = 0  # when (ms) it will be calm, if nothing more happens
        self._factors = [int.from_bytes(urandom(4), "big") | 1 for _ in range(2)]  # nobody can choose his queue
        self._begin()

    def others(self):
        """Returns the sockets that were opened here."""
        return [sock for group in self._groups for sock in group[0][1:]]

    def stop(self):
        """Closes what was opened here, for good."""
        if self._timer:
            self._timer.cancel()
        for sock in self.others():
            self._loop.reader(sock, None)
            sock.close()
        self._groups = []

    def turn(self, sock):
        """Returns (quota, whom to tell the sources of bogus packets or None, sources not worth looking at here).

        These are the listed ones, unless it is the penalty queue: what they sent before would hold up everybody else.
        """
        if not self.flooded:
            return QUOTA, None, ()
        for sockets, _, _ in self._groups:
            if sockets[0] is sock:
                return PENALTY_SHARE, self._count, ()
            if sockets[-1] is sock:
                return SHARE, self._misuse, ()
        return SHARE, self._count, self.listed

    def prefer(self, words):
        """Gives packets with these hints (`Hints.words`) a queue of their own, as far as there is room for them."""
        self._words = words
        try:
            if self.flooded:
                self._install()
        except OSError as error:
            log.debug("%s: program not taken: error %d", self._name, error.errno)

    def full(self, sock, bogus):
        """Is told that a drain has used up its quota, and how many of these packets were bogus."""
        if self._first(sock):
            self._late = True
        else:
            self._busy = True
        if not self.flooded and self._groups and bogus * 2 > QUOTA:
            self._begin()

    def _first(self, sock):
        for group in self._groups:
            if group[0][0] is sock:
                return True
        return False

    def _begin(self):
        try:
            for sockets, another, _ in self._groups:
                while len(sockets) < QUEUES:
                    sockets.append(another())
                    modest(sockets[-1])
            self._install()
        except OSError as error:
            log.warning("%s: flooded, and no fair queues here (error %d): one for all", self._name, error.errno)
            self.stop()
            return
        for sock in self.others():
            try:
                sock.recv(1)  # an error from before (ENETDOWN), which nobody has asked for
            except OSError:
                pass
            self._loop.reader(sock, lambda sock=sock: self._drain(sock))
        self.flooded = True
        self._calm = monotonic() + CALM_MS
        self._later()
        log.info("%s: flooded; each source has a queue of its own now", self._name)

    def _end(self):
        for _, _, attach in self._groups:
            attach(EVERYBODY)
        for sock in self.others():
            self._drain(sock)
            self._loop.reader(sock, None)
        self.flooded = False
        log.info("%s: the flood is over", self._name)

    def _later(self):
        self._timer = self._loop.at(monotonic() + TICK_MS, self._tick)

    def _count(self, source):
        source, counts = source[:8], self._counts
        if source in counts:
            counts[source] += 1
        elif len(counts) < COUNTED:
            counts[source] = 1

    def _misuse(self, source):
        self._misused += 1

    def _tick(self):
        """Lists who has sent too much, forgets who was listed long enough, and ends it all when it has been calm."""
        now, listed, counts = monotonic(), self.listed, self._counts
        fresh = [source for source in counts if counts[source] > self._many and source not in listed]
        fresh = fresh[: MOST - len(listed)]
        # While the penalty queue overflows, who is seen there stays: let go, he would fill the others for a moment.
        stay = [source for source in listed if self._late and source in counts]
        for source in fresh + stay:
            listed[source] = now + LISTED_MS
        gone = [source for source in listed if listed[source] <= now]
        for source in gone:
            del listed[source]
        if self._busy or self._late or listed:
            self._calm = now + CALM_MS
        if not self._busy or len(counts) >= COUNTED:
            self._counts = {}
        else:  # the slow ones need more than one tick to show
            self._counts = {source: counts[source] for source in counts if source not in listed}
        self._many = MANY if not self._busy else self._many if fresh else max(self._many // 2, FEW)
        self._busy = self._late = False
        misused, self._misused = self._misused > MANY, 0
        if misused:  # somebody has seen a hint and floods with it: it is worth nothing until there are new ones
            self._words = ()
        try:
            if fresh or gone or misused:
                self._install()
            if now >= self._calm:
                return self._end()
        except OSError as error:
            log.debug("%s: program not taken: error %d", self._name, error.errno)
        self._later()

    def _install(self):
        keys = [key(source, self._factors) for source in self.listed]
        for sockets, _, attach in self._groups:
            program = spread(keys, max(len(sockets) - 1, 1), self._factors)
            if 0 < len(self._words) <= PREFERRED:
                program = hinted(self._words, len(sockets) - 1) + program
            attach(program)


def key(source, factors):
    """Returns the 32-bit key of a packed source (4 bytes, or the first 8 of an IPv6 address), as the program does."""
    number = int.from_bytes(source[-4:], "big")
    if len(source) == 8:
        number += int.from_bytes(source[:4], "big") * factors[1]
    return number * factors[0] & 0xFFFFFFFF


def spread(keys, queues, factors):
    """Returns the program that names the queue of a packet: 0 for the listed keys, else one from 1 to queues - 1."""
    lines = [
        (None, filters.LD_B, filters.NET),
        (None, filters.AND, 0xF0),
        (None, filters.JEQ, 0x60, "six", None),
        (None, filters.LD_W, filters.NET + 12),
        (None, filters.JEQ, 0, "key", "key"),
        ("six", filters.LD_W, filters.NET + 8),
        (None, filters.MUL, factors[1]),
        (None, filters.TAX, 0),
        (None, filters.LD_W, filters.NET + 12),
        (None, filters.ADD_X, 0),
        ("key", filters.MUL, factors[0]),
        (None, filters.ST, 0),
        (None, filters.RSH, 16),
        (None, filters.MUL, queues - 1),
        (None, filters.RSH, 16),
        (None, filters.ADD, 1),
        (None, filters.TAX, 0),
        (None, filters.LD_M, 0),
    ]
    return filters.assemble(lines) + filters.search(sorted(keys), 0)


def hinted(words, queue):
    """Returns the program that names `queue` for packets with one of these hints, and goes on behind for all others."""
    lines = [
        (None, filters.LD_B, filters.NET),
        (None, filters.AND, 0xF0),
        (None, filters.LDX_IMM, 40),
        (None, filters.JEQ, 0x60, "word", None),
        (None, filters.LDX_IHL, filters.NET),
        ("word", filters.JA, 0),
    ]
    return filters.assemble(lines) + hints.program(words, queue, filters.NET)


def modest(sock):
    """Gives a socket ROOM for its queue; without CAP_NET_ADMIN it keeps what the kernel gives to everybody."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, 33, ROOM)  # SO_RCVBUFFORCE
    except OSError:
        pass
