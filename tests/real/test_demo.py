"""`tinyknop demo` as its readers run it: as root and as an ordinary user; nothing may be left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.need import lacking, need

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]
MARK = "TINYKNOP_DEMO_TEST"  # in the environment of all that a demo starts, so that what is left can be found
STEPS = (
    "connecting without a knock: no answer",
    "knocked: one UDP packet",
    "ms after the packet left",
    "dport 22",
    "closed again",
    "the connection made meanwhile goes on",
    "holds nothing for the client any more",
    "the very same bytes again",
    "its counter went from 0 to 1",
    "the port stays closed",
    "ended when asked to, with status 0",
    "nothing is left behind",
)


@pytest.fixture(params=["root", "ordinary user"])
def words(request):
    """The words that start the demo as that user."""
    need("ip", "unshare", "iptables", "setpriv")
    python = [sys.executable]
    if request.param == "root":
        if os.geteuid():
            pytest.skip("not root; the demo of an ordinary user runs")
    elif os.geteuid() == 0:
        python = NOBODY + [_python_of_nobody()]
    if subprocess.run(["unshare", "-nm" if request.param == "root" else "-Urnm", "true"]).returncode:
        lacking("no namespaces for this user here")
    return python + ["-m", "tinyknop", "demo"]


def _python_of_nobody():
    """Returns a Python that user nobody may start: ours may be in a home that is closed to others."""
    code = "import sys, tinyknop.host.demo; sys.exit(sys.version_info < (3, 11))"  # 3.11 reads TOML by itself
    for python in (sys.executable, "/usr/bin/python3"):
        words = NOBODY + ["unshare", "-Ur", "--", python, "-c", code]
        if not subprocess.run(words, cwd=ROOT, env=_environment(), stderr=subprocess.DEVNULL).returncode:
            return python
    return lacking("user nobody may start no Python of 3.11 or newer here, or may make no namespaces")


def _environment(**more):
    """Returns our environment with the checkout on Python's path; nobody must not try to write bytecode there."""
    return dict(os.environ, PYTHONPATH=ROOT, PYTHONDONTWRITEBYTECODE="1", **more)


def start(words, **more):
    """Starts a demo with its mark."""
    mark = "%d.%d" % (os.getpid(), time.monotonic_ns())
    environment = _environment(**{MARK: mark}, **more)
    child = subprocess.Popen(
        words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return child, mark


def marked(mark):
    """Returns the ids of the processes that a demo started and that still run."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/environ" % pid, "rb") as file:
                if ("%s=%s" % (MARK, mark)).encode() in file.read().split(b"\0"):
                    found.append(int(pid))
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return found


def places():
    """Returns what a demo could leave: files, interfaces, named namespaces."""
    files = [os.path.join(folder, name) for folder in ("/tmp", "/run", "/dev/shm") for name in os.listdir(folder)]
    links = subprocess.run(["ip", "-o", "link"], stdout=subprocess.PIPE, text=True).stdout
    return {name for name in files if "tinyknop-demo" in name}, "tk-client" in links or "tk-server" in links


def test_demo_shows_every_step_and_leaves_nothing(words):
    child, mark = start(words)
    try:
        said = child.communicate(timeout=60)[0]
    finally:
        child.kill()
    assert child.returncode == 0, said
    at = [said.find(step) for step in STEPS]
    assert -1 not in at and at == sorted(at), said
    assert "WRONG" not in said
    assert marked(mark) == []
    assert places() == (set(), False)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_demo_leaves_nothing(words, number):
    child, mark = start(words)
    heard = []
    try:
        for line in child.stdout:
            heard.append(line)
            if "now waiting for the port to close" in line:
                break
        assert len(marked(mark)) >= 3, "".join(heard)  # demo, service, daemon
        child.send_signal(number)
        said = child.communicate(timeout=20)[0]
    finally:
        child.kill()
    assert child.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number), said
    assert "all as it should be" not in said
    deadline = time.monotonic() + 5  # killed children are gone a moment after their parent
    while marked(mark) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert marked(mark) == []
    assert places() == (set(), False)


def test_a_missing_tool_is_named_with_what_to_install(tmp_path):
    need("unshare", "nsenter", "mount", "ip")
    for tool in ("unshare", "nsenter", "mount", "ip"):
        os.symlink(shutil.which(tool), str(tmp_path / tool))
    code = "import sys; from tinyknop.host import demo; demo.SBIN = ''; sys.exit(demo.main([]))"
    environment = dict(_environment(), PATH=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 1
    assert b"needs iptables" in done.stdout and b"apt install iptables\n" in done.stdout


def stand_in(folder, name, text):
    """Puts a shell script in the place of a program."""
    path = folder / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def outcome(folder):
    """Runs the demo with what is in a folder before all else; returns (exit status, what it said)."""
    if os.geteuid():
        lacking("must be root: an ordinary user's demo does not find what is in our folder")
    need("ip", "unshare", "iptables")
    child, mark = start([sys.executable, "-m", "tinyknop", "demo"], PATH="%s:%s" % (folder, os.environ["PATH"]))
    try:
        said = child.communicate(timeout=60)[0]
    finally:
        child.kill()
    assert marked(mark) == [] and places() == (set(), False)
    return child.returncode, said


def test_a_firewall_that_cannot_be_used_ends_it_with_the_reason(tmp_path):
    for name in ("iptables", "iptables-nft", "iptables-legacy"):
        stand_in(tmp_path, name, "echo no such table here; exit 3\n")
    status, said = outcome(tmp_path)
    assert status == 1
    assert "WRONG: nsenter -t " in said and "no such table here" in said and "Traceback" not in said


def test_a_daemon_that_does_not_start_shows_its_log(tmp_path):
    """Nothing may use a set here, and iptables is gone as soon as the demo has made its own rules."""
    stand_in(tmp_path, "ipset", "exit 1\n")
    count = tmp_path / "count"
    real = shutil.which("iptables")
    text = 'echo >> %s; [ $(wc -l < %s) -gt 2 ] && echo out of order && exit 4; exec %s "$@"\n'
    stand_in(tmp_path, "iptables", text % (count, count, real))
    status, said = outcome(tmp_path)
    assert status == 1
    assert "WRONG: the daemon did not start\nthe daemon's log:\n" in said and "out of order" in said


def test_without_ipset_it_shows_iptables_alone(tmp_path):
    stand_in(tmp_path, "ipset", "exit 1\n")
    status, said = outcome(tmp_path)
    assert status == 0, said
    assert "opens through iptables (ipset is not to be had here)" in said
    assert "the firewall now holds: -A" in said and "timeout" not in said
