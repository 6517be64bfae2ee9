"""ipfw: opens a port by numbered rules in a set of its own, in the words of fwknopd (docs/fwknopd.md 6.3).

What is over is moved to a disabled set, so that established connections live on by their dynamic rules, and deleted
once it has none. The range of numbers and both sets are ours alone; rules without an `_exp_` comment stay even there.
Not run on a real BSD: tested against a stand-in that keeps and prints rules as ipfw(8) says.
"""

from tinyknop import log
from tinyknop.compat import monotonic, wall
from tinyknop.errors import ConfigError, PortError

from .shared import stamped

OPTIONS = {  # IPFW_START_RULE_NUM and so on of fwknopd.conf
    "binary": "ipfw",
    "start_rule": "10000",
    "max_rules": "65535",
    "active_set": "1",
    "expire_set": "2",
    "purge_interval": "30",  # seconds
    "check_state": "N",
    "flush_at_init": "N",
    "flush_at_exit": "Y",
    "destination": "N",  # Y: rules are for the address that the packet was sent to, not for any of ours
}
CARRIER = "local"
# Numbers, each from 1 to this. Set 0 holds everybody's rules, and set 31 the default rule, which has number 65535.
TOPS = {"start_rule": 65534, "max_rules": 131071, "active_set": 30, "expire_set": 30, "purge_interval": 131071}
FLAGS = ("check_state", "flush_at_init", "flush_at_exit", "destination")
FULL = "Access request rejected: Maximum allowed number of rules has been reached."  # fwknopd's words


class Port(stamped.Port):
    def __init__(self, name, options, carrier):
        stamped.Port.__init__(self, name, options, carrier, ("me", "me6"))
        numbers = stamped.check(name, options, FLAGS, TOPS)
        self.active, self.spent = str(numbers["active_set"]), str(numbers["expire_set"])
        if self.active == self.spent:
            reason = "port.%s: active_set and expire_set are both %s: take two sets" % (name, self.active)
            raise ConfigError(options.get("where", "port." + name), reason)
        self.interval = numbers["purge_interval"] * 1000
        self.first, self.checks = numbers["start_rule"], options["check_state"] == "Y"  # that takes the first number
        self.range = range(self.first + self.checks, min(self.first + numbers["max_rules"], 65535))
        self.purge_at = None  # monotonic ms; None while the expire set is empty

    async def start(self):
        """Empties the active set if the options say so (the first time only) and disables the expire set."""
        if self.fresh and self.options["flush_at_init"] == "Y":
            await self.flush()
        self.fresh = False
        await self.say("set", "disable", self.spent)

    async def stop(self, flush=False):
        """With `flush` deletes the active set, unless the options keep it; the expire set stays, as with fwknopd."""
        if flush and self.options["flush_at_exit"] == "Y":
            await self.flush()

    def describe(self):
        return "%s (ipfw set %s via %s)" % (self.name, self.active, self.carrier.describe())

    def next_expiry(self):
        """Returns the wall-clock second at which a `sync` has something to move or purge, or None."""
        purge = None if self.purge_at is None else wall() + max(self.purge_at - monotonic(), 0) // 1000 + 1
        return min([second for second in (self.foreign, purge) if second is not None] or [None])

    async def settle(self):
        """Adds what is missing, then moves what is over; tries all of it before it raises the first failure."""
        table = numbered(await self.say("-S", "list"))
        await self.purge(table)
        missing, over = self.compared(table)
        commands: list = []
        failure = None
        if self.checks and (self.active, "check-state") not in table.get(self.first, ()):
            commands.append(("add", str(self.first), "set", self.active, "check-state"))
        for (source, until), rules in sorted(missing.items()):
            number = self.free(table)
            if number is None:
                failure = PortError(self.describe(), FULL)
                break
            table[number] = []
            commands += [self.add(number, rule, until) for rule in rules]
            ports = ",".join(["%s/%d" % (rule[1], rule[3]) for rule in rules])
            log.info("Added Rule %d for %s, %s expires at %d", number, source, ports, until)
        for number in over:
            commands.append(("set", "move", "rule", str(number), "to", self.spent))
            log.info("Moved rule %d to set %s", number, self.spent)
            self.purge_at = self.purge_at or monotonic() + self.interval
        for command in commands:
            try:
                await self.say(*command)
            except PortError as error:
                failure = failure or error
        if failure:
            raise failure
        self.ledger.settled()

    def compared(self, table):
        """Returns what is missing, (source, end) -> rules, and the numbers to move away."""
        missing, gone = self.ledger.goal()
        over, due, now, known = [], [], wall(), gone | set(missing)
        for number in sorted(table):
            keys = [key for where, key in table[number] if where == self.active and isinstance(key, tuple)]
            if len(set(keys)) == 1 and len(keys) == len(missing.get(keys[0], ())) and keys[0] not in gone:
                del missing[keys[0]]
            elif any(key in known or key[1] <= now for key in keys):
                over.append(number)
            else:
                due += [until for _, until in keys]
        self.foreign = min(due) if due else None
        return missing, over

    async def purge(self, table):
        """Every `purge_interval`, or where no number is free, deletes what is over and has no dynamic rule left."""
        spent = [number for number in sorted(table) if all(where == self.spent for where, _ in table[number])]
        if not spent or self.purge_at is None:
            self.purge_at = monotonic() + self.interval if spent else None
        if not spent or monotonic() < self.purge_at and self.free(table):
            return
        self.purge_at = monotonic() + self.interval
        try:
            dynamic = (await self.say("-d", "-S", "list")).partition("## Dynamic rules")[2].split("\n")
            alive = [int(line.split()[0]) for line in dynamic if line[:5].isdigit()]
            for number in [number for number in spent if number not in alive]:
                await self.say("set", self.spent, "delete", str(number))
                log.info("Purged rule %d from set %s", number, self.spent)
                del table[number]
        except PortError as error:  # what is in a disabled set opens nothing; openings must not wait for it
            log.warning("%s: not purged: %s", self.describe(), error.reason)

    def free(self, table):
        """Returns the first number of our range that nobody uses, or None."""
        for number in self.range:
            if number not in table:
                return number
        return None

    def add(self, number, rule, until):
        source, proto, to, port = rule
        setup = ["setup"] if proto == "tcp" else []  # fwknopd writes it for UDP too, which then never matches
        words = "add %d set %s pass %s from %s to %s dst-port %d" % (number, self.active, proto, source, to, port)
        return words.split() + setup + ["keep-state", "//", "_exp_%d" % until]

    async def flush(self):
        try:
            await self.say("delete", "set", self.active)
        except PortError as error:  # ipfw may call a set without rules a failure
            log.info("%s: set %s: %s" % (self.describe(), self.active, error.reason))

    async def say(self, *said):
        return await self.carrier.say(self.options["binary"], *said)


def numbered(listing):
    """Reads `ipfw -S list`: number -> [(set, what)], where what is (source, end), "check-state" or None."""
    table: dict = {}
    for line in listing.partition("## Dynamic rules")[0].split("\n"):
        said = line.replace("# DISABLED ", "").split()
        if len(said) < 4 or not said[0].isdigit() or said[1] != "set":
            continue
        what = "check-state" if said[3] == "check-state" else stamped.key(line)
        table.setdefault(int(said[0]), []).append((said[2], what))
    return table
