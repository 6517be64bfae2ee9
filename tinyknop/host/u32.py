"""Tests of a packet's numbers as words for iptables: `-m u32`, and `-m bpf` for what u32 cannot compare. No I/O.

An expression is u32's: `0>>22&0x3C@12>>26&0x3C@` goes past the headers of IPv4 and TCP, whatever their length.
IPv6 is taken without extension headers, as `-p` and the string match take it.
"""

from __future__ import annotations

import re

Span = tuple[int, int]  # least and most of a range of numbers
TOP = 0xFFFFFFFF
MOST = 10  # tests in one `-m u32`, and ranges in a test: the kernel's XT_U32_MAXSIZE
_PAST = "0>>22&0x3C@"  # behind the header of IPv4

# Option -> (expression for IPv4, for IPv6 or None, bits of the number).
FIELDS: dict[str, tuple[str, str | None, int]] = {
    "ttl": ("8>>24", "4&0xFF", 8),
    "tos": ("0>>16&0xFF", "0>>20&0xFF", 8),
    "id": ("4>>16", None, 16),
    "ip_proto": ("8>>16&0xFF", "4>>8&0xFF", 8),
    "itype": (_PAST + "0>>24", "40>>24", 8),
    "icode": (_PAST + "0>>16&0xFF", "40>>16&0xFF", 8),
    "icmp_id": (_PAST + "4>>16", "44>>16", 16),
    "icmp_seq": (_PAST + "4&0xFFFF", "44&0xFFFF", 16),
    "seq": (_PAST + "4", "44", 32),
    "ack": (_PAST + "8", "48", 32),
    "window": (_PAST + "12&0xFFFF", "52&0xFFFF", 16),
}
PROTOCOLS = {"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "gre": 47, "esp": 50, "ah": 51, "pim": 103, "sctp": 132}
FLAGS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "E": 64, "2": 64, "C": 128, "1": 128, "0": 0}
_SPAN = re.compile(r"(\d+)\s*(?:<>|<=>|-)\s*(\d+)")
_ONE = re.compile(r"(<=|>=|<|>|=|!=?|)\s*(\d+)")


def number(text: str, top: int) -> int:
    """Returns a number up to `top` of decimal or 0x digits; raises ValueError."""
    if re.fullmatch("0[xX][0-9A-Fa-f]{1,8}", text):
        value = int(text, 16)
    elif re.fullmatch("[0-9]{1,10}", text):
        value = int(text)
    else:
        raise ValueError("%s is not a number" % text)
    if value > top:
        raise ValueError("%d is more than %d" % (value, top))
    return value


def ranges(text: str, bits: int) -> list[Span]:
    """Returns [(least, most), ...] of `7 =7 <7 >7 !7 3<>7 3-7 3- -7`; raises ValueError, also for what is never so."""
    top = (1 << bits) - 1
    text = text.strip().lower()
    text = re.sub(r"^(\d+)-$", r">=\1", re.sub(r"^-(\d+)$", r"<=\1", text))
    span = _SPAN.fullmatch(text)
    if span:
        found = [(number(span.group(1), top), number(span.group(2), top))]
        found = found if found[0][0] <= found[0][1] else []
    else:
        one = _ONE.fullmatch(text)
        if not one:
            raise ValueError("%s is not a number or range" % text)
        found = compared(one.group(1) or "=", number(one.group(2), top), top)
    if not found:
        raise ValueError("no number is %s" % text)
    return found


def compared(operator: str, value: int, top: int) -> list[Span]:
    """Returns the ranges of numbers up to `top` for which `number OPERATOR value` holds."""
    spans = {
        "=": [(value, value)],
        "<": [(0, value - 1)],
        ">": [(value + 1, top)],
        "<=": [(0, value)],
        ">=": [(value, top)],
        "!": [(0, value - 1), (value + 1, top)],
    }
    return [(low, high) for low, high in spans[operator[0] if operator == "!=" else operator] if low <= high]


def outside(spans: list[Span], top: int = TOP) -> list[Span]:
    """Returns the ranges of numbers up to `top` that lie in none of some ranges."""
    found, least = [], 0
    for low, high in sorted(spans):
        if low > least:
            found.append((least, low - 1))
        least = max(least, high + 1)
    return found + ([(least, top)] if least <= top else [])


def test(expression: str, spans: list[Span]) -> str:
    """Returns one u32 test; raises ValueError where it has more ranges than the kernel takes."""
    if len(spans) > MOST:
        raise ValueError("more than %d ranges" % MOST)
    return (
        expression + "=" + ",".join("0x%x" % low if low == high else "0x%x:0x%x" % (low, high) for low, high in spans)
    )


def field(name: str, value: str, six: bool) -> str:
    """Returns the test of an option of FIELDS; raises ValueError."""
    four, other, bits = FIELDS[name]
    expression = other if six else four
    if expression is None:
        raise ValueError("%s: IPv6 has none" % name)
    if name == "ip_proto" and value.strip("!<> ").lower() in PROTOCOLS:
        bare = value.strip("!<> ")
        value = value.replace(bare, str(PROTOCOLS[bare.lower()]))
    return test(expression, ranges(value, bits))


