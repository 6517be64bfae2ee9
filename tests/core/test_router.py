"""Router ports by their words alone: each kind's lines to open, close and compare, against recorded listings."""

from driving import at_once
from tinyknop.ports.carriers.tape import Tape
from tinyknop.ports.shared import profile, router

from tinyknop import ports
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant, Nat

KINDS = ("cisco-ios", "cisco-asa", "junos", "routeros", "edgeos", "vyos", "frr", "openwrt")
SSH, DNS = ("tcp", 22), ("udp", 53)


def grant(number=1, source="192.0.2.7", openings=(SSH,), nat=None):
    return Grant(number, source, openings, 1700000000, 1700000030, "alice", nat, "0.0.0.0", source)


def made(kind, *answers, **options):
    """Returns a port over a tape with these answers, and the tape."""
    tape = Tape()
    tape.answers = list(answers) + PROVEN.get(kind, [])
    table = {"kind": kind, "via": "tape", "where": "t.toml:7"}
    table.update(options)
    return ports.make("edge", table, {"tape": tape}), tape


def said(kind, act, *answers, **options):
    """Returns the lines that a port of a kind says when `act(port)` is driven."""
    port, tape = made(kind, *answers, **options)
    at_once(act(port))
    return [line.strip() for line in tape.lines]


def refused(kind, call, *words):
    try:
        call()
    except kind as error:
        for word in words:
            assert word in error.reason, error.reason
        return
    raise AssertionError("not refused")


