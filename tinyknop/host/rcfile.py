"""fwknop's rc file: its lines and stanzas, the first one made, a stanza stored without loss of the rest.

Knows nothing of what variables mean.
"""

from __future__ import annotations

import os
import stat
from collections import namedtuple

from tinyknop import log
from tinyknop.host.fwoptions import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Callable

    Stanzas = list[tuple[str, list["Row"]]]

Row = namedtuple("Row", "name value line rest")  # value None: a line that is not NAME VALUE; rest: what follows it
LONGEST = 1 << 20  # bytes; no rc file is near that

# One key, two spellings.
TWINS = {"KEY": "KEY_BASE64", "HMAC_KEY": "HMAC_KEY_BASE64", "GPG_SIGNING_PW": "GPG_SIGNING_PW_BASE64"}
TWINS.update({second: first for first, second in TWINS.items()})
# Variables that are not replaced without a question.
ASKED = (
    "KEY", "KEY_BASE64", "HMAC_KEY", "HMAC_KEY_BASE64", "GPG_RECIPIENT", "GPG_SIGNER", "GPG_SIGNING_PW",
    "GPG_SIGNING_PW_BASE64",
)  # fmt: skip
TEMPLATE = """\
# .fwknoprc: what the fwknop client takes when its command line does not say.
#
# [default] holds for every run. A stanza of another name holds for runs with `-n NAME`, over what [default] says; the
# command line comes before both. A value ends at the first blank, tab, ; or #.
#
# SPA_SERVER, ACCESS, ALLOW_IP (an address, source or resolve), KEY_BASE64 and HMAC_KEY_BASE64 make a knock complete;
# `fwknop --key-gen` prints the two keys. For example:
#
#[gate]
#SPA_SERVER          192.0.2.1
#ACCESS              tcp/22
#ALLOW_IP            resolve
#FW_TIMEOUT          60

[default]

"""


def make(path: str) -> None:
    """Writes the first rc file, readable by its owner only; a failure is only told, as in the reference."""
    print("[*] Creating initial rc file: %s." % path)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(TEMPLATE)
    except OSError as error:
        log.warning("Unable to create initial rc file: %s: %s", path, error.strerror)


def check_mode(path: str) -> bool:
    """Warns of a file that is not its owner's alone, in fwknop's words; tells whether it is a regular file."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    regular = stat.S_ISREG(found.st_mode)
    if not regular:
        log.warning("[-] file: %s is not a regular file or symbolic link.", path)
    if stat.S_IMODE(found.st_mode) & 0o177:
        log.warning("[-] file: %s permissions should only be user read/write (0600, -rw-------)", path)
    if found.st_uid != os.getuid():
        log.warning("[-] file: %s not owned by current effective user id", path)
    return regular


def _lines(path: str) -> list[str]:
    """Returns the file's lines without their ends, as text that can be written back unchanged."""
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST + 1)
    except OSError as error:
        raise Refused("Unable to open rc file: %s: %s" % (path, error.strerror)) from None
    if len(data) > LONGEST:
        raise Refused("%s: more than %d bytes are no rc file: name another" % (path, LONGEST))
    return os.fsdecode(data).split("\n")


def header(line: str) -> str | None:
    """Returns the name in a line `[name]`, or None."""
    bare = line.lstrip(" \t")
    if not bare.startswith("[") or "]" not in bare:
        return None
    return bare[1 : bare.index("]")]


def row_of(line: str, number: int) -> Row | None:
    """Returns the Row of a line, None for a comment or an empty one."""
    if not line.rstrip("\r") or line[0] in "#;":
        return None
    words = line.split(None, 1)
    name = words[0] if words else ""
    name = name[:-1] if name.endswith(":") else name
    text = value = words[1] if len(words) > 1 else ""
    for ending in " \t\r;#":
        value = value.split(ending, 1)[0]
    return Row(name, value or None, number, text[len(value) :].rstrip())


def lost(row: Row) -> bool:
    """Tells whether what follows a value may be meant as a part of it: it is no comment, or stands in a secret."""
    comment = row.rest.lstrip(" \t")[:1] in ("", "#", ";")
    return not comment or (row.name in ASKED and row.rest[:1] in ("#", ";"))


