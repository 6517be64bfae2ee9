"""Devices that outlive us, in one daemon: none holds up another, and whatever breaks, no hole stays open."""

import os
import random
import signal
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.need import need, share
from tests.real import cables, net, peers
from tests.real.cables import Cable, Sshd, Wire, toml_of
from tests.real.test_frr import SECRETS, Edge
from tinyknop import Keys, Packet, seal

TABLES = """
[[capture]]
kind = "packet"
interface = "eth0"
port = 62201

[port.local]
kind = "ipset"
set = "{set}"
"""


def conf(network, tables, ports, timeout=30):
    """Writes a configuration; returns its path. `tables` come before the one stanza, which opens all ports."""
    home = network.dir + "/serve"
    net.run("mkdir", "-p", "-m", "700", home)
    stanza = peers.toml_stanza(network, timeout=timeout, openings=["tcp/%d" % net.SERVICE])
    stanza = stanza.replace('ports = ["firewall"]', "ports = %s" % str(ports).replace("'", '"'))
    return peers.write(home + "/tinyknop.toml", '[daemon]\nstate_dir = "%s/state"\n' % home + tables + stanza)


def serve(network, config, ready=20):
    """Starts a daemon that may have to wait for its devices."""
    daemon = peers.Process(network, network.server, [*peers.PYTHON, "-m", "tinyknop", "serve", "-c", config])
    daemon.state = config.rpartition("/")[0] + "/state"
    daemon.wait_line(peers.SERVE_READY, ready)
    return daemon


def sealed(allowed):
    """Returns a fresh knock for an address."""
    keys = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
    return seal(Packet(message="%s,tcp/%d" % (allowed, net.SERVICE), username="alice"), keys)


def latencies(network, net_number, count=15):
    """Knocks for fresh addresses; returns how long each took to get into the local set."""
    took = []
    for number in range(count):
        allowed = "198.51.%d.%d" % (net_number, number + 1)
        packet = sealed(allowed)
        began = time.monotonic()
        network.send(packet)
        while not any(allowed in entry for entry in peers.elements(network)):
            assert time.monotonic() - began < 5
        took.append(time.monotonic() - began)
    return took


def device(name, options, kind, **more):
    """Returns the tables of a carrier and of the port behind it."""
    port = dict({"kind": kind, "via": name}, **more)
    return "\n[carrier.%s]\n%s\n[port.%s-port]\n%s" % (name, toml_of(options), name, toml_of(port))


def test_a_dead_and_a_slow_device_hold_up_nobody(guarded):
    need("busybox", "ssh", "sshd", "ipset")
    local = TABLES.format(set=peers.SET)
    slow = Cable(guarded, cables.ash(guarded.server), 9600, name="slow")
    dead = Cable(guarded, ["/bin/sh", "-c", "stty raw -echo; exec sleep 1000"], name="dead")
    sshd = Sshd(guarded, guarded.server)
    line = {"kind": "serial", "profile": "openwrt"}
    tables = local + device("slow", dict(line, device=slow.device, baud="9600"), "ipset", set="slow")
    tables += device("dead", dict(line, device=dead.device), "ipset", set="dead")
    tables += device("gone", dict(line, device=guarded.dir + "/nosuch"), "ipset", set="gone")
    tables += device("far", sshd.options(), "ipset", set="far")
    names = ["local", "slow-port", "dead-port", "gone-port", "far-port"]
    daemon = serve(guarded, conf(guarded, tables, names), 5)  # not even the start waits for a device
    beside = latencies(guarded, 101)
    # An entry takes 0.3 s on the slow line, and the dead one is given up after 30 s; bench/devices.py has the figures.
    assert statistics.median(beside) < 0.15, beside
    for name in ("slow", "far"):
        wait(lambda name=name: len(peers.elements(guarded, name)) == 15, 20)
    ports = {port["name"]: port for port in peers.status(daemon)["ports"]}
    assert "plugged in" in ports["gone-port"]["failure"] and ports["gone-port"]["failing_since"]
    assert not ports["slow-port"]["failure"] and not ports["far-port"]["failure"]
    daemon.kill()  # at its end it would try for 10 s to close what the dead devices may hold


