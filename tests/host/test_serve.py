"""The start of the daemon among people who are not its friends, and on a disk that is full."""

import os
import subprocess
import sys

import pytest

from tests.host.texts import config
from tinyknop import log
from tinyknop.errors import ConfigError
from tinyknop.host import serve


@pytest.fixture
def lines(monkeypatch):
    """Collects the log."""
    found = []
    monkeypatch.setattr(log, "sink", lambda level, text: found.append((level, text)))
    return found


def as_other(monkeypatch):
    """Has us be somebody whom nothing here belongs to."""
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 4242)


def test_a_state_directory_that_somebody_else_has_made_is_refused(tmp_path, monkeypatch):
    """In /tmp, say: its owner could put an answering journal, a forgotten replay cache or a link in there."""
    path = tmp_path / "state"
    path.mkdir(0o700)
    as_other(monkeypatch)
    with pytest.raises(ConfigError, match=r"somebody else's \(user number %d\)" % path.stat().st_uid):
        serve.state(str(path))


def test_a_link_that_somebody_else_has_made_is_refused_wherever_it_leads(tmp_path, monkeypatch):
    mine, there = tmp_path / "mine", tmp_path / "link"
    mine.mkdir(0o700)
    there.symlink_to(mine)
    serve.state(str(there))
    real = os.lstat
    theirs = tuple(real(there)[:4]) + (os.geteuid() + 7,) + tuple(real(there)[5:])
    monkeypatch.setattr(os, "lstat", lambda path, **more: os.stat_result(theirs) if path == str(there) else real(path))
    with pytest.raises(ConfigError, match="somebody else's"):
        serve.state(str(there))


def test_the_directory_may_be_that_of_the_user_whom_we_become(tmp_path, monkeypatch):
    path = tmp_path / "state"
    path.mkdir(0o700)
    monkeypatch.setattr(serve, "number_of", lambda user: path.stat().st_uid if user == "tk" else None)
    as_other(monkeypatch)
    serve.state(str(path), "tk")
    with pytest.raises(ConfigError):
        serve.state(str(path), "somebody")


def test_a_full_disk_takes_the_number_in_the_lock_and_not_the_start(lines):
    serve.lock("/dev/full").close()
    assert [level for level, _ in lines] == ["warning"] and "/dev/full" in lines[0][1]


def test_a_reload_passes_on_what_its_programs_need(tmp_path, monkeypatch):
    passed = []
    monkeypatch.setattr(serve, "check", lambda *_: None)
    monkeypatch.setattr(serve, "pass_on", passed.append)
    settings, _ = serve.reload(str(config(tmp_path)))
    assert passed == [settings]


def test_a_start_that_fails_ends_with_its_reason(tmp_path):
    """Not what Python has to say about tasks that never got their turn."""
    path = config(tmp_path, 'kind = "packet"\ninterface = "lo"', 'kind = "udp"\naddress = "198.51.100.1"')
    path.write_text(path.read_text().replace('kind = "iptables"', 'kind = "nftables"\nvia = "tape"'))
    argv = [sys.executable, "-m", "tinyknop", "serve", "-c", str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("udp 198.51.100.1:62201: cannot listen")
