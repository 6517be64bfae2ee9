"""The replay store: bounded, on disk in fwknop's format, and closed where it cannot do its work."""

import os

from tinyknop import compat
from tinyknop.errors import Rejected
from tinyknop.gate import Datagram
from tinyknop.replay import HEADER, Replay

PATH = (os.getenv("TMPDIR") or "/tmp") + "/tinyknop-test-replay"
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
    clocks = Clocks()
    try:
        os.remove(PATH)
    except OSError:
        pass
    try:
        body(clocks)
    finally:
        clocks.close()


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
        assert entries[1].split()[2] == b"0.0.0.0"

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


def test_the_file_does_not_grow_for_ever():
    def body(clocks):
        store = loaded(max_age=1)
        for i in range(3000):
            clocks.pass_by(1)
            refusal(store, i.to_bytes(32, "big"), clocks.now, clocks.now)
        with open(PATH, "rb") as file:
            assert file.read().count(b"\n") < 1100
        os.remove(PATH)

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
