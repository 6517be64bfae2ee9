"""WireGuard behind a knock, from end to end: wireguard-go and wg on both sides, in two namespaces."""

import itertools
import os
import subprocess
import time

import pytest

from tests.need import lacking, need
from tests.real import net, peers
from tinyknop import Keys, Packet, ports, seal
from tinyknop.host.toml import tomllib

UDP = 51820
INSIDE, OUTSIDE = "10.98.0.1", "10.98.0.2"  # in the tunnel: of the server, of the client
TIMEOUT = 3  # seconds of a grant
IDLE = 4  # seconds after which the kernel forgets a UDP flow, in the server's namespace
WITHIN = 20  # seconds for what WireGuard does: it tries a handshake again after 5
_count = itertools.count()


def secret(kind):
    """Returns a fresh key as `wg` makes it."""
    return subprocess.run(["wg", kind], capture_output=True, text=True, check=True).stdout.strip()


def public(key):
    return subprocess.run(["wg", "pubkey"], input=key, capture_output=True, text=True, check=True).stdout.strip()


class Tunnel:
    """An interface of WireGuard at either end; the server's knows no peer yet but one of its owner's."""

    def __init__(self, network):
        need("wg", "wireguard-go", "conntrack")
        if not os.path.exists("/dev/net/tun"):
            lacking("no /dev/net/tun: wireguard-go makes its interface there")
        self.network = network
        tag = "w%x%x" % (os.getpid() & 0xFFFFFF, next(_count))
        self.near, self.far = tag + "s", tag + "c"  # names of their control sockets too, which namespaces share
        keys = {end: secret("genkey") for end in (self.near, self.far)}
        self.key, self.server_key = public(keys[self.far]), public(keys[self.near])
        self.shared = secret("genpsk")
        self.shared_file = peers.write(os.path.join(network.dir, "psk"), self.shared + "\n")
        self.owners = public(secret("genkey"))
        for namespace, name, address in ((network.server, self.near, INSIDE), (network.client, self.far, OUTSIDE)):
            self.make(namespace, name, address, keys[name])
        self.wg(self.near, "listen-port", str(UDP), "peer", self.owners, "allowed-ips", "10.98.0.9/32")
        network.at(network.server, "iptables", "-A", "INPUT", "-i", self.near, "-j", "ACCEPT")

    def make(self, namespace, name, address, key):
        network = self.network
        peers.Process(network, namespace, ["wireguard-go", "-f", name])
        deadline = time.monotonic() + WITHIN
        while not os.path.exists("/var/run/wireguard/%s.sock" % name):
            assert time.monotonic() < deadline, "wireguard-go did not start"
            time.sleep(0.02)
        self.wg(name, "private-key", peers.write(os.path.join(network.dir, name), key + "\n"))
        network.at(namespace, "ip", "addr", "add", address + "/24", "dev", name)
        network.at(namespace, "ip", "link", "set", name, "up")

    def wg(self, name, *words):
        self.network.at(self.network.server if name == self.near else self.network.client, "wg", "set", name, *words)

    def call(self, keepalive="0"):
        """Has the client begin anew, as `wg-quick up` does."""
        self.wg(self.far, "peer", self.server_key, "remove")
        words = ["preshared-key", self.shared_file, "allowed-ips", INSIDE + "/32", "persistent-keepalive", keepalive]
        self.wg(self.far, "peer", self.server_key, *words, "endpoint", "%s:%d" % (net.SERVER, UDP))

    def works(self, within=WITHIN):
        """Tells whether data get through, at the latest after so many seconds."""
        return self.network.wait_connect(True, address=INSIDE, within=within) is not None

    def peers(self):
        """Returns the public keys that the server's interface knows."""
        return set(self.network.at(self.network.server, "wg", "show", self.near, "peers").split())

    def wait_peers(self, *wanted):
        deadline = time.monotonic() + WITHIN
        while self.peers() != set(wanted):
            assert time.monotonic() < deadline, self.peers()
            time.sleep(0.05)


@pytest.fixture
def tunnel(network):
    for name in ("udp_timeout", "udp_timeout_stream"):  # of this namespace alone
        network.at(network.server, "sysctl", "-q", "-w", "net.netfilter.nf_conntrack_%s=%d" % (name, IDLE))
    return Tunnel(network)


def knock():
    """Returns a knock as bytes, so that it can be sent again."""
    packet = Packet(message="%s,udp/%d" % (net.CLIENT, UDP), username="alice")
    return seal(packet, Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY))


def send(network, daemon, data, outcome="granted"):
    """Sends a knock and waits for what the daemon makes of it."""
    before = peers.counters(daemon)
    network.send(data)
    assert peers.wait_counters(daemon, before).get(outcome) == 1


def flows(network):
    """Returns the lines of the kernel's table about the tunnel's packets."""
    listed = network.at(network.server, "conntrack", "-L", "-p", "udp", "--dport", str(UDP), check=False)
    return [line for line in listed.splitlines() if "dport=%d" % UDP in line]


def wait_gone(call):
    deadline = time.monotonic() + WITHIN
    while call():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_documented_configuration_is_read():
    with open(os.path.join(peers.ROOT, "docs", "wireguard.md")) as file:
        blocks = file.read().split("```toml\n")[1:]
    text = next(block for block in blocks if "peers = [" in block).split("```")[0]
    options = tomllib.loads(text)["port"]["tunnel"]
    port = ports.make("tunnel", dict(options, peers=",".join(options["peers"])), {})
    assert sorted(port.peers) == ["alice", "bob"]
    assert port.peers["alice"][1:] == (["10.8.0.2/32", "fd08::2/128"], "/etc/wireguard/alice.psk")


