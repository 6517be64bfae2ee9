"""Does MicroPython's comparison of HMACs tell by its time what differs? timing_equal.py [SAMPLES]

tests/timing.py for the one comparison that is ours, on the runtime that has no other. Three pairs of what is compared
with an HMAC of 32 bytes; t as there: below 4.5 there is no sign. The last row is a comparison that stops early.
Run it as: python scripts/on_micropython.py tests/timing_equal.py 1000000
"""

import gc
import os
import sys
import time

from tinyknop.crypto import small

CALLS = 8  # in one sample: the clock counts microseconds
FAR = 4.5


def leaking(ours, theirs):
    """Compares as nobody should."""
    for i in range(len(ours)):
        if ours[i] != theirs[i]:
            return False
    return True


def clock():
    """Returns microseconds."""
    return time.ticks_us() if hasattr(time, "ticks_us") else time.perf_counter_ns() // 1000


def measured(equal, pair, ours, count):
    """Returns Welch's t of comparing `ours` with one and with the other of a pair, in random order."""
    sums = [[0, 0, 0], [0, 0, 0]]
    limit = None
    first = []
    coins = b""
    for number in range(count):
        if not number % 1024:
            gc.collect()
            coins = os.urandom(128)
        kind = coins[number // 8 % 128] >> number % 8 & 1
        theirs = bytes(bytearray(pair[kind]))
        start = clock()
        for _ in range(CALLS):
            equal(ours, theirs)
        taken = clock() - start
        if limit is None:  # what is far above the usual time is somebody else's work
            first.append(taken)
            if len(first) == 1000:
                limit = 3 * sorted(first)[900]
        elif taken <= limit:
            row = sums[kind]
            row[0] += 1
            row[1] += taken
            row[2] += taken * taken
    means = [row[1] / row[0] for row in sums]
    spread = sum([(row[2] / row[0] - mean * mean) / row[0] for row, mean in zip(sums, means)])
    return (means[0] - means[1]) / spread**0.5 if spread > 0 else 0.0


def main(count):
    """Prints the table; returns the exit status."""
    ours = os.urandom(32)
    flipped = [ours[:i] + bytes([ours[i] ^ 1]) + ours[i + 1 :] for i in range(32)]
    pairs = (
        ("wrong in the first / last byte", (flipped[0], flipped[31])),
        ("wrong in all bytes / in the last", (bytes([byte ^ 85 for byte in ours]), flipped[31])),
        ("wrong in the last byte / the same", (flipped[31], ours)),
    )
    fine = True
    for text, pair in pairs:
        t = measured(small.equal, pair, ours, count)
        fine = fine and abs(t) < FAR
        print("| %s | %s | %d | %.2f |" % (sys.implementation.name, text, count, t))
    t = measured(leaking, pairs[0][1], ours, count)
    print("| *a leak* | %s | %d | %.2f |" % (pairs[0][0], count, t))
    return 0 if fine and abs(t) >= FAR else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100000))
