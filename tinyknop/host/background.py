"""Going to the background, and where the log goes then: what fwknopd's front end does as a daemon."""

from __future__ import annotations

import os
import sys

from tinyknop import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from tinyknop.settings import Settings

    Sink = Callable[[str, str], None]  # of a line's level and text


def plain(level: str, text: str) -> None:
    """Writes a line to stderr as fwknopd does: no time, no level."""
    sys.stderr.write(text + "\n")


def stand_in() -> None:
    """Puts /dev/null where standard input, output or error is closed; else what is opened next gets its number."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, which is this one's
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w"))


def to_syslog(settings: Settings, also: Sink | None = None) -> None:
    """Sends the log to syslog, and to another sink as well."""
    import syslog

    syslog.openlog(settings.syslog_identity, syslog.LOG_PID, getattr(syslog, settings.syslog_facility))
    levels = {"debug": syslog.LOG_DEBUG, "info": syslog.LOG_INFO, "warning": syslog.LOG_WARNING}

    def sink(level: str, text: str) -> None:
        syslog.syslog(levels.get(level, syslog.LOG_ERR), text)
        if also:
            also(level, text)

    log.sink = sink


def daemonize() -> int:
    """Goes to the background; the first process waits until the second says through the pipe that it is ready.

    Returns the pipe's end. fwknopd's first process ends at once, so that nobody learns of a start that failed.
    """
    heard, ready = os.pipe()
    if os.fork():
        os.close(ready)
        said = os.read(heard, 1)
        sys.stderr.flush()
        os._exit(0 if said else 1)
    os.close(heard)
    os.setsid()
    return ready


def detach(ready: int) -> None:
    """Lets the first process end, and leaves its terminal and directory."""
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
    os.write(ready, b"1")
    os.close(ready)
