"""Does the time of a refusal tell anything about a key? A statistical check in the way of dudect.

`python -m tests.timing [--samples N] [--seed N]`: of two classes of packets that the gate refuses, drawn at random one
by one, it compares the times by Welch's t-test, of all samples and of those below a number of percentiles, since a
leak hides in the short times and noise in the long ones. The largest |t| counts: below 4.5 there is no sign of a
difference. The last row compares by a loop that stops at the first byte that differs: there t must be far above 4.5,
or the check is blind. Ends with 0 if all rows are as they have to be. Let it have a CPU of its own (taskset -c 1).
The comparison that MicroPython has instead of CPython's is measured there: tests/timing_equal.py.
"""

import argparse
import array
import bisect
import contextlib
import gc
import random
import sys
import time

from tinyknop import Keys, Packet, crypto, seal
from tinyknop.crypto import host, small
from tinyknop.gate import Datagram, Gate
from tinyknop.hints import hint

NOW = 1700000000
FAR = 4.5  # |t| from which two times differ: the figure of dudect's paper and of TVLA
CROPS = 20  # percentiles below which the samples are looked at again
POOL = 1024  # packets of each class
STANZAS = 8
ROWS = (
    ("the HMAC is wrong in its first / last byte", "places"),
    ("HMAC by another key / right key, HMAC wrong in one character", "keys"),
    ("key of the first / last stanza, HMAC wrong in one character", "stanzas"),
    ("seen before / new, HMAC wrong in one character", "replays"),
    ("an old hint / none, HMAC wrong in one character", "hints"),
)


class Settings:
    ageing, max_age = True, 120
    test = http = any_agent = forwarded_for = forwarding = local_nat = False
    snat = None
    proxies = ()


class Stanza:
    source = destination = expires = open_ports = max_timeout = require_user = gpg = cycle = force_nat = None
    restrict_ports, timeout, require_source = (), 30, False
    force_snat = None
    cmd_exec = masquerade = forward_all = disable_dnat = require_hint = False

    def __init__(self, keys):
        self.name, self.keys = "a stanza", keys


class Seen(dict):
    """A replay store in memory."""

    known = dict.__contains__

    def add(self, digest, *_):
        """Remembers a digest."""
        self[digest] = True


def leaking(ours, theirs):
    """Compares as nobody should: it ends at the first byte that differs."""
    for one, other in zip(ours, theirs):
        if one != other:
            return False
    return len(ours) == len(theirs)


def plain_equal():
    """Returns the comparison that `small` has where the runtime has none: on MicroPython."""
    with open(small.__file__, encoding="utf-8") as file:
        text = file.read()
    found = {"__name__": "tinyknop.crypto.plainly", "__package__": "tinyknop.crypto"}
    with hidden("_operator"):
        exec(compile(text, small.__file__, "exec"), found)  # a second module, without leaving it in sys.modules
    return found["equal"]


@contextlib.contextmanager
def hidden(name):
    """Makes `import name` fail for a while."""
    before = sys.modules.get(name)
    sys.modules[name] = None
    try:
        yield
    finally:
        del sys.modules[name]
        if before is not None:
            sys.modules[name] = before


@contextlib.contextmanager
def back_end(module, equal):
    """Has the gate use one back end and one comparison for a while."""
    before = crypto.digest, crypto.mac, crypto.equal
    crypto.digest, crypto.mac, crypto.equal = module.digest, module.mac, equal
    try:
        yield
    finally:
        crypto.digest, crypto.mac, crypto.equal = before


def keyring(hmac="sha256"):
    """Returns the Keys of all stanzas, and a stranger's."""
    return [Keys(b"key %d" % n, b"hmac key %d" % n, hmac=hmac) for n in range(STANZAS + 1)]


def broken(payload, keys, last=True):
    """Returns a packet with one changed character at the end, or at the start, of its HMAC: another true spelling."""
    place = len(payload) - 2 if last else len(payload) - keys.hmac_length
    other = b"A" if payload[place : place + 1] != b"A" else b"B"
    return payload[:place] + other + payload[place + 1 :]


def sealed(keys, rng, hinted=None):
    """Returns a new true packet, all of one length; `hinted` is the second whose hint it carries."""
    salt = bytearray(rng.getrandbits(8) for _ in range(8))
    if hinted is not None:
        salt[4:7] = hint(keys.hmac_key, hinted)
    digits = "%016d" % rng.randrange(10**16)
    return seal(Packet("192.0.2.7,tcp/22", "alice", rand=digits, timestamp=NOW), keys, salt=bytes(salt))


