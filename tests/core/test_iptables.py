"""What the iptables port says, word for word, on a tape."""

from driving import drive
from tinyknop.ports import make
from tinyknop.ports.carriers.tape import Tape
from tinyknop.ports.shared.rules import recognised, timed

from tinyknop.compat import wall
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Book, Grant, Nat

NOW = wall()
LATER = NOW + 3600
RESTORE = "iptables-restore --noflush -w"
LIST = "iptables -w -t filter -S"
HOOKED = "-N FWKNOP_INPUT\n-A INPUT -j FWKNOP_INPUT\n"
CHECK = "-C INPUT -j FWKNOP_INPUT"
NAT_CHAINS = {
    "output_chain": "ACCEPT, filter, OUTPUT, 1, FWKNOP_OUTPUT, 1",
    "forward_chain": "ACCEPT, filter, FORWARD, 1, FWKNOP_FORWARD, 1",
    "dnat_chain": "DNAT, nat, PREROUTING, 1, FWKNOP_PREROUTING, 1",
    "snat_chain": "SNAT, nat, POSTROUTING, 1, FWKNOP_POSTROUTING, 1",
    "masquerade_chain": "MASQUERADE, nat, POSTROUTING, 1, FWKNOP_MASQUERADE, 1",
}


def grant(id="1", source="192.0.2.7", openings=(("tcp", 22),), until=LATER, nat=None, destination="10.9.9.9"):
    return Grant(id, source, openings, NOW, until, "alice", nat, destination, source)


def inside(host="192.168.77.5", port=8022, snat=None, local=False, every=False, dnat=True):
    return Nat(local, host, port, snat, every, dnat)


def marked(words, until, target="ACCEPT"):
    """A rule's words as they are written: with the date that ends it, and the comment."""
    return timed(words + " -m comment --comment _exp_* -j " + target, until, True)


def rule(until, source="192.0.2.7/32", proto="tcp", port=22):
    return marked("-s %s -p %s -m %s --dport %d" % (source, proto, proto, port), until)


def started(listing=HOOKED, answers=(), **options):
    tape = Tape()
    tape.answers = list(answers) + [(LIST, listing)]
    table = {"kind": "iptables", "via": "tape", "ipv6": "N"}
    table.update(options)
    port = make("fw", table, {"tape": tape})
    drive(port.start())
    said, tape.lines = tape.lines, []
    return port, tape, said


def with_nat(**options):
    table = dict(NAT_CHAINS)
    table.update(options)
    return started("", **table)[:2]


def transaction(*lines):
    return [RESTORE, "  *filter"] + ["  " + line for line in lines] + ["  COMMIT"]


def added(*rules):
    return [CHECK] + ["-A FWKNOP_INPUT " + r for r in rules]


def refused(port, asked):
    try:
        drive(port.open(asked, 30))
    except PortError as error:
        return error.reason
    raise AssertionError("not refused")


def test_start_is_one_look_and_one_transaction():
    probe = " FWKNOP_INPUT -m time --datestop 2000-01-01T00:00:00 -m comment --comment __TMPCOMMENT__"
    assert started("")[2] == [LIST] + transaction(
        "-N FWKNOP_INPUT", "-I INPUT 1 -j FWKNOP_INPUT", "-A" + probe, "-D" + probe, CHECK
    )


def test_start_leaves_a_chain_that_is_there():
    said = started()[2]
    assert said[:3] == [LIST, RESTORE, "  *filter"] and "-A FWKNOP_INPUT -m time" in said[3]


