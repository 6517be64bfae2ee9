"""The serial carrier on a real tty, with a busybox ash at the other end: opened, unplugged, wrong, slow, silent."""

import subprocess
import sys
import time

import pytest
from tinyknop.ports import carrier
from tinyknop.ports.carriers import serial

from scripts.stage import stage
from tests.need import need
from tests.real import cables, peers
from tests.real.cables import Cable, via
from tinyknop import log
from tinyknop.errors import PortError
from tinyknop.host import cli
from tinyknop.loop import Loop

SILENT = ["/bin/sh", "-c", "stty raw -echo; exec sleep 1000"]
NOISE = ["/bin/sh", "-c", "stty raw -echo; while :; do head -c 40 /dev/urandom; sleep 0.05; done"]


class Desk:
    """A carrier in this process."""

    def __init__(self, cable, **more):
        self.loop = Loop()
        options = {"kind": "serial", "device": cable.device, "profile": "openwrt", "baud": "115200"}
        options.update(more)
        self.carrier = carrier("edge", options)

    def say(self, *words, **more):
        return self.loop.run_until(self.carrier.say(*words, **more))

    def refused(self, *words, **more):
        with pytest.raises(PortError) as error:
            self.say(*(words or ("true",)), **more)
        return str(error.value)

    def leave(self):
        self.loop.run_until(self.carrier.stop())


@pytest.fixture
def cable(network):
    need("busybox")
    return Cable(network, cables.ash(network.server))


@pytest.fixture
def desk(cable):
    made = Desk(cable)
    yield made
    made.leave()


def options_of(cable, baud=115200):
    words = {"kind": "serial", "device": cable.device, "profile": "openwrt", "baud": str(baud)}
    return via(words, 'set = "%s"' % peers.SET)


def test_a_knock_opens_behind_a_line_of_9600_baud(guarded):
    need("busybox", "ipset")
    cable = Cable(guarded, cables.ash(guarded.server), 9600)
    daemon = peers.serve(guarded, kind="ipset", options=options_of(cable, 9600))
    cable.wait_sent(b"ipset list %s6 <" % peers.SET.encode())
    assert not guarded.can_connect()
    peers.knock(guarded)
    assert guarded.wait_connect(True) is not None
    assert guarded.wait_connect(False, within=8) is not None
    daemon.stop()
    assert "Traceback" not in daemon.text() and "fault" not in daemon.text()


def test_words_and_texts_arrive_as_they_are(desk):
    for word in ("a b", "$HOME", "`id`", "x'y", "*", "#"):
        assert desk.say("echo", word) == word + "\n"
    text = "one\n  two $x `id` \"q\" 'z' {}*\nthree\n"
    assert desk.say("cat", text=text) == text
    assert "not found" in desk.refused("nosuch")


@pytest.mark.parametrize("library", [True, False])
def test_with_pyserial_and_without(cable, library, monkeypatch):
    if not library:
        monkeypatch.setitem(sys.modules, "serial", None)
    desk = Desk(cable, rtscts="no", xonxoff="yes")
    assert desk.say("echo", "in") == "in\n"
    kind = type(desk.carrier.line).__name__
    assert kind == ("_PySerial" if library else "_Tty")
    other = Desk(cable)
    assert "another program uses it" in other.refused()
    desk.leave()
    assert other.say("echo", "in") == "in\n"
    other.leave()


def test_an_unknown_speed_is_named(cable, monkeypatch):
    monkeypatch.setitem(sys.modules, "serial", None)
    assert "baud = 12345" in Desk(cable, baud="12345").refused()


def test_an_adapter_that_is_missing_at_first_and_taken_out_later(guarded):
    need("busybox", "ipset")
    cable = Cable(guarded, cables.ash(guarded.server))
    cable.unplug()
    daemon = peers.serve(guarded, kind="ipset", options=options_of(cable))
    assert "plugged in" in daemon.text()
    cable.plug()
    daemon.wait_line("works again", 20)
    peers.knock(guarded)
    assert guarded.wait_connect(True) is not None
    cable.unplug()
    mark = daemon.mark()
    peers.knock(guarded)
    daemon.wait_line("trying again", 20, mark)
    cable.plug()
    daemon.wait_line("works again", 30, mark)
    assert guarded.wait_connect(False, within=8) is not None
    assert not peers.status(daemon)["grants"]
    daemon.stop()


@pytest.mark.parametrize(("program", "advice"), [(SILENT, "nothing came from the router"), (NOISE, "is no text")])
def test_no_prompt_is_explained(network, monkeypatch, program, advice):
    monkeypatch.setattr("tinyknop.console._LOGIN", 4000)
    desk = Desk(Cable(network, program), timeout="1")
    began = time.monotonic()
    said = desk.refused()
    assert advice in said and "baud = 115200" in said
    assert time.monotonic() - began < 8
    desk.leave()


def test_a_line_whose_bytes_stand_still_holds_nobody_up(cable):
    """Flow control that never lets go: what cannot be written waits, and closing does not."""
    desk = Desk(cable)
    assert desk.say("echo", "in") == "in\n"
    cable.ended.set()  # nobody reads the other end any more
    cable.thread.join()
    began = time.monotonic()
    desk.refused("cat", text="x" * 900 + "\n" + "y" * 900 + "\n", within=1)
    desk.leave()
    assert time.monotonic() - began < 2


def test_bytes_cut_anywhere_make_no_difference(network):
    cable = Cable(network, cables.ash(network.server))
    cable.mangle = cables.pieces
    desk = Desk(cable)
    assert desk.say("seq", "50") == "".join("%d\n" % number for number in range(1, 51))
    desk.leave()


