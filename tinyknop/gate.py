"""The judgement: a datagram, the stanzas and the clock give a Decision. No I/O, no clock of its own.

The order of the checks is that of docs/fwknopd.md section 4, with one change: a replay is looked up once the HMAC holds
and before anything is decrypted. A failed check moves on to the next stanza; the first that grants ends the search.
"""

from binascii import a2b_base64
from collections import namedtuple

from . import crypto, net, spa
from .compat import only_in
from .errors import Rejected
from .hints import PLACE, Hints
from .rules import Command, given
from .seal import GPG_LENGTH, GPG_PREFIX, LONGEST_HMAC_KEY, PREFIX, decode
from .spa import BASE64, from_base64, to_base64

# Every reason for which a packet is refused, in the order in which it is found out.
_INPUT = "size prefix http source destination expired hint length key charset hmac replay decrypt fields digest "
_FIELDS = "username timestamp version type message nat server_auth timeout signature clock age address user openings "
STAGES = tuple((_INPUT + _FIELDS + "disabled full").split(" "))
_RANK = {stage: rank for rank, stage in enumerate(STAGES)}

SHORTEST, LONGEST = 140, 1500  # bytes; fwknopd drops anything else unread
_PREFIXED = PREFIX[:1] + GPG_PREFIX[:1]
# What ends the search: a grant, and what the replay store says; the digest that it refused is no other stanza's either.
_FINAL = (None, "replay", "clock", "full")

# source and destination are packed addresses, proto is the IP protocol's number.
Datagram = namedtuple("Datagram", "payload source sport destination dport proto")
# A grant or a command, or a stage and a reason, or what GPG has to open first; stanza and packet as far as known.
Decision = namedtuple("Decision", "grant command stage reason stanza packet pending")
# An OpenPGP message to open, and the group of stanzas that it may be for.
Pending = namedtuple("Pending", "group message")


def _refused(stage, reason, stanza=None, packet=None):
    return Decision(None, None, stage, reason, stanza, packet, None)


# What junk gets, made once: it costs no allocation.
_SIZE = _refused("size", "not 140 to 1500 bytes long")
_PREFIX = _refused("prefix", "begins with a prefix that the sender must strip")
_CHARSET = _refused("charset", "a character outside base64")
_SOURCE = _refused("source", "no stanza is for this source")
_DESTINATION = _refused("destination", "no stanza is for this destination")
_EXPIRED = _refused("expired", "the stanza has expired")
_HINT = _refused("hint", "no hint of a stanza in it, and the stanza requires one")
_HMAC = _refused("hmac", "the HMAC does not match that of any stanza")
_REPLAY = _refused("replay", "this very packet has been here before")
_RIJNDAEL = _refused("length", "400 characters or more are taken for GPG, and the stanza has none")
_GPG = _refused("length", "less than 400 characters are not GPG, and the stanza has no other key")


# Stanzas that share all their keys and follow each other in their family.
_Group = namedtuple("_Group", "keys gpg stanzas")


