"""The watcher: what a verdict leads to, and whom it never touches; and where lines come from."""

import os
import socket

from watching import tcp, temporary

from tinyknop import compat, log
from tinyknop.errors import ConfigError, Rejected
from tinyknop.grants import Grant, Grants
from tinyknop.loop import Loop
from tinyknop.watch import sources, watcher

A = b"203.0.113.7"


class Settings:
    def __init__(self, **table):
        self.watch = {"kind": "file", "path": "/nothere/log"}
        self.watch.update(table)
        self.ports = {"blocks": {"kind": "block"}, "firewall": {"kind": "nftables"}}


class Stanza:
    name, ports = "alice", ("firewall",)


class Keeper:
    """Grants without ports."""

    def __init__(self):
        self.grants = Grants()
        self.full = False

    def open(self, grant, names):
        if self.full:
            raise Rejected("full", "no room")
        return self.grants.add(grant)

    def close(self, number):
        self.grants.remove(number)


def made(**table):
    """Returns (Watcher, Keeper, what is logged from now on)."""
    keeper, lines = Keeper(), []
    watcher._BUDGET = 1 << 30
    log.sink = lambda level, text: lines.append(text)
    return watcher.Watcher(Settings(**table), [Stanza], keeper, None), keeper, lines


def grant(source):
    return Grant(None, source, (("tcp", 22),), 0, 1 << 40, "alice", None, "0.0.0.0", source)


def blocks(keeper):
    return sorted([one.source for one in keeper.grants.live.values() if one.stanza == watcher.STANZA])


def scan(one, source, count, first=7000):
    for number in range(count):
        one.heard(tcp(source, first + number))


def kept(test):
    """Runs a test and puts the log back."""

    def run():
        sink = log.sink
        try:
            test()
        finally:
            log.sink = sink

    return run


@kept
def test_a_level_is_told_once():
    one, keeper, lines = made(log_at="2")
    scan(one, A, 40)
    assert [line for line in lines if "danger level" in line] == [
        "watch: 203.0.113.7 reached danger level 2 (15 packets, 1 hosts)"
    ]
    assert blocks(keeper) == [], "off unless the owner wants it"


@kept
def test_a_source_is_blocked_once_for_its_time():
    one, keeper, lines = made(block_at="1", block_for="60", ports="blocks")
    scan(one, A, 40)
    scan(one, b"2001:db8::7", 4)
    assert blocks(keeper) == ["203.0.113.7"]
    block = list(keeper.grants.live.values())[0]
    assert block.until - block.opened == 60 and abs(block.opened - compat.wall()) < 10
    assert len([line for line in lines if "is blocked for 60 s" in line]) == 1


@kept
def test_some_are_never_blocked():
    auto = temporary(b"198.51.100.0/24 0;\n")
    one, keeper, _ = made(block_at="1", ports="blocks", auto_dl=auto, never="192.0.2.0/24, 2001:db8::/32")
    one._own, one._own_until = (bytes((10, 1, 2, 3)),), 1 << 40
    keeper.grants.add(grant("203.0.113.7"))
    for source in (A, b"198.51.100.9", b"192.0.2.9", b"10.1.2.3", b"127.0.0.1", b"0.0.0.0"):
        scan(one, source, 20)
    for number in range(20):
        one.heard(tcp(b"fe80::1", number, host=b"fe80::2"))
    scan(one, b"203.0.113.8", 20)
    assert blocks(keeper) == ["203.0.113.8"]
    assert one.report()["spared"] >= 4


@kept
def test_blocks_are_bounded():
    one, keeper, _ = made(block_at="1", ports="blocks", most_blocks="3")
    for number in range(20):
        scan(one, b"203.0.113.%d" % number, 6)
    assert len(blocks(keeper)) == 3


