"""`tinyknop qr`: draws the key pairs of its input as QR codes, in the form that the Fwknop2 app for Android scans.

Reads what `fwknop --key-gen`, `fwknopd --key-gen` and `tinyknop keygen` print, a key file or a whole access.conf, from
a file or from standard input: never from its words, which everybody on the machine could see.
"""

from __future__ import annotations

import argparse
import re
import sys

from tinyknop.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import TextIO

LONGEST = 1 << 20  # bytes
# NAME: value, as key generators print it; NAME value, as in access.conf; name = "value", as in TOML.
LINE = re.compile(
    r'^[ \t]*(HMAC_KEY_BASE64|KEY_BASE64)[ \t]*[:=]?[ \t]*"?([A-Za-z0-9+/]+={0,2})"?[ \t]*;?[ \t\r]*$', re.I
)

BLOCKS = "█▀▄ "  # by the darkness of the upper and of the lower module
COLOURS = "\33[38;5;231;48;5;16m"  # white on black


def pairs(text: str) -> list[tuple[str, str | None]]:
    """Returns the (key, HMAC key or None) of a text, each in base64; a second key begins the next pair."""
    found: list[list[str | None]] = []
    for line in text.split("\n"):
        match = LINE.match(line)
        if match is None:
            continue
        second = match.group(1).upper().startswith("HMAC")
        if not found or found[-1][second] is not None:
            found.append([None, None])
        found[-1][second] = match.group(2)
    return [(key, hmac_key) for key, hmac_key in found if key is not None]


def content(key: str, hmac_key: str | None) -> str:
    """Returns what the app reads: one line, and not even its end (Fwknop2 issue 51: more than this is no key to it)."""
    return "KEY_BASE64:" + key + (" HMAC_KEY_BASE64:" + hmac_key if hmac_key else "")


def available() -> ModuleType:
    """Returns the library that makes QR codes; raises ConfigError with the way to get it."""
    try:
        import segno
    except ImportError:
        reason = "needs the library segno: pip install 'tinyknop[qr]', or apt-get install python3-segno"
        raise ConfigError("qr", reason) from None
    return segno


def draw(text: str, out: TextIO | None = None) -> None:
    """Draws a text as a QR code: two rows in a line, light modules as blocks.

    On a terminal the colours are set as well: most scanners refuse a code that a light theme has turned inside out.
    """
    out = out or sys.stdout
    before, after = (COLOURS, "\33[0m") if out.isatty() else ("", "")
    rows = [list(row) for row in available().make(text, error="m", micro=False).matrix_iter(border=4)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    for upper, lower in zip(rows[::2], rows[1::2]):
        out.write(before + "".join(BLOCKS[2 * one + other] for one, other in zip(upper, lower)) + after + "\n")


def read(path: str | None) -> str:
    """Returns the text of a file, or of standard input; raises ConfigError."""
    try:
        if path is not None:
            with open(path, "rb") as file:
                return file.read(LONGEST).decode("utf-8", "replace")
        if sys.stdin.isatty():
            print("waiting for KEY_BASE64 and HMAC_KEY_BASE64 lines; Ctrl-D ends them", file=sys.stderr)
        return sys.stdin.buffer.read(LONGEST).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(path or "stdin", "cannot be read: %s" % error.strerror) from None


def main(words: list[str]) -> int:
    """Draws a QR code for each pair of keys."""
    parser = argparse.ArgumentParser(
        "tinyknop qr",
        description="Draws the keys of its input as QR codes for the Fwknop2 app.",
        epilog="For example: fwknop --key-gen | tinyknop qr",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="a key file or access.conf (standard input)")
    options = parser.parse_args(words)
    available()
    found = pairs(read(options.file))
    if not found:
        reason = "no KEY_BASE64 line in it: pipe `tinyknop keygen` or `fwknop --key-gen` into this"
        raise ConfigError(options.file or "stdin", reason)
    for number, pair in enumerate(found, 1):
        if len(found) > 1:
            print("keys %d of %d:" % (number, len(found)))
        draw(content(*pair))
    return 0