OPENED = {  # what each kind says to open tcp/22 and udp/53 for one address
    "cisco-ios": ["configure terminal", "ip access-list extended KNOCK", "permit tcp host 192.0.2.7 any eq 22",
                  "permit udp host 192.0.2.7 any eq 53", "end"],
    "cisco-asa": ["configure terminal", "access-list KNOCK line 1 extended permit tcp host 192.0.2.7 any eq 22",
                  "access-list KNOCK line 1 extended permit udp host 192.0.2.7 any eq 53", "end"],
    "junos": ["configure private", "set policy-options prefix-list knock-tcp-22 192.0.2.7/32",
              "set policy-options prefix-list knock-udp-53 192.0.2.7/32", "commit and-quit"],
    "routeros": ['/ip firewall address-list remove [find list="knock-tcp-22" address="192.0.2.7" comment="tinyknop"]'
                 "; :put done",
                 "/ip firewall address-list add list=knock-tcp-22 address=192.0.2.7 timeout=30s comment=tinyknop"
                 "; :put done",
                 '/ip firewall address-list remove [find list="knock-udp-53" address="192.0.2.7" comment="tinyknop"]'
                 "; :put done",
                 "/ip firewall address-list add list=knock-udp-53 address=192.0.2.7 timeout=30s comment=tinyknop"
                 "; :put done"],
    "edgeos": ["configure", "set firewall group address-group knock-tcp-22 address 192.0.2.7",
               "set firewall group address-group knock-udp-53 address 192.0.2.7", "commit", "exit"],
    "vyos": ["configure", "set firewall group address-group knock-tcp-22 address 192.0.2.7",
             "set firewall group address-group knock-udp-53 address 192.0.2.7", "commit", "exit"],
    "frr": ["configure terminal", "access-list knock-tcp-22 permit 192.0.2.7/32",
            "access-list knock-udp-53 permit 192.0.2.7/32", "end"],
    "openwrt": ["nft -f -", "add element inet fw4 knock_tcp { 192.0.2.7 . 22 }",
                "delete element inet fw4 knock_tcp { 192.0.2.7 . 22 }",
                'add element inet fw4 knock_tcp { 192.0.2.7 . 22 timeout 30s comment "tinyknop" }',
                "add element inet fw4 knock_udp { 192.0.2.7 . 53 }",
                "delete element inet fw4 knock_udp { 192.0.2.7 . 53 }",
                'add element inet fw4 knock_udp { 192.0.2.7 . 53 timeout 30s comment "tinyknop" }'],
}  # fmt: skip
CLOSED6 = {  # what each says to close tcp/22 for an IPv6 address
    "cisco-ios": ["configure terminal", "ipv6 access-list KNOCK6", "no permit tcp host 2001:db8::7 any eq 22", "end"],
    "cisco-asa": ["configure terminal", "no access-list KNOCK extended permit tcp host 2001:db8::7 any6 eq 22", "end"],
    "junos": ["configure private", "delete policy-options prefix-list knock6-tcp-22 2001:db8::7/128",
              "commit and-quit"],
    "routeros": ['/ipv6 firewall address-list remove [find list="knock-tcp-22" address="2001:db8::7/128"'
                 ' comment="tinyknop"]; :put done'],
    "edgeos": ["configure", "delete firewall group ipv6-address-group knock6-tcp-22 ipv6-address 2001:db8::7",
               "commit", "exit"],
    "vyos": ["configure", "delete firewall group ipv6-address-group knock6-tcp-22 address 2001:db8::7",
             "commit", "exit"],
    "frr": ["configure terminal", "no ipv6 access-list knock-tcp-22 permit 2001:db8::7/128", "end"],
    "openwrt": ["nft -f -", "add element inet fw4 knock6_tcp { 2001:db8::7 . 22 }",
                "delete element inet fw4 knock6_tcp { 2001:db8::7 . 22 }"],
}  # fmt: skip
# What each lists with 192.0.2.7 tcp/22 (live), 192.0.2.8 udp/53 (a stray of ours), and what is not ours.
LISTINGS = {
    "cisco-ios": (("show ip access-lists KNOCK",
                   "Extended IP access list KNOCK\n    10 permit tcp any any established (99 matches)\n"
                   "    20 permit tcp host 192.0.2.7 any eq 22 (3 matches)\n"
                   "    30 permit udp host 192.0.2.8 any eq domain\n    40 permit tcp host 192.0.2.9 any eq www log\n"
                   "    50 permit ip host 192.0.2.9 any\n"),
                  ("show ipv6 access-list KNOCK6", "IPv6 access list KNOCK6\n    permit tcp any any established"
                   " sequence 5\n    permit tcp host 2001:DB8::8 any eq www (2 matches) sequence 10\n")),
    "cisco-asa": (("show running-config", "access-list KNOCK remark ours\n"
                   "access-list KNOCK extended permit tcp host 192.0.2.7 any eq ssh\n"
                   "access-list KNOCK extended permit udp host 192.0.2.8 any eq domain\n"
                   "access-list KNOCK extended permit tcp host 2001:db8::8 any6 eq www\n"
                   "access-list KNOCK extended deny ip any any\n"),),
    "junos": (("show configuration", "set policy-options prefix-list knock-tcp-22 192.0.2.7/32\n"
               "set policy-options prefix-list knock-udp-53 192.0.2.8/32\n"
               "set policy-options prefix-list knock6-tcp-80 2001:db8::8/128\n"
               "set policy-options prefix-list knock-tcp-22 198.51.100.0/24\n"
               "set policy-options prefix-list other 192.0.2.7/32\n"),),
    "routeros": ((":foreach i in=[/ip firewall", "entry knock-tcp-22 192.0.2.7\nentry knock-udp-53 192.0.2.8\n"
                  "entry other 192.0.2.8\ndone\n"),
                 (":foreach i in=[/ipv6", "entry knock-tcp-80 2001:db8::8/128\ndone\n")),
    "edgeos": (("show configuration", "set firewall group address-group knock-tcp-22 address 192.0.2.7\n"
                "set firewall group address-group knock-udp-53 address 192.0.2.8\n"
                "set firewall group address-group knock-udp-53 address 192.0.2.20-192.0.2.30\n"
                "set firewall group ipv6-address-group knock6-tcp-80 ipv6-address 2001:db8::8\n"),),
    "vyos": (("show configuration", "set firewall group address-group knock-tcp-22 address '192.0.2.7'\n"
              "set firewall group address-group knock-udp-53 address '192.0.2.8'\n"
              "set firewall group address-group other address '192.0.2.8'\n"
              "set firewall group ipv6-address-group knock6-tcp-80 address '2001:db8::8'\n"),),
    "frr": (("show running-config", "access-list knock-tcp-22 seq 5 permit 192.0.2.7/32\n"
             "access-list knock-udp-53 seq 5 permit 192.0.2.8/32\naccess-list knock-udp-53 remark ours\n"
             "access-list knock-tcp-22 seq 10 permit 198.51.100.0/24\naccess-list knock-tcp-22 seq 15 deny any\n"
             "ipv6 access-list knock-tcp-80 seq 5 permit 2001:db8::8/128\nend\n"),),
    "openwrt": (("nft list", "table inet fw4 {\n\tset knock_tcp {\n\t\ttype ipv4_addr . inet_service\n"
                 "\t\tflags timeout\n\t\telements = { 192.0.2.7 . 22 timeout 5m expires 4m59s992ms comment"
                 ' "tinyknop",\n\t\t\t     192.0.2.9 . 22 timeout 1h expires 4m }\n\t}\n\tset other {\n'
                 '\t\telements = { 192.0.2.9 . 1 timeout 5m expires 4m comment "tinyknop" }\n\t}\n'
                 "\tset knock_udp {\n\t\telements = { 192.0.2.8 . 53 counter packets 1 bytes 60 timeout 5m expires 1s"
                 ' comment "tinyknop" }\n\t}\n\tset knock6_tcp {\n\t\telements = { 2001:db8::8 . 80 timeout 5m'
                 ' expires 4s comment "tinyknop" }\n\t}\n}\n'),),
}  # fmt: skip


