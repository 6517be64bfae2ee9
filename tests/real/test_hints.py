"""Stanza hints between real programs: who takes a hinted packet, what a demand refuses, what a thousand users cost."""

import os
import signal
import socket
import sys
import threading
import time

import pytest

from tests.need import need
from tests.real import net, peers
from tinyknop import Keys, Packet, crypto, hints, log, seal
from tinyknop.capture import _COMPARES, compare, filters, make
from tinyknop.compat import monotonic
from tinyknop.hints import Hints, hint
from tinyknop.loop import Loop

DEMAND = "require_hint = true"
STANZAS, KNOCKS = 1000, 40
STANZA = '\n[[stanza]]\nname = "u%d"\nkey = "key %d"\nhmac_key = "hmac key %d"\ntimeout = 2\nports = ["firewall"]\n'
# A daemon whose slots last a second, so that nobody has to wait minutes for the next one.
QUICK = """import sys
from tinyknop import hints
hints.SLOT = 1
from tinyknop.host.cli import main
sys.exit(main(sys.argv[2:]))
"""


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
    peers.fwknop(guarded)
    peers.knock(guarded)
    assert not guarded.can_connect()
    peers.knock(guarded, "--hints")
    assert peers.wait_counters(daemon, {}) == {"granted": 1}
    assert peers.status(daemon)["captures"][0]["received"] == 1
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
    assert searched > first + 0.4, "the search costs nothing: what was measured?"
    assert last < first + (searched - first) / 2, (first, last, searched)


def opened(network, more, options):
    """Lets UDP through the firewall, for the udp capture; returns a daemon that hears knocks."""
    for tool in ("iptables", "ip6tables"):
        network.at(network.server, tool, "-I", "INPUT", "-p", "udp", "--dport", "62201", "-j", "ACCEPT")
    return peers.serve(network, peers.toml_stanza(network, openings=(), more=more), **options)


def sent(network, senders, hinted):
    """Sends a knock for a port of its own by each sender."""
    for sender, address in senders:
        random, now = os.urandom(5), int(time.time())
        salt = random[:4] + hint(peers.HMAC_KEY, now) + random[4:] if hinted else None
        message = "%s,udp/%d" % (net.CLIENT, 20000 + random[0])
        packet = seal(Packet(message, "alice", timestamp=now), Keys(peers.KEY, peers.HMAC_KEY), salt=salt)
        sender.sendto(packet, (address, 62201))


def granted(daemon, count):
    """Waits until so many knocks were granted; returns the counters and how many packets a capture received."""
    deadline = time.monotonic() + 10
    while peers.counters(daemon).get("granted", 0) < count and time.monotonic() < deadline:
        time.sleep(0.02)
    return peers.counters(daemon), peers.status(daemon)["captures"][0]["received"]


@pytest.mark.parametrize("kind", ["packet", "udp"])
def test_what_has_no_hint_ends_in_the_kernel_until_a_reload_lifts_the_demand(guarded, monkeypatch, kind):
    quick = peers.write(os.path.join(guarded.dir, "quick.py"), QUICK)
    monkeypatch.setattr(peers, "PYTHON", [sys.executable, quick])
    monkeypatch.setattr(hints, "SLOT", 1)
    daemon = opened(guarded, DEMAND, {"capture": kind})
    daemon.wait_line(_COMPARES)
    four = guarded.new_socket(guarded.client, kind=socket.SOCK_DGRAM)
    six = guarded.new_socket(guarded.client, socket.AF_INET6, socket.SOCK_DGRAM)
    senders = ((four, net.SERVER), (six, net.SERVER6))
    with four, six:
        for _ in range(40):  # three seconds and more, so three slots and more
            sent(guarded, senders, False)
            sent(guarded, senders, True)
            time.sleep(0.08)
        assert granted(daemon, 80) == ({"granted": 80}, 80)
        with open(daemon.config) as file:
            text = file.read()
        for config, said in ((text.replace(DEMAND, ""), "no hints any more"), (text, _COMPARES)):
            peers.write(daemon.config, config)
            mark = daemon.mark()
            daemon.signal(signal.SIGHUP)
            daemon.wait_line("the configuration was read anew", after=mark)
            daemon.wait_line(said, after=mark)
            sent(guarded, senders, False)
            sent(guarded, senders, True)
        assert granted(daemon, 86) == ({"granted": 86}, 86)


