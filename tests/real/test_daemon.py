"""What the daemon outlives: rubbish, a link that goes away, a broken configuration, SIGKILL."""

import os
import random
import signal
import socket
import time

import pytest

from tests.need import need
from tests.real import net, peers

PORTS = (2222, 2223, 2224)
TIMEOUTS = (4, 40, 80)


def start(network, front, **how):
    """Starts the daemon one way or the other, with a stanza that allows PORTS."""
    allowed = ["tcp/%d" % port for port in PORTS]
    if front:
        return peers.front_end(network, peers.stanza(open_ports=",".join(allowed)), **how)
    return peers.serve(network, peers.toml_stanza(network, openings=allowed), **how)


def held(network, front):
    """Returns the ports that the firewall has open: {port: None, or seconds left where the kernel counts them}."""
    if front:
        lines = peers.rules(network)
        return {port: None for port in PORTS for line in lines if "--dport %d " % port in line}
    return {int(element.rsplit(":", 1)[1]): left for element, left in peers.elements(network).items()}


def wait_held(network, front, wanted, within=6.0):
    """Waits until exactly these ports are open; returns what `held` says."""
    deadline = time.monotonic() + within
    while True:
        now = held(network, front)
        if set(now) == set(wanted) or time.monotonic() > deadline:
            assert set(now) == set(wanted)
            return now
        time.sleep(0.05)


def no_fault(daemon):
    """Asserts that the daemon logged no traceback."""
    text = daemon.text()
    assert "Traceback" not in text, text[text.index("Traceback") :]


def flood(network, payloads):
    """Sends datagrams from the client as fast as it can."""
    with network.new_socket(network.client, kind=socket.SOCK_DGRAM) as sender:
        for payload in payloads:
            sender.sendto(payload, (net.SERVER, 62201))


def wait_granted(network, daemon, **how):
    """Knocks with our own client's code path, the real fwknop, and waits until the daemon counted it."""
    before = peers.counters(daemon)
    peers.fwknop(network, **how)
    assert peers.wait_counters(daemon, before).get("granted") == 1


@pytest.mark.parametrize("capture", ("packet", "udp"))
def test_rubbish_changes_nothing(guarded, capture):
    need("fwknop")
    daemon = peers.serve(guarded, capture=capture)
    if capture == "udp":  # a socket sees only what the firewall lets through
        guarded.at(guarded.server, "iptables", "-w", "-I", "INPUT", "-p", "udp", "--dport", "62201", "-j", "ACCEPT")
    rng = random.Random(3)
    flood(guarded, (rng.randbytes(rng.choice((0, 1, 35, 139, 140, 204, 400, 1400))) for _ in range(10000)))
    flood(guarded, [b""] * 10 + [rng.randbytes(65507)] * 10 + [b"A" * 65507] * 10)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    flood(guarded, (bytes(rng.choices(alphabet, k=rng.randint(140, 1400))) for _ in range(500)))
    peers.fwknop(guarded, "-f", "1")
    assert guarded.wait_connect(True) is not None
    assert guarded.wait_connect(False) is not None
    assert peers.counters(daemon)["granted"] == 1
    no_fault(daemon)


def test_rubbish_in_the_control_socket_changes_nothing(guarded):
    daemon = peers.serve(guarded)
    for payload in (b"", b"\xff" * 70000, b"{" * 1000 + b"\n", b"[" * 4000 + b"\n", b"null\n", b"[1]\n"):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            client.connect(daemon.state + "/tinyknop.sock")
            try:
                client.sendall(payload)
            except OSError:  # the daemon may well hang up on this
                pass
    assert peers.status(daemon)["grants"] == []
    no_fault(daemon)


@pytest.mark.parametrize("front", (True, False), ids=("front", "serve"))
def test_the_interface_goes_down_and_comes_back(guarded, front):
    need("fwknop")
    daemon = start(guarded, front)
    for _ in range(2):
        guarded.at(guarded.server, "ip", "link", "set", "eth0", "down")
        peers.status(daemon)
        guarded.at(guarded.server, "ip", "link", "set", "eth0", "up")
    deadline = time.monotonic() + 10
    while not guarded.can_connect() and time.monotonic() < deadline:
        peers.fwknop(guarded, "-f", "2", check=False)
    assert guarded.can_connect()
    no_fault(daemon)


