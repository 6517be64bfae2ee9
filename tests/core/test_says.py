"""What the daemon says in plain words, where no other way of logging was asked for."""

from tinyknop import config, log
from tinyknop.daemon import Daemon
from tinyknop.grants import Grant
from tinyknop.loop import Loop
from tinyknop.says import Says
from tinyknop.settings import Settings
from tinyknop.stanza import Stanza

GRANT = Grant(1, "192.0.2.7", (("tcp", 22), ("udp", 53)), 1700000000, 1700000030, "alice", None, "0.0.0.0", "192.0.2.7")


def heard(body):
    """Returns [(level, line)] of what a piece of work logs."""
    said, before = [], log.sink
    log.sink = lambda level, text: said.append((level, text))
    try:
        body()
    finally:
        log.sink = before
    return said


def test_who_opened_what_by_hand_is_said():
    said = heard(lambda: Says().by_hand(GRANT))
    assert said == [("info", "opened tcp/22,udp/53 for 192.0.2.7 until 1700000030, by hand")]


def test_a_daemon_that_nobody_watches_says_that_a_capture_is_through():
    words = {"ports": "door", "SOURCE": "ANY", "KEY": "k" * 16, "HMAC_KEY": "h" * 16, "name": "alice"}
    settings, stanza = Settings([]), Stanza([(name, text, "test:1") for name, text in words.items()], "test:1")
    settings.ports = {"door": {"kind": "command", "open": "true", "close": "true"}}
    config.finish(settings, [stanza], "test")
    daemon = Daemon(settings, [stanza], Loop())
    assert heard(lambda: daemon.over("The interface disappeared: eth0", 1)) == [
        ("error", "The interface disappeared: eth0")
    ]
