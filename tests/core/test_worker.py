"""A port's worker: whatever fails, the device ends up with what is live; no close is confirmed before it happened."""

from tinyknop import blind, compat, log, loop, worker
from tinyknop.errors import PortError
from tinyknop.grants import Grant


class Owner:
    """What a worker tells its owner."""

    def __init__(self):
        self.confirmed, self.begun, self.cuts, self.failures = [], [], [], 0
        self.marks, self.full = [], False

    def opened(self, who, grant):
        self.begun.append(grant.id)

    def begins(self, who, number, openings):
        self.marks.append((number, openings))
        return not self.full

    def closed(self, who, number):
        self.confirmed.append(number)

    def failed(self, who):
        self.failures += 1

    async def cut(self, who, grant):
        self.cuts.append(grant.id)


SSH = (("tcp", 22),)


def grant(number, until=2000000000, source="192.0.2.7"):
    return Grant(number, source, SSH, 1700000000, until, "alice", None, "0.0.0.0", source)


class Device:
    """A port that fails as often as it is told to, and remembers what it holds."""

    outlives_us = True

    def __init__(self, failures=()):
        self.failures = list(failures)
        self.held = []

    def fail(self):
        if self.failures:
            failure = self.failures.pop(0)
            if failure:
                raise failure

    def describe(self):
        return "device"

    async def start(self):
        self.fail()

    async def open(self, grant, seconds):
        self.fail()
        self.held.append(grant.source)

    async def close(self, grant):
        self.fail()
        self.held.remove(grant.source)

    async def sync(self, live):
        self.fail()
        self.held = [pair[0].source for pair in live]

    async def stop(self, flush):
        pass


def driven(device, body):
    """Runs `body(worker)` on a loop with short pauses; returns the ids of confirmed closes."""
    scheduler, owner = loop.Loop(), Owner()
    kept = log.sink, worker._FIRST_PAUSE, worker._LONGEST_PAUSE, blind._PAUSE
    log.sink = lambda level, text: None
    worker._FIRST_PAUSE = worker._LONGEST_PAUSE = blind._PAUSE = 0.002
    try:
        made = blind.Blind if getattr(device, "blind", False) else worker.Worker
        one = made("device", device, owner)
        scheduler.run_until(body(one))
    finally:
        log.sink, worker._FIRST_PAUSE, worker._LONGEST_PAUSE, blind._PAUSE = kept
    return owner.confirmed


async def settled(one, what):
    for _ in range(500):
        if what():
            return
        await loop.sleep(0.002)
    raise AssertionError("did not settle")


def test_what_is_opened_and_closed_reaches_the_device():
    device = Device()

    async def body(one):
        await one.start([], [], {})
        one.open(grant(1))
        await settled(one, lambda: device.held == ["192.0.2.7"])
        one.close(grant(1))
        await settled(one, lambda: not one.owes())

    assert driven(device, body) == [1]
    assert device.held == []


def test_a_grant_in_its_last_second_is_still_opened():
    device = Device()

    async def body(one):
        await one.start([], [], {})
        one.open(grant(1, until=compat.wall()))
        await settled(one, lambda: device.held == ["192.0.2.7"])

    driven(device, body)


def test_a_close_that_fails_is_tried_until_it_succeeds():
    down = PortError("device", "down")
    device = Device([None, None, None, down, down, down])

    async def body(one):
        await one.start([], [], {})
        one.open(grant(1))
        await settled(one, lambda: device.held)
        one.close(grant(1))
        await settled(one, lambda: one.failure is not None)
        assert one.owes() == 1
        await settled(one, lambda: one.failure is None)

    assert driven(device, body) == [1]
    assert device.held == []


def test_a_fault_that_is_no_port_error_does_not_end_the_worker():
    device = Device([None, None, OSError(24)])

    async def body(one):
        await one.start([], [], {})
        one.open(grant(1))
        await settled(one, lambda: device.held == ["192.0.2.7"])
        one.close(grant(1))
        await settled(one, lambda: not one.owes())

    assert driven(device, body) == [1]


