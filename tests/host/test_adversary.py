"""What a hostile network, a careless admin and a crashing machine do to the daemon, without a network."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tests.core.test_gate import NOW, Settings, Stanza, knock
from tests.core.test_replay import GRAM, Clocks
from tinyknop import Keys, compat, log, loop, net, ports, web
from tinyknop.daemon import turned
from tinyknop.errors import Rejected
from tinyknop.gate import Datagram, Gate
from tinyknop.grants import Grant
from tinyknop.host import fwknopd
from tinyknop.host.phrases import BURST, Phrases
from tinyknop.journal import Journal
from tinyknop.keeper import Keeper
from tinyknop.replay import Replay
from tinyknop.says import Says
from tinyknop.stanza import Gpg

HOME = b"\x0a\x00\x00\x01"
YEAR = 365 * 86400
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture
def lines(monkeypatch):
    """What is logged, as lines."""
    caught = []
    monkeypatch.setattr(log, "sink", lambda level, text: caught.append(text))
    monkeypatch.setattr(log, "threshold", 1)
    return caught


@pytest.fixture
def clocks():
    made = Clocks(wall=NOW, boot_wall=NOW - YEAR)
    yield made
    made.close()


def gram(payload, source=b"\xc0\x00\x02\x63"):
    return Datagram(payload, source, 5, HOME, 62201, 17)


def store(tmp_path, **options):
    made = Replay(str(tmp_path / "digest.cache"), **options)
    made.load()
    return made


# -- replay store


def test_one_client_with_a_fast_clock_does_not_lock_everybody_out(tmp_path, clocks):
    seen = store(tmp_path)
    gate = Gate([Stanza()], Settings)
    assert gate.judge(gram(knock(timestamp=NOW + YEAR)), clocks.now, seen).stage == "age"
    clocks.pass_by(300)  # its digest is dropped now
    for _ in range(2):
        decision = gate.judge(gram(knock(timestamp=clocks.now)), clocks.now, seen)
        assert decision.grant is not None, decision


def test_a_packet_stamped_ahead_cannot_be_kept_for_later(tmp_path, clocks):
    """What the mend of the above must not bring back: a recorded packet that is refused now and honoured later."""
    seen = store(tmp_path)
    gate = Gate([Stanza()], Settings)
    ahead = knock(timestamp=NOW + 1000)
    assert gate.judge(gram(ahead), clocks.now, seen).stage == "age"
    clocks.pass_by(500)
    gate.judge(gram(knock(timestamp=clocks.now)), clocks.now, seen)  # drops what may go
    clocks.pass_by(500)
    assert gate.judge(gram(ahead), clocks.now, seen).grant is None


def test_a_clock_that_was_ahead_at_boot_locks_nobody_out_once_it_is_right(tmp_path, clocks):
    clocks.boot, clocks.booted = "", NOW - YEAR
    store(tmp_path)
    clocks.boot, clocks.booted = "another boot", NOW + 7200 - 60  # the RTC keeps local time
    clocks.now = NOW + 7200
    seen = store(tmp_path)
    clocks.now, clocks.booted = NOW, NOW - 60  # NTP
    seen.stepped(-7200)
    clocks.pass_by(10)
    seen.add(b"\1" * 32, GRAM, clocks.now, clocks.now)


# -- the gate


def test_a_command_message_for_a_cycle_is_refused_and_raises_nothing(tmp_path, clocks):
    gate = Gate([Stanza(cycle=("true", None), cmd_exec=True)], Settings)
    decision = gate.judge(gram(knock("192.0.2.7,reboot now", message_type=0)), clocks.now, store(tmp_path))
    assert decision.stage is not None


def test_a_forwarded_for_in_a_requests_body_is_the_clients_and_nobody_believes_it():
    settings = SimpleNamespace(any_agent=True, forwarded_for=True, proxies=web.PROXIES)
    asked = (
        b"GET /" + b"A" * 200 + b" HTTP/1.1\r\nX-Forwarded-For: 203.0.113.9\r\n\r\nX-Forwarded-For: 198.51.100.1\r\n"
    )
    assert web.decode(asked, net.packed("10.0.0.1"), settings)[1] == net.packed("203.0.113.9")


# -- the log


def phrases(seen, stanzas):
    words = Phrases()
    words.replay = seen
    words.settings = SimpleNamespace(test=False, prepend=False, output=False, destination_rule=False)
    words.stanzas = stanzas
    return words


def refused_often(stanza, payload, seen, says, times=2000):
    stanza.number = 1
    gate = Gate([stanza], Settings)
    for _ in range(times):
        one = gram(payload)
        decision = gate.judge(one, NOW, seen)
        if decision.stage is not None:
            says.refused(decision, one)


def test_a_flood_of_one_recorded_packet_fills_no_disk(tmp_path, clocks, lines):
    seen, stanza = store(tmp_path), Stanza()
    refused_often(stanza, knock(), seen, phrases(seen, [stanza]))
    assert len(lines) <= 6 * BURST, len(lines)


def test_a_flood_of_junk_at_a_stanza_without_hmac_fills_no_disk(tmp_path, clocks, lines):
    seen, stanza = store(tmp_path), Stanza(keys=Keys(b"a key"))
    refused_often(stanza, b"8" + b"A" * 199, seen, phrases(seen, [stanza]))
    assert len(lines) <= 6 * BURST, len(lines)


@pytest.mark.parametrize("made", (lambda seen, stanza: phrases(seen, [stanza]), lambda seen, stanza: Says()))
def test_a_flood_of_junk_that_waits_for_gpg_fills_no_disk(tmp_path, clocks, lines, made):
    seen = store(tmp_path)
    stanza = Stanza(keys=Keys(None), gpg=Gpg(None, "", False, False, None, None, "/none", "/none"))
    stanza.number = 1
    says, gate = made(seen, stanza), Gate([stanza], Settings)
    for _ in range(2000):
        one = gram(b"A" * 800)
        decision = gate.judge(one, NOW, seen)
        assert decision.pending is not None
        says.refused(turned(decision, Rejected("full", "64 GPG messages wait to be opened")), one)
    assert len(lines) <= 6 * BURST, len(lines)


def test_what_a_packet_says_stays_on_its_own_line(tmp_path, clocks, lines, monkeypatch):
    monkeypatch.setattr(log, "threshold", 0)
    seen = store(tmp_path)
    forged = "192.0.2.7,x\n(stanza #1) SPA Packet from IP: 6.6.6.6 received with access source match"
    decision = Gate([Stanza()], Settings).judge(gram(knock(forged, message_type=0)), NOW, seen)
    phrases(seen, []).read(decision.packet)
    assert not [line for text in lines for line in text.split("\n") if line.startswith("(stanza #1) SPA")]


def test_a_log_that_cannot_be_written_ends_nothing(monkeypatch):
    def full(level, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(log, "sink", full)
    scheduler, done = loop.Loop(), []
    scheduler.soon(lambda: log.info("granted"))
    scheduler.soon(lambda: done.append(True))
    scheduler.turn()
    assert done


# -- the keeper


class Wanted:
    """What the keeper asks of the settings."""

    test = forwarding = local_nat = False
    flush_at_exit = True
    carriers = {}
    blocks = ()

    def __init__(self, state_dir, tables):
        self.state_dir, self.ports = str(state_dir), tables


def cycle(opening, closing):
    return {"kind": "command", "open": opening, "close": closing}


def owner(*names):
    made = Stanza(name="alice")
    made.ports, made.cut, made.where, made.number = names, False, "access.conf:1", 1
    return made


def script(tmp_path, name, text):
    path = tmp_path / name
    path.write_text("#!/bin/sh\n" + text + "\n")
    path.chmod(0o755)
    return str(path)


def asked(source, until, number=None, lasts=30):
    return Grant(number, source, (("tcp", 22),), until - lasts, until, "alice", None, "10.0.0.1", source)


async def settled(what, within=3.0):
    deadline = compat.monotonic() + 1000 * within
    while not what() and compat.monotonic() < deadline:
        await loop.sleep(0.02)
    return what()


def test_a_new_grant_gets_no_id_whose_close_is_still_owed(tmp_path, lines):
    """The daemon was killed; what it had open has expired; the close command fails for a while; a new knock comes."""
    busy = tmp_path / "busy"
    busy.write_text("")
    closing = script(tmp_path, "close", '[ "$1" != 192.0.2.1 ] || [ ! -e %s ]' % busy)
    Journal(str(tmp_path / "grants.journal")).rewrite([(asked("192.0.2.1", compat.wall() - 5, 1), ("cycle",))])
    wanted, stanza = Wanted(tmp_path, {"cycle": cycle("true", closing + " $IP")}), owner("cycle")

    async def body():
        keeper = Keeper(wanted, [stanza], scheduler, Says())
        await keeper.recover()
        keeper.open(asked("192.0.2.2", compat.wall() + 30), ("cycle",))
        os.remove(busy)
        assert await settled(lambda: not keeper.workers["cycle"].owes(), 6)  # the old close was said again
        journal = Journal(str(tmp_path / "grants.journal")).load()
        assert [grant.source for grant, _ in journal] == ["192.0.2.2"]  # or nobody closes it after a kill -9

    scheduler = loop.Loop()
    scheduler.run_until(body())


def test_what_a_cycle_opened_is_closed_by_that_cycle_after_stanzas_are_renumbered(tmp_path, lines):
    """An admin writes a stanza above the others: what was `cycle #1` is now `cycle #2`."""
    note = script(tmp_path, "note", 'echo "$@" >> %s' % (tmp_path / "notes"))
    first = Wanted(tmp_path, {"cycle #1": cycle(note + " open-a", note + " close-a")})
    second = Wanted(
        tmp_path,
        {
            "cycle #1": cycle(note + " open-b", note + " close-b"),
            "cycle #2": cycle(note + " open-a", note + " close-a"),
        },
    )

    async def body():
        keeper = Keeper(first, [owner("cycle #1")], scheduler, Says())
        await keeper.recover()
        keeper.open(asked("192.0.2.1", compat.wall() + 2, lasts=2), ("cycle #1",))
        await settled(lambda: (tmp_path / "notes").exists())
        changed = await keeper.change(second, [owner("cycle #1"), owner("cycle #2")])
        await keeper.settle(changed, True)
        await settled(lambda: "close" in (tmp_path / "notes").read_text(), 5)

    scheduler = loop.Loop()
    scheduler.run_until(body())
    assert (tmp_path / "notes").read_text().split() == ["open-a", "close-a"]


def test_a_grant_that_is_extended_through_another_port_is_closed_on_both(tmp_path, lines):
    """A stanza's ports change by SIGHUP, or `tinyknop open` names another port, while the same is open."""
    note = script(tmp_path, "note", 'echo "$@" >> %s' % (tmp_path / "notes"))
    wanted = Wanted(tmp_path, {name: cycle(note + " open-" + name, note + " close-" + name) for name in "ab"})

    async def body():
        keeper = Keeper(wanted, [owner("a", "b")], scheduler, Says())
        await keeper.recover()
        grant = keeper.open(asked("192.0.2.1", compat.wall() + 30), ("a",))
        await settled(lambda: (tmp_path / "notes").exists())
        keeper.open(asked("192.0.2.1", compat.wall() + 31), ("b",))
        await settled(lambda: "open-b" in (tmp_path / "notes").read_text())
        keeper.close(grant.id)
        await settled(lambda: not keeper._owed)

    scheduler = loop.Loop()
    scheduler.run_until(body())
    assert sorted((tmp_path / "notes").read_text().split()) == ["close-a", "close-b", "open-a", "open-b"]


