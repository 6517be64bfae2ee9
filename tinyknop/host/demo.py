"""`tinyknop demo`: a knock from beginning to end, on a private network made for it, told in plain words.

It replaces itself by a copy in new network and mount namespaces (and a user namespace, for an ordinary user), with an
empty /run of its own. All it makes lives there, so the kernel removes it with the last process, whatever happens.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

from tinyknop.host import demo_net
from tinyknop.host.demo_net import CLIENT, KNOCK_PORT, SERVER, SERVICE_PORT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT = 3  # seconds that a knock opens the port for
SET = "tinyknop"
HOME = "/run/tinyknop-demo"  # on the private /run
TOOLS = (
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
)
SBIN = ":/usr/local/sbin:/usr/sbin:/sbin"  # an ordinary user's PATH on Debian lacks these
IPTABLES = ("iptables", "iptables-nft", "iptables-legacy")  # the legacy one does not work in user namespaces
OWN_RUN = ["mount", "-t", "tmpfs", "tmpfs", "/run"]

SERVER_TOML = """
[daemon]
state_dir = "%(home)s/state"

[[capture]]
kind = "packet"
interface = "tk-server"
port = %(knock_port)d
%(ports)s
[[stanza]]
name = "demo"
source = ["%(client)s"]
key_file = "%(home)s/demo.key"
openings = ["tcp/%(service_port)d"]
timeout = %(timeout)d
ports = %(names)s
"""
CLIENT_TOML = """
[target.demo]
host = "%(server)s"
port = %(knock_port)d
openings = ["tcp/%(service_port)d"]
address = "%(client)s"
key_file = "%(home)s/demo.key"
"""


class Unexpected(Exception):
    """A step went otherwise than it should; the text says how."""


class Story:
    """Tells the steps, each with the time since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()

    def tell(self, text: str) -> None:
        """Prints what has just happened."""
        print("%6d ms  %s" % ((time.monotonic() - self.began) * 1000, text), flush=True)

    def expect(self, good: bool, text: str, otherwise: str) -> None:
        """Tells `text` if the step was as expected, else ends the demo with `otherwise`."""
        if not good:
            raise Unexpected(otherwise)
        self.tell(text)


