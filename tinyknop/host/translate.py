"""One Snort rule as words for iptables or ip6tables: all that it takes, or the reason why it cannot be said. No I/O.

Nothing of a rule's text becomes a word: addresses, ports and numbers are read and printed anew, contents are hex, and
of the comment only letters that need no quoting are left.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tinyknop import net

from . import u32
from .contents import POSITIONS, Content, contents
from .snort import Options, Rule, expanded, listed


class Translated(NamedTuple):
    """A rule of Snort in iptables' words."""

    matches: list[list[str]]  # the words of each iptables rule that it takes
    established: bool  # in the chain of such connections
    approximate: bool  # by literals of a pcre
    rejects: bool  # the rule file wants the packet turned away


PORTS = 15  # that one multiport takes; a range counts for two
PAIRS = 200  # iptables rules for one of Snort
# A rule of iptables-nft has 4,095 bytes in the kernel: what the matches of it take there, counted high.
ROOM, U32_BYTES, BPF_BYTES, STRING_BYTES = 3200, 2010, 560, 200
IGNORED = """msg sid rev gid classtype priority reference metadata rawbytes urilen flow content uricontent pcre nocase
fast_pattern ip_proto resp dsize sameip flags byte_test isdataat threshold pkt_data""".split()
KNOWN = frozenset([*IGNORED, *POSITIONS, *u32.FIELDS])
OF_ONE = {name: "tcp" for name in ("flags", "seq", "ack", "window")}
OF_ONE.update({name: "icmp" for name in ("itype", "icode", "icmp_id", "icmp_seq")})
FLOWS = frozenset("established stateless no_stream only_stream no_frag only_frag not_established".split())
DIRECTIONS = {"to_server": "ORIGINAL", "from_client": "ORIGINAL", "to_client": "REPLY", "from_server": "REPLY"}


def translate(rule: Rule, variables: dict[str, str], six: bool) -> Translated:
    """Returns the words of a snort.Rule; raises ValueError with the reason why it cannot be said."""
    proto = _proto(rule)
    if proto not in ("tcp", "udp", "icmp", "ip"):
        raise ValueError("protocol %s: only tcp, udp, icmp and ip" % proto)
    for name, value in rule.options:
        if name not in KNOWN and not name.startswith("http_"):
            raise ValueError("option %s" % name)
        if name == "threshold" and not re.search(r"type\s+limit\b", value):  # a limit is what every log rule has
            raise ValueError("option threshold")
    tests, programs = _numbers(rule, proto, six)
    texts, approximate = contents(rule.options)
    established, flow = _flow(rule.options)
    head = [] if proto == "ip" else ["-p", "ipv6-icmp" if six and proto == "icmp" else proto]
    matches = []
    ends = [(rule.source, rule.sport), (rule.destination, rule.dport)]
    for side in (ends, [ends[1], ends[0]])[: 1 + rule.both]:
        choices, more = [head], list(tests)
        for letter, (address, port) in zip("sd", side):
            nets, outside = _addresses(letter, expanded(address, variables), six)
            ports = _ports(letter, expanded(port, variables)) if proto in ("tcp", "udp") else [[]]
            more += outside
            choices = [one + some + other for one in choices for some in nets for other in ports]
            if len(choices) > PAIRS:
                raise ValueError("its lists of addresses and ports take more than %d iptables rules" % PAIRS)
        body = _body(more, programs, texts, proto, six)
        matches += [words + flow + body for words in choices]
    rejects = rule.action in ("drop", "sdrop", "reject") or any(name == "resp" for name, _ in rule.options)
    return Translated(matches, established, approximate, rejects)


def _proto(rule: Rule) -> str:
    """Returns a rule's protocol; of one for any, that of the header fields which it looks at. Raises ValueError."""
    found = {OF_ONE[name] for name, _ in rule.options if name in OF_ONE}
    if not found or found == {rule.proto}:
        return rule.proto
    if rule.proto != "ip" or len(found) > 1:
        raise ValueError("fields of %s in a rule for %s" % (" and ".join(sorted(found)), rule.proto))
    return found.pop()


def _numbers(rule: Rule, proto: str, six: bool) -> tuple[list[str], list[str]]:
    """Returns (u32 tests, BPF programs) of a rule's options about numbers; raises ValueError."""
    tests, programs = [], []
    for name, value in rule.options:
        if name in u32.FIELDS:
            if six and OF_ONE.get(name) == "icmp":
                _icmp6(rule.options)
            tests.append(u32.field(name, value, six))
        elif name == "flags":
            tests.append(u32.flags(value, six))
        elif name == "byte_test":
            tests.append(u32.byte_test(value, proto, six))
        elif name == "isdataat":
            if not value.isdecimal():
                raise ValueError("isdataat: more than one number")
            programs.append(u32.dsize([(u32.number(value, 65535), 65535)], proto, six))
        elif name == "dsize":
            programs.append(u32.dsize(u32.ranges(value, 16), proto, six))
        elif name == "sameip":
            programs.append(u32.sameip(six))
    return tests, programs


