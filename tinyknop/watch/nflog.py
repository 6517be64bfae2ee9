"""An NFLOG group over netlink: packets of `-j NFLOG --nflog-group N` as the lines that LOG would have written.

LOG is silent in a network namespace, and a router may have no log at all; a group needs neither. CAP_NET_ADMIN.
"""

import socket
import struct

from tinyknop import capture, compat, net, netlink

_PACKET, _CONFIG = 0x400, 0x401  # messages of nfnetlink's subsystem 4
_BIND = b"\x01"
_COPY = struct.pack(">IBB", 128, 2, 0)  # headers, options and what an ICMP error is about; not what a packet carries
_DELAY = struct.pack(">I", 10)  # hundredths of a second that the kernel gathers packets
_FLAGS = ((128, "CWR"), (64, "ECE"), (32, "URG"), (16, "ACK"), (8, "PSH"), (4, "RST"), (2, "SYN"), (1, "FIN"))
_ERRORS = {4: (3, 4, 11), 6: (1, 2, 3, 4)}  # ICMP types that quote a packet
_NAMED = {6: "TCP", 17: "UDP", 136: "UDPLITE", 50: "ESP", 51: "AH"}
_EXTENSIONS = (0, 43, 44, 60)  # IPv6 headers that stand before the protocol's
_DEEPEST = 8  # of these


def bound(group):
    """Returns a netlink socket that gets a group's packets; raises OSError."""
    sock = socket.socket(16, 3, 12)  # AF_NETLINK, SOCK_RAW (3 on MIPS too), NETLINK_NETFILTER
    try:
        sock.setblocking(False)
        capture.roomy(sock)
        sock.bind(netlink.address(compat.MICROPYTHON))
        for seq, data in ((1, netlink.attr(1, _BIND)), (2, netlink.attr(2, _COPY) + netlink.attr(4, _DELAY))):
            sock.send(netlink.netfilter(4, 1, netlink.ACK, seq, data, resource=group))
            for kind, _, answered, body in netlink.messages(sock.recv(4096)):
                if kind == netlink.ERROR and answered == seq and netlink.error_of(body):
                    raise OSError(netlink.error_of(body), "nflog")
    except OSError:
        sock.close()
        raise
    return sock


def lines(data):
    """Yields a line for each packet in what one recv gave; nothing is raised."""
    for kind, _, _, body in netlink.messages(data):
        if kind == _PACKET:
            yield line(dict(netlink.attrs(body[4:]))).encode()


def line(told):
    """Returns the line of what the kernel told about one packet, {number of the attribute: bytes}."""
    words = [told.get(10, b"")[:-1].decode() if compat.only_in(told.get(10, b"")[:-1], bytes(range(32, 127))) else "?"]
    words[0] += "IN=%s OUT=%s" % (_name(told.get(4)), _name(told.get(5)))
    words += ["%s=%s" % (text, _name(told[kind])) for kind, text in ((6, "PHYSIN"), (7, "PHYSOUT")) if kind in told]
    if told.get(4):
        words.append("MAC=" + ":".join(["%02x" % byte for byte in told.get(16, b"")]))
    packet = told.get(9, b"")
    return " ".join(words + (_six(packet) if packet and packet[0] >> 4 == 6 else _four(packet)))


_names: dict = {}  # index -> name; a namespace has few


def _name(index):
    """Returns an interface's name, or its number where the system does not tell."""
    if not index:
        return ""
    if index not in _names:
        number = struct.unpack(">I", index[:4])[0] if len(index) >= 4 else 0
        try:
            _names[index] = socket.if_indextoname(number)
        except (OSError, AttributeError):  # MicroPython has no such function
            return "if%d" % number
    return _names[index]


def _hex(data):
    return "OPT (%s)" % "".join(["%02X" % byte for byte in data])


