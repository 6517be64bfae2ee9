"""The judgement: a datagram, the stanzas and the clock give a Decision. No I/O, no clock of its own.

The order of the checks is that of docs/fwknopd.md section 4, with one change: a replay is looked up once the HMAC holds
and before anything is decrypted. A failed check moves on to the next stanza; the first that grants ends the search.
"""

from collections import namedtuple

from . import compat, crypto, net, spa
from .errors import Rejected
from .grants import Grant
from .seal import GPG_LENGTH, PREFIX, check, decode
from .spa import from_base64

# Every reason for which a packet is refused, in the order in which it is found out.
_INPUT = "size prefix http source destination expired hint length key charset hmac replay decrypt fields digest "
_FIELDS = "username timestamp version type message nat server_auth timeout signature clock age address user openings "
STAGES = tuple((_INPUT + _FIELDS + "disabled full").split(" "))
_RANK = {stage: rank for rank, stage in enumerate(STAGES)}

SHORTEST, LONGEST = 140, 1500  # bytes; fwknopd drops anything else unread
DEFAULT_MAX_TIMEOUT = 300  # seconds; where a stanza sets no MAX_FW_TIMEOUT this caps only what a client asks for
ANY_SOURCE = (bytes(4), bytes(16))  # 0.0.0.0 or :: in a message: the packet's own source

# source and destination are packed addresses, proto is the IP protocol's number.
Datagram = namedtuple("Datagram", "payload source sport destination dport proto")
# Either a grant (or, later, a command), or a stage and a reason; stanza and packet as far as they are known.
Decision = namedtuple("Decision", "grant command stage reason stanza packet")


def _refused(stage, reason, stanza=None, packet=None):
    return Decision(None, None, stage, reason, stanza, packet)


# What junk gets, made once: it costs no allocation.
_SIZE = _refused("size", "not 140 to 1500 bytes long")
_PREFIX = _refused("prefix", "begins with a prefix that the sender must strip")
_CHARSET = _refused("charset", "a character outside base64")
_SOURCE = _refused("source", "no stanza is for this source")
_DESTINATION = _refused("destination", "no stanza is for this destination")
_EXPIRED = _refused("expired", "the stanza has expired")
_HMAC = _refused("hmac", "the HMAC does not match that of any stanza")
_REPLAY = _refused("replay", "this very packet has been here before")


class _Group:
    """Stanzas that share their keys, in file order."""

    def __init__(self, keys):
        self.keys = keys
        self.stanzas = []
        # The states of the HMAC are made here, once; None where a packet of this group carries none.
        self.mac = None if keys.hmac_key is None else crypto.mac(keys.hmac, keys.hmac_key)
        self.mac_length = keys.hmac_length

    def prepare(self):
        """Works out, once, whether a packet's addresses and the date matter at all."""
        self.unlimited = all([s.source is None and s.destination is None and s.expires is None for s in self.stanzas])

    def candidates(self, datagram, now):
        """Returns the stanzas for a datagram's addresses and date, or what refuses it."""
        found = []
        refused = _SOURCE
        for stanza in self.stanzas:
            if not _within(stanza.source, datagram.source):
                continue
            if not _within(stanza.destination, datagram.destination):
                refused = _later(refused, _DESTINATION)
            elif stanza.expires is not None and now >= stanza.expires:
                refused = _later(refused, _EXPIRED)
            else:
                found.append(stanza)
        return found, refused


def _within(networks, address):
    if networks is None:
        return True
    for network in networks:
        if net.contains(network, address):
            return True
    return False


def _later(one, other):
    return other if _RANK[other.stage] >= _RANK[one.stage] else one


