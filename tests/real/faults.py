"""A busy daemon that is killed at random moments, and what must hold whenever it is back.

`Run` sends knocks (new openings, extensions, replays) and SIGHUPs to a real daemon in a namespace, kills it with -9 at
a random point and starts it again. After each start: what is journaled and not over is open, nothing is open that ended
more than a second ago, and no packet that was honoured is honoured again. The journal is written anew every few lines.
"""

import os
import random
import signal
import sys
import time

from tests.real import net, peers
from tests.real.test_ports_alike import Place
from tinyknop import Keys, Packet, seal
from tinyknop.journal import Journal

KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
KINDS = ("iptables-nft", "ipset", "nftables", "command")
SECONDS = (2, 3, 4, 6)  # that a knock asks for
LATE = 1.0  # seconds by which a hole may outlast its time
SAID = 3  # seconds within which a command was run, one after the other, unless the daemon was killed
SETTLE = 15  # seconds within which all must be as it should be, on a machine that does much else
# The command line, with a journal that is compacted all the time.
BOOT = "import sys; from tinyknop import lines; lines.SPARE = 5; from tinyknop.host.cli import main; sys.exit(main())"
COMMAND = """#!/bin/sh
case $1 in
open) : >"%(held)s/$2" ;;
close) rm -f "%(held)s/$2" ;;
esac
"""


class Lab(Place):
    """The network of one kind of port; `command` opens and closes by making and removing a file."""

    def __init__(self, kind):
        super().__init__("iptables-nft" if kind == "command" else kind)
        self.by_command = kind == "command"

    def daemon(self, ready=True):
        """Starts the daemon anew, on the state that the last one left."""
        kind, options = self.kind, None
        if kind.startswith("iptables"):
            kind, options = "iptables", 'binary = "%s"' % self.iptables
        if self.by_command:
            held, script = self.dir + "/held", self.dir + "/door"
            os.makedirs(held, exist_ok=True)
            peers.write(script, COMMAND % {"held": held}, 0o700)
            kind, options = "command", 'open = "%s open $SRC"\nclose = "%s close $SRC"' % (script, script)
        stanza = peers.toml_stanza(self, openings=(), timeout=30)
        return start(self, stanza, kind, options, ready)

    def sources(self):
        """Returns the sources for which something is open."""
        if self.by_command:
            return set(os.listdir(self.dir + "/held"))
        if self.kind == "ipset":
            return {entry.partition(",")[0] for entry in peers.elements(self)}
        if self.kind == "nftables":
            text = self.at(self.server, "nft", "list", "set", "inet", "filter", "tinyknop_open4", check=False)
            return {part.split()[-1] for part in text.split(" . tcp . ")[:-1]}
        return {line.split()[3].partition("/")[0] for line in peers.rules(self) if "_exp_" in line}


def start(network, stanza, kind, options, ready=True, words=(), env=None):
    """Starts a daemon whose journal is compacted all the time; `words` come before its command line."""
    home = os.path.join(network.dir, "serve")
    os.makedirs(home, mode=0o700, exist_ok=True)
    options = 'set = "%s"' % peers.SET if kind == "ipset" and options is None else options or ""
    text = peers.TOML.format(
        state=home + "/state", kind=kind, capture="packet", interface='interface = "eth0"\n', options=options
    )
    path = peers.write(home + "/tinyknop.toml", text + stanza)
    argv = [*words, sys.executable, "-c", BOOT, "serve", "-c", path]
    daemon = peers.Process(network, network.server, argv, env)
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
        self.unsaid = set()  # sources whose command waited for its turn at a kill: nobody runs it later
        self.points = self.hups = self.replayed = self.number = self.killed = 0
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
                    journal = Journal(daemon.state + "/grants.journal").load()
                    time.sleep(self.rng.choice((0, 0, 0, 0.5, 2)))
                    daemon = lab.daemon()
                    self.check(daemon, journal)
                self.end(daemon)
        return self.faults

    def wrong(self, text):
        self.faults.append("%s, point %d: %s" % (self.kind, self.points, text))

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
            self.knocks.append(Knock(source, self.rng.choice(SECONDS)))
            self.send(self.knocks[-1])

    def send(self, knock):
        self.lab.sender.sendto(knock.data, (net.SERVER, 62201))

    def overdue(self, held, now):
        """Returns the sources that are open although no knock explains it any more."""
        ends = {}
        for one in self.knocks:
            ends[one.source] = max(ends.get(one.source, 0), one.sent + one.seconds + LATE)
        return {source for source in held if ends.get(source, 0) < now}

    def check(self, daemon, journal):
        """What must hold at a start: at once, or (a worker says many commands) soon."""
        certain = {grant.source: grant.until for grant, _ in journal}
        began, wanting = time.monotonic(), None
        recent = {one.source for one in self.knocks if one.sent > self.killed - SAID}
        while True:
            looked, now = time.monotonic() - began, time.time()
            held = self.lab.sources()
            # One that is over by the time we look counts as missing as well, if it was so from the start.
            missing = {s for s, until in certain.items() if until > time.time() or wanting and s in wanting} - held
            late = self.overdue(held, now)
            wanting = missing if wanting is None else wanting & missing
            if self.lab.by_command and looked > SAID:
                self.unsaid |= wanting & recent
                wanting -= self.unsaid
            if not (wanting or late) or looked > SETTLE:
                break
        self.slowest = max(self.slowest, looked)
        if wanting:
            self.wrong("lost: %s of %s" % (sorted(wanting), sorted(held)))
        if late:
            self.wrong("still open: %s" % sorted(late))
        self.replay(daemon, set(certain))

    def replay(self, daemon, known):
        """Packets that were honoured: of sources that the journal knew, the one packet; and any that are older."""
        counts = {}
        for one in self.knocks:
            counts[one.source] = counts.get(one.source, 0) + 1
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


def main(words):
    """faults.py KIND POINTS SEED: kills so often, and says how it went; the exit status is 1 after a fault."""
    kind, points, seed = words[0], int(words[1]), words[2]
    run = Run(kind, seed)
    faults = run.run(points)
    print("\n".join(faults))
    counts = (kind, run.points, len(run.knocks), run.hups, run.replayed, len(run.unsaid), len(faults), run.slowest)
    said = "%s: killed %d times amidst %d knocks and %d SIGHUPs, %d replays: %d unsaid, %d faults; "
    said += "all in order %.2f s after a start"
    print(said % counts)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
