"""nf_tables: the words of the `nft` program as netlink messages, and the kernel's answers as what `nft` prints.

Knows only what a port of this project says: tables, base chains, sets and maps whose elements have a time-out, rules
that look a packet up in them, and lists. Opens no socket. `order` is "<" or ">", as in `netlink`; what nf_tables
itself defines is big-endian everywhere.
"""

import struct

from . import net
from .netlink import ACK, CREATE, DUMP, HOST, NESTED, PROTOCOLS, attr, attrs, netfilter

NFTABLES = 10  # nfnetlink's number for the subsystem
BATCH_BEGIN, BATCH_END = 16, 17
NEWTABLE, DELTABLE, NEWCHAIN, GETCHAIN, NEWRULE, GETRULE, DELRULE = 0, 2, 3, 4, 6, 7, 8
NEWSET, GETSET, DELSET, NEWSETELEM, GETSETELEM, DELSETELEM = 9, 10, 11, 12, 13, 14

FAMILIES = (("inet", 1), ("ip", 2), ("ip6", 10), ("arp", 3), ("netdev", 5), ("bridge", 7))
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
TYPES = (("ipv4_addr", 7, 4), ("ipv6_addr", 8, 16), ("inet_proto", 12, 1), ("inet_service", 13, 2))  # name, id, bytes
# What a rule may look at: words, where it is (header, None for the packet's own marks), offset or key, bytes.
FIELDS = (
    ("ip saddr", 1, 12, 4),
    ("ip daddr", 1, 16, 4),
    ("ip6 saddr", 1, 8, 16),
    ("ip6 daddr", 1, 24, 16),
    ("th dport", 2, 2, 2),
    ("meta l4proto", None, 16, 1),
)
MAP, TIMEOUT = 8, 16  # flags of a set


def _find(table, key, column=0):
    """Returns the row of a table with that value in that column; raises ValueError."""
    for row in table:
        if row[column] == key:
            return row
    raise ValueError("%s is not known here" % key)


def _whole(text):
    if not text or len(text) > 10 or not all("0" <= c <= "9" for c in text):
        raise ValueError("%s is not a number" % text)
    return int(text)


class _Pen:
    """Writes attributes in one byte order."""

    def __init__(self, order):
        self.order = order

    def raw(self, kind, data):
        return attr(kind, data, self.order)

    def text(self, kind, data):
        return self.raw(kind, data.encode() + b"\0")

    def number(self, kind, value, size=4):
        return self.raw(kind, (value & 0xFFFFFFFF).to_bytes(size, "big"))

    def nest(self, kind, *parts):
        return self.raw(kind | NESTED, b"".join(parts))

    def expression(self, name, *parts):
        return self.nest(1, self.text(1, name), self.nest(2, *parts))


def value(part):
    """Returns the bytes of one part of a key or of a map's value: an address, a protocol's name or a port."""
    for name, number in PROTOCOLS:
        if name == part:
            return bytes([number])
    return net.packed(part) if ":" in part or "." in part else struct.pack(">H", _whole(part))


def _padded(data):
    return data + bytes(-len(data) % 4)


def _joined(words):
    """Returns the bytes of "192.0.2.7 . tcp . 22": each part is padded to a multiple of four."""
    return b"".join([_padded(value(part)) for part in words.split(" . ")])


def _typed(words):
    """Returns (number, length) of a type such as "ipv4_addr . inet_proto . inet_service"."""
    number, size = 0, 0
    for word in words.split(" . "):
        _, kind, width = _find(TYPES, word)
        number, size = number << 6 | kind, size + width + -width % 4
    return number, size


def _register(word):
    """Returns the number of a register from its first four-byte word: nft says 1 to 4 where those whole ones start."""
    return 8 + word if word % 4 else 1 + word // 4


def _lookup(pen, table, key, into_map, name):
    """Returns the expressions that look a packet's fields up in a set."""
    made, word = b"", 0
    if table == 1:  # inet; elsewhere nft 1.0.6 fails to list a rule that asks for the family
        same = pen.nest(3, pen.raw(1, b"\x02" if key.startswith("ip ") else b"\x0a"))
        made = pen.expression("meta", pen.number(1, 1), pen.number(2, 15))  # nfproto
        made += pen.expression("cmp", pen.number(1, 1), pen.number(2, 0), same)
    for field in key.split(" . "):
        _, header, at, width = _find(FIELDS, field)
        to = pen.number(1, _register(word))
        if header is None:
            made += pen.expression("meta", to, pen.number(2, at))
        else:
            made += pen.expression("payload", to, pen.number(2, header), pen.number(3, at), pen.number(4, width))
        word += (width + 3) // 4
    return made + pen.expression("lookup", pen.text(1, name), pen.number(2, 1), pen.number(3, 1) if into_map else b"")


