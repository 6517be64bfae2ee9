"""The daemon: captures to gate to journal to ports, on one loop. Nothing else knows all the parts."""

from collections import deque

from . import capture, compat, log, net
from .control import Door
from .errors import Rejected, TinyknopError
from .gate import STAGES, Decision, Gate
from .grants import Nat, replaced
from .hints import SLOT
from .keeper import Keeper
from .replay import Replay
from .rules import same_family
from .says import Says
from .workers import bare

_STEP = 2000  # ms by which the wall clock must leave the monotonic one to count as stepped
_LOOK_AT_CLOCK = 1000  # ms
_JUNK = set("size prefix http source destination expired hint length key charset hmac replay".split())
_SUMMARY = 60000  # ms between two summaries of refused packets
_REFUSED = 16  # refused packets that are remembered of each sort: a flood wipes out only junk


class Daemon:
    """Holds everything that runs; `start`, `reload` and `stop` are coroutines of the loop."""

    def __init__(self, settings, stanzas, scheduler, says=None, tools=None):
        """`says` has the words for the log; `tools` runs commands and gpg and looks up names, where there is one."""
        self.settings = settings
        self.loop = scheduler
        self.says = says or Says()
        self.tools = tools
        self.over = _over  # called with a reason and an exit status when a capture is through
        self.limit = 0  # packets after which to end; 0: never
        self.counters = {stage: 0 for stage in STAGES}
        self.counters["granted"] = self.counters["commands"] = 0
        # What was refused last, junk and what proved itself: (second, stage, bytes, source, name of a stanza or None).
        self.refused: tuple = (deque((), _REFUSED), deque((), _REFUSED))
        self.knocked = {}  # name of a stanza -> [second of its last knock, how many there were]
        self.captures = []
        self.started = compat.wall()
        self._summed = dict(self.counters)
        self._state_dir = settings.state_dir
        self._replay = self.says.replay = _replay(settings)
        self._door = None if compat.MICROPYTHON else Door(settings.state_dir + "/tinyknop.sock", self._asked)
        self._offset = compat.wall() * 1000 - compat.monotonic()
        self._swept = False
        self._heard = 0  # packets, where there is a limit
        self._slot = None  # the one for which the kernel has the hints
        self._waiting = 0  # datagrams that wait for gpg or a name server
        self.stanzas = stanzas
        self._gate = Gate(stanzas, settings)
        self.keeper = Keeper(settings, stanzas, scheduler, self.says)
        self.watch = None
        self.watch = self._watcher(settings, stanzas)

    async def start(self):
        """Recovers what was open, then listens; raises TinyknopError or OSError where it cannot."""
        try:
            self._replay.load(True)
        except OSError as error:
            # Failing closed: without the cache every packet could be a replay.
            log.error("%s: %s; no knock is accepted", self._replay.path, error)
            self._replay.limit = 0
        heard = self._made(self.settings.captures)
        if not self.settings.test:
            await self.keeper.recover()
        self._gate.advance(compat.wall())
        await self._listen(heard)
        self._compare()
        if self.watch is not None:
            self.watch.start()
        if self._door is not None:
            self._door.open()
        self._watch_clock()
        self._sweep()
        self.loop.at(compat.monotonic() + _SUMMARY, self._sum_up)

    def _watcher(self, settings, stanzas):
        """Returns the log watch that a configuration asks for: the running one where its table is the same, or None."""
        if settings.watch is None or (self.watch is not None and self.watch.serves(settings, stanzas)):
            return settings.watch and self.watch
        from .watch.watcher import Watcher  # nobody else pays for it

        return Watcher(settings, stanzas, self.keeper, self.loop)

    def _exchange(self, watch):
        """Puts another log watch, or None, in the place of the one that runs."""
        old, self.watch = self.watch, watch
        if old is not None and old is not watch:
            old.stop()
        try:
            if watch is not None and old is not watch:
                watch.start()
        except (TinyknopError, OSError) as error:
            log.error("%s; nothing is watched", error)

    def _made(self, wanted):
        """Returns the captures of these tables: running ones where the table is the same, new ones else."""
        running = {str(sorted(bare(one.options).items())): one for one in self.captures}
        made = []
        for options in wanted:
            made.append(running.get(str(sorted(bare(options).items()))) or self._capture(options))
        return made

    def _capture(self, options):
        made = capture.make(options, self.heard)
        made.over = lambda reason, status: self.over(reason, status)
        return made

    async def _listen(self, wanted):
        """Starts the captures that do not run yet, and stops the others; where one fails nothing changes."""
        fresh = [one for one in wanted if one not in self.captures]
        gone = [one for one in self.captures if one not in wanted]
        # Two sockets cannot share a port or a queue; two that sniff can, and then no knock is missed.
        first = [one for one in gone if _kind(one) != "packet" and _kind(one) in map(_kind, fresh)]
        await _leave(first)
        begun = []
        try:
            for one in fresh:
                begun.append(one)
                one.start(self.loop)
        except (TinyknopError, OSError):
            await _leave(begun)
            for one in first:
                self.captures.remove(one)
                self.captures.append(self._capture(one.options))
                self.captures[-1].start(self.loop)
            raise
        await _leave([one for one in gone if one not in first])
        self.captures = wanted

    def heard(self, datagram):
        """Judges a datagram and acts on it; whatever a packet holds, nothing is raised.

        Tells whether it was worth something to anybody: junk makes a capture suspicious of its source.
        """
        decision = self._gate.judge(datagram, compat.wall(), self._replay)
        junk = decision.stage in _JUNK
        if junk:
            self._refuse(decision, datagram)
        else:
            self._act(decision, datagram)
        if self.limit:
            self._heard += 1
            if self._heard == self.limit:
                self.over("Incoming packet count limit of %d reached" % self.limit, 0)
        return not junk

    def _act(self, decision, datagram):
        if decision.packet is not None:
            self.says.read(decision.packet)
        if decision.stage is not None:
            self._refuse(decision, datagram)
            return
        try:
            if decision.pending is not None:
                self._aside(self._unsealed(decision, datagram, []))
            elif decision.command is not None:
                self.says.commanded(decision.command, decision.stanza, datagram)
                self.tools.execute(decision.command, decision.stanza)
                self._count("commands", decision.stanza)
            elif decision.grant.nat is not None and not net.is_address(decision.grant.nat.host):
                self._aside(self._resolved(decision, datagram))
            else:
                self._open(decision.grant, decision.stanza, datagram)
        except Rejected as error:
            self._refuse(turned(decision, error), datagram)

    def _aside(self, work):
        """Runs what cannot be judged at once in a task of its own."""

        async def counted():
            self._waiting += 1
            try:
                await work
            finally:
                self._waiting -= 1

        self.loop.spawn(counted())

    def idle(self):
        """Tells whether nothing is open, owed or being looked at."""
        return not self._waiting and self.keeper.idle() and (self.tools is None or self.tools.idle())

    def _refuse(self, decision, datagram):
        self.counters[decision.stage] += 1
        name = None if decision.stanza is None else decision.stanza.name
        row = (compat.wall(), decision.stage, len(datagram.payload), datagram.source, name)
        self.refused[name is not None].append(row)
        self.says.refused(decision, datagram)

    def _count(self, what, stanza):
        self.counters[what] += 1
        row = self.knocked.setdefault(stanza.name, [0, 0])
        row[:] = [compat.wall(), row[1] + 1]

    async def _unsealed(self, decision, datagram, opened):
        """Has GPG open a message, then judges the datagram again; one that fails for a stanza goes on to the next."""
        group, message = decision.pending
        try:
            plain, fault = await self.tools.opened(message, group.gpg)
        except Rejected as error:
            plain, fault = None, error
        opened.append((group, plain, fault))
        again = self._gate.judge(datagram, compat.wall(), self._replay, opened)
        if again.pending is None:
            self._act(again, datagram)
        elif again.pending.group is not group:
            await self._unsealed(again, datagram, opened)

    async def _resolved(self, decision, datagram):
        """Opens a NAT grant whose inside host is a name."""
        grant, gate = decision.grant, self._gate
        try:
            if not self.settings.nat_dns or self.tools is None:
                raise Rejected("nat", "Received Hostname in NAT SPA message, but hostname is disabled.")
            nat = list(grant.nat)
            nat[1] = await self.tools.resolve(grant.nat.host)
            if self._gate is not gate:  # its stanza may be gone
                raise Rejected("nat", "the configuration was changed meanwhile")
            self._open(replaced(grant, nat=same_family(grant.source, Nat(*nat))), decision.stanza, datagram)
        except Rejected as error:
            self._refuse(turned(decision, error), datagram)

    def _open(self, grant, stanza, datagram):
        grant = self.opened(grant, stanza.ports, stanza.require_all)
        self.says.opened(grant, stanza, datagram)
        for name in stanza.ports:
            if name in self.keeper.workers and self.keeper.workers[name].failure is not None:
                log.warning("port %s is down: grant %d is not open there yet", name, grant.id)
        self._count("granted", stanza)

    def opened(self, grant, *how):
        """Has the keeper open a grant, and ends the block of its source."""
        grant = self.keeper.open(grant, *how)
        if self.watch is not None:
            self.watch.granted(grant)
        return grant

    def _compare(self):
        """Tells the kernel which hints there are, anew in each slot."""
        now = compat.wall()
        self._slot = now // SLOT
        words = self._gate.words(now)
        for one in self.captures:
            capture.compare(one, words, self._gate.only_hinted)

    def _watch_clock(self):
        """Sees a step of the wall clock against the monotonic one, and re-times what is live."""
        offset = compat.wall() * 1000 - compat.monotonic()
        if abs(offset - self._offset) >= _STEP:
            self._stepped((offset - self._offset) // 1000)
            self._offset = offset
        self._gate.advance(compat.wall())
        if compat.wall() // SLOT != self._slot:
            self._compare()
        self.loop.at(compat.monotonic() + _LOOK_AT_CLOCK, self._watch_clock)

    def _sweep(self):
        """Looks from time to time at what others did to the devices."""
        if self._swept and self.settings.sweep:
            self.keeper.resync()
        self._swept = True
        self.loop.at(compat.monotonic() + (self.settings.sweep or _SUMMARY) * 1000, self._sweep)

    def _stepped(self, seconds):
        log.warning("the clock was set by %d s; what is open keeps the time it has left", seconds)
        self.keeper.stepped(seconds)
        try:
            self._replay.stepped(seconds)
        except OSError as error:
            log.warning("%s: cannot be written anew: %s", self._replay.path, error)

    def _sum_up(self):
        """Logs how many packets were refused since the last time, by stage."""
        news = [(s, self.counters[s] - self._summed[s]) for s in STAGES if self.counters[s] > self._summed[s]]
        if news:
            self.says.summed(news)
        self._summed = dict(self.counters)
        self.loop.at(compat.monotonic() + _SUMMARY, self._sum_up)

    async def reload(self, settings, stanzas):
        """Takes a new configuration; live grants stay. Raises, with the old one still in force, where it cannot run."""
        heard = self._made(settings.captures)
        gate = Gate(stanzas, settings)
        gate.advance(compat.wall())
        watch = self._watcher(settings, stanzas)
        replay = self._replay
        if settings.state_dir != self._state_dir:  # at which only a start looks: until then all stays in the old one
            settings.digest_file = replay.path
        if (replay.path, replay.enabled) != (settings.digest_file, settings.replay):
            replay = _replay(settings)
            replay.load()
        changed = await self.keeper.change(settings, stanzas)
        try:
            await self._listen(heard)
        except (TinyknopError, OSError):
            await self.keeper.settle(changed, False)
            raise
        if replay is not self._replay and replay.enabled:
            replay.adopt(self._replay)
        self.settings, self.stanzas, self._gate = settings, stanzas, gate
        self._replay = self.says.replay = replay
        self._replay.ageing, self._replay.max_age = settings.ageing, settings.max_age
        self._compare()
        await self.keeper.settle(changed, True)
        self._exchange(watch)

    async def stop(self):
        """Stops listening, closes what is open (unless the settings keep it), and leaves the devices."""
        if self._door is not None:
            self._door.close()
        if self.watch is not None:
            self.watch.stop()
        await _leave(self.captures)
        await self.keeper.stop()

    def _asked(self, words):
        from . import desk  # nobody asks on a board

        return desk.answer(self, words)


def _replay(settings):
    return Replay(settings.digest_file, settings.ageing, settings.max_age, settings.replay)


def _kind(one):
    return one.options.get("kind") or "packet"


async def _leave(captures):
    for task in [one.stop() for one in captures]:
        if task is not None:  # one that has rules to take away
            await task


def _over(reason, status):
    log.error("%s", reason)


def turned(decision, error):
    """Returns a refusal in the place of a decision that could not be carried out."""
    return Decision(None, None, error.stage, error.reason, decision.stanza, decision.packet, None)
