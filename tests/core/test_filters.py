"""What the kernel filter keeps, by an interpreter of classic BPF; and what the parser makes of any bytes."""

import struct

from tinyknop import hints
from tinyknop.capture import filters, ip

PORT = 62201
PAYLOAD = b"5" * 200


def execute(program, data, pkttype=0):
    """Runs a classic BPF program as the kernel does; a load beyond the packet's end drops it."""
    a = x = i = scratch = 0
    while True:
        code, yes, no, k = program[i]
        i += 1
        if code in (filters.RET, filters.RET_A):
            return k if code == filters.RET else a
        if code in (filters.JEQ, filters.JGT, filters.JGE, filters.JSET):
            test = {filters.JEQ: a == k, filters.JGT: a > k, filters.JGE: a >= k, filters.JSET: bool(a & k)}[code]
            i += yes if test else no
        elif code == filters.JA:
            i += k
        elif code == filters.ST:
            scratch = a
        elif code in (filters.TAX, filters.LDX_IMM):
            x = a if code == filters.TAX else k
        elif code in (filters.AND, filters.ADD, filters.ADD_X, filters.MUL, filters.RSH, filters.TXA, filters.LD_M):
            a = {
                filters.AND: a & k,
                filters.ADD: a + k,
                filters.ADD_X: a + x,
                filters.MUL: a * k,
                filters.RSH: a >> (k & 31),
                filters.TXA: x,
                filters.LD_M: scratch,
            }[code] & 0xFFFFFFFF
        elif code == filters.LD_B and k == filters.PKTTYPE:
            a = pkttype
        else:
            size = {filters.LD_W: 4, 0x40: 4, filters.LD_H: 2, filters.LD_H_X: 2}.get(code, 1)
            at = k - filters.NET if k >= filters.NET else k
            at += x if code in (0x40, filters.LD_H_X, filters.LD_B_X) else 0
            if at + size > len(data):
                return 0
            if code == filters.LDX_IHL:
                x = (data[at] & 15) * 4
            else:
                a = int.from_bytes(data[at : at + size], "big")


def v4(payload=PAYLOAD, dport=PORT, proto=17, fragment=0x4000, options=b"", length=None):
    length = 8 + len(payload) if length is None else length
    head = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, 28 + len(options + payload), 1, fragment, 64, proto, 0)
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


def test_filter_of_a_udp_socket_judges_alike_from_the_udp_header_on():
    program = filters.payload()
    for size, kept in ((0, False), (139, False), (140, True), (1500, True), (1501, False)):
        assert (execute(program, v4(b"A" * size)[20:]) > 0) == kept
    assert execute(program, v4(b"GET " + PAYLOAD)[20:]) == 0
    assert execute(program, v4(b"A+/9" + PAYLOAD)[20:]) > 0


def test_what_the_filter_keeps_is_decided_by_what_comes_behind():
    word = int.from_bytes(b"hint", "big")
    then = [(0x40, 0, 0, 8 + 6), (filters.JEQ, 0, 1, word), (filters.RET, 0, 0, 5), (filters.RET, 0, 0, 0)]
    hinted = b"123456hint" + PAYLOAD
    for program, packets in ((filters.knock(PORT, then), (v4, v6)), (filters.payload(then), (lambda p: v4(p)[20:],))):
        for packet in packets:
            assert [execute(program, packet(one)) for one in (hinted, PAYLOAD, b"GET 56hint" + PAYLOAD)] == [5, 0, 0]
        assert execute(program, packets[0](b"123456hint")) == 0
    assert execute(filters.knock(PORT, then), v4(hinted, options=bytes(12))) == 5


def test_longest_list_of_hints_fits_behind_the_filter():
    then = hints.program(list(range(hints.MOST_WORDS)), filters.SNAP) + [(filters.RET, 0, 0, 0)]
    assert len(filters.inbound(filters.knock(PORT, then))) <= 4096


def test_search_finds_every_value_and_no_other():
    for count in (0, 1, 7, 8, 9, 100, 1000):
        values = [3 + 5 * number for number in range(count)]
        program = [(filters.LD_W, 0, 0, 0)] + filters.search(values, 77)
        assert len(program) < 2000
        for value in values[:20] + values[-20:]:
            for near in (-1, 0, 1):
                data = (value + near).to_bytes(4, "big")
                assert execute(program, data) == (0 if near else 77)  # X is 0


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


def test_source_is_found_in_whatever_the_filter_kept():
    assert ip.source_of(v4()) == ip.source_of(v4(length=209)) == b"\xc0\0\2\7"
    assert ip.source_of(v6()) == bytes(15) + b"\7"
    for size in range(48):
        ip.source_of(v4()[:size])
        ip.source_of(v6()[:size])


def test_packet_cut_anywhere_is_refused_and_raises_nothing():
    for whole in (v4(), v6(), v4(options=bytes(40))):
        for size in range(len(whole)):
            assert ip.parse(whole[:size]) is None
