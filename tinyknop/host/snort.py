"""Snort 2 rule files: text to Rules and to what they say of themselves. No I/O; nothing here knows iptables.

Rule files come from strangers. Whatever a file holds, a line becomes a Rule or a Skipped with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

Options = tuple[tuple[str, str], ...]  # name in lower case, text as it stands


class Rule(NamedTuple):
    """One rule; the addresses and ports of its header as written."""

    where: str  # "FILE:LINE"
    action: str
    proto: str
    source: str
    sport: str
    both: bool  # both directions
    destination: str
    dport: str
    options: Options
    sid: int


class Skipped(NamedTuple):
    """A line that is no rule for us, and why."""

    where: str
    sid: str
    reason: str


ACTIONS = ("alert", "log", "pass", "drop", "reject", "sdrop", "activate", "dynamic")
HEADER = re.compile(
    r"(?P<action>[a-z]+)\s+(?P<proto>\w+)\s+(?P<source>\S+)\s+(?P<sport>\S+)\s+(?P<way>->|<>|<-)\s+"
    r"(?P<destination>\S+)\s+(?P<dport>\S+)\s*\((?P<options>.*)\)\s*",
    re.DOTALL,
)
VARIABLE = re.compile(r"(?:ip|port)?var\s+(\w+)\s+(.+)")
NAME = re.compile(r"\$\(?(\w+)\)?")
LONGEST_RULE = 1 << 16  # characters; the longest in public rule sets have some 4,000
LONGEST_LIST = 1 << 14  # characters of an address or port once its variables are put in
DEEPEST = 20  # groups within groups of a pcre, lists within lists
# Names that rule files take for granted; a `var` line or --var says otherwise.
VARIABLES = {"HTTP_PORTS": "80", "SHELLCODE_PORTS": "!80", "ORACLE_PORTS": "1521", "SSH_PORTS": "22"}
LISTED = ("reference", "content", "uricontent")


def read(text: str, name: str, variables: dict[str, str]) -> tuple[list[Rule], list[Skipped]]:
    """Returns (Rules, Skipped) of a file's bytes, read as latin-1; `var` lines enter `variables`."""
    rules, skipped = [], []
    for number, line in _lines(text):
        where = "%s:%d" % (name, number)
        said = VARIABLE.fullmatch(line)
        if said:
            variables[said.group(1)] = said.group(2).strip()
            continue
        if line.split(None, 1)[0] not in ACTIONS:
            if "sid" in line and "(" in line:
                skipped.append(Skipped(where, "-", "starts with none of " + " ".join(ACTIONS)))
            continue
        try:
            rules.append(_rule(line, where))
        except ValueError as error:
            found = re.search(r"\bsid\s*:\s*(\d{1,10})\b", line)
            skipped.append(Skipped(where, found.group(1) if found else "-", str(error)))
    return rules, skipped


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yields (number, line): without comments and blank ones, those that end in a backslash joined."""
    held, first = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip("\r\t \0")
        first = first if held else number
        if line.endswith("\\") and not line.startswith("#"):
            held += line[:-1] + " "
            continue
        line, held = (held + line).strip(), ""
        if line and line[0] != "#":
            yield first, line
    if held.strip():
        yield first, held.strip()


def _rule(line: str, where: str) -> Rule:
    if len(line) > LONGEST_RULE:
        raise ValueError("longer than %d characters" % LONGEST_RULE)
    head = HEADER.fullmatch(line)
    if not head:
        raise ValueError("no rule header: ACTION PROTOCOL SOURCE PORT -> DESTINATION PORT (OPTIONS)")
    found = options(head.group("options"))
    sids = [value for name, value in found if name == "sid"]
    if len(sids) != 1 or not re.fullmatch("[0-9]{1,10}", sids[0]) or not 0 < int(sids[0]) < 1 << 32:
        raise ValueError("it has no sid" if not sids else "sid: not one number")
    ends = [(head.group("source"), head.group("sport")), (head.group("destination"), head.group("dport"))]
    if head.group("way") == "<-":
        ends.reverse()
    both = head.group("way") == "<>"
    return Rule(where, head.group("action"), head.group("proto").lower(), *ends[0], both, *ends[1], found, int(sids[0]))


def options(text: str) -> Options:
    """Returns ((name, value), ...) of what stands in a rule's brackets; raises ValueError for a quote left open."""
    pieces, start, quoted, at = [], 0, False, 0
    while at < len(text):
        c = text[at]
        if c == "\\":
            at += 1
        elif c == '"':
            quoted = not quoted
        elif c == ";" and not quoted:
            pieces.append(text[start:at])
            start = at + 1
        at += 1
    if quoted:
        raise ValueError("a quote is not closed")
    pieces.append(text[start:])
    pairs = [piece.partition(":") for piece in pieces if piece.strip()]
    return tuple((name.strip().lower(), value.strip()) for name, _, value in pairs)


