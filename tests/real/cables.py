"""Devices at the end of a line: a program behind a serial cable, a shell behind a real sshd, and what cuts them off.

A Cable is a pty with a name that stays; its other end is a pty of the program's own, and a thread carries the bytes,
at the pace of a real line if asked. A Wire is the same for TCP. Both can be cut, and both know all that passed.
"""

import contextlib
import os
import pty
import random
import select
import socket
import subprocess
import threading
import time
import tty

from tests.real import net, peers

PROMPT = "root@OpenWrt:/# "
ASKED = "Please press Enter to activate this console."


def ash(namespace):
    """Returns the words of an OpenWrt-like console: a key wakes it up, and it starts anew after a logout."""
    shell = "env 'PS1=%s' busybox ash -i" % PROMPT
    loop = "while :; do echo; printf '%s'; read x || exit; %s; done" % (ASKED, shell)
    return ["ip", "netns", "exec", namespace, "/bin/sh", "-c", loop]


class Cable:
    """A serial line to a program. `device` is what the daemon opens; `baud` 0 is as fast as it goes."""

    def __init__(self, network, argv, baud=0, name="ttyUSB0"):
        self.device = os.path.join(network.dir, name)
        self.argv = argv
        self.baud = baud
        self.far = self.near = self.program = None
        self.held = None  # the end that the daemon opens, so that ours is not hung up while it does not
        self.cut = False  # nothing passes, and nobody is told: a plug pulled at the router
        self.trip = None  # (bytes that pass before it, callable): what then happens, once
        self.mangle = None  # called with the bytes for the daemon; returns a list of the pieces it gets instead
        self.sent, self.heard = bytearray(), bytearray()  # by the daemon, by the program
        self.ended = threading.Event()
        self.boot()
        self.plug()
        self.thread = threading.Thread(target=self.carry, daemon=True)
        self.thread.start()
        network.processes.append(self)

    def boot(self):
        """Starts the program anew, as when the router is switched on."""
        self.halt()
        near, far = pty.openpty()
        self.program = subprocess.Popen(
            self.argv, stdin=far, stdout=far, stderr=far, start_new_session=True, close_fds=True
        )
        os.close(far)
        self.far = near

    def halt(self):
        """Ends the program: the router is off."""
        if self.program is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.program.pid, 9)
            self.program.wait()
            far, self.far, self.program = self.far, None, None
            os.close(far)

    def plug(self):
        """Makes the device; a new one where it had been unplugged."""
        near, held = pty.openpty()
        tty.setraw(held)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.device)
        os.symlink(os.ttyname(held), self.device)
        self.held, self.near = held, near

    def unplug(self):
        """Takes the adapter out: the daemon's end is hung up, and the device's name is gone."""
        os.unlink(self.device)
        near, self.near = self.near, None
        os.close(self.held)
        os.close(near)

    def carry(self):
        """Moves bytes both ways until the cable is thrown away."""
        while not self.ended.is_set():
            near, far = self.near, self.far
            ends = [fd for fd in (near, far) if fd is not None]
            try:
                ready, _, _ = select.select(ends, [], [], 0.02)
                for fd in ready:
                    self.move(os.read(fd, 64 if self.baud else 4096), fd == near)
            except (OSError, ValueError):  # an end has just been taken away
                time.sleep(0.01)

    def move(self, data, from_daemon):
        """Brings bytes to the other end, if there is one."""
        if self.baud:
            time.sleep(len(data) * 10 / self.baud)
        if self.trip is not None:
            left, call = self.trip
            if left > len(data):
                self.trip = (left - len(data), call)
            else:
                self.pass_on(data[:left], from_daemon)
                data = data[left:]
                call()
                self.trip = None
        self.pass_on(data, from_daemon)

    def pass_on(self, data, from_daemon):
        """Writes bytes to the other end, unless the cable is cut."""
        if self.cut or not data:
            return
        if from_daemon:
            self.sent += data
            if self.far is not None:
                os.write(self.far, data)
            return
        self.heard += data
        for piece in self.mangle(data) if self.mangle else [data]:
            if self.near is not None:
                os.write(self.near, piece)

    def wait_sent(self, text, within=30):
        """Waits until the daemon has said something: a knock that ends before it has logged in opens nothing."""
        deadline = time.monotonic() + within
        while text not in self.sent:
            assert time.monotonic() < deadline, bytes(self.sent)
            time.sleep(0.02)

    def stop(self):
        """Ends the program and the thread."""
        self.ended.set()
        self.thread.join(2)
        self.halt()
        if self.near is not None:
            self.unplug()


def pieces(data):
    """Splits bytes anywhere."""
    found = []
    while data:
        count = random.randint(1, 4)
        found.append(data[:count])
        data = data[count:]
    return found


