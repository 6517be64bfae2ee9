"""Command messages: runs what a packet asks for (ENABLE_CMD_EXEC), without a shell, as the user that the stanza names.

A command gets nothing of ours but the daemon's standard output: no descriptor, no environment, no path, no key. The
daemon goes on while it runs. See docs/fwknopd.md 7.1.
"""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
import sys

from tinyknop import log
from tinyknop.child import ended
from tinyknop.compat import monotonic
from tinyknop.errors import ConfigError, Rejected
from tinyknop.host.privileges import NothingPassedOn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tinyknop.settings import Settings
    from tinyknop.stanza import Stanza

MOST_WORDS = 28  # sudo's included (fwknopd 2.6.10)
MOST_COMMANDS = 32  # at once: a process each, and their output goes nowhere that fills up
NOT_CONVERTED = -6  # what fwknopd 2.6.10 reports for too many words
NOT_STARTED = 255  # the exit status that it reports where the program cannot be started
FOREVER = 1 << 31  # seconds
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check(stanza: Stanza, settings: Settings) -> None:
    """Raises ConfigError where the stanza's commands are to run as a user or group that this system does not have."""
    for keyword, name, known in (
        ("CMD_EXEC_USER", stanza.exec_user, pwd.getpwnam),
        ("CMD_EXEC_GROUP", stanza.exec_group, group_id),
        ("CMD_SUDO_EXEC_USER", stanza.sudo_user, pwd.getpwnam),
        ("CMD_SUDO_EXEC_GROUP", stanza.sudo_group, group_id),
    ):
        try:
            if name is not None:
                known(name)
        except (KeyError, ValueError):  # ValueError: a NUL inside
            kind = keyword.rpartition("_")[2].lower()
            reason = "%s: there is no %s %r on this system: add it, or name one that `getent %s` lists"
            database = "passwd" if kind == "user" else "group"
            raise ConfigError(stanza.where, reason % (keyword, kind, name, database)) from None


def group_id(name: str) -> int:
    """Returns the number of a group, or of the group of a user called so, as fwknopd takes it; raises KeyError."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return pwd.getpwnam(name).pw_gid


class Executor:
    """Runs command messages; at most MOST_COMMANDS at once."""

    def __init__(self, settings: Settings) -> None:
        self.running = 0
        self.take(settings)

    def take(self, settings: Settings) -> None:
        """Goes by new settings from now on."""
        self.sudo_exe = settings.sudo_exe
        self.timeout = settings.cmd_exec_timeout or FOREVER

    async def run(self, text: str, stanza: Stanza) -> int:
        """Runs a command to its end and returns its exit status; raises Rejected where too many are running.

        What goes wrong from then on is logged. The status is 124 for a command that CMD_EXEC_TIMEOUT ended, 255 for one
        that could not be started.
        """
        if self.running >= MOST_COMMANDS:
            raise Rejected("full", "%d commands are running; one more would have to wait" % self.running)
        self.running += 1
        try:
            return await self._ran(text, stanza)
        finally:
            self.running -= 1

    async def _ran(self, text: str, stanza: Stanza) -> int:
        say = "(stanza %s) " % stanza.name
        log.info("%sProcessing SPA Command message: command='%s'.", say, shown(text))
        result, status, deadline = 0, NOT_STARTED, monotonic() + int(self.timeout * 1000)
        try:
            pid = self.started(text, stanza, say)
            if pid is None:
                result, status = NOT_CONVERTED, 0
            else:
                status = await ended(pid, self.timeout)
        except (OSError, ValueError, KeyError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            log.warning("%scommand '%s' cannot be started: %s", say, shown(text), reason)
        if monotonic() >= deadline:
            log.warning(
                "%scommand '%s' took longer than CMD_EXEC_TIMEOUT, %d s: killed", say, shown(text), self.timeout
            )
        log.info("%sCMD_EXEC: command returned %d, pid_status: %d", say, result, status)
        return status

    def started(self, text: str, stanza: Stanza, say: str) -> int | None:
        """Starts a command as the leader of a session of its own; returns its process id, None for too many words.

        Raises OSError, ValueError (a NUL) or KeyError (the user is gone).
        """
        words = text.encode().split()
        prefix = self.sudo(stanza, words) if stanza.sudo else []
        entry = pwd.getpwnam(stanza.exec_user) if stanza.exec_user else pwd.getpwuid(os.geteuid())
        gid = group_id(stanza.exec_group) if stanza.exec_group else entry.pw_gid
        suffix = ""
        other: dict[str, Any] = {}
        if (stanza.exec_user or stanza.exec_group) and (entry.pw_uid, gid) != (os.geteuid(), os.getegid()):
            other = {"user": entry.pw_uid, "group": gid, "extra_groups": []}
            names = (entry.pw_name, stanza.exec_group or entry.pw_name, entry.pw_uid, gid)
            suffix = " setuid/setgid user/group to %s/%s (UID=%d,GID=%d)" % names
        log.info("%sRunning command '%s'%s", say, " ".join([*prefix, shown(text)]), suffix)
        if not words or len(prefix) + len(words) > MOST_WORDS:
            log.warning(
                "%sError converting cmd str to argv via strtoargv(): a command has 1 to %d words, sudo's included",
                say,
                MOST_WORDS,
            )
            return None
        output = subprocess.DEVNULL if sys.__stdout__ is None else 1
        with NothingPassedOn():
            process = subprocess.Popen(
                [*map(os.fsencode, prefix), *words],
                cwd="/",
                env=environment(entry),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=0o022,  # not the daemon's: 077 would hide what a command makes, fwknopd's 0 lets all write to it
                **other,
            )
        process.returncode = 0  # not for Popen to wait for: `ended` does
        return process.pid

    def sudo(self, stanza: Stanza, command: list[bytes]) -> list[str]:
        """Returns the words that go before a command's; fwknopd leaves "root" out, of users and of groups."""
        words = [self.sudo_exe]
        if stanza.sudo_user not in (None, "root"):
            words += ["-u", stanza.sudo_user]
        if stanza.sudo_group not in (None, "root"):
            words += ["-g", stanza.sudo_group]
        if command and (command[0].startswith(b"-") or b"=" in command[0]):
            words.append("--")  # or sudo would take `-g root` for its own option, as it does from fwknopd 2.6.10
        return words


def environment(entry: pwd.struct_passwd) -> dict[str, str]:
    """Returns the environment of a command that runs as a user of the password database."""
    return {
        "PATH": PATH,
        "HOME": entry.pw_dir,
        "USER": entry.pw_name,
        "LOGNAME": entry.pw_name,
        "SHELL": entry.pw_shell or "/bin/sh",
        "LC_ALL": "C",
    }


def shown(text: str) -> str:
    """Returns a packet's text as it may be logged: one line, control characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