def classes(kind, ring, seen, rng, size=POOL):
    """Returns two lists of `size` packets that the gate refuses for their HMAC."""
    first, last, stranger = ring[0], ring[-2], ring[-1]
    made = ([], [])
    for number in range(size):
        old = sealed(last, rng)
        pair = {
            "places": lambda old=old: (broken(old, last, last=False), broken(old, last)),
            "keys": lambda old=old: (sealed(stranger, rng), broken(old, last)),
            "stanzas": lambda old=old: (broken(sealed(first, rng), first), broken(old, last)),
            "replays": lambda old=old: (broken(old, last), broken(sealed(last, rng), last)),
            # Of many minutes: the look-up of one word takes its own time, whosever it is.
            "hints": lambda old=old, then=NOW - 600 - 60 * number: (
                broken(sealed(last, rng, then), last),
                broken(old, last),
            ),
        }[kind]()
        if kind == "replays":
            seen.add(crypto.digest("sha256", old))
            seen.add(crypto.digest("sha256", pair[0]))
        made[0].append(pair[0])
        made[1].append(pair[1])
    return made


def gated(ring, seen):
    """Returns a function from a packet to its Decision."""
    gate = Gate([Stanza(keys) for keys in ring[:-1]], Settings)
    gate.advance(NOW)
    source, here = b"\xc0\x00\x02\x63", b"\x0a\x00\x00\x01"
    return lambda payload: gate.judge(Datagram(payload, source, 5, here, 62201, 17), NOW, seen)


def samples(judge, pools, count, rng, clock=time.perf_counter_ns):
    """Returns the times of `count` judgements by class, each of a fresh copy, so that no place in memory counts."""
    found = (array.array("Q"), array.array("Q"))
    mixed = [(kind, payload) for kind, pool in enumerate(pools) for payload in pool]
    rng.shuffle(mixed)  # or one class would lie elsewhere than the other, and evict other lines of the cache
    kinds, packets = [kind for kind, _ in mixed], [bytes(bytearray(payload)) for _, payload in mixed]
    gc.collect()
    gc.disable()
    try:
        for _ in range(count):
            number = rng.getrandbits(32) % len(packets)
            payload = bytes(bytearray(packets[number]))
            start = clock()
            judge(payload)
            end = clock()  # before anything that depends on the class
            found[kinds[number]].append(end - start)
    finally:
        gc.enable()
    return found


def welch(one, other):
    """Returns Welch's t of two (count, sum, sum of squares); 0 where nothing can be told."""
    if min(one[0], other[0]) < 2:
        return 0.0
    means = [total / count for count, total, _ in (one, other)]
    spread = 0.0
    for (count, _, squares), mean in zip((one, other), means):
        spread += max(squares - count * mean * mean, 0) / (count - 1) / count
    if not spread:
        return 0.0 if means[0] == means[1] else float("inf")
    return (means[0] - means[1]) / spread**0.5


def furthest(found):
    """Returns the t that is furthest from 0, of all samples and of those below each of CROPS percentiles."""
    both = sorted(list(found[0]) + list(found[1]))
    limits = [both[-1]] + [both[int(len(both) * (1 - 0.5 ** (10 * (n + 1) / CROPS)))] for n in range(CROPS)]
    ordered = [sorted(times) for times in found]
    sums = []
    for times in ordered:
        rows = [(0, 0, 0)]
        for value in times:
            value -= both[0]  # smaller numbers; differences stay the same
            rows.append((rows[-1][0] + 1, rows[-1][1] + value, rows[-1][2] + value * value))
        sums.append(rows)
    cut = [[rows[bisect.bisect_right(times, limit)] for rows, times in zip(sums, ordered)] for limit in limits]
    return max((welch(*pair) for pair in cut), key=abs)


def measured(kind, module, equal, count, rng, clock=time.perf_counter_ns, hmac="sha256"):
    """Returns (t, median ns of a judgement) for one row of the table."""
    with back_end(module, equal):
        seen, ring = Seen(), keyring(hmac)
        judge = gated(ring, seen)
        pools = classes(kind, ring, seen, rng, min(POOL, count))
        for payload in pools[0] + pools[1]:
            assert judge(payload).stage == "hmac", "a class is not refused for its HMAC alone"
        found = samples(judge, pools, count, rng, clock)
    both = sorted(list(found[0]) + list(found[1]))
    return furthest(found), both[len(both) // 2]


def main(words):
    """Prints the table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tests.timing", description="Looks for keys in the time of a refusal.")
    parser.add_argument("--samples", type=int, default=100000)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args(words)
    rng = random.Random(given.seed)
    fine = True
    print("| back end | two kinds of refused packets | samples | median | largest t |\n|---|---|---|---|---|")
    for name, module, equal in (("native", host, host.equal), ("small", small, small.equal)):
        for text, kind in ROWS:
            t, median = measured(kind, module, equal, given.samples, rng)
            fine = fine and abs(t) < FAR
            print("| %s | %s | %d | %.1f µs | %.2f |" % (name, text, given.samples, median / 1000, t), flush=True)
    t, median = measured("places", host, leaking, given.samples, rng, hmac="sha512")
    print("| *a leak* | %s | %d | %.1f µs | %.2f |" % (ROWS[0][0], given.samples, median / 1000, t))
    return 0 if fine and abs(t) >= FAR else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
