"""Makes every small change that mutmut knows in the modules that decide, and names each that no test notices.

mutants.py: all is done in build/mutants, on a copy of the tree. What is known to survive is in tests/survivors.txt with
its reason; any other survivor is a failure. Takes 10 to 20 minutes, and needs CPython >= 3.10.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PLACE = os.path.join(ROOT, "build", "mutants")
TREE = os.path.join(PLACE, "tree")
BIN = os.path.join(PLACE, "venv", "bin")
KNOWN = os.path.join(ROOT, "tests", "survivors.txt")
MODULES = ("gate", "seal", "replay", "grants")
# Only what tests these modules and does the same each time: no test of hypothesis, and no back end for ciphers.
TESTS = ["tests/core/test_%s.py" % name for name in ("gate", "grants", "hints", "replay", "seal", "vectors")]
NOT = "not small_back_end and not sha256_only"
SHARE = 90  # per cent that have to be killed in each module
KILLED = (1, 3, 24, 36, 152, 255, -24)  # mutmut's exit codes; from the third on: it ran for too long


def prepare():
    """Puts mutmut and a copy of the tree in their places."""
    shutil.rmtree(TREE, ignore_errors=True)
    for name in ("tinyknop", "ports", "tests", "scripts"):
        shutil.copytree(os.path.join(ROOT, name), os.path.join(TREE, name), ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(os.path.join(ROOT, "pyproject.toml"), TREE)
    lists = {
        "source_paths": ["tinyknop"],
        "only_mutate": ["tinyknop/%s.py" % name for name in MODULES],
        "also_copy": ["ports", "scripts"],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-k", NOT],
        "pytest_add_cli_args_test_selection": TESTS,
    }
    with open(os.path.join(TREE, "setup.cfg"), "w") as file:
        file.write("[mutmut]\n")
        for name, items in lists.items():
            file.write("%s=\n%s\n" % (name, "\n".join(["    " + item for item in items])))
    if not os.path.exists(os.path.join(BIN, "mutmut")):
        print("mutants: getting mutmut (once; needs a package index)", flush=True)
        venv.create(os.path.dirname(BIN), with_pip=True)
        pip = [os.path.join(BIN, "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "-e", ROOT + "[mutants]"], check=True)


def mutmut(*words):
    """Runs mutmut in the copy of the tree, and returns what it printed; ends where it fails."""
    argv = ["nice", os.path.join(BIN, "mutmut"), *words]
    done = subprocess.run(argv, cwd=TREE, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit("mutants: mutmut failed:\n" + done.stdout[-3000:])
    return done.stdout


def described(name):
    """Returns "gate.Gate.judge: the changed line", which stays the same while other lines come and go."""
    where, _, function = name.rpartition("__mutmut_")[0].partition(".")[2].partition(".")
    function = ".".join(re.sub("^x_?", "", function).strip("ǁ").split("ǁ"))
    lines = [line[1:] for line in mutmut("show", name).splitlines() if re.match(r"\+(?!\+\+)", line)]
    text = " ".join(" ".join(lines).split())
    return "%s.%s: %s" % (where, function, text.partition("  # ")[0].partition(" # ")[0])


def known():
    """Returns the lines of tests/survivors.txt that are no comments."""
    with open(KNOWN, encoding="utf-8") as file:
        return [line.strip() for line in file if line.strip() and line[0] != "#"]


def results(module):
    """Returns {name of a mutant: mutmut's exit code} of a module."""
    with open(os.path.join(TREE, "mutants", "tinyknop", module + ".py.meta"), encoding="utf-8") as file:
        return json.load(file)["exit_code_by_key"]


def main():
    """Prints the table and the survivors; returns 0 where each of them is known and enough are killed."""
    prepare()
    mutmut("run", "--max-children", "2")
    seen, faults = [], []
    for module in MODULES:
        codes = results(module)
        alive = [name for name, code in codes.items() if code not in KILLED]
        share = 100 * (len(codes) - len(alive)) / len(codes)
        print("%-8s %4d mutants, %4d killed, %.1f %%" % (module, len(codes), len(codes) - len(alive), share))
        seen += [described(name) for name in alive]
        if share < SHARE:
            faults.append("%s: less than %d %% are killed" % (module, SHARE))
    listed = known()
    faults += ["survives, and is not in tests/survivors.txt: " + text for text in seen if text not in listed]
    faults += ["in tests/survivors.txt, but does not survive: " + text for text in listed if text not in seen]
    print("\n".join(faults or ["%d survive, each listed with its reason in tests/survivors.txt" % len(seen)]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
