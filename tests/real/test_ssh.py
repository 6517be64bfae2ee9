"""The ssh carrier against a real sshd: firewalls over there, keys and passwords, lost sessions, nothing leaked."""

import contextlib
import os
import signal
import subprocess
import time

import pytest
from tinyknop.ports import carrier
from tinyknop.ports.shared import dialogue

from tests.need import need
from tests.real import net, peers
from tests.real.cables import Sshd, Wire, via
from tinyknop import console, log
from tinyknop.errors import PortError
from tinyknop.loop import Loop

PASSWORD = "hunter2-of-the-tests"
FIREWALLS = (("ipset", 'set = "%s"' % peers.SET), ("nftables", ""), ("iptables", ""))


OWNER = (
    "flush ruleset",
    "add table inet filter",
    "add chain inet filter input {type filter hook input priority 0; policy drop;}",
    "add rule inet filter input ct state established accept",
    "add rule inet filter input iif lo accept",
    "add rule inet filter input meta l4proto icmpv6 accept",
)


class Way:
    """A carrier in this process, whose child runs in the server's namespace."""

    def __init__(self, network, **options):
        self.network = network
        self.loop = Loop()
        self.lines = []
        # `ip netns exec` becomes the client: same process.
        script = '#!/bin/sh\nexec ip netns exec %s %s "$@"\n' % (network.server, options.pop("binary", "ssh"))
        self.carrier = carrier("edge", dict(options, binary=peers.write(network.dir + "/ssh", script, 0o700)))

    def say(self, *words, **more):
        return self.loop.run_until(self.carrier.say(*words, **more))

    def refused(self, *words, **more):
        with pytest.raises(PortError) as error:
            self.say(*(words or ("true",)), **more)
        return str(error.value)

    def idle(self, seconds=0.3):
        async def pause():
            from tinyknop.loop import sleep

            await sleep(seconds)

        self.loop.run_until(pause())


@pytest.fixture
def sshd(network):
    need("ssh", "sshd", "ssh-keygen", "busybox")
    return Sshd(network, network.server)


@pytest.fixture
def way(network, sshd):
    made = Way(network, **sshd.options())
    yield made
    made.loop.run_until(made.carrier.stop())


@pytest.fixture
def lines(monkeypatch):
    said = []
    monkeypatch.setattr(log, "threshold", 0)
    monkeypatch.setattr(log, "sink", lambda level, text: said.append(text))
    return said


@pytest.mark.parametrize(("kind", "options"), FIREWALLS)
def test_a_firewall_behind_ssh_needs_no_code_of_its_own(guarded, sshd, kind, options):
    need("nft", "ipset", "iptables")
    if kind == "nftables":  # an owner with no iptables
        for words in OWNER:
            guarded.at(guarded.server, "nft", words)
    daemon = peers.serve(guarded, kind=kind, options=via(sshd.options(), options))
    assert not guarded.can_connect()
    peers.knock(guarded)
    assert guarded.wait_connect(True) is not None
    assert guarded.wait_connect(False, within=6) is not None
    daemon.stop()
    assert "Traceback" not in daemon.text() and "fault" not in daemon.text()


def test_words_and_texts_arrive_as_they_are(way):
    words = "a b", "$HOME", "`id`", "x'y", "*", "#", "\\"
    for word in words:
        assert way.say("echo", word) == word + "\n"
    text = "one\n  two $x `id` \"q\" \\n 'z' {}*\nthree\n"
    assert way.say("cat", text=text) == text
    said = way.refused("cat", "/nosuch")
    assert said.startswith("edge (ssh [127.0.0.1]:2200): cat /nosuch: cat: ") and "No such file" in said
    assert "not found" in way.refused("nosuch")
    assert len(way.say("seq", "20000")) == 108894


def test_many_commands_go_in_few_round_trips_and_each_is_tried(way, network):
    need("ipset")
    way.say("ipset", "create", "many", "hash:ip,port", "timeout", "0")
    entries = ["192.0.2.%d,tcp:22" % number for number in range(120)]
    commands = [("ipset", "add", "-exist", "many", entry, "timeout", "60") for entry in entries]
    sent = []
    way.carrier.seen = lambda direction, data: sent.append(data) if direction == "out" else None
    way.loop.run_until(way.carrier.say_all(commands))
    assert len(sent) == 3 and sorted(peers.elements(network, "many")) == sorted(entries)
    commands = [("ipset", "del", "nosuch", entries[0]), ("ipset", "del", "many", entries[1])]
    with pytest.raises(PortError, match="does not exist"):
        way.loop.run_until(way.carrier.say_all(commands))
    assert entries[1] not in peers.elements(network, "many")


