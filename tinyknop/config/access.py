"""access.conf: its lines as entries, one list for each stanza. Syntax only; `stanza.py` knows what they mean."""

import os

from ..errors import ConfigError
from .fwknopd import LARGEST, contents, lines

DEEPEST = 3  # files: the main one and two levels of %include (fwknopd 2.6.10)
MOST_FILES = 10000  # a file that includes itself often would else be read for ever
KEY_NAMES = (
    "KEY KEY_BASE64 HMAC_KEY HMAC_KEY_BASE64 GPG_DECRYPT_ID GPG_DECRYPT_PW GPG_ALLOW_NO_PW GPG_REQUIRE_SIG "
    "GPG_DISABLE_SIG GPG_IGNORE_SIG_VERIFY_ERROR GPG_REMOTE_ID GPG_FINGERPRINT_ID"
).split()


class Reader:
    """Reads an access.conf and what it includes; `stanzas` are the lists of entries in fwknopd's order."""

    def __init__(self, warn=None):
        self.warn = warn
        self.stanzas = []
        self._files = 0
        self._bytes = 0

    def file(self, path, depth=1):
        """Reads one file."""
        if depth > DEEPEST:
            raise ConfigError(path, "[*] Refusing to go deeper than 3 levels. Lost in Limbo: '%s'" % path)
        stanza = None
        for name, value, where in self._lines(path, True):
            if value is None:
                number = where[len(path) + 1 :]
                reason = "[*] Invalid access file entry in %s at line %s.: give %s a value"
                raise ConfigError(where, reason % (path, number, name[:40]))
            if name == "%include":
                self.file(value, depth + 1)
            elif name == "%include_folder":
                self.folder(value, where, depth + 1)
            elif name == "SOURCE":
                stanza = [(name, value, where)]
                self.stanzas.append(stanza)
            elif stanza is None:
                self._refuse(where, "%s stands before the first SOURCE, for nothing: move it below" % name[:40])
            elif name == "%include_keys":
                stanza += self.keys(value)
            else:
                stanza.append((name, value, where))

    def folder(self, path, where, depth=1):
        """Reads every *.conf of a folder, in the order of their names (fwknopd: in any order, and x.conf~ too)."""
        try:
            names = sorted([name for name in os.listdir(path) if name.endswith(".conf")])
        except (OSError, ValueError):
            raise ConfigError(where, "%s: cannot be listed: name a folder of access files" % path[:80])
        for name in names:
            self.file(path.rstrip("/") + "/" + name, depth)

    def keys(self, path, modes=False):
        """Returns the key material in a file; other names are said and passed over."""
        found = []
        for name, value, where in self._lines(path, modes):
            if name not in KEY_NAMES:
                self._refuse(where, "Ignoring invalid entry: '%s': a key file holds only keys" % name[:40])
            elif value is None:
                raise ConfigError(where, "%s has no value" % name)
            else:
                found.append((name, value, where))
        return found

    def _lines(self, path, modes):
        self._files += 1
        data = contents(path, self.warn, modes)
        self._bytes += len(data)
        if self._files > MOST_FILES or self._bytes > LARGEST:
            raise ConfigError(path, "more than %d files or 16 MB are included: not a configuration" % MOST_FILES)
        for name, value, where in lines(path, data):
            colon = name.rfind(":")  # `KEY_BASE64: ...`, as --key-gen prints it
            yield (name[:colon] if colon >= 0 else name), value, where

    def _refuse(self, where, reason):
        if self.warn is None:
            raise ConfigError(where, reason)
        self.warn("%s: %s" % (where, reason))
