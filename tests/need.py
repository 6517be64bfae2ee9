"""What a test asks of the machine: a missing tool fails in CI and skips elsewhere, with the line that brings it."""

import os
import subprocess

import pytest

from scripts.tools import find, remedy

CI = os.environ.get("CI", "") not in ("", "0", "false")
SOAK = os.environ.get("TINYKNOP_SOAK", "") not in ("", "0")


def lacking(reason):
    """Ends the test: a failure in CI, where all must run, and a skip with the reason elsewhere."""
    if CI:
        pytest.fail("needed in CI: " + reason, pytrace=False)
    pytest.skip(reason)


def need(*tools):
    """Returns the path of the tool (a list of paths for several), or ends the test with what is missing."""
    paths = [find(tool) for tool in tools]
    gone = ["%s is missing (%s)" % (tool, remedy(tool)) for tool, path in zip(tools, paths) if not path]
    if gone:
        lacking("; ".join(gone))
    return paths[0] if len(paths) == 1 else paths


def need_namespaces():
    """Returns the unshare words that give root of an own network here: none of them more than it takes."""
    unshare = need("unshare")
    argv = [unshare, "-nm"] if os.geteuid() == 0 else [unshare, "-Urnm"]
    tried = subprocess.run([*argv, "true"], capture_output=True, text=True)
    if tried.returncode:
        lacking("no network namespaces here: " + tried.stderr.strip())
    return argv


def share(quick, long):
    """Returns how much of a long run to do: the quick share in `make test`, all of it in `make soak`."""
    return long if SOAK else quick
