"""Every row of `scenarios.py` with fwknop's and tinyknop's client against fwknopd and tinyknop's daemon, all real.

The two daemons run in two namespaces with one address, behind a bridge that learns nothing: one packet reaches both, so
both must make the same of it. Rows that start their daemons alike share one start. A row is over when both have granted
a knock that was sent after its packets, so nothing here waits for something not to happen.
"""

import base64
import hashlib
import os
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections import namedtuple

import pytest

from tests.need import lacking, need
from tests.real import net, peers
from tests.real.scenarios import BROKEN, COUNTED, FLUSHED, FLUSHES, HANDED_OVER, RECORDED, REPLAYED, SCENARIOS
from tinyknop import Keys, Packet, seal

CLIENTS = {"fwknop": ["fwknop"], "tinyknop": [*peers.PYTHON, "-m", "tinyknop", "fwknop"]}
SERVERS = {"fwknopd": ["fwknopd"], "tinyknop": [*peers.PYTHON, "-m", "tinyknop", "fwknopd"]}
SOURCES = {"fwknop": "10.99.0.2", "tinyknop": "10.99.0.3"}
OTHERS = {"fwknop": "10.99.0.12", "tinyknop": "10.99.0.13"}  # a second address of the same client
LAST = "10.99.0.9"  # where the knock comes from that ends a row
LAST_KEYS = Keys(key=b"the key of the last knock", hmac_key=b"the HMAC key of the last knock")
LAST_SECONDS = 5
LAST_STANZA = peers.stanza(
    LAST, LAST_KEYS.key, LAST_KEYS.hmac_key, open_ports=None, fw_access_timeout=str(LAST_SECONDS)
)
MAC = "02:00:00:00:00:01"
# fwknopd sleeps 0.1 s after each look at the wire, and sweeps all chains after every 20: more often, and less.
CONF = """PCAP_INTF eth0;
PCAP_FILTER udp port 62201;
FIREWALL_EXE /usr/sbin/iptables;
PCAP_LOOP_SLEEP 10000;
UDPSERV_SELECT_TIMEOUT 10000;
RULES_CHECK_THRESHOLD 300;
"""
NOTE = """#!/bin/sh
# Says who runs it, and with which arguments, in a file named by the first.
name=$1; shift
printf '%s %s %s\\n' "$(id -un)" "$(id -Gn | tr ' ' ,)" "$*" > WORLD/out/.$name$$
mv WORLD/out/.$name$$ WORLD/out/$name
"""
GPG_KEY = """%%no-protection
Key-Type: RSA
Key-Length: 2048
Key-Usage: sign,encrypt
Name-Real: %s
"""
READY = ("Starting fwknopd main event loop.", "Kicking off UDP server to listen on port")
# Additions of our rules that the documentation names: the kernel's own end of a rule, the inside host of a forward.
OURS = (
    (re.compile(r" -m time(?: --date\w+ \S+)*(?: --utc| --kerneltz| --contiguous)*"), ""),
    (re.compile(r"^(FORWARD -s \S+) -d \S+ (.*-j ACCEPT)"), r"\1 \2"),
)

Seen = namedtuple("Seen", "status rules files cached says after")


