"""`tinyknop knock`: where targets come from, what is refused in one line, and what happens after the knock."""

import io
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from tinyknop import client, log
from tinyknop.host import cli, knock
from tinyknop.seal import Keys, unseal

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
KEYS = Keys(key=b"0123456789abcdef0123456789abcdef", hmac_key=b"hmac")
LINES = "KEY_BASE64: %s\nHMAC_KEY_BASE64: aG1hYw==\n" % KEY


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Runs in an empty directory with an empty home and no keys around."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(log, "threshold", log.threshold)
    for name in knock.KEYS_FROM_ENV:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def key(home):
    path = home / "alice.key"
    path.write_text(LINES)
    path.chmod(0o600)
    return str(path)


def config(path, text, mode=0o600):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return str(path)


def run(*words):
    return cli.main(["tinyknop", "knock", *words])


def failed(capsys, *words):
    """Returns the one line that a failing knock prints."""
    assert run(*words) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    return shown.err


def dry(capsys, *words):
    """Returns the packet that a dry run prints."""
    assert run(*words, "--dry-run") == 0
    return unseal(capsys.readouterr().out.strip().encode(), KEYS)


def test_host_by_flags(key, capsys):
    packet = dry(capsys, "gate", "-A", "tcp/22,udp/53", "-a", "192.0.2.7", "-f", "60", "-k", key, "--user", "bob")
    assert (packet.message, packet.client_timeout, packet.username) == ("192.0.2.7,tcp/22,udp/53", 60, "bob")


def test_named_target_from_home_then_from_here(home, key, capsys):
    table = '[target.office]\nopenings = ["tcp/%d"]\nkey_file = "~/alice.key"\n'
    config(home / "tinyknop.toml", table % 2)
    assert dry(capsys, "office").message == "0.0.0.0,tcp/2"
    config(home / ".tinyknop" / "tinyknop.toml", table % 1)
    assert dry(capsys, "office").message == "0.0.0.0,tcp/1"
    assert dry(capsys, "office", "-A", "tcp/3").message == "0.0.0.0,tcp/3"
    assert dry(capsys, "office", "-c", config(home / "other.toml", table % 4)).message == "0.0.0.0,tcp/4"


def test_keys_in_a_readable_configuration_are_refused(home, capsys):
    text = '\n[target.office]\nopenings = ["tcp/22"]\nkey_base64 = "%s"\n' % KEY
    path = config(home / "t.toml", text, 0o644)
    line = failed(capsys, "office", "-c", path)
    assert line.startswith(path + ":2: ") and "chmod 600" in line


def test_readable_key_file_is_refused(key, capsys):
    os.chmod(key, 0o640)
    assert "chmod 600" in failed(capsys, "gate", "-A", "tcp/22", "-k", key, "--dry-run")


def test_keys_from_environment_and_stdin(monkeypatch, capsys):
    monkeypatch.setenv("TINYKNOP_KEY_BASE64", KEY)
    monkeypatch.setenv("TINYKNOP_HMAC_KEY_BASE64", "aG1hYw==")
    assert dry(capsys, "gate", "-A", "tcp/22").message == "0.0.0.0,tcp/22"
    monkeypatch.setenv("TINYKNOP_KEY_BASE64", "!")
    assert failed(capsys, "gate", "-A", "tcp/22").startswith("$TINYKNOP_KEY_BASE64: ")
    monkeypatch.delenv("TINYKNOP_KEY_BASE64")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LINES.encode())))
    assert dry(capsys, "gate", "-A", "tcp/22", "--stdin").message == "0.0.0.0,tcp/22"


def test_key_file_flag_beats_the_targets_own_key(home, key, capsys):
    text = '[target.office]\nopenings = ["tcp/22"]\nkey_base64 = "AAAA"\nhmac_key_base64 = "AAAA"\n'
    assert dry(capsys, "office", "-c", config(home / "t.toml", text), "-k", key).message == "0.0.0.0,tcp/22"


def test_no_flag_takes_a_key_text():
    assert not any("key" in flag and "file" not in flag for flag in knock.parser()._option_string_actions)


def test_what_cannot_be_is_one_line(home, key, capsys):
    for words, part in (
        (("gate", "-A", "tcp/22"), "tinyknop keygen"),
        (("gate", "-A", "tcp/22", "-k", "missing.key"), "tinyknop keygen -o missing.key"),
        (("gate", "-k", key), "nothing to open"),
        (("gate", "-A", "tcp/0", "-k", key), "port from 1 to 65535"),
        (("no.such.name.invalid", "-A", "tcp/22", "-k", key), "does not resolve"),
        (("127.0.0.1", "-A", "tcp/22", "-k", key, "-a", "nobody"), "--address: "),
        (("127.0.0.1", "-A", "tcp/22", "-k", key, "-p", "70000"), "--port: "),
        (("127.0.0.1", "-A", "udp/22", "-k", key, "--verify"), "only a TCP opening"),
        (("127.0.0.1", "-A", "tcp/22", "-k", key, "--verify", "x"), "--verify: "),
        (("127.0.0.1", "-A", "tcp/22", "-k", key, "--then"), "--then: names no command"),
        (("127.0.0.1", "-A", "tcp/22", "-k", key, "--user", "a:b"), "username: "),
        (("127.0.0.1", "-A", ",".join(["tcp/22222"] * 60), "-k", key), "fit"),
        (("office", "-c", "missing.toml"), "missing.toml: cannot read it"),
        (("127.0.0.1", "-A", "tcp/22", "-k", key, "-R", "--resolve-url", "http://x/"), "not an https:// address"),
    ):
        assert part in failed(capsys, *words), words


