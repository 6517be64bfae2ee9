"""The port that drops: what it says, and that the kernel is told the same."""

from tinyknop.ports.block import TABLE

from tinyknop import nft, ports
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant
from tinyknop.loop import Loop


class Tape:
    """Writes down scripts."""

    outlives_us = False

    def __init__(self, chains=""):
        self.scripts, self.chains = [], chains

    def describe(self):
        return "tape"

    async def say(self, *words, text=None):
        if words == ("nft", "list", "chains"):
            return self.chains
        assert words == ("nft", "-f", "-")
        self.scripts.append(text.split("\n")[:-1])
        nft.batch(1, self.scripts[-1])  # what the netlink carrier makes of it
        return ""


def port(tape, **options):
    table = {"kind": "block", "via": "tape"}
    table.update(options)
    return ports.make("blocks", table, {"tape": tape})


def block(source, number=1, stanza="watch"):
    return Grant(number, source, (("tcp", 1),), 100, 160, stanza, None, "0.0.0.0", source)


def said(work):
    """Runs a port's coroutine; returns the scripts it said."""
    tape = Tape()
    Loop().run_until(work(port(tape)))
    return tape.scripts


def test_a_block_is_an_element_with_a_time():
    v4 = "element inet tinyknop_block blocked4 { 203.0.113.7"
    assert said(lambda one: one.open(block("203.0.113.7"), 60)) == [
        ["add %s timeout 1s }" % v4, "delete %s }" % v4, "add %s timeout 60s }" % v4]
    ]
    v6 = "element inet tinyknop_block blocked6 { 2001:db8::7"
    assert said(lambda one: one.close(block("203.0.113.7"), block("2001:0db8::7"))) == [
        ["add %s timeout 1s }" % v4, "delete %s }" % v4, "add %s timeout 1s }" % v6, "delete %s }" % v6]
    ]


def test_a_comparison_makes_the_table_anew_with_what_is_live():
    live = [(block("203.0.113.7"), 60), (block("203.0.113.7", 2), 90), (block("2001:db8::7", 3), 0)]
    scripts = said(lambda one: one.sync(live))
    table = TABLE.format(t="tinyknop_block", n="65536").split("\n")[:-1]
    assert len(scripts) == 1 and scripts[0][: len(table)] == table
    assert sorted(scripts[0][len(table) :]) == [
        "add element inet tinyknop_block blocked4 { 203.0.113.7 timeout 90s }",
        "add element inet tinyknop_block blocked6 { 2001:db8::7 timeout 1s }",
    ]


def test_many_blocks_take_several_transactions():
    live = [(block("10.0.%d.%d" % (number >> 8, number & 255), number), 60) for number in range(250)]
    scripts = said(lambda one: one.sync(live))
    assert [len(script) for script in scripts] == [108, 100, 50]
    assert [len(script) for script in said(lambda one: one.close(*[grant for grant, _ in live]))] == [200, 200, 100]


def test_the_end_takes_the_table_away():
    assert said(lambda one: one.stop(True)) == [["add table inet tinyknop_block", "delete table inet tinyknop_block"]]
    assert said(lambda one: one.stop()) == []


def test_table_that_is_the_owners_is_refused_since_it_would_be_deleted():
    listing = "table inet filter {\n\tchain %s {\n\t\ttype filter hook %s priority %s; policy accept;\n\t}\n}\n"
    tape = Tape(listing % ("input", "input", "filter"))
    try:
        Loop().run_until(port(tape, table="filter").start())
        raise AssertionError("it was taken")
    except PortError as error:
        assert "(input)" in error.reason
    for number in ("raw - 10", "-310"):  # nft's words, and ours
        Loop().run_until(port(Tape(listing % ("blocked", "prerouting", number)), table="filter").start())


def test_only_the_log_watch_may_use_it():
    one = port(Tape())
    one.check(block("203.0.113.7"))
    try:
        one.check(block("203.0.113.7", stanza="alice"))
        raise AssertionError("a stanza that blocks its users")
    except PortError as error:
        assert "this port blocks" in str(error)


def test_wrong_options_are_refused():
    for name, value in (("table", "a b"), ("table", ""), ("maxelem", "0"), ("maxelem", "x")):
        try:
            port(Tape(), **{name: value})
            raise AssertionError(value)
        except ConfigError as error:
            assert "blocks" in str(error)


def test_drop_differs_from_accept_in_the_verdict_alone():
    rule = 'insert rule inet t c ip saddr @s %s comment "x"'
    drop, accept = [nft.command(1, rule % verdict, "<")[3] for verdict in ("drop", "accept")]
    assert len(drop) == len(accept)
    assert [(a, b) for a, b in zip(drop, accept) if a != b] == [(0, 1)]
