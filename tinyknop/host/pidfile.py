"""fwknopd's pid file and its lock: a POSIX record lock, held for life, which the real fwknopd respects as well."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import struct
import time

from tinyknop import log
from tinyknop.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

# struct flock of Linux: type, whence, start, length, pid.
FLOCK = "hhqqi"
KILL_WAIT_S = 12  # before SIGKILL; our end may take 10 s, at which rules are removed (fwknopd -K: 4 s)


def holder(path: str) -> int | None:
    """Returns the process that holds the lock, or None; writes nothing, which the reference does."""
    try:
        with open(path, "rb+") as file:
            asked = struct.pack(FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            kind, _, _, _, pid = struct.unpack(FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, asked)[: struct.calcsize(FLOCK)])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(path, "cannot look at the pid file: %s" % error.strerror) from None
    return pid if kind != fcntl.F_UNLCK and pid > 0 else None


def opened(path: str) -> tuple[TextIO, bool]:
    """Returns a file, made where it is not there, and whether it can be written; raises OSError.

    On a read-only disk it cannot, and what is open there has to end all the same.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600), "r+"), True
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
    return os.fdopen(os.open(path, os.O_RDONLY | flags)), False


def sign(file: TextIO, path: str) -> None:
    """Writes our process id into a file that we have locked."""
    try:
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), b"%d\n" % os.getpid())
    except OSError as error:  # a full or read-only disk: what holds others off is the lock, not the number
        log.warning("%s: %s", path, error.strerror)


def take(path: str) -> TextIO:
    """Locks the file and writes our process id into it; returns it open, since closing it would drop the lock.

    On a read-only disk there is no record lock to be had, so each of us takes a lock of the other kind as well.
    """
    try:
        file, writable = opened(path)
    except OSError as error:
        raise ConfigError(path, "cannot write the pid file: %s" % error.strerror) from None
    try:
        for lock in [fcntl.flock, fcntl.lockf][: 2 if writable else 1]:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        text = file.read(20).strip()
        file.close()
        raise Running(path, text) from None
    sign(file, path)
    return file


class Running(ConfigError):
    """Another daemon holds the lock."""

    def __init__(self, path: str, pid: str) -> None:
        super().__init__(path, "[*] An instance of fwknopd is already running: (PID=%s)." % pid)


def kill(path: str) -> tuple[int, str]:
    """Ends the lock's holder; returns (exit status, line to print)."""
    pid = holder(path)
    if pid is None:
        return 1, "No running fwknopd detected."
    try:
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + KILL_WAIT_S
        while holder(path) == pid and time.monotonic() < end:
            time.sleep(0.02)
        if holder(path) != pid:
            return 0, "Killed fwknopd (pid=%d) via SIGTERM" % pid
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return 0, "Killed fwknopd (pid=%d)" % pid
    except PermissionError:
        return 1, "Unable to send signal to fwknop: only its user or root may"
    return 0, "Killed fwknopd (pid=%d) via SIGKILL" % pid


def restart(path: str) -> tuple[int, str]:
    """Makes the lock's holder read its configuration anew; returns (exit status, line to print)."""
    pid = holder(path)
    if pid is None:
        return 1, "No running fwknopd detected."
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        return 1, "Unable to send signal to fwknop: %s" % error.strerror
    return 0, "Sent restart signal to fwknopd (pid=%d)" % pid


def status(path: str) -> tuple[int, str]:
    """Tells whether a daemon runs; returns (exit status, line to print)."""
    pid = holder(path)
    if pid is None:
        return 1, "No running fwknopd detected."
    return 0, "Detected fwknopd is running (pid=%d)." % pid
