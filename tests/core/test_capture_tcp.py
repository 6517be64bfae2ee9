"""The TCP and HTTP listeners on the loopback interface, as both Pythons have them."""

import socket

from tinyknop import compat, net
from tinyknop.capture import make, tcp
from tinyknop.errors import ConfigError, PortError
from tinyknop.loop import Loop

KNOCK = b"5" * 200


def listening(kind, seen, **options):
    """Returns (capture, its loop) on some free port."""
    for port in range(20000 + id(seen) % 20000, 65536, 7):
        capture = make(dict(options, kind=kind, address="127.0.0.1", port=str(port)), seen.append)
        loop = Loop()
        try:
            capture.start(loop)
        except PortError:
            continue
        return capture, loop


def connected(capture, source="127.0.0.1"):
    peer = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    peer.bind(compat.sockaddr(source, 0))
    peer.connect(compat.sockaddr("127.0.0.1", capture.port))
    return peer


def turn(loop, until):
    deadline = compat.monotonic() + 3000
    while not until():
        assert compat.monotonic() < deadline
        loop.at(compat.monotonic() + 5, int)
        loop.turn()


def test_what_came_until_the_end_of_a_connection_is_one_datagram():
    seen = []
    capture, loop = listening("tcp", seen)
    peer = connected(capture)
    peer.send(KNOCK)
    peer.close()
    turn(loop, lambda: seen)
    assert seen[0].payload == KNOCK
    assert (seen[0].source, seen[0].destination) == (net.packed("127.0.0.1"), net.packed("127.0.0.1"))
    assert (seen[0].dport, seen[0].proto) == (capture.port, 6)
    capture.stop()


def test_whole_request_ends_a_connection_that_stays_open():
    seen = []
    capture, loop = listening("http", seen)
    peer = connected(capture)
    peer.send(b"GET /" + KNOCK + b" HTTP/1.0\r\nUser-Agent: Fwknop\r\n\r\n")
    begun = compat.monotonic()
    turn(loop, lambda: seen)
    assert compat.monotonic() - begun < 900
    assert peer.recv(10) == b""
    peer.close()
    capture.stop()


def test_oldest_connection_makes_room_and_what_it_said_still_counts():
    seen = []
    capture, loop = listening("tcp", seen)
    before, tcp.MOST = tcp.MOST, 3
    try:
        peers = []
        for number in range(5):
            peers.append(connected(capture, "127.0.0.%d" % (number + 2)))
            said = str(number).encode() + KNOCK
            peers[-1].send(said)
            turn(loop, lambda said=said: capture.open and capture.open[-1].data == said)
            assert len(capture.open) <= 3
    finally:
        tcp.MOST = before
    assert [datagram.payload[:1] for datagram in seen] == [b"0", b"1"]
    for peer in peers:
        peer.close()
    capture.stop()
    assert capture.open == [] and len(seen) == 2


def test_knock_is_read_though_a_crowd_comes_before_its_turn():
    seen = []
    capture, loop = listening("tcp", seen)
    before, tcp.MOST = tcp.MOST, 3
    try:
        peers = [connected(capture, "127.0.0.2")]
        peers[0].send(KNOCK)
        peers += [connected(capture, "127.0.0.%d" % (number + 3)) for number in range(6)]
        turn(loop, lambda: seen)
    finally:
        tcp.MOST = before
    assert (seen[0].payload, seen[0].source) == (KNOCK, net.packed("127.0.0.2"))
    for peer in peers:
        peer.close()
    capture.stop()


def test_stopped_listener_hands_on_nothing_and_nobody_gets_in():
    seen = []
    capture, loop = listening("tcp", seen)
    peer = connected(capture)
    peer.send(KNOCK)
    turn(loop, lambda: capture.open and capture.open[0].data)
    capture.stop()
    assert peer.recv(10) == b""
    assert seen == [] and loop._watched == {}
    try:
        connected(capture)
        raise AssertionError("still listening")
    except OSError:
        pass


def test_options_that_cannot_be_meant_are_refused():
    for options in ({"read": "yes"}, {"port": "0"}, {"address": "example.net"}, {"interface": "eth0"}):
        try:
            make(dict(options, kind="tcp"), print)
            raise AssertionError(options)
        except ConfigError:
            pass
