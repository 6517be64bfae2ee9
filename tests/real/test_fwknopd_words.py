"""The words of `tinyknop fwknopd` that look at what a daemon left in the firewall, and that take it away."""

import pytest

from tests.need import need
from tests.real import peers


def fwknopd(network, daemon, *more, check=True):
    """Runs our fwknopd with a daemon's files in the server's namespace; returns what it printed."""
    words = [*peers.PYTHON, "-m", "tinyknop", "fwknopd", "-c", daemon.config, "-a", daemon.access, "-r", daemon.state]
    return network.at(network.server, "env", "PYTHONPATH=" + peers.PYTHONPATH, *words, *more, check=check)


def test_what_a_killed_daemon_left_is_listed_and_flushed(network):
    need("fwknop")
    before = network.at(network.server, "iptables", "-w", "-S")
    daemon = peers.front_end(network, peers.stanza(fw_access_timeout="60"))
    peers.fwknop(network)
    assert network.wait_connect(True) is not None
    assert "(pid=%d)" % daemon.pid in fwknopd(network, daemon, "-S")
    daemon.kill()
    assert network.can_connect()
    for word, title in (("--fw-list", "Listing rules in fwknopd"), ("--fw-list-all", "Listing all iptables rules")):
        said = fwknopd(network, daemon, word)
        assert said.startswith(title) and "_exp_" in said and "dpt:2222" in said
    assert fwknopd(network, daemon, "--fw-flush").startswith("Deleting any existing firewall rules...")
    assert network.can_connect() is False
    assert network.at(network.server, "iptables", "-w", "-S") == before


def test_what_was_flushed_stays_shut_after_the_next_knock(network):
    daemon = peers.front_end(network, peers.stanza(open_ports=None, fw_access_timeout="60"))
    peers.knock(network)
    assert network.wait_connect(True) is not None
    fwknopd(network, daemon, "--fw-flush")
    assert peers.rules(network) == []
    assert peers.status(daemon)["grants"] == []
    peers.knock(network, allow="10.99.0.77")
    daemon.wait_line("Added access rule to FWKNOP_INPUT for 10.99.0.77")
    assert ["10.99.0.77/32" in rule for rule in peers.rules(network)] == [True]
    assert network.can_connect() is False


@pytest.mark.parametrize("made", ["timeout", "without"])
def test_what_a_killed_daemon_left_in_a_set_is_flushed_and_a_start_opens_it_no_more(network, made):
    need("ipset")
    for name, family in ((peers.SET, "inet"), (peers.SET + "6", "inet6")):
        more = ["timeout", "0"] if made == "timeout" else []
        network.at(network.server, "ipset", "create", name, "hash:ip,port", "family", family, *more)
    network.at(network.server, "ipset", "add", peers.SET, "192.0.2.9,tcp:22")  # the owner's
    rule = "-A INPUT -m set --match-set %s src,dst -j ACCEPT" % peers.SET
    network.at(network.server, "iptables", "-w", *rule.split())
    access = peers.stanza(fw_access_timeout="60")
    daemon = peers.front_end(network, access, firewall_exe="/usr/sbin/ipset")
    peers.knock(network)
    assert network.wait_connect(True) is not None
    daemon.kill()
    fwknopd(network, daemon, "--fw-flush")
    assert network.can_connect() is False
    peers.front_end(network, access, firewall_exe="/usr/sbin/ipset")
    assert network.can_connect() is False
    assert "192.0.2.9,tcp:22" in network.at(network.server, "ipset", "list", peers.SET)


def test_a_flush_that_fails_says_why_and_with_which_status(network):
    need("setpriv")
    daemon = peers.front_end(network)
    daemon.kill()
    words = ["setpriv", "--bounding-set=-net_admin,-net_raw", *peers.PYTHON, "-m", "tinyknop", "fwknopd", "--fw-flush"]
    words += ["-c", daemon.config, "-a", daemon.access, "-r", daemon.state]
    child = peers.Process(network, network.server, words)
    assert child.wait() == 1
    assert "ermission denied" in child.text() and "Traceback" not in child.text()


def test_another_firewall_is_listed_by_its_own_program(network):
    need("nft")
    owners = "table inet filter { chain input { type filter hook input priority filter; policy drop; }; }"
    network.at(network.server, "nft", "-f", peers.write(network.dir + "/owners.nft", "flush ruleset\n%s\n" % owners))
    daemon = peers.front_end(network, firewall_exe="/usr/sbin/nft")
    assert "tinyknop_open4" in fwknopd(network, daemon, "--fw-list")
    daemon.stop()
    assert "Deleting any" in fwknopd(network, daemon, "--fw-flush")
    assert "tinyknop_open4" not in network.at(network.server, "nft", "list", "ruleset")


def test_signals_by_word(network):
    daemon = peers.front_end(network)
    after = daemon.mark()
    assert "Sent restart signal to fwknopd (pid=%d)" % daemon.pid in fwknopd(network, daemon, "-R")
    daemon.wait_line("config", after=after)
    assert "Killed fwknopd (pid=%d) via SIGTERM" % daemon.pid in fwknopd(network, daemon, "-K")
    assert daemon.wait() == 0
    assert "No running fwknopd detected." in fwknopd(network, daemon, "-K", check=False)
