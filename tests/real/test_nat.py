"""NAT by the iptables port: real connections from outside to an inside host in a third namespace, both flavours.

The client is at 10.99.0.2, a second one at 10.99.1.2, the server between at 10.99.0.1 and 192.168.77.1; two inside
hosts, .5 and .6, say who they are and whom they see. Nothing is forwarded that no grant allows.
"""

import os
import socket
import tempfile
import threading
import time

import pytest

from tests.need import lacking, need
from tests.real import net, peers
from tests.real.test_iptables import CHAINS, FLAVOURS, Firewall
from tinyknop.errors import PortError
from tinyknop.grants import Nat

INSIDE, OTHER, INSIDE6 = "192.168.77.5", "192.168.77.6", "fd77::5"
GATE, SNAT, GATE6 = "192.168.77.1", "192.168.77.9", "fd77::1"  # of the server
PORT = 8022


class Inside(net.Net):
    """The usual network, a second client, and the inside behind the server."""

    def __init__(self, flavour):
        super().__init__(clients=2)
        self.flavour = flavour
        self.inner = self.server[:-1] + "i"

    def build(self):
        super().build()
        net.run("ip", "netns", "add", self.inner)
        net.run("ip", "link", "add", "in0", "netns", self.server, "type", "veth", "peer", "eth0", "netns", self.inner)
        for at, device, addresses in (
            (self.server, "in0", (GATE + "/24", SNAT + "/24", GATE6 + "/64")),
            (self.inner, "eth0", (INSIDE + "/24", OTHER + "/24", INSIDE6 + "/64")),
        ):
            for address in addresses:
                words = ["nodad"] if ":" in address else []
                self.at(at, "ip", "addr", "add", address, "dev", device, *words)
            self.at(at, "ip", "link", "set", device, "up")
        self.at(self.inner, "ip", "link", "set", "lo", "up")
        for at, gate in ((self.inner, GATE), (self.clients[0], net.SERVER), (self.clients[1], "10.99.1.1")):
            self.at(at, "ip", "route", "add", "default", "via", gate)
        self.at(self.inner, "ip", "route", "add", "default", "via", GATE6)
        self.inside(self.server, forward)
        self.guard()
        for at, address, port in (
            (self.inner, INSIDE, PORT),
            (self.inner, OTHER, PORT),
            (self.inner, OTHER, 8023),
            (self.inner, INSIDE6, PORT),
            (self.server, net.SERVER, 8080),
        ):
            self.answer(at, address, port)

    def guard(self):
        """Takes the policy that `Net` made with nf_tables away and makes one with the flavour under test."""
        for six in (False, True):
            nft, own = [t.replace("ip", "ip6") if six else t for t in ("iptables-nft", self.flavour)]
            self.at(self.server, nft, "-w", "-P", "INPUT", "ACCEPT")
            self.at(self.server, nft, "-w", "-F")
            for chain in ("INPUT", "FORWARD"):
                self.at(self.server, own, "-w", "-P", chain, "DROP")
                state = ("-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
                self.at(self.server, own, "-w", "-A", chain, *state)
                if six:
                    self.at(self.server, own, "-w", "-A", chain, "-p", "icmpv6", "-j", "ACCEPT")

    def remove(self):
        super().remove()
        net.run("ip", "netns", "del", self.inner, check=False)

    def answer(self, namespace, address, port):
        """Starts a service that tells everyone `ADDRESS PORT sees PEER PORT`."""
        listener = self.new_socket(namespace, socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.listeners.append(listener)
        listener.bind((address, port))
        listener.listen(64)

        def serve():
            while True:
                try:
                    peer, seen = listener.accept()
                except OSError:  # shut down by `remove`
                    return
                with peer:
                    peer.sendall(("%s %d sees %s %d" % (address, port, seen[0], seen[1])).encode())

        threading.Thread(target=serve, daemon=True).start()

    def ask(self, port, address=net.SERVER, client=0, timeout=0.15):
        """Connects from outside; returns (who answers and where, the address and the port it sees), or None."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.new_socket(self.clients[client], family) as probe:
            probe.settimeout(timeout)
            try:
                probe.connect((address, port))
                words = probe.recv(100).decode().split(" ")
            except OSError:
                return None
        return words[0] + " " + words[1], words[3], int(words[4])


def forward():
    """Makes a router of the namespace that the calling thread is in."""
    for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        with open("/proc/sys/net/" + name, "w") as file:
            file.write("1")


class Nats:
    """A port in the server's namespace, as the daemon would use it."""

    def __init__(self, network, **options):
        table = dict(CHAINS)
        table.update(options)
        self.network = network
        self.firewall = self.inside(lambda: Firewall(network.flavour, **table))

    def inside(self, call):
        return self.network.inside(self.network.server, call)

    def open(self, id, port, nat, source=net.CLIENT, left=60, **more):
        openings = (("tcp", port),)
        return self.inside(lambda: self.firewall.open(id, source, openings, left, nat, **more))

    def close(self, *grants):
        self.inside(lambda: self.firewall.do(self.firewall.port.close(*grants)))

    def rules(self, chain, table="filter"):
        return self.inside(lambda: self.firewall.rules(chain, False, table))

    def all(self, six=False):
        return self.inside(lambda: self.firewall.tool("-S", six=six) + self.firewall.tool("-t", "nat", "-S", six=six))

    def end(self):
        """Takes everything away, and sees that nothing stays."""
        self.inside(lambda: self.firewall.do(self.firewall.port.stop(True)))
        assert "FWKNOP" not in self.all() + self.all(six=True)


@pytest.fixture(scope="module", params=FLAVOURS)
def network(request):
    """One network for all tests of a flavour; each test leaves it as it was."""
    if os.geteuid():
        lacking("must be root: namespaces that last need it")
    need("ip", *FLAVOURS, "ip6tables")
    with tempfile.NamedTemporaryFile() as lock, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XTABLES_LOCKFILE", lock.name)
        with Inside(request.param) as made:
            yield made


@pytest.fixture
def nats(network):
    made = Nats(network)
    yield made
    made.end()


def to(host=INSIDE, port=PORT, snat=None, local=False, every=False, dnat=True):
    return Nat(local, host, port, snat, every, dnat)


def test_a_port_of_ours_leads_to_an_inside_host_and_to_no_other(network, nats):
    assert network.ask(2222) is None
    grant = nats.open("1", 2222, to())
    who, seen, _ = network.ask(2222)
    assert (who, seen) == ("%s %d" % (INSIDE, PORT), net.CLIENT)
    assert network.ask(2222, client=1) is None
    assert network.ask(PORT, OTHER) is None  # fwknopd's own rule would let this through
    nats.close(grant)
    assert network.ask(2222) is None


def test_snat_and_masquerade_hide_the_client(network, nats):
    first = nats.open("1", 2222, to(snat=SNAT))
    assert network.ask(2222)[:2] == ("%s %d" % (INSIDE, PORT), SNAT)
    second = nats.open("2", 2223, to(OTHER, snat="masquerade"))
    assert network.ask(2223) == ("%s %d" % (OTHER, PORT), GATE, 2223)
    nats.close(first, second)
    assert network.ask(2222) is None and network.ask(2223) is None


def test_local_nat_leads_to_a_service_of_our_own(network, nats):
    grant = nats.open("1", 2222, to(net.SERVER, 8080, local=True))
    assert network.ask(2222)[0] == "%s 8080" % net.SERVER
    assert network.ask(2222, client=1) is None
    nats.close(grant)
    assert network.ask(2222) is None and network.ask(8080) is None


def test_two_stanzas_lead_to_different_hosts_and_ports_at_the_same_time(network, nats):
    first = nats.open("1", 2222, to())
    second = nats.open("2", 2222, to(OTHER), source="10.99.1.2")
    third = nats.open("3", 2223, to(OTHER, 8023))
    assert network.ask(2222)[0] == "%s %d" % (INSIDE, PORT)
    assert network.ask(2222, "10.99.1.1", client=1)[0] == "%s %d" % (OTHER, PORT)
    assert network.ask(2223)[0] == "%s 8023" % OTHER
    nats.close(first)
    assert network.ask(2222) is None
    assert network.ask(2222, "10.99.1.1", client=1)[0] == "%s %d" % (OTHER, PORT)
    nats.close(second)
    assert network.ask(2223)[0] == "%s 8023" % OTHER
    nats.close(third)
    assert network.ask(2223) is None


def test_forward_all_leads_to_every_port(network, nats):
    grant = nats.open("1", 2222, to(OTHER, every=True))
    assert network.ask(PORT)[0] == "%s %d" % (OTHER, PORT)
    assert network.ask(8023)[0] == "%s 8023" % OTHER
    nats.close(grant)
    routed = nats.open("2", 2222, to("0.0.0.0", 0, "masquerade", every=True, dnat=False))
    assert network.ask(PORT, INSIDE)[:2] == ("%s %d" % (INSIDE, PORT), GATE)
    nats.close(routed)
    assert network.ask(PORT, INSIDE) is None


def test_without_dnat_the_inside_host_has_its_own_address(network, nats):
    grant = nats.open("1", 2222, to(dnat=False))
    assert network.ask(PORT, INSIDE)[0] == "%s %d" % (INSIDE, PORT)
    assert network.ask(2222) is None and network.ask(PORT, OTHER) is None
    nats.close(grant)


def test_ipv6(network, nats):
    grant = nats.open("1", 2222, to(INSIDE6), source=net.CLIENT6)
    assert network.ask(2222, net.SERVER6)[:2] == ("%s %d" % (INSIDE6, PORT), net.CLIENT6)
    nats.close(grant)
    assert network.ask(2222, net.SERVER6) is None
    grant = nats.open("2", 2222, to(INSIDE6, snat="masquerade"), source=net.CLIENT6)
    assert network.ask(2222, net.SERVER6)[1] == GATE6
    nats.close(grant)


def test_nat_ends_at_its_second_with_nobody_there(network, nats):
    grant = nats.open("1", 2222, to(snat="masquerade"), left=1)
    assert network.ask(2222) is not None
    time.sleep(max(0, grant.until + 1.01 - time.time()))
    assert network.ask(2222) is None
    assert len(nats.rules("FWKNOP_FORWARD")) == 1  # nobody was there


def test_a_flush_of_either_table_is_mended(network, nats):
    first = nats.open("1", 2222, to())
    nats.inside(lambda: nats.firewall.tool("-t", "nat", "-F"))
    second = nats.open("2", 2223, to(OTHER))
    assert network.ask(2222) and network.ask(2223)
    nats.inside(lambda: [nats.firewall.tool("-F", "FWKNOP_FORWARD"), nats.firewall.tool("-F", "FORWARD")])
    nats.inside(lambda: nats.firewall.do(nats.firewall.port.sync([(first, 60), (second, 60)])))
    nats.inside(lambda: nats.firewall.tool("-A", "FORWARD", *"-m conntrack --ctstate ESTABLISHED -j ACCEPT".split()))
    assert network.ask(2222) and network.ask(2223)
    nats.close(first, second)


def test_half_a_nat_grant_does_not_stay(network):
    nats = Nats(network)
    nats.inside(lambda: nats.firewall.tool("-F", "FORWARD"))
    nats.inside(lambda: nats.firewall.tool("-F", "FWKNOP_FORWARD"))
    nats.inside(lambda: nats.firewall.tool("-X", "FWKNOP_FORWARD"))
    tables = nats.firewall.port.families[4]
    broken = tables.hooks[2]
    tables.hooks[2] = type(broken)("ACCEPT", "filter", "NOWHERE", 1, "FWKNOP_FORWARD")
    with pytest.raises(PortError, match="-restore"):
        nats.open("1", 2222, to())
    assert nats.rules("FWKNOP_PREROUTING", "nat") == []
    tables.hooks[2] = broken
    nats.end()
    state = ("-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
    nats.inside(lambda: nats.firewall.tool("-A", "FORWARD", *state))


RECORDED = (  # asked for, options, chain -> fwknopd's rules; but for `-d` in FORWARD
    (2222, None, {}, {"FWKNOP_INPUT": "-s 10.99.0.2/32 -p tcp -m tcp --dport 2222 @ACCEPT"}),
    (
        2222,
        None,
        {"destination": "Y"},
        {
            "FWKNOP_INPUT": "-s 10.99.0.2/32 -d 10.99.0.1/32 -p tcp -m tcp --dport 2222 @ACCEPT",
            "FWKNOP_OUTPUT": "-s 10.99.0.1/32 -d 10.99.0.2/32 -p tcp -m tcp --sport 2222 @ACCEPT",
        },
    ),
    (
        22,
        to(),
        {},
        {
            "FWKNOP_FORWARD": "-s 10.99.0.2/32 -d 192.168.77.5/32 -p tcp -m tcp --dport 8022 @ACCEPT",
            "FWKNOP_PREROUTING": "-s 10.99.0.2/32 -p tcp -m tcp --dport 22 @DNAT --to-destination 192.168.77.5:8022",
        },
    ),
    (
        2222,
        to(net.SERVER, 80, local=True),
        {},
        {
            "FWKNOP_INPUT": "-s 10.99.0.2/32 -p tcp -m tcp --dport 80 @ACCEPT",
            "FWKNOP_PREROUTING": "-s 10.99.0.2/32 -p tcp -m tcp --dport 2222 @DNAT --to-destination 10.99.0.1:80",
        },
    ),
    (
        2222,
        to(port=22, snat="masquerade"),
        {},
        {
            "FWKNOP_FORWARD": "-s 10.99.0.2/32 -d 192.168.77.5/32 -p tcp -m tcp --dport 22 @ACCEPT",
            "FWKNOP_PREROUTING": "-s 10.99.0.2/32 -p tcp -m tcp --dport 2222 @DNAT --to-destination 192.168.77.5:22",
            "FWKNOP_MASQUERADE": "-d 192.168.77.5/32 -p tcp -m tcp --dport 22 @MASQUERADE --to-ports 2222",
        },
    ),
    (
        2222,
        to(port=22, snat=GATE, dnat=False),
        {},
        {
            "FWKNOP_FORWARD": "-s 10.99.0.2/32 -d 192.168.77.5/32 -p tcp -m tcp --dport 22 @ACCEPT",
            "FWKNOP_POSTROUTING": "-d 192.168.77.5/32 -p tcp -m tcp --dport 22 @SNAT --to-source 192.168.77.1",
        },
    ),
    (
        2222,
        to("0.0.0.0", 0, GATE, every=True, dnat=False),
        {},
        {
            "FWKNOP_FORWARD": "-s 10.99.0.2/32 @ACCEPT",
            "FWKNOP_POSTROUTING": "-s 10.99.0.2/32 @SNAT --to-source 192.168.77.1",
        },
    ),
    (
        2222,
        to(port=0, snat="masquerade", every=True),
        {},
        {
            "FWKNOP_FORWARD": "-s 10.99.0.2/32 @ACCEPT",
            "FWKNOP_PREROUTING": "-s 10.99.0.2/32 @DNAT --to-destination 192.168.77.5",
            "FWKNOP_MASQUERADE": "-s 10.99.0.2/32 @MASQUERADE",
        },
    ),
)


@pytest.mark.parametrize("case", range(len(RECORDED)))
def test_rules_are_those_of_fwknopd(network, case):
    port, nat, options, expected = RECORDED[case]
    if "FWKNOP_OUTPUT" not in expected:
        options = dict(options, output_chain="")
    nats = Nats(network, **options)
    grant = nats.open("1", port, nat)
    comment = "-m comment --comment _exp_%d -j " % grant.until
    for table, chain in [
        ("filter", "FWKNOP_" + name) for name in ("INPUT", "FORWARD", "OUTPUT") if name != "OUTPUT" or case == 1
    ] + [("nat", "FWKNOP_" + name) for name in ("PREROUTING", "POSTROUTING", "MASQUERADE")]:
        wanted = [expected[chain].replace("@", comment)] if chain in expected else []
        assert nats.rules(chain, table) == wanted, chain
    nats.end()


def knocked(network, name, access, *more, **conf):
    """Starts the front end and has fwknop's client knock for NAT; returns the daemon and the first answer."""
    exe = "/usr/sbin/" + network.flavour
    daemon = peers.front_end(network, access, name=name, firewall_exe=exe, enable_ipt_forwarding="Y", **conf)
    assert network.ask(2222) is None
    peers.fwknop(network, *more, access="tcp/2222")
    deadline = time.monotonic() + 2
    while True:
        answer = network.ask(2222)
        if answer or time.monotonic() > deadline:
            return daemon, answer


def test_fwknops_client_is_led_inside_until_its_time_though_the_daemon_was_killed(network):
    need("fwknop")
    access = peers.stanza(open_ports=None, fw_access_timeout="1")
    daemon, answer = knocked(network, "asked", access, "-N", "%s:%d" % (INSIDE, PORT))
    assert answer[:2] == ("%s %d" % (INSIDE, PORT), net.CLIENT), daemon.text()
    daemon.kill()
    rules = network.at(network.server, network.flavour, "-S", "FWKNOP_FORWARD")
    due = int(rules.split("_exp_")[1].split(" ")[0])
    time.sleep(max(0, due + 1.01 - time.time()))
    assert network.ask(2222) is None
    assert network.at(network.server, network.flavour, "-S", "FWKNOP_FORWARD") == rules  # nobody was there
    exe = "/usr/sbin/" + network.flavour
    peers.front_end(network, access, name="asked", firewall_exe=exe, enable_ipt_forwarding="Y").stop()
    assert "FWKNOP" not in network.at(network.server, network.flavour, "-S")


def test_force_nat_leads_every_knock_inside(network):
    need("fwknop")
    forced = {"force_nat": "%s %d" % (OTHER, PORT), "force_masquerade": "Y"}
    access = peers.stanza(open_ports=None, **forced)
    daemon, answer = knocked(network, "forced", access, enable_ipt_snat="Y")
    assert answer == ("%s %d" % (OTHER, PORT), GATE, 2222), daemon.text()
    daemon.stop()
    assert network.ask(2222) is None
