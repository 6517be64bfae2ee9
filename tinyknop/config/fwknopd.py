"""fwknopd.conf: its lines as (name, text, "FILE:LINE") entries. Syntax only; `settings.py` knows what they mean."""

import os

from .. import compat, log
from ..errors import ConfigError

LONGEST_LINE = 1023  # characters; fwknopd reads longer lines in pieces, which nobody can mean
LARGEST = 16 << 20  # bytes of all files together; ten thousand stanzas are 3 MB
_BLANKS = " \t\r\x0b\x0c"
_NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_%:"
_PASSPHRASES = ("KEY", "HMAC_KEY", "GPG_DECRYPT_PW")
_UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"


def contents(path, warn=None, modes=True):
    """Returns a file's bytes; raises ConfigError. Says, as fwknopd does, where others may read or own it."""
    say = warn or log.warning
    try:
        status = os.stat(path)
        if status[0] & 0o170000 != 0o100000:
            raise ConfigError(path, "[-] file: %s is not a regular file or symbolic link." % path)
        data = compat.read_bytes(path)
    except OSError as error:
        remedy = "chown it to the daemon's user" if error.args[0] == 13 else "check the path"
        raise ConfigError(path, "[*] Could not open config file: %s (error %s): %s" % (path, error.args[0], remedy))
    except ValueError:  # a NUL in the name
        raise ConfigError(path[:80], "is not the name of a file")
    if data is None or len(data) > LARGEST:
        raise ConfigError(path, "is gone, or larger than 16 MB: not a configuration")
    if modes and status[0] & 0o177:
        say("[-] file: %s permissions should only be user read/write (0600, -rw-------): chmod 600 it" % path)
    if modes and hasattr(os, "geteuid") and status[4] != os.geteuid():
        say("[-] file: %s not owned by current effective user id: chown it" % path)
    return data


def lines(path, data):
    """Yields (name, value, "FILE:LINE") of every line that is no comment; the value is None where there is none."""
    for number, line in enumerate(data.split(b"\n")):
        if not line or line[0] in b"#;\r\n\0" or not line.strip():
            continue
        where = "%s:%d" % (path, number + 1)
        if len(line) > LONGEST_LINE:
            raise ConfigError(where, "longer than %d characters: shorten the line" % LONGEST_LINE)
        if b"\0" in line:
            raise ConfigError(where, "holds a NUL byte: take it out")
        try:
            words = line.decode().lstrip(_BLANKS)
        except UnicodeError:
            raise ConfigError(where, "not UTF-8: save the file as UTF-8 text (a key of other bytes: in base64)")
        # A tab separates as well, but one inside a passphrase is part of it.
        name = words.replace("\t", " ").partition(" ")[0].rstrip(_BLANKS)
        value = words[len(name) :].partition(";")[0].partition("\r")[0].lstrip(_BLANKS)
        bare = value.rstrip(_BLANKS)  # blanks at the end of a passphrase are part of it, too
        yield _bare(name), (value if bare and name.rstrip(":") in _PASSPHRASES else bare) or None, where


def _bare(name):
    """Returns a name up to the first character that is in none: behind it may stand a key, and names are shown."""
    end = 0
    while end < len(name) and name[end] in _NAME:
        end += 1
    return name[: end + 1]


def entries(path, warn=None, known=None):
    """Returns the entries of a fwknopd.conf; `known` holds the values of files read before this one."""
    found = []
    known = {} if known is None else known
    for name, value, where in lines(path, contents(path, warn)):
        if value is None:
            number = where[len(path) + 1 :]
            _refuse(
                warn, where, "*Invalid config file entry in %s at line %s.: give %s a value" % (path, number, name[:40])
            )
            continue
        if value.startswith("$"):
            whole = _substituted(value, known)
            if whole is None:
                reason = "[*] Invalid embedded variable in: '%s': set it on a line above, or write it out"
                _refuse(warn, where, reason % value[:80])
                continue
            value = whole
        if len(value) > LONGEST_LINE:
            raise ConfigError(where, "longer than %d characters: shorten the value" % LONGEST_LINE)
        known[name] = value
        found.append((name, value, where))
    return found


def _substituted(value, known):
    """Returns `$NAME<rest>` with NAME's value put in, or None; <rest> ends at the first blank (fwknopd 2.6.10)."""
    end = 1
    while end < len(value) and value[end] in _UPPER:
        end += 1
    if end == 1 and len(value) > 1:
        return value  # no name begins here
    if value[1:end] not in known:
        return None
    rest = value[end:].split()
    return known[value[1:end]] + (rest[0] if rest and value[end] not in " \t" else "")


def _refuse(warn, where, reason):
    if warn is None:
        raise ConfigError(where, reason)
    warn("%s: %s" % (where, reason))
