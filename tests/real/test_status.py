"""`tinyknop status`, its metrics over HTTP and the log's events: a running daemon that knocks and bad luck come to."""

import json
import os
import subprocess
import sys
import time
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.need import need, need_namespaces
from tests.real import net, peers


def tinyknop(daemon, *words):
    """Runs a command beside the daemon, on its socket; returns what it printed."""
    argv = [sys.executable, "-m", "tinyknop", words[0], "--socket", daemon.state + "/tinyknop.sock", *words[1:]]
    return subprocess.run(argv, cwd=peers.ROOT, capture_output=True, text=True, timeout=30, check=True).stdout


def serve(network, log):
    """Starts a daemon that logs in a form; returns it."""
    bob = peers.toml_stanza(network, "bob", key=b"b" * 9, hmac_key=b"b" * 20)
    daemon = peers.serve(network, peers.toml_stanza(network, timeout=60) + bob, ready=False)
    daemon.stop()
    with open(daemon.config) as file:
        text = file.read().replace("[daemon]\n", '[daemon]\nlog = "%s"\n' % log)
    peers.write(daemon.config, text)
    again = peers.Process(network, network.server, [sys.executable, "-m", "tinyknop", "serve", "-c", daemon.config])
    again.state, again.config = daemon.state, daemon.config
    again.wait_line("ready: ")
    return again


def until(look, limit=10):
    """Returns the first true thing that `look` finds."""
    end = time.monotonic() + limit
    while True:
        found = look()
        if found or time.monotonic() > end:
            assert found, "not within %d s" % limit
            return found
        time.sleep(0.05)


def test_status_shows_knocks_refusals_and_an_interface_that_is_down(guarded):
    daemon = serve(guarded, "json")
    peers.knock(guarded)
    daemon.wait_line('"event": "opened"')
    peers.knock(guarded, "--user", "x", access="tcp/23")
    line = daemon.wait_line('"event": "refused"')
    event = json.loads(daemon.lines[line])
    wanted = {"level": "warning", "source": net.CLIENT, "stanza": "alice", "stage": "openings"}
    assert {name: event[name] for name in wanted} == wanted
    event = json.loads(daemon.lines[daemon.wait_line('"event": "opened"')])
    assert event["openings"] == "tcp/%d" % net.SERVICE and event["seconds"] == 60 and event["until"].endswith("Z")
    assert all(json.loads(line)["event"] for line in daemon.lines)
    shown = tinyknop(daemon, "status")
    for text in (
        "open now: 1",
        "alice  1 knock   last",
        "bob    no knock",
        "openings  1",
        "packet eth0:62201:",
        "works",
    ):
        assert text in shown, (text, shown)
    assert "refused at" not in shown and "203 bytes" not in shown and net.CLIENT + "  " in shown
    explained = tinyknop(daemon, "explain")
    assert "stanza alice" in explained and "openings: it asks for a port that the stanza does not allow" in explained
    guarded.at(guarded.server, "ip", "link", "set", "eth0", "down")
    until(lambda: "the interface is down, for" in tinyknop(daemon, "status"))
    guarded.at(guarded.server, "ip", "link", "set", "eth0", "up")
    until(lambda: json.loads(tinyknop(daemon, "status", "--json"))["captures"][0]["failing_since"] is None)
    for secret in (peers.KEY, peers.HMAC_KEY):
        assert peers.base64_text(secret) not in daemon.text() + shown + explained
        assert secret.decode() not in daemon.text() + shown + explained


