"""`tinyknop status`: asks the running daemon what is open, what it refused, and how its captures and ports are."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time

from tinyknop.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Answer = dict[str, Any]  # the daemon's JSON

STATE_DIR = "/var/lib/tinyknop"
CONFIG = "/etc/tinyknop/tinyknop.toml"
SOCKET = "tinyknop.sock"  # in the state directory
WAIT_S = 5  # the daemon answers between two packets; a minute-long port never holds it up
LONGEST = 64 << 20  # bytes; 100,000 grants are 16 MB
WATCH_S = 2
CLEAR = "\33[H\33[2J"  # of a terminal
UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def ask(path: str, words: Sequence[str] = ()) -> Answer:
    """Returns what the daemon says at its socket to some words, as a dict; raises ConfigError where nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(WAIT_S)
        try:
            caller.connect(path)
            caller.sendall(json.dumps(words).encode() + b"\n")
            pieces = bytearray()  # bytes would be copied for each piece of a list of thousands
            while len(pieces) < LONGEST:
                piece = caller.recv(65536)
                if not piece:
                    break
                pieces += piece
        except PermissionError:
            raise ConfigError(path, "only the daemon's user may ask: run it as that user or root") from None
        except OSError as error:
            remedy = "does the daemon run? With another state_dir, as fwknopd.conf has, say -c FILE or --socket PATH"
            raise ConfigError(path, "nobody answers (%s): %s" % (error.strerror or error, remedy)) from None
    try:
        answer = json.loads(pieces)
        if isinstance(answer, dict):
            return answer
    except (ValueError, RecursionError):
        pass
    raise ConfigError(path, "the answer is not JSON as the daemon says it: is this tinyknop's socket?")


def plain(text: str) -> str:
    """Returns a text that cannot steer a terminal: a device's last words may stand in it, and a packet's."""
    return "".join(c if c.isprintable() else "?" for c in text)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns rows of texts as lines, columns aligned."""
    rows = [[plain(text) for text in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return ["  " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]


def lasted(seconds: int) -> str:
    """Returns a time as people say it: "42 s", "5 min 3 s", "3 d 4 h"; the two largest units."""
    words: list[str] = []
    for size, unit in UNITS:
        if seconds >= size or (unit == "s" and not words):
            words.append("%d %s" % (seconds // size, unit))
            seconds %= size
    return " ".join(words[:2])


def clock(second: int) -> str:
    """Returns a wall-clock second in local time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


def _openings(grant: dict[str, Any]) -> str:
    return ",".join(item if isinstance(item, str) else "%s/%s" % tuple(item) for item in grant.get("openings", ()))


def _health(item: dict[str, Any], now: int) -> str:
    """Returns what is wrong with a port or capture and since when, or "works"."""
    since = item.get("failing_since")
    failure: str = item.get("failure") or ("the interface is down" if since else "")
    if failure and since:
        failure += ", for %s (since %s)" % (lasted(max(now - since, 0)), clock(since))
    return failure or ("works, but " + item["doubt"] if item.get("doubt") else "works")


def ports(answer: Answer, now: int) -> list[str]:
    """Returns the lines about ports: their health, and the closes that they owe."""
    rows = []
    for item in answer.get("ports", ()):
        owed = ", owed %d" % item["owed"] if item.get("owed") else ""
        rows.append(["%s: %s%s" % (item.get("device", ""), _health(item, now), owed)])
    return ["ports:"] + table(rows) if rows else []


def captures(answer: Answer, now: int) -> list[str]:
    """Returns the lines about captures: their health, what they heard and what was lost."""
    rows = []
    for item in answer.get("captures", ()):
        heard = "%d received, %d dropped" % (item.get("received", 0), item.get("dropped", 0))
        rows.append([item.get("device", "") + ":", heard, _health(item, now)])
    return ["captures:"] + table(rows) if rows else []


def stanzas(answer: Answer, now: int) -> list[str]:
    """Returns the lines about stanzas: when each one was last used."""
    listed = answer.get("stanzas", ())
    rows = []
    for name, last, knocks in listed:
        ago = "last %s ago (%s)" % (lasted(max(now - last, 0)), clock(last)) if last else ""
        rows.append([str(name), "%d knock%s" % (knocks, "s" * (knocks != 1)) if knocks else "no knock", ago])
    more = answer.get("stanza_count", len(listed)) - len(listed)
    rest = ["  and %d more, which knocked earlier or never" % more] if more > 0 else []
    return ["stanzas:"] + table(rows) + rest if rows else []


def opened(answer: Answer, now: int) -> list[str]:
    """Returns the lines about what is open, and about closes that some device has not confirmed."""
    grants = answer.get("grants", ())
    count = answer.get("open", len(grants))
    down = {str(item.get("name")) for item in answer.get("ports", ()) if item.get("failure")}
    rows = []
    for grant in grants:
        left = "%d s left" % max(0, grant.get("until", now) - now)
        who = (str(grant.get("source", "")), _openings(grant), left, str(grant.get("stanza", "")))
        doubt = ", ".join(sorted(down.intersection(grant.get("ports", ()))))
        rows.append(["%s:" % grant.get("id"), *who, "port %s is down" % doubt if doubt else ""])
    lines = ["open now: %d" % count] + table(rows)
    if count > len(rows):
        lines.append("  and %d more: `tinyknop list` shows all" % (count - len(rows)))
    owed = [["%s:" % g["id"], g["source"], _openings(g), "by " + ",".join(g["ports"])] for g in answer.get("owed", ())]
    return lines + (["closes owed: %d" % len(owed)] if owed else []) + table(owed)


