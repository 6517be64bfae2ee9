"""`tinyknop status` and `list`: what people read, whatever the daemon says, and again and again."""

import json
import socket
import threading
import time

import pytest

from tinyknop.host import cli, status

NOW = 1700000000
GRANT = {
    "id": 7,
    "source": "192.0.2.7",
    "openings": ["tcp/22"],
    "until": NOW + 23,
    "stanza": "alice",
    "ports": ["edge"],
}
ANSWER = {
    "started": NOW - 100000,
    "now": NOW,
    "counters": {"granted": 981, "hmac": 4},
    "open": 980,
    "stanza_count": 3,
    "stanzas": [["alice", NOW - 62, 981], ["bob", 0, 0]],
    "grants": [GRANT],
    "owed": [dict(GRANT, id=3)],
    "ports": [
        {"name": "door", "device": "door (nftables)", "failure": None, "owed": 0, "doubt": "no chain drops"},
        {"name": "firewall", "device": "firewall (ipset)", "failure": None, "owed": 0, "failing_since": None},
        {"name": "edge", "device": "edge (cisco-ios)", "failure": "no answer", "owed": 1, "failing_since": NOW - 3600},
    ],
    "captures": [
        {"device": "packet eth0:62201", "received": 9, "dropped": 2, "failing_since": None},
        {"device": "packet eth1:62201", "received": 0, "dropped": 0, "failing_since": NOW - 5},
    ],
    "watch": {
        "device": "file /var/log/kern.log",
        "lines": 40,
        "packets": 30,
        "sources": [{"source": "198.51.100.9", "level": 3, "packets": 30, "hosts": 1, "rules": []}],
        "blocked": ["198.51.100.9"],
    },
    "refused": [[NOW - 9, "hmac", 204, "198.51.100.9", None], [NOW - 8, "age", 204, "192.0.2.7", "alice"]],
}


