"""Carriers with a session, serial and ssh: their options, one talker at a time, and what a broken line does."""

import os
import socket
import sys

from tinyknop.ports import carrier
from tinyknop.ports.carriers import serial, ssh
from tinyknop.ports.shared import dialogue

from tinyknop import console, loop
from tinyknop.errors import ConfigError, PortError

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAILUoNEYRV0c3eXYhdDRcGFPKJDUuRGwGIOtLXMxKn3Lt"
WHERE = "tinyknop.toml:7"


def refused(call, *texts):
    try:
        call()
    except (ConfigError, PortError) as error:
        for text in texts:
            assert text in str(error), str(error)
        return str(error)
    raise AssertionError("nothing was refused")


def made(kind, **options):
    options.update({"kind": kind, "where": WHERE})
    options["profile"] = options.get("profile", "openwrt")
    return carrier("edge", options)


def edge(**options):
    options["host"] = options.get("host", "192.0.2.1")
    return made("ssh", **options)


def test_wrong_options_name_their_place_and_a_remedy():
    refused(lambda: made("serial"), WHERE, "carrier.edge: device is missing", "/dev/ttyUSB0")
    refused(lambda: made("serial", device="/dev/null", bauds="9600"), WHERE, "bauds: no such option of serial", "baud")
    refused(lambda: made("serial", device="/dev/null", baud="fast"), WHERE, "baud = fast", "50 to 4000000")
    refused(lambda: made("serial", device="/dev/null", rtscts="maybe"), WHERE, "rtscts = maybe", "true or false")
    refused(lambda: made("serial", device="/dev/null", profile=""), WHERE, "profile is missing", "cisco-ios")
    refused(lambda: made("serial", device="/dev/null", profile="nosuch"), WHERE, "nosuch")
    refused(lambda: made("ssh"), WHERE, "host is missing")
    refused(lambda: edge(host="-oProxyCommand=x"), WHERE, "host = -oProxyCommand=x")
    refused(lambda: edge(key_file="/a b"), WHERE, "key_file = /a b")
    refused(lambda: edge(jump="a;b"), WHERE, "jump = a;b")
    refused(lambda: edge(port="0"), WHERE, "port = 0")
    refused(lambda: edge(timeout="0"), WHERE, "timeout = 0")
    refused(lambda: edge(password_file="a", password_env="b"), WHERE, "keep one of them")
    refused(lambda: edge(binary="dbclient"), WHERE, "known_hosts", ".ssh/known_hosts")


def test_a_carrier_with_a_session_outlives_us():
    assert edge().outlives_us and made("serial", device="/dev/null").outlives_us


def test_openssh_is_told_everything_and_no_secret():
    os_file = "/etc/tinyknop/edge.password"
    words = edge(user="knock", port="2200", key_file="/etc/key", password_file=os_file).argv()
    text = " ".join(words)
    for word in ("StrictHostKeyChecking=yes", "UserKnownHostsFile=/etc/tinyknop/known_hosts", "-F none"):
        assert word in text, word
    assert "ServerAliveInterval=15" in text and "-l knock -p 2200 -i /etc/key -- 192.0.2.1 /bin/sh" in text
    assert os_file not in text and "BatchMode=no" in text
    assert "BatchMode=yes" in edge().argv()


def test_a_shell_needs_no_terminal_and_a_command_line_does():
    assert "-T" in edge().argv()
    words = edge(profile="cisco-ios").argv()
    assert "-tt" in words and words[-1] == "192.0.2.1"


def test_a_jump_host_is_held_to_the_same_rules():
    words = edge(jump="gate@198.51.100.9:2022", key_file="/etc/key", password_env="X").argv()
    way = [word for word in words if word.startswith("ProxyCommand=")][0]
    assert way.endswith("-i /etc/key -l gate -p 2022 -W '[%h]:%p' -- 198.51.100.9")
    assert "StrictHostKeyChecking=yes" in way and "BatchMode=yes" in way and "-F none" in way
    assert edge(jump="[2001:db8::1]:2022").argv()[-6:] != [] and "-- 2001:db8::1" in " ".join(
        edge(jump="[2001:db8::1]:2022").argv()
    )


def test_dropbear_takes_words_of_its_own():
    words = edge(binary="/usr/bin/dbclient", known_hosts="/etc/tinyknop/.ssh/known_hosts", key_file="/etc/key")
    assert words.argv() == "/usr/bin/dbclient -T -K 15 -p 22 -i /etc/key 192.0.2.1 /bin/sh".split()
    assert words.home() == "/etc/tinyknop"


