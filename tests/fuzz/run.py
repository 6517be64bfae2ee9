"""Fuzzes one target: python -m tests.fuzz.run NAME [--seconds N] [--runs N] [--seed N] [--corpus FOLDER] [--plain].

Guided by coverage where atheris can be imported (pip install atheris), else, or with --plain, by a loop of ours that
only mutates. A find is written to fuzz-NAME-* here, shown, and makes the exit status other than 0.
"""

import argparse
import hashlib
import os
import random
import sys
import tempfile
import time

ODD = (
    b"\0",
    b"\xff",
    b"\xfe",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b":",
    b"=",
    b"-1",
    b"0",
    b"9" * 20,
    b"1" * 5000,
    b"%",
    b'"',
    b"[",
    b"{",
    "²".encode(),
    b"\xb2",
)
LONGEST = 8192


def mutated(rng, seed, others):
    """Returns a seed with one to four changes."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 4)):
        place, how = rng.randrange(len(data) + 1), rng.randrange(8)
        size = rng.choice((1, 1, 2, 4, 16, 64))
        if how == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif how == 1 and place < len(data):
            data[place] = rng.randrange(256)
        elif how == 2:
            del data[place : place + size]
        elif how == 3:
            data[place:place] = data[place : place + size] * rng.choice((1, 1, 40))
        elif how == 4:
            data[place:place] = rng.choice(ODD)
        elif how == 5:
            data[place : place + size] = rng.randbytes(size)
        elif how == 6:
            del data[place:]
        else:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            data[place : place + size] = other[begin : begin + rng.randrange(200)]
    return bytes(data[:LONGEST])


def inputs(name, number, runs=None):
    """Yields a target's seeds, then mutations of them: the same for the same number."""
    from tests.fuzz import corpus

    seeds, rng, made = corpus.seeds(name) + [b""], random.Random("%s %d" % (name, number)), 0
    while runs is None or made < runs:
        yield seeds[made] if made < len(seeds) else mutated(rng, rng.choice(seeds), seeds)
        made += 1


def plain(name, seconds, runs, number):
    """Runs the loop of ours; returns how many inputs there were. Raises what the target raised."""
    from tests.fuzz import targets

    end, count = time.monotonic() + seconds if seconds else None, 0
    for data in inputs(name, number, runs):
        if count % 64 == 0 and end and time.monotonic() > end:
            break
        try:
            targets.TARGETS[name](data)
        except Exception:
            path = "fuzz-%s-%s" % (name, hashlib.sha1(data).hexdigest()[:12])
            with open(path, "wb") as file:
                file.write(data)
            print("a find: %s" % path, file=sys.stderr)
            raise
        count += 1
    return count


def guided(name, options):
    """Hands over to atheris, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["tinyknop", "ports"]):
        from tests.fuzz import corpus, targets
    target = targets.TARGETS[name]
    folder = options.corpus or tempfile.mkdtemp(prefix="fuzz-corpus-")
    os.makedirs(folder, exist_ok=True)
    for data in corpus.seeds(name):
        with open(os.path.join(folder, hashlib.sha1(data).hexdigest()), "wb") as file:
            file.write(data[:LONGEST])
    words = [sys.argv[0], folder, "-max_len=%d" % LONGEST, "-artifact_prefix=fuzz-%s-" % name, "-timeout=20"]
    words += ["-max_total_time=%d" % options.seconds] if options.seconds else []
    words += ["-runs=%d" % options.runs] if options.runs else []
    words += ["-seed=%d" % options.seed, "-print_final_stats=1", "-verbosity=1"]
    atheris.Setup(words, lambda data: target(data), enable_python_coverage=True)
    atheris.Fuzz()


def main(words):
    """Runs one target; returns the exit status."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description="Fuzzes one target.")
    parser.add_argument("name")
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus")
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args(words)
    try:
        import atheris  # noqa: F401
    except ImportError:
        options.plain = True
    if not options.plain:
        return guided(options.name, options)
    began = time.monotonic()
    count = plain(options.name, options.seconds or (0 if options.runs else 60), options.runs or None, options.seed)
    print("%s: %d inputs in %d s, no find" % (options.name, count, time.monotonic() - began))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
