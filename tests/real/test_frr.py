"""Real command lines at the end of a cable: FRR's vtysh with its zebra, and a busybox ash with a real nft."""

import os
import shutil
import tempfile
import time

import pytest
from tinyknop.ports import frr, openwrt
from tinyknop.ports.carriers import serial
from tinyknop.ports.shared.profile import Profile

from tests.need import need
from tests.real import cables, net, peers
from tinyknop.compat import monotonic
from tinyknop.errors import PortError
from tinyknop.grants import Grant
from tinyknop.loop import Loop

DAEMON = """via = "edge"

[carrier.edge]
kind = "serial"
device = "{device}"
profile = "frr"
"""

ZEBRA = """hostname edge
password s3cret-of-edge
enable password en4ble-of-edge
line vty
 exec-timeout {idle}
"""


class Edge:
    """A zebra in the server's namespace, and its vtysh behind a cable."""

    def __init__(self, network, idle="0 3"):
        """`idle`: minutes and seconds after which zebra's own command line logs out; "0 0" is never."""
        self.network = network
        self.home = tempfile.mkdtemp(prefix="tinyknop-frr-")  # zebra becomes another user, so not in the test's own
        shutil.chown(self.home, "frr")
        conf = peers.write(self.home + "/zebra.conf", ZEBRA.format(idle=idle), mode=0o644)
        argv = [need("zebra"), "-f", conf, "-i", self.home + "/pid", "-P", "2601", "-A", "127.0.0.1"]
        argv += ["--vty_socket", self.home, "-z", self.home + "/zserv.api", "--log", "stdout"]
        peers.Process(network, network.server, argv)
        # What the cable's program runs as "vtysh": the one that finds this zebra.
        script = '#!/bin/sh\nexec ip netns exec %s %s --vty_socket %s "$@"\n'
        self.vtysh = peers.write(self.home + "/vtysh", script % (network.server, need("vtysh"), self.home), mode=0o700)
        # A console line stays when a session ends.
        loop = "while sleep 0.1; do ip netns exec %s busybox telnet 127.0.0.1 2601; done"
        self.telnet = ["/bin/sh", "-c", loop % network.server]
        deadline = time.monotonic() + 10
        while not os.path.exists(self.home + "/zebra.vty") and time.monotonic() < deadline:
            time.sleep(0.02)

    def remove(self):
        """Takes zebra's folder away; the network ends zebra."""
        shutil.rmtree(self.home, ignore_errors=True)

    def type(self, *commands):
        """Has another vtysh carry out commands; returns what it says."""
        words = [word for command in commands for word in ("-c", command)]
        return net.run(self.vtysh, *words)

    def lists(self):
        """Returns the access lists' lines of `show running-config`."""
        return [line for line in self.type("show running-config").splitlines() if "access-list" in line]

    def wait_lists(self, wanted, within=15.0):
        """Waits until the access lists are these lines; returns after how many seconds."""
        start = time.monotonic()
        while self.lists() != wanted:
            assert time.monotonic() - start < within, self.lists()
            time.sleep(0.05)
        return time.monotonic() - start


class Desk:
    """A port and its carrier without a daemon."""

    def __init__(self, kind, cable, **secrets):
        self.loop = Loop()
        table = {"kind": "serial", "device": cable.device, "profile": kind.Port.kind, "where": "test:1"}
        for option, text in secrets.items():
            table[option] = text if option == "user" else peers.write(cable.device + "." + option, text + "\n")
        self.carrier = serial.Carrier("edge", table)
        self.port = kind.Port("door", dict(kind.OPTIONS, where="test:1"), self.carrier)

    def run(self, coroutine):
        task = self.loop.spawn(coroutine)
        task.watched = True
        while not task.done:
            self.loop.at(monotonic() + 5, int)  # a turn ends soon, whatever the task waits for
            self.loop.turn()
        return task.outcome()


@pytest.fixture
def edge(tmp_path):
    need("ip", "vtysh")
    with net.Net(workdir=tmp_path) as network:
        here = Edge(network)
        try:
            yield here
        finally:
            here.remove()


def grant(number=1, source="192.0.2.7", openings=(("tcp", 22),)):
    return Grant(number, source, openings, 1700000000, 1700000030, "alice", None, "0.0.0.0", source)


def test_a_knock_adds_the_entry_and_its_end_removes_it(edge):
    need("fwknop")
    cable = cables.Cable(edge.network, [edge.vtysh])
    daemon = peers.serve(edge.network, kind="frr", options=DAEMON.format(device=cable.device))
    cable.wait_sent(b"show running-config")
    peers.fwknop(edge.network)
    edge.wait_lists(["access-list knock-tcp-%d seq 5 permit %s/32" % (net.SERVICE, net.CLIENT)])
    edge.wait_lists([])
    assert "Traceback" not in daemon.text()
    assert peers.status(daemon)["counters"]["granted"] == 1


