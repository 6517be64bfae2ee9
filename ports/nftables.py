"""nftables: opens a port by an element of a set that a rule at the head of the owner's input chain looks into.

In nftables an accept ends one base chain only: another on the same hook may still drop the packet. A table of our own
could open nothing where the owner's drops, so our rules stand in the owner's chains, at their head:

- `chain` empty (the default): in every base chain on the input hook whose policy is drop, one rule per version of IP
  (`ip saddr . meta l4proto . th dport @tinyknop_open4 accept`); the sets are in its table, since a rule sees no other.
  Where none drops by policy, a chain of our own is made, which opens nothing that others drop; the log says so.
- A chain that drops by a rule has to be named: `chain = "inet edge input"`; several with commas between. Those of
  OpenWrt's fw4 are known, whatever their policy.
- `forward_chain`: the same on the forward hook. Only NAT grants need it; their part is set up with the first of them.
- A chain that iptables keeps (INPUT or FORWARD of `ip filter`) is refused unless it is named: iptables could no longer
  list its table. Take a port of kind iptables there.

NAT is done by maps in a table of our own (`inet tinyknop`), just before the owner's: at dstnat - 10 and srcnat - 10.
The machine has to forward (net.ipv4.ip_forward), and the owner's chains to accept what is established. Two grants that
lead one source and port to different hosts: the newest holds, after its end the other. A local NAT grant takes no SNAT.

The kernel drops an element when its time is up, so an opening ends even if we are gone. What `nft flush ruleset` or
OpenWrt's `fw4 reload` takes away is put back by the next knock, by SIGHUP and by the daemon's regular comparison. Each
grant, or burst of grants, is one transaction. NAT needs Linux 5.2 (nat chains in an inet table). Over netlink no
program is needed at all.
"""

from collections import namedtuple

from tinyknop import log, net
from tinyknop.compat import monotonic, whole
from tinyknop.errors import ConfigError, PortError

from .shared.listings import listed, refuse_foreign, rows

OPTIONS = {
    "binary": "nft",  # for carriers that run a program
    "table": "tinyknop",  # our own; its name also begins the names of our sets in the owner's tables
    "chain": "",  # yours that drops, such as "inet filter input", or several; empty: all that drop by policy
    "forward_chain": "",  # the same for NAT to inside hosts, on the forward hook
    "maxelem": "65536",  # elements in each set; used only when a set is made
}
CARRIER = "netlink"
OWN = ("table",)

HOOKS = (("input", "filter", -10), ("forward", "filter", -10), ("prerouting", "nat", -110), ("postrouting", "nat", 90))
OPENING = ("{ip} saddr . meta l4proto . th dport", "ipv{v}_addr . inet_proto . inet_service")  # in a rule, as a type
PATH = ("{ip} saddr . {ip} daddr . meta l4proto . th dport", "ipv{v}_addr . ipv{v}_addr . inet_proto . inet_service")
SOURCE = ("{ip} saddr", "ipv{v}_addr")  # all that comes from there
SETS = (  # what, hook, key, type of a map's value, rule
    ("open", "input", OPENING, "", "{key} @{set} accept"),
    ("forward", "forward", PATH, "", "{key} @{set} accept"),
    ("forward_all", "forward", SOURCE, "", "{key} @{set} accept"),
    ("dnat", "prerouting", OPENING, " : ipv{v}_addr . inet_service", "dnat {ip} to {key} map @{set}"),
    ("dnat_all", "prerouting", SOURCE, " : ipv{v}_addr", "dnat {ip} to {key} map @{set}"),
    ("snat", "postrouting", PATH, " : ipv{v}_addr", "snat {ip} to {key} map @{set}"),
    ("snat_all", "postrouting", SOURCE, " : ipv{v}_addr", "snat {ip} to {key} map @{set}"),
    ("masquerade", "postrouting", PATH, "", "{key} @{set} masquerade"),
    ("masquerade_all", "postrouting", SOURCE, "", "{key} @{set} masquerade"),
)
IP = {4: "ip", 6: "ip6"}
VERSIONS = {"inet": (4, 6), "ip": (4,), "ip6": (6,)}  # of IP, in the tables of a family
ONCE = 200  # elements per transaction, for a send buffer of 200 KB, and per message of 64 KB; 300 bytes each at most
SLACK = 2  # seconds that an element may end too early or late before it is written anew
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

