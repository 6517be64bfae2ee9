"""What lasts on disk is believed only of its owner, and the socket is its owner's from its first moment."""

import os
import stat

import pytest

from tinyknop import compat, log, loop
from tinyknop.control import Door
from tinyknop.lines import Lines


@pytest.fixture
def said(monkeypatch):
    caught = []
    monkeypatch.setattr(log, "sink", lambda level, text: caught.append(text))
    return caught


@pytest.mark.parametrize("mode, believed", ((0o600, True), (0o644, True), (0o620, False), (0o602, False)))
def test_a_file_that_others_may_write_is_not_believed(tmp_path, said, mode, believed):
    path = tmp_path / "grants.journal"
    path.write_bytes(b"one\ntwo")
    path.chmod(mode)
    assert list(Lines(str(path)).read()) == ([b"one\n", b"two"] if believed else [])
    assert list(Lines(str(path)).read(True)) == [b"one\n", b"two"]  # a digest too many only refuses
    assert bool(said) is not believed


def test_a_file_of_somebody_else_is_not_believed(tmp_path, said, monkeypatch):
    path = tmp_path / "grants.journal"
    path.write_bytes(b"one\n")
    path.chmod(0o600)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert list(Lines(str(path)).read()) == []
    assert "grants.journal" in said[0] and "chown" in said[0]


def test_nobody_else_may_connect_while_the_socket_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "chmod", None)
    scheduler, kept = loop.Loop(), os.umask(0)
    try:
        door = Door(str(tmp_path / "sock"), list)
        door.open()
        assert stat.S_IMODE(os.stat(door.path).st_mode) == 0o600
        assert os.umask(0) == 0
        door.close()
    finally:
        os.umask(kept)
    assert scheduler


def test_a_file_that_cannot_be_opened_after_it_was_written_anew_is_opened_by_the_next_line(tmp_path, monkeypatch):
    lines, real = Lines(str(tmp_path / "lines")), compat.append_to
    lines.append(b"one\n")

    def opened(path):
        if not path.endswith(".new"):
            raise OSError(23, "Too many open files in system")
        return real(path)

    monkeypatch.setattr(compat, "append_to", opened)
    for write in (lambda: lines.rewrite([b"two\n"]), lambda: lines.append(b"three\n")):
        with pytest.raises(OSError):
            write()
    monkeypatch.setattr(compat, "append_to", real)
    lines.append(b"four\n")
    assert (tmp_path / "lines").read_bytes() == b"two\nfour\n"
