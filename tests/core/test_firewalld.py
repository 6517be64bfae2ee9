"""What the firewalld port says to a stand-in that answers as firewall-cmd 1.3.3 does; the real one is in tests/real."""

from driving import drive, raised
from tinyknop.ports import make
from tinyknop.ports.firewalld import PRIORITIES

from tinyknop.compat import wall
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant, Nat

NOW = wall()
LATER = NOW + 3600
OWNERS = 'rule family="ipv4" source address="203.0.113.9" accept'
INPUT = "-s 192.0.2.7/32 -p tcp -m tcp --dport 22 "


class FirewallCmd:
    """Stands in for firewall-cmd: rich rules of one zone with their time-outs, and iptables behind --passthrough."""

    outlives_us = False

    def __init__(self):
        self.rich = [OWNERS]
        self.timeouts = {}
        self.lines = {}  # table -> lines of `iptables -S`
        self.said = []
        self.failing = None  # a part of the commands that fail

    async def say(self, *words):
        self.said.append(" ".join(words[1:]))
        if self.failing and self.failing in self.said[-1]:
            raise PortError("local", "firewall-cmd: FirewallD is not running")
        words = [word for word in words[1:] if not word.startswith("--zone=")]
        if words[:2] == ["--direct", "--passthrough"]:
            return self.passed(words[2], words[3:])
        if words == ["--list-rich-rules"]:
            return "".join([rule + "\n" for rule in self.rich])
        notes = ""
        timeout = [word[10:] for word in words if word.startswith("--timeout=")]
        for word in words[: len(words) - len(timeout)]:
            verb, _, rule = word.partition("=")
            if verb == "--add-rich-rule" and rule in self.rich:
                notes += "Warning: ALREADY_ENABLED: '%s' already in 'public'\n" % rule
            elif verb == "--add-rich-rule":
                self.rich.append(rule)
                self.timeouts[rule] = timeout[0]
            elif rule in self.rich:
                self.rich.remove(rule)
            else:
                assert verb == "--remove-rich-rule", word
                notes += "Warning: NOT_ENABLED: '%s' not in 'public'\n" % rule
        return notes + "success\n"

    def passed(self, family, words):
        if family == "ipv6":
            raise PortError("local", "firewall-cmd: Error: COMMAND_FAILED: no ip6tables")
        assert words[0] == "-t", words
        lines, words = self.lines.setdefault(words[1], []), words[2:]
        rule = "-A " + " ".join(words[1:])
        if words[0] == "-S":
            known = len(words) == 1 or "-N " + words[1] in lines
            return "-P INPUT ACCEPT\n" + "\n".join(lines) + "\n\nsuccess\n" if known else "COMMAND_FAILED: no chain\n"
        if words[0] == "-I":
            lines.append(rule.replace(" 1 -j", " -j"))
        elif words[0] in ("-A", "-N"):
            lines.append(rule if words[0] == "-A" else "-N " + words[1])
        elif words[0] in ("-D", "-C") and rule not in lines:
            return "COMMAND_FAILED: '/usr/sbin/iptables -w10' failed: iptables: Bad rule\n"
        elif words[0] == "-D":
            lines.remove(rule)
        return "success\n"

    def describe(self):
        return "cmd"

    def news(self):
        said, self.said = self.said, []
        return said

    def ours(self):
        return [rule for rule in self.rich if rule != OWNERS]


def grant(id=1, source="192.0.2.7", openings=(("tcp", 22),), until=LATER, nat=None, destination="198.51.100.1"):
    return Grant(id, source, openings, NOW, until, "alice", nat, destination, source)


def started(**options):
    cmd = FirewallCmd()
    table = {"kind": "firewalld", "via": "cmd"}
    table.update(options)
    port = make("fw", table, {"cmd": cmd})
    drive(port.start())
    cmd.news()
    return port, cmd


def rich(twin=0, source="192.0.2.7", proto="tcp", port=22, to=""):
    to = 'destination address="%s" ' % to if to else ""
    text = 'rule priority="%d" family="%s" source address="%s" %sport port="%d" protocol="%s" accept'
    return text % (PRIORITIES[twin], "ipv6" if ":" in source else "ipv4", source, to, port, proto)


