"""Danger levels: the steps, what lifts them, psad's files, and what bounds the memory."""

from watching import icmp, tcp, temporary, udp

from tinyknop import log, net
from tinyknop.errors import ConfigError
from tinyknop.watch import files, known, outfit, sids
from tinyknop.watch.parse import parse
from tinyknop.watch.score import Limits, Scorer, kinds

A = b"203.0.113.7"
SID = b"[1] SID%d ESTAB "


def score(lines, scorer=None, now=0):
    """Returns the Source of the last line that counts."""
    scorer = scorer or Scorer()
    found = [scorer.score(parse(line, scorer.limits.mark), now) for line in lines]
    return ([None] + [source for source in found if source is not None])[-1]


def level(lines, scorer=None, now=0):
    source = score(lines, scorer, now)
    return source.level if source is not None else 0


def quiet(body):
    """Returns what was logged."""
    lines = []
    kept, log.sink = log.sink, lambda level, text: lines.append(text)
    try:
        body()
    finally:
        log.sink = kept
    return lines


def test_levels_by_packets_to_one_host():
    scorer, seen = Scorer(), []
    for number in range(1, 151):
        seen.append(level([tcp(A, 7000 + number)], scorer))
    assert [seen[n - 1] for n in (4, 5, 14, 15, 149, 150)] == [0, 1, 1, 2, 2, 3]


def test_packets_to_one_port_are_no_scan():
    assert level([tcp(A, 22)] * 1000) == 0
    assert level([tcp(A, 22)] * 4 + [udp(A, 23)]) == 1


def test_levels_by_hosts_swept():
    scorer, seen = Scorer(), []
    for number in range(1, 101):
        seen.append(level([tcp(A, 22, host=b"10.0.0.%d" % number)], scorer))
    assert [seen[n - 1] for n in (9, 10, 19, 20, 49, 50, 99, 100)] == [0, 1, 1, 2, 2, 3, 3, 4]


def test_ten_hosts_make_one_port_a_scan():
    lines = [tcp(A, 22)] * 15
    assert level(lines + [tcp(A, 22, host=b"10.0.0.%d" % number) for number in range(9)]) == 2
    assert level(lines + [tcp(A, 22, host=b"10.0.0.%d" % number) for number in range(8)]) == 0


def test_answers_are_no_scan_unless_they_carry_a_sid():
    assert score([tcp(A, 7000 + number, b"ACK SYN") for number in range(20)]) is None
    assert score([tcp(A, 7000 + number, b"RST") for number in range(20)]) is None
    scorer = Scorer()
    scorer.known = lambda sid: sid == 5
    assert level([tcp(A, 21, b"ACK PSH").replace(b"DROP ", SID % 5)], scorer) == 2
    assert level([tcp(b"203.0.113.8", 21, b"ACK PSH").replace(b"DROP ", SID % 6)], scorer) == 0
    scorer.rule_levels = {6: 4}
    assert level([tcp(b"203.0.113.8", 21, b"ACK PSH").replace(b"DROP ", SID % 6)], scorer) == 4


def test_icmp_that_cannot_be_is_level_2():
    assert level([icmp(A, 8)]) == 0 and level([icmp(A, 8, 1)]) == 2 and level([icmp(A, 99)]) == 2
    six = icmp(A, 128).replace(b"PROTO=ICMP ", b"PROTO=ICMPv6 ")
    assert level([six]) == 0 and level([six.replace(b"TYPE=128", b"TYPE=1").replace(b"CODE=0", b"CODE=7")]) == 2


def test_a_level_falls_only_when_the_scan_times_out():
    scorer = Scorer()
    assert level([tcp(A, 7000 + number) for number in range(15)], scorer, 100) == 2
    assert level([tcp(A, 22)], scorer, 3700) == 2
    assert level([tcp(A, 22)], scorer, 3700 + 3601) == 0


def test_thresholds_of_psad_conf():
    text = (
        b"DANGER_LEVEL1   2;  ### packets\nSCAN_TIMEOUT 10;\n# DANGER_LEVEL2 3;\nSNORT_SID_STR   RULE;\nHOSTNAME _X_;\n"
    )
    text += b"PORT_RANGE_SCAN_THRESHOLD 100;\nIGNORE_CONNTRACK_BUG_PKTS N;\nIGNORE_PORTS udp/53;\nDL1_UNIQUE_HOSTS x;\n"
    limits = []
    told = quiet(lambda: limits.append(Limits(files.conf(temporary(text)))))
    limits = limits[0]
    assert (limits.packets, limits.timeout, limits.mark) == ([2, 15, 150, 1500, 10000], 10, b"RULE")
    assert limits.hosts[0] == 10 and len(told) == 1 and "IGNORE_PORTS" in told[0]
    assert level([tcp(A, 1), tcp(A, 1), tcp(A, 2)], Scorer(limits)) == 0
    assert level([tcp(A, 1, b"ACK"), tcp(A, 200)], Scorer(limits)) == 1


