"""The daemon's own socket: where it cannot be had the daemon goes on, and whoever asks oddly gets nothing."""

import json
import os
import socket
import stat
import time

from tinyknop import control, log
from tinyknop.control import Door
from tinyknop.loop import Loop, sleep


def driven(door, call):
    """Opens a door, awaits `call()` beside it in one loop, and closes it; returns what that returned."""
    answers = []

    async def body():
        door.open()
        answers.append(await call())
        door.close()

    Loop().run_until(body())
    return answers[0]


async def told(path, data):
    """Returns what the door answers to some bytes and the end of them."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.setblocking(False)
        client.sendall(data)
        client.shutdown(socket.SHUT_WR)
        found = b""
        while True:
            await sleep(0.005)
            try:
                piece = client.recv(65536)
            except BlockingIOError:
                continue
            if not piece:
                return found
            found += piece


def test_only_its_owner_may_ask_and_what_was_left_by_a_kill_is_replaced(tmp_path):
    path = str(tmp_path / "sock")
    (tmp_path / "sock").write_text("left")
    mode = []

    async def call():
        mode.append(stat.S_IMODE(os.stat(path).st_mode))
        return await told(path, b'["a", "b"]\n')

    assert json.loads(driven(Door(path, lambda words: {"said": words}), call)) == {"said": ["a", "b"]}
    assert mode == [0o600] and not os.path.exists(path)


def test_no_words_are_a_question_too_and_anything_else_gets_no_answer(tmp_path):
    path = str(tmp_path / "sock")

    async def call():
        return [await told(path, data) for data in (b"", b"[1]\n", b"{}\n", b"x\n", b"[" * 4096)]

    said = driven(Door(path, lambda words: {"words": len(words)}), call)
    assert [json.loads(said[0])] + said[1:] == [{"words": 0}, b"", b"", b"", b""]


def test_rows_that_are_made_while_they_are_said_come_whole(tmp_path):
    path = str(tmp_path / "sock")

    async def call():
        return json.loads(await told(path, b""))

    for count in (0, 1, 99, 100, 101, 250):
        rows = [str(number) for number in range(count)]
        assert driven(Door(path, lambda words, rows=rows: {"rows": iter(rows), "end": 1}), call) == {
            "rows": rows,
            "end": 1,
        }
    assert driven(Door(path, lambda words: {}), call) == {}


def test_without_a_place_for_it_the_daemon_goes_on_and_says_what_will_not_work(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(log, "sink", lambda level, text: lines.append(text))
    kept = os.umask(0o022)
    try:
        for path in (tmp_path / "no" / "sock", tmp_path, tmp_path / ("x" * 200)):

            async def call():
                return "went on"

            assert driven(Door(str(path), dict), call) == "went on"
        assert os.umask(0o022) == 0o022  # nothing that the daemon makes later may be more open, or more shut
    finally:
        os.umask(kept)
    assert len(lines) == 3 and all(line.endswith("; `tinyknop status` will not work") for line in lines)


def test_a_place_that_can_be_written_later_is_tried_again_without_another_word(tmp_path, monkeypatch):
    """A start on a disk that is read-only for a while: `tinyknop status` has to work once it is not."""
    lines = []
    monkeypatch.setattr(log, "sink", lambda level, text: lines.append(text))
    monkeypatch.setattr(control, "_AGAIN_MS", 10)
    path = str(tmp_path / "later" / "sock")

    async def call():
        await sleep(0.1)
        (tmp_path / "later").mkdir()
        deadline = time.monotonic() + 20
        while not os.path.exists(path):
            assert time.monotonic() < deadline, "it was not tried again"
            await sleep(0.005)
        return json.loads(await told(path, b""))

    assert driven(Door(path, lambda words: {"said": words}), call) == {"said": []}
    assert len(lines) == 1


def test_no_socket_comes_back_after_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(log, "sink", lambda level, text: None)
    monkeypatch.setattr(control, "_AGAIN_MS", 10)
    path = str(tmp_path / "later" / "sock")

    async def body():
        door = Door(path, dict)
        door.open()
        door.close()
        (tmp_path / "later").mkdir()
        await sleep(0.1)

    Loop().run_until(body())
    assert not os.path.exists(path)


def test_a_socket_that_somebody_took_away_is_no_error_at_the_end(tmp_path):
    path = str(tmp_path / "sock")

    async def call():
        os.remove(path)

    driven(Door(path, dict), call)
