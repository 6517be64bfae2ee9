"""iptables: opens a port by a rule in a chain of our own, as fwknopd 2.6.10 writes it, with its `_exp_` comment.

The chain is hooked once; the owner's policy does the rest (drop by default, keep established connections). A rule is
written in iptables-save's words, so what is read back is what was written. Rules of others without `_exp_` stay.
"""

from collections import namedtuple

from tinyknop import log, net
from tinyknop.compat import wall
from tinyknop.errors import ConfigError, PortError

OPTIONS = {
    "binary": "iptables",  # or iptables-nft, iptables-legacy, a path; its -restore and ip6tables twins go with it
    "chain": "ACCEPT, filter, INPUT, 1, FWKNOP_INPUT, 1",  # IPT_INPUT_ACCESS of fwknopd.conf
    "ipv6": "Y",  # N: leave ip6tables alone
    "flush_at_init": "N",
    "flush_at_exit": "Y",
    "prepend": "N",
}
CARRIER = "local"
RULES = (  # role of a chain, what a grant puts there
    ("input", "-s {source} -p {proto} -m {proto} --dport {port} -m comment --comment _exp_* -j {target}"),
)
MARK = "--comment _exp_"
PROBE = "-m comment --comment __TMPCOMMENT__"
JUMPS = 10  # fwknopd removes at most that many jumps to a chain

Chain = namedtuple("Chain", "target table parent position name")
Rule = namedtuple("Rule", "family role words")  # words hold `_exp_*` where a rule has its time


class Port:
    self_timed = False

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        self.options = options
        where = options.get("where", "port." + name)
        for option in ("ipv6", "flush_at_init", "flush_at_exit", "prepend"):
            if options[option] not in ("Y", "N"):
                raise ConfigError(where, "port.%s: %s is Y or N, not %s" % (name, option, options[option]))
        try:
            self.chains = {"input": chain(options["chain"])}
        except ValueError as error:
            raise ConfigError(where, "port.%s: chain: %s" % (name, error))
        self.tools = {4: options["binary"]}
        self.wanted = {}  # rule -> {grant id: until}
        self.present = {}  # rule -> times it is in the chain with
        self.ours = set()  # (rule, time) that this process wrote

    @property
    def outlives_us(self):
        return self.carrier.outlives_us

    async def start(self):
        """Makes and hooks the chain, and tries the comment match; without ip6tables goes on, and says so."""
        await self.prepare(4)
        if self.options["ipv6"] == "Y":
            self.tools[6] = sixth(self.tools[4])
            try:
                await self.prepare(6)
            except PortError as error:
                del self.tools[6]
                log.warning("%s: no IPv6 openings: %s" % (self.describe(), error.reason))

    async def open(self, grant, seconds):
        """Adds the grant's rules and takes away those they replace, in one transaction."""
        rules = self.rules(grant)
        before = [self.wanted.get(rule, {}).get(grant.id) for rule in rules]
        self.want(grant, rules)
        try:
            await self.apply(rules)
        except PortError:  # or a later repair would open what was refused
            for rule, until in zip(rules, before):
                self.unwant(rule, grant.id)
                if until is not None:
                    self.wanted.setdefault(rule, {})[grant.id] = until
            raise

    async def close(self, grant):
        """Takes the grant's rules away, unless another grant needs them; what is missing is closed."""
        if grant.nat or family_of(grant) not in self.tools:  # never opened
            return
        rules = self.rules(grant)
        for rule in rules:
            self.unwant(rule, grant.id)
            self.ours.add((rule, grant.until))  # written by the process before us, perhaps
        await self.apply(rules)
        self.ours.difference_update([(rule, grant.until) for rule in rules if rule not in self.wanted])

    async def sync(self, live):
        """Makes the chain hold these grants; a rule that none explains goes if we wrote it or its time has passed."""
        self.wanted = {}
        for grant, _ in live:
            try:
                self.want(grant, self.rules(grant))
            except PortError as error:
                log.warning(str(error))
        for family in sorted(self.tools):
            await self.ensure(family)
            await self.apply(self.all(family))

    async def stop(self, flush=False):
        """With `flush` unhooks and removes the chain, as fwknopd does at its end."""
        if flush and self.options["flush_at_exit"] == "Y":
            for family in sorted(self.tools):
                await self.flush(family)

    def describe(self):
        return "%s (iptables %s via %s)" % (self.name, self.chains["input"].name, self.carrier.describe())

    def rules(self, grant):
        """The rules that a grant stands for."""
        if grant.nat:
            raise PortError(self.describe(), "NAT openings are not made by this port")
        family = family_of(grant)
        if family not in self.tools:
            raise PortError(self.describe(), "no IPv6 openings here: ip6tables is missing or switched off")
        source = net.printed(net.packed(grant.source)) + ("/32" if family == 4 else "/128")
        made = []
        for role, words in RULES:
            for proto, port in grant.openings:
                said = words.format(source=source, proto=proto, port=port, target=self.chains[role].target)
                made.append(Rule(family, role, said))
        return made

    def want(self, grant, rules):
        for rule in rules:
            self.wanted.setdefault(rule, {})[grant.id] = grant.until

    def unwant(self, rule, grant_id):
        times = self.wanted.get(rule, {})
        times.pop(grant_id, None)
        if not times:
            self.wanted.pop(rule, None)

    def all(self, family):
        """Every rule of a family that we want or see."""
        return sorted(rule for rule in set(self.wanted) | set(self.present) if rule.family == family)

    def changes(self, rule, now):
        """Returns the times to add and to take away; a rule that no grant explains and we didn't write has its time."""
        times = self.wanted.get(rule)
        goal = max(times.values()) if times else None
        present = self.present.get(rule, [])
        drop = [e for e in present if e != goal and (goal or e <= now or (rule, e) in self.ours)]
        return ([] if goal is None or goal in present else [goal]), drop

    async def apply(self, rules):
        """Brings rules of one family to what is wanted; where others meddled, puts everything right and tries again."""
        try:
            await self.settle(rules)
        except PortError as error:
            family = rules[0].family  # all are of one
            log.debug("%s: mending: %s" % (self.describe(), error.reason))
            await self.ensure(family)
            await self.settle(sorted(set(self.all(family) + rules)))

    async def settle(self, rules):
        """Adds and takes away in one transaction per table: wholly, or not at all."""
        put = "-I" if self.options["prepend"] == "Y" else "-A"
        changed, sections, now = [], {}, wall()
        for rule in rules:
            add, drop = self.changes(rule, now)
            if add or drop:
                changed.append((rule, add, drop))
                where = self.chains[rule.role]
                lines = sections.setdefault(where.table, [])
                hook = "-C %s -j %s" % (where.parent, where.name)
                if add and hook not in lines:  # a rule in a chain that nothing leads to would open nothing
                    lines.append(hook)
                lines.extend("%s %s %s" % (put, where.name, timed(rule.words, e)) for e in add)
                lines.extend("-D %s %s" % (where.name, timed(rule.words, e)) for e in drop)
                self.ours.update([(rule, e) for e in add])  # even if the answer gets lost
        if changed:
            await self.restore(rules[0].family, sections)
        for rule, add, drop in changed:
            left = [e for e in self.present.get(rule, []) if e not in drop] + add
            self.present[rule] = left
            self.ours.difference_update([(rule, e) for e in drop])
            if not left:
                del self.present[rule]

    async def restore(self, family, sections):
        text = "".join("*%s\n%s\nCOMMIT\n" % (table, "\n".join(sections[table])) for table in sorted(sections))
        await self.carrier.say(self.tools[family] + "-restore", "--noflush", "-w", text=text)

    async def say(self, family, where, *words):
        return await self.carrier.say(self.tools[family], "-w", "-t", where.table, *words)

    async def prepare(self, family):
        if self.options["flush_at_init"] == "Y":
            await self.flush(family)
        await self.ensure(family)
        where = self.chains["input"]
        probe = ["%s %s %s" % (verb, where.name, PROBE) for verb in ("-A", "-D")]
        try:
            await self.restore(family, {where.table: probe})
        except PortError as error:
            raise PortError(self.describe(), "no comment match (kernel module xt_comment)? " + error.reason)

    async def ensure(self, family):
        """Makes and hooks what is missing of our chains, and reads what is in them."""
        for rule in self.all(family):
            self.present.pop(rule, None)
        for role, _ in RULES:
            where = self.chains[role]
            try:
                listing = await self.say(family, where, "-S", where.name)
            except PortError:
                listing = ""
                await self.say(family, where, "-N", where.name)
            try:
                await self.say(family, where, "-C", where.parent, "-j", where.name)
            except PortError:
                await self.say(family, where, "-I", where.parent, str(where.position), "-j", where.name)
            for words, e in parsed(listing, where.name):
                self.present.setdefault(Rule(family, role, words), []).append(e)
        self.ours = set(
            [(rule, e) for rule, e in self.ours if e in self.present.get(rule, ()) or rule.family != family]
        )

    async def flush(self, family):
        """Unhooks and removes our chains; what isn't there is fine."""
        for role, _ in RULES:
            where = self.chains[role]
            steps = [("-D", where.parent, "-j", where.name)] * JUMPS + [("-F", where.name), ("-X", where.name)]
            gone = False
            for step in steps:
                try:
                    if not (gone and step[0] == "-D"):
                        await self.say(family, where, *step)
                except PortError:
                    gone = True


