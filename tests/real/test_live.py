"""`tinyknop check --live` against a running daemon, from a client's network namespace: it works, or it says why not."""

import contextlib
import io

import pytest

from tests.real import net, peers
from tinyknop.host import cli
from tinyknop.host import live as module

CLOSED = 2223  # allowed by the stanza, with nobody behind it


@pytest.fixture
def running(guarded, monkeypatch):
    """A daemon that opens two ports, one of which has a service; a veth answers at once or never."""
    monkeypatch.setattr(module, "PROBE_S", 0.2)
    monkeypatch.setattr(module, "LONGEST_S", 0.25)
    openings = ["tcp/%d" % net.SERVICE, "tcp/%d" % CLOSED]
    guarded.daemon = peers.serve(guarded, peers.toml_stanza(guarded, openings=openings, timeout=3))
    return guarded


def live(network, *words, key=peers.KEY, asked=True):
    """Runs it in the client's namespace; returns what it printed."""
    argv = ["tinyknop", "check", "--live"]
    argv += [net.SERVER, "-s", "--key-file", peers.key_file(network, "client", key), "--verify", "1", "--wait", "20"]
    argv += ["--socket", network.daemon.state + "/tinyknop.sock"] if asked else []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        words = words or ("-A", "tcp/%d" % net.SERVICE)
        status = network.inside(network.client, lambda: cli.main([*argv, *words]))
    assert status == (not printed.getvalue().endswith("All works.\n"))
    return printed.getvalue()


def test_set_up_that_works_is_opened_and_closed_with_and_without_the_socket(running):
    said = live(running)
    assert said.endswith("All works.\n") and "closed by hand" in said and said.count("ok ") == 5, said
    assert peers.status(running.daemon)["grants"] == []
    said = live(running, asked=False)
    assert said.endswith("All works.\n") and "waiting for its end" in said and said.count("ok ") == 5, said


def test_each_step_that_fails_says_why(running):
    assert "FAILED" in (said := live(running, key=b"another key")) and "refused it at decrypt" in said
    assert "refused it at openings" in live(running, "-A", "tcp/%d" % (CLOSED + 1))
    assert "no service listens" in live(running, "-A", "tcp/%d" % CLOSED)
    assert "heard no packet" in live(running, "-A", "tcp/%d" % net.SERVICE, "-p", "62202")
    rule = ("INPUT", "-p", "tcp", "--dport", str(net.SERVICE), "-j", "ACCEPT")
    running.at(running.server, "iptables", "-w", "-I", *rule)
    assert "answers before any knock" in live(running)


def test_opening_that_somebody_else_keeps_open_is_found(running):
    # The owner's own rule lets the client in once it has been seen in the set: what is closed by us stays open.
    seen = ("-m", "recent", "--name", running.server, "--set")
    let = ("-m", "recent", "--name", running.server, "--rcheck", "-j", "ACCEPT")
    match = ("-m", "set", "--match-set", peers.SET, "src,dst")
    running.at(running.server, "iptables", "-w", "-I", "INPUT", *match, *seen)
    running.at(running.server, "iptables", "-w", "-I", "INPUT", "2", "-p", "tcp", *let)
    said = live(running)
    assert "still answers after" in said and "does another rule let you in" in said, said
