"""The log as events: every field where it belongs, nothing breaks a line, and no secret in any."""

import json
import shlex
import socket
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyknop import log
from tinyknop.errors import ConfigError
from tinyknop.gate import Datagram, Decision
from tinyknop.grants import Grant, Nat
from tinyknop.host import events
from tinyknop.says import BURST, Says

GRANT = Grant(7, "192.0.2.7", (("tcp", 22), ("udp", 53)), 1000, 1030, "alice", None, "192.0.2.1", "198.51.100.2")
STANZA = SimpleNamespace(name="alice")
DATAGRAM = Datagram(b"the whole packet", bytes([198, 51, 100, 2]), 1, bytes(4), 62201, 17)
PACKET = SimpleNamespace(message="the plain text", username="secret-user")


@pytest.fixture
def lines(monkeypatch):
    """Collects (level, text) of the log."""
    found = []
    monkeypatch.setattr(log, "sink", lambda level, text: found.append((level, text)))
    monkeypatch.setattr(log, "threshold", 0)
    return found


def refusal(stage, packet=PACKET, stanza=STANZA):
    return Decision(None, None, stage, "the reason", stanza, packet, None)


def test_life_of_a_grant_is_told_in_fields(lines):
    says = events.Events()
    says.opened(GRANT, STANZA, DATAGRAM)
    says.added(SimpleNamespace(name="firewall"), GRANT)
    says.closing(GRANT)
    says.removed(SimpleNamespace(name="firewall"), GRANT)
    who = [("id", 7), ("source", "192.0.2.7"), ("stanza", "alice"), ("openings", "tcp/22,udp/53")]
    until = [("until", "1970-01-01T00:17:10Z"), ("seconds", 30)]
    port = [("port", "firewall")]
    assert [(level, text.fields) for level, text in lines] == [
        ("info", [("event", "opened"), *who, ("sender", "198.51.100.2"), *until]),
        ("debug", [("event", "added"), *who, *port]),
        ("info", [("event", "closing"), *who]),
        ("debug", [("event", "removed"), *who, *port]),
    ]


def test_nat_hand_and_command_are_told_and_never_what_a_packet_says(lines):
    says = events.Events()
    inside = Nat(False, "10.0.0.5", 80, None, False, True)
    says.opened(GRANT._replace(nat=inside), STANZA, DATAGRAM)
    says.by_hand(GRANT)
    says.commanded(SimpleNamespace(text="rm -rf /", source="192.0.2.7", sender="192.0.2.7"), STANZA, DATAGRAM)
    says.read(PACKET)
    told = [dict(text.fields) for _, text in lines]
    assert told[0]["inside"] == "10.0.0.5:80" and told[1]["by"] == "hand" and told[2]["event"] == "command"
    assert len(told) == 3 and "rm -rf" not in str(told)


def test_junk_is_summed_up_and_what_proved_itself_has_a_line(lines):
    says = events.Events()
    says.refused(refusal("hmac", None, None), DATAGRAM)
    assert lines == []
    says.refused(refusal("age"), DATAGRAM)
    says.refused(refusal("full", None), DATAGRAM)
    says.summed([("hmac", 40), ("age", 2)])
    told = [dict(text.fields) for _, text in lines]
    who = {"source": "198.51.100.2", "stanza": "alice"}
    assert told[0] == dict(who, event="refused", stage="age", reason="the reason")
    assert told[1]["stage"] == "full"
    assert told[2] == {"event": "summary", "refused": 42, "hmac": 40, "age": 2}
    for secret in ("whole packet", "plain text", "secret-user"):
        assert secret not in str(told)


def test_flood_of_true_packets_ends_in_one_message(lines, monkeypatch):
    monkeypatch.setattr("tinyknop.compat.monotonic", lambda: 5000)
    says = events.Events()
    for _ in range(BURST + 10):
        says.refused(refusal("age"), DATAGRAM)
    assert len(lines) == BURST + 1
    assert events.fields_of(lines[-1][1]) == [("event", "message"), ("text", str(lines[-1][1]))]


def test_every_event_of_the_daemon_is_told_here_too():
    theirs = {name for name in vars(Says) if not name.startswith("_")} - {"limiter", "read", "replay"}
    assert theirs <= set(vars(events.Events))


VALUES = st.one_of(st.integers(), st.text())


@settings(max_examples=50)
@given(st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), VALUES, min_size=1))
def test_line_is_one_line_and_can_be_read_back(fields):
    pairs = list(fields.items())
    assert json.loads(events.as_json(pairs)) == fields
    line = events.logfmt(pairs)
    assert len(line.splitlines()) == 1 and "\n" not in events.as_json(pairs)
    read = {}
    decoder = json.JSONDecoder()
    while line:
        name, _, line = line.partition("=")
        if line.startswith('"'):
            value, end = decoder.raw_decode(line)
        else:
            end = len(line.partition(" ")[0])
            value = line[:end]
        read[name], line = value, line[end:].lstrip(" ")
    assert read == {name: str(value) for name, value in fields.items()}


def wanted(**more):
    values = {"log": "logfmt", "log_to": "stderr", "syslog_identity": "fwknopd", "syslog_facility": "LOG_LOCAL3"}
    values.update(more)
    return SimpleNamespace(**values)


