"""Runs the bare test functions of tests/core on either Python, without pytest: run_core.py [PART OF A FILE'S NAME]...

On MicroPython start it by scripts/on_micropython.py, which puts the staged tree first on the path. Files named
test_host_* are for CPython only. TINYKNOP_CRYPTO=small takes the plain Python ciphers on CPython too.
"""

import gc
import os
import sys

MICROPYTHON = sys.implementation.name == "micropython"


def parent(path):
    cut = path.rfind("/")
    return path[:cut] if cut > 0 else "."


def complain(error):
    if MICROPYTHON:
        sys.print_exception(error)
    else:
        import traceback

        traceback.print_exception(type(error), error, error.__traceback__)


def names(folder, wanted):
    """Returns the modules to run, sorted, since MicroPython lists a folder in any order."""
    found = [name[:-3] for name in os.listdir(folder) if name.startswith("test_") and name.endswith(".py")]
    if MICROPYTHON:
        found = [name for name in found if not name.startswith("test_host_")]
    if wanted:
        found = [name for name in found if any(part in name for part in wanted)]
    return sorted(found)


def run_module(name):
    """Returns (passed, failed) of one file; a file that cannot be imported counts as one failure."""
    try:
        module = __import__(name)
    except Exception as error:
        print("FAILED %s: not imported" % name)
        complain(error)
        return 0, 1
    passed = failed = 0
    for test in sorted(dir(module)):
        function = getattr(module, test)
        if not test.startswith("test_") or not callable(function):
            continue
        try:
            function()
            passed += 1
        except Exception as error:
            print("FAILED %s.%s" % (name, test))
            complain(error)
            failed += 1
        gc.collect()
    return passed, failed


def main(wanted):
    here = parent(__file__)
    folder = here + "/core"
    sys.path.insert(0, folder)
    if not MICROPYTHON:  # there the staged tree has to stay first
        sys.path.insert(0, parent(os.path.abspath(here)))
    passed = failed = 0
    for name in names(folder, wanted):
        good, bad = run_module(name)
        passed += good
        failed += bad
    print("%s: %d passed, %d failed" % (sys.implementation.name, passed, failed))
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