def read(path: str) -> Stanzas:
    """Returns [(stanza name, [Row])] of an rc file; raises Refused where it cannot be read."""
    stanzas: Stanzas = []
    for number, line in enumerate(_lines(path), 1):
        name = header(line)
        if name is not None:
            stanzas.append((name, []))
        elif stanzas:
            row = row_of(line, number)
            if row:
                stanzas[-1][1].append(row)
    return stanzas


def find(stanzas: Stanzas, name: str | None) -> list[Row] | None:
    """Returns the rows of all stanzas of that name, in any case, or None where there is none."""
    found = [rows for known, rows in stanzas if name and known.lower() == name.lower()]
    return [row for rows in found for row in rows] if found else None


def checked(rows: list[Row], path: str) -> list[Row]:
    """Returns the rows; raises Refused for a line that is not NAME VALUE, which may be half a key: never shown."""
    for row in rows:
        if row.value is None:
            raise Refused("*Invalid entry in %s, line %d: not NAME VALUE; put a # before a comment" % (path, row.line))
    return rows


def listed(path: str) -> None:
    """Prints the names of all stanzas but [default]."""
    names = [name for name, _ in read(path) if name.lower() != "default"]
    print("The following stanzas are configured in %s :" % path)
    for name in names:
        print(" - %s" % name)


def store(path: str, name: str, settings: list[tuple[str, str]], may_replace: Callable[[str], bool]) -> set[str]:
    """Puts (variable, text) pairs into a stanza, made where it is missing; all else in the file stays as it is.

    `may_replace(variable)` is asked about each of ASKED that the stanza holds. Returns the variables that were not
    written since the answer was no; raises Refused.
    """
    path = os.path.realpath(path)  # a link stays one
    lines = _lines(path)
    while lines and not lines[-1].strip():
        lines.pop()
    first, last = _bounds(lines, name)
    if first is None:
        lines += ["", "[%s]" % name]
        first = last = len(lines)
    refused = {
        row.name
        for row in (row_of(line, 0) for line in lines[first:last])
        if row and row.name in ASKED and not may_replace(row.name)
    }
    refused |= {TWINS[variable] for variable in refused if variable in TWINS}
    kept = [(variable, text) for variable, text in settings if variable not in refused]
    lines[first:last] = _merged(lines[first:last], kept)
    _replace(path, "\n".join(lines) + "\n")
    return refused & {variable for variable, _ in settings}


def _bounds(lines: list[str], name: str) -> tuple[int, int] | tuple[None, None]:
    """Returns where the lines of a stanza begin and end; (None, None) where there is none."""
    first = None
    for place, line in enumerate(lines):
        found = header(line)
        if found is not None and first is not None:
            return first, place
        if found is not None and found.lower() == name.lower():
            first = place + 1
    return (None, None) if first is None else (first, len(lines))


def _merged(lines: list[str], settings: list[tuple[str, str]]) -> list[str]:
    """Returns a stanza's lines with new values where the old ones stood, and what is new at its end."""
    left = dict(settings)
    given = {variable for variable, _ in settings}
    kept: list[str] = []
    for line in lines:
        row = row_of(line, 0)
        if row and row.name in left:
            kept.append(_line(row.name, left.pop(row.name)))
        elif not row or not {row.name, TWINS.get(row.name)} & given:  # else the same thing a second time
            kept.append(line)
    end = len(kept)
    while end and (not kept[end - 1].strip() or kept[end - 1].startswith("#")):
        end -= 1  # what stands before the next stanza belongs to that one
    return kept[:end] + [_line(variable, text) for variable, text in settings if variable in left] + kept[end:]


def _line(variable: str, text: str) -> str:
    return "%-24s    %s" % (variable, text)


def _replace(path: str, text: str) -> None:
    """Writes the file anew beside the old one, then takes its place."""
    new = path + ".updated"
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(os.fsencode(text))
            os.fsync(file.fileno())
        os.rename(new, path)
    except FileExistsError:
        raise Refused("Unable to create temporary rc file: %s: File exists: remove it, then try anew" % new) from None
    except OSError as error:
        raise Refused("Unable to create temporary rc file: %s: %s" % (new, error.strerror)) from None
