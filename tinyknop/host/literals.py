"""What every match of a pcre must hold, literally: what is left of a pattern for a firewall that knows strings only.

Where that cannot be told for certain, there is none: a literal too few logs too much, one too many misses attacks.
"""

from __future__ import annotations

import re

from .snort import DEEPEST

_PIECE = re.compile(
    r"\\x\{[0-9A-Fa-f]{1,2}\}|\\x[0-9A-Fa-f]{2}|\\[0-7]{3}|\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]"
    r"|\(\?#[^)]*\)|\((?:\?(?:P?<\w+>|'\w+'|[imsxU-]*:|[imsxU-]+\)|<?[=!]|>|\|))?|[)|]|[*+?][+?]?"
    r"|\{\d*,?\d*\}[+?]?|.",
    re.DOTALL,
)
# Escapes that take more than one character after them, verbose mode, recursion, conditions, verbs.
_ODD = re.compile(
    r"\\[QEKGgkcpPNo]|\\\d\d(?![0-7])|\\[89]\d|\\x(?![0-9A-Fa-f]{2}|\{[0-9A-Fa-f]{1,2}\})"
    r"|\(\?[a-zA-Z-]*x|\(\?[(&RP0-9+]|\(\*"
)
LONGEST = 4000  # characters of a pcre
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "e": "\x1b", "a": "\a"}


class _Group:
    """One level of brackets: the literals found in it, and the one under way."""

    def __init__(self, kept: bool) -> None:
        self.kept = kept  # False in a look-around, whose text need not be part of the match
        self.found: list[str | _Group] = []
        self.run = ""
        self.simple = self.alternatives = False

    def end(self) -> None:
        """Ends the literal under way."""
        if self.run:
            self.found.append(self.run)
        self.run = ""


def pattern(text: str) -> tuple[str, str]:
    """Returns (regex, its flags) of `/regex/flags`; raises ValueError."""
    said = re.fullmatch(r"(?:m(?=\W))?(\W)(.*)\1([A-Za-z]*)", text, re.DOTALL)
    if not said or len(text) > LONGEST:
        raise ValueError("pcre: longer than %d characters" % LONGEST if said else "pcre: not written /.../")
    return said.group(2), said.group(3)


def literals(text: str) -> tuple[list[str], bool, bool]:
    """Returns (literals in their order, whether case is ignored, whether only `.*` joins them) of a pcre's text.

    Raises ValueError where the pattern has alternatives only, or a syntax whose meaning is not certain here.
    """
    regex, flags = pattern(text)
    if "x" in flags or _ODD.search(regex.replace("(?P<", "(?<")):
        raise ValueError("pcre: written in a way that is not translated")
    nocase = "i" in flags or bool(re.search(r"\(\?[a-zA-Z]*i", regex))
    stack, plain = [_Group(True)], True
    last: _Group | str | None = None
    for piece in _PIECE.findall(regex):
        group = stack[-1]
        if piece[0] == "(" and not piece.endswith(")"):
            group.end()
            stack.append(_Group(group.kept and not re.match(r"\(\?(<?[=!]|\|)", piece)))
            last, plain = None, False
            if len(stack) > DEEPEST:
                raise ValueError("pcre: brackets within brackets, too many")
        elif piece == ")":
            group.end()
            if len(stack) == 1:
                raise ValueError("pcre: a bracket too many")
            last = stack.pop()
        else:
            last, simple = _piece(group, piece, last)
            plain = plain and simple
        if isinstance(last, _Group) and piece == ")":
            # Kept only for what may follow: a quantifier decides whether the group must be there.
            if last.kept and not last.alternatives:
                stack[-1].found.append(last)
    return _settled(stack), nocase, plain


def _piece(group: _Group, piece: str, last: _Group | str | None) -> tuple[str | None, bool]:
    """Takes in one piece of a pattern; returns (what a quantifier after it would be about, whether it is plain)."""
    if piece[0] in "*+?" or re.fullmatch(r"\{\d+,?\d*\}[+?]?", piece):
        least = int(piece[1:].split(",")[0].rstrip("+?}")) if piece[0] == "{" else piece[0] == "+"
        if isinstance(last, str):  # the last character of the literal
            group.run = group.run if least else group.run[:-1]
        elif isinstance(last, _Group) and not least and group.found and group.found[-1] is last:
            group.found.pop()
        group.end()
        return None, last == "." and piece[:2] in ("*", "*?")
    if piece == "|":
        group.alternatives = True
    literal = _literal(piece)
    if literal is not None:
        group.run += literal
        return literal, True
    group.end()
    return ("." if piece == "." else None), piece == "."


def _literal(piece: str) -> str | None:
    """Returns the character that a piece stands for, None where it stands for something else."""
    if len(piece) == 1:
        return None if piece in ".^$|" else piece
    if piece[0] != "\\":
        return None
    if piece[1] == "x" and len(piece) > 2:
        return chr(int(piece[2:].strip("{}"), 16))
    if len(piece) == 4:
        return chr(int(piece[1:], 8) & 0xFF)
    return _ESCAPES.get(piece[1], None if piece[1].isalnum() else piece[1])


def _settled(stack: list[_Group]) -> list[str]:
    """Returns the literals of a pattern that was read to its end."""
    group = stack[0]
    group.end()
    if len(stack) > 1 or group.alternatives:
        raise ValueError("pcre: alternatives only" if group.alternatives else "pcre: a bracket is not closed")
    found, left = [], list(reversed(group.found))
    while left:
        item = left.pop()
        if isinstance(item, _Group):
            left += reversed(item.found)
        else:
            found.append(item)
    return found