def test_a_far_device_that_is_down_at_start_gets_the_journals_grants_later():
    device = Device([PortError("device", "down")] * 20)
    device.held = ["198.51.100.9"]

    async def body(one):
        await one.start([grant(1)], [grant(2, source="198.51.100.9")], {})
        assert one.failure == "down" and one.owes() == 1
        await settled(one, lambda: one.failure is None)

    assert driven(device, body) == [2]
    assert device.held == ["192.0.2.7"]


def test_a_local_device_that_is_down_at_start_says_so():
    device = Device([PortError("device", "down")])
    device.outlives_us = False

    async def body(one):
        try:
            await one.start([], [], {})
        except PortError as error:
            return error.reason
        raise AssertionError("started")

    driven(device, body)


class Blind(Device):
    """What it holds cannot be read back."""

    blind = True


def test_a_close_that_fails_on_a_blind_port_is_said_again_until_it_holds():
    device = Blind([None, None, PortError("device", "no"), OSError(12), None])

    async def body(one):
        await one.start([], [], {})
        one.open(grant(1))
        await settled(one, lambda: device.held)
        one.close(grant(1))
        await settled(one, lambda: not device.held)
        await one.stop(False)

    assert driven(device, body) == [1] and device.failures == []


def test_a_close_that_was_owed_at_the_start_is_said_to_a_blind_port():
    device = Blind()
    device.held = ["192.0.2.7"]

    async def body(one):
        await one.start([], [grant(1)], {})
        await settled(one, lambda: not one.owes())
        await one.stop(False)

    assert driven(device, body) == [1] and device.held == []


def test_closes_go_together_where_a_port_can_do_that():
    class Many(Device):
        batches = True
        calls = []

        async def close(self, *grants):
            self.calls.append([one.id for one in grants])

    device = Many()

    async def body(one):
        await one.start([grant(n, source="192.0.2.%d" % n) for n in (1, 2, 3)], [], {})
        for n in (1, 2, 3):
            one.close(grant(n, source="192.0.2.%d" % n))
        await settled(one, lambda: not one.owes())
        await one.stop(False)

    assert driven(device, body) == [1, 2, 3] and device.calls == [[1, 2, 3]]


def test_what_the_process_before_us_owed_is_closed_by_name_where_the_device_is_shared_with_its_owner():
    device = Device([None, PortError("device", "busy")])
    device.shared = True
    device.held = ["198.51.100.9", "the owner's"]

    async def kept(live):
        device.held += [pair[0].source for pair in live]

    device.sync = kept

    async def body(one):
        await one.start([grant(1)], [grant(2, source="198.51.100.9")], {})
        await settled(one, lambda: one.failure is None)

    assert driven(device, body) == [2]
    assert device.held == ["the owner's", "192.0.2.7"]


def test_early_close_has_the_device_told_how_long_others_still_hold_what_it_held():
    device = Device()

    async def body(one):
        await one.start([], [], {})
        one.open(grant(1, until=compat.wall() + 300))
        one.open(grant(2, until=compat.wall() + 100))
        await settled(one, lambda: device.held)
        device.held = []
        one.close(grant(1, until=compat.wall() + 300))
        await settled(one, lambda: not one.owes() and device.held)

    assert driven(device, body) == [1]
    assert device.held == ["192.0.2.7"]


def test_a_close_that_was_owed_at_the_start_spares_what_lives():
    device = Blind()
    device.held = ["192.0.2.7"]

    async def body(one):
        await one.start([grant(2)], [grant(1, until=1700000030)], {2: {"device": SSH}})
        await settled(one, lambda: not one.owes())
        await one.stop(False)

    assert driven(device, body) == [1] and device.held == ["192.0.2.7"]


BOTH = SSH + (("udp", 53),)


def two(number, source="192.0.2.7", until=2000000000):
    """A grant with two openings."""
    return Grant(number, source, BOTH, 1700000000, until, "alice", None, "0.0.0.0", source)


