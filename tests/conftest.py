"""Settings for all tests: hypothesis' share of `make test` and of `make soak`."""

import pytest
from hypothesis import HealthCheck, settings

from tests.need import CI, SOAK
from tinyknop import log

# No deadline: two shared cores stall for longer than any function under test runs.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "database": None}
settings.register_profile("test", max_examples=200, derandomize=CI, **COMMON)
settings.register_profile("soak", max_examples=20000, **COMMON)
settings.load_profile("soak" if SOAK else "test")


@pytest.fixture(autouse=True)
def log_as_it_was():
    """Gives the log back what a test took from it: all tests of a worker share one process."""
    kept = log.sink, log.threshold
    yield
    log.sink, log.threshold = kept
