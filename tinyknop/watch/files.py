"""psad's files, read as they are: `signatures`, `auto_dl`, `snort_rule_dl`, `icmp_types`, `icmp6_types`, psad.conf.

A line that means nothing here is left out and told by its number; what a rule cannot be decided by is never guessed.
"""

from collections import namedtuple

from tinyknop import log, net
from tinyknop.errors import ConfigError

# ports: (negated, ((low, high), ...)) or None for any; networks: the same with (address, bits).
Signature = namedtuple("Signature", "proto source sports destination dports tests sid message level")
Auto = namedtuple("Auto", "network level proto ports")  # proto "" for any, ports () for any

# Option of a signature -> field of an Event, "data" for the size of what the packet carries.
NUMBERS = {"ttl": "ttl", "id": "id", "window": "window", "seq": "seq", "itype": "kind", "icode": "code"}
NUMBERS.update({"icmp_id": "icmp_id", "icmp_seq": "icmp_seq", "ip_len": "size", "psad_ip_len": "size"})
NUMBERS.update({"dsize": "data", "psad_dsize": "data"})
_NOTES = "msg sid psad_id psad_dl classtype reference rev psad_derived_sids metadata".split()
OPTIONS = {"eol": 0, "nop": 1, "rr": 7, "ts": 68, "sec": 130, "lsrr": 131, "lsrre": 132, "satid": 136, "ssrr": 137}
DEFAULT = 2  # the danger level of a signature, an invalid ICMP packet or a known rule that says none


def lines(path):
    """Yields (number, text) of a file's lines without comments and blanks; raises ConfigError."""
    try:
        with open(path, "rb") as file:
            number = 0
            for line in file:
                number += 1
                text = "".join([chr(byte) for byte in line if 32 <= byte < 127 or byte == 9])
                if text.strip() and text.strip()[:1] != "#":
                    yield number, text
    except OSError as error:
        raise ConfigError(path, "cannot read it: error %s" % error.errno)


def readable(path, read):
    """Returns [read(text), ...] of a file's lines; one that `read` raises ValueError for is told and left out."""
    found = []
    for number, text in lines(path):
        try:
            found.append(read(text.strip()))
        except (ValueError, IndexError) as error:
            log.warning("%s:%d: left out: %s", path, number, error)
    return [one for one in found if one is not None]


def options_of(text):
    """Returns [(name, value), ...] of a Snort rule's options; quotes and what is escaped in them are kept."""
    found, start, quoted, at = [], 0, False, 0
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            quoted = not quoted
        elif text[at] == ";" and not quoted:
            found.append(text[start:at])
            start = at + 1
        at += 1
    pairs = [item.partition(":") for item in found]
    return [(name.strip(), value.strip()) for name, _, value in pairs if name.strip()]


def signature(text):
    """Reads a line of `signatures`; raises ValueError where it cannot be decided by a packet's headers."""
    head, bracket, body = text.partition("(")
    words = head.replace(", ", ",").split()
    if len(words) != 7 or words[0] != "alert" or words[4] not in ("->", "<>") or not bracket:
        raise ValueError("not `alert PROTO SRC PORT -> DST PORT (...)`")
    body = body[: body.rfind(")")]
    options = options_of(body + ";")
    tests, notes = [], {}
    for name, value in options:
        if name in _NOTES:
            notes[name] = value.strip('"')
        elif name == "flags":
            tests.append(("flags", "=", flags(value)))
        elif name == "ipopts":
            tests.append(("options", "=", OPTIONS[value] if value in OPTIONS else _no(value)))
        elif name == "sameip":
            tests.append((name, "=", 1))
        elif name in NUMBERS:
            sign = value[:1] if value[:1] in ("<", ">", "!") else "="
            tests.append((NUMBERS[name], sign, int(value.lstrip("<>!"))))
        else:
            _no(name)
    sides = [_networks(words[2]), ports(words[3]), _networks(words[5]), ports(words[6])]
    sid = int(notes.get("sid") or notes.get("psad_id") or 0)
    level = int(notes.get("psad_dl", DEFAULT))
    return Signature(words[1], *sides + [tuple(tests), sid, notes.get("msg", ""), level])


def _no(what):
    raise ValueError("%s is not known here" % what)


def flags(text):
    """Returns the letters of TCP flags, sorted; what may be set besides (after a comma) psad 2.4.6 does not heed.

    "0" is None, which no packet has: psad's signatures never match a packet without flags. "none" does.
    """
    if text == "0":
        return None
    letters = "" if text == "none" else text.partition(",")[0].rstrip("+*")
    for letter in letters:
        if letter not in "SFRPAU12":
            _no("flags:" + text)
    return "".join(sorted(letters))


def ports(text):
    """Reads ports: any, $NAME, 80, !80, 1024:, 1:5, [1,2:3]; returns None for any."""
    bare, negated = text.lstrip("!"), text[:1] == "!"
    if bare == "any" or bare[:1] == "$":
        return None
    found = []
    for item in bare.strip("[]").split(","):
        low, colon, high = item.strip().replace("-", ":").partition(":")
        found.append((int(low or 0), int((high or 65535) if colon else low)))
    return negated, tuple(found)


def _networks(text):
    bare, negated = text.lstrip("!"), text[:1] == "!"
    if bare == "any" or bare[:1] == "$":
        return None
    return negated, tuple([net.network(item.strip()) for item in bare.strip("[]").split(",")])


def auto_dl(text):
    """Reads a line of `auto_dl`: ADDRESS-or-NETWORK LEVEL [PROTO[/PORTS]];"""
    words = text.partition("#")[0].replace(";", " ").split()
    level = int(words[1])
    if not 0 <= level <= 5:
        raise ValueError("%d is no danger level from 0 to 5" % level)
    proto, _, some = (words[2] if len(words) > 2 else "").partition("/")
    found = ports(some) if some else None
    return Auto(net.network(words[0]), level, proto.lower(), found[1] if found else ())


def rule_dl(text):
    """Reads a line of `snort_rule_dl`: SID LEVEL;"""
    words = text.partition("#")[0].replace(";", " ").split()
    return int(words[0]), int(words[1])


def icmp_types(path):
    """Returns the set of valid (type, code) of psad's icmp_types or icmp6_types."""
    found, kind = set(), None
    for _, text in lines(path):
        number = text.split()[0]
        if not number.isdigit() or len(number) > 3:
            continue
        if len(text) - len(text.lstrip()) < 3:  # codes stand further to the right than their type
            kind = int(number)
        elif kind is not None:
            found.add((kind, int(number)))
    return found


def conf(path):
    """Returns {name: text} of psad.conf."""
    found = {}
    for _, text in lines(path):
        words = text.partition(";")[0].split(None, 1)
        if len(words) == 2:
            found[words[0]] = words[1].strip()
    return found
