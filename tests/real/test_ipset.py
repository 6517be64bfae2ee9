"""The ipset port and its netlink carrier against the kernel, in a namespace, with the `ipset` program as witness."""

import itertools
import os
import time

import pytest
from tinyknop.ports import ipset
from tinyknop.ports.carriers import local, netlink

from tests.need import lacking, need
from tests.real import net, peers
from tinyknop import Keys, Packet, seal
from tinyknop.compat import monotonic
from tinyknop.errors import PortError
from tinyknop.grants import Grant
from tinyknop.loop import Loop

KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
_count = itertools.count()


class Place:
    """A namespace with a port and its carrier in it."""

    def __init__(self, name):
        self.name = name
        self.carrier = netlink.Carrier()
        self.loop = Loop()

    def ipset(self, *words):
        return net.run("ip", "netns", "exec", self.name, "ipset", *words)

    def members(self, name="knop"):
        return sorted(self.ipset("list", name).partition("Members:\n")[2].split("\n")[:-1])

    def run(self, coroutine):
        task = self.loop.spawn(coroutine)
        task.watched = True
        while not task.done:
            self.loop.at(monotonic() + 5, int)  # a turn ends soon, whatever the task waits for
            self.loop.turn()
        return task.outcome()

    def say(self, line):
        return self.run(self.carrier.say(*line.split()))

    def port(self, carrier=None, maxelem="65536"):
        options = {"set": "knop", "maxelem": maxelem, "where": "test:1"}
        door = ipset.Port("door", options, carrier or self.carrier)
        self.run(door.start())
        return door


@pytest.fixture
def place():
    if os.geteuid():
        lacking("network namespaces with names need root")
    need("ip", "ipset")
    here = Place("tk%xi%x" % (os.getpid(), next(_count)))
    net.run("ip", "netns", "add", here.name)
    try:
        opened = net.Net.inside(None, here.name, lambda: here.run(here.carrier.start()))
        assert opened is None
        yield here
        here.run(here.carrier.stop())
    finally:
        net.run("ip", "netns", "del", here.name)


def grant(number=1, source="192.0.2.7", openings=(("tcp", 22),)):
    return Grant(number, source, openings, 1700000000, 1700000030, "alice", None, "0.0.0.0", source)


def names(members):
    return [line.split(" ")[0] for line in members]


