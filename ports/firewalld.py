"""firewalld: opens a port by rich rules of its runtime configuration, which it ends itself (mode "rich"), or by the
rules of the port iptables, passed through firewalld as fwknopd does it (mode "direct", docs/fwknopd.md 6.1).

Rich rules of our two priorities (firewalld 0.7 and later) are ours; the owner's own, those that refuse too, come before
them. firewalld forgets all of it at `firewall-cmd --reload`; `sync` puts it back. A call takes 0.3 s.
"""

from tinyknop import log, net
from tinyknop.compat import monotonic
from tinyknop.errors import ConfigError, PortError

from . import iptables
from .shared.passthrough import Passthrough

OPTIONS = dict(iptables.OPTIONS)
OPTIONS.update({"binary": "firewall-cmd", "mode": "rich", "zone": ""})  # zone: "" is firewalld's default zone
CARRIER = "local"
BOTH = ("binary", "destination", "flush_at_exit")  # options of both modes
# A rule's time cannot be renewed (a warning, and the old time holds): its twin is added, then the old one removed.
PRIORITIES = (32001, 32002)
AT_ONCE = 100  # rules in a call: each takes 15 to 30 ms, and a carrier waits for 10 s
SLACK = 2000  # ms by which a time-out may be off before it is worth a call


def Port(name, options, carrier):
    """Makes the port of the mode; raises ConfigError for what cannot be meant in it."""
    mode, where = options["mode"], options.get("where", "port." + name)
    if mode not in ("rich", "direct"):
        raise ConfigError(where, 'port.%s: mode is "rich" or "direct", not "%s"' % (name, mode))
    theirs = ["zone"] if mode == "direct" else [option for option in iptables.OPTIONS if option not in BOTH]
    for option in sorted(theirs):
        if options[option] != OPTIONS[option]:
            raise ConfigError(where, 'port.%s: mode = "%s" has no %s: leave it out' % (name, mode, option))
    return Rich(name, options, carrier) if mode == "rich" else Direct(name, options, carrier)


