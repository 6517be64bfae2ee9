"""Settings for all tests: hypothesis' share of `make test` and of `make soak`."""

import locale

import pytest
from hypothesis import HealthCheck, settings

from tests.need import CI, SOAK
from tinyknop import log

# No deadline: two shared cores stall for longer than any function under test runs.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "database": None}
settings.register_profile("test", max_examples=200, derandomize=CI, **COMMON)
settings.register_profile("soak", max_examples=20000, **COMMON)
settings.load_profile("soak" if SOAK else "test")


AT_FIRST = log.sink, log.threshold, locale.setlocale(locale.LC_ALL)


@pytest.fixture(autouse=True)
def nothing_left_over():
    """Gives the log and the locale back what a test took from them: all tests of a worker share one process."""
    log.sink, log.threshold = AT_FIRST[:2]
    yield
    log.sink, log.threshold = AT_FIRST[:2]
    locale.setlocale(locale.LC_ALL, AT_FIRST[2])


def children():
    with open("/proc/thread-self/children") as file:
        return set(file.read().split())


@pytest.fixture
def no_child_left():
    """Asserts that a test has waited for each of its child processes; those of others do not matter."""
    before = children()
    yield
    assert children() <= before