def test_chains_are_made_and_hooked_in_fwknopds_order():
    said = started("", **NAT_CHAINS)[2]
    lines = [line[2:] for line in said if line.startswith("  -N") or line.startswith("  -I")]
    assert lines == [
        "-N FWKNOP_INPUT",
        "-I INPUT 1 -j FWKNOP_INPUT",
        "-N FWKNOP_OUTPUT",
        "-I OUTPUT 1 -j FWKNOP_OUTPUT",
        "-N FWKNOP_FORWARD",
        "-I FORWARD 1 -j FWKNOP_FORWARD",
        "-N FWKNOP_PREROUTING",
        "-I PREROUTING 1 -j FWKNOP_PREROUTING",
        "-N FWKNOP_POSTROUTING",
        "-I POSTROUTING 1 -j FWKNOP_POSTROUTING",
        "-N FWKNOP_MASQUERADE",
        "-I POSTROUTING 1 -j FWKNOP_MASQUERADE",
    ]
    assert [line for line in said if line[0] != " "] == [LIST, RESTORE, "iptables -w -t nat -S", RESTORE]


def test_a_jump_goes_no_further_than_the_end():
    spec = "ACCEPT, filter, INPUT, 9, FWKNOP_INPUT, 1"
    said = started("-A INPUT -i lo -j ACCEPT\n-A OTHER -j ACCEPT", chain=spec)[2]
    assert "  -I INPUT 2 -j FWKNOP_INPUT" in said
    assert "  -I INPUT 9 -j FWKNOP_INPUT" in started("-A INPUT -j DROP\n" * 20, chain=spec)[2]


def test_flush_at_init_empties_and_hooks_anew_in_the_one_transaction():
    listing = HOOKED + "-A INPUT -j FWKNOP_INPUT\n-A FWKNOP_INPUT " + rule(LATER)
    port, tape, said = started(listing, flush_at_init="Y")
    jump = " INPUT -j FWKNOP_INPUT"
    assert said[3:7] == ["  -D" + jump, "  -D" + jump, "  -F FWKNOP_INPUT", "  -I INPUT 1 -j FWKNOP_INPUT"]
    drive(port.sync([(grant(), 30)]))
    assert tape.lines == transaction(*added(rule(LATER)))  # without another look


def test_flush_at_init_is_for_every_table_and_once():
    listing = "-N FWKNOP_PREROUTING\n-A FWKNOP_PREROUTING " + rule(LATER)
    answers = [("iptables -w -t nat -S", listing)]
    port, tape, said = started("", answers, flush_at_init="Y", **NAT_CHAINS)
    assert "  -F FWKNOP_PREROUTING" in said
    drive(port.start())
    assert not [line for line in tape.lines if "-F " in line]


def test_what_is_missing_of_the_matches_and_of_c_is_done_without():
    tape = Tape()
    failures = [PortError("tape", "no time"), PortError("tape", "no -C")]
    tape.say, say = None, tape.say

    async def choosy(*words, text=None):
        if text and "-m time" in text:
            raise failures[0]
        if text and "-C" in text:
            raise failures[1]
        return await say(*words, text=text)

    tape.say = choosy
    port = make("fw", {"kind": "iptables", "via": "tape", "ipv6": "N"}, {"tape": tape})
    drive(port.start())
    drive(port.open(grant(), 30))
    plain = "-s 192.0.2.7/32 -p tcp -m tcp --dport 22 -m comment --comment _exp_%d -j ACCEPT" % LATER
    assert tape.lines[-2] == "  -A FWKNOP_INPUT " + plain
    assert not [line for line in tape.lines if "-C " in line]


def test_without_the_comment_match_it_does_not_start_unless_told_so():
    tape = Tape()
    tape.answers = [(RESTORE, PortError("tape", "no such match"))]
    port = make("fw", {"kind": "iptables", "via": "tape", "ipv6": "N"}, {"tape": tape})
    try:
        drive(port.start())
        raise AssertionError("started")
    except PortError as error:
        assert "comment" in error.reason and "no such match" in error.reason
    assert not [line for line in started(comment_check="N")[2] if "TMPCOMMENT" in line]


