"""The staged tree is what MicroPython runs: every module of it is imported there, and compiled by mpy-cross."""

import os
import subprocess

import pytest

from scripts.stage import stage
from tests.need import need

# Prints one line per module that fails, so that one broken module does not hide the others.
IMPORT_ALL = """
import sys
for name in sys.argv[1:]:
    try:
        __import__(name)
    except Exception as error:
        print("%s: %s %s" % (name, type(error).__name__, error))
print("done")
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The staged tree, in a folder of its own: several runs may go on at once."""
    folder = tmp_path_factory.mktemp("stage")
    stage(str(folder))
    return folder


def sources(tree):
    return sorted(str(path.relative_to(tree)) for path in tree.rglob("*.py"))


def modules(tree):
    """Returns the names of all staged modules but __main__, which would start the daemon."""
    dotted = [path[:-3].replace(os.sep, ".") for path in sources(tree) if not path.endswith("__main__.py")]
    return [name[: -len(".__init__")] if name.endswith(".__init__") else name for name in dotted]


def test_stage_has_ports_inside_and_no_host(tree):
    assert (tree / "tinyknop" / "ports" / "__init__.py").exists()
    assert not (tree / "tinyknop" / "host").exists()


def test_every_staged_module_imports_on_micropython(tree, tmp_path):
    micropython = need("micropython")
    script = tmp_path / "import_all.py"
    script.write_text(IMPORT_ALL)
    argv = [micropython, str(script), *modules(tree)]
    script_env = dict(os.environ, MICROPYPATH="%s:.frozen" % tree)
    done = subprocess.run(argv, env=script_env, cwd=str(tree), capture_output=True, text=True, timeout=120)
    assert (done.stdout + done.stderr).splitlines() == ["done"]


def test_every_staged_module_compiles_with_mpy_cross(tree, tmp_path):
    mpy_cross = need("mpy-cross")
    failures = []
    for path in sources(tree):
        argv = [mpy_cross, "-o", str(tmp_path / "out.mpy"), str(tree / path)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        if done.returncode:
            failures.append("%s: %s" % (path, done.stderr))
    assert failures == []
