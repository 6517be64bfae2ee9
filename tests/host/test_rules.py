"""`tinyknop rules` by its words: what a rule file may say, and that none says more than a rule in our chains."""

import ast
import json
import re
import shlex
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.real import rulefile
from tinyknop.errors import ConfigError
from tinyknop.host import rules, snort, translate, u32
from tinyknop.host.contents import contents
from tinyknop.host.literals import literals


def made(text, *words, six=False):
    """Returns (lines of our chains, reasons of what was skipped, the Ruleset)."""
    ruleset = rules.Ruleset(rules.parsed(["-6" if six else "-4", *words, "FILE"]))
    ruleset.read("FILE", text)
    ruleset.translate(six)
    return ruleset.chains(six), ruleset.skipped + ruleset.reasons[six], ruleset


def one(text, *words, six=False):
    """Returns the one line that a bare rule becomes, or the reason of its skip."""
    lines, skipped, _ = made(rulefile.numbered([text], 1), *words, six=six)
    found = [line for line in lines if "SID1 " in line]
    assert len(found) + len(skipped) == 1, (found, skipped)
    return found[0] if found else skipped[0].reason


def strings(text, *words, **how):
    """Returns the string matches of a rule: [(negated, bytes, ignoring case, from, to), ...]."""
    said = re.findall(
        r"-m string (! )?--hex-string \|(\w+)\| --algo bm( --icase)?(?: --from (\d+))?(?: --to (\d+))?",
        one(text, *words, **how),
    )
    return [(bool(n), bytes.fromhex(h), bool(i), int(f), int(t) if t else None) for n, h, i, f, t in said]


def test_prefix_limit_comment_and_chain_are_those_of_the_table():
    text = 'alert tcp any any -> any 21 (msg:"hello"; flow:to_server,established; content:"abcd"; sid:2000500; rev:3;)'
    lines, _, _ = made(text)
    line = lines[-1]
    assert line.startswith("-A TINYKNOP_RULES_ESTAB -p tcp --dport 21 -m conntrack --ctdir ORIGINAL -m string ")
    assert "-m limit --limit 10/minute --limit-burst 5 " in line
    assert '-m comment --comment "sid:2000500; msg:hello; rev:3;" ' in line
    assert line.endswith('-j LOG --log-ip-options --log-tcp-options --log-prefix "[1] SID2000500 ESTAB "')
    assert lines[2] == "-A TINYKNOP_RULES -m conntrack --ctstate ESTABLISHED -j TINYKNOP_RULES_ESTAB"


def test_jumps_look_at_the_first_packets_and_at_what_has_no_connection():
    _, _, ruleset = made("")
    jumps = dict.fromkeys(hook for hook, _ in ruleset.jumps())
    assert list(jumps) == ["INPUT", "FORWARD"]
    texts = [text for hook, text in ruleset.jumps() if hook == "INPUT"]
    assert any("--connbytes 0:16 --connbytes-mode packets --connbytes-dir both" in text for text in texts)
    assert any("--ctstate INVALID,UNTRACKED" in text for text in texts)
    _, _, ruleset = made("", "--first-packets", "0")
    assert [text for _, text in ruleset.jumps()] == ["! -i lo -j TINYKNOP_RULES"] * 2


def test_all_packets_are_warned_of_and_some_are_not(capsys):
    for words, warned in (((), False), (("--first-packets", "0"), True)):
        _, _, ruleset = made(rulefile.numbered(rulefile.RULES, 1), *words)
        rules.report(ruleset, (False,))
        assert ("warning: --first-packets 0" in capsys.readouterr().err) == warned


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ('content:"abcd";', [(b"abcd", 28, None)]),
        ('content:"abcd"; offset:3;', [(b"abcd", 31, None)]),
        ('content:"abcd"; offset:3; depth:20;', [(b"abcd", 31, 68 + 23)]),
        ('content:"abcd"; depth:8; content:"efg"; distance:2; within:9;', [(b"abcd", 28, 76), (b"efg", 34, 68 + 19)]),
        ('content:"abcd"; content:"efg"; distance:2; within:9;', [(b"abcd", 28, None), (b"efg", 34, None)]),
        ('content:"abcd"; content:"efg"; distance:-9;', [(b"abcd", 28, None), (b"efg", 28, None)]),
        ('content:"abcd"; offset:4; depth:9; http_uri;', [(b"abcd", 32, None)]),
        ('content:"ab|20 0d|\\"c";', [(b'ab \r"c', 28, None)]),
        ('uricontent:"/x.cgi";', [(b"/x.cgi", 28, None)]),
        ('pcre:"/abc.*defg/";', [(b"defg", 28, None), (b"abc", 28, None)]),
        ('content:"ab"; content:"longer"; content:"first"; fast_pattern;',
         [(b"first", 28, None), (b"longer", 28, None), (b"ab", 28, None)]),
    ],
)  # fmt: skip
def test_windows_are_never_smaller_than_the_rule(options, wanted):
    assert [(data, low, high) for _, data, _, low, high in strings("udp any any -> any 9 " + options)] == wanted


