"""Metrics: what Prometheus' own parser makes of them, and a listener that only this machine can ask."""

import http.client
import socket
import struct
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tinyknop.errors import ConfigError
from tinyknop.gate import STAGES
from tinyknop.host import metrics, status

ANSWER = {
    "started": 1700000000,
    "now": 1700000100,
    "counters": {"granted": 3, "commands": 1, "hmac": 12},
    "open": 2,
    "stanza_count": 2,
    "stanzas": [["alice", 1700000050, 3], ['b"o\\b\n', 0, 0]],
    "captures": [
        {"device": "packet eth0:62201", "received": 20, "dropped": 1, "failing_since": None},
        {"device": "packet eth0:62201", "received": 5, "dropped": 0, "failing_since": 1700000090},
    ],
    "ports": [
        {"name": "firewall", "device": "ipset knop", "failure": None, "owed": 0, "failing_since": None},
        {"name": "edge", "device": "edge (cisco)", "failure": "no answer", "owed": 2, "failing_since": 1700000001},
    ],
    "watch": {"lines": 40, "sources": [{"level": 3}, {"level": 3}], "blocked": ["198.51.100.9"]},
}


def families(page):
    return {family.name: family for family in text_string_to_metric_families(page)}


def samples(page):
    """Returns {(name, labels as sorted pairs): value}."""
    found = {}
    for family in families(page).values():
        for one in family.samples:
            key = (one.name[len("tinyknop_") :], *sorted(one.labels.items()))
            assert key not in found, "twice: %s" % (key,)
            found[key] = one.value
    return found


def test_every_figure_is_there_under_its_labels():
    found = samples(metrics.text(ANSWER))
    wanted = {
        ("start_time_seconds",): 1700000000,
        ("knocks_total", ("kind", "granted")): 3,
        ("knocks_total", ("kind", "commands")): 1,
        ("refused_total", ("stage", "hmac")): 12,
        ("refused_total", ("stage", "age")): 0,
        ("open_grants",): 2,
        ("watch_lines_total",): 40,
        ("watch_sources", ("level", "3")): 2,
        ("watch_sources", ("level", "5")): 0,
        ("watch_blocked",): 1,
        ("stanzas",): 2,
        ("stanza_knocks_total", ("stanza", "alice")): 3,
        ("stanza_last_knock_seconds", ("stanza", "alice")): 1700000050,
        ("stanza_knocks_total", ("stanza", 'b"o\\b\n')): 0,
        ("capture_received_total", ("capture", "packet eth0:62201")): 20,
        ("capture_up", ("capture", "packet eth0:62201 #2")): 0,
        ("port_up", ("device", "ipset knop"), ("port", "firewall")): 1,
        ("port_up", ("device", "edge (cisco)"), ("port", "edge")): 0,
        ("port_owed_closes", ("device", "edge (cisco)"), ("port", "edge")): 2,
        ("port_failing_since_seconds", ("device", "edge (cisco)"), ("port", "edge")): 1700000001,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert len([key for key in found if key[0] == "refused_total"]) == len(STAGES)
    assert ("port_failing_since_seconds", ("device", "ipset knop"), ("port", "firewall")) not in found


def test_each_family_has_its_help_and_type_before_its_samples():
    page = metrics.text(ANSWER)
    assert page.endswith("\n")
    names = ["tinyknop_" + name for name, _, _ in metrics.FAMILIES]
    assert [line.split()[2] for line in page.splitlines() if line.startswith("# HELP")] == names
    assert [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")] == names
    for family in families(page).values():
        assert family.documentation and family.type in ("counter", "gauge")
        assert (family.type == "counter") == any(one.name.endswith("_total") for one in family.samples)


def test_daemon_without_anything_gives_a_page_too():
    found = samples(metrics.text({"counters": {}, "grants": []}))
    assert found[("open_grants",)] == 0 and found[("knocks_total", ("kind", "granted"))] == 0


@pytest.mark.parametrize("where", ["0.0.0.0:9762", "192.0.2.1:9762", "[::]:9762", "127.0.0.1", "gate:1", "127.0.0.1:x"])
def test_listener_is_refused_anywhere_but_on_loopback(where):
    with pytest.raises(ConfigError, match="--listen"):
        metrics.place(where)


@pytest.mark.parametrize("where", ["127.0.0.1:0", "localhost:0", "127.1.2.3:0", "[::1]:0"])
def test_listener_answers_scrapes_and_says_when_the_daemon_is_away(where):
    def ask():
        if away:
            raise ConfigError("socket", "nobody answers")
        return metrics.text(ANSWER)

    away = []
    with metrics.server(where, ask) as listener:
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        try:
            assert get(listener, "/metrics") == (200, metrics.TYPE, metrics.text(ANSWER))
            assert get(listener, "/")[0] == 404
            away.append(True)
            assert get(listener, "/metrics") == (503, metrics.TYPE, "socket: nobody answers\n")
        finally:
            listener.shutdown()
            thread.join()


def test_a_client_that_goes_away_is_no_news(capsys):
    """Any local user may connect, and would fill the log with tracebacks."""
    gone = threading.Event()
    with metrics.server("127.0.0.1:0", lambda: gone.wait(5) and "page" * 1000000) as listener:
        listener.daemon_threads = False  # so that the listener's end waits for them
        thread = threading.Thread(target=listener.serve_forever, daemon=True)
        thread.start()
        with socket.create_connection(("127.0.0.1", listener.server_port)) as caller:
            caller.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # its end is a reset
        gone.set()
        listener.shutdown()
        thread.join()
    assert capsys.readouterr().err == ""


def get(listener, path):
    """Returns (status, type, page) of a request."""
    caller = http.client.HTTPConnection(listener.server_name, listener.server_port, timeout=10)
    try:
        caller.request("GET", path)
        answer = caller.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read().decode()
    finally:
        caller.close()


def test_address_in_use_is_told():
    with metrics.server("127.0.0.1:0", str) as listener, pytest.raises(ConfigError, match="cannot listen"):
        metrics.server("127.0.0.1:%d" % listener.server_port, str)


def test_listen_needs_metrics(capsys):
    with pytest.raises(SystemExit):
        status.main(["--socket", "/nonexistent", "--listen", "127.0.0.1:0"])
    assert "needs --metrics" in capsys.readouterr().err