@pytest.fixture
def daemon(tmp_path):
    """A stand-in at a socket; returns its path, its answers by question, and the questions asked."""
    path = str(tmp_path / "s")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(8)
    answers, asked = {}, []

    def serve():
        while True:
            try:
                caller = server.accept()[0]
            except OSError:  # the end of the test
                return
            with caller:
                words = json.loads(caller.recv(4096))
                asked.append(words)
                caller.sendall(json.dumps(answers.get(" ".join(words), ANSWER)).encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield path, answers, asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def test_everything_that_ails_has_its_line(daemon, capsys):
    path, _, asked = daemon
    assert cli.main(["tinyknop", "status", "--socket", path]) == 0
    shown = capsys.readouterr().out
    assert asked == [["status"]]
    for line in (
        "running for 1 d 3 h, since ",
        "packet eth0:62201:  9 received, 2 dropped  works",
        "packet eth1:62201:  0 received, 0 dropped  the interface is down, for 5 s (since ",
        "door (nftables): works, but no chain drops",
        "firewall (ipset): works",
        "edge (cisco-ios): no answer, for 1 h (since ",
        "), owed 1",
        "open now: 980",
        "7:  192.0.2.7  tcp/22  23 s left  alice  port edge is down",
        "and 979 more: `tinyknop list` shows all",
        "closes owed: 1",
        "3:  192.0.2.7  tcp/22  by edge",
        "alice  981 knocks  last 1 min 2 s ago (",
        "bob    no knock",
        "and 1 more, which knocked earlier or never",
        "granted  981",
        "watched: file /var/log/kern.log: 40 lines, 30 packets, 1 blocked",
        "198.51.100.9  danger 3  30 packets  1 hosts  blocked",
        "198.51.100.9  204 bytes  hmac",
        "192.0.2.7     204 bytes  age   stanza alice",
    ):
        assert line in shown, (line, shown)


def test_list_asks_for_everything(daemon, capsys):
    path, _, asked = daemon
    assert cli.main(["tinyknop", "list", "--socket", path]) == 0
    assert asked == [[]] and "7:  192.0.2.7" in capsys.readouterr().out


def test_metrics_are_one_page(daemon, capsys):
    assert cli.main(["tinyknop", "status", "--socket", daemon[0], "--metrics"]) == 0
    assert 'tinyknop_port_up{port="edge",device="edge (cisco-ios)"} 0\n' in capsys.readouterr().out


def test_older_daemon_is_told_from_a_broken_one(daemon, capsys):
    daemon[1]["status"] = {"error": "status: no such request"}
    assert cli.main(["tinyknop", "status", "--socket", daemon[0]]) == 1
    assert "Restart it" in capsys.readouterr().err


def test_watch_goes_on_while_the_daemon_is_away(daemon, capsys, monkeypatch):
    path, answers, asked = daemon
    answers["status"] = {"error": "away"}
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        answers.pop("status", None)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    assert cli.main(["tinyknop", "status", "--socket", path, "--watch", "0.5"]) == 0
    shown = capsys.readouterr().out
    assert slept == [0.5] * 3 and len(asked) == 3 and shown.count("open now: 980") == 2 and "away" in shown
    assert status.CLEAR not in shown


@pytest.mark.parametrize("words", [["--watch", "0"], ["--watch", "x"], ["--watch", "nan"], ["--json", "--metrics"]])
def test_words_that_mean_nothing_are_refused(words):
    with pytest.raises(SystemExit):
        status.main(["--socket", "/nonexistent", *words])


@pytest.mark.parametrize(
    "seconds, text", [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (86400 * 400 + 5, "400 d 5 s")]
)
def test_times_are_said_in_two_units(seconds, text):
    assert status.lasted(seconds) == text


def test_what_a_device_answered_cannot_steer_the_terminal(daemon, capsys):
    """A router's last words stand in the state; so does whatever a broken or hostile one sends."""
    path, answers, _ = daemon
    nasty = "bad\33]0;pwned\7\r\nopen now: 0 \ud800 \u202e"
    answers["status"] = dict(ANSWER, ports=[{"device": "edge", "failure": nasty, "owed": 0}])
    answers[""] = dict(ANSWER, grants=[dict(GRANT, stanza=nasty)])
    answers["close 7"] = {"error": nasty}
    for words in (["status"], ["list"], ["close", "7"], ["status", "--metrics"], ["explain"]):
        cli.main(["tinyknop", words[0], "--socket", path, *words[1:]])
        said = capsys.readouterr()
        assert all(c.isprintable() or c == "\n" for c in said.out + said.err), words
        assert not any(line.startswith("open now: 0") for line in said.out.split("\n")), words


@pytest.mark.parametrize("answer", [[], "x", 7, None])
def test_a_socket_of_something_else_is_named(daemon, capsys, answer):
    daemon[1]["status"] = answer
    assert cli.main(["tinyknop", "status", "--socket", daemon[0]]) == 1
    assert "is this tinyknop's socket?" in capsys.readouterr().err


def test_a_scan_is_told_once(daemon, capsys):
    cli.main(["tinyknop", "status", "--socket", daemon[0]])
    assert capsys.readouterr().out.count("file /var/log/kern.log") == 1


def test_a_configuration_that_is_being_edited_hides_no_running_daemon(daemon, capsys, monkeypatch, tmp_path):
    path, _, _ = daemon
    broken = tmp_path / "tinyknop.toml"
    broken.write_text("[daemon]\nstate_dri = 1\n")
    monkeypatch.setattr(status, "CONFIG", str(broken))
    monkeypatch.setattr(status, "STATE_DIR", str(tmp_path))
    monkeypatch.setattr(status, "SOCKET", "s")
    assert cli.main(["tinyknop", "status"]) == 0
    said = capsys.readouterr()
    assert "open now: 980" in said.out and "no such keyword" in said.err


def test_nobody_at_the_socket_is_said_without_numbers(tmp_path, capsys):
    assert cli.main(["tinyknop", "status", "--socket", str(tmp_path / "gone")]) == 1
    said = capsys.readouterr().err
    assert "nobody answers (No such file or directory)" in said and "-c FILE" in said


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "0", "0:0::0"])
def test_nobody_is_let_in_by_the_address_of_everybody(daemon, capsys, address):
    assert cli.main(["tinyknop", "open", "--socket", daemon[0], address, "tcp/22"]) == 1
    assert "is no host's address" in capsys.readouterr().err and daemon[2] == []