class Ears:
    """A capture in the server's namespace, and what it hears; its loop runs while something is waited for."""

    def __init__(self, network, options):
        self.network, self.heard, self.loop = network, [], Loop()
        self.capture = make(options, self.take)
        self.words = Hints([(crypto.mac("sha256", b"hmac key %d" % i), i) for i in range(300)]).words(int(time.time()))
        self.inside(lambda: self.capture.start(self.loop))

    def take(self, datagram):
        self.heard.append(datagram.payload)
        return datagram.payload[:4] != b"8888"

    def waiting(self, sock):
        """Returns the knocks that wait in a queue, and takes them out."""
        found = []
        try:
            while True:
                found.append(sock.recv(2000)[-len(made(0, False, 20000)) :])
        except BlockingIOError:
            return found

    def sender(self, last, address):
        """Returns a socket of the client with an address that ends with `last`, in the family of `address`."""
        if address == net.SERVER6:
            return self.network.new_socket(self.network.client, socket.AF_INET6, socket.SOCK_DGRAM)
        own = "10.99.0.%d" % last
        self.network.at(self.network.client, "ip", "addr", "add", own + "/24", "dev", "eth0")
        made = self.network.new_socket(self.network.client, kind=socket.SOCK_DGRAM)
        made.bind((own, 0))
        return made

    def inside(self, call):
        return self.network.inside(self.network.server, call)

    def wait(self, count):
        """Turns the loop until so many packets were heard, or ten seconds are over; returns them."""

        def body():
            deadline = time.monotonic() + 10
            while len(self.heard) < count and time.monotonic() < deadline:
                self.loop.at(monotonic() + 10, int)
                self.loop.turn()

        self.inside(body)
        heard, self.heard = self.heard, []
        return heard


@pytest.fixture
def ears(network):
    made = []
    for tool in ("iptables", "ip6tables"):
        network.at(network.server, tool, "-I", "INPUT", "-p", "udp", "-j", "ACCEPT")

    def begin(options):
        made.append(Ears(network, options))
        return made[-1]

    yield begin
    for one in made:
        one.inside(one.capture.stop)


@pytest.mark.parametrize(
    "options", [{"interface": "eth0"}, {"interface": "any", "any_direction": "Y"}, {"kind": "udp"}]
)
def test_every_queue_of_a_flood_compares_hints(ears, options):
    here = ears(options)
    junk = [b"8" * 204] * 66  # a quota and a little more: a flood, and nobody is listed
    for packet in junk:
        here.network.send(packet)
    assert here.wait(66) == junk
    assert len(here.capture.fence.others()) in (16, 32)  # udp has two groups
    compare(here.capture, here.words, True)
    assert int.from_bytes(b"8888", "big") not in here.words
    true = [made(number, True, 20000) for number in range(0, 300, 15)]
    for number, packet in enumerate(true):
        for last, address in ((100 + number, net.SERVER), (2, net.SERVER6)):  # the source chooses the queue
            with here.sender(last, address) as sender:
                for data in (junk[0], packet, packet[:6] + junk[0]):
                    sender.sendto(data, (address, 62201))
    assert sorted(here.wait(40)) == sorted(true * 2)
    compare(here.capture, here.words, False)
    for address in (net.SERVER, net.SERVER6):
        here.network.send(true[0], address=address)
        here.network.send(junk[0], address=address)
        here.network.send(true[1], address=address)
    waiting = [here.waiting(group[0][-1]) for group in here.capture.fence._groups]
    assert sorted(sum(waiting, [])) == sorted(true[:2] * 2)
    assert here.wait(2) == junk[:2]


def test_no_packet_is_lost_while_hints_are_renewed(ears):
    here = ears({"interface": "eth0"})
    compare(here.capture, here.words, True)
    packet, count = made(7, True, 20000), 2000

    def send():
        with here.network.new_socket(here.network.client, kind=socket.SOCK_DGRAM) as sender:
            for number in range(count):
                sender.sendto(packet + b"%04d" % number, (net.SERVER, 62201))
                if not number % 100:
                    time.sleep(0.01)

    sending = threading.Thread(target=send)
    sending.start()
    renewed = 0
    while sending.is_alive():
        compare(here.capture, here.words[renewed % 3 :] if renewed % 2 else here.words, True)
        renewed += 1
    assert renewed > 10
    heard = here.wait(count)
    assert [int(payload[-4:]) for payload in heard] == list(range(count))


def test_where_the_kernel_has_no_room_hints_are_compared_by_the_gate(ears, monkeypatch):
    here, said = ears({"interface": "eth0"}), []
    monkeypatch.setattr(log, "sink", lambda level, text: said.append(text))
    attach, short = filters.attach, len(here.capture.program)

    def cramped(sock, program, *more):
        if len(program) > short:
            raise OSError(12, "no room")
        return attach(sock, program, *more)

    compare(here.capture, here.words, True)
    assert here.capture.program[:3] == filters.inbound([])  # still none of what this machine sends
    monkeypatch.setattr(filters, "attach", cramped)
    for _ in range(2):
        compare(here.capture, here.words, True)
        here.network.send(b"8" * 200)
        assert here.wait(1) == [b"8" * 200]
    assert ["no room" in line for line in said] == [False, True]
