"""`tinyknop serve`: the daemon in the foreground. TERM and INT end it, HUP reads the configuration anew.

Its start is timed (0.1 s to the first knock), so it reads its few words itself and imports nothing it doesn't need.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat

from tinyknop import config, log
from tinyknop.errors import ConfigError, PortError

from . import pidfile
from .privileges import become, check, pass_on
from .run import early, run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from tinyknop.says import Says
    from tinyknop.settings import Settings
    from tinyknop.stanza import Stanza

CONFIG = "/etc/tinyknop/tinyknop.toml"
SECRETS = ("KEY", "KEY_BASE64", "HMAC_KEY", "HMAC_KEY_BASE64", "GPG_DECRYPT_PW")
USAGE = (
    """usage: tinyknop serve [-c FILE]

Listens for knocks and drives the ports, in the foreground, until TERM or INT; HUP reads the configuration anew.
  -c FILE, --config FILE  the configuration (%s); fwknopd.conf and JSON are understood too
  -v, --verbose           log what is looked at, too"""
    % CONFIG
)


def words_of(words: list[str]) -> str | None:
    """Returns the configuration's path, or None where only help was wanted; raises ConfigError."""
    path = CONFIG
    words = list(words)
    while words:
        word = words.pop(0)
        if word in ("-h", "--help"):
            return None
        if word in ("-v", "--verbose"):
            log.threshold = 0
        elif word in ("-c", "--config") and words:
            path = words.pop(0)
        elif word.startswith("--config="):
            path = word[len("--config=") :]
        else:
            raise ConfigError("serve", "%s: not understood here: write `tinyknop serve -c FILE`" % word)
    return path


def state(path: str, user: str | None = None) -> None:
    """Makes the state directory where it is missing; refuses one that others can look into, or have made.

    `user` is the name of who we will be.
    """
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        fit(path, user)
    except OSError as error:
        reason = "cannot make the state directory (%s): make it, mode 0700, for the daemon's user" % error.strerror
        raise ConfigError(path, reason) from None


def fit(path: str, user: str | None = None) -> None:
    """Raises ConfigError for a state directory that others can look into, or that is somebody else's, or OSError."""
    owned(path, user)
    mode = os.stat(path).st_mode
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(path, "others can look into the state directory: chmod 700 %s" % path)


def owned(path: str, user: str | None = None) -> None:
    """Raises ConfigError for a directory that is neither ours nor that of `user`, or OSError.

    Somebody else's, made in /tmp before us, could bring a journal with grants, or links to what we then write over.
    """
    ours = (os.geteuid(), number_of(user))
    for one in (os.stat(path).st_uid, os.lstat(path).st_uid or ours[0]):  # root's link may lead to what is the user's
        if one not in ours:
            reason = "the state directory is somebody else's (user number %d): name another by state_dir, or chown it"
            raise ConfigError(path, reason % one)


def number_of(user: str | None) -> int | None:
    """Returns a user's number, or None where there is none."""
    try:
        return pwd.getpwnam(user).pw_uid if user else None
    except KeyError:  # `become` says so
        return None


def lock(path: str) -> TextIO:
    """Returns a locked file that holds our process id; raises ConfigError while another daemon holds it."""
    try:
        file, _ = pidfile.opened(path)
    except OSError as error:
        raise ConfigError(path, "cannot write it (%s): run it as the owner of its directory" % error.strerror) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        who = file.read(20).strip()
        file.close()
        raise ConfigError(path, "another daemon (process %s) uses this state directory: stop it first" % who) from None
    pidfile.sign(file, path)
    return file


def load(path: str) -> tuple[Settings, list[Stanza]]:
    """Returns (settings, stanzas); raises ConfigError, also where nobody could ever be let in."""
    settings, stanzas = config.load(path)
    if not stanzas:
        raise ConfigError(path, "no stanza: nobody may open anything; add a [[stanza]]")
    shut(path, stanzas)
    return settings, stanzas


def shut(path: str, stanzas: list[Stanza]) -> None:
    """Raises ConfigError where a key stands in a tinyknop.toml that others can read; a key file is looked at before."""
    if not path.endswith(".toml") or not os.stat(path).st_mode & 0o077:
        return
    for stanza in stanzas:
        for name, _, where in stanza.entries():
            if name in SECRETS and where.startswith(path + ":"):
                reason = "%s: others can read the file: chmod 600 %s, or use key_file" % (name.lower(), path)
                raise ConfigError(where, reason)


def spoken(settings: Settings) -> Says | None:
    """Sends the log where the settings want it; returns what has other words for it than the daemon's own, or None."""
    if settings.log == "text" and settings.log_to == "stderr":
        return None
    from tinyknop.host import events  # a plain start does without

    return events.use(settings)


def unprivileged(settings: Settings, stanzas: list[Stanza], path: str) -> tuple[Settings, list[Stanza]]:
    """Becomes the user of the settings, and reads the configuration again: what a reload could not read shows now."""
    become(settings, stanzas)
    try:
        return load(path)
    except ConfigError as error:
        reason = "%s (as user %s, which has to own it, for a reload)" % (error.reason, settings.user)
        raise ConfigError(error.stage, reason) from None


def reload(path: str) -> tuple[Settings, list[Stanza]]:
    """Returns (settings, stanzas) anew; raises ConfigError, also where we have given up a capability that they need."""
    settings, stanzas = load(path)
    check(settings, stanzas)
    pass_on(settings)
    return settings, stanzas


def main(words: list[str]) -> int:
    """Runs the daemon until a signal ends it."""
    path = words_of(words)
    if path is None:
        print(USAGE)
        return 0
    early()
    settings, stanzas = load(path)
    state(settings.state_dir, settings.user)
    if settings.user:
        settings, stanzas = unprivileged(settings, stanzas, path)
    check(settings, stanzas)
    held = lock(os.path.join(settings.state_dir, "tinyknop.lock"))
    try:
        return run(settings, stanzas, lambda: reload(path), words=spoken(settings))
    except OSError as error:
        raise PortError("start", "%s: is something missing, or a permission?" % error) from None
    finally:
        held.close()
