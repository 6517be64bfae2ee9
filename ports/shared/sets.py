"""The words of `ipset` as netlink messages, and what the kernel lists as it prints that. No kind of port; no I/O.

Known are `create` of hash:ip,port sets with a time-out, and `add`, `del` and `list` of these and of hash:net,port and
hash:ip sets, with a time-out or without, always with `-exist`.
"""

import struct

from tinyknop import net, netlink

_FAMILIES = (("inet", netlink.AF_INET), ("inet6", netlink.AF_INET6))
_HEADER_ONLY = 4  # IPSET_FLAG_LIST_HEADER


def _whole(text, top):
    """Returns a decimal number from 0 to `top`; raises ValueError."""
    if not text or len(text) > 10 or not all("0" <= c <= "9" for c in text) or int(text) > top:
        raise ValueError("%r is not a number from 0 to %d" % (text, top))
    return int(text)


def _parse_entry(text):
    """Returns (packed address, protocol's number, port) of "192.0.2.7,tcp:22"; raises ValueError.

    The last two are None where there is nothing but an address.
    """
    address, comma, rest = text.partition(",")
    if not comma:
        return net.packed(address), None, None
    proto, _, port = rest.partition(":")
    known = [number for name, number in netlink.PROTOCOLS if name == proto]
    number = known[0] if known else _whole(proto, 255)
    if "/" in port:  # ICMP: type and code
        kind, _, code = port.partition("/")
        return net.packed(address), number, _whole(kind, 255) << 8 | _whole(code, 255)
    return net.packed(address), number, _whole(port, 65535)


def _print_entry(entry):
    address, number, port, timeout, prefix = entry
    text, proto = net.printed(address) if address else "?", str(number)
    if prefix is not None and prefix < 8 * len(address):
        text += "/%d" % prefix
    for name, known in netlink.PROTOCOLS:
        if known == number:
            proto = name
    if proto in ("icmp", "icmpv6"):
        port = "%d/%d" % (port >> 8, port & 255)
    if number is not None:
        text += ",%s:%s" % (proto, port)
    return text if timeout is None else "%s timeout %d" % (text, timeout)


def _create(seq, name, words):
    if not words or words[0] != "hash:ip,port" or len(words) % 2 == 0:
        raise ValueError("only sets of type hash:ip,port can be made")
    family, timeout, maxelem = "inet", None, None
    for i in range(1, len(words), 2):
        if words[i] == "family":
            family = words[i + 1]
        elif words[i] == "timeout":
            timeout = _whole(words[i + 1], netlink.IPSET_LONGEST)
        elif words[i] == "maxelem":
            maxelem = _whole(words[i + 1], 0xFFFFFFFF)
        else:
            raise ValueError("%r is not an option here" % words[i])
    if timeout is None:
        raise ValueError("a set without a time-out would keep entries for ever")
    for known, number in _FAMILIES:
        if known == family:
            return netlink.ipset_create(seq, name, number, maxelem, timeout)
    raise ValueError("%r is not a family" % family)


def encode(seq, words):
    """Returns (message, set's name) for the words of one `ipset` command; raises ValueError where it knows none."""
    rest = [word for word in words[1:] if word != "-exist"]
    if words[0] != "ipset" or len(rest) < 2 or not 1 <= len(rest[1]) <= netlink.IPSET_MAXNAME:
        raise ValueError("not an ipset command with the name of a set")
    command, name, rest = rest[0], rest[1], rest[2:]
    if command == "list" and rest == ["-terse"]:
        body = netlink.attr(1, b"\x07") + netlink.attr(2, name.encode() + b"\0")
        body += netlink.attr(6 | netlink.BIG, struct.pack(">I", _HEADER_ONLY))
        kind = (netlink.IPSET, netlink.IPSET_LIST, netlink.DUMP | netlink.ACK)
        return netlink.netfilter(*kind, seq, body), name
    if command == "list" and not rest:
        return netlink.ipset_list(seq, name), name
    if command == "create":
        return _create(seq, name, rest), name
    if command == "del" and len(rest) == 1:
        return netlink.ipset_entry(netlink.IPSET_DEL, seq, name, _parse_entry(rest[0])), name
    if command == "add" and (len(rest) == 1 or len(rest) == 3 and rest[1] == "timeout"):
        seconds = _whole(rest[2], netlink.IPSET_LONGEST) if len(rest) == 3 else None
        return netlink.ipset_entry(netlink.IPSET_ADD, seq, name, _parse_entry(rest[0]), seconds), name
    raise ValueError("not a command that this carrier knows")


def printed(name, bodies):
    """Yields in parts the text that `ipset list` prints, less what it says about the set's memory and size."""
    for number, body in enumerate(bodies):
        kind, header, entries = netlink.ipset_listed(body)
        text = "".join([_print_entry(entry) + "\n" for entry in entries])
        if number == 0:
            shown = ["inet6" if header.get("family") == netlink.AF_INET6 else "inet"]
            options = ("hashsize", "maxelem", "timeout", "netmask", "bitmask")
            shown += ["%s %d" % (key, header[key]) for key in options if key in header]
            lines = ["Name: " + name, "Type: " + kind, "Revision: %d" % header.get("revision", 0)]
            lines += ["Header: family " + " ".join(shown), "References: %d" % header.get("references", 0)]
            lines += ["Number of entries: %d" % header.get("elements", len(entries)), "Members:"]
            text = "\n".join(lines) + "\n" + text
        yield text