def load(network, tunnel, kind):
    """Puts the ruleset of docs/wireguard.md in force at the server, in the place of the network's own."""
    with open(os.path.join(peers.ROOT, "docs", "wireguard.md")) as file:
        blocks = file.read().split("```")[1::2]
    start = {"iptables": "\n*filter", "nftables": "\ntable inet filter"}[kind]
    text = next(block for block in blocks if block.startswith(start)).replace("wg0", tunnel.near)
    path = peers.write(os.path.join(network.dir, "ruleset"), text)
    for tool in ("iptables", "ip6tables"):
        network.at(network.server, tool, "-P", "INPUT", "ACCEPT")
        network.at(network.server, tool, "-F")
    network.at(network.server, *(("nft", "-f") if kind == "nftables" else ("iptables-restore",)), path)


def recipe(network, tunnel, kind):
    """Starts the daemon of the recipe; the server knows its client."""
    load(network, tunnel, kind)
    stanza = peers.toml_stanza(network, openings=["udp/%d" % UDP], timeout=TIMEOUT)
    tunnel.wg(tunnel.near, "peer", tunnel.key, "preshared-key", tunnel.shared_file, "allowed-ips", OUTSIDE + "/32")
    return peers.serve(network, stanza, kind=kind, options="")


def closed(network, daemon):
    """Waits until the daemon has closed all."""
    wait_gone(lambda: peers.status(daemon)["grants"])


@pytest.mark.parametrize("kind", ("iptables", "nftables"))
def test_tunnel_needs_a_knock_and_outlives_the_opening_by_keepalive(network, tunnel, kind):
    daemon = recipe(network, tunnel, kind)
    tunnel.call()
    assert not tunnel.works(within=1)
    before = peers.counters(daemon)
    peers.knock(network, access="udp/%d" % UDP)  # what PreUp does
    assert peers.wait_counters(daemon, before).get("granted") == 1
    tunnel.call("1")
    assert tunnel.works()
    closed(network, daemon)
    time.sleep(IDLE + 1)  # nothing but keepalives
    assert tunnel.works(within=2), "the flow should have outlived its opening"


def test_idle_tunnel_without_keepalive_ends_with_its_flow_and_a_replay_does_not_reopen(network, tunnel):
    daemon = recipe(network, tunnel, "iptables")
    data = knock()
    send(network, daemon, data)
    tunnel.call()
    assert tunnel.works()
    closed(network, daemon)
    wait_gone(lambda: flows(network))
    assert not tunnel.works(within=1), "idle, closed, and still open"
    send(network, daemon, data, "replay")
    tunnel.call()
    assert not tunnel.works(within=1) and not peers.rules(network)
    send(network, daemon, knock())
    tunnel.call()
    assert tunnel.works()


def serve(network, tunnel, timeout=TIMEOUT, name="serve"):
    """Starts a daemon whose knocks add the client's peer."""
    peer = "alice %s %s/32 %s" % (tunnel.key, OUTSIDE, tunnel.shared_file)
    options = 'interface = "%s"\npeers = ["%s"]' % (tunnel.near, peer)
    stanza = peers.toml_stanza(network, openings=["udp/%d" % UDP], timeout=timeout)
    return peers.serve(network, stanza, kind="wireguard", options=options, name=name)


def test_port_adds_the_peer_for_the_time_of_a_grant_also_across_kill_9(network, tunnel):
    network.at(network.server, "iptables", "-A", "INPUT", "-p", "udp", "--dport", str(UDP), "-j", "ACCEPT")
    daemon = serve(network, tunnel)
    tunnel.call()
    assert not tunnel.works(within=1)
    data = knock()
    send(network, daemon, data)
    tunnel.wait_peers(tunnel.owners, tunnel.key)
    tunnel.call("1")
    assert tunnel.works()
    tunnel.wait_peers(tunnel.owners)
    assert not tunnel.works(within=1), "there is no peer, and data get through"
    send(network, daemon, data, "replay")
    assert tunnel.peers() == {tunnel.owners}
    send(network, daemon, knock())
    tunnel.wait_peers(tunnel.owners, tunnel.key)
    daemon.kill()
    time.sleep(TIMEOUT)  # its end, which nobody sees
    assert tunnel.key in tunnel.peers()
    said = daemon.text()
    daemon = serve(network, tunnel)
    tunnel.wait_peers(tunnel.owners)
    said += daemon.text()
    assert tunnel.shared not in said and "Traceback" not in said


def test_restart_keeps_the_peer_of_a_live_grant_and_adds_it_where_it_was_lost(network, tunnel):
    daemon = serve(network, tunnel, timeout=60)
    send(network, daemon, knock())
    tunnel.wait_peers(tunnel.owners, tunnel.key)
    daemon.kill()
    tunnel.wg(tunnel.near, "peer", tunnel.key, "remove")  # as after `wg-quick down` and up
    daemon = serve(network, tunnel, timeout=60)
    tunnel.wait_peers(tunnel.owners, tunnel.key)
    number = peers.status(daemon)["grants"][0]["id"]
    argv = ["-m", "tinyknop", "close", str(number), "-c", daemon.config]
    network.at(network.server, "env", "PYTHONPATH=" + peers.ROOT, *peers.PYTHON, *argv)
    tunnel.wait_peers(tunnel.owners)