PROVEN = {  # what a device says of its own accord where all went well
    "junos": [("configure", "Entering configuration mode\n\ncommit complete\nExiting configuration mode\n")],
    "routeros": [(":foreach", "done\n"), ("/ip", "done\n" * 100)],
}


def test_each_kind_opens_in_its_own_words():
    for kind in KINDS:
        assert said(kind, lambda port: port.open(grant(openings=(SSH, DNS)), 30)) == OPENED[kind], kind


def test_each_kind_closes_ipv6_in_its_own_words():
    for kind in KINDS:
        assert said(kind, lambda port: port.close(grant(source="2001:DB8:0::7"))) == CLOSED6[kind], kind


def test_sync_removes_strays_of_ours_and_touches_nothing_else():
    for kind in KINDS:
        lines = said(kind, lambda port: port.sync([(grant(), 30)]), *LISTINGS[kind])
        removed = [line for line in lines if ("192.0.2.8" in line or "2001:db8::8" in line) and "add" != line[:3]]
        assert len(removed) == 2, (kind, lines)
        assert not [line for line in lines if "192.0.2.9" in line or "198.51" in line or "other" in line], kind
        again = [line for line in lines if "192.0.2.7" in line]
        assert bool(again) == made(kind)[0].self_timed, (kind, again)  # only a device's own clock is set anew


def test_sync_says_nothing_more_where_all_is_well():
    clean = (("show ip access-lists", "Extended IP access list KNOCK\n    10 permit tcp any any established\n"
              "    20 permit tcp host 192.0.2.7 any eq 22\n"),)  # fmt: skip
    lines = said("cisco-ios", lambda port: port.sync([(grant(), 30)]), *clean)
    assert lines == ["show ip access-lists KNOCK", "show ipv6 access-list KNOCK6"]


def test_sync_adds_what_is_missing():
    for kind in KINDS:
        lines = said(
            kind, lambda port: port.sync([(grant(openings=(SSH, DNS)), 30)]), ("show running-config |", "end\n")
        )
        for line in OPENED[kind]:
            assert line in lines, (kind, line)


