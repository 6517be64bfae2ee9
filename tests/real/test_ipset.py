"""The ipset port and its netlink carrier against the kernel, in a namespace, with the `ipset` program as witness."""

import itertools
import os
import time

import pytest
from tinyknop.ports import ipset
from tinyknop.ports.carriers import local, netlink

from tests.need import lacking, need
from tests.real import net
from tinyknop.compat import monotonic
from tinyknop.errors import PortError
from tinyknop.grants import Grant
from tinyknop.loop import Loop

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


def test_set_without_timeout_or_of_another_type_is_refused(place):
    place.ipset("create", "knop", "hash:ip,port")
    with pytest.raises(PortError, match="without a time-out"):
        place.port()
    place.ipset("destroy", "knop")
    place.ipset("create", "knop", "hash:ip", "timeout", "0")
    with pytest.raises(PortError, match="not of type"):
        place.port()


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
