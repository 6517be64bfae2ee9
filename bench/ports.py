"""Each port beside fwknopd: how soon a knock opens, alone, among a thousand and in a burst; how openings end; memory.

Run by `python bench/bench.py ports`; alone it prints its section.
"""

import random
import statistics
import time

import common
from common import Probe, cell, packet, say, whole_cpu

from tests.real.test_ports_alike import Place

TITLE = "Ports: from a knock to an opening"
KNOCKS = 40  # for the latency; fwknopd takes a tenth of a second for each
CROWD = 1000  # grants that are open at once
MEANWHILE, BURST_MEANWHILE = 20, 50  # knocks while they are: one by one for the latency, then back to back
TRIAL = 50  # knocks back to back that tell for how long the crowd has to stay open, so that it is all there
LATE = 3  # seconds after its time at which a grant should have ended
STARTS = 3
PATIENCE = 120  # seconds, for the slowest on a busy machine
CONTENDERS = (common.FWKNOPD, *common.IPTABLES, common.IPSET, common.NFTABLES)
ROWS = (  # name, key, format, more is better
    ("knock to open, median", "median", "%.2f ms", False),
    ("knock to open, 95th percentile", "p95", "%.2f ms", False),
    ("the same while 1,000 are open, median", "median crowd", "%.2f ms", False),
    ("the same while 1,000 are open, 95th percentile", "p95 crowd", "%.2f ms", False),
    ("1,000 knocks back to back", "grants", "%.0f /s", True),
    ("of these lost", "lost", "%d", False),
    ("50 back to back while 1,000 are open", "grants crowd", "%.0f /s", True),
    ("CPU to end 1,000", "expiry", "%.2f s", False),
    ("still open %d s after their time" % LATE, "late", "%.0f %%", False),
    ("resident memory, idle", "idle", "%.1f MB", False),
    ("resident memory after a knock", "memory", "%.1f MB", False),
    ("start to first knock accepted", "start", "%.3f s", False),
)
HOW = """The first column is fwknopd with iptables-nft; each other one is tinyknop with that port, in brackets how many
times better. All see the same knocks, from one client. To end 1,000 grants, CPU counts children (iptables), too."""


def timed_knocks(daemon, probe, numbers, seconds=0):
    """Returns the milliseconds from sending a knock until its port is open, for each number."""
    took, rng = [], random.Random(1)
    for number in numbers:
        time.sleep(rng.uniform(0.03, 0.13))  # no rhythm that a round of a tenth of a second could fall in with
        data = packet(number, seconds)
        began = time.perf_counter()
        probe.knock(data)
        if not probe.wait(number, PATIENCE):
            raise RuntimeError("knock %d never opened:\n%s" % (number, daemon.text()[-2000:]))
        took.append((time.perf_counter() - began) * 1000)
    return took


def latency(network, contender):
    """Returns how long a knock takes to open its port while nothing else is open: median and 95th percentile."""
    daemon, probe = contender.start(network, 1), Probe(network, KNOCKS)
    took = timed_knocks(daemon, probe, range(KNOCKS))
    probe.close()
    daemon.stop()
    return {"median": statistics.median(took), "p95": sorted(took)[int(len(took) * 0.95)]}


def back_to_back(probe, numbers, seconds):
    """Returns how many grants a second are made of knocks that arrive back to back."""
    packets = [packet(number, seconds) for number in numbers]
    began = time.perf_counter()
    for data in packets:
        probe.knock(data)
    probe.wait(numbers[-1], PATIENCE)
    return len(numbers) / (time.perf_counter() - began)


def crowd(network, contender):
    """Opens a thousand, knocks in between, and waits until all have ended; returns the numbers of each."""
    daemon, probe = contender.start(network, 1), Probe(network, CROWD + MEANWHILE + BURST_MEANWHILE)
    rate = back_to_back(probe, range(TRIAL), 2)
    time.sleep(3)  # these are gone then
    seconds = int(5 + MEANWHILE / 4 + 2 * len(probe.receivers) / rate)  # the more are open, the slower it gets
    began, found = time.monotonic(), {}
    found["grants"] = back_to_back(probe, range(CROWD), seconds)
    time.sleep(0.5)
    found["lost"] = CROWD - network.held()
    took = timed_knocks(daemon, probe, range(CROWD, CROWD + MEANWHILE), seconds)
    found["median crowd"], found["p95 crowd"] = statistics.median(took), sorted(took)[int(len(took) * 0.95)]
    found["grants crowd"] = back_to_back(probe, range(CROWD + MEANWHILE, len(probe.receivers)), seconds)
    if time.monotonic() > began + seconds - 1:
        say("%s: the first of the crowd ended too soon, after %d s" % (contender.name, seconds))
    found["expiry"], found["late"] = expiry(network, daemon, began + seconds, len(probe.receivers))
    probe.close()
    daemon.stop()
    return found


def expiry(network, daemon, first, total):
    """Returns the seconds of CPU to end a thousand grants, and the percentage still open `LATE` s after their time.

    `first` is when the first of `total` grants ends, by the monotonic clock; one that opens late ends late.
    """
    limit = time.time() + first - time.monotonic() + LATE
    ends = network.ends()
    due = len([end for end in ends if end <= limit]) if ends else total
    used, at = whole_cpu(daemon), time.monotonic()
    time.sleep(1)
    idle = whole_cpu(daemon) - used
    time.sleep(max(first + 2 * LATE - time.monotonic(), 0))
    used = whole_cpu(daemon) - used - idle * (time.monotonic() - at)
    late = len([end for end in network.ends() if end <= limit]) if ends else network.held()
    return (used / (due - late) * CROWD if due > late else None), late / due * 100


def memory_and_start(network, contender):
    """Returns the resident memory in MB before any knock and after one, and the seconds from start to an opening."""
    daemon, probe = contender.start(network, 1), Probe(network, 1)
    time.sleep(1)
    found = {"idle": daemon.rss_kb() / 1024}
    probe.knock(packet(0))
    probe.wait(0, 5)
    time.sleep(1)
    found["memory"] = daemon.rss_kb() / 1024
    probe.close()
    daemon.stop()
    took = []
    for _ in range(STARTS):
        probe, data = Probe(network, 1), packet(0)
        while probe.open(0):  # until the time of the knock before is up
            time.sleep(0.05)
        began = time.perf_counter()
        daemon = contender.start(network, 1, ready=False)
        while not probe.wait(0, 0.002):  # sent again and again: the first one that is read opens
            probe.knock(data)
            if time.perf_counter() - began > 20:
                raise RuntimeError("no start:\n" + daemon.text()[-2000:])
        took.append(time.perf_counter() - began)
        probe.close()
        daemon.stop()
    found["start"] = statistics.median(took)
    return found


def run():
    """Measures every port; returns the section."""
    results = {}
    for contender in CONTENDERS:
        found = results[contender.name] = {}
        for call in (latency, crowd, memory_and_start):
            began = time.monotonic()
            with Place(contender.kind) as network:
                found.update(call(network, contender))
            say("%s, %s: %.0f s" % (contender.name, call.__name__, time.monotonic() - began))
        say("%s: %s" % (contender.name, found))
    rows = []
    for title, key, form, more in ROWS:
        values = [found.get(key) for found in results.values()]
        cells = [cell(form, value, values[0] if number else None, more) for number, value in enumerate(values)]
        rows.append([title] + [one or "none ended" for one in cells])
    return common.table(["measure", *results], rows) + "\n\n" + HOW


if __name__ == "__main__":
    common.prepare()
    print(run())
