"""Child processes: what they get, what they may do to us, and how they end."""

import os
import resource
import time

import pytest

from tinyknop import child as children
from tinyknop.child import LONGEST_OUTPUT, ended, run
from tinyknop.loop import Loop, sleep


def child(*argv, **more):
    return Loop().run_until(run(list(argv), **more))


def test_a_child_gives_its_status_and_output():
    assert child("echo", "hi") == (0, b"hi\n")
    assert child("sh", "-c", "echo no >&2; exit 3") == (3, b"no\n")
    assert child("sh", "-c", "kill -TERM $$")[0] == 128 + 15


def test_a_child_reads_its_input_while_it_answers():
    data = b"x" * 300000
    status, output = child("cat", stdin=data)
    assert (status, len(output)) == (0, 300000)
    assert child("wc", "-c", stdin=data) == (0, b"300000\n")
    assert child("true", stdin=data)[0] == 0


def test_a_missing_program_is_status_127():
    assert child("no-such-program-here")[0] == 127


def test_a_child_that_hangs_is_killed_with_its_children():
    begin = time.monotonic()
    assert child("sh", "-c", "sleep 30 & sleep 30", timeout=0.3)[0] == 124
    assert time.monotonic() - begin < 3


def test_no_descriptor_and_no_environment_leaks_to_a_child():
    before = len(os.listdir("/proc/self/fd"))
    os.environ["TINYKNOP_SECRET"] = "s"
    ours = open(__file__)
    try:
        output = child("sh", "-c", "ls -l /proc/self/fd; env")[1]
    finally:
        del os.environ["TINYKNOP_SECRET"]
        ours.close()
    assert b"SECRET" not in output
    assert os.path.basename(__file__).encode() not in output
    assert len(os.listdir("/proc/self/fd")) == before


def cpu():
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def test_a_flood_costs_little_and_is_kept_only_so_far():
    begin = cpu()
    status, output = child("yes", timeout=1)
    assert (status, len(output)) == (124, LONGEST_OUTPUT)
    assert cpu() - begin < 0.25
    assert child("yes", timeout=0.3, keep=1000)[1] == b"y\n" * 500


def test_a_long_answer_of_which_little_is_kept_still_gets_to_its_end():
    begin = time.monotonic()
    assert child("sh", "-c", "head -c 500000 /dev/zero; exit 7", keep=10) == (7, bytes(10))
    assert time.monotonic() - begin < 5


def test_output_that_nobody_wants_goes_nowhere():
    assert child("sh", "-c", "yes | head -c 3000000; readlink /proc/self/fd/1 >&2; exit 5", keep=0) == (5, b"")


def test_a_child_that_leaves_one_of_its_own_behind_is_not_waited_for():
    begin = time.monotonic()
    status, output = child("sh", "-c", "sleep 3 & echo $!")
    os.kill(int(output), 9)
    assert status == 0 and time.monotonic() - begin < 2


def test_what_a_child_says_last_is_not_lost():
    for _ in range(20):
        assert child("sh", "-c", "echo a; echo b >&2") == (0, b"a\nb\n")


def test_several_children_run_at_once():
    loop = Loop()

    async def both():
        tasks = [loop.spawn(run(["sleep", "0.3"])) for _ in range(8)]
        return [await task for task in tasks]

    begin = time.monotonic()
    assert loop.run_until(both()) == [(0, b"")] * 8
    assert time.monotonic() - begin < 1.5


def test_a_child_of_a_cancelled_task_is_killed_on_time_and_reaped(no_child_left):
    loop = Loop()

    async def cancelled():
        task = loop.spawn(run(["sleep", "30"], timeout=0.2))
        await sleep(0.05)
        task.cancel()
        begin = time.monotonic()
        await sleep(0.01)  # somebody else waits for it now
        while len(os.listdir("/proc/self/fd")) > len(fds) and time.monotonic() - begin < 5:
            await sleep(0.01)

    fds = os.listdir("/proc/self/fd")
    loop.run_until(cancelled())
    assert len(os.listdir("/proc/self/fd")) == len(fds)


def test_without_pidfd_the_end_is_seen_too(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    assert child("sh", "-c", "echo a; sleep 0.05; exit 3") == (3, b"a\n")
    assert child("sleep", "30", timeout=0.1)[0] == 124


def test_what_cannot_be_killed_is_logged_and_waited_for(monkeypatch):
    said = []
    monkeypatch.setattr(children.log, "sink", lambda level, text: said.append(text))

    def refused(*words):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "killpg", refused)
    pid = os.posix_spawnp("sleep", ["sleep", "0.2"], os.environ, setpgroup=0)
    assert Loop().run_until(ended(pid, 0.05)) == 124
    assert said == ["process %d has used up its time but cannot be killed: [Errno 1] Operation not permitted" % pid]


def test_no_descriptor_is_lost_where_there_are_no_more(monkeypatch):
    before = os.listdir("/proc/self/fd")
    real, calls = os.pipe, []

    def pipe():
        calls.append(1)
        if len(calls) > 1:
            raise OSError(24, "Too many open files")
        return real()

    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(OSError):
        child("true")
    assert len(os.listdir("/proc/self/fd")) == len(before)
