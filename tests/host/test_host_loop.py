"""Waiting for descriptors and children: what only CPython can do."""

import os
import time

from tinyknop.loop import Loop, readable, run


def test_readable_tells_data_from_the_end_of_its_time():
    loop = Loop()
    there, ours = os.pipe()

    async def waits():
        first = await readable(there, 0.01)
        os.write(ours, b"x")
        return first, await readable(there, 5)

    assert loop.run_until(waits()) == (False, True)
    os.close(there)
    os.close(ours)


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
