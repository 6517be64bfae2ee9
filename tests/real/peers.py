"""Both sides of a knock as real programs: fwknopd, fwknop, and tinyknop's daemon and client.

A daemon counts as started when it says so in its log; nothing here waits a fixed time. Every process is ended by its
own number, by the network that it runs in (see `net.Net`).
"""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from tests.real import net

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# How a daemon is started; the bench leaves out what only the editable install of developers costs.
PYTHON = [sys.executable]
PYTHONPATH = ROOT
KEY = b"encryption key of the tests, 32B"
HMAC_KEY = b"the hmac key of the tests is a little longer than the other one."
FWKNOPD_READY = "Starting fwknopd main event loop."
SERVE_READY = "ready: "


def base64_text(data):
    """Returns base64 as the configuration files take it."""
    return base64.b64encode(data).decode()


class Process:
    """A program in a namespace whose output lines can be waited for."""

    def __init__(self, network, namespace, argv, env=None):
        self.lines = []
        self.news = threading.Condition()
        full = dict(os.environ, PYTHONPATH=PYTHONPATH, PYTHONUNBUFFERED="1", LC_ALL="C", **(env or {}))
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace] + argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=full,
            cwd=network.dir,
        )
        self.pid = self.process.pid  # `ip netns exec` becomes the program: same number
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        network.processes.append(self)

    def read(self):
        """Collects lines until the program closes its output."""
        for line in self.process.stdout:
            with self.news:
                self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                self.news.notify_all()
        with self.news:
            self.news.notify_all()

    def wait_line(self, text, timeout=10.0, after=0):
        """Returns the number of the first line from `after` on that holds `text`; fails with all lines if none."""
        deadline = time.monotonic() + timeout
        with self.news:
            while True:
                for number in range(after, len(self.lines)):
                    if text in self.lines[number]:
                        return number
                left = deadline - time.monotonic()
                if left <= 0 or not self.reader.is_alive():
                    raise AssertionError("no %r in the output:\n%s" % (text, "\n".join(self.lines)))
                self.news.wait(min(left, 0.2))

    def mark(self):
        """Returns a place in the output to give to `wait_line` as `after`."""
        with self.news:
            return len(self.lines)

    def text(self):
        """Returns all output up to now."""
        with self.news:
            return "\n".join(self.lines)

    def signal(self, number):
        """Sends a signal to this process alone."""
        self.process.send_signal(number)

    def wait(self, timeout=10.0):
        """Waits for the end; returns the exit status."""
        status = self.process.wait(timeout)
        self.reader.join(2)
        return status

    def stop(self):
        """SIGTERM, then SIGKILL; returns the exit status."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        status = self.wait()
        self.process.stdout.close()
        return status

    def kill(self):
        """SIGKILL: no chance to tidy up."""
        self.process.kill()
        self.wait()

    def cpu(self):
        """Returns the seconds of CPU used so far; schedstat counts nanoseconds where stat counts ticks of 10 ms."""
        with open("/proc/%d/schedstat" % self.pid) as file:
            return int(file.read().split()[0]) / 1e9

    def rss_kb(self):
        """Returns resident memory in KiB."""
        with open("/proc/%d/status" % self.pid) as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        return 0


def write(path, text, mode=0o600):
    """Writes a file that only its owner can read, as both daemons want it."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w") as file:
        file.write(text)
    return path


def stanza(source="ANY", key=KEY, hmac_key=HMAC_KEY, **more):
    """Returns a stanza of access.conf; `more` are keywords in lower case, None leaves one out."""
    words = {"open_ports": "tcp/%d" % net.SERVICE, "require_source_address": "N", "fw_access_timeout": "3"}
    words.update(more)
    lines = ["SOURCE %s" % source, "KEY_BASE64 %s" % base64_text(key)]
    if hmac_key is not None:
        lines.append("HMAC_KEY_BASE64 %s" % base64_text(hmac_key))
    return "\n".join(lines + ["%s %s" % (n.upper(), v) for n, v in words.items() if v is not None]) + "\n"


def fwknop_files(network, access, name, **conf):
    """Writes fwknopd.conf and access.conf into a directory of their own; returns (conf, access, run dir)."""
    home = os.path.join(network.dir, name)
    run_dir = os.path.join(home, "run")
    os.makedirs(run_dir, mode=0o700, exist_ok=True)
    words = {"pcap_intf": "eth0", "pcap_filter": "udp port 62201", "firewall_exe": "/usr/sbin/iptables"}
    words.update(conf)
    text = "".join("%s %s;\n" % (name.upper(), value) for name, value in words.items() if value is not None)
    return write(home + "/fwknopd.conf", text), write(home + "/access.conf", access), run_dir


def fwknopd(network, access=None, ready=True, name="fwknopd", **conf):
    """Starts the real fwknopd in the server's namespace."""
    conf_file, access_file, run_dir = fwknop_files(network, access or stanza(), name, **conf)
    argv = ["fwknopd", "-f", "-c", conf_file, "-a", access_file, "-r", run_dir]
    daemon = Process(network, network.server, argv)
    daemon.state = run_dir
    if ready:
        daemon.wait_line(FWKNOPD_READY)
    return daemon


def front_end(network, access=None, ready=True, name="front", **conf):
    """Starts `tinyknop fwknopd` with files that fwknopd would read as well; its port is iptables."""
    conf_file, access_file, run_dir = fwknop_files(network, access or stanza(), name, **conf)
    argv = [*PYTHON, "-m", "tinyknop", "fwknopd", "-f", "-c", conf_file, "-a", access_file, "-r", run_dir]
    daemon = Process(network, network.server, argv)
    daemon.state, daemon.config, daemon.access = run_dir, conf_file, access_file
    if ready:
        daemon.wait_line(FWKNOPD_READY)
    return daemon


