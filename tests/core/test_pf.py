"""What the pf port says to a stand-in that keeps and prints rules as pfctl(8) does. Never run on a real BSD."""

from driving import drive, raised
from tinyknop.ports import make

from tinyknop.compat import wall
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant, Nat

NOW = wall()
LATER = NOW + 3600
NOISE = "No ALTQ support in kernel\nALTQ related functions disabled\n"  # standard error, as a carrier merges it
SERVICES = {"22": "ssh", "53": "domain", "80": "http"}


class Pfctl:
    """Stands in for pfctl: one anchor, whose rules it prints in its own words."""

    outlives_us = False

    def __init__(self, anchors="  fwknop\n  relayd\n"):
        self.anchors = anchors
        self.rules = []  # as loaded
        self.said = []
        self.failing = None  # the start of a command that fails

    async def say(self, *words, text=None):
        line = " ".join(words)
        self.said.append(line)
        if self.failing and line.startswith(self.failing):
            raise PortError("pfctl", "stdin:1: syntax error")
        if line == "pfctl -s Anchor":
            return NOISE + self.anchors
        assert words[:3] == ("pfctl", "-a", "fwknop"), line
        if words[3:] == ("-F", "all"):
            self.rules = []
        elif words[3:] == ("-f", "-"):
            self.rules = [printed(rule) for rule in text.split("\n") if rule]
        else:
            assert words[3:] == ("-s", "rules"), line
            return NOISE + "".join([rule + "\n" for rule in self.rules])
        return NOISE

    def describe(self):
        return "pfctl"

    def news(self):
        said, self.said = self.said, []
        return [line.replace("pfctl -a fwknop ", "") for line in said]


def printed(rule):
    """A rule as `pfctl -s rules` prints it; what it has printed it takes as it is."""
    said = rule.split(" ")
    if "=" in said or "port" not in said:
        return rule
    at = said.index("port")
    said[at + 1] = "= " + SERVICES.get(said[at + 1], said[at + 1])
    said[-1] = '"%s"' % said[-1]
    if "tcp" in said:
        said.insert(said.index("keep"), "flags S/SA")
    if "inet6" not in said:
        said.insert(3, "inet")
    return " ".join(said)


def grant(id=1, source="192.0.2.7", openings=(("tcp", 22),), until=LATER, nat=None, destination="198.51.100.1"):
    return Grant(id, source, openings, NOW, until, "alice", nat, destination, source)


def started(**options):
    pf = Pfctl()
    table = {"kind": "pf", "via": "pf"}
    table.update(options)
    port = make("fw", table, {"pf": pf})
    drive(port.start())
    pf.news()
    return port, pf


def shown(until=LATER, source="192.0.2.7", proto="tcp", port="ssh", to="any"):
    family = "inet6" if ":" in source else "inet"
    flags = "flags S/SA " if proto == "tcp" else ""
    text = 'pass in quick %s proto %s from %s to %s port = %s %skeep state label "_exp_%d"'
    return text % (family, proto, source, to, port, flags, until)


FOREIGN = "pass in quick inet from 203.0.113.9 to any flags S/SA keep state"


def test_start_wants_the_anchor_in_force_and_empties_it_once():
    pf = Pfctl()
    pf.rules = [FOREIGN]
    port = make("fw", {"kind": "pf", "via": "pf"}, {"pf": pf})
    drive(port.start())
    assert pf.said == ["pfctl -s Anchor", "pfctl -a fwknop -F all"]
    pf.news()
    drive(port.start())  # after a failure: what is open stays open
    assert pf.said == ["pfctl -s Anchor"]


def test_without_the_anchor_start_says_what_to_write():
    for anchors in ("", "  fwknop2\n", "  my/fwknop\n"):
        pf = Pfctl(anchors)
        assert 'anchor "fwknop"' in raised(make("fw", {"kind": "pf", "via": "pf"}, {"pf": pf}).start())


def test_a_firewall_behind_a_session_goes_on_without_us_and_our_own_does_not():
    for far in (False, True):
        pf = Pfctl()
        pf.outlives_us = far
        assert make("fw", {"kind": "pf", "via": "pf"}, {"pf": pf}).outlives_us is far


def test_a_name_that_cannot_be_an_anchor_is_refused():
    for options in ({"anchor": ""}, {"anchor": "a b"}, {"anchor": "x" * 64}, {"destination": "yes"}):
        table = {"kind": "pf", "via": "pf", "where": "t.toml:7"}
        table.update(options)
        try:
            make("fw", table, {"pf": Pfctl()})
            raise AssertionError("not refused")
        except ConfigError as error:
            assert error.stage == "t.toml:7" and list(options)[0] in error.reason


