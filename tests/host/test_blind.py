"""Commands at their worst: what a user who reads "at most once for each knock" may rely on."""

import os
import time
import types

from tinyknop import blind, compat, keeper, log, loop, worker
from tinyknop.errors import PortError, Refused
from tinyknop.grants import Grant, replaced
from tinyknop.journal import Journal
from tinyknop.says import Says

SSH = (("tcp", 22),)


class Owner:
    """What a worker tells its owner; `marks` are what was noted."""

    def __init__(self):
        self.marks, self.told, self.confirmed, self.grants = [], [], [], []

    def opened(self, who, grant):
        self.told.append(grant.id)
        self.grants.append(grant)

    def begins(self, who, number, openings):
        self.marks.append((number, openings))
        return True

    def closed(self, who, number):
        self.confirmed.append(number)

    def failed(self, who):
        pass

    async def cut(self, who, grant):
        pass


class Blind:
    """A port such as `command` and `generic`; `said` is what it was told."""

    blind = True
    outlives_us = True
    seconds = 60

    def __init__(self, failures=()):
        self.said, self.failures, self.wait = [], list(failures), None

    def describe(self):
        return "device"

    async def start(self):
        pass

    async def open(self, grant, seconds):
        while self.wait:
            await loop.sleep(0.001)
        failure = self.failures.pop(0) if self.failures else None
        self.said.append(("open", grant.source))
        if failure:
            self.said.pop()
            raise failure

    async def close(self, grant):
        self.said.append(("close", grant.source))

    async def sync(self, live):
        pass

    async def stop(self, flush):
        pass


def grant(number, source="192.0.2.7", seconds=300):
    now = compat.wall()
    return Grant(number, source, SSH, now, now + seconds, "alice", None, "0.0.0.0", source)


def driven(body, monkeypatch):
    """Runs `body(loop)` with short pauses."""
    monkeypatch.setattr(log, "sink", lambda level, text: None)
    monkeypatch.setattr(worker, "_FIRST_PAUSE", 0.002)
    monkeypatch.setattr(worker, "_LONGEST_PAUSE", 0.002)
    monkeypatch.setattr(blind, "_PAUSE", 0.002)
    scheduler = loop.Loop()
    return scheduler.run_until(body(scheduler))


async def settled(what):
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, "did not settle"
        await loop.sleep(0.002)


def test_a_failure_of_one_open_does_not_repeat_the_opens_before_it(monkeypatch):
    device, owner = Blind([None, None, PortError("device", "line lost")]), Owner()

    async def body(_):
        one = blind.Blind("door", device, owner)
        await one.start([], [], {})
        device.wait = True
        one.open(grant(1, "192.0.2.1"))
        await loop.sleep(0.01)
        for number in (2, 3, 4):  # these wait together behind the first
            one.open(grant(number, "192.0.2.%d" % number))
        device.wait = False
        await settled(lambda: ("open", "192.0.2.4") in device.said)
        await one.stop(False)

    driven(body, monkeypatch)
    assert device.said == [("open", "192.0.2.%d" % number) for number in (1, 2, 3, 4)]


def test_a_failure_of_one_opening_does_not_repeat_the_opening_before_it(monkeypatch):
    class Each(Blind):
        async def open(self, grant, seconds):
            await Blind.open(self, grant, seconds)
            self.said[-1] = grant.openings

    device, owner = Each([None, PortError("device", "line lost")]), Owner()
    dns, web = (("udp", 53),), (("tcp", 443),)

    async def body(_):
        one = blind.Blind("door", device, owner)
        await one.start([], [], {})
        one.open(replaced(grant(1), openings=dns + SSH + web))
        await settled(lambda: owner.grants)
        one.open(replaced(grant(1, seconds=600), openings=dns + SSH + web))  # another knock does repeat them
        await settled(lambda: len(owner.grants) == 2)
        await one.stop(False)

    driven(body, monkeypatch)
    assert device.said == [dns, SSH, web] * 2
    assert [one.openings for one in owner.grants] == [dns + SSH + web] * 2


