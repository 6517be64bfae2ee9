"""ipset: opens a port by adding an entry to a set that the owner's own rule matches (`rule()` prints it).

The kernel drops an entry when its time is up, so an opening closes even if we are gone. A set is made if it is
missing, with a twin for IPv6 named like it plus "6"; neither is ever destroyed or flushed.
"""

from tinyknop import net
from tinyknop.compat import monotonic
from tinyknop.errors import ConfigError, PortError

OPTIONS = {
    "set": "tinyknop",
    "maxelem": "65536",  # entries in each of the two sets; used only when a set is made
}
CARRIER = "netlink"

LONGEST = 2147483  # seconds; the kernel counts milliseconds in 31 bits
MAXNAME = 30  # ipset takes 31 characters, the twin needs one of them
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."
PROTOCOLS = ("tcp", "udp", "sctp", "udplite")


class Port:
    self_timed = True
    longest = LONGEST  # a grant with more seconds left has to be opened again before these are over

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        where = options.get("where", "port." + name)
        self.set = options["set"]
        if not 1 <= len(self.set) <= MAXNAME or not all(c in LETTERS for c in self.set):
            reason = 'port.%s: set = "%s": a name has 1 to %d letters, digits, "_", "-" or "."'
            raise ConfigError(where, reason % (name, self.set, MAXNAME))
        self.maxelem = options["maxelem"]
        if not self.maxelem.isdigit() or len(self.maxelem) > 9 or int(self.maxelem) < 1:
            reason = "port.%s: maxelem = %s: say how many entries a set may hold, as in 65536"
            raise ConfigError(where, reason % (name, self.maxelem))
        self.claims = {}  # entry -> {grant id: monotonic time in ms at which it ends}

    @property
    def outlives_us(self):
        return self.carrier.outlives_us

    async def start(self):
        """Makes the two sets if they are missing; refuses sets of another type, or that keep entries for ever."""
        for name, family in ((self.set, "inet"), (self.set + "6", "inet6")):
            try:
                listing = await self.carrier.say("ipset", "list", name)
            except PortError:  # missing, most likely; if it is anything else, create says so
                words = ("hash:ip,port", "family", family, "timeout", "0", "maxelem", self.maxelem, "-exist")
                await self.carrier.say("ipset", "create", name, *words)
                continue
            if "Type: hash:ip,port\n" not in listing or ("family %s " % family) not in listing:
                reason = "set %s is there, but not of type hash:ip,port family %s; name another in set = "
                raise PortError(self.describe(), reason % (name, family))
            if " timeout " not in listing.partition("Members:")[0]:
                raise PortError(self.describe(), "set %s was made without a time-out; make it with timeout 0" % name)

    async def open(self, grant, seconds):
        """Adds the grant's entries, or renews their time; never takes time from another grant of the same entry."""
        entries = self.entries(grant)
        before = [(entry, dict(self.claims.get(entry, {}))) for entry in entries]
        for entry in entries:
            self.claims.setdefault(entry, {})[grant.id] = monotonic() + seconds * 1000
        try:
            await self.say_all([self.add(entry) for entry in entries])
        except PortError:
            for entry, held in before:  # or the end of another grant would renew what never was open
                self.claims[entry] = held
                if not held:
                    del self.claims[entry]
            raise

    async def close(self, grant):
        """Deletes the grant's entries; one that another live grant holds gets that one's time instead."""
        try:
            entries = self.entries(grant)
        except PortError:  # never opened
            return
        for entry in entries:
            self.forget(entry, grant)
        await self.say_all([self.add(entry) if entry in self.claims else self.delete(entry) for entry in entries])

    async def sync(self, live):
        """Deletes entries that no live grant explains and writes the others anew, which adds what is missing."""
        self.claims = {}
        for grant, seconds in live:
            try:
                entries = self.entries(grant)
            except PortError:  # it could not be opened here, so there is nothing to keep
                continue
            for entry in entries:
                self.claims.setdefault(entry, {})[grant.id] = monotonic() + seconds * 1000
        stray = []
        for name in (self.set, self.set + "6"):
            for entry in members(await self.carrier.say("ipset", "list", name)):
                if entry not in self.claims:
                    stray.append(("ipset", "del", "-exist", name, entry))
        await self.say_all(stray + [self.add(entry) for entry in sorted(self.claims)])

    async def stop(self, flush=False):
        """With `flush` deletes the entries of ours; the sets stay, with what else is in them."""
        if flush:
            entries, self.claims = sorted(self.claims), {}
            await self.say_all([self.delete(entry) for entry in entries])

    def describe(self):
        return "%s (ipset %s via %s)" % (self.name, self.set, self.carrier.describe())

    def rule(self):
        """Returns the rules that the owner's firewall needs, a line each; we only fill the sets they match."""
        text = "%s -I INPUT -m set --match-set %s src,dst -j ACCEPT"
        return text % ("iptables", self.set) + "\n" + text % ("ip6tables", self.set + "6")

    def entries(self, grant):
        """The entries that a grant stands for, as `ipset list` prints them."""
        if grant.nat:
            raise PortError(self.describe(), "a set cannot do NAT; name a port of kind iptables or nftables")
        source = net.printed(net.packed(grant.source))
        for proto, _ in grant.openings:
            if proto not in PROTOCOLS:
                raise PortError(self.describe(), "a set cannot hold the protocol %s" % proto)
        return ["%s,%s:%d" % (source, proto, port) for proto, port in grant.openings]

    def add(self, entry):
        left = max(self.claims[entry].values()) - monotonic()
        seconds = max(1, min((left + 999) // 1000, LONGEST))  # 0 would be for ever
        return ("ipset", "add", "-exist", self.set_of(entry), entry, "timeout", str(seconds))

    def delete(self, entry):
        return ("ipset", "del", "-exist", self.set_of(entry), entry)

    def set_of(self, entry):
        return self.set + "6" if ":" in entry.partition(",")[0] else self.set

    def forget(self, entry, grant):
        """Drops a grant's claim on an entry, and claims whose time is over though nobody closed them yet."""
        held = self.claims.get(entry, {})
        held.pop(grant.id, None)
        for other in list(held):
            if held[other] <= monotonic():
                held.pop(other)
        if not held:
            self.claims.pop(entry, None)

    async def say_all(self, commands):
        """Tells the carrier all commands, in one go where it can; each is tried, then the first failure is raised."""
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
    """Returns the entries that `ipset list` printed, without their times; IPv6 addresses in our own spelling."""
    found = []
    for line in listing.partition("Members:\n")[2].split("\n"):
        address, comma, rest = line.split(" ")[0].partition(",")
        if not comma:
            continue
        try:
            address = net.printed(net.packed(address))
        except ValueError:  # not an address; the carrier or ipset will say so
            pass
        found.append(address + "," + rest)
    return found