def _rule(pen, table, words):
    """Returns the expressions of "KEY @SET accept" (or drop, or masquerade) or "dnat ip to KEY map @MAP"."""
    before, _, after = words.partition(" @")
    name, _, verdict = after.rpartition(" ")
    if verdict in ("accept", "drop", "masquerade"):
        made = _lookup(pen, table, before, False, name)
        if verdict == "masquerade":
            return made + pen.expression("masq")
        code = pen.number(1, int(verdict == "accept"))
        return made + pen.expression("immediate", pen.number(1, 0), pen.nest(2, pen.nest(2, code)))
    kind, family, to, key = (before.split(" ", 3) + [""] * 3)[:4]
    if kind not in ("dnat", "snat") or to != "to" or not key.endswith(" map"):
        raise ValueError("not a rule that is made here")
    key = key[:-4]
    number = _find(FAMILIES, family)[1]
    parts = [pen.number(1, int(kind == "dnat")), pen.number(2, number), pen.number(3, 1)]
    if kind == "dnat" and "dport" in key:  # a map that knows the port gives the new one too
        parts.append(pen.number(5, _register(1 if number == 2 else 4)))
    return _lookup(pen, table, key, True, after) + pen.expression("nat", *parts)


def _braced(words):
    """Returns the settings of "{ type … ; flags timeout ; }" as (first word, rest) pairs."""
    return [tuple(item.strip().split(" ", 1)) for item in words.strip("{} ").split(";") if item.strip()]


def _set(pen, seq, words, name):
    settings = dict(_braced(words))
    if settings.get("flags") != "timeout":
        raise ValueError("a set without time-outs would keep elements for ever")
    key, _, data = settings["type"].partition(" : ")
    number, size = _typed(key)
    body = pen.number(3, MAP | TIMEOUT if data else TIMEOUT) + pen.number(4, number) + pen.number(5, size)
    if data:
        number, size = _typed(data)
        body += pen.number(6, number) + pen.number(7, size)
    if "size" in settings:
        body += pen.nest(9, pen.number(1, _whole(settings["size"])))
    return name(2) + body + pen.number(10, seq)


def _elements(pen, words):
    made = []
    for item in words.strip("{} ").split(","):
        item, _, data = item.strip().partition(" : ")
        key, _, seconds = item.partition(" timeout ")
        parts = [pen.nest(1, pen.raw(1, _joined(key)))]
        if data:
            parts.append(pen.nest(2, pen.raw(1, _joined(data))))
        if seconds:
            parts.append(pen.raw(4, (_whole(seconds[:-1]) * 1000).to_bytes(8, "big")))
        made.append(pen.nest(1, *parts))
    return pen.nest(3, *made)


def _chain(pen, words):
    """Returns the body of "{ type nat hook prerouting priority -110 ; policy accept ; }"."""
    kind, hook, number = "", "", ""
    for first, rest in _braced(words):
        if first == "type":
            kind, _, hook, _, number = rest.split(" ")
    place = HOOKS.index(hook)
    body = pen.nest(4, pen.number(1, place), pen.number(2, int(number)))
    return body + pen.number(5, 1) + pen.text(7, kind)


def command(seq, line, order=HOST):
    """Returns (kind, flags, family, body) of one line of an nft script; raises ValueError where it is not known."""
    pen = _Pen(order)
    words = line.split(" ", 5)
    what, family = " ".join(words[:2]), _find(FAMILIES, words[2])[1]
    rest = (words[5:] or [""])[0]

    def name(second=None):
        return pen.text(1, words[3]) + (pen.text(second, words[4]) if second else b"")

    if what == "add table":
        return NEWTABLE, CREATE, family, name()
    if what == "delete table":
        return DELTABLE, 0, family, name()
    if what == "add chain":
        return NEWCHAIN, CREATE, family, name(3) + _chain(pen, rest)
    if what in ("add set", "add map"):
        return NEWSET, CREATE, family, _set(pen, seq, rest, name)
    if what in ("delete set", "delete map"):
        return DELSET, 0, family, name(2)
    if what == "insert rule":
        rest, _, comment = rest.partition(" comment ")
        note = comment.strip('"').encode() + b"\0"
        body = pen.nest(4, _rule(pen, family, rest)) + pen.raw(7, bytes([0, len(note)]) + note)
        return NEWRULE, CREATE, family, name(2) + body
    if what == "delete rule" and rest.startswith("handle "):
        return DELRULE, 0, family, name(2) + pen.number(3, _whole(rest[7:]), 8)
    if what in ("add element", "delete element"):
        kind, flags = (NEWSETELEM, CREATE) if what == "add element" else (DELSETELEM, 0)
        return kind, flags, family, name(2) + _elements(pen, rest)
    raise ValueError("not a command that is known here")


def batch(seq, lines, order=HOST):
    """Returns one transaction; line number n has the sequence number seq + 1 + n, and only the last is acknowledged."""
    made = netfilter(0, BATCH_BEGIN, 0, seq, b"", 0, NFTABLES, order)
    for number, line in enumerate(lines):
        try:
            kind, flags, family, body = command(seq + 1 + number, line, order)
        except (IndexError, KeyError):
            raise ValueError("%s: not a command that is known here" % line)
        except ValueError as error:
            raise ValueError("%s: %s" % (line, error))
        flags |= ACK if number == len(lines) - 1 else 0
        made += netfilter(NFTABLES, kind, flags, seq + 1 + number, body, family, 0, order)
    return made + netfilter(0, BATCH_END, 0, seq + 1 + len(lines), b"", 0, NFTABLES, order)


