"""A day of knocks, floods, reloads, an interface and a device that come and go: nothing grows, nothing is late."""

import json
import os
import subprocess
import sys

from tests.need import need, need_namespaces
from tests.real import peers

DAY = os.path.join(peers.ROOT, "tests", "real", "day.py")
BACK_OFF = 60000  # ms: the longest pause between two tries of a device that does not answer


def test_a_day_leaves_nothing_open_nothing_late_and_nothing_behind(tmp_path):
    need("ip")
    argv = [*need_namespaces(), sys.executable, DAY, str(tmp_path), "24"]
    env = dict(os.environ, PYTHONPATH=peers.ROOT)
    done = subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout.decode()[-3000:]
    day = json.loads(done.stdout)
    counters, near, far = day["counters"], day["near"], day["far"]
    assert day["hours"] > 24 and day["errors"] == []
    assert day["sent"] > 2000 and day["unheard"] == 0 and counters["granted"] == day["sent"] + 48
    assert counters["hmac"] == 48 * 270 and counters["replay"] == 48 * 29
    assert (day["live"], near["open"], far["open"]) == (0, 0, 0)
    # A grant's time is counted in whole seconds.
    assert near["closes"] > 1000 and near["early"] == 0 and near["latest"] <= 1000
    assert far["closes"] > 1000 and far["latest"] <= BACK_OFF
    memory, files, timers, objects = [late - early for early, late in zip(day["early"], day["late"])]
    assert memory < 1024 and files == 0 and timers < 5 and objects < 500
