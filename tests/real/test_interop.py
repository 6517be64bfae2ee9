"""fwknop's client knocks at tinyknop, tinyknop's client at the real fwknopd, through a real firewall.

Every knock is proved by a TCP connection: refused before, made after, refused again once the time is over.
"""

import os
import time

import pytest

from tests.need import need
from tests.real import net, peers
from tinyknop.gate import STAGES

OTHER_KEY = b"not the key of the tests at all."
OTHER_HMAC = b"not the hmac key either"


@pytest.fixture(params=("front", "serve"))
def daemon(request, network):
    """tinyknop both ways: fwknopd's files with iptables rules, tinyknop.toml with a set and the netlink carrier."""
    if request.param == "front":
        return start_front(network)
    need("ipset")
    peers.owner_rule(network)
    return peers.serve(network, source_limited(network))


def start_front(network, **words):
    """Starts the front end with the stanza that all tests here share."""
    return peers.front_end(network, peers.stanza(source="10.99.0.0/24", **words))


def source_limited(network, **words):
    """Returns the same stanza for tinyknop.toml."""
    return peers.toml_stanza(network, source=("10.99.0.0/24",), **words)


def opened_and_closed(network, seconds):
    """Asserts that the service is reachable now, and no longer once the grant's time is over."""
    assert network.wait_connect(True) is not None, "did not open"
    closed = network.wait_connect(False, within=seconds + 4)
    assert closed is not None, "did not close"
    assert closed <= seconds + 1.5


@pytest.mark.parametrize("allow", (net.CLIENT, None), ids=("address", "packet-source"))
def test_fwknop_knocks_at_tinyknop(network, daemon, allow):
    need("fwknop")
    assert not network.can_connect()
    peers.fwknop(network, "-f", "2", allow=allow)
    opened_and_closed(network, 2)
    assert peers.counters(daemon)["granted"] == 1


def test_a_stanza_without_a_wish_of_the_client_stays_open_for_its_own_time(network, daemon):
    need("fwknop")
    peers.fwknop(network)
    opened_and_closed(network, 3)


@pytest.mark.parametrize("hmac", ("md5", "sha1", "sha384", "sha512", "sha3_256", "sha3_512", None))
def test_fwknop_s_digests_hmacs_and_modes_open(network, hmac):
    need("fwknop")
    words = {} if hmac is None else {"hmac_digest_type": hmac}
    access = peers.stanza(hmac_key=peers.HMAC_KEY if hmac else None, **words)
    daemon = peers.front_end(network, access)
    before = peers.counters(daemon)
    more = ("--hmac-digest-type", hmac, "-m", hmac) if hmac else ("-m", "sha512")
    peers.fwknop(network, *more, hmac_key=peers.HMAC_KEY if hmac else None)
    assert peers.wait_counters(daemon, before)["granted"] == 1
    assert network.wait_connect(True) is not None


def test_tinyknop_knocks_at_fwknopd(network):
    need("fwknopd")
    daemon = peers.fwknopd(network)
    assert not network.can_connect()
    peers.knock(network, "-f", "2")
    daemon.wait_line("Added access rule to FWKNOP_INPUT for 10.99.0.2")
    opened_and_closed(network, 2)


@pytest.mark.parametrize("hmac", ("md5", "sha1", "sha256", "sha384", "sha512", "sha3_256", "sha3_512"))
def test_fwknopd_takes_every_digest_and_hmac_of_tinyknop_s_client(network, hmac):
    need("fwknopd")
    daemon = peers.fwknopd(network, peers.stanza(hmac_digest_type=hmac))
    peers.knock(network, "--digest", hmac, "--hmac", hmac)
    daemon.wait_line("Added access rule to FWKNOP_INPUT for 10.99.0.2")


def test_fwknopd_refuses_a_second_copy_of_our_packet(network):
    need("fwknopd")
    daemon = peers.fwknopd(network)
    packet = printed_packet(peers.knock(network, "--dry-run"))
    network.send(packet)
    daemon.wait_line("Added access rule")
    network.send(packet)
    daemon.wait_line("Replay detected from source IP: 10.99.0.2")
    assert len(peers.rules(network)) == 1


