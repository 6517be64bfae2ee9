"""The words and messages that end established connections, in both byte orders. That they do is shown in tests/real."""

import struct

from tinyknop import conntrack, netlink
from tinyknop.grants import Grant, Nat


def grant(openings, nat=None, source="192.0.2.7"):
    return Grant(1, source, openings, 1700000000, 1700000030, "alice", nat, "0.0.0.0", source)


def lines(*arguments):
    return [" ".join(words) for words in conntrack.words(grant(*arguments))]


def test_sockets_are_reset_before_their_entries_go():
    assert lines((("tcp", 22), ("udp", 53))) == [
        "ss -K -t dst 192.0.2.7 sport = :22",
        "conntrack -D -s 192.0.2.7 -p tcp --dport 22",
        "conntrack -D -s 192.0.2.7 -p udp --dport 53",
    ]


def test_what_is_forwarded_has_no_socket_here():
    assert lines((("tcp", 22),), Nat(False, "10.0.0.5", 80, None, False, True)) == [
        "conntrack -D -s 192.0.2.7 -p tcp --dport 22"
    ]
    assert lines((("tcp", 22),), Nat(False, "10.0.0.5", 80, None, True, True)) == ["conntrack -D -s 192.0.2.7"]
    assert lines((("tcp", 22),), Nat(True, "10.0.0.1", 80, None, False, True)) == [
        "ss -K -t dst 192.0.2.7 sport = :80",
        "conntrack -D -s 192.0.2.7 -p tcp --dport 22",
    ]
    assert lines((("udp", 22),), Nat(False, "10.0.0.5", 80, None, False, False)) == [
        "conntrack -D -s 192.0.2.7 -p udp --dport 80"
    ]


def attributes(data, order):
    return dict(netlink.attrs(data, order))


def test_entries_are_chosen_by_source_protocol_and_port():
    for order in "<>":
        data = conntrack.entries(7, tuple("conntrack -D -s 192.0.2.7 -p tcp --dport 22".split()), order)
        kind, flags, seq, body = netlink.messages(data, order)[0]
        assert (kind, seq, body[0], bool(flags & netlink.ACK)) == (0x102, 7, 2, True)
        found = attributes(body[4:], order)
        path = attributes(found[1], order)
        assert attributes(path[1], order) == {1: b"\xc0\0\2\7"}
        assert attributes(path[2], order) == {1: b"\6", 3: b"\0\x16"}
        assert attributes(found[25], order) == {1: struct.pack(order + "I", 1 | 8 | 32)}


def test_all_entries_of_an_ipv6_source():
    for order in "<>":
        data = conntrack.entries(7, ("conntrack", "-D", "-s", "2001:db8::7"), order)
        body = netlink.messages(data, order)[0][3]
        found = attributes(body[4:], order)
        assert body[0] == 10 and list(attributes(found[1], order)) == [1]
        assert 3 in attributes(attributes(found[1], order)[1], order)
        assert attributes(found[25], order) == {1: struct.pack(order + "I", 1)}


def test_words_that_would_end_more_are_refused():
    for line in (
        "conntrack -D",
        "conntrack -F",
        "conntrack -D -p tcp --dport 22",
        "conntrack -D -s 0.0.0.777",
        "conntrack -D -s 192.0.2.7 -p tcp",
        "conntrack -D -s 192.0.2.7 -p tcp --sport 22",
        "conntrack -D -s 192.0.2.7 -p nonsense --dport 22",
        "conntrack -D -s 192.0.2.7 -p tcp --dport x",
    ):
        assert refused(conntrack.entries, 1, tuple(line.split())), line
    for line in ("ss -K", "ss -K -t dst 192.0.2.7", "ss -K -t dst 192.0.2.7 sport = 22", "ss -K -t dst x sport = :22"):
        assert refused(conntrack.peer, tuple(line.split())), line


def refused(call, *arguments):
    try:
        call(*arguments)
    except ValueError:
        return True
    return False


def listed(family, far):
    head = bytes([family, 1, 0, 0]) + struct.pack(">HH", 22, 50000)
    return head + bytes(16) + far + bytes(16 - len(far)) + b"\0\0\0\0cookie12" + bytes(20)


def test_socket_is_found_by_its_far_end_and_named_by_its_cookie():
    four, six = b"\xc0\0\2\7", bytes(range(16))
    assert conntrack.far_end(listed(2, four)) == four
    assert conntrack.far_end(listed(10, six)) == six
    assert conntrack.far_end(listed(10, bytes(10) + b"\xff\xff" + four)) == four
    for order in "<>":
        kind, _, seq, body = netlink.messages(conntrack.destroy(3, listed(2, four), order), order)[0]
        assert (kind, seq, len(body)) == (21, 3, 56)
        assert body[8:56] == listed(2, four)[4:52] and body[48:56] == b"cookie12"
        asked = netlink.messages(conntrack.sockets(4, 2, 22, order), order)[0][3]
        assert len(asked) == 56 and asked[8:10] == b"\0\x16"


def test_peer_is_read_from_the_words():
    assert conntrack.peer(tuple("ss -K -t dst 192.0.2.7 sport = :22".split())) == (b"\xc0\0\2\7", 22)