@pytest.mark.parametrize("front", (True, False), ids=("front", "serve"))
def test_a_broken_configuration_at_sighup_leaves_the_old_one_in_force(guarded, front):
    need("fwknop")
    daemon = start(guarded, front)
    wait_granted(guarded, daemon, access="tcp/2223")
    broken = daemon.access if front else daemon.config
    with open(broken, "a") as file:
        file.write("\nFW_ACCESS_TIMEOUT\n" if front else "\n[[stanza]\nname = ")
    place = daemon.mark()
    daemon.signal(signal.SIGHUP)
    line = daemon.lines[daemon.wait_line(os.path.basename(broken), after=place)]
    assert broken + ":" in line, "names file and line"
    assert "the old configuration stays" in daemon.text()
    wait_granted(guarded, daemon)
    assert guarded.wait_connect(True) is not None


def test_a_sighup_while_it_starts_is_kept_for_later(guarded):
    """As logrotate or an impatient admin sends it; what was changed meanwhile has to be read."""
    home = os.path.join(guarded.dir, "serve")
    os.makedirs(home, mode=0o700)
    options = 'set = "%s"' % peers.SET
    text = peers.TOML.format(state=home + "/state", kind="ipset", capture="packet", interface="", options=options)
    text += peers.toml_stanza(guarded)
    config = home + "/tinyknop.toml"
    os.mkfifo(config, 0o600)
    argv = [*peers.PYTHON, "-m", "tinyknop", "serve", "-c", config]
    daemon = peers.Process(guarded, guarded.server, argv)
    with open(config, "w") as file:  # waits until it is being read
        os.rename(config, config + ".fifo")
        peers.write(config, text)
        daemon.signal(signal.SIGHUP)
        time.sleep(0.1)
        file.write(text)
    daemon.wait_line("the configuration was read anew")
    assert daemon.text().index(peers.SERVE_READY) < daemon.text().index("read anew")


@pytest.mark.parametrize("front", (True, False), ids=("front", "serve"))
def test_a_good_configuration_at_sighup_is_taken_and_grants_stay(guarded, front):
    need("fwknop")
    daemon = start(guarded, front)
    peers.fwknop(guarded, "-f", "60")
    assert guarded.wait_connect(True) is not None
    path = daemon.access if front else daemon.config
    with open(path) as file:
        text = file.read()
    peers.write(path, text.replace("tcp/2223", "tcp/2299"))
    daemon.signal(signal.SIGHUP)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and peers.counters(daemon).get("granted", 0) < 2:
        peers.fwknop(guarded, access="tcp/2299")
    # A knock counts as granted once it is journaled; the device is told after that.
    while time.monotonic() < deadline and "2299" not in str(peers.rules(guarded) + list(peers.elements(guarded))):
        time.sleep(0.02)
    assert "2299" in str(peers.rules(guarded) + list(peers.elements(guarded)))
    assert guarded.can_connect()
    no_fault(daemon)


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
@pytest.mark.parametrize("front", (True, False), ids=("front", "serve"))
def test_the_end_closes_what_was_opened(guarded, front, number):
    need("fwknop")
    daemon = start(guarded, front)
    peers.fwknop(guarded, "-f", "60")
    assert guarded.wait_connect(True) is not None
    daemon.signal(number)
    assert daemon.wait() == 0
    assert not guarded.can_connect()
    assert held(guarded, front) == {}
    assert not os.path.exists(daemon.state + "/tinyknop.sock")


