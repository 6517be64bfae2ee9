"""The keeper of what is open: the journal first, then the ports; extended, ended on time, recovered after a crash."""

from . import compat, log, loop, ports
from .errors import ConfigError, PortError, Rejected
from .grants import Grants, seconds_left
from .journal import Journal
from .says import openings
from .worker import Worker

_STOP_S = 10  # seconds that ports get to close what is open when the daemon ends


class Keeper:
    """Holds grants, their timers and the workers of the ports that they need."""

    def __init__(self, settings, stanzas, scheduler, says):
        self.loop = scheduler
        self.says = says
        self.workers = {}
        self.grants = Grants()
        self._settings, self._stanzas = settings, stanzas
        self._names = {}  # grant id -> names of its ports
        self._owed = {}  # grant id -> (grant, names of the ports that have not confirmed its close)
        self._timers = {}  # grant id -> Timer of its end
        self._together = {}  # grant id -> names of the ports that have yet to open it, or all must close it
        self._carriers = {}
        self._journal = Journal(settings.state_dir + "/grants.journal")

    async def recover(self):
        """Makes the ports and brings each to what the journal says is live; raises TinyknopError or OSError."""
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
        for worker in self._new_workers(self._wanted()):
            await self._begin(worker)
        self._journal.rewrite(self._entries())

    def _configured(self, name):
        if name not in self._settings.ports:
            log.warning("port %s is no longer configured: what it holds open is its device's to end", name)
        return name in self._settings.ports

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
        tables = self._settings.ports
        for name, options in self._settings.carriers.items():
            if name not in self._carriers:
                self._carriers[name] = ports.carrier(name, options)
        made = []
        for name in names:
            if name not in tables:
                raise ConfigError("stanza", "there is no port called %s: add [port.%s]" % (name, name))
            port = ports.make(name, tables[name], self._carriers)
            self._leads_inside(port, name)
            made.append(Worker(name, port, self))
        return made

    async def cut(self, worker, grant):
        """Ends the connections that a grant let in, where its stanza says `cut`; what fails is only told."""
        if grant.stanza not in [stanza.name for stanza in self._stanzas if stanza.cut]:
            return
        if not worker.port.outlives_us and "netlink" not in self._carriers:
            self._carriers["netlink"] = ports.carrier("netlink", {})
        carrier = worker.port.carrier if worker.port.outlives_us else self._carriers["netlink"]
        from . import conntrack  # 4 KB on a board, where hardly anybody wants it

        for words in conntrack.words(grant):
            try:
                await carrier.say(*words)
            except PortError as error:
                log.warning("connections of %s are not cut: %s", grant.source, error)

    def _leads_inside(self, port, name):
        """Raises ConfigError where NAT is on and a stanza's port cannot do it: the grant would open nothing."""
        settings = self._settings
        for stanza in self._stanzas:
            asked = stanza.force_nat is not None or settings.forwarding or settings.local_nat
            if asked and name in stanza.ports and not getattr(port, "nats", False):
                raise ConfigError(stanza.where, "port %s cannot do NAT: switch NAT off, or use iptables" % name)

    async def _begin(self, worker):
        """Starts a worker with the grants that live on its port and the closes that are owed there."""
        name = worker.name
        live = [grant for number, grant in self.grants.live.items() if name in self._names[number]]
        owed = [grant for grant, names in list(self._owed.values()) if name in names]
        await worker.start(live, owed)
        self.workers[name] = worker
        known = [grant.id for grant in live]
        for number, grant in self.grants.live.items():  # what came while it started
            if name in self._names[number] and number not in known:
                worker.open(grant)

    def _entries(self):
        """Returns what the journal must hold: live grants, and ended ones whose close is still owed."""
        live = [(grant, self._names[number]) for number, grant in self.grants.live.items()]
        return live + list(self._owed.values())

    def open(self, asked, names, together=False):
        """Journals a grant, then tells the ports of these names; returns it as it is kept.

        `together`: it stays open only if every port opens it. Raises Rejected("full", ...) where it cannot be
        journaled, or is wanted together and a port is down.
        """
        down = [name for name in names if self.workers[name].failure is not None]
        if together and down:
            raise Rejected("full", "port %s is down, and all ports are required" % down[0])
        known = len(self.grants.live)
        grant = self.grants.add(asked)
        try:
            lasting = any([self.workers[name].port.outlives_us for name in names])
            self._journal.opened(grant, names, lasting)
        except Rejected:
            if len(self.grants.live) > known:
                self.grants.remove(grant.id)
            raise
        self._names[grant.id] = names
        if together:
            self._together[grant.id] = list(names)
        for name in names:
            self.workers[name].open(grant)
        self._end_at(grant, grant.until - grant.opened)
        return grant

    def opened(self, worker, grant):
        """Takes it that a port has opened a grant, or a part of it."""
        self.says.added(worker, grant)
        missing = self._together.get(grant.id)
        if missing is not None and worker.name in missing:
            missing.remove(worker.name)
            if not missing:
                del self._together[grant.id]

    def failed(self, worker):
        """Takes back what only all ports together may hold open, and this one has not opened."""
        for number in [number for number, names in self._together.items() if worker.name in names]:
            log.warning("port %s is down, and all ports are required: taking back grant %d", worker.name, number)
            self.close(number)

    def _end_at(self, grant, seconds):
        timer = self._timers.pop(grant.id, None)
        if timer is not None:
            timer.cancel()
        number = grant.id
        self._timers[number] = self.loop.at(compat.monotonic() + seconds * 1000, lambda: self.close(number))

    def close(self, number):
        """Ends a grant; it is struck out of the journal once all its ports have confirmed the close."""
        self._together.pop(number, None)
        self._timers.pop(number).cancel()
        grant = self.grants.remove(number)
        names = [name for name in self._names.pop(number) if name in self.workers]
        self.says.closing(grant)
        self._owed[number] = (grant, names)
        for name in list(names):
            self.workers[name].close(grant)
        if not names:
            self._struck(number)

    def closed_by_hand(self, number):
        """Ends a grant, or lets go of a close that is owed; tells whether there was one."""
        if number in self.grants.live:
            self.close(number)
            return True
        if number not in self._owed:
            return False
        for name in self._owed[number][1]:
            if name in self.workers:
                self.workers[name].forget(number)
        self._struck(number)
        return True

    def closed(self, worker, number):
        """Takes it that a port has confirmed a close."""
        if number not in self._owed:
            return
        grant, names = self._owed[number]
        self.says.removed(worker, grant)
        names = [name for name in names if name != worker.name]
        self._owed[number] = (grant, names)
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

    def idle(self):
        """Tells whether all is said, and nothing is open that the end of the daemon would close."""
        if [worker for worker in self.workers.values() if worker.busy()]:
            return False
        return not self._settings.flush_at_exit or not (self.grants.live or self._owed)

    def resync(self):
        """Compares every device with what is live."""
        for worker in self.workers.values():
            worker.resync()

    def stepped(self, seconds):
        """Moves all times by a step of the wall clock: what is open keeps the time it has left."""
        self.grants.shift(seconds)
        for worker in self.workers.values():
            worker.book.shift(seconds)
        self.resync()
        self._rewrite_journal()

    async def change(self, settings, stanzas):
        """Goes by another configuration; returns what `settle` takes. Raises, with nothing changed, where it cannot."""
        before = self._settings, self._stanzas, dict(self.workers)
        self._settings, self._stanzas = settings, stanzas
        old, tables = before[0].ports, settings.ports
        kept = [name for name in self.workers if _same(old.get(name), tables.get(name))]
        fresh = []
        try:
            if not settings.test:
                for worker in self._new_workers([name for name in self._wanted() if name not in kept]):
                    fresh.append(worker)
                    await self._begin(worker)
        except Exception:  # whatever it is, no mix of old and new may stay
            await self.settle((before, kept, fresh), False)
            raise
        return before, kept, fresh

    async def settle(self, changed, taken):
        """Ends the ports of the old configuration, or of the new one where it was not `taken` after all."""
        before, kept, fresh = changed
        gone = fresh
        if taken:
            gone = [worker for name, worker in before[2].items() if self.workers.get(name) is not worker]
        else:
            self._settings, self._stanzas, self.workers = before
        for worker in gone:
            await worker.stop(False)
        self.resync()

    async def stop(self):
        """Closes what is open (unless the settings keep it), and leaves the devices."""
        flush = self._settings.flush_at_exit
        if flush:
            for number in list(self.grants.live):
                self.close(number)
        deadline = compat.monotonic() + _STOP_S * 1000
        while (self._owed or not self.idle()) and compat.monotonic() < deadline:
            await loop.sleep(0.01)
        for number, (grant, names) in list(self._owed.items()):
            log.error("grant %s of %s is still owed its close by %s", number, grant.source, ", ".join(names))
        for worker in self.workers.values():
            try:
                await worker.stop(flush)
            except PortError as error:
                log.error("%s", error)

    def report(self, now):
        """Returns (rows of grants, of closes that are owed, of ports), for `tinyknop status`."""
        grants = [_row(grant, self._names[number], now) for number, grant in self.grants.live.items()]
        owed = [_row(grant, names, now) for grant, names in self._owed.values()]
        rows = []
        for name, worker in self.workers.items():
            row = {"name": name, "device": worker.port.describe(), "failure": worker.failure, "owed": worker.owes()}
            row["failing_since"] = worker.failing_since
            rows.append(row)
        return grants, owed, rows


def _row(grant, names, now):
    return {
        "id": grant.id,
        "source": grant.source,
        "openings": openings(grant).split(","),
        "stanza": grant.stanza,
        "opened": grant.opened,
        "until": grant.until,
        "left": max(seconds_left(grant, now), 0),
        "ports": list(names),
    }


def _same(one, other):
    """Tells whether a port's table says the same in two configurations, wherever it stands in the file."""
    return one is not None and other is not None and bare(one) == bare(other)


def bare(table):
    """Returns a table without the place that it was read from."""
    return {key: value for key, value in table.items() if key != "where"}