class _Family:
    """Stanzas of which more than one may be able to read the same packet, in file order."""

    def __init__(self, stanzas):
        keys = stanzas[0].keys
        self.groups = []
        last = None
        for stanza in stanzas:
            kind = (stanza.keys.key, stanza.keys.mode, stanza.gpg)
            if kind != last:
                self.groups.append(_Group(stanza.keys, stanza.gpg, []))
            self.groups[-1].stanzas.append(stanza)
            last = kind
        # The states of the HMAC are made here, once; None where a packet of this family carries none.
        self.mac = None if keys.hmac_key is None else crypto.mac(keys.hmac, keys.hmac_key)
        self.mac_length = keys.hmac_length
        if keys.hmac_key is not None and len(keys.hmac_key) > LONGEST_HMAC_KEY:
            self.mac = _never
        self.demands = all([s.require_hint for s in stanzas])
        # What `usable` returns, for short packets and for long, where only a source matters, which `_Near` found.
        self.fixed = None
        if all([s.destination is s.expires is None and s.source == stanzas[0].source for s in stanzas]):
            if not any([s.require_hint for s in stanzas]):
                short = [(one, one.stanzas) for one in self.groups if one.keys.key is not None]
                self.fixed = ((short, _GPG), ([(one, one.stanzas) for one in self.groups if one.gpg], _RIJNDAEL))

        # The length of its HMAC where nothing but that decides about short packets.
        self.plain = self.mac_length if self.mac and self.fixed and self.fixed[False][0] else None

    def networks(self):
        """Returns the networks that packets for this family come from, or None where they may come from anywhere."""
        found = []
        for group in self.groups:
            for stanza in group.stanzas:
                if stanza.source is None:
                    return None
                found += stanza.source
        return found

    def usable(self, datagram, now, long, hinted):
        """Returns ([(group, the stanzas of it that a datagram may be for)], what refuses it where there are none)."""
        if self.fixed is not None and not hinted:
            return self.fixed[long]
        found, refused = [], _SOURCE
        for group in self.groups:
            stanzas = []
            for stanza in group.stanzas:
                barred = _barred(stanza, datagram, now, hinted)
                if barred is None:
                    stanzas.append(stanza)
                else:
                    refused = _later(refused, barred)
            if stanzas and (group.gpg if long else group.keys.key) is not None:
                found.append((group, stanzas))
            elif stanzas:
                refused = _later(refused, _RIJNDAEL if long else _GPG)
        return found, refused


def _never(text):
    """Stands for the HMAC of a key that is too long: no packet can be for it, and fwknopd runs with it all the same."""
    return b""


def _barred(stanza, datagram, now, hinted):
    """Returns what bars a datagram from a stanza before any key is tried, or None."""
    if not within(stanza.source, datagram.source):
        return _SOURCE
    if not within(stanza.destination, datagram.destination):
        return _DESTINATION
    if stanza.expires is not None and now >= stanza.expires:
        return _EXPIRED
    return _HINT if stanza.require_hint and not hinted else None


def _families(stanzas):
    """Returns the families of some stanzas, in file order."""
    # One HMAC key is one family. Without it a packet can be for two stanzas that share the encryption key, or have GPG.
    gpg = [s.keys.key for s in stanzas if s.keys.hmac_key is None and s.gpg is not None]
    found: dict = {}
    order = []
    for stanza in stanzas:
        keys = stanza.keys
        same = (keys.hmac, keys.hmac_key)
        if keys.hmac_key is None:
            same = (None, None if keys.key in gpg else keys.key)  # all that share a key with one for GPG are one, too
        if same not in found:
            found[same] = []
            order.append(found[same])
        found[same].append(stanza)
    return [_Family(these) for these in order]


class _Near:
    """Families by the networks that they are for: an address finds its own by one look-up for each prefix length."""

    def __init__(self):
        self._tables = {}  # (bytes of an address, bits that do not count) -> {the bits that do: families}

    def add(self, networks, family):
        """Files a family under each of its networks."""
        for base, bits in networks:
            free = 8 * len(base) - bits
            table = self._tables.setdefault((len(base), free), {})
            there = table.setdefault(int.from_bytes(base, "big") >> free, [])
            if there[-1:] != [family]:
                there.append(family)

    def lists(self, address):
        """Returns the lists of families that a packed address is among; a family may be in several."""
        number = int.from_bytes(address, "big")
        found = []
        for size, free in self._tables:
            if size == len(address):
                families = self._tables[(size, free)].get(number >> free)
                if families is not None:
                    found.append(families)
        return found


def within(networks, address):
    """Tells whether a packed address is in one of some networks; None stands for everybody."""
    if networks is None:
        return True
    for network in networks:
        if net.contains(network, address):
            return True
    return False


def _later(one, other):
    return other if _RANK[other.stage] >= _RANK[one.stage] else one


