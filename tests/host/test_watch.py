"""Log watch on CPython: no line raises, memory is bounded, `tinyknop watch` and what it reads."""

import json
import os
import socket
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.watching import icmp, tcp, udp
from tests.need import need
from tinyknop.compat import monotonic
from tinyknop.errors import PortError
from tinyknop.host import watch
from tinyknop.loop import Loop
from tinyknop.netlink import attr, message
from tinyknop.watch import files, nflog, outfit, sids, sources
from tinyknop.watch.parse import parse
from tinyknop.watch.score import Limits, Scorer

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LINES = [tcp(b"203.0.113.7", 21), tcp(b"2001:db8::1", 22, host=b"2001:db8::2"), udp(b"203.0.113.8", 53)]
LINES += [icmp(b"203.0.113.9", 3).replace(b" ID=1 SEQ=1", b" [SRC=1.2.3.4 DST=5.6.7.8 PROTO=UDP SPT=1 DPT=2 ]")]
WORDS = [word for line in LINES for word in line.split(b" ")] + b"SID77 IN= LEN=-1 DPT= OPT (A".split()
lines = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from(WORDS), max_size=40).map(b" ".join),
    st.tuples(st.sampled_from(LINES), st.integers(0, 300), st.binary(max_size=8)).map(
        lambda made: made[0][: made[1]] + made[2] + made[0][made[1] :]
    ),
)


class Kernel:
    """A netlink socket whose kernel answers everything with one error."""

    def __init__(self, *_):
        self.code = 1  # EPERM

    def send(self, data):
        self.answer = message(2, 0, 1, struct.pack("@i", -self.code))

    def recv(self, size):
        return self.answer

    def setblocking(self, wanted):
        pass

    bind = setsockopt = close = lambda self, *_: None


def test_a_group_that_is_not_allowed_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(socket, "socket", Kernel)
    with pytest.raises(PortError, match="CAP_NET_ADMIN"):
        sources.make("nflog", None, 7, "").start(Loop(), None)


@given(st.lists(lines, max_size=20))
def test_whatever_the_lines_are_nothing_is_raised(some):
    scorer, _ = outfit.scorer({})
    for line in some:
        event = parse(line)
        if event is not None:
            source = scorer.score(event)
            assert source is None or 0 <= source.level <= 5
    for _, source in scorer.sources():
        assert 0 <= scorer.final(source) <= source.level


@given(st.binary(max_size=200), st.integers(0, 20))
def test_whatever_a_group_says_nothing_is_raised(data, kind):
    list(nflog.lines(data))
    list(nflog.lines(message(0x400, 0, 0, b"\x02\0\0\7" + attr(kind, data))))
    for line in (nflog.line({9: b"\x45" + data}), nflog.line({9: b"\x60" + data, 10: data, 4: data, 16: data})):
        parse(line.encode())


@given(st.text(max_size=200))
def test_a_rule_is_read_or_refused(text):
    for read in (files.signature, files.auto_dl, files.rule_dl):
        try:
            read(text)
        except (ValueError, IndexError):
            pass
    sids.described(text)
    sids.described("alert tcp any any -> any any (%s; sid:1;)" % text)


def test_all_of_psads_own_signatures_are_understood():
    need("psad")
    texts = [text.strip() for _, text in files.lines("/etc/psad/signatures")]
    assert len([files.signature(text) for text in texts]) == len(texts) > 200


def log_of(path, count):
    """Writes a log of so many sources, as forged ones would be."""
    with open(path, "wb") as file:
        for number in range(count):
            source = b"%d.%d.%d.%d" % (11 + number % 90, number >> 16, number >> 8 & 255, number & 255)
            file.write(tcp(source, number % 65535) + b"\n")
    return str(path)


def peak(path):
    """Returns the most memory that `tinyknop watch` took for a log, in KB, and its answer."""
    argv = [sys.executable, "-m", "tinyknop", "watch", path, "--json"]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, env=dict(os.environ, PYTHONPATH=ROOT))
    answer = json.loads(child.stdout.read())
    child.stdout.close()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    assert status == 0
    return usage.ru_maxrss, answer