def questions(seq, words, order=HOST):
    """Returns the messages, to be sent one after the other, whose answers `printed` reads; raises ValueError."""
    pen = _Pen(order)
    words = [word for word in words if word != "-a"]
    if words == ["list", "chains"]:
        return [netfilter(NFTABLES, GETCHAIN, DUMP, seq, b"", 0, 0, order)]
    if len(words) != 5 or words[0] != "list":
        raise ValueError("not a list that is known here")
    family = _find(FAMILIES, words[2])[1]
    names = pen.text(1, words[3]) + pen.text(2, words[4])
    if words[1] == "chain":
        return [netfilter(NFTABLES, GETRULE, DUMP, seq, names, family, 0, order)]
    if words[1] not in ("set", "map"):
        raise ValueError("not a list that is known here")
    return [
        netfilter(NFTABLES, GETSET, ACK, seq, names, family, 0, order),
        netfilter(NFTABLES, GETSETELEM, DUMP, seq + 1, names, family, 0, order),
    ]


def printed(words, bodies, order=HOST):
    """Returns, as `nft` prints it, what was listed, from the answers to `questions`: (number of question, body)."""
    words = [word for word in words if word != "-a"]
    if words[1] == "chains":
        return "".join([_print_chain(body, order) for _, body in bodies])
    head = "table %s %s {\n\t%s %s {\n" % (words[2], words[3], words[1], words[4])
    if words[1] == "chain":
        return head + "".join([_print_rule(body, words[4], order) for _, body in bodies]) + "\t}\n}\n"
    key, data, items = [], [], []
    for number, body in bodies:
        found = dict(attrs(body[4:], order))
        if number == 0:
            key, data = (_types(found.get(kind, b"")) for kind in (4, 6))
            continue
        for _, element in attrs(found.get(3, b""), order):
            items.append(_print_element(dict(attrs(element, order)), key, data, order))
    lines = ["\t\ttype " + " . ".join([row[0] for row in key])]
    lines[0] += " : " + " . ".join([row[0] for row in data]) if data else ""
    lines += ["\t\tflags timeout"]
    lines += ["\t\telements = { " + ",\n\t\t\t     ".join(items) + " }"] if items else []
    return head + "\n".join(lines) + "\n\t}\n}\n"


def _types(number):
    """Returns the rows of TYPES that a type's number stands for; raises ValueError."""
    number = int.from_bytes(number, "big")
    found = []
    while number:
        found.append(_find(TYPES, number & 63, 1))
        number >>= 6
    return list(reversed(found))


def _print_chain(body, order):
    found = dict(attrs(body[4:], order))
    hook = dict(attrs(found.get(4, b""), order))
    lines = ""
    place = int.from_bytes(hook.get(1, b"\xff"), "big")
    if 4 in found and place < len(HOOKS):
        number = struct.unpack(">i", hook[2])[0]
        policy = "accept" if int.from_bytes(found.get(5, b""), "big") else "drop"
        kind = (_string(found[7]), HOOKS[place], number, policy)
        lines = "\t\ttype %s hook %s priority %d; policy %s;\n" % kind
    family = [name for name, number in FAMILIES if number == body[0]] or ["?"]
    names = (family[0], _string(found[1]), _string(found[3]), lines)
    return "table %s %s {\n\tchain %s {\n%s\t}\n}\n" % names


def _print_rule(body, chain, order):
    """Returns a rule's comment and handle; what it does is left out, and all of another chain's."""
    found = dict(attrs(body[4:], order))
    if _string(found.get(2, b"")) != chain:  # kernels before 4.12 list the whole table
        return ""
    notes, comment = found.get(7, b""), ""
    while len(notes) >= 2:
        if notes[0] == 0:
            comment = ' comment "%s"' % _string(notes[2 : 2 + notes[1]])
        notes = notes[2 + notes[1] :]
    return "\t\t...%s # handle %d\n" % (comment, int.from_bytes(found.get(3, b""), "big"))


def _print_element(found, key, data, order):
    text = _print_value(found.get(1, b""), key, order)
    for kind, word in ((4, "timeout"), (5, "expires")):
        if kind in found:
            text += " %s %ds" % (word, int.from_bytes(found[kind], "big") // 1000)
    return text + " : " + _print_value(found[2], data, order) if data and 2 in found else text


def _print_value(nested, types, order):
    raw = b"".join([part for kind, part in attrs(nested, order) if kind == 1])
    parts = []
    for name, _, width in types:
        part, raw = raw[:width], raw[width + -width % 4 :]
        if name == "inet_proto":
            parts.append(([known for known, number in PROTOCOLS if bytes([number]) == part] or [str(part[0])])[0])
        else:
            parts.append(str(struct.unpack(">H", part)[0]) if width == 2 else net.printed(part))
    return " . ".join(parts)


def _string(data):
    """Returns the text of a name, whoever gave it: what is not ASCII as "?"."""
    return "".join([chr(c) if 32 <= c < 127 else "?" for c in data if c])
