"""Capture files of every kind we read, written here byte by byte, and damaged ones."""

import os
import struct

from tinyknop.capture import make, pcap
from tinyknop.errors import ConfigError, PortError
from tinyknop.loop import Loop

PAYLOAD = b"5" * 200
FILE = "/tmp/tinyknop-test-%d.pcap" % (id(PAYLOAD) & 0xFFFFFF)
ETHERNET = bytes(12) + b"\x08\0"


def knock(number=0, port=62201):
    udp = struct.pack(">HHHH", 4000 + number, port, 8 + len(PAYLOAD), 0) + PAYLOAD
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + b"\xc0\0\2\7\xc0\0\2\1" + udp


def classic(frames, link=1, order="<", magic=0xA1B2C3D4):
    out = struct.pack(order + "IHHIIII", magic, 2, 4, 0, 0, 65535, link)
    for frame in frames:
        out += struct.pack(order + "IIII", 1700000000, 5, len(frame), len(frame)) + frame
    return out


def block(kind, body, order):
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def nextgen(frames, link=1, order="<"):
    out = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    out += block(1, struct.pack(order + "HHI", link, 0, 0), order) + block(5, bytes(20), order)
    for frame in frames:
        out += block(6, struct.pack(order + "IIIII", 0, 1, 2, len(frame), len(frame)) + frame, order)
    return out


def read(data, **options):
    """Returns (datagrams, what `over` was told) of a file with these bytes."""
    with open(FILE, "wb") as file:
        file.write(data)
    seen, ends = [], []
    try:
        capture = make(dict(options, kind="pcap", file=FILE), seen.append)
        capture.over = lambda *words: ends.append(words)
        loop = Loop()
        capture.start(loop)
        while not ends:
            loop.turn()
    finally:
        os.remove(FILE)
    return seen, ends


def test_both_byte_orders_both_clocks_and_both_formats_are_read():
    frames = [ETHERNET + knock(n) for n in range(3)]
    files = [classic(frames, 1, order, magic) for order in "<>" for magic in (0xA1B2C3D4, 0xA1B23C4D)]
    for data in (
        files + [nextgen(frames, 1, order) for order in "<>"] + [nextgen(frames[:1]) + nextgen(frames[1:], 1, ">")]
    ):
        seen, ends = read(data)
        assert [datagram.sport for datagram in seen] == [4000, 4001, 4002]
        assert tuple(seen[0]) == (PAYLOAD, b"\xc0\0\2\7", 4000, b"\xc0\0\2\1", 62201, 17)
        assert ends == [("end of %s" % FILE, None)]


def test_link_headers_are_skipped():
    tagged = bytes(12) + b"\x81\0\0\5"
    heads = (
        (1, ETHERNET),
        (1, tagged + b"\x08\0"),
        (1, bytes(12) + b"\x00\xe4\xaa\xaa\3\0\0\0\x08\0"),
        (1, tagged + b"\x00\xe4\xaa\xaa\3\0\0\0\x08\0"),
        (1, bytes(12) + b"\x00\xe4\6\6\3"),
        (1, bytes(12) + b"\x88\x64\x11\0\0\1\0\xe6\0\x21"),
        (51, b"\x11\0\0\1\0\xe6\0\x21"),
        (0, b"\2\0\0\0"),
        (108, b"\0\0\0\2"),
        (113, bytes(14) + b"\x08\0"),
        (276, b"\x08\0" + bytes(18)),
        (101, b""),
        (228, b""),
        (12, b""),
    )
    for link, head in heads:
        assert len(read(classic([head + knock()], link))[0]) == 1, (link, head)
    assert len(read(classic([ETHERNET + knock()], 1 | 0x14000000))[0]) == 1  # the upper bits tell of checksums


def test_builtin_filter_keeps_its_port_alone():
    frames = [ETHERNET + knock(0), ETHERNET + knock(1, 53), ETHERNET + b"junk", b"", ETHERNET + knock(2)]
    assert [datagram.sport for datagram in read(classic(frames))[0]] == [4000, 4002]
    assert [datagram.sport for datagram in read(classic(frames), filter="udp port 53")[0]] == [4001]
    assert [datagram.sport for datagram in read(classic(frames), port="53")[0]] == [4001]
    assert [datagram.sport for datagram in read(classic(frames), filter="none")[0]] == [4000, 4001, 4002]


def test_long_file_is_read_in_turns():
    with open(FILE, "wb") as file:
        file.write(classic([ETHERNET + knock(n) for n in range(200)]))
    seen = []
    capture = make({"kind": "pcap", "file": FILE}, seen.append)
    loop = Loop()
    capture.start(loop)
    loop.turn()
    loop.turn()
    assert 0 < len(seen) <= 128
    capture.stop()
    loop.turn()
    assert len(seen) <= 128
    os.remove(FILE)


def test_record_cut_short_ends_the_file_and_damage_says_so():
    for whole in (classic([ETHERNET + knock()]), nextgen([ETHERNET + knock()])):
        for size in range(24 if whole[0] == 0xD4 else 28, len(whole) - 8, 7):
            assert read(whole[:size])[1][0][1] is None
    seen, ends = read(classic([ETHERNET + knock()]) + b"\xff" * 16)
    assert len(seen) == 1 and ends[0][1] == 1 and "damaged" in ends[0][0]


def test_other_files_and_missing_ones_are_refused_at_start():
    for data in (b"", b"GIF8", b"\xd4\xc3\xb2\xa1", b"x" * 100):
        try:
            read(data, where="f:3")
            raise AssertionError(data)
        except ConfigError as error:
            assert error.stage == "f:3"
    try:
        make({"kind": "pcap", "file": "/nonexistent/file"}, print).start(Loop())
        raise AssertionError()
    except PortError:
        pass
    try:
        make({"kind": "pcap"}, print)
        raise AssertionError()
    except ConfigError:
        pass


def test_records_of_any_bytes_raise_nothing_unexpected():
    whole = nextgen([ETHERNET + knock()])
    for place in range(4, len(whole), 3):
        for byte in (0, 1, 255):
            read(whole[:place] + bytes([byte]) + whole[place + 1 :])
    assert pcap.packet_of(1, b"") == b""
