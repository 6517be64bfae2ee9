"""A busy daemon that is killed at random moments, and what must hold whenever it is back.

`Run` sends knocks (new openings, extensions, replays) and SIGHUPs to a real daemon in a namespace, kills it with -9 at
a random point and starts it again. After each start: what is journaled and not over is open, nothing is open that ended
more than a second ago, no packet that was honoured is honoured again, and no command has run more often than it was
asked for. The journal is written anew every few lines. With `console` the device is an FRR router behind a serial line,
which goes on while the daemon does not.
"""

import collections
import os
import random
import signal
import sys
import time

from tests.need import need
from tests.real import net, peers
from tests.real.cables import Cable
from tests.real.test_frr import DAEMON, Edge
from tests.real.test_ports_alike import Place
from tinyknop import Keys, Packet, seal
from tinyknop.journal import Journal

KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
KINDS = ("iptables-nft", "ipset", "nftables", "command", "console")
LATE = 1.0  # seconds by which a hole may outlast its time
SECONDS = (2, 3, 4, 6)  # that a knock asks for
# Seconds after a start within which a device has been told all: a firewall is told before the daemon is ready, these
# are told one by one, so what ends before need not be open. Their knocks ask for more, so that there is little of that.
TOLD = {"command": 1, "console": 2}
SETTLE = 15  # seconds within which all must be as it should be, on a machine that does much else
# The command line, with a journal that is compacted all the time.
BOOT = "import sys; from tinyknop import lines; lines.SPARE = 5; from tinyknop.host.cli import main; sys.exit(main())"
COMMAND = """#!/bin/sh
case $1 in
open) echo "$2" >>"%(held)s/.opened"; : >"%(held)s/$2" ;;
close) rm -f "%(held)s/$2" ;;
esac
"""


class Lab(Place):
    """The network of one kind of port; `command` opens and closes by making and removing a file."""

    def __init__(self, kind):
        super().__init__(kind if kind in KINDS[:3] else "iptables-nft")
        self.by_command, self.by_console = kind == "command", kind == "console"
        self.told = TOLD.get(kind, 0)
        self.seconds = [number + 2 * self.told for number in SECONDS]
        self.edge = None

    def build(self):
        """Makes the namespaces, and the device that outlives the daemon."""
        super().build()
        if self.by_console:
            self.edge = Edge(self, "0 0")
            self.cable = Cable(self, [self.edge.vtysh])

    def remove(self):
        super().remove()
        if self.edge is not None:
            self.edge.remove()

    def daemon(self, ready=True, boot=BOOT):
        """Starts the daemon anew, on the state that the last one left; `boot` is what its Python runs."""
        kind, options = self.kind, None
        if kind.startswith("iptables"):
            kind, options = "iptables", 'binary = "%s"' % self.iptables
        if self.by_command:
            held, script = self.dir + "/held", self.dir + "/door"
            os.makedirs(held, exist_ok=True)
            peers.write(script, COMMAND % {"held": held}, 0o700)
            kind, options = "command", 'open = "%s open $SRC"\nclose = "%s close $SRC"' % (script, script)
        if self.by_console:
            kind, options = "frr", DAEMON.format(device=self.cable.device)
        stanza = peers.toml_stanza(self, openings=(), timeout=30)
        return start(self, stanza, kind, options, ready, boot=boot)

    def sources(self):
        """Returns the sources for which something is open, by the device itself."""
        if self.by_command:
            return {name for name in os.listdir(self.dir + "/held") if name[0] != "."}
        if self.by_console:
            return {line.split()[-1].partition("/")[0] for line in self.edge.lists()}
        if self.kind == "ipset":
            return {entry.partition(",")[0] for entry in peers.elements(self)}
        if self.kind == "nftables":
            text = self.at(self.server, "nft", "list", "set", "inet", "filter", "tinyknop_open4", check=False)
            return {part.split()[-1] for part in text.split(" . tcp . ")[:-1]}
        return {line.split()[3].partition("/")[0] for line in peers.rules(self) if "_exp_" in line}

    def runs(self):
        """Returns how often the open command was run for each source."""
        if not self.by_command or not os.path.exists(self.dir + "/held/.opened"):
            return collections.Counter()
        with open(self.dir + "/held/.opened") as file:
            return collections.Counter(file.read().split())