def test_a_failure_of_one_opening_repeats_none_before_it_though_a_later_knock_waits(monkeypatch):
    class Each(Blind):
        async def open(self, grant, seconds):
            await Blind.open(self, grant, seconds)
            self.said[-1] = grant.openings

    device, owner = Each([None, PortError("device", "line lost")]), Owner()
    both = (("udp", 53),) + SSH

    async def body(_):
        one = blind.Blind("door", device, owner)
        await one.start([], [], {})
        device.wait = True
        one.open(replaced(grant(1), openings=both))
        await loop.sleep(0.01)
        one.open(replaced(grant(1, seconds=600), openings=both))
        device.wait = False
        await settled(lambda: len(owner.grants) == 2)
        await one.stop(False)

    driven(body, monkeypatch)
    assert device.said == [both[:1], both[1:]] * 2


def test_what_a_device_refuses_is_not_said_again_and_nobody_waits_for_it(monkeypatch):
    """Lines of the owner for IPv4, and a knock for IPv6: everybody's closes would wait until its end."""
    device, owner = Blind([None, Refused("device", "% Invalid input")]), Owner()
    owner.failed = lambda who: owner.told.append("failed")

    async def body(_):
        one = blind.Blind("door", device, owner)
        await one.start([], [], {})
        one.open(grant(1, "192.0.2.1"))
        await settled(lambda: owner.told == [1])
        one.open(grant(2, "2001:db8::7"))
        one.close(grant(1, "192.0.2.1"))
        one.open(grant(3, "192.0.2.3"))
        await settled(lambda: not one.busy())
        assert one.failure is None
        await one.stop(False)

    driven(body, monkeypatch)
    assert device.said == [("open", "192.0.2.1"), ("close", "192.0.2.1"), ("open", "192.0.2.3")]
    assert owner.told == [1, "failed", 3] and owner.confirmed == [1]


def test_an_open_that_must_not_begin_is_not_told_as_opened(monkeypatch):
    """The note could not be written (a full disk): log and status must not say that the command was run."""
    device, owner = Blind(), Owner()
    owner.begins = lambda who, number, openings: openings != SSH
    dns = (("udp", 53),)

    async def body(_):
        one = blind.Blind("door", device, owner)
        await one.start([], [], {})
        one.open(grant(1))
        one.open(replaced(grant(2, "192.0.2.2"), openings=dns + SSH))
        await settled(lambda: not one.busy())
        await one.stop(False)

    driven(body, monkeypatch)
    assert device.said == [("open", "192.0.2.2")]
    assert [(one.id, one.openings) for one in owner.grants] == [(2, dns)]


def test_a_close_is_said_as_often_as_its_port_wants(monkeypatch):
    """A router whose cable was cut for an hour is no command that fails for good."""

    class Far(Blind):
        tries = 1 << 30
        away = 12

        async def close(self, grant):
            self.away -= 1
            if self.away:
                raise PortError("device", "no answer")
            await Blind.close(self, grant)

    device, owner = Far(), Owner()
    monkeypatch.setattr(blind, "_LONGEST_PAUSE", 0.002)

    async def body(_):
        one = blind.Blind("door", device, owner)
        await one.start([], [], {})
        one.open(grant(1))
        one.close(grant(1))
        await settled(lambda: owner.confirmed)
        await one.stop(False)

    driven(body, monkeypatch)
    assert device.said == [("open", "192.0.2.7"), ("close", "192.0.2.7")]


def test_the_late_close_of_a_process_before_us_does_not_take_the_note_of_an_extension(monkeypatch):
    device, owner = Blind(), Owner()
    device.seconds = 1

    async def body(_):
        one = blind.Blind("door", device, owner)
        old = replaced(grant(1), until=compat.wall() + 1)
        old = replaced(old, opened=old.opened + 1, until=old.until)  # late = opened + 1 > until
        await one.start([old], [], {1: {"door": SSH}})
        device.wait = True
        one.open(grant(2, "192.0.2.9"))  # a slow command keeps the worker busy
        await settled(lambda: one._queue.items == [] and owner.marks == [(2, SSH)])
        await settled(lambda: 1 not in one._later)  # the late close has come to wait behind it
        one.open(grant(1))  # and an extension behind that
        device.wait = False
        await settled(lambda: ("open", "192.0.2.7") in device.said)
        await one.stop(False)

    driven(body, monkeypatch)
    assert owner.marks == [(2, SSH), (1, SSH)]