def test_open_appends_in_fwknopds_words_and_loads_everything_back():
    port, pf = started()
    texts = []
    say = pf.say

    async def noted(*words, text=None):
        texts.append(text)
        return await say(*words, text=text)

    pf.say = noted
    pf.rules = [FOREIGN]
    drive(port.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    rule = "pass in quick proto %s from 192.0.2.7 to any port %d keep state label _exp_%d\n"
    assert pf.news() == ["-s rules", "-f -"]
    assert texts[-1] == FOREIGN + "\n" + rule % ("tcp", 22, LATER) + rule % ("udp", 53, LATER)
    assert pf.rules == [FOREIGN, shown(), shown(proto="udp", port="domain")]


def test_an_ipv6_source_is_named_so():
    port, pf = started()
    drive(port.open(grant(source="2001:DB8:0::7", openings=(("tcp", 2222),)), 30))
    assert pf.rules == [shown(source="2001:db8::7", port="2222")]


def test_opening_again_loads_nothing_and_opening_longer_replaces():
    port, pf = started()
    drive(port.open(grant(), 30))
    pf.news()
    drive(port.open(grant(), 30))
    assert pf.news() == ["-s rules"]
    drive(port.open(grant(until=LATER + 9), 30))
    assert pf.rules == [shown(LATER + 9)]


def test_close_reloads_the_rest_and_flushes_when_none_is_left():
    port, pf = started()
    drive(port.open(grant(openings=(("tcp", 22), ("tcp", 80))), 30))
    pf.news()
    drive(port.close(grant(openings=(("tcp", 22),))))  # printed as names: found by source and end
    assert pf.news() == ["-s rules", "-f -"] and pf.rules == [shown(port="http")]
    drive(port.close(grant(openings=(("tcp", 80),))))
    assert pf.news() == ["-s rules", "-F all"] and pf.rules == []
    drive(port.close(grant()))
    assert pf.news() == ["-s rules"]


def test_what_others_have_there_stays_until_its_own_time():
    port, pf = started()
    foreign = [FOREIGN, shown(NOW - 1, "10.0.0.1"), shown(LATER, "10.0.0.2"), "block drop in inet from 10.0.0.3 to any"]
    pf.rules = list(foreign)
    drive(port.sync([(grant(), 30)]))
    assert pf.rules == [foreign[0], foreign[2], foreign[3], shown()]
    assert port.next_expiry() == LATER
    pf.rules = [foreign[0], shown(LATER + 5, "10.0.0.4"), shown(NOW, "10.0.0.2"), shown()]
    drive(port.sync([(grant(), 30)]))
    assert pf.rules == [foreign[0], shown(LATER + 5, "10.0.0.4"), shown()]
    assert port.next_expiry() == LATER + 5


def test_a_rule_without_expire_comment_is_no_expiry_and_asks_for_nothing_again():
    # fwknopd before 2.6.11 looked for one for ever, and took what it did not find for an expiry of 0.
    port, pf = started()
    pf.rules = [FOREIGN, 'pass in quick inet from 10.0.0.1 to any keep state label "_exp_soon"', "pass label _exp_"]
    drive(port.sync([]))
    assert pf.news() == ["-s rules"] and port.next_expiry() is None and len(pf.rules) == 3
    pf.rules.append(shown(LATER, "10.0.0.2"))
    drive(port.sync([]))
    assert port.next_expiry() == LATER
    pf.rules.pop()  # somebody took it away before its time
    drive(port.sync([]))
    assert port.next_expiry() is None


def test_sync_puts_back_what_was_removed_and_removes_what_no_grant_explains():
    port, pf = started()
    drive(port.open(grant(1), 30))
    drive(port.open(grant(2, "192.0.2.8"), 30))
    pf.rules = []
    drive(port.sync([(grant(1), 30), (grant(2, "192.0.2.8"), 30)]))
    assert pf.rules == [shown(), shown(source="192.0.2.8")]
    drive(port.sync([(grant(2, "192.0.2.8"), 30)]))
    assert pf.rules == [shown(source="192.0.2.8")]


def test_a_grant_of_an_earlier_process_is_closed():
    port, pf = started()
    pf.rules = [shown()]
    drive(port.close(grant()))
    assert pf.rules == []


def test_a_close_that_failed_is_made_good_by_sync():
    port, pf = started()
    drive(port.open(grant(), 30))
    pf.failing = "pfctl -a fwknop -F"
    assert "syntax" in raised(port.close(grant()))
    pf.failing = None
    drive(port.sync([]))
    assert pf.rules == []


def test_nat_is_refused_and_does_not_stop_a_sync_nor_do_two_families():
    port, pf = started(destination="Y")
    nat = grant(nat=Nat(False, "10.0.0.5", 22, None, False, True))
    mixed = grant(3, source="2001:db8::7")  # the packet went to an IPv4 address: a rule that matches nothing
    assert "NAT" in raised(port.open(nat, 30))
    drive(port.sync([(nat, 30), (mixed, 30), (grant(), 30)]))
    assert pf.rules == [shown(to="198.51.100.1"), shown(source="2001:db8::7", to="::")]
    drive(port.close(nat))
    assert port.by_destination and not port.nats


def test_stop_with_flush_empties_the_anchor():
    port, pf = started()
    drive(port.open(grant(), 30))
    drive(port.stop(False))
    assert pf.rules
    drive(port.stop(True))
    assert pf.rules == [] and pf.news()[-1] == "-F all"


def test_what_can_never_be_opened_is_known_before_it_is_tried():
    port, _ = started()
    nat = grant(nat=Nat(False, "10.0.0.5", 22, None, False, True))
    for one, said in ((grant(), None), (grant(source="2001:db8::7"), None), (nat, "NAT")):
        try:
            reason = port.check(one)
        except PortError as error:
            reason = error.reason
        assert reason is None if said is None else said in reason