def start(network, stanza, kind, options, ready=True, words=(), boot=BOOT):
    """Starts a daemon whose journal is compacted all the time; `words` come before its command line."""
    home = os.path.join(network.dir, "serve")
    os.makedirs(home, mode=0o700, exist_ok=True)
    options = 'set = "%s"' % peers.SET if kind == "ipset" and options is None else options or ""
    text = peers.TOML.format(
        state=home + "/state", kind=kind, capture="packet", interface='interface = "eth0"\n', options=options
    )
    path = peers.write(home + "/tinyknop.toml", text + stanza)
    argv = [*words, sys.executable, "-c", boot, "serve", "-c", path]
    daemon = peers.Process(network, network.server, argv)
    daemon.state, daemon.config = home + "/state", path
    if ready:
        daemon.wait_line(peers.SERVE_READY, 30)
    return daemon


class Knock:
    """One packet: when it was sent, the last second at which what it opens may be open."""

    def __init__(self, source, seconds):
        self.source, self.seconds = source, seconds
        self.data = seal(Packet(message="%s,tcp/22" % source, username="alice", client_timeout=seconds), KEYS)
        self.sent = time.time()


class Run:
    """One kind of port, killed again and again; `points` counts how often, `faults` what was wrong then."""

    def __init__(self, kind, seed):
        self.kind, self.rng = kind, random.Random("%s %s" % (kind, seed))
        self.lab = Lab(kind)
        self.knocks, self.proven, self.faults = [], [], []
        self.begun = set()  # sources for which the journal says that a command was about to run
        self.unsaid = set()  # those for which it did not: the kill came between the journal and the command
        self.points = self.hups = self.replayed = self.number = self.killed = self.lived = 0
        self.slowest = 0  # seconds after a start until all was as it should be

    def run(self, points, until=None):
        """Kills so many times, or until a monotonic second; returns what was wrong, and leaves nothing open."""
        with self.lab as lab:
            lab.sender = lab.new_socket(lab.client, kind=net.socket.SOCK_DGRAM)
            with lab.sender:
                daemon = lab.daemon()
                while self.points < points and not (until and time.monotonic() > until):
                    self.busy(daemon)
                    self.killed = time.time()
                    daemon.kill()
                    self.points += 1
                    self.said(daemon)
                    lab.processes.remove(daemon)
                    journal = self.journal(daemon)
                    time.sleep(self.rng.choice((0, 0, 0, 0.5, 2)))
                    daemon = lab.daemon()
                    self.check(daemon, journal)
                    if self.points % 50 == 0:
                        print(self.summary(), flush=True)
                self.end(daemon)
        return self.faults

    def journal(self, daemon):
        """Returns what the journal holds at a kill: {source: the last second that it may be open}."""
        journal = Journal(daemon.state + "/grants.journal")
        grants = [grant for grant, _ in journal.load()]
        self.begun = {grant.source for grant in grants if grant.id in journal.begun}
        return {grant.source: grant.until for grant in grants}

    def wrong(self, text):
        self.faults.append("%s, point %d: %s" % (self.kind, self.points, text))
        print(self.faults[-1], flush=True)

    def summary(self):
        """Returns in a line how it went up to now."""
        counts = (self.kind, self.points, len(self.knocks), self.hups, self.lived, self.replayed, len(self.unsaid))
        said = (
            "%s: killed %d times amidst %d knocks and %d SIGHUPs, %d grants lived, %d replays: %d unsaid, %d faults; "
        )
        return (said + "all in order %.2f s after a start") % (*counts, len(self.faults), self.slowest)

    def said(self, daemon):
        text = daemon.text()
        if "Traceback" in text or "fault in the program" in text:
            self.wrong(text[-3000:])

    def busy(self, daemon):
        """Sends for up to a second, then stops somewhere amidst what a burst of knocks makes the daemon do."""
        for _ in range(self.rng.randrange(4)):
            self.burst(self.rng.randrange(1, 4))
            if self.rng.random() < 0.3:
                daemon.signal(signal.SIGHUP)
                self.hups += 1
            time.sleep(self.rng.random() * 0.3)
        self.burst(self.rng.randrange(1, 13))
        time.sleep(self.rng.random() * self.rng.choice((0.005, 0.05, 0.5)))

    def burst(self, count):
        for _ in range(count):
            known = [one for one in self.knocks[-30:] if one.sent + one.seconds > time.time()]
            if self.proven and self.rng.random() < 0.1:
                self.send(self.rng.choice(self.proven[-50:]))  # a replay amidst it all
                continue
            source = self.rng.choice(known).source if known and self.rng.random() < 0.2 else None
            if source is None:
                self.number += 1
                source = "10.66.%d.%d" % (self.number // 250, self.number % 250 + 1)
            self.knocks.append(Knock(source, self.rng.choice(self.lab.seconds)))
            self.send(self.knocks[-1])

    def send(self, knock):
        self.lab.sender.sendto(knock.data, (net.SERVER, 62201))

    def overdue(self, held, now):
        """Returns the sources that are open although no knock explains it any more."""
        ends = {}
        for one in self.knocks:
            ends[one.source] = max(ends.get(one.source, 0), one.sent + one.seconds + LATE)
        return {source for source in held if ends.get(source, 0) < now}

    def check(self, daemon, certain):
        """What must hold at a start: at once, or (a worker says many commands) soon."""
        began, wanting = time.monotonic(), None
        while True:
            looked, now = time.monotonic() - began, time.time()
            held = self.lab.sources()
            first = now - looked + self.lab.told
            sure = {source for source, end in certain.items() if end > first}
            # One that is over by the time we look counts as missing as well, if it was so from the start.
            missing = {s for s, end in certain.items() if end > time.time() or s in sure & (wanting or set())}
            missing -= held
            late = self.overdue(held, now)
            wanting = missing if wanting is None else wanting & missing
            unsaid = wanting & self.excused()
            if not (wanting - unsaid or late) or looked > SETTLE:
                break
        self.slowest = max(self.slowest, looked)
        self.lived += len(sure)
        self.unsaid |= unsaid
        if wanting - unsaid:
            self.wrong("lost: %s of %s" % (sorted(wanting - unsaid), sorted(held)))
        if late:
            self.wrong("still open: %s" % sorted(late))
        self.replay(daemon, set(certain))

    def asked(self):
        return collections.Counter(one.source for one in self.knocks)

    def excused(self):
        """Returns the sources whose command was about to run at the kill, and was never seen to."""
        runs, asked = self.lab.runs(), self.asked()
        return {source for source in self.begun if runs[source] < asked[source]}

    def replay(self, daemon, known):
        """Packets that were honoured: of sources that the journal knew, the one packet; and any that are older."""
        counts = self.asked()
        sure = [one for one in self.knocks[-60:] if one.source in known and counts[one.source] == 1]
        self.proven += [one for one in sure if one not in self.proven]
        chosen = self.rng.sample(sure, min(len(sure), 5))
        before = peers.status(daemon)["counters"]
        for one in chosen:
            self.send(one)
        deadline = time.monotonic() + SETTLE
        while True:
            now = peers.status(daemon)["counters"]
            refused = now["replay"] - before["replay"]
            if now["granted"] != before["granted"] or refused >= len(chosen) or time.monotonic() > deadline:
                break
            time.sleep(0.01)
        self.replayed += len(chosen)
        if now["granted"] != before["granted"] or refused < len(chosen):
            self.wrong("of %d replays %d were refused: %s" % (len(chosen), refused, now))

    def end(self, daemon):
        """All ends on time, and nothing is left."""
        last = max(one.sent + one.seconds for one in self.knocks) + LATE
        time.sleep(max(0, last - time.time()))
        deadline = time.monotonic() + SETTLE
        while self.lab.sources() or peers.status(daemon)["grants"] or peers.status(daemon)["owed"]:
            if time.monotonic() > deadline:
                self.wrong("left over: %s" % sorted(self.lab.sources()))
                break
            time.sleep(0.05)
        self.said(daemon)
        often = self.lab.runs() - self.asked()
        if often:
            self.wrong("run more often than asked for: %s" % dict(often))


def main(words):
    """faults.py KIND POINTS SEED: kills so often, and says how it went; the exit status is 1 after a fault."""
    kind, points, seed = words[0], int(words[1]), words[2]
    if kind == "console":
        need("vtysh", "zebra")
    run = Run(kind, seed)
    run.run(points)
    print(run.summary())
    return 1 if run.faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
