"""Addresses and networks, IPv4 and IPv6, without `ipaddress`; inside they are packed bytes, 4 or 16 long.

Reading is strict: one text for one meaning. No leading zeros (octal to some readers), no zone, no names.
"""


def _number(text, top):
    if not text or len(text) > 5 or text.strip("0123456789"):
        raise ValueError("%r is not a number" % text)
    value = int(text)
    if value > top or (text[0] == "0" and len(text) > 1):
        raise ValueError("%r is not a number from 0 to %d without leading zeros" % (text, top))
    return value


def _packed4(text):
    parts = text.split(".")
    if len(parts) != 4:
        raise ValueError("%r is not an IPv4 address such as 192.0.2.7" % text)
    return bytes([_number(part, 255) for part in parts])


def _groups(text):
    """Returns the bytes of colon-separated groups, the last of which may be an IPv4 address."""
    out = b""
    parts = text.split(":") if text else []
    for i, part in enumerate(parts):
        if "." in part and i == len(parts) - 1:
            out += _packed4(part)
            continue
        if not 1 <= len(part) <= 4 or not all(c in "0123456789abcdefABCDEF" for c in part):
            raise ValueError("%r is not part of an IPv6 address" % part)
        out += int(part, 16).to_bytes(2, "big")
    return out


def _packed6(text):
    halves = text.split("::")
    if len(halves) > 2 or len(text) > 45:
        raise ValueError("%r is not an IPv6 address such as 2001:db8::7" % text)
    head = _groups(halves[0])
    tail = _groups(halves[1]) if len(halves) == 2 else b""
    gap = 16 - len(head) - len(tail)
    if (len(halves) == 1 and gap) or (len(halves) == 2 and gap < 2):
        raise ValueError("%r is not an IPv6 address such as 2001:db8::7" % text)
    return head + bytes(gap) + tail


def packed(text):
    """Returns the bytes of an address in text: 4 for IPv4, 16 for IPv6; raises ValueError."""
    return _packed6(text) if ":" in text else _packed4(text)


def is_address(text):
    """Tells whether a text is an address, and not, say, a name."""
    try:
        return bool(packed(text))
    except ValueError:
        return False


def printed(address):
    """Returns the canonical text of a packed address (IPv6 as RFC 5952 writes it)."""
    if len(address) == 4:
        return "%d.%d.%d.%d" % (address[0], address[1], address[2], address[3])
    groups = [address[i] << 8 | address[i + 1] for i in range(0, 16, 2)]
    if groups[:5] == [0] * 5 and groups[5] == 0xFFFF:
        return "::ffff:" + printed(address[12:])
    best, length = -1, 1
    i = 0
    while i < 8:
        run = i
        while run < 8 and groups[run] == 0:
            run += 1
        if run - i > length:
            best, length = i, run - i
        i = max(run, i + 1)
    texts = ["%x" % group for group in groups]
    if best < 0:
        return ":".join(texts)
    return ":".join(texts[:best]) + "::" + ":".join(texts[best + length :])


def masked(address, bits):
    """Returns a packed address with all but its first `bits` bits cleared."""
    whole, rest = bits // 8, bits % 8
    out = address[:whole]
    if rest:
        out += bytes([address[whole] & (0xFF00 >> rest) & 0xFF])
    return out + bytes(len(address) - len(out))


def _bits(text, width):
    """Returns the prefix length written as a number or as an IPv4 mask."""
    if "." not in text:
        return _number(text, width)
    mask = int.from_bytes(_packed4(text), "big")
    bits = 0
    while bits < 32 and mask >> (31 - bits) & 1:
        bits += 1
    if width != 32 or mask & ((1 << (32 - bits)) - 1):
        raise ValueError("%r is not a network mask such as 255.255.255.0" % text)
    return bits


def network(text):
    """Returns (packed address, prefix length) of "192.0.2.0/24", "192.0.2.0/255.255.255.0" or one address."""
    address, slash, mask = text.partition("/")
    address = packed(address)
    width = 8 * len(address)
    bits = _bits(mask, width) if slash else width
    return masked(address, bits), bits


def contains(net, address):
    """Tells whether a packed address is in a network that `network` made."""
    base, bits = net
    return len(base) == len(address) and masked(address, bits) == base


def opening(text):
    """Returns ("tcp", 22) for "tcp/22"; raises ValueError. A port may have leading zeros (protocol section 5)."""
    proto, slash, port = text.partition("/")
    if proto not in ("tcp", "udp") or not slash:
        raise ValueError("%r is not an opening such as tcp/22 or udp/53" % text)
    if not 1 <= len(port) <= 5 or port.strip("0123456789") or not 1 <= int(port) <= 65535:
        raise ValueError("%r has no port from 1 to 65535" % text)
    return proto, int(port)


def openings(text):
    """Returns the openings of a comma-separated list as a tuple of (protocol, port); raises ValueError."""
    return tuple([opening(item) for item in text.split(",")])
