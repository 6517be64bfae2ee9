"""Grants opened and closed, on disk: one line per event, written before a port is asked and after it confirmed.

    open ID SOURCE OPENINGS OPENED UNTIL STANZA NAT PORTS DESTINATION SENDER
    begun ID PORT OPENINGS
    close ID

`begun` is written before a port is told what cannot be read back, as a command: a start begins what has not begun, and
repeats nothing, unless it was asked for again by another `open`. A torn last line, which a power cut leaves, is
ignored. Names are percent-encoded; "-" stands for nothing. Each line ends in " #" and its CRC-32: one changed digit of
UNTIL would be a hole for years.
"""

from binascii import crc32

from . import log, loop, net
from .errors import Rejected
from .grants import Grant, Nat
from .lines import Lines

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_."


class Journal:
    """The file of live grants; `open` and `close` append, `load` reads and `rewrite` compacts."""

    def __init__(self, path):
        self.path = path
        self.begun = {}  # grant id -> {port name: tuple of the openings that have begun there}
        self._lines = Lines(path)
        self._compacts = False

    def load(self):
        """Returns [(grant, port names)] of the grants that were opened and not closed; raises OSError."""
        live: dict = {}
        known: dict = {}
        for line in self._lines.read():
            if line.endswith(b"\n"):
                self._read(line[:-1], live, known)
        return [live[number] for number in sorted(live)]

    def _read(self, line, live, known):
        try:
            line, _, check = line.rpartition(b" #")
            if check != b"%08x" % crc32(line):
                raise ValueError
            words = line.decode().split(" ")
            if words[0] == "open":
                grant, ports = _parsed(words, known)
                live[grant.id] = (grant, ports)
                self.begun.pop(grant.id, None)
            elif words[0] == "close":
                live.pop(int(words[1]), None)
                self.begun.pop(int(words[1]), None)
            elif words[0] == "begun":
                self._mark(int(words[1]), _unquoted(words[2]), net.openings(words[3]))
            else:
                raise ValueError
        except (ValueError, IndexError):
            log.warning("%s: a line that is no event of the journal is ignored", self.path)

    def rewrite(self, entries):
        """Writes the file anew with just [(grant, port names)]; raises OSError."""
        for _ in self.renewal(entries):
            pass

    def renewal(self, entries):
        """Does the same a part at a time, as it is iterated over; what is opened and closed meanwhile is kept."""
        return self._lines.renewal(self._all(entries))

    def _all(self, entries):
        for grant, ports in entries:
            yield _line(grant, ports)
            for name, openings in list(self.begun.get(grant.id, {}).items()):  # another port may begin meanwhile
                yield _begun(grant.id, name, openings)

    def renew(self, entries):
        """Does the same; a failure is only told, since the old file still tells all."""
        try:
            self.rewrite(entries)
        except OSError as error:
            log.warning("%s: cannot be written anew: %s", self.path, error)

    async def compact(self, entries):
        """Does the same with pauses: with thousands of grants it takes a second.

        `entries` returns them when it begins: what comes between that and the first line would be lost.
        """
        try:
            for _ in self.renewal(entries()):
                await loop.sleep(0)
        except OSError as error:
            log.warning("%s: cannot be written anew: %s", self.path, error)
        self._compacts = False

    def opened(self, grant, ports, lasting):
        """Writes that a grant is about to be opened; `lasting` makes that safe from a power cut.

        Raises Rejected("full", ...) where it cannot be written: the grant could not be made safe.
        """
        try:
            self._lines.append(_line(grant, ports), lasting)
        except OSError as error:
            raise Rejected("full", "the journal cannot be written: %s" % error)
        self.begun.pop(grant.id, None)

    def begins(self, number, port, openings):
        """Writes that a port is about to begin openings of a grant; tells whether it may, which is where that was
        written. Only a power cut can undo it, and with it what was begun on this machine.
        """
        written = self._append(_begun(number, port, openings))
        if written:
            self._mark(number, port, openings)
        return written

    def _mark(self, number, port, openings):
        held = self.begun.setdefault(number, {})
        held[port] = held.get(port, ()) + tuple([one for one in openings if one not in held.get(port, ())])

    def closed(self, number):
        """Writes that every port confirmed the close; a failure is harmless, since closing twice is."""
        self.begun.pop(number, None)
        self._append(_summed(b"close %d" % number))

    def _append(self, line):
        try:
            self._lines.append(line)
        except OSError as error:
            log.warning("%s: cannot be written: %s", self.path, error)
            return False
        return True

    def overgrown(self, needed):
        """Tells whether to `compact` the file now, with so many grants live or owed."""
        if self._compacts or not self._lines.overgrown(needed + len(self.begun)):
            return False
        self._compacts = True
        return True


def _line(grant, ports):
    words = (
        "open",
        "%d" % grant.id,
        grant.source,
        _openings(grant.openings),
        "%d" % grant.opened,
        "%d" % grant.until,
        _quoted(grant.stanza),
        "%d,%s,%d,%s,%d,%d" % tuple(grant.nat) if grant.nat else "-",
        ",".join([_quoted(port) for port in ports]) or "-",
        grant.destination,
        grant.sender,
    )
    return _summed(" ".join(words).encode())


def _openings(openings):
    return ",".join(["%s/%d" % opening for opening in openings])


def _begun(number, port, openings):
    return _summed(("begun %d %s %s" % (number, _quoted(port), _openings(openings))).encode())


def _summed(line):
    return line + b" #%08x\n" % crc32(line)


def _parsed(words, known):
    """Reads the words of a grant; `known` keeps what many have in common: (kind, word) -> what it means."""

    def meant(read, word):
        if (read, word) not in known:
            known[read, word] = read(word)
        return known[read, word]

    if len(words) != 11:
        raise ValueError
    source, opened, until = _address(words[2]), int(words[4]), int(words[5])
    openings, stanza = meant(net.openings, words[3]), meant(_unquoted, words[6])
    ports, destination = meant(_names, words[8]), meant(_address, words[9])
    sender = source if words[10] == words[2] else meant(_address, words[10])
    return Grant(int(words[1]), source, openings, opened, until, stanza, _nat(words[7]), destination, sender), ports


def _address(word):
    return net.printed(net.packed(word))


def _names(word):
    return () if word == "-" else tuple([_unquoted(name) for name in word.split(",")])


def _nat(word):
    if word == "-":
        return None
    local, host, port, snat, every, dnat = word.split(",")
    if snat not in ("None", "masquerade"):
        snat = _address(snat)
    host = _address(host)
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