def test_window_of_what_must_not_be_there_ends():
    negated = strings('udp any any -> any 9 content:"abcd"; content:!"|0a|"; distance:0; within:50;')[-1]
    assert negated == (True, b"\n", False, 32, 68 + 54)


def test_long_text_is_looked_for_by_its_beginning_and_never_so_where_it_must_not_be():
    found = strings('udp any any -> any 9 content:"%s"; nocase;' % ("x" * 300))
    assert found == [(False, b"x" * 127, True, 28, None)]
    assert "must not be there" in one('udp any any -> any 9 content:!"%s";' % ("x" * 300))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tcp any any -> any 80", "-p tcp --dport 80 "),
        ("tcp any 1024: -> any :80", "-p tcp --sport 1024:65535 --dport 0:80 "),
        ("tcp any any -> any !80", "-p tcp -m multiport ! --dports 80 "),
        ("tcp any any -> any [80,90:99,!95]", "-m multiport --dports 80,90:99 -m multiport ! --dports 95 "),
        ("tcp any any -> any $HTTP_PORTS", "--dport 80 "),
        ("tcp any any -> any $SHELLCODE_PORTS", "-m multiport ! --dports 80 "),
        ("tcp 10.0.0.0/8 any -> !192.0.2.1 any", "-p tcp -s 10.0.0.0/8 ! -d 192.0.2.1/32 "),
        ("tcp ![10.0.0.0/8,192.0.2.1] any -> any any", "12=0x0:0x9ffffff,0xb000000:0xc0000200,0xc0000202:0xffffffff "),
        ("tcp $HOME_NET any -> $SMTP_SERVERS 25", "-p tcp --dport 25 "),
        ("icmp any any -> any any", "-p icmp "),
    ],
)
def test_ends(line, words):
    assert words in one(line + " ttl:5;")


def test_lists_become_as_many_lines_as_it_takes():
    ports = ",".join(str(port) for port in range(100, 140))
    lines, _, _ = made(rulefile.numbered(["tcp [10.0.0.1,10.0.0.2] any <> any [%s] ttl:5;" % ports], 1))
    assert len([line for line in lines if "SID1 " in line]) == 2 * 3 * 2
    assert "iptables rules" in one("tcp [%s] any -> any [%s] ttl:5;" % (
        ",".join("10.0.1.%d" % number for number in range(99)), ports))  # fmt: skip


def test_variables_of_a_file_and_of_the_command_line():
    text = "ipvar HOME_NET [10.1.0.0/16]\nportvar MY_PORTS 81\n" + rulefile.numbered(
        ["tcp any any -> $HOME_NET $MY_PORTS ttl:5;"], 1
    )
    assert "-d 10.1.0.0/16 --dport 81 " in "".join(made(text)[0])
    assert "-d 10.1.0.0/16 --dport 82 " in "".join(made(text, "--var", "MY_PORTS=82")[0])
    assert "ring" in made("var A_NET $B_NET\nvar B_NET $A_NET\n" + rulefile.numbered(
        ["tcp any any -> $A_NET any ttl:5;"], 1))[1][0].reason  # fmt: skip


def test_pass_rules_come_first_and_never_accept():
    text = rulefile.numbered(['tcp any any -> any 80 content:"first";'], 1)
    text += 'pass tcp any any -> any 80 (flow:established; content:"mine"; sid:2;)\n'
    lines, _, _ = made(text)
    assert lines[2].endswith('-m conntrack --ctstate ESTABLISHED -m comment --comment "sid:2;" -j RETURN')
    assert not any("ACCEPT" in line for line in lines)


def test_nothing_is_turned_away_unless_asked():
    text = 'reject tcp any any -> any 80 (content:"abc"; sid:1;)\ndrop udp any any -> any 80 (dsize:1; sid:2;)\n'
    text += "alert icmp any any -> any any (itype:8; resp:rst_all; sid:3;)\n"
    assert {line.split("-j ")[1].split()[0] for line in made(text)[0] if "-j" in line} == {"LOG"}
    targets = [line.split("-j ")[1] for line in made(text, "--reject")[0] if "SID" not in line and "-j" in line]
    assert targets == ["REJECT --reject-with tcp-reset", "DROP", "REJECT --reject-with icmp-port-unreachable"]


