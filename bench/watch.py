"""How fast a firewall's log is scored, beside Debian's psad on the same log with the same signatures."""

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tests.core.watching import icmp, tcp, udp
from tests.real.test_watch import PSAD, levels_of_ours, levels_of_psad, private

TITLE = "Log watch"
LINES = 2000  # what psad reads in some ten seconds
MANY = 50000
RUNS = 3
NOTE = """
The same log for both: scans by 100 sources, with psad's own signatures and tables; psad as `psad --test-mode -A -m
FILE`, without whois, DNS and mail, tinyknop as `tinyknop watch FILE --psad DIR`. Each figure is the median of %d runs
in turn. Both gave every source the same danger level. psad was not run on the long log: it would take minutes.
"""


def log(count):
    """Returns the lines of scans by a hundred sources, of all kinds, mixed."""
    rng, found = random.Random(5), []
    for _ in range(count):
        source = b"203.0.113.%d" % rng.randrange(100)
        kind = rng.randrange(10)
        if kind < 7:
            found.append(tcp(source, rng.randrange(1, 65536), rng.choice((b"SYN", b"SYN", b"FIN", b"ACK"))))
        else:
            found.append(udp(source, rng.randrange(1, 65536)) if kind < 9 else icmp(source, rng.choice((8, 13, 99))))
    return found


def timed(argv):
    """Returns the seconds that a command takes, from its start to its end."""
    began = time.monotonic()
    subprocess.run(argv, stdout=subprocess.DEVNULL, check=True, env=dict(os.environ, PYTHONPATH=sys.path[0]))
    return time.monotonic() - began


def ours(home, path):
    """Returns the seconds of `tinyknop watch` with psad's files."""
    return timed([sys.executable, "-m", "tinyknop", "watch", path, "--json", "--psad", os.path.join(home, "etc")])


def measured(home):
    """Returns (seconds of psad, of ours, of ours for many lines), each the median of runs in turn."""
    few, many, one = [os.path.join(home, name) for name in ("few", "many", "one")]
    for path, count in ((few, LINES), (many, MANY), (one, 1)):
        with open(path, "wb") as file:
            file.write(b"\n".join(log(count)) + b"\n")
    found = [[], [], [], [], []]
    for number in range(RUNS):
        print("watch: run %d of %d" % (number + 1, RUNS), file=sys.stderr)
        for row, path in ((0, few), (1, one)):
            with open(path, "rb") as file:
                lines = file.read().splitlines()
            began = time.monotonic()
            theirs = levels_of_psad(home, lines)
            found[row].append(time.monotonic() - began)
            if row == 0 and number == 0 and levels_of_ours(home, lines) != theirs:
                raise RuntimeError("the levels are not psad's")
        for row, path in ((2, few), (3, one), (4, many)):
            found[row].append(ours(home, path))
    return [statistics.median(row) for row in found]


def run():
    """Returns the section of docs/bench.md."""
    home = tempfile.mkdtemp(prefix="tinyknop-watch-")
    try:
        private(home, PSAD)
        psad, psad_start, few, start, many = measured(home)
    finally:
        shutil.rmtree(home)
    rates = [LINES / (psad - psad_start), LINES / max(few - start, 0.001), (MANY - LINES) / (many - few)]
    text = "| | psad | tinyknop |\n|---|---|---|\n"
    text += "| a log of one line | %.2f s | %.2f s |\n" % (psad_start, start)
    text += "| a log of %s lines | %.2f s | %.2f s |\n" % (format(LINES, ","), psad, few)
    text += "| a log of %s lines | not run | %.2f s |\n" % (format(MANY, ","), many)
    text += "| lines per second, less the start | %d | %d (%.0f) |\n" % (rates[0], rates[2], rates[2] / rates[0])
    return text + NOTE % RUNS


if __name__ == "__main__":
    print(run())
