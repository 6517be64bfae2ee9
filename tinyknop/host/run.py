"""Runs the daemon until a signal ends it: what `serve` and the fwknopd front end have in common."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import time
import warnings

from tinyknop import log
from tinyknop.errors import TinyknopError
from tinyknop.host.notify import READY, RELOADING, STOPPING, keep_alive, notify
from tinyknop.host.tools import Tools
from tinyknop.loop import sleep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Callable

    from tinyknop.daemon import Daemon
    from tinyknop.loop import Loop
    from tinyknop.says import Says
    from tinyknop.settings import Settings
    from tinyknop.stanza import Stanza

    Reread = Callable[[], tuple[Settings, list[Stanza]]]
    Lines = dict[str, str] | tuple[()]

IDLE_S = 0.2  # seconds between two looks whether anything is still open

NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAYS = (  # event, what is logged
    ("ready", "ready: %(captures)s; %(stanzas)s"),
    ("SIGHUP", "reading the configuration anew"),
    ("read", "the configuration was read anew: %(stanzas)s"),
    ("SIGTERM", "ending, as SIGTERM asks"),
    ("SIGINT", "ending, as SIGINT asks"),
    ("end", "ended"),
)

FIXED = (  # what is taken at the start only, and how it is called
    ("state_dir", "the run directory"),
    ("user", "the user"),
    ("pid_file", "the pid file"),
    ("log", "log"),
    ("log_to", "log_to"),
    ("syslog_identity", "SYSLOG_IDENTITY"),
    ("syslog_facility", "SYSLOG_FACILITY"),
)


_early: list[int] = []  # numbers of signals that came before there was a Service


def early() -> None:
    """Keeps a SIGHUP for the daemon that is about to start: by its default it would end us."""
    signal.signal(signal.SIGHUP, lambda number, frame: _early.append(number))


class Service:
    """One daemon and the signals that steer it."""

    def __init__(self, daemon: Daemon, loop: Loop, reread: Reread, says: Lines) -> None:
        self.daemon = daemon
        self.loop = loop
        self.reread = reread
        self.says = dict(SAYS)
        self.says.update(says)
        self.started = False
        self.stopping = False
        self.reloading = False
        self.heard: set[int] = set()  # of signals, what is still to be done
        self.status = 0
        self.woken, self.waker = socket.socketpair()

    def listen(self) -> None:
        """Takes the signals; they arrive as bytes in a socket, so that no callback is cut in two."""
        self.woken.setblocking(False)
        self.waker.setblocking(False)
        signal.set_wakeup_fd(self.waker.fileno(), warn_on_full_buffer=False)
        for number in NUMBERS:
            signal.signal(number, lambda number, frame: None)
        self.heard.update(_early)
        # Whoever started us may have it ignored, and then no child could be waited for.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.loop.reader(self.woken, self.hear)

    def unlisten(self) -> None:
        """Gives the signals back."""
        self.loop.reader(self.woken, None)
        signal.set_wakeup_fd(-1)
        for number in NUMBERS:
            signal.signal(number, signal.SIG_DFL)
        self.woken.close()
        self.waker.close()

    def say(self, event: str, stanzas: list[Stanza] | None = None) -> None:
        """Logs the line of an event, if it has one."""
        line = self.says.get(event)
        if line:
            captures = ", ".join(capture.describe() for capture in self.daemon.captures)
            log.info("%s", line % {"captures": captures, "stanzas": counted(stanzas or ())})

    def hear(self) -> None:
        """Takes in the signals that came."""
        self.heard.update(self.woken.recv(64))
        self.act()

    def act(self) -> None:
        """Does what the signals ask for, once the daemon is up."""
        if not self.started or self.stopping:
            return
        heard, self.heard = self.heard, set()
        for number in (signal.SIGTERM, signal.SIGINT):
            if number in heard:
                self.say(signal.Signals(number).name)
                self.stopping = True
                notify(STOPPING)
                self.loop.spawn(self.stop())
                return
        if signal.SIGHUP in heard and self.reloading:
            self.heard.add(signal.SIGHUP)  # for its end: it may have read the files before the last change
        elif signal.SIGHUP in heard:
            self.say("SIGHUP")
            self.reloading = True
            notify(RELOADING, "MONOTONIC_USEC=%d" % (time.monotonic_ns() // 1000))
            self.loop.spawn(self.reload())

    def go_on(self) -> None:
        """Runs until something ends the daemon."""
        self.loop.soon(self.act)  # what came while it started
        with Afterwards(self.loop):
            self.loop.run()

    def over(self, reason: str, status: int | None) -> None:
        """Ends the daemon for a reason of its own: a capture that is through (status None), or can go no further.

        After the former what was opened keeps its time.
        """
        if status is None:
            self.loop.spawn(self.finish(reason))
        elif not self.stopping:
            if status:
                log.error("%s", reason)
            else:
                log.info("%s", reason)
            self.status = status
            self.stopping = True
            notify(STOPPING)
            self.loop.spawn(self.stop())

    async def finish(self, reason: str) -> None:
        """Ends the daemon once nothing is open any more."""
        while not self.daemon.idle():
            await sleep(IDLE_S)
        self.over(reason, 0)

    async def reload(self) -> None:
        """Takes the configuration anew; keeps the old one where the new one is broken, and says so."""
        try:
            old = self.daemon.settings
            settings, stanzas = self.reread()
            await self.daemon.reload(settings, stanzas)
            self.daemon.tools.take(settings)
            if hasattr(self.daemon.says, "take"):
                self.daemon.says.take(settings, stanzas)
            for name, shown in FIXED:
                if getattr(old, name, None) != getattr(settings, name, None):
                    log.warning("%s was changed: that needs a restart", shown)
            self.say("read", stanzas)
        except (TinyknopError, OSError) as error:
            log.error("%s; the old configuration stays", error)
        finally:
            self.reloading = False
            notify(READY)
            self.act()

    async def stop(self) -> None:
        """Closes what is open, then ends the loop, whatever became of that."""
        try:
            while self.reloading:  # or what it starts would outlive us
                await sleep(IDLE_S)
            await self.daemon.stop()
        finally:
            self.loop.stop()


class Afterwards:
    """Writes the log at the end of a turn of the loop: who reads it wakes up then, and no port has to wait for that."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.write = log.sink
        self.lines: list[tuple[str, str]] = []

    def __enter__(self) -> Afterwards:
        log.sink = self
        return self

    def __call__(self, level: str, text: str) -> None:
        """Keeps a line."""
        if not self.lines:
            self.loop.soon(self.flush)
        self.lines.append((level, text))

    def flush(self) -> None:
        """Writes what was kept; what nobody takes is lost, as it is without us."""
        lines, self.lines = self.lines, []
        for level, text in lines:
            with contextlib.suppress(Exception):
                self.write(level, text)

    def __exit__(self, *_: object) -> None:
        log.sink = self.write
        self.flush()