def wait(true, within):
    """Waits until something is true."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, true
        time.sleep(0.05)


class Faults:
    """A router behind a cable whose lists keep for ever what nobody removes, a daemon, and what befalls them."""

    bytes = 600  # of an opening and its close, on the line: 500 and more

    def __init__(self, edge, **secrets):
        self.edge, self.network = edge, edge.network
        options = self.attached(secrets)
        options.update(profile="frr", timeout="2")
        tables = TABLES.format(set=peers.SET) + device("edge", options, "frr")
        self.config = conf(self.network, tables, ["edge-port"], timeout=1)
        self.number = 0
        self.said = []  # output of the daemons that were killed
        self.daemon = serve(self.network, self.config)

    def attached(self, secrets):
        """Lays the cable; returns the options of the carrier. With `secrets` there is a log-in in the way."""
        self.cable = Cable(self.network, self.edge.telnet if secrets else [self.edge.vtysh])
        options = {"kind": "serial", "device": self.cable.device}
        for option, text in secrets.items():
            options[option] = peers.write(self.cable.device + "." + option, text + "\n")
        return options

    def knock(self):
        """Knocks for an address that nobody had before."""
        self.number += 1
        self.network.send(sealed("198.51.%d.%d" % divmod(self.number, 250)))

    def knocked(self):
        """Tells whether a knock gets to the router."""
        self.knock()
        try:
            wait(self.edge.lists, 1)
        except AssertionError:
            return False
        return True

    def kill(self):
        """kill -9, then a new daemon."""
        self.daemon.signal(signal.SIGKILL)
        self.daemon.wait()

    def cut(self):
        """Nothing passes for a while."""
        self.cable.cut = True

    def reboot(self):
        """The session is gone, with a boot log and a new prompt."""
        self.cable.boot()

    def unplug(self):
        """The adapter is taken out."""
        self.cable.unplug()

    def noise(self):
        """Line noise in the middle of an answer, and pieces of any size from now on."""
        self.cable.mangle = lambda data: cables.pieces(b"".join(cables.garbage(data)))

    def delay(self):
        """Answers come in pieces, late, and now and then later than anybody waits for them."""
        self.cable.mangle = cables.late

    def mend(self):
        """Puts all right again."""
        self.mended()
        if self.daemon.process.poll() is not None:
            self.said.append(self.daemon.text())
            self.daemon = serve(self.network, self.config)

    def mended(self):
        """Puts the line right again."""
        if self.cable.near is None:
            self.cable.plug()
        self.cable.cut, self.cable.mangle, self.cable.trip = False, None, None

    def settled(self):
        """Tells whether nothing is open, owed or failing, and the router agrees."""
        lists = [line.split(" permit ")[1] for line in self.edge.lists()]
        assert len(lists) == len(set(lists))  # nothing was said twice with effect
        state = peers.status(self.daemon)
        port = [port for port in state["ports"] if port["name"] == "edge-port"][0]
        return not state["grants"] and not port["owed"] and not port["failure"] and not lists

    def run(self, kind, points):
        """Has something happen at so many random points of the dialogue; after each, all must be well again."""
        wait(self.knocked, 30)  # the first ones may end before it is logged in
        done = 0
        while done < points:
            self.cable.trip = (random.randrange(self.bytes), getattr(self, kind))
            self.knock()
            deadline = time.monotonic() + 3
            while self.cable.trip is not None and time.monotonic() < deadline:
                time.sleep(0.01)
            done += self.cable.trip is None  # or so much was not said
            time.sleep(random.random() * 0.5)
            self.mend()
            wait(self.settled, 90)
        said = "\n".join([*self.said, self.daemon.text()])
        assert "Traceback" not in said and "fault in the program" not in said
        assert not any(secret in said for secret in SECRETS.values())


class Remote(Faults):
    """The same behind a real sshd, whose connections a relay can reset."""

    bytes = 2500

    def attached(self, secrets):
        sshd = Sshd(self.network, self.network.server, command=self.edge.vtysh)
        self.cable = Wire(self.network, self.network.server, sshd.port)
        return sshd.options(self.cable.port)

    def hangup(self):
        """All connections are reset."""
        self.cable.cut()

    def mended(self):
        self.cable.trip = None


@pytest.fixture
def edge(guarded):
    need("vtysh", "zebra")
    made = Edge(guarded)
    yield made
    made.remove()


KINDS = ("kill", "cut", "reboot", "unplug", "noise", "delay", "hangup")


def befall(kind, points):
    """Lets one kind of mishap befall a router of its own; half of the kinds have a log-in with passwords in the way."""
    with net.Net() as network:
        network.serve()
        peers.owner_rule(network)
        edge = Edge(network, "0 0")
        try:
            secrets = SECRETS if kind in ("kill", "reboot", "delay") else {}
            (Remote if kind == "hangup" else Faults)(edge, **secrets).run(kind, points)
        finally:
            edge.remove()


def test_no_hole_stays_open_whatever_breaks_wherever():
    need("vtysh", "zebra", "ipset", "busybox", "ssh", "sshd")
    kinds = os.environ.get("TINYKNOP_FAULTS", " ".join(KINDS)).split()
    with ThreadPoolExecutor(len(kinds)) as pool:  # they mostly wait
        for done in [pool.submit(befall, kind, share(4, 200)) for kind in kinds]:
            done.result()


def test_devices_that_forget_while_nobody_speaks_are_right_again(guarded):
    need("busybox", "ssh", "sshd", "ipset")
    cable = Cable(guarded, cables.ash(guarded.server))
    sshd = Sshd(guarded, guarded.server)
    wire = Wire(guarded, guarded.server, sshd.port)
    line = {"kind": "serial", "profile": "openwrt", "device": cable.device}
    tables = TABLES.format(set=peers.SET) + device("near", line, "ipset", set="near")
    tables += device("far", sshd.options(wire.port), "ipset", set="far")
    daemon = serve(guarded, conf(guarded, tables, ["near-port", "far-port"], timeout=300))
    guarded.send(sealed("198.51.100.1"))
    for name, restart in (("near", cable.boot), ("far", wire.cut)):
        wait(lambda name=name: peers.elements(guarded, name), 20)
        time.sleep(1)  # for the end of the answer: the line has to be idle
        guarded.at(guarded.server, "ipset", "flush", name)
        restart()
        wait(lambda name=name: peers.elements(guarded, name), 30)
    assert "Traceback" not in daemon.text()


def test_an_ssh_device_that_freezes_is_right_again(edge):
    need("ssh", "sshd")
    sshd = Sshd(edge.network, edge.network.server, command=edge.vtysh)
    wire = Wire(edge.network, edge.network.server, sshd.port)
    options = sshd.options(wire.port, profile="frr", timeout="2")
    tables = TABLES.format(set=peers.SET) + device("edge", options, "frr")
    daemon = serve(edge.network, conf(edge.network, tables, ["edge-port"], timeout=4))
    edge.network.send(sealed("198.51.100.1"))
    wait(edge.lists, 10)
    wire.deaf = True
    edge.network.send(sealed("198.51.100.2"))
    wait(lambda: peers.status(daemon)["ports"][0]["owed"], 20)
    wire.deaf = False
    wait(lambda: not edge.lists() and not peers.status(daemon)["ports"][0]["owed"], 30)
