"""Runs a script on MicroPython with the staged tree before all else: on_micropython.py [--nossl] SCRIPT ARG...

With --nossl it has no hash but SHA-256 and no AES, as OpenWrt's micropython-nossl and the ESP8266.
"""

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
    if argv[:1] == ["--nossl"]:
        argv = argv[1:]
        path.insert(0, os.path.join(ROOT, "tests", "nossl"))
    os.environ["MICROPYPATH"] = ":".join(path)
    os.execv(binary, [binary, "-X", "heapsize=16m"] + argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
