"""`tinyknop serve`: the daemon in the foreground. TERM and INT end it, HUP reads the configuration anew.

Its start is timed (0.1 s to the first knock), so it reads its few words itself and imports nothing it doesn't need.
"""

import fcntl
import os
import stat

from tinyknop import config, log
from tinyknop.errors import ConfigError, PortError

from .run import run

CONFIG = "/etc/tinyknop/tinyknop.toml"
USAGE = (
    """usage: tinyknop serve [-c FILE]

Listens for knocks and drives the ports, in the foreground, until TERM or INT; HUP reads the configuration anew.
  -c FILE, --config FILE  the configuration (%s); fwknopd.conf and JSON are understood too
  -v, --verbose           log what is looked at, too"""
    % CONFIG
)


def words_of(words):
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


def state(path):
    """Makes the state directory where it is missing; refuses one that others can look into."""
    try:
        os.makedirs(path, 0o700, exist_ok=True)
        mode = os.stat(path).st_mode
    except OSError as error:
        reason = "cannot make the state directory (%s): make it, mode 0700, for the daemon's user" % error.strerror
        raise ConfigError(path, reason) from None
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(path, "others can look into the state directory: chmod 700 %s" % path)


def lock(path):
    """Returns a locked file that holds our process id; raises ConfigError while another daemon holds it."""
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "r+")
    except OSError as error:
        raise ConfigError(path, "cannot write it (%s): run it as the owner of its directory" % error.strerror) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        who = file.read(20).strip()
        file.close()
        raise ConfigError(path, "another daemon (process %s) uses this state directory: stop it first" % who) from None
    file.truncate(0)
    file.write("%d\n" % os.getpid())
    file.flush()
    return file


def load(path):
    """Returns (settings, stanzas); raises ConfigError, also where nobody could ever be let in."""
    settings, stanzas = config.load(path)
    if not stanzas:
        raise ConfigError(path, "no stanza: nobody may open anything; add a [[stanza]]")
    return settings, stanzas


def main(words):
    """Runs the daemon until a signal ends it."""
    path = words_of(words)
    if path is None:
        print(USAGE)
        return 0
    settings, stanzas = load(path)
    state(settings.state_dir)
    held = lock(os.path.join(settings.state_dir, "tinyknop.lock"))
    try:
        return run(settings, stanzas, lambda: load(path))
    except OSError as error:
        raise PortError("start", "%s: is something missing, or a permission?" % error) from None
    finally:
        held.close()
