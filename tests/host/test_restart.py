"""State files and folders that cannot be written, or are others after a reload; ssh where nothing can be kept."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest
from tinyknop.ports.carriers import ssh

from tinyknop import client
from tinyknop.errors import PortError
from tinyknop.loop import Loop, current, sleep

CONFIG = """[daemon]
{daemon}
[[capture]]
kind = "udp"
port = {port}
[port.door]
kind = "command"
open = "/bin/true"
close = "NONE"
[[stanza]]
name = "alice"
ports = ["door"]
key = "abcdefgh"
hmac_key = "abcdefghijkl"
"""
BOOT = "import sys; from tinyknop.host.cli import main; sys.exit(main())"


def wait(path, text, times=1):
    """Waits until a file holds a text so many times; returns the whole."""
    for _ in range(600):
        found = path.read_text()
        if found.count(text) >= times:
            return found
        time.sleep(0.05)
    raise AssertionError(found)


@contextlib.contextmanager
def running(tmp_path, **paths):
    """Yields (path of what it says, its port, a function that reloads with other paths in [daemon]) of a daemon."""
    config, out, port = tmp_path / "t.toml", tmp_path / "out", 20000 + os.getpid() % 20000

    def write(**paths):
        paths = {"state_dir": tmp_path / "state", **paths}
        daemon = "\n".join(['%s = "%s"' % pair for pair in paths.items()])
        config.write_text(CONFIG.format(daemon=daemon, port=port))
        config.chmod(0o600)

    def reload(**paths):
        write(**paths)
        daemon.send_signal(signal.SIGHUP)

    write(**paths)
    with open(out, "wb") as file:
        argv = [sys.executable, "-c", BOOT, "serve", "-c", str(config)]
        daemon = subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT)
    try:
        wait(out, "ready:")
        yield out, port, reload
    finally:
        daemon.terminate()
        daemon.wait(20)


def knock(port, ahead, address="192.0.2.7"):
    """Returns a function that sends one knock, always the same, of a client whose clock is so many seconds ahead."""
    words = {"host": "127.0.0.1", "port": str(port), "openings": "tcp/22", "address": address}
    words.update({"key": "abcdefgh", "hmac_key": "abcdefghijkl"})
    target = client.Target([(name, text, "test") for name, text in words.items()])
    data = client.build(target, int(time.time()) + ahead)
    return lambda: client.send(data, client.locate("127.0.0.1", port))


def test_a_reload_to_a_digest_file_that_cannot_be_written_leaves_the_old_configuration(tmp_path):
    """Or one typing error at a SIGHUP would shut everybody out, the one who made it too."""
    with running(tmp_path, digest_file=tmp_path / "digests") as (out, _, reload):
        reload(digest_file=tmp_path / "nowhere" / "digests")
        wait(out, "the old configuration stays")


def test_a_reload_to_another_digest_file_takes_along_what_was_seen(tmp_path):
    """Or a recorded packet of a client whose clock is ahead could be used again, and one that is behind is shut out."""
    with running(tmp_path, digest_file=tmp_path / "digests") as (out, port, reload):
        ahead, behind = knock(port, 60), knock(port, -60, "192.0.2.8")
        ahead()
        wait(out, " for 192.0.2.7 until")
        reload(digest_file=tmp_path / "others")
        wait(out, "read anew")
        ahead()
        behind()
        wait(out, " for 192.0.2.8 until")
    assert out.read_text().count(" for 192.0.2.7 until") == 1
    assert (tmp_path / "others").read_text().count(" 127.0.0.1 ") == 2


def test_a_reload_that_names_another_state_directory_puts_nothing_there(tmp_path):
    """Only a start looks whose it is. The log says that this needs a restart, and that goes for all that is in it."""
    (tmp_path / "other").mkdir(mode=0o755)
    with running(tmp_path) as (out, port, reload):
        for number in (1, 2):
            reload(state_dir=tmp_path / "other")
            wait(out, "read anew", number)
            knock(port, number)()
            wait(out, " opened ", number)
    assert os.listdir(tmp_path / "other") == []


def carrier(tmp_path, program="/bin/false"):
    known = tmp_path / "known"
    known.write_text("")
    options = {"profile": "shell", "host": "192.0.2.1", "user": "root", "binary": str(program), "where": "t.toml:1"}
    return ssh.Carrier("edge", dict(options, known_hosts=str(known)))


def test_a_stranger_is_told_of_where_no_folder_can_be_made(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", refuse)
    assert "host key of 192.0.2.1" in Loop().run_until(carrier(tmp_path).stranger())


def test_the_folder_goes_whatever_becomes_of_the_question(tmp_path, monkeypatch):
    made, mkdir = [], os.mkdir

    def note(path, *mode):
        made.append(path)
        mkdir(path, *mode)

    async def fails(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "mkdir", note)
    monkeypatch.setattr(ssh, "run", fails)
    try:
        Loop().run_until(carrier(tmp_path).stranger())
    except (OSError, PortError):
        pass
    assert made and not os.path.exists(made[0])


def test_the_folder_goes_with_a_port_that_is_stopped_meanwhile(tmp_path, monkeypatch, no_child_left):
    made, mkdir = [], os.mkdir

    def note(path, *mode):
        made.append(path)
        mkdir(path, *mode)

    program = tmp_path / "ssh"
    program.write_text("#!/bin/sh\nexec sleep 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(os, "mkdir", note)

    async def stopped():
        task = current().spawn(carrier(tmp_path, program).stranger())
        await sleep(0.2)
        task.cancel()
        assert made and not os.path.exists(made[0])
        await sleep(1.5)  # in which ssh ends

    Loop().run_until(stopped())


@pytest.mark.parametrize("leftover", ["known_hosts.old", "known_hosts.Ab12"])
def test_what_ssh_leaves_beside_its_file_is_no_fault(tmp_path, leftover):
    program = tmp_path / "ssh"
    text = '#!/bin/sh\nfor w; do case $w in UserKnownHostsFile=*) : >"$(dirname "${w#*=}")/%s" ;; esac; done\n'
    program.write_text(text % leftover)
    program.chmod(0o755)
    assert "host key of 192.0.2.1" in Loop().run_until(carrier(tmp_path, program).stranger())
