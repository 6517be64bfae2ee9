"""The boards' main programs, unchanged, on MicroPython's unix port: only `network` and `machine` are stand-ins."""

import importlib.util
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from types import ModuleType

import pytest

from scripts.stage import stage
from tests.need import need
from tests.real import cables, net, peers
from tests.real.test_frr import Edge
from tinyknop import Keys, Packet, compat, config, ports, ready, seal
from tinyknop.control import Door
from tinyknop.daemon import Daemon
from tinyknop.gate import Datagram
from tinyknop.loop import Loop
from tinyknop.settings import Settings
from tinyknop.stanza import Stanza

sys.path.insert(0, os.path.join(peers.ROOT, "scripts"))
import package  # noqa: E402  (a script finds its neighbours in its own folder)

ROOT = peers.ROOT
STANDINS = os.path.join(ROOT, "tests", "real", "standins")

DOOR = """[daemon]
state_dir = "{home}/state"

[[capture]]
kind = "udp"
port = 62201

[port.firewall]
kind = "gpio"
pin = "15"
active = "low"
{more}
"""

ROUTER = """[daemon]
state_dir = "{home}/state"

[[capture]]
kind = "udp"
port = 62201

[carrier.console]
kind = "serial"
device = "uart:1:4:5"
profile = "frr"

[port.firewall]
kind = "frr"
via = "console"
"""


class TimeServer:
    """Answers questions for the time in the server's namespace, and counts them."""

    def __init__(self, network, answers=True):
        self.socket = network.new_socket(network.server, socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 123))
        self.answers = answers
        self.asked = 0
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        network.processes.append(self)

    def serve(self):
        while True:
            data, sender = self.socket.recvfrom(100)
            if not data:
                return
            self.asked += 1
            if self.answers:
                now = struct.pack(">II", int(time.time()) + 2208988800, 0)
                self.socket.sendto(b"\x24\x01" + bytes(22) + data[40:48] + now + now, sender)

    def stop(self):
        self.socket.sendto(b"", self.socket.getsockname())
        self.thread.join(5)
        self.socket.close()


class Board:
    """A folder that is a board's flash, and what runs from it."""

    def __init__(self, network, tmp_path, kind="rp2"):
        self.network = network
        self.home = str(tmp_path / "flash")
        os.mkdir(self.home)
        stage(self.home)
        shutil.copy(os.path.join(ROOT, "boards", "board.py"), self.home)
        shutil.copy(os.path.join(ROOT, "boards", kind, "main.py"), self.home)
        about = json.loads(open(os.path.join(ROOT, "boards", kind, "board.json")).read())
        about["ntp"] = "127.0.0.1"
        peers.write(self.home + "/board.json", json.dumps(about))
        self.pins = self.home + "/pins"
        self.env = {"MICROPYPATH": "%s:%s:.frozen" % (self.home, STANDINS), "PINS": self.pins, "TMPDIR": self.home}

    def configure(self, text, **stanza):
        """Puts tinyknop.json on the flash, as `tinyknop compile` makes it."""
        toml = peers.write(self.network.dir + "/board.toml", text + peers.toml_stanza(self.network, **stanza))
        argv = [sys.executable, "-m", "tinyknop", "compile", toml, "-o", self.home + "/tinyknop.json"]
        subprocess.run(argv, check=True, env=dict(os.environ, PYTHONPATH=ROOT))

    def compile(self):
        """Puts what `make board` makes for the configuration in the place of the sources."""
        shutil.rmtree(self.home + "/tinyknop")
        os.remove(self.home + "/board.py")
        package.compile_for(self.home + "/lib", ready.load(self.home + "/tinyknop.json")[0])
        self.env["MICROPYPATH"] = "%s/lib:%s:.frozen" % (self.home, STANDINS)

    def power(self, said="bytes of heap are free"):
        """Switches the board on."""
        argv = ["env", "-C", self.home, need("micropython"), "main.py"]
        board = peers.Process(self.network, self.network.server, argv, self.env)
        if said:
            board.wait_line(said)
        return board

    def told(self, kind="pin"):
        """Returns what the stand-ins were told of one kind."""
        try:
            with open(self.pins) as file:
                return [line.split(" ", 1)[1].strip() for line in file if line.startswith(kind)]
        except FileNotFoundError:
            return []

    def wait_pin(self, *levels, within=8.0):
        """Waits until the levels of the door's pin since power-on have been these."""
        deadline = time.monotonic() + within
        wanted = ["15 %d" % level for level in levels]
        while self.told() != wanted:
            assert time.monotonic() < deadline, (self.told(), wanted)
            time.sleep(0.02)


