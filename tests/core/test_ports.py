"""Ports are made from their tables, carriers are shared, and what cannot be meant is refused with a remedy."""

from driving import drive
from tinyknop.ports.carriers.tape import Tape

from tinyknop import ports
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant


def refused(call, *words):
    try:
        call()
    except ConfigError as error:
        assert error.stage == "t.toml:7", error.stage
        for word in words:
            assert word in error.reason, error.reason
        return
    raise AssertionError("not refused")


def test_ports_without_via_share_one_carrier():
    carriers = {}
    one = ports.make("a", {"kind": "iptables", "via": "tape", "where": "t.toml:1"}, carriers)
    two = ports.make("b", {"kind": "iptables", "via": "tape", "where": "t.toml:2"}, carriers)
    assert one.carrier is two.carrier and list(carriers) == ["tape"]


def test_a_named_carrier_is_used():
    edge = Tape("edge")
    assert ports.make("a", {"kind": "iptables", "via": "edge", "where": "t.toml:1"}, {"edge": edge}).carrier is edge


def test_what_cannot_be_meant_is_refused_where_it_stands():
    cases = (
        ({}, "kind"),
        ({"kind": "iptable"}, "iptable"),
        ({"kind": "carriers"}, "carriers"),
        ({"kind": "shared"}, "no such kind"),
        ({"kind": "../x"}, "no such kind"),
        ({"kind": "iptables", "colour": "red"}, "colour", "flush_at_exit"),
        ({"kind": "iptables", "via": "edge"}, "[carrier.edge]"),
        ({"kind": "iptables", "via": "tape", "ipv6": "maybe"}, "ipv6"),
        ({"kind": "iptables", "via": "tape", "chain": "ACCEPT, filter"}, "six fields"),
        ({"kind": "iptables", "via": "tape", "chain": "ACCEPT, filter, INPUT, 70000, A, 1"}, "65536"),
        ({"kind": "iptables", "via": "tape", "chain": "ACCEPT, filter, IN-PUT, 1, A, 1"}, "six fields"),
        ({"kind": "command", "via": "tape", "open": "x"}, "close"),
    )
    for case in cases:
        options = {"where": "t.toml:7"}
        options.update(case[0])
        refused(lambda options=options: ports.make("fw", options, {}), *case[1:])
    refused(lambda: ports.carrier("edge", {"kind": "pigeon", "where": "t.toml:7"}), "pigeon")


def test_a_tape_answers_from_its_table_and_keeps_no_more_than_it_may():
    tape = Tape()
    tape.answers = [("a b", "yes"), ("a", PortError("tape", "no"))]
    assert drive(tape.say("a", "b", "c", text="x\ny\n")) == "yes"
    assert tape.lines == ["a b c", "  x", "  y"]
    try:
        drive(tape.say("a"))
        raise AssertionError("not raised")
    except PortError as error:
        assert error.reason == "no"
    for _ in range(1100):
        drive(tape.say("z"))
    assert len(tape.lines) == 1000


GRANT = Grant("1", "192.0.2.7", (("tcp", 22), ("udp", 53)), 1000, 1030, "alice", None, "10.0.0.1", "192.0.2.7")


def test_a_command_is_split_at_blanks_and_filled_in_once():
    tape = Tape()
    options = {"kind": "command", "via": "tape", "open": "/bin/o $IP:$PORT;$PROTO $TIMEOUT $CLIENT_TIMEOUT $x $IPx"}
    options["close"] = "NONE"
    port = ports.make("fw", options, {"tape": tape})
    drive(port.open(GRANT, 30))
    drive(port.close(GRANT))
    assert tape.lines == [
        "/bin/o 192.0.2.7:22;6 1030 30 x 192.0.2.7x",
        "/bin/o 192.0.2.7:53;17 1030 30 x 192.0.2.7x",
    ]
    assert port.outlives_us


def test_a_command_closes_what_it_opened():
    tape = Tape()
    port = ports.make("fw", {"kind": "command", "via": "tape", "open": "o", "close": "c $SRC $PORT"}, {"tape": tape})
    drive(port.close(GRANT))
    assert tape.lines == ["c 192.0.2.7 22", "c 192.0.2.7 53"]


def test_two_ports_that_would_hold_the_same_thing_are_refused():
    lan = {"kind": "nftables", "chain": "inet filter lan", "where": "t.toml:1"}
    cases = (
        ({"kind": "nftables", "chain": "inet filter wan"}, "table"),
        ({"kind": "nftables", "chain": "inet filter wan", "via": "local"}, "table"),
        ({"kind": "block", "table": "tinyknop"}, "table"),
    )
    for wan, word in cases:
        wan["where"] = "t.toml:7"
        refused(lambda wan=wan: ports.apart({"lan": lan, "wan": wan}), word, "port.lan")
    ipset, again = {"kind": "ipset", "set": "a", "set6": "b"}, {"kind": "ipset", "set6": "b", "where": "t.toml:7"}
    refused(lambda: ports.apart({"a": ipset, "b": again}), "set6")
    for wan in ({"kind": "nftables", "via": "edge"}, {"kind": "nftables", "table": "wan"}, {"kind": "ipset"}, {}):
        ports.apart({"lan": lan, "wan": wan, "x": {"kind": "ipset", "set": "x"}})
