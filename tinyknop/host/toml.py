"""tinyknop.toml: its tables as (name, text, "FILE:LINE") entries; what they mean, stanza, settings and client know.

tomllib gives no line numbers, so a scanner of our own finds the line of each key in a text that tomllib took.
"""

from __future__ import annotations

import os
import re

from tinyknop.errors import ConfigError

try:
    import tomllib
except ImportError:  # below Python 3.11
    try:
        import tomli as tomllib  # type: ignore[no-redef]  # one of the two is there
    except ImportError:
        tomllib = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Union

    from tinyknop.settings import Settings
    from tinyknop.stanza import Stanza

    Path = tuple[Union[str, int], ...]  # numbers for arrays of tables

TABLES = ("daemon", "capture", "port", "carrier", "stanza", "target", "watch")
NATIVE = ("name", "openings", "timeout", "max_timeout", "key_file", "ports", "require_all", "require_hint", "cut")
DEEPEST = 8  # parts of a key that are told apart; we have four, and thousands would take quadratic time
LARGEST = 16 << 20  # bytes; ten thousand stanzas are 3 MB

_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"((?:[^"\\\n]|\\.)*)"')
_LITERAL = re.compile(r"'([^'\n]*)'")
# One step inside a value: a whole string or comment, a bracket, an end of line, or text without any of those.
# After a closing """ up to two more quotes belong to the string.
_VALUE = re.compile(
    r'(?s:"""(?:[^\\]|\\.)*?"{3,5})'
    r"|(?s:'''.*?'{3,5})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]"
    r"|[^\[\]{}\n\"'#]+"
)


class Scanner:
    """Walks through a TOML text once; `lines` maps each key's path, a tuple, to its line."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self.counted = 0  # up to here the ends of lines are in `line`
        self.lines: dict[Path, int] = {}
        self.arrays: dict[Path, int] = {}  # path of an array of tables -> how many so far

    def run(self) -> dict[Path, int]:
        """Fills `lines`; stops quietly at what it does not understand, since tomllib is the judge."""
        table: Path = ()
        while True:
            space = _SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at >= len(self.text):
                return self.lines
            line = self.now()
            opened = 2 if self.text.startswith("[[", self.at) else self.text.startswith("[", self.at)
            self.at += opened
            parts = self.key()
            if not parts:
                return self.lines
            if opened:
                table = self.header(parts, opened == 2)
                self.at += opened
                self.note(table, line)
            else:
                for depth in range(1, len(parts) + 1):
                    self.note(table + parts[:depth], line)
                self.value()

    def now(self) -> int:
        """Returns the line of the current position."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        return self.line

    def note(self, path: Path, line: int) -> None:
        """Keeps the first line of a path."""
        self.lines.setdefault(path, line)

    def key(self) -> tuple[str, ...]:
        """Reads a dotted key with the blanks around it and the `=` after it; returns its parts."""
        parts = []
        while True:
            self.blanks()
            part = self.part()
            if part is None:
                return ()
            parts.append(part)
            self.blanks()
            if not self.text.startswith(".", self.at):
                self.at += self.text.startswith("=", self.at)
                return tuple(parts[:DEEPEST])
            self.at += 1

    def blanks(self) -> None:
        """Skips blanks and tabs."""
        while self.text.startswith((" ", "\t"), self.at):
            self.at += 1

    def part(self) -> str | None:
        """Reads one part of a key, bare or quoted; returns it or None."""
        for pattern in (_BARE, _BASIC, _LITERAL):
            found = pattern.match(self.text, self.at)
            if found:
                self.at = found.end()
                if pattern is _BASIC and "\\" in found.group():
                    return next(iter(tomllib.loads(found.group() + " = 0")))
                return found.group(1) if pattern is not _BARE else found.group()
        return None

    def header(self, parts: tuple[str, ...], is_array: bool) -> Path:
        """Returns the path of a table, numbers put in for the arrays of tables on its way."""
        path: Path = ()
        for part in parts[:-1]:
            path += (part,)
            self.note(path, self.line)
            if path in self.arrays:
                path += (self.arrays[path] - 1,)
        path += parts[-1:]
        if is_array:
            self.note(path, self.line)
            self.arrays[path] = self.arrays.get(path, 0) + 1
            path += (self.arrays[path] - 1,)
        return path

    def value(self) -> None:
        """Skips a value: up to the end of the line on which its last bracket closes."""
        depth = 0
        while self.at < len(self.text):
            found = _VALUE.match(self.text, self.at)
            if not found:  # cannot be in a text that tomllib took; one character on, so it ends
                self.at += 1
                continue
            self.at = found.end()
            piece = found.group()
            if piece in "[{":
                depth += 1
            elif piece in "]}":
                depth -= 1
            elif piece == "\n" and depth <= 0:
                return


def lines_of(text: str) -> dict[Path, int]:
    """Returns {path: line} for every key of a TOML text; a path is a tuple, with numbers for arrays of tables."""
    return Scanner(text).run()