def counted(stanzas: Collection[Stanza]) -> str:
    """Returns "1 stanza" or "2 stanzas"."""
    return "%d stanza%s" % (len(stanzas), "" if len(stanzas) == 1 else "s")


def run(
    settings: Settings,
    stanzas: list[Stanza],
    reread: Reread,
    says: Lines = (),
    ready: Callable[[], None] | None = None,
    words: Says | None = None,
    limit: int = 0,
) -> int:
    """Runs a daemon until TERM or INT; HUP takes what `reread` returns. Returns the exit status.

    `says` replaces lines of SAYS, `words` the daemon's Says; `ready` is called once knocks are heard; `limit` is the
    number of packets after which it ends, 0 for never. Raises TinyknopError or OSError where it cannot start.
    """
    from tinyknop.daemon import Daemon
    from tinyknop.loop import Loop

    loop = Loop()
    daemon = Daemon(settings, stanzas, loop, words, Tools(settings))
    service = Service(daemon, loop, reread, says)
    daemon.over = service.over
    daemon.limit = limit
    service.listen()
    try:
        loop.run_until(daemon.start())
        service.started = True
        service.say("ready", stanzas)
        if ready:
            ready()
        notify(READY)
        keep_alive(loop)
        gc.freeze()  # modules, tables and what was recovered stay: no later round need look at them
        service.go_on()
        service.say("end")
    finally:
        service.unlisten()
        if not service.started:  # tasks that never got their turn are no news beside the reason
            warnings.simplefilter("ignore", RuntimeWarning)
    return service.status
