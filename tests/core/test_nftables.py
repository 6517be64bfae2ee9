"""The nftables port by its words, and those words as messages in both byte orders: no root, no kernel."""

import errno
import struct

from driving import at_once
from tinyknop.ports import nftables
from tinyknop.ports.carriers.netlink import Carrier as Netlink
from tinyknop.ports.carriers.tape import Carrier as Tape

from tinyknop import compat, netlink, nft
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant, Nat

CHAINS = """table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
	chain helper {
	}
}
table inet other {
	chain input {
		type filter hook input priority filter - 10; policy accept;
	}
}
"""
RULES = """table inet filter {
	chain input { # handle 1
		type filter hook input priority filter; policy drop;
		ip saddr . meta l4proto . th dport @tinyknop_open4 accept comment "tinyknop_open4" # handle 7
		ip6 saddr . meta l4proto . th dport @tinyknop_open6 accept comment "tinyknop_open6" # handle 6
		tcp dport 80 accept comment "the owner's" # handle 3
	}
}
"""
WRITE = "nft -f -"
LOOK = "nft -a list chain inet filter input"
ADD = "add element inet filter tinyknop_open4 { 192.0.2.7 . tcp . 22 timeout %ds }"
DELETE = "delete element inet filter tinyknop_open4 { 192.0.2.7 . tcp . 22 }"


def grant(number=1, source="192.0.2.7", openings=(("tcp", 22),), nat=None):
    return Grant(number, source, openings, 1700000000, 1700000030, "alice", nat, "0.0.0.0", source)


def port(*answers, options=None):
    """Returns a port that has started, and its tape, empty."""
    tape = Tape()
    tape.answers = list(answers) + [("nft list chains", CHAINS), (LOOK, RULES)]
    given = dict(nftables.OPTIONS)
    given["where"] = "tinyknop.toml:7"
    given.update(options or {})
    door = nftables.Port("door", given, tape)
    at_once(door.start())
    started, tape.lines = tape.lines, []
    return door, tape, started


def build(options):
    return port(options=options)


def said(tape):
    """Returns the lines of all scripts on the tape."""
    return [line[2:] for line in tape.lines if line.startswith("  ")]


def raises(kind, call, *arguments):
    try:
        call(*arguments)
    except kind as error:
        return str(error)
    raise AssertionError("nothing was raised")


def test_start_puts_rules_at_the_head_of_the_chain_that_drops_and_nowhere_else():
    door, _, started = port((LOOK, ""))
    made = "{ type ipv%d_addr . inet_proto . inet_service ; flags timeout ; size 65536 ; }"
    rule = 'insert rule inet filter input ip%s saddr . meta l4proto . th dport @%s accept comment "%s"'
    assert started == [
        "nft list chains",
        "nft -a list chain inet filter forward",
        "nft -a list chain inet filter helper",
        LOOK,
        WRITE,
        "  add set inet filter tinyknop_open4 " + made % 4,
        "  add set inet filter tinyknop_open6 " + made % 6,
        "  " + rule % ("6", "tinyknop_open6", "tinyknop_open6"),
        "  " + rule % ("", "tinyknop_open4", "tinyknop_open4"),
    ]
    assert [c.spot for c in door.chains] == ["inet filter input"]


def test_start_replaces_rules_that_another_of_ours_left():
    _, _, started = port()
    assert (
        "  delete rule inet filter input handle 7" in started and "  delete rule inet filter input handle 6" in started
    )
    assert not [line for line in started if line.endswith("handle 3")]


def test_without_a_chain_that_drops_one_of_ours_is_made():
    door, _, started = port(
        ("nft list chains", ""), ("nft -a list chain", PortError("tape", "Error: No such file or directory"))
    )
    assert "  add table inet tinyknop" in started
    assert "  add chain inet tinyknop input { type filter hook input priority -10 ; policy accept ; }" in started
    assert [c.own for c in door.chains] == [True]


