"""Fake devices of every kind, and the ports that speak to them, for the random days of test_model.py."""

from tinyknop import errors, loop
from tinyknop.grants import part

KINDS = [
    {},
    {"outlives_us": True},
    {"batches": True, "open_all": True, "compare": True},
    {"batches": True, "open_all": True, "compare": True, "self_timed": True, "longest": 90},
    {"open_all": True, "by_destination": True, "self_timed": True, "outlives_us": True},
    {"shared": True, "batches": True},
    {"blind": True, "outlives_us": True, "seconds": 20},
    {"blind": True, "outlives_us": True, "by_destination": True, "seconds": 20},
    {"blind": True},
]


class Device:
    """What is there whoever lives: `held` is what is open, key -> ms at which it ends by itself, or None."""

    def __init__(self, day, kind):
        self.day, self.kind, self.held = day, kind, {}
        self.begun = []  # of a blind one: (knock, opening) that it was told to open, once each
        self.speaking = None  # the grant that it is just being told to open

    def keys(self, grant):
        there = grant.destination if self.kind.get("by_destination") else None
        return [(grant.source, opening, there) for opening in grant.openings]

    def open(self, grant, end):
        for key in self.keys(grant):
            limit = self.day.now + self.kind.get("longest", 1000) * 1000
            self.held[key] = min(end, limit) if self.kind.get("self_timed") else None

    def close(self, grant):
        for key in self.keys(grant):
            self.held.pop(key, None)

    def now_held(self):
        return {key for key, end in self.held.items() if end is None or end > self.day.now}


class Carrier:
    """Tells those in `lost` when a session ends."""

    def __init__(self, outlives_us):
        self.lost, self.outlives_us = [], outlives_us


class Port:
    """How a keeper speaks to a device; made anew with each keeper and each reload."""

    def __init__(self, device):
        self.device, kind = device, device.kind
        self.blind, self.outlives_us = kind.get("blind", False), kind.get("outlives_us", False)
        self.carrier, self.claims, self.known = Carrier(self.outlives_us), {}, set()
        for name in set(kind) - {"open_all", "compare", "blind", "outlives_us"}:
            setattr(self, name, kind[name])
        if kind.get("open_all"):
            self.open_all = self._open_all
        if kind.get("compare"):
            self.compare = self._compare

    def describe(self):
        return "a device"

    async def _said(self, late=True):
        """What may happen to any word: it takes its time, and fails; tells whether it fails after it was heard."""
        day = self.device.day
        await loop.sleep(day.chance.choice((0, 0, 0.02, 0.5, 3)) if day.slow else 0)
        if day.chance.random() < day.trouble:
            error = day.chance.choice((errors.PortError("a device", "no"), OSError(24, "none left"), KeyError("?")))
            if not late or day.chance.random() < 0.5:
                raise error
            return error
        return None

    async def start(self):
        self.heard(await self._said())

    def heard(self, error):
        if error:
            raise error

    async def open(self, grant, seconds):
        await self._open_all([(grant, seconds)])

    async def _open_all(self, pairs):
        now, self.device.speaking = self.device.day.now, pairs and pairs[0][0]
        for grant, seconds in pairs:
            assert 0 < seconds <= 1000
            for key in self.device.keys(grant):
                self.claims[key] = grant, now + seconds * 1000
                self.known.add(key)
        error = await self._said(not self.blind)
        self.device.speaking = None
        for grant, seconds in pairs:
            self.device.open(grant, now + seconds * 1000)
            if self.blind:
                self.device.begun += [(grant.sender, opening) for opening in grant.openings]
        self.heard(error)

    async def close(self, *grants):
        assert len(grants) == 1 or self.device.kind.get("batches")
        error = await self._said()
        for grant in grants:
            for key in self.device.keys(grant):
                self.claims.pop(key, None)
            self.device.close(grant)
        self.heard(error)

    async def sync(self, live):
        assert not self.blind or not live
        if self.blind:
            return
        self.claims = {}
        for grant, seconds in live:
            for key in self.device.keys(grant):
                assert key not in self.claims
                self.claims[key] = grant, seconds * 1000 + self.device.day.now
        await self._compare()

    async def _compare(self):
        error = await self._said()
        self.known.update(self.claims)
        for key in list(self.device.held):
            if key not in self.claims and (key in self.known or not self.device.kind.get("shared")):
                del self.device.held[key]
        if hasattr(self, "pause"):
            await self.pause()
        for key, (grant, end) in self.claims.items():
            self.device.open(part(grant, (key[1],)), end)
        self.heard(error)

    async def stop(self, flush):
        if flush and not self.blind:
            self.claims = {}
            await self._compare()


class Time:
    """A clock that goes on only here: `now` in ms, and `loop`."""

    def until(self, moment):
        """Lets the time pass up to a moment (ms), from deadline to deadline, so that no poll ever waits."""
        while self.now < moment or self.loop._ready:
            timers = [deadline for deadline, _, timer in self.loop._timers[:1]]
            if not self.loop._ready:
                self.now = max(self.now, min(timers + [moment]))
            self.loop.soon(int)
            self.loop.turn()
            self.loop._ready = [one for one in self.loop._ready if one is not int]

    def run(self, coroutine, meanwhile=(int,)):
        """Runs a coroutine to its end, and now and then one of the functions `meanwhile`; returns what it returns."""
        task = self.loop.spawn(coroutine)
        task.watched = True
        while not task.done:
            self.until(self.now + 100)
            self.chance.choice(meanwhile)()
        return task.outcome()
