"""What the workloads of `make bench` share: who is measured, knocks, a probe of ports, tables. Import this first.

An opening is seen by a UDP probe: the client sends a small datagram to the opened port and the receiving socket behind
the firewall is asked at once whether it came through. That takes some 20 microseconds and no process, and does not
care how the opening is made.
"""

import base64
import json
import os
import resource
import socket
import sys
import sysconfig
import time
from collections import namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tests.real import net, peers  # noqa: E402  (after the path above)
from tinyknop import Keys, Packet, hints, seal  # noqa: E402

FIRST_PORT = 20000
KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
ANY_PORT = {"open_ports": None, "fw_access_timeout": "2"}

# `kind`: whose language the owner's firewall is in (see test_ports_alike.Place); `start(network, stanzas, **how)`.
Contender = namedtuple("Contender", "name kind start")


def keys(number):
    """Returns the Keys of one of many stanzas."""
    return Keys(b"key %06d" % number, b"hmac key %06d" % number)


def fwknop_access(count):
    """Returns access.conf with `count` stanzas; the last one holds the keys of the true knocks."""
    others = [keys(number) for number in range(count - 1)]
    return "".join([peers.stanza(key=one.key, hmac_key=one.hmac_key, **ANY_PORT) for one in others]) + peers.stanza(
        **ANY_PORT
    )


def toml_stanzas(network, count, more=""):
    """Returns the same stanzas for tinyknop.toml, each with the line `more`."""
    how = {"openings": (), "timeout": 2, "more": more}
    others = [(number, keys(number)) for number in range(count - 1)]
    made = [
        peers.toml_stanza(network, "u%06d" % number, key=one.key, hmac_key=one.hmac_key, **how)
        for number, one in others
    ]
    return "".join(made) + peers.toml_stanza(network, **how)


def fwknopd(network, count, **how):
    """Starts the real fwknopd."""
    return peers.fwknopd(network, fwknop_access(count), **how)


def tinyknop(kind, more="", **table):
    """Returns what starts our daemon with a port of this kind."""
    return lambda n, count, **how: peers.serve(n, toml_stanzas(n, count, more), kind=kind, **table, **how)


FWKNOPD = Contender("fwknopd", "iptables-nft", fwknopd)
IPSET = Contender("ipset", "ipset", tinyknop("ipset"))
NFTABLES = Contender("nftables", "nftables", tinyknop("nftables"))
IPTABLES = tuple(
    Contender(name, name, tinyknop("iptables", options='binary = "%s"' % name))
    for name in ("iptables-nft", "iptables-legacy")
)
HINTED = Contender("ipset, hints required", "ipset", tinyknop("ipset", "require_hint = true"))


class Probe:
    """Tells within microseconds whether a UDP port is open: sends to it, and looks at the socket that listens there."""

    def __init__(self, network, count):
        self.sender = network.new_socket(network.client, kind=socket.SOCK_DGRAM)
        self.receivers = network.inside(network.server, lambda: [self.receiver(number) for number in range(count)])

    def receiver(self, number):
        """Returns a socket bound to the port of this number."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((net.SERVER, FIRST_PORT + number))
        sock.setblocking(False)
        return sock

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


def packet(number, seconds=0, by=KEYS, source=net.CLIENT, hinted=False):
    """Returns a fresh knock for the port of this number."""
    message, now, salt = "%s,udp/%d" % (source, FIRST_PORT + number), int(time.time()), None
    if hinted:
        salt = os.urandom(8)
        salt = salt[:4] + hints.hint(by.hmac_key, now) + salt[:1]
    return seal(Packet(message=message, username="bench", client_timeout=seconds, timestamp=now), by, salt=salt)


def bogus(count):
    """Returns datagrams that look like knocks: 204 characters of base64."""
    return [base64.b64encode(os.urandom(153)) for _ in range(count)]


def asked(daemon, *words):
    """Returns what tinyknop's daemon answers to words at its own socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(daemon.state + "/tinyknop.sock")
        client.sendall(json.dumps(words).encode() + b"\n")
        parts = iter(lambda: client.recv(1 << 20), b"")
        return json.loads(b"".join(parts))


def ours(daemon):
    """Tells whether a daemon is tinyknop's."""
    return os.path.exists(daemon.state + "/tinyknop.sock")


def whole_cpu(daemon):
    """Returns the seconds of CPU of a daemon and of the children that it has had; the latter in ticks of 10 ms."""
    with open("/proc/%d/stat" % daemon.pid) as file:
        ticks = file.read().rpartition(")")[2].split()[13:15]
    return daemon.cpu() + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def idle_cpu(daemon, seconds=2):
    """Returns the share of a core that a daemon uses while nobody knocks."""
    used = -daemon.cpu()
    time.sleep(seconds)
    return (used + daemon.cpu()) / seconds


def cell(form, value, base=None, more=False):
    """Returns a figure as text, "" for None; behind it how many times better than `base` it is, if there is one."""
    if value is None:
        return ""
    better = " (%.3g)" % (value / base if more else base / value) if base and value else ""
    return form % value + better


def table(head, rows):
    """Returns a table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def say(text):
    """Tells how far we are."""
    print("  " + text, file=sys.stderr, flush=True)


def prepare():
    """Sees to what every workload needs; ends the program where that cannot be."""
    if os.geteuid():
        raise SystemExit("bench: must be root, for network namespaces")
    # As a package runs: without the finder of the editable install, 20 ms and 2 MB that only developers have.
    peers.PYTHON = [sys.executable, "-S"]
    peers.PYTHONPATH = os.pathsep.join([ROOT, sysconfig.get_paths()["purelib"]])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each grant of a crowd
