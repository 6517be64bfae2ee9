"""A Debian of its own for a test: a fresh root made by mmdebstrap, its own systemd as process 1, its own network.

The root is made once and kept in build/; each machine writes into an overlay that is gone with it. All is done with
namespaces, so that nothing outside sees it: no virtual machine is needed, and the kernel is the one that runs the test.
"""

import contextlib
import fcntl
import glob
import os
import shutil
import subprocess
import sys
import tempfile
import time

from tests.need import lacking, need
from tests.real.net import run

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What a Debian server has after its installation; and another firewall for those who want it.
PACKAGES = "systemd-sysv,dbus,python3,iproute2,nftables,openssh-server,openssh-client,iptables,netbase"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOT_S, COMMAND_S = 60, 120  # seconds; a boot takes one on an idle machine

# Process 1 of a container: what systemd.io/CONTAINER_INTERFACE asks for. The kernel's switches are read-only, since
# they are the whole machine's, but for those of the network, which is its own.
BOOT = r"""
set -e
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$LOWER,upperdir=$DIR/upper,workdir=$DIR/work" "$DIR/root"
cd "$DIR/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t proc proc "$DIR/proc"
mount --bind "$DIR/proc/sys/net" proc/sys/net
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do : > dev/$name; mount --bind /dev/$name dev/$name; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
: > dev/console
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
mkdir -p "$DIR/root/.before"
pivot_root . .before
umount -l /.before
exec env -i container=tinyknop PATH="$PATH" /lib/systemd/systemd --log-level=warning --log-target=console
"""


def sources():
    """Returns the files that say where this machine's own Debian packages come from."""
    found = glob.glob("/etc/apt/sources.list") + glob.glob("/etc/apt/sources.list.d/*.list")
    found += glob.glob("/etc/apt/sources.list.d/*.sources")
    chosen = []
    for path in sorted(found):
        with open(path, errors="replace") as file:
            lines = [line for line in file if line.strip() and not line.startswith("#")]
        if any("debian" in line for line in lines):
            chosen.append(path)
    return chosen


def codename():
    """Returns the name of this machine's Debian release."""
    with open("/etc/os-release") as file:
        words = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    return words.get("VERSION_CODENAME", "stable").strip('"')