def test_table_that_is_the_owners_is_refused_since_it_would_be_deleted():
    assert "our own" in raises(ConfigError, build, {"table": "filter", "chain": "inet filter input"})
    assert "(input)" in raises(PortError, build, {"table": "filter"})
    theirs = ("nft list chains", CHAINS.replace("filter - 10", "filter"))
    assert "(input)" in raises(PortError, lambda: port(theirs, options={"table": "other", "chain": "ip edge input"}))
    ours = """table inet other {
	chain input {
		type filter hook input priority %s; policy accept;
	}
	chain postrouting {
		type nat hook postrouting priority %s; policy accept;
	}
}
"""
    for numbers in (("filter - 10", "srcnat - 10"), ("-10", "90")):  # nft's words, and ours
        port(("nft list chains", CHAINS.partition("table inet other")[0] + ours % numbers), options={"table": "other"})


def test_owners_names_may_have_dots_and_slashes_and_one_that_cannot_be_said_is_an_error_with_a_reason():
    named = CHAINS.replace("inet filter", "inet my.fw").replace("chain input", "chain in/put")
    door, _, _ = port(("nft list chains", named), ("nft -a list chain inet my.fw in/put", ""))
    assert [c.spot for c in door.chains] == ["inet my.fw in/put"]
    door, _, _ = port(("nft -a list chain inet my.fw in/put", ""), options={"chain": "inet my.fw in/put"})
    assert [c.spot for c in door.chains] == ["inet my.fw in/put"]
    odd = CHAINS.replace("inet filter", "inet 7f")
    assert "a chain is a family" in raises(PortError, port, ("nft list chains", odd))


def test_rules_of_others_whose_comment_begins_like_ours_stay():
    foreign = RULES.replace("the owner's", "tinyknop_knocks").replace("handle 3", "handle 3\n%s")
    foreign %= '\t\ttcp dport 22 accept comment "tinyknop_b_open4" # handle 4'
    door, tape, started = port((LOOK, foreign))
    at_once(door.open(grant(), 30))
    at_once(door.stop(True))
    lines = [line for line in started + tape.lines if "delete rule" in line]
    assert not [line for line in lines if line.endswith(("handle 3", "handle 4"))]


def test_start_takes_our_rules_out_of_a_chain_that_another_configuration_named():
    other = RULES.replace("chain input", "chain helper").replace("handle 7", "handle 8")
    _, _, started = port(("nft -a list chain inet filter helper", other))
    assert "  delete rule inet filter helper handle 8" in started
    assert not [line for line in started if line.endswith("handle 3")]


def test_version_that_no_chain_of_the_owner_serves_goes_to_ours():
    door, _, _ = port(options={"chain": "ip filter input"})
    assert [(c.spot, [a.v for a in c.sets]) for c in door.chains] == [
        ("ip filter input", [4]),
        ("inet tinyknop input", [6]),
    ]


def test_chain_of_iptables_is_refused_unless_it_is_named():
    listing = CHAINS.replace("inet filter", "ip filter").replace("chain input", "chain INPUT")
    assert "kind iptables" in raises(PortError, port, ("nft list chains", listing))
    tape = Tape()
    options = dict(nftables.OPTIONS)
    options["chain"] = "ip filter INPUT, ip6 filter INPUT"
    at_once(nftables.Port("door", options, tape).start())
    assert "nft -a list chain ip6 filter INPUT" in tape.lines