class Document:
    """One file: what tomllib read, and where each of it stands."""

    def __init__(self, path: str) -> None:
        self.path = path
        text = _read(path)
        if tomllib is None:
            raise ConfigError(path, "TOML needs Python 3.11, or `pip install tomli`; a JSON file needs neither")
        try:
            self.data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(*_placed(path, str(error))) from None
        except RecursionError:
            raise ConfigError(path, "brackets are nested too deeply for a configuration") from None
        except ValueError as error:  # an integer of thousands of digits
            raise ConfigError(path, "not valid TOML: %s" % error) from None
        self.lines = lines_of(text)
        for name in self.data:
            if name not in TABLES:
                reason = "%s: no such table%s; there are %s" % (name, meant(name, TABLES), ", ".join(TABLES))
                raise ConfigError(self.where(name), reason)

    def where(self, *path: str | int) -> str:
        """Returns "FILE:LINE" of a key, or of the innermost table around it that has a line."""
        while path and path not in self.lines:
            path = path[:-1]
        return "%s:%d" % (self.path, self.lines.get(path, 1))

    def entries(self, *path: str | int) -> list[tuple[str, str, str]]:
        """Returns the (name, text, where) of one table's keys."""
        table: Any = self.data
        for part in path:
            table = table[part]
        if not isinstance(table, dict):
            raise ConfigError(self.where(*path), "%s must be a table: [%s]" % (path[-1], ".".join(map(str, path))))
        return [(name, self.text(value, *path, name), self.where(*path, name)) for name, value in table.items()]

    def array(self, name: str) -> int:
        """Returns how many tables a [[name]] has; raises ConfigError where it is something else."""
        tables = self.data.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(item, dict) for item in tables):
            raise ConfigError(self.where(name), "%s must be written [[%s]], once for each" % (name, name))
        return len(tables)

    def named(self, name: str) -> list[str]:
        """Returns the names below [name.NAME]; raises ConfigError where there is something else."""
        tables = self.data.get(name, {})
        if not isinstance(tables, dict):
            raise ConfigError(self.where(name), "%s must be written [%s.NAME]" % (name, name))
        for key, value in tables.items():
            if not isinstance(value, dict):
                raise ConfigError(self.where(name, key), "%s stands alone: write [%s.NAME] above it" % (key, name))
        return list(tables)

    def options(self, *path: str | int) -> dict[str, str]:
        """Returns one table as a dict of texts, its place under "where"."""
        options = {}
        for name, text, where in self.entries(*path):
            if name == "where":
                raise ConfigError(where, "where: no such option")
            options[name] = text
        options["where"] = self.where(*path)
        return options

    def text(self, value: object, *path: str | int) -> str:
        """Returns a value as fwknop's files would write it: a list "a,b", true "Y", a number its digits."""
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "Y" if value else "N"
        if isinstance(value, int):
            return str(value)
        if isinstance(value, list) and not any(isinstance(item, (list, dict)) for item in value):
            return ",".join(self.text(item, *path) for item in value)
        reason = "%s: a %s cannot be used here: write a text in quotes, a whole number, true, false, or a list of those"
        raise ConfigError(self.where(*path), reason % (path[-1], _KINDS.get(type(value).__name__, "date or time")))


def load(path: str) -> tuple[Settings, list[Stanza]]:
    """Returns (Settings, [Stanza, ...]) of a tinyknop.toml; raises ConfigError, also for a port that is not there."""
    from tinyknop.settings import Settings  # here, since a client needs neither
    from tinyknop.stanza import Stanza

    document = Document(path)
    settings = Settings(document.entries("daemon") if "daemon" in document.data else [])
    settings.captures = [document.options("capture", number) for number in range(document.array("capture"))]
    settings.ports = {name: document.options("port", name) for name in document.named("port")}
    settings.carriers = {name: document.options("carrier", name) for name in document.named("carrier")}
    settings.watch = document.options("watch") if "watch" in document.data else None
    stanzas = []
    for number in range(document.array("stanza")):
        entries = [(native(name), text, where) for name, text, where in document.entries("stanza", number)]
        stanza = Stanza(entries, document.where("stanza", number))
        stanza.number = number + 1
        for name in () if stanza.cycle else stanza.ports:
            if name not in settings.ports:
                where = document.where("stanza", number, "ports")
                remedy = meant(name, list(settings.ports)) or "; add [port.%s] with its kind" % name
                raise ConfigError(where, "ports: there is no port called %s%s" % (name, remedy))
        stanzas.append(stanza)
    return settings, stanzas


def native(name: str) -> str:
    """Returns a stanza's keyword as the one table knows it: ours in lower case, fwknop's in upper case."""
    return name if name in NATIVE else name.upper()


_KINDS = {"float": "fraction", "dict": "table", "list": "list of lists or tables"}


def meant(name: str, known: Iterable[str]) -> str:
    """Returns " (did you mean ...?)" for the known name nearest to a wrong one, or nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1)
    return " (did you mean %s?)" % near[0] if near else ""


def _read(path: str) -> str:
    """Returns a file's text."""
    try:
        if os.path.getsize(path) > LARGEST:
            raise ConfigError(path, "larger than 16 MB: not a configuration")
        with open(path, "rb") as file:
            data = file.read(LARGEST)
    except OSError as error:
        raise ConfigError(path, "cannot read it (%s): give the file with -c" % error.strerror) from None
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError("%s:%d" % (path, line), "not UTF-8: save the file as UTF-8 text") from None


def _placed(path: str, message: str) -> tuple[str, str]:
    """Returns (FILE:LINE, reason) of tomllib's message, which holds the line at its end."""
    found = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = found and found.group(1)
    reason = message[: found.start()] if found else message
    return "%s:%s" % (path, line) if line else path, "not valid TOML: %s" % reason
