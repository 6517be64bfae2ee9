"""What the daemon says about knocks and grants, one method per event. A front end with words of its own replaces it."""

from . import compat, log

BURST = 40  # lines about refused packets in a second; a flood must not fill a disk


class Limiter:
    """Lets BURST lines through in each second."""

    def __init__(self) -> None:
        self._second = self._lines = 0

    def spent(self):
        """Tells whether enough was said in this second."""
        now = compat.monotonic() // 1000
        if now != self._second:
            self._second, self._lines = now, 0
        return self._lines >= BURST

    def say(self, write, text):
        """Gives `write`, a function of log, a line, if it is not one too many."""
        if self.spent():
            return
        self._lines += 1
        write("%s", text)
        if self._lines == BURST:
            write("%s", "more is refused in this second; it is only counted")


class Says:
    """The daemon's own words. Nothing said here holds a key, a plain text or a whole packet."""

    replay = None  # the daemon's Replay store

    def __init__(self) -> None:
        self._junk, self._proven = Limiter(), Limiter()

    def limiter(self, decision):
        """Returns what bounds the lines about a refusal: junk must not drown what somebody with a key does."""
        return self._junk if decision.packet is None else self._proven

    def read(self, packet):
        """A packet proved itself and was decoded; nothing of it is for the log."""

    def refused(self, decision, datagram):
        """A datagram was refused; only what proved itself, or could not be remembered, is worth a line."""
        if decision.packet is not None or decision.stage in ("full", "signature"):
            words = (decision.stanza.name, decision.stage, decision.reason)
            self.limiter(decision).say(log.warning, "(stanza %s) refused at %s: %s" % words)

    def summed(self, news):
        """Since the last time, so many datagrams were refused: (stage, number) of each stage that has any."""
        log.info("refused since the last summary: %s", ", ".join(["%s %d" % pair for pair in news]))

    def by_hand(self, grant):
        """A person opened something with `tinyknop open`."""
        log.info("opened %s for %s until %d, by hand", openings(grant), grant.source, grant.until)

    def opened(self, grant, stanza, datagram):
        """A grant is in the journal, and its ports are being told."""
        log.info("(stanza %s) opened %s for %s until %d", grant.stanza, openings(grant), grant.source, grant.until)

    def commanded(self, command, stanza, datagram):
        """A command message is about to be carried out."""
        log.info("(stanza %s) running a command for %s", stanza.name, command.source)

    def added(self, port, grant):
        """A port has confirmed that a grant, or a part of it, is open."""

    def closing(self, grant):
        """A grant is at its end."""
        log.info("(stanza %s) closing %s for %s", grant.stanza, openings(grant), grant.source)

    def removed(self, port, grant):
        """A port has confirmed that a grant is closed."""


def openings(grant):
    """Returns "tcp/22,udp/53" for a grant."""
    return ",".join(["%s/%d" % opening for opening in grant.openings])
