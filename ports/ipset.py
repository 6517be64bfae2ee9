"""ipset: opens a port by adding an entry to a set that the owner's own rule matches (`rule()` prints it).

The kernel drops an entry when its time is up, so an opening closes even if we are gone. A set is made if it is
missing, with a twin for IPv6 named like it plus "6"; neither is ever destroyed or flushed.

A set that the owner made is used as it is: of type hash:ip,port, hash:net,port, or hash:ip (one entry per source, there
while any of its openings is), with time-outs or without. Where it has none, entries end only while we run, and what is
not ours is left alone; where it has them, only entries without an end are the owner's. What the owner adds counts as
theirs once we have looked: at the start, by SIGHUP, and at the daemon's regular comparison.
"""

from tinyknop import log, net
from tinyknop.compat import monotonic, whole
from tinyknop.errors import ConfigError, PortError

OPTIONS = {
    "set": "tinyknop",
    "set6": "",  # the set for IPv6, where the owner's is not named like the other plus "6"
    "maxelem": "65536",  # entries in each of the two sets; used only when a set is made
}
CARRIER = "netlink"
OWN = ("set", "set6")

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
PROTOCOLS = ("tcp", "udp", "sctp", "udplite")
TYPES = ("hash:ip,port", "hash:net,port", "hash:ip")
MADE = (TYPES[0], True)  # a set of ours: its type, and that entries have an end
NAMES = 'port.%s: set "%s": a name has 1 to 31 letters, digits, "_", "-" or "."'
SIZES = "port.%s: maxelem = %s: say how many entries a set may hold, as in 65536"
OTHER = "set %s is there, but not of type hash:ip,port, hash:net,port or hash:ip, family %s, without a mask; "
OTHER += "name another in %s = , or none that is there: it will be made"
ONCE = 1000  # entries that are written or looked at between two pauses
SLACK = 2  # seconds that an entry may end too early or late before it is written anew
ENDLESS = "%s: set %s has no time-outs: openings end only while we run"
WIDE = "%s: set %s is of type hash:ip: a source gets all that its rule accepts, not one port"


