"""`make bench`: tinyknop beside the real fwknopd, in one run, on the same packets, measured by the same means.

An opening is seen by a UDP probe: the client sends a small datagram to the opened port and the receiving socket behind
the firewall is asked at once whether it came through. That takes some 20 microseconds and no process, and does not
care how the opening is made. Prints a table and writes it to docs/bench.md.
"""

import base64
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import sysconfig
import time
from collections import namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tests.real import net, peers  # noqa: E402  (after the path above)
from tinyknop import Keys, Packet, seal  # noqa: E402

FIRST_PORT = 20000
KNOCKS = 60  # for the latency; fwknopd takes a tenth of a second for each
GRANTS = 500
STARTS = 5
BURST, PERIOD = 80, 0.1  # bogus packets: fwknopd reads at most 100 in each round of a tenth of a second
BOGUS = {1: 8000, 1000: 100}  # by the number of stanzas
KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
ANY_PORT = {"open_ports": None, "fw_access_timeout": "2"}

Contender = namedtuple("Contender", "name start")


def fwknop_access(count):
    """Returns access.conf with `count` stanzas; the last one holds the keys of the true knocks."""
    others = [
        peers.stanza(key=b"key %06d" % number, hmac_key=b"hmac key %06d" % number, **ANY_PORT)
        for number in range(count - 1)
    ]
    return "".join(others) + peers.stanza(**ANY_PORT)


def serve_stanzas(network, count):
    """Returns the same stanzas for tinyknop.toml."""
    made = [
        peers.toml_stanza(
            network,
            "u%06d" % number,
            openings=(),
            timeout=2,
            key=b"key %06d" % number,
            hmac_key=b"hmac key %06d" % number,
        )
        for number in range(count - 1)
    ]
    return "".join(made) + peers.toml_stanza(network, openings=(), timeout=2)


CONTENDERS = (
    Contender("fwknopd", lambda n, count, **how: peers.fwknopd(n, fwknop_access(count), **how)),
    Contender("tinyknop, iptables", lambda n, count, **how: peers.front_end(n, fwknop_access(count), **how)),
    Contender("tinyknop, ipset", lambda n, count, **how: peers.serve(n, serve_stanzas(n, count), **how)),
)


class Probe:
    """Tells within microseconds whether a UDP port is open: sends to it, and looks at the socket that listens there."""

    def __init__(self, network, count):
        self.sender = network.new_socket(network.client, kind=socket.SOCK_DGRAM)
        self.receivers = []
        for number in range(count):
            receiver = network.new_socket(network.server, kind=socket.SOCK_DGRAM)
            receiver.bind((net.SERVER, FIRST_PORT + number))
            receiver.setblocking(False)
            self.receivers.append(receiver)

    def open(self, number):
        """True if the port of this number is open now; delivery over a veth is done when sendto returns."""
        self.sender.sendto(b"?", (net.SERVER, FIRST_PORT + number))
        try:
            return bool(self.receivers[number].recv(16))
        except BlockingIOError:
            return False

    def wait(self, number, within):
        """Returns whether the port opened within so many seconds."""
        deadline = time.perf_counter() + within
        while time.perf_counter() < deadline:
            if self.open(number):
                return True
            time.sleep(20e-6)  # leaves the core to whoever needs it
        return False

    def knock(self, packet):
        """Sends a knock."""
        self.sender.sendto(packet, (net.SERVER, 62201))

    def close(self):
        """Closes all sockets."""
        for one in self.receivers + [self.sender]:
            one.close()


def packet(number, timeout=0):
    """Returns a fresh knock for the port of this number."""
    message = "%s,udp/%d" % (net.CLIENT, FIRST_PORT + number)
    return seal(Packet(message=message, username="bench", client_timeout=timeout), KEYS)


