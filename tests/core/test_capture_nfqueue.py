"""NFQUEUE messages as bytes, and options that must never look like iptables' own."""

import errno
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


class Queue:
    """A socket that brings the kernel's messages, and keeps the verdicts as {packet's number: fate}."""

    def __init__(self, *news):
        self.news, self.fates = list(news), {}

    def recv(self, size):
        if not self.news:
            raise OSError(errno.EAGAIN, "")
        news = self.news.pop(0)
        if isinstance(news, int):
            raise OSError(news, "")
        return news

    def send(self, data):
        body = netlink.attrs(netlink.messages(data)[0][3][4:])
        fate, number = struct.unpack(">II", body[0][1])
        self.fates[number] = fate


def queued(number, hook, payload):
    """The kernel's message about a datagram to port 62201."""
    udp = struct.pack(">HHHH", 1000, 62201, 8 + len(payload), 0) + payload
    packet = (
        struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + bytes([192, 0, 2, 7, 192, 0, 2, 1]) + udp
    )
    body = netlink.attr(1, struct.pack(">IHB", number, 0x800, hook)) + netlink.attr(10, packet)
    return netlink.message(nfqueue.PACKET, 0, 0, b"\2\0\0\1" + body)


def test_packets_to_us_end_here_and_those_that_pass_through_go_on():
    heard = []
    capture = make({"kind": "nfqueue"}, heard.append)
    queue = Queue(queued(1, 1, b"to us"), errno.ENOBUFS, netlink.message(2, 0, 0, bytes(4)), queued(2, 2, b"through"))
    capture._drain(queue)
    assert [datagram.payload for datagram in heard] == [b"to us", b"through"]
    assert heard[0].source == bytes([192, 0, 2, 7])
    assert queue.fates == {1: nfqueue.DROP, 2: nfqueue.ACCEPT}
    assert (capture.received, capture.dropped) == (2, 1)


def test_while_it_stops_packets_get_their_verdict_and_nobody_hears_of_them():
    """Its rules take a moment to go; what they still send here must not be held for ever."""
    heard = []
    capture = make({"kind": "nfqueue"}, heard.append)
    capture.stop()
    queue = Queue(queued(3, 1, b"late"), queued(4, 2, b"through"))
    capture._drain(queue)
    assert heard == [] and queue.fates == {3: nfqueue.DROP, 4: nfqueue.ACCEPT}
