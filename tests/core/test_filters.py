"""What the kernel filter keeps, by an interpreter of classic BPF; and what the parser makes of any bytes."""

import struct

from tinyknop.capture import filters, ip

PORT = 62201
PAYLOAD = b"5" * 200


def execute(program, data, pkttype=0):
    """Runs a classic BPF program as the kernel does; a load beyond the packet's end drops it."""
    a = x = i = 0
    while True:
        code, yes, no, k = program[i]
        i += 1
        if code == filters.RET:
            return k
        if code in (filters.JEQ, filters.JGT, filters.JGE, filters.JSET):
            test = {filters.JEQ: a == k, filters.JGT: a > k, filters.JGE: a >= k, filters.JSET: bool(a & k)}[code]
            i += yes if test else no
        elif code == filters.AND:
            a &= k
        elif code == filters.LDX_IMM:
            x = k
        elif code == filters.LD_B and k == filters.PKTTYPE:
            a = pkttype
        else:
            size = {filters.LD_W: 4, filters.LD_H: 2, filters.LD_H_X: 2}.get(code, 1)
            at = k + (x if code in (filters.LD_H_X, filters.LD_B_X) else 0)
            if at + size > len(data):
                return 0
            if code == filters.LDX_IHL:
                x = (data[at] & 15) * 4
            else:
                a = int.from_bytes(data[at : at + size], "big")


def v4(payload=PAYLOAD, dport=PORT, proto=17, fragment=0x4000, options=b"", length=None):
    length = 8 + len(payload) if length is None else length
    head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, 28 + len(payload), 1, fragment, 64, proto, 0)
    return head + b"\xc0\0\2\7\xc0\0\2\1" + options + struct.pack(">HHHH", 4000, dport, length, 0) + payload


def v6(payload=PAYLOAD, dport=PORT, proto=17):
    head = struct.pack(">IHBB", 0x60000000, 8 + len(payload), proto, 64) + bytes(15) + b"\7" + bytes(15) + b"\1"
    return head + struct.pack(">HHHH", 4000, dport, 8 + len(payload), 0) + payload


KEPT = (
    v4(),
    v6(),
    v4(fragment=0),
    v4(options=bytes(8)),
    v4(options=bytes(40)),
    v4(b"A" * 140),
    v4(b"z" * 1500),
    v4(options=bytes(40), payload=b"z" * 1500),
    v6(b"+/09" + b"x" * 136),
    v4(b"AZaz" + b"x" * 136),
    v6(b"z" * 1500),
)
DROPPED = (
    b"",
    b"\x45",
    bytes(300),
    v4(b"A" * 139),
    v4(b"A" * 1501),
    v4(dport=PORT + 1),
    v6(dport=PORT + 1),
    v4(proto=6),
    v6(proto=6),
    v6(proto=0),
    v4(fragment=0x2000),
    v4(fragment=0x0001),
    v4(length=100),
    v4(b"\0AAA" + PAYLOAD),
    v4(b"A,AA" + PAYLOAD),
    v4(b"AA:A" + PAYLOAD),
    v6(b"AAA{" + PAYLOAD),
    v4(b"AAA\xff" + PAYLOAD),
    v4(b"GET " + PAYLOAD),
)


def test_filter_keeps_what_may_be_a_knock_in_both_families():
    program = filters.knock(PORT)
    for number, data in enumerate(KEPT):
        assert execute(program, data) >= len(data), number


def test_filter_drops_everything_else():
    program = filters.knock(PORT)
    for number, data in enumerate(DROPPED):
        assert execute(program, data) == 0, number


def test_filter_drops_what_this_machine_sends():
    program = filters.knock(PORT)
    assert execute(filters.inbound(program), v4(), filters.OUTGOING) == 0
    assert execute(filters.inbound(program), v4()) == execute(program, v4(), filters.OUTGOING) > 0


def test_filter_looks_at_every_byte_it_judges_alone():
    program = filters.knock(PORT)
    base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    for place in range(4):
        for byte in range(256):
            head = b"A" * place + bytes([byte]) + b"A" * (3 - place)
            kept = execute(program, v4(head + PAYLOAD)) > 0
            assert kept or byte not in base64
            assert not kept or byte in base64 + b"[\\]^_`"


def test_parser_finds_addresses_ports_and_payload():
    assert tuple(ip.parse(v4())) == (PAYLOAD, b"\xc0\0\2\7", 4000, b"\xc0\0\2\1", PORT, 17)
    assert tuple(ip.parse(v4(options=bytes(12)))) == tuple(ip.parse(v4()))
    found = ip.parse(v6())
    assert (found.source, found.destination) == (bytes(15) + b"\7", bytes(15) + b"\1")
    assert found.payload == PAYLOAD


def test_padding_behind_the_datagram_is_cut():
    assert ip.parse(v4() + bytes(9)).payload == PAYLOAD
    assert ip.parse(v6() + bytes(9)).payload == PAYLOAD


def test_parser_refuses_what_is_no_whole_udp_datagram():
    for data in (v4(proto=6), v6(proto=6), v4(fragment=0x2000), v4(fragment=1), v4(length=7), v4(length=209)):
        assert ip.parse(data) is None
    for header in range(256):
        ip.parse(bytes([header]) + v4()[1:])
        ip.parse(bytes([header]) + v6()[1:])


def test_packet_cut_anywhere_is_refused_and_raises_nothing():
    for whole in (v4(), v6(), v4(options=bytes(40))):
        for size in range(len(whole)):
            assert ip.parse(whole[:size]) is None