def _four(data, quoted=True):
    """Returns the words of an IPv4 packet, [] for less than a header."""
    if len(data) < 20:
        return []
    _, tos, size, number, fragment, ttl, proto, _, source, destination = struct.unpack(">BBHHHBBH4s4s", data[:20])
    words = ["SRC=" + net.printed(source), "DST=" + net.printed(destination), "LEN=%d" % size]
    words += ["TOS=0x%02X" % (tos & 0x1E), "PREC=0x%02X" % (tos & 0xE0), "TTL=%d" % ttl, "ID=%d" % number]
    words += [text for bit, text in ((0x8000, "CE"), (0x4000, "DF"), (0x2000, "MF")) if fragment & bit]
    head = max((data[0] & 15) * 4, 20)
    if fragment & 0x1FFF:
        words.append("FRAG:%d" % (fragment & 0x1FFF))
    if head > 20:
        words.append(_hex(data[20:head]))
    return words + _inside(4, proto, data[head:], fragment & 0x1FFF, quoted)


def _six(data, quoted=True):
    """Returns the words of an IPv6 packet."""
    if len(data) < 40:
        return []
    first, size, proto, hops = struct.unpack(">IHBB", data[:8])
    texts = [":".join(["%02x%02x" % (data[i], data[i + 1]) for i in range(at, at + 16, 2)]) for at in (8, 24)]
    words = ["SRC=" + texts[0], "DST=" + texts[1], "LEN=%d" % (size + 40), "TC=%d" % (first >> 20 & 255)]
    words += ["HOPLIMIT=%d" % hops, "FLOWLBL=%d" % (first & 0xFFFFF)]
    at, fragment = 40, 0
    for _ in range(_DEEPEST):
        if proto not in _EXTENSIONS or at + 8 > len(data):
            break
        if proto == 44:
            fragment = (data[at + 2] << 8 | data[at + 3]) >> 3
        proto, at = data[at], at + (8 if proto == 44 else 8 + 8 * data[at + 1])
    return words + _inside(6, proto, data[at:], fragment, quoted)


def _inside(version, proto, data, fragment, quoted):
    """Returns the words of what an IP packet carries."""
    if proto == (1 if version == 4 else 58):
        return _icmp(version, data, fragment, quoted)
    words = ["PROTO=" + _NAMED.get(proto, "%d" % proto)]
    if fragment or proto not in _NAMED or proto in (50, 51):
        return words
    if len(data) < (20 if proto == 6 else 8):
        return words + ["INCOMPLETE [%d bytes]" % len(data)]
    words += ["SPT=%d" % (data[0] << 8 | data[1]), "DPT=%d" % (data[2] << 8 | data[3])]
    if proto != 6:
        return words + ["LEN=%d" % (data[4] << 8 | data[5])]
    seq, ack, offset, bits, window, _, urgent = struct.unpack(">IIBBHHH", data[4:20])
    if version == 4:  # psad 2.4.6 cannot read them in a line about IPv6
        words += ["SEQ=%d" % seq, "ACK=%d" % ack]
    words += ["WINDOW=%d" % window, "RES=0x%02x" % (offset & 15)]
    words += [text for bit, text in _FLAGS if bits & bit] + ["URGP=%d" % urgent]
    options = data[20 : (offset >> 4) * 4]
    return words + ([_hex(options)] if options else [])


def _icmp(version, data, fragment, quoted):
    words = ["PROTO=ICMP" if version == 4 else "PROTO=ICMPv6"]
    if fragment:
        return words
    if len(data) < 8:
        return words + ["INCOMPLETE [%d bytes]" % len(data)]
    words += ["TYPE=%d" % data[0], "CODE=%d" % data[1]]
    if data[0] in ((0, 8) if version == 4 else (128, 129)):
        words += ["ID=%d" % (data[4] << 8 | data[5]), "SEQ=%d" % (data[6] << 8 | data[7])]
    elif quoted and data[0] in _ERRORS[version]:
        inner = _four(data[8:], False) if version == 4 else _six(data[8:], False)
        words += ["[" + " ".join(inner), "]"]
    return words
