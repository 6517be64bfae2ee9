"""Thousands of grants at once: opened, listed, restarted with, compared with the firewall, ended; memory for each.

Run by `python bench/bench.py grants`; alone it prints its section. Most of the 100,000 come from a journal, as after a
crash: sealing a knock for each would take longer than all the rest.
"""

import os
import signal
import socket
import threading
import time

import common
from common import asked, cell, say

from tests.real import net, peers
from tests.real.test_ports_alike import Place
from tinyknop import Packet, seal
from tinyknop.grants import Grant
from tinyknop.journal import Journal

TITLE = "Many grants"
FEW, MANY = 500, 100000
KNOCKED = {FEW: FEW, MANY: 20000}  # of these by knocks
CHUNK = 200  # knocks that are on their way at once
LIVE = 600  # seconds; enough for everything
ENDING = 12  # seconds from the start of the process that sees all end
LIMIT = 60  # seconds for any one step
TABLE = 'maxelem = "200000"'
ROWS = (
    ("opened, back to back", "rate", "%.0f /s", True),
    ("of these lost", "lost", "%d", False),
    ("list of all", "list", "%.2f s", False),
    ("a knock opens meanwhile", "meanwhile", "%.1f ms", False),
    ("killed and started again", "restart", "%.2f s", False),
    ("compared with the firewall (SIGHUP), CPU", "sync", "%.2f s", False),
    ("a knock opens meanwhile", "knock", "%.1f ms", False),
    ("all ended after their second", "expiry", "%.1f s", False),
    ("CPU for that", "expiry cpu", "%.2f s", False),
    ("memory for each", "memory", "%.1f KB", False),
)
HOW = """Opened for as many sources; %s of the 100,000 by knocks, while the others were open already. "Restart" is from
the death of the process until it listens again, all grants being open as before. All end within the same second: how
long after it the last is gone from the daemon's list; the kernel's own clock shuts them on time. fwknopd has no list,
drops what is open when it restarts, and ends nothing as long as knocks come in.""" % format(KNOCKED[MANY], ",")


class Network(Place):
    """A network whose sets have room for all."""

    def build(self):
        """Makes the network, then the owner's set anew, larger."""
        super().build()
        if self.kind == "ipset":
            self.at(self.server, "ipset", "create", "large", "hash:ip,port", "timeout", "0", "maxelem", "200000")
            self.at(self.server, "ipset", "swap", "large", peers.SET)


def sources(count):
    """Returns as many addresses."""
    return ["10.%d.%d.%d" % (100 + (number >> 16), number >> 8 & 255, number & 255) for number in range(count)]


def start(network):
    """Starts tinyknop, in the place of the one before."""
    options = TABLE + ('\nset = "%s"' % peers.SET if network.kind == "ipset" else "")
    stanzas = peers.toml_stanza(network, openings=(), timeout=LIVE)
    daemon = peers.serve(network, stanzas, kind=network.kind, options=options, ready=False)
    daemon.wait_line(peers.SERVE_READY, LIMIT)
    return daemon


def journal(network, count, seconds):
    """Writes what a daemon that died would leave: so many grants that live for so many seconds more."""
    now = int(time.time())
    grants = [
        Grant(number + 1, source, (("tcp", 22),), now, now + seconds, "alice", None, net.SERVER, net.CLIENT)
        for number, source in enumerate(sources(count))
    ]
    path = os.path.join(network.dir, "serve", "state", "grants.journal")
    Journal(path).rewrite([(grant, ("firewall",)) for grant in grants])
    return now + seconds


def knocked(network, wanted, granted):
    """Knocks for sources, CHUNK at a time; returns how many were opened in a second, `granted()` being the number."""
    packets = [seal(Packet(message=source + ",tcp/22", username="bench"), common.KEYS) for source in wanted]
    began, before = time.perf_counter(), granted()
    with network.new_socket(network.client, kind=socket.SOCK_DGRAM) as sender:
        for at in range(0, len(packets), CHUNK):
            for data in packets[at : at + CHUNK]:
                sender.sendto(data, (net.SERVER, 62201))
            due, deadline = before + min(at + CHUNK, len(packets)), time.monotonic() + LIMIT
            while granted() < due and time.monotonic() < deadline:
                time.sleep(0.001)
    return len(packets) / (time.perf_counter() - began)