@pytest.fixture
def open_network(network):
    """A board has no firewall of its own."""
    network.at(network.server, *"iptables -w -A INPUT -p udp --dport 62201 -j ACCEPT".split())
    return network


@pytest.mark.parametrize("kind", ("rp2", "esp32"))
def test_door_opens_and_closes_and_the_clock_was_set_before(open_network, tmp_path, kind):
    need("fwknop")
    board = Board(open_network, tmp_path, kind)
    board.configure(DOOR.format(home=board.home, more=""), timeout=1)
    if kind == "rp2":
        board.compile()
    TimeServer(open_network)
    running = board.power()
    peers.fwknop(open_network)
    board.wait_pin(1, 1, 0, 1)  # off as it starts, off once more by the first sync, then on and off
    assert len(board.told("clock")) == 1
    assert board.told("watchdog") == ["8000" if kind == "rp2" else "30000"]
    assert running.text().count(") opened ") == 1


def test_no_knock_is_heard_before_the_time_is_known(open_network, tmp_path):
    board = Board(open_network, tmp_path)
    board.configure(DOOR.format(home=board.home, more=""), timeout=1)
    server = TimeServer(open_network, answers=False)
    running = board.power(said=None)
    deadline = time.monotonic() + 10
    while not server.asked:
        assert time.monotonic() < deadline, running.text()
        time.sleep(0.02)
    peers.fwknop(open_network)
    server.answers = True
    running.wait_line("bytes of heap are free", timeout=20)
    assert ") opened " not in running.text()
    peers.fwknop(open_network)
    running.wait_line(") opened ")


def test_pulse_is_short_whatever_time_was_asked_for(open_network, tmp_path):
    board = Board(open_network, tmp_path)
    board.configure(DOOR.format(home=board.home, more='pulse = "200"'), timeout=30)
    TimeServer(open_network)
    board.power()
    start = time.monotonic()
    peers.fwknop(open_network)
    board.wait_pin(1, 0, 1)
    assert time.monotonic() - start < 5


def test_knock_goes_to_the_console_of_a_real_router_and_is_taken_back(tmp_path):
    need("fwknop", "vtysh")
    with net.Net(workdir=tmp_path) as network:
        network.at(network.server, *"iptables -w -A INPUT -p udp --dport 62201 -j ACCEPT".split())
        edge = Edge(network)
        cable = cables.Cable(network, [edge.vtysh])
        board = Board(network, tmp_path)
        board.env["UART_1"] = cable.device
        board.configure(ROUTER.format(home=board.home), timeout=2)
        board.compile()
        TimeServer(network)
        running = board.power()
        peers.fwknop(network)
        edge.wait_lists(["access-list knock-tcp-2222 seq 5 permit 10.99.0.2/32"])
        edge.wait_lists([])
        assert "error" not in running.text()
        edge.remove()


def test_what_is_wrong_is_said_and_the_board_tries_again(open_network, tmp_path):
    board = Board(open_network, tmp_path)
    peers.write(board.home + "/tinyknop.json", '{"stanza": []}')
    running = board.power(said=None)
    running.wait_line("tinyknop.json")


class Wlan:
    """A wireless network that is there or not; asked to join while it is at it, an ESP32 raises."""

    def __init__(self):
        self.there, self.tries = False, 0

    def isconnected(self):
        return self.there

    def connect(self, name, password):
        self.tries += 1
        if self.tries > 1:
            raise OSError("Wifi Internal State Error")