@pytest.mark.parametrize("shell", ["busybox ash", "dash", "bash"])
def test_a_command_that_was_cut_anywhere_does_nothing(tmp_path, shell):
    need("busybox", "dash", "bash")
    made = tmp_path / "made"
    for line, text in (("mkdir %s" % made, ""), ("tee %s" % made, "one\ntwo\n")):
        talk = console.Console(
            carrier("x", {"kind": "serial", "device": "x", "profile": "openwrt"}).profile, terminal=False
        )
        talk.start(0)
        line, text = dialogue.whole(line, text)
        talk.command(line, 0, 1000, text)
        sent = talk.take()
        for at in range(sent.index(dialogue.END.encode() + b"\n" if text else b"; }") + 3):
            subprocess.run(shell.split(), input=sent[:at], capture_output=True)
            assert not os.path.exists(made), sent[:at]
        subprocess.run(shell.split(), input=sent, capture_output=True)
        assert os.path.exists(made)
        os.rmdir(made) if not text else os.unlink(made)


def test_an_unknown_host_key_is_refused_with_the_command_that_accepts_it(network, sshd):
    path = network.dir + "/known"
    way = Way(network, **sshd.options(known_hosts=path))
    said = way.refused()
    mark = net.run("ssh-keygen", "-lf", sshd.home + "/host_key.pub").split()[1]
    assert "unknown host key, ssh-ed25519 " + mark in said
    assert not os.path.exists(path)
    command = said.partition("accept it: ")[2]
    assert command.endswith(" >> " + path)
    subprocess.run(["/bin/sh", "-c", command], check=True)
    way.loop.run_until(way.carrier.start())
    assert way.say("echo", "in") == "in\n"
    way.loop.run_until(way.carrier.stop())


def test_a_changed_host_key_is_refused(network, sshd):
    options = sshd.options()
    with open(sshd.home + "/user_key.pub") as file:
        other = file.read().split()[1]
    with open(options["known_hosts"], "w") as file:
        file.write("[127.0.0.1]:2200 ssh-ed25519 %s\n" % other)
    said = Way(network, **options).refused()
    assert "is not the one in " in said and "ssh-keygen -R '[127.0.0.1]:2200' -f " in said


def test_what_keeps_us_out_is_said(network, sshd):
    said = Way(network, **sshd.options(key_file=sshd.home + "/host_key")).refused()
    assert "lets us not in" in said and "Permission denied (publickey)" in said
    known = sshd.known_hosts(2299, network.dir + "/known")
    said = Way(network, **sshd.options(2299, known_hosts=known)).refused()
    assert "Connection refused" in said
    assert "not found (on Debian: apt install openssh-client)" in str(
        pytest.raises(PortError, Loop().run_until, carrier("x", sshd.options(binary="nossh")).say("true")).value
    )


def test_through_a_jump_host(network, sshd):
    far = Sshd(network, network.server, 2201, name="far")
    with open(sshd.home + "/user_key.pub") as key, open(far.home + "/authorized_keys", "a") as allowed:
        allowed.write(key.read())
    known = sshd.known_hosts()
    with open(known) as one, open(far.known_hosts()) as two:
        both = peers.write(network.dir + "/both", one.read() + two.read())
    jump = Sshd(network, network.server, 2202, command="", name="jump")
    with open(sshd.home + "/user_key.pub") as key, open(jump.home + "/authorized_keys", "a") as allowed:
        allowed.write(key.read())
    options = sshd.options(2201, known_hosts=both, jump="root@127.0.0.1:2202")
    way = Way(network, **options)
    assert "or of the jump host, is not in " + both in way.refused()
    with open(jump.known_hosts()) as three, open(both, "a") as file:
        file.write(three.read())
    way.loop.run_until(way.carrier.start())
    assert way.say("echo", "in") == "in\n"
    way.loop.run_until(way.carrier.stop())


def test_a_password_is_typed_at_a_terminal_of_its_own_and_found_nowhere(network, lines):
    need("unshare", "openssl")
    sshd = Sshd(network, network.server, name="words", password=PASSWORD)
    file = peers.write(network.dir + "/password", PASSWORD + "\n")
    way = Way(network, **sshd.options(key_file="", password_file=file))
    seen = []
    way.carrier.seen = lambda direction, data: seen.append(data)
    assert way.say("echo", "in") == "in\n"
    for name in ("cmdline", "environ"):
        with open("/proc/%d/%s" % (way.carrier.line.pid, name), "rb") as of_child:
            assert PASSWORD.encode() not in of_child.read()
    way.loop.run_until(way.carrier.stop())
    peers.write(file, "wrong-" + PASSWORD + "\n")
    assert "lets us not in" in way.refused()
    assert PASSWORD not in "".join(lines) and PASSWORD.encode() not in b"".join(seen)
    assert PASSWORD not in sshd.process.text()