def test_a_close_that_is_said_again_leaves_alone_what_was_opened_since(tmp_path, lines):
    """A close command fails; the user knocks anew before it is tried again."""
    busy, notes = tmp_path / "busy", tmp_path / "notes"
    busy.write_text("")
    note = script(tmp_path, "note", '[ "$1" = open ] || [ ! -e %s ] || exit 1\necho $1 >> %s' % (busy, notes))
    wanted = Wanted(tmp_path, {"cycle": cycle(note + " open", note + " close")})

    async def body():
        keeper = Keeper(wanted, [owner("cycle")], scheduler, Says())
        await keeper.recover()
        keeper.open(asked("192.0.2.1", compat.wall() + 1, lasts=1), ("cycle",))
        assert await settled(lambda: keeper.workers["cycle"]._tries)
        keeper.open(asked("192.0.2.1", compat.wall() + 30), ("cycle",))
        assert await settled(lambda: notes.read_text() == "open\nopen\n")
        os.remove(busy)
        await loop.sleep(2.5)

    scheduler = loop.Loop()
    scheduler.run_until(body())
    assert notes.read_text().split()[-1] == "open"


def test_a_carrier_that_another_configuration_gives_other_options_is_made_anew(tmp_path, lines, monkeypatch):
    made = []
    monkeypatch.setattr(ports, "carrier", lambda name, options: made.append(options["host"]))
    first, second = Wanted(tmp_path, {}), Wanted(tmp_path, {})
    first.carriers, second.carriers = {"edge": {"kind": "ssh", "host": "old"}}, {"edge": {"kind": "ssh", "host": "new"}}

    async def body():
        keeper = Keeper(first, [], scheduler, Says())
        await keeper.recover()
        await keeper.settle(await keeper.change(second, []), True)

    scheduler = loop.Loop()
    scheduler.run_until(body())
    assert made == ["old", "new"]


