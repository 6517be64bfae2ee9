"""Runs all tests under coverage, in child processes, namespaces and other users too, and lists what none of them reach.

covered.py [--report]: with --report only the last run is looked at. The exit status is 1 below 95 % of the lines, or
where a function is never entered that is not in ELSEWHERE.
"""

import concurrent.futures
import glob
import json
import os
import shutil
import subprocess
import sys

from setup import PYTHON, ROOT, pip

FOLDER = os.path.join(ROOT, "build", "coverage")
CONFIG = os.path.join(FOLDER, "rc")
LEAST = 95.0  # per cent of the lines
# `patch` and `sigterm`: daemons are started by name, fork, exec, and end by signals.
SETTINGS = """[run]
source_pkgs = tinyknop, tinyknop.ports
omit = /tmp/*
parallel = true
sigterm = true
patch = subprocess, _exit, execv
data_file = %s
disable_warnings = module-not-imported, no-data-collected, couldnt-parse
"""
# What only MicroPython runs: in tests/core, and in tests/real/test_micropython.py and test_board.py.
ELSEWHERE = (
    "tinyknop/child_small.py",
    "tinyknop/__main__.py",
    "tinyknop/compat.py monotonic",
    "tinyknop/compat.py only_in",
    "tinyknop/compat.py room",
    "tinyknop/compat.py fsync",
    "tinyknop/compat.py peer",
    "tinyknop/compat.py append_to",
    "tinyknop/compat.py _packed",
    "ports/carriers/serial.py _Plain",
    "ports/carriers/serial.py _Uart",
)


def coverage(*words):
    """Runs coverage with our settings; returns its exit status."""
    return subprocess.call([PYTHON, "-m", "coverage", words[0], "--rcfile=" + CONFIG, *words[1:]], cwd=ROOT)


def tests():
    """Returns the tests in three shares of about one length."""
    real = sorted(glob.glob("tests/real/test_*.py", root_dir=ROOT))
    return [["tests/core", "tests/host", *sorted(glob.glob("tests/test_*.py", root_dir=ROOT))], real[::2], real[1::2]]


def share(number, paths):
    """Runs some tests; what fails while others run has to pass alone. Returns the exit status."""
    words = ["run", "-m", "pytest", "-q", "-o", "cache_dir=%s/cache-%d" % (FOLDER, number)]
    return coverage(*words, *paths) and coverage(*words, "--last-failed", "--last-failed-no-failures", "none", *paths)


def run():
    """Runs every test, those of the core with the plain Python ciphers as well; returns whether all passed."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    os.chmod(FOLDER, 0o1777)  # nosec B103 # some tests run a daemon as another user
    with open(CONFIG, "w") as file:
        file.write(SETTINGS % os.path.join(FOLDER, "data"))
    # Not pytest-xdist: it does not always let a worker write down what it saw.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        failed = sum(pool.map(share, range(3), tests()))
    os.environ["TINYKNOP_CRYPTO"] = "small"
    failed += coverage("run", "tests/run_core.py")
    coverage("combine", "--quiet")
    return not failed


def elsewhere(path, name):
    """Tells whether a function is one that only MicroPython runs."""
    whole = "%s %s" % (path, name)
    return any(whole == one or whole.startswith((one + " ", one + ".")) for one in ELSEWHERE)


def unreached(files):
    """Returns ({path: lines}, [functions], the number of functions): what no test reaches; not what is ELSEWHERE."""
    lines, functions, count = {}, [], 0
    for path, found in sorted(files.items()):
        missing = set(found["missing_lines"])
        for name, function in found["functions"].items():
            if elsewhere(path, name):
                missing -= set(function["missing_lines"])
            elif name:
                count += 1
                if function["missing_lines"] and not function["executed_lines"]:
                    functions.append("%s:%d %s" % (path, function["missing_lines"][0], name))
        if missing:
            lines[path] = missing
    return lines, functions, count


def spans(lines):
    """Returns line numbers as text, consecutive ones as a span."""
    found = []
    for line in sorted(lines):
        if found and line == found[-1][1] + 1:
            found[-1][1] = line
        else:
            found.append([line, line])
    return ", ".join("%d" % first if first == last else "%d-%d" % (first, last) for first, last in found)


def report():
    """Prints what was not reached, and the figures; returns whether that is enough."""
    path = os.path.join(FOLDER, "report.json")
    coverage("json", "--quiet", "-o", path)
    with open(path) as file:
        data = json.load(file)
    lines, functions, count = unreached(data["files"])
    for name in sorted(lines):
        print("%s: %s" % (name, spans(lines[name])))
    for name in functions:
        print("never entered: " + name)
    missed, totals = sum(len(found) for found in lines.values()), data["totals"]
    whole = totals["covered_lines"] + missed
    share = 100 * totals["covered_lines"] / whole
    said = "covered: %.2f %% of %d lines, %d of %d functions; %d lines more are MicroPython's"
    print(said % (share, whole, count - len(functions), count, totals["num_statements"] - whole))
    return share >= LEAST and not functions


def main(words):
    """Returns the exit status."""
    if words[:1] == ["--report"]:
        return 0 if report() else 1
    if not pip("-e", ".[coverage]"):
        sys.exit("covered: pip could not install coverage")
    passed = run()
    return 0 if report() and passed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
