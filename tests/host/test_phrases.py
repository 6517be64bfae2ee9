"""The daemon's words for what it refuses: the right ones, and never too many."""

from types import SimpleNamespace

import pytest

from tests.core.test_gate import Stanza
from tinyknop import compat, log, spa
from tinyknop.gate import Datagram, Decision
from tinyknop.host.phrases import Phrases
from tinyknop.rules import TESTING
from tinyknop.says import BURST, Limiter, Says

GRAM = Datagram(b"A" * 200, b"\xc0\x00\x02\x63", 5, b"\x0a\x00\x00\x01", 62201, 17)


@pytest.fixture
def said(monkeypatch):
    caught = []
    monkeypatch.setattr(log, "sink", lambda level, text: caught.append(text))
    monkeypatch.setattr(log, "threshold", 1)
    return caught


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(ms=5000)
    monkeypatch.setattr(compat, "monotonic", lambda: now.ms)
    return now


def words(count=1):
    made = Phrases()
    made.settings = SimpleNamespace(test=False)
    made.stanzas = [Stanza() for _ in range(count)]
    for number, stanza in enumerate(made.stanzas):
        stanza.number = number + 1
    return made


def refusal(stage, stanza=None, packet=None, reason="the reason"):
    return Decision(None, None, stage, reason, stanza, packet, None)


def test_a_second_has_room_for_so_many_lines_and_one_that_says_so(said, clock):
    limiter = Limiter()
    for _ in range(2):
        for number in range(3 * BURST):
            limiter.say(log.warning, "line %d of 100%%" % number)
        assert len(said) == BURST + 1 and "only counted" in said[-1]
        said.clear()
        clock.ms += 1000


@pytest.mark.parametrize("made", (words, Says))
def test_junk_does_not_drown_what_somebody_with_a_key_does(said, clock, made):
    says, stanza = made(), words().stanzas[0]
    for _ in range(1000):
        says.refused(refusal("full", stanza), GRAM)
    says.refused(refusal("openings", stanza, SimpleNamespace()), GRAM)
    assert len(said) < 4 * BURST and ("denied" in said[-1] or "openings" in said[-1])


@pytest.mark.parametrize("stage", ("size", "prefix", "charset", "http"))
def test_a_flood_fills_no_disk_where_verbose_shows_junk(said, clock, monkeypatch, stage):
    monkeypatch.setattr(log, "threshold", 0)
    says = words()
    for _ in range(3 * BURST):
        says.refused(refusal(stage, None), GRAM)
    assert len(said) == BURST + 1


@pytest.mark.parametrize("stage", ("hmac", "destination", "expired", "hint"))
def test_a_flood_walks_over_all_stanzas_only_so_often(said, clock, monkeypatch, stage):
    walks, says = [], words(3)
    searched = says._searched
    monkeypatch.setattr(says, "_searched", lambda *given: (walks.append(1), searched(*given)))
    for _ in range(1000):
        says.refused(refusal(stage), GRAM)
    assert len(walks) <= BURST


def test_of_a_stanza_that_has_expired_no_key_is_said_to_be_wrong(said, clock):
    says = words(3)
    says.stanzas[1].expires = 1600000000
    says.stanzas[2].expires = 1 << 40
    for _ in range(2):
        says.refused(refusal("hmac"), GRAM)
    text = "\n".join(said)
    assert text.count("(stanza #2) Access stanza has expired") == 1
    assert "(stanza #1) Non-corresponding" in text and "(stanza #3) Non-corresponding" in text
    assert "(stanza #2) Non-corresponding" not in text


def test_each_stage_has_its_own_words(said, clock):
    says = words()
    for stage in ("replay", "clock", "key"):
        says.refused(refusal(stage, says.stanzas[0]), GRAM)
        assert said[-1] == "[192.0.2.99] (stanza #1) the reason"
    says.refused(refusal("decrypt", says.stanzas[0]), GRAM)
    assert "Decryption failed" in said[-1]


@pytest.mark.parametrize(
    "kind, reason, text",
    (
        (spa.COMMAND, "command messages are not allowed", "SPA Command messages are not allowed"),
        (spa.COMMAND, TESTING, "--test mode enabled, skipping command execution."),
        (spa.NAT, "NAT is asked for, but not enabled", "requested NAT access, but is not enabled"),
        (spa.NAT, TESTING, "--test mode enabled, skipping firewall manipulation."),
        (spa.LOCAL_NAT_TIMEOUT, TESTING, "--test mode enabled, skipping firewall manipulation."),
        (spa.ACCESS, TESTING, "--test mode enabled, skipping firewall manipulation."),
    ),
)
def test_a_packet_of_test_mode_is_not_said_to_be_refused_where_it_would_be_granted(said, clock, kind, reason, text):
    says = words()
    says.settings.test = True
    packet = SimpleNamespace(message_type=kind)
    says.refused(refusal("disabled", says.stanzas[0], packet, reason), GRAM)
    assert text in said[-1]
