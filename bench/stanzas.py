"""What many users cost: CPU per bogus packet and per true knock, by the number of stanzas, beside fwknopd.

Run by `python bench/bench.py stanzas`; alone it prints its section.
"""

import time

import common
from common import Probe, bogus, cell, packet, say

from tests.real import peers
from tests.real.test_ports_alike import Place

TITLE = "Many users"
COUNTS = (1, 100, 1000, 10000)
PERIOD = 0.1  # seconds between two bursts of bogus packets; fwknopd reads at most 100 in each round of that length
COST = 10  # µs that a packet costs for each stanza, at most: as many packets are sent as one core judges meanwhile
BURST, BOGUS = 80, 4000  # packets at once, and in all; fewer where there are many stanzas
KNOCKS = 10  # true ones, each for another stanza
CONTENDERS = (common.FWKNOPD, common.IPSET, common.HINTED)
HOW = """CPU of the daemon's own process, from `/proc/PID/schedstat`, less what it uses when idle; in brackets how many
times better than fwknopd. Bogus packets have 204 characters of base64. True knocks come from users who have not knocked
before; their cost has that of the opening in it, but not the iptables processes that fwknopd starts. Where every stanza
requires hints the kernel refuses what has none, as long as its filter has room for the hints of all."""


def prepared(contender, count):
    """Returns (daemon, probe) with a port opened once, so that whatever is loaded at the first knock is loaded."""
    network = Place(contender.kind)
    network.__enter__()
    try:
        daemon = contender.start(network, count, ready=False)
        daemon.wait_line(peers.SERVE_READY if contender is not common.FWKNOPD else peers.FWKNOPD_READY, 60)
        probe = Probe(network, KNOCKS + 1)
        probe.knock(packet(KNOCKS, hinted=contender is common.HINTED))
        if not probe.wait(KNOCKS, 20):
            raise RuntimeError("the first knock never opened:\n" + daemon.text()[-2000:])
    except BaseException:
        network.__exit__()
        raise
    return network, daemon, probe


def spent(daemon, idle, work):
    """Returns the seconds of CPU that a daemon spends on some work, and until it has caught up."""
    used, began = -daemon.cpu(), time.perf_counter()
    work()
    last = -1.0
    while daemon.cpu() - last > 0.01:
        last = daemon.cpu()
        time.sleep(0.5)
    return used + daemon.cpu() - idle * (time.perf_counter() - began)


def judged(daemon, stanzas, sent):
    """Returns how many of the bogus packets were judged; fwknopd only tells in its log, one line for each stanza."""
    if common.ours(daemon):
        counters = common.asked(daemon, "status")["counters"]
        return counters.get("hmac", 0) + counters.get("hint", 0)
    lines = [line for line in daemon.lines if "received with access source match" in line]
    return len(lines) // stanzas - 1  # one was a true knock


def measure(contender, count):
    """Returns the microseconds of CPU for a bogus packet and for a true knock, with so many stanzas."""
    network, daemon, probe = prepared(contender, count)
    try:
        time.sleep(3)  # its rule is gone again
        idle, hinted = common.idle_cpu(daemon), contender is common.HINTED
        tried = 1 if hinted else count  # stanzas for each packet
        burst = max(2, min(BURST, int(PERIOD / (COST * 1e-6 * tried))))
        packets = bogus(max(10, min(BOGUS, 4 * BOGUS // tried)))

        def junk():
            for number in range(0, len(packets), burst):
                for data in packets[number : number + burst]:
                    probe.knock(data)
                time.sleep(PERIOD)

        used = spent(daemon, idle, junk)
        done = judged(daemon, count, len(packets))
        if done != len(packets) and not hinted:
            say("only %d of %d bogus packets were judged" % (done, len(packets)))
        each = used / (len(packets) if hinted else max(done, 1)) * 1e6

        def true():
            for number in range(KNOCKS):  # the last stanza has other keys, see common.fwknop_access
                by = common.keys(count * (2 * number + 1) // (2 * KNOCKS)) if count > KNOCKS else common.KEYS
                probe.knock(packet(number, by=by, hinted=hinted))
                probe.wait(number, 10)

        return each, spent(daemon, idle, true) / KNOCKS * 1e6
    finally:
        probe.close()
        daemon.stop()
        network.__exit__()


def run():
    """Measures all; returns the section."""
    rows = []
    for count in COUNTS:
        found = []
        for contender in CONTENDERS:
            began = time.monotonic()
            found.append(measure(contender, count))
            words = (count, contender.name, *found[-1], time.monotonic() - began)
            say("%d stanzas, %s: %.1f µs per bogus packet, %.0f µs per true knock (%.0f s)" % words)
        for which, what, form in ((0, "bogus packet", "%.1f µs"), (1, "true knock", "%.0f µs")):
            values = [one[which] for one in found]
            cells = [cell(form, max(value, 0.1), values[0] if n else None) for n, value in enumerate(values)]
            rows.append(["%s, %s stanza%s" % (what, format(count, ","), "s"[: count > 1]), *cells])
    rows.sort(key=lambda row: row[0].split(",")[0])
    return common.table(["CPU for one", *[one.name for one in CONTENDERS]], rows) + "\n\n" + HOW


if __name__ == "__main__":
    common.prepare()
    print(run())