def quoted(value: str) -> tuple[bool, str]:
    """Returns (negated, text between the quotes) of `!"..."`; raises ValueError where there are no quotes."""
    said = re.fullmatch(r'(!?)\s*"(.*)"', value, re.DOTALL)
    if not said:
        raise ValueError("no text in quotes")
    return bool(said.group(1)), said.group(2)


def decoded(text: str) -> bytes:
    """Returns the bytes of a content's text: `|41 42|` is hex, a backslash takes the next character as it is."""
    out, at = bytearray(), 0
    while at < len(text):
        c = text[at]
        if c == "|":
            end = text.find("|", at + 1)
            digits = "".join(text[at + 1 : end].split()) if end > 0 else "?"
            if not re.fullmatch("(?:[0-9A-Fa-f]{2})+", digits):
                raise ValueError("content: no hex between the bars")
            out += bytes.fromhex(digits)
            at = end + 1
            continue
        if c == "\\":
            at += 1
            if at == len(text):
                raise ValueError("content: ends in a backslash")
            c = text[at]
        out += c.encode("latin-1", "replace")
        at += 1
    if not out:
        raise ValueError("content: empty")
    return bytes(out)


def expanded(text: str, variables: dict[str, str], depth: int = 0) -> str:
    """Returns an address or port text with its $VARIABLES put in; raises ValueError for one that nobody knows."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in variables or name in VARIABLES:
            return expanded(variables.get(name) or VARIABLES[name], variables, depth + 1)
        if name.endswith(("_NET", "_SERVERS")):
            return "any"
        raise ValueError("$%s is not known: say it with --var %s=..." % (name, name))

    if depth > DEEPEST:
        raise ValueError("variables name one another in a ring, or too deeply")
    text = NAME.sub(value, text)
    if len(text) > LONGEST_LIST:
        raise ValueError("a list of more than %d characters" % LONGEST_LIST)
    return text


def listed(text: str) -> tuple[list[str], list[str]]:
    """Returns (wanted, unwanted) items of `x`, `!x`, `[x,!y,[z]]`; nothing wanted means any. Raises ValueError."""
    wanted: list[str] = []
    unwanted: list[str] = []
    negations, turned = [False], False
    for piece in re.findall(r"[\[\],!]|[^\[\],!\s]+", text):
        if piece == "!":
            turned = not turned
        elif piece == "[":
            negations.append(negations[-1] != turned)
            turned = False
        elif piece == "]":
            negations.pop()
        elif piece != ",":
            (unwanted if negations[-1] != turned else wanted).append(piece)
            turned = False
        if not negations or len(negations) > DEEPEST:
            raise ValueError("brackets of a list do not match")
    if "any" in unwanted:
        raise ValueError("!any matches nothing")
    return [] if "any" in wanted else wanted, unwanted


def about(rule: Rule) -> dict[str, Any]:
    """Returns what a report says of a rule: msg, classtype, reference, content, metadata, priority, rev."""
    said: dict[str, Any] = {name: "" for name in ("msg", "classtype", "priority", "rev")}
    said.update(reference=[], content=[], metadata={})
    for name, value in rule.options:
        value = value.encode("latin-1", "replace").decode("utf-8", "replace")
        bare = value[1:-1] if value[:1] == value[-1:] == '"' and len(value) > 1 else value
        if name in LISTED:
            said["reference" if name == "reference" else "content"].append(value if value[:1] == "!" else bare)
        elif name == "metadata":
            for item in value.split(","):
                key, _, text = item.strip().partition(" ")
                known = said["metadata"].get(key)
                said["metadata"][key] = "%s, %s" % (known, text.strip()) if known else text.strip()
        elif name in said:
            said[name] = re.sub(r"\\(.)", r"\1", bare) if name == "msg" else bare
    said["metadata"].pop("", None)
    return said
