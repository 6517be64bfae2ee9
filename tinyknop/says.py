"""What the daemon says about knocks and grants, one method per event. A front end with words of its own replaces it."""

from . import log


class Says:
    """The daemon's own words. Nothing said here holds a key, a plain text or a whole packet."""

    replay = None  # the daemon's Replay store

    def read(self, packet):
        """A packet proved itself and was decoded; nothing of it is for the log."""

    def refused(self, decision, datagram):
        """A datagram was refused; only what proved itself, or could not be remembered, is worth a line."""
        if decision.packet is not None or decision.stage in ("full", "signature"):
            log.warning("(stanza %s) refused at %s: %s", decision.stanza.name, decision.stage, decision.reason)

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
