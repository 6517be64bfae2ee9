"""The replay store: bounded, on disk in fwknop's format, and closed where it cannot do its work."""

import os

from tinyknop import compat, log
from tinyknop.errors import Rejected
from tinyknop.gate import Datagram
from tinyknop.replay import HEADER, Replay
from tinyknop.spa import to_base64

FOLDER = os.getenv("TMPDIR") or "/tmp"
PATH = FOLDER + "/tinyknop-test-replay"
GRAM = Datagram(b"", b"\xc0\x00\x02\x07", 54109, b"\x0a\x63\x00\x01", 62201, 17)
GRAM6 = Datagram(b"", b"\x20\x01\x0d\xb8" + bytes(12), 1, bytes(16), 62201, 17)
A, B = b"\x01" * 32, b"\x02" * 32


class Clocks:
    """Stands in for the clocks of compat; put back by `close`."""

    def __init__(self, wall=1000000, boot_wall=900000):
        self.kept = compat.wall, compat.monotonic, compat.boot_wall
        self.now, self.ms, self.booted = wall, 5000, boot_wall
        compat.wall = lambda: self.now
        compat.monotonic = lambda: self.ms
        compat.boot_wall = lambda: self.booted

    def pass_by(self, seconds):
        self.now += seconds
        self.ms += 1000 * seconds

    def close(self):
        compat.wall, compat.monotonic, compat.boot_wall = self.kept


def with_clocks(body):
    global PATH
    if hasattr(os, "getpid"):  # by now: whoever runs mutants has imported this before it divides
        PATH = "%s/tinyknop-test-replay-%d" % (FOLDER, os.getpid())
    clocks = Clocks()
    try:
        body(clocks)
    finally:
        clocks.close()
        for name in (PATH, PATH + ".new"):
            if compat.exists(name):
                os.remove(name)


def loaded(**options):
    store = Replay(PATH, **options)
    store.load()
    return store


def refusal(store, digest, stamp, now, gram=GRAM):
    try:
        store.add(digest, gram, stamp, now)
    except Rejected as error:
        return error.stage
    return None


def test_a_digest_is_known_once_added_and_after_a_restart():
    def body(clocks):
        store = loaded()
        assert not store.known(A)
        assert refusal(store, A, clocks.now, clocks.now) is None
        assert store.known(A) and not store.known(B)
        assert loaded().known(A)

    with_clocks(body)


def test_the_file_is_fwknops_line_for_line():
    def body(clocks):
        store = loaded()
        refusal(store, A, clocks.now, clocks.now)
        refusal(store, B, clocks.now, clocks.now, GRAM6)
        with open(PATH, "rb") as file:
            lines = file.read().split(b"\n")
        assert lines[0] + b"\n" == HEADER
        entries = [line for line in lines if line and not line.startswith(b"#")]
        assert entries[0] == b"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE 17 192.0.2.7 54109 10.99.0.1 62201 1000000"
        assert entries[1].split()[1:] == b"17 0.0.0.0 1 0.0.0.0 62201 1000000".split()

    with_clocks(body)


def test_an_existing_cache_of_fwknopd_is_honoured():
    def body(clocks):
        with open(PATH, "wb") as file:
            file.write(
                HEADER + b"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE 17 192.0.2.7 1 10.0.0.1 62201 999990\njunk\n"
            )
        assert loaded().known(A)

    with_clocks(body)


def test_a_last_line_without_its_line_feed_is_still_remembered():
    def body(clocks):
        with open(PATH, "wb") as file:
            file.write(HEADER + b"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE 17 192.0.2.7 1 10.0.0.1 62201 999990")
        assert loaded().known(A)

    with_clocks(body)


def test_a_digest_goes_after_twice_the_window_and_its_stamp_stays_refused():
    def body(clocks):
        store = loaded()
        refusal(store, A, clocks.now + 100, clocks.now)
        clocks.pass_by(239)
        refusal(store, B, clocks.now, clocks.now)
        assert store.known(A)
        clocks.pass_by(2)
        refusal(store, b"\x03" * 32, clocks.now, clocks.now)
        assert not store.known(A)
        assert refusal(store, A, 1000100, clocks.now) == "replay"
        store.compact()
        assert refusal(loaded(ageing=False), A, 1000100, clocks.now) == "replay"

    with_clocks(body)