def test_open_is_one_transaction_then_a_look_at_the_rules():
    door, tape, _ = port()
    at_once(door.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    lines = []
    for line in (ADD % 1, DELETE, ADD % 30):
        before, _, element = line.partition("{ ")
        lines.append("  " + before + "{ " + element[:-2] + ", " + element.replace("tcp . 22", "udp . 53"))
    assert tape.lines == [WRITE] + lines + [LOOK, "nft list chains"]


def test_ipv6_goes_to_the_other_set_in_one_spelling():
    door, tape, _ = port()
    at_once(door.open(grant(source="2001:DB8:0::7"), 0))
    assert said(tape)[2] == "add element inet filter tinyknop_open6 { 2001:db8::7 . tcp . 22 timeout 1s }"


def test_close_of_what_the_kernel_ended_already_is_no_error():
    door, tape, _ = port()
    at_once(door.close(grant()))
    assert said(tape) == [ADD % 1, DELETE]


def test_second_grant_of_an_element_neither_shortens_it_nor_closes_it():
    door, tape, _ = port()
    at_once(door.open(grant(1), 300))
    at_once(door.open(grant(2), 30))
    at_once(door.close(grant(1)))
    at_once(door.close(grant(2)))
    assert [line.split()[-2] for line in said(tape) if line.startswith("add")] == ("1s 300s 1s 300s 1s 30s 1s".split())


def test_claim_whose_time_is_over_keeps_nothing_open():
    door, tape, _ = port()
    now = [1000]
    nftables.monotonic = lambda: now[0]
    try:
        at_once(door.open(grant(1), 30))
        at_once(door.open(grant(2), 40))
        now[0] += 30000
        at_once(door.close(grant(2)))
    finally:
        nftables.monotonic = compat.monotonic
    assert said(tape)[-1] == DELETE and door.claims == {}


def test_failed_open_is_mended_once_and_leaves_no_claim():
    door, tape, _ = port()
    tape.answers.insert(0, (WRITE, PortError("tape", "the set is full")))
    assert "full" in raises(PortError, lambda: at_once(door.open(grant(), 30)))
    assert door.claims == {}


def test_rule_that_is_gone_is_put_back_by_the_next_knock():
    door, tape, _ = port()
    tape.answers.insert(0, (LOOK, RULES.replace('"tinyknop_open4"', '"mine"')))
    at_once(door.open(grant(), 30))
    assert [line for line in said(tape) if line.startswith("insert rule") and "@tinyknop_open4" in line]
    assert "delete rule inet filter input handle 6" in said(tape)  # the one that was left, so that none is doubled


def test_sync_deletes_strays_and_leaves_what_is_right():
    elements = "elements = { 192.0.2.9 . tcp . 22 timeout 1h expires 59m59s992ms,\n"
    elements += (
        "\t\t 192.0.2.7 . tcp . 22 timeout 30s expires 19s500ms,\n 192.0.2.8 . udp . 53 timeout 9m expires 992ms }"
    )
    door, tape, _ = port(("nft list set inet filter tinyknop_open4", elements))
    at_once(door.sync([(grant(), 20), (grant(2, "192.0.2.8", (("udp", 53),)), 100), (grant(3, "2001:db8::7"), 9)]))
    head = "element inet filter tinyknop_open4 { "
    assert said(tape) == [
        "add " + head + "192.0.2.8 . udp . 53 timeout 1s, 192.0.2.9 . tcp . 22 timeout 1s }",
        "delete " + head + "192.0.2.8 . udp . 53, 192.0.2.9 . tcp . 22 }",
        "add " + head + "192.0.2.8 . udp . 53 timeout 100s }",
        "add element inet filter tinyknop_open6 { 2001:db8::7 . tcp . 22 timeout 9s }",
    ]


def test_sync_passes_over_grants_that_cannot_be_opened():
    door, tape, _ = port()
    at_once(door.sync([(grant(openings=(("icmp", 8),)), 20)]))
    assert said(tape) == [] and door.claims == {}


def test_times_are_read_as_nft_prints_them():
    for text, seconds in (
        ("29s992ms", 29),
        ("1h23m19s", 4999),
        ("1d1ms", 86400),
        ("992ms", 0),
        ("24d20h31m23s", 2147483),
    ):
        found = nftables.listed("elements = { 10.0.0.1 timeout 1d expires %s : 10.0.0.2 }" % text)
        assert found == {"10.0.0.1": ("10.0.0.2", seconds)}
    assert nftables.listed("elements = { 10.0.0.1 . tcp . 22 }") == {"10.0.0.1 . tcp . 22": ("", 0)}
    assert nftables.listed("table inet t {\n}\n") == {}


def elements(nat, source="192.0.2.7"):
    """Returns set, key and value of each element of a NAT grant."""
    made = []
    for (what, v, key), value in port()[0].elements(grant(source=source, nat=nat)):
        made.append("%s%d %s%s" % (what, v, key, " -> " + value if value else ""))
    return made


def test_nat_grants_become_elements_as_fwknopd_makes_rules():
    assert elements(Nat(False, "10.0.0.5", 80, None, False, True)) == [
        "forward4 192.0.2.7 . 10.0.0.5 . tcp . 80",
        "dnat4 192.0.2.7 . tcp . 22 -> 10.0.0.5 . 80",
    ]
    assert elements(Nat(False, "FD00::5", 80, "fd00:0::1", False, True), "2001:db8::7") == [
        "forward6 2001:db8::7 . fd00::5 . tcp . 80",
        "snat6 2001:db8::7 . fd00::5 . tcp . 80 -> fd00::1",
        "dnat6 2001:db8::7 . tcp . 22 -> fd00::5 . 80",
    ]
    assert elements(Nat(False, "10.0.0.5", 80, "masquerade", False, False)) == [
        "forward4 192.0.2.7 . 10.0.0.5 . tcp . 80",
        "masquerade4 192.0.2.7 . 10.0.0.5 . tcp . 80",
    ]
    assert elements(Nat(True, "10.0.0.1", 80, "masquerade", False, True)) == [
        "open4 192.0.2.7 . tcp . 80",
        "dnat4 192.0.2.7 . tcp . 22 -> 10.0.0.1 . 80",
    ]
    assert elements(Nat(False, "10.0.0.5", 0, "10.0.0.1", True, True)) == [
        "forward_all4 192.0.2.7",
        "snat_all4 192.0.2.7 -> 10.0.0.1",
        "dnat_all4 192.0.2.7 -> 10.0.0.5",
    ]
    assert elements(Nat(False, "10.0.0.5", 0, "masquerade", True, False)) == [
        "forward_all4 192.0.2.7",
        "masquerade_all4 192.0.2.7",
    ]


def test_nat_is_set_up_with_the_first_grant_that_needs_it():
    door, tape, started = port()
    assert not [line for line in started if line[:1] == " " and ("nat" in line or "forward" in line)]
    at_once(door.open(grant(nat=Nat(False, "10.0.0.5", 80, "masquerade", False, True)), 30))
    text = said(tape)
    assert "add chain inet tinyknop prerouting { type nat hook prerouting priority -110 ; policy accept ; }" in text
    assert "add chain inet tinyknop postrouting { type nat hook postrouting priority 90 ; policy accept ; }" in text
    rule = 'dnat ip to ip saddr . meta l4proto . th dport map @tinyknop_dnat4 comment "tinyknop_dnat4"'
    assert "insert rule inet tinyknop prerouting " + rule in text
    assert [line for line in text if line.startswith("insert rule inet filter forward ip saddr . ip daddr")]
    key = "add element inet tinyknop tinyknop_dnat4 { 192.0.2.7 . tcp . 22 timeout %ds : 10.0.0.5 . 80 }"
    assert key % 1 in text and key % 30 in text


def test_what_cannot_be_opened_is_refused_and_its_close_is_silent():
    door, tape, _ = port()
    for wrong, why in (
        (grant(openings=(("icmp", 8),)), "tcp and udp"),
        (grant(nat=Nat(False, "fd00::5", 80, None, False, True)), "IPv4 addresses"),
        (grant(source="2001:db8::7", nat=Nat(False, "fd00::5", 80, "10.0.0.1", False, True)), "IPv6 addresses"),
        (grant(nat=Nat(False, "localhost", 80, None, False, True)), "address"),
    ):
        assert why in raises(PortError, at_once, door.open(wrong, 30))
        at_once(door.close(wrong))
    assert tape.lines == []


def test_stop_takes_away_ours_and_only_when_asked():
    door, tape, _ = port()
    at_once(door.open(grant(), 30))
    tape.lines = []
    at_once(door.stop(False))
    assert said(tape) == []
    at_once(door.stop(True))
    assert said(tape)[-2:] == ["delete set inet filter tinyknop_open4", "delete set inet filter tinyknop_open6"]
    assert "delete rule inet filter input handle 7" in said(tape) and not [x for x in said(tape) if "handle 3" in x]


def test_options_that_cannot_be_meant_name_their_line():
    for options in (
        {"table": ""},
        {"table": "x" * 16},
        {"table": "1a"},
        {"table": "a b"},
        {"table": "-b"},
        {"maxelem": "0"},
        {"maxelem": "many"},
        {"chain": "input"},
        {"chain": "inet filter input, filter input"},
        {"chain": "bridge filter input"},
        {"chain": "inet filter in;put"},
        {"forward_chain": "inet fw4"},
    ):
        assert raises(ConfigError, build, options).startswith("tinyknop.toml:7: port.door: ")


def attributes(data, order):
    return dict(netlink.attrs(data, order))


class Writer:
    """Makes attributes in one byte order, as the kernel does."""

    def __init__(self, order):
        self.order = order

    def attr(self, kind, *parts):
        return netlink.attr(kind, b"".join(parts), self.order)


def test_element_is_the_same_but_for_byte_order():
    little, big = (nft.batch(5, [ADD.replace("filter tinyknop_open4", "t s") % 30], order) for order in "<>")
    assert little[:20] == b"\x14\0\0\0\x10\0\x01\0\5\0\0\0\0\0\0\0\0\0\0\x0a"
    assert little[20:-20] == (
        b"\x4c\0\0\0\x0c\x0a\x05\x04\6\0\0\0\0\0\0\0\1\0\0\0"
        b"\6\0\1\0t\0\0\0\6\0\2\0s\0\0\0\x28\0\3\x80\x24\0\1\x80"
        b"\x14\0\1\x80\x10\0\1\0\xc0\0\2\7\6\0\0\0\0\x16\0\0"
        b"\x0c\0\4\0\0\0\0\0\0\0\x75\x30"
    )
    assert len(little) == len(big)
    for order, data in (("<", little), (">", big)):
        first, second, third = netlink.messages(data, order)
        assert (first[0], second[0], third[0]) == (16, 0x0A0C, 17)
        assert (first[2], second[2], third[2]) == (5, 6, 7)
        assert second[1] & netlink.ACK and not first[1] & netlink.ACK
        body = attributes(second[3][4:], order)
        assert (body[1], body[2]) == (b"t\0", b"s\0")
        element = attributes(attributes(body[3], order)[1], order)
        assert attributes(element[1], order)[1] == b"\xc0\0\2\7\6\0\0\0\0\x16\0\0"
        assert element[4] == struct.pack(">Q", 30000)


def expressions(line, order):
    """Returns (name, attributes) of each expression of a rule."""
    _, _, _, body = nft.command(1, line, order)
    found = []
    for _, nested in netlink.attrs(attributes(body, order)[4], order):
        inner = attributes(nested, order)
        found.append((inner[1][:-1].decode(), attributes(inner[2], order)))
    return found


def test_rule_looks_up_the_fields_where_the_set_has_them():
    for order in "<>":
        line = 'insert rule inet t c ip6 saddr . meta l4proto . th dport @s accept comment "s"'
        found = expressions(line, order)
        names = "meta cmp payload meta payload lookup immediate".split()
        assert [name for name, _ in found] == names
        assert found[2][1] == {1: b"\0\0\0\1", 2: b"\0\0\0\1", 3: b"\0\0\0\x08", 4: b"\0\0\0\x10"}
        assert (found[3][1][1], found[4][1][1]) == (b"\0\0\0\2", b"\0\0\0\x0d")
        assert found[5][1] == {1: b"s\0", 2: b"\0\0\0\1"}
        assert attributes(nft.command(1, line, order)[3], order)[7] == b"\0\2s\0"


def test_family_is_asked_for_only_where_both_pass():
    line = 'insert rule %s t c ip saddr @s accept comment "s"'
    assert len(expressions(line % "inet", "<")) == len(expressions(line % "ip", "<")) + 2


def test_nat_takes_address_and_port_from_the_map():
    for order in "<>":
        line = 'insert rule inet t c dnat ip%s to ip%s saddr . meta l4proto . th dport map @m comment "m"'
        assert expressions(line % ("", ""), order)[-1] == (
            "nat", {1: b"\0\0\0\1", 2: b"\0\0\0\2", 3: b"\0\0\0\1", 5: b"\0\0\0\x09"}
        )  # fmt: skip
        assert expressions(line % ("6", "6"), order)[-1][1][5] == b"\0\0\0\2"
        plain = 'insert rule inet t c snat ip to ip saddr map @m comment "m"'
        assert expressions(plain, order)[-1][1] == {1: b"\0\0\0\0", 2: b"\0\0\0\2", 3: b"\0\0\0\1"}


def test_map_names_the_types_of_key_and_value():
    line = (
        "add map inet t m { type ipv4_addr . inet_proto . inet_service : ipv6_addr . inet_service ; flags timeout ; }"
    )
    for order in "<>":
        kind, _, family, body = nft.command(9, line, order)
        found = attributes(body, order)
        assert (kind, family) == (9, 1)
        assert found[3] == b"\0\0\0\x18"  # a map, with time-outs
        assert (found[4], found[5]) == (struct.pack(">I", 7 << 12 | 12 << 6 | 13), b"\0\0\0\x0c")
        assert (found[6], found[7]) == (struct.pack(">I", 8 << 6 | 13), b"\0\0\0\x14")


def test_base_chain_may_have_a_priority_below_nought():
    line = "add chain inet t c { type nat hook prerouting priority -110 ; policy accept ; }"
    for order in "<>":
        found = attributes(nft.command(1, line, order)[3], order)
        assert attributes(found[4], order) == {1: b"\0\0\0\0", 2: struct.pack(">i", -110)}
        assert (found[7], found[5]) == (b"nat\0", b"\0\0\0\1")


def test_elements_that_the_kernel_lists_are_printed_as_nft_does():
    for order in "<>":
        a = Writer(order).attr
        key = a(1, a(1, b"\xc0\0\2\7\x11\0\0\0\0\x35\0\0"))
        value = a(2, a(1, b"\x0a\0\0\5\0\x50\0\0"))
        times = a(4, struct.pack(">Q", 30000)) + a(5, struct.pack(">Q", 29992))
        head = b"\1\0\0\0" + a(4, struct.pack(">I", 7 << 12 | 12 << 6 | 13)) + a(6, struct.pack(">I", 7 << 6 | 13))
        body = b"\1\0\0\0" + a(3, a(1, key, value, times), a(1, key, value, times))
        text = nft.printed(["list", "map", "inet", "t", "m"], [(0, head), (1, body)], order)
        assert nftables.listed(text) == {"192.0.2.7 . udp . 53": ("10.0.0.5 . 80", 29)}
        assert text.count("192.0.2.7 . udp . 53 timeout 30s expires 29s : 10.0.0.5 . 80") == 2


def test_chains_and_rules_that_the_kernel_lists_are_found():
    for order in "<>":
        a = Writer(order).attr
        hook = a(4, a(1, b"\0\0\0\1"), a(2, struct.pack(">i", -10)))
        body = b"\2\0\0\0" + a(1, b"fil\0") + a(3, b"in\0") + hook + a(5, bytes(4)) + a(7, b"filter\0")
        text = nft.printed(["list", "chains"], [(0, body), (0, b"\7\0\0\0" + a(1, b"b\0") + a(3, b"plain\0"))], order)
        assert "table ip fil {\n\tchain in {\n\t\ttype filter hook input priority -10; policy drop;\n" in text
        rule = a(2, b"c\0") + a(3, struct.pack(">Q", 7)) + a(7, b"\1\1x\0\x0btinyknop_s\0")
        other = a(2, b"d\0") + a(3, struct.pack(">Q", 8))
        text = nft.printed("-a list chain inet t c".split(), [(0, bytes(4) + rule), (0, bytes(4) + other)], order)
        assert 'comment "tinyknop_s" # handle 7' in text and "handle 8" not in text


def test_words_that_are_not_known_are_refused():
    for line in (
        "flush ruleset",
        "add table arp2 t",
        "delete chain inet t c",
        "add set inet t s { type ipv4_addr ; }",
        "add set inet t s { flags timeout ; }",
        "add set inet t s { type mark ; flags timeout ; }",
        "add element inet t s { 192.0.2.777 timeout 1s }",
        "add element inet t s { 192.0.2.7 . tcp . x timeout 1s }",
        "add element inet t s { 192.0.2.7 timeout xs }",
        "insert rule inet t c drop",
        "insert rule inet t c dnat ip to 10.0.0.1",
        "insert rule inet t c ip saddr . ct state @s accept",
        "insert rule inet t c jump ip saddr map @s",
        "delete rule inet t c",
    ):
        assert raises(ValueError, nft.batch, 1, [line]).startswith(line + ": ")
    for words in ("list ruleset", "list table inet t", "list chain inet t", "flush set inet t s", "list map ipx t s"):
        raises(ValueError, nft.questions, 1, words.split())


class Kernel:
    """A socket whose answers are written down before: for each send a list of what `recv` gives, errors are raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.waiting = []
        self.sent = []
        self.closed = False

    def send(self, data):
        self.sent.append(data)
        self.waiting = list(self.answers.pop(0))

    def recv(self, size):
        answer = self.waiting.pop(0) if self.waiting else OSError(errno.EAGAIN, "nothing there")
        if isinstance(answer, OSError):
            raise answer
        return answer

    def close(self):
        self.closed = True


def told(kernel, *words, text=None):
    carrier = Netlink()
    carrier.socket = kernel
    return at_once(carrier.say(*words, text=text))


def answer(seq, code=0):
    return netlink.message(netlink.ERROR, 0, seq, struct.pack("@i", -code) + bytes(16))


SCRIPT = "add table inet a\nadd table inet b\n"


def test_script_is_one_send_and_only_its_last_line_is_answered():
    kernel = Kernel([answer(3)])
    assert told(kernel, "nft", "-f", "-", text=SCRIPT) == ""
    assert len(kernel.sent) == 1
    flags = [flags for _, flags, _, _ in netlink.messages(kernel.sent[0])]
    assert [bool(flag & netlink.ACK) for flag in flags] == [False, False, True, False]


def test_failure_names_the_line_and_what_it_means():
    for seq, line in ((2, "add table inet a"), (3, "add table inet b"), (1, "transaction")):
        kernel = Kernel([answer(seq, errno.EPERM), answer(3)])
        error = raises(PortError, lambda k: told(k, "nft", "-f", "-", text=SCRIPT), kernel)
        assert line in error and "CAP_NET_ADMIN" in error
    kernel = Kernel([answer(2, 1234)])
    assert "error 1234" in raises(PortError, lambda k: told(k, "nft", "-f", "-", text=SCRIPT), kernel)


def test_transaction_that_another_came_between_is_sent_again():
    kernel = Kernel([answer(3, errno.EAGAIN)], [answer(7)])
    assert told(kernel, "nft", "-f", "-", text=SCRIPT) == ""
    assert len(kernel.sent) == 2


def test_silence_is_no_success():
    kernel = Kernel(*[[]] * 5)
    assert "no answer" in raises(PortError, lambda k: told(k, "nft", "-f", "-", text=SCRIPT), kernel)


def test_list_that_changed_meanwhile_is_asked_for_again():
    chain = b"\1\0\0\0" + netlink.attr(1, b"t\0") + netlink.attr(3, b"c\0")
    part, done = netlink.message(0x0A03, netlink.MULTI | 16, 1, chain), netlink.message(netlink.DONE, 0, 1, bytes(4))
    kernel = Kernel([part, done], [netlink.message(0x0A03, netlink.MULTI, 2, chain), done])
    assert told(kernel, "nft", "list", "chains") == "table inet t {\n\tchain c {\n\t}\n}\n"
    assert len(kernel.sent) == 2
    kernel = Kernel(*[[part, done]] * 5)
    assert "all the time" in raises(PortError, lambda k: told(k, "nft", "list", "chains"), kernel)


def test_socket_that_fails_is_closed():
    kernel = Kernel([OSError(105, "no buffer space")])
    assert "error 105" in raises(PortError, lambda k: told(k, "nft", "list", "chains"), kernel)
    assert kernel.closed
