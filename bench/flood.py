"""True knocks under a flood at the machine's full rate: how many open within a second, how soon, at what cost.

Run by `python bench/bench.py flood`; alone it prints its section: flood.py [SECONDS [SOURCES]...].
"""

import statistics
import sys
import time
from collections import namedtuple

import common
from common import Probe, packet, say

from tests.real import floods
from tests.real.test_ports_alike import Place

TITLE = "Under a flood"
SOURCES = (1, 64, 500, 0)  # 0: every packet from a random forged one
SECONDS = 8
PERIOD = 0.1  # seconds between two true knocks
LIMIT = 1.0  # seconds in which a knock must open
LOOK = 0.0001  # seconds between two looks at the ports: the resolution, for a tenth of a core
CONTENDERS = (common.FWKNOPD, common.IPSET, common.HINTED)
HOW = """A flood of packets that look like knocks (204 characters of base64), as fast as this machine sends them beside
the daemon, from one source, from some, or each from a forged one; every tenth of a second a true knock from another
source. Each cell: the share of these that opened within a second; their median time from knock to opening; bogus
packets a second; what the daemon used of one core, in which a capture of the kernel's does not show."""

# share: of the true knocks opened within LIMIT; late_share: of those after the first second; median: ms or None;
# rate: bogus packets a second; cpu: of the daemon, in cores; grown: MB of memory.
Result = namedtuple("Result", "share late_share median rate cpu grown")


def measure(contender, sources, seconds=SECONDS):
    """Returns the Result for a daemon under a flood."""
    with Place(contender.kind) as network:
        daemon, hinted = contender.start(network, 1), contender is common.HINTED
        count = int(seconds / PERIOD)
        probe = Probe(network, count + 1)
        knocks = [packet(number, hinted=hinted) for number in range(count + 1)]
        probe.knock(knocks[count])  # whatever is loaded at the first knock is loaded now
        time.sleep(1)
        flood = floods.Flood(network, sources, seconds + LIMIT)
        used, begun, held = -daemon.cpu(), time.perf_counter(), daemon.rss_kb()
        sent, opened = _knock_and_look(probe, knocks[:count], begun)
        used, lasted = used + daemon.cpu(), time.perf_counter() - begun
        grown = (daemon.rss_kb() - held) / 1024
        rate = flood.rate()
        probe.close()
        daemon.stop()
    took = [(opened[number] - sent[number]) * 1000 for number in opened]
    late = int(1 / PERIOD)
    late_share = sum(number >= late for number in opened) / (count - late)
    return Result(
        len(opened) / count, late_share, statistics.median(took) if took else None, rate, used / lasted, grown
    )


def _knock_and_look(probe, knocks, begun):
    """Sends each knock in its time and watches its port for LIMIT; returns when each was sent, and opened."""
    sent, opened, pending = {}, {}, []
    while len(sent) < len(knocks) or pending:
        now = time.perf_counter()
        if len(sent) < len(knocks) and now >= begun + len(sent) * PERIOD:
            number = len(sent)
            sent[number] = now
            probe.knock(knocks[number])
            pending.append(number)
        for number in list(pending):
            if probe.open(number):
                opened[number] = time.perf_counter()
                pending.remove(number)
            elif now - sent[number] > LIMIT:
                pending.remove(number)
        time.sleep(LOOK)
    return sent, opened


def shown(found):
    """Returns a Result as one cell."""
    median = "-" if found.median is None else "%.2f ms" % found.median
    words = (found.share * 100, median, found.rate, found.cpu * 100)
    return "%.0f %%, %s; %.0f /s, CPU %.0f %%" % words


def run(seconds=SECONDS, floods_from=SOURCES):
    """Measures all; returns the section."""
    rows, notes = [], []
    for sources in floods_from:
        name = "%d source%s" % (sources, "s"[: sources > 1]) if sources else "forged sources"
        row = [name]
        for contender in CONTENDERS:
            found = measure(contender, sources, seconds)
            row.append(shown(found))
            words = (name, contender.name, found.late_share * 100, found.grown)
            say("%s, %s: %s" % (name, contender.name, row[-1]))
            notes.append("%s, %s: %.0f %%, %.1f MB" % words)
        rows.append(row)
    late = "After the first second, and growth of memory: %s." % "; ".join(notes)
    return "\n\n".join([common.table(["flood from", *[one.name for one in CONTENDERS]], rows), HOW, late])


if __name__ == "__main__":
    common.prepare()
    print(run(float((sys.argv + [SECONDS])[1]), [int(text) for text in sys.argv[2:]] or SOURCES))