def test_with_ageing_off_nothing_is_forgotten():
    def body(clocks):
        store = loaded(ageing=False)
        refusal(store, A, 1, clocks.now)
        clocks.pass_by(10000)
        refusal(store, B, 1, clocks.now)
        assert store.known(A)
        assert loaded(ageing=False).known(A)

    with_clocks(body)


def test_after_a_reboot_packets_stamped_before_it_are_refused():
    def body(clocks):
        refusal(loaded(), A, clocks.now, clocks.now)
        clocks.pass_by(60)
        clocks.booted = clocks.now - 10
        store = loaded()
        assert refusal(store, B, clocks.now - 20, clocks.now) == "replay"
        assert refusal(store, b"\x03" * 32, clocks.now, clocks.now) is None

    with_clocks(body)


def test_a_crash_alone_refuses_nothing_new():
    def body(clocks):
        clocks.booted = 0
        refusal(loaded(), A, clocks.now, clocks.now)
        assert refusal(loaded(), B, clocks.now - 100, clocks.now) is None

    with_clocks(body)


def test_a_clock_behind_what_it_was_refuses_and_still_writes_the_digest_down():
    def body(clocks):
        refusal(loaded(), A, clocks.now, clocks.now)
        clocks.now -= 86400
        store = loaded()
        assert refusal(store, B, clocks.now, clocks.now) == "clock"
        assert store.known(B)

    with_clocks(body)


def test_a_step_back_that_the_process_saw_moves_the_mark_even_over_a_restart():
    def body(clocks):
        clocks.booted = 0
        store = loaded()
        refusal(store, A, clocks.now, clocks.now)
        clocks.now -= 86400
        store.stepped(-86400)
        assert refusal(store, B, clocks.now, clocks.now) is None
        assert refusal(loaded(), b"\x03" * 32, clocks.now, clocks.now) is None

    with_clocks(body)


def test_past_its_bound_a_knock_is_refused_and_no_digest_forgotten():
    def body(clocks):
        store = loaded(limit=1)
        refusal(store, A, clocks.now, clocks.now)
        assert refusal(store, B, clocks.now, clocks.now) == "full"
        assert store.known(A)

    with_clocks(body)


def test_a_cache_that_cannot_be_written_refuses():
    def body(clocks):
        store = Replay("no/such/directory/cache")
        assert refusal(store, A, clocks.now, clocks.now) == "full"
        assert not store.known(A)

    with_clocks(body)


def test_what_cannot_be_written_anew_at_the_start_is_known_all_the_same():
    def body(clocks):
        store = loaded()
        store.add(A, GRAM, clocks.now, clocks.now)
        said, kept, log.sink = [], log.sink, lambda level, text: said.append(text)

        class Full(Replay):
            def compact(self):
                raise OSError(30, "Read-only file system")

        try:
            again = Full(PATH)
            again.load(True)
        finally:
            log.sink = kept
        assert again.known(A) and len(said) == 1 and said[0].startswith(PATH + ": cannot be written anew: ")
        assert "30" in said[0][len(PATH) :] and said[0].endswith("; until it can no knock is accepted")
        try:
            Full(PATH).load()  # as a reload, which has another configuration to stay with
            raise AssertionError
        except OSError as error:
            assert error.errno == 30
        assert refusal(again, B, clocks.now, clocks.now) is None  # the disk can be written again

    with_clocks(body)


def test_the_file_does_not_grow_for_ever():
    def body(clocks):
        store = loaded(max_age=1)
        for i in range(3000):
            clocks.pass_by(1)
            refusal(store, i.to_bytes(32, "big"), clocks.now, clocks.now)
        with open(PATH, "rb") as file:
            assert file.read().count(b"\n") < 1100

    with_clocks(body)


