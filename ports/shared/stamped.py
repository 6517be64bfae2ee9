"""What pf and ipfw have in common: rules that say their end as `_exp_`, and are known again by it and their source.

The rest of a rule those tools print in words of their own (`port = ssh`, `:default`). This is no kind of port: the
kinds are files beside it, each with a subclass of Port that says how the device comes to hold what the ledger wants.
"""

from tinyknop import log, net
from tinyknop.compat import whole
from tinyknop.errors import ConfigError, PortError


class Ledger:
    """The rules a port wants, each (source, protocol, where to, port), and those it may have written."""

    def __init__(self, by_destination, anywhere):
        self.by_destination = by_destination
        self.anywhere = anywhere  # the tool's words for every address of ours: of IPv4, of IPv6
        self.wanted = {}  # rule -> wall-clock second of its end
        self.ours = set()  # (rule, end): all that is wanted, and what was and is not yet seen gone

    def rules(self, grant):
        """Returns the rules that a grant stands for; ValueError says why there can be none."""
        if grant.nat:
            raise ValueError("no NAT openings here; name a port of kind iptables, nftables or firewalld")
        six = ":" in grant.source
        to = self.anywhere[six]
        if self.by_destination:  # one that nobody knows, or of another family, matches nothing
            nowhere = "::" if six else "0.0.0.0"
            to = net.printed(net.packed(grant.destination if six == (":" in grant.destination) else nowhere))
        source = net.printed(net.packed(grant.source))
        return [(source, proto, to, port) for proto, port in grant.openings]

    def enter(self, grant):
        """Wants a grant; ValueError says why it cannot be."""
        for rule in self.rules(grant):
            self.wanted[rule] = grant.until
            self.ours.add((rule, grant.until))

    def strike(self, grant):
        """Wants a grant no more; one that cannot be was never there."""
        try:
            for rule in self.rules(grant):
                self.ours.add((rule, self.wanted.pop(rule, grant.until)))
        except ValueError as error:
            log.debug("not here: %s", error)

    def renew(self, live):
        """Wants exactly these grants, (grant, seconds left) each; says which of them cannot be."""
        self.wanted = {}
        for grant, _ in live:
            try:
                self.enter(grant)
            except ValueError as error:
                log.warning("grant %s: %s", grant.id, error)

    def goal(self):
        """Returns the wanted rules by (source, end), and the (source, end) of those that must go."""
        wanted: dict = {}
        gone = set()
        for rule, until in sorted(self.ours):
            if self.wanted.get(rule) == until:
                wanted.setdefault((rule[0], until), []).append(rule)
            else:
                gone.add((rule[0], until))
        return wanted, gone

    def settled(self):
        """Takes note that the device holds what is wanted, and nothing else of ours."""
        self.ours = set(self.wanted.items())


class Port:
    """Keeps the ledger; a subclass says how the device comes to hold what is wanted."""

    self_timed = False
    nats = False

    def __init__(self, name, options, carrier, anywhere):
        self.name = name
        self.carrier = carrier
        self.options = options
        self.by_destination = options["destination"] == "Y"
        self.ledger = Ledger(self.by_destination, anywhere)
        self.fresh = True  # the device may hold what a process before us left
        self.foreign = None  # the earliest second at which a rule of somebody else is due

    @property
    def outlives_us(self):
        return self.carrier.outlives_us

    def describe(self):
        raise NotImplementedError

    async def settle(self):
        """Makes the device hold what is wanted, and nothing else of ours; raises PortError."""
        raise NotImplementedError

    def check(self, grant):
        """Raises PortError for a grant that can never be opened here; the worker asks this first."""
        try:
            self.ledger.rules(grant)
        except ValueError as error:
            raise PortError(self.describe(), str(error))

    async def open(self, grant, seconds):
        """Has the grant's rules added, or written anew with a later end."""
        self.check(grant)
        self.ledger.enter(grant)
        await self.settle()

    async def close(self, grant):
        """Has the grant's rules taken out of force; what is missing is closed."""
        self.ledger.strike(grant)
        await self.settle()

    async def sync(self, live):
        """Has the device hold these grants; a rule of ours that none explains goes, one of others at its time."""
        self.ledger.renew(live)
        await self.settle()


def key(line):
    """Reads (source, end) of a printed rule, or None where it has no `_exp_` with a time."""
    said = line.replace('"', "").split()
    stamps = [whole(word[5:]) for word in said if word.startswith("_exp_") and whole(word[5:]) >= 0]
    if not stamps or "from" not in said[:-1]:
        return None
    return said[said.index("from") + 1], stamps[0]


def check(name, options, flags, tops=()):
    """Returns options as numbers, from 1 to their top; ConfigError for others, and for flags that are not Y or N."""
    where, numbers = options.get("where", "port." + name), {}
    for option in flags:
        if options[option] not in ("Y", "N"):
            raise ConfigError(where, "port.%s: %s is Y or N, not %s" % (name, option, options[option]))
    for option in sorted(tops):
        said = options[option]
        if not 1 <= whole(said) <= tops[option]:
            reason = "port.%s: %s is a number from 1 to %d, not %s"
            raise ConfigError(where, reason % (name, option, tops[option], said))
        numbers[option] = int(said)
    return numbers
