"""Runs on MicroPython, in a heap of a given size: endurance.py CONFIG KNOCKS BOGUS SECONDS.

The daemon of a configuration hears knocks so many simulated seconds apart, by its stanzas' keys in turn, and bogus
packets between them. Prints one line: heap in use early and late, what was granted, and what was refused.
"""

import gc
import sys

from tinyknop import compat

clock = [1800000000, 5000]  # wall-clock seconds, monotonic ms
compat.wall = lambda: clock[0]
compat.monotonic = lambda: clock[1]

from tinyknop import Keys, Packet, seal  # noqa: E402  (the clock comes first)
from tinyknop.__main__ import read, start, state  # noqa: E402

SETTLED = 100  # knocks, after which all that is kept for some time has come and gone


def datagram(data):
    from tinyknop.gate import Datagram

    return Datagram(data, b"\xc0\0\2\7", 40000, b"\0\0\0\0", 62201, 17)


def knock(number, keys):
    packet = Packet(message="192.0.2.%d,tcp/22" % (number % 250 + 1), username="u", timestamp=clock[0])
    return datagram(seal(packet, keys))


def tick(loop, seconds):
    """Time passes: whatever is due is done, and no poll waits."""
    clock[0] += seconds
    clock[1] += seconds * 1000
    for _ in range(6):
        loop.soon(int)
        loop.turn()


def main(path, knocks, bogus, seconds):
    settings, stanzas = read(path)
    state(settings.state_dir)
    daemon = start(settings, stanzas)
    keys = [Keys(key=one.keys.key, hmac_key=one.keys.hmac_key) for one in stanzas]
    other = Keys(key=b"k" * 32, hmac_key=b"h" * 32)
    gc.collect()
    idle = early = gc.mem_alloc()
    for number in range(knocks):
        daemon.heard(knock(number, keys[number % len(keys)]))
        forged = knock(number, other)
        for _ in range(bogus // knocks):
            daemon.heard(forged)
        tick(daemon.loop, seconds)
        if number == SETTLED:
            gc.collect()
            early = gc.mem_alloc()
    gc.collect()
    print("heap %d %d %d" % (idle, early, gc.mem_alloc()))
    counted = ["%s=%d" % item for item in sorted(daemon.counters.items()) if item[1]]
    print("counted", *counted, "live=%d" % len(daemon.keeper.grants.live))


main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
