"""iptables: opens a port by rules in chains of our own, as fwknopd 2.6.10 writes them, with their `_exp_` comment.

The chains are hooked once; the owner's policy does the rest (drop by default, keep established connections). Where the
kernel has the time match a rule ends at its second without us. Rules of others without `_exp_` are never touched.
"""

from tinyknop import log
from tinyknop.errors import ConfigError, PortError

from .shared.ledger import Rule
from .shared.rules import ROLES, chains, family_of, marked, plan
from .shared.xtables import Tables

OPTIONS = {
    "binary": "iptables",  # or iptables-nft, iptables-legacy, a path; its -restore and ip6tables twins go with it
    "chain": "ACCEPT, filter, INPUT, 1, FWKNOP_INPUT, 1",  # IPT_INPUT_ACCESS of fwknopd.conf
    "output_chain": "",  # IPT_OUTPUT_ACCESS; "": that chain is not used
    "forward_chain": "",
    "dnat_chain": "",
    "snat_chain": "",
    "masquerade_chain": "",
    "destination": "N",  # Y: rules are for the address that the packet was sent to
    "ipv6": "Y",  # N: leave ip6tables alone
    "flush_at_init": "N",
    "flush_at_exit": "Y",
    "prepend": "N",
    "comment_check": "Y",
}
CARRIER = "local"


class Port:
    self_timed = False  # the time match only comes on top: its rules stay until they are removed
    nats = True
    batches = True  # `close` takes several grants at once

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        self.options = options
        for option in ("destination", "ipv6", "flush_at_init", "flush_at_exit", "prepend", "comment_check"):
            if options[option] not in ("Y", "N"):
                where = options.get("where", "port." + name)
                raise ConfigError(where, "port.%s: %s is Y or N, not %s" % (name, option, options[option]))
        self.by_destination = options["destination"] == "Y"
        self.chains = chains(name, options)
        self.families = {}

    @property
    def outlives_us(self):
        return self.carrier.outlives_us

    async def start(self):
        """Makes and hooks the chains and tries the matches; without ip6tables or its nat table goes on, and says so."""
        hooks = [self.chains[role] for role, _ in ROLES if role in self.chains]
        binary = self.options["binary"]
        for family in (4, 6) if self.options["ipv6"] == "Y" else (4,):
            if family not in self.families:  # what is wanted and what we wrote outlive a failure of the device
                tool = binary if family == 4 else sixth(binary)
                self.families[family] = Tables(self.describe(), tool, hooks, self.options, self.carrier)
            for table, failure in await self.families[family].start():
                if family == 4:
                    raise failure
                log.warning("%s: no IPv6 openings that need table %s: %s", self.describe(), table, failure.reason)

    async def open(self, grant, seconds):
        """Adds the grant's rules and takes away those they replace, in one transaction per table."""
        tables, rules = self.rules(grant)
        new = not any([tables.ledger.holds(rule, holder) for rule, holder in rules])
        for rule, holder in rules:
            tables.ledger.want(rule, holder, grant.until)
        try:
            await tables.apply([rule for rule, _ in rules])
        except PortError:
            if new:  # half of a NAT grant must not stay
                try:
                    await self.close(grant)
                except PortError as error:
                    log.debug("%s: %s", self.describe(), error.reason)
            raise

    async def open_all(self, pairs):
        """Opens several grants, (grant, seconds) each, in one transaction per family; where it fails, `sync` mends."""
        added: dict = {}
        for grant, _ in pairs:
            tables, rules = self.rules(grant)
            for rule, holder in rules:
                tables.ledger.want(rule, holder, grant.until)
                added.setdefault(family_of(grant), []).append(rule)
        for family in sorted(added):
            await self.families[family].apply(added[family])

    async def close(self, *grants):
        """Takes the rules of grants away, but for what another opening needs; what is missing is closed.

        Several at once cost little more than one: iptables-nft reads the whole chain to take one rule out of it.
        """
        gone: dict = {}
        for grant in grants:
            try:
                tables, rules = self.rules(grant)
            except PortError:  # never opened
                continue
            for rule, holder in rules:
                tables.ledger.unwant(rule, holder, grant.until)
                gone.setdefault(family_of(grant), []).append(rule)
        for family in sorted(gone):
            await self.families[family].apply(gone[family])

    async def sync(self, live):
        """Makes the chains hold these grants; a rule that none explains goes if we wrote it or its time has passed."""
        for tables in self.families.values():
            tables.ledger.wanted = {}
        for grant, _ in live:
            try:
                tables, rules = self.rules(grant)
            except PortError as error:
                log.warning("%s", error)
                continue
            for rule, holder in rules:
                tables.ledger.want(rule, holder, grant.until)
        for family in sorted(self.families):
            await self.families[family].sync()

    async def stop(self, flush=False):
        """With `flush` unhooks and removes the chains, as fwknopd does at its end."""
        if flush and self.options["flush_at_exit"] == "Y":
            for family in sorted(self.families):
                await self.families[family].clear()

    def describe(self):
        name = self.chains["input"].name if "input" in self.chains else "without access rules"
        return "%s (iptables %s via %s)" % (self.name, name, self.carrier.describe())

    def next_expiry(self):
        """Returns the time of the earliest rule that no grant explains, which `sync` then takes away; None if none."""
        due = [e for tables in self.families.values() for e in tables.ledger.unexplained()]
        return min(due) if due else None

    def rules(self, grant):
        """Returns the tables that a grant is for and its [(rule, holder)], or raises PortError.

        A holder is what the worker tells one opening from another by: one rule may serve several (SNAT has no source).
        """
        tables = self.families.get(family_of(grant))
        if tables is None:
            raise PortError(self.describe(), "no IPv6 openings here: ip6tables is switched off")
        try:
            planned = plan(grant, self.by_destination)
        except ValueError as error:
            raise PortError(self.describe(), str(error))
        made = []
        for role, opening, match, more in planned:
            hook = self.chains.get(role)
            if hook is None and role == "output":
                continue
            if hook is None or hook.table not in tables.usable:
                reason = "%s has no table for the %s rule here, or it has no chain" % (tables.tool, role)
                raise PortError(self.describe(), reason)
            holder = (grant.source, opening, grant.nat, grant.destination if self.by_destination else None)
            made.append((Rule(hook.table, hook.name, marked(match, hook.target, more)), holder))
        return tables, made

    check = rules  # the worker asks this first: what can never be is no failure of the device


def sixth(binary):
    """The IPv6 twin of a binary: /sbin/iptables-nft -> /sbin/ip6tables-nft."""
    at = binary.rfind("iptables")
    return "ip6tables" if at < 0 else binary[:at] + "ip6tables" + binary[at + 8 :]