def test_without_ip6tables_ipv4_goes_on_and_ipv6_is_refused():
    port = started(answers=[("ip6tables", PortError("tape", "not found"))], ipv6="Y")[0]
    drive(port.open(grant(), 30))
    assert "ip6tables" in refused(port, grant(source="2001:db8::7"))
    drive(port.close(grant(source="2001:db8::7")))
    drive(port.sync([(grant(), 30), (grant("2", "2001:db8::7"), 30)]))


def test_without_the_nat_table_of_ip6tables_plain_access_goes_on():
    answers = [("ip6tables -w -t nat", PortError("tape", "no such table"))]
    port = started("", answers, ipv6="Y", **NAT_CHAINS)[0]
    drive(port.open(grant(source="2001:db8::7"), 30))
    assert "ip6tables" in refused(port, grant(source="2001:db8::7", nat=inside("fd77::5")))
    drive(port.open(grant(nat=inside()), 30))


def test_an_ipv6_source_goes_by_ip6tables():
    port, tape, _ = started(ipv6="Y", binary="/sbin/iptables-nft")
    drive(port.open(grant(source="2001:DB8:0::7"), 30))
    assert tape.lines[0] == "/sbin/ip6tables-nft-restore --noflush -w"
    assert tape.lines[3] == "  -A FWKNOP_INPUT " + rule(LATER, "2001:db8::7/128")


