"""The tables of one family of iptables, for the port of that name: what is in our chains, and how that is changed.

One look is one `-S` per table, one change one `-restore --noflush -w` that is done wholly per table, or not at all.
"""

from tinyknop import log
from tinyknop.compat import wall
from tinyknop.errors import PortError

from .ledger import Ledger
from .rules import UNTIL

COMMENT, DATE = "-m comment --comment __TMPCOMMENT__", UNTIL + "2000-01-01T00:00:00"
# What kernel and tools can, tried in this order: (the time match, -C in a transaction).
MEANS = ((True, True), (False, True), (True, False), (False, False))
TRIES = 3  # another may change the table between our look and our change


class Tables:
    def __init__(self, port, tool, hooks, options, carrier):
        self.port = port  # what its errors begin with
        self.tool = tool
        self.hooks = hooks
        self.options = options
        self.carrier = carrier
        self.ledger = Ledger()
        self.usable = []  # names of the tables that work here
        self.means, self.tried = MEANS[0], False  # what works here, and whether that is known
        self.fresh = self.lost = False  # we have just looked; a change failed, so nobody knows what is there
        self.missing = {}  # table -> lines that make and hook what was not there when we looked

    async def start(self):
        """Makes and hooks the chains, and tries what rules need; returns [(table, PortError)] of those that failed."""
        self.usable, failures, tried = [], [], []
        flush = self.options["flush_at_init"] == "Y" and not self.tried  # not again after a failure
        for hook in self.hooks:
            if hook.table not in tried:
                tried.append(hook.table)
                try:
                    await self.set_up(hook, flush)
                    self.usable.append(hook.table)
                except PortError as error:
                    failures.append((hook.table, error))
        self.fresh = True
        return failures

    async def set_up(self, hook, flush):
        table, lines = hook.table, []
        listing = await self.listing(table)
        if flush:
            lines, listing = self.cleared(table, listing)
        self.look_at(table, listing)
        lines += self.missing.pop(table)
        failures = []
        for dated, checks in (self.means,) if self.tried else MEANS:
            words = ([DATE] if dated else []) + ([COMMENT] if self.options["comment_check"] == "Y" else [])
            probe = ["%s %s %s" % (verb, hook.name, " ".join(words)) for verb in ("-A", "-D") if words]
            if checks:
                probe.append("-C %s -j %s" % (hook.parent, hook.name))
            try:
                await self.restore([(table, lines + probe)])
            except PortError as error:
                failures.append(error)
                continue
            if not dated and not self.tried:
                log.warning("%s: %s has no time match (xt_time): rules end only while we run", self.port, self.tool)
            self.means, self.tried = (dated, checks), True
            return
        reason = "table %s cannot be prepared (no comment match, kernel module xt_comment?): %s"
        raise PortError(self.port, reason % (table, failures[0].reason))

    async def sync(self):
        """Looks, and brings everything to what is wanted."""
        if not self.fresh:
            await self.look()
        await self.apply(self.ledger.all())

    async def apply(self, rules):
        """Brings rules to what is wanted; where others meddled, looks again, puts everything right and tries again."""
        self.fresh = False
        for left in range(TRIES - 1, -1, -1):
            try:
                if self.lost:
                    await self.look()
                    rules = sorted(set(self.ledger.all() + rules))
                return await self.settle(rules, not left)
            except PortError as error:
                self.lost = True
                if not left:
                    raise
                log.debug("%s: mending: %s", self.port, error.reason)

    async def settle(self, rules, apart):
        """Adds and takes away, one transaction per table. NAT is there before access is, and goes after it.

        With `apart` a table that fails does not keep us from closing what is in the other.
        """
        put, opening, now = "-I" if self.options["prepend"] == "Y" else "-A", False, wall()
        after, checked = {}, set()
        lines = {table: list(lines) for table, lines in self.missing.items()}
        for rule in rules:
            if rule in after:  # two grants share it
                continue
            add, drop, after[rule] = self.ledger.change(rule, now, self.means[0])
            said = lines.setdefault(rule.table, [])
            if add:
                opening = True
                said += [check for check in self.checks(rule) if (rule.table, check) not in checked]
                checked.update([(rule.table, check) for check in self.checks(rule)])
                said.append("%s %s %s" % (put, rule.chain, add))
            said += ["-D %s %s" % (rule.chain, text) for text in drop]
        sections, failures = [(table, lines[table]) for table in self.usable if table in lines], []
        if opening:
            sections.reverse()
        for some in [[section] for section in sections] if apart and not opening else [sections]:
            try:
                await self.restore(some)
            except PortError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        self.missing = {}
        for rule, left in after.items():
            self.ledger.done(rule, left)

    def checks(self, rule):
        """Returns lines that fail where nothing leads to a rule's chain: it would open nothing."""
        hooks = [hook for hook in self.hooks if (hook.table, hook.name) == (rule.table, rule.chain)]
        return ["-C %s -j %s" % (hook.parent, hook.name) for hook in hooks if self.means[1]]

    async def restore(self, sections):
        text = "".join(["*%s\n%s\nCOMMIT\n" % (table, "\n".join(lines)) for table, lines in sections if lines])
        if text:
            await self.carrier.say(self.tool + "-restore", "--noflush", "-w", text=text)

    async def listing(self, table):
        return (await self.carrier.say(self.tool, "-w", "-t", table, "-S")).split("\n")

    async def look(self):
        for table in self.usable:
            self.look_at(table, await self.listing(table))
        self.lost = False

    def look_at(self, table, listing):
        """Takes in what is in our chains, and what is missing of them."""
        hooks = [hook for hook in self.hooks if hook.table == table]
        names = [hook.name for hook in hooks]
        words = [line.split(" ", 2) for line in listing if line.startswith("-A ") and line.count(" ") > 1]
        self.ledger.seen(table, [(chain, text) for _, chain, text in words if chain in names])
        parents = [chain for _, chain, _ in words]
        self.missing[table] = missing = []
        for hook in hooks:
            make, jump = "-N " + hook.name, "-j " + hook.name
            if make not in listing and make not in missing:
                missing.append(make)
            if "-A %s %s" % (hook.parent, jump) not in listing:  # a place beyond the end would be an error
                place = min(hook.position, 1 + parents.count(hook.parent))
                missing.append("-I %s %d %s" % (hook.parent, place, jump))
                parents.append(hook.parent)

    def cleared(self, table, listing):
        """Returns lines that unhook and empty our chains, and what is left of the listing then."""
        lines = []
        for hook in self.hooks:
            jump, empty = "-A %s -j %s" % (hook.parent, hook.name), "-F " + hook.name
            if hook.table == table:
                lines += ["-D" + jump[2:]] * listing.count(jump)
                lines += [empty] if "-N " + hook.name in listing and empty not in lines else []
                listing = [line for line in listing if line != jump and not line.startswith("-A %s " % hook.name)]
        return lines, listing

    async def clear(self):
        """Unhooks, empties and removes our chains; one that others have put to use is left, but empty."""
        for table in self.usable:
            try:
                await self.clear_table(table)
            except PortError:  # somebody changed it in between
                await self.clear_table(table)

    async def clear_table(self, table):
        lines, listing = self.cleared(table, await self.listing(table))
        used = [line.split(" ") for line in listing if line.startswith("-A ")]
        for name in [line[3:] for line in lines if line.startswith("-F ")]:
            lines += [] if any([name in words for words in used]) else ["-X " + name]
        await self.restore([(table, lines)])
