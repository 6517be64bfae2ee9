"""`tinyknop rules FILE...`: Snort 2 rules as input for iptables-restore and ip6tables-restore, or put in force.

All stands in two chains of our own; INPUT and FORWARD get jumps to them. A packet that a rule describes is logged.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tinyknop.errors import ConfigError, PortError

from . import keygen, snort
from .translate import Translated, translate

CHAIN, ESTAB = "TINYKNOP_RULES", "TINYKNOP_RULES_ESTAB"
HOOKS = ("INPUT", "FORWARD")
LIMIT = ["-m", "limit", "--limit", "10/minute", "--limit-burst", "5"]
COMMENT = 250  # characters of a comment; the kernel's is 255
LONGEST_WORD = 1000  # iptables-restore ends one at 1,023 characters
LONGEST = 8000  # characters of a line; iptables-restore would take what is over 10,239 for a line of its own
LARGEST = 64 << 20  # bytes of a rule file
MOST = 2000  # rules, unless --max-rules says otherwise: each packet that is looked at passes all of them
TOP = 99999  # rules; a log prefix has 29 characters, and a sid up to ten digits
METADATA = "/var/lib/tinyknop/rules.json"
PLAIN = re.compile(r"[A-Za-z0-9_.:/,=+@|>&%!-]+")
TOOLS = {False: "iptables", True: "ip6tables"}
WAIT_S = 120  # for a transaction; 700 rules took iptables-nft 0.1 s, so something is stuck


def word(text: str) -> str:
    """Returns a word as iptables-restore reads it; what would need more than quotes cannot come from here."""
    if PLAIN.fullmatch(text) and len(text) <= LONGEST_WORD:
        return text
    if not re.fullmatch(r"[ !#-\[\]-~]{1,%d}" % LONGEST_WORD, text):
        raise ValueError("a word that iptables-restore does not take")
    return '"%s"' % text


def printable(text: str, most: int) -> str:
    """Returns a stranger's text as a terminal and a comment may have it: no control characters, quotes, backslashes."""
    return re.sub(r"[^ !#-\[\]-~]", "?", text)[:most].strip()


def comment(sid: int, about: dict[str, Any]) -> str:
    """Returns what a rule's comment says, in letters that need no quoting."""
    said = [("sid", sid), ("msg", about["msg"]), ("classtype", about["classtype"])]
    said += [("reference", one) for one in about["reference"]]
    said += [("priority", about["priority"]), ("rev", about["rev"])]
    return printable("".join("%s:%s; " % pair for pair in said if pair[1]), COMMENT)