def test_metrics_are_served_on_loopback_and_a_port_that_fails_shows(guarded):
    need("ipset")
    daemon = serve(guarded, "logfmt")
    peers.knock(guarded)
    daemon.wait_line("event=opened id=1 source=%s stanza=alice" % net.CLIENT)
    argv = [sys.executable, "-m", "tinyknop", "status", "--socket", daemon.state + "/tinyknop.sock", "--metrics"]
    listener = peers.Process(guarded, guarded.client, argv)  # once, to standard output
    assert listener.wait() == 0
    families = {one.name: one for one in text_string_to_metric_families(listener.text() + "\n")}
    assert [s.value for s in families["tinyknop_knocks"].samples if s.labels["kind"] == "granted"] == [1]
    assert families["tinyknop_stanza_knocks"].samples[0].labels == {"stanza": "alice"}
    guarded.at(guarded.server, "iptables", "-w", "-F", "INPUT")
    guarded.at(guarded.server, "ipset", "destroy", peers.SET)
    guarded.at(guarded.server, "ipset", "create", peers.SET, "hash:net")  # which has no room for ports
    peers.knock(guarded, "-f", "70")
    serving = subprocess.Popen(
        [*argv, "--listen", "127.0.0.1:0"], cwd=peers.ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    try:
        url = serving.stdout.readline().split()[-1]

        def failing():
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                page = answer.read().decode()
            samples = [one for family in text_string_to_metric_families(page) for one in family.samples]
            return [one for one in samples if one.name == "tinyknop_port_up" and one.value == 0]

        assert until(failing)[0].labels["port"] == "firewall"
        peers.knock(guarded, "-f", "71")
        daemon.wait_line("port firewall is down: grant")  # the line before it says "opened"
        shown = tinyknop(daemon, "status")
        assert "firewall (ipset" in shown and ", for " in shown, shown
        assert "alice  port firewall is down" in shown, shown
    finally:
        daemon.kill()  # it would wait for the close that nobody confirms
        serving.terminate()
        serving.wait(10)
        serving.stdout.close()


# In mounts of its own: a journal, or a syslogd with a /dev that holds its socket; then a daemon that logs there.
JOURNAL = """
mkdir -p /run/systemd/journal /run/log/journal
[ ! -d /var/log/journal ] || mount -t tmpfs tmpfs /var/log/journal
{journald} & log=$!
"""
SYSLOG = """
mkdir /run/dev
cp -a /dev/null /dev/zero /dev/urandom /dev/random /run/dev/
mount --bind /run/dev /dev
busybox syslogd -n -O /run/messages & log=$!
"""
LOGGED = """set -e
mount -t tmpfs tmpfs /run
ip link set lo up
{start}
until [ -S {socket} ]; do sleep 0.1; done
{python} -m tinyknop serve -c {config} & daemon=$!
until {python} -m tinyknop open --socket {state}/tinyknop.sock 192.0.2.7 tcp/22 2>/dev/null; do sleep 0.2; done
kill $daemon
wait $daemon
until {read} | grep -q closing; do sleep 0.2; done
{read}
kill $log
"""
HERE = """[daemon]
state_dir = "{state}"
log = "logfmt"
log_to = "{to}"
[[capture]]
kind = "udp"
address = "127.0.0.1"
[port.firewall]
kind = "command"
open = "true"
close = "true"
[[stanza]]
name = "alice"
source = ["ANY"]
key = "a key of the tests"
hmac_key = "an hmac key of the tests"
"""


@pytest.mark.parametrize("to", ["journald", "syslog"])
def test_real_journal_and_syslog_hold_the_events(tmp_path, to):
    unshare = need_namespaces()
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    config = peers.write(str(tmp_path / "tinyknop.toml"), HERE.format(state=state, to=to))
    words = dict(python=sys.executable, config=config, state=state)
    if to == "journald":
        words.update(
            start=JOURNAL.format(journald=need("/usr/lib/systemd/systemd-journald")),
            socket="/run/systemd/journal/socket",
        )
        words["read"] = need("journalctl") + " -D /run/log/journal --no-pager -o cat TINYKNOP_SOURCE=192.0.2.7"
    else:
        need("busybox")
        words.update(start=SYSLOG, socket="/dev/log", read="cat /run/messages")
    script = LOGGED.format(**words)
    done = subprocess.run([*unshare, "sh", "-c", script], cwd=peers.ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "event=" in line]
    who = 'id=1 source=192.0.2.7 stanza="by hand" openings=tcp/22'
    assert any("event=opened %s by=hand until=" % who in line for line in lines), done.stdout
    assert any("event=closing %s" % who in line for line in lines)
    if to == "syslog":
        assert all(" daemon.info tinyknop[" in line for line in lines if "closing" in line)