@pytest.mark.parametrize("front", (True, False), ids=("iptables", "ipset"))
def test_killed_with_three_grants_open_then_started_again(guarded, front):
    need("fwknop")
    daemon = start(guarded, front)
    for port, seconds in zip(PORTS, TIMEOUTS):
        wait_granted(guarded, daemon, **{"access": "tcp/%d" % port, "seconds": seconds})
    began = time.time()
    until = {int(grant["openings"][0].split("/")[1]): grant["until"] for grant in peers.status(daemon)["grants"]}
    wait_held(guarded, front, PORTS)
    daemon.kill()
    while time.time() < began + TIMEOUTS[0] + 0.5:
        time.sleep(0.1)
    daemon = start(guarded, front)
    left = wait_held(guarded, front, PORTS[1:])
    again = {int(grant["openings"][0].split("/")[1]): grant["until"] for grant in peers.status(daemon)["grants"]}
    assert again == {port: until[port] for port in PORTS[1:]}, "the time that is left is the old one"
    if not front:
        for port, seconds in zip(PORTS[1:], TIMEOUTS[1:]):
            assert abs(left[port] - (seconds - (time.time() - began))) < 3
    assert not guarded.can_connect(PORTS[0], timeout=0.2)


def test_killed_while_closed_rules_are_closed_by_the_next_start_before_it_listens(network):
    need("fwknop")
    daemon = start(network, True)
    peers.fwknop(network, "-f", "4")  # longer than the second after which a SYN that was too early is sent again
    assert network.wait_connect(True) is not None
    daemon.kill()
    time.sleep(4.5)  # nobody there to see the end of the grant
    start(network, True)
    assert peers.rules(network) == []


@pytest.mark.parametrize("front", (True, False), ids=("front", "serve"))
def test_a_second_daemon_is_refused_and_the_first_one_goes_on(guarded, front):
    need("fwknop")
    daemon = start(guarded, front)
    second = start(guarded, front, ready=False)
    assert second.wait() == 1
    assert str(daemon.pid) in second.text()
    peers.fwknop(guarded, "-f", "2")
    assert guarded.wait_connect(True) is not None


@pytest.mark.parametrize("front", (True, False), ids=("front", "serve"))
def test_a_configuration_error_at_start_names_the_line_and_opens_nothing(guarded, front):
    if front:
        daemon = peers.front_end(guarded, peers.stanza(fw_access_timeout="-3"), ready=False)
        where = "access.conf:"
    else:
        daemon = peers.serve(guarded, peers.toml_stanza(guarded, openings=["tcp/99999"]), ready=False)
        where = "tinyknop.toml:"
    assert daemon.wait() == 1
    assert where in daemon.text()
    no_fault(daemon)
    assert peers.rules(guarded) == [] and peers.elements(guarded) == {}


def test_an_interface_that_is_not_there_is_named(network):
    daemon = peers.front_end(network, ready=False, pcap_intf="nothere0")
    assert daemon.wait() == 1
    assert "nothere0" in daemon.text()
    no_fault(daemon)


def by_hand(network, daemon, *words, check=True):
    """Runs a command of ours beside the daemon; returns its output."""
    argv = [*peers.PYTHON, "-m", "tinyknop", words[0], "--socket", daemon.state + "/tinyknop.sock", *words[1:]]
    return network.at(network.server, "env", "PYTHONPATH=" + peers.ROOT, *argv, check=check)


def test_a_person_opens_lists_and_closes_without_a_knock(guarded):
    daemon = peers.serve(guarded)
    assert guarded.can_connect() is False
    said = by_hand(guarded, daemon, "open", net.CLIENT, "tcp/%d" % net.SERVICE, "-t", "60")
    assert said.startswith("1: open for 60 s")
    assert guarded.wait_connect(True) is not None
    assert "%s  tcp/%d" % (net.CLIENT, net.SERVICE) in by_hand(guarded, daemon, "list")
    daemon.kill()  # journaled as any grant is
    daemon = peers.serve(guarded)
    assert "by hand" in by_hand(guarded, daemon, "list")
    assert by_hand(guarded, daemon, "close", net.CLIENT) == "closed: 1\n"
    assert guarded.wait_connect(False) is not None
    for words in (
        ("close", "9"),
        ("open", "192.0.2", "tcp/22"),
        ("open", net.CLIENT, "icmp/1"),
        ("open", net.CLIENT, "tcp/22", "-t", "0"),
        ("open", net.CLIENT, "tcp/22", "-p", "elsewhere"),
    ):
        assert words[0] + ": " in by_hand(guarded, daemon, *words, check=False), words
    no_fault(daemon)
