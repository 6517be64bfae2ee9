"""The log watch of the real daemon: a scan is seen and blocked for its time; a forged one blocks nobody it must not."""

import json
import os
import signal
import time

import pytest

from scripts.stage import stage
from tests.need import need
from tests.real import net, peers
from tests.real.scans import GROUP, Wire, ip, tcp, udp
from tests.real.test_micropython import Router

WATCH = """
[port.blocks]
kind = "{kind}"
{port}
[watch]
kind = "nflog"
group = {group}
ports = ["blocks"]
{more}
"""


def start(network, more, kind="block", port="", name="serve", stanza=""):
    """Starts `tinyknop serve` with a [watch] of the group."""
    table = WATCH.format(kind=kind, port=port, group=GROUP, more=more)
    return peers.serve(network, peers.toml_stanza(network, timeout=60, more=stanza) + table, name=name)


def log_what_is_dropped(network):
    """Lets the service be reached by all, and hands on what is dropped to the group."""
    for words in (
        "-A INPUT -p tcp --dport %d -j ACCEPT" % net.SERVICE,
        "-A INPUT -j NFLOG --nflog-group %d --nflog-prefix" % GROUP,
    ):
        prefix = ["DROP "] if words.endswith("prefix") else []
        network.at(network.server, "iptables", "-w", *words.split(), *prefix)


def watched(daemon):
    return peers.status(daemon)["watch"]


def wait_for(what, within=20.0):
    """Waits until `what()` is true; returns it."""
    deadline = time.monotonic() + within
    while True:
        found = what()
        if found or time.monotonic() > deadline:
            assert found
            return found
        time.sleep(0.02)


def level(daemon, source):
    found = [row["level"] for row in watched(daemon)["sources"] if row["source"] == source]
    return found[0] if found else 0


def elements(network, family=4):
    """Returns the addresses in the set of the block port."""
    words = ("nft", "-j", "list", "set", "inet", "tinyknop_block", "blocked%d" % family)
    found = json.loads(network.at(network.server, *words))["nftables"][1]["set"].get("elem", [])
    return sorted(item["elem"]["val"] for item in found)


def scan(source, count, first=7000, destination=net.SERVER):
    return [ip(source, destination, *tcp(port)) for port in range(first, first + count)]


def test_a_scan_reaches_its_level_and_is_blocked_for_its_time(guarded):
    need("nft")
    daemon = start(guarded, "block_at = 2\nblock_for = 6")
    log_what_is_dropped(guarded)
    wire = Wire(guarded, rules=False)
    wire.send(scan(net.CLIENT, 14))
    wait_for(lambda: level(daemon, net.CLIENT) == 1)
    assert guarded.can_connect() and watched(daemon)["blocked"] == []
    wire.send(scan(net.CLIENT, 1, first=9000))
    daemon.wait_line("watch: %s is blocked" % net.CLIENT)
    assert level(daemon, net.CLIENT) == 2
    began = time.monotonic()
    assert guarded.wait_connect(False) is not None
    assert elements(guarded) == [net.CLIENT]
    daemon.kill()  # journaled, as any grant is: it ends on time all the same
    daemon = start(guarded, "block_at = 2\nblock_for = 6")
    assert [grant["stanza"] for grant in peers.status(daemon)["grants"]] in (["watch"], [])
    assert guarded.wait_connect(True, within=20) is not None
    assert time.monotonic() - began > 3.5
    wait_for(lambda: peers.status(daemon)["grants"] == [])
    assert elements(guarded) == []
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert "tinyknop_block" not in guarded.at(guarded.server, "nft", "list", "tables")
    wire.close()


def test_forged_packets_block_nobody_who_is_granted_ignored_or_ourselves(guarded):
    need("fwknop")
    auto = peers.write(os.path.join(guarded.dir, "auto_dl"), "203.0.113.5 0;\n203.0.113.0/28 4 tcp;\n")
    more = 'block_at = 1\nauto_dl = "%s"\nnever = ["198.18.0.0/15", "2001:db8:9::/48"]' % auto
    daemon = start(guarded, more)
    wire = Wire(guarded)
    peers.fwknop(guarded)
    assert guarded.wait_connect(True) is not None
    spared = [net.CLIENT, net.SERVER, "203.0.113.5", "198.18.7.7", "127.0.0.1"]
    caught = ["203.0.113.6", "203.0.113.99"]
    for first in (1000, 2000, 3000):
        for source in spared + caught:
            wire.send(scan(source, 60, first))
        wire.send(scan("2001:db8:9::1", 60, first, net.SERVER6) + scan("2001:db8:7::1", 20, first, net.SERVER6))
    wait_for(lambda: elements(guarded) == caught and elements(guarded, 6) == ["2001:db8:7::1"])
    wait_for(lambda: watched(daemon)["spared"] > 0 and level(daemon, net.CLIENT) >= 2)
    assert sorted(watched(daemon)["blocked"]) == sorted(caught + ["2001:db8:7::1"])
    assert guarded.can_connect()
    by_port = {grant["source"]: grant["stanza"] for grant in peers.status(daemon)["grants"]}
    assert by_port[net.CLIENT] == "alice"
    assert "Traceback" not in daemon.text()
    wire.close()