def test_a_fingerprint_is_openssh_s():
    assert ssh.fingerprint(KEY) == "SHA256:CH06kkwdKGDubeCwAwZz1k8kdQ2+P4RNOvkSLW3iAIw"


def test_a_shell_s_command_is_whole_or_nothing():
    assert dialogue.whole("true", "") == ("{ true </dev/null; } 2>&1", "")
    line, text = dialogue.whole("cat", "a\nb")
    assert text == "a\nb\n@@end" and "*@@end) printf %s" in line and line.endswith("esac; } 2>&1")


def test_a_password_that_others_can_read_is_refused():
    path = "test_carriers.password"
    try:
        with open(path, "w") as file:
            file.write("secret\n")
        os.system("chmod 644 " + path)
        one = edge(password_file=path)
        said = refused(one.password, "others can read it", "chmod 600")
        assert "secret" not in said
        os.system("chmod 600 " + path)
        assert one.password() == "secret"
    finally:
        os.remove(path)
    refused(edge(password_file="nosuch.password").password, "nosuch.password", "cannot be read")
    refused(edge(password_env="TINYKNOP_NO_SUCH").password, "TINYKNOP_NO_SUCH", "environment")


async def pause():
    await loop.sleep(0.02)


class Line:
    """A line whose other end is `answer(bytes)`; a socket wakes the poll."""

    said = ""

    def __init__(self, answer):
        self.answer = answer
        self.file, self.far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), None
        self.file.bind(socket.getaddrinfo("127.0.0.1", 0)[0][-1])
        self.far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for port in range(20000, 60000):  # MicroPython cannot ask a socket for its number
            try:
                self.far.bind(socket.getaddrinfo("127.0.0.1", port)[0][-1])
                break
            except OSError:
                pass
        self.file.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])
        self.sink = self.file
        self.file.send(b"?")
        self.back = self.far.recvfrom(10)[1]
        self.closed = False

    def read(self):
        return self.file.recv(2000).rstrip(b"\0")

    def write(self, data):
        self.come(self.answer(data))
        return len(data)

    def come(self, data):
        if data is not None:
            self.far.sendto(data + b"\0", self.back)  # an empty datagram is the end of the line

    def complaint(self):
        return self.said

    def close(self):
        self.closed = True
        self.file.close()
        self.far.close()


class Device:
    """A carrier whose lines lead to a shell that `does` commands: returns (status, output) or None for no answer."""

    def __init__(self, does):
        self.does = does
        self.lines = []
        self.heard = []
        self.loop = loop.Loop()
        self.carrier = edge(timeout="1")
        self.carrier.late = 0
        self.carrier.connect = self.connect

    async def connect(self):
        self.lines.append(Line(self.answer))
        return self.lines[-1]

    def answer(self, data):
        text = data.decode()
        if not text.startswith("echo "):  # a logout
            return None
        mark = text.split(";")[0].split(" ")[1]
        command = text.partition("{ ")[2].partition("}")[0]
        self.heard.append(command)
        done = (0, "") if command.startswith("true ") else self.does(command)
        if done is None or isinstance(done, bytes):
            return done
        return ("%s\n%s%s:%d\n" % (mark, done[1], mark, done[0])).encode()

    def say(self, *words, **more):
        return self.loop.run_until(self.carrier.say(*words, **more))


def test_an_answer_comes_back_and_the_session_stays():
    device = Device(lambda command: (0, "one\ntwo\n"))
    assert device.say("ipset", "list", "x") == "one\ntwo\n"
    assert device.say("ipset", "list", "x", keep=3) == "one"
    assert len(device.lines) == 1
    assert device.heard == ["true </dev/null; ", "ipset list x </dev/null; ", "ipset list x </dev/null; "]


def test_one_command_of_many_goes_as_it_is():
    device = Device(lambda command: (0, ""))
    device.loop.run_until(device.carrier.say_all([("ipset", "add", "x", "192.0.2.7")]))
    assert device.heard[1:] == ["ipset add x 192.0.2.7 </dev/null; "]


def test_a_refusal_is_the_device_s_own_and_the_session_stays():
    device = Device(lambda command: (1, "no such set\n"))
    refused(lambda: device.say("ipset", "list", "x"), "edge", "ipset list x: no such set")
    refused(lambda: device.say("ipset", "list", "x"), "no such set")
    assert len(device.lines) == 1


