"""The watcher: lines to verdicts, a verdict to an event and, where the owner wants that, to a block.

A source can be forged. So blocks are off by default, and nobody who has an opening, whom auto_dl or `never` spares, or
who is this machine, is ever blocked. A block is a grant on a port that drops: journaled and ended like any other.
"""

from tinyknop import compat, log, net
from tinyknop.errors import ConfigError, PortError, Rejected
from tinyknop.grants import Grant
from tinyknop.keywords import meant, number

from . import outfit, sources
from .parse import parse

STANZA = "watch"  # by which grants are told that are blocks
OPTIONS = """kind path port address group psad signatures auto_dl snort_rule_dl psad_conf icmp_types icmp6_types rules
never log_at block_at block_for most_blocks ports end_grants where""".split()
DROPPING = ("block", "ipset")  # kinds of port that can hold a block
_WHOLE = (("tcp", 1),)  # a set of addresses knows no ports, but a grant has to name one
_LOOK_AGAIN = 10  # seconds until a source that was spared is looked at again
_BURST = 20  # lines to the log in a second
# Lines that are looked at in a second, at 70 microseconds each on CPython: a flood must not keep knocks waiting.
_BUDGET = 100 if compat.MICROPYTHON else 2000
_SHOWN = 25  # sources in the report
_WIDE = "set %s is not of type hash:ip: make it with `ipset create %s hash:ip timeout 0`"


class Line(str):
    """A line that keeps its fields, for a log that is JSON."""

    fields: list = []


