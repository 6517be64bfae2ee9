"""Command messages: what is run, what it gets to see, and what it cannot do to the daemon. Other users: tests/real."""

import json
import os
import sys
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyknop import log
from tinyknop.errors import ConfigError, Rejected
from tinyknop.host import execute
from tinyknop.loop import Loop, sleep

SEES = """
import json, os, sys
paths = ["/proc/self/fd/" + number for number in os.listdir("/proc/self/fd")]
fds = {path[14:]: os.readlink(path) for path in paths if os.path.exists(path)}
seen = dict(argv=sys.argv[2:], env=dict(os.environ), cwd=os.getcwd(), fds=fds, sid=os.getsid(0), pid=os.getpid())
json.dump(seen, open(sys.argv[1], "w"))
"""


def stanza(**more):
    """Returns what `execute` asks of a stanza."""
    names = "exec_user exec_group sudo_user sudo_group"
    known = dict.fromkeys(names.split(), None)
    known.update(sudo=False, cmd_exec=True, name="alice", where="access.conf:3")
    return SimpleNamespace(**dict(known, **more))


def settings(timeout=0, sudo_exe="/usr/bin/sudo"):
    return SimpleNamespace(cmd_exec_timeout=timeout, sudo_exe=sudo_exe)


@pytest.fixture
def lines(monkeypatch):
    """What is logged, as lines."""
    caught = []
    monkeypatch.setattr(log, "sink", lambda level, text: caught.append(text))
    return caught


@pytest.fixture
def sees(tmp_path):
    """Words of a program that writes down what it sees into the file that is its first argument."""
    script = tmp_path / "sees.py"
    script.write_text(SEES)
    return "%s -I %s %s" % (sys.executable, script, tmp_path / "seen")


def run(text, timeout=0, **more):
    return Loop().run_until(execute.Executor(settings(timeout)).run(text, stanza(**more)))


def test_a_command_is_run_without_a_shell_and_logged_in_fwknopds_words(lines, tmp_path):
    names = ["a'b'", "c;id", "d>x", "e$HOME", "f*"]
    assert run("touch  " + "\t".join(str(tmp_path / name) for name in names)) == 0
    assert sorted(os.listdir(tmp_path)) == names
    assert "(stanza alice) Processing SPA Command message: command='touch  " in lines[0]
    assert "(stanza alice) Running command 'touch  " in lines[1]
    assert lines[2] == "(stanza alice) CMD_EXEC: command returned 0, pid_status: 0"


def test_a_commands_exit_status_is_told(lines):
    assert run("false") == 1
    assert lines[-1] == "(stanza alice) CMD_EXEC: command returned 0, pid_status: 1"


@pytest.mark.parametrize("text", ["no-such-program-here x", "/etc/passwd", "/", "a\0b"])
def test_what_cannot_be_started_is_logged_and_leaves_no_second_daemon(lines, text, no_child_left):
    assert run(text) == 255
    assert "cannot be started" in lines[-2] and lines[-1].endswith("CMD_EXEC: command returned 0, pid_status: 255")


def test_a_command_of_too_many_words_or_none_is_not_run(lines, tmp_path):
    path = tmp_path / "n"
    assert run("touch " + " ".join([str(path)] * 30)) == 0 and not path.exists()
    assert lines[-1].endswith("command returned -6, pid_status: 0")
    assert run(" \t ") == 0
    run("touch " + " ".join([str(path)] * 27))
    assert path.exists()


