"""Runs all tests under coverage, in child processes, namespaces and for other users too; lists what none of them reach.

covered.py [--report]: with --report only the last run is looked at. The exit status is 1 below 95 % of the lines, or
where a function is entered neither on CPython nor on MicroPython.
"""

import ast
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
[report]
exclude_also = raise NotImplementedError
"""
# Entered, but it cannot be seen: between fork and exec there is nobody to write it down. tests/real/test_demo.py kills
# the demo, and what it had started is gone.
UNSEEN = ("tinyknop/host/demo_net.py _dying_with.ask_kernel",)
# On MicroPython nothing counts lines. There each function says that it was entered: name of a file, line of its `def`.
MARKED = os.path.join(FOLDER, "marked")
ENTERED = os.path.join(FOLDER, "entered")
NOTE = """import sys

known = set()


def entered(place):
    if sys.implementation.name == "micropython" and place not in known:
        known.add(place)
        with open(%r, "a") as file:
            file.write(place + "\\n")
"""
# Not what measures the heap: the marks have no room in it.
ON_MICROPYTHON = """tests/real/test_micropython.py tests/real/test_board.py tests/real/test_differential.py
    tests/real/test_interop.py tests/real/test_serial.py -k not(heap)and(not(room))and(not(share))""".split()


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
    words.append("--ignore=tests/host/test_timing.py")  # it counts what is called, coverage's own calls as well
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
    on_micropython()
    return not failed


def marked(source, path):
    """Returns the text of a module whose functions say that they were entered."""
    lines = source.split("\n")
    tree = ast.parse(source)
    for node in sorted(ast.walk(tree), key=lambda node: -getattr(node, "lineno", 0)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            if first.lineno == node.lineno:  # for the type checker alone
                continue
            lines.insert(first.lineno - 1, '%s_entered("%s:%d")' % (" " * first.col_offset, path, node.lineno))
    last = tree.body[0].end_lineno if ast.get_docstring(tree) else 0
    lines.insert(last, "from tinyknop.entered import entered as _entered")
    return "\n".join(lines)


def on_micropython():
    """Runs the tests that have MicroPython in them, from a copy of the tree whose functions say that they run."""
    left_out = shutil.ignore_patterns(".*", "build", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, MARKED, ignore=left_out)
    for top in ("tinyknop", "ports"):
        for path in glob.glob(os.path.join(MARKED, top, "**", "*.py"), recursive=True):
            name = os.path.relpath(path, MARKED)
            if not name.startswith("tinyknop/host/"):
                with open(path) as file:
                    text = marked(file.read(), name)
                with open(path, "w") as file:
                    file.write(text)
    with open(os.path.join(MARKED, "tinyknop", "entered.py"), "w") as file:
        file.write(NOTE % ENTERED)
    scripts = [PYTHON, "scripts/on_micropython.py"]
    for words in (
        [PYTHON, "scripts/stage.py"],
        [*scripts, "tests/run_core.py"],
        [*scripts, "--nossl", "tests/run_core.py"],
    ):
        subprocess.call(words, cwd=MARKED)
    subprocess.call([PYTHON, "-m", "pytest", "-q", *ON_MICROPYTHON], cwd=MARKED)


def unreached(files):
    """Returns ({path: lines}, [functions], the number of functions) that no test reaches.

    The lines are those of CPython: not of functions which only MicroPython enters.
    """
    with open(ENTERED) as file:
        entered = set(file.read().split())
    lines, functions, count = {}, [], 0
    for path, found in sorted(files.items()):
        missing = set(found["missing_lines"])
        for name, function in found["functions"].items():
            place = "%s:%d" % (path, function["start_line"])
            count += bool(name)
            if name and function["missing_lines"] and not function["executed_lines"]:
                if place in entered or "%s %s" % (path, name) in UNSEEN:
                    missing -= set(function["missing_lines"])
                else:
                    functions.append("%s %s" % (place, name))
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
    said = "covered: %.2f %% of %d lines, %d of %d functions; %d lines more are MicroPython's alone"
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
