"""One task per port: a slow or failing port delays neither a packet nor another port.

What is wanted is kept in a Book, what is still to be said in a queue. Any failure makes the worker bring the device to
exactly what is wanted (`sync`), with back-off, until that succeeds; only then are the closes behind it confirmed.
"""

from . import compat, log, loop
from .errors import PortError
from .grants import Book, seconds_left

_FIRST_PAUSE, _LONGEST_PAUSE = 1, 60  # seconds between two tries of a port that fails


class Worker:
    """Drives one port. `closed(worker, grant id)` is called once the port confirmed a close."""

    def __init__(self, name, port, closed):
        self.name = name
        self.port = port
        self.book = Book()
        self.failure = None  # the reason of the last failure, None while all is well
        self.failing_since = None  # wall-clock second
        self._closed = closed
        self._queue = loop.Queue()
        self._owed = []  # ids of grants whose close no device has confirmed yet
        self._task = None
        self._renewal = None  # Timer of the next telling of what the device cannot hold for so long

    async def start(self, grants, expired):
        """Prepares the device, takes over the journal's grants and brings the device to those that live.

        Raises PortError where a device on this machine fails; one that outlives us is tried again for ever.
        """
        for grant in grants:
            self.book.enter(grant)
        self._owed = [grant.id for grant in expired]
        try:
            await self._synced(True)
        except PortError as error:
            if not self.port.outlives_us:
                raise
            self._failed(error)
        self._task = loop.current().spawn(self._serve())

    def open(self, grant):
        """Wants a grant open, or open longer."""
        needed = self.book.enter(grant)
        if needed is not None:
            self._queue.put((needed, None))

    def close(self, grant):
        """Wants a grant closed; what other grants hold open stays so."""
        self._owed.append(grant.id)
        self._queue.put((self.book.strike(grant), grant.id))

    def resync(self):
        """Wants the device compared with what is live."""
        self._queue.put(None)

    def owes(self):
        """Returns how many closes are not confirmed."""
        return len(self._owed)

    async def stop(self, flush):
        """Ends the task and leaves the device; `flush` takes away what the port had set up."""
        if self._task:
            self._task.cancel()
        await self.port.stop(flush)

    async def _serve(self):
        pause = _FIRST_PAUSE
        fresh = True  # the device was prepared and has answered
        while True:
            if self.failure is not None:
                await loop.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                fresh = False
            else:
                pause = _FIRST_PAUSE
                items = await self._queue.get()
            try:
                if self.failure is None and None not in items:
                    for item in items:
                        await self._say(item)
                else:
                    self._queue.items = []
                    await self._synced(not fresh)
                    self._recovered()
                    fresh = True
            except PortError as error:
                self._failed(error)
            except Exception as error:  # whatever it is (no descriptors left, a fault of ours), closes must go on
                log.error("%s: %s", self.port.describe(), compat.trace(error))
                self._failed(PortError(self.port.describe(), str(error)))

    async def _say(self, item):
        grant, closing = item
        if grant is not None:
            left = seconds_left(grant, compat.wall())
            if closing is not None:
                await self.port.close(grant)
            elif left >= 0:  # 0: a part of its last second is left, and the timer ends it on time
                await self.port.open(grant, max(left, 1))
                self._renew(left)
        if closing is not None:
            self._confirm(closing)

    def _renew(self, left):
        """Sees that a device which cannot hold a grant for so long (ipset: 24 days) is told again in time."""
        longest = getattr(self.port, "longest", None)
        if longest is not None and left > longest and self._renewal is None:
            self._renewal = loop.current().at(compat.monotonic() + longest * 500, self._renewed)

    def _renewed(self):
        self._renewal = None
        self.resync()

    async def _synced(self, prepare):
        """Brings the device to exactly what is live, and confirms every close that was owed before."""
        if prepare:
            await self.port.start()
        owed = list(self._owed)
        now = compat.wall()
        live = [(grant, seconds_left(grant, now)) for grant in self.book.live()]
        await self.port.sync([pair for pair in live if pair[1] > 0])
        for number in owed:
            self._confirm(number)
        self._renew(max([pair[1] for pair in live] or [0]))

    def _confirm(self, number):
        if number in self._owed:
            self._owed.remove(number)
            self._closed(self, number)

    def _failed(self, error):
        if self.failure is None:
            self.failing_since = compat.wall()
            log.error("%s; trying again", error)
        self.failure = error.reason

    def _recovered(self):
        if self.failure is not None:
            log.info("%s: works again", self.port.describe())
        self.failure = self.failing_since = None