def test_fifty_thousand_sources_take_no_more_memory_than_are_remembered(tmp_path):
    small, _ = peak(log_of(tmp_path / "small", 100))
    large, answer = peak(log_of(tmp_path / "large", 50000))
    assert answer["packets"] == 50000 and answer["forgotten"] >= 40000
    assert large - small < 16384


def test_one_source_takes_no_more_than_its_share():
    limits = Limits()
    scorer = Scorer(limits, 1000)
    scorer.take([files.signature("alert tcp any any -> any %d (psad_id:%d;)" % (n, n)) for n in range(1, 200)])
    for number in range(3000):
        event = parse(tcp(b"203.0.113.7", number % 200, host=b"10.0.%d.%d" % (number >> 8, number & 255)))
        source = scorer.score(event)
    assert len(source.hosts) <= 500 and len(source.sids) <= 32 and source.level == 5


RULES = """alert tcp any any -> any 21 (msg:"EXAMPLE FTP rule"; flow:established,to_server; content:"evil"; nocase; \
classtype:trojan-activity; reference:url,example.net/2000500; sid:2000500; rev:5; metadata:affected_product Any, \
created_at 2010_07_30, updated_at 2019_07_26;)
"""
FWSNORT = (
    "Jul 30 21:24:44 moria kernel: [650982.555939] [1] SID2000500 ESTAB IN=eth0 OUT= MAC=00:13:46:3a:41:4b:00:0c:41:24:"
    "56:37:08:00 SRC=192.168.10.11 DST=192.168.10.1 LEN=59 TOS=0x00 PREC=0x00 TTL=63 ID=0 DF PROTO=TCP SPT=58801 "
    "DPT=21 WINDOW=4117 RES=0x00 ACK PSH URGP=0 OPT (0101080A4538966A09B20FBC)\n"
)


def told(capsys, *words):
    """Returns what the command prints."""
    assert watch.main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_the_release_notes_example_gives_its_report(tmp_path, capsys):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/example.rules").write_text(RULES)
    (tmp_path / "log").write_text(FWSNORT)
    text = told(capsys, tmp_path / "log", "--rules", tmp_path / "rules")
    for wanted in (
        "192.168.10.11  2      1        1      1",
        "EXAMPLE FTP rule",
        "sid 2000500, tcp port 21, flags AP, chain INPUT, 1 packets",
        "classtype: trojan-activity",
        "content: evil",
        "reference: url,example.net/2000500",
        "created_at: 2010_07_30",
        "updated_at: 2019_07_26",
        "affected_product: Any",
    ):
        assert wanted in text
    answer = json.loads(told(capsys, tmp_path / "log", "--json", "--rules", tmp_path / "rules"))
    row = answer["sources"][0]["matched"][0]
    assert row["metadata"]["updated_at"] == "2019_07_26" and row["packets"] == 1


def test_the_side_file_serves_as_well_as_the_rules(tmp_path, capsys):
    side = {"2000500": {"msg": "from the side file", "metadata": {"created_at": "2010_07_30"}, "content": ["evil"]}}
    (tmp_path / "rules.json").write_text(json.dumps(side))
    (tmp_path / "log").write_text(FWSNORT)
    text = told(capsys, tmp_path / "log", "--rules", tmp_path / "rules.json")
    assert "from the side file" in text and "created_at: 2010_07_30" in text and "content: evil" in text


def test_a_rule_that_is_not_at_hand_is_no_verdict(tmp_path, capsys):
    (tmp_path / "log").write_text(FWSNORT)
    assert "0 sources" in told(capsys, tmp_path / "log")


