"""What the ipfw port says to a stand-in that keeps and prints rules as ipfw(8) does. Never run on a real BSD."""

from driving import drive, raised
from tinyknop.ports import ipfw, make

from tinyknop.compat import wall
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant, Nat

NOW = wall()
LATER = NOW + 3600


class Ipfw:
    """Stands in for ipfw: rules with number and set, dynamic rules, disabled sets."""

    outlives_us = False

    def __init__(self):
        self.rules = [(65535, 31, "deny ip from any to any")]
        self.dynamic = []  # numbers of the rules that connections live by
        self.disabled = set()
        self.said = []
        self.failing = None  # a part of the commands that fail

    async def say(self, *words):
        line = " ".join(words)
        self.said.append(line[len("ipfw ") :])
        if self.failing and self.failing in line:
            raise PortError("ipfw", "setsockopt(IP_FW_XADD): Invalid argument")
        words = words[1:]
        if words[-2:] == ("-S", "list"):
            return self.listing("-d" in words)
        if words[0] == "add":
            return self.add(words)
        if words[:2] == ("delete", "set"):
            return self.drop([rule for rule in self.rules if rule[1] == int(words[2])])
        if words[0] == "set" and words[2] == "delete":
            return self.drop([rule for rule in self.rules if rule[:2] == (int(words[3]), int(words[1]))])
        if words[:3] == ("set", "move", "rule"):
            assert words[4] == "to" and int(words[3]) in [rule[0] for rule in self.rules], line
            self.rules = [(r[0], int(words[5]), r[2]) if r[0] == int(words[3]) else r for r in self.rules]
            return ""
        assert words[:2] == ("set", "disable"), line
        self.disabled.add(int(words[2]))
        return ""

    def add(self, words):
        assert words[2] == "set", words
        body = " ".join(words[4:]).replace("pass", "allow").replace("keep-state", "keep-state :default")
        at = len([rule for rule in self.rules if rule[0] <= int(words[1])])  # behind others of its number
        self.rules.insert(at, (int(words[1]), int(words[3]), body))
        return "%05d %s\n" % (int(words[1]), body)

    def drop(self, gone):
        if not gone:
            raise PortError("ipfw", "no rules deleted")
        self.rules = [rule for rule in self.rules if rule not in gone]
        return ""

    def listing(self, dynamic):
        text = ""
        for number, where, body in self.rules:
            text += "# DISABLED " if where in self.disabled else ""
            text += "%05d set %d %s\n" % (number, where, body)
        if dynamic and self.dynamic:
            text += "## Dynamic rules (%d 136):\n" % len(self.dynamic)
            for number in self.dynamic:
                text += "%05d 3 180 (20s) STATE tcp 192.0.2.7 40000 <-> 198.51.100.1 22 :default\n" % number
        return text

    def describe(self):
        return "ipfw"

    def news(self):
        said, self.said = self.said, []
        return said

    def held(self, where=1):
        return [(rule[0], rule[2]) for rule in self.rules if rule[1] == where]


def grant(id=1, source="192.0.2.7", openings=(("tcp", 22),), until=LATER, nat=None, destination="198.51.100.1"):
    return Grant(id, source, openings, NOW, until, "alice", nat, destination, source)


def started(**options):
    fw = Ipfw()
    table = {"kind": "ipfw", "via": "fw"}
    table.update(options)
    port = make("fw", table, {"fw": fw})
    drive(port.start())
    fw.news()
    return port, fw


def shown(until=LATER, source="192.0.2.7", proto="tcp", port=22, to="me"):
    setup = "setup " if proto == "tcp" else ""
    text = "allow %s from %s to %s dst-port %d %skeep-state :default // _exp_%d"
    return text % (proto, source, to, port, setup, until)


def later(port):
    """Makes the purge due."""
    port.purge_at -= port.interval


def test_start_empties_the_active_set_if_told_and_disables_the_expire_set():
    fw = Ipfw()
    port = make("fw", {"kind": "ipfw", "via": "fw", "flush_at_init": "Y"}, {"fw": fw})
    drive(port.start())
    assert fw.news() == ["delete set 1", "set disable 2"]
    drive(port.start())  # after a failure: what is open stays open
    assert fw.news() == ["set disable 2"]
    assert started()[1].disabled == {2}


def test_what_cannot_be_meant_is_refused():
    for option, value in (
        ("start_rule", "0"),
        ("start_rule", "65535"),
        ("max_rules", "many"),
        ("active_set", "0"),
        ("expire_set", "31"),
        ("active_set", "2"),
        ("purge_interval", "-1"),
        ("check_state", "y"),
    ):
        try:
            make("fw", {"kind": "ipfw", "via": "fw", "where": "t.toml:7", option: value}, {"fw": Ipfw()})
            raise AssertionError("%s = %s is not refused" % (option, value))
        except ConfigError as error:
            assert error.stage == "t.toml:7" and option in error.reason


