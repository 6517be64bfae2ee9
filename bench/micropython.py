"""tinyknop on MicroPython beside itself on CPython and fwknopd: how soon a knock opens, what a packet costs, the heap.

Run by `python bench/bench.py micropython`; alone it prints its section.
"""

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time

import common
import stanzas
from common import Contender, Probe, bogus, cell, packet, say

from tests.need import need
from tests.real import peers
from tests.real.test_ports_alike import Place

sys.path.insert(0, os.path.join(common.ROOT, "scripts"))
import package  # noqa: E402  (a script finds its neighbours in its own folder)

TITLE = "On MicroPython"
KNOCKS = 40
BOGUS = 4000
SMALL = "MicroPython"
BARE = "MicroPython, no TLS library"
NOSSL = os.path.join(common.ROOT, "tests", "nossl")
ROWS = (
    ("knock to open, median", "median", "%.2f ms"),
    ("knock to open, 95th percentile", "p95", "%.2f ms"),
    ("CPU for one bogus packet", "bogus", "%.1f µs"),
    ("CPU for one true knock", "true", "%.0f µs"),
    ("heap in use, nothing open", "idle", "%.0f KB"),
    ("heap in use after %d knocks" % KNOCKS, "used", "%.0f KB"),
)
HOW = """The same packets for all, one stanza. Both of tinyknop's tell ipset over netlink; fwknopd runs iptables. In
brackets how many times better than fwknopd. MicroPython runs from the `.mpy` files of `make package`, on a 64-bit
machine. Without a TLS library it has no hash but SHA-256 and no AES: then those are plain Python, as with OpenWrt's
`micropython-nossl`. Heap is what MicroPython's collector finds in use. The MicroPython of PyPI lives inside a CPython
process, so its resident memory and its start would say nothing about a router, and are left out."""

TELLS = """import gc
import sys
from tinyknop import compat
from tinyknop.__main__ import read, start, state

settings, stanzas = read(sys.argv[1])
state(settings.state_dir)
daemon = start(settings, stanzas)

def tell():
    gc.collect()
    print("heap %d" % gc.mem_alloc())
    daemon.loop.at(compat.monotonic() + 500, tell)

tell()
daemon.loop.run()
"""


class Small:
    """Starts the daemon on MicroPython, from compiled files in a folder."""

    def __init__(self, folder, before=""):
        self.env = {"MICROPYPATH": before + folder + ":.frozen"}
        self.tells = peers.write(os.path.join(folder, "tells.py"), TELLS)

    def start(self, network, count, ready=True, argv=("-m", "tinyknop")):
        """Starts it as `common` starts the others."""
        home = os.path.join(network.dir, "small")
        os.makedirs(home, mode=0o700, exist_ok=True)
        options = 'set = "%s"' % peers.SET
        interface = 'interface = "eth0"\n'
        text = peers.TOML.format(
            state=home + "/state", kind="ipset", capture="packet", interface=interface, options=options
        )
        toml = peers.write(home + "/tinyknop.toml", text + common.toml_stanzas(network, count))
        made = [*peers.PYTHON, "-m", "tinyknop", "compile", toml, "-o", home + "/tinyknop.json"]
        subprocess.run(made, check=True, env=dict(os.environ, PYTHONPATH=peers.PYTHONPATH))
        words = [need("micropython"), *argv, home + "/tinyknop.json"]
        daemon = peers.Process(network, network.server, words, dict(self.env, TMPDIR=home))
        daemon.state = home + "/state"
        if ready:
            daemon.wait_line(peers.SERVE_READY)
        return daemon

    def heap(self):
        """Returns the heap in use in KB, before any knock and after some."""
        with Place("ipset") as network:
            daemon, probe = self.start(network, 1, argv=(self.tells,)), Probe(network, KNOCKS)
            found = [told(daemon)]
            timed(daemon, probe)
            time.sleep(3)  # all have ended
            found.append(told(daemon))
            probe.close()
            daemon.stop()
        return found


def timed(daemon, probe):
    """Returns the milliseconds from sending a knock until its port is open, for each of some."""
    took, rng = [], random.Random(1)
    for number in range(KNOCKS):
        time.sleep(rng.uniform(0.03, 0.13))  # no rhythm that a round of a tenth of a second could fall in with
        data, began = packet(number), time.perf_counter()
        probe.knock(data)
        if not probe.wait(number, 5):
            raise RuntimeError("knock %d never opened:\n%s" % (number, daemon.text()[-2000:]))
        took.append((time.perf_counter() - began) * 1000)
    return took


def told(daemon):
    """Returns the KB that the daemon tells next."""
    number = daemon.wait_line("heap ", after=daemon.mark())
    return int(daemon.lines[number].split()[1]) / 1024


def costs(contender):
    """Returns the microseconds of CPU for a bogus packet and for a true knock."""
    network, daemon, probe = stanzas.prepared(contender, 1)
    try:
        time.sleep(3)  # the first one has ended
        idle, packets = common.idle_cpu(daemon), bogus(BOGUS)

        def junk():
            for number in range(0, BOGUS, stanzas.BURST):
                for data in packets[number : number + stanzas.BURST]:
                    probe.knock(data)
                time.sleep(stanzas.PERIOD)

        def true():
            for number in range(stanzas.KNOCKS):
                probe.knock(packet(number))
                probe.wait(number, 10)

        each = stanzas.spent(daemon, idle, junk) / BOGUS * 1e6
        return each, stanzas.spent(daemon, idle, true) / stanzas.KNOCKS * 1e6
    finally:
        probe.close()
        daemon.stop()
        network.__exit__()


def measure(contender):
    """Returns {key of a row: figure} of one of them, all but the heap."""
    with Place(contender.kind) as network:
        daemon, probe = contender.start(network, 1), Probe(network, KNOCKS)
        took = timed(daemon, probe)
        probe.close()
        daemon.stop()
    found = {"median": statistics.median(took), "p95": sorted(took)[int(len(took) * 0.95)]}
    found["bogus"], found["true"] = costs(contender)
    return found


def run():
    """Measures all; returns the section."""
    with tempfile.TemporaryDirectory() as folder:
        package.compile_all(folder)
        results = {}
        small = ((SMALL, Small(folder)), (BARE, Small(folder, NOSSL + ":")))
        others = ((common.FWKNOPD.name, common.FWKNOPD), ("CPython", common.IPSET))
        for name, contender in [*others, *[(name, Contender(name, "ipset", one.start)) for name, one in small]]:
            results[name] = measure(contender)
            say("%s: %s" % (name, results[name]))
        for name, one in small:
            results[name]["idle"], results[name]["used"] = one.heap()
            say("%s: heap %d and %d KB" % (name, results[name]["idle"], results[name]["used"]))
    rows = []
    for title, key, form in ROWS:
        values = [found.get(key) for found in results.values()]
        rows.append([title] + [cell(form, value, values[0] if n else None) for n, value in enumerate(values)])
    return common.table(["measure", *results], rows) + "\n\n" + HOW


if __name__ == "__main__":
    common.prepare()
    print(run())
