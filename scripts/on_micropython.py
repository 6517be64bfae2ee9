"""Runs a script on MicroPython with the staged tree before all else: on_micropython.py SCRIPT ARG..."""

import os
import sys

from stage import ROOT
from tools import find, remedy


def main(argv):
    """Becomes MicroPython; where it is missing that is an error in CI and a note elsewhere."""
    binary = find("micropython")
    if binary is None:
        print("on_micropython: micropython is missing: " + remedy("micropython"))
        return 1 if os.environ.get("CI") else 0
    path = [os.path.join(ROOT, "build", "stage"), ROOT, os.path.join(ROOT, "tests", "core"), ".frozen"]
    os.environ["MICROPYPATH"] = ":".join(path)
    os.execv(binary, [binary, "-X", "heapsize=16m"] + argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
