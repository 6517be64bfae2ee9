"""NFQUEUE messages as bytes, and options that must never look like iptables' own."""

import struct

from tinyknop import netlink
from tinyknop.capture import make, nfqueue
from tinyknop.errors import ConfigError


def test_packet_message_gives_number_hook_and_bytes():
    body = b"\2\0\0\1" + netlink.attr(1, struct.pack(">IHB", 77, 0x800, 1)) + netlink.attr(5, bytes(4))
    body += netlink.attr(10, b"packet")
    assert nfqueue.packet_of(body) == (77, 1, b"packet")
    assert nfqueue.packet_of(b"\2\0\0\1") == (0, 0, b"")


def test_verdict_names_queue_packet_and_fate():
    kind, flags, _, body = netlink.messages(nfqueue.verdict(5, 77, nfqueue.DROP))[0]
    assert (kind, flags) == (0x301, netlink.REQUEST)
    assert body[:4] == b"\2\0\0\5"
    assert netlink.attrs(body[4:]) == [(2, struct.pack(">II", 0, 77))]


def test_set_up_of_a_queue_asks_for_an_answer():
    kind, flags, seq, body = netlink.messages(nfqueue.config(5, 9, netlink.attr(1, nfqueue.BIND)))[0]
    assert (kind, flags, seq) == (0x302, netlink.REQUEST | netlink.ACK, 9)
    assert netlink.attrs(body[4:]) == [(1, b"\1\0\0\2")]


def test_options_that_cannot_be_meant_are_refused():
    for options in (
        {"port": "0"},
        {"port": "1:2"},
        {"queue": "65536"},
        {"queue": "-1"},
        {"chain": "-X"},
        {"chain": "!x"},
        {"table": "a b"},
        {"interface": "x" * 29},
    ):
        try:
            make(dict(options, kind="nfqueue"), print)
            raise AssertionError(options)
        except ConfigError:
            pass