@kept
def test_who_proves_himself_is_let_through():
    one, keeper, _ = made(block_at="1", ports="blocks")
    scan(one, A, 20)
    assert blocks(keeper) == ["203.0.113.7"]
    one.granted(keeper.grants.add(grant("203.0.113.7")))
    scan(one, A, 20)
    assert blocks(keeper) == []


@kept
def test_an_opening_ends_only_where_that_is_wanted():
    for end, left in (("0", 1), ("2", 0)):
        one, keeper, _ = made(end_grants=end)
        keeper.grants.add(grant("203.0.113.7"))
        scan(one, A, 20)
        assert len(keeper.grants.live) == left, end


@kept
def test_a_store_that_is_full_is_told():
    one, keeper, lines = made(block_at="1", ports="blocks")
    keeper.full = True
    scan(one, A, 20)
    assert [line for line in lines if "is not blocked: no room" in line]


@kept
def test_a_flood_does_not_fill_the_log():
    one, _, lines = made()
    before = compat.monotonic() // 1000
    for number in range(200):
        scan(one, b"203.0.%d.9" % number, 5)
    assert len(lines) <= 20 * (compat.monotonic() // 1000 - before + 1)


@kept
def test_a_reload_reads_the_files_anew_and_forgets_nobody():
    auto = temporary(b"")
    one, _, _ = made(auto_dl=auto)
    scan(one, A, 20)
    temporary(b"198.51.100.1 5;\n")
    assert one.serves(Settings(auto_dl=auto), [Stanza])
    one.heard(tcp(b"198.51.100.1", 1))
    assert [(row["source"], row["level"]) for row in one.report()["sources"]] == [
        ("198.51.100.1", 5),
        ("203.0.113.7", 2),
    ]
    assert not one.serves(Settings(auto_dl=auto, log_at="2"), [Stanza])


@kept
def test_a_flood_takes_no_more_than_its_share_of_a_second():
    one, _, _ = made()
    watcher._BUDGET = 50
    taken = [one.heard(tcp(A, 1)) for _ in range(500)]
    assert one.report()["lines"] == taken.count(True) <= 150, "some of a second or two"
    assert one.heard(b"what is no line of a firewall") is True


@kept
def test_rules_are_named():
    rules = temporary(b'alert tcp any any -> any 21 (msg:"the message"; sid:77;)\n', ".rules")
    one, _, lines = made(rules=rules)
    for _ in range(3):
        one.heard(tcp(A, 21, b"ACK").replace(b"DROP ", b"[1] SID77 ESTAB "))
    assert lines[0] == "watch: 203.0.113.7 matched rule 77 (the message), port 21, INPUT"
    fields = [("event", "rule"), ("source", "203.0.113.7"), ("port", 21), ("sid", 77)]
    assert lines[0].fields[:4] == fields
    assert len([line for line in lines if "matched" in line]) == 1
    row = one.report()["sources"][0]
    assert (row["source"], row["level"], row["packets"], row["rules"]) == ("203.0.113.7", 2, 3, ["77"])


@kept
def test_wrong_tables_are_refused():
    for table, reason in (
        ({"kind": "tail"}, "it is file, fifo, kmsg, syslog or nflog"),
        ({"path": ""}, "needs path"),
        ({"kind": "syslog", "address": "192.0.2.1"}, "loopback"),
        ({"kind": "syslog", "port": "0"}, "port"),
        ({"kind": "nflog", "group": "65536"}, "group"),
        ({"block_at": "6"}, "block_at"),
        ({"block_at": "2"}, "needs ports"),
        ({"block_at": "2", "ports": "firewall"}, "opens"),
        ({"block_at": "2", "ports": "nothere"}, "is not there"),
        ({"blok_at": "2"}, "did you mean block_at?"),
        ({"never": "192.0.2"}, "192.0.2"),
    ):
        try:
            made(**table)
            raise AssertionError(table)
        except ConfigError as error:
            assert reason in str(error), (table, str(error))


def run(source, act, wanted):
    """Starts a source, acts, and returns the lines once there are so many."""
    loop, lines = Loop(), []
    source.start(loop, lines.append)
    deadline = compat.monotonic() + 10000
    steps = list(act)
    try:
        while (len(lines) < wanted or steps) and compat.monotonic() < deadline:
            if steps and len(lines) >= steps[0][0]:
                steps.pop(0)[1]()
            loop.at(compat.monotonic() + 5, lambda: None)
            loop.turn()
    finally:
        source.stop()
    return lines


def append(path, data):
    with open(path, "ab") as file:
        file.write(data)


def test_a_file_is_followed_through_rotation():
    path = temporary(b"old\n", ".log")
    sources._LOOK, look = 5, sources._LOOK

    def rotate():
        append(path, b"last of the first\n")
        os.rename(path, path + ".1")
        append(path, b"first of the second\n")

    def truncate():
        with open(path, "wb") as file:
            file.write(b"x\n")

    try:
        steps = [
            (0, lambda: append(path, b"one\ntw")),
            (1, lambda: append(path, b"o\n\xff\n")),
            (3, rotate),
            (5, truncate),
            (6, lambda: append(path, b"%s\nend\n" % (b"y" * 20000))),
        ]
        lines = run(sources.make("file", path, 0, ""), steps, 8)
    finally:
        sources._LOOK = look
    assert lines[:6] == [b"one", b"two", b"\xff", b"last of the first", b"first of the second", b"x"]
    assert lines[6:] == [b"y" * 20000, b"end"]


def test_a_file_that_is_renamed_while_it_is_opened_is_followed_too():
    path = temporary(b"old\n", ".log")
    sources._LOOK, look = 5, sources._LOOK

    class Renamed:
        def stat(self, path):
            sources.os = os
            raise OSError(2)

    sources.os = Renamed()
    try:
        steps = [(0, lambda: append(path, b"one\n")), (2, lambda: append(path, b"two\n"))]
        lines = run(sources.make("file", path, 0, ""), steps, 3)
    finally:
        sources._LOOK, sources.os = look, os
    assert lines == [b"old", b"one", b"two"]


def test_what_is_too_much_waits_in_a_file_and_is_skipped_elsewhere():
    path = temporary(b"", ".log")
    sources._LOOK, look = 5, sources._LOOK
    one, refused = sources.make("file", path, 0, ""), []
    loop, lines = Loop(), []

    def sink(line):
        if line == b"two" and len(refused) < 3:
            refused.append(line)
            return False
        lines.append(line)

    one.start(loop, sink)
    append(path, b"one\ntwo\nthree\n")
    deadline = compat.monotonic() + 10000
    while len(lines) < 3 and compat.monotonic() < deadline:
        loop.turn()
    one.stop()
    sources._LOOK = look
    assert (lines, len(refused), one.skipped) == ([b"one", b"two", b"three"], 3, 0)
    other = sources.Datagrams("x", None, None)
    other._sink = lambda line: line != b"b"
    other._hand([b"a", b"b", b"c"])
    assert other.skipped == 1


def test_syslog_datagrams_on_loopback_are_lines():
    probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    probe.bind(compat.sockaddr("127.0.0.1", 0))
    if compat.MICROPYTHON:  # which cannot tell the port that it got
        port = 10514
    else:
        port = probe.getsockname()[1]
    probe.close()
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    target = compat.sockaddr("127.0.0.1", port)
    steps = [(0, lambda: sender.sendto(b"<4>" + tcp(A, 21), target))]
    lines = run(sources.make("syslog", None, port, "127.0.0.1"), steps, 1)
    sender.close()
    assert lines == [b"<4>" + tcp(A, 21)]


def test_a_syslog_datagram_of_many_lines_holds_nothing_up():
    lines = []
    source = sources.make("syslog", None, 10515, "127.0.0.1")
    source._sink = lines.append
    source._hand(source._lines(b"one\ntwo\n" + b"\n" * 60000))
    assert lines[:2] == [b"one", b"two"] and len(lines) < 100