def test_all_openings_of_a_request_go_under_the_first_free_number():
    port, fw = started()
    fw.rules = [(10000, 0, "allow ip from any to any via lo0"), (10001, 5, "count ip from any to any")] + fw.rules
    drive(port.open(grant(openings=(("tcp", 22), ("udp", 53))), 30))
    assert fw.news() == [
        "-S list",
        "add 10002 set 1 pass tcp from 192.0.2.7 to me dst-port 22 setup keep-state // _exp_%d" % LATER,
        "add 10002 set 1 pass udp from 192.0.2.7 to me dst-port 53 keep-state // _exp_%d" % LATER,
    ]
    drive(port.open(grant(2, "192.0.2.8"), 30))
    assert fw.held()[-1] == (10003, shown(source="192.0.2.8"))


def test_ipv6_and_destination():
    port, fw = started()
    drive(port.open(grant(source="2001:DB8::7"), 30))
    assert fw.held() == [(10000, shown(source="2001:db8::7", to="me6"))]
    port, fw = started(destination="Y")
    drive(port.open(grant(), 30))
    assert fw.held() == [(10000, shown(to="198.51.100.1"))]
    drive(port.open(grant(2, source="2001:db8::7"), 30))  # the packet went to an IPv4 address: matches nothing
    assert fw.held()[1:] == [(10001, shown(source="2001:db8::7", to="::"))]


def test_opening_again_says_nothing_and_opening_longer_adds_before_it_moves():
    port, fw = started()
    drive(port.open(grant(), 30))
    fw.news()
    drive(port.open(grant(), 30))
    assert fw.news() == ["-S list"]
    drive(port.open(grant(until=LATER + 9), 30))
    assert [line.split(" //")[0][:12] for line in fw.news()] == ["-S list", "add 10001 se", "set move rul"]
    assert fw.held() == [(10001, shown(LATER + 9))] and fw.held(2) == [(10000, shown())]


def test_close_moves_to_the_expire_set_and_keeps_what_is_still_wanted():
    port, fw = started()
    drive(port.open(grant(openings=(("tcp", 22), ("tcp", 80))), 30))
    drive(port.close(grant(openings=(("tcp", 80),))))
    assert fw.held() == [(10001, shown())] and [number for number, _ in fw.held(2)] == [10000, 10000]
    fw.news()
    drive(port.close(grant()))
    drive(port.close(grant()))
    assert fw.news() == ["-S list", "set move rule 10001 to 2", "-S list"] and fw.held() == []


def test_the_expire_set_is_purged_of_what_has_no_dynamic_rule():
    port, fw = started()
    drive(port.open(grant(1), 30))
    drive(port.open(grant(2, "192.0.2.8"), 30))
    fw.dynamic = [10000]
    drive(port.sync([]))
    fw.news()
    drive(port.sync([]))
    assert fw.news() == ["-S list"] and wall() <= port.next_expiry() <= wall() + 31
    later(port)
    drive(port.sync([]))
    assert fw.news() == ["-S list", "-d -S list", "set 2 delete 10001"]
    fw.dynamic = []  # the connection ended
    later(port)
    drive(port.sync([]))
    assert fw.held(2) == []
    drive(port.sync([]))
    assert port.next_expiry() is None


def test_a_purge_that_fails_stops_no_opening():
    port, fw = started()
    fw.rules.insert(0, (10000, 2, shown(NOW - 9)))
    drive(port.sync([]))
    later(port)
    fw.failing = "ipfw -d"
    drive(port.open(grant(), 30))
    assert fw.held() == [(10001, shown())]


def test_where_no_number_is_free_the_request_is_rejected_but_closes_go_on():
    port, fw = started(max_rules="2")
    drive(port.open(grant(1), 30))
    drive(port.open(grant(2, "192.0.2.8"), 30))
    third = grant(3, "192.0.2.9")
    assert raised(port.open(third, 30)) == ipfw.FULL
    assert raised(port.sync([(grant(1), 30), (third, 30)])) == ipfw.FULL
    assert fw.held() == [(10000, shown())]
    drive(port.sync([(grant(1), 30), (third, 30)]))  # purges before its time
    assert fw.held()[-1] == (10001, shown(source="192.0.2.9"))


def test_check_state_takes_the_first_number():
    port, fw = started(check_state="Y")
    drive(port.sync([]))
    assert fw.news() == ["-S list", "add 10000 set 1 check-state"]
    drive(port.open(grant(), 30))
    assert fw.held() == [(10000, "check-state"), (10001, shown())]
    drive(port.sync([]))
    assert fw.held() == [(10000, "check-state")]