class Watcher:
    """One source of lines, and what is known of those who scan us; raises ConfigError for its table."""

    def __init__(self, settings, stanzas, keeper, loop):
        self.table = table = settings.watch
        self._keeper, self._loop = keeper, loop
        where = self._where = table.get("where", "watch")
        for name in sorted(table):
            if name not in OPTIONS:
                raise ConfigError(where, "watch: %s: no such option%s" % (name, meant(name, OPTIONS)))
        self._ports = tuple([name for name in table.get("ports", "").split(",") if name])
        self._log_at, self._end_at = self._number("log_at", 1, 1, 5), self._number("end_grants", 0, 0, 5)
        self._block_at = self._number("block_at", 0, 0, 5)
        self._block_for = self._number("block_for", 3600, 1, 2147483)
        self._most = self._number("most_blocks", 1000, 1, 65536)
        try:
            group, port = self._number("group", 0, 0, 65535), self._number("port", 514, 1, 65535)
            kind, host = table.get("kind", ""), table.get("address") or "127.0.0.1"
            self._source = sources.make(kind, table.get("path"), group if kind == "nflog" else port, host)
            self._never = [net.network(item.strip()) for item in table.get("never", "").split(",") if item.strip()]
        except ValueError as error:
            raise ConfigError(where, "watch: %s" % error)
        self._check(settings, stanzas)
        self._scorer, self._sids = outfit.scorer(table)
        self._lines = self._packets = self._spared = 0
        self._own, self._own_until = (), 0
        self._trusted, self._trusted_at = set(), None  # who has an opening, and the second at which that was looked up
        self._blocks = {}  # source -> id of its block, which may have ended
        self._second = self._said = self._heard = 0

    def _number(self, name, default, low, high):
        try:
            return number(low, high)(self.table.get(name) or "%d" % default, None)
        except ValueError as error:
            raise ConfigError(self._where, "watch: %s: %s" % (name, error))

    def _check(self, settings, stanzas):
        """Raises ConfigError where a block would open something, or go nowhere."""
        if self._block_at and not self._ports:
            raise ConfigError(self._where, 'watch: block_at needs ports = ["..."], a port of kind "block"')
        for name in self._ports:
            kind = settings.ports.get(name, {}).get("kind")
            if kind not in DROPPING:
                reason = 'watch: port %s %s: name one of kind "block"'
                raise ConfigError(self._where, reason % (name, "opens" if kind else "is not there"))
            if [stanza for stanza in stanzas if name in stanza.ports]:
                raise ConfigError(self._where, "watch: port %s opens for a stanza: a block needs its own" % name)
        if self._ports and STANZA in [stanza.name for stanza in stanzas]:
            raise ConfigError(self._where, 'watch: a stanza is called "watch", as blocks are: rename it')

    def serves(self, settings, stanzas):
        """Tells whether another configuration asks for the same; reads its files anew. Raises ConfigError."""
        self._check(settings, stanzas)
        table, mine = settings.watch, self.table
        if {n: table[n] for n in table if n != "where"} != {n: mine[n] for n in mine if n != "where"}:
            return False
        scorer, self._sids = outfit.scorer(table)
        scorer.adopt(self._scorer)
        self._scorer = scorer
        return True

    def means(self):
        """Returns in plain words what is done."""
        text = "watches %s" % self.describe()
        if self._block_at:
            text += "; blocks from danger level %d for %d s" % (self._block_at, self._block_for)
        return text + ("; ends openings from danger level %d" % self._end_at if self._end_at else "")

    def describe(self):
        return self._source.describe()

    def start(self):
        """Begins to read; raises PortError where it cannot, or where a port is one that cannot hold a block."""
        live = self._keeper.grants.live.values()
        self._blocks = {grant.source: grant.id for grant in live if grant.stanza == STANZA}  # of a process before us
        for name in self._ports:
            port = self._keeper.workers[name].port
            if [kind for kind, _ in getattr(port, "kinds", {}).values() if kind != "hash:ip"]:
                raise PortError(name, _WIDE % (port.set, port.set))
        self._source.start(self._loop, self.heard)

    def stop(self):
        """Reads no more; what is blocked stays so for its time."""
        self._source.stop()

    def heard(self, line):
        """Takes one line, whatever it is; False once the second's budget is spent."""
        now = compat.monotonic() // 1000
        if now != self._second:
            self._second = now
            self._said = self._heard = 0
        if b" OUT=" in line:
            if self._heard >= _BUDGET:
                return False
            self._heard += 1
            self._judge(line, now)
        self._lines += 1
        return True

    def _judge(self, line, now):
        event = parse(line, self._scorer.limits.mark)
        if event is None:
            return
        self._packets += 1
        source = self._scorer.score(event, now)
        if source is None:
            return
        if event.sid and source.sids.get(event.sid, (0, 0))[1] == 1:
            rule = self._sids.find(event.sid) or {}
            words = (event.sid, rule.get("msg") or "no such rule", event.dport, event.chain)
            text = "matched rule %d (%s), port %d, %s" % words
            self._say("rule", event.source, text, sid=event.sid, port=event.dport)
        if source.level > source.told:
            source.told = source.level
            if source.blocked - now <= _LOOK_AGAIN:
                source.blocked = 0  # spared, perhaps, for what it was before
            if source.level >= self._log_at:
                counts = (source.level, source.packets, len(source.hosts))
                text = "reached danger level %d (%d packets, %d hosts)" % counts
                self._say("scan", event.source, text, level=source.level, packets=source.packets)
        act = (self._block_at and source.level >= self._block_at) or (self._end_at and source.level >= self._end_at)
        if act and source.blocked <= now:
            source.blocked = now + self._act(event.source, source.level, now)

    def _act(self, address, level, now):
        """Ends the grants of a source and blocks it, as far as that is wanted; returns seconds until the next look."""
        text = net.printed(address)
        if self._trusts(text, now) and self._end_at and level >= self._end_at:
            for grant in [one for one in self._grants() if text in (one.source, one.sender)]:
                self._say("ended", address, "scans us: ending grant %d" % grant.id, id=grant.id)
                self._keeper.close(grant.id)
            self._trusted_at = None
        if not self._block_at or level < self._block_at:
            return 1
        if len(self._blocks) >= self._most:
            live = self._keeper.grants.live
            self._blocks = {source: self._blocks[source] for source in self._blocks if self._blocks[source] in live}
        if len(self._blocks) >= self._most or self._trusts(text, now) or self._is_spared(address, now):
            self._spared += 1
            return _LOOK_AGAIN
        wall = compat.wall()
        until = wall + self._block_for
        grant = Grant(None, text, _WHOLE, wall, until, STANZA, None, "0.0.0.0", text)
        try:
            self._blocks[text] = self._keeper.open(grant, self._ports).id
        except Rejected as error:
            self._say("unable", address, "is not blocked: " + error.reason)
            return _LOOK_AGAIN
        self._say("blocked", address, "is blocked for %d s" % self._block_for, level=level, seconds=self._block_for)
        return self._block_for

    def granted(self, grant):
        """Ends the block of a source that has just proved itself by a knock."""
        self._trusted_at = None
        for source in (grant.source, grant.sender):
            number = self._blocks.pop(source, None)
            if number in self._keeper.grants.live:
                address = net.packed(source)
                self._say("unblocked", address, "has an opening now, its block ends")
                self._keeper.close(number)
                self._scorer.get(address).blocked = 0

    def _grants(self):
        return [grant for grant in self._keeper.grants.live.values() if grant.stanza != STANZA]

    def _trusts(self, text, now):
        """Tells whether a source has an opening."""
        if self._trusted_at != now:
            self._trusted_at = now
            self._trusted = set([grant.source for grant in self._grants()] + [grant.sender for grant in self._grants()])
        return text in self._trusted

    def _is_spared(self, address, now):
        if now >= self._own_until:
            self._own, self._own_until = own_addresses(), now + _LOOK_AGAIN
        if len(address) == 4:
            local = address[0] in (0, 127)
        else:  # ::1, and fe80::/10, by which routers and neighbours find each other
            local = not any(address[:-1]) or (address[0] == 0xFE and address[1] & 0xC0 == 0x80)
        if local or address in self._own or self._scorer.ignored(address):
            return True
        return bool([1 for network in self._never if net.contains(network, address)])

    def _say(self, event, address, text, **more):
        """Logs what was found about a source, but for what is too much in a second."""
        self._said += 1
        if self._said <= _BURST:
            source = net.printed(address)
            line = Line("watch: %s %s" % (source, text))
            line.fields = [("event", event), ("source", source)] + sorted(more.items()) + [("text", text)]
            log.warning(line)

    def report(self):
        """Returns the state as lists and dicts, for `tinyknop status`."""
        rows = []
        for address, source in self._scorer.sources()[:_SHOWN]:
            if source.level:
                row = {"source": net.printed(address), "level": source.level, "packets": source.packets}
                row["hosts"] = len(source.hosts)
                row["rules"] = ["%d" % sid for sid in sorted(source.sids)]
                rows.append(row)
        blocks = [source for source in self._blocks if self._blocks[source] in self._keeper.grants.live]
        counts: dict = {"lines": self._lines, "packets": self._packets, "spared": self._spared}
        counts["skipped"] = self._source.skipped
        counts.update({"device": self.describe(), "sources": rows, "blocked": blocks})
        return counts


def own_addresses():
    """Returns this machine's addresses, packed, as Linux tells them; () where it does not."""
    found, last = [], ""
    for path, six in (("/proc/net/fib_trie", False), ("/proc/net/if_inet6", True)):
        try:
            with open(path) as file:
                for line in file:
                    words = line.split()
                    if six:
                        found.append(bytes([int(words[0][i : i + 2], 16) for i in range(0, 32, 2)]))
                    elif words[:1] == ["|--"]:
                        last = words[1]
                    elif words[1:3] == ["host", "LOCAL"]:
                        found.append(net.packed(last))
        except (OSError, ValueError, IndexError):
            pass
    return tuple(found)