def test_dropbear_s_client_will_do(network, sshd):
    need("dbclient", "dropbearconvert")
    home = network.dir + "/drop"
    os.makedirs(home + "/.ssh")
    known = sshd.known_hosts(path=home + "/.ssh/known_hosts")
    with open(known) as file:  # Dropbear leaves the port out
        text = file.read().replace("[127.0.0.1]:2200", "127.0.0.1")
    peers.write(known, text)
    net.run("dropbearconvert", "openssh", "dropbear", sshd.home + "/user_key", home + "/key")
    options = sshd.options(key_file=home + "/key", known_hosts=known, binary="dbclient")
    os.symlink(need("dbclient"), network.dir + "/dbclient")
    carried = network.inside(network.server, lambda: carried_by(options))
    assert carried == "in\n"
    peers.write(known, "")
    with pytest.raises(PortError, match="fingerprint SHA256:.* accept it: HOME=%s dbclient" % home):
        network.inside(network.server, lambda: carried_by(options))


def carried_by(options):
    """Says one word in the namespace that we are in; returns the answer."""
    loop, way = Loop(), carrier("edge", options)
    try:
        return loop.run_until(way.say("echo", "in"))
    finally:
        loop.run_until(way.stop())


def test_a_session_that_is_lost_is_told_once_and_built_anew(way, network, sshd):
    wire = Wire(network, network.server, sshd.port)
    way = Way(network, **sshd.options(wire.port))
    told = []
    way.carrier.lost.append(lambda: told.append(1))
    assert way.say("echo", "in") == "in\n"
    wire.cut()
    way.idle()
    assert told == [1]
    refusal = way.refused()
    assert "closed" in refusal or "has ended" in refusal  # in ssh's words, where they came first
    assert way.say("echo", "in") == "in\n"
    wire.deaf = True
    began = time.monotonic()
    assert "sleep 0: no end of it after 1 s" in way.refused("sleep", "0", within=1)
    assert time.monotonic() - began < 1.5
    wire.deaf = False
    assert way.say("echo", "in") == "in\n"
    way.loop.run_until(way.carrier.stop())


@pytest.mark.parametrize("profile", ["openwrt", "generic"])
def test_a_child_does_not_outlive_a_killed_daemon(network, profile):
    sshd = Sshd(network, network.server, command="/bin/busybox ash" + (" -i" if profile == "generic" else ""))
    code = """
import os
from tinyknop.loop import Loop
from tinyknop.ports import carrier
edge, loop = carrier("edge", %r), Loop()
loop.run_until(edge.say("echo", "in"))
print(edge.line.pid, flush=True)
os.kill(os.getpid(), 9)
""" % sshd.options(profile=profile)
    process = peers.Process(network, network.server, [*peers.PYTHON, "-c", code])
    process.wait(20)
    child = int(process.lines[-1])
    deadline = time.monotonic() + 5
    while os.path.exists("/proc/%d" % child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not os.path.exists("/proc/%d" % child)


def test_an_entry_is_there_in_less_than_twice_a_command_s_round_trip(guarded, sshd):
    delay = 0.05
    wire = Wire(guarded, guarded.server, sshd.port, delay)
    options = via(sshd.options(wire.port), 'set = "%s"' % peers.SET)
    daemon = peers.serve(guarded, kind="ipset", options=options)
    took = []
    for number in range(5):
        allowed = "192.0.2.%d" % (number + 1)
        packet = sealed(allowed)
        began = time.monotonic()
        guarded.send(packet)
        while not any(allowed in entry for entry in peers.elements(guarded)):
            assert time.monotonic() - began < 5
        took.append(time.monotonic() - began)
    assert min(took) < 2 * 2 * delay, took  # the best: others may want the machine
    daemon.stop()


def sealed(allowed):
    """Returns a fresh knock for an address."""
    from tinyknop import Keys, Packet, seal

    keys = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
    return seal(Packet(message="%s,tcp/%d" % (allowed, net.SERVICE), username="alice"), keys)


def test_the_device_is_right_again_after_a_kill_in_the_middle(guarded, sshd):
    wire = Wire(guarded, guarded.server, sshd.port)
    options = via(sshd.options(wire.port), 'set = "%s"' % peers.SET)
    daemon = peers.serve(guarded, kind="ipset", options=options)
    wire.deaf = True
    peers.knock(guarded)
    time.sleep(0.2)
    daemon.signal(signal.SIGKILL)
    daemon.wait()
    wire.deaf = False
    time.sleep(0.3)
    with contextlib.suppress(AssertionError):
        guarded.wait_connect(True, within=1)
    daemon = peers.serve(guarded, kind="ipset", options=options)
    assert guarded.wait_connect(False, within=6) is not None
    daemon.stop()
