"""Devices that outlive us, in one daemon: none holds up another, and whatever breaks, no hole stays open."""

import random
import signal
import statistics
import time

import pytest

from tests.need import need, share
from tests.real import cables, net, peers
from tests.real.cables import Cable, Sshd, Wire, toml_of
from tests.real.test_frr import Edge
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


def conf(network, tables, ports, timeout=30, name="serve"):
    """Writes a configuration; returns its path. `tables` come before the one stanza, which opens all ports."""
    home = network.dir + "/" + name
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
    daemon = serve(guarded, conf(guarded, local, ["local"], name="alone"))
    alone = latencies(guarded, 100)
    daemon.stop()
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
    assert statistics.median(beside) < 2 * statistics.median(alone) + 0.005, (alone, beside)
    assert max(beside) < 0.25, beside
    for name in ("slow", "far"):
        wait(lambda name=name: len(peers.elements(guarded, name)) == 15, 20)
    ports = {port["name"]: port for port in peers.status(daemon)["ports"]}
    assert "plugged in" in ports["gone-port"]["failure"] and ports["gone-port"]["failing_since"]
    assert not ports["slow-port"]["failure"] and not ports["far-port"]["failure"]


def wait(true, within):
    """Waits until something is true."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline, true
        time.sleep(0.05)


class Faults:
    """A router behind a cable whose lists keep for ever what nobody removes, a daemon, and what befalls them."""

    def __init__(self, edge):
        self.edge, self.network = edge, edge.network
        self.cable = Cable(self.network, [edge.vtysh])
        options = {"kind": "serial", "device": self.cable.device, "profile": "frr", "timeout": "2"}
        tables = TABLES.format(set=peers.SET) + device("edge", options, "frr")
        self.config = conf(self.network, tables, ["edge-port"], timeout=1)
        self.number = 0
        self.said = []  # output of the daemons that were killed
        self.daemon = serve(self.network, self.config)

    def knock(self):
        """Knocks for an address that nobody had before."""
        self.number += 1
        self.network.send(sealed("198.51.%d.%d" % divmod(self.number, 250)))

    def kill(self):
        """kill -9, then a new daemon."""
        self.daemon.signal(signal.SIGKILL)

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

    def mend(self):
        """Puts all right again."""
        if self.cable.near is None:
            self.cable.plug()
        self.cable.cut, self.cable.mangle, self.cable.trip = False, None, None
        if self.daemon.process.poll() is not None:
            self.said.append(self.daemon.text())
            self.daemon = serve(self.network, self.config)

    def settled(self):
        """Tells whether nothing is open, owed or failing, and the router agrees."""
        state = peers.status(self.daemon)
        port = [port for port in state["ports"] if port["name"] == "edge-port"][0]
        return not state["grants"] and not port["owed"] and not port["failure"] and not self.edge.lists()


@pytest.fixture
def edge(guarded):
    need("vtysh", "zebra")
    made = Edge(guarded)
    yield made
    made.remove()


@pytest.mark.parametrize("kind", ["kill", "cut", "reboot", "unplug", "noise"])
def test_no_hole_stays_open_whatever_breaks_wherever(edge, kind):
    faults = Faults(edge)
    faults.knock()
    wait(edge.lists, 10)
    for _ in range(share(4, 40)):
        faults.cable.trip = (random.randrange(700), getattr(faults, kind))
        faults.knock()
        deadline = time.monotonic() + 3
        while faults.cable.trip is not None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(random.random() * 0.5)
        faults.mend()
    wait(faults.settled, 60)
    said = "\n".join([*faults.said, faults.daemon.text()])
    assert "Traceback" not in said and "fault in the program" not in said


def test_an_ssh_device_that_freezes_is_right_again(edge):
    need("ssh", "sshd")
    sshd = Sshd(edge.network, edge.network.server, command=edge.vtysh)
    wire = Wire(edge.network, edge.network.server, sshd.port)
    options = sshd.options(wire.port, profile="frr", timeout="2")
    tables = TABLES.format(set=peers.SET) + device("edge", options, "frr")
    daemon = serve(edge.network, conf(edge.network, tables, ["edge-port"], timeout=2))
    edge.network.send(sealed("198.51.100.1"))
    wait(edge.lists, 10)
    wire.deaf = True
    edge.network.send(sealed("198.51.100.2"))
    time.sleep(4)
    assert peers.status(daemon)["ports"][0]["owed"]
    wire.deaf = False
    wait(lambda: not edge.lists() and not peers.status(daemon)["ports"][0]["owed"], 30)
