"""The command port: templates are split first and filled in then; an open is tried once, a close until it succeeds."""

from tinyknop.ports.carriers.tape import Tape

from tinyknop import log, ports
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant, Nat

BOTH = (("tcp", 22), ("udp", 53))
GRANT = Grant(1, "10.99.0.9", BOTH, 1000, 1003, "alice", None, "10.99.0.1", "10.99.0.2")
ONE = Grant(1, "10.99.0.9", BOTH[:1], 1000, 1003, "alice", None, "10.99.0.1", "10.99.0.2")


def drive(coroutine):
    """Drives a coroutine to its end; returns what was logged."""
    lines = []
    kept, log.sink = log.sink, lambda level, text: lines.append(level + ": " + text)
    try:
        while True:
            coroutine.send(None)
    except StopIteration:
        return lines
    finally:
        log.sink = kept


def made(opening, closing="NONE", **more):
    """Returns a command port over a tape."""
    tape = Tape()
    options = {"kind": "command", "via": "tape", "open": opening, "close": closing, "where": "t.toml:7"}
    options.update(more)
    return ports.make("fw", options, {"tape": tape})


def test_every_variable_of_fwknopd_has_its_value():
    port = made("/bin/o $IP $SRC $PKT_SRC $DST $PORT $PROTO $TIMEOUT $CLIENT_TIMEOUT")
    drive(port.open(ONE, 3))
    assert port.carrier.lines == ["/bin/o 10.99.0.9 10.99.0.9 10.99.0.2 10.99.0.1 22 6 1003 3"]


def test_the_ipset_recipe_of_fwknops_release_notes():
    port = made("ipset add fwknop_allow $SRC,$PROTO:$PORT timeout $CLIENT_TIMEOUT")
    drive(port.open(ONE, 3))
    drive(port.close(ONE))
    assert port.carrier.lines == ["ipset add fwknop_allow 10.99.0.9,6:22 timeout 3"]


def test_each_opening_has_its_run():
    port = made("o $PROTO:$PORT", "c $PORT")
    drive(port.open(GRANT, 3))
    drive(port.close(GRANT))
    assert port.carrier.lines == ["o 6:22", "o 17:53", "c 22", "c 53"]


def test_names_are_matched_as_prefixes_and_an_unknown_one_loses_its_dollar():
    port = made("o $IPx $SRCE:$PORTS $x $ $$PORT a$ $PKT_SRC$DST $SRC$")
    drive(port.open(Grant(1, "$PORT", (("tcp", 22),), 0, 9, "a", None, "d", "s"), 9))
    assert port.carrier.lines == ["o $PORTx $PORTE:22S x  22 a sd $PORT"]


def test_a_value_is_never_split_and_no_word_vanishes():
    port, said = made("o [$SRC] $y"), []

    async def say(*words, text=None, within=None, keep=None):
        said.append(words)

    port.carrier.say = say
    drive(port.open(Grant(1, "a b;c", (("tcp", 22),), 0, 9, "a", None, "d", "s"), 9))
    assert said == [("o", "[a b;c]", "y")]


def test_an_expansion_may_be_longer_than_fwknopd_takes():
    port = made("o " + "$SRC " * 100)
    drive(port.open(GRANT, 3))
    assert len(port.carrier.lines[0]) == 2 + 100 * 10 - 1


def test_fwknopds_words_are_in_the_log():
    port = made("o $SRC", "c $SRC")
    assert drive(port.open(ONE, 3)) == [
        "info: Running CMD_CYCLE_OPEN command: o 10.99.0.9",
        "info: Running CMD_CYCLE_CLOSE command in 3 seconds: c 10.99.0.9",
    ]
    assert drive(port.close(ONE)) == ["info: Timer expired, running CMD_CYCLE_CLOSE command: c 10.99.0.9"]


def test_a_failing_open_is_logged_and_the_next_opening_is_still_run():
    port = made("o $PORT")
    port.carrier.answers = [("o 22", PortError("tape", "o: status 3"))]
    lines = drive(port.open(GRANT, 3))
    assert lines[1] == "warning: CMD_CYCLE_OPEN command failed: o: status 3"
    assert port.carrier.lines == ["o 22", "o 53"]


def test_a_failing_close_is_raised_so_that_it_is_tried_again():
    port = made("o", "c $PORT")
    port.carrier.answers = [("c 22", PortError("tape", "c: status 3"))]
    try:
        drive(port.close(GRANT))
        raise AssertionError("not raised")
    except PortError as error:
        assert error.reason == "c: status 3"


def test_nothing_is_run_by_sync_start_or_stop():
    port = made("o", "c")
    drive(port.start())
    drive(port.sync([(GRANT, 3)]))
    drive(port.stop(True))
    assert port.carrier.lines == []


def test_a_grant_with_nat_is_run_like_any_other():
    port = made("o $PORT")
    nat = Nat(False, "192.168.1.2", 22, None, False, True)
    drive(port.open(Grant(1, "10.99.0.9", (("tcp", 9000),), 0, 3, "alice", nat, "10.99.0.1", "10.99.0.2"), 3))
    assert port.carrier.lines == ["o 9000"]
    assert port.blind and port.nats and port.by_destination and port.outlives_us and not port.self_timed


def test_limits_go_to_the_carrier():
    class Patient(Tape):
        async def say(self, *words, text=None, within=None, keep=None):
            self.lines.append((words, within, keep > 0))

    options = {"kind": "command", "via": "edge", "open": "o", "close": "c", "timeout": "5"}
    port = ports.make("fw", options, {"edge": Patient()})
    drive(port.open(GRANT, 3))
    assert port.carrier.lines[0] == (("o",), 5, True)


def test_what_cannot_be_meant_is_refused_where_it_stands():
    for options, word in (
        ({"open": ""}, "open is missing"),
        ({"open": " \t"}, "open is missing"),
        ({"close": ""}, "close is missing"),
        ({"timeout": "soon"}, "timeout = soon"),
        ({"timeout": "0"}, "timeout = 0"),
        ({"timeout": "99999999"}, "timeout"),
        ({"opens": "x"}, "opens"),
    ):
        more = {"opening": "o"}
        more.update({{"open": "opening", "close": "closing"}.get(name, name): text for name, text in options.items()})
        try:
            made(**more)
            raise AssertionError("not refused: %s" % options)
        except ConfigError as error:
            assert error.stage == "t.toml:7" and word in error.reason, error