def test_options_and_the_input(tmp_path, capsys, monkeypatch):
    (tmp_path / "auto").write_text("203.0.113.7 5;\n")
    (tmp_path / "log").write_bytes(tcp(b"203.0.113.7", 1) + b"\n" + tcp(b"203.0.113.8", 23) + b"\nnot a line\n")
    answer = json.loads(told(capsys, tmp_path / "log", "--json", "--auto-dl", tmp_path / "auto"))
    assert [(row["source"], row["level"]) for row in answer["sources"]] == [("203.0.113.7", 5), ("203.0.113.8", 1)]
    assert (answer["lines"], answer["packets"]) == (3, 2)
    answer = json.loads(told(capsys, tmp_path / "log", "--json", "--auto-dl", tmp_path / "auto", "--level", "2"))
    assert len(answer["sources"]) == 1
    argv = [sys.executable, "-m", "tinyknop", "watch", "-"]
    done = subprocess.run(argv, input=FWSNORT.encode(), capture_output=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout.startswith(b"1 lines, 1 of a firewall")
    done = subprocess.run([*argv[:-1], str(tmp_path / "nothere")], capture_output=True, cwd=ROOT)
    assert done.returncode == 1 and b"nothere" in done.stderr and b"Traceback" not in done.stderr


def heard(source, act, wanted):
    """Runs a source until it has brought so many lines, or 100 turns of 20 ms."""
    loop, found = Loop(), []
    source.start(loop, found.append)
    act()
    for _ in range(500):
        if len(found) >= wanted:
            break
        loop.at(monotonic() + 20, lambda: None)
        loop.turn()
    source.stop()
    return found


def test_a_fifo_outlives_its_writers(tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path)

    def write():
        for text in (b"one\ntw", b"o\n"):
            with open(path, "wb") as file:
                file.write(text)

    assert heard(sources.make("fifo", path, 0, ""), write, 2) == [b"one", b"two"]


@pytest.mark.parametrize("kind", ["fifo", "kmsg"])
def test_what_cannot_be_opened_is_named(tmp_path, kind):
    path = str(tmp_path / "none")
    with pytest.raises(PortError) as refused:
        sources.make(kind, path, 0, "").start(Loop(), None)
    assert str(refused.value).startswith("%s %s: cannot be opened: " % (kind, path))


@pytest.mark.parametrize("kind", ["fifo", "kmsg"])
def test_a_plain_file_is_no_fifo(tmp_path, kind):
    """It is always readable, so the daemon would do nothing else."""
    path = tmp_path / "kern.log"
    path.write_bytes(b"a line\n")
    with pytest.raises(PortError, match='an ordinary file: kind = "file" follows it'):
        sources.make(kind, str(path), 0, "").start(Loop(), None)


def test_what_is_no_plain_file_is_not_followed_as_one(tmp_path, monkeypatch):
    """To open a FIFO that nobody writes to, or to read /dev/kmsg, would stop the whole daemon."""
    monkeypatch.setattr(sources, "_LOOK", 5)
    path, loop = tmp_path / "kern.log", Loop()
    os.mkfifo(path)
    for wrong in (path, tmp_path, "/dev/null"):
        with pytest.raises(PortError, match='no ordinary file: kind = "fifo" or "kmsg"'):
            sources.make("file", str(wrong), 0, "").start(loop, None)
    path.unlink()
    found: list = []
    source = sources.make("file", str(path), 0, "")
    source.start(loop, found.append)
    os.mkfifo(path)
    writer = os.open(path, os.O_RDWR)
    for _ in range(3):
        loop.turn()
    path.unlink()
    path.write_bytes(b"a line\n")
    while not found:
        loop.turn()
    os.close(writer)
    source.stop()
    assert found == [b"a line"]


def test_a_record_of_the_kernels_ring_is_its_text(tmp_path):
    path = str(tmp_path / "kmsg")
    os.mkfifo(path)
    record = b"4,1234,5678,-;" + LINES[0] + b"\n SUBSYSTEM=x\n"
    found = heard(sources.make("kmsg", path, 0, ""), lambda: writing(path, record), 1)
    assert found == [LINES[0]]


def writing(path, data):
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(fd, data)
    finally:
        os.set_blocking(fd, False)
        kept.append(fd)  # the reader must see data, not the end


kept: list = []