def test_a_port_that_the_device_calls_by_a_name_we_do_not_know_is_removed_by_that_name():
    listing = (("show ip", "    10 permit ip any any\n    20 permit tcp host 192.0.2.8 any eq bgp\n"),)
    lines = said("cisco-ios", lambda port: port.sync([]), *listing)
    assert "no permit tcp host 192.0.2.8 any eq bgp" in lines


def test_a_list_that_would_let_everything_through_when_empty_is_refused():
    listing = (("show ip", "Extended IP access list KNOCK\n    20 permit tcp host 192.0.2.8 any eq 22\n"),)
    refused(PortError, lambda: said("cisco-ios", lambda port: port.sync([]), *listing), "KNOCK", "no entry of your own")


def test_a_listing_that_was_cut_short_is_none():
    refused(PortError, lambda: said("frr", lambda port: port.sync([]), ("show", "Hello, this is FRRouting\n")), "cut")


def test_what_a_device_does_not_say_it_has_done_is_not_done():
    """However its errors are worded: RouterOS has more of them than anybody knows."""
    late = "action timed out - try again (13)\n[a@b] > x; :put done\n"
    opened, compared = lambda port: port.open(grant(), 30), lambda port: port.sync([(grant(), 30)])
    for kind, act, answer in (
        ("junos", opened, ("configure", "Exiting configuration mode\n")),
        ("junos", compared, ("configure", "")),
        ("routeros", opened, ("/ip", late)),
        ("routeros", opened, ("/ip", "done\n" + late)),  # one of two
        ("routeros", compared, (":foreach", "entry knock-tcp-22 192.0.2.8\n" + late)),
    ):
        refused(PortError, lambda kind=kind, act=act, answer=answer: said(kind, act, answer))


def test_a_listing_that_a_log_line_burst_into_is_asked_for_again():
    """It may stand in the very line of a stray; one that is never without is taken all the same, as the next may be."""
    rest = "Extended IP access list KNOCK\n    10 permit tcp any any established\n"
    stray = "    20 permit tcp host 192.0.2.8 any eq 22\n"
    log = "*Mar  1 00:01:02: %LINK-3-UPDOWN: Interface Gi0/1, changed state to up\n"
    torn = rest + stray[:20] + "\n" + log + stray[20:]
    for answers, asked in (([torn, rest + stray], 2), ([torn, torn, rest + log + stray], 3), ([rest + stray], 1)):
        port, tape = made("cisco-ios", list6="")
        left, say = list(answers), tape.say

        async def heard(*words, say=say, left=left, **more):
            await say(*words, **more)
            return left.pop(0) if words[0] == "show" else ""

        tape.say = heard
        at_once(port.sync([]))
        assert [line[:4] for line in tape.lines].count("show") == asked
        assert "  no permit tcp host 192.0.2.8 any eq 22" in tape.lines