def until(what, within=LIMIT):
    """Waits until `what()` holds; returns the seconds that took."""
    began = time.monotonic()
    while not what():
        if time.monotonic() > began + within:
            raise RuntimeError("not so within %d s" % within)
        time.sleep(0.02)
    return time.monotonic() - began


def opening(probe, number):
    """Knocks for a port of the probe; returns the ms until it is open."""
    data = common.packet(number, 1)
    began = time.perf_counter()
    probe.knock(data)
    if not probe.wait(number, LIMIT):
        raise RuntimeError("the knock never opened")
    return (time.perf_counter() - began) * 1000


def listed(daemon):
    """Returns the seconds in which a daemon lists all that is open."""
    began = time.perf_counter()
    asked(daemon)
    return time.perf_counter() - began


def tinyknop(kind, count):
    """Goes through the life of many grants; returns the figures."""
    found = {}
    with Network(kind) as network:
        daemon = start(network)
        idle = daemon.rss_kb()
        daemon.kill()
        journal(network, count - KNOCKED[count], LIVE)
        daemon, probe = start(network), common.Probe(network, 3)

        def granted():
            return asked(daemon, "status")["counters"]["granted"]

        found["rate"] = knocked(network, sources(count)[count - KNOCKED[count] :], granted)
        until(lambda: asked(daemon, "status")["ports"][0]["failure"] is None)
        time.sleep(0.5)
        found["lost"] = count - network.held()
        found["memory"] = (daemon.rss_kb() - idle) / count
        opening(probe, 0)
        lister = threading.Thread(target=lambda: found.update(list=listed(daemon)))
        lister.start()
        found["meanwhile"] = opening(probe, 1)
        lister.join()
        used = daemon.cpu()
        daemon.signal(signal.SIGHUP)
        found["knock"] = opening(probe, 2)
        time.sleep(max(2.0, count / 25000))
        found["sync"] = daemon.cpu() - used
        daemon.kill()
        began = time.perf_counter()
        daemon = start(network)
        found["restart"] = time.perf_counter() - began
        daemon.kill()
        found["expiry"], found["expiry cpu"] = ended(network, count)
        probe.close()
    return found


def ended(network, count):
    """Returns how many seconds after their second the last of many grants was gone, and the CPU for that."""
    end = journal(network, count, ENDING)
    daemon = start(network)
    while time.time() < end - 0.2:
        time.sleep(0.05)
    used = common.whole_cpu(daemon)
    until(lambda: not asked(daemon, "status")["open"] and not asked(daemon, "status")["owed"])
    gone = time.time() - end
    used = common.whole_cpu(daemon) - used
    if network.held():
        raise RuntimeError("the firewall still holds %d" % network.held())
    daemon.stop()
    return gone, used


def fwknopd(count):
    """Returns what there is to measure of fwknopd."""
    with Place(common.FWKNOPD.kind) as network:
        access = peers.stanza(open_ports=None, fw_access_timeout=str(LIVE))
        daemon = peers.fwknopd(network, access)
        idle = daemon.rss_kb()
        found = {"rate": knocked(network, sources(count), lambda: len(network.ends()))}
        found["lost"] = count - network.held()
        found["memory"] = (daemon.rss_kb() - idle) / count
        began = time.perf_counter()
        daemon.kill()
        peers.fwknopd(network, access)
        found["restart"] = time.perf_counter() - began
    return found


def run():
    """Measures all; returns the section."""
    results = {}
    for name, call in (
        ("fwknopd, 500", lambda: fwknopd(FEW)),
        ("ipset, 500", lambda: tinyknop("ipset", FEW)),
        ("nftables, 500", lambda: tinyknop("nftables", FEW)),
        ("ipset, 100,000", lambda: tinyknop("ipset", MANY)),
        ("nftables, 100,000", lambda: tinyknop("nftables", MANY)),
    ):
        began = time.monotonic()
        results[name] = call()
        say("%s: %s (%.0f s)" % (name, results[name], time.monotonic() - began))
    rows = []
    for title, key, form, more in ROWS:
        values = [found.get(key) for found in results.values()]
        if any(value is not None for value in values):
            cells = [cell(form, value, values[0] if n in (1, 2) else None, more) for n, value in enumerate(values)]
            rows.append([title, *cells])
    return common.table(["grants", *results], rows) + "\n\n" + HOW


if __name__ == "__main__":
    common.prepare()
    print(run())