def test_rules_of_others_stay_until_their_own_time():
    port, fw = started()
    plain = (300, 1, "allow ip from 203.0.113.9 to me")
    fw.rules = [plain, (10000, 1, shown(NOW, "10.0.0.1")), (10001, 1, shown(LATER, "10.0.0.2"))] + fw.rules
    drive(port.sync([(grant(), 30)]))
    assert fw.held() == [(300, plain[2]), (10001, shown(source="10.0.0.2")), (10002, shown())]
    assert fw.held(2) == [(10000, shown(NOW, "10.0.0.1"))]
    assert port.foreign == LATER


def test_a_rule_without_expire_comment_is_no_expiry_and_asks_for_nothing_again():
    # fwknopd before 2.6.11 looked for one for ever, and took what it did not find for an expiry of 0.
    port, fw = started()
    odd = [(10000, 1, "allow tcp from 10.0.0.1 to me // _exp_soon"), (10001, 1, "allow tcp from 10.0.0.2 to me")]
    fw.rules = odd + fw.rules
    drive(port.sync([]))
    assert fw.news() == ["-S list"] and port.next_expiry() is None and len(fw.held()) == 2
    fw.rules.append((10002, 1, shown(LATER, "10.0.0.3")))
    drive(port.sync([]))
    assert port.next_expiry() == LATER
    fw.rules.pop()  # somebody took it away before its time
    drive(port.sync([]))
    assert port.next_expiry() is None


def test_sync_puts_back_what_was_removed_and_removes_what_no_grant_explains():
    port, fw = started()
    both = [(grant(1), 30), (grant(2, "192.0.2.8", (("tcp", 22), ("udp", 53))), 30)]
    for one, _ in both:
        drive(port.open(one, 30))
    fw.rules = [rule for rule in fw.rules if "dst-port 53" not in rule[2] and rule[0] != 10000]
    drive(port.sync(both))
    held = [(10000, shown()), (10002, shown(source="192.0.2.8"))]
    assert fw.held() == held + [(10002, shown(source="192.0.2.8", proto="udp", port=53))]
    drive(port.sync(both[:1]))
    assert fw.held() == held[:1]


def test_another_process_takes_over_what_is_there():
    port, fw = started()
    drive(port.open(grant(), 30))
    again = make("fw", {"kind": "ipfw", "via": "fw"}, {"fw": fw})
    drive(again.start())
    fw.news()
    drive(again.sync([(grant(), 30)]))
    assert fw.news() == ["-S list"]
    third = make("fw", {"kind": "ipfw", "via": "fw"}, {"fw": fw})
    drive(third.close(grant()))
    assert fw.held() == []


def test_a_failure_is_raised_after_all_was_tried_and_made_good_by_sync():
    port, fw = started()
    drive(port.open(grant(1), 30))
    fw.failing = "dst-port 80"
    live = [(grant(2, openings=(("tcp", 80), ("tcp", 443)), until=LATER + 1), 30)]
    assert "Invalid" in raised(port.sync(live))
    assert fw.held() == [(10001, shown(LATER + 1, port=443))]
    fw.failing = None
    drive(port.sync(live))
    assert fw.held() == [(10002, shown(LATER + 1, port=80)), (10002, shown(LATER + 1, port=443))]


def test_nat_is_refused_and_does_not_stop_a_sync():
    port, fw = started()
    nat = grant(nat=Nat(False, "10.0.0.5", 22, None, False, True))
    assert "NAT" in raised(port.open(nat, 30)) and not port.nats
    drive(port.sync([(nat, 30), (grant(2), 30)]))
    drive(port.close(nat))
    assert fw.held() == [(10000, shown())]


def test_stop_with_flush_deletes_the_active_set_only():
    port, fw = started()
    drive(port.open(grant(1), 30))
    drive(port.open(grant(2, "192.0.2.8"), 30))
    drive(port.close(grant(1)))
    drive(port.stop(False))
    assert fw.held()
    drive(port.stop(True))
    assert fw.held() == [] and len(fw.held(2)) == 1
    drive(port.stop(True))  # an empty set is no failure
    port, fw = started(flush_at_exit="N")
    fw.news()
    drive(port.stop(True))
    assert fw.news() == []


def test_what_can_never_be_opened_is_known_before_it_is_tried():
    port, _ = started()
    nat = grant(nat=Nat(False, "10.0.0.5", 22, None, False, True))
    for one, said in ((grant(), None), (grant(source="2001:db8::7"), None), (nat, "NAT")):
        try:
            reason = port.check(one)
        except PortError as error:
            reason = error.reason
        assert reason is None if said is None else said in reason
