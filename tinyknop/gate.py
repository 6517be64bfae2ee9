"""The judgement: a datagram, the stanzas and the clock give a Decision. No I/O, no clock of its own.

The order of the checks is that of docs/fwknopd.md section 4, with one change: a replay is looked up once the HMAC holds
and before anything is decrypted. A failed check moves on to the next stanza; the first that grants ends the search.
"""

from collections import namedtuple

from . import compat, crypto, net, spa, web
from .errors import Rejected
from .grants import Grant, Nat
from .seal import GPG_LENGTH, GPG_PREFIX, PREFIX, check, decode
from .spa import from_base64, to_base64

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
# A grant or a command, or a stage and a reason, or what GPG has to open first; stanza and packet as far as known.
Decision = namedtuple("Decision", "grant command stage reason stanza packet pending")
# What a command message asks for: its text, the address that it names, and the one that it came from.
Command = namedtuple("Command", "text source sender")
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
_HMAC = _refused("hmac", "the HMAC does not match that of any stanza")
_REPLAY = _refused("replay", "this very packet has been here before")
_RIJNDAEL = _refused("length", "400 characters or more are taken for GPG, and the stanza has none")
_GPG = _refused("length", "less than 400 characters are not GPG, and the stanza has no other key")


class _Group:
    """Stanzas that share their keys, in file order."""

    def __init__(self, keys, gpg):
        self.keys = keys
        self.gpg = gpg
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
            if not within(stanza.source, datagram.source):
                continue
            if not within(stanza.destination, datagram.destination):
                refused = _later(refused, _DESTINATION)
            elif stanza.expires is not None and now >= stanza.expires:
                refused = _later(refused, _EXPIRED)
            else:
                found.append(stanza)
        return found, refused


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
    """Judges datagrams against stanzas; keeps those used last in front."""

    def __init__(self, stanzas, settings):
        self.settings = settings
        groups = {}
        self._groups = []
        for stanza in stanzas:
            keys = stanza.keys
            same = (keys.key, keys.hmac_key, keys.mode, keys.hmac, stanza.gpg)
            if same not in groups:
                groups[same] = _Group(keys, stanza.gpg)
                self._groups.append(groups[same])
            groups[same].stanzas.append(stanza)
        for group in self._groups:
            group.prepare()

    def judge(self, datagram, now, seen, opened=None):
        """Returns the Decision on a Datagram at the wall-clock second `now`.

        `seen` is a Replay store: `known(digest)`, and `add(digest, datagram, stamp, now)`, which raises Rejected. Where
        the Decision is `pending`, its message is to be opened, and the datagram judged again with `opened`: a list of
        (group, plain text or None, Rejected or None: what is wrong with it or its signature).
        """
        payload = datagram.payload
        length = len(payload)
        if not SHORTEST <= length <= LONGEST:
            return _SIZE
        forwarded = None
        if self.settings.http and web.is_request(payload):
            try:
                payload, forwarded = web.decode(payload, datagram.source, self.settings)
            except Rejected as error:
                return _refused(error.stage, error.reason)
            datagram = Datagram(payload, datagram[1], datagram[2], datagram[3], datagram[4], datagram[5])
            length = len(payload)
        if payload.startswith(PREFIX) or (length > GPG_LENGTH and payload.startswith(GPG_PREFIX)):
            return _PREFIX
        if not compat.only_in(payload, spa.BASE64):
            return _CHARSET
        return self._search(datagram, forwarded, now, seen, opened)

    def _search(self, datagram, forwarded, now, seen, opened):
        """Returns the Decision of the first group of stanzas that has one other than a refusal."""
        payload = datagram.payload
        length = len(payload)
        refused = _SOURCE
        opened = [] if opened is None else opened
        cut, text, wanted = -1, b"", b""
        prefix, barrier = (PREFIX, _GPG) if length < GPG_LENGTH else (GPG_PREFIX, _RIJNDAEL)
        equal = crypto.equal
        for place, group in enumerate(self._groups):
            stanzas = group.stanzas
            if not group.unlimited:
                stanzas, why = group.candidates(datagram, now)
                if not stanzas:
                    refused = _later(refused, why)
                    continue
            if (group.keys.key if barrier is _GPG else group.gpg) is None:
                refused = _later(refused, barrier)
                continue
            if group.mac is not None:
                # The work of every bogus packet and stanza: one HMAC, one comparison in constant time.
                if group.mac_length != length - cut:
                    cut = length - group.mac_length
                    text, wanted = prefix + payload[:cut], from_base64(payload[cut:])
                if not equal(group.mac(text), wanted):
                    refused = refused if refused is _HMAC else _later(refused, _HMAC)
                    continue
            decision = self._try(group, stanzas, datagram, forwarded, now, seen, opened)
            if decision.stage is None or decision.stage == "replay":
                if place:
                    self._groups.insert(0, self._groups.pop(place))
                return decision
            refused = _later(refused, decision)
        return refused

    def _try(self, group, stanzas, datagram, forwarded, now, seen, opened):
        """Returns the Decision of stanzas that share their keys, the HMAC of which holds if they have one."""
        payload = datagram.payload
        try:
            digests = [crypto.digest("sha256", payload)]
            long = len(payload) >= GPG_LENGTH
            text = _message(payload, group.keys) if long else check(payload, group.keys)
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
                if group.mac is None:
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
        refused = _HMAC
        for stanza in stanzas:
            try:
                given = self._given(stanza, packet, datagram, forwarded, now)
            except Rejected as error:
                refused = _later(refused, _refused(error.stage, error.reason, stanza, packet))
                continue
            if isinstance(given, Command):
                return Decision(None, given, None, None, stanza, packet, None)
            return Decision(given, None, None, None, stanza, packet, None)
        return refused

    def _given(self, stanza, packet, datagram, forwarded, now):
        """Returns the Grant or the Command that a stanza gives for a packet, or raises Rejected."""
        settings = self.settings
        apart = now - packet.timestamp
        if settings.ageing and abs(apart) > settings.max_age:
            raise Rejected("age", "packet and clock are %d seconds apart" % apart)
        address, comma, asked = packet.message.partition(",")
        source = net.packed(address)
        if source in ANY_SOURCE:
            if stanza.require_source:
                raise Rejected("address", "the packet names no address, and the stanza requires one")
            source = forwarded or datagram.source
        if stanza.require_user is not None and stanza.require_user != packet.username:
            raise Rejected("user", "the user name is not the one that the stanza requires")
        nat = self._nat(stanza, packet)
        source, sender = net.printed(source), net.printed(datagram.source)
        if nat is not None:
            nat = same_family(source, nat)
        if packet.message_type == spa.COMMAND and stanza.cycle is None:
            if not stanza.cmd_exec or settings.test:
                raise Rejected("disabled", "command messages are not allowed")
            return Command(asked, source, sender)
        openings = _allowed(stanza, asked)
        if settings.test:
            raise Rejected("disabled", "test mode: nothing is opened")
        if nat is not None or stanza.cycle is not None:
            openings = openings[:1]  # the one that is asked for first is all that fwknopd looks at
        until = now + _seconds(stanza, packet.client_timeout)
        destination = net.printed(datagram.destination)
        return Grant(None, source, openings, now, until, stanza.name, nat, destination, sender)

    def _nat(self, stanza, packet):
        """Returns the Nat of a packet (its host perhaps still a name), None for none; raises Rejected."""
        kind, settings = packet.message_type, self.settings
        inwards, local = kind in (spa.NAT, spa.NAT_TIMEOUT), kind in (spa.LOCAL_NAT, spa.LOCAL_NAT_TIMEOUT)
        if (inwards and not settings.forwarding) or (local and not settings.local_nat):
            raise Rejected("disabled", "NAT is asked for, but not enabled")
        if stanza.force_nat is not None:
            host, port = stanza.force_nat
        elif inwards or local:
            host, _, port = packet.nat_access.partition(",")
        else:
            return None
        snat = stanza.force_snat or ("masquerade" if stanza.masquerade else settings.snat)
        dnat = not stanza.disable_dnat and host != "0.0.0.0"
        return Nat(local, host, int(port), snat, stanza.forward_all, dnat)


def same_family(source, nat):
    """Returns a Nat as it can be for a source address; raises Rejected where the inside host is of the other family."""
    six = ":" in source
    if nat.host != "0.0.0.0" and net.is_address(nat.host) and (":" in nat.host) != six:
        raise Rejected("nat", "an IPv%d address cannot be led to %s" % (6 if six else 4, nat.host))
    if nat.snat not in (None, "masquerade") and (":" in nat.snat) != six:
        nat = Nat(nat.local, nat.host, nat.port, "masquerade", nat.every, nat.dnat)
    return nat


def _message(payload, keys):
    """Returns the OpenPGP message in a payload; raises Rejected for one that is spelt in a second way."""
    text = GPG_PREFIX + payload[: len(payload) - keys.hmac_length]
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
    if asked and top is None and stanza.cycle is not None:
        return asked
    if asked:
        return min(asked, DEFAULT_MAX_TIMEOUT if top is None else top)
    return stanza.timeout if top is None else min(stanza.timeout, top)
