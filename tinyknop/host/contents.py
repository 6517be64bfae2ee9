"""The contents of a Snort rule, and where in the payload each may stand, as words for iptables' string match. No I/O.

Headers vary in length, and a content may stand a distance behind one whose place nobody knows: a window here is never
smaller than what the rule says, so that nothing is missed. What has one place only is compared there, by u32.
"""

from __future__ import annotations

from . import u32
from .literals import literals
from .snort import Options, decoded, quoted

LONGEST = 127  # bytes in one string match; at 128 iptables says "too long"
FARTHEST = 0xFFFF  # --from and --to
WORTH = 3  # bytes of a literal; fewer are in every other packet
POSITIONS = ("offset", "depth", "distance", "within")
# Shortest and longest headers before the payload, of IPv4 and of IPv6.
HEADERS = {"tcp": ((40, 120), (60, 100)), "udp": ((28, 68), (48, 48)), "icmp": ((28, 68), (48, 48))}
NO_HEADERS = ((20, 60), (40, 40))


class Content:
    """One text to look for: bytes, how, and the first and last payload offset at which it may begin (None: any)."""

    def __init__(self, data: bytes, negated: bool = False, nocase: bool = False) -> None:
        self.data, self.negated, self.nocase = data, negated, nocase
        self.given: dict[str, int] = {}  # offset, depth, distance, within
        self.first = self.buffered = False
        self.low: int = 0
        self.high: int | None = None

    def words(self, proto: str, six: bool) -> list[str]:
        """Returns the string match; the kernel wants the whole text before --to (older ones: its beginning)."""
        least, most = HEADERS.get(proto, NO_HEADERS)[six]
        data = self.data[:LONGEST]
        if self.negated and data != self.data:
            raise ValueError("content: more than %d bytes that must not be there" % LONGEST)
        words = ["-m", "string"] + ["!"] * self.negated + ["--hex-string", "|%s|" % data.hex(), "--algo", "bm"]
        words += ["--icase"] * self.nocase
        if least + self.low > FARTHEST:
            raise ValueError("content: too far from the start")
        words += ["--from", str(least + self.low)]
        end = FARTHEST if self.high is None else most + self.high + len(self.data)
        return words + (["--to", str(end)] if end < FARTHEST else [])


def contents(options: Options) -> tuple[list[Content], bool]:
    """Returns (Contents with their places, whether a pcre is approximated); raises ValueError."""
    found: list[Content] = []
    approximate = False
    for name, value in options:
        if name in ("content", "uricontent"):
            negated, text = quoted(value)
            found.append(Content(decoded(text), negated))
            found[-1].buffered = name == "uricontent"
        elif name == "pcre":
            some, guessed = _of_pcre(value)
            found, approximate = found + some, approximate or guessed
        elif name in POSITIONS or name in ("nocase", "fast_pattern") or name.startswith("http_"):
            if not found:
                raise ValueError("%s: no content before it" % name)
            _modify(found[-1], name, value)
    _place(found)
    return found, approximate


def _of_pcre(value: str) -> tuple[list[Content], bool]:
    """Returns (Contents of a pcre's literals, whether they say less than the pcre)."""
    negated, text = quoted(value)
    if negated:
        raise ValueError("pcre: one that must not match cannot be said")
    parts, nocase, plain = literals(text)
    parts = [part for part in parts if plain or len(part) >= WORTH]
    if not parts:
        raise ValueError("pcre: no literal of %d bytes that it must hold" % WORTH)
    return [Content(part.encode("latin-1", "replace"), False, nocase) for part in parts], not plain


def _modify(content: Content, name: str, value: str) -> None:
    if name in POSITIONS:
        sign = -1 if value.startswith("-") and name in ("offset", "distance") else 1
        content.given[name] = sign * u32.number(value.lstrip("-+") if sign < 0 else value, FARTHEST)
    elif name == "nocase":
        content.nocase = True
    elif name == "fast_pattern":
        content.first = True
    else:
        content.buffered = True


def _place(found: list[Content]) -> None:
    """Works out where each content may begin, from the places of those before it."""
    low: int = 0
    high: int | None = 0  # where the last one may have ended
    for content in found:
        given, size = content.given, len(content.data)
        if "distance" in given or "within" in given:
            distance, within = given.get("distance", 0), given.get("within")
            content.low = max(0, low + distance)
            if within is not None and (high is not None or content.negated):
                # Of a text that must not be there, the window has to end: taken as early as it may be.
                content.high = max(0, (low if high is None else high) + distance) + within - size
        else:
            content.low = max(0, given.get("offset", 0))
            content.high = content.low + given["depth"] - size if "depth" in given else None
        if given.get("depth", size) < size or given.get("within", size) < size:
            raise ValueError("content: longer than its depth or within")
        if content.buffered:  # counted in a part of the request: in the packet it stands behind that
            content.high = None
        if not content.negated:
            low, high = content.low + size, None if content.high is None else content.high + size