def test_what_the_process_before_us_had_not_begun_is_begun_and_nothing_else():
    device = Blind()
    begun = {1: {"device": SSH}, 2: {"other": BOTH}, 4: {"device": BOTH}}

    async def body(one):
        ports = [two(1, "192.0.2.1"), two(2, "192.0.2.2"), two(3, "192.0.2.3"), two(4, "192.0.2.4")]
        await one.start(ports, [], begun)
        await settled(one, lambda: len(device.held) == 5)
        assert device.held == ["192.0.2.1"] + ["192.0.2.2"] * 2 + ["192.0.2.3"] * 2
        assert one._owner.marks == [(1, BOTH[1:]), (2, SSH), (2, BOTH[1:]), (3, SSH), (3, BOTH[1:])]
        await one.stop(False)

    driven(device, body)


def test_what_another_grant_has_begun_for_as_long_is_not_begun_again():
    device = Blind()

    async def body(one):
        await one.start([grant(1), grant(2)], [], {1: {"device": SSH}})
        one.open(grant(3, source="192.0.2.9"))
        await settled(one, lambda: device.held)
        assert device.held == ["192.0.2.9"]
        await one.stop(False)

    driven(device, body)


def test_only_what_was_asked_last_counts_as_begun_and_each_opening_is_noted_before_it_is_said():
    class Noting(Blind):
        async def open(self, grant, seconds):
            self.held.append((grant.openings, list(one._owner.marks)))

    device, one = Noting(), None

    async def body(made):
        nonlocal one
        one = made
        await one.start([], [], {})
        one.open(two(1))
        one.open(grant(1, until=2000000001))  # another knock for a part of it, before anything was said
        await settled(one, lambda: len(device.held) == 3)
        await one.stop(False)

    driven(device, body)
    dns, ssh = (1, BOTH[1:]), (1, SSH)
    assert device.held == [(SSH, []), (BOTH[1:], [dns]), (SSH, [dns, ssh])]


def test_what_cannot_be_noted_is_not_begun_and_ends_all_the_same():
    class Closing(Blind):
        async def close(self, grant):
            closed.append(grant.openings)

    device, closed = Closing(), []

    async def body(one):
        one._owner.full = True
        await one.start([], [], {})
        one.open(two(1))
        one.close(two(1))
        await settled(one, lambda: not one.owes())
        await one.stop(False)

    assert driven(device, body) == [1]
    assert device.held == [] and closed == [BOTH]


def test_what_fails_on_a_blind_port_is_noted_once():
    device = Blind([None, PortError("device", "no"), None, None])

    async def body(one):
        await one.start([], [], {})
        one.open(grant(1))
        await settled(one, lambda: device.held == ["192.0.2.7"])
        assert one._owner.marks == [(1, SSH)]
        await one.stop(False)

    driven(device, body)


def test_an_open_command_of_the_process_before_us_does_not_have_the_last_word():
    device, now = Blind(), compat.wall()
    device.seconds = 31
    device.held = ["192.0.2.7"]
    old = grant(1, until=now - 1)
    old = type(old)(*(old[:3] + (now - 30,) + old[4:]))

    async def body(one):
        await one.start([], [old], {})
        await settled(one, lambda: not one.owes() and not device.held)
        device.held = ["192.0.2.7"]  # the command was slow
        await loop.sleep(1.4)
        assert device.held == []
        await one.stop(False)

    assert driven(device, body) == [1]


def test_a_close_that_is_let_go_of_is_not_said_again():
    device = Blind([None, None, PortError("device", "no")])

    async def body(one):
        await one.start([], [], {})
        one.open(grant(1))
        await settled(one, lambda: device.held)
        blind._PAUSE = 0.05
        one.close(grant(1))
        await settled(one, lambda: one._tries)
        one.forget(1)
        await loop.sleep(0.2)
        assert device.held == ["192.0.2.7"]
        await one.stop(False)

    assert driven(device, body) == []