def test_what_cannot_be_typed_is_refused_before_anything_is_sent():
    device = Device(lambda command: (0, ""))
    device.say("true")
    said = len(device.heard)
    refused(lambda: device.say("echo", "a\nb"), "plain")
    refused(lambda: device.say("cat", text="a\x03b"), "plain")
    assert len(device.heard) == said and len(device.lines) == 1


def test_no_answer_ends_the_session_and_the_next_word_begins_another():
    device = Device(lambda command: None if len(device.lines) == 1 else (0, "there\n"))
    refused(lambda: device.say("ipset", "list", "x"), "ipset list x: no end of it after 1 s")
    assert device.lines[0].closed
    assert device.say("ipset", "list", "x") == "there\n"


def test_a_line_that_breaks_under_a_command_is_an_error_at_once():
    device = Device(lambda command: b"" if len(device.lines) == 1 else (0, "there\n"))
    device.carrier.timeout = "60"
    told = []
    device.carrier.lost.append(lambda: told.append(1))
    refused(lambda: device.say("id"), "the session has ended")
    assert told == [] and device.say("id") == "there\n"
    device.loop.run_until(pause())
    assert told == [1]  # others who share the line know nothing of its end


def test_a_line_that_breaks_while_nobody_speaks_is_told_and_then_one_error():
    device = Device(lambda command: (0, "there\n"))
    told = []
    device.carrier.lost.append(lambda: told.append(1))
    device.say("id")
    device.lines[0].come(b"")
    device.loop.run_until(pause())
    assert told == [1] and device.lines[0].closed
    refused(lambda: device.say("id"), "the session has ended")
    assert device.say("id") == "there\n" and len(device.lines) == 2


def test_a_stopped_carrier_begins_anew():
    device = Device(lambda command: (0, "there\n"))
    device.say("id")
    device.loop.run_until(device.carrier.stop())
    assert device.lines[0].closed
    assert device.say("id") == "there\n" and len(device.lines) == 2


def test_two_who_speak_at_once_are_answered_in_turn():
    device = Device(lambda command: (0, command.split(" ")[1] + "\n"))

    async def both():
        tasks = [loop.current().spawn(device.carrier.say("echo", word)) for word in ("one", "two", "three")]
        said = []
        for task in tasks:
            said.append(await task)
        return said

    assert device.loop.run_until(both()) == ["one\n", "two\n", "three\n"]


def test_who_is_cancelled_in_the_line_lets_the_next_in():
    turn, scheduler, done = dialogue.Turn(), loop.Loop(), []

    async def work(name, seconds):
        ticket = await turn.take()
        await loop.sleep(seconds)
        done.append(name)
        turn.give(ticket)

    async def all_of_them():
        tasks = [scheduler.spawn(work("abc"[number], 0.02)) for number in range(3)]
        await loop.sleep(0.005)
        tasks[1].cancel()
        await tasks[0]
        await tasks[2]

    scheduler.run_until(all_of_them())
    assert done == ["a", "c"]


def test_no_prompt_is_explained_by_what_came():
    line = made("serial", device="/dev/nosuch", baud="9600")
    assert "cable" in line.advice(0, 0) and "9600" in line.advice(0, 0)
    assert "no text" in line.advice(100, 60) and line.advice(100, 2) == ""
    refused(lambda: loop.Loop().run_until(line.say("id")), "/dev/nosuch", "plugged in")
    assert serial.line is not None


class Console(Line):
    """A line to a router's prompt: what is typed is repeated, and every line is answered by the prompt."""

    prompt = b"edge# "

    def __init__(self):
        self.typed = []  # lines, as they came
        Line.__init__(self, self.echo)

    def echo(self, data):
        lines = data.replace(b"\x15", b"").replace(b"\x03", b"").split(b"\r")
        self.typed += lines[:-1]
        return b"".join([line + b"\r\n" + self.prompt for line in lines[:-1]]) or None