def test_sync_repairs_whatever_was_done_to_the_lists(edge):
    cable = cables.Cable(edge.network, [edge.vtysh])
    desk = Desk(frr, cable)
    mine = ["access-list OTHER seq 5 permit 192.0.2.8/32", "access-list knock-tcp-22 seq 7 deny 198.51.100.0/24"]
    edge.type("configure terminal", *mine)
    edge.type("configure terminal", "access-list knock-udp-53 permit 192.0.2.8/32")
    edge.type("configure terminal", "ipv6 access-list knock-tcp-22 permit 2001:db8::9/128")
    live = [(grant(), 30), (grant(2, "2001:db8::7"), 30)]
    desk.run(desk.port.sync(live))
    added = ["access-list knock-tcp-22 seq 12 permit 192.0.2.7/32"]
    six = ["ipv6 access-list knock-tcp-22 seq 5 permit 2001:db8::7/128"]
    assert sorted(edge.lists()) == sorted(mine + added + six)
    typed = len(cable.sent)
    desk.run(desk.port.sync(live))
    assert b"configure" not in cable.sent[typed:]
    desk.run(desk.port.open(grant(), 30))  # once more: nothing comes twice
    assert sorted(edge.lists()) == sorted(mine + added + six)
    desk.run(desk.port.sync([]))
    assert sorted(edge.lists()) == sorted(mine)