def test_a_knock_ends_the_block_of_its_source_and_a_scan_may_end_an_opening(guarded):
    need("fwknop")
    daemon = start(guarded, "block_at = 2\nend_grants = 3\nlog_at = 3")
    wire = Wire(guarded)
    wire.send(scan(net.CLIENT, 20))
    wait_for(lambda: elements(guarded) == [net.CLIENT])
    peers.fwknop(guarded)  # packets are captured before anything drops them
    wait_for(lambda: elements(guarded) == [])
    assert guarded.wait_connect(True) is not None
    wire.send(scan(net.CLIENT, 200, first=9000))
    daemon.wait_line("ending grant")
    assert guarded.wait_connect(False) is not None
    assert [grant["stanza"] for grant in peers.status(daemon)["grants"]] == ["watch"]
    wire.close()


def test_a_set_of_the_owner_that_a_rule_of_theirs_drops_by(guarded):
    for name, family in (("hostile", "inet"), ("hostile6", "inet6")):
        guarded.at(guarded.server, "ipset", "create", name, "hash:ip", "timeout", "0", "family", family)
    guarded.at(guarded.server, *"iptables -w -t raw -I PREROUTING -m set --match-set hostile src -j DROP".split())
    daemon = start(guarded, "block_at = 1", "ipset", 'set = "hostile"')
    log_what_is_dropped(guarded)
    wire = Wire(guarded, rules=False)
    wire.send([ip(net.CLIENT, net.SERVER, *udp(port)) for port in range(5)])
    daemon.wait_line("watch: %s is blocked" % net.CLIENT)
    wait_for(lambda: list(peers.elements(guarded, "hostile")) == [net.CLIENT])
    assert guarded.wait_connect(False) is not None
    wire.close()


@pytest.mark.parametrize(
    "more, kind, port, reason",
    (
        ("block_at = 2", "nftables", "", "port blocks opens"),
        ("block_at = 2", "ipset", 'set = "nothere"', "not of type hash:ip"),
        ("block_at = 7", "block", "", "watch: block_at"),
        ("blockat = 2", "block", "", "did you mean block_at?"),
        ('signatures = "/nothere/signatures"', "block", "", "/nothere/signatures"),
    ),
)
def test_a_table_that_is_wrong_is_refused_with_the_remedy(guarded, more, kind, port, reason):
    table = WATCH.format(kind=kind, port=port, group=GROUP, more=more)
    daemon = peers.serve(guarded, peers.toml_stanza(guarded) + table, ready=False)
    assert daemon.wait() == 1
    assert reason in daemon.text()
    assert "Traceback" not in daemon.text()


def test_another_table_is_taken_at_sighup_and_what_is_blocked_stays(guarded):
    daemon = start(guarded, "block_at = 2")
    wire = Wire(guarded)
    wire.send(scan("203.0.113.9", 20))
    wait_for(lambda: elements(guarded) == ["203.0.113.9"])
    with open(daemon.config) as file:
        text = file.read()
    for number, changed in enumerate((text.replace("block_at = 2", "block_at = 1"), text[: text.index("[watch]")])):
        peers.write(daemon.config, changed)
        place = daemon.mark()
        daemon.signal(signal.SIGHUP)
        daemon.wait_line("the configuration was read anew", after=place)
        assert elements(guarded) == ["203.0.113.9"]
        if number == 0:
            wire.send(scan("203.0.113.10", 6))
            wait_for(lambda: "203.0.113.10" in elements(guarded))
            guarded.at(guarded.server, *closing(daemon, "203.0.113.10"))
            wait_for(lambda: elements(guarded) == ["203.0.113.9"])
    assert peers.status(daemon)["watch"] is None
    wire.close()


def closing(daemon, source):
    """Returns the words that end a block before its time."""
    argv = ["env", "PYTHONPATH=" + peers.ROOT, *peers.PYTHON, "-m", "tinyknop", "close"]
    return [*argv, "--socket", daemon.state + "/tinyknop.sock", source]


def test_micropython_watches_and_blocks_too(guarded, tmp_path):
    need("micropython")
    stage(str(tmp_path))
    table = WATCH.format(kind="block", port="", group=GROUP, more="block_at = 1\nblock_for = 60")
    router = Router(guarded, str(tmp_path))
    daemon = router.start(router.compiled(stanzas=peers.toml_stanza(guarded) + table))
    wire = Wire(guarded)
    wire.send(scan("203.0.113.9", 20))
    daemon.wait_line("watch: 203.0.113.9 is blocked for 60 s")
    wait_for(lambda: elements(guarded) == ["203.0.113.9"])
    daemon.kill()
    wire.close()


def test_status_and_check_say_what_is_watched(guarded):
    daemon = start(guarded, "block_at = 2")
    wire = Wire(guarded)
    wire.send(scan("203.0.113.9", 20))
    wait_for(lambda: elements(guarded) == ["203.0.113.9"])
    env = ["env", "PYTHONPATH=" + peers.ROOT, *peers.PYTHON, "-m", "tinyknop"]
    text = guarded.at(guarded.server, *env, "status", "--socket", daemon.state + "/tinyknop.sock")
    assert "watched: nflog group %d" % GROUP in text
    row = [line.split() for line in text.splitlines() if line.startswith("  203.0.113.9 ")][0]
    assert row[2] == "2" and row[-1] == "blocked"
    text = guarded.at(guarded.server, *env, "check", daemon.config)
    assert "watches nflog group %d; blocks from danger level 2 for 3600 s" % GROUP in text
    wire.close()
