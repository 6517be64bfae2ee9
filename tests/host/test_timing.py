"""A refusal costs the same whatever was wrong with the HMAC: counted operation by operation, so nothing here is timed.

What happens while the gate judges is written down: each line of Python that runs, each function in C that is called.
For packets of one length that fail at their HMAC these lists have to be the same. The statistical check of real times
is tests/timing.py; here only its arithmetic is tested, and in `make soak` it runs in full.
"""

import _operator
import gc
import itertools
import random
import sys

import pytest

from tests import timing
from tests.need import SOAK, share
from tests.timing import NOW, STANZAS, broken, classes, gated, keyring, measured, sealed
from tinyknop import Keys, Rejected, crypto, unseal
from tinyknop.crypto import aes, host, small

PLAIN = timing.plain_equal()
BACK_ENDS = {"native": (host, host.equal), "small": (small, PLAIN)}


def steps(call, *given):
    """Returns what runs during a call: (file, line) of Python, and the names of functions in C."""
    found = []

    def line(frame, event, _):
        if event == "line":
            found.append((frame.f_code.co_filename, frame.f_lineno))
        return line

    def compiled(frame, event, what):
        if event == "c_call":
            found.append(what.__name__)

    before = sys.gettrace(), sys.getprofile()
    gc.disable()  # it would run what belongs to other tests
    sys.settrace(line)
    sys.setprofile(compiled)
    try:
        call(*given)
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
        gc.enable()
    return found


@pytest.fixture(params=sorted(BACK_ENDS))
def chosen(request):
    with timing.back_end(*BACK_ENDS[request.param]):
        yield BACK_ENDS[request.param][0]


def forged(rng, ring):
    """Yields (name, packet) of every way in which an HMAC can be wrong, all packets of one length."""
    first, last, stranger = ring[0], ring[-2], ring[-1]
    true = sealed(first, rng)
    start = len(true) - first.hmac_length
    for place in range(start, len(true) - 1):
        yield "one character at %d" % place, true[:place] + swapped(true[place]) + true[place + 1 :]
    yield "a changed text", true[:40] + swapped(true[40]) + true[41:]
    yield "key of the last stanza, broken HMAC", broken(sealed(last, rng), last)
    yield "a stranger's keys", sealed(stranger, rng)
    yield "the right key, a stranger's HMAC key", sealed(Keys(first.key, stranger.hmac_key), rng)
    yield "a stranger's key, the right HMAC key, broken", broken(sealed(Keys(b"?", first.hmac_key), rng), first)
    yield "an HMAC of zeros", true[:start] + b"A" * first.hmac_length
    yield "an old hint", broken(sealed(last, rng, NOW - 6000), last)


def swapped(byte):
    return b"B" if byte == ord("A") else b"A"


def test_every_wrong_hmac_takes_the_same_steps(chosen):
    rng, ring = random.Random(1), keyring()
    judge = gated(ring, timing.Seen())
    judge(sealed(ring[-1], rng))  # what is made at first use is made
    lists = {}
    for name, payload in forged(rng, ring):
        assert judge(payload).stage == "hmac", name
        lists[name] = steps(judge, payload)
    usual = lists["a stranger's keys"]
    assert len(usual) > 5 * STANZAS, "the gate was not watched"
    assert [name for name in lists if lists[name] != usual] == []


def test_a_seen_packet_with_a_broken_hmac_takes_the_same_steps(chosen):
    rng, ring, seen = random.Random(2), keyring(), timing.Seen()
    judge = gated(ring, seen)
    true = sealed(ring[0], rng)
    assert judge(true).grant
    assert judge(true).stage == "replay"
    assert steps(judge, broken(true, ring[0])) == steps(judge, sealed(ring[-1], rng))


def test_unseal_takes_the_same_steps_for_every_wrong_hmac(chosen):
    rng, ring = random.Random(3), keyring()

    def stage(payload):
        try:
            return unseal(payload, ring[0])
        except Rejected as error:
            return error.stage

    packets = list(forged(rng, ring))
    assert {stage(payload) for _, payload in packets} == {"hmac"}
    usual = steps(stage, packets[0][1])
    assert [name for name, payload in packets if steps(stage, payload) != usual] == []


def test_nothing_is_decrypted_looked_up_or_stored_before_the_hmac_holds(chosen, monkeypatch):
    rng, ring, seen = random.Random(4), keyring(), timing.Seen()
    judge = gated(ring, seen)
    done, packets, true_one = [], list(forged(rng, ring)), sealed(ring[0], rng)
    for name in ("decrypt", "digest"):
        true = getattr(crypto, name)
        monkeypatch.setattr(crypto, name, lambda *what, true=true, name=name: done.append(name) or true(*what))
    for name, payload in packets:
        assert judge(payload).stage == "hmac"
        assert (done, dict(seen)) == ([], {}), name
    assert judge(true_one).grant  # else nothing was watched
    assert "decrypt" in done and len(seen) == 1