def test_auto_dl_ignores_and_raises():
    text = (
        b"# comment\n10.0.0.0/8 0;\n10.1.0.0/16  4  tcp/1-1024,2000;\n10.1.2.3 1 udp; # one\n2001:db8::/32 5;\nx 1;\n"
    )
    entries = []
    told = quiet(lambda: entries.extend(files.readable(temporary(text), files.auto_dl)))
    assert len(entries) == 4 and len(told) == 1
    scorer = Scorer()
    scorer.take_auto(entries)
    assert score([tcp(b"10.9.9.9", 1)] * 50, scorer) is None
    assert level([tcp(b"10.1.1.1", 80)], scorer) == 4 and level([tcp(b"10.1.1.2", 2000)], scorer) == 4
    assert score([tcp(b"10.1.1.3", 2001)], scorer) is None, "the wider network says 0"
    assert level([udp(b"10.1.2.3", 53)], scorer) == 1
    assert level([tcp(b"2001:db8::1", 80, host=b"2001:db8::2")], scorer) == 5
    assert scorer.ignored(net.packed("10.9.9.9")) and not scorer.ignored(net.packed("192.0.2.1"))


ROUTED = tcp(A, 21).replace(b" PROTO", b" OPT (01830704C0A80001) PROTO")


def one(rule):
    scorer = Scorer()
    scorer.take([files.signature("alert " + rule)])
    return scorer


def test_signatures_look_at_headers():
    for rule, line, wanted in (
        ("tcp any any -> any 21 (flags:S; psad_id:1; psad_dl:3;)", tcp(A, 21), 3),
        ("tcp any any -> any 21 (flags:S; psad_id:1;)", tcp(A, 21), 2),
        ("tcp any any -> any 22 (flags:S; psad_id:1;)", tcp(A, 21), 0),
        ("udp any any -> any 21 (psad_id:1;)", tcp(A, 21), 0),
        ("ip any any -> any any (ttl:64; psad_id:1;)", tcp(A, 21), 2),
        ("ip any any -> any any (ttl:>64; psad_id:1;)", tcp(A, 21), 0),
        ("ip any any -> any any (ttl:<65; id:40995; window:64240; seq:3038265977; psad_id:1;)", tcp(A, 21), 2),
        ("tcp $EXTERNAL_NET 1024: -> $HOME_NET [20,21:30] (flags:S,12; psad_id:1;)", tcp(A, 29), 2),
        ("tcp any !35170 -> any any (psad_id:1;)", tcp(A, 29), 0),
        ("tcp any any -> any !80 (psad_id:1;)", tcp(A, 29), 2),
        ("tcp 203.0.113.0/24 any -> [10.0.0.0/8, 192.168.10.1] any (psad_id:1;)", tcp(A, 29), 2),
        ("tcp !203.0.113.0/24 any -> any any (psad_id:1;)", tcp(A, 29), 0),
        ("tcp any any -> 10.0.0.0/8 any (psad_id:1;)", tcp(A, 29), 0),
        ("udp any any -> any 53 (psad_dsize:>19; psad_id:1;)", udp(A, 53, 48), 2),
        ("udp any any -> any 53 (psad_dsize:>20; psad_id:1;)", udp(A, 53, 48), 0),
        ("udp any any -> any 53 (psad_ip_len:48; psad_id:1;)", udp(A, 53, 48), 2),
        ("icmp any any -> any any (itype:8; icode:0; icmp_id:1; icmp_seq:1; psad_id:1;)", icmp(A, 8), 2),
        ("icmp any any -> any any (itype:8; icode:>0; psad_id:1;)", icmp(A, 8), 0),
        ("icmp any any -> any any (itype:8; dsize:>59; psad_id:1;)", icmp(A, 8), 2),
        ("tcp any any -> any any (flags:0; psad_id:1;)", tcp(A, 21, b""), 0),
        ("tcp any any -> any any (flags:none; psad_id:1;)", tcp(A, 21, b""), 2),
        ("ip any any -> any any (sameip; psad_id:1;)", tcp(A, 21, host=A), 2),
        ("ip any any -> any any (sameip; psad_id:1;)", tcp(A, 21), 0),
        ("ip any any -> any any (ipopts:lsrr ; psad_id:1;)", ROUTED, 2),
        ("ip any any -> any any (ipopts:rr; psad_id:1;)", ROUTED, 0),
    ):  # fmt: skip
        assert level([line], one(rule)) == wanted, rule