def test_hundreds_of_entries_come_and_go(edge):
    desk = Desk(frr, cables.Cable(edge.network, [edge.vtysh]))
    live = [(grant(number, "192.0.%d.%d" % (number // 200, number % 200 + 1)), 30) for number in range(120)]
    desk.run(desk.port.sync(live))
    assert len(edge.lists()) == 120
    desk.run(desk.port.sync(live[:3]))
    assert len(edge.lists()) == 3


def test_a_refused_line_leaves_the_mode_and_the_session_in_order(edge):
    desk = Desk(frr, cables.Cable(edge.network, [edge.vtysh]))
    with pytest.raises(PortError, match="Unknown command: .*nonsense"):
        desk.run(desk.carrier.say("configure", "terminal", text="access-list x nonsense\nend\n"))
    assert "Current configuration" in desk.run(desk.carrier.say("show", "running-config"))
    assert desk.run(desk.carrier.say("configure", "terminal")) == ""  # left behind: it is left at once
    desk.run(desk.port.open(grant(), 30))
    assert edge.lists() == ["access-list knock-tcp-22 seq 5 permit 192.0.2.7/32"]


def test_a_session_that_somebody_left_in_a_mode_half_typed(edge):
    cable = cables.Cable(edge.network, [edge.vtysh])
    os.write(cable.far, b"configure terminal\raccess-list OTHER permit 192.0.2")
    time.sleep(0.3)
    desk = Desk(frr, cable)
    desk.run(desk.port.open(grant(), 30))
    assert edge.lists() == ["access-list knock-tcp-22 seq 5 permit 192.0.2.7/32"]


def test_from_a_shell_vtysh_is_started(edge):
    environment = ["env", "PS1=root@edge:~# ", "PATH=%s:%s" % (edge.home, os.environ["PATH"])]
    desk = Desk(frr, cables.Cable(edge.network, [*environment, need("busybox"), "ash", "-i"]))
    desk.run(desk.port.open(grant(), 30))
    assert edge.lists() == ["access-list knock-tcp-22 seq 5 permit 192.0.2.7/32"]
    desk.run(desk.port.close(grant()))
    assert edge.lists() == []


def telnet(edge, **secrets):
    """Returns a desk at zebra's own command line, which wants two passwords, pages and logs out after 3 s."""
    return Desk(frr, cables.Cable(edge.network, edge.telnet), **secrets)


SECRETS = {"password_file": "s3cret-of-edge", "enable_password_file": "en4ble-of-edge"}


def test_passwords_and_enable(edge):
    desk = telnet(edge, **SECRETS)
    desk.run(desk.port.open(grant(), 30))
    assert edge.lists() == ["access-list knock-tcp-22 seq 5 permit 192.0.2.7/32"]


@pytest.mark.parametrize("wrong", SECRETS)
def test_a_wrong_password_is_told_without_the_password(edge, wrong):
    secrets = dict(SECRETS)
    secrets[wrong] = "wr0ng-secret"
    desk = telnet(edge, **secrets)
    with pytest.raises(PortError, match="refused") as raised:
        desk.run(desk.port.open(grant(), 30))
    assert "wr0ng" not in str(raised.value) and edge.lists() == []


def test_a_pager_that_was_not_switched_off_is_answered(edge):
    desk = telnet(edge, **SECRETS)
    desk.carrier.profile = Profile(climb=((">", "enable"),))
    lines = desk.run(desk.carrier.say("list")).split("\n")
    assert len(lines) > 150 and not [line for line in lines if "More" in line or "\b" in line]
    assert sorted(set(lines)) == sorted(lines)


LOGIN = """#!/bin/sh
mount --bind {home}/passwd /etc/passwd
mount --bind {home}/shadow /etc/shadow
exec {busybox} login
"""
SHELL = """#!/bin/sh
PS1='root@OpenWrt:~# ' exec {busybox} ash -i
"""


@pytest.fixture
def console(tmp_path):
    """A cable to a real log-in of a user that only it knows; the folder is one that everybody can read."""
    busybox, openssl = need("busybox", "openssl")
    need("unshare")
    home = tempfile.mkdtemp(prefix="tinyknop-login-")
    os.chmod(home, 0o755)
    try:
        hashed = net.run(openssl, "passwd", "-6", "s3cret-of-knock").strip()
        files = {
            "passwd": "root:x:0:0::/root:/bin/sh\nknock:x:0:0::/:%s/shell\n" % home,
            "shadow": "root:*:19000:0:99999:7:::\nknock:%s:19000:0:99999:7:::\n" % hashed,
            "shell": SHELL.format(busybox=busybox),
            "login": LOGIN.format(home=home, busybox=busybox),
        }
        for name, text in files.items():
            peers.write(home + "/" + name, text, mode=0o755)
        with net.Net(workdir=tmp_path) as network:
            yield cables.Cable(network, ["unshare", "-m", home + "/login"])
    finally:
        shutil.rmtree(home, ignore_errors=True)


def test_a_real_log_in(console):
    desk = Desk(openwrt, console, user="knock", password_file="s3cret-of-knock")
    assert desk.run(desk.carrier.say("echo", "it's", "$HOME")) == "it's $HOME\n"
    assert bytes(console.sent).count(b"s3cret-of-knock") == 1 and b"s3cret" not in bytes(console.heard)


def test_a_real_log_in_that_is_refused(console):
    desk = Desk(openwrt, console, user="knock", password_file="wr0ng-secret")
    with pytest.raises(PortError, match="Login incorrect") as raised:
        desk.run(desk.carrier.say("true"))
    assert bytes(console.sent).count(b"wr0ng-secret") == 1 and "wr0ng" not in str(raised.value)


SETS = """table inet fw4 {
    set knock_tcp { type ipv4_addr . inet_service; flags timeout; timeout 1h; }
    set knock_udp { type ipv4_addr . inet_service; flags timeout; timeout 1h; }
    set knock6_tcp { type ipv6_addr . inet_service; flags timeout; timeout 1h; }
    chain input {
        type filter hook input priority 10; policy accept;
        tcp dport 2222 ip saddr . tcp dport @knock_tcp accept
        tcp dport 2222 drop
    }
}
"""


def elements(network):
    """Returns the elements of the sets, as (address, port), sorted."""
    text = network.at(network.server, "nft", "list", "sets", "inet")
    words = text.replace("{", " ").replace(",", " ").split()
    return sorted(
        (words[at - 1], words[at + 1]) for at, word in enumerate(words) if word == "." and "_" not in words[at - 1]
    )


def test_the_shell_of_an_openwrt_fills_the_sets_of_its_firewall(tmp_path):
    need("ip", "nft", "busybox")
    with net.Net(workdir=tmp_path) as network:
        network.at(network.server, "iptables", "-w", "-P", "INPUT", "ACCEPT")
        rules = peers.write(str(tmp_path / "sets.nft"), SETS)
        network.at(network.server, "nft", "-f", rules)
        network.at(network.server, "nft", "add element inet fw4 knock_tcp { 203.0.113.9 . 22 timeout 600s }")
        network.serve()
        shell = ["ip", "netns", "exec", network.server, "env", "PS1=root@OpenWrt:~# ", need("busybox"), "ash", "-i"]
        desk = Desk(openwrt, cables.Cable(network, shell))
        assert not network.can_connect()
        desk.run(desk.port.sync([]))
        desk.run(desk.port.open(grant(1, net.CLIENT, (("tcp", net.SERVICE), ("udp", 53))), 30))
        desk.run(desk.port.open(grant(2, "2001:db8::7"), 30))
        assert network.can_connect()
        theirs = ("203.0.113.9", "22")
        assert elements(network) == [(net.CLIENT, "2222"), (net.CLIENT, "53"), ("2001:db8::7", "22"), theirs]
        desk.run(desk.port.close(grant(1, net.CLIENT, (("tcp", net.SERVICE),))))
        assert not network.can_connect()
        desk.run(desk.port.sync([(grant(3, "192.0.2.9"), 30)]))
        assert elements(network) == [("192.0.2.9", "22"), theirs]
        desk.run(desk.port.open(grant(3, "192.0.2.9"), 1))  # renewed, for a shorter time
        with pytest.raises(PortError, match="No such file|not found|does not exist"):
            desk.run(desk.carrier.say("nft", "list", "set", "inet", "fw4", "gone"))
        deadline = time.monotonic() + 5
        while elements(network) != [theirs] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert elements(network) == [theirs]  # the kernel ended it
