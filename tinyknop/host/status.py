"""`tinyknop status`: asks the running daemon what is open and what it refused."""

import argparse
import json
import os
import socket
import time

from tinyknop.errors import ConfigError

STATE_DIR = "/var/lib/tinyknop"
CONFIG = "/etc/tinyknop/tinyknop.toml"
WAIT_S = 5  # the daemon answers between two packets; a minute-long port never holds it up
LONGEST = 64 << 20  # bytes; 65,536 grants are 10 MB


def ask(path, words=()):
    """Returns what the daemon says at its socket to some words, as a dict; raises ConfigError where nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(WAIT_S)
        try:
            caller.connect(path)
            caller.sendall(json.dumps(words).encode() + b"\n")
            pieces = b""
            while len(pieces) < LONGEST:
                piece = caller.recv(65536)
                if not piece:
                    break
                pieces += piece
        except PermissionError:
            raise ConfigError(path, "only the daemon's user may ask: run it as that user or root") from None
        except OSError as error:
            raise ConfigError(path, "nobody answers (%s): does `tinyknop serve` run?" % error) from None
    try:
        return json.loads(pieces)
    except ValueError:
        raise ConfigError(path, "the answer is not JSON: is this tinyknop's socket?") from None


def table(rows):
    """Returns rows of texts as lines, columns aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return ["  " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]


def _openings(grant):
    return ",".join(item if isinstance(item, str) else "%s/%s" % tuple(item) for item in grant.get("openings", ()))


def _thing(item):
    """Returns a port or capture of the answer as one line."""
    line = str(item.get("device", ""))
    if item.get("failure"):
        line += ": " + item["failure"]
    for name in ("owed", "received", "dropped"):
        if item.get(name):
            line += ", %s %s" % (name, item[name])
    return line


def opened(answer, now):
    """Returns the lines about what is open, and about closes that some device has not confirmed."""
    lines = ["open now: %d" % len(answer.get("grants", ()))]
    rows = []
    for grant in answer.get("grants", ()):
        left = "%d s left" % max(0, grant.get("until", now) - now)
        who = (str(grant.get("source", "")), _openings(grant), left, str(grant.get("stanza", "")))
        rows.append(["%s:" % grant.get("id"), *who])
    lines += table(rows)
    owed = [["%s:" % g["id"], g["source"], _openings(g), "by " + ",".join(g["ports"])] for g in answer.get("owed", ())]
    return lines + (["closes owed: %d" % len(owed)] if owed else []) + table(owed)


def printed(answer, now):
    """Returns the lines that people read."""
    lines = opened(answer, now)
    counted = [(name, count) for name, count in answer.get("counters", {}).items() if count]
    lines.append("since the start:" if counted else "since the start: no packet")
    lines += table([[name, str(count)] for name, count in counted])
    for title in ("ports", "captures"):
        if answer.get(title):
            lines.append(title + ":")
            lines += table([[_thing(item)] for item in answer[title]])
    return lines


def socket_of(options):
    """Returns the socket's path: as given, from the configuration's state_dir, or the default one."""
    if options.socket:
        return options.socket
    state_dir = STATE_DIR
    if options.config or os.path.exists(CONFIG):
        from tinyknop import config

        state_dir = config.load(options.config or CONFIG)[0].state_dir
    return os.path.join(state_dir, "tinyknop.sock")


def parser(name, text):
    """Returns a parser that knows where the daemon's socket is."""
    made = argparse.ArgumentParser("tinyknop " + name, description=text)
    where = made.add_mutually_exclusive_group()
    where.add_argument("-c", "--config", metavar="FILE", help="the daemon's configuration (%s)" % CONFIG)
    where.add_argument("--socket", metavar="PATH", help="the daemon's socket (%s/tinyknop.sock)" % STATE_DIR)
    return made


def main(words):
    """Prints what the daemon says."""
    made = parser("status", "Shows what is open and what was refused.")
    made.add_argument("--json", action="store_true", help="as the daemon sent it")
    options = made.parse_args(words)
    answer = ask(socket_of(options))
    print(json.dumps(answer) if options.json else "\n".join(printed(answer, int(time.time()))))
    return 0
