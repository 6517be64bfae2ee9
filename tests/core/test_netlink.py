"""Netlink messages in both byte orders. That the kernel understands them is shown in tests/real."""

import struct

from tinyknop import netlink

ENTRY = (b"\xc0\x00\x02\x07", 6, 22)


def test_attribute_is_padded_but_its_length_is_not():
    assert netlink.attr(2, b"knop\0", "<") == b"\x09\x00\x02\x00knop\0\0\0\0"
    assert netlink.attr(2, b"knop\0", ">") == b"\x00\x09\x00\x02knop\0\0\0\0"


def test_attributes_come_back_without_their_flags():
    for order in "<>":
        data = netlink.attr(1 | netlink.BIG, b"abc", order) + netlink.attr(7 | netlink.NESTED, b"", order)
        assert netlink.attrs(data, order) == [(1, b"abc"), (7, b"")]


def test_cut_or_senseless_attributes_end_the_list():
    good = netlink.attr(1, b"abcd", "<")
    assert netlink.attrs(good + b"\x03\x00\x01\x00", "<") == [(1, b"abcd")]
    assert netlink.attrs(good + b"\xff\x00\x01\x00abc", "<") == [(1, b"abcd")]
    assert netlink.attrs(good + b"\x04", "<") == [(1, b"abcd")]


def test_add_of_an_ipv4_entry_is_the_same_but_for_byte_order():
    little = netlink.ipset_entry(netlink.IPSET_ADD, 5, "k", ENTRY, 30, "<")
    big = netlink.ipset_entry(netlink.IPSET_ADD, 5, "k", ENTRY, 30, ">")
    assert little == (
        b"\x4c\x00\x00\x00\x09\x06\x05\x00\x05\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00"
        b"\x05\x00\x01\x00\x07\x00\x00\x00\x06\x00\x02\x00k\x00\x00\x00\x28\x00\x07\x80"
        b"\x0c\x00\x01\x80\x08\x00\x01\x40\xc0\x00\x02\x07\x06\x00\x04\x40\x00\x16\x00\x00"
        b"\x05\x00\x07\x00\x06\x00\x00\x00\x08\x00\x06\x40\x00\x00\x00\x1e"
    )
    assert big == (
        b"\x00\x00\x00\x4c\x06\x09\x00\x05\x00\x00\x00\x05\x00\x00\x00\x00\x02\x00\x00\x00"
        b"\x00\x05\x00\x01\x07\x00\x00\x00\x00\x06\x00\x02k\x00\x00\x00\x00\x28\x80\x07"
        b"\x00\x0c\x80\x01\x00\x08\x40\x01\xc0\x00\x02\x07\x00\x06\x40\x04\x00\x16\x00\x00"
        b"\x00\x05\x00\x07\x06\x00\x00\x00\x00\x08\x40\x06\x00\x00\x00\x1e"
    )


def test_ipv6_entry_carries_sixteen_bytes_under_the_other_kind():
    address = bytes(range(16))
    for order in "<>":
        data = netlink.ipset_entry(netlink.IPSET_DEL, 1, "k", (address, 17, 53), None, order)
        assert netlink.attr(2 | netlink.BIG, address, order) in data


def test_create_names_family_timeout_and_size():
    for order in "<>":
        data = netlink.ipset_create(1, "k6", netlink.AF_INET6, 100000, 0, order)
        assert netlink.attr(5, b"\x0a", order) in data
        assert netlink.attr(6 | netlink.BIG, bytes(4), order) in data
        assert netlink.attr(19 | netlink.BIG, struct.pack(">I", 100000), order) in data
        kind, flags, seq, _ = netlink.messages(data, order)[0]
        assert (kind, seq) == (0x602, 1)
        assert not flags & netlink.EXCL  # or an equal set that exists would be an error


def test_acknowledgement_and_error_are_read_in_both_orders():
    for order in "<>":
        data = netlink.message(netlink.ERROR, 0, 7, struct.pack(order + "i", 0) + bytes(16), order)
        data += netlink.message(netlink.ERROR, 0, 8, struct.pack(order + "i", -4352) + bytes(16), order)
        found = netlink.messages(data, order)
        assert [(seq, netlink.error_of(body, order)) for _, _, seq, body in found] == [(7, 0), (8, 4352)]


def test_message_cut_short_is_dropped():
    data = netlink.message(netlink.ERROR, 0, 7, bytes(20), "<")
    assert len(netlink.messages(data + data[:-1], "<")) == 1
    assert netlink.messages(bytes(40), "<") == []
    assert netlink.messages(data[:15], "<") == []


def listing(order):
    def entry(address, proto, port, timeout):
        data = netlink.attr(1 | netlink.NESTED, netlink.attr(1 | netlink.BIG, address, order), order)
        data += netlink.attr(4 | netlink.BIG, struct.pack(">H", port), order) + netlink.attr(7, bytes([proto]), order)
        data += netlink.attr(6 | netlink.BIG, struct.pack(">I", timeout), order)
        return netlink.attr(7 | netlink.NESTED, data, order)

    head = netlink.attr(1, b"\7", order) + netlink.attr(2, b"k\0", order) + netlink.attr(3, b"hash:ip,port\0", order)
    head += netlink.attr(5, b"\2", order) + netlink.attr(4, b"\7", order)
    head += netlink.attr(7 | netlink.NESTED, netlink.attr(19 | netlink.BIG, struct.pack(">I", 65536), order), order)
    entries = entry(b"\xc0\0\2\7", 6, 22, 30) + entry(b"\xc0\0\2\x08", 17, 53, 2147483)
    return b"\2\0\0\0" + head + netlink.attr(8 | netlink.NESTED, entries, order)


def test_list_gives_entries_with_the_time_they_have_left():
    for order in "<>":
        kind, header, entries = netlink.ipset_listed(listing(order), order)
        assert kind == "hash:ip,port"
        assert (header["family"], header["maxelem"], header["revision"]) == (2, 65536, 7)
        assert entries == [(b"\xc0\0\2\7", 6, 22, 30, None), (b"\xc0\0\2\x08", 17, 53, 2147483, None)]


def test_list_cut_anywhere_raises_nothing():
    data = listing("<")
    for size in range(len(data)):
        netlink.ipset_listed(data[:size], "<")


def test_interface_is_asked_for_by_name_and_its_index_read():
    for order in "<>":
        assert b"eth0\0" in netlink.link_query(1, "eth0", order)
        body = struct.pack(order + "BBHiII", 0, 0, 1, 7, 0x1003, 0)
        assert netlink.link_of(body, order) == (7, True)
        assert netlink.link_of(struct.pack(order + "BBHiII", 0, 0, 1, 7, 0x1002, 0), order) == (7, False)