TOML = """[daemon]
state_dir = "{state}"

[[capture]]
kind = "{capture}"
{interface}port = 62201

[port.firewall]
kind = "{kind}"
{options}
"""

TOML_STANZA = """
[[stanza]]
name = "{name}"
source = {source}
key_file = "{key_file}"
{openings}timeout = {timeout}
ports = ["firewall"]
{more}
"""


def key_file(network, name="keys", key=KEY, hmac_key=HMAC_KEY):
    """Writes the two lines that keygen prints; returns the path."""
    text = "KEY_BASE64: %s\n" % base64_text(key)
    if hmac_key is not None:
        text += "HMAC_KEY_BASE64: %s\n" % base64_text(hmac_key)
    return write(os.path.join(network.dir, name + ".key"), text)


def toml_stanza(network, name="alice", source=("ANY",), openings=None, timeout=3, more="", **keys):
    """Returns one [[stanza]]; `openings` () leaves the line out, so that any may be asked for."""
    openings = ["tcp/%d" % net.SERVICE] if openings is None else openings
    return TOML_STANZA.format(
        name=name,
        source=json.dumps(list(source)),
        key_file=key_file(network, name, **keys),
        openings="openings = %s\n" % json.dumps(openings) if openings else "",
        timeout=timeout,
        more=more,
    )


def serve(network, stanzas=None, ready=True, name="serve", kind="ipset", capture="packet", options=None):
    """Starts `tinyknop serve` from a tinyknop.toml."""
    home = os.path.join(network.dir, name)
    os.makedirs(home, mode=0o700, exist_ok=True)
    if options is None:
        options = 'set = "%s"' % SET if kind == "ipset" else ""
    interface = 'interface = "eth0"\n' if capture == "packet" else ""
    text = TOML.format(state=home + "/state", kind=kind, capture=capture, interface=interface, options=options)
    config = write(home + "/tinyknop.toml", text + (stanzas or toml_stanza(network)))
    daemon = Process(network, network.server, [*PYTHON, "-m", "tinyknop", "serve", "-c", config])
    daemon.state, daemon.config = home + "/state", config
    if ready:
        daemon.wait_line(SERVE_READY)
    return daemon


SET = "tinyknop"


def owner_rule(network):
    """Makes the set and the rule that matches it: with ipset the rule is the owner's, not the daemon's."""
    network.at(network.server, "ipset", "create", "-exist", SET, "hash:ip,port", "timeout", "0")
    words = "-A INPUT -m set --match-set %s src,dst -j ACCEPT" % SET
    network.at(network.server, "iptables", "-w", *words.split())


def status(daemon):
    """Returns what the daemon tells about itself: counters, grants, ports, captures."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(daemon.state + "/tinyknop.sock")
        client.shutdown(socket.SHUT_WR)
        chunks = []
        while True:
            chunk = client.recv(65536)
            if not chunk:
                return json.loads(b"".join(chunks))
            chunks.append(chunk)


def counters(daemon):
    """Returns the counters that are not zero."""
    return {name: value for name, value in status(daemon)["counters"].items() if value}


def wait_counters(daemon, before, timeout=5.0):
    """Waits until any counter of a decision has moved; returns {name: by how much}."""
    deadline = time.monotonic() + timeout
    while True:
        now = counters(daemon)
        moved = {name: value - before.get(name, 0) for name, value in now.items() if value != before.get(name, 0)}
        if moved or time.monotonic() > deadline:
            return moved
        time.sleep(0.005)


def fwknop(network, *more, key=KEY, hmac_key=HMAC_KEY, allow=net.CLIENT, access=None, seconds=None, check=True):
    """Runs the real client in the client's namespace; returns its output."""
    more = more if seconds is None else more + ("-f", str(seconds))
    argv = ["env", "HOME=" + network.dir, "fwknop", "--no-rc-file", "--no-save-args", "-D", net.SERVER]
    argv += ["-A", access or "tcp/%d" % net.SERVICE]
    argv += ["-s"] if allow is None else ["-a", allow]
    argv += ["--key-base64-rijndael", base64_text(key)]
    if hmac_key is not None:
        argv += ["--use-hmac", "--key-base64-hmac", base64_text(hmac_key)]
    return network.at(network.client, *(argv + list(more)), check=check)


def knock(network, *more, key=KEY, hmac_key=HMAC_KEY, allow=net.CLIENT, access=None, check=True):
    """Runs tinyknop's client in the client's namespace; returns its output."""
    argv = ["env", "HOME=" + network.dir, "PYTHONPATH=" + ROOT, sys.executable, "-m", "tinyknop", "knock", net.SERVER]
    argv += ["-A", access or "tcp/%d" % net.SERVICE]
    argv += ["-s"] if allow is None else ["-a", allow]
    argv += ["--key-file", key_file(network, "client", key, hmac_key)]
    return network.at(network.client, *(argv + list(more)), check=check)


def rules(network, chain="FWKNOP_INPUT"):
    """Returns the rules of the daemon's chain, [] where it does not exist."""
    text = network.at(network.server, "iptables", "-w", "-S", chain, check=False)
    return [line for line in text.splitlines() if line.startswith("-A " + chain)]


def elements(network, name=SET):
    """Returns {element: seconds left} of a set."""
    found = {}
    for line in network.at(network.server, "ipset", "list", name, check=False).splitlines():
        words = line.split()
        if len(words) >= 3 and words[1] == "timeout":
            found[words[0]] = int(words[2])
    return found
