"""The command line: the table, dispatch by the program's name, exit statuses, keygen, status and serve's own words."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from tinyknop import log
from tinyknop.client import parse_keys
from tinyknop.compat import monotonic
from tinyknop.errors import ConfigError
from tinyknop.host import cli, keygen, run, serve, status
from tinyknop.loop import Loop


def test_no_command_is_a_usage_error(capsys):
    assert cli.main(["tinyknop"]) == 2
    assert "usage: tinyknop COMMAND" in capsys.readouterr().err


def test_help_and_version_are_printed(capsys):
    assert cli.main(["tinyknop", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name, _, _ in cli.COMMANDS)
    assert cli.main(["tinyknop", "--version"]) == 0
    assert capsys.readouterr().out.startswith("tinyknop 0.")


def test_unknown_command_names_the_nearest(capsys):
    assert cli.main(["tinyknop", "keygne"]) == 2
    assert "did you mean keygen?" in capsys.readouterr().err


def test_program_name_chooses_the_front_end(monkeypatch):
    called = []
    monkeypatch.setattr(cli, "call", lambda name, words: called.append((name, words)) or 0)
    assert cli.main(["/usr/sbin/fwknopd", "-f"]) == 0
    assert cli.main(["tinyknop", "fwknopd", "-f"]) == 0
    assert called == [("fwknopd", ["-f"])] * 2


def test_error_is_one_line_and_status_1(capsys):
    assert cli.main(["tinyknop", "serve", "-c", "/nonexistent/tinyknop.toml"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("/nonexistent/tinyknop.toml") and shown.count("\n") == 1


def test_keygen_prints_two_lines_that_the_client_reads(capsys):
    assert cli.main(["tinyknop", "keygen"]) == 0
    text = capsys.readouterr().out
    assert [entry[0] for entry in parse_keys(text.encode(), "k")] == ["key_base64", "hmac_key_base64"]
    assert keygen.pair() != keygen.pair()


def test_keygen_file_is_its_owners_only_and_never_replaced(tmp_path, capsys):
    path = tmp_path / "alice.key"
    old = os.umask(0)
    try:
        assert cli.main(["tinyknop", "keygen", "-o", str(path), "--hmac", "sha512"]) == 0
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    assert cli.main(["tinyknop", "keygen", "-o", str(path)]) == 1
    assert "already there" in capsys.readouterr().err and path.read_text() == before
    assert cli.main(["tinyknop", "keygen", "-o", str(tmp_path / "no" / "k")]) == 1


def answering(path, data):
    """Answers one caller at a Unix socket with some bytes."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(1)

    def serve_one():
        caller, _ = server.accept()
        caller.recv(4096)
        caller.sendall(data)
        caller.close()
        server.close()

    threading.Thread(target=serve_one, daemon=True).start()


ANSWER = {
    "counters": {"granted": 2, "hmac": 1, "age": 0},
    "grants": [{"source": "192.0.2.7", "openings": [["tcp", 22]], "until": 10**10, "stanza": "alice"}],
    "ports": [{"name": "firewall", "device": "ipset knop", "failure": "no set", "owed": 1}],
    "captures": [{"device": "packet eth0", "received": 3, "dropped": 0}],
}


def test_status_prints_a_table(tmp_path, capsys):
    path = str(tmp_path / "tinyknop.sock")
    answering(path, json.dumps(ANSWER).encode() + b"\n")
    assert cli.main(["tinyknop", "status", "--socket", path]) == 0
    shown = capsys.readouterr().out
    assert (
        "192.0.2.7  tcp/22" in shown
        and "granted  2" in shown
        and "age" not in shown
        and "ipset knop: no set, owed 1" in shown
    )