def watched(answer: Answer) -> list[str]:
    """Returns the lines about those who scan us, where that is looked at."""
    found = answer.get("watch")
    if not found:
        return []
    blocked = found.get("blocked", ())
    counts = (found.get("lines", 0), found.get("packets", 0), len(blocked))
    lines = [plain("watched: %s: %d lines, %d packets, %d blocked" % (found.get("device", ""), *counts))]
    rows = []
    for row in found.get("sources", ()):
        rows.append([row["source"], "danger %d" % row["level"], "%d packets" % row["packets"]])
        rows[-1] += ["%d hosts" % row.get("hosts", 1), "blocked" if row["source"] in blocked else ""]
    return lines + table(rows)


def refused(answer: Answer) -> list[str]:
    """Returns the lines about the packets refused last: when, from where, how long, at which stage."""
    rows = []
    for second, stage, size, source, stanza in sorted(answer.get("refused", ()), reverse=True)[:10]:
        rows.append([clock(second), source, "%d bytes" % size, stage, "stanza %s" % stanza if stanza else ""])
    return ["refused last (`tinyknop explain` says more):"] + table(rows) if rows else []


def printed(answer: Answer, now: int) -> list[str]:
    """Returns the lines that people read."""
    lines = []
    if answer.get("started"):
        lines.append("running for %s, since %s" % (lasted(max(now - answer["started"], 0)), clock(answer["started"])))
    lines += captures(answer, now) + ports(answer, now) + opened(answer, now) + stanzas(answer, now)
    lines += watched(answer)
    counted = [(name, count) for name, count in answer.get("counters", {}).items() if count]
    lines.append("since the start:" if counted else "since the start: no packet")
    return lines + table([[name, str(count)] for name, count in counted]) + refused(answer)


def socket_of(options: argparse.Namespace) -> str:
    """Returns the socket's path: as given, from the configuration's state_dir, or the default one."""
    named: str | None = options.socket
    if named:
        return named
    state_dir = STATE_DIR
    if options.config or os.path.exists(CONFIG):
        from tinyknop import config

        try:
            state_dir = config.load(options.config or CONFIG, unsaid)[0].state_dir
        except ConfigError as error:  # the daemon may run with what was there before
            if options.config:
                raise
            print("%s; asking in %s" % (error, STATE_DIR), file=sys.stderr)
    return os.path.join(state_dir, SOCKET)


def unsaid(text: str) -> None:
    """Says nothing of what is odd about a file of fwknop's: a daemon runs with it all the same, and has said it."""


def parser(name: str, text: str) -> argparse.ArgumentParser:
    """Returns a parser that knows where the daemon's socket is."""
    made = argparse.ArgumentParser("tinyknop " + name, description=text)
    where = made.add_mutually_exclusive_group()
    where.add_argument("-c", "--config", metavar="FILE", help="the daemon's configuration (%s)" % CONFIG)
    where.add_argument("--socket", metavar="PATH", help="the daemon's socket (%s/tinyknop.sock)" % STATE_DIR)
    return made


def state(path: str) -> Answer:
    """Returns the daemon's state, of what is open only the first and how much there is; raises ConfigError."""
    answer = ask(path, ("status",))
    if "error" in answer:
        raise ConfigError(path, "%s: is the daemon an older one? Restart it" % plain(str(answer["error"])))
    return answer


def shown(path: str, options: argparse.Namespace) -> str:
    """Returns the text that was asked for."""
    answer = state(path)
    if options.metrics:
        from tinyknop.host import metrics

        return metrics.text(answer).rstrip("\n")
    if options.json:
        return json.dumps(answer)
    return "\n".join(printed(answer, answer.get("now") or int(time.time())))


def watch(path: str, options: argparse.Namespace) -> int:
    """Shows the state again and again, until somebody interrupts it; a daemon that is away may come back."""
    try:
        while True:
            try:
                text = shown(path, options)
            except ConfigError as error:
                text = str(error)
            print((CLEAR if sys.stdout.isatty() else "") + text, flush=True)
            time.sleep(options.watch)
    except KeyboardInterrupt:
        return 0


def seconds(text: str) -> float:
    """Reads the pause between two looks; raises argparse's error."""
    try:
        pause = float(text)
    except ValueError:
        pause = 0
    if not 0.1 <= pause <= 86400:
        raise argparse.ArgumentTypeError("%r is not a number of seconds from 0.1 to 86400" % text)
    return pause


def words_parser() -> argparse.ArgumentParser:
    """Returns the parser of our words."""
    made = parser("status", "Shows what is open, what was refused, and how captures and ports are.")
    form = made.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as the daemon sent it")
    form.add_argument("--metrics", action="store_true", help="as Prometheus reads it")
    often = made.add_mutually_exclusive_group()
    often.add_argument(
        "--watch", nargs="?", type=seconds, const=WATCH_S, metavar="SECONDS", help="again and again (%(const)s)"
    )
    often.add_argument(
        "--listen",
        metavar="ADDR:PORT",
        help="with --metrics: answer HTTP there, on loopback only, such as 127.0.0.1:9762",
    )
    return made


def main(words: list[str]) -> int:
    """Prints what the daemon says."""
    made = words_parser()
    options = made.parse_args(words)
    path = socket_of(options)
    if options.listen:
        if not options.metrics:
            made.error("--listen needs --metrics")
        from tinyknop.host import metrics

        return metrics.serve(options.listen, lambda: state(path))
    if options.watch:
        return watch(path, options)
    print(shown(path, options))
    return 0