def test_ipv6_has_no_rules_of_ipv4_alone():
    for line, reason in (
        ("icmp any any -> any any itype:8;", "ICMP numbers of IPv4"),
        ("ip any any -> any any id:5;", "IPv6 has none"),
        ("tcp 10.0.0.1 any -> any any ttl:5;", "addresses of IPv4 only"),
    ):
        assert one(line, six=True) == reason or reason in one(line, six=True)
    assert "-p ipv6-icmp -m u32 --u32 40>>24=0x80 " in one("icmp any any -> any any itype:128;", six=True)
    assert "-s 2001:db8::/32 " in one("tcp [10.0.0.1,2001:db8::/32] any -> any any ttl:5;", six=True)


def test_sid_and_max_rules():
    text = rulefile.numbered(rulefile.RULES, 1)
    assert made(text, "--sid", "3,5", "--sid", "7")[2].counts[False]["rules"] == 3
    lines, skipped, _ = made(text, "--max-rules", "4")
    assert len({line.split("SID")[1] for line in lines if "SID" in line}) == 4
    assert {one.reason for one in skipped} == {"over --max-rules 4"}


def test_second_rule_of_a_sid_is_skipped():
    assert [one.reason for one in made(rulefile.numbered(["udp any any -> any 1 dsize:1;"], 5) * 2)[1]] == [
        "there is one of this sid already"
    ]


def test_metadata_of_the_release_notes_example():
    text = (
        'alert tcp any any -> any 21 (msg:"FTP \\"login\\" seen"; flow:established; content:"USER |20|x"; nocase; '
        'content:!"y"; reference:url,example.org/a; reference:cve,2001-0001; classtype:trojan-activity; '
        "sid:2000500; rev:6; priority:2; metadata:created_at 2010_07_30, updated_at 2019_07_26, tag a, tag b;)"
    )
    assert made(text)[2].metadata == {
        "2000500": {
            "msg": 'FTP "login" seen',
            "classtype": "trojan-activity",
            "reference": ["url,example.org/a", "cve,2001-0001"],
            "content": ["USER |20|x", '!"y"'],
            "metadata": {"created_at": "2010_07_30", "updated_at": "2019_07_26", "tag": "a, b"},
            "priority": "2",
            "rev": "6",
        }
    }