class Twins(net.Net):
    """Two clients and two servers on one bridge that floods; both servers have one address."""

    def __init__(self):
        super().__init__(clients=2)
        tag = self.server[:-1]
        self.hub, self.twin = tag + "h", tag + "t"
        self.servers = {"fwknopd": self.server, "tinyknop": self.twin}
        self.client_of = dict(zip(CLIENTS, self.clients))
        self.base = {}

    def build(self):
        for name in (self.hub, self.server, self.twin, *self.clients):
            net.run("ip", "netns", "add", name)
            self.at(name, "ip", "link", "set", "lo", "up")
        self.at(self.hub, "ip", "link", "add", "hub", "type", "bridge", "ageing_time", "0")
        self.at(self.hub, "ip", "link", "set", "hub", "up")
        for kind, name in self.servers.items():
            self.plug(kind + "-s", name, [net.SERVER], MAC)
            for words in (
                "-P INPUT DROP",
                "-A INPUT -i lo -j ACCEPT",
                "-A INPUT -p tcp -m multiport --dports 80,62202 -j ACCEPT",
                "-A INPUT -p udp --dport 62201 -j ACCEPT",
                "-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT",
            ):
                self.at(name, "iptables", "-w", *words.split())
            self.base[kind] = self.at(name, "iptables-save", "-t", "filter")
        for kind, name in self.client_of.items():
            self.plug(kind + "-c", name, [SOURCES[kind], OTHERS[kind], *([LAST] if kind == "fwknop" else [])])
            self.at(name, "ip", "neigh", "replace", net.SERVER, "lladdr", MAC, "dev", "eth0", "nud", "permanent")

    def plug(self, port, namespace, addresses, mac=None):
        """Joins a namespace to the bridge."""
        words = "ip link add %s netns %s type veth peer name eth0 netns %s" % (port, self.hub, namespace)
        net.run(*words.split())
        self.at(self.hub, "ip", "link", "set", port, "master", "hub", "up")
        self.at(self.hub, "bridge", "link", "set", "dev", port, "learning", "off", "flood", "on")
        for address in addresses:
            self.at(namespace, "ip", "addr", "add", address + "/24", "dev", "eth0")
        if mac:
            self.at(namespace, "ip", "link", "set", "eth0", "address", mac)
        self.at(namespace, "ip", "link", "set", "eth0", "up")

    def remove(self):
        super().remove()
        for name in (self.hub, self.twin):
            net.run("ip", "netns", "del", name, check=False)

    def hearing(self, kinds):
        """Lets only these servers hear the clients."""
        for kind in self.servers:
            state = "on" if kind in kinds else "off"
            self.at(self.hub, "bridge", "link", "set", "dev", kind + "-s", "flood", state)

    def quick(self, namespace, argv, env=None, timeout=20, text=None):
        """Runs a command in a namespace without a further process; returns (status, output)."""

        def call():
            done = subprocess.run(
                argv,
                input=text,
                stdin=None if text else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                env=env,
                cwd=self.dir,
            )
            return done.returncode, done.stdout.decode("utf-8", "replace")

        return self.inside(namespace, call)


def normalised(text, kind, since, until, seconds):
    """Returns the rules of fwknop's chains: their time as +SECONDS, without what is implied and what ours add."""
    found = []
    for chain, match, end, target in re.findall(
        r"^-A FWKNOP_(\w+) (.*?) ?-m comment --comment \"?_exp_(\d+)\"?(.*)$", text, re.M
    ):
        start = int(end) - seconds
        when = "+%d" % seconds if int(since) <= start <= until else "+%d?" % (int(end) - int(since))
        line = "%s %s%s %s" % (chain, match, target, when)
        line = re.sub(r" -m (tcp|udp)\b", "", line.replace("/32", ""))
        if kind == "tinyknop":
            for pattern, instead in OURS:
                line = pattern.sub(instead, line)
        found.append(line)
    return found


def news(before, after):
    """Returns what is in one list and was not in the other, in order."""
    left = list(before)
    fresh = []
    for item in after:
        if item in left:
            left.remove(item)
        else:
            fresh.append(item)
    return fresh


class Daemon:
    """One of the two daemons with its own view of the common folder."""

    def __init__(self, stage, kind):
        self.stage, self.kind = stage, kind
        self.network = stage.network
        self.namespace = stage.network.servers[kind]
        self.folder = os.path.join(stage.network.dir, kind)
        self.process = None
        self.failed, self.deaf = None, False
        self.digest_file = "run/digest.cache"
        self.mark = 0

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def lay_out(self, files):
        """Makes the folder anew with these files; the digest cache of a former run is gone."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.makedirs(self.path("run"), mode=0o700)
        os.makedirs(self.path("out"))
        os.chmod(self.path("out"), 0o1777)
        os.chmod(self.folder, 0o755)
        for name, text in dict(files, note=NOTE.replace("WORLD", self.stage.world)).items():
            os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
            peers.write(self.path(name), text)
            os.chmod(self.path(name), 0o755 if text.startswith("#!") else 0o600)

    def argv(self, *more):
        """Returns the words that start the daemon where `world` is its own folder."""
        place = self.stage.world + "/"
        options = ["-f", "-c", place + "fwknopd.conf", "-a", place + "access.conf", "-r", place + "run"]
        mount = 'mount --bind "$0" "$1" && shift && exec "$@"'
        known = ["setpriv", "--groups", "adm"]  # whatever groups the tests run with
        return ["sh", "-c", mount, self.folder, self.stage.world, *known, *SERVERS[self.kind], *options, *more]

    def begin(self, *more):
        """Starts the daemon."""
        self.failed, self.deaf = None, False
        self.process = peers.Process(self.network, self.namespace, self.argv(*more))

    def wait_ready(self):
        """Waits until the daemon listens; remembers where it does not."""
        deadline = time.monotonic() + 8
        while not any(line in self.process.text() for line in READY):
            if time.monotonic() > deadline or not self.process.reader.is_alive():
                self.failed = "did not start:\n" + self.said()
                return
            with self.process.news:
                self.process.news.wait(0.05)

    def said(self):
        """Returns the end of the output without the warnings that most stanzas cause."""
        return "\n".join([line for line in self.process.lines if "Warning: REQUIRE" not in line][-40:])

    def halt(self):
        """Ends the daemon; returns the exit status."""
        if self.process is None:
            return None
        status = self.process.stop()
        self.network.processes.remove(self.process)
        self.process = None
        return status

    def end(self):
        """Ends the daemon and puts the firewall back; returns the exit status."""
        status = self.halt()
        self.network.quick(self.namespace, ["iptables-restore"], text=self.network.base[self.kind].encode())
        self.network.quick(self.namespace, ["iptables-restore"], text=b"*nat\nCOMMIT\n")
        return status

    def firewall(self):
        """Returns iptables-save's text."""
        return self.network.quick(self.namespace, ["iptables-save"])[1]

    def cache(self):
        """Returns the lines of the digest cache that are not those of last knocks."""
        lines = self.digests().splitlines()
        return [line for line in lines if not line.startswith("#") and " %s " % LAST not in line]

    def digests(self):
        """Returns the text of the digest cache."""
        try:
            with open(self.path(self.digest_file)) as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def files(self):
        """Returns {name: (owner, text)} of what commands wrote."""
        found = {}
        for name in sorted(os.listdir(self.path("out"))):
            if not name.startswith("."):
                with open(self.path("out", name)) as file:
                    found[name] = file.read().strip()
        return found