def test_a_stamp_far_ahead_is_no_bound_for_others_and_its_packet_never_comes_back_not_even_over_a_restart():
    def body(clocks):
        store, ahead = loaded(), clocks.now + 1000
        refusal(store, A, ahead, clocks.now)
        with open(PATH, "rb") as file:
            assert file.read().split(b"\n")[-2].split()[6:] == [b"1000000", b"1001000"]
        for _ in range(4):
            clocks.pass_by(250)
            assert refusal(store, b"%032d" % clocks.now, clocks.now, clocks.now) is None
            assert store.known(A)
            store.compact()
            store = loaded()
            assert store.known(A)
        clocks.pass_by(121)
        assert refusal(store, B, clocks.now, clocks.now) is None
        assert not store.known(A) and refusal(store, A, ahead, clocks.now) == "replay"

    with_clocks(body)


def test_a_clock_that_goes_back_makes_no_digest_a_bound_that_is_ahead_of_it():
    def body(clocks):
        clocks.booted = 0
        store = loaded()
        refusal(store, A, clocks.now, clocks.now)
        clocks.now -= 7200
        store.stepped(-7200)
        clocks.pass_by(300)
        assert refusal(store, B, clocks.now, clocks.now) is None
        assert store.known(A) and store.floor < clocks.now

    with_clocks(body)


def test_a_store_in_the_place_of_another_knows_what_that_knew_and_after_a_restart_too():
    def body(clocks):
        old = Replay(PATH + ".old")
        old._keep(A, b"17 192.0.2.7 1 10.99.0.1 62201 1000000", clocks.now + 60, 240)
        old.floor, old.clock = clocks.now - 500, clocks.now
        store = loaded()
        store.adopt(old)
        for one in (store, loaded()):
            assert one.known(A) and (one.floor, one.clock) == (old.floor, old.clock)
        assert refusal(store, B, clocks.now - 60, clocks.now) is None

    with_clocks(body)


def test_a_store_in_the_place_of_none_refuses_what_may_have_been_let_in():
    def body(clocks):
        store = loaded()
        store.adopt(Replay(PATH + ".old", enabled=False))
        assert refusal(store, A, clocks.now - 1, clocks.now) == "replay"
        assert refusal(store, B, clocks.now, clocks.now) is None

    with_clocks(body)


def test_what_another_store_knew_is_known_though_the_disk_is_full():
    def body(clocks):
        old = Replay(PATH + ".old")
        old._keep(A, b"17 192.0.2.7 1 10.99.0.1 62201 1000000", clocks.now, 240)
        store, said, kept = loaded(), [], log.sink
        store.compact, log.sink = no_room, lambda level, text: said.append(text)
        try:
            store.adopt(old)
        finally:
            log.sink = kept
        assert store.known(A)
        assert len(said) == 1 and said[0].startswith(PATH + ": cannot be written anew: ") and "28" in said[0]

    with_clocks(body)


def test_what_another_store_knew_is_forgotten_in_its_time():
    def body(clocks):
        old, stamp = Replay(PATH + ".old"), clocks.now
        old._keep(A, b"17 192.0.2.7 1 10.99.0.1 62201 1000000", stamp, 240)
        store = loaded()
        store.adopt(old)
        for seconds, known in ((239, True), (1, False)):
            clocks.pass_by(seconds)
            refusal(store, B, clocks.now, clocks.now)
            assert store.known(A) == known
        assert store.floor == stamp

    with_clocks(body)


def no_room():
    raise OSError(28, "No space left on device")


def test_a_wider_window_keeps_what_it_would_let_in_again():
    def body(clocks):
        store = loaded(max_age=10)
        stamp = clocks.now
        refusal(store, A, stamp, clocks.now)
        store.max_age = 300
        clocks.pass_by(100)
        refusal(store, B, clocks.now, clocks.now)
        assert store.known(A)

    with_clocks(body)


def test_a_store_that_is_read_twice_holds_each_digest_once():
    def body(clocks):
        store = loaded()
        refusal(store, A, clocks.now, clocks.now)
        store.load()
        clocks.pass_by(241)
        assert refusal(store, B, clocks.now, clocks.now) is None
        assert not store.known(A)

    with_clocks(body)


def reason(store, digest, stamp, now):
    try:
        store.add(digest, GRAM, stamp, now)
    except Rejected as error:
        return error.stage + ": " + error.reason
    return None


