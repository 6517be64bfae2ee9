"""block: drops all that comes from a source, whatever the owner's firewall says. For [watch], not for a stanza.

A drop in any base chain is final, unlike an accept, so a table of our own is enough: `inet tinyknop_block`, whose one
chain stands before everything, connection tracking too. The kernel ends each element when its time is up. The table is
made anew at each comparison, in one transaction with its elements. Needs nf_tables; iptables may stand beside it.
"""

from tinyknop import net
from tinyknop.compat import whole
from tinyknop.errors import ConfigError, PortError

from .shared.listings import refuse_foreign, rows

OPTIONS = {
    "binary": "nft",  # for carriers that run a program
    "table": "tinyknop_block",
    "maxelem": "65536",  # elements in each of the two sets
}
CARRIER = "netlink"
OWN = ("table",)

ONCE = 100  # elements in a transaction: three messages of 150 bytes each, for a send buffer of 200 KB
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
TABLE = """add table inet {t}
delete table inet {t}
add table inet {t}
add chain inet {t} blocked {{ type filter hook prerouting priority -310 ; policy accept ; }}
add set inet {t} blocked4 {{ type ipv4_addr ; flags timeout ; size {n} ; }}
add set inet {t} blocked6 {{ type ipv6_addr ; flags timeout ; size {n} ; }}
insert rule inet {t} blocked ip saddr @blocked4 drop comment "blocked4"
insert rule inet {t} blocked ip6 saddr @blocked6 drop comment "blocked6"
"""


class Port:
    self_timed = True
    batches = True  # `close` takes several grants at once

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        self.outlives_us = carrier.outlives_us
        self.binary, self.table, self.maxelem = options["binary"], options["table"], options["maxelem"]
        where = options.get("where", "port." + name)
        if not 1 <= len(self.table) <= 31 or not all([c in LETTERS for c in self.table]):
            raise ConfigError(where, 'port.%s: table = "%s": 1 to 31 letters, digits or "_"' % (name, self.table))
        if not 1 <= whole(self.maxelem) < 1 << 30:
            raise ConfigError(where, "port.%s: maxelem = %s: say how many sources" % (name, self.maxelem))

    async def start(self):
        """Sees that the table is nobody else's: `sync`, which follows, makes it anew."""
        listing = await self.carrier.say(self.binary, "list", "chains")
        refuse_foreign(self.describe(), self.table, [("blocked", -310)], rows(listing))

    async def open(self, grant, seconds):
        """Drops what comes from a grant's source for so long."""
        await self.commit(self.fresh(grant) + self.timed(grant, seconds))

    async def close(self, *grants):
        """Lets the sources of grants through again."""
        for at in range(0, len(grants), ONCE):
            await self.commit([line for grant in grants[at : at + ONCE] for line in self.fresh(grant)])

    async def sync(self, live):
        """Makes the table anew, with just the sources of these grants."""
        lines = TABLE.format(t=self.table, n=self.maxelem).split("\n")[:-1]
        longest: dict = {}  # two grants of one source are one element
        for grant, seconds in live:
            if seconds >= longest.get(grant.source, (None, 0))[1]:
                longest[grant.source] = (grant, seconds)
        pairs = list(longest.values())
        for at in range(0, max(len(pairs), 1), ONCE):
            await self.commit(lines + [line for pair in pairs[at : at + ONCE] for line in self.timed(*pair)])
            lines = []

    async def stop(self, flush=False):
        """With `flush` takes the table away."""
        if flush:
            await self.commit(TABLE.format(t=self.table, n=self.maxelem).split("\n")[:2])

    def describe(self):
        return "%s (block %s via %s)" % (self.name, self.table, self.carrier.describe())

    def check(self, grant):
        """Raises PortError for a grant that is no block: a stanza that names this port would shut its users out."""
        if grant.stanza != "watch":
            raise PortError(self.describe(), "this port blocks; name one that opens")

    def element(self, grant):
        source = net.printed(net.packed(grant.source))
        return "inet %s blocked%d { %s" % (self.table, 6 if ":" in source else 4, source)

    def timed(self, grant, seconds):
        return ["add element %s timeout %ds }" % (self.element(grant), max(seconds, 1))]

    def fresh(self, grant):
        """Returns the lines after which a source is no element: deleting one that is missing would be an error."""
        return self.timed(grant, 1) + ["delete element %s }" % self.element(grant)]

    async def commit(self, lines):
        await self.carrier.say(self.binary, "-f", "-", text="\n".join(lines) + "\n")
