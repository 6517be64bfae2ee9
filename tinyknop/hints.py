"""Stanza hints: three bytes of a packet's salt by which a server finds the stanza without trying every key. No I/O.

The salt is R R R R H H H R: R random, H the hint (docs/hints.md). A hint is the same for everyone who holds the HMAC
key, and changes each minute. It is never trusted: the HMAC decides.
"""

from binascii import b2a_base64

from . import crypto

SLOT = 60  # seconds for which a hint stays the same
REACH = 2  # slots before and after the present one
MAX_AGE = REACH * SLOT  # seconds; the hint of an older packet is not in the table
PLACE = 6  # where in a datagram the hint's four characters begin: three bytes are one whole group of base64

MOST_WORDS = 3400  # hints for which `program` stays below the kernel's 4,096 instructions, with room for others
_LD_W_X, _JA, _JEQ, _JGE, _RET = 0x40, 0x05, 0x15, 0x35, 0x06  # classic BPF
_LEAF = 32  # words that are compared one by one at the end of the search: fewer would cost more instructions


def _text(slot):
    return b"tinyknop hint" + slot.to_bytes(8, "big")


def hint(hmac_key, timestamp):
    """Returns the three bytes for a packet's time stamp (seconds since 1970)."""
    return crypto.mac("sha256", hmac_key)(_text(timestamp // SLOT))[:3]


class Hints:
    """The hints that packets may carry now, and whose they are."""

    def __init__(self, owners):
        """`owners` are (HMAC-SHA256 function of an HMAC key, whose it is)."""
        self.table = {}  # four characters of base64 -> tuple of those whose hint they are
        self.since = self.until = 0  # the wall-clock seconds for which the table holds all
        self._owners = [(mac, (owner,)) for mac, owner in owners]
        self._made = {}  # slot -> its hints that are in the table, in the order of the owners
        self._share = 64 + len(owners) // 50  # called once a second, this makes a slot well within its minute

    def advance(self, now):
        """Sees that the table holds what packets may carry at the wall-clock second `now`.

        Called once a second, it makes the slot that comes next a share at a time and forgets an old one likewise, so
        that nobody waits. A slot that is missing, after a start or a step of the clock, it makes at once: that takes
        some microseconds for each owner.
        """
        slot = now // SLOT
        for near in range(slot - REACH, slot + REACH + 1):
            self._make(near, len(self._owners))
        self._make(slot + REACH + 1, self._share)
        for other in list(self._made):
            if not -REACH <= other - slot <= REACH + 1:
                self._forget(other)
        self.since, self.until = slot * SLOT, slot * SLOT + SLOT

    def words(self, now):
        """Returns the hints that packets may carry at `now` and in all of the next slot; none if they are too many.

        They are sorted numbers of 32 bits, as BPF loads them. Renewed at any time in the next slot they lose nobody.
        """
        slots = range(now // SLOT - REACH, now // SLOT + REACH + 2)
        if len(self._owners) * len(slots) > MOST_WORDS:
            return ()
        self.advance(now)
        self._make(slots[-1], len(self._owners))
        found = set()
        for slot in slots:
            found.update([int.from_bytes(text, "big") for text in self._made[slot]])
        return sorted(found)

    def _make(self, slot, share):
        made = self._made.setdefault(slot, [])
        text = _text(slot)
        for mac, owner in self._owners[len(made) : len(made) + share]:
            word = b2a_base64(mac(text)[:3])[:4]
            made.append(word)
            self.table[word] = self.table.get(word, ()) + owner

    def _forget(self, slot):
        made = self._made[slot]
        for _ in range(min(self._share, len(made))):
            word = made.pop()
            owner, left = self._owners[len(made)][1], self.table.pop(word)
            if left != owner:  # others have the same hint
                left = list(left)
                left.remove(owner[0])
                self.table[word] = tuple(left)
        if not made:
            del self._made[slot]


def program(words, found, start=0):
    """Returns a BPF program that returns `found` for a packet with one of some sorted words; else it goes on behind.

    A list as `filters.assemble` makes it; X is where the UDP header begins, counted from `start`.
    """
    return [(_LD_W_X, 0, 0, start + 8 + PLACE)] + _search(words, found, 0)


def _search(words, found, behind):
    """`behind`: how many instructions follow this part of the search."""
    count = len(words)
    if count <= _LEAF:
        compare = [(_JEQ, count - i, 0, words[i]) for i in range(count)]
        return compare + [(_JA, 0, 0, 1 + behind), (_RET, 0, 0, found)]
    high = _search(words[count // 2 :], found, behind)
    low = _search(words[: count // 2], found, behind + len(high))
    # A conditional jump reaches 255 lines, too few for what may lie between: it only chooses whether to jump far.
    return [(_JGE, 0, 1, words[count // 2]), (_JA, 0, 0, len(low))] + low + high
