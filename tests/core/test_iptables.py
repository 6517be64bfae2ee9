"""What the iptables port says, word for word, on a tape."""

from tinyknop.ports import make
from tinyknop.ports.carriers.tape import Tape

from tinyknop.compat import wall
from tinyknop.errors import PortError
from tinyknop.grants import Grant

NOW = wall()
LATER = NOW + 3600
RESTORE = "iptables-restore --noflush -w"


def drive(coroutine):
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return end.value


def grant(id="1", source="192.0.2.7", openings=(("tcp", 22),), until=LATER, nat=None):
    return Grant(id, source, openings, NOW, until, "alice", nat)


def rule(until, source="192.0.2.7/32", proto="tcp", port=22):
    words = "-s %s -p %s -m %s --dport %d -m comment --comment _exp_%d -j ACCEPT"
    return words % (source, proto, proto, port, until)


def started(listing="", **options):
    tape = Tape()
    tape.answers = [("iptables -w -t filter -S FWKNOP_INPUT", listing)]
    table = {"kind": "iptables", "via": "tape", "ipv6": "N"}
    table.update(options)
    port = make("fw", table, {"tape": tape})
    drive(port.start())
    said, tape.lines = tape.lines, []
    return port, tape, said


def transaction(*lines):
    return [RESTORE, "  *filter"] + ["  " + line for line in lines] + ["  COMMIT"]


def added(*rules):
    return ["-C INPUT -j FWKNOP_INPUT"] + ["-A FWKNOP_INPUT " + r for r in rules]


def test_start_makes_and_hooks_the_chain_and_tries_the_comment_match():
    tape = Tape()
    tape.answers = [("iptables -w -t filter -" + c, PortError("tape", "missing")) for c in "SC"]
    port = make("fw", {"kind": "iptables", "via": "tape", "ipv6": "N"}, {"tape": tape})
    drive(port.start())
    assert tape.lines == [
        "iptables -w -t filter -S FWKNOP_INPUT",
        "iptables -w -t filter -N FWKNOP_INPUT",
        "iptables -w -t filter -C INPUT -j FWKNOP_INPUT",
        "iptables -w -t filter -I INPUT 1 -j FWKNOP_INPUT",
    ] + transaction(
        "-A FWKNOP_INPUT -m comment --comment __TMPCOMMENT__",
        "-D FWKNOP_INPUT -m comment --comment __TMPCOMMENT__",
    )


def test_start_leaves_a_chain_that_is_there():
    said = started()[2]
    assert said[:2] == ["iptables -w -t filter -S FWKNOP_INPUT", "iptables -w -t filter -C INPUT -j FWKNOP_INPUT"]
    assert said[2] == RESTORE


def test_without_ip6tables_ipv4_goes_on_and_ipv6_is_refused():
    tape = Tape()
    tape.answers = [("ip6tables", PortError("tape", "not found"))]
    port = make("fw", {"kind": "iptables", "via": "tape"}, {"tape": tape})
    drive(port.start())
    drive(port.open(grant(), 30))
    try:
        drive(port.open(grant(source="2001:db8::7"), 30))
        raise AssertionError("not refused")
    except PortError as error:
        assert "ip6tables" in error.reason
    drive(port.close(grant(source="2001:db8::7")))


def test_an_ipv6_source_goes_by_ip6tables():
    port, tape, _ = started(ipv6="Y", binary="/sbin/iptables-nft")
    drive(port.open(grant(source="2001:DB8:0::7"), 30))
    assert tape.lines[0] == "/sbin/ip6tables-nft-restore --noflush -w"
    assert tape.lines[3] == "  -A FWKNOP_INPUT " + rule(LATER, "2001:db8::7/128")


def test_a_grant_is_one_transaction():
    port, tape, _ = started()
    drive(port.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    assert tape.lines == transaction(*added(rule(LATER), rule(LATER, proto="udp", port=53)))


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
    assert not port.wanted and not port.present and not port.ours


def test_what_another_grant_needs_stays_open_for_its_time():
    port, tape, _ = started()
    drive(port.open(grant("1", until=LATER), 30))
    drive(port.open(grant("2", until=LATER + 5), 30))
    tape.lines = []
    drive(port.close(grant("1", until=LATER)))
    assert tape.lines == []
    drive(port.open(grant("3", until=LATER), 30))
    drive(port.close(grant("2", until=LATER + 5)))
    assert tape.lines == transaction(*(added(rule(LATER)) + ["-D FWKNOP_INPUT " + rule(LATER + 5)]))


def test_sync_closes_what_is_due_keeps_what_lives_and_leaves_others_alone():
    listing = "\n".join(
        ["-N FWKNOP_INPUT", "-A FWKNOP_INPUT -s 10.9.9.9/32 -j ACCEPT", "-A OTHER " + rule(5)]
        + ["-A FWKNOP_INPUT " + rule(*r) for r in ((NOW - 5, "10.0.0.1/32"), (LATER, "10.0.0.2/32"), (LATER,))]
    )
    port, tape, _ = started(listing)
    drive(port.sync([(grant(), 30), (grant("2", openings=(("tcp", 80),)), 30)]))
    assert tape.lines[2:4] == [RESTORE, "  *filter"]
    assert sorted(tape.lines[4:]) == sorted(
        ["  " + line for line in added(rule(LATER, port=80))]
        + ["  -D FWKNOP_INPUT " + rule(NOW - 5, "10.0.0.1/32"), "  COMMIT"]
    )


def test_a_grant_of_an_earlier_process_is_closed():
    port, tape, _ = started("-A FWKNOP_INPUT " + rule(LATER))
    drive(port.close(grant()))
    assert tape.lines == transaction("-D FWKNOP_INPUT " + rule(LATER))


def test_a_failure_is_mended_and_tried_once_more():
    port, tape, _ = started()
    drive(port.open(grant("1"), 30))
    tape.lines = []
    tape.answers.insert(0, (RESTORE, PortError("tape", "line 2 failed")))
    try:
        drive(port.open(grant("2", source="10.0.0.1"), 30))
        raise AssertionError("not raised")
    except PortError as error:
        assert error.reason == "line 2 failed"
    again = tape.lines[-5:]
    assert tape.lines.count(RESTORE) == 2
    assert again[1:4] == ["  " + line for line in added(rule(LATER, "10.0.0.1/32"), rule(LATER))]  # both: a flush
    assert [times for times in port.wanted.values()] == [{"1": LATER}]  # what was refused is not opened later


def test_nat_is_refused():
    port, tape, _ = started()
    try:
        drive(port.open(grant(nat=("10.0.0.5", 22)), 30))
        raise AssertionError("not refused")
    except PortError as error:
        assert "NAT" in error.reason
    drive(port.close(grant(nat=("10.0.0.5", 22))))
    assert tape.lines == []


def test_stop_with_flush_removes_chain_and_jump():
    port, tape, _ = started()
    drive(port.stop(False))
    assert tape.lines == []
    tape.answers.insert(0, ("iptables -w -t filter -D INPUT", PortError("tape", "no such rule")))
    drive(port.stop(True))
    head = "iptables -w -t filter "
    assert tape.lines == [
        head + "-D INPUT -j FWKNOP_INPUT",
        head + "-F FWKNOP_INPUT",
        head + "-X FWKNOP_INPUT",
    ]