def test_a_grant_is_one_transaction():
    port, tape, _ = started()
    drive(port.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    assert tape.lines == transaction(*added(rule(LATER), rule(LATER, proto="udp", port=53)))


def test_a_rule_ends_with_its_last_second_and_is_found_again():
    words = "-s 192.0.2.7/32 -p tcp -m tcp --dport 22 -m comment --comment _exp_* -j ACCEPT"
    text = timed(words, 1795439211, True)
    assert "--dport 22 -m time --datestop 2026-11-23T13:06:51 -m comment --comment _exp_1795439211 -j" in text
    assert recognised(text) == (words, 1795439211)
    assert recognised(timed(words, 5000000000, True)) == (words, 5000000000)  # the kernel's dates end in 2038
    assert "-m time" not in timed(words, 5000000000, True)
    foreign = "-m time --timestart 08:00:00 --datestop 2026-11-23T13:06:51 -m comment --comment _exp_5 -j ACCEPT"
    assert recognised(foreign)[1] == 5
    assert recognised("-j ACCEPT") is None and recognised("-m comment --comment _exp_x -j ACCEPT") is None


def test_prepend_inserts():
    port, tape, _ = started(prepend="Y")
    drive(port.open(grant(), 30))
    assert tape.lines[3] == "  -I FWKNOP_INPUT " + rule(LATER)


def test_opening_again_says_nothing_and_opening_longer_replaces_the_rule():
    port, tape, _ = started()
    drive(port.open(grant(), 30))
    tape.lines = []
    drive(port.open(grant(), 30))
    assert tape.lines == []
    drive(port.open(grant(until=LATER + 9), 30))
    assert tape.lines == transaction(*(added(rule(LATER + 9)) + ["-D FWKNOP_INPUT " + rule(LATER)]))


def test_close_takes_the_rule_away_once():
    port, tape, _ = started()
    drive(port.open(grant(), 30))
    tape.lines = []
    drive(port.close(grant()))
    drive(port.close(grant()))
    assert tape.lines == transaction("-D FWKNOP_INPUT " + rule(LATER))
    ledger = port.families[4].ledger
    assert not ledger.wanted and not ledger.present and not ledger.wrote


def test_several_are_closed_in_one_transaction_and_what_they_share_once():
    port, tape = with_nat()
    grants = [grant(str(n), source="10.0.0.%d" % n, nat=inside(snat="masquerade")) for n in (1, 2)]
    for one in grants:
        drive(port.open(one, 30))
    tape.lines = []
    drive(port.close(*grants))
    assert [line for line in tape.lines if line[0] != " "] == [RESTORE]
    assert len([line for line in tape.lines if line.startswith("  -D FWKNOP_MASQUERADE")]) == 1
    assert len([line for line in tape.lines if line.startswith("  -D")]) == 5
    assert not port.families[4].ledger.present


def test_a_grant_of_an_earlier_process_is_closed():
    port, tape, _ = started(HOOKED + "-A FWKNOP_INPUT " + rule(LATER))
    drive(port.close(grant()))
    assert tape.lines == transaction("-D FWKNOP_INPUT " + rule(LATER))


def test_a_close_that_failed_is_made_up_for_by_sync():
    port, tape, _ = started()
    drive(port.open(grant(), 30))
    tape.answers = [(LIST, HOOKED + "-A FWKNOP_INPUT " + rule(LATER)), (RESTORE, PortError("tape", "locked"))]
    try:
        drive(port.close(grant()))
        raise AssertionError("not raised")
    except PortError as error:
        assert error.reason == "locked"
    tape.answers.pop()
    tape.lines = []
    drive(port.start())
    drive(port.sync([]))
    assert tape.lines[-2:] == ["  -D FWKNOP_INPUT " + rule(LATER), "  COMMIT"]


def test_a_clock_set_back_retimes_what_is_open():
    port, tape, _ = started()
    drive(port.open(grant(until=LATER + 5000), 30))
    tape.answers = [(LIST, HOOKED + "-A FWKNOP_INPUT " + rule(LATER + 5000))]
    drive(port.sync([(grant(until=LATER + 5000), 30)]))
    tape.lines = []
    drive(port.sync([(grant(until=LATER), 30)]))
    change = added(rule(LATER)) + ["-D FWKNOP_INPUT " + rule(LATER + 5000)]
    assert tape.lines == [LIST] + transaction(*change)


def test_a_clock_set_back_after_a_restart_retimes_what_is_open():
    """The rule was written by the process before us; what a grant has explained is no rule of others."""
    port, tape, _ = started(HOOKED + "-A FWKNOP_INPUT " + rule(LATER + 5000))
    drive(port.sync([(grant(until=LATER + 5000), 30)]))
    tape.lines = []
    drive(port.sync([(grant(until=LATER), 30)]))
    assert "  -D FWKNOP_INPUT " + rule(LATER + 5000) in tape.lines


def test_sync_closes_what_is_due_keeps_what_lives_and_leaves_others_alone():
    held = ((NOW - 5, "10.0.0.1/32"), (LATER, "10.0.0.2/32"), (LATER,))
    listing = HOOKED + "-A FWKNOP_INPUT -s 10.9.9.9/32 -j ACCEPT\n-A FWKNOP_INPUT\n-A OTHER " + rule(5)
    listing += "".join(["\n-A FWKNOP_INPUT " + rule(*r) for r in held])
    port, tape, _ = started(listing)
    drive(port.sync([(grant(), 30), (grant("2", openings=(("tcp", 80),)), 30)]))
    assert tape.lines[:2] == [RESTORE, "  *filter"]
    assert sorted(tape.lines[2:]) == sorted(
        ["  " + line for line in added(rule(LATER, port=80))]
        + ["  -D FWKNOP_INPUT " + rule(NOW - 5, "10.0.0.1/32"), "  COMMIT"]
    )
    assert port.next_expiry() == LATER  # 10.0.0.2's, which somebody else wrote


def test_a_rule_of_fwknopds_is_taken_for_ours_and_a_longer_one_keeps_its_time():
    words = "-s 192.0.2.7/32 -p tcp -m tcp --dport 22 -m comment --comment _exp_%d -j ACCEPT"
    listing = HOOKED + "".join(["-A FWKNOP_INPUT " + words % e + "\n" for e in (LATER, LATER + 50)])
    port, tape, _ = started(listing)
    drive(port.open(grant(until=LATER), 30))
    assert tape.lines == [] and port.next_expiry() == LATER + 50
    drive(port.open(grant(until=LATER + 9), 30))
    assert tape.lines == transaction(*(added(rule(LATER + 9)) + ["-D FWKNOP_INPUT " + words % LATER]))
    drive(port.sync([(grant(until=LATER + 9), 30)]))
    assert port.next_expiry() == LATER + 50


def test_a_failure_is_mended_and_tried_again():
    port, tape, _ = started("")
    drive(port.open(grant("1"), 30))
    tape.lines = []
    tape.answers.insert(0, (RESTORE, PortError("tape", "line 2 failed")))
    assert refused(port, grant("2", source="10.0.0.1")) == "line 2 failed"
    assert tape.lines.count(RESTORE) == 6  # three times, and three times in vain to take it away
    mended = tape.lines[tape.lines.index(LIST) :][:9]
    assert sorted(mended) == sorted(
        [LIST]
        + transaction("-N FWKNOP_INPUT", "-I INPUT 1 -j FWKNOP_INPUT", *added(rule(LATER, "10.0.0.1/32"), rule(LATER)))
    )
    tape.answers.pop(0)
    tape.lines = []
    drive(port.close(grant("1")))
    assert not [line for line in tape.lines if "10.0.0.1" in line]  # what was refused is not opened later


def said_for(nat, openings=(("tcp", 22),), source="192.0.2.7", **options):
    """What a fresh port says to open such a grant: [(table's line or rule)], without checks."""
    port, tape = with_nat(**options)
    drive(port.open(grant(nat=nat, openings=openings, source=source), 30))
    opened = [line[2:] for line in tape.lines if line.startswith("  ") and "-C " not in line]
    assert [line for line in tape.lines if not line.startswith("  ")] in ([RESTORE], ["ip6tables" + RESTORE[8:]])
    tape.lines = []
    drive(port.close(grant(nat=nat, openings=openings, source=source)))
    closed = [line[5:] for line in tape.lines if line.startswith("  -D ")]
    assert sorted(closed) == sorted([line[3:] for line in opened if line.startswith("-A ")])
    return opened


def test_nat_to_a_host_is_dnat_and_then_forward_to_that_host_alone():
    assert said_for(inside()) == [
        "*nat",
        "-A FWKNOP_PREROUTING "
        + marked("-s 192.0.2.7/32 -p tcp -m tcp --dport 22", LATER, "DNAT --to-destination 192.168.77.5:8022"),
        "COMMIT",
        "*filter",
        "-A FWKNOP_FORWARD " + marked("-s 192.0.2.7/32 -d 192.168.77.5/32 -p tcp -m tcp --dport 8022", LATER),
        "COMMIT",
    ]


def test_nat_is_closed_access_first():
    port, tape = with_nat()
    drive(port.open(grant(nat=inside()), 30))
    tape.lines = []
    drive(port.close(grant(nat=inside())))
    assert [line for line in tape.lines if "*" in line and "-D" not in line] == ["  *filter", "  *nat"]


def test_local_nat_opens_the_port_behind_it():
    assert [line for line in said_for(inside("10.9.9.9", 80, local=True), (("tcp", 2222),)) if line[0] == "-"] == [
        "-A FWKNOP_PREROUTING "
        + marked("-s 192.0.2.7/32 -p tcp -m tcp --dport 2222", LATER, "DNAT --to-destination 10.9.9.9:80"),
        "-A FWKNOP_INPUT " + marked("-s 192.0.2.7/32 -p tcp -m tcp --dport 80", LATER),
    ]


def test_snat_and_masquerade_words():
    to = "-d 192.168.77.5/32 -p tcp -m tcp --dport 8022"
    lines = said_for(inside(snat="192.168.77.1"))
    assert "-A FWKNOP_POSTROUTING " + marked(to, LATER, "SNAT --to-source 192.168.77.1") in lines
    lines = said_for(inside(snat="masquerade"))
    assert "-A FWKNOP_MASQUERADE " + marked(to, LATER, "MASQUERADE --to-ports 22") in lines


def test_forward_all_is_every_port_and_host():
    def rules(more):
        return [line for line in said_for(inside(every=True, **more)) if line[0] == "-"]

    source = "-s 192.0.2.7/32"
    forward = "-A FWKNOP_FORWARD " + marked(source, LATER)
    dnat = "-A FWKNOP_PREROUTING " + marked(source, LATER, "DNAT --to-destination 192.168.77.5")
    snat = "-A FWKNOP_POSTROUTING " + marked(source, LATER, "SNAT --to-source 192.168.77.1")
    assert rules({"port": 0}) == [dnat, forward]
    assert rules({"snat": "192.168.77.1"}) == [dnat, snat, forward]
    nobody = {"host": "0.0.0.0", "port": 0}
    assert rules(dict(nobody, snat="192.168.77.1", dnat=False)) == [snat, forward]
    masquerade = "-A FWKNOP_MASQUERADE " + marked(source, LATER, "MASQUERADE")
    assert rules(dict(nobody, snat="masquerade")) == [masquerade, forward]  # nowhere to translate to


def test_without_dnat_the_host_is_reached_by_its_own_address():
    assert [line for line in said_for(inside(dnat=False)) if line[0] == "-"] == [
        "-A FWKNOP_FORWARD " + marked("-s 192.0.2.7/32 -d 192.168.77.5/32 -p tcp -m tcp --dport 8022", LATER)
    ]


def test_nat_by_ipv6_has_brackets():
    lines = said_for(inside("fd77:0::5", snat="fd77::1"), source="2001:db8::7", ipv6="Y")
    assert [line.split(" -j ")[1] for line in lines if line[0] == "-"] == [
        "DNAT --to-destination [fd77::5]:8022",
        "SNAT --to-source fd77::1",
        "ACCEPT",
    ]


def test_nat_that_cannot_be_is_refused():
    port, tape = with_nat(ipv6="Y")
    assert "family" in refused(port, grant(nat=inside("fd77::5")))
    assert "family" in refused(port, grant(nat=inside(snat="fd77::1")))
    assert "no such service" in refused(port, grant(nat=inside(port=0)))
    assert "no such service" in refused(port, grant(nat=inside("0.0.0.0")))
    assert tape.lines == []
    assert "forward" in refused(started()[0], grant(nat=inside()))


def test_what_two_nat_grants_share_stays_for_the_other():
    port, tape = with_nat()
    one = grant("1", nat=inside(snat="masquerade"), until=LATER + 9)
    other = grant("2", source="10.0.0.1", nat=inside(snat="masquerade"))
    drive(port.open(one, 30))
    drive(port.open(other, 30))
    tape.lines = []
    drive(port.close(one))
    shared = "-d 192.168.77.5/32 -p tcp -m tcp --dport 8022"
    assert [line[2:] for line in tape.lines if "MASQUERADE" in line and "-C" not in line] == [
        "-A FWKNOP_MASQUERADE " + marked(shared, LATER, "MASQUERADE --to-ports 22"),
        "-D FWKNOP_MASQUERADE " + marked(shared, LATER + 9, "MASQUERADE --to-ports 22"),
    ]
    drive(port.close(other))
    assert not port.families[4].ledger.present


def test_output_and_destination():
    port, tape = with_nat(destination="Y")
    assert port.by_destination
    drive(port.open(grant(), 30))
    drive(port.open(grant(nat=inside()), 30))
    assert [line[2:] for line in tape.lines if "-A " in line] == [
        "-A FWKNOP_INPUT " + marked("-s 192.0.2.7/32 -d 10.9.9.9/32 -p tcp -m tcp --dport 22", LATER),
        "-A FWKNOP_OUTPUT " + marked("-s 10.9.9.9/32 -d 192.0.2.7/32 -p tcp -m tcp --sport 22", LATER),
        "-A FWKNOP_PREROUTING "
        + marked(
            "-s 192.0.2.7/32 -d 10.9.9.9/32 -p tcp -m tcp --dport 22", LATER, "DNAT --to-destination 192.168.77.5:8022"
        ),
        "-A FWKNOP_FORWARD " + marked("-s 192.0.2.7/32 -d 192.168.77.5/32 -p tcp -m tcp --dport 8022", LATER),
    ]


def test_a_destination_that_nobody_knows_matches_nothing():
    port, tape, _ = started(destination="Y", ipv6="Y")
    drive(port.open(grant(destination="0.0.0.0"), 30))
    drive(port.open(grant(source="2001:db8::7", destination="10.9.9.9"), 30))
    assert [line.split(" -p ")[0] for line in tape.lines if "-A " in line] == [
        "  -A FWKNOP_INPUT -s 192.0.2.7/32 -d 0.0.0.0/32",
        "  -A FWKNOP_INPUT -s 2001:db8::7/128 -d ::/128",
    ]


def test_stop_with_flush_removes_chain_and_jump():
    port, tape, _ = started()
    drive(port.stop(False))
    assert tape.lines == []
    drive(port.stop(True))
    assert tape.lines == [LIST] + transaction("-D INPUT -j FWKNOP_INPUT", "-F FWKNOP_INPUT", "-X FWKNOP_INPUT")


def test_a_chain_that_others_use_is_only_emptied():
    port, tape, _ = started(HOOKED + "-A OTHER -i eth0 -j FWKNOP_INPUT")
    drive(port.stop(True))
    assert tape.lines == [LIST] + transaction("-D INPUT -j FWKNOP_INPUT", "-F FWKNOP_INPUT")


def test_chains_and_switches_that_cannot_be_meant_are_refused():
    for option, value in (
        ("chain", "ACCEPT, filter, INPUT, 1, FWKNOP-INPUT, 1"),
        ("dnat_chain", "DNAT, nat, PREROUTING, 1, FWKNOP_PREROUTING"),
        ("snat_chain", "SNAT, nat, POSTROUTING, 65537, FWKNOP_POSTROUTING, 1"),
        ("destination", "yes"),
    ):
        try:
            started(**{option: value})
            raise AssertionError("not refused: " + value)
        except ConfigError as error:
            assert option + ":" in error.reason or option + " is" in error.reason


class Kernel:
    """Two tables that obey what the port says, and fail at times: a section is done wholly or not at all."""

    outlives_us = False

    def __init__(self):
        self.tables = {"filter": {c: [] for c in ("INPUT", "FORWARD", "OUTPUT")}}
        self.tables["nat"] = {c: [] for c in ("PREROUTING", "POSTROUTING")}
        self.failing = 0  # of so many sections to come the last one fails

    async def say(self, *words, text=None):
        if text is None:
            return "\n".join(listed(self.tables[words[3]]))
        for section in text.split("COMMIT\n")[:-1]:
            lines = section.strip().split("\n")
            chains = {name: list(rules) for name, rules in self.tables[lines[0][1:]].items()}
            for line in lines[1:]:
                obey(chains, line)
            self.failing -= 1
            if self.failing == 0:
                raise PortError("kernel", "busy")
            self.tables[lines[0][1:]] = chains
        return ""

    def describe(self):
        return "kernel"


def listed(chains):
    names = ["-N " + name for name in chains if name.startswith("FWKNOP")]
    return names + ["-A %s %s" % (name, text) for name in chains for text in chains[name]]


def obey(chains, line):
    """Does one line of iptables-restore, or raises PortError."""
    verb, chain, text = (line + "  ").split(" ", 2)
    text = text.strip()
    if (verb == "-N") == (chain in chains):
        raise PortError("kernel", line)
    if verb == "-N":
        chains[chain] = []
    elif verb == "-A":
        chains[chain].append(text)
    elif verb == "-I":
        place, _, text = text.partition(" ")
        chains[chain].insert(int(place) - 1, text)
    elif verb == "-D" or verb == "-C":
        if text not in chains[chain]:
            raise PortError("kernel", line)
        if verb == "-D":
            chains[chain].remove(text)
    else:
        raise PortError("kernel", line)


def drawn(seed):
    """Returns a function that draws from a sequence; a generator of our own, the same on every Python."""
    state = [seed]

    def draw(choices):
        state[0] = (state[0] * 1103515245 + 12345) % 2147483648
        return choices[(state[0] >> 8) % len(choices)]

    return draw


def some_grant(draw, number):
    nat = draw((None, None, inside(), inside(snat="masquerade"), inside(every=True, snat="192.168.77.1")))
    openings = (("tcp", draw((22, 80))),) if nat else draw(((("tcp", 22),), (("tcp", 22), ("udp", 53))))
    until = LATER + draw((0, 5, 9))
    return grant(number, draw(("10.0.0.1", "10.0.0.2")), openings, until, nat)


def expected(grants, port):
    """The rules that these grants stand for: {(table, chain, words): time}."""
    found = {}
    for one in grants:
        for rule, _ in port.rules(one)[1]:
            found[rule] = max(found.get(rule, 0), one.until)
    return found


def ours(kernel, foreign):
    found = {}
    for table, chains in kernel.tables.items():
        for chain, texts in chains.items():
            for text in texts:
                if chain.startswith("FWKNOP") and text not in foreign:
                    words, e = recognised(text)
                    assert (table, chain, words) not in found, "doubled: " + text
                    found[(table, chain, words)] = e
    return found


def a_life(seed):
    """Opens, closes, extends, meddles and fails at random, as the worker would say it; the chains are always right."""
    draw, kernel, book, live = drawn(seed), Kernel(), Book(), {}
    table = {"kind": "iptables", "via": "k", "ipv6": "N"}
    table.update(NAT_CHAINS, output_chain="")
    port = make("fw", table, {"k": kernel})
    drive(port.start())
    foreign = ["-s 10.9.9.9/32 -j ACCEPT", "-s 10.8.8.8/32 -m comment --comment _exp_%d -j ACCEPT" % (LATER + 99)]
    kernel.tables["filter"]["FWKNOP_INPUT"] += foreign
    drive(port.sync([]))
    for number in range(40):
        if draw((0, 0, 0, 1)):
            meddle(kernel, draw, foreign)
        kernel.failing = draw((0, 0, 0, 0, 1, 2, 3))
        closing = live.pop(draw(sorted(live)), None) if live and draw((0, 1)) else None
        if closing is None:
            live[number] = some_grant(draw, number)
        part = book.strike(closing) if closing else book.enter(live[number])
        try:
            if part is not None:
                drive(port.close(part) if closing else port.open(part, 60))
            if draw((0, 0, 1)):
                raise PortError("worker", "time to look")
        except PortError:
            kernel.failing = 0
            drive(port.sync([(one, 60) for one in book.live()]))
            assert ours(kernel, foreign) == expected(live.values(), port)
            assert kernel.tables["filter"]["FORWARD"] == ["-j FWKNOP_FORWARD"]
    assert [text for text in kernel.tables["filter"]["FWKNOP_INPUT"] if text in foreign] == foreign


def meddle(kernel, draw, foreign):
    """Does what others do: empties a chain of ours, or unhooks it."""
    if draw((0, 1)):
        chain = draw(("FWKNOP_FORWARD", "FWKNOP_PREROUTING", "FWKNOP_INPUT"))
        chains = kernel.tables["nat" if chain == "FWKNOP_PREROUTING" else "filter"]
        chains[chain] = [text for text in chains[chain] if text in foreign]
    else:
        kernel.tables["filter"]["FORWARD"] = []


def test_whatever_happens_the_chains_hold_what_is_live_and_what_others_put_there():
    for seed in range(60):
        a_life(seed)
