"""The stored command line of fwknop's client, for --show-last and --last-cmd. Keys are never stored."""

from __future__ import annotations

import os
import shlex

from tinyknop.host.fwoptions import Refused
from tinyknop.host.fwrequest import without_keys
from tinyknop.host.rcfile import check_mode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tinyknop.host.fwrequest import Request

NAME = ".fwknop.run"
LONGEST = 1023  # characters; fwknop, which may read the file, takes no more


def path_of(request: Request, home: str | None) -> str:
    """Returns the file's path; raises Refused where nobody says it."""
    path: str | None = request["save-args-file"]
    if path:
        return path
    if request["no-home-dir"]:
        raise Refused("In --no-home-dir mode must set the args save file path with -E")
    if not home:
        raise Refused("Unable to determine args save file")
    return os.path.join(home, NAME)


def _quoted(word: str) -> str:
    """Returns a word as it is, but in quotes where blanks or quotes would part it on the way back."""
    return shlex.quote(word) if not word or any(letter in " \t\n\"'" for letter in word) else word


def save(path: str, words: list[str]) -> None:
    """Stores a command line, readable by its owner only; raises Refused."""
    line = " ".join(["fwknop"] + [_quoted(word) for word in without_keys(words)]) + " "
    if len(line) > LONGEST:
        raise Refused("argument string too long, exiting.")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o600)
            file.truncate()
            file.write(os.fsencode(line) + b"\n")
    except OSError:
        raise Refused("Could not open args file: %s" % path) from None


def load(path: str) -> str:
    """Returns the stored line without its end; raises Refused."""
    try:
        with open(path, "rb") as file:
            line = os.fsdecode(file.read(LONGEST + 1)).split("\n")[0]
    except OSError:
        raise Refused("Could not open args file: %s" % path) from None
    check_mode(path)
    return line


def words_of(line: str) -> list[str]:
    """Returns the words of a stored line without the program's name; fwknop itself stores no quotes."""
    try:
        words = shlex.split(line) if "'" in line else line.split()
    except ValueError:  # a quote that fwknop stored as a letter
        words = line.split()
    return words[1:]
