"""Grants opened and closed, on disk: one line per event, written before a port is asked and after it confirmed.

    open ID SOURCE OPENINGS OPENED UNTIL STANZA NAT PORTS DESTINATION SENDER
    close ID

A torn last line, which a power cut leaves, is ignored. Names are percent-encoded; "-" stands for nothing.
"""

from . import log, net
from .errors import Rejected
from .grants import Grant, Nat
from .lines import Lines

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_."


class Journal:
    """The file of live grants; `open` and `close` append, `load` reads and `rewrite` compacts."""

    def __init__(self, path):
        self.path = path
        self._lines = Lines(path)

    def load(self):
        """Returns [(grant, port names)] of the grants that were opened and not closed; raises OSError."""
        live = {}
        for line in self._lines.read():
            if line.endswith(b"\n"):
                self._read(line[:-1], live)
        return [live[number] for number in sorted(live)]

    def _read(self, line, live):
        try:
            words = line.decode().split(" ")
            if words[0] == "open":
                grant, ports = _parsed(words)
                live[grant.id] = (grant, ports)
            elif words[0] == "close":
                live.pop(int(words[1]), None)
            elif words[0]:
                raise ValueError
        except (ValueError, IndexError):
            log.warning("%s: a line that is no event of the journal is ignored", self.path)

    def rewrite(self, entries):
        """Writes the file anew with just [(grant, port names)]; raises OSError."""
        self._lines.rewrite([_line(grant, ports) for grant, ports in entries])

    def opened(self, grant, ports, lasting):
        """Writes that a grant is about to be opened; `lasting` makes that safe from a power cut.

        Raises Rejected("full", ...) where it cannot be written: the grant could not be made safe.
        """
        try:
            self._lines.append(_line(grant, ports), lasting)
        except OSError as error:
            raise Rejected("full", "the journal cannot be written: %s" % error)

    def closed(self, number):
        """Writes that every port confirmed the close; a failure is harmless, since closing twice is."""
        try:
            self._lines.append(b"close %d\n" % number)
        except OSError as error:
            log.warning("%s: cannot be written: %s", self.path, error)

    def overgrown(self, live):
        """Tells whether the file is worth compacting, with so many grants live."""
        return self._lines.overgrown(live)


def _line(grant, ports):
    words = (
        "open",
        "%d" % grant.id,
        grant.source,
        ",".join(["%s/%d" % opening for opening in grant.openings]),
        "%d" % grant.opened,
        "%d" % grant.until,
        _quoted(grant.stanza),
        "%d,%s,%d,%s,%d,%d" % tuple(grant.nat) if grant.nat else "-",
        ",".join([_quoted(port) for port in ports]) or "-",
        grant.destination,
        grant.sender,
    )
    return " ".join(words).encode() + b"\n"


def _parsed(words):
    if len(words) != 11:
        raise ValueError
    ports = () if words[8] == "-" else tuple([_unquoted(port) for port in words[8].split(",")])
    source, destination, sender = [net.printed(net.packed(words[i])) for i in (2, 9, 10)]
    opened, until = int(words[4]), int(words[5])
    openings, stanza = net.openings(words[3]), _unquoted(words[6])
    return Grant(int(words[1]), source, openings, opened, until, stanza, _nat(words[7]), destination, sender), ports


def _nat(word):
    if word == "-":
        return None
    local, host, port, snat, every, dnat = word.split(",")
    if snat not in ("None", "masquerade"):
        snat = net.printed(net.packed(snat))
    host = net.printed(net.packed(host))
    return Nat(local == "1", host, int(port), None if snat == "None" else snat, every == "1", dnat == "1")


def _quoted(text):
    """Returns a name as one word without blank or comma."""
    return "".join([chr(byte) if byte in _PLAIN else "%%%02x" % byte for byte in text.encode()]) or "%"


def _unquoted(word):
    parts = word.split("%")
    out = parts[0].encode()
    for item in parts[1:]:
        out += bytes([int(item[:2], 16)]) + item[2:].encode() if item else b""
    return out.decode()