def test_sets_are_made_once_and_entries_of_both_families_come_and_go(place):
    place.port(maxelem="1000")
    door = place.port(maxelem="1000")
    assert "maxelem 1000 timeout 0" in place.ipset("list", "knop")
    assert "family inet6" in place.ipset("list", "knop6")
    place.run(door.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    place.run(door.open(grant(2, "2001:db8::7"), 30))
    assert names(place.members()) == ["192.0.2.7,tcp:22", "192.0.2.7,udp:53"]
    assert names(place.members("knop6")) == ["2001:db8::7,tcp:22"]
    assert 28 <= int(place.members()[0].split(" ")[2]) <= 30
    place.run(door.close(grant(openings=(("tcp", 22), ("udp", 53)))))
    place.run(door.close(grant(2, "2001:db8::7")))
    place.run(door.close(grant(3, "192.0.2.200")))  # never was there
    assert place.members() == place.members("knop6") == []


def test_set_of_the_owner_with_other_options_is_used_as_it_is(place):
    place.ipset("create", "knop", "hash:ip,port", "timeout", "60", "maxelem", "5", "counters")
    door = place.port()
    place.run(door.open(grant(), 30))
    assert names(place.members()) == ["192.0.2.7,tcp:22"]
    assert "maxelem 5 " in place.ipset("list", "knop")


@pytest.fixture(params=("netlink", "program"))
def carrier(place, request):
    return place.carrier if request.param == "netlink" else InNamespace(place.name)


def test_set_that_cannot_serve_is_refused(place, carrier):
    for kind, said in (
        ("hash:net", "not of type hash:ip,port, hash:net,port or hash:ip, family inet, .* name another in set ="),
        ("list:set", "not of type"),
        ("bitmap:port range 1-9", "not of type"),
        ("hash:ip,port family inet6", "not of type"),
        ("hash:ip netmask 24", "without a mask"),
        ("hash:ip,port bitmask 255.255.0.0", "without a mask"),
    ):
        place.ipset("create", "knop", *kind.split())
        if kind.startswith("bitmap"):
            place.ipset("add", "knop", "5")
        with pytest.raises(PortError, match=said):
            place.port(carrier)
        place.ipset("destroy", "knop")


OPTIONS = ("", "timeout 0", "timeout 60 counters comment", "maxelem 70 forceadd", "timeout 0 hashsize 64 skbinfo")


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("kind", ("hash:ip", "hash:ip,port", "hash:net,port"))
def test_sets_of_the_owner_are_used_as_they_are(place, carrier, kind, options):
    ported = "" if kind == "hash:ip" else ",tcp:22"
    for name, family, theirs in (("knop", "inet", "192.0.2.9"), ("knop6", "inet6", "2001:db8::9")):
        place.ipset("create", name, kind, "family", family, *options.split())
        place.ipset("add", name, theirs + ported, *(["timeout", "0"] if "timeout" in options else []))
    if kind == "hash:net,port":
        place.ipset("add", "knop", "10.0.0.0/8,tcp:22", *(["timeout", "0"] if "timeout" in options else []))
    before = names(place.members())
    door = place.port(carrier)
    assert door.self_timed == ("timeout" in options)
    live = [(grant(), 30), (grant(2, "2001:db8::7"), 30), (grant(3, openings=(("tcp", 22), ("udp", 53))), 20)]
    place.run(door.sync(live[:1]))
    for one, seconds in live:
        place.run(door.open(one, seconds))
    place.run(door.open(grant(4, "192.0.2.9"), 1))  # who is let in anyway
    ours = ["192.0.2.7" + ported] + (["192.0.2.7,udp:53"] if ported else [])
    assert names(place.members()) == sorted(before + ours)
    assert names(place.members("knop6")) == ["2001:db8::7" + ported, "2001:db8::9" + ported]
    place.run(door.close(grant(3, openings=(("udp", 53),))))
    assert "192.0.2.7" + ported in names(place.members())
    place.ipset("flush", "knop6")
    place.run(door.sync(live[1:2]))
    assert (names(place.members()), names(place.members("knop6"))) == (before, ["2001:db8::7" + ported])
    place.run(door.close(*[one for one, _ in live]))
    place.run(door.close(grant(4, "192.0.2.9")))
    assert (names(place.members()), place.members("knop6")) == (before, [])


def test_set_without_time_outs_keeps_the_owners_and_loses_ours_after_a_kill(network):
    for name, family in ((peers.SET, "inet"), (peers.SET + "6", "inet6")):
        network.at(network.server, "ipset", "create", name, "hash:ip", "family", family)
    network.at(network.server, "ipset", "add", peers.SET, "192.0.2.9")
    network.at(network.server, *("iptables -A INPUT -m set --match-set %s src -j ACCEPT" % peers.SET).split())
    daemon = peers.serve(network, peers.toml_stanza(network, timeout=1))
    assert len([line for line in daemon.lines if "set %s has no time-outs" % peers.SET in line]) == 1
    network.send(seal(Packet(message="%s,tcp/%d" % (net.CLIENT, net.SERVICE)), KEYS))
    assert network.wait_connect(True) is not None
    assert network.wait_connect(False) is not None  # the daemon ends it
    network.send(seal(Packet(message="%s,tcp/%d" % (net.CLIENT, net.SERVICE)), KEYS))
    assert network.wait_connect(True) is not None
    daemon.kill()
    time.sleep(1.2)
    assert network.can_connect()  # as was said
    peers.serve(network, peers.toml_stanza(network, timeout=1))
    assert not network.can_connect()
    assert place_members(network) == ["192.0.2.9"]


def place_members(network):
    listing = network.at(network.server, "ipset", "list", peers.SET)
    return [line.split(" ")[0] for line in listing.partition("Members:\n")[2].split("\n") if line]


def test_kernel_ends_an_entry_though_nobody_closes_it(place):
    door = place.port()
    place.run(door.open(grant(), 1))
    place.run(door.open(grant(2, "2001:db8::7"), 0))  # rounded up: 0 would be for ever
    assert len(place.members()) == len(place.members("knop6")) == 1
    deadline = time.monotonic() + 5
    while (place.members() or place.members("knop6")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert place.members() == place.members("knop6") == []


def test_open_again_renews_and_the_longest_time_is_the_kernels(place):
    door = place.port()
    place.run(door.open(grant(), 10))
    place.run(door.open(grant(), 5000000))
    assert 2147470 <= int(place.members()[0].split(" ")[2]) <= 2147483
    with pytest.raises(PortError, match="not a number from 0 to 2147483"):
        place.say("ipset add -exist knop 192.0.2.7,tcp:22 timeout 2147484")
    with pytest.raises(RuntimeError, match="out of range"):  # as the program does
        place.ipset("add", "knop", "192.0.2.7,tcp:22", "timeout", "2147484")


def test_full_set_says_so_and_has_room_again_after_a_close(place):
    door = place.port(maxelem="64")  # the kernel may go a little over it
    number = 0
    with pytest.raises(PortError, match="set knop is full, make it larger"):
        for number in range(1, 600):
            place.run(door.open(grant(number, "192.0.%d.%d" % (number // 200, number % 200 + 1)), 300))
    assert number >= 64
    for gone in range(1, 21):
        place.run(door.close(grant(gone, "192.0.%d.%d" % (gone // 200, gone % 200 + 1))))
    place.run(door.open(grant(number, "192.0.2.222"), 300))
    assert "192.0.2.222,tcp:22" in names(place.members())


def test_sync_repairs_whatever_was_done_to_the_set(place):
    door = place.port()
    for entry in ("192.0.2.9,tcp:22", "192.0.2.9,icmp:8/0", "192.0.2.7,udp:22"):
        place.ipset("add", "knop", entry, "timeout", "300")
    place.ipset("add", "knop6", "2001:db8::9,tcp:22", "timeout", "300")
    place.run(door.sync([(grant(), 20), (grant(2, "2001:db8::7"), 20)]))
    assert names(place.members()) == ["192.0.2.7,tcp:22"]
    assert names(place.members("knop6")) == ["2001:db8::7,tcp:22"]


def test_list_is_the_programs_with_thousands_of_entries(place):
    door = place.port()
    live = []
    for number in range(3000):
        source = "10.0.%d.%d" % (number // 250, number % 250 + 1)
        live.append((grant(number, source, (("tcp", number + 1), ("udp", 53))), 2000000))
    place.run(door.sync(live))
    said = place.say("ipset list knop")
    theirs = place.ipset("list", "knop")
    assert names(sorted(said.partition("Members:\n")[2].split("\n")[:-1])) == names(place.members())
    assert len(place.members()) == 6000
    for line in ("Name: knop", "Type: hash:ip,port", "Number of entries: 6000"):
        assert line in said.split("\n") and line in theirs.split("\n")
    place.run(door.sync(live[:10]))
    assert len(place.members()) == 20


def test_same_port_works_through_the_program(place):
    door = place.port(InNamespace(place.name))
    place.run(door.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    place.run(door.open(grant(2, "2001:db8::7"), 30))
    place.ipset("add", "knop", "192.0.2.9,icmp:8/0", "timeout", "300")
    place.run(door.sync([(grant(), 20), (grant(2, "2001:db8::7"), 20)]))
    assert names(place.members()) == ["192.0.2.7,tcp:22"]
    assert names(place.members("knop6")) == ["2001:db8::7,tcp:22"]
    place.run(door.close(grant(2, "2001:db8::7")))
    assert place.members("knop6") == []


class InNamespace(local.Carrier):
    """The local carrier, a namespace away."""

    def __init__(self, namespace):
        super().__init__()
        self.namespace = namespace

    async def say(self, *words, text=None):
        return await super().say("ip", "netns", "exec", self.namespace, *words, text=text)


def test_errors_name_their_cause_and_the_rest_of_a_batch_is_done(place):
    place.port()
    with pytest.raises(PortError, match="there is no set gone"):
        place.say("ipset list gone")
    with pytest.raises(PortError, match="there is no set gone"):
        lines = ("ipset add -exist gone 192.0.2.7,tcp:1 timeout 9", "ipset add -exist knop 192.0.2.7,tcp:2 timeout 9")
        place.run(place.carrier.say_all([line.split() for line in lines]))
    assert names(place.members()) == ["192.0.2.7,tcp:2"]
    with pytest.raises(PortError, match="another type or with other options"):
        place.say("ipset create knop hash:ip,port timeout 0 maxelem 9 -exist")


def test_without_the_right_the_capability_is_named(place):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            carrier = netlink.Carrier()
            try:
                carrier.say("ipset", "list", "knop").send(None)
            except PortError as error:
                code = 0 if "CAP_NET_ADMIN" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