def test_a_note_that_comes_while_the_journal_is_written_anew_is_no_fault(tmp_path):
    journal = Journal(str(tmp_path / "journal"))
    many = [(grant(number, "10.0.%d.%d" % (number // 250, number % 250)), ("a", "b")) for number in range(1, 600)]
    for one, _ in many:
        journal.begins(one.id, "a", SSH)
    parts = journal.renewal(many)
    next(parts)  # 1000 lines: the pause is after a line of port a
    for one, _ in many:
        journal.begins(one.id, "b", SSH)
    assert list(parts) == []
    again = Journal(journal.path)
    again.load()
    assert again.begun == journal.begun


class Settings:
    """What the keeper goes by."""

    forwarding = local_nat = flush_at_exit = test = False
    ports = {"door": {"kind": "door"}}
    carriers = {}
    blocks = ()


class Stanza:
    name, ports, force_nat, cut = "alice", ("door",), None, False


def kept(device, tmp_path, monkeypatch, scheduler):
    """Returns a keeper with one port, a journal and no configuration file."""
    monkeypatch.setattr(keeper.ports, "make", lambda name, options, carriers: device)
    settings = types.SimpleNamespace(**{n: getattr(Settings, n) for n in dir(Settings) if n[0] != "_"})
    settings.state_dir = str(tmp_path)
    return keeper.Keeper(settings, [Stanza], scheduler, Says())


def test_what_is_let_go_of_by_hand_before_it_was_begun_is_not_begun(tmp_path, monkeypatch):
    """The journal has struck it out: after a kill nobody would close it."""
    device = Blind()

    async def body(scheduler):
        one = kept(device, tmp_path, monkeypatch, scheduler)
        await one.recover()
        device.wait = True
        one.open(grant(None, "192.0.2.1"), ("door",))
        await loop.sleep(0.01)
        number = one.open(grant(None, "192.0.2.2"), ("door",)).id
        assert one.closed_by_hand(number) and one.closed_by_hand(number)
        device.wait = False
        await settled(lambda: not one.workers["door"].busy())
        await one.stop()

    driven(body, monkeypatch)
    assert ("open", "192.0.2.2") not in device.said


def test_hundreds_of_knocks_leave_nothing_behind(tmp_path, monkeypatch):
    device = Blind()

    async def body(scheduler):
        one = kept(device, tmp_path, monkeypatch, scheduler)
        await one.recover()
        for number in range(600):
            one.open(grant(None, "10.0.%d.%d" % (number // 250, number % 250)), ("door",))
            if number % 3 == 0:
                one.open(grant(None, "10.0.%d.%d" % (number // 250, number % 250)), ("door",))
            if number % 100 == 99:
                await loop.sleep(0)
                for live in list(one.grants.live):
                    one.close(live)
        for live in list(one.grants.live):
            one.close(live)
        worked = one.workers["door"]
        await settled(lambda: not worked.busy() and not one._owed)
        assert not one._journal.begun and not worked._newest and not worked._later and not worked._owed
        assert os.path.getsize(one._journal.path) < 500000
        await one.stop()

    driven(body, monkeypatch)


def test_a_start_that_takes_long_gives_nobody_more_time(monkeypatch):
    """What the kernel is told outlasts us: after a kill nobody would correct it."""
    ahead, told = [0], []
    real = compat.wall
    monkeypatch.setattr(compat, "wall", lambda: real() + ahead[0])

    class Slow(Blind):
        blind, outlives_us, self_timed = False, False, True

        async def sync(self, live):
            ahead[0] += 10  # thousands of entries, or a far device

        async def open_all(self, pairs):
            told.extend(pairs)

    async def body(_):
        one = worker.Worker("door", Slow(), Owner())
        await one.start([grant(1, seconds=60)], [], {})
        await one.stop(False)

    driven(body, monkeypatch)
    assert [left for _, left in told if left > 51] == []
