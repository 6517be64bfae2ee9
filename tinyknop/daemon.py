"""The daemon: captures to gate to journal to ports, on one loop. Nothing else knows all the parts."""

from . import capture, compat, log, loop, ports
from .control import Door
from .errors import ConfigError, PortError, Rejected, TinyknopError
from .gate import STAGES, Gate
from .grants import Grants, seconds_left
from .journal import Journal
from .replay import Replay
from .worker import Worker

_STEP = 2000  # ms by which the wall clock must leave the monotonic one to count as stepped
_LOOK_AT_CLOCK = 1000  # ms
_SUMMARY = 60000  # ms between two summaries of refused packets
_STOP_S = 10  # seconds that ports get to close what is open when the daemon ends


class Daemon:
    """Holds everything that runs; `start`, `reload` and `stop` are coroutines of the loop."""

    def __init__(self, settings, stanzas, scheduler):
        self.settings = settings
        self.loop = scheduler
        self.counters = {stage: 0 for stage in STAGES}
        self.counters["granted"] = 0
        self.captures = []
        self.workers = {}
        self.grants = Grants()
        self.started = compat.wall()
        self._names = {}  # grant id -> names of its ports
        self._owed = {}  # grant id -> (grant, names of the ports that have not confirmed its close)
        self._timers = {}  # grant id -> Timer of its end
        self._carriers = {}
        self._summed = dict(self.counters)
        self._journal = Journal(settings.state_dir + "/grants.journal")
        self._replay = Replay(settings.digest_file, settings.ageing, settings.max_age, settings.replay)
        self._door = Door(settings.state_dir + "/tinyknop.sock", self.report)
        self._offset = compat.wall() * 1000 - compat.monotonic()
        self._set_stanzas(stanzas)

    def _set_stanzas(self, stanzas):
        self._stanzas = stanzas
        self._gate = Gate(stanzas, self.settings)

    async def start(self):
        """Recovers what was open, then listens; raises TinyknopError or OSError where it cannot."""
        try:
            self._replay.load()
        except OSError as error:
            # Failing closed: without the cache every packet could be a replay.
            log.error("%s: %s; no knock is accepted", self._replay.path, error)
            self._replay.limit = 0
        heard = self._made(self.settings.captures)
        if not self.settings.test:
            await self._recover()
        self._listen(heard)
        self._door.open()
        self._watch_clock()
        self.loop.at(compat.monotonic() + _SUMMARY, self._sum_up)

    async def _recover(self):
        """Makes the ports and brings each to what the journal says is live."""
        now = compat.wall()
        for grant, names in self._journal.load():
            names = [name for name in names if self._configured(name)]
            left = seconds_left(grant, now)
            if left > 0:
                grant = self.grants.add(grant)
                self._names[grant.id] = names
                self._end_at(grant, left)
            elif names:
                self._owed[grant.id] = (grant, names)
        fresh = self._new_workers(self._wanted())
        for worker in fresh:
            await self._begin(worker)
        self._journal.rewrite(self._entries())

    def _configured(self, name):
        if name not in self.settings.ports:
            log.warning("port %s is no longer configured: what it holds open is its device's to end", name)
        return name in self.settings.ports

    def _wanted(self):
        """Returns the names of the ports that a stanza, a grant or an owed close needs."""
        names = set()
        for stanza in self._stanzas:
            names.update(stanza.ports)
        for held in self._names.values():
            names.update(held)
        for _, held in self._owed.values():
            names.update(held)
        return sorted(names)

    def _new_workers(self, names):
        """Makes the ports of these names; raises ConfigError before any device is touched."""
        for name, options in self.settings.carriers.items():
            if name not in self._carriers:
                self._carriers[name] = ports.carrier(name, options)
        made = []
        for name in names:
            if name not in self.settings.ports:
                raise ConfigError("stanza", "there is no port called %s: add [port.%s]" % (name, name))
            made.append(Worker(name, ports.make(name, self.settings.ports[name], self._carriers), self._confirmed))
        return made

    async def _begin(self, worker):
        """Starts a worker with the grants that live on its port and the closes that are owed there."""
        name = worker.name
        live = [grant for number, grant in self.grants.live.items() if name in self._names[number]]
        owed = [grant for grant, names in list(self._owed.values()) if name in names]
        await worker.start(live, owed)
        self.workers[name] = worker

    def _entries(self):
        """Returns what the journal must hold: live grants, and ended ones whose close is still owed."""
        live = [(grant, self._names[number]) for number, grant in self.grants.live.items()]
        return live + list(self._owed.values())

    def _made(self, wanted):
        """Returns the captures of these tables: running ones where the table is the same, new ones else."""
        running = {str(sorted(_bare(one.options).items())): one for one in self.captures}
        made = []
        for options in wanted:
            same = running.get(str(sorted(_bare(options).items())))
            made.append(same or capture.make(options, self.heard))
        return made

    def _listen(self, wanted):
        """Starts the captures that do not run yet, then stops the others; where one fails nothing changes."""
        fresh = [one for one in wanted if one not in self.captures]
        begun = []
        try:
            for one in fresh:
                begun.append(one)
                one.start(self.loop)
        except (TinyknopError, OSError):
            for one in begun:
                one.stop()
            raise
        for one in self.captures:
            if one not in wanted:
                one.stop()
        self.captures = wanted

    def heard(self, datagram):
        """Judges a datagram and acts on it; whatever a packet holds, nothing is raised."""
        decision = self._gate.judge(datagram, compat.wall(), self._replay)
        stage, reason = decision.stage, decision.reason
        if stage is None:
            try:
                self._open(decision.grant, decision.stanza)
                return
            except Rejected as error:
                stage, reason = error.stage, error.reason
        self.counters[stage] += 1
        if decision.packet is not None or stage == "full":
            log.warning("(stanza %s) refused at %s: %s", decision.stanza.name, stage, reason)

    def _open(self, asked, stanza):
        """Journals a grant, then tells its ports; raises Rejected("full", ...) where it cannot be journaled."""
        known = len(self.grants.live)
        grant = self.grants.add(asked)
        names = stanza.ports
        try:
            lasting = any([self.workers[name].port.outlives_us for name in names])
            self._journal.opened(grant, names, lasting)
        except Rejected:
            if len(self.grants.live) > known:
                self.grants.remove(grant.id)
            raise
        self._names[grant.id] = names
        self.counters["granted"] += 1
        for name in names:
            self.workers[name].open(grant)
        self._end_at(grant, grant.until - grant.opened)
        log.info("(stanza %s) opened %s for %s until %d", grant.stanza, _printed(grant), grant.source, grant.until)

    def _end_at(self, grant, seconds):
        timer = self._timers.pop(grant.id, None)
        if timer is not None:
            timer.cancel()
        number = grant.id
        self._timers[number] = self.loop.at(compat.monotonic() + seconds * 1000, lambda: self.close(number))

    def close(self, number):
        """Ends a grant; it is struck out of the journal once all its ports have confirmed the close."""
        self._timers.pop(number).cancel()
        grant = self.grants.remove(number)
        names = [name for name in self._names.pop(number) if name in self.workers]
        log.info("(stanza %s) closing %s for %s", grant.stanza, _printed(grant), grant.source)
        self._owed[number] = (grant, names)
        for name in list(names):
            self.workers[name].close(grant)
        if not names:
            self._struck(number)

    def _confirmed(self, worker, number):
        if number not in self._owed:
            return
        names = [name for name in self._owed[number][1] if name != worker.name]
        self._owed[number] = (self._owed[number][0], names)
        if not names:
            self._struck(number)

    def _struck(self, number):
        del self._owed[number]
        self._journal.closed(number)
        if self._journal.overgrown(len(self.grants.live)):
            self._rewrite_journal()

    def _rewrite_journal(self):
        try:
            self._journal.rewrite(self._entries())
        except OSError as error:
            log.warning("%s: cannot be written anew: %s", self._journal.path, error)

    def _watch_clock(self):
        """Sees a step of the wall clock against the monotonic one, and re-times what is live."""
        offset = compat.wall() * 1000 - compat.monotonic()
        if abs(offset - self._offset) >= _STEP:
            self._stepped((offset - self._offset) // 1000)
            self._offset = offset
        self.loop.at(compat.monotonic() + _LOOK_AT_CLOCK, self._watch_clock)

    def _stepped(self, seconds):
        log.warning("the clock was set by %d s; what is open keeps the time it has left", seconds)
        self.grants.shift(seconds)
        for worker in self.workers.values():
            worker.book.shift(seconds)
            worker.resync()
        self._rewrite_journal()
        try:
            self._replay.stepped(seconds)
        except OSError as error:
            log.warning("%s: cannot be written anew: %s", self._replay.path, error)

    def _sum_up(self):
        """Logs how many packets were refused since the last time, by stage."""
        news = ["%s %d" % (s, self.counters[s] - self._summed[s]) for s in STAGES if self.counters[s] > self._summed[s]]
        if news:
            log.info("refused since the last summary: %s", ", ".join(news))
        self._summed = dict(self.counters)
        self.loop.at(compat.monotonic() + _SUMMARY, self._sum_up)

    async def reload(self, settings, stanzas):
        """Takes a new configuration; live grants stay. Raises, with the old one still in force, where it cannot run."""
        old = self.settings, self._stanzas, self.workers
        self.settings = settings
        self._set_stanzas(stanzas)
        fresh = []
        try:
            heard = self._made(settings.captures)
            if not settings.test:
                kept = {n: w for n, w in old[2].items() if _same(old[0].ports.get(n), settings.ports.get(n))}
                fresh = self._new_workers([name for name in self._wanted() if name not in kept])
                self.workers = kept
                for worker in fresh:
                    await self._begin(worker)
            self._listen(heard)
        except Exception:  # whatever it is, no mix of old and new may stay
            self.settings, self._stanzas, self.workers = old
            self._set_stanzas(self._stanzas)
            raise
        self._replay.ageing, self._replay.max_age = settings.ageing, settings.max_age
        for name, worker in old[2].items():
            if self.workers.get(name) is not worker:
                await worker.stop(False)
        for worker in self.workers.values():
            worker.resync()

    async def stop(self):
        """Stops listening, closes what is open (unless the settings keep it), and leaves the devices."""
        for one in self.captures:
            one.stop()
        self._door.close()
        flush = self.settings.flush_at_exit
        if flush:
            for number in list(self.grants.live):
                self.close(number)
        deadline = compat.monotonic() + _STOP_S * 1000
        while self._owed and compat.monotonic() < deadline:
            await loop.sleep(0.01)
        for name, (grant, names) in list(self._owed.items()):
            log.error("grant %s of %s is still owed its close by %s", name, grant.source, ", ".join(names))
        for worker in self.workers.values():
            try:
                await worker.stop(flush)
            except PortError as error:
                log.error("%s", error)

    def report(self):
        """Returns the state of everything as lists and dicts, for `tinyknop status`."""
        now = compat.wall()
        return {
            "started": self.started,
            "now": now,
            "counters": self.counters,
            "grants": [_row(grant, self._names[number], now) for number, grant in self.grants.live.items()],
            "ports": [
                {
                    "name": name,
                    "device": worker.port.describe(),
                    "failure": worker.failure,
                    "failing_since": worker.failing_since,
                    "owed": worker.owes(),
                }
                for name, worker in self.workers.items()
            ],
            "captures": [
                {"device": one.describe(), "received": one.received, "dropped": one.dropped} for one in self.captures
            ],
        }


def _row(grant, names, now):
    return {
        "id": grant.id,
        "source": grant.source,
        "openings": ["%s/%d" % opening for opening in grant.openings],
        "stanza": grant.stanza,
        "opened": grant.opened,
        "until": grant.until,
        "left": max(seconds_left(grant, now), 0),
        "ports": list(names),
    }


def _printed(grant):
    return ",".join(["%s/%d" % opening for opening in grant.openings])


def _same(one, other):
    """Tells whether a port's table says the same in two configurations, wherever it stands in the file."""
    return one is not None and other is not None and _bare(one) == _bare(other)


def _bare(table):
    return {key: value for key, value in table.items() if key != "where"}