class Router:
    """A carrier at the prompt of a router, and what it told workers; `await rest(what)` waits until that is so."""

    def __init__(self, idle=30000):
        self.loop = loop.Loop()
        self.lines, self.told = [], []
        self.carrier = made("serial", device="/dev/null", profile="frr", timeout="1")
        self.carrier.idle, self.carrier.connect = idle, self.connect
        self.carrier.lost.append(lambda: self.told.append(1))
        self.kept = console._LISTEN, console._WAKE, console._SETTLED, console._LOGIN, dialogue.APART_MS
        console._LISTEN, console._WAKE, console._SETTLED, console._LOGIN, dialogue.APART_MS = 20, 50, 5, 200, 40
        self.odd, dialogue.ODD_MS = dialogue.ODD_MS, 100

    async def connect(self):
        self.lines.append(Console())
        return self.lines[-1]

    def run(self, coroutine):
        try:
            self.loop.run_until(coroutine)
        finally:
            console._LISTEN, console._WAKE, console._SETTLED, console._LOGIN, dialogue.APART_MS = self.kept
            dialogue.ODD_MS = self.odd

    async def until(self, what):
        for _ in range(500):
            if what():
                return
            await loop.sleep(0.01)
        raise AssertionError("it never came")


def test_a_device_that_was_restarted_on_an_idle_line_is_told_of():
    for said in (b"\r\nSystem Bootstrap, Version 15\r\nedge# ", b"\r\n\r\nPassword: "):
        router = Router()

        async def body(router=router, said=said):
            await router.carrier.say("show", "clock")
            assert router.told == []
            router.lines[0].come(said)
            await router.until(lambda: router.told)
            await router.carrier.say("show", "clock")
            assert router.told == [1] and len(router.lines) == 1
            assert router.lines[0].typed.count(b"terminal length 0") == 2

        router.run(body())


def test_a_log_line_that_comes_in_pieces_is_no_new_session():
    """Each change makes a router log it, after its prompt; at 9600 baud that takes a tenth of a second."""
    router = Router()

    async def body():
        await router.carrier.say("show", "clock")
        typed = len(router.lines[0].typed)
        for piece in (b"\r\n*Mar  1 00:01:02: %SYS-5-CON", b"FIG_I: Configured from con", b"sole\r\nedge# "):
            router.lines[0].come(piece)
        await loop.sleep(0.3)
        assert router.told == [] and len(router.lines[0].typed) == typed
        router.lines[0].come(b"\r\nPassword: ")
        await router.until(lambda: router.told)

    router.run(body())


def test_an_idle_line_is_asked_for_its_prompt_now_and_then():
    router = Router(idle=30)

    async def body():
        await router.carrier.say("show", "clock")
        typed = len(router.lines[0].typed)
        await router.until(lambda: len(router.lines[0].typed) >= typed + 3)
        assert router.told == [] and router.lines[0].typed[typed:] == [b""] * (len(router.lines[0].typed) - typed)
        router.lines[0].prompt = b""  # a cut cable
        await router.until(lambda: router.told)
        assert router.lines[0].closed

    router.run(body())


def test_a_new_session_is_told_to_all_who_share_the_line():
    router = Router()

    async def body():
        await router.carrier.say("show", "clock")
        router.lines[0].prompt = b""
        try:
            await router.carrier.say("show", "clock")
        except PortError:
            pass
        assert router.told == []
        await router.carrier.say("show", "clock")
        await router.until(lambda: router.told)
        assert len(router.lines) == 2

    router.run(body())


def test_a_stopped_line_is_left_alone():
    router = Router(idle=20)

    async def body():
        await router.carrier.say("show", "clock")
        await router.carrier.stop()
        await loop.sleep(0.1)
        assert len(router.lines) == 1 and router.told == []

    router.run(body())


class Uart:
    """As MicroPython's on a board."""

    RTS, CTS = 1, 2
    made, ended = [], []

    def __init__(self, number, **options):
        self.made.append((number, options))

    def read(self):
        return b""

    def write(self, data):
        return None

    def deinit(self):
        self.ended.append(True)


def test_a_boards_line_is_taken_as_configured_and_let_go():
    class Machine:
        UART = Uart

    before = sys.modules.get("machine")
    sys.modules["machine"] = Machine
    try:
        line = serial._Uart("uart:1:4:5", 9600, (True, False))
        assert (line.read(), line.write(b"x")) == (None, 0)  # nothing is there; no room is left
        line.close()
    finally:
        if before is None:
            del sys.modules["machine"]
        else:
            sys.modules["machine"] = before
    assert Uart.made == [(1, {"baudrate": 9600, "timeout": 0, "rxbuf": 1024, "tx": 4, "rx": 5, "flow": 3})]
    assert Uart.ended == [True]