DOUBT = 'no chain drops by policy: name yours, such as chain = "inet filter input", or nothing is opened'

# A base chain, the owner's or one of ours; `spot` is "inet filter input".
Chain = namedtuple("Chain", "hook spot own sets")
# A set or map that a rule of ours looks into; `v` is a version of IP, `table` "inet filter".
Set = namedtuple("Set", "what v name table kind declaration rule")
Claim = namedtuple("Claim", "grant end value")  # end: monotonic ms; value: a map's, "" in a set


class Port:
    self_timed = True
    nats = True
    batches = True  # `close` takes several grants at once

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        self.binary, self.table, self.maxelem = options["binary"], options["table"], options["maxelem"]
        self.named = {}  # hook -> chains that the owner named
        try:
            if not plain(self.table) or len(self.table) > 15:
                raise ValueError('table = "%s": a name has 1 to 15 letters, digits, "_" or "-"' % self.table)
            if not 1 <= whole(self.maxelem) < 1 << 30:
                raise ValueError("maxelem = %s: say how many elements a set may hold, as in 65536" % self.maxelem)
            for hook, option in (("input", "chain"), ("forward", "forward_chain")):
                words = [item.split() for item in options[option].split(",") if item.strip()]
                self.named[hook] = [self.owners(hook, *(three + [""] * 3)[:4]) for three in words]
                if ["inet", self.table] in [three[:2] for three in words]:
                    reason = 'table = "%s" is for our own, and %s names a chain of yours in it: name another table'
                    raise ValueError(reason % (self.table, option))
        except ValueError as error:
            raise ConfigError(options.get("where", "port." + name), "port.%s: %s" % (name, error))
        self.chains = []
        self.listing = ""  # of all chains, when we last looked for those where openings stand
        self.nat = False  # whether there was a NAT grant: the chains for it cost every connection a look-up
        self.claims = {}  # (what, version of IP, key) -> [Claim], newest last

    @property
    def outlives_us(self):
        return self.carrier.outlives_us

    @property
    def doubt(self):
        lost = [c for c in self.chains if c.own and c.hook == "input" and len(c.sets) == 2]
        return DOUBT if lost else None

    async def start(self):
        """Makes our rules anew, and what is missing of tables, chains and sets; elements stay."""
        await self.ensure(True)
        log.info("%s: openings stand in %s" % (self.describe(), ", ".join([c.spot for c in self.chains])))
        if self.doubt:
            log.warning("%s: %s" % (self.describe(), self.doubt))

    async def open(self, grant, seconds):
        """Adds the grant's elements, or renews their time, in one transaction; the newest grant's value holds."""
        elements = self.elements(grant)
        before = [(element, self.claims.get(element)) for element, _ in elements]
        try:
            await self.tell([(grant, elements, seconds)])
        except PortError:  # or a later repair would open what was refused
            for element, held in before:
                self.claims.pop(element, None)
                if held:
                    self.claims[element] = held
            raise

    async def open_all(self, pairs):
        """Opens several grants, (grant, seconds) each, in as few transactions; where one fails, `sync` mends."""
        await self.tell([(grant, self.elements(grant), seconds) for grant, seconds in pairs])

    async def close(self, *grants):
        """Deletes the grants' elements; one that another live grant holds gets that one's time and value instead."""
        changes = []
        for grant in grants:
            try:
                changes.append((grant, self.elements(grant), None))
            except PortError:  # never opened
                pass
        await self.tell(changes)

    async def sync(self, live):
        """Puts back what is missing of tables, rules and elements, and deletes elements that no live grant explains."""
        self.claims = {}
        for grant, seconds in sorted(live, key=lambda pair: (pair[0].opened, pair[0].id)):
            try:
                self.claim(grant, self.elements(grant), seconds)
            except PortError as error:  # it could not be opened here, so there is nothing to keep
                log.warning(str(error))
        await self.compare()

    async def pause(self):
        """Called between the parts of long work; the worker puts its own in this place."""

    async def stop(self, flush=False):
        """With `flush` takes away our table, and our rules and sets in the owner's; what is gone already is fine."""
        theirs = [c for c in self.chains if not c.own]
        own = len(theirs) < len(self.chains) or ["inet", self.table] in [row[:2] for row in rows(self.listing)]
        self.claims = {}
        if not flush:
            return
        # A set goes after the rules of every chain that looks into it; where another of us does, it stays.
        steps = [(c, True) for c in theirs] + [(c, False) for c in theirs] + ([(None, False)] if own else [])
        for c, hooked in steps:
            lines = ["add table inet " + self.table, "delete table inet " + self.table]
            try:
                if c is not None:  # deleting a set that is missing would be an error
                    lines = [a.declaration for a in c.sets] + ["delete set %s %s" % (a.table, a.name) for a in c.sets]
                await self.commit(await self.deletions([c]) if hooked else lines)
            except PortError as error:
                log.debug("%s: %s" % (self.describe(), error.reason))

    def describe(self):
        return "%s (nftables %s via %s)" % (self.name, self.table, self.carrier.describe())

    def elements(self, grant):
        """Returns ((what, version of IP, key), value) of each element that a grant stands for."""
        nat, hidden = grant.nat, grant.nat and grant.nat.snat == "masquerade"
        try:
            source, host, snat = [
                net.printed(net.packed(text)) if ":" in text or (nat and text) else text
                for text in (grant.source, nat and nat.host or "", nat and not hidden and nat.snat or "")
            ]
        except ValueError as error:
            raise PortError(self.describe(), str(error))
        v = 6 if ":" in source else 4
        if [text for text in (host, snat) if text and (":" in text) != (v == 6)]:
            raise PortError(self.describe(), "NAT for an IPv%d source needs IPv%d addresses" % (v, v))
        if [proto for proto, _ in grant.openings if proto not in ("tcp", "udp")]:
            raise PortError(self.describe(), "only tcp and udp can be opened")
        if not nat:
            return [(("open", v, "%s . %s . %d" % (source, proto, port)), "") for proto, port in grant.openings]
        proto, port = grant.openings[0]
        whole = "_all" if nat.every and not nat.local else ""
        path = source if whole else "%s . %s . %s . %d" % (source, host, proto, nat.port)
        made = [("forward" + whole, path, "")]
        if nat.local:
            made = [("open", "%s . %s . %d" % (source, proto, nat.port), "")]
        elif nat.snat:
            made.append((("masquerade" if hidden else "snat") + whole, path, snat))
        if nat.dnat and whole:
            made.append(("dnat_all", source, host))
        elif nat.dnat:
            made.append(("dnat", "%s . %s . %d" % (source, proto, port), "%s . %d" % (host, nat.port)))
        return [((what, v, key), value) for what, key, value in made]

    check = elements  # the worker asks this first: what can never be is no failure of the device

    def claim(self, grant, elements, seconds):
        """Enters a grant's claims, or strikes them out where `seconds` is None; those whose time is over go too."""
        now = monotonic()
        for element, value in elements:
            held = [c for c in self.claims.pop(element, ()) if c.grant != grant.id and c.end > now]
            if seconds is not None:
                held.append(Claim(grant.id, now + max(seconds, 1) * 1000, value))
            if held:
                self.claims[element] = held
        self.nat = self.nat or bool(grant.nat)

    async def tell(self, changes):
        """Changes claims, for each (grant, elements, seconds or None), and tells the kernel.

        Where others meddled with rules or sets, puts everything right.
        """
        values = {}
        for grant, elements, seconds in changes:
            for element, value in elements:
                if element not in values:  # what it is now, if it is there
                    values[element] = (self.goal(element) or (value,))[0]
            self.claim(grant, elements, seconds)
        try:
            if self.nat and "postrouting" not in [c.hook for c in self.chains]:
                await self.ensure()
            sets, used = self.sets(), []
            told = [(a, element, values[element]) for element in sorted(values) for a in sets.get(element[:2], ())]
            await self.write(told)
            for c in self.chains:
                if [a for a, _, _ in told if a in c.sets]:
                    used.append(complete(c, await self.ours(c)))
            opens = [grant for grant, _, seconds in changes if seconds is not None]
            if False not in used and not (opens and await self.moved()):
                return
        except PortError as error:
            log.debug("%s: mending: %s" % (self.describe(), error.reason))
        await self.compare()

    async def moved(self):
        """Tells whether openings have to stand in other chains now: the owner's firewall may come after us."""
        listing = await self.carrier.say(self.binary, "list", "chains")
        return listing != self.listing and self.places(listing) != self.chains

    def sets(self):
        """Returns (what, version of IP) -> the sets where such elements stand."""
        found: dict = {}
        for c in self.chains:
            for a in c.sets:
                found.setdefault((a.what, a.v), []).append(a)
        return found

    async def write(self, told):
        """Brings elements, (set, element, value that it may be there with or None), to what is claimed of them."""
        for at in range(0, len(told), ONCE):
            lines, some = [], told[at : at + ONCE]
            by_name: dict = {}
            for a, element, value in some:
                by_name.setdefault((a.table, a.name), (a, []))[1].append((element, value))
            for name in sorted(by_name):
                lines += self.written(*by_name[name])
            await self.commit(lines)

    def written(self, a, elements):
        """Returns the lines that bring a set's elements to what is claimed of them.

        First they are added for a moment: deleting what is missing is an error, adding what is there renews no time.
        """
        there = [(element[2], value and " : " + value) for element, value in elements if value is not None]
        goals = [(element[2], self.goal(element)) for element, _ in elements]
        lines = ["add %s" % ", ".join([key + " timeout 1s" + value for key, value in there])] if there else []
        lines += ["delete %s" % ", ".join([key for key, _ in there])] if there else []
        wanted = ["%s timeout %ds%s" % (key, goal[1], goal[0] and " : " + goal[0]) for key, goal in goals if goal]
        lines += ["add %s" % ", ".join(wanted)] if wanted else []
        return [
            "%s element %s %s { %s }" % (verb, a.table, a.name, rest)
            for verb, _, rest in [line.partition(" ") for line in lines]
        ]

    def goal(self, element, now=None):
        """Returns (value, seconds) that an element should have, or None."""
        held = self.claims.get(element)
        if not held:
            return None
        left = max([claim.end for claim in held if claim.value == held[-1].value]) - (now or monotonic())
        return held[-1].value, max((left + 999) // 1000, 1)

    async def compare(self):
        """Puts back what is missing of rules, sets and elements, and deletes strays; what is right stays untouched.

        It does so in parts: meanwhile grants may be opened and closed. A set is listed to its end before it is changed,
        or the kernel would leave elements out; strays that it leaves out for a knock's sake go the next time.
        """
        await self.ensure()
        for a in [a for c in self.chains for a in c.sets]:
            seen, told = set(), []
            for part in await self.listed(a):
                held, now = listed(part), monotonic()
                elements = [((a.what, a.v, key), held[key]) for key in sorted(held)]
                seen.update([element for element, _ in elements])
                told += [(a, element, there[0]) for element, there in elements if self.wrong(element, there, now)]
                await self.pause()
            missing = [one for one in self.claims if one not in seen and one[:2] == (a.what, a.v)]
            told += [(a, element, None) for element in sorted(missing)]
            for at in range(0, len(told), ONCE):
                await self.write(told[at : at + ONCE])
                await self.pause()

    async def listed(self, a):
        """Returns what `nft list set` prints of a set, in parts where the carrier has them."""
        words = (self.binary, "list", a.kind) + tuple(a.table.split()) + (a.name,)
        if hasattr(self.carrier, "parts"):
            return await self.carrier.parts(*words)
        return [await self.carrier.say(*words)]

    def wrong(self, element, there, now):
        """Tells whether an element, (value, seconds left) at `now`, is not what is claimed of it."""
        goal = self.goal(element, now)
        return not goal or goal[0] != there[0] or abs(goal[1] - there[1]) > SLACK

    async def ensure(self, anew=False):
        """Finds the chains, and makes what is missing of tables, chains, sets and rules in one transaction."""
        self.listing = await self.carrier.say(self.binary, "list", "chains")
        self.chains = self.places(self.listing)
        lines = await self.deletions(self.strays()) if anew else []
        for c in self.chains:
            found = await self.ours(c)
            if anew or not complete(c, found):
                if c.own:
                    kind, priority = [row[1:] for row in HOOKS if row[0] == c.hook][0]
                    words = (c.spot, kind, c.hook, priority)
                    lines.append("add table inet " + self.table)
                    lines.append("add chain %s { type %s hook %s priority %d ; policy accept ; }" % words)
                lines += [a.declaration for a in c.sets]
                lines += ["delete rule %s handle %s" % (c.spot, handle) for _, handle in found]
                lines += ["insert rule %s %s" % (c.spot, a.rule) for a in reversed(c.sets)]
        await self.commit(lines)

    def places(self, listing):
        """Returns the chains where openings stand: the owner's, named or found by their policy; ours where none is."""
        chains = rows(listing)
        refuse_foreign(self.describe(), self.table, [(hook, number) for hook, _, number in HOOKS], chains)
        self.nat = self.nat or ["inet", self.table, "prerouting"] in [row[:3] for row in chains]  # a process before us
        found = []
        for hook, kind, _ in HOOKS if self.nat else HOOKS[:1]:
            here = list(self.named.get(hook, []))
            for row in [row for row in chains if len(row) > 3] if not here else []:
                drops = row[-1] == "drop;" or row[:3] == ["inet", "fw4", hook]
                if row[4] == kind == "filter" and row[6] == hook and drops and row[0] in VERSIONS:
                    if row[1:3] == ["filter", hook.upper()]:
                        reason = "chain %s of table %s filter is kept by iptables: take a port of kind iptables"
                        raise PortError(self.describe(), reason % (row[2], row[0]))
                    try:
                        here.append(self.owners(hook, *row[:3]))
                    except ValueError as error:
                        raise PortError(self.describe(), str(error))
            left = [v for v in (4, 6) if not [a for c in here for a in c.sets if a.v == v]]
            found += here + ([self.chain(hook, "inet", self.table, hook, left, True)] if left else [])
        return found

    def owners(self, hook, family, table, name, more=""):
        """Returns the chain of the owner that three words name; raises ValueError."""
        names = [word.replace(".", "_").replace("/", "_") for word in (table, name)]  # which nft takes, too
        if more or family not in VERSIONS or not all([plain(word) for word in names]):
            words = " ".join((family, table, name, more)).strip()
            raise ValueError(
                '"%s": a chain is a family (inet, ip, ip6), a table and a chain: inet filter input' % words
            )
        return self.chain(hook, family, table, name, VERSIONS[family], False)

    def chain(self, hook, family, table, name, versions, own):
        made, table = [], family + " " + table
        for what, _, key, value, rule in [row for row in SETS if row[1] == hook]:
            for v in versions:
                short, kind, ip = "%s_%s%d" % (self.table, what, v), "map" if value else "set", IP[v]
                words = (kind, table, short, (key[1] + value).format(v=v), self.maxelem)
                declaration = "add %s %s %s { type %s ; flags timeout ; size %s ; }" % words
                rule_ = rule.format(key=key[0].format(ip=ip), set=short, ip=ip) + ' comment "%s"' % short
                made.append(Set(what, v, short, table, kind, declaration, rule_))
        return Chain(hook, table + " " + name, own, made)

    async def ours(self, c):
        """Returns (name of its set, handle) of each rule of ours in a chain; none where the chain is missing."""
        try:
            listing = await self.carrier.say(self.binary, "-a", "list", "chain", *c.spot.split())
        except PortError as error:
            if "No such file" not in error.reason:
                raise
            listing = ""
        found = [line.partition(' comment "')[2].partition('" # handle ') for line in listing.split("\n")]
        names = [a.name for a in c.sets]  # exactly: others may begin like ours, such as another port's or the owner's
        return [(name, handle) for name, _, handle in found if name in names]

    async def deletions(self, chains):
        """Returns the lines that take our rules out of chains."""
        found = []
        for c in chains:
            found += ["delete rule %s handle %s" % (c.spot, handle) for _, handle in await self.ours(c)]
        return found

    def strays(self):
        """Returns the chains that see our sets in the owner's tables, and where no rule of ours has to be any more."""
        found: dict = {}
        for c in [c for c in self.chains if not c.own]:
            kept = [one.spot for one in self.chains if one.hook == c.hook]
            for spot in [" ".join(row[:3]) for row in rows(self.listing) if " ".join(row[:2]) == c.sets[0].table]:
                if spot not in kept:
                    found[c.hook, spot] = Chain(c.hook, spot, False, c.sets)
        return [found[one] for one in sorted(found)]

    async def commit(self, lines):
        if lines:
            await self.carrier.say(self.binary, "-f", "-", text="\n".join(lines) + "\n")


def plain(word):
    return all(c in LETTERS for c in word) and word[:1] not in ("", "-") and not "0" <= word[0] <= "9"


def complete(c, found):
    """Tells whether rules that `ours` found are all that a chain should have, and none twice."""
    return sorted([name for name, _ in found]) == sorted([a.name for a in c.sets])
