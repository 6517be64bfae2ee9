"""The daemon's log while it runs: written at the end of a turn, in order, and never lost at the end."""

import pytest

from tinyknop import log
from tinyknop.host.run import Afterwards
from tinyknop.loop import Loop, sleep


@pytest.fixture
def written(monkeypatch):
    lines = []
    monkeypatch.setattr(log, "sink", lambda level, text: lines.append((level, text)))
    return lines


async def turns():
    await sleep(0.01)


def test_what_a_knock_has_set_going_is_done_before_its_line_is_written(written):
    loop, order = Loop(), []

    async def port():
        order.append(list(written))
        log.warning("second")

    def heard():
        loop.spawn(port())
        log.info("first %d", 1)

    with Afterwards(loop):
        loop.soon(heard)
        loop.run_until(turns())
        assert order == [[]] and written == [("info", "first 1"), ("warning", "second")]
        log.info("third")
        assert len(written) == 2
    assert written[2:] == [("info", "third")]
    log.info("fourth")
    assert written[3:] == [("info", "fourth")]


def test_a_log_that_nobody_takes_ends_nothing_and_fills_no_memory(monkeypatch):
    tried = []

    def broken(level, text):
        tried.append(text)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "sink", broken)
    loop = Loop()
    with Afterwards(loop) as kept:
        log.info("one")
        log.info("two")
        loop.run_until(turns())
    assert tried == ["one", "two"] and kept.lines == []