def test_start_asks_for_the_zone_and_says_how_to_start_firewalld():
    cmd = FirewallCmd()
    port = make("fw", {"kind": "firewalld", "via": "cmd", "zone": "dmz"}, {"cmd": cmd})
    drive(port.start())
    assert cmd.said == ["--zone=dmz --list-rich-rules"]
    cmd.failing = "--list"
    assert "systemctl start firewalld" in raised(port.start())


def test_what_cannot_be_meant_is_refused():
    for options, word in (
        ({"mode": "lockdown"}, "mode"),
        ({"prepend": "Y"}, "prepend"),
        ({"chain": "ACCEPT, filter, INPUT, 1, OTHER, 1"}, "chain"),
        ({"destination": "yes"}, "destination"),
        ({"mode": "direct", "zone": "dmz"}, "zone"),
        ({"mode": "direct", "chain": "ACCEPT"}, "six fields"),
    ):
        table = {"kind": "firewalld", "via": "cmd", "where": "t.toml:7"}
        table.update(options)
        try:
            make("fw", table, {"cmd": FirewallCmd()})
            raise AssertionError("%s is not refused" % options)
        except ConfigError as error:
            assert error.stage == "t.toml:7" and word in error.reason, error.reason


def test_a_grant_is_one_call_and_firewalld_is_given_its_time():
    port, cmd = started(zone="dmz")
    drive(port.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    both = [rich(), rich(proto="udp", port=53)]
    assert cmd.news() == ["--zone=dmz --add-rich-rule=%s --add-rich-rule=%s --timeout=30s" % tuple(both)]
    drive(port.close(grant(openings=(("tcp", 22), ("udp", 53)))))
    assert cmd.news() == ["--zone=dmz --remove-rich-rule=%s --remove-rich-rule=%s" % tuple(both)]
    assert cmd.rich == [OWNERS]
    assert port.self_timed and not port.nats


def test_ipv6_and_destination():
    port, cmd = started(destination="Y")
    drive(port.open(grant(1, source="2001:DB8::7", destination="2001:db8:0::1"), 30))
    drive(port.open(grant(2), 30))
    drive(port.open(grant(3, source="2001:db8::8"), 30))  # to an IPv4 address: a rule that matches nothing
    wanted = [
        rich(source="2001:db8::7", to="2001:db8::1"),
        rich(to="198.51.100.1"),
        rich(source="2001:db8::8", to="::"),
    ]
    assert cmd.ours() == wanted and port.by_destination


def test_opening_longer_adds_a_twin_before_the_elder_goes():
    port, cmd = started()
    drive(port.open(grant(), 30))
    cmd.news()
    drive(port.open(grant(), 30))
    assert cmd.news() == []
    drive(port.open(grant(until=LATER + 60), 90))
    assert cmd.news() == ["--add-rich-rule=%s --timeout=90s" % rich(1), "--remove-rich-rule=" + rich()]
    drive(port.open(grant(until=LATER + 120), 150))
    assert cmd.ours() == [rich()] and cmd.timeouts[rich()] == "150s"
    drive(port.close(grant()))
    assert cmd.ours() == []


def test_a_rule_that_is_there_already_is_a_failure_that_sync_mends():
    port, cmd = started()
    cmd.rich.append(rich())  # its time-out would hold, not ours
    assert "ALREADY_ENABLED" in raised(port.open(grant(), 30))
    drive(port.sync([(grant(), 30)]))
    assert cmd.ours() == [rich(1)] and cmd.timeouts[rich(1)] == "30s"


def test_sync_puts_back_what_a_reload_dropped_and_leaves_the_rest_alone():
    port, cmd = started()
    live = [(grant(1), 30), (grant(2, "192.0.2.8"), 60)]
    for one, seconds in live:
        drive(port.open(one, seconds))
    cmd.news()
    drive(port.sync(live))
    assert cmd.news() == ["--list-rich-rules"]
    cmd.rich = [OWNERS, rich()]
    drive(port.sync(live))
    assert cmd.news()[1:] == ["--add-rich-rule=%s --timeout=60s" % rich(source="192.0.2.8")]
    cmd.rich = [OWNERS]
    drive(port.sync(live[:1]))
    assert cmd.rich == [OWNERS, rich()]


def test_sync_removes_what_no_grant_explains_and_renews_what_an_earlier_process_left():
    port, cmd = started()
    cmd.rich += [rich(), rich(1), rich(1, "192.0.2.8"), rich(source="192.0.2.9")]
    drive(port.sync([(grant(1), 30), (grant(2, "192.0.2.8"), 40)]))
    assert sorted(cmd.ours()) == sorted([rich(1), rich(source="192.0.2.8")]) and cmd.rich[0] == OWNERS
    assert cmd.timeouts == {rich(1): "30s", rich(source="192.0.2.8"): "40s"}
    drive(port.stop(False))
    assert len(cmd.ours()) == 2
    drive(port.stop(True))
    assert cmd.rich == [OWNERS]


def test_a_grant_of_an_earlier_process_is_closed():
    port, cmd = started()
    cmd.rich.append(rich(1))
    drive(port.close(grant()))
    assert cmd.rich == [OWNERS]


def test_what_failed_is_made_good_by_sync():
    port, cmd = started()
    cmd.failing = "--add"
    raised(port.open(grant(), 30))
    cmd.failing = None
    drive(port.sync([(grant(), 30)]))
    assert len(cmd.ours()) == 1
    cmd.failing = "--remove"
    raised(port.close(grant()))
    cmd.failing = None
    drive(port.sync([]))
    assert cmd.ours() == []


def test_many_rules_go_in_several_calls():
    port, cmd = started()
    drive(port.sync([(grant(n, "10.0.%d.%d" % (n // 200, n % 200)), 30) for n in range(250)]))
    assert [line.count("--add") for line in cmd.news()] == [0, 100, 100, 50] and len(cmd.ours()) == 250


def test_rich_rules_refuse_nat():
    port, cmd = started()
    nat = grant(nat=Nat(False, "10.0.0.5", 22, None, False, True))
    assert "direct" in raised(port.open(nat, 30))
    drive(port.sync([(nat, 30)]))
    drive(port.close(nat))
    assert cmd.ours() == []


def test_direct_rules_are_those_of_iptables_passed_through_one_by_one():
    port, cmd = started(mode="direct", ipv6="N")
    filters = cmd.lines["filter"]
    assert [line for line in filters if "FWKNOP" in line] == ["-N FWKNOP_INPUT", "-A INPUT -j FWKNOP_INPUT"]
    drive(port.open(grant(), 30))
    added = [line for line in cmd.news() if " -A FWKNOP_INPUT " in line]
    assert len(added) == 1 and added[0].startswith("--direct --passthrough ipv4 -t filter -A FWKNOP_INPUT " + INPUT)
    assert "_exp_%d -j ACCEPT" % LATER in added[0]
    drive(port.close(grant()))
    assert [line for line in filters if "_exp_" in line] == []
    assert port.nats


def test_a_direct_grant_is_wholly_there_or_not_at_all():
    port, cmd = started(
        mode="direct",
        ipv6="N",
        forward_chain="ACCEPT, filter, FORWARD, 1, FWKNOP_FORWARD, 1",
        dnat_chain="DNAT, nat, PREROUTING, 1, FWKNOP_PREROUTING, 1",
    )
    nat = grant(nat=Nat(False, "10.0.0.5", 8022, None, False, True))
    for failing in ("-A FWKNOP_FORWARD", "-A FWKNOP_PREROUTING"):
        cmd.failing = failing
        raised(port.open(nat, 30))
        assert [line for table in cmd.lines.values() for line in table if "_exp_" in line] == []
    cmd.failing = None
    drive(port.open(nat, 30))
    assert [line.split("-j ")[1] for line in cmd.lines["nat"] if "_exp_" in line] == [
        "DNAT --to-destination 10.0.0.5:8022"
    ]
    assert len([line for line in cmd.lines["filter"] if "_exp_" in line]) == 1


def test_a_direct_chain_that_a_reload_dropped_is_made_again():
    port, cmd = started(mode="direct", ipv6="N")
    drive(port.open(grant(), 30))
    cmd.lines = {}
    drive(port.open(grant(2, "192.0.2.8"), 30))
    assert len([line for line in cmd.lines["filter"] if "_exp_" in line]) == 2
    assert "-A INPUT -j FWKNOP_INPUT" in cmd.lines["filter"]


def test_an_answer_without_success_is_a_failure():
    port, cmd = started(mode="direct", ipv6="N")
    assert "COMMAND_FAILED" in raised(port.carrier.say("iptables", "-w", "-t", "filter", "-C", "NO", "-j", "SUCH"))