def test_each_refusal_says_why():
    def body(clocks):
        store = loaded(limit=1)
        assert reason(store, A, 5, clocks.now) == (
            "replay: stamped before the last restart of this machine, or long ago"
        )
        assert reason(store, B, clocks.now, clocks.now) == "full: the replay store holds 1 digests, its bound"
        clocks.now -= 3600
        assert reason(loaded(), B, clocks.now, clocks.now) == "clock: the clock is 3600 s behind what it was; set it"
        assert reason(Replay("no/such/cache"), B, clocks.now, clocks.now).startswith(
            "full: the digest cache cannot be written: [Errno 2]"
        )

    with_clocks(body)


def test_a_clock_is_behind_from_the_second_on_that_the_window_ends():
    def body(clocks):
        store = loaded()
        refusal(store, A, clocks.now, clocks.now)
        assert refusal(store, B, clocks.now, clocks.now - 120) is None
        assert refusal(store, b"\x03" * 32, clocks.now, clocks.now - 121) == "clock"

    with_clocks(body)


def test_nothing_but_a_restart_makes_an_early_stamp_an_old_one():
    def body(clocks):
        store = Replay(PATH, ageing=False)
        assert refusal(store, A, 1, clocks.now) is None

    with_clocks(body)


def test_an_entry_is_the_line_of_the_file_without_its_digest():
    def body(clocks):
        store = loaded()
        refusal(store, A, clocks.now, clocks.now)
        assert store.entry(A) == "17 192.0.2.7 54109 10.99.0.1 62201 1000000"
        assert store.entry(B) is None

    with_clocks(body)


def test_a_store_that_is_off_writes_nothing_and_knows_nothing():
    def body(clocks):
        store = loaded(enabled=False)
        assert refusal(store, A, 1, clocks.now) is None
        store.stepped(-3600)
        assert not store.known(A) and not compat.exists(PATH)

    with_clocks(body)


def test_a_step_ahead_moves_nothing():
    def body(clocks):
        store = loaded()
        for seconds in (0, 1, 3600):
            clocks.booted = clocks.now
            store.stepped(seconds)
            assert store.clock == 0
            assert refusal(store, b"%032d" % seconds, clocks.now - 60, clocks.now) is None
            store.clock = 0

    with_clocks(body)


def test_a_board_keeps_as_many_digests_as_it_has_room_for():
    def body(clocks):
        room = compat.room
        try:
            compat.room = lambda size: 20000 // size
            store = loaded()
        finally:
            compat.room = room
        assert store.limit == 4
        assert loaded(limit=3).limit == 3

    with_clocks(body)


def test_only_without_ageing_is_each_digest_made_safe_from_a_power_cut():
    def body(clocks):
        synced, fsync = [], compat.fsync
        try:
            compat.fsync = lambda file: synced.append(file)
            for ageing in (True, False):
                store = loaded(ageing=ageing)
                synced[:] = []
                refusal(store, A, clocks.now, clocks.now)
                assert len(synced) == (not ageing)
        finally:
            compat.fsync = fsync

    with_clocks(body)


def line(digest, *words):
    return b" ".join((to_base64(digest),) + words) + b"\n"


GOOD = b"17 192.0.2.7 1 10.0.0.1 62201 999990".split()


def written(*lines):
    with open(PATH, "wb") as file:
        file.write(b"".join((HEADER,) + lines))


def heard(body):
    """Returns the lines that a piece of work logs."""
    lines, before = [], log.sink
    log.sink = lambda level, text: lines.append(text)
    try:
        body()
    finally:
        log.sink = before
    return lines


def test_what_is_no_entry_is_passed_over_and_named_by_its_line():
    other = to_base64(A)
    bad = (
        line(A),
        line(A, *GOOD[:5]),
        line(A, *(GOOD + [b"1", b"1"])),
        b" ".join([other[:42]] + GOOD) + b"\n",
        b" ".join([other[:42] + b"!"] + GOOD) + b"\n",
        line(A, *(GOOD[:1] + [b"192.0.2"] + GOOD[2:])),
        line(A, *(GOOD[:3] + [b"10.0.0.256"] + GOOD[4:])),
        line(A, *(GOOD[:5] + [b"99999X"])),
        line(A, *(GOOD[:5] + [b"1" * 13])),
        line(A, *(GOOD[:5] + [b"1" * 5000])),
        line(A, *(GOOD + [b"-1"])),
        b"junk\n",
    )

    def body(clocks):
        for one in bad:
            written(b"\n", one, line(B, *GOOD))
            store, said = Replay(PATH), []
            said = heard(store.load)
            assert said == ["*Skipping invalid digest file entry in %s at line 3." % PATH], (one, said)
            assert not store.known(A) and store.known(B), one
        written(line(A, *(GOOD[:5] + [b"1" * 12])), line(B, *(GOOD + [b"1000050"])))
        assert heard(lambda: loaded()) == []

    with_clocks(body)