class Port:
    self_timed = True
    shared = False  # True: our entries and the owner's look alike, so what is owed from before us is closed by name
    batches = True  # `close` takes several grants at once
    longest = 2147483  # seconds: the kernel counts milliseconds in 31 bits; the worker opens again what lasts longer

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        self.outlives_us = carrier.outlives_us
        self.set, self.maxelem = options["set"], options["maxelem"]
        self.six = options.get("set6") or self.set + "6"
        where = options.get("where", "port." + name)
        for one in (self.set, self.six):
            if not 1 <= len(one) <= 31 or not all(c in LETTERS for c in one):
                raise ConfigError(where, NAMES % (name, one))
        if not 1 <= whole(self.maxelem) < 1 << 30:
            raise ConfigError(where, SIZES % (name, self.maxelem))
        self.kinds = {self.set: MADE, self.six: MADE}  # name -> (type, whether entries have an end)
        self.claims = {}  # entry -> {opening: monotonic time in ms at which it ends}
        # Entries that we may have written, and those that were there without us: never changed.
        self.ours, self.owners = set(), set()

    async def start(self):
        """Makes the two sets if they are missing; looks at what the owner made, and refuses what cannot serve."""
        for name, family in ((self.set, "inet"), (self.six, "inet6")):
            try:
                listing = await self.carrier.say("ipset", "list", name, "-terse")
            except PortError:  # missing, most likely; if it is anything else, create says so
                words = (MADE[0], "family", family, "timeout", "0", "maxelem", self.maxelem, "-exist")
                await self.carrier.say("ipset", "create", name, *words)
                self.kinds[name] = MADE
                continue
            found = self.judged(name, family, listing.partition("Members:")[0])
            if found != self.kinds[name]:  # at the first look, or somebody changed it for another
                self.kinds[name] = found
                self.ours = set([entry for entry in self.ours if self.set_of(entry) != name])
                for text, holds in ((ENDLESS, not found[1]), (WIDE, found[0] == "hash:ip")):
                    if holds:
                        log.warning(text, self.describe(), name)
        self.self_timed = all([timed for _, timed in self.kinds.values()])
        self.shared = not self.self_timed

    def judged(self, name, family, head):
        """Returns (type, whether entries have an end) of a set of the owner's; raises PortError."""
        kind = head.partition("Type: ")[2].partition("\n")[0]
        if kind not in TYPES or "family %s " % family not in head or " netmask " in head or " bitmask " in head:
            raise PortError(self.describe(), OTHER % (name, family, "set" if name == self.set else "set6"))
        return kind, " timeout " in head

    async def open(self, grant, seconds):
        """Adds the grant's entries, or renews their time; never takes time from another opening of the same entry."""
        await self.open_all([(grant, seconds)])

    async def open_all(self, pairs):
        """Opens several grants, (grant, seconds) each."""
        claimed = [
            self.claim(entry, opening, seconds) for grant, seconds in pairs for entry, opening in self.entries(grant)
        ]
        await self.write(claimed if len(claimed) == 1 else sorted(set(claimed)))

    async def close(self, *grants):
        """Deletes entries of grants; one that another opening holds gets the time of that instead."""
        pairs = self.all_entries(grants)
        for entry, opening in pairs:
            self.claims.get(entry, {}).pop(opening, None)
            if not self.claims.get(entry):
                self.claims.pop(entry, None)
        await self.write(sorted(set([entry for entry, _ in pairs])))

    async def sync(self, live):
        """Deletes entries that are ours and that no live grant explains; adds those that are missing."""
        self.claims = {}
        for grant, seconds in live:
            for entry, opening in self.all_entries([grant]):
                self.claim(entry, opening, seconds)
        self.ours.update(self.claims)
        await self.compare()

    async def compare(self):
        """Does the same for what is claimed already, in parts: meanwhile grants may be opened and closed."""
        seen, owners = set(), set()
        for name in (self.set, self.six):
            now, parts = monotonic(), await self.listed(name)
            for part in parts:
                found = members(part)
                theirs = [entry for entry, left in found if self.owned(entry, left)]
                owners.update(theirs)
                self.owners.update(theirs)
                self.owners.difference_update([entry for entry, _ in found if entry not in owners])
                seen.update([entry for entry, _ in found])
                await self.write([entry for entry, left in found if self.wrong(entry, left, now)])
                await self.pause()
        self.owners = owners
        await self.write(sorted([entry for entry in self.claims if entry not in seen]))

    async def pause(self):
        """Called between the parts of long work; the worker puts its own in this place."""

    async def listed(self, name):
        """Returns what `ipset list` prints, in parts where the carrier has them."""
        if hasattr(self.carrier, "parts"):
            return await self.carrier.parts("ipset", "list", name)
        return [await self.carrier.say("ipset", "list", name)]

    def owned(self, entry, left):
        """Tells whether a listed entry is the owner's."""
        return left == 0 if left is not None else entry not in self.ours and entry not in self.claims

    def wrong(self, entry, left, now):
        """Tells whether a listed entry, with so many seconds left at `now`, is not what is claimed of it."""
        claimed = self.claims.get(entry)
        return not claimed or (left is not None and abs(self.seconds(claimed, now) - left) > SLACK)

    async def stop(self, flush=False):
        """With `flush` deletes the entries of ours; the sets stay, with what else is in them."""
        if flush:
            self.claims = {}
            await self.write(sorted(self.ours))

    def describe(self):
        return "%s (ipset %s via %s)" % (self.name, self.set, self.carrier.describe())

    def rule(self):
        """Returns the rules that the owner's firewall needs, a line each; we only fill the sets they match."""
        text = "%s -I INPUT -m set --match-set %s src,dst -j ACCEPT"
        return text % ("iptables", self.set) + "\n" + text % ("ip6tables", self.six)

    def entries(self, grant):
        """Returns (entry, opening) for each opening of a grant; entries are as `ipset list` prints them."""
        if grant.nat:
            raise PortError(self.describe(), "a set cannot do NAT; name a port of kind iptables or nftables")
        source = net.printed(net.packed(grant.source)) if ":" in grant.source else grant.source
        if self.kinds[self.set_of(source)][0] == "hash:ip":
            return [(source, opening) for opening in grant.openings]
        for proto, _ in grant.openings:
            if proto not in PROTOCOLS:
                raise PortError(self.describe(), "a set cannot hold the protocol %s" % proto)
        return [("%s,%s:%d" % ((source,) + opening), opening) for opening in grant.openings]

    check = entries  # the worker asks this first: what can never be is no failure of the device

    def all_entries(self, grants):
        """Returns the same of several grants, without those that could not be opened here."""
        found = []
        for grant in grants:
            try:
                found += self.entries(grant)
            except PortError as error:
                log.debug("%s", error)
        return found

    def claim(self, entry, opening, seconds):
        self.claims.setdefault(entry, {})[opening] = monotonic() + seconds * 1000
        return entry

    def set_of(self, entry):
        return self.six if ":" in entry.partition(",")[0] else self.set

    def command(self, entry):
        """Returns the words that bring an entry to what is claimed of it."""
        name = self.set_of(entry)
        if entry not in self.claims:
            return ("ipset", "del", "-exist", name, entry)
        seconds = str(self.seconds(self.claims[entry], monotonic()))
        return ("ipset", "add", "-exist", name, entry) + (("timeout", seconds) if self.kinds[name][1] else ())

    def seconds(self, claimed, now):
        left = max(claimed.values()) - now
        return max(1, min((left + 999) // 1000, self.longest))  # 0 would be for ever

    async def write(self, entries):
        """Brings entries to what is claimed of them, in one go where the carrier can; each is tried, then it fails.

        After a failure the worker calls `sync`, which takes the claims as they then are.
        """
        entries, failure = [entry for entry in entries if entry not in self.owners], None
        self.ours.update(entries)
        for at in range(0, len(entries), ONCE):
            try:
                await self.told([self.command(entry) for entry in entries[at : at + ONCE]])
            except PortError as error:
                failure = failure or error
        if failure:
            raise failure
        self.ours.difference_update([entry for entry in entries if entry not in self.claims])

    async def told(self, commands):
        if hasattr(self.carrier, "say_all"):
            return await self.carrier.say_all(commands)
        failure = None
        for words in commands:
            try:
                await self.carrier.say(*words)
            except PortError as error:
                failure = failure or error
        if failure:
            raise failure


def members(listing):
    """Returns (entry, seconds left) of what `ipset list` printed, IPv6 addresses in our own spelling.

    0 seconds: it has no end; None: nothing in this set has one.
    """
    found = []
    before, head, lines = listing.partition("Members:\n")
    for words in [line.split(" ") for line in (lines if head else before).split("\n") if line]:
        entry = words[0]
        if ":" in entry.partition(",")[0]:
            address, comma, rest = entry.partition(",")
            try:
                entry = net.printed(net.packed(address)) + comma + rest
            except ValueError:  # a network; what we write never is one
                pass
        found.append((entry, int(words[2]) if words[1:2] == ["timeout"] else None))
    return found