class Demo:
    """The server's side of the demo (firewall, daemon), and what both sides look at."""

    def __init__(self, net: demo_net.Network) -> None:
        self.net = net
        self.daemon: subprocess.Popen[bytes] | None = None  # set by start()
        self.log = HOME + "/daemon.log"
        self.iptables = ""  # the flavour that works here
        self.ipset = False

    def firewall(self) -> None:
        """Drops all that comes in, but for connections already made; finds out what this kernel lets us use."""
        established = ["-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"]
        complaints = []
        for binary in IPTABLES:
            try:
                self.run(binary, "-w", "-A", "INPUT", *established)
                self.run(binary, "-w", "-P", "INPUT", "DROP")
            except OSError as error:
                complaints.append(str(error))
                continue
            self.iptables = binary
            break
        else:
            raise OSError(complaints[0])
        try:
            self.run("ipset", "create", "tk-probe", "hash:ip,port", "timeout", str(TIMEOUT))
            self.run("ipset", "destroy", "tk-probe")
            self.ipset = True
        except OSError:  # no such binary, or not in this kernel: the demo does without
            self.ipset = False

    def run(self, *words: str) -> str:
        """Runs a command in the server's namespace and returns what it printed."""
        return demo_net.run(self.net.inside() + list(words))

    def configure(self) -> None:
        """Makes a fresh pair of keys and both sides' configuration."""
        os.makedirs(HOME + "/state", 0o700)
        os.umask(0o077)
        ports, names = '\n[port.firewall]\nkind = "iptables"\nbinary = "%s"\n' % self.iptables, ["firewall"]
        if self.ipset:
            ports += '\n[port.set]\nkind = "ipset"\nset = "%s"\n' % SET
            names.append("set")
        numbers = {"knock_port": KNOCK_PORT, "service_port": SERVICE_PORT, "timeout": TIMEOUT}
        values = {
            "home": HOME,
            "ports": ports,
            "names": json.dumps(names),
            "client": CLIENT,
            "server": SERVER,
            **numbers,
        }
        texts = (("demo.key", demo_net.run(tinyknop("keygen"))), ("server.toml", SERVER_TOML % values))
        for name, text in texts + (("client.toml", CLIENT_TOML % values),):
            with open(HOME + "/" + name, "w") as file:
                file.write(text)

    def start(self) -> None:
        """Starts the daemon and waits until it is ready."""
        with open(self.log, "wb") as log:
            words = self.net.inside() + tinyknop("serve", "-c", HOME + "/server.toml")
            daemon = self.daemon = self.net.spawn(words, stdout=log, stderr=log)
        until(lambda: daemon.poll() is not None or "ready" in self.said(), 15)
        if daemon.poll() is not None or "ready" not in self.said():
            raise Unexpected("the daemon did not start")
        if self.ipset:  # the set is the daemon's; the rule that matches it is the owner's
            match = ["-m", "set", "--match-set", SET, "src,dst"]
            self.run(self.iptables, "-w", "-A", "INPUT", *match, "-j", "ACCEPT")

    def stop(self) -> int:
        """Ends the daemon as a service manager would and returns its status."""
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(10)

    def said(self) -> str:
        """Returns what the daemon has logged."""
        with open(self.log, errors="replace") as file:
            return file.read()

    def counters(self) -> dict[str, int]:
        """Returns the daemon's counters, asked at its status socket."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(HOME + "/state/tinyknop.sock")
            line.shutdown(socket.SHUT_WR)
            with line.makefile() as file:
                counters: dict[str, int] = json.loads(file.readline())["counters"]
                return counters

    def openings(self) -> list[str]:
        """Returns the lines that the firewall holds for the client right now: rules, and entries of the set."""
        texts = [self.run(self.iptables, "-w", "-S")]
        if self.ipset:
            texts.append(self.run("ipset", "list", SET))
        lines = [line for text in texts for line in text.splitlines() if CLIENT in line]
        return lines


def tell_all(story: Story, demo: Demo, wire: demo_net.Eavesdropper) -> None:
    """The demo itself: closed, knock, open, closed again, replay, still closed."""
    closed = demo_net.connect(0.5) is None
    story.expect(closed, "connecting without a knock: no answer, as it should be", "the port is open to everybody")

    session, payload, knocked = knock(story, demo, wire)
    for line in demo.openings():
        story.tell("    the firewall now holds: " + line)
    count = 2 if demo.ipset else 1
    if len(demo.openings()) != count:
        raise Unexpected("the firewall should hold %d entries for the client" % count)

    story.tell("now waiting for the port to close by itself, %d s after the knock" % TIMEOUT)
    closed = until(lambda: probe_closed(0.2), TIMEOUT + 4)
    took = time.time() - 0.2 - knocked  # the last probe waited that long for the answer that did not come
    text = "closed again %.1f s after the knock: new connections get no answer" % took
    story.expect(closed and took > TIMEOUT - 1.5, text, "closed after %.1f s" % took if closed else "it stays open")
    story.expect(still_open(session), "the connection made meanwhile goes on undisturbed", "it cut the connection")
    gone = until(lambda: not demo.openings(), 3)
    story.expect(gone, "the firewall holds nothing for the client any more", "entries are left in the firewall")
    replay(story, demo, payload)
    status = demo.stop()
    story.expect(status == 0, "the daemon ended when asked to, with status 0", "the daemon ended with %d" % status)


def knock(story: Story, demo: Demo, wire: demo_net.Eavesdropper) -> tuple[socket.socket, bytes, float]:
    """Knocks with the real client; returns the session then made, the packet as seen on the wire, and its time."""
    words = tinyknop("knock", "-c", HOME + "/client.toml", "demo")
    with open(HOME + "/knock.log", "wb") as log:
        client = demo.net.spawn(words, stdout=log, stderr=log)
    seen = wire.knock(15)
    if seen is None:
        with open(HOME + "/knock.log", errors="replace") as said:
            raise Unexpected("the client sent no packet: " + said.read().strip())
    payload, knocked = seen
    session, patience = None, 0.004
    while session is None and time.time() < knocked + TIMEOUT:
        session, patience = demo_net.connect(patience), min(patience * 1.3, 0.5)  # short: a dropped SYN waits 1 s
    took = (time.time() - knocked) * 1000
    text = "knocked: one UDP packet of %d bytes to port %d, where nothing listens and nothing answers"
    story.tell(text % (len(payload), KNOCK_PORT))
    if session is None:
        raise Unexpected("the knock opened nothing")
    story.tell("connected %.1f ms after the packet left" % took)
    if client.wait(10):
        raise Unexpected("the client ended with status %d" % client.returncode)
    return session, payload, knocked


def replay(story: Story, demo: Demo, payload: bytes) -> None:
    """Sends the recorded packet once more, as somebody on the way could."""
    before = demo.counters().get("replay", 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        line.sendto(payload, (SERVER, KNOCK_PORT))
    story.tell("somebody on the way recorded that packet and now sends the very same bytes again")
    counted = until(lambda: demo.counters().get("replay", 0) == before + 1, 3)
    good = "the daemon saw that it is a replay (its counter went from %d to %d)" % (before, before + 1)
    story.expect(counted, good, "the replay was not counted: %s" % demo.counters())
    closed = demo_net.connect(0.5) is None and not demo.openings()
    story.expect(closed, "connecting: no answer, the port stays closed", "the replay opened the port")


def probe_closed(timeout: float) -> bool:
    """Tells whether a new connection gets no answer."""
    line = demo_net.connect(timeout)
    if line:
        line.close()
    return line is None


def still_open(session: socket.socket) -> bool:
    """Tells whether the session made while the port was open still works, and ends it."""
    with session:
        return demo_net.still_answers(session)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits until `condition()` holds; returns whether it came to."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def tinyknop(*words: str) -> list[str]:
    """Returns the words that run tinyknop under this Python."""
    return [sys.executable, "-m", "tinyknop"] + list(words)


def inside() -> int:
    """Runs the demo in the namespaces made for it; returns the exit status."""
    story = Story()
    net = demo_net.Network()
    demo = Demo(net)
    try:
        demo_net.run(OWN_RUN)
        net.start()
        demo.firewall()
        story.tell("two machines on a private wire: client %s, server %s" % (CLIENT, SERVER))
        story.tell("a TCP service listens on the server's port %d, behind a firewall that drops all" % SERVICE_PORT)
        demo.configure()
        demo.start()
        held = "iptables and ipset" if demo.ipset else "iptables (ipset is not to be had here)"
        story.tell("the daemon is ready; it reads packets off the wire and opens through " + held)
        wire = demo_net.Eavesdropper()
        tell_all(story, demo, wire)
    except (Unexpected, OSError, subprocess.TimeoutExpired) as error:
        story.tell("WRONG: %s" % error)
        if os.path.exists(demo.log):
            print("the daemon's log:\n" + demo.said(), flush=True)
        return 1
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # ending our children must not be cut short
        net.stop()
    story.tell("all as it should be; nothing is left behind")
    return 0


def missing() -> list[str]:
    """Returns what must be installed first, as lines for people; empty if nothing."""
    absent = [(tool, package) for tool, package in TOOLS if not shutil.which(tool)]
    if not absent:
        return []
    lines = ["the demo needs %s" % tool for tool, _ in absent]
    return lines + ["install with: apt install " + " ".join(sorted({package for _, package in absent}))]


def namespaces() -> list[str] | None:
    """Returns the flags of unshare that work for this user: as root first, then by a user namespace; or None."""
    for flags in ["-nm"] if os.geteuid() == 0 else [], ["-Urnm"]:
        if flags and not subprocess.run(["unshare"] + flags + ["--"] + OWN_RUN, stderr=subprocess.DEVNULL).returncode:
            return flags
    return None


def main(argv: list[str]) -> int:
    """The command `tinyknop demo`; returns the exit status."""
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + SBIN
    if argv == ["--inside"]:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, frame: sys.exit(128 + number))
        try:
            return inside()
        except KeyboardInterrupt:
            return 130
    if argv:
        print("usage: tinyknop demo" + __doc__.partition("demo`")[2].partition("\n")[0], file=sys.stderr)
        return 0 if argv[0] in ("-h", "--help") else 2
    lines = missing()
    flags = None if lines else namespaces()
    if flags is None:
        lines = lines or ["the demo needs network namespaces: run it as root, or allow user namespaces"]
        print("\n".join(lines), file=sys.stderr)
        return 1
    again = [sys.executable, "-m", "tinyknop.host.demo", "--inside"]
    os.execvp("unshare", ["unshare"] + flags + ["--"] + again)  # nosec B607 # the caller's own PATH


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
