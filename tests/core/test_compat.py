"""What differs between the runtimes: the alphabet of a datagram, socket addresses."""

from tinyknop import compat
from tinyknop.spa import BASE64


def test_a_byte_outside_base64_is_found_wherever_it_stands():
    for length in range(1, 23):
        good = (BASE64 * 2)[60 : 60 + length]
        assert compat.only_in(good, BASE64)
        for place in range(length):
            for byte in b"=-_ \n\0\x7f\xff:.":
                assert not compat.only_in(good[:place] + bytes([byte]) + good[place + 1 :], BASE64), (length, byte)
    assert compat.only_in(b"", BASE64) and not compat.only_in(b"=" * 160, BASE64)
    assert not compat.only_in(b" " * 16 + b"A" * 160, BASE64) and not compat.only_in(b"A" * 160 + b"====", BASE64)


def test_sender_is_packed_whatever_form_the_runtime_gives_it_in():
    six = b"\x20\x01\x0d\xb8" + bytes(11) + b"\7"
    assert compat.peer(("192.0.2.7", 5)) == (b"\xc0\0\2\7", 5)
    assert compat.peer(("2001:db8::7", 5))[0] == compat.peer(("2001:DB8:0:0:0:0:0:7", 5))[0] == six
    assert compat.peer(("::1", 5))[0] == bytes(15) + b"\1"
    assert compat.peer(("fe80::", 5))[0] == b"\xfe\x80" + bytes(14)
    if compat.MICROPYTHON:  # the unix port gives a sockaddr
        assert compat.peer(b"\2\0\x12\x34\xc0\0\2\7" + bytes(8)) == (b"\xc0\0\2\7", 0x1234)
        assert compat.peer(b"\x0a\0\x12\x34" + bytes(4) + six + bytes(4)) == (six, 0x1234)
