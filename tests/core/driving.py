"""Runs what a port does without a loop."""

from tinyknop.errors import PortError


def drive(coroutine):
    """Returns what a coroutine returns; where it waits it goes on at once."""
    try:
        while True:
            coroutine.send(None)
    except StopIteration as end:
        return end.value


def at_once(coroutine):
    """Returns what a coroutine returns that must not wait."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


def raised(coroutine):
    """Returns the reason of the PortError that a coroutine raises."""
    try:
        drive(coroutine)
    except PortError as error:
        return error.reason
    raise AssertionError("not raised")