def test_an_opening_is_said_amidst_a_long_comparison_and_a_close_too():
    class Long(Device):
        batches = True
        seen = []

        async def compare(self):
            one.open(grant(2, source="192.0.2.8"))
            one.close(grant(1))
            await self.pause()
            self.seen.append(list(self.held))

    device, one = Long(), None

    async def body(made):
        nonlocal one
        one = made
        await one.start([], [], {})
        one.open(grant(1))
        await settled(one, lambda: device.held == ["192.0.2.7"])
        one.resync()
        await settled(one, lambda: device.seen)

    assert driven(device, body) == [1]
    assert device.seen == [["192.0.2.8"]]


def test_what_fails_amidst_a_comparison_is_made_good():
    class Long(Device):
        async def compare(self):
            one.open(grant(1))
            self.failures = [PortError("device", "busy")]
            await self.pause()

    device, one = Long(), None

    async def body(made):
        nonlocal one
        one = made
        await one.start([], [], {})
        one.resync()
        await settled(one, lambda: device.held == ["192.0.2.7"] and one.failure is None)
        assert one._owner.begun == [1]

    driven(device, body)


def test_a_device_that_ends_grants_itself_is_told_their_time_anew_at_the_start():
    class Timed(Device):
        self_timed = True

        async def open_all(self, pairs):
            told.append([one.id for one, _ in pairs])

    device, told = Timed(), []

    async def body(one):
        await one.start([grant(number, source="10.0.0.%d" % number) for number in range(1, 4)], [], {})
        await settled(one, lambda: told)
        one.resync()
        await loop.sleep(0.02)
        assert told == [[1, 2, 3]]
        await one.stop(False)

    driven(device, body)


def test_what_is_closed_amidst_the_first_comparison_is_not_told_anew():
    class Timed(Device):
        self_timed = True

        async def sync(self, live):
            await Device.sync(self, live)
            one.close(grant(1))  # by hand, long before its end
            await self.pause()

        async def open_all(self, pairs):
            self.held += [pair[0].source for pair in pairs]

    device, one = Timed(), None

    async def body(made):
        nonlocal one
        one = made
        await one.start([grant(1)], [], {})
        device.sync = lambda live: Device.sync(device, live)
        await settled(one, lambda: not one.owes() and not one.busy())
        assert device.held == []
        await one.stop(False)

    assert driven(device, body) == [1]


def test_a_burst_is_told_in_parts():
    class Many(Device):
        parts = []

        async def open_all(self, pairs):
            self.parts.append(len(pairs))

    device = Many()

    async def body(one):
        await one.start([], [], {})
        for number in range(2500):
            one.open(grant(number + 1, source="10.0.%d.%d" % (number >> 8, number & 255)))
        await settled(one, lambda: len(one._owner.begun) == 2500)

    driven(device, body)
    assert device.parts == [1000, 1000, 500]


def test_a_worker_that_leaves_is_not_called_when_its_carrier_loses_a_session():
    class Carrier:
        lost = []

    device = Device()
    device.carrier = Carrier

    async def body(one):
        await one.start([], [], {})
        assert len(Carrier.lost) == 1
        await one.leave()

    driven(device, body)
    assert Carrier.lost == []


def test_what_lasts_longer_than_the_device_can_hold_is_told_again():
    device = Device()
    device.longest = 1  # seconds; half of it is waited
    told = []
    sync = device.sync

    async def counted(live):
        told.append([pair[0].id for pair in live])
        await sync(live)

    device.sync = counted

    async def body(one):
        await one.start([], [], {})
        one.open(grant(1))
        await settled(one, lambda: [1] in told)

    driven(device, body)


def test_a_comparison_that_is_under_way_when_the_worker_ends_says_nothing_more():
    device = Device()

    async def body(one):
        await one.start([], [], {})
        await one.stop(False)
        one.open(grant(1))
        await device.pause()
        assert device.held == []

    driven(device, body)
