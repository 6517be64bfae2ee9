"""What a knocker gets to see of a daemon, and what its log and files hold of a knock: nothing that helps anybody."""

import os
import socket

import pytest

from tests.real import net, peers
from tinyknop import Keys, Packet, seal

KEYS = Keys(peers.KEY, peers.HMAC_KEY)
USER, RAND = "margarethe-knocks", "7777000077770000"
ALL = 0x0003  # ETH_P_ALL


def knocks():
    """Returns datagrams that end at different stages, a true one among them, and the counters that they move."""
    true = seal(Packet("%s,tcp/%d" % (net.CLIENT, net.SERVICE), USER, rand=RAND), KEYS)
    other = Keys(b"another key", peers.HMAC_KEY)
    return (
        (b"\0" * 20, None),
        (b"8" * 200, "hmac"),
        (true[:-2] + (b"AA" if true[-2:] != b"AA" else b"BB"), "hmac"),
        (seal(Packet("%s,tcp/1" % net.CLIENT, USER, rand=RAND), other), "decrypt"),
        (seal(Packet("%s,tcp/1" % net.CLIENT, USER, rand=RAND), KEYS), "openings"),
        (true, "granted"),
        (true, "replay"),
    )


def heard(ear):
    """Returns the IPv4 packets from the server that came to the client."""
    found = []
    while True:
        try:
            frame = ear.recv(65535)
        except BlockingIOError:
            return found
        if frame[12:14] == b"\x08\x00" and frame[26:30] == socket.inet_aton(net.SERVER):
            found.append(frame[:60])


def started(network, front):
    """Starts a daemon that says all that it ever says."""
    if front:
        return peers.front_end(network, peers.stanza(), verbose="3")
    network.at(network.server, "iptables", "-w", "-I", "INPUT", "-p", "udp", "--dport", "62201", "-j", "ACCEPT")
    return peers.serve(network, kind="iptables", capture="udp")


@pytest.mark.parametrize("front", (True, False), ids=("front", "serve"))
def test_nobody_is_answered_and_no_log_or_file_holds_a_secret(network, front):
    daemon = started(network, front)
    with network.new_socket(network.client, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL)) as ear:
        ear.setblocking(False)
        for payload, counter in knocks():
            before = peers.counters(daemon)
            network.send(payload)
            assert counter is None or peers.wait_counters(daemon, before).get(counter) == 1, daemon.text()
        assert heard(ear) == []
        assert network.wait_connect(True) is not None
        assert heard(ear), "the client's ear is deaf"
    said = daemon.text() + repr(peers.status(daemon))
    for folder, _, names in os.walk(daemon.state):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                with open(path, "rb") as file:
                    said += file.read().decode("latin-1")
    assert net.CLIENT in said
    for secret in (peers.KEY, peers.HMAC_KEY):
        for text in (secret.decode(), secret.hex(), peers.base64_text(secret).rstrip("=")):
            assert text not in said
    assert front == (RAND in said)  # fwknopd says a packet's fields with VERBOSE, so the front end does