def chain(spec):
    """Reads fwknopd's `TARGET, TABLE, FROM_CHAIN, JUMP_POS, TO_CHAIN, RULE_POS`, the last of which does nothing."""
    fields = [field.replace(" ", "") for field in spec.split(",")]
    plain = all("a" <= c.lower() <= "z" or "0" <= c <= "9" or c == "_" for field in fields for c in field)
    if len(fields) != 6 or not plain or not all(fields):
        raise ValueError("six fields of letters, digits and _, as in ACCEPT, filter, INPUT, 1, FWKNOP_INPUT, 1")
    for position in (fields[3], fields[5]):
        if not position.isdigit() or len(position) > 5 or int(position) > 65536:
            raise ValueError("a position is a number up to 65536")
    if len(fields[4]) > 28:
        raise ValueError("a chain's name has at most 28 characters")
    return Chain(fields[0], fields[1], fields[2], max(int(fields[3]), 1), fields[4])


def sixth(binary):
    """The IPv6 twin of a binary: /sbin/iptables-nft -> /sbin/ip6tables-nft."""
    at = binary.rfind("iptables")
    return "ip6tables" if at < 0 else binary[:at] + "ip6tables" + binary[at + 8 :]


def family_of(grant):
    return 6 if ":" in grant.source else 4


def timed(words, e):
    return words.replace("_exp_*", "_exp_%d" % e)


def parsed(listing, name):
    """Reads the rules with an `_exp_` comment from `iptables -S`: (words, time) of each; others are not looked at."""
    found = []
    start = "-A %s " % name
    for line in listing.split("\n"):
        head, mark, tail = line.partition(MARK)
        stamp = tail.split(" ")[0]
        if line.startswith(start) and mark and stamp.isdigit():
            found.append((head[len(start) :] + MARK + "*" + tail[len(stamp) :], int(stamp)))
    return found