def _icmp6(options: Options) -> None:
    """Raises ValueError unless an ICMP rule is about a type that IPv6 alone has: below 128 they mean other things."""
    types = [span for name, value in options if name == "itype" for span in u32.ranges(value, 8)]
    if not types or types[0][0] < 128:
        raise ValueError("ICMP numbers of IPv4")


def _flow(options: Options) -> tuple[bool, list[str]]:
    """Returns (whether the connection must be established, words for its direction); raises ValueError."""
    said = {word.strip() for name, value in options if name == "flow" for word in value.lower().split(",")}
    directions = {DIRECTIONS[word] for word in said & set(DIRECTIONS)}
    odd = said - FLOWS - set(DIRECTIONS) - {""}
    if odd or len(directions) > 1:
        raise ValueError("flow: %s" % (sorted(odd)[0] if odd else "both directions"))
    words = ["-m", "conntrack", "--ctdir", directions.pop()] if directions else []
    return "established" in said, words


def _addresses(letter: str, text: str, six: bool) -> tuple[list[list[str]], list[str]]:
    """Returns (choices of words, u32 tests) of one end's addresses; raises ValueError."""
    wanted, unwanted = (_of_family(items, six) for items in listed(text))
    if wanted is None:
        raise ValueError("addresses of IPv%d only" % (4 if six else 6))
    choices = [["-" + letter, one] for one in wanted] or [[]]
    if not unwanted:
        return choices, []
    if any(one.endswith("/0") for one in unwanted):
        raise ValueError("addresses: none is left")
    if len(unwanted) == 1 and not wanted:
        return [["!", "-" + letter, unwanted[0]]], []
    if six:
        raise ValueError("IPv6 addresses that must not be it: one at most")
    spans = []
    for one in unwanted:
        base, bits = net.network(one)
        low = int.from_bytes(base, "big")
        spans.append((low, low | (1 << 32 - bits) - 1))
    left = u32.outside(spans)
    if not left:
        raise ValueError("addresses: none is left")
    return choices, [u32.test("12" if letter == "s" else "16", left)]


def _of_family(items: list[str], six: bool) -> list[str] | None:
    """Returns the networks among items that are of a family, [] of none at all, None where all are of the other."""
    found = []
    for item in items:
        base, bits = net.network(item)
        if len(base) == (16 if six else 4):
            found.append("%s/%d" % (net.printed(base), bits))
    return found if found or not items else None


def _ports(letter: str, text: str) -> list[list[str]]:
    """Returns choices of words for one end's ports; raises ValueError."""
    wanted, unwanted = ([_port(item) for item in items] for items in listed(text))
    if len(wanted) == 1 and not unwanted:
        return [["--%sport" % letter, "%d:%d" % wanted[0] if wanted[0][0] < wanted[0][1] else "%d" % wanted[0][0]]]
    words = []
    for some in _handfuls(unwanted):
        words += ["-m", "multiport", "!", "--%sports" % letter, some]
    return [(["-m", "multiport", "--%sports" % letter, some] if some else []) + words
            for some in _handfuls(wanted) or [""]]  # fmt: skip


def _port(text: str) -> u32.Span:
    """Returns a port or a range of them as (first, last); raises ValueError."""
    first, colon, last = text.partition(":")
    low = u32.number(first or "0", 65535)
    high = u32.number(last or "65535", 65535) if colon else low
    if low > high:
        raise ValueError("port %d is after port %d" % (low, high))
    return low, high


def _handfuls(spans: list[u32.Span]) -> list[str]:
    """Returns ranges as texts for multiport, each of as many as it takes."""
    texts: list[list[str]] = [[]]
    used = 0
    for low, high in sorted(set(spans)):
        weight = 1 + (low != high)
        if used + weight > PORTS:
            texts.append([])
            used = 0
        used += weight
        texts[-1].append("%d" % low if low == high else "%d:%d" % (low, high))
    return [",".join(text) for text in texts if text]


def _body(tests: list[str], programs: list[str], texts: list[Content], proto: str, six: bool) -> list[str]:
    """Returns the words of all that is looked for in a packet; raises ValueError where it is too much."""
    tests, strings = list(tests), []
    for text in texts:
        exact = None
        if text.low == text.high and not text.negated:
            exact = u32.equal(text.data, text.nocase, text.low, proto, six)
        if exact is not None and len(tests) + len(exact) <= u32.MOST:
            tests += exact
        else:
            strings.append(text)
    if len(tests) > u32.MOST:
        raise ValueError("more than %d numbers to compare" % u32.MOST)
    room = ROOM - U32_BYTES * bool(tests) - BPF_BYTES * len(programs)
    words = ["-m", "u32", "--u32", "&&".join(tests)] if tests else []
    for program in programs:
        words += ["-m", "bpf", "--bytecode", program]
    if room < 0:
        raise ValueError("more numbers than a rule of iptables holds")
    absent = [text for text in strings if text.negated]
    # Rarest first: a packet is done with at the first that is not there.
    present = sorted([text for text in strings if not text.negated], key=lambda text: (not text.first, -len(text.data)))
    left = room // STRING_BYTES - len(absent)
    if left < bool(present):
        raise ValueError("more contents than a rule of iptables holds")
    strings = present[:left] + absent  # without the shortest it logs more, and misses nothing
    for text in strings:
        words += text.words(proto, six)
    return words