def test_stderr_lines_carry_time_and_level(monkeypatch, capsys):
    monkeypatch.setattr(log, "sink", log.sink)
    monkeypatch.setattr("time.time", lambda: 1030)
    assert isinstance(events.use(wanted()), events.Events)
    log.warning("port %s fails", "x y")
    said = 'time=1970-01-01T00:17:10Z level=warning event=message text="port x y fails"\n'
    assert capsys.readouterr().err == said
    events.use(wanted(log="json")).closing(GRANT)
    told = json.loads(capsys.readouterr().err)
    assert list(told)[:3] == ["time", "level", "event"] and told["id"] == 7
    assert shlex.split(said)[3] == "text=port x y fails"


def test_plain_text_stays_as_it_is(monkeypatch):
    kept = log.sink
    assert events.use(wanted(log="text")) is None
    assert log.sink is kept


# Compiled settings have no places.
NAMED = [
    ("tinyknop", "fwknopd", {}),
    ("mine", "mine", {"syslog_identity": "x.toml:1"}),
    ("mine", "mine", {}),
    ("fwknopd", "fwknopd", {"syslog_identity": "x.toml:1"}),
]


@pytest.mark.parametrize("identity, name, places", NAMED)
def test_syslog_gets_level_and_line_under_our_name(monkeypatch, identity, name, places):
    monkeypatch.setattr(log, "sink", log.sink)
    said, opened = [], []
    monkeypatch.setattr(events, "LOG", "/dev/null")
    monkeypatch.setattr("syslog.openlog", lambda *words: opened.append(words))
    monkeypatch.setattr("syslog.syslog", lambda level, text: said.append((level, text)))
    assert events.use(wanted(log="text", log_to="syslog", syslog_identity=name, places=places)) is None
    log.error("no space")
    events.use(wanted(log_to="syslog", places=places)).closing(GRANT)
    import syslog

    assert opened[0] == (identity, syslog.LOG_PID, syslog.LOG_LOCAL3)
    assert said[0] == (syslog.LOG_ERR, "no space")
    assert said[1] == (syslog.LOG_INFO, "event=closing id=7 source=192.0.2.7 stanza=alice openings=tcp/22,udp/53")


def read_fields(data):
    """Reads a datagram of the journal's protocol, https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""
    found = {}
    while data:
        name, equals, rest = data.partition(b"\n")[0].partition(b"=")
        if equals:
            found[name.decode()], data = rest.decode(), data.partition(b"\n")[2]
        else:
            rest = data[len(name) + 1 :]
            size = int.from_bytes(rest[:8], "little")
            found[name.decode()], data = rest[8 : 8 + size].decode(), rest[9 + size :]
    return found


def test_journal_gets_each_field_and_lines_of_several(monkeypatch, tmp_path):
    monkeypatch.setattr(log, "sink", log.sink)
    path = str(tmp_path / "socket")
    monkeypatch.setattr(events, "JOURNAL", path)
    with pytest.raises(ConfigError, match="no journal here"):
        events.use(wanted(log_to="journald"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal.settimeout(5)
        says = events.use(wanted(log_to="journald"))
        says.closing(GRANT)
        told = read_fields(journal.recv(4096))
        assert told["SYSLOG_IDENTIFIER"] == "tinyknop" and told["PRIORITY"] == "6"
        assert told["TINYKNOP_STANZA"] == "alice" and told["TINYKNOP_EVENT"] == "closing"
        assert told["MESSAGE"].startswith("event=closing id=7 ")
        events.use(wanted(log="text", log_to="journald"))
        log.error("a trace\nof two lines")
        told = read_fields(journal.recv(4096))
        assert told == {"PRIORITY": "3", "SYSLOG_IDENTIFIER": "tinyknop", "MESSAGE": "a trace\nof two lines"}


NASTY = "a\0b\ud800c\33[31m\nPRIORITY=0\n"


@pytest.mark.parametrize("form", ["text", "logfmt", "json"])
def test_no_character_keeps_a_line_from_syslog_or_the_journal(monkeypatch, tmp_path, form):
    """syslog(3) takes no NUL and UTF-8 no half pair: what a stranger can put into a line must not take it away."""
    monkeypatch.setattr(log, "sink", log.sink)
    said = []
    monkeypatch.setattr(
        "syslog.syslog", lambda level, text: said.append(text.encode().index(0) if 0 in text.encode() else text)
    )
    monkeypatch.setattr(events, "LOG", str(tmp_path))
    events.use(wanted(log=form, log_to="syslog"))
    log.warning("%s", NASTY)
    assert len(said) == 1 and isinstance(said[0], str) and "\n" not in said[0] and "\33" not in said[0]
    path = str(tmp_path / "socket")
    monkeypatch.setattr(events, "JOURNAL", path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        journal.settimeout(5)
        events.use(wanted(log=form, log_to="journald"))
        log.warning("%s", NASTY)
        told = read_fields(journal.recv(4096))
        assert told["PRIORITY"] == "4" and set(told) - {"PRIORITY", "SYSLOG_IDENTIFIER", "MESSAGE"} == (
            set() if form == "text" else {"TINYKNOP_EVENT", "TINYKNOP_TEXT"}
        )


def test_syslog_that_is_not_there_is_told_where_somebody_may_see_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(log, "sink", log._to_stderr)
    monkeypatch.setattr("syslog.openlog", lambda *words: None)
    monkeypatch.setattr("syslog.syslog", lambda *words: None)
    monkeypatch.setattr(events, "LOG", str(tmp_path / "gone"))
    events.use(wanted(log_to="syslog"))
    said = capsys.readouterr().err
    assert "no syslog here" in said and "gone" in said
    monkeypatch.setattr(events, "LOG", str(tmp_path))
    events.use(wanted(log_to="syslog"))
    assert capsys.readouterr().err == ""