def garbage(data):
    """Puts line noise into bytes."""
    at = random.randrange(len(data) + 1)
    return [data[:at] + bytes(random.randrange(256) for _ in range(random.randint(1, 12))) + data[at:]]


def late(data):
    """Splits bytes anywhere and hands each piece over late; one in a hundred comes when nobody waits any more."""
    for piece in pieces(data):
        time.sleep(random.choice((0, 0, 0.001, 0.01)) if random.randrange(100) else 2.5)
        yield piece


class Wire:
    """A TCP relay in a namespace: `delay` seconds each way, and it can be cut. `port` is where to connect."""

    def __init__(self, network, namespace, target, delay=0.0):
        self.network, self.namespace, self.target, self.delay = network, namespace, target, delay
        self.listener = network.new_socket(namespace)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.port = self.listener.getsockname()[1]
        self.pairs = []
        self.trip = None  # as a Cable's; what then happens does so before these bytes are passed on
        self.deaf = False  # takes connections and bytes, and forwards none: a dead device behind a living network
        network.listeners.append(self.listener)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        """Serves every connection by two threads."""
        while True:
            try:
                caller, _ = self.listener.accept()
            except OSError:  # the end
                return
            callee = self.network.new_socket(self.namespace)
            try:
                callee.connect(("127.0.0.1", self.target))
            except OSError:
                caller.close()
                continue
            self.pairs.append((caller, callee))
            for one, other in ((caller, callee), (callee, caller)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, one, other):
        """Moves bytes one way until an end is closed."""
        with contextlib.suppress(OSError):
            while True:
                data = one.recv(65536)
                if not data:
                    break
                if self.delay:
                    time.sleep(self.delay)
                while self.deaf:
                    time.sleep(0.02)
                if self.trip is not None:
                    left, call = self.trip
                    self.trip = (left - len(data), call) if left > len(data) else None
                    if self.trip is None:
                        other.sendall(data[:left])
                        call()
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """Resets all connections."""
        for pair in self.pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self.pairs = []


SSHD = """Port {port}
ListenAddress 127.0.0.1
HostKey {home}/host_key
AuthorizedKeysFile {home}/authorized_keys
PidFile none
UsePAM no
KbdInteractiveAuthentication no
StrictModes no
{more}
"""


class Sshd:
    """A real sshd in a namespace, with a host key and a user's key of its own; `command` is what a session runs."""

    def __init__(self, network, namespace, port=2200, command="/bin/busybox ash", name="sshd", password=None):
        self.network, self.port = network, port
        self.home = os.path.join(network.dir, name)
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        os.makedirs("/run/sshd", exist_ok=True)
        for key in ("host_key", "user_key"):
            if not os.path.exists(self.home + "/" + key):
                net.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", self.home + "/" + key)
        with open(self.home + "/user_key.pub") as file:
            peers.write(self.home + "/authorized_keys", file.read())
        more = "ForceCommand %s\n" % command if command else ""
        more += "PasswordAuthentication %s\nPermitRootLogin yes" % ("yes" if password else "no")
        conf = peers.write(self.home + "/sshd_config", SSHD.format(port=port, home=self.home, more=more))
        self.argv = ["/usr/sbin/sshd", "-D", "-e", "-f", conf]
        if password:  # root's, in a mount namespace of this sshd alone
            made = net.run("openssl", "passwd", "-6", password).strip()
            shadow = peers.write(self.home + "/shadow", "root:%s:19000:0:99999:7:::\n" % made)
            mounted = "mount --bind %s /etc/shadow && exec %s" % (shadow, " ".join(self.argv))
            self.argv = ["unshare", "-m", "/bin/sh", "-c", mounted]
        self.namespace = namespace
        self.start()

    def start(self):
        """Starts it (again)."""
        self.process = peers.Process(self.network, self.namespace, self.argv)
        self.process.wait_line("Server listening")

    def known_hosts(self, port=None, path=None):
        """Writes the file that makes the host key known; returns its path."""
        with open(self.home + "/host_key.pub") as file:
            words = file.read().split()
        text = "[127.0.0.1]:%d %s %s\n" % (port or self.port, words[0], words[1])
        return peers.write(path or self.home + "/known_hosts", text)

    def options(self, port=None, **more):
        """Returns the options of a carrier that gets here."""
        words = {"kind": "ssh", "host": "127.0.0.1", "port": str(port or self.port), "user": "root"}
        words.update(key_file=self.home + "/user_key", known_hosts=self.known_hosts(port), profile="openwrt")
        words.update(more)
        return words


def toml_of(options):
    """Returns options as lines of a TOML table."""
    return "".join('%s = "%s"\n' % pair for pair in options.items())


def via(carrier, options=""):
    """Returns the options of [port.firewall] that put it behind a carrier, and the carrier's table."""
    return '%s\nvia = "edge"\n\n[carrier.edge]\n%s' % (options, toml_of(carrier))