class Ruleset:
    """What becomes of rule files: lines for each family, the rules that are skipped, and what all say of themselves."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.rules: list[snort.Rule] = []
        self.skipped: list[snort.Skipped] = []
        self.metadata: dict[str, dict[str, Any]] = {}
        self.variables: dict[str, str] = {}
        # Of pass rules, of CHAIN, of ESTAB.
        self.lines: dict[bool, tuple[list[str], list[str], list[str]]] = {six: ([], [], []) for six in TOOLS}
        self.counts: dict[bool, Counter[str]] = {six: Counter() for six in TOOLS}
        self.reasons: dict[bool, list[snort.Skipped]] = {six: [] for six in TOOLS}

    def read(self, path: str, text: str) -> None:
        """Takes in a rule file's text."""
        rules, skipped = snort.read(text, path, self.variables)
        for rule in rules:
            if str(rule.sid) in self.metadata:
                skipped.append(snort.Skipped(rule.where, str(rule.sid), "there is one of this sid already"))
            else:
                self.metadata[str(rule.sid)] = snort.about(rule)
                self.rules += [rule] if self.wanted(rule.sid) else []
        self.skipped += [one for one in skipped if self.wanted(one.sid)]

    def wanted(self, sid: int | str) -> bool:
        """Tells whether --sid names a rule, or no rule at all."""
        return not self.options.sid or str(sid) in self.options.sid

    def translate(self, six: bool) -> None:
        """Turns all rules into lines of a family."""
        variables = dict(self.variables, **self.options.variables)
        for rule in self.rules:
            try:
                most = self.options.max_rules or TOP
                if self.counts[six]["rules"] >= most:
                    raise ValueError("over --max-rules %d" % most)
                self.add(rule, translate(rule, variables, six), six)
            except ValueError as error:
                self.reasons[six].append(snort.Skipped(rule.where, str(rule.sid), str(error)))

    def add(self, rule: snort.Rule, found: Translated, six: bool) -> None:
        """Enters the lines of one rule."""
        number = self.counts[six]["rules"] + 1
        passes, plain, established = self.lines[six]
        mark = "[%d] SID%d " % (number, rule.sid) + ("ESTAB " if found.established else "")
        said = ["-m", "comment", "--comment", comment(rule.sid, self.metadata[str(rule.sid)])]
        lines = []
        for words in found.matches:
            if rule.action == "pass":
                state = ["-m", "conntrack", "--ctstate", "ESTABLISHED"] if found.established else []
                lines.append([*words, *state, *said, "-j", "RETURN"])
                continue
            lines.append([*words, *LIMIT, *said, *self.log(mark, rule.proto)])
            if self.options.reject and found.rejects:
                lines.append([*words, *said, *refusal(rule, six)])
        chain = ESTAB if found.established and rule.action != "pass" else CHAIN
        texts = ["-A %s %s" % (chain, " ".join(map(word, line))) for line in lines]
        if max(map(len, texts)) > LONGEST:
            raise ValueError("longer than a line of iptables-restore")
        (passes if rule.action == "pass" else established if found.established else plain).extend(texts)
        self.counts[six].update(rules=1, lines=len(texts), guessed=int(found.approximate))

    def log(self, mark: str, proto: str) -> list[str]:
        """Returns the words of the target that logs."""
        if self.options.nflog is not None:
            return ["-j", "NFLOG", "--nflog-group", str(self.options.nflog), "--nflog-prefix", mark]
        return ["-j", "LOG", "--log-ip-options"] + ["--log-tcp-options"] * (proto == "tcp") + ["--log-prefix", mark]

    def jumps(self) -> list[tuple[str, str]]:
        """Returns the rules of other chains that lead to ours, without their verbs."""
        here = "! -i lo "
        if not self.options.first_packets:
            return [(hook, here + "-j " + CHAIN) for hook in HOOKS]
        head = (
            "-m connbytes --connbytes 0:%d --connbytes-mode packets --connbytes-dir both " % self.options.first_packets
        )
        # What belongs to no connection, as many a scan, has no count of packets.
        odd = "-m conntrack --ctstate INVALID,UNTRACKED "
        return [(hook, here + which + "-j " + CHAIN) for hook in HOOKS for which in (odd, head)]

    def chains(self, six: bool) -> list[str]:
        """Returns the lines that make and fill our chains."""
        passes, plain, established = self.lines[six]
        across = ["-A %s -m conntrack --ctstate ESTABLISHED -j %s" % (CHAIN, ESTAB)] if established else []
        return [":%s - [0:0]" % CHAIN, ":%s - [0:0]" % ESTAB, *passes, *across, *plain, *established]


def refusal(rule: snort.Rule, six: bool) -> list[str]:
    """Returns the target of a rule that wants packets turned away."""
    if rule.action in ("drop", "sdrop"):
        return ["-j", "DROP"]
    if rule.proto == "tcp":
        return ["-j", "REJECT", "--reject-with", "tcp-reset"]
    return ["-j", "REJECT", "--reject-with", "icmp6-port-unreachable" if six else "icmp-port-unreachable"]


def restore(lines: list[str]) -> str:
    """Returns lines as the input of one transaction in the table `filter`."""
    return "*filter\n%s\nCOMMIT\n" % "\n".join(lines)