def test_each_stanza_costs_one_hmac_and_a_hint_that_is_right_one_more(chosen, monkeypatch):
    """A hint is no secret: who has seen a knock knows it. It finds its stanza first, and is never trusted."""
    made = []
    true = crypto.mac

    def counted(name, key):
        inner = true(name, key)
        return lambda data: made.append(key) or inner(data)

    monkeypatch.setattr(crypto, "mac", counted)
    rng, ring = random.Random(5), keyring()
    judge = gated(ring, timing.Seen())
    for hinted, wanted in ((None, STANZAS), (NOW - 6000, STANZAS), (NOW, STANZAS + 1)):
        payload = broken(sealed(ring[3], rng, hinted), ring[3])
        made.clear()
        assert judge(payload).stage == "hmac"
        assert len(made) == wanted


def test_plain_hashes_take_the_same_steps_for_any_bytes_of_one_length():
    rng = random.Random(6)
    for name in crypto.NAMES:
        if name == "sha256":  # every runtime has it
            continue
        made = small.plain(name)

        def hashed(data, made=made):
            made(data).digest()

        hashed(b"")
        usual = steps(hashed, bytes(200))
        assert steps(hashed, rng.getrandbits(1600).to_bytes(200, "big")) == usual, name


def test_plain_aes_takes_the_same_steps_for_any_key_and_text():
    """Which words of its tables it reads does depend on them: that is what its head warns of."""
    rng = random.Random(7)

    def both(key, text):
        aes.AES(key).encrypt(text)
        aes.AES(key).decrypt(text)

    both(bytes(32), bytes(64))
    usual = steps(both, bytes(32), bytes(64))
    for _ in range(3):
        key, text = rng.getrandbits(256).to_bytes(32, "big"), rng.getrandbits(512).to_bytes(64, "big")
        assert steps(both, key, text) == usual


def test_the_comparison_is_pythons_own_where_there_is_one():
    """It is what hmac.compare_digest falls back on: C, and its manual promises what here can only be measured."""
    assert crypto.equal is host.equal is small.equal is _operator._compare_digest
    assert PLAIN is not small.equal


def test_the_plain_comparison_takes_the_same_steps_wherever_it_differs():
    data = bytes(range(64))
    assert PLAIN(data, bytes(range(64)))
    usual = steps(PLAIN, data, bytes(range(64)))
    for place in range(64):
        other = data[:place] + b"\xff" + data[place + 1 :]
        assert not PLAIN(data, other)
        assert steps(PLAIN, data, other) == usual, place
    assert not PLAIN(data, data + b"\0") and not PLAIN(data + b"\0", data) and PLAIN(b"", b"")


# ---- tests/timing.py -------------------------------------------------------------------------------------------------


def test_steps_and_clock_see_a_comparison_that_stops_early():
    """The controls: with `leaking` both checks of this file's kind have to fail."""
    keys, rng = keyring(), random.Random(8)
    with timing.back_end(small, timing.leaking):
        judge = gated(keys, timing.Seen())
        pair = [pool[0] for pool in classes("places", keys, timing.Seen(), rng)]
        judge(pair[0])
        assert steps(judge, pair[0]) != steps(judge, pair[1])
    read, ticks = [0], itertools.count()

    def counting(ours, theirs):
        for one, other in zip(ours, theirs):
            read[0] += 1
            if one != other:
                return False
        return True

    t, _ = measured("places", host, counting, 400, rng, clock=lambda: 20 * next(ticks) + read[0])
    assert abs(t) > timing.FAR
    t, _ = measured("places", host, host.equal, 400, rng, clock=lambda: 20 * next(ticks) + rng.getrandbits(4))
    assert abs(t) < timing.FAR


def test_welch_and_cropping_find_a_small_shift_under_rare_large_noise():
    assert timing.welch((3, 6, 14), (3, 15, 77)) == pytest.approx(-3.674, abs=0.001)  # of 1 2 3 and 4 5 6
    assert timing.welch((1, 5, 25), (3, 6, 14)) == 0.0
    rng = random.Random(9)

    def times(shift):
        return [1000 + shift + rng.randrange(20) + (rng.random() < 0.02) * rng.randrange(10**6) for _ in range(4000)]

    assert abs(timing.furthest((times(0), times(2)))) > timing.FAR
    assert abs(timing.furthest((times(0), times(0)))) < timing.FAR


def test_the_statistical_check_finds_no_key(capsys):
    """Ten kinds of refusal and the control: only in `make soak` does the result count, since machines are busy."""
    status = timing.main(["--samples", str(share(40, 1000000)), "--seed", "1"])
    table = capsys.readouterr().out
    assert table.count("\n| native |") == table.count("\n| small |") == len(timing.ROWS)
    assert status == 0 or not SOAK, table
