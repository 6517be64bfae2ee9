"""Keywords: what a table of keywords is, for settings and for stanzas, and the parsers that both use.

Readers hand over entries (name, text, "FILE:LINE"); what a text means is known in `settings.py` and `stanza.py` only. A
parser takes (text, warn): `warn` is None where only what is meant beyond doubt is taken, else what fwknop runs with is
taken and warned of. It raises ValueError with a reason that says what to write.
"""

from . import compat, net
from .errors import ConfigError

DIGITS = b"0123456789"


def address(value, warn):
    """Reads an address into its canonical text."""
    return net.printed(net.packed(value))


def anything(value, warn):
    """Takes any text."""
    return value


def text(value, warn):
    """Reads a text, which must not be empty."""
    if not value:
        raise ValueError("has no value")
    return value


def yes(value, warn):
    """Reads a yes or no; fwknop looks at the first letter only, and takes all but a y for no."""
    if value.lower() not in ("y", "n", "yes", "no"):
        if warn is None:
            raise ValueError("%r is neither Y nor N" % value)
        warn("%r is taken for %s: write Y or N" % (value, "Y" if value[:1] in ("y", "Y") else "N"))
    return value[:1] in ("y", "Y")


def number(low, top):
    """Returns a parser of whole numbers; fwknop reads leading digits and forgets the rest."""

    def parse(value, warn):
        digits = value
        if not value or not compat.only_in(value.encode(), DIGITS):
            digits = value[: leading(value)]
            if warn is None or value[:1] in ("-", "+"):
                raise ValueError("%r is not a whole number from %d to %d" % (value, low, top))
            warn("%r is taken for %s: write the number alone" % (value, digits or "0"))
        if len(digits) > 18 or not low <= int(digits or "0") <= top:
            raise ValueError("value '%s' not in the range %d-%d" % (value, low, top))
        return int(digits or "0")

    return parse


def leading(value):
    """Returns how many digits a text begins with."""
    count = 0
    while count < len(value) and "0" <= value[count] <= "9":
        count += 1
    return count


def one_of(names):
    """Returns a parser of one of some names, in capitals or not."""

    def parse(value, warn):
        if value.lower() not in names:
            raise ValueError("%r is not one of %s" % (value, ", ".join(names)))
        return value.lower()

    return parse


class Keywords:
    """A table of rows (fwknop's name, our name, attribute, parser, default), and what is known beside it.

    `later` are rows (name, parser, default) of features that are not built yet: only their default is taken.
    `idle` are rows (name, parser) that steer something which we do not have, such as the sleep of a polling loop.
    """

    def __init__(self, rows, later, idle, kind):
        self.table = rows
        self.kind = kind  # what fwknop calls one of them: "access" or "configuration"
        self.rows = {}
        for row in rows:
            for name in row[:2]:
                if name:
                    self.rows[name] = row
        self.later = {row[0]: row for row in later}
        self.idle = {row[0]: row for row in idle}

    def read(self, entries, warn, any_case=False):
        """Returns ({attribute: value}, {attribute: "FILE:LINE"}) of entries; raises ConfigError."""
        values = {row[2]: row[4] for row in self.table}
        places = {}
        for name, value, where in entries:
            if any_case and name not in self.rows and name == name.lower():
                name = name.upper()
            said = None if warn is None else _saying(warn, where, name)
            try:
                row = self._row(name, value, where, said, warn)
                if row is not None:
                    values[row[2]] = row[3](value, said)
                    places[row[2]] = where
            except ValueError as error:
                raise ConfigError(where, "%s: %s" % (name, error.args[0] if error.args else "is wrong"))
        return values, places

    def _row(self, name, value, where, said, warn):
        """Returns the row of a name that counts; None where it does not."""
        if name in self.rows:
            return self.rows[name]
        if name in self.idle:
            self.idle[name][1](value, said)
            return None
        if name in self.later:
            _, parser, default = self.later[name]
            if parser(value, said) != default:
                reason = "not supported yet: take the line out"
                if warn is None or self.kind == "access":
                    raise ValueError(reason)
                said(reason + "; it has no effect")
            return None
        remedy = meant(name, list(self.rows) + list(self.later) + list(self.idle))
        if warn is None:
            raise ConfigError(where, "%s: no such keyword%s" % (name[:40], remedy or "; take the line out"))
        file, _, _ = where.rpartition(":")
        text = "%s: [*] Ignoring unknown %s parameter: '%s' in %s%s"
        warn(text % (where, self.kind, name[:40], file, remedy or "; take the line out"))
        return None


def _saying(warn, where, name):
    return lambda reason: warn("%s: %s: %s" % (where, name, reason))


def meant(name, known):
    """Returns " (did you mean ...?)" for the known name nearest to a wrong one, or ""."""
    best, least = "", 4  # more than three slips are another word
    for other in known:
        if len(name) <= 40 and abs(len(other) - len(name)) < least:
            apart = _apart(name.upper(), other.upper())
            if apart < least and apart * 3 <= len(other):
                best, least = other, apart
    return " (did you mean %s?)" % best if best else ""


def _apart(one, other):
    """Returns how many letters to put in, take out or change make one text the other."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        last, row[0] = row[0], i + 1
        for j, wanted in enumerate(other):
            last, row[j + 1] = row[j + 1], min(row[j] + 1, row[j + 1] + 1, last + (letter != wanted))
    return row[-1]