class Slow:
    """A port that takes its time to start and to close."""

    outlives_us = self_timed = False
    held = []

    def __init__(self, delay):
        self.delay = delay

    def describe(self):
        return "slow"

    async def start(self):
        await loop.sleep(self.delay)

    async def open(self, grant, seconds):
        self.held.append(grant.source)

    async def close(self, *grants):
        await loop.sleep(self.delay)

    async def sync(self, live):
        self.held[:] = [grant.source for grant, _ in live]

    async def stop(self, flush):
        pass


def test_a_close_while_a_port_is_changed_is_confirmed(tmp_path, lines, monkeypatch):
    """A grant ends while the port of the new configuration still starts."""

    monkeypatch.setattr(ports, "make", lambda name, options, carriers: Slow(float(options["pause"])))
    first, second = Wanted(tmp_path, {"p": {"pause": "0.3"}}), Wanted(tmp_path, {"p": {"pause": "0.4"}})

    async def body():
        keeper = Keeper(first, [owner("p")], scheduler, Says())
        await keeper.recover()
        now = compat.wall()
        keeper.open(asked("192.0.2.1", now + 1, lasts=1), ("p",))
        await loop.sleep(0.8)
        changed = await keeper.change(second, [owner("p")])  # its end comes meanwhile
        await keeper.settle(changed, True)
        assert await settled(lambda: not keeper._owed, 3), keeper._owed

    scheduler = loop.Loop()
    scheduler.run_until(body())


