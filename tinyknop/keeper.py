"""The keeper of what is open: the journal first, then the ports; extended, ended on time, recovered after a crash."""

from . import compat, log, loop, ports, workers
from .control import Rows
from .errors import PortError, Rejected
from .grants import Ends, Grants, first, seconds_left
from .journal import Journal
from .says import openings
from .workers import bare

_STOP_S = 10  # seconds that ports get to close what is open when the daemon ends
_AT_ONCE = 100  # grants that end between two looks at the captures, where many end in the same moment


class Keeper:
    """Holds grants, their timers and the workers of the ports that they need."""

    def __init__(self, settings, stanzas, scheduler, says):
        self.loop = scheduler
        self.says = says
        self.workers = {}
        self.grants = Grants()
        self._take(settings, stanzas)
        self._names = {}  # grant id -> names of its ports
        self._owed = {}  # grant id -> (grant, names of the ports that have not confirmed its close)
        self._ends = Ends()
        self._alarm, self._due = None, 0  # Timer of the first end, and its monotonic time
        self._together = {}  # grant id -> names of the ports that have yet to open it, or all must close it
        self._carriers = {}
        self._leaving = []  # names of workers that no stanza asks for: they stay while something is held there
        self._journal = Journal(settings.state_dir + "/grants.journal")

    def _take(self, settings, stanzas):
        self._settings, self._stanzas = settings, stanzas
        self._cuts = set([stanza.name for stanza in stanzas if stanza.cut])

    async def recover(self):
        """Makes the ports and brings each to what the journal says is live; raises TinyknopError or OSError."""
        now = compat.wall()
        for grant, names in self._journal.load():
            names = [name for name in names if self._configured(name, grant)]
            left = seconds_left(grant, now)
            self.grants.last = max(self.grants.last, grant.id)  # or a new grant would get the id of one that is owed
            if left > 0:
                grant = self.grants.add(grant)
                self._names[grant.id] = names
                self._end_at(grant, left)
            elif names:
                self._owed[grant.id] = (grant, names)
        asked, held = self._needed(self._settings, self._stanzas)
        made = workers.made(sorted(asked | held), self._settings, self._stanzas, self._carriers, self)
        self.workers = {worker.name: worker for worker in made}  # before they start: a grant may end meanwhile
        for worker in made:
            live = [grant for number, grant in self.grants.live.items() if worker.name in self._names[number]]
            await worker.start(live, self._owed_by(worker.name), self._journal.begun)
        self._leaving = [name for name in self.workers if name not in asked]
        self._journal.renew(self._entries())  # on a full or read-only disk what is open has to end all the same

    def _configured(self, name, grant):
        if name not in self._settings.ports:
            text = "port %s is no longer configured: nobody closes what it holds open for %s (%s): see to it yourself"
            log.error(text, name, grant.source, openings(grant))
        return name in self._settings.ports

    def _needed(self, settings, stanzas):
        """Returns the names of ports that stanzas and [watch] ask for, and those that a grant or owed close needs."""
        asked, held = set(settings.blocks), set()
        for stanza in stanzas:
            asked.update(stanza.ports)
        for names in list(self._names.values()) + [names for _, names in self._owed.values()]:
            held.update(names)
        return asked, held

    def _owed_by(self, name):
        return [grant for grant, names in self._owed.values() if name in names]

    async def cut(self, worker, grant):
        """Ends the connections that a grant let in, where its stanza says `cut`; what fails is only told."""
        if grant.stanza not in self._cuts:
            return
        carrier = getattr(worker.port, "carrier", None)
        # Not as the port: a command's programs may get no right of ours, and the program conntrack would need one.
        if carrier is None or not carrier.outlives_us:
            if "netlink" not in self._carriers:
                self._carriers["netlink"] = ports.carrier("netlink", {})
            carrier = self._carriers["netlink"]
        from . import conntrack  # 4 KB on a board, where hardly anybody wants it

        for words in conntrack.words(grant):
            try:
                await carrier.say(*words)
            except PortError as error:
                log.warning("connections of %s are not cut: %s", grant.source, error)

    def _entries(self):
        """Returns what the journal must hold: live grants, and ended ones whose close is still owed."""
        live = [(grant, self._names[number]) for number, grant in self.grants.live.items()]
        return live + list(self._owed.values())

    def open(self, asked, names, together=False):
        """Journals a grant, then tells the ports of these names; returns it as it is kept.

        `together`: it stays open only if every port opens it. Raises Rejected("full", ...) where it cannot be
        journaled, or is wanted together and a port is down; Rejected("nat", ...) where a port can never open it.
        """
        for name in names:
            if name not in self.workers or (together and self.workers[name].failure is not None):
                raise Rejected("full", "port %s is down or gone, and it is required" % name)
            reason = self.workers[name].impossible(asked)
            if reason is not None:
                raise Rejected("nat", reason)
        known = self.grants.known(asked)
        grant = self.grants.add(asked)
        held = list(names) + [name for name in self._names.get(grant.id, ()) if name not in names]
        try:
            self._journal.opened(grant, held, any([self.workers[name].port.outlives_us for name in names]))
        except Rejected:
            self.grants.remove(grant.id)
            if known is not None:
                self.grants.add(known)
            raise
        self._names[grant.id] = held
        if together:
            self._together[grant.id] = list(names)
        for name in names:
            self.workers[name].open(grant)
        self._end_at(grant, grant.until - grant.opened)
        return grant

    def opened(self, worker, grant):
        """Takes it that a port has opened a grant, or a part of it; no openings: others hold them already."""
        if grant.openings:
            self.says.added(worker, grant)
        missing = self._together.get(grant.id)
        if missing is not None and worker.name in missing and worker in self.workers.values():
            missing.remove(worker.name)
            if not missing:
                del self._together[grant.id]

    def begins(self, worker, number, openings):
        """Notes that a blind port begins openings of a grant, which no start must repeat; tells whether it may."""
        begins = self._journal.begins(number, worker.name, openings)
        if not begins and number in self._together:
            self.close(number)
        return begins

    def failed(self, worker):
        """Takes back what only all ports together may hold open, and this one has not opened."""
        if worker not in self.workers.values():  # one that only starts, for another configuration
            return
        for number in [number for number, names in self._together.items() if worker.name in names]:
            log.warning("port %s is down, and all ports are required: taking back grant %d", worker.name, number)
            self.close(number)

    def _end_at(self, grant, seconds):
        self._ends.put(grant.id, compat.monotonic() + seconds * 1000)
        self._wake()

    def _wake(self):
        """Sees that the loop calls when the next grant ends."""
        due = self._ends.next()
        if due is not None and (self._alarm is None or due < self._due):
            if self._alarm is not None:
                self._alarm.cancel()
            self._due = max(due, compat.monotonic() + 1)  # not in this turn: other things are waiting, too
            self._alarm = self.loop.at(self._due, self._ended)

    def _ended(self):
        self._alarm = None
        for number in self._ends.due(compat.monotonic(), _AT_ONCE):
            self.close(number)
        self._wake()

    def close(self, number):
        """Ends a grant; it is struck out of the journal once all its ports have confirmed the close."""
        self._together.pop(number, None)
        self._ends.drop(number)
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
        if number not in self._owed or worker not in self.workers.values():  # another of its name may still owe it
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
        self._dismiss()
        if self._journal.overgrown(len(self.grants.live) + len(self._owed)):
            self.loop.spawn(self._journal.compact(self._entries))

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
        self._journal.renew(self._entries())

    async def change(self, settings, stanzas):
        """Starts what another configuration needs, for `settle`. Raises where it cannot, with nothing changed.

        Until then the old workers are told all that happens: none of them may act for a stanza of the new one.
        """
        old, tables = self._settings.carriers, {name: workers.table(settings, name) for name in settings.ports}
        carriers = {n: c for n, c in self._carriers.items() if bare(old.get(n)) == bare(settings.carriers.get(n))}
        kept = {name: name for name, worker in self.workers.items() if tables.get(name) == worker.table}
        for name, worker in self.workers.items():  # renamed, as a cycle is when the number of its stanza changes
            heirs = [n for n in sorted(tables) if tables[n] == worker.table and n not in kept.values()]
            if name not in kept and heirs:
                kept[name] = heirs[0]
        fresh = []
        if not settings.test:
            asked, held = self._needed(settings, stanzas)
            names = [n for n in sorted(asked | held) if n not in kept.values() and (n in asked or n in tables)]
            made = workers.made(names, settings, stanzas, carriers, self)
            self._leaving = []  # what was found to be kept must not go meanwhile
            try:
                for one in made:
                    live = {n: g for n, g in self.grants.live.items() if one.name in self._names[n] and not one.blind}
                    fresh.append((one, live))
                    await one.start(list(live.values()), [], {})
            except Exception:  # whatever it is, nothing of the new one may stay
                await self.settle((settings, stanzas, carriers, kept, fresh), False)
                raise
        return settings, stanzas, carriers, kept, fresh

    async def settle(self, changed, taken):
        """Ends the ports of the old configuration, or of the new one where it was not `taken` after all."""
        settings, stanzas, carriers, kept, fresh = changed
        gone, left = [worker for worker, _ in fresh], carriers
        if taken:
            left, self._carriers = self._carriers, carriers
            self._take(settings, stanzas)
            gone = self._install(kept, fresh)
        await self._leave(gone)
        await _stopped([carrier for name, carrier in left.items() if self._carriers.get(name) is not carrier])
        asked, _ = self._needed(self._settings, self._stanzas)
        self._leaving = [name for name in self.workers if name not in asked]
        self._dismiss()

    def _install(self, kept, fresh):
        """Puts fresh workers in the place of old ones, which it returns.

        Only the worker that opened something on a blind port can close it: it finishes under another name.
        """
        blind = {worker.name: worker.blind for worker, _ in fresh}
        taken = list(kept.values()) + sorted(blind)
        old, self.workers, names, gone = self.workers, {}, {}, []
        for name, worker in old.items():
            if worker.blind or name in kept or name not in blind or blind[name]:
                names[name] = new = kept.get(name, name)
                while name not in kept and (new in taken or (new != name and new in old)):
                    new = names[name] = new + " (old)"
                worker.name, self.workers[new] = new, worker
            else:
                gone.append(worker)
        if [name for name in names if names[name] != name]:
            for _, held in self._entries() + list(self._together.items()):
                held[:] = [names.get(name, name) for name in held]
            for number, held in self._journal.begun.items():
                self._journal.begun[number] = {names.get(name, name): held[name] for name in held}
            self._journal.renew(self._entries())
        for worker, live in fresh:
            self.workers[worker.name] = worker
            now = {n: grant for n, grant in self.grants.live.items() if worker.name in self._names[n]}
            opened = [grant for n, grant in now.items() if live.get(n) != grant or n in self._together]
            worker.inherit(opened, [live[number] for number in live if number not in now], self._owed_by(worker.name))
        return gone

    async def _leave(self, workers):
        """Ends workers; what they shared with one that stays is put right."""
        for worker in workers:
            await worker.leave()
        self.resync()

    def _dismiss(self):
        """Ends workers that no stanza asks for any more, once nothing is held or owed there."""
        if self._leaving:
            idle = [name for name in self._leaving if self.workers[name].done()]
            self._leaving = [name for name in self._leaving if name not in idle]
            if idle:
                self.loop.spawn(self._leave([self.workers.pop(name) for name in idle]))

    async def stop(self):
        """Closes what is open (unless the settings keep it), and leaves the devices."""
        flush, self._leaving = self._settings.flush_at_exit, []
        if flush:
            for number in list(self.grants.live):
                self.close(number)
        deadline = compat.monotonic() + _STOP_S * 1000
        while compat.monotonic() < deadline:
            # A device that has not answered yet, with nothing owed to it, has nothing to end.
            if not self._owed and not [one for one in self.workers.values() if one.heard and one.busy()]:
                break
            await loop.sleep(0.01)
        for number, (grant, names) in list(self._owed.items()):
            log.error("grant %s of %s is still owed its close by %s", number, grant.source, ", ".join(names))
        for worker in list(self.workers.values()):
            try:
                await worker.stop(flush)
            except PortError as error:
                log.error("%s", error)
        await _stopped(list(self._carriers.values()))

    def report(self, now, most=None):
        """Returns (rows of grants, of closes that are owed, of ports), the first `most` or all of the former two.

        The former two are Rows; they show what is open and owed now, whenever they are looked at.
        """
        live = [(grant, self._names[grant.id]) for grant in first(self.grants.live.values(), most)]
        grants, owed = Rows(live, now), Rows(first(self._owed.values(), most), now)
        return grants, owed, [worker.report() for worker in self.workers.values()]


async def _stopped(carriers):
    for carrier in carriers:
        if hasattr(carrier, "stop"):
            await carrier.stop()
