"""The words of firewall rules as fwknopd 2.6.10 writes them, and its grammar of chains, for the ports that speak them.

Rules are in iptables-save's spelling, so what is read back is what was written. This is no kind of port: no I/O here.
"""

from collections import namedtuple
from time import gmtime

from tinyknop import net
from tinyknop.compat import whole
from tinyknop.errors import ConfigError

ROLES = (  # a chain's role, the option that names it; in fwknopd's order of creation
    ("input", "chain"),
    ("output", "output_chain"),
    ("forward", "forward_chain"),
    ("dnat", "dnat_chain"),
    ("snat", "snat_chain"),
    ("masquerade", "masquerade_chain"),
)
MARK = "-m comment --comment _exp_"
UNTIL = "-m time --datestop "
LAST_DATE = 0x7FFFFFFF  # to the kernel's time match this second means that there is no end
EPOCH = 946684800 if gmtime(0)[0] == 2000 else 0  # some boards count from 2000

Chain = namedtuple("Chain", "target table parent position name")


def chains(name, options):
    """Returns {role: Chain} of a port's options, without the chains that are not used; raises ConfigError."""
    made = {}
    for role, option in ROLES:
        if options[option]:
            try:
                made[role] = chain(options[option])
            except ValueError as error:
                where = options.get("where", "port." + name)
                raise ConfigError(where, "port.%s: %s: %s" % (name, option, error))
    return made


def chain(spec):
    """Reads fwknopd's `TARGET, TABLE, FROM_CHAIN, JUMP_POS, TO_CHAIN, RULE_POS`, the last of which does nothing."""
    fields = [field.replace(" ", "") for field in spec.split(",")]
    plain = all("a" <= c.lower() <= "z" or "0" <= c <= "9" or c == "_" for field in fields for c in field)
    if len(fields) != 6 or not plain or not all(fields):
        raise ValueError("six fields of letters, digits and _, as in ACCEPT, filter, INPUT, 1, FWKNOP_INPUT, 1")
    for position in (fields[3], fields[5]):
        if not 0 <= whole(position) <= 65536:
            raise ValueError("a position is a number up to 65536")
    if len(fields[4]) > 28:
        raise ValueError("a chain's name has at most 28 characters")
    return Chain(fields[0], fields[1], fields[2], max(int(fields[3]), 1), fields[4])


def family_of(grant):
    """Returns 4 or 6: whose firewall a grant is for."""
    return 6 if ":" in grant.source else 4


def plan(grant, by_destination):
    """Returns [(role, opening, match, words after the target)] of a grant, by role; ValueError says what cannot be.

    With `by_destination` rules hold the packet's own destination; one that nobody knows (0.0.0.0) matches nothing.
    """
    source, here = _host(grant.source), None
    if by_destination:
        same = (":" in grant.destination) == (":" in grant.source)
        here = _host(grant.destination if same else "::" if ":" in grant.source else "0.0.0.0")
    if grant.nat:
        made = []
        for opening in grant.openings:
            made += [(role, opening, match, more) for role, match, more in _nat(grant, opening, source, here)]
        return made
    made = [("input", (proto, port), _match(source, here, proto, port), "") for proto, port in grant.openings]
    for proto, port in grant.openings:
        made.append(("output", (proto, port), _match(here, source, proto, port, "--sport"), ""))
    return made


def _nat(grant, opening, source, here):
    nat, (proto, port) = grant.nat, opening
    inside = None if nat.host in ("0.0.0.0", "::") else _host(nat.host)
    for address in (nat.host, nat.snat):
        if address not in (None, "masquerade", "0.0.0.0") and (":" in address) != (":" in grant.source):
            raise ValueError("%s and %s are not of one family: no NAT between them" % (grant.source, address))
    if (nat.local or not nat.every) and not (inside and 1 <= nat.port <= 65535):
        raise ValueError("NAT to %s port %d: there is no such service" % (nat.host, nat.port))
    if nat.local:
        yield "input", _match(source, here, proto, nat.port), ""
    else:  # fwknopd leaves the inside host out, which opens the port to all of them; FORWARD_ALL means just that
        yield "forward", _match(source) if nat.every else _match(source, inside, proto, nat.port), ""
    if nat.dnat and inside:
        to = inside.split("/")[0]
        if not nat.every:
            to = ("[%s]:%d" if ":" in to else "%s:%d") % (to, nat.port)
        match = _match(source, here) if nat.every else _match(source, here, proto, port)
        yield "dnat", match, " --to-destination " + to
    if nat.snat:
        match = _match(source) if nat.every else _match(None, inside, proto, nat.port)
        if nat.snat == "masquerade":
            yield "masquerade", match, "" if nat.every else " --to-ports %d" % port
        else:
            yield "snat", match, " --to-source " + _host(nat.snat).split("/")[0]


def _host(address):
    address = net.packed(address)
    return "%s/%d" % (net.printed(address), 8 * len(address))


def _match(source, destination=None, proto=None, port=None, side="--dport"):
    words = []
    if source:
        words.append("-s " + source)
    if destination:
        words.append("-d " + destination)
    if proto:
        words.append("-p %s -m %s %s %d" % (proto, proto, side, port))
    return " ".join(words)


def marked(match, target, more):
    """Returns a rule's words, `*` where its time goes."""
    return "%s %s* -j %s%s" % (match, MARK, target, more)


def timed(words, until, dated):
    """Returns words with their time, a wall-clock second; if `dated` the kernel stops matching after that second."""
    mark = MARK + str(until)
    if dated and until < LAST_DATE:
        mark = UNTIL + "%04d-%02d-%02dT%02d:%02d:%02d " % tuple(gmtime(until - EPOCH)[:6]) + mark
    return words.replace(MARK + "*", mark)


def recognised(text):
    """Returns (words, time) of a listed rule with an `_exp_` comment, the end that we add taken out; else None."""
    head, mark, tail = text.partition(MARK)
    stamp = tail.split(" ")[0]
    if not mark or whole(stamp) < 0:
        return None
    before, end, after = head.partition(UNTIL)
    if end:
        head = before + after.partition(" ")[2]
    return head + MARK + "*" + tail[len(stamp) :], int(stamp)
