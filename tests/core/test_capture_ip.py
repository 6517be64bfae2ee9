"""IP packets of every protocol that carries knocks, and what becomes of any other bytes."""

import struct

from tinyknop.capture import ip

PAYLOAD = b"5" * 200
SOURCE, DESTINATION = b"\xc0\0\2\7", b"\xc0\0\2\1"
SOURCE6, DESTINATION6 = bytes(15) + b"\7", bytes(15) + b"\1"


def v4(proto, inner, options=b"", length=None, fragment=0):
    length = 20 + len(options) + len(inner) if length is None else length
    head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, length, 1, fragment, 64, proto, 0)
    return head + SOURCE + DESTINATION + options + inner


def v6(proto, inner, length=None):
    length = len(inner) if length is None else length
    return struct.pack(">IHBB", 0x60000000, length, proto, 64) + SOURCE6 + DESTINATION6 + inner


def tcp(payload=PAYLOAD, words=5, flags=2):
    return struct.pack(">HHIIBBHHH", 4000, 80, 1, 0, words << 4, flags, 1024, 0, 0) + bytes(words * 4 - 20) + payload


def udp(payload=PAYLOAD):
    return struct.pack(">HHHH", 4000, 62201, 8 + len(payload), 0) + payload


def icmp(payload=PAYLOAD, kind=0):
    return struct.pack(">BBHI", kind, 0, 0, 0) + payload


def test_tcp_payload_lies_behind_the_header_and_its_options():
    for words in (5, 6, 15):
        for flags in (0, 2, 24):
            found = ip.parse_any(v4(6, tcp(words=words, flags=flags)))
            assert tuple(found) == (PAYLOAD, SOURCE, 4000, DESTINATION, 80, 6)
    assert ip.parse_any(v4(6, tcp(), options=bytes(40))).payload == PAYLOAD
    assert tuple(ip.parse_any(v6(6, tcp(words=8)))) == (PAYLOAD, SOURCE6, 4000, DESTINATION6, 80, 6)


def test_icmp_of_any_type_has_no_ports():
    for kind in (0, 3, 8, 40):
        assert tuple(ip.parse_any(v4(1, icmp(kind=kind)))) == (PAYLOAD, SOURCE, 0, DESTINATION, 0, 1)
    assert tuple(ip.parse_any(v6(58, icmp(kind=128)))) == (PAYLOAD, SOURCE6, 0, DESTINATION6, 0, 58)


def test_udp_is_as_the_fast_path_has_it():
    for data in (v4(17, udp()), v4(17, udp(), options=bytes(8)), v6(17, udp()), v4(17, udp()) + bytes(5)):
        assert ip.parse_any(data) == ip.parse(data)
        assert ip.parse_any(data).payload == PAYLOAD


def test_padding_behind_the_packet_is_cut():
    for data in (v4(6, tcp()), v4(1, icmp()), v6(6, tcp())):
        assert ip.parse_any(data + bytes(9)).payload == PAYLOAD


def test_fragments_and_other_protocols_are_none():
    assert ip.parse_any(v4(6, tcp(), fragment=0x4000)) is not None
    for data in (v4(6, tcp(), fragment=0x2000), v4(6, tcp(), fragment=1), v4(47, tcp()), v6(0, tcp()), v6(44, tcp())):
        assert ip.parse_any(data) is None


def test_lengths_that_contradict_each_other_are_none():
    for data in (v4(6, tcp(), length=30), v4(6, tcp(), length=500), v4(1, icmp(), length=20), v6(6, tcp(), length=300)):
        assert ip.parse_any(data) is None
    assert ip.parse_any(v4(6, tcp(b"", words=5)[:12] + b"\xf0" + bytes(7))) is None  # options beyond its end


def test_a_udp_datagram_lies_within_its_ip_packet():
    for make, head in ((v4, 20), (v6, 0)):
        for off in (-1, 1, 20):
            data = make(17, udp(), length=head + len(udp()) + off)
            assert ip.parse(data) is None, (make, off)
        assert ip.parse(make(17, udp() + bytes(9))).payload == PAYLOAD
        assert ip.parse(make(17, udp(), length=0)) is None
    assert ip.parse(v4(17, udp(), options=bytes(8), length=28 + len(udp()) - 1)) is None


def test_packet_cut_anywhere_or_with_any_first_byte_raises_nothing():
    for whole in (v4(6, tcp(words=8)), v4(1, icmp()), v6(6, tcp()), v6(58, icmp()), v4(17, udp(), options=bytes(40))):
        for size in range(len(whole)):
            assert ip.parse_any(whole[:size]) is None
        for byte in range(256):
            ip.parse_any(bytes([byte]) + whole[1:])
