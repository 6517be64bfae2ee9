"""gpio: a pin is on while anything is open. The board's `machine` is a stand-in."""

import sys

from tinyknop.ports import gpio

from tinyknop import compat
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant
from tinyknop.loop import Loop


class Pin:
    OUT = 1
    levels = []

    def __init__(self, name, mode, value):
        if name == 99:
            raise ValueError("invalid pin")
        self.levels.append((name, value))

    def value(self, level):
        self.levels.append(level)


class Machine:
    Pin = Pin


def grant(number, source="192.0.2.7", openings=(("tcp", 22),)):
    return Grant(number, source, openings, 100, 130, "alice", None, "0.0.0.0", source)


class Door:
    """A port on the stand-in, and what its pin was told."""

    def __init__(self, **options):
        sys.modules["machine"] = Machine
        Pin.levels = []
        self.loop = Loop()
        given = dict(gpio.OPTIONS)
        given.update(options)
        try:
            self.port = gpio.Port("door", given, None)
            self.run(self.port.start())
        finally:
            del sys.modules["machine"]

    def run(self, coroutine):
        self.loop.run_until(coroutine)
        levels, Pin.levels = Pin.levels, []
        return levels


def test_pin_is_on_from_the_first_opening_to_the_end_of_the_last():
    door = Door(pin="15")
    assert door.run(door.port.open(grant(1), 30)) == [1]
    assert door.run(door.port.open(grant(2, "192.0.2.8"), 30)) == [1]
    assert door.run(door.port.close(grant(1))) == []
    assert door.run(door.port.close(grant(2, "192.0.2.8"))) == [0]
    assert door.run(door.port.close(grant(2, "192.0.2.8"))) == [0]


def test_longer_grant_in_the_place_of_a_shorter_one_holds_it_on_until_its_own_end():
    door = Door(pin="15")
    door.run(door.port.open(grant(1), 30))
    door.run(door.port.open(grant(2), 60))  # the same opening: only the longer one's end is ever said
    assert door.run(door.port.close(grant(2))) == [0]


def test_active_low_is_off_at_the_start():
    door = Door(pin="LED", active="low")
    assert Pin.levels == [] and door.port.on == 0
    assert door.run(door.port.open(grant(1), 30)) == [0]
    assert door.run(door.port.stop()) == [1]


def test_sync_sets_what_lives():
    door = Door(pin="15")
    assert door.run(door.port.sync([(grant(1), 5)])) == [1]
    assert door.run(door.port.sync([])) == [0]


def test_pulse_ends_by_itself_and_is_not_given_again_after_a_restart():
    door = Door(pin="15", pulse="20")
    assert door.run(door.port.sync([(grant(1), 5)])) == []
    assert door.run(door.port.open(grant(1), 30)) == [1]
    end = compat.monotonic() + 1000
    while not Pin.levels and compat.monotonic() < end:
        door.loop.turn()
    assert Pin.levels == [0]


def test_what_cannot_be_is_refused():
    for options in ({}, {"pin": "1", "active": "on"}, {"pin": "1", "pulse": "1s"}):
        try:
            Door(**options)
        except ConfigError:
            continue
        raise AssertionError(options)
    try:
        Door(pin="99")
    except PortError as error:
        assert "no such pin" in error.reason
        return
    raise AssertionError