def flags(value: str, six: bool) -> str:
    """Returns the test of TCP flags: `SA`, `S+`, `*SF`, `!R`, `S,12`; raises ValueError."""
    said = re.fullmatch(r"([!*+]?)([FSRPAUEC120]+)([!*+]?)(?:,([FSRPAUEC120]+))?", value.replace(" ", "").upper())
    if not said or (said.group(1) and said.group(3)):
        raise ValueError("flags: %s is not understood" % value)
    bits = mask = 0
    for letter in said.group(2):
        bits |= FLAGS[letter]
    for letter in said.group(4) or "":
        mask |= FLAGS[letter]
    how = said.group(1) or said.group(3)
    expression = ("52" if six else _PAST + "12") + ">>16&0x%x"
    if how == "*":
        return test(expression % bits, [(1, 0xFF)]) if bits else test(expression % 0xFF, [(0, 0)])
    if how == "!":
        return test(expression % (bits or 0xFF), [(0, 0)] if bits else [(1, 0xFF)])
    if how == "+":
        return test(expression % bits, [(bits, bits)])
    kept = 0xFF & ~mask
    return test(expression % kept, [(bits & kept, bits & kept)])


def at(proto: str, six: bool, offset: int) -> str | None:
    """Returns the expression of the four bytes at an offset of the payload, or None where they cannot be named."""
    if proto == "tcp":
        return "%s%d" % ("52>>26&0x3C@" if six else _PAST + "12>>26&0x3C@", offset + 40 * six) if offset >= 0 else None
    offset += 8 if proto in ("udp", "icmp") else 0
    return "%s%d" % ("" if six else _PAST, offset + 40 * six) if offset >= 0 else None


def equal(data: bytes, nocase: bool, offset: int, proto: str, six: bool) -> list[str] | None:
    """Returns tests that the payload holds `data` at an offset, or None where there is no saying it."""
    tests = []
    for start in range(0, len(data), 4):
        first = min(start, len(data) - 4)  # the last four bytes, again in part: a packet may end with them
        expression = at(proto, six, offset + first)
        if expression is None:
            return None
        mask = value = 0
        for index in range(first, first + 4):
            byte = data[index] if index >= start else 0
            letter = nocase and chr(byte).isascii() and chr(byte).isalpha()
            kept = 0 if index < start else 0xDF if letter else 0xFF
            mask, value = mask << 8 | kept, value << 8 | byte & kept
        tests.append(test("%s&0x%x" % (expression, mask), [(value, value)]))
    return tests


def byte_test(value: str, proto: str, six: bool) -> str:
    """Returns the test of a byte_test at a fixed offset; raises ValueError."""
    words = [word.strip().lower() for word in value.split(",")]
    said = re.fullmatch(r"(!?)\s*(<=|>=|[<>=&]|)", words[1]) if len(words) > 3 else None
    if not said or not any(said.groups()):
        raise ValueError("byte_test: more than four numbers and plain comparisons")
    odd = [word for word in words[4:] if word not in ("big", "little", "hex", "dec", "oct")]
    if odd or {"hex", "dec", "oct"} & set(words):
        raise ValueError("byte_test: %s cannot be said" % (odd[0] if odd else "digits as text"))
    count, offset = number(words[0], 4), number(words[3], 65535)
    if not count:
        raise ValueError("byte_test: no bytes")
    top = (1 << 8 * count) - 1
    wanted, operator = number(words[2], top), said.group(2) or "!"
    if "little" in words and count > 1:
        if operator not in "=!&":
            raise ValueError("byte_test: little endian can only be compared for being equal")
        wanted = int.from_bytes(wanted.to_bytes(count, "little"), "big")
    first = offset + count - 4
    expression, shift = at(proto, six, first), 0
    if expression is None:  # so near the front: a payload shorter than four bytes is not looked at
        expression, shift = at(proto, six, offset), 32 - 8 * count
        assert expression is not None  # only what is before the payload has none
    spans = [(1, wanted)] if operator == "&" else compared(operator, wanted, top)
    if said.group(1) and said.group(2):
        spans = outside(spans, top)
    if not spans or (operator == "&" and not wanted):
        raise ValueError("byte_test: no number is so")
    expression += ">>%d" % shift if shift else ""
    return test("%s&0x%x" % (expression, wanted if operator == "&" else top), spans)


def _bpf(instructions: list[tuple[int, int, int, int]]) -> str:
    """Returns the words of a BPF program of (code, jump if true, jump if false, operand)."""
    words = ["%d %d %d %d" % one for one in instructions]
    return "%d,%s" % (len(words), ",".join(words))


def dsize(spans: list[Span], proto: str, six: bool) -> str:
    """Returns a BPF program: the payload's length is in one of the ranges. u32 cannot subtract the headers."""
    code = [(0x01, 0, 0, 40) if six else (0xB1, 0, 0, 0)]  # X: where the header of IP ends
    if proto == "tcp":
        code += [(0x50, 0, 0, 12), (0x54, 0, 0, 0xF0), (0x74, 0, 0, 2), (0x0C, 0, 0, 0), (0x07, 0, 0, 0)]
    elif proto in ("udp", "icmp"):
        code += [(0x87, 0, 0, 0), (0x04, 0, 0, 8), (0x07, 0, 0, 0)]
    code += [(0x28, 0, 0, 4), (0x04, 0, 0, 40)] if six else [(0x28, 0, 0, 2)]
    code.append((0x1C, 0, 0, 0))
    for low, high in spans:
        code += [(0x35, 0, 2, low), (0x25, 1, 0, high), (0x06, 0, 0, 1)]
    return _bpf([*code, (0x06, 0, 0, 0)])


def sameip(six: bool) -> str:
    """Returns a BPF program: source and destination are one address. u32 compares with constants only."""
    code, words = [], 4 if six else 1
    for index in range(words):
        source, destination = (8 + 4 * index, 24 + 4 * index) if six else (12, 16)
        left = 4 * (words - index - 1) + 1
        code += [(0x20, 0, 0, source), (0x07, 0, 0, 0), (0x20, 0, 0, destination), (0x1D, 0, left, 0)]
    return _bpf([*code, (0x06, 0, 0, 1), (0x06, 0, 0, 0)])