# -- the front end


def test_a_wrong_chain_that_is_not_in_use_gives_no_traceback(tmp_path):
    for name, text in (
        ("fwknopd.conf", "PCAP_INTF lo;\nIPT_FORWARD_ACCESS ACCEPT, filter, FORWARD;\n"),
        ("access.conf", "SOURCE ANY\nKEY secret\n"),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "none.pcap").write_bytes(b"\xd4\xc3\xb2\xa1\2\0\4\0" + bytes(8) + b"\xff\xff\0\0\1\0\0\0")
    argv = [sys.executable, "-m", "tinyknop", "fwknopd", "-f", "-t", "--pcap-file", str(tmp_path / "none.pcap")]
    argv += ["-c", str(tmp_path / "fwknopd.conf"), "-a", str(tmp_path / "access.conf"), "-r", str(tmp_path / "run")]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, cwd=ROOT)
    assert b"Traceback" not in done.stderr, done.stderr.decode()


def test_a_key_behind_an_equals_sign_is_not_shown_in_the_error(tmp_path, capsys):
    secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"
    for name, text in (("fwknopd.conf", "PCAP_INTF lo;\n"), ("access.conf", "SOURCE ANY\nKEY_BASE64=%s\n" % secret)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    kept = log.sink, log.threshold
    try:
        words = ["-c", str(tmp_path / "fwknopd.conf"), "-a", str(tmp_path / "access.conf"), "-r", str(tmp_path / "run")]
        fwknopd.main(["--exit-parse-config", *words])
    finally:
        log.sink, log.threshold = kept
    out, err = capsys.readouterr()
    assert secret[:12] not in out + err
