"""Random days of a keeper with fake devices of every kind, by a simulated clock: what is live is open, nothing else.

Knocks, overlaps, closes by hand, kills, reloads, clock steps, a journal that cannot be written, devices that fail in
any way. After each of these days, and now and then within, all must be in order. A seed tells a day again.
"""

import copy
import random
import types

import pytest

from tests.host.devices import KINDS, Device, Port, Time
from tests.need import share
from tinyknop import compat, errors, keeper, lines, log, loop
from tinyknop.grants import Grant
from tinyknop.says import Says

OPENINGS = (("tcp", 22), ("udp", 53), ("tcp", 443))
STANZAS = ("alice", "bob")
NAMES = ("near", "far", "door")


class Told(Says):
    """Sees that each close is confirmed once, and when nothing but other grants holds it."""

    def __init__(self, day):
        super().__init__()
        self.day, self.ended = day, set()

    def removed(self, worker, grant):
        assert (grant.id, worker) not in self.ended
        self.ended.add((grant.id, worker))
        device, held = worker.port.device, set()
        for other, _ in self.day.keeper._entries():
            if other.id != grant.id:
                held.update(device.keys(other))
        assert self.day.reloaded or not (set(device.keys(grant)) & device.now_held()) - held


class Day(Time):
    """A keeper, its devices and journal, the time, and what came of each knock."""

    def __init__(self, seed, folder, monkeypatch):
        self.chance, self.folder = random.Random(seed), folder
        self.now, self.offset = 5000, 1700000000000 + self.chance.randrange(1000)
        self.trouble, self.slow, self.full, self.reloaded = 0, True, False, False
        # How many knocks there were; (knock, opening) that need not have begun; knocks of which no port needs to know.
        self.number, self.excused, self.elsewhere = 0, set(), set()
        self.ask()
        self.devices = [Device(self, kind) for kind in self.chance.sample(KINDS, 3)]
        self.ports = {name: {"kind": "k", "device": n} for n, name in enumerate(NAMES)}
        monkeypatch.setattr(compat, "wall", lambda: (self.now + self.offset) // 1000)
        monkeypatch.setattr(compat, "monotonic", lambda: self.now)
        monkeypatch.setattr(compat, "fsync", lambda file: None)
        monkeypatch.setattr(log, "sink", self.logged)
        monkeypatch.setattr(lines, "PART", 2)
        monkeypatch.setattr(lines.Lines, "overgrown", lambda one, needed: self.chance.random() < 0.3)
        for owner, name in ((lines.Lines, "append"), (lines, "_opened"), (lines, "_write")):
            monkeypatch.setattr(owner, name, self.failing(getattr(owner, name)))
        monkeypatch.setattr(keeper.ports, "make", lambda name, options, _: Port(self.devices[options["device"]]))
        self.boot()

    def failing(self, real):
        def write(*words):
            if self.full:
                self.unwritten = True
                raise OSError(28, "No space left on device")
            return real(*words)

        return write

    def logged(self, level, text):
        assert "please report it" not in text, text

    def configured(self):
        """Returns settings and stanzas of now."""
        flags = dict.fromkeys(("forwarding", "local_nat", "flush_at_exit", "test"), False)
        given = dict(flags, state_dir=str(self.folder), ports=copy.deepcopy(self.ports), carriers={}, blocks=())
        return types.SimpleNamespace(**given), [
            types.SimpleNamespace(name="alice", ports=NAMES, force_nat=None, cut=False)
        ]

    def boot(self):
        self.full = self.unwritten = False
        self.trouble = 0  # a near device that fails would end the start
        self.loop = loop.Loop()
        self.keeper = keeper.Keeper(*self.configured(), self.loop, Told(self))
        self.run(self.keeper.recover())
        self.last = self.keeper.grants.last

    def knock(self):
        chance, self.number = self.chance, self.number + 1
        source, here = "192.0.2.%d" % chance.randrange(3), "10.0.0.%d" % chance.randrange(2)
        openings = tuple(chance.sample(OPENINGS, chance.choice((1, 1, 2, 3))))
        now, stanza = compat.wall(), chance.choice(STANZAS)
        until, sender = now + chance.choice((1, 20, 60, 400)), "10.%d.0.0" % self.number
        asked = Grant(None, source, openings, now, until, stanza, None, here, sender)
        names, together = self.wants[stanza]
        before = dict(self.keeper.grants.live)
        try:
            grant = self.keeper.open(asked, names, together)
        except errors.Rejected:
            assert self.keeper.grants.live == before
            return
        if len(self.keeper._names[grant.id]) > len(names):  # what another configuration held is not asked for longer
            self.elsewhere.add(sender)
        for other in before.values():
            if other.id != grant.id and other.source == source and other.until >= grant.until:
                self.excused.update((sender, opening) for opening in other.openings)

    def by_hand(self):
        """Closes something, or lets go of a close that is owed, since somebody saw to it."""
        if self.keeper._entries():
            grant, names = self.chance.choice(self.keeper._entries())
            workers = [self.keeper.workers[name] for name in names]
            if grant.id in self.keeper._owed:
                if [worker for worker in workers if worker.busy()]:
                    return
                for worker in workers:
                    worker.port.device.close(grant)
            self.keeper.closed_by_hand(grant.id)

    def live(self):
        return list(self.keeper.grants.live.values())

    def excuse(self, *grants):
        """What waits to be said of these may get lost."""
        self.excused.update((grant.sender, opening) for grant in grants for opening in grant.openings)

    def kill(self):
        for device in self.devices:
            if device.speaking:
                self.excuse(device.speaking)
                device.speaking = None
        # Only the longest of those that overlap begins at a start; what was closed before its time lives again.
        for one in self.live():
            if [other for other in self.live() if other.source == one.source and other is not one]:
                self.excuse(one)
            if [grant for grant, _ in self.keeper._owed.values() if grant.source == one.source]:
                self.elsewhere.add(one.sender)
        self.elsewhere.update(grant.sender for grant, _ in self.keeper._owed.values())
        for worker in self.keeper.workers.values():
            if worker.name not in self.ports:  # no start can know what it held open: a person sees to that
                worker.port.device.held = {}
        self.boot()

    def step(self):
        seconds = self.chance.choice((-86400, -30, 3, 30, 86400))
        self.excuse(*self.live())  # a step ahead drops what waits to be opened
        if [worker for worker in self.keeper.workers.values() if worker._queue.items or worker._saying]:
            self.elsewhere.update(grant.sender for grant in self.live())
        self.offset += seconds * 1000
        self.keeper.stepped(seconds)

    def ask(self):
        """Has each stanza ask for other ports."""
        sample, choice = self.chance.sample, self.chance.choice
        self.wants = {name: (tuple(sample(NAMES, choice((1, 2, 3)))), choice((True, False))) for name in STANZAS}

    def reload(self):
        self.reloaded, self.full = True, False  # names that change have to be written
        if [device for device in self.devices if device.kind.get("shared")]:
            self.trouble = 0  # what a worker that goes cannot take away there is its owner's to close
        before, table = self.ports, list(self.ports.values())
        self.chance.shuffle(table)
        self.ports = dict(zip(NAMES, map(dict, table)))
        if self.chance.random() < 0.5:
            self.ports[self.chance.choice(NAMES)]["version"] = str(self.number)
        try:
            changed = self.run(self.keeper.change(*self.configured()), (self.knock, self.by_hand, int))
        except (errors.PortError, OSError, KeyError):
            self.ports = before
            return
        taken = self.chance.random() < 0.8
        self.run(self.keeper.settle(changed, taken))
        self.ask()
        if not taken:
            self.ports = before

    def lost(self):
        for worker in self.keeper.workers.values():
            for callback in list(worker.port.carrier.lost):
                callback()

    def weather(self):
        self.trouble, self.slow = self.chance.choice((0, 0, 0.1, 0.3)), self.chance.random() < 0.5
        self.full = self.chance.random() < 0.1
        self.excuse(*(self.live() if self.full else ()))  # what cannot be noted is not begun

    def settle(self, seconds):
        """Lets all be well for some time, and looks whether it is."""
        self.trouble, self.slow, self.full = 0, False, False
        self.until(self.now + seconds * 1000)
        for _ in range(100):  # some may have ended, or be told again, just now
            if self.keeper._owed or [worker for worker in self.keeper.workers.values() if worker.busy()]:
                self.until(self.now + 100)
        self.look()
        for device in self.devices:
            workers = [worker for worker in self.keeper.workers.values() if worker.port.device is device]
            held = [one for one in self.live() if [w for w in workers if w.name in self.keeper._names[one.id]]]
            # A port may become a blind one, and its device another port's: they quarrel until the old one ends.
            if len([worker for worker in workers if not worker.blind]) < 2:
                self.look_at(device, held)

    def look(self):
        """Nothing is owed, left behind or written otherwise than it is."""
        kept, live = self.keeper, set(self.keeper.grants.live)
        assert not kept._owed and set(kept._names) == live and not kept._journal._compacts
        waiting = [kept.grants.live[number] for number in kept._together]
        assert not [one for one in waiting if (one.sender, one.openings[0]) not in self.excused]
        assert {number for number in kept._journal.begun if number > self.last} <= live
        written = [one for one, _ in keeper.Journal(kept._journal.path).load()]
        assert self.unwritten or {one.id: one for one in written} == kept.grants.live
        for worker in kept.workers.values():
            assert worker.failure is None and not worker._owed and not worker.busy()
            if worker.blind:
                assert set(worker._newest) <= live and not worker._tries
            if not live:
                assert worker.book.empty() and not (worker.blind and worker._newest)
        assert live or sorted(kept.workers) == sorted(self.ports)

    def look_at(self, device, held):
        """A device holds what these grants say, for their time; a blind one was told each opening once."""
        blind, keys = device.kind.get("blind"), {key for one in held for key in device.keys(one)}
        assert device.now_held() - keys == set()
        begun = [one for one in device.begun if one[0] not in self.elsewhere]
        assert len(set(begun)) == len(begun)
        asked = [grant for grant in held if grant.sender not in self.elsewhere]
        for one, key in [(grant, key) for grant in asked for key in device.keys(grant)]:
            left = max(other.until for other in held if key in device.keys(other)) * 1000 - self.offset - self.now
            if blind and (one.sender, key[1]) not in self.excused:
                assert (one.sender, key[1]) in begun and (self.reloaded or key in device.now_held())
            if not blind and left > 1000:  # a device that times it itself is told whole seconds
                assert key in device.now_held()
                if device.held[key] is not None:
                    assert min(left, 40000) - 2000 < device.held[key] - self.now < left + 2000


@pytest.mark.parametrize("seed", range(share(40, 2000)))
def test_whatever_happens_what_is_live_is_open_and_nothing_else(seed, tmp_path, monkeypatch):
    day = Day(seed, tmp_path, monkeypatch)
    rare = [day.kill, day.step, day.reload, day.lost, lambda: day.settle(130)]
    for _ in range(day.chance.randrange(100)):
        day.chance.choice([day.knock] * 8 + [day.by_hand, day.weather] + rare)()
        day.until(day.now + day.chance.choice((0, 10, 300, 3000, 40000)))
    day.settle(130)
    day.settle(1500)