def test_signatures_that_cannot_be_decided_are_told_and_left_out():
    rules = b"""# comment
alert tcp any any -> any 80 (content:"x"; psad_id:1;)
alert tcp any any -> any 80 (flags:X; psad_id:1;)
alert tcp any any -> any
alert tcp any any -> any eighty (psad_id:1;)
alert ip any any -> any any (ipopts:nothing; psad_id:1;)
alert tcp any any -> any 80 (msg:"a; b"; reference:url,x\\;y; psad_id:7; psad_dl:1;);
"""
    found = []
    told = quiet(lambda: found.extend(files.readable(temporary(rules), files.signature)))
    assert [(rule.sid, rule.message, rule.level) for rule in found] == [(7, "a; b", 1)]
    assert len(told) == 5 and ":2: left out" in told[0]


def test_our_own_signatures_are_all_understood():
    texts = [text for text in known.SIGNATURES.split("\n") if text]
    assert len(set([files.signature(text).sid for text in texts])) == len(texts)
    scorer, _ = outfit.scorer({})
    assert level([tcp(A, 7000, b"FIN PSH URG")], scorer) == 2
    assert level([tcp(b"203.0.113.8", 7000, b"")], scorer) == 2


def test_icmp_types_of_psad():
    text = b"# x\n0   Echo Reply\n    0\n\n1   Unassigned\n\n9   Router\n    0   Normal\n    16  Other\n"
    text += b" 137  Redirect\n     0\n"
    assert files.icmp_types(temporary(text)) == {(0, 0), (9, 0), (9, 16), (137, 0)}


def test_ip_options_that_never_end_end():
    assert kinds(b"\x01\x83\x03\x00\x07\x00\x44") == [1, 0x83, 7]
    assert kinds(b"\x83\x03\x00\x07\x00\x44") == [0x83, 7]
    assert kinds(b"\x83") == [0x83]


def test_the_sources_seen_least_recently_are_forgotten_first():
    scorer = Scorer(pairs=40)
    for _ in range(5):
        level([tcp(A, 80)], scorer)
    for number in range(200):
        level([tcp(b"10.0.%d.1" % number, 80)], scorer)
        assert score([tcp(A, 80)], scorer).packets == 6 + number, "one that goes on is remembered"
    assert len(scorer.sources()) <= 42 and scorer.forgotten > 100


def test_one_source_cannot_take_all_the_memory():
    limits = Limits({"DL5_UNIQUE_HOSTS": "30", "DL4_UNIQUE_HOSTS": "25"})
    scorer = Scorer(limits)
    for number in range(100):
        source = score([tcp(A, 80 + number, host=b"10.0.%d.1" % number)], scorer)
    assert len(source.hosts) == 100 and source.level == 4 or len(source.hosts) <= 100
    rules = [files.signature("alert tcp any any -> any %d (psad_id:%d;)" % (port, port)) for port in range(1, 100)]
    scorer.take(rules)
    for port in range(1, 100):
        source = score([tcp(A, port)], scorer)
    assert len(source.sids) == 32


RULES = b"""# alert tcp any any -> any 1 (msg:"off"; sid:1;)
alert tcp $EXTERNAL_NET any -> $HOME_NET 21 (msg:"a \\"quoted\\"; name"; content:"a;b|0d 0a|"; nocase; content:!"c"; \
classtype:trojan-activity; reference:url,example.net/a; reference:cve,2026-1; sid:2000500; rev:5; priority:2; \
metadata:created_at 2010_07_30, updated_at 2019_08_01;)
alert tcp any any -> any 1 (msg:"no number";)
"""


def test_rules_are_described_from_their_files():
    found = sids.Sids([temporary(RULES, ".rules")])
    rule = found.find(2000500)
    assert rule["msg"] == 'a "quoted"; name' and rule["content"] == ["a;b|0d 0a|", '!"c"']
    assert rule["reference"] == ["url,example.net/a", "cve,2026-1"]
    assert (rule["classtype"], rule["rev"], rule["priority"]) == ("trojan-activity", "5", "2")
    assert rule["metadata"] == {"created_at": "2010_07_30", "updated_at": "2019_08_01"}
    assert found.find(1) is None and found.find(2) is None and found(2000500)


def test_rules_are_described_from_the_side_file_of_rules():
    text = b'{"7": {"msg": "m", "metadata": {"created_at": "2010_07_30"}, "reference": ["url,x"], "rev": 3}}'
    found = sids.Sids([temporary(text, ".json")])
    assert found.find(7)["msg"] == "m" and found.find(7)["rev"] == "3" and found.find(7)["content"] == []
    for broken in (b"{", b"[]", b'{"x": {}}', b'{"1": 2}', b'{"1": {"metadata": []}}', b"\xff"):
        told = quiet(lambda broken=broken: sids.Sids([temporary(broken, ".json")]))
        assert len(told) == (0 if broken == b'{"1": {"metadata": []}}' else 1), broken


def test_files_that_are_not_there_are_named():
    for options in (
        {"signatures": "/nothere/s"},
        {"rules": "/nothere/r"},
        {"psad": "/nothere"},
        {"auto_dl": "/nothere"},
    ):
        try:
            outfit.scorer(options)
            raise AssertionError(options)
        except ConfigError as error:
            assert "/nothere" in str(error)
