"""True knocks under a flood at the machine's full rate: how many open within a second, and how soon. For `make bench`.

`measure` is what bench.py calls; as a program it prints its table alone: flood.py [SECONDS [SOURCES]...].
"""

import os
import socket
import statistics
import sys
import time
from collections import namedtuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tests.real import floods, net, peers  # noqa: E402  (after the path above)
from tinyknop import Keys, Packet, seal  # noqa: E402

SOURCES = (1, 64, 500, 0)  # 0: every packet from a random forged one
SECONDS = 10
PERIOD = 0.1  # seconds between two true knocks
LIMIT = 1.0  # seconds in which a knock must open
LOOK = 0.0001  # seconds between two looks at the ports: the resolution, for a tenth of a core
FIRST_PORT = 21000
KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)

# share: of the true knocks opened within LIMIT; late_share: of those after the first second; median: ms or None;
# rate: bogus packets a second; cpu: of the daemon, in cores.
Result = namedtuple("Result", "share late_share median rate cpu")


class Ports:
    """A listener for each knock, behind the firewall, and one sender that asks them."""

    def __init__(self, network, count):
        self.sender = network.new_socket(network.client, kind=socket.SOCK_DGRAM)
        self.listeners = network.inside(network.server, lambda: [self.listener(number) for number in range(count)])

    def listener(self, number):
        """Returns a socket bound to the port of this number."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((net.SERVER, FIRST_PORT + number))
        sock.setblocking(False)
        return sock

    def open(self, number):
        """Tells whether a datagram comes through; delivery over a veth may wait behind the flood, so any counts."""
        self.sender.sendto(b"?", (net.SERVER, FIRST_PORT + number))
        try:
            return bool(self.listeners[number].recv(16))
        except BlockingIOError:
            return False

    def close(self):
        """Closes all sockets."""
        for sock in self.listeners + [self.sender]:
            sock.close()


def knock(number):
    """Returns a fresh knock for the port of this number."""
    return seal(Packet(message="%s,udp/%d" % (net.CLIENT, FIRST_PORT + number), username="flood"), KEYS)


def measure(start, sources, seconds=SECONDS):
    """Returns the Result for a daemon under a flood; `start(network, stanzas)` is a Contender's of bench.py."""
    with net.Net() as network:
        peers.owner_rule(network)
        daemon = start(network, 1)
        count = int(seconds / PERIOD)
        ports, knocks = Ports(network, count + 1), [knock(number) for number in range(count + 1)]
        ports.sender.sendto(knocks[count], (net.SERVER, 62201))  # whatever is loaded at the first knock is loaded now
        time.sleep(1)
        flood = floods.Flood(network, sources, seconds + LIMIT)
        used, begun = -daemon.cpu(), time.perf_counter()
        sent, opened = _knock_and_look(ports, knocks[:count], begun)
        used += daemon.cpu()
        lasted = time.perf_counter() - begun
        rate = flood.rate()
        ports.close()
        daemon.stop()
    took = [(opened[number] - sent[number]) * 1000 for number in opened]
    late = int(1 / PERIOD)
    return Result(
        len(opened) / count,
        sum(number >= late for number in opened) / (count - late),
        statistics.median(took) if took else None,
        rate,
        used / lasted,
    )


def _knock_and_look(ports, knocks, begun):
    """Sends each knock in its time and watches its port for LIMIT; returns when each was sent, and opened."""
    sent, opened, pending = {}, {}, []
    while len(sent) < len(knocks) or pending:
        now = time.perf_counter()
        if len(sent) < len(knocks) and now >= begun + len(sent) * PERIOD:
            number = len(sent)
            sent[number] = now
            ports.sender.sendto(knocks[number], (net.SERVER, 62201))
            pending.append(number)
        for number in list(pending):
            if ports.open(number):
                opened[number] = time.perf_counter()
                pending.remove(number)
            elif now - sent[number] > LIMIT:
                pending.remove(number)
        time.sleep(LOOK)
    return sent, opened


def main(argv):
    """Prints the table for fwknopd and tinyknop."""
    seconds = float(argv[1]) if len(argv) > 1 else SECONDS
    access = peers.stanza(open_ports=None, fw_access_timeout="2")
    contenders = (
        ("fwknopd", lambda network, _: peers.fwknopd(network, access)),
        ("tinyknop, iptables", lambda network, _: peers.front_end(network, access)),
        (
            "tinyknop, ipset",
            lambda network, _: peers.serve(network, peers.toml_stanza(network, openings=(), timeout=2)),
        ),
    )
    for sources in [int(text) for text in argv[2:]] or SOURCES:
        for name, start in contenders:
            found = measure(start, sources, seconds)
            median = "-" if found.median is None else "%.2f ms" % found.median
            text = "%s sources, %s: %.0f %% opened, %.0f %% after the first second, median %s, %d bogus/s, %.2f cores"
            words = (
                sources or "forged",
                name,
                found.share * 100,
                found.late_share * 100,
                median,
                found.rate,
                found.cpu,
            )
            print(text % words, flush=True)


if __name__ == "__main__":
    main(sys.argv)
