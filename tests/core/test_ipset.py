"""The ipset port by its words alone: no root, no kernel."""

from driving import at_once
from tinyknop.ports import ipset
from tinyknop.ports.carriers import netlink as carrier_module
from tinyknop.ports.carriers.tape import Carrier as Tape

from tinyknop import log
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant

EMPTY = "Name: knop\nType: hash:ip,port\nHeader: family inet hashsize 1024 maxelem 65536 timeout 0\nMembers:\n"
EMPTY6 = EMPTY.replace("inet", "inet6").replace("knop", "knop6")


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
    at_once(door.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    assert tape.lines == [
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 30",
        "ipset add -exist knop 192.0.2.7,udp:53 timeout 30",
    ]


def test_ipv6_goes_to_the_twin():
    door, tape = port()
    at_once(door.open(grant(source="2001:DB8:0::7"), 30))
    at_once(door.close(grant(source="2001:db8::7")))
    assert tape.lines == [
        "ipset add -exist knop6 2001:db8::7,tcp:22 timeout 30",
        "ipset del -exist knop6 2001:db8::7,tcp:22",
    ]


def test_no_remainder_becomes_for_ever():
    door, tape = port()
    at_once(door.open(grant(), 0))
    at_once(door.open(grant(), -5))
    assert tape.lines == ["ipset add -exist knop 192.0.2.7,tcp:22 timeout 1"] * 2


def test_long_grant_is_cut_to_what_the_kernel_can_count_and_opened_again_for_the_rest():
    door, tape = port()
    at_once(door.open(grant(), 3000000))
    at_once(door.open(grant(), 3000000 - 2147000))
    assert door.longest == 2147483
    assert [line.split()[-1] for line in tape.lines] == ["2147483", "853000"]


def test_longer_time_for_an_opening_renews_and_its_one_close_deletes():
    door, tape = port()
    at_once(door.open(grant(1), 30))
    at_once(door.open(grant(2), 300))
    at_once(door.close(grant(2)))
    assert tape.lines == [
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 30",
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 300",
        "ipset del -exist knop 192.0.2.7,tcp:22",
    ]


def shown(kind="hash:ip,port", more=" timeout 0", name="knop", members=()):
    """Returns what `ipset list` prints of a set."""
    family = "inet6" if name.endswith("6") else "inet"
    head = "Name: %s\nType: %s\nRevision: 6\nHeader: family %s hashsize 1024 maxelem 65536%s bucketsize 12\nMembers:\n"
    return head % (name, kind, family, more) + "".join([line + "\n" for line in members])


def owned(kind="hash:ip,port", more=" timeout 0", members=(), six=None):
    """Returns a started port on sets that the owner made, its tape, what it warned of."""
    said, kept = [], log.sink
    log.sink = lambda level, text: said.append((level, text))
    six = shown(kind, more, "knop6") if six is None else six
    try:
        door, tape = port(("ipset list knop6", six), ("ipset list knop", shown(kind, more, members=members)))
        at_once(door.start())
        at_once(door.start())  # again, as after a failure: nothing is said twice
    finally:
        log.sink = kept
    tape.lines = []
    return door, tape, [text for level, text in said if level == "warning"]


def test_set_of_addresses_has_one_entry_per_source_while_any_opening_is_held():
    door, tape, said = owned("hash:ip")
    at_once(door.open(grant(openings=(("tcp", 22), ("udp", 53), ("icmp", 8))), 30))
    at_once(door.open(grant(2, openings=(("tcp", 80),)), 300))
    at_once(door.close(grant(openings=(("tcp", 22), ("udp", 53), ("icmp", 8)))))
    at_once(door.close(grant(2, openings=(("tcp", 80),))))
    assert tape.lines == [
        "ipset add -exist knop 192.0.2.7 timeout 30",
        "ipset add -exist knop 192.0.2.7 timeout 300",
        "ipset add -exist knop 192.0.2.7 timeout 300",
        "ipset del -exist knop 192.0.2.7",
    ]
    assert len(said) == 2 and "hash:ip" in said[0]


def test_close_of_an_opening_leaves_an_entry_the_time_of_the_others():
    door, tape, _ = owned("hash:ip")
    at_once(door.open(grant(), 300))
    at_once(door.open(grant(2, openings=(("tcp", 80),)), 30))
    at_once(door.close(grant()))
    assert tape.lines[-1] == "ipset add -exist knop 192.0.2.7 timeout 30"


def test_set_of_networks_is_told_addresses():
    door, tape, _ = owned("hash:net,port", members=("10.0.0.0/8,tcp:22 timeout 0 nomatch",))
    at_once(door.sync([(grant(), 30), (grant(2, "2001:db8::7"), 30)]))
    assert tape.lines[2:] == [
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 30",
        "ipset add -exist knop6 2001:db8::7,tcp:22 timeout 30",
    ]


def test_set_without_time_outs_is_told_none_and_that_is_said_once():
    door, tape, said = owned(more=" forceadd")
    assert not door.self_timed and door.shared
    assert len(said) == 2 and "set knop has no time-outs" in said[0]
    at_once(door.open(grant(), 30))
    at_once(door.close(grant()))
    assert tape.lines == ["ipset add -exist knop 192.0.2.7,tcp:22", "ipset del -exist knop 192.0.2.7,tcp:22"]


def test_one_set_may_have_time_outs_and_the_other_none():
    door, tape, _ = owned(six=shown("hash:ip", "", "knop6"))
    at_once(door.open(grant(), 30))
    at_once(door.open(grant(2, "2001:db8::7"), 30))
    assert tape.lines == ["ipset add -exist knop 192.0.2.7,tcp:22 timeout 30", "ipset add -exist knop6 2001:db8::7"]
    assert not door.self_timed


def test_entries_of_the_owner_are_neither_given_an_end_nor_deleted():
    for more, end in ((" timeout 0", " timeout 0 packets 3"), ("", "")):
        door, tape, _ = owned(more=more, members=("192.0.2.7,tcp:22" + end, "192.0.2.9,tcp:22" + end))
        at_once(door.sync([]))
        at_once(door.open(grant(), 30))
        at_once(door.close(grant()))
        at_once(door.stop(True))
        assert tape.lines == ["ipset list knop", "ipset list knop6"]


def test_set_without_time_outs_loses_only_what_we_wrote():
    door, tape, _ = owned(more="")
    at_once(door.open(grant(), 30))
    listing = shown(more="", members=("192.0.2.7,tcp:22", "192.0.2.8,tcp:22", "192.0.2.9,tcp:22"))
    tape.answers = [("ipset list knop6", shown(more="", name="knop6")), ("ipset list knop", listing)]
    tape.lines = []
    at_once(door.sync([(grant(2, "192.0.2.8"), 30)]))  # live, of a process before us
    at_once(door.sync([]))
    assert [line for line in tape.lines if "list" not in line] == [
        "ipset del -exist knop 192.0.2.7,tcp:22",
        "ipset del -exist knop 192.0.2.8,tcp:22",
    ]


def test_close_that_failed_is_made_good_by_sync_in_a_set_without_time_outs():
    door, tape, _ = owned(more="", members=("192.0.2.7,tcp:22",))
    at_once(door.open(grant(), 30))
    tape.answers.append(("ipset del", PortError("tape", "no netlink")))
    raises(PortError, lambda: at_once(door.close(grant())))
    tape.answers.pop()
    at_once(door.sync([]))
    assert tape.lines[-2:] == ["ipset del -exist knop 192.0.2.7,tcp:22", "ipset list knop6"]


def test_several_grants_close_at_once():
    door, tape = port()
    for number in (1, 2):
        at_once(door.open(grant(number, "192.0.2.%d" % number), 30))
    at_once(door.close(grant(1, "192.0.2.1"), grant(2, "192.0.2.2")))
    assert tape.lines[2:] == ["ipset del -exist knop 192.0.2.1,tcp:22", "ipset del -exist knop 192.0.2.2,tcp:22"]


def test_close_of_what_never_was_open_deletes_all_the_same():
    door, tape = port()
    at_once(door.close(grant()))
    assert tape.lines == ["ipset del -exist knop 192.0.2.7,tcp:22"]


def test_nat_and_strange_protocols_are_refused_and_their_close_is_silent():
    door, tape = port()
    assert "NAT" in raises(PortError, lambda: at_once(door.open(grant(nat=("10.0.0.2", 80)), 30)))
    assert "icmp" in raises(PortError, lambda: at_once(door.open(grant(openings=(("icmp", 8),)), 30)))
    at_once(door.close(grant(nat=("10.0.0.2", 80))))
    assert tape.lines == []


def test_sync_deletes_what_no_grant_explains_and_writes_only_what_is_not_right():
    listed = EMPTY + "192.0.2.7,tcp:22 timeout 7\n192.0.2.9,tcp:22 timeout 1\n192.0.2.7,icmp:echo-request timeout 5\n"
    listed += "192.0.2.6,tcp:22 timeout 19\n"
    listed6 = EMPTY6 + "2001:db8:0:0::7,udp:53 timeout 7\n2001:db8::8,udp:53 timeout 7\n"
    door, tape = port(("ipset list knop6", listed6), ("ipset list knop", listed))
    live = [
        (grant(1), 20),
        (grant(5, "192.0.2.6"), 20),
        (grant(2, "2001:db8::7", (("udp", 53),)), 9),
        (grant(3, "192.0.2.8"), 0),
    ]
    at_once(door.sync(live + [(grant(4, nat=("10.0.0.2", 80)), 20)]))
    assert tape.lines == [
        "ipset list knop",
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout 20",
        "ipset del -exist knop 192.0.2.9,tcp:22",
        "ipset del -exist knop 192.0.2.7,icmp:echo-request",
        "ipset list knop6",
        "ipset del -exist knop6 2001:db8::8,udp:53",
        "ipset add -exist knop 192.0.2.8,tcp:22 timeout 1",
    ]


def test_start_makes_missing_sets_and_leaves_good_ones():
    door, tape = port(("ipset list knop6", PortError("tape", "no such set")), ("ipset list knop", EMPTY))
    at_once(door.start())
    assert tape.lines == [
        "ipset list knop -terse",
        "ipset list knop6 -terse",
        "ipset create knop6 hash:ip,port family inet6 timeout 0 maxelem 65536 -exist",
    ]


def test_start_refuses_a_set_that_cannot_serve():
    for wrong, said in (
        (EMPTY.replace("hash:ip,port", "hash:net"), "not of type hash:ip,port, hash:net,port or hash:ip, family inet,"),
        (EMPTY.replace("hash:ip,port", "hash:ip,port,ip"), "not of type"),
        (EMPTY.replace("family inet ", "family inet6 "), "name another in set = "),
        (EMPTY.replace("hash:ip,port", "hash:ip").replace(" timeout", " netmask 24 timeout"), "without a mask"),
        (EMPTY.replace(" timeout 0", " timeout 0 bitmask 255.255.0.0"), "without a mask"),
    ):
        door, tape = port(("ipset list knop", wrong))
        assert said in raises(PortError, at_once, door.start())


def test_set_for_ipv6_may_have_a_name_of_its_own():
    door, tape = port(options={"set6": "six"})
    at_once(door.open(grant(source="2001:db8::7"), 30))
    assert tape.lines == ["ipset add -exist six 2001:db8::7,tcp:22 timeout 30"]
    assert "--match-set six src,dst" in door.rule()


def test_stop_deletes_only_ours_and_only_when_asked():
    door, tape = port()
    at_once(door.open(grant(), 30))
    at_once(door.stop(False))
    assert len(tape.lines) == 1
    at_once(door.stop(True))
    assert tape.lines[1:] == ["ipset del -exist knop 192.0.2.7,tcp:22"]


def test_options_that_cannot_be_meant_name_their_line():
    for options in (
        {"set": "x" * 31},
        {"set": ""},
        {"set": "a b"},
        {"set6": "x" * 32},
        {"maxelem": "0"},
        {"maxelem": "many"},
    ):
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
        "ipset add -exist knop 192.0.2.7,tcp:22 timeout",
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
