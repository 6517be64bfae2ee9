"""True knocks under a flood at this machine's full rate, read by the captures themselves with the real gate behind."""

import json
import os
import select
import socket
import time
import traceback

import pytest

from tests.core.test_gate import Seen, Stanza
from tests.core.test_gate import Settings as GateSettings
from tests.need import lacking, need
from tests.real import net
from tests.real.floods import Flood
from tinyknop import Keys, Packet, seal
from tinyknop.capture import fair, make
from tinyknop.compat import monotonic, wall
from tinyknop.gate import Gate
from tinyknop.loop import Loop

KEYS = Keys(b"an encryption key", b"an hmac key")
KNOCKS = 20
PERIOD = 0.05  # seconds between two true knocks
# Seconds that a bogus packet takes: as with some forty stanzas, so there is a flood even where others slow the flooder.
SLOW, FAST = 0.0002, 0.00001


@pytest.fixture
def network():
    """The two namespaces alone, with a firewall that lets UDP in: the udp capture needs that."""
    if os.geteuid():
        lacking("network namespaces with names need root")
    need("ip", "iptables", "ip6tables")
    with net.Net() as made:
        for tool in ("iptables", "ip6tables"):
            made.at(made.server, tool, "-I", "INPUT", "-p", "udp", "-j", "ACCEPT")
        yield made


class Receiver:
    """A capture with the gate behind it, in a process in the server's namespace; tells what it granted, and when."""

    def __init__(self, network, slow, queues, options, sources):
        ends, ready = os.pipe(), os.pipe()
        self.ready, self.sources = ready[0], sources
        self.stopped = os.pipe()
        self.report = ends[0]
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                net.enter(network.server)
                fair.QUEUES = queues
                self.slow = slow
                os.close(self.stopped[1])
                self.run(options, ready[1], ends[1])
                code = 0
            except BaseException:  # nobody else would tell
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(ends[1])
        os.close(ready[1])
        assert self.happened(b"!")

    def happened(self, what, within=15):
        """Waits for what the process tells: "!" it hears, "L" all who flood are listed, "G" all knocks are granted."""
        return bool(select.select([self.ready], [], [], within)[0]) and os.read(self.ready, 1) == what

    def run(self, options, ready, out):
        loop, granted, gate, seen = Loop(), {}, Gate([Stanza(keys=KEYS)], GateSettings), Seen()

        def sink(datagram):
            decision = gate.judge(datagram, wall(), seen)
            if not decision.grant:
                time.sleep(self.slow)
                return False
            granted[decision.packet.username] = time.monotonic()
            return True

        memory, told, calm = [], [], []

        def look():
            memory.append(rss_kb())
            loop.at(monotonic() + 100, look)
            fence = capture.fence
            calm.append(bool(fence) and len(fence.listed) >= self.sources and not fence._busy)
            if not told and calm[-3:] == [True] * 3:  # what they sent before they were listed has been read
                told.append(os.write(ready, b"L"))
            if len(told) == 1 and len(granted) == KNOCKS:
                told.append(os.write(ready, b"G"))

        capture = make(options, sink)
        capture.start(loop)
        look()
        loop.reader(self.stopped[0], loop.stop)
        os.write(ready, b"!")
        loop.run()
        report = {"granted": granted, "listed": len(capture.fence.listed), "received": capture.received}
        report["memory"] = memory
        os.write(out, json.dumps(report).encode())

    def result(self):
        """Ends it; returns its report."""
        os.close(self.stopped[1])
        text = b""
        while True:
            part = os.read(self.report, 65536)
            if not part:
                break
            text += part
        os.waitpid(self.pid, 0)
        return json.loads(text)


def rss_kb():
    """Returns the resident memory of this process."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def under_flood(network, sources, family=4, slow=SLOW, queues=fair.QUEUES, **options):
    """Returns (how many true knocks of how many were granted, the report) under a flood whose sources are listed."""
    receiver = Receiver(network, slow, queues, options, sources)
    knocks = [
        seal(Packet(message="192.0.2.7,tcp/22", username="u%d" % number, timestamp=wall()), KEYS)
        for number in range(KNOCKS)
    ]
    address = (net.SERVER6 if family == 6 else net.SERVER, 62201)
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with network.new_socket(network.client, kind, socket.SOCK_DGRAM) as sender:
        flood = Flood(network, sources, 60, family)
        assert receiver.happened(b"L")
        for data in knocks:
            sender.sendto(data, address)
            time.sleep(PERIOD)
        receiver.happened(b"G", 2)
        report = receiver.result()
        flood.stop()
    return len(report["granted"]), len(knocks), report


def test_one_socket_is_deaf_under_a_flood_from_one_source(network):
    granted, sent, _ = under_flood(network, 1, queues=1, interface="eth0")
    assert granted < sent / 2


CASES = (
    (1, 4, SLOW, {"interface": "eth0"}),
    (64, 4, SLOW, {"interface": "any"}),
    (500, 4, FAST, {"interface": "eth0"}),  # they have to be read to be listed
    (1, 6, SLOW, {"interface": "eth0"}),
    (64, 4, SLOW, {"kind": "udp"}),
)


@pytest.mark.parametrize("sources,family,slow,options", CASES)
def test_knocks_are_read_under_a_flood_from_some_sources(network, sources, family, slow, options):
    granted, sent, report = under_flood(network, sources, family, slow, **options)
    assert granted >= sent * 0.95, report
    assert 0 < report["listed"] <= sources


def test_memory_is_bounded_under_a_flood_from_everywhere(network):
    _, _, report = under_flood(network, 0, slow=FAST, interface="eth0")
    memory = report["memory"]
    assert report["received"] > 2000 and len(memory) > 10
    calm, early, late = memory[0], max(memory[:-8]), memory[-1]
    assert late - calm < 4096, memory  # the queues' programs and 4,096 sources that are counted
    assert late - early < 1024, memory