class Gate:
    """Judges datagrams against stanzas; keeps those used last in front."""

    def __init__(self, stanzas, settings):
        self.settings = settings
        groups = {}
        self._groups = []
        for stanza in stanzas:
            keys = stanza.keys
            same = (keys.key, keys.hmac_key, keys.mode, keys.hmac)
            if same not in groups:
                groups[same] = _Group(keys)
                self._groups.append(groups[same])
            groups[same].stanzas.append(stanza)
        for group in self._groups:
            group.prepare()

    def judge(self, datagram, now, seen):
        """Returns the Decision on a Datagram at the wall-clock second `now`.

        `seen` is a Replay store: `known(digest)`, and `add(digest, datagram, stamp, now)`, which raises Rejected.
        """
        payload = datagram.payload
        length = len(payload)
        if not SHORTEST <= length <= LONGEST:
            return _SIZE
        if payload.startswith(PREFIX) or (length > GPG_LENGTH and payload.startswith(b"hQ")):
            return _PREFIX
        if not compat.only_in(payload, spa.BASE64):
            return _CHARSET
        refused = _SOURCE
        cut, text, wanted = -1, b"", b""
        equal = crypto.equal
        for place, group in enumerate(self._groups):
            stanzas = group.stanzas
            if not group.unlimited:
                stanzas, why = group.candidates(datagram, now)
                if not stanzas:
                    refused = _later(refused, why)
                    continue
            if group.mac is not None:
                # The work of every bogus packet and stanza: one HMAC, one comparison in constant time.
                if group.mac_length != length - cut:
                    cut = length - group.mac_length
                    text, wanted = PREFIX + payload[:cut], from_base64(payload[cut:])
                if not equal(group.mac(text), wanted):
                    refused = refused if refused is _HMAC else _later(refused, _HMAC)
                    continue
            decision = self._try(group.keys, stanzas, datagram, now, seen)
            if decision.stage is None or decision.stage == "replay":
                if place:
                    self._groups.insert(0, self._groups.pop(place))
                return decision
            refused = _later(refused, decision)
        return refused

    def _try(self, keys, stanzas, datagram, now, seen):
        """Returns the Decision of stanzas that share their keys, the HMAC of which holds if they have one."""
        try:
            text = check(datagram.payload, keys)
            digest = crypto.digest("sha256", datagram.payload)
            if seen.known(digest):
                return _REPLAY
            packet = decode(text, keys, True)
            if not self.settings.test:
                seen.add(digest, datagram, packet.timestamp, now)
        except Rejected as error:
            return _refused(error.stage, error.reason, stanzas[0])
        refused = _HMAC
        for stanza in stanzas:
            try:
                return Decision(self._granted(stanza, packet, datagram, now), None, None, None, stanza, packet)
            except Rejected as error:
                refused = _later(refused, _refused(error.stage, error.reason, stanza, packet))
        return refused

    def _granted(self, stanza, packet, datagram, now):
        """Returns the Grant that a stanza gives for a packet, or raises Rejected."""
        settings = self.settings
        apart = abs(now - packet.timestamp)
        if settings.ageing and apart > settings.max_age:
            raise Rejected("age", "packet and clock are %d seconds apart" % apart)
        address, comma, asked = packet.message.partition(",")
        source = net.packed(address)
        if source in ANY_SOURCE:
            if stanza.require_source:
                raise Rejected("address", "the packet names no address, and the stanza requires one")
            source = datagram.source
        if stanza.require_user is not None and stanza.require_user != packet.username:
            raise Rejected("user", "the user name is not the one that the stanza requires")
        if packet.message_type not in (spa.ACCESS, spa.ACCESS_TIMEOUT):
            raise Rejected("disabled", "messages of type %d are not allowed" % packet.message_type)
        openings = _allowed(stanza, asked)
        if settings.test:
            raise Rejected("disabled", "test mode: nothing is opened")
        until = now + _seconds(stanza, packet.client_timeout)
        return Grant(None, net.printed(source), openings, now, until, stanza.name, None)


def _allowed(stanza, asked):
    """Returns the openings asked for, each once, if the stanza allows every one of them."""
    openings = []
    for opening in net.openings(asked):
        if opening in stanza.restrict_ports or (stanza.open_ports is not None and opening not in stanza.open_ports):
            raise Rejected("openings", "%s/%d is not allowed" % opening)
        if opening not in openings:
            openings.append(opening)
    return tuple(openings)


def _seconds(stanza, asked):
    """Returns how long a grant of this stanza lives; 0 asked for means the stanza's own time."""
    top = stanza.max_timeout
    if asked:
        return min(asked, DEFAULT_MAX_TIMEOUT if top is None else top)
    return stanza.timeout if top is None else min(stanza.timeout, top)
