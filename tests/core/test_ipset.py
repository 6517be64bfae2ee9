"""The ipset port by its words alone: no root, no kernel."""

from tinyknop.ports import ipset
from tinyknop.ports.carriers import netlink as carrier_module
from tinyknop.ports.carriers.tape import Carrier as Tape

from tinyknop import compat
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant

EMPTY = "Name: knop\nType: hash:ip,port\nHeader: family inet hashsize 1024 maxelem 65536 timeout 0\nMembers:\n"
EMPTY6 = EMPTY.replace("inet", "inet6").replace("knop", "knop6")


def drive(coroutine):
    """Runs a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


def grant(number=1, source="192.0.2.7", openings=(("tcp", 22),), nat=None):
    return Grant(number, source, openings, 1700000000, 1700000030, "alice", nat, "0.0.0.0", source)


def port(*answers, options=None):
    tape = Tape()
    tape.answers = list(answers)
    given = {"set": "knop", "maxelem": "65536", "where": "tinyknop.toml:7"}
    given.update(options or {})
    return ipset.Port("door", given, tape), tape


def build(options):
    return port(options=options)


def raises(kind, call, *arguments):
    try:
        call(*arguments)
    except kind as error:
        return str(error)
    raise AssertionError("nothing was raised")


def test_open_adds_one_entry_per_opening_with_its_time():
    door, tape = port()
    drive(door.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    assert tape.lines == [
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 30",
        "ipset add -exist knop 192.0.2.7,udp:53 timeout 30",
    ]


def test_ipv6_goes_to_the_twin():
    door, tape = port()
    drive(door.open(grant(source="2001:DB8:0::7"), 30))
    drive(door.close(grant(source="2001:db8::7")))
    assert tape.lines == [
        "ipset add -exist knop6 2001:db8::7,tcp:22 timeout 30",
        "ipset del -exist knop6 2001:db8::7,tcp:22",
    ]


def test_no_remainder_becomes_for_ever():
    door, tape = port()
    drive(door.open(grant(), 0))
    drive(door.open(grant(), -5))
    assert tape.lines == ["ipset add -exist knop 192.0.2.7,tcp:22 timeout 1"] * 2


def test_long_grant_is_cut_to_what_the_kernel_can_count_and_opened_again_for_the_rest():
    door, tape = port()
    drive(door.open(grant(), 3000000))
    drive(door.open(grant(), 3000000 - 2147000))
    assert door.longest == 2147483
    assert [line.split()[-1] for line in tape.lines] == ["2147483", "853000"]


def test_second_grant_of_an_entry_neither_shortens_it_nor_closes_it():
    door, tape = port()
    drive(door.open(grant(1), 300))
    drive(door.open(grant(2), 30))
    drive(door.close(grant(1)))
    drive(door.close(grant(2)))
    assert tape.lines == [
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 300",
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 300",
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 30",
        "ipset del -exist knop 192.0.2.7,tcp:22",
    ]


def test_claim_whose_time_is_over_keeps_nothing_open():
    door, tape = port()
    now = [1000]
    ipset.monotonic = lambda: now[0]
    try:
        drive(door.open(grant(1), 30))
        drive(door.open(grant(2), 40))
        now[0] += 30000
        drive(door.close(grant(2)))
    finally:
        ipset.monotonic = compat.monotonic
    assert tape.lines[-1] == "ipset del -exist knop 192.0.2.7,tcp:22"


def test_failed_open_leaves_no_claim():
    door, tape = port(("ipset add", PortError("tape", "set knop is full")))
    raises(PortError, lambda: drive(door.open(grant(), 30)))
    assert door.claims == {}


def test_close_of_what_never_was_open_deletes_all_the_same():
    door, tape = port()
    drive(door.close(grant()))
    assert tape.lines == ["ipset del -exist knop 192.0.2.7,tcp:22"]


def test_nat_and_strange_protocols_are_refused_and_their_close_is_silent():
    door, tape = port()
    assert "NAT" in raises(PortError, lambda: drive(door.open(grant(nat=("10.0.0.2", 80)), 30)))
    assert "icmp" in raises(PortError, lambda: drive(door.open(grant(openings=(("icmp", 8),)), 30)))
    drive(door.close(grant(nat=("10.0.0.2", 80))))
    assert tape.lines == []


def test_sync_deletes_what_no_grant_explains_and_renews_the_rest():
    listed = EMPTY + "192.0.2.7,tcp:22 timeout 7\n192.0.2.9,tcp:22 timeout 0\n192.0.2.7,icmp:echo-request timeout 5\n"
    listed6 = EMPTY6 + "2001:db8:0:0::7,udp:53 timeout 7\n2001:db8::8,udp:53 timeout 7\n"
    door, tape = port(("ipset list knop6", listed6), ("ipset list knop", listed))
    live = [(grant(1), 20), (grant(2, "2001:db8::7", (("udp", 53),)), 9), (grant(3, "192.0.2.8"), 0)]
    drive(door.sync(live + [(grant(4, nat=("10.0.0.2", 80)), 20)]))
    assert tape.lines == [
        "ipset list knop",
        "ipset list knop6",
        "ipset del -exist knop 192.0.2.9,tcp:22",
        "ipset del -exist knop 192.0.2.7,icmp:echo-request",
        "ipset del -exist knop6 2001:db8::8,udp:53",
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 20",
        "ipset add -exist knop 192.0.2.8,tcp:22 timeout 1",
        "ipset add -exist knop6 2001:db8::7,udp:53 timeout 9",
    ]


def test_start_makes_missing_sets_and_leaves_good_ones():
    door, tape = port(("ipset list knop6", PortError("tape", "no such set")), ("ipset list knop", EMPTY))
    drive(door.start())
    assert tape.lines == [
        "ipset list knop",
        "ipset list knop6",
        "ipset create knop6 hash:ip,port family inet6 timeout 0 maxelem 65536 -exist",
    ]


def test_start_refuses_a_set_that_cannot_serve():
    for wrong, said in (
        (EMPTY.replace("hash:ip,port", "hash:ip"), "not of type"),
        (EMPTY.replace("family inet ", "family inet6 "), "not of type"),
        (EMPTY.replace(" timeout 0", ""), "without a time-out"),
        (EMPTY.replace(" timeout 0", "") + "192.0.2.7,tcp:22 timeout 7\n", "without a time-out"),
    ):
        door, tape = port(("ipset list knop", wrong))
        assert said in raises(PortError, drive, door.start())


def test_stop_deletes_only_ours_and_only_when_asked():
    door, tape = port()
    drive(door.open(grant(), 30))
    drive(door.stop(False))
    assert len(tape.lines) == 1
    drive(door.stop(True))
    assert tape.lines[1:] == ["ipset del -exist knop 192.0.2.7,tcp:22"]


def test_options_that_cannot_be_meant_name_their_line():
    for options in ({"set": "x" * 31}, {"set": ""}, {"set": "a b"}, {"maxelem": "0"}, {"maxelem": "many"}):
        assert raises(ConfigError, build, options).startswith("tinyknop.toml:7: port.door: ")


def test_rule_names_both_sets():
    assert "-m set --match-set knop src,dst -j ACCEPT" in port()[0].rule()
    assert "ip6tables -I INPUT -m set --match-set knop6 src,dst" in port()[0].rule()


def test_netlink_carrier_refuses_words_it_does_not_know():
    for words in (
        "ipset destroy knop",
        "ipset flush knop",
        "iptables -F knop",
        "ipset list",
        "ipset list " + "x" * 32,
        "ipset add -exist knop 192.0.2.7,tcp:22",  # would be for ever
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 2147484",
        "ipset add -exist knop 192.0.2.7,tcp:65536 timeout 1",
        "ipset add -exist knop 192.0.2.7,nonsense:1 timeout 1",
        "ipset add -exist knop 192.0.2.777,tcp:1 timeout 1",
        "ipset create knop hash:ip timeout 0",
        "ipset create knop hash:ip,port",
        "ipset create knop hash:ip,port family inet5 timeout 0",
        "ipset create knop hash:ip,port timeout 0 forceadd 1",
    ):
        raises(ValueError, carrier_module.encode, 1, words.split())
