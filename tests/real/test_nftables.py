"""The nftables port and its netlink carrier against the kernel: owners' rulesets, connections, `nft` as witness."""

import os
import signal
import socket
import subprocess
import threading
import time

import pytest
from tinyknop.ports import nftables
from tinyknop.ports.carriers import local, netlink

from tests.need import lacking, need
from tests.real import net, peers
from tinyknop import conntrack
from tinyknop.compat import monotonic
from tinyknop.errors import PortError
from tinyknop.grants import Grant, Nat
from tinyknop.loop import Loop

# What a careful owner has: everything dropped, but what is established, loopback and neighbour discovery.
OWNERS = """
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        iif "lo" accept
        ct state established,related accept
        icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
    }
}
"""
INSIDE, INSIDE6 = "10.99.1.2", "fd99:1::2"  # the second client of the network: a host behind the server


class Network(net.Net):
    """Knocker, server with the owner's nftables, and an inside host that knows no way back to the knocker."""

    def __init__(self):
        super().__init__(clients=2)
        self.inside_host = self.clients[1]
        self.loop = Loop()
        self.carrier = netlink.Carrier()

    def build(self):
        for name in [self.server] + self.clients:
            net.run("ip", "netns", "add", name)
            self.at(name, "ip", "link", "set", "lo", "up")
        for number, name in enumerate(self.clients):
            self.link(number, name)
        self.inside(self.server, lambda: self.run(self.carrier.start()))

    def nft(self, text):
        """Runs a script in the server's namespace."""
        argv = ["ip", "netns", "exec", self.server, "nft", "-f", "-"]
        done = subprocess.run(argv, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
        assert done.returncode == 0, done.stdout

    def ruleset(self):
        """Returns what nft lists, without the time that elements have left."""
        lines = self.at(self.server, "nft", "list", "ruleset").split("\n")
        return "\n".join([" ".join(line.partition(" expires ")[0].split()) for line in lines])

    def held(self, name="tinyknop_open4", table="filter"):
        """Returns the keys and values in a set, as the program shows them."""
        kind = "map" if "nat" in name else "set"
        text = self.at(self.server, "nft", "list", kind, "inet", table, name)
        return dict([(key, value) for key, (value, _) in nftables.listed(text).items()])

    def run(self, coroutine):
        task = self.loop.spawn(coroutine)
        task.watched = True
        while not task.done:
            self.loop.at(monotonic() + 5, int)  # a turn ends soon, whatever the task waits for
            self.loop.turn()
        return task.outcome()

    def port(self, carrier=None, **options):
        door = nftables.Port("door", dict(nftables.OPTIONS, where="test:1", **options), carrier or self.carrier)
        self.run(door.start())
        return door

    def greet(self, namespace, port, family=socket.AF_INET):
        """Starts a service that tells everyone from which address it sees them."""
        listener = self.new_socket(namespace, family)
        self.listeners.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen(64)

        def serve():
            while True:
                try:
                    peer, address = listener.accept()
                except OSError:  # the only way out: the listener was shut down
                    return
                with peer:
                    peer.sendall(address[0].encode())

        threading.Thread(target=serve, daemon=True).start()

    def seen_as(self, port, address=net.SERVER, timeout=3.5):
        """Returns the address that the service behind a port sees, None where there is no way to it.

        A neighbour may take a second to be found, so only who expects no way to be there gives up sooner.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.new_socket(self.client, family) as probe:
            probe.settimeout(timeout)
            try:
                probe.connect((address, port))
                return probe.recv(64).decode()
            except OSError:
                return None

    def shut(self, port, address=net.SERVER):
        return self.seen_as(port, address, 0.3) is None


@pytest.fixture
def place():
    if os.geteuid():
        lacking("network namespaces with names need root")
    need("ip", "nft")
    with Network() as made:
        yield made
        made.run(made.carrier.stop())


class Program(local.Carrier):
    """The local carrier, a namespace away."""

    def __init__(self, namespace):
        super().__init__()
        self.namespace = namespace

    async def say(self, *words, text=None):
        return await super().say("ip", "netns", "exec", self.namespace, *words, text=text)


def grant(number=1, source=net.CLIENT, openings=(("tcp", 2222),), nat=None, opened=1700000000):
    return Grant(number, source, openings, opened, opened + 30, "alice", nat, "0.0.0.0", source)


def every_kind():
    """Grants that between them use each set and map of both families."""
    four, six = "192.0.2.7", "2001:db8::7"
    return [
        grant(1, four, (("tcp", 22), ("udp", 53))),
        grant(2, six, (("tcp", 22), ("udp", 53))),
        grant(3, four, nat=Nat(False, "10.0.0.5", 80, "masquerade", False, True)),
        grant(4, six, nat=Nat(False, "fd00::5", 80, "masquerade", False, True)),
        grant(5, "192.0.2.8", nat=Nat(False, "10.0.0.5", 81, "10.0.0.1", False, True)),
        grant(6, "2001:db8::8", nat=Nat(False, "fd00::5", 81, "fd00::1", False, True)),
        grant(7, "192.0.2.9", nat=Nat(False, "10.0.0.5", 0, "10.0.0.1", True, True)),
        grant(8, "2001:db8::9", nat=Nat(False, "fd00::5", 0, "fd00::1", True, True)),
        grant(9, "192.0.2.10", nat=Nat(False, "10.0.0.5", 0, "masquerade", True, False)),
        grant(10, "2001:db8::a", nat=Nat(False, "fd00::5", 0, "masquerade", True, False)),
        grant(11, "192.0.2.11", nat=Nat(True, "10.0.0.1", 443, None, False, True)),
    ]


def test_messages_of_ours_and_the_program_make_the_same_ruleset(place):
    seen = []
    for carrier in (None, Program(place.server)):
        place.nft("flush ruleset\n" + OWNERS)
        door = place.port(carrier)
        for one in every_kind():
            place.run(door.open(one, 3000))
        seen.append(place.ruleset())
        place.run(door.sync([(one, 3000) for one in every_kind()[:7]]))
        place.run(door.close(every_kind()[0]))
        seen.append(place.ruleset())
        place.run(door.stop(True))
        seen.append(place.ruleset())
    assert seen[:3] == seen[3:]
    for said in (
        "ip saddr . meta l4proto . th dport @tinyknop_open4 accept",
        "2001:db8::7 . udp . 53 timeout 50m",
        "192.0.2.8 . 10.0.0.5 . tcp . 81 timeout 50m",
        "dnat ip6 to ip6 saddr . meta l4proto . th dport map @tinyknop_dnat6",
        "ip saddr @tinyknop_masquerade_all4 masquerade",
        "type nat hook prerouting priority dstnat - 10; policy accept;",
        "type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service",
    ):
        assert said in seen[0], said
    assert "192.0.2.10 timeout" not in seen[1]
    place.nft("flush ruleset\n" + OWNERS)
    assert seen[2] == place.ruleset()


def test_both_carriers_list_the_same_elements(place):
    place.nft(OWNERS)
    door = place.port()
    for one in every_kind():
        place.run(door.open(one, 90061))
    program = Program(place.server)
    count = 0
    for c in door.chains:
        for a in c.sets:
            words = ("nft", "list", a.kind) + tuple(a.table.split()) + (a.name,)
            ours, theirs = (nftables.listed(place.run(carrier.say(*words))) for carrier in (place.carrier, program))
            assert dict((key, ours[key][0]) for key in ours) == dict((key, theirs[key][0]) for key in theirs)
            assert all(90050 < left <= 90061 for found in (ours, theirs) for _, left in found.values())
            count += len(ours)
        words = ("nft", "-a", "list", "chain") + tuple(c.spot.split())
        assert place.run(door.ours(c)) != []
        assert [
            line.split()[-1] for line in place.run(place.carrier.say(*words)).split("\n") if "tinyknop_" in line
        ] == [line.split()[-1] for line in place.run(program.say(*words)).split("\n") if "comment" in line]
    assert count == len(set([element for one in every_kind() for element in door.elements(one)]))
    listing = place.run(program.say("nft", "list", "chains"))
    assert door.places(listing) == door.places(place.run(place.carrier.say("nft", "list", "chains")))


def test_default_drop_of_the_owner_opens_for_the_knocker_alone_and_closes(place):
    place.nft(OWNERS)
    for family in (socket.AF_INET, socket.AF_INET6):
        place.serve(2222, family) if family == socket.AF_INET else place.greet(place.server, 2223, family)
    place.serve(2224)
    door = place.port()
    assert not place.can_connect(2222)
    place.run(door.open(grant(), 30))
    place.run(door.open(grant(2, net.CLIENT6, (("tcp", 2223),)), 30))
    assert place.wait_connect(True, 2222)
    assert place.seen_as(2223, net.SERVER6) == net.CLIENT6
    assert not place.can_connect(2224)
    assert not place.can_connect(2222, "10.99.1.1", namespace=place.inside_host)
    place.run(door.close(grant()))
    place.run(door.close(grant(2, net.CLIENT6, (("tcp", 2223),))))
    assert not place.can_connect(2222)
    assert place.shut(2223, net.SERVER6)


def test_every_chain_that_drops_by_policy_gets_the_rules(place):
    place.nft(OWNERS)
    place.nft("table ip more {\nchain late {\ntype filter hook input priority 20; policy drop;\n"
              "ct state established accept\n}\n}\n")  # fmt: skip
    place.serve(2222)
    door = place.port()
    place.run(door.open(grant(), 30))
    assert place.wait_connect(True, 2222)
    assert place.held(table="filter") == {"10.99.0.2 . tcp . 2222": ""}
    more = place.at(place.server, "nft", "list", "table", "ip", "more")
    assert "@tinyknop_open4 accept" in more and "open6" not in more
    place.run(door.stop(True))
    assert "tinyknop" not in place.ruleset()


def test_chain_that_drops_by_a_rule_is_served_when_it_is_named(place):
    last = "nd-neighbor-advert } accept\n"
    place.nft(OWNERS.replace("policy drop", "policy accept").replace(last, last + "reject\n"))
    place.serve(2222)
    door = place.port()
    place.run(door.open(grant(), 30))
    assert [c.own for c in door.chains] == [True]
    assert not place.can_connect(2222)
    place.run(door.stop(True))
    door = place.port(chain="inet filter input")
    place.run(door.open(grant(), 30))
    assert place.wait_connect(True, 2222)
    assert "table inet tinyknop" not in place.ruleset()


def test_named_chain_that_is_missing_and_one_kept_by_iptables_are_refused(place):
    with pytest.raises(PortError, match="inet fw4.*missing"):
        place.port(chain="inet fw4 input")
    place.nft("table ip filter {\nchain INPUT {\ntype filter hook input priority 0; policy drop;\n}\n}\n")
    with pytest.raises(PortError, match="kind iptables"):
        place.port()


def test_kernel_closes_with_nobody_there(place):
    place.nft(OWNERS)
    place.serve(2222)
    door = place.port()
    place.run(door.open(grant(), 1))
    place.run(door.open(grant(2, net.CLIENT6), 0))  # rounded up: 0 would be for ever
    assert place.wait_connect(True, 2222)
    place.run(place.carrier.stop())
    assert place.wait_connect(False, 2222, within=3) is not None
    assert place.held("tinyknop_open6") == {}


def test_extending_holds_against_the_first_end_and_a_shorter_grant(place):
    place.nft(OWNERS)
    door = place.port()
    place.run(door.open(grant(), 1))
    place.run(door.open(grant(), 20))
    place.run(door.open(grant(2), 10))
    left = nftables.listed(place.at(place.server, "nft", "list", "set", "inet", "filter", "tinyknop_open4"))
    assert 18 <= left["10.99.0.2 . tcp . 2222"][1] <= 20
    place.run(door.close(grant()))
    left = nftables.listed(place.at(place.server, "nft", "list", "set", "inet", "filter", "tinyknop_open4"))
    assert 8 <= left["10.99.0.2 . tcp . 2222"][1] <= 10
    place.run(door.close(grant(2)))
    assert place.held() == {}


def forwarding(place):
    """Makes the server forward between knocker and inside host, and the services that the NAT tests reach."""
    place.nft(OWNERS)
    for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        place.at(place.server, "sysctl", "-q", "-w", name + "=1")
    for family in (socket.AF_INET, socket.AF_INET6):
        place.greet(place.inside_host, 8022 if family == socket.AF_INET else 8026, family)
    place.at(place.client, "ip", "route", "add", "10.99.1.0/24", "via", net.SERVER)
    return place.port()


def way_back(place):
    place.at(place.inside_host, "ip", "route", "add", "10.99.0.0/24", "via", "10.99.1.1")
    place.at(place.inside_host, "ip", "-6", "route", "add", "fd99::/64", "via", "fd99:1::1")


def test_dnat_reaches_an_inside_host_from_the_knocker_alone(place):
    door = forwarding(place)
    way_back(place)
    assert place.shut(2222)
    four = grant(1, nat=Nat(False, INSIDE, 8022, None, False, True))
    six = grant(2, net.CLIENT6, nat=Nat(False, INSIDE6, 8026, None, False, True))
    place.run(door.open(four, 30))
    place.run(door.open(six, 30))
    assert place.seen_as(2222) == net.CLIENT
    assert place.seen_as(2222, net.SERVER6) == net.CLIENT6
    assert place.seen_as(8022, INSIDE) == net.CLIENT  # the way itself is open, for this port of this host
    assert place.held() == {}
    place.run(door.close(four))
    place.run(door.close(six))
    assert place.shut(2222)
    assert place.shut(2222, net.SERVER6)
    assert place.shut(8022, INSIDE)


def test_masquerade_and_snat_bring_answers_back_without_a_route(place):
    door = forwarding(place)
    for number, (source, address, inside, port, ours) in enumerate((
        (net.CLIENT, net.SERVER, INSIDE, 8022, "10.99.1.1"), (net.CLIENT6, net.SERVER6, INSIDE6, 8026, "fd99:1::1")
    )):  # fmt: skip
        for snat in ("masquerade", ours):
            one = grant(number, source, nat=Nat(False, inside, port, snat, False, True))
            place.run(door.open(one, 30))
            assert place.seen_as(2222, address) == ours
            place.run(door.close(one))
            assert place.shut(2222, address)


def test_two_stanzas_lead_to_two_places_at_once(place):
    door = forwarding(place)
    way_back(place)
    place.greet(place.inside_host, 8023)
    one = grant(1, nat=Nat(False, INSIDE, 8022, None, False, True))
    two = grant(2, openings=(("tcp", 2300),), nat=Nat(False, INSIDE, 8023, "masquerade", False, True))
    place.run(door.open(one, 30))
    place.run(door.open(two, 30))
    assert (place.seen_as(2222), place.seen_as(2300)) == (net.CLIENT, "10.99.1.1")
    place.run(door.close(one))
    assert place.shut(2222) and place.seen_as(2300) == "10.99.1.1"


def test_of_two_grants_for_one_port_the_newest_holds_then_the_other(place):
    door = forwarding(place)
    one = grant(1, nat=Nat(False, INSIDE, 8022, None, False, True))
    two = grant(2, nat=Nat(False, INSIDE, 8023, None, False, True), opened=1700000001)
    place.run(door.open(one, 30))
    place.run(door.open(two, 20))
    assert place.held("tinyknop_dnat4", "tinyknop") == {"10.99.0.2 . tcp . 2222": "10.99.1.2 . 8023"}
    place.run(door.sync([(two, 20), (one, 30)]))
    assert place.held("tinyknop_dnat4", "tinyknop") == {"10.99.0.2 . tcp . 2222": "10.99.1.2 . 8023"}
    place.run(door.close(two))
    assert place.held("tinyknop_dnat4", "tinyknop") == {"10.99.0.2 . tcp . 2222": "10.99.1.2 . 8022"}
    assert place.held("tinyknop_forward4") == {"10.99.0.2 . 10.99.1.2 . tcp . 8022": ""}


def test_local_nat_leads_to_a_service_of_the_server(place):
    door = forwarding(place)
    place.greet(place.server, 8099)
    place.greet(place.server, 8096, socket.AF_INET6)
    place.run(door.open(grant(1, nat=Nat(True, net.SERVER, 8099, None, False, True)), 30))
    place.run(door.open(grant(2, net.CLIENT6, nat=Nat(True, net.SERVER6, 8096, None, False, True)), 30))
    assert place.seen_as(2222) == net.CLIENT
    assert place.seen_as(2222, net.SERVER6) == net.CLIENT6


def test_forward_all_lets_everything_of_the_knocker_pass(place):
    door = forwarding(place)
    one = grant(nat=Nat(False, INSIDE, 0, "masquerade", True, True))
    place.run(door.open(one, 30))
    assert place.seen_as(8022) == "10.99.1.1"  # any port, led to the inside host
    place.run(door.close(one))
    place.run(door.open(grant(nat=Nat(False, INSIDE, 0, "masquerade", True, False)), 30))
    assert place.shut(8022)  # DISABLE_DNAT: only the way to the host itself
    assert place.seen_as(8022, INSIDE) == "10.99.1.1"


def test_without_a_nat_grant_nothing_of_nat_is_set_up(place):
    place.nft(OWNERS)
    door = place.port()
    place.run(door.open(grant(), 30))
    assert "nat" not in place.ruleset() and "table inet tinyknop" not in place.ruleset()


def test_sync_restores_after_the_owner_loads_the_ruleset_anew(place):
    door = forwarding(place)
    way_back(place)
    place.serve(2222)
    live = [(grant(), 30), (grant(2, net.CLIENT6, (("tcp", 22),)), 30)]
    live.append((grant(3, openings=(("tcp", 2300),), nat=Nat(False, INSIDE, 8022, None, False, True)), 30))
    for one, seconds in live:
        place.run(door.open(one, seconds))
    before = place.ruleset()
    place.nft("flush ruleset\n" + OWNERS)
    assert not place.can_connect(2222) and place.shut(2300)
    place.run(door.sync(live))
    assert place.wait_connect(True, 2222) and place.seen_as(2300) == net.CLIENT
    assert place.ruleset() == before


def test_next_knock_mends_what_a_reload_or_flush_took(place):
    place.nft(OWNERS)
    place.serve(2222)
    door = place.port()
    for harm in ("flush table inet filter", "flush ruleset\n" + OWNERS, "flush set inet filter tinyknop_open4"):
        place.run(door.open(grant(), 30))
        place.nft(harm)
        if "table" in harm:  # as OpenWrt's fw4 reload: rules are gone, sets and elements stay
            place.nft("add rule inet filter input ct state established accept")
            assert not place.can_connect(2222)
        place.run(door.open(grant(2, "192.0.2.7"), 30))
        place.run(door.open(grant(), 30))
        assert place.wait_connect(True, 2222)
        place.nft("flush ruleset\n" + OWNERS)
        place.run(door.close(grant()))
        place.run(door.close(grant(2, "192.0.2.7")))
        assert place.held() == {}


def test_next_knock_finds_a_firewall_that_came_after_us(place):
    door = place.port()
    assert door.doubt
    place.greet(place.server, 2222)
    place.nft(OWNERS)
    place.run(door.open(grant(), 30))
    assert place.seen_as(2222) == net.CLIENT
    assert not door.doubt
    second = "table inet edge {\nchain in {\ntype filter hook input priority 5; policy drop;\n%s\n}\n}\n"
    place.nft(second % "ct state established accept")
    place.run(door.open(grant(2, "10.99.0.77"), 30))
    assert place.seen_as(2222) == net.CLIENT
    place.run(door.stop(True))
    assert "tinyknop" not in place.ruleset()


def test_knocks_at_one_port_leave_the_rules_of_another_whose_name_begins_alike(place):
    place.nft(OWNERS)
    place.nft('add rule inet filter input udp dport 62201 accept comment "tk_knocks"')
    one, other = place.port(table="tk"), place.port(table="tk_b")
    place.greet(place.server, 2222)
    place.run(other.open(grant(), 30))
    place.run(one.open(grant(2, "10.99.0.77"), 30))
    assert place.seen_as(2222) == net.CLIENT
    for door in (one, other):
        place.run(door.stop(True))
    assert "tk_knocks" in place.ruleset() and "tk_open4" not in place.ruleset()


def test_chain_that_is_named_no_more_is_left_after_a_kill_and_by_a_reload(place):
    place.nft(OWNERS)
    before = place.ruleset()
    for chain in ("lan", "wan"):
        place.nft("add chain inet filter %s" % chain)
    place.run(place.port(chain="inet filter lan").open(grant(), 30))
    now = place.port(chain="inet filter wan")
    assert "@tinyknop" not in place.at(place.server, "nft", "list", "chain", "inet", "filter", "lan")
    old = now  # as in a reload: both run for a moment
    now = place.port(chain="inet filter lan")
    place.run(old.sync([]))
    place.run(old.stop(True))
    place.run(now.compare())
    assert "@tinyknop" not in place.at(place.server, "nft", "list", "chain", "inet", "filter", "wan")
    assert "@tinyknop" in place.at(place.server, "nft", "list", "chain", "inet", "filter", "lan")
    place.run(now.stop(True))
    place.nft("delete chain inet filter lan\ndelete chain inet filter wan")
    assert place.ruleset() == before


def test_stop_leaves_nothing_in_two_chains_of_one_table(place):
    second = "chain second {\ntype filter hook input priority 5; policy drop;\nct state established accept\n}\n}\n"
    place.nft(OWNERS.rstrip()[:-1] + second)
    before = place.ruleset()
    door = place.port()
    assert place.ruleset().count("@tinyknop_open4 accept") == 2
    place.run(door.open(grant(), 30))
    place.run(door.stop(True))
    assert place.ruleset() == before


def test_owners_table_is_not_deleted_where_ours_is_given_its_name(place):
    place.nft(OWNERS)
    before = place.ruleset()
    with pytest.raises(PortError, match="deleted with it"):
        place.port(table="filter")
    assert place.ruleset() == before


def test_sync_leaves_what_is_right_and_deletes_what_no_grant_explains(place):
    door = forwarding(place)
    live = [(grant(1), 30), (grant(2, nat=Nat(False, INSIDE, 8022, "masquerade", False, True)), 30)]
    for one, seconds in live:
        place.run(door.open(one, seconds))
    before = place.ruleset()
    place.nft("add element inet filter tinyknop_open4 { 10.99.0.7 . udp . 1 timeout 1h }\n"
              "add element inet filter tinyknop_open4 { 10.99.0.8 . tcp . 1 }\n"
              "add element inet tinyknop tinyknop_dnat4 { 10.99.0.8 . tcp . 1 : 10.99.1.2 . 5 }\n"
              "add element inet tinyknop tinyknop_masquerade_all4 { 10.99.0.8 timeout 5m }\n")  # fmt: skip
    place.run(door.sync(live))
    assert place.ruleset() == before
    handles = place.at(place.server, "nft", "-a", "list", "chain", "inet", "filter", "input")
    place.run(door.sync(live))
    assert place.at(place.server, "nft", "-a", "list", "chain", "inet", "filter", "input") == handles
    place.run(door.sync([]))
    assert place.held() == place.held("tinyknop_dnat4", "tinyknop") == {}


def test_restart_keeps_elements_and_does_not_double_rules(place):
    place.nft(OWNERS)
    place.serve(2222)
    place.run(place.port().open(grant(), 30))
    door = place.port()  # the one before was killed
    assert place.wait_connect(True, 2222)
    place.run(door.sync([(grant(), 25)]))
    assert place.ruleset().count("@tinyknop_open4 accept") == 1
    left = nftables.listed(place.at(place.server, "nft", "list", "set", "inet", "filter", "tinyknop_open4"))
    assert 23 <= left["10.99.0.2 . tcp . 2222"][1] <= 25


def connection(place, address, port, listener):
    """Returns both ends of a connection that is open."""
    near = place.new_socket(place.client, socket.AF_INET6 if ":" in address else socket.AF_INET)
    near.settimeout(3.5)
    near.connect((address, port))
    listener.settimeout(3)
    far = listener.accept()[0]
    far.settimeout(0.5)
    near.settimeout(0.5)
    return near, far


def passes(one, other):
    """Tells whether a byte gets from one end to the other."""
    try:
        one.sendall(b"x")
        return other.recv(1) == b"x"
    except OSError:
        return False


def cut(place, one):
    for words in conntrack.words(one):
        place.inside(place.server, lambda said=words: place.run(place.carrier.say(*said)))


def listening(place, namespace, port, family):
    listener = place.new_socket(namespace, family)
    place.listeners.append(listener)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("", port))
    listener.listen(8)
    return listener


def test_cut_ends_connections_to_the_server_and_only_those_of_the_grant(place):
    place.nft(OWNERS)
    door = place.port()
    both = listening(place, place.server, 2222, socket.AF_INET6)  # takes IPv4 as well
    four = listening(place, place.server, 2223, socket.AF_INET)
    first, second = grant(1), grant(2, openings=(("tcp", 2223),))
    third = grant(3, net.CLIENT6)
    for one in (first, second, third):
        place.run(door.open(one, 30))
    ends = [
        connection(place, net.SERVER, 2222, both),
        connection(place, net.SERVER, 2223, four),
        connection(place, net.SERVER6, 2222, both),
    ]
    for one in (first, second, third):
        place.run(door.close(one))
    assert all(passes(near, far) and passes(far, near) for near, far in ends)  # as with any firewall
    for number, one in ((0, first), (2, third), (1, second)):
        cut(place, one)
        near, far = ends[number]
        assert not passes(far, near) and not passes(near, far)
        assert number != 0 or all(passes(near, far) for near, far in ends[1:])
    cut(place, first)  # nothing to end is no error
    for pair in ends:
        for end in pair:
            end.close()


def test_cut_ends_a_forwarded_connection(place):
    door = forwarding(place)
    listener = listening(place, place.inside_host, 8100, socket.AF_INET)
    one = grant(nat=Nat(False, INSIDE, 8100, "masquerade", False, True))
    place.run(door.open(one, 30))
    near, far = connection(place, net.SERVER, 2222, listener)
    with near, far:
        assert passes(near, far) and passes(far, near)
        place.run(door.close(one))
        assert passes(far, near)
        cut(place, one)
        assert not passes(far, near) and not passes(near, far)


def test_cut_ends_a_connection_whose_destination_nobody_rewrote(place):
    door = forwarding(place)
    listener = listening(place, place.inside_host, 8100, socket.AF_INET)
    one = grant(nat=Nat(False, INSIDE, 8100, "masquerade", False, False))
    place.run(door.open(one, 30))
    near, far = connection(place, INSIDE, 8100, listener)
    with near, far:
        place.run(door.close(one))
        assert passes(near, far)
        cut(place, one)
        assert not passes(near, far) and not passes(far, near)


def test_nat_of_a_process_before_us_is_closed_too(place):
    place.nft(OWNERS)
    place.run(place.port().open(grant(nat=Nat(False, INSIDE, 8022, "masquerade", False, True)), 300))
    door = place.port()  # the one before was killed
    place.run(door.sync([]))
    assert place.held("tinyknop_dnat4", "tinyknop") == place.held("tinyknop_forward4") == {}
    assert place.held("tinyknop_masquerade4", "tinyknop") == {}


def test_stop_leaves_the_owners_ruleset_as_it_was(place):
    place.nft(OWNERS)
    before = place.ruleset()
    door = place.port()
    for one in every_kind():
        place.run(door.open(one, 30))
    place.run(door.stop(False))
    assert place.held() != {}
    place.run(door.stop(True))
    assert place.ruleset() == before
    place.run(door.stop(True))  # twice is no error
    door = place.port()
    place.run(door.open(every_kind()[2], 30))
    place.nft("flush ruleset")
    place.run(door.stop(True))
    assert place.ruleset().strip() == ""


def test_thousand_grants(place):
    place.nft(OWNERS)
    place.serve(2222)
    door = place.port()
    live = []
    for number in range(1000):
        live.append((grant(number, "10.98.%d.%d" % (number // 250, number % 250 + 1)), 3000))
    for one, seconds in live:
        place.run(door.open(one, seconds))
    place.run(door.open(grant(1001), 3000))
    assert len(place.held()) == 1001
    assert place.wait_connect(True, 2222)
    place.nft("flush ruleset\n" + OWNERS)
    place.run(door.sync(live))
    assert len(place.held()) == 1000
    place.run(door.sync(live[:10]))
    assert len(place.held()) == 10


def test_no_grant_is_lost_while_others_change_the_firewall(place):
    place.nft(OWNERS)
    door = place.port()
    busy = (
        "table inet other {\nset s { type ipv4_addr; }\nchain c {\nip saddr @s accept\n}\n}\ndelete table inet other\n"
    )
    over = []

    def meddle():
        while not over:
            place.nft(busy)

    meddler = threading.Thread(target=meddle)
    meddler.start()
    live = [(grant(number, "10.98.0.%d" % (number + 1)), 300) for number in range(150)]
    try:
        for one, seconds in live:
            place.run(door.open(one, seconds))
        for _ in range(10):
            place.run(door.sync(live))
    finally:
        over.append(True)
        meddler.join()
    assert len(place.held()) == 150
    assert place.ruleset().count("@tinyknop_open4 accept") == 1


def test_transaction_holds_wholly_or_not_at_all_and_names_its_line(place):
    place.nft(OWNERS)
    door = place.port()
    good = "add element inet filter tinyknop_open4 { 192.0.2.7 . tcp . 22 timeout 9s }\n"
    bad = good.replace("open4", "gone")
    with pytest.raises(PortError, match="add element inet filter tinyknop_gone .*missing"):
        place.run(place.carrier.say("nft", "-f", "-", text=good + bad + good))
    assert place.held() == {}
    assert place.run(place.carrier.say("nft", "-f", "-", text=good)) == ""
    assert place.held() == {"192.0.2.7 . tcp . 22": ""}
    with pytest.raises(PortError, match="missing"):
        place.run(place.carrier.say("nft", "list", "set", "inet", "filter", "gone"))
    with pytest.raises(PortError, match="flush ruleset: not a command"):
        place.run(place.carrier.say("nft", "-f", "-", text="flush ruleset\n"))
    assert place.run(door.ours(door.chains[0])) != []


def test_full_set_says_so_and_the_refused_grant_leaves_no_trace(place):
    place.nft(OWNERS)
    door = place.port(maxelem="4")
    for number in range(4):
        place.run(door.open(grant(number, "192.0.2.%d" % (number + 1)), 300))
    with pytest.raises(PortError, match="full, make it larger"):
        place.run(door.open(grant(9, "192.0.2.9"), 300))
    place.run(door.close(grant(0, "192.0.2.1")))
    place.run(door.sync([(grant(number, "192.0.2.%d" % (number + 1)), 300) for number in range(1, 4)]))
    assert sorted(place.held()) == ["192.0.2.%d . tcp . 2222" % (number + 1) for number in range(1, 4)]


def test_without_the_right_the_capability_is_named(place):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            carrier = netlink.Carrier()
            try:
                carrier.say("nft", "-f", "-", text="add table inet tinyknop\n").send(None)
            except PortError as error:
                code = 0 if "CAP_NET_ADMIN" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_table_that_another_program_keeps_for_itself_is_named_as_the_reason(place):
    words = ["ip", "netns", "exec", place.server, "nft", "-i"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as keeper:
        keeper.stdin.write("add table inet kept { flags owner; }\n")
        keeper.stdin.write("add chain inet kept in { type filter hook input priority 0; policy drop; }\n")
        keeper.stdin.flush()
        deadline = time.monotonic() + 5
        while "policy drop" not in place.ruleset() and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(PortError, match="inet kept .*flags owner"):
            place.port()


def test_neither_nft_nor_iptables_is_run(place, monkeypatch):
    place.nft(OWNERS)
    place.serve(2222)
    monkeypatch.setenv("PATH", "/nonexistent")
    door = place.port()
    place.run(door.open(grant(), 1))
    assert place.wait_connect(True, 2222)
    place.run(door.open(grant(2, nat=Nat(False, INSIDE, 8022, "masquerade", False, True)), 1))
    start = time.monotonic()
    place.run(door.sync([]))
    assert time.monotonic() - start < 1
    assert not place.can_connect(2222)
    place.run(door.stop(True))
    monkeypatch.undo()
    assert "tinyknop" not in place.ruleset()


def test_daemon_that_is_killed_leaves_an_opening_that_ends_on_time(place):
    need("fwknop")
    place.nft(OWNERS)
    place.serve(net.SERVICE)
    daemon = peers.serve(place, kind="nftables", options="")
    assert not place.can_connect(net.SERVICE)
    peers.fwknop(place, seconds=2)
    assert place.wait_connect(True, net.SERVICE) is not None
    daemon.kill()
    assert place.wait_connect(False, net.SERVICE, within=4) is not None
    assert place.held() == {}


def test_daemon_that_starts_again_keeps_what_is_live_and_sighup_mends(place):
    need("fwknop")
    place.nft(OWNERS)
    place.serve(net.SERVICE)
    daemon = peers.serve(place, kind="nftables", options="")
    peers.fwknop(place, seconds=60)
    assert place.wait_connect(True, net.SERVICE) is not None
    daemon.kill()
    place.nft("flush ruleset\n" + OWNERS)
    daemon = peers.serve(place, kind="nftables", options="")
    assert place.wait_connect(True, net.SERVICE) is not None
    place.nft("flush ruleset\n" + OWNERS)
    assert not place.can_connect(net.SERVICE)
    daemon.signal(signal.SIGHUP)
    assert place.wait_connect(True, net.SERVICE) is not None
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.text()