ON_A_BOARD = """
from tinyknop.loop import Loop
from tinyknop.ports import carrier
edge, loop = carrier("edge", {"kind": "serial", "device": "%s", "profile": "openwrt", "baud": "115200"}), Loop()
print(loop.run_until(edge.say("echo", "in", "here")))
print(loop.run_until(edge.say("cat", text="one\\ntwo\\n")))
loop.run_until(edge.stop())
"""


def test_micropython_speaks_over_the_same_line(cable, tmp_path):
    micropython = need("micropython")
    stage(str(tmp_path))
    script = peers.write(str(tmp_path / "script.py"), ON_A_BOARD % cable.device)
    done = subprocess.run([micropython, script], env={"MICROPYPATH": str(tmp_path)}, capture_output=True, timeout=30)
    assert done.stdout.replace(b"\r", b"").split() == [b"in", b"here", b"one", b"two"], done


ROUTER = """
import sys
def ask(text):
    print(text, end="", flush=True)
    line = sys.stdin.readline()
    return line.strip("\\x15\\r\\n") if line else sys.exit()
print("Press RETURN to get started.")
while True:
    ask("\\r\\n")
    if ask("Username: ") == "knock" and ask("Password: ") == "%s":
        break
mark = ">"
while True:
    line = ask("edge" + mark)
    if line == "enable":
        mark = "#" if ask("Password: ") == "%s" else ">"
    elif line.startswith("echo"):
        print(line[5:])
    elif line and not line.startswith("terminal"):
        print("%% Unknown command")
"""
TABLES = """
[carrier.edge]
kind = "serial"
device = "%s"
profile = "cisco-ios"
user = "knock"
password_file = "%s"
enable_password_file = "%s"

[port.sets]
kind = "ipset"
set = "{0}"
via = "line"

[carrier.line]
kind = "serial"
device = "%s"
profile = "openwrt"
""".replace("{0}", peers.SET)
SECRETS = ("s3cret-of-knock", "en4ble-of-edge")


class Shown:
    """Runs `tinyknop console`, with a device that is quick to answer; returns what it prints."""

    def __init__(self, config, capsys):
        self.config, self.capsys = config, capsys

    def __call__(self, *words):
        cli.main(["tinyknop", "console", *words, "-c", self.config])
        return "".join(self.capsys.readouterr())


@pytest.fixture
def quick(monkeypatch):
    """A console that waits for no boot loader, nor for a slow log-in."""
    for name, value in (("_LISTEN", 200), ("_WAKE", 400), ("_REFUSAL", 600)):
        monkeypatch.setattr("tinyknop.console." + name, value)


def test_the_console_command_shows_what_passes_but_no_secret(network, cable, quick, capsys):
    program = peers.write(network.dir + "/router.py", ROUTER % SECRETS)
    edge = Cable(network, [*peers.PYTHON, program], name="edge")
    files = [peers.write("%s/%d.secret" % (network.dir, at), text + "\n") for at, text in enumerate(SECRETS)]
    config = peers.write(network.dir + "/t.toml", TABLES % (edge.device, *files, cable.device))
    show = Shown(config, capsys)
    said = show("edge")
    assert "> knock" in said and "> ***" in said and "< edge#" in said and "logged in after" in said
    assert not any(secret in said for secret in SECRETS)
    assert all(secret.encode() in edge.sent for secret in SECRETS)
    peers.write(files[0], "wrong-" + SECRETS[0] + "\n")
    edge.boot()
    said = show("edge")
    assert "logged in" not in said and not any(secret in said for secret in SECRETS)
    assert said.strip().splitlines()[-1].startswith("edge (")
    entry = "192.0.2.7,tcp:%d" % 22
    said = show("sets", "--open", "192.0.2.7", "tcp/22")
    assert "opened: 192.0.2.7 tcp/22" in said and "the device ends it after 60 s" in said
    assert entry in peers.elements(network)
    assert "closed: 192.0.2.7 tcp/22" in show("sets", "--close", "192.0.2.7", "tcp/22")
    assert entry not in peers.elements(network)
    assert "it has: edge, line, sets" in show("nosuch")
    assert "name a port" in show("edge", "--open", "192.0.2.7", "tcp/22")


def test_a_log_in_says_no_secret_anywhere(network, monkeypatch, quick):
    said = []
    monkeypatch.setattr(log, "threshold", 0)
    monkeypatch.setattr(log, "sink", lambda level, text: said.append(text))
    program = peers.write(network.dir + "/router.py", ROUTER % SECRETS)
    edge = Cable(network, [*peers.PYTHON, program])
    monkeypatch.setenv("EDGE_PASSWORD", SECRETS[0])
    enable = peers.write(network.dir + "/enable", SECRETS[1] + "\n")
    words = {"profile": "cisco-ios", "user": "knock", "password_env": "EDGE_PASSWORD", "enable_password_file": enable}
    desk = Desk(edge, **words)
    assert desk.say("echo", "in") == "in\n"
    edge.boot()
    desk.refused("echo", "in", within=1)
    monkeypatch.setenv("EDGE_PASSWORD", "wrong-" + SECRETS[0])
    said.append(desk.refused("echo", "in"))
    assert not any(secret in text for text in said for secret in SECRETS)
    monkeypatch.delenv("EDGE_PASSWORD")
    time.sleep(0.5)  # it is not asked again at once
    assert "EDGE_PASSWORD" in desk.refused()
    desk.leave()


def test_what_goes_wrong_with_a_device_is_named():
    for number, text in ((2, "plugged in"), (13, "dialout"), (11, "another program"), (5, "gone")):
        assert text in serial._reason(OSError(number, "x"))
    for device in ("uart:1", "uart:x"):
        with pytest.raises(ValueError, match="only a board"):
            serial.line(device, 9600, (False, True))
