"""JSON written by hand, for where there is no TOML; what `tinyknop compile` makes is read by `tinyknop.ready`.

{"daemon": {"state_dir": "/s"}, "capture": [{"kind": "udp"}], "port": {name: {...}}, "carrier": {name: {...}},
"stanza": [{"name": "alice", "openings": ["tcp/22"], "timeout": 30}, ...]}
Entries of the daemon and of a stanza may be a list as well: [[name, text, "FILE:LINE"], ...].
"""

from ..errors import ConfigError
from ..settings import Settings
from ..stanza import Stanza
from .fwknopd import contents

TABLES = ("daemon", "capture", "port", "carrier", "stanza", "target", "watch")


def load(path):
    """Returns (Settings, [Stanza, ...]) of a JSON file; raises ConfigError and nothing else."""
    import json

    try:
        whole = json.loads(contents(path).decode())
    except (ValueError, RuntimeError):  # RuntimeError: nested too deeply
        raise ConfigError(path, "is not JSON: make it with `tinyknop compile`")
    if not isinstance(whole, dict):
        raise ConfigError(path, "is no object with %s" % ", ".join(TABLES))
    for name in whole:
        if name not in TABLES:
            raise ConfigError(path, "%s: no such table; there are %s" % (name[:40], ", ".join(TABLES)))
    settings = Settings(_entries(whole.get("daemon", []), path + ":daemon"))
    settings.captures = [_options(one, path + ":capture") for one in _list(whole, "capture", path)]
    settings.ports = _named(whole, "port", path)
    settings.carriers = _named(whole, "carrier", path)
    settings.watch = _options(whole["watch"], path + ":watch") if "watch" in whole else None
    stanzas = []
    for number, table in enumerate(_list(whole, "stanza", path)):
        where = "%s:stanza %d" % (path, number + 1)
        entries = _entries(table, where)
        stanzas.append(Stanza(entries, entries[0][2] if entries else where))
    return settings, stanzas


def as_text(value, where):
    """Returns a JSON value as fwknop's files would write it: a list "a,b", true "Y", a number its digits."""
    if isinstance(value, bool):
        return "Y" if value else "N"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return "%d" % value
    if isinstance(value, list) and not any([isinstance(item, (list, dict)) for item in value]):
        return ",".join([as_text(item, where) for item in value])
    raise ConfigError(where, "write a text, a whole number, true, false or a list of those")


def _entries(table, where):
    if isinstance(table, dict):
        return [(_plain(name, where), as_text(table[name], where), where) for name in sorted(table)]
    if not isinstance(table, list):
        raise ConfigError(where, "is no table")
    found = []
    for entry in table:
        if not isinstance(entry, list) or not 2 <= len(entry) <= 3 or not isinstance(entry[0], str):
            raise ConfigError(where, "an entry is [name, text] or [name, text, where]")
        place = entry[2] if len(entry) == 3 and isinstance(entry[2], str) and entry[2] else where
        found.append((_plain(entry[0], where), as_text(entry[1], place), _plain(place, where)))
    return found


def _plain(text, where):
    """Returns a name or place that fits into the line of a message."""
    if [c for c in text if c < " "]:
        raise ConfigError(where, "a name holds a line feed, or another control character")
    return text


def _options(table, where):
    if not isinstance(table, dict):
        raise ConfigError(where, "is no table of options")
    options = {name: as_text(table[name], where) for name in table}
    options["where"] = options.get("where", where)
    return options


def _list(whole, name, path):
    tables = whole.get(name, [])
    if not isinstance(tables, list):
        raise ConfigError(path, "%s is no list of tables" % name)
    return tables


def _named(whole, kind, path):
    tables = whole.get(kind, {})
    if not isinstance(tables, dict):
        raise ConfigError(path, "%s is no table of names" % kind)
    return {_plain(name, path): _options(tables[name], "%s:%s.%s" % (path, kind, name)) for name in tables}
