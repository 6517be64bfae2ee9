"""Builds the Debian package with dpkg-deb alone: `deb.py [FOLDER]` writes tinyknop_VERSION_all.deb there (build/)."""

import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile

from stage import ROOT

PYTHON = "usr/lib/python3/dist-packages/"
LAUNCHER = """#!/usr/bin/python3 -I
import sys

from tinyknop.host.cli import main

sys.exit(main())
"""
FILES = (  # from the checkout, into the package, mode
    ("boards/systemd/tinyknop.service", "usr/lib/systemd/system/tinyknop.service", 0o644),
    ("boards/systemd/tinyknop.tmpfiles", "usr/lib/tmpfiles.d/tinyknop.conf", 0o644),
    ("boards/systemd/tinyknop.apparmor", "etc/apparmor.d/tinyknop", 0o644),
    ("boards/systemd/tinyknop.toml", "etc/tinyknop/tinyknop.toml", 0o600),
    ("boards/systemd/commands.conf", "usr/share/doc/tinyknop/examples/commands.conf", 0o644),
    ("boards/systemd/closed.nft", "usr/share/doc/tinyknop/examples/closed.nft", 0o644),
    ("README.md", "usr/share/doc/tinyknop/README.md", 0o644),
    ("SECURITY.md", "usr/share/doc/tinyknop/SECURITY.md", 0o644),
    ("LICENSE", "usr/share/doc/tinyknop/copyright", 0o644),
)
CONFFILES = ("/etc/apparmor.d/tinyknop", "/etc/tinyknop/tinyknop.toml")
SCRIPTS = ("postinst", "prerm", "postrm")


def version():
    """Returns tinyknop's version."""
    with open(os.path.join(ROOT, "tinyknop", "__init__.py")) as file:
        return re.search('__version__ = "(.*)"', file.read()).group(1)


def put(root, path, text, mode=0o644):
    """Writes a file of the package."""
    whole = os.path.join(root, path)
    os.makedirs(os.path.dirname(whole), mode=0o755, exist_ok=True)
    with open(whole, "wb") as file:
        file.write(text)
    os.chmod(whole, mode)


def read(path):
    """Returns the bytes of a file of the checkout."""
    with open(os.path.join(ROOT, path), "rb") as file:
        return file.read()


def fill(root):
    """Lays out all but DEBIAN/."""
    skipped = shutil.ignore_patterns("__pycache__", ".*")
    for source, target in (("tinyknop", "tinyknop"), ("ports", "tinyknop/ports")):
        shutil.copytree(os.path.join(ROOT, source), os.path.join(root, PYTHON, target), ignore=skipped)
    put(root, "usr/bin/tinyknop", LAUNCHER.encode(), 0o755)
    for source, target, mode in FILES:
        put(root, target, read(source), mode)
    docs = os.path.join(ROOT, "docs")
    for name in sorted(os.listdir(docs)):
        if name.endswith(".md"):
            put(root, "usr/share/doc/tinyknop/docs/" + name, read("docs/" + name))
    manuals = os.path.join(docs, "man")
    for name in sorted(os.listdir(manuals)) if os.path.isdir(manuals) else ():
        put(root, "usr/share/man/man%s/%s.gz" % (name[-1], name), gzip.compress(read("docs/man/" + name), mtime=0))


def settle(root, stamp):
    """Makes modes and times those of the package, whatever the checkout's are; returns the size in KiB."""
    size = 0
    for folder, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(folder, name)
            if name in names:
                os.chmod(path, 0o755)  # nosec B103 # folders of a package
            elif "/dist-packages/" in path:
                os.chmod(path, 0o644)
            size += 0 if name in names else -(-os.path.getsize(path) // 1024)
            os.utime(path, (stamp, stamp))
    return size


def build(folder):
    """Builds the package; returns its path. The same tree gives the same bytes where SOURCE_DATE_EPOCH is set."""
    stamp = int(os.environ.get("SOURCE_DATE_EPOCH") or os.path.getmtime(os.path.join(ROOT, "pyproject.toml")))
    target = os.path.join(folder, "tinyknop_%s_all.deb" % version())
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        os.chmod(root, 0o755)  # nosec B103 # as above
        fill(root)
        size = settle(root, stamp)
        control = read("boards/debian/control").decode().format(version=version(), size=size)
        put(root, "DEBIAN/control", control.encode())
        put(root, "DEBIAN/conffiles", ("\n".join(CONFFILES) + "\n").encode())
        for name in SCRIPTS:
            put(root, "DEBIAN/" + name, read("boards/debian/" + name), 0o755)
        env = dict(os.environ, SOURCE_DATE_EPOCH=str(stamp))
        argv = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, target]
        subprocess.run(argv, check=True, env=env, stdout=subprocess.DEVNULL)
    return target


if __name__ == "__main__":
    print(build(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build")))
