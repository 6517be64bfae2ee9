"""What is open until when. No I/O: the daemon asks, journals, and tells the ports.

Two knocks may ask for overlapping openings. A Book, one per port, knows for each opening of each source how long the
longest of its grants lives, so that the end of one grant never closes what another still holds open.
"""

import heapq
from collections import namedtuple

# source is text, openings a tuple of (protocol, port), opened and until wall-clock seconds, nat None or a Nat;
# destination is the address that the packet was for ("0.0.0.0" where nobody knows), sender the one it came from.
Grant = namedtuple("Grant", ("id", "source", "openings", "opened", "until", "stanza", "nat", "destination", "sender"))
FIELDS = ("id", "source", "openings", "opened", "until", "stanza", "nat", "destination", "sender")
# Where a grant's one opening leads to. `local`: to a service of this machine; `snat`: None, "masquerade" or an address;
# `every`: all protocols and ports; `dnat`: whether the destination is rewritten at all.
Nat = namedtuple("Nat", "local host port snat every dnat")


class Grants:
    """The ledger of live grants, by id."""

    def __init__(self):
        self.live = {}
        self._ids = {}  # what was asked -> id, so that a second knock extends
        self.last = 0  # the highest id that was ever in use

    def known(self, grant):
        """Returns the live grant that this one would extend, or None."""
        return self.live.get(self._ids.get(_same(grant)))

    def add(self, grant):
        """Enters a grant; returns it with its id, and with the later end where the same is already open."""
        known = self.known(grant)
        until = grant.until
        if known is not None:
            until = max(until, grant.opened + seconds_left(known, grant.opened))
        number = known.id if known is not None else grant.id or self.last + 1
        self.last = max(self.last, number)
        grant = replaced(grant, id=number, until=until)
        self.live[number] = grant
        self._ids[_same(grant)] = number
        return grant

    def remove(self, number):
        """Takes a grant out; returns it, or None where there is none."""
        grant = self.live.pop(number, None)
        if grant is not None:
            self._ids.pop(_same(grant), None)
        return grant

    def shift(self, seconds):
        """Moves every time by a step of the wall clock."""
        for number, grant in list(self.live.items()):
            self.live[number] = shifted(grant, seconds)


def _same(grant):
    return grant.source, grant.openings, grant.stanza, grant.nat, grant.destination


def replaced(grant, **fields):
    """Returns a grant with some fields replaced; MicroPython's tuples have no `_replace`."""
    return Grant(*[fields.get(name, value) for name, value in zip(FIELDS, grant)])


def shifted(grant, seconds):
    """Returns a grant with its times moved by a step of the wall clock."""
    return replaced(grant, opened=grant.opened + seconds, until=grant.until + seconds)


def part(grant, openings):
    """Returns a grant with only some of its openings, in their order."""
    return grant if len(openings) == len(grant.openings) else replaced(grant, openings=tuple(openings))


def first(items, most):
    """Returns the first `most` of some items as a list, all of them where that is None."""
    found: list = []
    for item in items:
        if len(found) == most:
            break
        found.append(item)
    return found


def seconds_left(grant, now):
    """Returns the seconds that a grant has left at `now`: never more than its own length, whatever the clock did."""
    return min(grant.until - now, grant.until - grant.opened)


def timed(grants, now):
    """Returns (grant, seconds that it has left at `now`, at least 1) of those whose end has not come."""
    pairs = [(grant, seconds_left(grant, now)) for grant in grants]
    # 0 seconds: a part of its last one is left, and the timer ends it on time.
    return [(grant, max(left, 1)) for grant, left in pairs if left >= 0]


class Ends:
    """When grants end, by the monotonic clock (ms), the next first: thousands may end in the same second."""

    def __init__(self):
        self._heap = []
        self._at = {}  # id -> when; what the heap says otherwise is out of date

    def put(self, number, deadline):
        """Sets when the grant of this id ends, whatever was set before."""
        self._at[number] = deadline
        heapq.heappush(self._heap, (deadline, number))

    def drop(self, number):
        """Forgets a grant."""
        self._at.pop(number, None)

    def next(self):
        """Returns the first deadline, None where there is none."""
        heap = self._heap
        while heap and self._at.get(heap[0][1]) != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now, most):
        """Returns the ids of at most so many grants whose end has come, and forgets them."""
        found: list = []
        while len(found) < most and self.next() is not None and self._heap[0][0] <= now:
            found.append(heapq.heappop(self._heap)[1])
            self.drop(found[-1])
        return found


class Book:
    """What one port holds open; `by_destination` where it tells grants for different addresses of ours apart."""

    def __init__(self, by_destination=False):
        self._by_destination = by_destination
        self._holders = {}  # (source, opening, nat, destination) -> grants, a tuple: nearly always of one

    def _key(self, grant, opening):
        return grant.source, opening, grant.nat, grant.destination if self._by_destination else None

    def empty(self):
        """Tells whether nothing is held open."""
        return not self._holders

    def enter(self, grant):
        """Enters a grant; returns the part of it that needs opening or more time, or None."""
        needed = []
        for opening in grant.openings:
            key = self._key(grant, opening)
            others = tuple([one for one in self._holders.get(key, ()) if one.id != grant.id])
            if not [one for one in others if one.until >= grant.until]:
                needed.append(opening)
            self._holders[key] = others + (grant,)
        return part(grant, needed) if needed else None

    def strike(self, grant):
        """Takes a grant out; returns the part of it that no other grant holds open, or None."""
        orphans = []
        for opening in grant.openings:
            key = self._key(grant, opening)
            holders = self._holders.get(key, ())
            others = tuple([one for one in holders if one.id != grant.id])
            if others:
                self._holders[key] = others
            elif holders:
                del self._holders[key]
                orphans.append(opening)
        return part(grant, orphans) if orphans else None

    def unheld(self, grant):
        """Returns the part of a grant that no grant holds open, or None."""
        left = [opening for opening in grant.openings if self._key(grant, opening) not in self._holders]
        return part(grant, left) if left else None

    def live(self):
        """Returns the grants, each with only the openings of which it is the longest holder."""
        longest: dict = {}
        for key, holders in self._holders.items():
            best = holders[0]
            for grant in holders[1:]:
                if grant.until > best.until:
                    best = grant
            longest.setdefault(best.id, (best, []))[1].append(key[1])
        return [part(grant, openings) for grant, openings in longest.values()]

    def shift(self, seconds):
        """Moves every time by a step of the wall clock."""
        for key, holders in list(self._holders.items()):
            self._holders[key] = tuple([shifted(grant, seconds) for grant in holders])