@pytest.fixture
def program(monkeypatch):
    """boards/board.py as a module, in a hurry."""
    for name in ("machine", "network"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    spec = importlib.util.spec_from_file_location("board", os.path.join(ROOT, "boards", "board.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("JOIN_S", "FEED_S", "ANSWER_S"):
        monkeypatch.setattr(module, name, 0.01)
    return module


def test_network_that_does_not_come_is_joined_again_and_again(program):
    options, wlan, loop = {"ssid": "home", "password": "p"}, Wlan(), Loop()
    program.join(options, wlan)
    program.join(options, wlan)
    task = loop.spawn(program.joined(options, wlan))
    deadline = time.monotonic() + 5
    while wlan.tries < 5:
        assert not task.done and time.monotonic() < deadline
        loop.turn()


def test_time_servers_name_is_looked_up_when_that_can_be_waited_for(program, monkeypatch):
    """A look-up blocks, without a network for ever on some boards; the watchdog resets a board that waits in vain."""
    wlan, loop, looked = Wlan(), Loop(), []
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    monkeypatch.setattr(compat, "sockaddr", lambda *_: looked.append(1) or server.getsockname())
    clock = program.Clock("time.example.net", wlan)
    ask = lambda: loop.run_until(clock.answered())  # noqa: E731
    assert not ask() and not looked
    wlan.there = True
    assert not ask() and not ask()
    assert len(looked) == 2

    async def answered(sock, seconds):
        server.sendto(b"time", sock.getsockname())
        return True

    with monkeypatch.context() as good:
        good.setattr(program, "readable", answered)
        good.setattr(clock, "take", lambda answer, asked: True)
        assert ask() and ask()
        assert len(looked) == 3
    monkeypatch.setattr(program, "ANSWER_S", 0)
    hours = [ask() for _ in range(600)]
    assert not any(hours) and len(looked) == 3
    clock.patience = 0
    assert not ask() and not ask()
    assert len(looked) == 4
    server.close()


class PowerCut(BaseException):
    """The power goes; nothing between here and the test may catch it."""


class Flash:
    """A board's flash: what was not synced may be lost from some byte on, and the power goes at the `cut`-th write."""

    def __init__(self, monkeypatch, folder):
        self.folder = folder
        self.cut = self.writes = 0
        self.bytes = 0
        self.safe = {}  # path -> what no power cut can take
        for name in ("append_to", "fsync"):
            monkeypatch.setattr(compat, name, getattr(self, name))
        monkeypatch.setattr(os, "rename", self.rename)
        self.renamed = os.replace
        monkeypatch.setattr(compat, "boot_wall", lambda: compat.wall())
        monkeypatch.setattr(compat, "wall", lambda: self.clock[0])
        monkeypatch.setattr(compat, "monotonic", lambda: self.clock[1])
        self.clock = [1800000000, 5000]

    def count(self, size):
        self.writes += 1
        self.bytes += size
        if self.writes == self.cut:
            raise PowerCut

    def append_to(self, path):
        return Appended(self, path, open(path, "ab", 0))

    def rename(self, old, new):
        """Safe at once, as littlefs does it."""
        self.count(0)
        self.renamed(old, new)
        self.safe[new] = self.safe.pop(old, b"")

    def fsync(self, file):
        self.count(0)
        self.safe[file.path] = open(file.path, "rb").read()

    def lose(self, share):
        """Leaves of what was not synced only a first part."""
        for name in os.listdir(self.folder):
            path = os.path.join(self.folder, name)
            whole, safe = open(path, "rb").read(), self.safe.get(path, b"")
            kept = len(safe) + int((len(whole) - len(safe)) * share)
            open(path, "wb").write(whole[:kept])


class Appended:
    """A file that is appended to; a write that the power cuts short leaves a half."""

    def __init__(self, flash, path, file):
        self.flash, self.path, self.file = flash, path, file

    def write(self, data):
        try:
            self.flash.count(len(data))
        except PowerCut:
            self.file.write(data[: len(data) // 2])
            raise
        return self.file.write(data)

    def close(self):
        self.file.close()


class Device:
    """A router behind a console: keeps what is open whatever becomes of the board."""

    self_timed, outlives_us, nats, by_destination = False, True, False, False
    carrier = None

    def __init__(self):
        self.open_now = set()

    async def start(self):
        pass

    async def open(self, grant, seconds):
        self.open_now.add(grant.source)

    async def close(self, grant):
        self.open_now.discard(grant.source)

    async def sync(self, live):
        self.open_now = {grant.source for grant, _ in live}

    async def stop(self, flush=False):
        pass

    def describe(self):
        return "router"


KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)


class Story:
    """Two knocks and their ends, on a flash that may lose its power on the way."""

    def __init__(self, monkeypatch, folder):
        self.flash = Flash(monkeypatch, folder)
        self.device = Device()
        monkeypatch.setattr(ports, "make", lambda name, options, carriers: self.device)
        monkeypatch.setattr(Door, "open", lambda door: None)  # no board has it
        self.sent = []

    def boot(self):
        entries = [("FWKNOP_RUN_DIR", self.flash.folder, "test:1")]
        settings = Settings(entries)
        settings.ports = {"router": {"kind": "device"}}
        words = {"SOURCE": "ANY", "KEY": peers.KEY.decode(), "HMAC_KEY": peers.HMAC_KEY.decode()}
        words.update({"FW_ACCESS_TIMEOUT": "10", "name": "alice", "ports": "router"})
        stanza = Stanza([(name, text, "test:1") for name, text in words.items()], "test:1")
        config.finish(settings, [stanza], "test")
        self.daemon = Daemon(settings, [stanza], Loop())
        self.daemon.loop.run_until(self.daemon.start())
        self.pass_time(0)

    def off(self):
        """The board forgets what it was doing."""
        for worker in self.daemon.keeper.workers.values():
            worker._task.cancel()

    def pass_time(self, seconds):
        """Lets the clock run, second by second; whatever is due is done."""
        for _ in range(seconds or 1):
            self.flash.clock[0] += 1 if seconds else 0
            self.flash.clock[1] += 1000 if seconds else 0
            for _ in range(8):
                self.daemon.loop.soon(int)
                self.daemon.loop.turn()

    def knock(self, address):
        data = seal(Packet(message=address + ",tcp/22", timestamp=self.flash.clock[0]), KEYS)
        self.sent.append(data)
        self.hear(data)

    def hear(self, data):
        self.daemon.heard(Datagram(data, b"\xc0\0\2\7", 40000, b"\0\0\0\0", 62201, 17))
        self.pass_time(0)

    def tell(self):
        """The story itself."""
        self.boot()
        self.pass_time(1)  # what is stamped before the start is refused
        self.knock("192.0.2.1")
        self.pass_time(6)
        self.knock("192.0.2.2")
        self.pass_time(6)


@pytest.mark.parametrize("share", (0, 0.5, 1))
def test_power_cut_at_any_write_leaves_no_hole_and_no_replay(monkeypatch, tmp_path, share):
    number = 0
    while True:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        story = Story(monkeypatch, str(folder))
        story.flash.cut = number
        try:
            story.tell()
            break
        except PowerCut:
            story.off()
        story.flash.lose(share)
        story.flash.cut = 0
        story.flash.clock[0] += 2
        story.boot()
        live = {grant.source for grant in story.daemon.keeper.grants.live.values()}
        assert story.device.open_now == live, number
        for data in story.sent:
            story.hear(data)
        assert story.daemon.counters["granted"] == 0, number
        story.pass_time(11)
        assert story.device.open_now == set(), number
        assert not story.daemon.keeper.grants.live
    assert number > 8


def test_flash_is_written_a_bounded_number_of_times_and_never_for_junk(monkeypatch, tmp_path):
    story = Story(monkeypatch, str(tmp_path))
    story.boot()
    flash = story.flash
    begun = flash.writes
    for _ in range(500):
        story.hear(seal(Packet(message="192.0.2.1,tcp/22"), Keys(key=b"k" * 32, hmac_key=b"h" * 32)))
    assert flash.writes == begun
    written = flash.bytes
    for number in range(500):
        story.knock("192.0.2.%d" % (number % 250 + 1))
        story.pass_time(20)
    # Digest, grant and its sync, close; each file anew now and then. A block of flash has 4,096 bytes.
    assert flash.writes - begun < 500 * 4.1
    assert flash.bytes - written < 500 * 600
    assert os.path.getsize(story.daemon.keeper._journal.path) < 200000