def fresh_root():
    """Returns the folder with a Debian as it is after its installation, made anew where it is not there yet."""
    if os.geteuid():
        lacking("a machine of its own needs root")
    need("mmdebstrap", "unshare", "nsenter")
    os.makedirs(os.path.join(ROOT, "build"), exist_ok=True)
    made = os.path.join(ROOT, "build", "debian-" + codename())
    with open(made + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another test may be making it
        if not os.path.isdir(made):
            shutil.rmtree(made + ".part", ignore_errors=True)
            argv = ["mmdebstrap", "--quiet", "--variant=apt", "--include=" + PACKAGES, codename(), made + ".part"]
            done = subprocess.run(argv + sources(), capture_output=True, text=True, cwd="/")
            if done.returncode:
                lacking("mmdebstrap: %s" % done.stderr.strip()[-600:])
            os.rename(made + ".part", made)
    return made


def group_root():
    """Returns where the tree of control groups is mounted whose second version systemd needs."""
    with open("/proc/mounts") as file:
        found = [line.split()[1] for line in file if line.split()[2] == "cgroup2"]
    if not found:
        lacking("no cgroup2 is mounted here: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
    return found[0]


class Machine:
    """A machine that runs; use it as a context manager. `say` runs a line in it, as root and in a shell."""

    def __init__(self, name):
        self.name = name
        self.lower = fresh_root()
        self.dir = tempfile.mkdtemp(prefix="tinyknop-machine-")
        self.group = os.path.join(group_root(), os.path.basename(self.dir))
        self.process = self.pid = None

    def __enter__(self):
        try:
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process is not None:
            self.process.kill()  # and unshare takes process 1 with it, which takes all others
            self.process.wait()
        deadline = time.monotonic() + 10
        while os.path.isdir(self.group) and time.monotonic() < deadline:
            for folder, _, _ in os.walk(self.group, topdown=False):
                with contextlib.suppress(OSError):  # its processes are still on their way out
                    os.rmdir(folder)
            time.sleep(0.02)
        shutil.rmtree(self.dir, ignore_errors=True)

    def boot(self):
        """Starts process 1 and waits until it has started everything."""
        for name in ("upper", "work", "root", "proc"):
            os.mkdir(os.path.join(self.dir, name))
        os.mkdir(self.group)
        words = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--fork", "--kill-child"]
        script = 'echo $$ > "$GROUP/cgroup.procs" && exec unshare %s sh -c "$BOOT"' % " ".join(words)
        env = {"PATH": PATH, "DIR": self.dir, "LOWER": self.lower, "GROUP": self.group, "BOOT": BOOT}
        with open(os.path.join(self.dir, "boot.log"), "wb") as log:
            self.process = subprocess.Popen(["sh", "-c", script], env=env, stdout=log, stderr=log, cwd="/")
        deadline = time.monotonic() + BOOT_S
        while self.state() not in ("running", "degraded"):
            if time.monotonic() > deadline or self.process.poll() is not None:
                with open(os.path.join(self.dir, "boot.log"), errors="replace") as file:
                    raise AssertionError("%s does not start: %s" % (self.name, file.read()[-1000:]))
            time.sleep(0.1)
        self.say("hostname %s; ip link set lo up" % self.name)

    def state(self):
        """Returns what systemd says of itself; "" where it cannot be asked yet."""
        if self.pid is None:
            with open("/proc/%d/task/%d/children" % (self.process.pid, self.process.pid)) as file:
                self.pid = int((file.read().split() or [0])[0]) or None
        if self.pid is None:
            return ""
        return self.say("systemctl is-system-running", check=False).strip()

    def inside(self, *words):
        """Returns the words that run others in this machine."""
        env = ["env", "-i", "PATH=" + PATH, "HOME=/root", "LC_ALL=C.UTF-8", "USER=root"]
        return ["nsenter", "-t", str(self.pid), "-m", "-u", "-i", "-n", "-p", "-C", "--", *env, *words]

    def say(self, line, check=True, timeout=COMMAND_S, text=None):
        """Runs a line in a shell in /root; returns what it printed. Raises AssertionError where it fails."""
        argv = self.inside("sh", "-c", "cd /root && " + line if "\n" not in line else "cd /root\n" + line)
        done = subprocess.run(argv, input=text or "", capture_output=True, text=True, timeout=timeout, errors="replace")
        said = done.stdout + done.stderr
        if check and done.returncode:
            raise AssertionError("%s# %s\nstatus %d: %s" % (self.name, line, done.returncode, said))
        return said

    def journal(self, unit="tinyknop"):
        """Returns what a unit has logged."""
        return self.say("journalctl --no-pager -o cat -u " + unit, check=False)

    def wait_journal(self, text, within=20, unit="tinyknop"):
        """Waits until a unit logs this; returns the whole log."""
        deadline = time.monotonic() + within
        while True:
            said = self.journal(unit)
            if text in said:
                return said
            assert time.monotonic() < deadline, "no %r in the journal:\n%s" % (text, said)
            time.sleep(0.1)

    def copy_in(self, source, target):
        """Copies a file of the test's into the machine."""
        with open(source, "rb") as file:
            argv = self.inside("sh", "-c", "cat > " + target)
            subprocess.run(argv, stdin=file, check=True)


def joined(one, other):
    """Puts a cable between two machines: 192.0.2.1 and 192.0.2.2 at eth0."""
    words = ["type", "veth", "peer", "name", "eth0", "netns", str(other.pid)]
    run("ip", "link", "add", "eth0", "netns", str(one.pid), *words)
    for machine, last in ((one, 1), (other, 2)):
        machine.say("ip addr add 192.0.2.%d/24 dev eth0 && ip link set eth0 up" % last)


def package():
    """Builds the Debian package from the checkout; returns its path."""
    folder = tempfile.mkdtemp(prefix="tinyknop-deb-")
    argv = [sys.executable, os.path.join(ROOT, "scripts", "deb.py"), folder]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
