"""The unit and its drop-in give the daemon what its own table of capabilities knows, no more and no less."""

import os
import re
import subprocess

from tests.need import need
from tinyknop.host import privileges

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "boards", "systemd")


def given(name, directive):
    """Returns the words of a directive that is there once and not commented out."""
    with open(os.path.join(FOLDER, name)) as file:
        found = re.findall("(?m)^%s=(.*)$" % directive, file.read())
    assert len(found) == 1, directive
    return found[0].split()


def test_the_unit_gives_what_firewalls_and_captures_need():
    for directive in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert sorted(given("tinyknop.service", directive)) == sorted(privileges.PASSED_ON)


def test_the_drop_in_for_commands_gives_what_they_need():
    wanted = set(privileges.NUMBERS) - set(privileges.PASSED_ON) - {"CAP_NET_BIND_SERVICE", "CAP_SYSLOG"}
    for directive in ("AmbientCapabilities", "CapabilityBoundingSet"):
        assert set(given("commands.conf", directive)) == wanted


def test_the_unit_leaves_no_keys_behind():
    assert given("tinyknop.service", "LimitCORE") == ["0"] and given("tinyknop.service", "UMask") == ["0077"]


def test_numbers_are_those_of_the_kernel():
    """By capsh, which has the kernel's own list."""
    for name, number in privileges.NUMBERS.items():
        said = subprocess.run([need("capsh"), "--decode=%x" % (1 << number)], capture_output=True, text=True).stdout
        assert said.strip().endswith("=" + name.lower())
