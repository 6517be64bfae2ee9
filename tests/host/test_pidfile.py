"""fwknopd's pid file on a disk that is read-only or full: the daemon must start, to end what is open."""

import errno
import os

import pytest

from tinyknop.errors import ConfigError
from tinyknop.host import pidfile


def read_only(monkeypatch):
    real = os.open

    def refuse(path, flags, *mode):
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)


def test_a_pid_file_on_a_read_only_disk_is_locked_all_the_same(tmp_path, monkeypatch):
    path = str(tmp_path / "fwknopd.pid")
    pidfile.take(path).close()
    with monkeypatch.context() as patched:
        read_only(patched)
        held = pidfile.take(path)
        with pytest.raises(ConfigError):
            pidfile.take(path)
    with pytest.raises(ConfigError):  # the disk can be written again
        pidfile.take(path)
    held.close()
    pidfile.take(path).close()


def test_a_pid_file_that_finds_no_room_is_held_all_the_same(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = str(tmp_path / "fwknopd.pid")
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        held = pidfile.take(path)
    with pytest.raises(ConfigError):
        pidfile.take(path)
    held.close()
