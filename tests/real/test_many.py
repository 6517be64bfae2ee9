"""Twenty thousand grants at once: opened, listed, restarted with, compared, ended, none lost; no step grows faster.

Most come from a journal, as after a crash, since sealing a knock for each would be most of the time. The firewall's own
tool is the witness. `make bench` (grants) has the times, with 100,000.
"""

import os
import signal
import socket
import time
from concurrent import futures

from tests.real import net, peers
from tests.real.test_ports_alike import KEYS, Place, tools
from tinyknop import Packet, seal
from tinyknop.grants import Grant
from tinyknop.journal import Journal

KINDS = ("ipset", "nftables")
MANY, BURST = 20000, 1000
WITHIN = 60  # seconds; two of these run at once, beside whatever else this machine does
LARGEST = 4096  # bytes of memory for each grant; 1,500 were measured


def test_twenty_thousand_grants():
    for kind in KINDS:
        tools(kind)
    with futures.ThreadPoolExecutor(len(KINDS)) as pool:
        for said in pool.map(many, KINDS):
            print(said)


def many(kind):
    """Goes through the life of many grants on one kind of port; returns how much memory each took."""
    with Place(kind) as network:
        idle = memory(started(network))
        journal(network, 600)
        daemon = started(network)
        network.wait_held(MANY, WITHIN)
        each = (memory(daemon) - idle) / MANY
        assert each < LARGEST, each
        daemon.kill()
        daemon = started(network)
        assert network.held() == MANY
        assert [len(peers.status(daemon)[what]) for what in ("grants", "owed")] == [MANY, 0]

        burst(network)
        daemon.signal(signal.SIGHUP)
        network.knock()
        assert network.wait_connect(True, within=WITHIN) is not None, daemon.text()[-2000:]
        daemon.wait_line("the configuration was read anew", WITHIN)
        network.wait_held(MANY + BURST + 1, WITHIN)

        daemon.kill()
        journal(network, 8)
        daemon = started(network)
        network.wait_held(0, WITHIN)
        deadline = time.monotonic() + WITHIN
        while peers.status(daemon)["grants"] or peers.status(daemon)["owed"]:
            assert time.monotonic() < deadline, daemon.text()[-2000:]
            time.sleep(0.1)
        assert not [line for line in daemon.lines if line.startswith(("error", "warning"))]
    return "%s: %d bytes of memory for each grant" % (kind, each)


def started(network):
    """Starts the daemon in the place of the one before."""
    for process in network.processes:
        process.stop()
    daemon = peers.serve(network, peers.toml_stanza(network, openings=(), timeout=600), kind=network.kind, ready=False)
    daemon.wait_line(peers.SERVE_READY, WITHIN)
    return daemon


def journal(network, seconds):
    """Writes what a daemon that died left behind: many grants that live for so many seconds more."""
    now, sources = int(time.time()), ["10.66.%d.%d" % (number >> 8, number & 255) for number in range(MANY)]
    grants = [
        Grant(number + 1, source, (("tcp", 22),), now, now + seconds, "alice", None, net.SERVER, net.CLIENT)
        for number, source in enumerate(sources)
    ]
    path = os.path.join(network.dir, "serve", "state", "grants.journal")
    Journal(path).rewrite([(grant, ("firewall",)) for grant in grants])


def burst(network):
    """Sends a thousand knocks back to back."""
    sources = ["10.67.%d.%d" % (number >> 8, number & 255) for number in range(BURST)]
    packets = [seal(Packet(message="%s,tcp/22" % source, username="alice"), KEYS) for source in sources]
    with network.new_socket(network.client, kind=socket.SOCK_DGRAM) as sender:
        for packet in packets:
            sender.sendto(packet, (net.SERVER, 62201))
    network.wait_held(MANY + BURST, WITHIN)


def memory(daemon):
    """Returns the bytes of memory that a daemon has."""
    return daemon.rss_kb() * 1024