def run(*argv: str, text: str | None = None) -> str:
    """Runs a command without a shell; returns what it printed. Raises PortError."""
    try:
        done = subprocess.run(argv, input=(text or "").encode(), capture_output=True, timeout=WAIT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PortError(argv[0], str(error)) from None
    if done.returncode:
        raise PortError(argv[0], done.stderr.decode("utf-8", "replace").strip() or "status %d" % done.returncode)
    return done.stdout.decode("utf-8", "replace")


def listing(tool: str) -> tuple[list[str], bool]:
    """Returns (lines that take away our jumps, whether our chains are there), as the table is now."""
    table = run(tool, "-w", "-S").splitlines()
    ends = ("-j " + CHAIN, "-j " + ESTAB)
    gone = ["-D" + line[2:] for line in table if line.startswith("-A ") and line.endswith(ends)]
    ours = ("-D %s " % CHAIN, "-D %s " % ESTAB)
    return [line for line in gone if not line.startswith(ours)], "-N " + CHAIN in table


def change(six: bool, lines: list[str], test: bool = False) -> None:
    """Puts lines into a family's table, all or none."""
    words = ["--test"] if test else []
    run(TOOLS[six] + "-restore", "--noflush", "-w", *words, text=restore(lines))


def remove(families: Sequence[bool]) -> None:
    """Takes our jumps and chains away, in one transaction for each family."""
    for six in families:
        lines, there = listing(TOOLS[six])
        if there:
            names = (CHAIN, ESTAB)
            change(six, lines + [":%s - [0:0]" % name for name in names] + ["-X " + name for name in names])


def apply(ruleset: Ruleset, families: Sequence[bool]) -> None:
    """Puts the chains in force in place of what was there; no family is touched unless each takes its lines."""
    wanted = {}
    for six in families:
        jumps = ["-I %s 1 %s" % jump for jump in ruleset.jumps()]
        wanted[six] = ruleset.chains(six) + listing(TOOLS[six])[0] + jumps
    for test in (True, False):
        for six in families:
            change(six, wanted[six], test)


def report(ruleset: Ruleset, families: Sequence[bool]) -> None:
    """Says on stderr what was skipped and why, how much became of the rest, and what it costs."""
    # Once, where both families say the same of a rule.
    for one in dict.fromkeys(ruleset.skipped + [one for six in families for one in ruleset.reasons[six]]):
        print(printable("%s: SID %s: skipped: %s" % one, 400), file=sys.stderr)
    total = len(ruleset.rules) + len(ruleset.skipped)
    for six in families:
        counts = ruleset.counts[six]
        text = "%s: %d of %d rules translated (%d by literals of their pcre), %d skipped; %d lines"
        skipped = len(ruleset.skipped) + len(ruleset.reasons[six])
        print(text % (TOOLS[six], counts["rules"], total, counts["guessed"], skipped, counts["lines"]), file=sys.stderr)
    most = max(ruleset.counts[six]["lines"] for six in families)
    if not ruleset.options.first_packets:
        text = "warning: --first-packets 0: every packet of every connection passes %d lines"
        print(text % most + "; with 1,350 of them a stream fell from 1,300 to 48 MB/s", file=sys.stderr)


def variable(text: str) -> tuple[str, str]:
    """Reads NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not re.fullmatch(r"\w+", name) or not value.strip():
        raise argparse.ArgumentTypeError("%s: write NAME=VALUE, as in HTTP_PORTS=[80,8080]" % text)
    return name, value.strip()


def sids(text: str) -> set[str]:
    """Reads numbers with commas between them."""
    try:
        return {str(int(part)) for part in text.split(",")}
    except ValueError:
        raise argparse.ArgumentTypeError("%s: write numbers, as in 2000500,2000501" % text) from None


def number(top: int) -> Callable[[str], int]:
    """Returns a reader of numbers from 0 to `top`."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > 9 or int(text) > top:
            raise argparse.ArgumentTypeError("%s: write a number from 0 to %d" % (text, top))
        return int(text)

    return read


def parsed(words: list[str]) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(prog="tinyknop rules", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help='Snort 2 rules, or a snort.conf with "var" lines')
    family = parser.add_mutually_exclusive_group()
    family.add_argument("-4", dest="family", action="store_const", const=(False,), help="IPv4 alone")
    family.add_argument("-6", dest="family", action="store_const", const=(True,), help="IPv6 alone")
    parser.add_argument("-o", "--output", metavar="DIR", help="writes rules.v4 and rules.v6 there, and rules.json")
    parser.add_argument("--apply", action="store_true", help="puts them in force, in place of those before")
    parser.add_argument("--remove", action="store_true", help="takes all of them away")
    parser.add_argument("--metadata", metavar="FILE", help="where to keep what rules say of themselves, as JSON")
    parser.add_argument("--sid", type=sids, action="append", help="only these rules (numbers with commas)")
    parser.add_argument("--max-rules", type=number(TOP), default=MOST, help="at most so many (%(default)s; 0: all)")
    parser.add_argument("--first-packets", type=number(65535), default=16, metavar="N",
                        help="looks at the first N packets of a connection (%(default)s; 0: at all)")  # fmt: skip
    parser.add_argument(
        "--var", type=variable, action="append", default=[], help="NAME=VALUE, as HOME_NET=192.0.2.0/24"
    )
    parser.add_argument("--nflog", type=number(65535), metavar="GROUP", help="logs to this NFLOG group, not to LOG")
    parser.add_argument("--reject", action="store_true", help="obeys rules that drop, reject or have resp")
    options = parser.parse_args(words)
    options.sid = set().union(*options.sid) if options.sid else None
    options.variables = dict(options.var)
    if not options.files and not options.remove:
        parser.error("name a file of rules, or --remove")
    if options.remove and (options.files or options.apply):
        parser.error("--remove stands alone")
    printed = not (options.apply or options.remove or options.output)  # one input, for one tool
    options.family = options.family or ((False,) if printed else (False, True))
    return options


def load(path: str) -> str:
    """Returns a rule file's text; raises ConfigError."""
    try:
        with open(path, encoding="latin-1", newline="\n") as file:
            text = file.read(LARGEST + 1)
    except OSError as error:
        raise ConfigError(path, "cannot be read: %s" % error.strerror) from None
    if len(text) > LARGEST:
        raise ConfigError(path, "larger than %d MB: no rule file" % (LARGEST >> 20))
    return text


def keep(path: str, text: str) -> None:
    """Writes a file in the place of one that may be there; readers see the old or the new one. Raises ConfigError."""
    try:
        os.makedirs(os.path.dirname(path) or ".", mode=0o700, exist_ok=True)
        keygen.replace(path + ".new", text)
        os.replace(path + ".new", path)
    except OSError as error:
        raise ConfigError(path, "cannot be written: %s" % error.strerror) from None


def main(words: list[str]) -> int:
    """Runs the command; returns the exit status: 1 where not one rule was translated."""
    options = parsed(words)
    if options.remove:
        remove(options.family)
        return 0
    ruleset = Ruleset(options)
    for path in options.files:
        ruleset.read(path, load(path))
    for six in options.family:
        ruleset.translate(six)
    metadata = options.metadata or (os.path.join(options.output, "rules.json") if options.output else None)
    if metadata or options.apply:
        keep(metadata or METADATA, json.dumps(ruleset.metadata, indent=1) + "\n")
    jumps = ["-I %s 1 %s" % jump for jump in ruleset.jumps()]
    texts = {six: restore(ruleset.chains(six) + jumps) for six in options.family}
    if options.output:
        for six in options.family:
            keep(os.path.join(options.output, "rules.v6" if six else "rules.v4"), texts[six])
    report(ruleset, options.family)
    if options.apply:
        apply(ruleset, options.family)
    elif not options.output:
        note = "printed: input for %s-restore --noflush; -4 or -6 chooses, --output DIR writes both"
        print(note % TOOLS[options.family[0]], file=sys.stderr)
        sys.stdout.write(texts[options.family[0]])
    return 0 if any(ruleset.counts[six]["rules"] for six in options.family) else 1