def test_a_command_gets_nothing_of_the_daemons(lines, sees, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYKNOP_SECRET", "s")
    monkeypatch.setenv("LD_PRELOAD_X", "s")
    with open(tmp_path / "journal", "w") as ours:
        os.set_inheritable(ours.fileno(), True)
        assert run(sees + " a  b") == 0
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["argv"] == ["a", "b"]
    assert set(seen["env"]) - {"LC_CTYPE", "PWD"} == {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LC_ALL"}
    assert seen["env"]["LC_ALL"] == "C"
    assert (seen["cwd"], seen["sid"]) == ("/", seen["pid"])
    assert seen["fds"] == {"0": "/dev/null", "1": os.readlink("/proc/self/fd/1"), "2": os.readlink("/proc/self/fd/1")}


def test_a_hanging_command_delays_nothing_and_is_killed_with_its_children_after_its_time(lines):
    loop, ticks = Loop(), []
    executor = execute.Executor(settings(1))

    async def both():
        task = loop.spawn(executor.run("sh -c sleep${IFS}30&sleep${IFS}30", stanza()))
        begin = time.monotonic()
        while not task.done:
            ticks.append(time.monotonic())
            await sleep(0.01)
        return task.outcome(), time.monotonic() - begin

    status, took = loop.run_until(both())
    assert status == 124 and 0.9 < took < 5
    assert len(ticks) > 20
    assert "took longer than CMD_EXEC_TIMEOUT, 1 s: killed" in lines[-2]


def test_without_a_timeout_a_command_may_take_its_time(lines):
    assert run("sleep 0.3") == 0
    assert not any("killed" in line for line in lines)


def test_no_more_than_32_commands_run_at_once(lines):
    loop = Loop()
    executor = execute.Executor(settings(20))
    one = stanza()

    async def many():
        tasks = [loop.spawn(executor.run("sleep 0.2", one)) for _ in range(execute.MOST_COMMANDS)]
        await sleep(0)
        with pytest.raises(Rejected) as refused:
            await executor.run("touch /never", one)
        for task in tasks:
            await task
        return refused.value.stage, executor.running

    assert loop.run_until(many()) == ("full", 0)
    assert loop.run_until(executor.run("true", one)) == 0


def test_a_cancelled_wait_still_reaps_the_command(lines, no_child_left):
    loop = Loop()
    executor = execute.Executor(settings())

    async def cancelled():
        task = loop.spawn(executor.run("sleep 0.1", stanza()))
        await sleep(0.03)
        task.cancel()
        await sleep(0.3)

    loop.run_until(cancelled())
    assert executor.running == 0


def test_a_flood_of_output_neither_fills_memory_nor_costs_the_daemon_time(lines, capfd):
    begin = time.process_time()
    assert run("sh -c head${IFS}-c${IFS}20000000${IFS}/dev/zero") == 0
    assert time.process_time() - begin < 0.5
    assert len(capfd.readouterr().out) == 20000000  # the daemon's own standard output


def test_sudo_goes_before_the_command(lines, tmp_path):
    sudo = tmp_path / "sudo"
    sudo.write_text("#!/bin/sh\necho $* >%s/said\n" % tmp_path)
    sudo.chmod(0o755)
    executor = execute.Executor(settings(sudo_exe=str(sudo)))
    for more, text, words in (
        ({}, "id  -u", "id -u"),
        ({"sudo_user": "root", "sudo_group": "root"}, "id -u", "id -u"),
        ({"sudo_user": "rooter"}, "id -u", "-u rooter id -u"),
        ({"sudo_user": "bob"}, "-g root id", "-u bob -- -g root id"),
        ({"sudo_user": "bob"}, "LD_PRELOAD=x id", "-u bob -- LD_PRELOAD=x id"),
        ({"sudo_user": "bob", "sudo_group": "users"}, "id  -u", "-u bob -g users id -u"),
    ):
        assert Loop().run_until(executor.run(text, stanza(sudo=True, **more))) == 0
        assert (tmp_path / "said").read_text() == words + "\n"
    assert "Running command '%s -u bob -g users id  -u'" % sudo in lines[-2]


def test_control_characters_of_a_command_cannot_forge_a_line_of_the_log(lines):
    run("no-such\nAdded access rule\x1b[2J \x7f\u2028 caf\xe9")
    assert len(lines) == 4 and all("no-such\\nAdded access rule\\x1b[2J \\x7f\\u2028 caf\xe9" in x for x in lines[:3])


@given(st.text(max_size=192))
def test_any_text_is_shown_in_one_printable_line(text):
    assert execute.shown(text).isprintable()


@pytest.mark.parametrize(
    "keyword, more",
    [
        ("CMD_EXEC_USER", {"exec_user": "no-such-user"}),
        ("CMD_EXEC_GROUP", {"exec_group": "no-such-group"}),
        ("CMD_SUDO_EXEC_USER", {"sudo_user": "no-such-user"}),
        ("CMD_SUDO_EXEC_GROUP", {"sudo_group": "a\0b"}),
    ],
)
def test_an_unknown_user_or_group_is_refused_at_load(keyword, more):
    with pytest.raises(ConfigError) as refused:
        execute.check(stanza(**more), settings())
    assert refused.value.stage == "access.conf:3"
    assert refused.value.reason.startswith(keyword + ": there is no ") and "getent" in refused.value.reason


def test_groups_are_groups_and_a_users_name_stands_for_its_group():
    execute.check(stanza(exec_user="nobody", exec_group="adm", sudo_user="daemon", sudo_group="nobody"), settings())
    import grp
    import pwd

    assert execute.group_id("adm") == grp.getgrnam("adm").gr_gid
    assert execute.group_id("nobody") == pwd.getpwnam("nobody").pw_gid


def test_a_user_that_is_gone_since_is_logged(lines):
    assert run("true", exec_user="no-such-user") == 255
    assert "cannot be started" in lines[-2]