def test_a_note_that_a_disk_has_damaged_is_passed_over():
    def body(clocks):
        clocks.booted = 0
        for word in (b"floor=", b"floor=X", b"floor=1X2", b"floor", b"floor=" + b"9" * 5000, b"floor=9=9", b"roof=7"):
            written(b"# tinyknop " + word + b" clock=777777\n")
            store = Replay(PATH)
            store.load()
            assert (store.floor, store.clock) == (0, 777777), word
        written(b"# tinyknop floor=999999999999 clock=5\n", b"# tinyknop floor=5 clock=5\n")
        assert loaded().floor == 999999999999

    with_clocks(body)


def test_an_old_entry_is_gone_and_what_is_stamped_before_it_refused():
    def body(clocks):
        clocks.booted = 0
        written(line(A, *(GOOD[:5] + [b"999760"])), line(B, *(GOOD[:5] + [b"999700"])))
        store = loaded()
        assert not store.known(A) and not store.known(B)
        assert store.floor == 999880  # one window after its arrival: it may have been stamped ahead
        assert refusal(store, A, 999880, clocks.now) == "replay"
        assert refusal(store, B, 999881, clocks.now) is None

    with_clocks(body)


def test_a_digest_stays_to_the_last_second_in_which_its_packet_could_pass():
    def body(clocks):
        for age, known in ((26, True), (25, False)):
            store = Replay(PATH, max_age=10)
            refusal(store, A, clocks.now, clocks.now)
            clocks.pass_by(25)
            store.max_age = age
            refusal(store, B, clocks.now, clocks.now)
            assert store.known(A) == known

    with_clocks(body)


def test_a_digest_that_had_to_stay_longer_goes_when_that_time_is_over():
    def body(clocks):
        store = loaded(max_age=10)
        refusal(store, A, clocks.now, clocks.now)
        store.max_age = 300
        clocks.pass_by(100)
        refusal(store, B, clocks.now, clocks.now)
        assert [entry[0] for entry in store._queue if entry[1] == A] == [clocks.ms + 200000]

    with_clocks(body)


def test_a_digest_goes_in_the_very_second_in_which_twice_the_window_is_over():
    def body(clocks):
        store = loaded()
        refusal(store, A, clocks.now, clocks.now)
        for seconds, known in ((239, True), (1, False)):
            clocks.pass_by(seconds)
            refusal(store, b"%032d" % seconds, clocks.now, clocks.now)
            assert store.known(A) == known

    with_clocks(body)


def test_only_a_stamp_beyond_the_window_is_an_eighth_word():
    def body(clocks):
        store = loaded()
        for ahead, words in ((120, 6), (121, 7)):
            refusal(store, b"%032d" % ahead, clocks.now + ahead, clocks.now)
            assert len(store.entry(b"%032d" % ahead).split()) == words

    with_clocks(body)


def test_a_digest_that_was_read_is_not_looked_at_before_it_may_go():
    def body(clocks):
        written(line(A, *GOOD), line(B, *(GOOD + [b"1000050"])))
        store = loaded()  # a stamp that the file does not say may be a window ahead of its arrival
        assert sorted([(entry[1], entry[0] - clocks.ms) for entry in store._queue]) == [(A, 230000), (B, 170000)]

    with_clocks(body)


def test_a_cache_that_others_may_write_is_read_all_the_same():
    def body(clocks):
        written(line(A, *GOOD))
        if hasattr(os, "chmod"):
            os.chmod(PATH, 0o666)
        store = Replay(PATH)
        said = heard(store.load)
        assert store.known(A) and len(said) == hasattr(os, "chmod")

    with_clocks(body)