class Look:
    """What a daemon had done up to a moment."""

    def __init__(self, daemon):
        self.rules = re.findall(r"^-A FWKNOP_.*$", daemon.firewall(), re.M)
        self.cache = daemon.cache()
        self.files = daemon.files()
        self.line = daemon.process.mark()


class Stage:
    """Runs rows; keeps what came of them, and the daemons of the last one."""

    def __init__(self, network):
        self.network = network
        self.world = os.path.join(network.dir, "world")
        os.mkdir(self.world)
        os.chmod(network.dir, 0o755)
        for kind in CLIENTS:
            os.mkdir(self.home(kind), 0o700)
        self.daemons = {kind: Daemon(self, kind) for kind in SERVERS}
        self.now = None
        self.outcomes = {}
        self.last = 0
        self.rings = {}

    def home(self, client):
        return os.path.join(self.network.dir, "home-" + client)

    # -- starting -------------------------------------------------------------------------------------------------

    def setup(self, scenario):
        """Returns the rows that start their daemons as this one does."""
        if scenario.alone:
            return [scenario]
        return [one for one in SCENARIOS if not one.alone and start_of(one) == start_of(scenario)]

    def files(self, rows):
        """Returns {path: text} of the configuration of rows that share a start."""
        conf, access = CONF + self.common(rows[0].conf, rows[0]), LAST_STANZA
        if rows[0].last == "cycle":
            access += "CMD_CYCLE_OPEN /bin/touch %s/out/.$SRC\nCMD_CYCLE_CLOSE NONE\n" % self.world
        files = {}
        for row in rows:
            access += "\n" + self.common(row.access, row).rstrip("\n") + "\n"
            for name, text in row.also.items():
                files[self.common(name, row)] = self.common(text, row)
        files.update({"fwknopd.conf": conf, "access.conf": access})
        return files

    def start(self, scenario):
        """Starts both daemons for a row unless they already run as it wants."""
        rows = self.setup(scenario)
        if self.now == rows:
            return
        self.stop()
        files = self.files(rows)
        for daemon in self.daemons.values():
            daemon.lay_out(files)
            daemon.digest_file = scenario.digest
        self.launch(scenario)
        self.now = rows

    def launch(self, row, *more):
        """Starts both daemons on the files that they have."""
        for daemon in self.daemons.values():
            daemon.begin(*shlex.split(self.common(row.argv, row)), *more)
        for daemon in self.daemons.values():
            daemon.wait_ready()

    def stop(self):
        self.now = None
        for daemon in self.daemons.values():
            daemon.end()

    # -- words of a row -------------------------------------------------------------------------------------------

    def common(self, text, row):
        """Fills in what does not depend on the client."""
        key, hmac = keys_of(row)
        known = {
            "{key}": peers.base64_text(key),
            "{hmac}": peers.base64_text(hmac),
            "{world}": self.world,
            "{dir}": self.network.dir,
            "{last-stanza}": LAST_STANZA,
            "{n}": str(number_of(row)),
            "{long}": "x" * 255,
        }
        if "{gpg" in text:
            known.update(self.gpg())
        for word, value in known.items():
            text = text.replace(word, value)
        return text

    def filled(self, text, row, client):
        """Fills in all placeholders of a text of a row."""
        number = number_of(row)
        known = {
            "{keys}": "--key-base64-rijndael {key} --use-hmac --key-base64-hmac {hmac}",
            "{ip}": "198.18.%d.%s" % (number, SOURCES[client].rsplit(".", 1)[1]),
            "{src}": SOURCES[client],
            "{other}": OTHERS[client],
            "{packet}": os.path.join(self.home(client), "packet-%d" % number),
            "{home}": self.home(client),
            "{client}": client,
            "{last}": SOURCES[client].rsplit(".", 1)[1],
        }
        for word, value in known.items():
            text = text.replace(word, value)
        return self.common(text, row)

    def gpg(self):
        """Returns the placeholders of the two keyrings, which are made when they are first asked for."""
        if not self.rings:
            home = os.path.join(self.network.dir, "gpg")
            self.rings["{gpg}"] = home
            for kind in ("server", "client"):
                os.makedirs(os.path.join(home, kind), 0o700)
                ask = peers.write(home + "/ask", GPG_KEY % kind)
                net.run("gpg", "--homedir", home + "/" + kind, "--batch", "--gen-key", ask)
                listing = net.run("gpg", "--homedir", home + "/" + kind, "--with-colons", "--list-keys")
                mark = re.search(r"^fpr:+([0-9A-F]{40}):", listing, re.M).group(1)
                self.rings.update({"{gpg-%s-fingerprint}" % kind: mark, "{gpg-%s}" % kind: mark[-8:]})
            for kind, other in (("server", "client"), ("client", "server")):
                key = home + "/" + other + ".pub"
                net.run("gpg", "--homedir", home + "/" + other, "-o", key, "--export")
                net.run("gpg", "--homedir", home + "/" + kind, "--import", key)
                net.run("gpg", "--homedir", home + "/" + kind, "--import-ownertrust", self.trust(home, other))
        return self.rings

    def trust(self, home, kind):
        """Returns a file that says this key is trusted."""
        return peers.write(home + "/trust", self.rings["{gpg-%s-fingerprint}" % kind] + ":6:\n")

    def close(self):
        """Ends the daemons, and the agents that gpg started."""
        self.stop()
        for kind in ("server", "client") if self.rings else ():
            home = self.rings["{gpg}"] + "/" + kind
            net.run("gpgconf", "--homedir", home, "--kill", "all", check=False)

    # -- one row --------------------------------------------------------------------------------------------------

    def observe(self, row):
        """Returns {(client, server): Seen or the text of what went wrong}."""
        if row.name not in self.outcomes:
            self.start(row)
            found = self.outcomes[row.name] = {}
            before = {}
            for client in CLIENTS:
                self.knock(row, client, found, before)
            if row.after is not None:
                self.look_later(row, found, before)
            if any(daemon.failed and daemon.deaf for daemon in self.daemons.values()):
                self.now = None  # the next row gets new ones
        return self.outcomes[row.name]

    def knock(self, row, client, found, before):
        """Sends one client's packets of a row, waits until all are judged, and writes down what came of them."""
        awake = {kind: daemon for kind, daemon in self.daemons.items() if not daemon.failed}
        for kind, daemon in self.daemons.items():
            found[client, kind] = daemon.failed
        if not all("{ip}" in rule or "{src}" in rule for rule in (*row.rules, *row.ours.get("rules", ()))):
            self.pause("", row, client)  # or both clients' knocks would make one and the same rule
        since = time.time()
        before.update({(client, kind): (since, Look(daemon)) for kind, daemon in awake.items()})
        for name, text in row.rc.items():
            path = peers.write(os.path.join(self.home(client), name), self.filled(text, row, client))
            os.chmod(path, 0o700 if text.startswith("#!") else 0o600)
        status = 0
        for step in row.client:
            for hearing in [[kind] for kind in SERVERS] if row.apart else [None]:
                if hearing:
                    self.network.hearing(hearing)
                status, said = self.step(step, row, client)
                if status != wanted_of(row, "fwknopd", client).status:
                    found.update({(client, kind): "status %s of the client: %s" % (status, said) for kind in SERVERS})
            if row.apart:
                self.network.hearing(list(SERVERS))
        self.last_knock(row, awake)
        for kind, daemon in awake.items():
            if found[client, kind] is None:
                found[client, kind] = self.settled(row, client, daemon, *before[client, kind], status)

    def step(self, step, row, client):
        """Takes one step of a row: runs the client, or sends its last packet once more; returns (status, output)."""
        namespace = self.network.client_of[client]
        words = step.split()
        if words[0] in ("pause", "resend", "web"):
            try:
                getattr(self, words[0])(step, row, client)
            except OSError as error:
                return None, "%s: %s" % (step, error)
            return wanted_of(row, "fwknopd", client).status, ""
        env = dict(os.environ, HOME=self.home(client), PYTHONPATH=peers.PYTHONPATH, LC_ALL="C", LOGNAME="root")
        argv = CLIENTS[client] + shlex.split(self.filled(step, row, client))
        return self.network.quick(namespace, argv, env)

    def pause(self, step, row, client):
        """Waits until rules have another time."""
        time.sleep(1.1)

    def resend(self, step, row, client):
        """Sends the saved packet by a UDP socket, changed as the words of the step say."""
        data, source = self.saved(row, client), SOURCES[client]
        for word in step.split()[1:]:
            if word == "elsewhere":
                source = OTHERS[client]
            else:
                data = CHANGES[word](data)
        self.send(data, self.network.client_of[client], source)

    def web(self, step, row, client):
        """Asks a web server for the saved packet, with the headers of the step."""
        path = self.saved(row, client).decode().replace("+", "-").replace("/", "_")
        lines = ["GET /%s HTTP/1.1" % path, "Host: 10.99.0.1", *self.filled(step, row, client)[4:].split("|"), "", ""]
        with self.network.new_socket(self.network.client_of[client]) as sender:
            sender.settimeout(3)
            sender.connect((net.SERVER, 80))
            sender.sendall("\r\n".join(lines).encode())
            sender.recv(64)

    def saved(self, row, client):
        with open(self.filled("{packet}", row, client), "rb") as file:
            return file.read().strip()

    def send(self, data, namespace, source, port=62201):
        with self.network.new_socket(namespace, socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((source, 0))
            sender.sendto(data, (net.SERVER, port))

    def last_knock(self, row, awake):
        """Knocks after a row's packets and waits until all daemons have granted that."""
        self.last += 1
        allowed = "203.0.113.%d" % (self.last % 250 + 1)
        data = seal(Packet(message=allowed + ",tcp/9", username="last"), LAST_KEYS)
        for daemon in awake.values():
            daemon.mark = daemon.process.mark()
        self.send(data, self.network.clients[0], LAST)
        digest = base64.b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
        for kind, daemon in awake.items():
            if not wait(lambda daemon=daemon: self.judged(row, daemon, allowed, digest), 5):
                daemon.deaf = True
                daemon.failed = "the last knock of row %r was not granted by %s:\n%s" % (row.name, kind, daemon.said())

    def judged(self, row, daemon, allowed, digest):
        """True once a daemon is through with the last knock."""
        if row.last == "log":
            return any(LAST in line and "--test mode" in line for line in daemon.process.lines[daemon.mark :])
        if row.last == "refused" and daemon.kind == "tinyknop":
            return any(LAST in line and "digest" in line for line in daemon.process.lines[daemon.mark :])
        if row.last == "cycle":
            return os.path.exists(daemon.path("out", "." + allowed))
        if row.last not in ("unremembered", "refused") and digest not in daemon.digests():
            return False
        return "-s %s/32" % allowed in daemon.firewall()

    def settled(self, row, client, daemon, since, look, status):
        """Returns what is seen; commands and gpg are other processes, which a later knock may overtake."""
        wanted = self.expected(row, client, daemon.kind)._replace(after=None)
        deadline = time.monotonic() + 1.5
        while True:
            seen = self.seen(row, client, daemon, since, look, status)
            if seen == wanted or time.monotonic() > deadline:
                return seen
            time.sleep(0.01)

    def seen(self, row, client, daemon, since, look, status):
        """Returns what a daemon made of one client's packets."""
        wanted = wanted_of(row, daemon.kind, client)
        rules = self.rules(row, daemon, since, look)
        log = "\n".join(daemon.process.lines[look.line :])
        said = wanted.says is None or self.filled(wanted.says, row, client) in log
        cached = len(daemon.cache()) - len(look.cache)
        files = self.fresh_files(daemon, look, since, row.seconds)
        return Seen(status, rules, files, cached, wanted.says if said else "not said:\n" + log, None)

    def rules(self, row, daemon, since, look):
        """Returns the rules that came since a look, normalised, without those of last knocks."""
        lines = re.findall(r"^-A FWKNOP_.*$", daemon.firewall(), re.M)
        fresh = [line for line in news(look.rules, lines) if "203.0.113." not in line]
        seconds = wanted_of(row, daemon.kind).seconds
        rules = normalised("\n".join(fresh), daemon.kind, since, time.time(), seconds)
        return sorted(rules, key=lambda line: line.split()[0])

    def fresh_files(self, daemon, look, since, seconds):
        """Returns the files that commands wrote since a look; Unix times in them as <now+SECONDS>."""

        until = time.time()

        def relative(match):
            start = int(match.group()) - seconds
            return "<now+%d>" % (seconds if int(since) <= start <= until else start)

        found = daemon.files()
        return {name: re.sub(r"\b[12]\d{9}\b", relative, found[name]) for name in found if name not in look.files}

    def look_later(self, row, found, before):
        """Waits until what a row left behind is as its `after` says."""
        deadline = time.monotonic() + row.seconds + 4
        for (client, kind), seen in list(found.items()):
            if isinstance(seen, Seen):
                wanted = self.expected_later(row, client, kind)
                state = None
                while state is None or (state != wanted and time.monotonic() < deadline):
                    time.sleep(0.02)
                    state = self.left(row, client, self.daemons[kind], *before[client, kind])
                found[client, kind] = seen._replace(after=state)

    def left(self, row, client, daemon, since, look):
        """Returns what is there by now of one client's packets, the other client's left out."""
        own = self.filled("{ip}", row, client)
        files = self.fresh_files(daemon, look, since, row.seconds)
        return {
            "rules": self.mine(self.rules(row, daemon, since, look), row, client),
            "files": {name: text for name, text in files.items() if own in name},
        }

    def mine(self, rules, row, client):
        """Returns the rules that one client's packets made."""
        others = [self.filled(word, row, one) for one in CLIENTS if one != client for word in ("-s {ip} ", "-s {src} ")]
        return [rule for rule in rules if not any(word in rule for word in others)]

    def expected_later(self, row, client, server):
        """Returns what a row says must be left, None where it does not say."""
        wanted = row.ours.get("after", row.after) if server == "tinyknop" else row.after
        if wanted is None:
            return None
        files = wanted.get("files", {})
        return {
            "rules": [self.filled(rule, row, client) for rule in wanted.get("rules", ())],
            "files": {self.filled(n, row, client): self.filled(text, row, client) for n, text in files.items()},
        }

    def expected(self, row, client, server):
        """Returns what a row says must be seen."""
        wanted = wanted_of(row, server, client)
        filled = [self.filled(rule, row, client) for rule in wanted.rules]
        files = {self.filled(n, row, client): self.filled(text, row, client) for n, text in wanted.files.items()}
        later = self.expected_later(row, client, server)
        rules = ["%s +%d" % (rule, wanted.seconds) for rule in filled]
        return Seen(wanted.status, sorted(rules, key=lambda r: r.split()[0]), files, wanted.cached, wanted.says, later)


CHANGES = {
    "newline": lambda data: data + b"\n",
    "prefixed": lambda data: b"U2FsdGVkX1" + data,
    "padded": lambda data: data + b"=",
    "cut": lambda data: data[:-1],
    "short": lambda data: data[:139],
    "junk": lambda data: b"x" * len(data),
    "respelled": lambda data: respelled(data),
    "flipped": lambda data: data[:40] + (b"A" if data[40:41] != b"A" else b"B") + data[41:],
    "blank": lambda data: data[:60] + b" " + data[60:],
}


def start_of(row):
    """Returns what rows must agree in to share daemons."""
    return row.conf, row.argv, row.last, row.digest


def respelled(data):
    """Returns base64 that decodes to the same bytes: other bits where the last character has bits to spare."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    assert len(data) % 4, "no bits to spare: let the row have another user name"
    return data[:-1] + alphabet[alphabet.index(data[-1:]) + 1 :][:1]


def number_of(row):
    """Returns a number that no other row of the table has."""
    return SCENARIOS.index(row) if row in SCENARIOS else 250


def keys_of(row):
    """Returns the pair of keys of a row."""
    return [hashlib.sha256((word + row.name).encode()).digest() for word in ("key ", "hmac ")]


def wanted_of(row, server, client="fwknop"):
    """Returns the row as it holds for a pairing: with what ours do differently on purpose."""
    differences = dict(row.ours if server == "tinyknop" else {}, **(row.mine if client == "tinyknop" else {}))
    return row._replace(**{name: value for name, value in differences.items() if name != "after"})


def wait(true, seconds):
    """Asks until something is true; returns if it ever was."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.003)
    return True


def web_server(network, namespace, body):
    """Answers every request to port 80 of a namespace with these bytes."""
    listener = network.new_socket(namespace)
    network.listeners.append(listener)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", 80))
    listener.listen(64)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    threading.Thread(target=answer, args=(listener, head + body), daemon=True).start()


def answer(listener, text):
    """Serves one connection after the other until the listener is shut down."""
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:
            return
        with peer:
            peer.settimeout(2)
            try:
                peer.recv(4096)
                peer.sendall(text)
            except OSError:  # the peer went away, which knocks do
                pass


@pytest.fixture(scope="module")
def stage():
    """The four namespaces and the programs, for all rows."""
    if os.geteuid():
        lacking("must be root: fwknopd and namespaces that last need it")
    need("ip", "iptables", "fwknop", "fwknopd", "gpg", "setpriv")
    with Twins() as network:
        made = Stage(network)
        for namespace in network.servers.values():
            web_server(network, namespace, b"")
        for kind, namespace in network.client_of.items():
            address = "198.18.250." + SOURCES[kind].rsplit(".", 1)[1]
            web_server(network, namespace, address.encode())
        try:
            yield made
        finally:
            made.close()


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("row", SCENARIOS, ids=lambda row: row.name.replace(" ", "-"))
def test_pairing(stage, row, client, server):
    seen = stage.observe(row)[client, server]
    assert isinstance(seen, Seen), seen
    assert seen == stage.expected(row, client, server)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("row", BROKEN, ids=lambda row: row.name.replace(" ", "-"))
def test_exit_status(stage, row, server):
    stage.stop()
    daemon = stage.daemons[server]
    files = {"fwknopd.conf": CONF + row.conf, "access.conf": row.access, **row.also}
    daemon.lay_out({stage.common(name, row): stage.common(text, row) for name, text in files.items()})
    argv = daemon.argv("--exit-parse-config", *shlex.split(stage.common(row.argv, row)))
    env = dict(os.environ, PYTHONPATH=peers.PYTHONPATH, LC_ALL="C")
    status, said = stage.network.quick(daemon.namespace, ["unshare", "-m", *argv], env)
    assert status == row.status, said


def each(stage):
    """Yields (client, server, daemon) for all pairings."""
    for client in CLIENTS:
        for server in SERVERS:
            yield client, server, stage.daemons[server]


def knock(stage, row, client, *more):
    """Runs a client as a row says; fails where it does."""
    status, said = stage.step(" ".join([*row.client, *more]), row, client)
    assert status == 0, said


def chains(daemon):
    """Returns the names of fwknop's chains in the firewall."""
    return sorted(set(re.findall(r"FWKNOP_\w+", daemon.firewall())))


def test_either_daemon_refuses_what_the_other_has_seen(stage):
    row = HANDED_OVER
    stage.start(row)
    for client in CLIENTS:
        knock(stage, row, client, "-B {packet}")
    for client, _, daemon in each(stage):
        assert wait(lambda d=daemon, c=client: stage.filled("{ip}", row, c) in d.firewall(), 5)
    caches = {kind: daemon.digests() for kind, daemon in stage.daemons.items()}
    stage.stop()
    for kind, daemon in stage.daemons.items():
        peers.write(daemon.path("run", "digest.cache"), [text for name, text in caches.items() if name != kind][0])
    stage.launch(row)
    for client in CLIENTS:
        stage.resend("resend", row, client)
    stage.last_knock(row, stage.daemons)
    for client, server, daemon in each(stage):
        assert daemon.failed is None, daemon.failed
        assert stage.filled(REPLAYED, row, client) in daemon.process.text(), server
        assert stage.filled("{ip}", row, client) not in daemon.firewall()
    lines = {kind: strip_time(caches[kind]) for kind in caches}
    assert lines["fwknopd"] == lines["tinyknop"]


def strip_time(text):
    """Returns the lines of a digest cache without comments and times of arrival."""
    return [line.rsplit(" ", 1)[0] for line in text.splitlines() if not line.startswith("#")]


def test_ends_after_so_many_packets(stage):
    row = COUNTED
    stage.stop()
    files = stage.files([row])
    for daemon in stage.daemons.values():
        daemon.lay_out(files)
    stage.launch(row, "-C", "3")
    for client in CLIENTS:
        knock(stage, row, client)
    for client, _, daemon in each(stage):
        assert wait(lambda d=daemon, c=client: stage.filled("{ip}", row, c) in d.firewall(), 5)
    stage.send(b"x" * 150, stage.network.clients[0], LAST)  # counts as well
    for server, daemon in stage.daemons.items():
        assert daemon.process.wait(5) == 0, server
        assert "Incoming packet count limit of 3 reached" in daemon.process.text()
        assert chains(daemon) == []
    stage.stop()


@pytest.mark.parametrize("conf", FLUSHES, ids=lambda conf: "init-%s-exit-%s" % conf)
def test_chains_at_exit_and_start(stage, conf):
    row = FLUSHED._replace(conf="FLUSH_IPT_AT_INIT %s;\nFLUSH_IPT_AT_EXIT %s;\n" % conf)
    stage.start(row)
    for client in CLIENTS:
        knock(stage, row, client)
    for client, server, daemon in each(stage):
        assert wait(lambda d=daemon, c=client: stage.filled("{ip}", row, c) in d.firewall(), 5), (client, server)
    stage.now = None
    for server, daemon in stage.daemons.items():
        assert daemon.halt() == 0
        assert chains(daemon) == ([] if conf[1] == "Y" else ["FWKNOP_INPUT"]), server
    stage.launch(row)
    for client, server, daemon in each(stage):
        stays = stage.filled("{ip}", row, client) in daemon.firewall()
        # tinyknop keeps what it left open, whatever FLUSH_IPT_AT_INIT says: its journal knows that it is live.
        assert stays == (conf[1] == "N" and (server == "tinyknop" or conf[0] == "N")), (client, server)
    stage.stop()


def test_configuration_read_anew(stage):
    row = FLUSHED
    stage.start(row)
    for client in CLIENTS:
        knock(stage, row, client, "-B {packet}")
    for client, _, daemon in each(stage):
        assert wait(lambda d=daemon, c=client: stage.filled("{ip}", row, c) in d.firewall(), 5)
    for daemon in stage.daemons.values():
        text = open(daemon.path("access.conf")).read()
        peers.write(daemon.path("access.conf"), text.replace("SOURCE ANY\n", "SOURCE ANY\nFW_ACCESS_TIMEOUT 55\n"))
        daemon.process.signal(signal.SIGHUP)
    for daemon in stage.daemons.values():
        daemon.process.wait_line("Got SIGHUP. Re-reading configs.")
        line = daemon.process.wait_line("Re-starting fwknopd")
        assert daemon.kind == "tinyknop" or daemon.process.wait_line(READY[0], after=line)
    stage.last_knock(row, stage.daemons)
    for client, server, daemon in each(stage):
        assert daemon.failed is None, daemon.failed
        # fwknopd forgets what is open: `SIGHUP` in the docs.
        assert (stage.filled("{ip}", row, client) in daemon.firewall()) == (server == "tinyknop"), server
    for client in CLIENTS:
        stage.resend("resend", row, client)
    stage.last_knock(row, stage.daemons)
    for client, server, daemon in each(stage):
        assert stage.filled(REPLAYED, row, client) in daemon.process.text(), server
    stage.stop()


@pytest.mark.parametrize("client", CLIENTS)
def test_packets_of_a_capture_file(stage, client):
    row = RECORDED
    stage.stop()
    files = stage.files([row])
    for daemon in stage.daemons.values():
        daemon.lay_out(files)
    knock(stage, row, client, "-T -B {packet} --time-offset-minus 10m")
    for daemon in stage.daemons.values():
        with open(daemon.path("packets.pcap"), "wb") as file:
            file.write(capture_file(stage.saved(row, client), SOURCES[client]))
        daemon.begin("--pcap-file", stage.world + "/packets.pcap")
    try:
        for server, daemon in stage.daemons.items():
            assert wait(lambda d=daemon: stage.filled("{ip}", row, client) in d.firewall(), 5), daemon.process.text()
            if server == "fwknopd":
                assert daemon.halt() == 0
            else:  # ends with the file by itself
                assert daemon.process.wait(5) == 0, daemon.process.text()
            assert stage.filled("{ip}", row, client) in daemon.firewall()
    finally:
        stage.stop()


def capture_file(payload, source):
    """Returns a capture file with one UDP datagram to port 62201."""
    udp = struct.pack(">HHHH", 40000, 62201, 8 + len(payload), 0) + payload
    addresses = socket.inet_aton(source) + socket.inet_aton(net.SERVER)
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0) + addresses
    frame = bytes.fromhex("020000000001020000000002") + b"\x08\x00" + ip + udp
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    return head + struct.pack("<IIII", int(time.time()), 0, len(frame), len(frame)) + frame


def test_the_table_is_whole():
    names = [row.name for row in SCENARIOS]
    assert len(names) == len(set(names)) >= 60 and len(names) < 250
    assert [row.name for row in SCENARIOS if bool(row.ours or row.mine) != bool(row.better)] == []
    with open(os.path.join(peers.ROOT, "docs", "compatibility.md")) as file:
        named = set(re.findall(r"^\| ([a-z0-9-]+) \|", file.read(), re.M))
    assert sorted({row.better for row in SCENARIOS if row.better and row.better not in named}) == []
