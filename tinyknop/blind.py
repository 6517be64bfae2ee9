"""The worker of a port whose device cannot be read back, as a command: nothing may be said twice, nor be forgotten.

No comparison makes good for a close that failed: it is said again. What is opened is noted in the journal just before
it is said, so that a start begins what has not begun, and repeats nothing.
"""

from . import compat, log, loop
from .errors import Refused
from .grants import part
from .worker import Worker

_PAUSE, _LONGEST_PAUSE = 1, 60  # seconds; twice that between the first two tries of a close, then twice as long
_NOTED = ()  # an opening that is noted, and may be said again until that works
_TRIES = 10  # of a close, where the port does not say how many; then it stays owed, for a person to look at


class Blind(Worker):
    """As Worker; `owner.begins(worker, grant id, openings)` tells whether what must not be said twice may be said."""

    blind = True

    def __init__(self, *words):
        super().__init__(*words)
        self._newest = {}  # grant id -> {opening: what was asked last, and is not said yet, or _NOTED}, until its close
        self._saying_of: tuple = (None, [])  # grant, and those of its openings that were said
        self._tries = {}  # id of a grant whose close failed -> how often
        self._later = {}  # grant id -> Timer of a close that is to be said again

    def _take_over(self, grants, expired, begun):
        self._queue.items = [(self.book.unheld(grant), grant.id) for grant in expired]
        for grant in self.book.live():
            held = begun.get(grant.id, {}).get(self.name, ())
            left = [opening for opening in grant.openings if opening not in held]
            if left:
                self._want(part(grant, left))
        for grant in grants + expired:
            self._outlived(grant)

    def _outlived(self, grant):
        """Sees that an open command of a process before us, which may still run, does not have the last word."""
        late = grant.opened + getattr(self.port, "seconds", 0)
        if late > max(grant.until, compat.wall()):
            self._again(grant, grant.id, late - compat.wall())

    def _again(self, grant, number, seconds):
        """Says a close in so many seconds, but for what was opened since."""

        def again():
            self._later.pop(number, None)
            self._queue.put((self.book.unheld(grant), number))

        self._later[number] = loop.current().at(compat.monotonic() + int(seconds * 1000), again)

    def _want(self, grant):
        self._newest.setdefault(grant.id, {}).update({opening: grant for opening in grant.openings})
        super()._want(grant)

    def resync(self):
        """There is nothing to compare."""

    def forget(self, number):
        """Lets go of a close that is owed: somebody saw to it."""
        super().forget(number)
        self._newest.pop(number, None)
        self._tries.pop(number, None)
        if number in self._later:
            self._later.pop(number).cancel()

    def _end(self):
        super()._end()
        for timer in self._later.values():
            timer.cancel()

    async def _synced(self, prepare):
        if prepare:
            await self.port.start()

    async def _mended(self, items, fresh):
        await self._synced(not fresh)
        self._recovered()
        return items

    async def _begun(self, pairs):
        """Opens one opening after the other: a kill then loses one at most. Returns what was begun."""
        begun = []
        for grant, left in pairs:
            if self._saying_of[0] is not grant:  # or one of its openings failed, and those before it are through
                self._saying_of = grant, []
            done = self._saying_of[1]
            for opening in grant.openings:
                if opening not in done and await self._said_once(grant, opening, left):
                    done.append(opening)
            if done or not grant.openings:
                begun.append((part(grant, done), left))
        return begun

    async def _said_once(self, grant, opening, left):
        """Notes an opening, then says it; tells whether that was done."""
        newest = self._newest.get(grant.id)
        if newest is None:  # somebody let go of it meanwhile
            return False
        waits = newest.get(opening)
        # What a later knock asks for as well has still to be noted when this is through.
        if waits is grant:
            if not self._owner.begins(self, grant.id, (opening,)):
                return False
            newest[opening] = _NOTED
        try:
            await self.port.open(part(grant, (opening,)), left)
        except Refused as error:  # others would wait behind it, with their closes
            log.error("%s; it is not said again", error)
            self._owner.failed(self)
            return False
        if newest.get(opening) is _NOTED:
            del newest[opening]
        return True

    async def _ended(self, grants, number):
        try:
            await self.port.close(*grants)
        except Exception as error:  # whatever it is, nobody else would say the close again
            tries = self._tries[number] = self._tries.get(number, 0) + 1
            if tries < getattr(self.port, "tries", _TRIES):
                log.error("%s; trying again", error)
                self._again(grants[0], number, min(_PAUSE * (1 << min(tries, _TRIES)), _LONGEST_PAUSE))
            else:
                log.error("%s; tried %d times, so the close of %s stays owed", error, tries, grants[0].source)
            return False
        return True

    def _confirm(self, number):
        self._tries.pop(number, None)
        if number in self._owed:
            self._newest.pop(number, None)
        super()._confirm(number)
