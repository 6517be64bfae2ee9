"""Settings for all tests: hypothesis' share of `make test` and of `make soak`."""

from hypothesis import HealthCheck, settings

from tests.need import CI, SOAK

# No deadline: two shared cores stall for longer than any function under test runs.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow], "database": None}
settings.register_profile("test", max_examples=200, derandomize=CI, **COMMON)
settings.register_profile("soak", max_examples=20000, **COMMON)
settings.load_profile("soak" if SOAK else "test")
