"""The daemon and the client on MicroPython against fwknop's own, netfilter, and a kill at any moment."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest

from scripts.stage import stage
from tests.need import need, share
from tests.real import cables, net, peers
from tests.real.test_frr import Edge
from tinyknop import Keys, Packet, ready, seal

sys.path.insert(0, os.path.join(peers.ROOT, "scripts"))
import package  # noqa: E402  (a script finds its neighbours in its own folder)

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
# Bytes of heap on a 64-bit machine. What bounds it: 160 KB are in use once the daemon is up, nine tenths of that the
# code of the daemon, a capture and a port, its texts and its names. Frozen into a firmware, those are outside the heap.
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

    def compiled(self, kind="ipset", stanzas=None, capture="packet", options="", state="", daemon=""):
        """Writes what `tinyknop compile` makes of a tinyknop.toml; returns its path."""
        network = self.network
        interface = 'interface = "eth0"\n' if capture == "packet" else ""
        options = options or ('set = "%s"' % peers.SET if kind == "ipset" else "")
        state = state or network.dir + "/state"
        text = peers.TOML.format(state=state, kind=kind, capture=capture, interface=interface, options=options)
        text = text.replace("[daemon]", "[daemon]\n" + daemon)
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


def said(router, *words):
    """Returns what a run that ends with an error says of it, in one line."""
    argv = [router.binary, "-m", "tinyknop", *words]
    env = dict(os.environ, **router.env)
    done = subprocess.run(argv, env=env, cwd=router.network.dir, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and done.stdout == "", done.stdout
    return done.stderr.splitlines()[-1] if done.stderr.count("\n") < 3 else "a trace:\n" + done.stderr


def test_what_nobody_reads_there_is_refused(network, router):
    for line in ('user = "nobody"', 'log = "json"', 'log_to = "syslog"'):
        config = router.compiled("nftables", peers.toml_stanza(network), "udp", daemon=line)
        assert "MicroPython stays who it is and logs text to stderr" in said(router, config)


def test_a_file_of_targets_that_is_wrong_is_named(network, router):
    path = network.dir + "/targets.json"
    assert said(router, "knock", path, "a") == path + ": cannot be read (error 2): check the path"
    for text in ("", "{", "key = 1", "[" * 5000, "[]", "{}", '{"target": []}', '{"target": {"a": 7}}'):
        assert said(router, "knock", peers.write(path, text), "a").startswith(path + ": no target is called a, or")


def test_a_state_directory_that_cannot_be_is_named(network, router):
    place = peers.write(network.dir + "/file", "", 0o600)
    for path, wanted in ((place, "if it is one"), (place + "/below", "cannot be made (error 20): check the path")):
        config = router.compiled("nftables", peers.toml_stanza(network), "udp", state=path)
        line = said(router, config)
        assert line.startswith(path + ": ") and line.endswith(wanted)


def test_a_daemon_that_reads_a_file_ends_with_it(network, router):
    path = os.path.join(network.dir, "saved.pcap")
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
    owners_ruleset(network)
    daemon = router.start(router.files("/usr/sbin/nft", pcap_file=path))
    assert daemon.wait(10) == 0
    assert path in daemon.text()


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
    """A daemon with four stanzas in a heap of its own, under a simulated clock: from a tree, or compiled for it."""

    def __init__(self, folder, tree=None):
        self.folder = folder
        peers.write(folder + "/machine.py", PIN)
        text = FOUR.format(home=folder, port=20000 + os.getpid() % 20000)
        self.dir = folder
        for number in range(4):
            keys = {"key": b"%032d" % number, "hmac_key": b"%064d" % number}
            text += peers.toml_stanza(self, "s%d" % number, openings=["tcp/22"], timeout=30, **keys)
        toml = peers.write(folder + "/four.toml", text)
        argv = [sys.executable, "-m", "tinyknop", "compile", toml, "-o", folder + "/four.json"]
        subprocess.run(argv, check=True, env=dict(os.environ, PYTHONPATH=peers.ROOT))
        if tree is None:
            tree = folder + "/board"
            package.compile_for(tree, ready.load(folder + "/four.json")[0])
        self.env = dict(os.environ, MICROPYPATH="%s:%s:.frozen" % (tree, folder))

    def run(self, size, knocks, bogus, seconds):
        """Returns ([heap in use: idle, early, late], {counter: value})."""
        self.packets(knocks, seconds)
        # From a folder of its own: a script's own folder comes first on the path, and tests/real has a machine.py too.
        script = shutil.copy(os.path.join(peers.ROOT, "tests", "real", "endurance.py"), self.folder)
        argv = [need("micropython"), "-X", "heapsize=" + size, script, self.folder + "/four.json"]
        argv += [self.folder + "/packets", str(bogus // knocks), str(seconds)]
        done = subprocess.run(argv, env=self.env, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0 and "Error" not in done.stdout, done.stdout[-1000:] + done.stderr[-1000:]
        heap, counted = done.stdout.splitlines()[-2:]
        pairs = [word.split("=") for word in counted.split()[1:]]
        return [int(word) for word in heap.split()[1:]], {name: int(value) for name, value in pairs}

    def packets(self, knocks, seconds):
        """Writes what is to be heard, stamped by the simulated clock: a knock for each stanza in turn, a forged one."""
        keys = [Keys(key=b"%032d" % number, hmac_key=b"%064d" % number) for number in (0, 1, 2, 3, 9)]
        with open(self.folder + "/packets", "wb") as file:
            for number in range(knocks):
                packet = Packet("192.0.2.%d,tcp/22" % (number % 250 + 1), "u", timestamp=1800000000 + number * seconds)
                file.write(seal(packet, keys[number % 4]) + b"\n" + seal(packet, keys[4]) + b"\n")


def test_four_stanzas_in_a_small_heap_never_take_more(tmp_path):
    knocks, bogus = share(300, 10000), share(3000, 100000)
    heap, counted = Heap(str(tmp_path)).run(SMALL, knocks, bogus, 100)
    assert heap[2] <= heap[1] + 1024
    assert counted["granted"] == knocks and counted["hmac"] == bogus


def test_sources_run_in_a_heap_of_384_kilobytes(tmp_path, tree):
    heap, counted = Heap(str(tmp_path), tree).run("384k", 200, 400, 100)
    assert counted["granted"] == 200


def test_more_knocks_than_there_is_room_for_are_refused(tmp_path):
    heap, counted = Heap(str(tmp_path)).run("256k", 600, 600, 1)
    assert counted["full"] + counted["granted"] == 600
    assert counted["full"] > 100 and counted["granted"] > 20
    assert counted["live"] <= 30


NOSSL = os.path.join(peers.ROOT, "tests", "nossl")


def test_build_without_tls_serves_and_knocks_with_hashes_of_its_own(guarded, router):
    need("fwknop", "fwknopd")
    router.env["MICROPYPATH"] = NOSSL + ":" + router.env["MICROPYPATH"]
    stanza = peers.toml_stanza(guarded, timeout=1)
    daemon = router.start(router.compiled(stanzas=stanza.replace("timeout", 'hmac_digest_type = "sha512"\ntimeout')))
    peers.fwknop(guarded, "--hmac-digest-type", "sha512", "--digest-type", "sha3_256")
    assert guarded.wait_connect(True) is not None
    assert guarded.wait_connect(False, within=8) is not None
    daemon.stop()
    peers.fwknopd(guarded)
    target = {"host": net.SERVER, "openings": ["tcp/%d" % net.SERVICE], "address": net.CLIENT, "digest": "sha1"}
    router.knock(dict(target, key_file=peers.key_file(guarded)))
    assert guarded.wait_connect(True) is not None


def test_udp_socket_tells_an_ipv6_source(network, router):
    need("nft")
    owners_ruleset(network)
    network.at(network.server, *"nft add rule inet filter input udp dport 62201 accept".split())
    daemon = router.start(router.compiled("nftables", capture="udp", options='chain = "inet filter input"'))
    target = {"host": net.SERVER6, "openings": ["tcp/%d" % net.SERVICE], "address": "source"}
    router.knock(dict(target, key_file=peers.key_file(network)))
    daemon.wait_line(") opened tcp/%d for %s until" % (net.SERVICE, net.CLIENT6))
    listing = network.at(network.server, "nft", "list", "set", "inet", "filter", "tinyknop_open6")
    assert net.CLIENT6 in listing


def children(text):
    """Returns the ids of processes that have a text among their words."""
    found = []
    for number in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % number) as file:
                found += [int(number)] if text in file.read() else []
        except OSError:  # it has just ended
            pass
    return found


def wait_until(what, within=10.0):
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_firewall_behind_ssh_is_told_and_no_knock_waits_for_it(guarded, router):
    need("fwknop", "ssh", "sshd", "ssh-keygen", "ipset", "busybox")
    sshd = cables.Sshd(guarded, guarded.server)
    wire = cables.Wire(guarded, guarded.server, sshd.port)
    options = sshd.options(wire.port)
    stanzas = peers.toml_stanza(guarded, source=("ANY",), timeout=6)
    config = router.compiled("ipset", stanzas, options=cables.via(options, 'set = "%s"' % peers.SET))
    daemon = router.start(config)
    peers.fwknop(guarded)
    assert guarded.wait_connect(True) is not None
    assert guarded.wait_connect(False, within=12) is not None
    wire.deaf = True  # the session lives, and answers nothing
    for number in range(3):
        peers.fwknop(guarded, allow="10.99.0.%d" % (20 + number))
    wait_until(lambda: granted(daemon) == 4, 3)
    assert peers.elements(guarded) == {}
    wire.deaf = False
    wait_until(lambda: len(peers.elements(guarded)) == 3)
    assert len(children(options["known_hosts"])) == 1
    daemon.kill()
    wait_until(lambda: children(options["known_hosts"]) == [])
    assert [name for name in os.listdir(guarded.dir) if name.startswith("tinyknop.")] == []
    again = router.start(config)
    wait_until(lambda: peers.elements(guarded) == {}, 15)
    assert "a fault" not in daemon.text() + again.text()


def test_dropbear_s_client_carries_it_too(guarded, router):
    need("dbclient", "dropbearconvert")
    sshd = cables.Sshd(guarded, guarded.server)
    home = guarded.dir + "/home"
    os.makedirs(home + "/.ssh")
    with open(sshd.known_hosts()) as file:
        known = peers.write(home + "/.ssh/known_hosts", file.read().replace("[127.0.0.1]:2200", "127.0.0.1"))
    net.run("dropbearconvert", "openssh", "dropbear", sshd.home + "/user_key", home + "/key")
    options = sshd.options(key_file=home + "/key", known_hosts=known, binary="dbclient")
    options = cables.via(options, 'set = "%s"' % peers.SET)
    router.start(router.compiled("ipset", peers.toml_stanza(guarded, timeout=60), options=options))
    peers.fwknop(guarded)
    assert guarded.wait_connect(True) is not None


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

async def talked():
    from tinyknop import child_small
    from tinyknop.loop import readable
    held = await child_small.hold(["cat"])
    held.write(b"a line\n")
    print(await readable(held.file, 9), held.read(), held.read())
    held.close()
    held = await child_small.hold(["cat", "/nosuch"])
    print(await readable(held.file, 9), held.read(), "No such file" in held.complaint())
    held.close()
    held = await child_small.hold(["yes"])
    print(await readable(held.file, 9), len(held.read()))
    print(held.write(b"x" * 9999))
    await child_small.hold(["sleep", "NUMBER"])  # ends with us
loop.run_until(talked())
"""