def latency(network, start):
    """Returns the milliseconds from sending a knock until its port is open: the median, and the 95th percentile."""
    daemon, probe, took = start(network, 1), Probe(network, KNOCKS), []
    rng = random.Random(1)
    for number in range(KNOCKS):
        time.sleep(rng.uniform(0.03, 0.13))  # no rhythm that a round of a tenth of a second could fall in with
        data = packet(number)
        began = time.perf_counter()
        probe.knock(data)
        if not probe.wait(number, 5):
            raise SystemExit("knock %d never opened:\n%s" % (number, daemon.text()[-2000:]))
        took.append((time.perf_counter() - began) * 1000)
    probe.close()
    daemon.stop()
    return statistics.median(took), sorted(took)[int(len(took) * 0.95)]


def bogus(count):
    """Returns datagrams that look like knocks: 204 characters of base64."""
    return [base64.b64encode(os.urandom(153)) for _ in range(count)]


def cpu_per_bogus(network, start, stanzas):
    """Returns the microseconds of CPU that one bogus packet costs, what the idle daemon uses being taken off."""
    daemon, probe, packets = start(network, stanzas), Probe(network, 1), bogus(BOGUS[stanzas])
    probe.knock(packet(0))  # whatever is loaded at the first true packet is loaded now
    if not probe.wait(0, 20):
        raise SystemExit("the knock before the bogus packets never opened:\n" + daemon.text()[-2000:])
    time.sleep(3)  # and its rule is gone again
    idle = -daemon.cpu()
    time.sleep(2)
    idle = (idle + daemon.cpu()) / 2
    used, began = -daemon.cpu(), time.perf_counter()
    step = BURST if stanzas == 1 else 10
    for number in range(0, len(packets), step):
        for data in packets[number : number + step]:
            probe.knock(data)
        time.sleep(PERIOD)
    last = -1.0
    while daemon.cpu() - last > 0.01:  # until it has caught up
        last = daemon.cpu()
        time.sleep(0.5)
    used += daemon.cpu() - idle * (time.perf_counter() - began)
    judged = handled(daemon, stanzas, len(packets))
    probe.close()
    daemon.stop()
    return used / judged * 1e6


def handled(daemon, stanzas, sent):
    """Returns how many of the bogus packets were judged; fwknopd only tells in its log, one line for each stanza."""
    if os.path.exists(daemon.state + "/tinyknop.sock"):
        number = peers.counters(daemon).get("hmac", 0)
    else:
        lines = [line for line in daemon.lines if "received with access source match" in line]
        number = len(lines) // stanzas - 1  # one was a true knock
    if number != sent:
        print("  only %d of %d bogus packets were judged" % (number, sent), file=sys.stderr)
    return max(number, 1)


def grants_per_second(network, start):
    """Returns how many grants a second are made of knocks that arrive back to back, and how many were lost."""
    daemon, probe = start(network, 1), Probe(network, GRANTS)
    packets = [packet(number, 120) for number in range(GRANTS)]
    began = time.perf_counter()
    for data in packets:
        probe.knock(data)
    probe.wait(GRANTS - 1, 30)
    took = time.perf_counter() - began
    time.sleep(1)
    made = sum(probe.open(number) for number in range(GRANTS))
    probe.close()
    daemon.stop()
    return made / took, GRANTS - made


def idle_memory(network, start):
    """Returns the resident memory in MB before any knock, and a while after the first: what a daemon in use needs."""
    daemon, probe = start(network, 1), Probe(network, 1)
    time.sleep(1)
    idle = daemon.rss_kb() / 1024
    probe.knock(packet(0))
    probe.wait(0, 5)
    time.sleep(1)
    used = daemon.rss_kb() / 1024
    probe.close()
    daemon.stop()
    return idle, used


def start_time(network, start):
    """Returns the seconds from starting the process until a knock has opened its port, the median."""
    took = []
    for _ in range(STARTS):
        probe, data = Probe(network, 1), packet(0)
        began = time.perf_counter()
        daemon = start(network, 1, ready=False)
        while not probe.wait(0, 0.002):  # sent again and again: the first one that is read opens
            probe.knock(data)
            if time.perf_counter() - began > 20:
                raise SystemExit("no start:\n" + daemon.text()[-2000:])
        took.append(time.perf_counter() - began)
        probe.close()
        daemon.stop()
    return statistics.median(took)


