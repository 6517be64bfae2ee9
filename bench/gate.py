"""What one packet costs the gate, in microseconds of CPU, by the number of stanzas: `python bench/gate.py`.

The gate alone, without socket, capture and log. `rows()` is for other programs.
"""

import base64
import os
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tinyknop import Keys, Packet, hints, seal  # noqa: E402  (after the path above)
from tinyknop.gate import Datagram, Gate  # noqa: E402
from tinyknop.settings import Settings  # noqa: E402
from tinyknop.stanza import Stanza  # noqa: E402

COUNTS = (1, 100, 1000, 10000)
SECONDS = 0.3  # of CPU for each figure
ROUNDS = 3  # the fastest counts: what else the machine does can only make it slower
SOURCE = b"\xc6\x33\x64\x07"
HINTED = ("require_hint", "Y")


class NothingSeen:
    """A replay store that forgets: the same packet can be judged again and again."""

    def known(self, digest):
        return False

    def add(self, digest, datagram, stamp, now):
        pass


def keys(number):
    """Returns the Keys of the stanza of this number."""
    return Keys(b"key %06d" % number, b"hmac key %06d" % number)


def stanzas(count, *more, sources=False):
    """Returns so many stanzas, each with keys of its own; `sources`: each for one address of its own."""
    made = []
    for number in range(count):
        given = [("KEY", "key %06d" % number), ("HMAC_KEY", "hmac key %06d" % number), ("name", "u%d" % number)]
        if sources:
            given.append(("SOURCE", "10.%d.%d.%d" % (number >> 16, number >> 8 & 255, number & 255)))
        made.append(Stanza([(name, text, "bench:1") for name, text in given + list(more)], "bench:1"))
    return made


def datagram(payload, source=SOURCE):
    """Returns a Datagram as the captures make them."""
    return Datagram(payload, source, 40000, b"\x0a\x00\x00\x01", 62201, 17)


def bogus():
    """Returns a datagram that only an HMAC tells from a knock: 204 characters, the first as in every knock."""
    return datagram(b"8" + base64.b64encode(os.urandom(153))[1:])


def knock(number, now, hinted):
    """Returns a true knock for the stanza of this number."""
    salt = os.urandom(8)
    if hinted:
        salt = salt[:4] + hints.hint(keys(number).hmac_key, now) + salt[:1]
    return datagram(seal(Packet("192.0.2.7,tcp/22", "bench", timestamp=now), keys(number), salt=salt))


def cost(gate, grams, now, stage):
    """Returns the microseconds of CPU for one of some datagrams, each of which has to end at `stage`."""
    seen, judge, best = NothingSeen(), gate.judge, None
    for gram in grams:
        assert judge(gram, now, seen).stage == stage
    for _ in range(ROUNDS):
        done, began = 0, time.process_time()
        while time.process_time() - began < SECONDS / ROUNDS:
            for gram in grams:
                judge(gram, now, seen)
            done += len(grams)
        taken = (time.process_time() - began) / done
        best = taken if best is None else min(best, taken)
    return best * 1e6


def rows():
    """Yields (what, {number of stanzas: microseconds})."""
    now = int(time.time())
    junk = [bogus() for _ in range(16)]
    plain = {count: Gate(stanzas(count), Settings()) for count in COUNTS}
    demanding = {count: Gate(stanzas(count, HINTED), Settings()) for count in COUNTS}
    apart = {count: Gate(stanzas(count, sources=True), Settings()) for count in COUNTS}
    yield "bogus", {c: cost(plain[c], junk, now, "hmac") for c in COUNTS}
    yield "bogus, every stanza with require_hint", {c: cost(demanding[c], junk, now, "hint") for c in COUNTS}
    yield "bogus, every stanza for an address of its own", {c: cost(apart[c], junk, now, "source") for c in COUNTS}
    near = {c: [datagram(gram.payload, b"\x0a\0\0\0") for gram in junk] for c in COUNTS}
    yield "the same, from one of these addresses", {c: cost(apart[c], near[c], now, "hmac") for c in COUNTS}
    # Two in turn: both stay in front, so that this is the cost of a knock without any search.
    yield "true, of the stanzas used last", {c: turns(plain[c], c, now, False) for c in COUNTS}
    yield "true and hinted, of the last stanzas", {c: turns(demanding[c], c, now, True) for c in COUNTS}


def turns(gate, count, now, hinted):
    """Returns what true knocks for the last stanza and the one before it cost in turn."""
    return cost(gate, [knock(number, now, hinted) for number in (count - 1, max(count - 2, 0))], now, None)


def main():
    """Prints the table."""
    print("%-48s" % "us of CPU per packet" + "".join(["%10d" % count for count in COUNTS]))
    for what, figures in rows():
        print("%-48s" % what + "".join(["%10.1f" % figures[count] for count in COUNTS]))


if __name__ == "__main__":
    main()
