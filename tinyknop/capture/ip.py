"""IP packets as bytes: finds the datagram in one. Raises nothing, whatever the bytes are.

Checksums are not looked at: the HMAC holds or it doesn't. Fragments are not put together.
"""

from struct import unpack_from

from tinyknop.gate import Datagram

TCP, UDP = 6, 17
ICMP = (1, 58)  # 58: ICMPv6


def parse(data):
    """Returns the Datagram in an IP packet, None for anything but a whole UDP datagram."""
    size = len(data)
    if size < 28:
        return None
    if data[0] == 0x45:  # nearly all there is: all fields in one call
        whole, part, proto, source, destination, sport, dport, length = unpack_from(">2xH2xHxB2x4s4sHHH", data)
        if proto != 17 or part & 0x3FFF:
            return None
        at = 20
    else:
        if data[0] >> 4 == 4:
            at, whole, source, destination = (data[0] & 15) * 4, data[2] << 8 | data[3], data[12:16], data[16:20]
            if data[9] != 17 or data[6] & 0x3F or data[7] or at < 20 or size < at + 8:
                return None
        elif data[0] >> 4 == 6 and size >= 48 and data[6] == 17:
            at, whole, source, destination = 40, 40 + (data[4] << 8 | data[5]), data[8:24], data[24:40]
        else:
            return None
        sport, dport, length = unpack_from(">HHH", data, at)
    if length < 8 or not at + length <= whole <= size:
        return None
    return Datagram(data[at + 8 : at + length], source, sport, destination, dport, 17)


def source_of(data):
    """Returns the source address of what the kernel took for an IP packet."""
    return data[8:24] if data and data[0] >> 4 == 6 else data[12:16]


def parse_any(data):
    """Returns the Datagram in a whole UDP, TCP or ICMP packet, else None; the ports of ICMP are 0.

    Ports, flags and ICMP types are the filter's business: a TCP SYN that carries data is as good as any other.
    """
    size = len(data)
    if size < 28:
        return None
    if data[0] >> 4 == 4:
        at, whole, proto = (data[0] & 15) * 4, data[2] << 8 | data[3], data[9]
        source, destination = data[12:16], data[16:20]
        if at < 20 or data[6] & 0x3F or data[7]:
            return None
    elif data[0] >> 4 == 6 and size >= 48:
        at, whole, proto = 40, 40 + (data[4] << 8 | data[5]), data[6]
        source, destination = data[8:24], data[24:40]
    else:
        return None
    if proto == UDP:
        return parse(data)
    sport = dport = 0
    head = at + 8
    if proto == TCP and at + 20 <= whole <= size:
        sport, dport = unpack_from(">HH", data, at)
        head = at + max(data[at + 12] >> 4, 5) * 4
    elif proto not in ICMP:
        return None
    if not head <= whole <= size:
        return None
    return Datagram(data[head:whole], source, sport, destination, dport, proto)
