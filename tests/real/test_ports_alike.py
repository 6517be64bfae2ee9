"""Every port that a firewall of this machine has: the same knocks, the same connections, the same ends.

One network per port, a daemon per test; the thousands of all ports go on at the same time, to be through sooner. The
owner's firewall is in each port's own language: everything dropped but what is established, so that only the port lets
a knocker in. The firewall's own tool is the witness.
"""

import json
import os
import signal
import socket
import subprocess
import time
from concurrent import futures

import pytest

from tests.need import lacking, need
from tests.real import net, peers
from tinyknop import Keys, Packet, seal

KINDS = ("iptables-nft", "iptables-legacy", "ipset", "nftables")
KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
UDP = 5353
MANY = 1000
# Seconds that the many are open for: longer than a port takes to open them on two cores that others use too.
FOR_MANY = {"iptables-nft": 12, "iptables-legacy": 12, "ipset": 8, "nftables": 8}

OWNERS = """*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT
-A INPUT -p %s -j ACCEPT
%sCOMMIT
"""
MATCH = "-A INPUT -m set --match-set %s src,dst -j ACCEPT\n"
OWNERS_NFT = """flush ruleset
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct state established,related accept
        meta l4proto icmpv6 accept
    }
}
"""


class Place(net.Net):
    """The network, with the owner's firewall in the language of one kind of port."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.iptables = kind if kind.startswith("iptables") else "iptables-nft"

    def build(self):
        """Makes namespaces, links, addresses and the owner's firewall."""
        for name in (self.server, self.client):
            net.run("ip", "netns", "add", name)
            self.at(name, "ip", "link", "set", "lo", "up")
        self.link(0, self.client)
        if self.kind == "ipset":
            for name, family in ((peers.SET, "inet"), (peers.SET + "6", "inet6")):
                self.at(self.server, "ipset", "create", name, "hash:ip,port", "family", family, "timeout", "0")
        self.owners()
        self.serve(family=socket.AF_INET6)  # which takes IPv4 as well

    def owners(self):
        """The owner loads the firewall anew: whatever a port has put there is gone."""
        if self.kind == "nftables":
            return self.fed("nft", "-f", "-", text=OWNERS_NFT)
        for tool, proto, name in ((self.iptables, "icmp", peers.SET), (self.six(), "icmpv6", peers.SET + "6")):
            self.fed(tool + "-restore", text=OWNERS % (proto, MATCH % name if self.kind == "ipset" else ""))
        if self.kind == "ipset":
            for name in (peers.SET, peers.SET + "6"):
                self.at(self.server, "ipset", "flush", name)
        return None

    def six(self):
        return self.iptables.replace("iptables", "ip6tables")

    def fed(self, *argv, text):
        argv = ["ip", "netns", "exec", self.server, *argv]
        done = subprocess.run(argv, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        assert done.returncode == 0, done.stdout

    def daemon(self, timeout=30, name="serve"):
        """Starts the daemon with a port of this kind, for knocks that may ask for anything."""
        kind, options = self.kind, None
        if kind.startswith("iptables"):
            kind, options = "iptables", 'binary = "%s"' % self.iptables
        return peers.serve(
            self, peers.toml_stanza(self, openings=(), timeout=timeout), kind=kind, options=options, name=name
        )

    def knock(self, openings="tcp/%d" % net.SERVICE, source=net.CLIENT, seconds=0, to=net.SERVER):
        """Sends a knock of our own making."""
        packet = Packet(message="%s,%s" % (source, openings), username="alice", client_timeout=seconds)
        self.send(seal(packet, KEYS), address=to)

    def held(self):
        """Returns how many openings of IPv4 the firewall holds, by its own tool."""
        if self.kind == "ipset":
            return len(self.at(self.server, "ipset", "list", peers.SET).partition("Members:\n")[2].splitlines())
        if self.kind == "nftables":
            text = self.at(self.server, "nft", "list", "set", "inet", "filter", "tinyknop_open4")
            return text.count(" expires ")
        return len(self.ends())

    def ends(self):
        """Returns the wall-clock seconds at which the openings of iptables end; no other kind shows them."""
        if not self.kind.startswith("iptables"):
            return []
        text = self.at(self.server, self.iptables, "-w", "-S", "FWKNOP_INPUT")
        return [int(part.split(" ")[0]) for part in text.split("_exp_")[1:]]

    def wait_held(self, count, within):
        """Waits until the firewall holds so many openings, and no more."""
        deadline = time.monotonic() + within
        while self.held() != count:
            assert time.monotonic() < deadline, "%s: %d openings, not %d" % (self.kind, self.held(), count)
            time.sleep(0.05)

    def hears(self, port=UDP, within=2.0):
        """Tells whether a datagram to a port of the server comes through."""
        with self.new_socket(self.server, kind=socket.SOCK_DGRAM) as receiver:
            receiver.bind((net.SERVER, port))
            receiver.settimeout(0.05)
            deadline = time.monotonic() + within
            while time.monotonic() < deadline:
                self.send(b"?", port)
                try:
                    return receiver.recv(16) == b"?"
                except socket.timeout:
                    pass
        return False


def tools(kind):
    """Ends the test where the tools of a kind are missing."""
    if os.geteuid():
        lacking("must be root: namespaces that last need it")
    other = {"ipset": ("iptables-nft", "ip6tables-nft", "ipset"), "nftables": ("nft",)}
    need("ip", *other.get(kind, (kind, kind.replace("iptables", "ip6tables"))))


@pytest.fixture(scope="module", params=KINDS)
def place(request):
    tools(request.param)
    with Place(request.param) as made:
        yield made


@pytest.fixture
def network(place):
    """The network of one port, closed again after each test."""
    yield place
    for process in place.processes:
        process.stop()
    place.processes.clear()
    place.owners()


def opened(network, within=5.0, **how):
    """Asserts that the service can be reached."""
    assert network.wait_connect(True, within=within, **how) is not None, network.processes[-1].text()


def shut_after(network, began, seconds, **how):
    """Asserts that the service is shut when so many seconds have passed since then, a second more or less."""
    assert network.wait_connect(False, within=seconds + 3, **how) is not None, network.processes[-1].text()
    assert seconds - 1.2 < time.monotonic() - began < seconds + 1.5
    assert not network.can_connect(timeout=0.15, **how)


def test_several_openings_of_both_protocols_and_no_other(network):
    network.daemon()
    assert not network.hears(within=0.1)
    network.knock("tcp/%d,udp/%d" % (net.SERVICE, UDP))
    opened(network)
    assert network.hears()
    assert not network.hears(UDP + 1, within=0.1)
    assert network.held() == 2


def test_ipv6_and_the_time_that_a_client_asks_for(network):
    network.daemon()
    assert not network.can_connect(address=net.SERVER6, timeout=0.15)
    began = time.monotonic()
    network.knock(source=net.CLIENT6, seconds=1, to=net.SERVER6)
    opened(network, address=net.SERVER6)
    assert not network.can_connect(timeout=0.15)
    network.knock(seconds=1)
    opened(network)
    shut_after(network, began, 1, address=net.SERVER6)
    shut_after(network, began, 1)


def test_access_ends_on_time_and_a_second_knock_extends_it(network):
    network.daemon(timeout=2)
    network.knock()
    opened(network)
    time.sleep(0.9)
    began = time.monotonic()
    network.knock()
    time.sleep(1.2)
    assert network.can_connect()  # 2.1 s after the first
    assert network.held() == 1
    shut_after(network, began, 2)
    network.wait_held(0, 2)


def test_restart_keeps_what_lives_for_the_time_it_has_left(network):
    daemon = network.daemon(timeout=3)
    began = time.monotonic()
    network.knock()
    opened(network)
    daemon.kill()
    network.daemon(timeout=3)
    assert network.can_connect()
    shut_after(network, began, 3)
    network.wait_held(0, 2)


def test_opening_ends_on_time_though_the_daemon_was_killed_and_nobody_restarts_it(network):
    daemon = network.daemon(timeout=2)
    began = time.monotonic()
    network.knock()
    opened(network)
    daemon.kill()
    assert network.can_connect()
    shut_after(network, began, 2)


def test_what_others_flushed_is_put_back(network):
    daemon = network.daemon()
    network.knock()
    opened(network)
    network.owners()
    assert not network.can_connect(timeout=0.15)
    daemon.signal(signal.SIGHUP)
    opened(network, within=3)
    assert network.held() == 1


def test_reload_that_renames_the_port_loses_nothing(network):
    daemon = network.daemon()
    network.knock()
    opened(network)
    with open(daemon.config) as file:
        text = file.read()
    peers.write(daemon.config, text.replace("[port.firewall]", "[port.door]").replace('["firewall"]', '["door"]'))
    for number in (50, 51):
        after = daemon.mark()
        daemon.signal(signal.SIGHUP)
        daemon.wait_line("read anew", after=after)
        network.knock(source="10.99.0.%d" % number)
        network.wait_held(number - 48, 3)
        assert network.can_connect()


def test_close_by_hand_leaves_what_another_grant_holds_until_that_ends(network):
    daemon = network.daemon()
    network.knock()
    opened(network)
    began = time.monotonic()
    network.knock("tcp/%d,udp/%d" % (net.SERVICE, UDP), seconds=1)
    network.wait_held(2, 2)
    assert asked(daemon, "close", str(peers.status(daemon)["grants"][0]["id"])) != []
    assert network.can_connect()
    shut_after(network, began, 1)
    network.wait_held(0, 2)


def asked(daemon, *words):
    """Returns what the daemon answers to words at its own socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(daemon.state + "/tinyknop.sock")
        client.sendall(json.dumps(words).encode() + b"\n")
        with client.makefile() as answer:
            return json.loads(answer.read())


def test_a_thousand_at_once():
    for kind in KINDS:
        tools(kind)
    with futures.ThreadPoolExecutor(len(KINDS)) as pool:
        for said in pool.map(crowd, KINDS):
            print(said)


def crowd(kind):
    """Opens for a thousand sources, knocks in between, waits for the end of all; returns how long each took."""
    seconds = FOR_MANY[kind]
    sources = ["10.66.%d.%d" % (number // 200, number % 200 + 1) for number in range(MANY)]
    packets = [seal(Packet(message="%s,tcp/22" % source, username="alice"), KEYS) for source in sources]
    with Place(kind) as network:
        daemon = network.daemon(timeout=seconds)
        began = time.monotonic()
        with network.new_socket(network.client, kind=socket.SOCK_DGRAM) as sender:
            for packet in packets:
                sender.sendto(packet, (net.SERVER, 62201))
        end = time.monotonic() + seconds
        network.wait_held(MANY, seconds)
        took = [time.monotonic() - began]
        network.knock(seconds=1)
        began = time.monotonic()
        opened(network, within=1)
        took.append(time.monotonic() - began)
        assert len(peers.status(daemon)["grants"]) == MANY + 1
        time.sleep(max(end - time.monotonic(), 0))
        network.wait_held(0, 5)
        took.append(time.monotonic() - end)
        deadline = time.monotonic() + 5
        while peers.status(daemon)["grants"] or peers.status(daemon)["ports"][0]["owed"]:
            assert time.monotonic() < deadline, kind
            time.sleep(0.05)
        assert not network.can_connect(timeout=0.15)
    return "%s: all open after %.2f s, one more in %.2f s, all gone %.2f s after their time" % (kind, *took)
