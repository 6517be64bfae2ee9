"""Stanza hints between real programs: who takes a hinted packet, what a demand refuses, what a thousand users cost."""

import os
import select
import socket
import time

from tests.need import need
from tests.real import net, peers
from tinyknop import Keys, Packet, crypto, seal
from tinyknop.capture import filters
from tinyknop.hints import Hints, hint, program

DEMAND = "require_hint = true"
STANZAS, KNOCKS = 1000, 40
STANZA = '\n[[stanza]]\nname = "u%d"\nkey = "key %d"\nhmac_key = "hmac key %d"\ntimeout = 2\nports = ["firewall"]\n'


def test_the_real_fwknopd_takes_hinted_packets(network):
    need("fwknopd")
    daemon = peers.fwknopd(network)
    assert not network.can_connect()
    peers.knock(network, "--hints", "-f", "2")
    daemon.wait_line("Added access rule to FWKNOP_INPUT for 10.99.0.2")
    assert network.wait_connect(True) is not None
    assert network.wait_connect(False, within=6) is not None


def test_a_demand_lets_hinted_packets_in_and_no_others(guarded):
    need("fwknop")
    daemon = peers.serve(guarded, peers.toml_stanza(guarded, more=DEMAND))
    for knock in (lambda: peers.fwknop(guarded), lambda: peers.knock(guarded)):
        before = peers.counters(daemon)
        knock()
        assert peers.wait_counters(daemon, before) == {"hint": 1}
    assert not guarded.can_connect()
    before = peers.counters(daemon)
    peers.knock(guarded, "--hints")
    assert peers.wait_counters(daemon, before) == {"granted": 1}
    assert guarded.wait_connect(True) is not None


def made(number, hinted, port):
    """Returns a knock for the stanza of this number."""
    now, random = int(time.time()), os.urandom(5)
    hmac_key = b"hmac key %d" % number
    salt = random[:4] + hint(hmac_key, now) + random[4:] if hinted else None
    message = "%s,udp/%d" % (net.CLIENT, port)
    return seal(Packet(message, "alice", timestamp=now), Keys(b"key %d" % number, hmac_key), salt=salt)


def cpu_per_knock(network, daemon, numbers, hinted, port):
    """Returns the milliseconds of the daemon's CPU for one knock at each of some stanzas."""
    packets = [made(number, hinted, port + i) for i, number in enumerate(numbers)]
    goal = peers.counters(daemon).get("granted", 0) + len(packets)
    used = -daemon.cpu()
    for packet in packets:
        network.send(packet)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and peers.counters(daemon).get("granted", 0) < goal:
        time.sleep(0.1)
    assert peers.counters(daemon).get("granted", 0) == goal
    return (used + daemon.cpu()) * 1000 / len(packets)


def test_the_last_of_a_thousand_stanzas_is_found_as_fast_as_the_first(guarded):
    need("ipset")
    daemon = peers.serve(guarded, "".join(STANZA % (i, i, i) for i in range(STANZAS)))
    cpu_per_knock(guarded, daemon, [500, 501], True, 10000)  # what is loaded with the first knock is loaded now
    first = cpu_per_knock(guarded, daemon, range(KNOCKS), True, 11000)
    last = cpu_per_knock(guarded, daemon, range(STANZAS - KNOCKS, STANZAS), True, 12000)
    searched = cpu_per_knock(guarded, daemon, range(STANZAS - KNOCKS, STANZAS), False, 13000)
    assert last < 1.5 * first, (first, last, searched)
    assert searched > last + 0.4, "the search costs nothing: what was measured?"


def test_the_kernel_tells_hinted_packets_from_all_others(network):
    owners = [(crypto.mac("sha256", b"hmac key %d" % i), i) for i in range(400)]
    words = Hints(owners).words(int(time.time()))
    sock = network.inside(network.server, lambda: socket.socket(17, socket.SOCK_DGRAM, socket.htons(3)))
    with sock:
        filters.attach(sock, [(filters.LDX_IHL, 0, 0, 0), *program(words, filters.SNAP)])
        sock.bind(("eth0", 0x0800))
        sent = [made(number, True, 20000) for number in (0, 199, 399)]
        for packet in (made(7, False, 20000), sent[0], b"8" * 204, b"", sent[1], sent[1][:9], sent[2]):
            network.send(packet)
        heard = []
        while select.select([sock], [], [], 0.5)[0]:
            heard.append(sock.recv(2000)[28:])
        assert heard == sent
