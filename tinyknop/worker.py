"""One task per port: a slow or failing port delays neither a packet nor another port.

What is wanted is kept in a Book, what is still to be said in a queue. Any failure makes the worker bring the device to
exactly what is wanted (`sync`), with back-off, until that succeeds; only then are the closes behind it confirmed.
"""

from . import compat, log, loop
from .errors import PortError
from .grants import Book, part, timed

_FIRST_PAUSE, _LONGEST_PAUSE = 1, 60  # seconds between two tries of a port that fails
_PATIENCE = 1000  # ms that a device which outlives us gets at the start
_TOGETHER = 1000  # opens or closes that a port is told at once; more wait their turn
_MANY = 10000  # grants; with more a start is as quick as can be


class Worker:
    """Drives one port for its owner, the keeper.

    `owner.opened(worker, grant)` is called once the port opened a grant or a part of it, `owner.closed(worker, grant
    id)` once it confirmed a close, `owner.failed(worker)` when it fails; `await owner.cut(worker, grant)` ends the
    connections of what was closed, where that is wanted.
    """

    blind = False  # whether what the port holds cannot be read back

    def __init__(self, name, port, owner, table=None):
        self.name = name
        self.port = port
        self.book = Book(getattr(port, "by_destination", False))
        self.table = table  # what it was configured with
        self.failure = None  # the reason of the last failure, None while all is well
        self.failing_since = None  # wall-clock second
        self.heard = False  # the device has answered since we run
        self._owner = owner
        self._queue = loop.Queue()
        self._owed = set()  # ids of grants whose close no device has confirmed yet
        self._before = []  # grants whose close the process before us owed
        self._whole = True  # the port may know more or less than what is live: comparing the device would not do
        self._task = None
        self._tried = loop.Queue()  # told of the first success or failure
        self._saying = False
        self._renewal = None  # Timer of the next telling of what the device cannot hold for so long
        self._foreign = None  # Timer of the end of what others have put there
        # Called when a session ends that nobody is using.
        self._lost = getattr(getattr(port, "carrier", None), "lost", None)
        self._look = self.resync
        if self._lost is not None:
            self._lost.append(self._look)
        port.pause = self._between

    async def start(self, grants, expired, begun):
        """Prepares the device, takes over the journal's grants and brings the device to those that live.

        `begun` tells what must not begin again on a blind port: grant id -> {port name: openings}.
        Raises PortError where a device on this machine fails; one that outlives us is tried for ever, and waited for
        no longer than a second: a dead line must not hold up all the others.
        """
        for grant in grants:
            self.book.enter(grant)
        self._owed = set([grant.id for grant in expired])
        self._take_over(grants, expired, begun)
        if self.port.outlives_us:
            self._queue.items.insert(0, None)
        else:
            await self._synced(True)
            self.heard = True
        self._task = loop.current().spawn(self._serve(not self.port.outlives_us))
        if self.port.outlives_us:
            timer = loop.current().at(compat.monotonic() + _PATIENCE, self._first)
            await self._tried.get()
            timer.cancel()

    def _first(self):
        if not self._tried.items:
            self._tried.put(None)

    def _take_over(self, grants, expired, begun):
        """Takes over what was said, or is owed, by the process before us; the comparison to come sees to the rest."""
        self._before = expired

    def inherit(self, opened, ended, owed):
        """Takes over from the worker before it what came while this one started; a `resync` has to follow."""
        for grant in ended:
            self.book.strike(grant)
        for grant in opened:
            self.open(grant)
        self._owed.update([grant.id for grant in owed])
        self._whole = True
        self._before = self._before + owed

    def impossible(self, grant):
        """Returns the reason why the port can never open a grant; None where it can, or nobody knows."""
        try:
            if self.failure is None and hasattr(self.port, "check"):
                self.port.check(grant)
        except PortError as error:
            return error.reason
        return None

    def open(self, grant):
        """Wants a grant open, or open longer."""
        self._want(self.book.enter(grant) or part(grant, ()))  # nothing of it: it counts once what holds it was said

    def _want(self, grant):
        self._queue.put((grant, None))

    def close(self, grant):
        """Wants a grant closed; what other grants hold open stays so."""
        self._owed.add(grant.id)
        orphans = self.book.strike(grant)
        self._queue.put((orphans, grant.id))
        if grant.until > compat.wall() and (orphans is None or orphans.openings != grant.openings):
            self._whole = True  # closed by hand: what another grant still holds open has less time now
            self.resync()

    def resync(self):
        """Wants the device compared with what is live, where that can be done."""
        self._queue.put(None)

    def done(self):
        """Tells whether nothing is held open here, and no close is owed."""
        return self.book.empty() and not self._owed

    def owes(self):
        """Returns how many closes are not confirmed."""
        return len(self._owed)

    def report(self):
        """Returns the port's state as a dict, for `tinyknop status`."""
        state = {"name": self.name, "device": self.port.describe(), "owed": self.owes()}
        state["doubt"] = getattr(self.port, "doubt", None)  # why what is open there may lead nowhere
        state.update({"failure": self.failure, "failing_since": self.failing_since})
        return state

    def forget(self, number):
        """Lets go of a close that is owed: somebody saw to it."""
        self._owed.discard(number)

    def busy(self):
        """Tells whether something is still to be said; not while the port fails, which may last."""
        return self.failure is None and bool(self._queue.items or self._saying)

    async def stop(self, flush):
        """Ends the task and leaves the device; `flush` takes away what the port had set up."""
        self._end()
        await self.port.stop(flush)

    def _end(self):
        if self._lost is not None and self._look in self._lost:
            self._lost.remove(self._look)
        self.port.pause = lambda: loop.sleep(0)  # what is still in the queue is for others to say
        for one in (self._task, self._renewal, self._foreign):
            if one is not None:
                one.cancel()

    async def leave(self):
        """Ends the task and takes away all that the port ever put there."""
        self._end()
        try:
            await self.port.sync([])
            await self.port.stop(True)
        except Exception as error:  # whatever it is, the others must go on
            log.error("%s; what it still holds open is its owner's to close", error)

    async def _serve(self, fresh):
        """Says what is to be said, for ever; `fresh`: the device was prepared, and answered since it last failed."""
        pause = _FIRST_PAUSE
        items = []
        while True:
            if self.failure is not None:
                await loop.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                fresh = False
            else:
                pause = _FIRST_PAUSE
                self._saying = False
                items = await self._queue.get()
                self._saying = True
            try:
                looks = None in items and self.failure is None
                if self.failure is not None or (looks and (self._whole or not hasattr(self.port, "compare"))):
                    items, looks = await self._mended(items, fresh), False
                    fresh = True
                await self._said(items)
                items = []
                if looks:
                    await self.port.compare()
            except PortError as error:
                self._failed(error)
            except Exception as error:  # whatever it is (no descriptors left, a fault of ours), closes must go on
                log.error("%s: %s", self.port.describe(), compat.trace(error))
                self._failed(PortError(self.port.describe(), str(error)))

    async def _mended(self, items, fresh):
        """Has the device hold what is live, which makes good for what was to be said; returns what is left of that."""
        items, self._queue.items = items + self._queue.items, []
        await self._synced(not fresh)
        self._recovered()
        for item in items:
            if item is not None and item[1] is None and self.impossible(item[0]) is None:
                self._owner.opened(self, item[0])
        return []

    async def _between(self):
        """A pause for the port, amidst a comparison of thousands: what has come meanwhile is said now."""
        await loop.sleep(0)
        items, self._queue.items = self._queue.items, []
        try:
            await self._said(list(items))
        except Exception:  # whatever it is, the worker mends it
            self._queue.items = items + self._queue.items
            raise
        if None in items:
            self._queue.items.append(None)

    async def _said(self, items):
        items[:] = [item for item in items if item is not None]
        for some in self._batches(list(items)):
            await self._say(some)
            items[:] = items[len(some) :]  # or a failure of the next would repeat it

    def _batches(self, items):
        """Yields items as they are to be said: opens or closes that follow one another together, where the port can."""
        many: list = []
        for item in items:
            closing = item[1] is not None
            together = getattr(self.port, "batches" if closing else "open_all", False) and len(many) < _TOGETHER
            if many and not (together and closing == (many[0][1] is not None)):
                yield many
                many = []
            many.append(item)
        if many:
            yield many

    async def _say(self, items):
        """Says one opening, or one or more closes."""
        closing = items[0][1]
        if closing is None:
            pairs = timed([grant for grant, _ in items], compat.wall())
            for grant, left in await self._begun(pairs):
                self._owner.opened(self, grant)
                self._renew(left)
            return
        held = [grant for grant, _ in items if grant is not None]
        if not held or await self._ended(held, closing):
            for grant in held:
                await self._owner.cut(self, grant)
            for _, number in items:
                self._confirm(number)

    async def _begun(self, pairs):
        """Opens; returns the pairs of (grant, seconds) that were opened."""
        said = [pair for pair in pairs if pair[0].openings]
        if len(said) > 1:
            await self.port.open_all(said)
        elif said:
            await self.port.open(*said[0])
        return pairs

    async def _ended(self, grants, number):
        """Closes grants; tells whether that was confirmed."""
        await self.port.close(*grants)
        return True

    def _renew(self, left):
        """Sees that a device which cannot hold a grant for so long (ipset: 24 days) is told again in time."""
        longest = getattr(self.port, "longest", None)
        if longest is not None and left > longest and self._renewal is None:
            self._renewal = loop.current().at(compat.monotonic() + longest * 500, self._renewed)

    def _renewed(self):
        self._renewal, self._whole = None, True
        self.resync()

    async def _synced(self, prepare):
        """Brings the device to exactly what is live, and confirms every close that was owed before."""
        if prepare:
            await self.port.start()
        if getattr(self.port, "shared", False):  # no sync tells these from what the owner put there
            before = [(grant, grant.id) for grant in self._before]
            for some in self._batches(before):
                await self.port.close(*[grant for grant, _ in some])
            self._before = []
        owed = sorted(self._owed)
        self._whole = False
        live = timed(self.book.live(), compat.wall())
        await self.port.sync(live)
        tells = getattr(self.port, "self_timed", False) and hasattr(self.port, "open_all")
        if prepare and tells and len(live) <= _MANY:
            # What was extended and not told yet may be short by less than the port looks at. To tell 100,000 takes 7 s.
            left = self.book.live()  # what was closed amidst the comparison must not open again
            for at in range(0, len(left), _TOGETHER):
                await self.port.open_all(timed(left[at : at + _TOGETHER], compat.wall()))
        for number in owed:
            self._confirm(number)
        self._renew(max([pair[1] for pair in live] or [0]))
        self._look_again()

    def _look_again(self):
        """Sees that what others put there, with a time of its own, is looked at when that time has come."""
        due = self.port.next_expiry() if hasattr(self.port, "next_expiry") else None
        if self._foreign is not None:
            self._foreign.cancel()
            self._foreign = None
        if due is not None:
            pause = max(due - compat.wall(), 1)
            self._foreign = loop.current().at(compat.monotonic() + pause * 1000, self.resync)

    def _confirm(self, number):
        if number in self._owed:
            self._owed.discard(number)
            self._owner.closed(self, number)

    def _failed(self, error):
        if self.failure is None:
            self.failing_since = compat.wall()
            log.error("%s; trying again", error)
        self.failure, self._whole = error.reason, True
        self._owner.failed(self)
        self._first()

    def _recovered(self):
        if self.failure is not None:
            log.info("%s: works again", self.port.describe())
        self.failure, self.failing_since, self.heard = None, None, True
        self._first()