def test_files_are_written_and_read_again(tmp_path):
    path = tmp_path / "x.rules"
    path.write_text(rulefile.numbered(rulefile.RULES, 1))
    assert rules.main(["--output", str(tmp_path / "out"), str(path)]) == 0
    assert sorted(entry.name for entry in (tmp_path / "out").iterdir()) == ["rules.json", "rules.v4", "rules.v6"]
    assert len(json.loads((tmp_path / "out" / "rules.json").read_text())) == len(rulefile.RULES)
    assert (tmp_path / "out" / "rules.v4").read_text().endswith("COMMIT\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        rules.main(["-4", str(tmp_path / "none")])


@pytest.mark.parametrize("words", [[], ["--remove", "x"], ["-4", "-6", "x"], ["-4", "--first-packets", "-1", "x"],
                                   ["-4", "--sid", "a", "x"], ["-4", "--var", "A", "x"]])  # fmt: skip
def test_wrong_words_are_refused(words):
    with pytest.raises(SystemExit) as raised:
        rules.parsed(words)
    assert raised.value.code == 2


def test_literals_of_a_pcre():
    for text, wanted in (
        ("/foo.*bar/i", (["foo", "bar"], True, True)),
        ("/foo\\d+bar/", (["foo", "bar"], False, False)),
        ("/a?bc+d/", (["bc", "d"], False, False)),
        ("/(abc|def)ghi(jk)?l(mn)+(?!no)(?=op)/", (["ghi", "l", "mn"], False, False)),
        ("/x[abc]y\\x41\\x{42}\\n\\.z{0,3}/", (["x", "yAB\n."], False, False)),
        ("m!^/cgi\\-bin/!U", (["/cgi-bin/"], False, False)),
    ):
        assert literals(text) == wanted
    for text in ("/a|b/", "/(abc/", "/abc)/", "/\\Qa.b\\E/", "/abc/x", "/\\x4/", "/\\12/", "abc", "/(?(1)a|b)c/"):
        with pytest.raises(ValueError, match="pcre"):
            literals(text)


PIECES = st.sampled_from(
    ["a", "bc", "D", ".", "\\d", "\\.", "\\x41", "[abc]", "[^a]", "[]a]", "(bc)", "(?:a|bc)", "(a(b)?c)", "^", "$",
     "\\s", "\\/", "\\b", "(?=a)", "(?!a)", "(?i)" ]
)  # fmt: skip
REGEX = st.lists(st.tuples(PIECES, st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{0,2}", "{1,}", "+?"])))


@given(REGEX, st.text("abcdD.A/ ", max_size=12))
def test_what_a_pcre_matches_holds_its_literals(pieces, text):
    """Python's re is the judge: wherever it finds a match, every literal is in the text, in order."""
    pattern = "".join(piece if piece in "^$" or piece[:2] == "(?" else piece + repeat for piece, repeat in pieces)
    try:
        found, nocase, _ = literals("/%s/" % pattern)
        matched = re.search(pattern.replace("(?i)", ""), text, re.IGNORECASE if nocase else 0)
    except (ValueError, re.error):
        return
    if matched:
        held, at = matched.group().lower() if nocase else matched.group(), 0
        for literal in found:
            literal = literal.lower() if nocase else literal
            assert literal in held[at:], (pattern, text, found)
            at = held.index(literal, at) + len(literal)


def run_u32(text, packet):
    """Runs one u32 test as the kernel does: reads of four bytes, `>>`, `<<`, `&`, `@`; False beyond the end."""
    expression, _, spans = text.rpartition("=")
    expression, base = expression.replace(" ", ""), 0
    tokens = re.findall(r"0x[0-9A-Fa-f]+|\d+|>>|&|@", expression)

    def read(offset):
        if base + offset + 4 > len(packet):
            raise IndexError
        return struct.unpack_from("!I", packet, base + offset)[0]

    try:
        value = read(int(tokens[0], 0))
        for operator, operand in zip(tokens[1::2], tokens[2::2]):
            number = int(operand, 0)
            if operator == "@":
                base += value
                value = read(number)
            else:
                value = value >> number if operator == ">>" else value & number
    except IndexError:
        return False
    ends = [span.split(":") for span in spans.split(",")]
    return any(int(low[0], 0) <= value <= int(low[-1], 0) for low in ends)


@given(st.binary(min_size=1, max_size=40), st.integers(0, 9), st.booleans(), st.binary(max_size=60), st.data())
def test_bytes_at_a_place_are_found_there_and_nowhere_else(data, offset, nocase, rest, draw):
    tests = u32.equal(data, nocase, offset, "tcp", False)
    if tests is None:
        assert len(data) + offset < 4
        return
    payload = bytes(offset) + (data.swapcase() if nocase else data) + rest
    assert all(run_u32(test, rulefile.tcp(80, payload)) for test in tests)
    place = draw.draw(st.integers(offset, offset + len(data) - 1))
    other = payload[place] ^ draw.draw(st.sampled_from([1, 2, 4, 8, 16, 64, 128]))
    changed = payload[:place] + bytes([other]) + payload[place + 1 :]
    assert not all(run_u32(test, rulefile.tcp(80, changed)) for test in tests)
    assert not all(run_u32(test, rulefile.tcp(80, payload[: offset + len(data) - 1])) for test in tests)


@given(st.integers(0, 255), st.sampled_from(["<", ">", "<=", ">=", "=", "!", ""]), st.integers(0, 255))
def test_numbers_compare_as_they_say(value, operator, wanted):
    holds = {"<": value < wanted, ">": value > wanted, "<=": value <= wanted, ">=": value >= wanted,
             "=": value == wanted, "!": value != wanted, "": value == wanted}[operator]  # fmt: skip
    try:
        text = u32.field("ttl", operator + str(wanted), False)
    except ValueError:
        assert not holds
        return
    assert run_u32(text, rulefile.udp(9, b"", ttl=value)) == holds


def places(data, offset, depth):
    """Yields where a text begins within a part of the payload; Snort's own rule."""
    last = len(PAYLOAD[0]) if depth is None else min(offset + depth, len(PAYLOAD[0]))
    for at in range(max(offset, 0), last - len(data) + 1):
        if PAYLOAD[0][at : at + len(data)] == data:
            yield at


def described(texts, ended=0):
    """Tells whether Snort finds contents, (data, relative, first, length) each, in the payload one after another."""
    if not texts:
        return True
    data, relative, first, length = texts[0]
    return any(
        described(texts[1:], at + len(data)) for at in places(data, ended + first if relative else first, length)
    )


PAYLOAD = [b""]
TEXT = st.tuples(
    st.sampled_from([b"a", b"b", b"ab", b"ba", b"aab", b"abba"]),
    st.booleans(),
    st.integers(-3, 6),
    st.one_of(st.none(), st.integers(4, 9)),
)


@given(st.lists(TEXT, min_size=1, max_size=3), st.lists(st.sampled_from([b"a", b"b", b"."]), max_size=20))
def test_what_snort_finds_is_found(texts, payload):
    """Brute force over Snort's meaning of places; what we look for must hold wherever that finds a match."""
    PAYLOAD[0] = b"".join(payload)
    options = ""
    for data, relative, first, length in texts:
        options += 'content:"%s"; %s:%d; ' % (data.decode(), "distance" if relative else "offset", first)
        options += "" if length is None else "%s:%d; " % ("within" if relative else "depth", length)
    line = "udp any any -> any 9 " + options
    if described(texts):
        packet = rulefile.udp(9, PAYLOAD[0])
        for _, data, _, low, high in strings(line):
            assert data in packet[low:high], (line, PAYLOAD)
        for tests in re.findall("--u32 (\\S+)", one(line)):
            assert all(run_u32(test, packet) for test in tests.split("&&")), (line, PAYLOAD)


def ip6(proto, payload, ttl=64, tos=0):
    """Returns an IPv6 packet without extension headers."""
    return struct.pack("!IHBB", 6 << 28 | tos << 20, len(payload), proto, ttl) + bytes(range(32)) + payload


@pytest.mark.parametrize("name", sorted(u32.FIELDS))
def test_every_field_is_where_both_versions_of_ip_have_it(name):
    value = 0xA5 if u32.FIELDS[name][2] == 8 else 0xA5C3
    how = {name: value} if name in ("ttl", "tos") else {}
    if name in ("seq", "ack", "window"):
        proto, payload = 6, rulefile.tcp(80, **{name: value})[20:]
    elif name == "ip_proto":
        proto, payload = value, b"....."
    else:
        words = {"itype": "kind", "icode": "code", "icmp_id": "ident", "icmp_seq": "seq"}
        proto, payload = 1, rulefile.icmp(**dict({"kind": 8}, **({words[name]: value} if name in words else {})))[20:]
    four = rulefile.ip(proto, payload, **({"ident": value} if name == "id" else how))
    optioned = b"\x46" + four[1:20] + b"\x01\x01\x01\x00" + four[20:]
    packets = [(False, four), (False, optioned)] + [(True, ip6(proto, payload, **how))] * (name != "id")
    for six, packet in packets:
        assert run_u32(u32.field(name, str(value), six), packet), (name, six)
        assert not run_u32(u32.field(name, str(value ^ 1), six), packet), (name, six)
        assert not run_u32(u32.field(name, str(value ^ 0x80), six), packet), (name, six)


def test_quotes_and_control_characters_leave_the_comment():
    text = 'alert tcp any any -> any 1 (msg:"say \\"hi\\" \\\\ \x1b[0m \xe9"; ttl:5; sid:7;)'
    assert '--comment "sid:7; msg:say ?hi? ? ?[0m ?;"' in made(text)[0][-1]


def test_byte_tests():
    for value, payload, holds in (
        ("2,>,500,4", b"....\x01\xf5", True),
        ("2,>,500,4", b"....\x01\xf4", False),
        ("1,&,0x40,2", b"..\x41", True),
        ("1,!&,64,2", b"..\x41", False),
        ("1,!=,7,3", b"...\x07", False),
        ("4,!,7,0,big", b"\0\0\0\x08", True),
        ("2,=,258,0,little", b"\x02\x01", True),
        ("3,<,65536,1", b".\0\xff\xff", True),
    ):
        assert run_u32(u32.byte_test(value, "udp", False), rulefile.udp(9, payload)) == holds, value
    for value in ("9,=,1,0", "1,=,1,0,relative", "4,=,1,0,string,dec", "1,^,1,0", "1,=,256,0", "2,<,7,0,little", "1,=",
                  "0,=,0,0", "1,<,0,0", "1,&,0,0"):  # fmt: skip
        with pytest.raises(ValueError, match="byte_test|not a number|more than"):
            u32.byte_test(value, "udp", False)


def test_flags():
    for value, flags, holds in (
        ("S", 2, True), ("S", 0xC2, False), ("S,12", 0xC2, True), ("S+", 0x12, True), ("SA+", 2, False),
        ("*SF", 1, True), ("*SF", 4, False), ("!R", 2, True), ("!R", 6, False), ("0", 0, True), ("0", 1, False),
        ("FPU", 0x29, True), ("+A", 0x18, True),
    ):  # fmt: skip
        assert run_u32(u32.flags(value, False), rulefile.tcp(9, flags=flags)) == holds, (value, flags)
    for value in ("", "X", "!S+", "S,9"):
        with pytest.raises(ValueError, match="flags"):
            u32.flags(value, False)


CHARACTERS = list("\"'\\;:|!$(){}[],\n\r\t\0 -#%`&<>\u00e9")
TEXTS = ["COMMIT", "\n-A INPUT -j ACCEPT\n", '\\"', "any", "80", "-j ACCEPT", "|41|", "*filter", '"abc"', '"']
NASTY = st.lists(st.sampled_from(CHARACTERS + TEXTS), max_size=20).map("".join)
ANY = st.one_of(st.just("any"), st.sampled_from(["any", "!80", "[1,2]", "10.0.0.1", "::1", "1:5"]), NASTY)
HEADS = st.sampled_from(["alert", "pass", "drop"])
OPTIONS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["msg", "content", "pcre", "reference", "classtype", "rev", "priority", "flags",
                                   "byte_test", "dsize", "itype", "flow", "ttl", "metadata", "offset", "within",
                                   "resp", "ip_proto", "isdataat", "nocase", "x"]), NASTY),
        st.sampled_from([("msg", '"plain"'), ("content", '"abc"'), ("dsize", ">5"), ("flow", "established")]),
    ), max_size=8,
)  # fmt: skip


