"""What a run of fwknop's client is asked for: rc file, stanza and command line, one laid over the other."""

from __future__ import annotations

import binascii
import getopt
import os

from tinyknop import log
from tinyknop.host import rcfile
from tinyknop.host.fwoptions import (
    DEFAULTS,
    EARLY,
    OPTIONS,
    REPLACES,
    SECRET_OPTIONS,
    SECRETS,
    TURN_ON,
    VARIABLES,
    Doubt,
    Refused,
    Usage,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tinyknop.host.fwoptions import Option
    from tinyknop.host.rcfile import Row

_SHORT: dict[str, Option] = {row[0]: row for row in OPTIONS if row[0]}
_LONG: dict[str, Option] = {row[1]: row for row in OPTIONS}
# What getopt says, what the C library says; the option's name goes in.
_COMPLAINTS = (
    ("not recognized", "unrecognized option '--%s'", "invalid option -- '%s'"),
    ("requires argument", "option '--%s' requires an argument", "option requires an argument -- '%s'"),
    ("not a unique prefix", "option '--%s' is ambiguous", ""),
    ("must not have an argument", "option '--%s' doesn't allow an argument", ""),
)
# What to write in the place of a value that is cut: of any, of a secret.
REMEDY = ("put a # before a comment", "write a key that has one of these in base64")


class Request:
    """Values by name, those of later layers over those of earlier ones; None where nobody says anything."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.told: set[str] = set()  # names that the command line says

    def __getitem__(self, name: str) -> Any:
        return self.values.get(name, DEFAULTS.get(name))

    def add(self, layer: dict[str, Any], turn_on: dict[str, str] = TURN_ON) -> None:
        """Lays {name: value} over what is there; another spelling of the same key gives way to it."""
        for name in layer:
            for other in REPLACES.get(name, ()):
                if other not in layer:
                    self.values.pop(other, None)
        self.values.update(layer)
        for name, switch in turn_on.items():
            if name in layer:
                self.values[switch] = True

    @property
    def resolves(self) -> bool:
        """Tells whether our address is to be asked for: -a and ALLOW_IP come before -R, as in the reference."""
        if self["ALLOW_IP"] is not None:
            return bool(self["ALLOW_IP"] == "resolve")
        return bool(self["RESOLVE_IP_HTTPS"] or self["RESOLVE_IP_HTTP"] or self["asks"])


def _found(words: list[str]) -> list[tuple[str, str]]:
    """Returns [(long option, argument)] of the command line, in order; raises Usage."""
    short = "".join(row[0] + ":" * bool(row[2]) for row in OPTIONS if row[0])
    try:
        found, rest = getopt.gnu_getopt(words, short, [row[1] + "=" * bool(row[2]) for row in OPTIONS])
    except getopt.GetoptError as error:
        for ending, long, one in _COMPLAINTS:
            if ending in error.msg:
                text = (long if error.msg.startswith("option --") else one) % error.opt
                if "ambiguous" in text:
                    meant = [" '--%s'" % name for name in _LONG if name.startswith(error.opt)]
                    text += "; possibilities:" + "".join(meant)
                raise Usage("fwknop: " + text) from None
        raise Usage("fwknop: " + error.msg) from None
    if rest:
        log.warning("[-] not an option, so not used: %s", " ".join(rest))
    return [(_SHORT[name[1:]][1] if name[1] != "-" else name[2:], value) for name, value in found]


def parse(words: list[str]) -> dict[str, Any]:
    """Returns {name: value} of the command line; raises Usage, or Refused in fwknop's words."""
    layer: dict[str, Any] = {}
    found = _found(words)
    if {"help", "stanza-list"} & {option for option, _ in found}:
        found = [pair for pair in found if pair[0] in EARLY]
    for option, text in found:
        _, _, argument, name, reader, _ = _LONG[option]
        if option == "verbose":
            layer["VERBOSE"] = layer.get("VERBOSE", 0) + 1
            continue
        try:
            layer[name] = reader(text) if argument else reader
        except Doubt as doubt:
            log.warning("[-] --%s: %s", option, doubt.text)
            layer[name] = doubt.value
        except ValueError as error:
            raise Refused(str(error)) from None
        if option == "resolve-http-only":
            layer["RESOLVE_IP_HTTPS"] = True
        elif option == "resolve-url":
            layer["asks"] = True  # means -R in this run, but is not stored as such
        elif option in ("hmac-digest-type", "hmac-key-len"):
            layer["USE_HMAC"] = True
        elif option == "http-proxy":
            layer["SPA_SERVER_PROTO"] = "http"
        elif option == "key-gen-file":
            layer["key-gen"] = True
    times = [layer.pop(name) for name in ("minus", "plus") if name in layer]
    if times:  # a minus beats a plus, as in the reference
        layer["TIME_OFFSET"] = times[0]
    return layer


def without_keys(words: list[str]) -> list[str]:
    """Returns the words without keys: what is stored must ask for them anew. An HMAC stays asked for."""
    kept: list[str] = []
    skip = False  # the next word belongs to an option
    for place, word in enumerate(words):
        if skip:
            skip = False
            continue
        if word == "--":
            return kept + words[place:]
        name, equals, _ = word[2:].partition("=")
        known = _LONG.get(name) or ([_LONG[long] for long in _LONG if long.startswith(name)] + [None])[0]
        if word[:2] == "--" and known is not None:
            row, skip = known, bool(known[2]) and not equals
        else:
            row, skip = None, _takes_next(word)
        if row is not None and row[1] in SECRET_OPTIONS:
            kept += ["--use-hmac"] if "hmac" in row[1] else []
        else:
            kept += words[place : place + 1 + skip]
    return kept


def _takes_next(word: str) -> bool:
    """Tells whether a word of short options, such as -vA, has its argument in the next word."""
    if word[:1] != "-" or word[:2] == "--":
        return False
    for place, letter in enumerate(word[1:], 2):
        if letter in _SHORT and _SHORT[letter][2]:
            return place == len(word)
    return False


def layer_of(rows: list[Row], path: str) -> dict[str, Any]:
    """Returns {name: value} of a stanza's rows; raises Refused with file, line and remedy."""
    layer: dict[str, Any] = {}
    for row in rows:
        reader = VARIABLES.get(row.name)
        if reader and rcfile.lost(row):
            said = "[-] %s:%d: %s: the value ends at the first blank, tab, ; or #, and the rest is not read: %s"
            log.warning(said, path, row.line, row.name, REMEDY[row.name in SECRETS])
        problem = "no such variable: see the list in docs/fwknop-client.md" if reader is None else ""
        try:
            value = reader(row.value) if reader else None
        except Doubt as doubt:
            log.warning("[-] %s:%d: %s: %s", path, row.line, row.name, doubt.text)
            value = doubt.value
        except ValueError as error:
            value, problem = None, str(error)
        if row.name == "FW_TIMEOUT" and value is not None and value > 65536:
            problem = "write at most 65536, the most that a server takes"
        if problem:
            shown = "(not shown)" if row.name in SECRETS or row.name not in VARIABLES else row.value
            place = (path, row.line, row.name, shown, problem)
            raise Refused("Parameter error in %s, line %d: var=%s, val=%s (%s)" % place)
        if value is not None:
            layer[row.name] = value
    return layer


def from_file(request: Request, path: str, name: str | None) -> None:
    """Lays the [default] stanza of an rc file over the request, then the one called `name` (None: no other)."""
    stanzas = rcfile.read(path)
    # In the file a GPG variable alone does not turn GPG on, a key does turn the HMAC on: as in the reference.
    turn_on = {key: switch for key, switch in TURN_ON.items() if switch == "USE_HMAC"}
    for wanted in ("default", name):
        rows = rcfile.find(stanzas, wanted)
        if rows is None and wanted == name and name:
            raise Refused("Named configuration stanza: [%s] was not found." % name)
        if rows:
            request.add(layer_of(rcfile.checked(rows, path), path), turn_on)


def text_of(name: str, value: Any) -> str:
    """Returns a value as --save-rc-stanza writes it."""
    from tinyknop.host.fwoptions import MODES

    if name == "VERBOSE":
        return "Y" if value == 1 else str(value)
    if value is True:
        return "Y"
    if name in ("DIGEST_TYPE", "HMAC_DIGEST_TYPE"):
        return str(value).upper()
    return MODES[value] if name == "ENCRYPTION_MODE" else str(value)


def stored(name: str, text: str) -> tuple[str, str] | None:
    """Returns (variable, text) that is read back as it is, a key with blanks, ; or # in base64; None where none is."""
    row = rcfile.row_of("%s %s" % (name, text), 0)
    if row is not None and row.value == text:
        return name, text
    if name in ("KEY", "HMAC_KEY") and text:
        return rcfile.TWINS[name], binascii.b2a_base64(os.fsencode(text), newline=False).decode()
    log.warning("[-] %s is not stored: a value in an rc file has no blank, tab, ; or #, and is not empty", name)
    return None
