"""`tinyknop watch FILE`: scores a firewall's log as psad does, and says which rules its lines with a SID stand for."""

from __future__ import annotations

import argparse
import json
import sys

from tinyknop import net
from tinyknop.errors import ConfigError
from tinyknop.host.status import table
from tinyknop.watch import outfit
from tinyknop.watch.parse import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tinyknop.watch.score import Source
    from tinyknop.watch.sids import Sids

    Row = dict[str, Any]  # of the answer, as JSON has it

LONGEST = 65536  # bytes of a line; what is longer is read in pieces, none of which is a line of LOG
NOTES = ("msg", "classtype", "priority", "rev", "reference", "content", "metadata")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of our words."""
    made = argparse.ArgumentParser("tinyknop watch", description="Scores who scans us, by the firewall's log.")
    made.add_argument("file", metavar="FILE", help="the log, as syslog or dmesg writes it; - for the input")
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("--level", type=int, default=1, metavar="N", help="leave out sources below danger level N (1)")
    made.add_argument("--psad", metavar="DIR", help="psad's folder (/etc/psad), whose files are read unchanged")
    for name in sorted(outfit.FILES):
        text = "psad's %s, wherever it is" % outfit.FILES[name]
        made.add_argument("--" + name.replace("_", "-"), dest=name, metavar="FILE", help=text)
    text = "Snort rules, a folder of them, or the JSON of `tinyknop rules`; may be given more than once"
    made.add_argument("--rules", action="append", default=[], metavar="PATH", help=text)
    return made


def lines(path: str) -> Iterator[bytes]:
    """Yields the lines of a log; raises ConfigError where it cannot be read."""
    try:
        with sys.stdin.buffer if path == "-" else open(path, "rb") as file:
            while True:
                line = file.readline(LONGEST)
                if not line:
                    return
                yield line
    except OSError as error:
        raise ConfigError(path, "cannot read it (%s)" % error.strerror) from None


def matched(source: Source, sids: Sids) -> list[Row]:
    """Returns what a source's packets matched: the signatures, and the rules of lines with a SID."""
    found = []
    for sid, (message, count, event) in sorted(source.sids.items()):
        row = {"sid": sid, "msg": message, "packets": count, "port": event.dport, "flags": event.flags}
        row.update(chain=event.chain, protocol=event.proto)
        if event.sid == sid:
            rule = sids.find(sid) or {}
            row.update({name: rule[name] for name in NOTES if name in rule})
        found.append(row)
    return found


def scored(options: argparse.Namespace) -> Row:
    """Returns what a log comes to, as lists and dicts; raises ConfigError."""
    named = {name: getattr(options, name) or "" for name in outfit.FILES}
    named.update(psad=options.psad or "", rules=",".join(options.rules), where="tinyknop watch")
    scorer, sids = outfit.scorer(named)
    count = packets = 0
    for line in lines(options.file):
        count += 1
        event = parse(line, scorer.limits.mark)
        if event is not None:
            packets += 1
            scorer.score(event)
    rows = []
    for address, source in scorer.sources():
        level = scorer.final(source)
        if level >= options.level:
            row = {"source": net.printed(address), "level": level, "packets": source.packets}
            row.update(hosts=len(source.hosts), matched=matched(source, sids))
            rows.append(row)
    rows.sort(key=lambda row: (-row["level"], -row["packets"]))
    return {"lines": count, "packets": packets, "forgotten": scorer.forgotten, "sources": rows}


def rule_lines(row: Row) -> list[str]:
    """Returns the lines about a rule or signature that a source matched."""
    name = row["msg"] or "a rule that is not at hand (--rules)"
    found = ["    %s" % name]
    where = "%s port %d" % (row["protocol"], row["port"]) if row["port"] >= 0 else row["protocol"]
    flags = ", flags %s" % row["flags"] if row["flags"] else ""
    found.append("      sid %d, %s%s, chain %s, %d packets" % (row["sid"], where, flags, row["chain"], row["packets"]))
    if row.get("classtype"):
        found.append("      classtype: %s" % row["classtype"])
    for title in ("content", "reference"):
        found += ["      %s: %s" % (title, text) for text in row.get(title, ())]
    found += ["      %s: %s" % pair for pair in row.get("metadata", {}).items()]
    return found


def printed(answer: Row) -> list[str]:
    """Returns the lines that people read."""
    text = "%d lines, %d of a firewall; %d sources at a danger level"
    found = [text % (answer["lines"], answer["packets"], len(answer["sources"]))]
    rows = [["source", "level", "packets", "hosts", "matched"]] if answer["sources"] else []
    for row in answer["sources"]:
        rows.append([row["source"]] + ["%d" % row[name] for name in ("level", "packets", "hosts")])
        rows[-1].append("%d" % len(row["matched"]))
    found += table(rows)
    for row in answer["sources"]:
        if row["matched"]:
            found.append("%s matched:" % row["source"])
            found += [line for one in row["matched"] for line in rule_lines(one)]
    if answer["forgotten"]:
        found.append("warning: more sources than are remembered: %d were forgotten" % answer["forgotten"])
    return found


def main(words: list[str]) -> int:
    """Prints what a log comes to; exit status 0 whatever was found, 1 where a file cannot be read."""
    options = parser().parse_args(words)
    answer = scored(options)
    print(json.dumps(answer) if options.json else "\n".join(printed(answer)))
    return 0