BUSYBOX = r"""
import os
from tinyknop import child_small

class Os:
    def __getattr__(self, name):
        return getattr(os, name)

    def system(self, text):
        path = os.getenv("TMPDIR") + "/script"
        with open(path, "w") as file:
            file.write(text)
        return os.system("busybox ash " + path)

child_small.os = Os()
"""


@pytest.mark.parametrize("shell", ["", BUSYBOX], ids=["sh", "busybox"])
def test_children_run_beside_everything_else(tmp_path, tree, shell):
    need("busybox")
    number = "%d" % (1000000 + 10 * os.getpid() + len(shell) % 10)  # seconds, which no other sleep here has
    script = peers.write(str(tmp_path / "children.py"), shell + CHILDREN.replace("NUMBER", number))
    env = dict(os.environ, MICROPYPATH=tree + ":.frozen", TMPDIR=str(tmp_path))
    start = time.monotonic()
    done = subprocess.run([need("micropython"), script], env=env, cwd="/", capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines[0] == "(0, b'')", done.stderr
    assert lines[1].startswith("(2, b") or lines[1].startswith("(127, b")
    assert lines[2] == r"""(0, b"it's; $(text)\n")"""
    assert lines[3] == "(127, b'No such file or directory')"
    assert lines[4] == lines[5] == "error 22"
    assert lines[6] == "(124, b'')"
    assert lines[7] == r"(124, b'y\ny\ny\n')"
    assert lines[8] == "(0, b'')"
    assert int(lines[9].split()[1]) < 400, done.stderr  # nobody waits for a child, nor for the shell that starts it
    assert lines[10] == r"True b'a line\n' None"
    assert lines[11] == "True b'' True"
    assert lines[12] == "True 512"
    assert int(lines[13]) <= 4096
    assert time.monotonic() - start < 20  # nothing waited for the sleep
    wait_until(lambda: children(number) == [])  # what was to last ended with us, and so did the folder
    wait_until(lambda: [name for name in os.listdir(tmp_path) if name.startswith("tinyknop.")] == [])


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