def test_a_listing_longer_than_what_is_read_is_none():
    """What stands behind the end of it may be a stray of ours: a close that was owed would count as done."""
    for kind, listing in sorted(LISTINGS.items()):
        show, text = listing[0]
        long = (show, ("x" * 99 + "\n") * (router.KEPT // 100) + text)
        refused(PortError, lambda kind=kind, long=long: said(kind, lambda port: port.sync([]), long), "cut short")


def test_of_what_others_have_on_the_device_little_is_listed():
    for kind, words in (("junos", "match knock6-"), ("vyos", "match knock6-"), ("openwrt", "nft list table inet fw4")):
        lines = said(kind, lambda port: port.sync([]))
        assert [line for line in lines if words in line], (kind, lines)
    assert "match . |" in said("junos", lambda port: port.sync([]), list="$PROTO-x")[0]


def test_one_entry_that_two_openings_need_goes_with_the_last():
    port, tape = made("frr", list="KNOCK", list6="KNOCK")
    at_once(port.open(grant(openings=(SSH, DNS)), 30))
    assert [line for line in tape.lines if "192" in line] == ["  access-list KNOCK permit 192.0.2.7/32"]
    tape.lines = []
    at_once(port.close(grant(openings=(SSH,))))
    assert tape.lines == []
    at_once(port.close(grant(2, openings=(DNS,))))
    assert "  no access-list KNOCK permit 192.0.2.7/32" in tape.lines


def test_a_device_with_a_clock_gets_the_longest_time_that_is_wanted():
    port, tape = made("routeros", list="KNOCK")
    at_once(port.open(grant(openings=(SSH,)), 300))
    at_once(port.open(grant(2, openings=(DNS,)), 30))
    assert "timeout=300s" in tape.lines[-1]


def test_a_close_after_a_restart_needs_no_open():
    for kind in KINDS:
        assert said(kind, lambda port: port.close(grant())) != []


def test_many_entries_are_said_in_several_dialogues():
    live = [(grant(number, "192.0.2.%d" % number), 30) for number in range(1, 121)]
    lines = said("vyos", lambda port: port.sync(live))
    assert lines.count("configure") == lines.count("commit") == 3
    assert len([line for line in lines if line.startswith("set ")]) == 120


def test_both_families_go_into_one_dialogue():
    live = [(grant(), 30), (grant(2, "2001:db8::7"), 30)]
    lines = said("cisco-ios", lambda port: port.sync(live))[2:]
    assert lines == ["configure terminal", "ip access-list extended KNOCK", "permit tcp host 192.0.2.7 any eq 22",
                     "ipv6 access-list KNOCK6", "permit tcp host 2001:db8::7 any eq 22", "end"]  # fmt: skip


def test_flush_removes_only_what_is_ours():
    port, tape = made("frr")
    at_once(port.open(grant(), 30))
    tape.lines = []
    at_once(port.stop(False))
    assert tape.lines == []
    at_once(port.stop(True))
    assert tape.lines == ["configure terminal", "  no access-list knock-tcp-22 permit 192.0.2.7/32", "  end"]


def test_nat_is_refused_and_neither_closed_nor_kept():
    nat = Nat(False, "192.168.1.2", 22, None, False, True)
    for kind in KINDS + ("generic",):
        options = {"open": "o $SRC", "close": "c $SRC"} if kind == "generic" else {}
        port, tape = made(kind, **options)
        refused(PortError, lambda port=port: at_once(port.open(grant(nat=nat), 30)), "NAT")
        at_once(port.close(grant(nat=nat)))
        assert tape.lines == [], kind


def test_a_slow_device_gets_the_time_that_its_carrier_says():
    for kind, seconds in (("frr", 30), ("vyos", 120)):  # a commit takes its time anyhow
        port, tape = made(kind, ("show running-config", "end\n"))
        say, given = tape.say, []
        tape.seconds = 30

        async def heard(*words, within, say=say, given=given, **more):
            given.append(within)
            return await say(*words, **more)

        tape.say = heard
        at_once(port.open(grant(), 30))
        assert given == [seconds + 2 * len(tape.lines)], kind
        at_once(port.sync([]))
        assert given[1] == seconds + 20 and len(tape.lines) > 2


def test_what_can_never_be_opened_is_known_before_it_is_tried():
    nat = Nat(False, "192.168.1.2", 22, None, False, True)
    for kind in KINDS:
        port, tape = made(kind)
        for good in (grant(), grant(source="2001:db8::7"), grant(openings=(SSH, DNS))):
            assert port.check(good) is None
        refused(PortError, lambda port=port: port.check(grant(nat=nat)), "NAT")
        refused(PortError, lambda port=port: port.check(grant(openings=(("icmp", 8),))), "only tcp and udp")
        port, tape = made(kind, list6="")
        refused(PortError, lambda port=port: port.check(grant(source="2001:db8::7")), "list6 is empty")
        refused(PortError, lambda port=port: at_once(port.open(grant(source="2001:db8::7"), 30)), "list6 is empty")
        at_once(port.close(grant(source="2001:db8::7")))
        assert tape.lines == [], kind
    port, _ = made("generic", open="o $SRC", close="c $SRC")
    assert port.check(grant()) is None
    refused(PortError, lambda: port.check(grant(nat=nat)), "NAT")


def test_a_device_without_ipv6_is_asked_about_none():
    listing = (("show ip access-lists", "    10 permit tcp any any established\n"),)
    lines = said("cisco-ios", lambda port: port.sync([(grant(2, "2001:db8::7"), 30)]), *listing, list6="")
    assert lines == ["show ip access-lists KNOCK"]


def test_what_cannot_be_meant_is_refused_where_it_stands():
    for kind, options, word in (
        ("frr", {"list": ""}, "list"),
        ("frr", {"list": "a b"}, "a b"),
        ("frr", {"list": "knock-$SRC"}, "$SRC"),
        ("frr", {"list": "x" * 61}, "list"),
        ("frr", {"lists": "x"}, "lists"),
        ("generic", {"open": "a"}, "close"),
        ("generic", {"open": "a;;b", "close": "c"}, "open"),
    ):
        refused(ConfigError, lambda kind=kind, options=options: made(kind, **options), word)


def test_a_carrier_that_talks_to_another_kind_of_device_is_refused():
    tape = Tape()
    tape.profile = profile.profile("junos", "t.toml:3")
    table = {"kind": "frr", "via": "tape", "where": "t.toml:7"}
    refused(ConfigError, lambda: ports.make("edge", table, {"tape": tape}), 'profile = "frr"')
    tape.profile = profile.profile("frr", "t.toml:3")
    assert ports.make("edge", table, {"tape": tape}).describe() == "edge (frr knock-$PROTO-$PORT via tape)"


def test_profiles_are_found_by_name_and_by_no_other_path():
    for kind in KINDS + ("generic", "shell"):
        assert isinstance(profile.profile(kind, "t.toml:3"), profile.Profile)
    assert profile.profile("shell", "t.toml:3").shell
    for name in ("", "nothing", "iptables", "../x", "carriers", "cisco_ios", "os.path"):
        refused(ConfigError, lambda name=name: profile.profile(name, "t.toml:3"), "no such profile")


def test_a_misspelt_field_of_a_profile_is_an_error():
    try:
        profile.Profile(setups=())
    except AttributeError:
        return
    raise AssertionError("not refused")


def test_the_owners_own_lines():
    port, tape = made("generic", open="conf t; permit $SRC $PROTO $PORT; end", close="clear $SRC")
    at_once(port.start())
    at_once(port.sync([]))
    at_once(port.open(grant(openings=(SSH, DNS)), 30))
    at_once(port.close(grant(source="2001:db8::7")))
    at_once(port.stop(True))
    assert tape.lines == ["conf t", "  permit 192.0.2.7 tcp 22", "  end", "conf t", "  permit 192.0.2.7 udp 53",
                          "  end", "clear 2001:db8::7"]  # fmt: skip
    assert port.blind and not port.outlives_us


def test_shapes_are_matched_whole():
    for shape, text, found in (
        ("a $N b", "a 1 b", {"N": "1"}),
        ("a $N b", "a 1 b c", None),
        ("a $N b", "a 1 2 b", None),
        ("a $N b", "a  b", None),
        ("$ADDR/32", "1.2.3.4/32", {"ADDR": "1.2.3.4"}),
        ("$ADDR/32", "1.2.3.4/24", None),
        ("l-$PROTO-$PORT $ADDR", "l-tcp-22 x", {"PROTO": "tcp", "PORT": "22", "ADDR": "x"}),
        ("$A $A", "x x", {"A": "x"}),
        ("$A $A", "x y", None),
        ("plain", "plain", {}),
        ("plain", "plains", None),
        ("", "", {}),
    ):
        assert router.matched(shape, text) == found, (shape, text)