class Rich:
    self_timed = True
    nats = False

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        self.options = options
        self.outlives_us = carrier.outlives_us
        for option in ("destination", "flush_at_exit"):
            if options[option] not in ("Y", "N"):
                where = options.get("where", "port." + name)
                raise ConfigError(where, "port.%s: %s is Y or N, not %s" % (name, option, options[option]))
        self.by_destination = options["destination"] == "Y"
        self.told = {}  # rule without its priority -> (priority, monotonic ms at which firewalld ends it)

    async def start(self):
        """Sees that firewalld runs and has the zone; raises PortError otherwise."""
        try:
            await self.listed()
        except PortError as error:
            remedy = " (systemctl start firewalld)" if "not running" in error.reason else ""
            raise PortError(self.describe(), error.reason + remedy)

    async def open(self, grant, seconds):
        """Adds the grant's rules with their time, or twins of them with a longer one."""
        if grant.nat:
            raise PortError(self.describe(), 'rich rules are not for NAT openings here; say mode = "direct"')
        await self.tell([(rule, seconds) for rule in self.rules(grant)])

    async def close(self, grant):
        """Removes the grant's rules; what is missing is closed."""
        texts = []
        for rule in self.rules(grant):
            held = self.told.pop(rule, None)
            texts += [text(rule, priority) for priority in (PRIORITIES if held is None else held[:1])]
        await self.say("--remove-rich-rule=", texts)

    async def sync(self, live):
        """Makes firewalld hold these grants: puts back what a reload dropped, removes what no grant explains."""
        listed = await self.listed()
        wanted: dict = {}
        for grant, seconds in live:
            for rule in self.rules(grant):
                wanted[rule] = max(seconds, wanted.get(rule, 0))
        told, stray = {}, []
        for rule in sorted(listed):
            priority, end = self.told.get(rule, (None, 0))
            if priority not in listed[rule]:  # written by the process before us: nobody knows its time
                priority, end = listed[rule][0], 0
            if rule in wanted:
                told[rule] = (priority, end)
            stray += [text(rule, one) for one in listed[rule] if one != priority or rule not in wanted]
        self.told = told
        await self.say("--remove-rich-rule=", stray)
        await self.tell(sorted(wanted.items()))

    async def stop(self, flush=False):
        """With `flush` removes our rules."""
        if flush and self.options["flush_at_exit"] == "Y":
            await self.sync([])

    def describe(self):
        zone = self.options["zone"] or "default"
        return "%s (firewalld, %s zone, via %s)" % (self.name, zone, self.carrier.describe())

    def rules(self, grant):
        """The rules that a grant stands for, as firewalld prints them behind the priority; none for NAT."""
        six = ":" in grant.source
        said = 'family="%s" source address="%s" ' % ("ipv6" if six else "ipv4", net.printed(net.packed(grant.source)))
        if self.by_destination:  # one that nobody knows, or of another family, matches nothing
            nowhere = "::" if six else "0.0.0.0"
            here = grant.destination if six == (":" in grant.destination) else nowhere
            said += 'destination address="%s" ' % net.printed(net.packed(here))
        openings = () if grant.nat else grant.openings
        return ['%sport port="%d" protocol="%s" accept' % (said, port, proto) for proto, port in openings]

    async def tell(self, wanted):
        """Adds rules, (rule, seconds) each, unless they have that time already, and removes their elder twins."""
        calls: dict = {}
        old = []
        for rule, seconds in wanted:
            end = monotonic() + seconds * 1000
            priority, known = self.told.get(rule, (PRIORITIES[1], 0))
            if abs(known - end) > SLACK:
                old += [text(rule, priority)] if rule in self.told else []
                calls.setdefault(seconds, {})[rule] = (PRIORITIES[priority == PRIORITIES[0]], end)
        for seconds in sorted(calls):
            texts = [text(rule, priority) for rule, (priority, _) in sorted(calls[seconds].items())]
            await self.say("--add-rich-rule=", texts, "--timeout=%ds" % max(seconds, 1))  # 0 would be for ever
            self.told.update(calls[seconds])
        await self.say("--remove-rich-rule=", old)

    async def listed(self):
        """Returns our rules that are there: rule -> its priorities."""
        found: dict = {}
        for line in (await self.say("--list-rich-rules", [""])).split("\n"):
            for priority in PRIORITIES:
                if line.startswith(text("", priority)):
                    found.setdefault(line[len(text("", priority)) :], []).append(priority)
        return found

    async def say(self, verb, texts, *more):
        """Says a verb for each text, many in a call; firewalld calls it success where one of them was."""
        zone = ["--zone=" + self.options["zone"]] if self.options["zone"] else []
        answer = ""
        for at in range(0, len(texts), AT_ONCE):
            words = [self.options["binary"]] + zone + [verb + one for one in texts[at : at + AT_ONCE]]
            answer = await self.carrier.say(*(words + list(more)))
            for line in answer.split("\n"):
                if ("Warning: " in line or "Error: " in line) and not ("NOT_ENABLED" in line and "remove" in verb):
                    raise PortError(self.describe(), line)
        return answer


class Direct(iptables.Port):
    """The port iptables, on firewalld's terms."""

    def __init__(self, name, options, carrier):
        own = dict(options)
        own["binary"] = "iptables"
        super().__init__(name, own, Passthrough(options["binary"], carrier))

    async def start(self):
        """Starts as iptables does; warns where firewalld's own rules are elsewhere and have the last word."""
        await super().start()
        try:
            await self.carrier.say("iptables", "-t", "filter", "-S", "INPUT_direct")
        except PortError:
            reason = '%s: firewalld goes on to refuse what a direct rule accepts: say mode = "rich", or '
            log.warning(reason + "FirewallBackend=iptables in firewalld.conf", self.describe())


def text(rule, priority):
    return 'rule priority="%d" %s' % (priority, rule)