class Gate:
    """Judges datagrams against stanzas; keeps the families used last in front.

    `hints` is the table of hints; `only_hinted`: every stanza requires one.
    """

    def __init__(self, stanzas, settings):
        self.settings = settings
        self._web = None
        if settings.http:
            from . import web  # few take requests, and a board has little memory

            self._web = web
        families = _families(stanzas)
        self._anywhere, self._near = [], None
        self._demanding = False  # some are in the table of hints alone
        owners = []
        for family in families:
            keys = family.groups[0].keys
            if family.mac not in (None, _never):
                owners.append((family.mac if keys.hmac == "sha256" else crypto.mac("sha256", keys.hmac_key), family))
            networks = family.networks()
            if family.demands:
                self._demanding = True
            elif networks is None:
                self._anywhere.append(family)
            else:
                self._near = self._near or _Near()
                self._near.add(networks, family)
        self.hints = Hints(owners)
        # One family without demands is tried at once.
        self._looks = bool(owners) and (len(families) > 1 or any([s.require_hint for s in stanzas]))
        self.only_hinted = self._demanding and not self._anywhere and self._near is None
        self._lists = (self._anywhere,)

    def advance(self, now):
        """Keeps the table of hints up with the wall clock, a share at a time; to be called each second."""
        if self._looks:
            self.hints.advance(now)

    def words(self, now):
        """Returns `Hints.words`, () where no stanza has hints; see `only_hinted` whether other packets are junk."""
        return self.hints.words(now) or ()

    def judge(self, datagram, now, seen, opened=None):
        """Returns the Decision on a Datagram at the wall-clock second `now`.

        `seen` is a Replay store: `known(digest)`, and `add(digest, datagram, stamp, now)`, which raises Rejected. Where
        the Decision is `pending`, its message is to be opened, and the datagram judged again with `opened`: a list of
        (group, plain text or None, Rejected or None: what is wrong with it or its signature).
        """
        payload = datagram[0]
        length = len(payload)
        if not SHORTEST <= length <= LONGEST:
            return _SIZE
        forwarded = None
        if self._web is not None and self._web.is_request(payload):
            try:
                payload, forwarded = self._web.decode(payload, datagram.source, self.settings)
            except Rejected as error:
                return _refused(error.stage, error.reason)
            datagram = Datagram(payload, datagram[1], datagram[2], datagram[3], datagram[4], datagram[5])
            length = len(payload)
        if payload[0] in _PREFIXED:
            if payload.startswith(PREFIX) or (length > GPG_LENGTH and payload.startswith(GPG_PREFIX)):
                return _PREFIX
        hits = None
        if self._looks:
            hints = self.hints
            if not hints.since <= now < hints.until:
                hints.advance(now)
            hits = hints.table.get(payload[PLACE : PLACE + 4])
            if self.only_hinted and not hits:
                return _HINT
        if not only_in(payload, BASE64):
            return _CHARSET
        return self._search(datagram, hits, forwarded, now, seen, [] if opened is None else opened)

    def _lists_for(self, datagram, hits):
        """Returns the lists of families to try, those hinted at first."""
        lists = self._lists if self._near is None else self._near.lists(datagram.source) + [self._anywhere]
        return [hits] + list(lists) if hits else lists

    def _search(self, datagram, hits, forwarded, now, seen, opened):
        """Returns the Decision of the first stanza that has one other than a refusal, those hinted at first."""
        payload, length = datagram[0], len(datagram[0])
        long = length >= GPG_LENGTH
        refused = _HINT if self._demanding and not hits else _SOURCE
        missed = False
        tail, text, wanted, equal = -1, b"", b"", crypto.equal
        for families in self._lists_for(datagram, hits):
            hinted = families is hits
            quick = not hinted and not long
            for family in families:
                # The work of every bogus packet and family: one HMAC, one comparison in constant time.
                holds = quick and family.plain == tail
                if holds and not equal(family.mac(text), wanted):
                    missed = True
                    continue
                usable, why = family.usable(datagram, now, long, hinted)
                if not usable:
                    refused = _later(refused, why)
                    continue
                if family.mac_length != tail:
                    tail = family.mac_length
                    text = (GPG_PREFIX if long else PREFIX) + payload[: length - tail]
                    wanted = a2b_base64(payload[length - tail :] + b"==")  # more of it does no harm
                if family.mac is not None:
                    # A second spelling of the HMAC would have another digest, and be no replay.
                    holds = holds or equal(family.mac(text), wanted)
                    if not holds or to_base64(wanted) != payload[length - tail :]:
                        missed = True
                        continue
                decision = self._read(usable, text, datagram, forwarded, now, seen, opened)
                if decision.stage in _FINAL:
                    if not hinted:
                        families.remove(family)
                        families.insert(0, family)
                    return decision
                refused = _later(refused, decision)
        return _later(refused, _HMAC) if missed else refused

    def _read(self, usable, text, datagram, forwarded, now, seen, opened):
        """Returns the Decision of a family's stanzas on a text, the HMAC of which holds if they have one."""
        refused = _SOURCE
        for group, stanzas in usable:
            decision = self._try(group, stanzas, text, datagram, forwarded, now, seen, opened)
            if decision.stage in _FINAL:
                return decision
            refused = _later(refused, decision)
        return refused

    def _try(self, group, stanzas, text, datagram, forwarded, now, seen, opened):
        """Returns the Decision of stanzas that share their keys, the HMAC of which holds if they have one."""
        try:
            digests = [crypto.digest("sha256", datagram.payload)]
            long = len(datagram.payload) >= GPG_LENGTH
            text = _message(text) if long else text
            # What this very packet has stored, for a stanza that then refused it, makes it no replay for another.
            stored = [one[1] for one in opened if one[0] is None]
            if digests[0] not in stored and seen.known(digests[0]):
                return _REPLAY
            fault = None
            if long:
                found = [one for one in opened if one[0] is group]
                if not found:
                    return Decision(None, None, None, None, stanzas[0], None, Pending(group, text))
                packet, fault = _opened(found[0])
                if group.keys.hmac_key is None:
                    # gpg does not mind some changed bytes, so without an HMAC the text has to be new as well.
                    digests.append(crypto.digest("sha256", b"gpg" + found[0][1]))
                    if digests[1] not in stored and seen.known(digests[1]):
                        return _REPLAY
            else:
                packet = decode(text, group.keys, True)
            if not self.settings.test:
                for digest in digests:
                    if digest not in stored:
                        opened.append((None, digest, None))
                        seen.add(digest, datagram, packet.timestamp, now)
            if fault is not None:
                raise fault
        except Rejected as error:
            return _refused(error.stage, error.reason, stanzas[0])
        return self._ruled(stanzas, packet, datagram, forwarded, now)

    def _ruled(self, stanzas, packet, datagram, forwarded, now):
        """Returns the Decision of the first stanza whose rules give something for a packet."""
        refused = _HMAC
        for stanza in stanzas:
            try:
                found = given(stanza, packet, datagram, forwarded, now, self.settings)
            except Rejected as error:
                refused = _later(refused, _refused(error.stage, error.reason, stanza, packet))
                continue
            if isinstance(found, Command):
                return Decision(None, found, None, None, stanza, packet, None)
            return Decision(found, None, None, None, stanza, packet, None)
        return refused


def _message(text):
    """Returns the OpenPGP message in a text; raises Rejected for one that is spelt in a second way."""
    message = from_base64(text)
    if to_base64(message) != text:
        raise Rejected("charset", "base64 with spare bits set")
    return message


def _opened(found):
    """Returns (Packet, Rejected or None) of what GPG made of a message; raises Rejected."""
    _, plain, fault = found
    if plain is None:
        raise fault
    return spa.parse(plain, True), fault