def measure(contender):
    """Runs everything for one contender, each measurement in a fresh network; returns {measure: number}."""
    found = {}

    def fresh(call, *more):
        with net.Net() as network:
            peers.owner_rule(network)
            result = call(network, contender.start, *more)
        print("  %s %s: %s" % (contender.name, call.__name__, result), file=sys.stderr, flush=True)
        return result

    found["median"], found["p95"] = fresh(latency)
    for stanzas in BOGUS:
        found["bogus %d" % stanzas] = fresh(cpu_per_bogus, stanzas)
    found["grants"], found["lost"] = fresh(grants_per_second)
    found["idle"], found["memory"] = fresh(idle_memory)
    found["start"] = fresh(start_time)
    return found


ROWS = (  # name, key, format, more is better
    ("knock to open, median", "median", "%.2f ms", False),
    ("knock to open, 95th percentile", "p95", "%.2f ms", False),
    ("CPU per bogus packet, 1 stanza", "bogus 1", "%.1f µs", False),
    ("CPU per bogus packet, 1,000 stanzas", "bogus 1000", "%.0f µs", False),
    ("%d knocks back to back" % GRANTS, "grants", "%.0f /s", True),
    ("of these lost", "lost", "%d", False),
    ("resident memory, idle", "idle", "%.1f MB", False),
    ("resident memory after a knock", "memory", "%.1f MB", False),
    ("start to first knock accepted", "start", "%.3f s", False),
)


def table(results):
    """Returns the table in Markdown; a ratio above 1 means better than fwknopd."""
    names = [contender.name for contender in CONTENDERS]
    head = [names[0]] + [text for name in names[1:] for text in (name, "ratio")]
    lines = ["| measure | " + " | ".join(head) + " |", "|---" * (len(head) + 1) + "|"]
    for title, key, form, more in ROWS:
        base = results[names[0]][key]
        cells = [form % base]
        for name in names[1:]:
            value = results[name][key]
            ratio = "" if not base or not value else "%.3g" % (value / base if more else base / value)
            cells += [form % value, ratio]
        lines.append("| " + " | ".join([title] + cells) + " |")
    return "\n".join(lines)


def about():
    """Returns one paragraph on where and how this was measured."""
    version = subprocess.run(["fwknopd", "-V"], stdout=subprocess.PIPE).stdout.decode().split(",")[0]
    return (
        "Measured by `make bench` (`bench/bench.py`) on %s, Linux %s, %d cores, Python %s, beside %s. Ratios above 1 "
        "mean better than fwknopd. Bogus packets have 204 characters of base64 and come in bursts every %g s; CPU is "
        "that of the daemon's own process, from `/proc/PID/schedstat`, less what it uses when idle. Child processes "
        "(iptables) count in times, not in CPU or memory. Python runs with `-S`, without the editable install's finder."
        % (platform.machine(), platform.release(), os.cpu_count(), platform.python_version(), version, PERIOD)
    )


def main():
    """Measures all, prints the table, writes docs/bench.md."""
    if os.geteuid():
        raise SystemExit("bench: must be root, for network namespaces")
    # As a package runs: without the finder of the editable install, 20 ms and 2 MB that only developers have.
    peers.PYTHON = [sys.executable, "-S"]
    peers.PYTHONPATH = os.pathsep.join([ROOT, sysconfig.get_paths()["purelib"]])
    results = {contender.name: measure(contender) for contender in CONTENDERS}
    text = table(results)
    print(text)
    with open(os.path.join(ROOT, "docs", "bench.md"), "w", encoding="utf-8") as file:
        file.write("# Measurements\n\n%s\n\n%s\n" % (about(), text))


if __name__ == "__main__":
    main()
