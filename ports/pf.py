"""pf: opens a port by a rule in an anchor of its own, in the words of fwknopd (docs/fwknopd.md 6.2).

The owner's pf.conf blocks by default and has the line  anchor "fwknop"  behind that. The anchor is read, changed and
loaded back, which pf does in one step; rules of others without an `_exp_` label stay, with one they go at its time.
Not run on a real BSD: tested against a stand-in that keeps and prints rules as pfctl(8) says.
"""

from tinyknop import log
from tinyknop.compat import wall
from tinyknop.errors import ConfigError, PortError

from .shared import stamped

OPTIONS = {
    "binary": "pfctl",
    "anchor": "fwknop",  # PF_ANCHOR_NAME of fwknopd.conf
    "destination": "N",  # Y: rules are for the address that the packet was sent to, not for any
}
CARRIER = "local"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./"
LONGEST_NAME = 63
# How a rule begins. A carrier hands over standard error too, where pfctl complains of a missing ALTQ (macOS, FreeBSD).
ACTIONS = ("pass", "block", "match", "scrub", "anchor", "antispoof")


class Port(stamped.Port):
    def __init__(self, name, options, carrier):
        stamped.Port.__init__(self, name, options, carrier, ("any", "any"))
        stamped.check(name, options, ("destination",))
        self.binary, self.anchor = options["binary"], options["anchor"]
        if not 1 <= len(self.anchor) <= LONGEST_NAME or not all(c in LETTERS for c in self.anchor):
            where = options.get("where", "port." + name)
            reason = 'port.%s: anchor = "%s": a name has 1 to %d letters, digits, "_", "-", "." or "/"'
            raise ConfigError(where, reason % (name, self.anchor, LONGEST_NAME))

    async def start(self):
        """Sees that the anchor is in force and, the first time, empties it; raises PortError where it is not."""
        listing = await self.carrier.say(self.binary, "-s", "Anchor")
        if self.anchor.split("/")[0] not in [line.strip() for line in listing.split("\n")]:
            reason = 'the anchor is not active: add  anchor "%s"  to pf.conf and load it (pfctl -f /etc/pf.conf)'
            raise PortError(self.describe(), reason % self.anchor)
        if self.fresh:
            await self.say("-F", "all")
            self.fresh = False

    async def stop(self, flush=False):
        """With `flush` empties the anchor, as fwknopd does at its end."""
        if flush:
            await self.say("-F", "all")

    def describe(self):
        return "%s (pf anchor %s via %s)" % (self.name, self.anchor, self.carrier.describe())

    def next_expiry(self):
        """Returns the wall-clock second at which a `sync` has a rule of somebody else to take away, or None."""
        return self.foreign

    async def settle(self):
        """Loads the anchor with what is wanted behind what others have there; where nothing changes it says nothing."""
        wanted, gone = self.ledger.goal()
        seen: dict = {}
        now, kept, due, changed = wall(), [], [], False
        for line in (await self.say("-s", "rules")).split("\n"):
            key = stamped.key(line)
            if key in wanted or key in gone:
                seen[key] = seen.get(key, 0) + 1
                changed = changed or key in gone
            elif key and key[1] <= now:
                changed = True
                log.info("Deleting rule with expire time of %d.", key[1])
            elif line.strip().split(" ")[0] in ACTIONS:
                kept.append(line.strip())
                due += [key[1]] if key else []
        if changed or any(seen.get(key, 0) != len(wanted[key]) for key in wanted):
            lines = kept + [words(rule, key[1]) for key in sorted(wanted) for rule in wanted[key]]
            text = "".join([line + "\n" for line in lines])
            await (self.say("-f", "-", text=text) if text else self.say("-F", "all"))
        self.ledger.settled()
        self.foreign = min(due) if due else None

    async def say(self, *said, text=None):
        return await self.carrier.say(self.binary, "-a", self.anchor, *said, text=text)


def words(rule, until):
    """The line that pfctl reads for a rule and its end."""
    source, proto, to, port = rule
    family = "inet6 " if ":" in source else ""
    text = "pass in quick %sproto %s from %s to %s port %d keep state label _exp_%d"
    return text % (family, proto, source, to, port, until)
