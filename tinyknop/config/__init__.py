"""One model from four formats: `load` picks the reader by a file's name and, for fwknop's two, by what is in it."""

import os
import time

from .. import ready
from ..errors import ConfigError
from ..settings import RUN_DIR, Settings
from ..stanza import Stanza, days
from . import fwknopd


def load(path, warn=None):
    """Returns (Settings, [Stanza, ...]) of a file in any format.

    Of fwknop's own files it takes what fwknopd would only warn of where there is a `warn`, which is told.
    """
    if path.endswith(".toml"):
        # By name: the core imports nothing of host/, which MicroPython does not get.
        try:
            toml = __import__("tinyknop.host.toml", None, None, ("load",))
        except ImportError:
            raise ConfigError(path, "TOML is read on CPython only: make JSON of it with `tinyknop compile`")
        settings, stanzas = toml.load(path)
    elif path.endswith(".json"):
        made = ready.load(path)
        if made is not None:
            return made
        from . import compiled  # each format's reader only where it is wanted: a board has 200 KB

        settings, stanzas = compiled.load(path)
    else:
        found = None if is_access(path) else fwknopd.entries(path, warn)
        return fwknop(found or [], path, path if found is None else None, warn)
    if not settings.captures:
        raise ConfigError(path, 'nothing listens: add a [[capture]] with kind = "packet"')
    return finish(settings, stanzas, path)


def is_access(path):
    """Tells whether a file of fwknop's is an access.conf: it has a stanza, or else that name."""
    names = [name.partition(":")[0] for name, _, _ in fwknopd.lines(path, fwknopd.contents(path, modes=False))]
    return "SOURCE" in names or ("access" in path[path.rfind("/") + 1 :] and "ACCESS_FILE" not in names)


def fwknop(entries, path, access_file=None, warn=None):
    """Returns (Settings, [Stanza, ...]) of fwknopd.conf's entries and of the access files that they name."""
    from . import access

    settings = fwknop_settings(entries, path, warn)
    reader = access.Reader(warn)
    where = path
    if access_file is None and settings.access_folder:
        reader.folder(settings.access_folder, settings.places["access_folder"])
        where = settings.access_folder
    else:
        where = access_file or settings.access_file
        reader.file(where)
    stanzas = [Stanza(found, found[0][2], warn) for found in reader.stanzas]
    return finish(settings, stanzas, where)


def fwknop_settings(entries, path, warn=None):
    """Returns the Settings of fwknopd.conf's entries alone."""
    from . import outfit

    return outfit.outfit(Settings([("FWKNOP_RUN_DIR", RUN_DIR, path)] + entries, warn, False), path)


def finish(settings, stanzas, where):
    """Numbers and completes stanzas; raises ConfigError where they and the settings do not go together."""
    if not stanzas:
        raise ConfigError(where, "[*] Could not find valid SOURCE stanza in access file: '%s': add one" % where)
    for number, stanza in enumerate(stanzas):
        stanza.number = number + 1
        stanza.complete(keys_from, local)
        if stanza.name is None:
            stanza.name = "#%d" % stanza.number
    settings.fits(stanzas)
    for stanza in stanzas:
        ready.able(stanza, settings)
    return settings, stanzas


def keys_from(path, where=None, warn=None):
    """Returns the entries of a key file; one that others can read is refused, or warned of where fwknop would."""
    try:
        mode = os.stat(path)[0]
    except (OSError, ValueError) as error:
        if error.args[0] == 13:  # EACCES
            raise ConfigError(where or path, "key_file: no right to read %s: be its owner, or root" % path)
        raise ConfigError(where or path, "key_file: %s is not there: make it with `tinyknop keygen -o FILE`" % path)
    if warn is None and mode & 0o077:
        raise ConfigError(where or path, "key_file: others can read %s: chmod 600 it" % path)
    from . import access

    return access.Reader(warn).keys(path, warn is not None)


def local(midnight):
    """Returns the epoch of a local midnight, given as that of the same date in UTC.

    By `localtime` alone: MicroPython's `mktime` knows no time zone. The second look is for a change of clocks between.
    """
    epoch = 946684800 if time.gmtime(0)[0] == 2000 else 0  # some boards count from 2000
    moment = midnight
    for _ in range(2):
        shown = time.localtime(moment - epoch)
        seconds = days(shown[0], shown[1], shown[2]) * 86400 + shown[3] * 3600 + shown[4] * 60 + shown[5]
        moment += midnight - seconds
    return moment