def words_of(line):
    """Splits a line as iptables-restore does: double quotes, and backslashes within them."""
    split = shlex.shlex(line, posix=True, punctuation_chars=False)
    split.whitespace_split, split.quotes, split.commenters, split.escape = True, '"', "", "\\"
    return list(split)


@given(HEADS, ANY, ANY, ANY, OPTIONS, st.one_of(st.just(""), NASTY), st.booleans())
@example("alert", "any", "any", "80", [("msg", '"\n-A INPUT -j ACCEPT\n"')], "", False)
@example("alert", "any", "any", "80", [("msg", '"x\\\\"'), ("content", '"abc"')], "", True)
def test_no_rule_text_gets_out_of_our_chains(action, source, sport, dport, options, after, six):
    """Neither as a line of its own nor as words of one; what iptables-restore itself says is in tests/real."""
    said = "".join("%s:%s; " % option for option in options)
    text = "%s tcp %s %s -> any %s (%s sid:7;)%s" % (
        action,
        source or "any",
        sport or "any",
        dport or "any",
        said,
        after,
    )
    for whole in (text, text.replace("\n", " ")):
        lines, _, _ = made(whole, "--reject", six=six)
        assert lines[:2] == [":TINYKNOP_RULES - [0:0]", ":TINYKNOP_RULES_ESTAB - [0:0]"]
        for line in lines[2:]:
            assert re.fullmatch(r"-A TINYKNOP_RULES(_ESTAB)? [ -~]+", line) and len(line) < 10000
            words = words_of(line)
            targets = [words[at + 1] for at, item in enumerate(words) if item == "-j"]
            assert len(targets) == 1 and targets[0] in ("LOG", "RETURN", "DROP", "REJECT", "TINYKNOP_RULES_ESTAB")
            assert "ACCEPT" not in words and all(len(item) < 1024 for item in words) and len(words) < 250


def test_translator_reads_no_file_and_runs_nothing():
    """What touches strangers' text is apart from what touches the machine."""
    for module in (snort, translate, u32):
        with open(module.__file__) as file:
            tree = ast.parse(file.read())
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"os", "subprocess", "socket"}


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_any_text_is_a_file(text):
    rules_found, skipped = snort.read(text, "F", {})
    for rule in rules_found:
        snort.about(rule)
    assert all(one.reason for one in skipped)


def test_depth_within_and_places_that_cannot_be():
    for options in ('content:"abcd"; depth:3;', 'content:"a"; content:"abcd"; within:3;', "depth:3;", 'content:"";',
                    'content:"|4|";', 'content:"a\\', 'content:"a"; offset:99999;', "content:abc;"):  # fmt: skip
        with pytest.raises(ValueError, match="."):
            contents(snort.options(options))
