"""`make bench`: tinyknop beside the real fwknopd, in one run, on the same packets, measured by the same means.

An opening is seen by a UDP probe: the client sends a small datagram to the opened port and the receiving socket behind
the firewall is asked at once whether it came through. That takes some 20 microseconds and no process, and does not
care how the opening is made. Prints a table, writes it to docs/bench.md, and its most telling rows to README.md.
"""

import base64
import os
import platform
import random
import resource
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
from tests.real.test_ports_alike import Place  # noqa: E402
from tinyknop import Keys, Packet, seal  # noqa: E402

FIRST_PORT = 20000
KNOCKS = 40  # for the latency; fwknopd takes a tenth of a second for each
CROWD = 1000  # grants that are open at once
MEANWHILE, BURST_MEANWHILE = 20, 50  # knocks while they are: one by one for the latency, then back to back
TRIAL = 50  # knocks back to back that tell for how long the crowd has to stay open, so that it is all there
LATE = 5  # seconds after its time at which a grant should have ended
STARTS = 3
BURST, PERIOD = 80, 0.1  # bogus packets: fwknopd reads at most 100 in each round of a tenth of a second
BOGUS = {1: 4000, 1000: 60}  # by the number of stanzas
KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
ANY_PORT = {"open_ports": None, "fw_access_timeout": "2"}

# `kind`: whose language the owner's firewall is in; `judges`: whether the cost of a packet is measured, which no port
# changes.
Contender = namedtuple("Contender", "name kind judges start")


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


def tinyknop(kind, **table):
    """Returns what starts our daemon with a port of this kind."""
    return lambda n, count, **how: peers.serve(n, serve_stanzas(n, count), kind=kind, **table, **how)


