"""Every target of tests/fuzz with a bounded number of mutated inputs, the same each time; the long run is `make soak`.

With atheris, guided by coverage: `python -m tests.fuzz.run NAME --seconds 600`. What was found so far is below.
"""

import io
import os

import pytest
from tinyknop.ports.shared import rules, stamped

from tests.fuzz import corpus, run, targets
from tests.need import SOAK
from tinyknop import compat, journal
from tinyknop.grants import Grant
from tinyknop.watch import files, parse

# The quick share takes some 0.4 s for each; a target that is slower gets fewer inputs.
QUICK = dict.fromkeys(targets.TARGETS, 2000)
QUICK.update(dict.fromkeys("unseal gate replay journal lines access rc psad console nflog".split(), 700), fwknopd=250)
QUICK.update(hints=60)
LONG = {"unseal": 10000000}


@pytest.mark.parametrize("name", sorted(targets.TARGETS))
def test_no_bytes_find_a_fault(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count = LONG.get(name, 200000) if SOAK else QUICK[name]
    number = int.from_bytes(os.urandom(4), "big") if SOAK else 1
    assert run.plain(name, None, count, number) == count, "the seed was %d" % number


def test_each_target_has_a_good_input_that_reaches_its_end():
    """Else nothing but the refusals would be fuzzed."""
    assert all(corpus.seeds(name) for name in targets.TARGETS)
    assert (
        targets.opened(targets.chosen(whole(targets.KEYS), targets.KEYS)[1], targets.KEYS[7], True).username == "alice"
    )
    for name, ending in (("toml", "toml"), ("json", "json"), ("access", "conf")):
        for number, text in enumerate(corpus.GOOD[name]):
            path = targets.put("good-%d.%s" % (number, ending), text)
            assert targets.whole(path), (name, number)
    assert len(list(targets.pcap.records(io.BytesIO(corpus.NEXT[4:]), corpus.NEXT[:4]))) == 2
    assert parse.parse(corpus.LOG).sid == 1234


def whole(keys):
    """Returns the seed that is a true packet for the eighth key."""
    return [seed for seed in corpus.packets(keys) if seed[0] == 4 * 7 + targets.AS_IT_IS][0]


# ---- finds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"IN=x [ OUT= SRC=1.2.3.4", b"IN=x PROTO=6 OUT= SRC=1.2.3.4 DST=1.2.3.4"])
def test_a_log_line_whose_out_stands_elsewhere_is_no_event(line):
    line = b"IN=eth0 SRC=192.0.2.7 DST=10.0.0.1 PROTO=TCP SPT=1 " + line + b" OUT= DPT=2"
    assert parse.parse(line) is None


@pytest.mark.parametrize("stamp", ["\u00b2", "1" * 5000, "\u0663", ""])
def test_a_rule_whose_comment_is_no_time_is_not_ours(stamp):
    assert rules.recognised("-s 192.0.2.7/32 -m comment --comment _exp_%s -j ACCEPT" % stamp) is None
    assert stamped.key('pass in from 192.0.2.7 to any label "_exp_%s"' % stamp) is None


@pytest.mark.parametrize("old, new", [
    ("start_rule = 7", 'start_rule = "\u00b2"'), ("timeout = 7", 'timeout = "\u0663"'),
    ("pulse = 50", 'pulse = "\u00b2"'),
    ("baud = 9600", 'baud = "\u00b2"'), ("maxelem = 65536", 'maxelem = "%s"' % ("1" * 5000)),
])  # fmt: skip
def test_a_number_that_only_looks_like_one_is_an_error_of_the_configuration(old, new):
    text = corpus.DEVICES.decode()
    assert old in text
    targets.native(text.replace(old, new).encode())


def test_psads_files_with_what_no_packet_has_are_read(tmp_path):
    path = targets.put("psad", b"192.0.2.1 5 tcp/any;\n192.0.2.2 5 tcp/$HOME;\n" + b"1" * 5000 + b" x\n")
    assert [auto.ports for auto in files.readable(path, files.auto_dl)] == [(), ()]
    assert files.icmp_types(path) == set()


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ModuleNotFoundError("no right to read it")])
def test_a_fault_can_be_told_where_no_file_can_be_opened(monkeypatch, error):
    """The loop's last guard asks for it: an error there would end the daemon."""
    import builtins

    real = builtins.__import__

    def without(name, *more):
        if name == "traceback":
            raise error
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "no more" in compat.trace(ValueError("no more"))


# ---- the journal, cut and changed at every byte ----------------------------------------------------------------------

GRANTS = [
    (Grant(1, "192.0.2.7", (("tcp", 22),), 1700000000, 1700000030, "alice", None, "0.0.0.0", "192.0.2.7"), ("fw",)),
    (Grant(2, "2001:db8::7", (("udp", 53),), 1700000000, 1700000060, "b ob", None, "0.0.0.0", "::1"), ("fw", "r 1")),
]


def written(path):
    """Returns the bytes of a journal of two grants."""
    journal.Journal(str(path)).rewrite(GRANTS)
    return path.read_bytes()


def test_a_journal_that_is_cut_anywhere_keeps_its_whole_lines(tmp_path):
    path = tmp_path / "journal"
    data = written(path)
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        assert journal.Journal(str(path)).load() == GRANTS[: data[:cut].count(b"\n")]


def test_a_journal_that_is_changed_anywhere_keeps_its_other_lines_and_believes_no_changed_one(tmp_path):
    path = tmp_path / "journal"
    data = written(path)
    first = data.index(b"\n")
    for place in range(len(data)):
        for bit in range(8):
            path.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            found = journal.Journal(str(path)).load()
            assert all(one in GRANTS for one in found), found
            assert place == first or GRANTS[place < first] in found  # without its end the first is one with the second
