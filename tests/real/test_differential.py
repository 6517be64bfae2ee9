"""The same packets to libfko and to `unseal`, on both Pythons: true ones, nearly true ones, damaged ones.

What libfko takes and we refuse is in docs/strict.md, each kind with its reason. The other way round there is nothing.
libfko runs in a process of its own: whatever it does with a packet, the test sees it.
"""

import collections
import os
import re
import subprocess
import sys

import pytest

from scripts.stage import stage
from tests import mutants
from tests.need import need, share
from tests.real import libfko, peers
from tests.unsealer import verdict
from tinyknop import Keys, Rejected, unseal

SEEDS = range(share(2, 100))
COUNT = share(10000, 100000)
STRICT = os.path.join(peers.ROOT, "docs", "strict.md")


def listed():
    """Returns {(stage, reason)} of the table in docs/strict.md."""
    with open(STRICT, encoding="utf-8") as file:
        return set(re.findall(r"^\| `([a-z_]+)` \| `([^`]+)` \|", file.read(), re.M))


def kind(error):
    """Returns a refusal as the table names it: without what differs from packet to packet."""
    return error.stage, re.sub(r"^'[^']*' is", "'…' is", error.reason)


def agreed(lib, case):
    """Returns "taken", "refused", or the kind of a difference; fails where we take what libfko refuses."""
    ours = theirs = why = None
    try:
        ours = unseal(case.data, Keys(case.key, case.hmac_key, case.mode, case.hmac))
    except Rejected as error:
        why = kind(error)
    try:
        theirs = libfko.decode(lib, *case[1:])
    except libfko.FkoError:
        assert ours is None, case
        return "refused"
    if ours is None:
        return why
    for name in libfko.Fields._fields:
        mine, other = getattr(ours, name) or None, getattr(theirs, name) or None
        mine = mine.encode().decode("latin-1") if isinstance(mine, str) else mine
        assert mine == other, (name, case)
    return "taken"


def compare(seed, count):
    """Prints how many cases came out how; run in a process of its own."""
    lib = libfko.load()
    found = collections.Counter(agreed(lib, case) for case in mutants.cases(seed, count))
    for one, number in found.items():
        print("%d\t%s" % (number, one if isinstance(one, str) else "\t".join(one)))


def test_what_libfko_takes_we_take_or_the_docs_say_why_not():
    need("libfko.so")
    found = collections.Counter()
    for seed in SEEDS:
        argv = [sys.executable, "-m", "tests.real.test_differential", str(seed), str(COUNT)]
        done = subprocess.run(argv, cwd=peers.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout.decode()[-2000:]
        for line in done.stdout.decode().splitlines():
            number, *one = line.split("\t")
            found[tuple(one)] += int(number)
    assert found[("taken",)] > COUNT / 10 and found[("refused",)] > COUNT / 10
    assert {one for one in found if len(one) == 2} == listed()


@pytest.fixture(scope="module")
def micropython(tmp_path_factory):
    """Returns what runs a script on MicroPython with the staged tree."""
    folder = str(tmp_path_factory.mktemp("differential"))
    stage(folder)
    env = dict(os.environ, MICROPYPATH=folder + ":.frozen")
    argv = [need("micropython"), "-X", "heapsize=16m"]
    return lambda *words: subprocess.run([*argv, *words], env=env, capture_output=True, check=True).stdout.decode()


def test_both_pythons_say_the_same(micropython, tmp_path):
    cases = [mutants.words(case) for case in mutants.cases(77, share(700, 100000))]
    (tmp_path / "cases").write_text("\n".join(cases) + "\n")
    said = micropython(os.path.join(peers.ROOT, "tests", "unsealer.py"), str(tmp_path / "cases")).splitlines()
    assert len(said) == len(cases)
    for line, small in zip(cases, said):
        assert verdict(line) == small, line


if __name__ == "__main__":
    compare(int(sys.argv[1]), int(sys.argv[2]))
