"""What a stanza gives for a packet that it could read: a Grant, a Command, or the rule that refuses. No I/O."""

from collections import namedtuple

from . import net, spa
from .errors import Rejected
from .grants import Grant, Nat

DEFAULT_MAX_TIMEOUT = 300  # seconds; where a stanza sets no MAX_FW_TIMEOUT this caps only what a client asks for
TESTING = "test mode: nothing is opened or run"
ANY_SOURCE = (bytes(4), bytes(16))  # 0.0.0.0 or :: in a message: the packet's own source

# What a command message asks for: its text, the address that it names, and the one that it came from.
Command = namedtuple("Command", "text source sender")


def given(stanza, packet, datagram, forwarded, now, settings):
    """Returns the Grant or the Command that a stanza gives for a packet of the second `now`, or raises Rejected.

    `forwarded` is the packed address that a trusted proxy names as the source, or None.
    """
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
    nat = _nat(stanza, packet, settings)
    nat = None if stanza.cycle is not None else nat  # commands are told nothing of it
    source, sender = net.printed(source), net.printed(datagram.source)
    if nat is not None:
        nat = same_family(source, nat, stanza.force_nat is not None)
    if packet.message_type == spa.COMMAND and stanza.cycle is None:
        if not stanza.cmd_exec:
            raise Rejected("disabled", "command messages are not allowed")
        if settings.test:
            raise Rejected("disabled", TESTING)
        return Command(asked, source, sender)
    openings = _allowed(stanza, asked)
    if settings.test:
        raise Rejected("disabled", TESTING)
    if nat is not None or stanza.cycle is not None:
        openings = openings[:1]  # the one that is asked for first is all that fwknopd looks at
    until = now + _seconds(stanza, packet.client_timeout)
    destination = net.printed(datagram.destination)
    return Grant(None, source, openings, now, until, stanza.name, nat, destination, sender)


def _nat(stanza, packet, settings):
    """Returns the Nat of a packet (its host perhaps still a name), None for none; raises Rejected."""
    kind = packet.message_type
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


def same_family(source, nat, forced=False):
    """Returns a Nat as it can be for a source address; `forced`: the inside host is the stanza's own.

    Raises Rejected where the inside host is of the other family, or where a packet names every host.
    """
    six = ":" in source
    if not forced and net.is_address(nat.host) and net.packed(nat.host) in ANY_SOURCE:
        raise Rejected("nat", "NAT is asked for to no host")
    if nat.host != "0.0.0.0" and net.is_address(nat.host) and (":" in nat.host) != six:
        raise Rejected("nat", "an IPv%d address cannot be led to %s" % (6 if six else 4, nat.host))
    if nat.snat not in (None, "masquerade") and (":" in nat.snat) != six:
        nat = Nat(nat.local, nat.host, nat.port, "masquerade", nat.every, nat.dnat)
    return nat


def _allowed(stanza, asked):
    """Returns the openings asked for, each once, if the stanza allows every one of them."""
    openings = []
    try:
        wanted = net.openings(asked)
    except ValueError:  # a command, which nobody has parsed
        raise Rejected("openings", "not a list of openings such as tcp/22")
    for opening in wanted:
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
