"""A machine that sleeps: a namespace whose clock of the time since boot is ahead stands for one that has slept.

No test can put this machine to sleep; that the kernel counts sleep in CLOCK_BOOTTIME is taken from its manual.
"""

import os
import subprocess
import sys

from tests.need import need, need_namespaces

ASLEEP = 1000  # seconds
CODE = "import time; from tinyknop import compat; print(compat.monotonic() - int(time.monotonic() * 1000))"


def test_the_time_that_a_machine_sleeps_counts():
    need_namespaces()
    words = [need("unshare"), "-T" if os.geteuid() == 0 else "-UrT", "--boottime", str(ASLEEP)]
    slept = int(subprocess.check_output([*words, sys.executable, "-c", CODE], timeout=60))
    awake = int(subprocess.check_output([sys.executable, "-c", CODE], timeout=60))
    assert abs(slept - awake - 1000 * ASLEEP) < 1000
