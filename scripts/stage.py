"""Lays out build/stage/tinyknop: the tree as MicroPython gets it, without host/ and with ports/ inside."""

import os
import shutil
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# The one module of the core that MicroPython never runs: crypto/ takes its plain twin where this one is not there.
CPYTHON_ONLY = ("tinyknop/host", "tinyknop/crypto/host.py")


def left_out(folder, names):
    """Returns the names that shutil.copytree is to pass over."""
    inside = os.path.relpath(folder, ROOT)
    return [
        name for name in names if name[0] == "." or name == "__pycache__" or os.path.join(inside, name) in CPYTHON_ONLY
    ]


def stage(target):
    """Makes target/tinyknop anew from the checkout."""
    tree = os.path.join(target, "tinyknop")
    shutil.rmtree(tree, ignore_errors=True)
    shutil.copytree(os.path.join(ROOT, "tinyknop"), tree, ignore=left_out)
    shutil.copytree(os.path.join(ROOT, "ports"), os.path.join(tree, "ports"), ignore=left_out)


if __name__ == "__main__":
    stage(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build", "stage"))