def printed_packet(text):
    """Returns the packet in the output of a dry run: its longest word."""
    return max(text.split(), key=len).encode()


def saved_packet(network, *more, **how):
    """Returns a packet that the real client makes but does not send."""
    path = os.path.join(network.dir, "packet")
    peers.fwknop(network, "-T", "-B", path, *more, **how)
    with open(path, "rb") as file:
        packet = file.read().strip()
    os.unlink(path)
    return packet


REFUSED = {
    "wrong key": ("decrypt", {"key": OTHER_KEY}, ()),
    "wrong hmac key": ("hmac", {"hmac_key": OTHER_HMAC}, ()),
    "no hmac": ("hmac", {"hmac_key": None}, ()),
    "stale": ("age", {}, ("--time-offset-minus", "300")),
    "from the future": ("age", {}, ("--time-offset-plus", "300")),
    "port not allowed": ("openings", {"access": "tcp/23"}, ()),
    "one port of two not allowed": ("openings", {"access": "tcp/2222,udp/53"}, ()),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_is_wrong_opens_nothing_and_is_counted_once(network, daemon, case):
    need("fwknop")
    stage, how, more = REFUSED[case]
    before = peers.counters(daemon)
    network.send(saved_packet(network, *more, **how))
    assert refusals(peers.wait_counters(daemon, before)) == {stage: 1}
    nothing_opened(network, daemon)


def test_a_replayed_packet_opens_nothing(network, daemon):
    need("fwknop")
    packet = saved_packet(network, "-f", "1")
    before = peers.counters(daemon)
    network.send(packet)
    assert peers.wait_counters(daemon, before)["granted"] == 1
    all_over(network, daemon)
    before = peers.counters(daemon)
    network.send(packet)
    assert refusals(peers.wait_counters(daemon, before)) == {"replay": 1}
    nothing_opened(network, daemon)


def test_a_replay_is_remembered_over_a_restart(network):
    need("fwknop")
    daemon = start_front(network)
    packet = saved_packet(network, "-f", "1")
    network.send(packet)
    assert network.wait_connect(True) is not None
    daemon.kill()
    daemon = start_front(network)
    all_over(network, daemon)
    before = peers.counters(daemon)
    network.send(packet)
    assert refusals(peers.wait_counters(daemon, before)) == {"replay": 1}
    nothing_opened(network, daemon)


@pytest.mark.parametrize("front", (True, False), ids=("front", "serve"))
def test_a_packet_from_a_wrong_source_opens_nothing(guarded, front):
    need("fwknop")
    if front:
        daemon = peers.front_end(guarded, peers.stanza(source="203.0.113.0/24"))
    else:
        daemon = peers.serve(guarded, peers.toml_stanza(guarded, source=("203.0.113.0/24",)))
    before = peers.counters(daemon)
    guarded.send(saved_packet(guarded))
    assert refusals(peers.wait_counters(daemon, before)) == {"source": 1}
    nothing_opened(guarded, daemon)


def test_an_address_is_required_where_the_stanza_says_so(network):
    need("fwknop")
    daemon = start_front(network, require_source_address="Y")
    before = peers.counters(daemon)
    network.send(saved_packet(network, allow=None))
    assert refusals(peers.wait_counters(daemon, before)) == {"address": 1}
    nothing_opened(network, daemon)


def refusals(moved):
    """Returns what moved, without the counters that are no verdict (datagrams received)."""
    return {name: by for name, by in moved.items() if name in STAGES or name == "granted"}


def all_over(network, daemon):
    """Waits for the end of every grant: the kernel closes an iptables rule up to a second before the daemon does."""
    assert network.wait_connect(False) is not None
    deadline = time.monotonic() + 3
    while peers.status(daemon)["grants"] and time.monotonic() < deadline:
        time.sleep(0.02)


def nothing_opened(network, daemon):
    """Asserts that neither the daemon, nor the firewall, nor TCP knows of an opening."""
    assert peers.status(daemon)["grants"] == []
    assert peers.rules(network) == [] and peers.elements(network) == {}
    assert not network.can_connect(timeout=0.2)