CONTENDERS = (
    Contender("fwknopd", "iptables-nft", True, lambda n, count, **how: peers.fwknopd(n, fwknop_access(count), **how)),
    Contender("iptables-nft", "iptables-nft", False, tinyknop("iptables", options='binary = "iptables-nft"')),
    Contender("iptables-legacy", "iptables-legacy", False, tinyknop("iptables", options='binary = "iptables-legacy"')),
    Contender("ipset", "ipset", True, tinyknop("ipset")),
    Contender("nftables", "nftables", False, tinyknop("nftables")),
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


def timed_knocks(daemon, probe, numbers, seconds=0):
    """Returns the milliseconds from sending a knock until its port is open, for each number."""
    took, rng = [], random.Random(1)
    for number in numbers:
        time.sleep(rng.uniform(0.03, 0.13))  # no rhythm that a round of a tenth of a second could fall in with
        data = packet(number, seconds)
        began = time.perf_counter()
        probe.knock(data)
        if not probe.wait(number, 5):
            raise SystemExit("knock %d never opened:\n%s" % (number, daemon.text()[-2000:]))
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
    probe.wait(numbers[-1], seconds)
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
        print("  %s: the first of the crowd ended too soon, after %d s" % (contender.name, seconds), file=sys.stderr)
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


def whole_cpu(daemon):
    """Returns the seconds of CPU of a daemon and of the children that it has had; the latter in ticks of 10 ms."""
    with open("/proc/%d/stat" % daemon.pid) as file:
        ticks = file.read().rpartition(")")[2].split()[13:15]
    return daemon.cpu() + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def bogus(count):
    """Returns datagrams that look like knocks: 204 characters of base64."""
    return [base64.b64encode(os.urandom(153)) for _ in range(count)]


def cpu_per_bogus(network, contender, stanzas):
    """Returns the microseconds of CPU that one bogus packet costs, what the idle daemon uses being taken off."""
    daemon, probe, packets = contender.start(network, stanzas), Probe(network, 1), bogus(BOGUS[stanzas])
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
    return {"bogus %d" % stanzas: used / judged * 1e6}


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


def idle_memory(network, contender):
    """Returns the resident memory in MB before any knock, and a while after the first: what a daemon in use needs."""
    daemon, probe = contender.start(network, 1), Probe(network, 1)
    time.sleep(1)
    idle = daemon.rss_kb() / 1024
    probe.knock(packet(0))
    probe.wait(0, 5)
    time.sleep(1)
    used = daemon.rss_kb() / 1024
    probe.close()
    daemon.stop()
    return {"idle": idle, "memory": used}


def start_time(network, contender):
    """Returns the seconds from starting the process until a knock has opened its port, the median."""
    took = []
    for _ in range(STARTS):
        probe, data = Probe(network, 1), packet(0)
        began = time.perf_counter()
        daemon = contender.start(network, 1, ready=False)
        while not probe.wait(0, 0.002):  # sent again and again: the first one that is read opens
            probe.knock(data)
            if time.perf_counter() - began > 20:
                raise SystemExit("no start:\n" + daemon.text()[-2000:])
        took.append(time.perf_counter() - began)
        probe.close()
        daemon.stop()
    return {"start": statistics.median(took)}


def measure(contender):
    """Runs everything for one contender, each measurement in a fresh network; returns {measure: number}."""
    found = {}
    runs = [(latency,), (crowd,), (idle_memory,), (start_time,)]
    runs += [(cpu_per_bogus, stanzas) for stanzas in BOGUS if contender.judges]
    for call, *more in runs:
        began = time.monotonic()
        with Place(contender.kind) as network:
            result = call(network, contender, *more)
        print("  %s: %s (%.0f s)" % (contender.name, result, time.monotonic() - began), file=sys.stderr, flush=True)
        found.update(result)
    return found


ROWS = (  # name, key, format, more is better, whether the README has it
    ("knock to open, median", "median", "%.2f ms", False, True),
    ("knock to open, 95th percentile", "p95", "%.2f ms", False, False),
    ("the same while 1,000 are open, median", "median crowd", "%.2f ms", False, True),
    ("the same while 1,000 are open, 95th percentile", "p95 crowd", "%.2f ms", False, False),
    ("1,000 knocks back to back", "grants", "%.0f /s", True, True),
    ("of these lost", "lost", "%d", False, False),
    ("50 back to back while 1,000 are open", "grants crowd", "%.0f /s", True, False),
    ("CPU to end 1,000", "expiry", "%.2f s", False, True),
    ("still open 5 s after their time", "late", "%.0f %%", False, True),
    ("CPU per bogus packet, 1 stanza", "bogus 1", "%.1f µs", False, True),
    ("CPU per bogus packet, 1,000 stanzas", "bogus 1000", "%.0f µs", False, True),
    ("resident memory, idle", "idle", "%.1f MB", False, False),
    ("resident memory after a knock", "memory", "%.1f MB", False, True),
    ("start to first knock accepted", "start", "%.3f s", False, True),
)
SHORT = ("fwknopd", "iptables-nft", "ipset", "nftables")  # who is in the README's table


def table(results, names, short):
    """Returns a table in Markdown; behind a number stands how many times better than fwknopd that is."""
    lines = ["| measure | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, key, form, more, told in ROWS:
        cells, base = [title], results[names[0]][key]
        for name in names:
            value = results[name].get(key)
            cells.append(form % value if value is not None else "none ended" if key == "expiry" else "")
            if name != names[0] and base and value:
                cells[-1] += " (%.3g)" % (value / base if more else base / value)
        if told or not short:
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def about():
    """Returns one paragraph on where and how this was measured."""
    version = subprocess.run(["fwknopd", "-V"], stdout=subprocess.PIPE).stdout.decode().split(",")[0]
    return (
        "Measured by `make bench` (`bench/bench.py`) on %s, Linux %s, %d cores, Python %s, beside %s (iptables-nft). "
        "Each other column is tinyknop with that port; in brackets how many times better than fwknopd. Bogus packets "
        "have 204 characters of base64 and come in bursts every %g s; their CPU is that of the daemon's own process, "
        "from `/proc/PID/schedstat`, less what it uses when idle; what port there is does not change it. To end 1,000 "
        "grants, CPU counts children (iptables), too. Python runs with `-S`, without the editable install's finder."
        % (platform.machine(), platform.release(), os.cpu_count(), platform.python_version(), version, PERIOD)
    )


def into_readme(text):
    """Puts the short table between the marks of README.md."""
    path = os.path.join(ROOT, "README.md")
    with open(path, encoding="utf-8") as file:
        before, start, rest = file.read().partition("<!-- bench -->\n")
    _, end, after = rest.partition("<!-- /bench -->")
    where = (
        "The columns after the first are tinyknop's ports; in brackets, how many times better than fwknopd.\n"
        "[docs/bench.md](docs/bench.md) has all, and says where and how it was measured.\n"
    )
    with open(path, "w", encoding="utf-8") as file:
        file.write("".join([before, start, text, "\n\n", where, end, after]))


def main():
    """Measures all, prints the table, writes docs/bench.md."""
    if os.geteuid():
        raise SystemExit("bench: must be root, for network namespaces")
    # As a package runs: without the finder of the editable install, 20 ms and 2 MB that only developers have.
    peers.PYTHON = [sys.executable, "-S"]
    peers.PYTHONPATH = os.pathsep.join([ROOT, sysconfig.get_paths()["purelib"]])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each grant of the crowd
    results = {contender.name: measure(contender) for contender in CONTENDERS}
    text = table(results, [contender.name for contender in CONTENDERS], False)
    print(text)
    with open(os.path.join(ROOT, "docs", "bench.md"), "w", encoding="utf-8") as file:
        file.write("# Measurements\n\n%s\n\n%s\n" % (about(), text))
    into_readme(table(results, SHORT, True))


if __name__ == "__main__":
    main()