def test_status_prints_json(tmp_path, capsys):
    path = str(tmp_path / "tinyknop.sock")
    answering(path, json.dumps(ANSWER).encode() + b"\n")
    assert cli.main(["tinyknop", "status", "--socket", path, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == ANSWER


def test_status_without_a_daemon_says_so(tmp_path):
    path = str(tmp_path / "tinyknop.sock")
    with pytest.raises(ConfigError, match="does the daemon run"):
        status.ask(path)
    answering(path, b"hello\n")
    with pytest.raises(ConfigError, match="not JSON"):
        status.ask(path)


def test_serve_understands_its_few_words(monkeypatch):
    monkeypatch.setattr(log, "threshold", 1)
    assert serve.words_of([]) == serve.CONFIG
    assert serve.words_of(["-c", "x"]) == serve.words_of(["--config=x"]) == serve.words_of(["--config", "x"]) == "x"
    assert serve.words_of(["--help"]) is None
    assert serve.words_of(["-v"]) == serve.CONFIG and log.threshold == 0
    for wrong in (["-c"], ["x"], ["--bogus"]):
        with pytest.raises(ConfigError):
            serve.words_of(wrong)


def test_state_directory_is_made_private_and_an_open_one_is_refused(tmp_path):
    path = tmp_path / "a" / "state"
    serve.state(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    path.chmod(0o755)
    with pytest.raises(ConfigError, match="chmod 700"):
        serve.state(str(path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make the state directory"):
        serve.state(str(tmp_path / "file"))


def test_second_daemon_is_refused_and_told_who_holds_the_lock(tmp_path):
    path = str(tmp_path / "lock")
    held = serve.lock(path)
    with pytest.raises(ConfigError, match="process %d" % os.getpid()):
        serve.lock(path)
    held.close()
    serve.lock(path).close()
    with pytest.raises(ConfigError, match="cannot write it"):
        serve.lock(str(tmp_path / "no" / "lock"))


def test_broken_configuration_keeps_the_old_one(monkeypatch):
    said, reloaded = [], []
    monkeypatch.setattr(log, "sink", lambda level, text: said.append((level, text)))

    class Daemon:
        captures = ()
        settings = says = None
        tools = SimpleNamespace(take=lambda settings: None)

        async def reload(self, *values):
            reloaded.append(values)

    def broken(path):
        raise ConfigError("f:3", "bad")

    def reload():
        with pytest.raises(StopIteration):  # it waits for nothing
            service.reload().send(None)

    service = run.Service(Daemon(), None, lambda: serve.load("f"), ())
    monkeypatch.setattr(serve.config, "load", broken, raising=False)
    reload()
    assert said == [("error", "f:3: bad; the old configuration stays")] and not reloaded
    monkeypatch.setattr(serve.config, "load", lambda path: ("settings", []))
    reload()
    assert "no stanza" in said[-1][1] and not reloaded
    monkeypatch.setattr(serve.config, "load", lambda path: ("settings", ["stanza"]))
    reload()
    assert reloaded == [("settings", ["stanza"])]


def test_signals_reload_and_then_stop_the_daemon_once(monkeypatch):
    done = []

    class Daemon:
        captures = ()
        settings = says = None
        tools = SimpleNamespace(take=lambda settings: None)

        async def reload(self, *values):
            done.append("reload")

        async def stop(self):
            done.append("stop")

    monkeypatch.setattr(log, "sink", lambda level, text: None)
    monkeypatch.setattr(serve.config, "load", lambda path: ("settings", ["stanza"]), raising=False)
    loop = Loop()
    service = run.Service(Daemon(), loop, lambda: serve.load("f"), ())
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        service.listen()
        service.started = True
        os.kill(os.getpid(), signal.SIGHUP)
        loop.at(monotonic() + 50, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.at(monotonic() + 50, lambda: os.kill(os.getpid(), signal.SIGTERM))
        loop.run()
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
    assert done == ["reload", "stop"]


def test_serve_imports_nothing_heavy():
    code = "import sys, tinyknop.host.serve, tinyknop.daemon; print(' '.join(sys.modules))"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    # -S: what an editable install imports at start is not ours.
    argv = [sys.executable, "-S", "-c", code]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=root).stdout.split()
    heavy = {
        "argparse",
        "urllib.request",
        "pyroute2",
        "asyncio",
        "Crypto",
        "typing",
        "logging",
        "subprocess",
        "ipaddress",
    }
    assert not heavy & set(loaded)
