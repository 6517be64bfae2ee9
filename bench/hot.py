"""Where the microseconds of a packet go, step by step: `python bench/hot.py`. Needs root, for a network of its own.

A real packet socket, the real gate and daemon in this process; the CPU of this thread is what counts, so nothing that
waits does. What a step costs is the difference between running without it and with it.
"""

import base64
import os
import socket
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tests.real import net  # noqa: E402  (after the path above)
from tinyknop import Keys, Packet, compat, crypto, log, seal, spa  # noqa: E402
from tinyknop.capture import ip, packet  # noqa: E402
from tinyknop.daemon import Daemon  # noqa: E402
from tinyknop.loop import Loop  # noqa: E402
from tinyknop.rules import given  # noqa: E402
from tinyknop.settings import Settings  # noqa: E402
from tinyknop.stanza import Stanza  # noqa: E402

TITLE = "Where the microseconds go"
ROUNDS, AT_ONCE = 300, 60  # at once: less than a quota, so that it is no flood
KEYS = Keys(b"an encryption key", b"an hmac key")
HOW = """CPU of one thread on packets of 204 characters, one stanza (`python bench/hot.py`): a twentieth of the rounds
is faster. %d packets wait in the queue, so that waking up costs nothing, but for the last row of the first table. The
second is of code that has just run; after a sleep each step takes three to five times as long: no cache has it then.
"""


def low(times):
    """Returns the microseconds that a twentieth of the rounds stayed below."""
    return sorted(times)[len(times) // 20] / 1000


def timed(call):
    """Returns the nanoseconds of this thread's CPU that a call takes."""
    began = time.thread_time_ns()
    call()
    return time.thread_time_ns() - began


class Bench:
    """A daemon that hears bogus packets from the other end of a network."""

    def __init__(self, network, state):
        rows = [("KEY", KEYS.key.decode()), ("HMAC_KEY", KEYS.hmac_key.decode()), ("name", "alice")]
        self.stanza = Stanza([(name, text, "bench:1") for name, text in rows], "bench:1")
        self.loop, self.settings = Loop(), Settings([("state_dir", state, "bench:1")])
        self.daemon = Daemon(self.settings, [self.stanza], self.loop)
        self.capture = packet.Capture({"interface": "eth0"}, self.daemon.heard)
        network.inside(network.server, lambda: self.capture.start(self.loop))
        self.sender = network.new_socket(network.client, kind=socket.SOCK_DGRAM)
        self.junk = [base64.b64encode(os.urandom(153)) for _ in range(AT_ONCE)]

    def cost(self, call, count):
        """Returns the microseconds of a call with so many packets in the queue."""
        times = []
        for _ in range(ROUNDS):
            for data in self.junk[:count]:
                self.sender.sendto(data, (net.SERVER, 62201))
            times.append(timed(call))
        return low(times)

    def bogus(self):
        """Yields (step, microseconds of a bogus packet)."""
        recv, judge, heard = self.capture.sockets[0].recv, self.daemon._gate.judge, self.daemon.heard
        calls = (
            ("read it from the socket", lambda: recv(1568)),
            ("find addresses and payload", lambda: ip.parse(recv(1568))),
            ("judge it: length, alphabet, HMAC", lambda: judge(ip.parse(recv(1568)), compat.wall(), None)),
            ("count it and remember it for `status`", lambda: heard(ip.parse(recv(1568)))),
        )
        before = 0
        for name, call in calls:
            total = self.cost(lambda call=call: [call() for _ in range(AT_ONCE)], AT_ONCE) / AT_ONCE
            yield name, total - before
            before = total
        total = self.cost(self.loop.turn, AT_ONCE) / AT_ONCE
        yield "share of a turn of the loop", total - before
        yield "all of it", total
        yield "all of it, alone in its turn", self.cost(self.loop.turn, 1)

    def true(self):
        """Yields (step, microseconds of a true knock) from the HMAC to the decision."""
        now = compat.wall()
        data = seal(Packet("192.0.2.7,tcp/22", "alice", timestamp=now), KEYS)
        gram = ip.Datagram(data, b"\xc0\0\2\7", 4000, b"\x0a\0\0\1", 62201, 17)
        raw = spa.from_base64(b"U2FsdGVkX1" + data[:-43])
        mode, key, iv = KEYS.derived(raw[8:16])
        plain = crypto.decrypt(mode, key, iv, raw[16:])
        plain = plain[: -plain[-1]]
        packet_ = spa.parse(plain, True)
        mac, digests = crypto.mac("sha256", KEYS.hmac_key), iter(range(1 << 30))
        replay = self.daemon._replay
        replay.enabled = True
        calls = (
            ("HMAC", lambda: mac(data)),
            ("digest, for the replay store", lambda: crypto.digest("sha256", data)),
            ("base64, both ways", lambda: spa.to_base64(spa.from_base64(data))),
            ("key and IV (MD5, three times)", lambda: KEYS.derived(raw[8:16])),
            ("AES", lambda: crypto.decrypt(mode, key, iv, raw[16:])),
            ("take the fields apart, and check them", lambda: spa.parse(plain, True)),
            ("write the digest down", lambda: replay.add(next(digests).to_bytes(32, "big"), gram, now + 60, now)),
            ("the stanza's rules", lambda: given(self.stanza, packet_, gram, None, now, self.settings)),
        )
        for name, call in calls:
            call()
            yield name, low([timed(lambda call=call: [call() for _ in range(20)]) for _ in range(ROUNDS)]) / 20


def run():
    """Returns both tables and how they were measured, in Markdown."""
    before, log.sink = log.sink, lambda level, text: None
    try:
        with net.Net() as network, tempfile.TemporaryDirectory() as state:
            bench = Bench(network, state)
            parts = (("a bogus packet", bench.bogus()), ("a true knock, as far as the decision", bench.true()))
            text = ""
            for title, rows in parts:
                text += "| %s | µs |\n|---|---|\n" % title
                text += "".join(["| %s | %.1f |\n" % row for row in rows]) + "\n"
            bench.capture.stop()
            bench.sender.close()
    finally:
        log.sink = before
    return text + HOW % AT_ONCE


if __name__ == "__main__":
    print(run())
