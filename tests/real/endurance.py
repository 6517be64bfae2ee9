"""Runs on MicroPython, in a heap of a given size: endurance.py CONFIG PACKETS BOGUS SECONDS.

The daemon of a configuration hears the packets of a file, a line for a knock and a line for one that is forged, by
turns. A forged one comes BOGUS times; a knock so many simulated seconds after the one before it. Prints one line: heap
in use at first, early and late, and one with what was granted, and what was refused.
"""

import gc
import sys

from tinyknop import compat

clock = [1800000000, 5000]  # wall-clock seconds, monotonic ms
compat.wall = lambda: clock[0]
compat.monotonic = lambda: clock[1]

from tinyknop.__main__ import read, start, state  # noqa: E402  (the clock comes first)

SETTLED = 100  # knocks, after which all that is kept for some time has come and gone


def datagram(data):
    from tinyknop.gate import Datagram

    return Datagram(data, b"\xc0\0\2\7", 40000, b"\0\0\0\0", 62201, 17)


def tick(loop, seconds):
    """Time passes: whatever is due is done, and no poll waits."""
    clock[0] += seconds
    clock[1] += seconds * 1000
    for _ in range(6):
        loop.soon(int)
        loop.turn()


def main(path, packets, bogus, seconds):
    settings, stanzas = read(path)
    state(settings.state_dir)
    daemon = start(settings, stanzas)
    gc.collect()
    idle = early = gc.mem_alloc()
    number = 0
    with open(packets, "rb") as file:
        while True:
            knock, forged = file.readline(), file.readline()
            if not forged:
                break
            daemon.heard(datagram(knock[:-1]))
            forged = datagram(forged[:-1])
            for _ in range(bogus):
                daemon.heard(forged)
            tick(daemon.loop, seconds)
            number += 1
            if number == SETTLED:
                gc.collect()
                early = gc.mem_alloc()
    gc.collect()
    print("heap %d %d %d" % (idle, early, gc.mem_alloc()))
    counted = ["%s=%d" % item for item in sorted(daemon.counters.items()) if item[1]]
    print("counted", *counted, "live=%d" % len(daemon.keeper.grants.live))


main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