def test_mistyped_target_says_where_it_looked(home, capsys, monkeypatch):
    config(home / "tinyknop.toml", '[target.office]\nhost = "gate"\n')
    assert failed(capsys, "offcie", "-A", "tcp/22").startswith("offcie (no such target in tinyknop.toml): no key")
    monkeypatch.setenv("TINYKNOP_KEY_BASE64", KEY)
    line = failed(capsys, "offcie", "-A", "tcp/22")
    assert line.startswith("offcie (no such target in tinyknop.toml): the name does not resolve")


def test_unknown_setting_of_a_target_names_its_line(home, capsys):
    path = config(home / "t.toml", '[target.office]\nhost = "gate"\nopening = ["tcp/22"]\n')
    line = failed(capsys, "office", "-c", path)
    assert line.startswith(path + ":3: opening: no such setting") and "openings" in line


def test_own_address_is_asked_for(key, capsys, monkeypatch):
    answers = []
    monkeypatch.setattr(urllib.request.OpenerDirector, "open", lambda *_, **__: io.BytesIO(answers.pop()))
    answers.append(b"192.0.2.99\n")
    assert dry(capsys, "gate", "-A", "tcp/22", "-k", key, "-R").message == "192.0.2.99,tcp/22"
    for wrong in (b"<html>", b"", b"\xff\xfe"):
        answers.append(wrong)
        assert "did not answer with an address" in failed(capsys, "gate", "-A", "tcp/22", "-k", key, "-R")


def test_a_redirect_to_http_is_not_followed(monkeypatch):
    """Else who sits on the way could choose the address that the knock opens for."""
    answer = urllib.request.addinfourl(io.BytesIO(), {"location": "http://127.0.0.1:1/ip"}, "https://127.0.0.1/", 302)
    answer.msg = "Found"
    monkeypatch.setattr(urllib.request.HTTPSHandler, "https_open", lambda *_: answer)
    with pytest.raises(urllib.error.URLError, match="unknown url type: http"):
        knock.https_only().open("https://127.0.0.1/ip")


def test_failure_to_ask_for_the_own_address_is_one_line(key, capsys):
    line = failed(capsys, "gate", "-A", "tcp/22", "-k", key, "-R", "--resolve-url", "https://127.0.0.1:1/ip")
    assert "give it with -a" in line


class Gate:
    """A server that opens its service once a knock came in."""

    def __init__(self, family, host):
        self.knocks = socket.socket(family, socket.SOCK_DGRAM)
        self.knocks.bind((host, 0))
        self.service = socket.socket(family, socket.SOCK_STREAM)
        self.service.bind((host, 0))
        self.port, self.opening = self.knocks.getsockname()[1], self.service.getsockname()[1]
        self.packets = []
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        self.packets.append(unseal(self.knocks.recv(2000), KEYS))
        self.service.listen(5)


@pytest.mark.parametrize("family, host", [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_verify_waits_until_the_knock_opened(key, capsys, family, host):
    try:
        gate = Gate(family, host)
    except OSError as error:
        pytest.skip("no such addresses here: %s" % error)
    assert run(host, "-p", str(gate.port), "-A", "tcp/%d" % gate.opening, "-k", key, "--verify", "5", "-v") == 0
    assert "answers after" in capsys.readouterr().err
    assert gate.packets[0].message == "0.0.0.0,tcp/%d" % gate.opening


def test_verify_that_sees_nothing_is_status_1(key, capsys):
    assert "does not answer after 1 s" in failed(capsys, "127.0.0.1", "-A", "tcp/1", "-k", key, "--verify", "1")


def test_then_runs_the_command_and_gives_its_status(key):
    gate = Gate(socket.AF_INET, "127.0.0.1")
    words = ["127.0.0.1", "-p", str(gate.port), "-A", "tcp/%d" % gate.opening, "-k", key]
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    env = dict(os.environ, PYTHONPATH=root)
    base = [sys.executable, "-m", "tinyknop", "knock", *words, "--then"]
    done = subprocess.run([*base, "sh", "-c", "echo $0; exit 7", "-v"], env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "-v\n", "")
    done = subprocess.run([*base, "/nonexistent/command"], env=env, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("--then: cannot run /nonexistent/command")


def test_a_knock_without_an_address_says_what_that_means(key, capsys, monkeypatch):
    monkeypatch.setattr(client, "send", lambda data, place: None)
    words = ["tinyknop", "knock", "192.0.2.1", "-A", "tcp/22", "-k", key]
    assert cli.main(words) == 0
    assert capsys.readouterr().err.startswith("note: no address in the knock")
    assert cli.main([*words, "-a", "192.0.2.7"]) == 0
    assert capsys.readouterr().err == ""
