"""The dialogue with a router: any way it begins, whatever bursts in, an answer is whole and belongs to its command."""

from tinyknop.ports import routeros
from tinyknop.ports.shared.profile import Profile

from tinyknop.console import Console, ConsoleError, quoted

IOS = Profile(
    climb=((">", "enable"),),
    setup=("terminal length 0",),
    answers=(("[yes/no]:", "no\r"), ("[confirm]", "\r")),
    fine=("Duplicate",),
)
ASH = Profile(newline="\n", wake="\x15\n", ends="#$", spaced=True, inside=(), shell=True)
OPEN = "ip access-list extended KNOCK\npermit tcp host 192.0.2.7 any eq 22\nend\n"


class Router:
    """A router as a person at its console finds it: bytes typed in, bytes on the screen out."""

    def __init__(self, user="", password="", enable="", name="R1", mode="", echo=True):
        self.user, self.password, self.enable, self.name, self.echo = user, password, enable, name, echo
        self.mode = mode or ("login" if user else "password" if password else "exec")
        self.typed = ""  # of the line that is not finished
        self.lines = []  # commands that were carried out
        self.answers = [("show", "line one\r\nline two\r\n")]  # (start of a command, what it says)
        self.burst = b""  # said before the answer to the next command
        self.tries = 0  # passwords that were tried

    def prompt(self):
        shown = {"login": "\r\nUsername: ", "password": "Password: ", "secret": "Password: ", "exec": self.name + ">"}
        shown.update({"root": self.name + "#", "config": self.name + "(config)#", "dead": ""})
        shown["acl"] = self.name + "(config-ext-nacl)#"
        return shown[self.mode]

    def type(self, data):
        """Returns what the screen shows when these bytes are typed."""
        out = ""
        for c in data.decode():
            if c == "\x15":
                self.typed = ""
            elif c == "\x03":
                self.typed = ""
                out += "^C\r\n" + self.prompt()
            elif c != "\r":
                self.typed += c
                out += c if self.echo and self.mode not in ("password", "secret") else ""
            else:
                line, self.typed = self.typed, ""
                burst, self.burst = self.burst.decode(), b""
                out += "\r\n" + burst + self.enter(line)
                out += self.prompt()
        return b"" if self.mode == "dead" else out.encode()

    def enter(self, line):
        mode = self.mode
        if mode == "login":
            self.named = line
            self.mode = "password" if line else "login"
        elif mode == "password":
            self.tries += 1
            good = line == self.password and (not self.user or self.named == self.user)
            self.mode = "exec" if good else "login" if self.user else "password"
            return "" if good else "% Login invalid\r\n"
        elif mode == "secret":
            good = line == self.enable
            self.mode = "root" if good else "exec"
            return "" if good else "% Bad secrets\r\n"
        elif line:
            return self.carry_out(line)
        return ""

    def carry_out(self, line):
        self.lines.append(line)
        if line == "enable":
            self.mode = "secret" if self.enable else "root"
        elif line == "configure terminal":
            self.mode = "config"
        elif line.startswith("ip access-list") and self.mode == "config":
            self.mode = "acl"
        elif line == "end":
            self.mode = "root"
        elif "nonsense" in line:
            return " " * 8 + "^\r\n% Invalid input detected at '^' marker.\r\n\r\n"
        for start, said in self.answers:
            if line.startswith(start):
                return said
        return ""


def talk(console, router, now=0, cut=0, said=b""):
    """Carries bytes to and fro until the command is done; returns the time then. `cut`: bytes a read."""
    screen = said
    while not console.done:
        screen += router.type(console.take())
        if screen:
            now += 5
            part = screen[:cut] if cut else screen
            screen = screen[len(part) :]
            console.feed(part, now)
        else:
            assert console.deadline is not None and console.deadline >= now
            now = console.deadline
            console.tick(now)
    return now


def asked(console, router, line, text="", now=0, timeout=10000, cut=0):
    console.command(line, now, timeout, text)
    talk(console, router, now, cut)
    return console.outcome()


def failed(console, router, line, text="", now=0, timeout=10000):
    """Returns the error of a command that must fail."""
    try:
        asked(console, router, line, text, now, timeout)
    except ConsoleError as error:
        return error
    raise AssertionError("not refused")


def failure(console):
    """Returns the error of the command that is done."""
    try:
        console.outcome()
    except ConsoleError as error:
        return error
    raise AssertionError("not refused")


def ready(router=None, profile=IOS, **more):
    """Returns a console that is at the router's prompt, and the router."""
    router = router or Router(mode="root")
    console = Console(profile, **more)
    console.start(0)
    assert asked(console, router, "") == ""
    router.lines = []
    return console, router


def test_from_the_log_in_to_an_answer():
    router = Router("knock", "s3cret", "en4ble")
    console = Console(IOS, "knock", "s3cret", "en4ble")
    console.start(0)
    assert asked(console, router, "show clock") == "line one\nline two\n"
    assert router.lines == ["enable", "terminal length 0", "show clock"]


def test_any_cut_of_the_bytes_gives_the_same():
    for cut in (1, 2, 3, 7, 50):
        router = Router("knock", "s3cret", "en4ble")
        console = Console(IOS, "knock", "s3cret", "en4ble")
        console.start(0)
        assert asked(console, router, "show clock", cut=cut) == "line one\nline two\n", cut
        assert asked(console, router, "configure terminal", OPEN, now=100000, cut=cut) == "", cut


def test_every_state_that_somebody_left_the_line_in():
    for mode in ("login", "password", "exec", "secret", "root", "config", "acl"):
        router = Router("knock", "s3cret", "en4ble", mode=mode)
        router.named = "somebody"
        router.typed = "rel"  # half of what somebody typed
        console = Console(IOS, "knock", "s3cret", "en4ble")
        console.start(0)
        assert asked(console, router, "show clock") == "line one\nline two\n", mode
        assert not [line for line in router.lines if "rel" in line], mode
        assert router.mode == "root"


def test_a_line_that_asks_for_a_password_only():
    router = Router(password="s3cret")
    console = Console(IOS, "", "s3cret")
    assert asked(console, router, "show clock") == "line one\nline two\n"


def test_secrets_that_are_refused_are_tried_once():
    router = Router("knock", "s3cret")
    for user, password, word in (("knock", "wr0ng", "invalid"), ("nobody", "s3cret", "invalid"), ("", "", "user")):
        router.mode, router.tries = "login", 0
        error = failed(Console(IOS, user, password), router, "show clock")
        assert error.stage == "login" and word in error.reason, error
        assert router.tries <= 1 and "wr0ng" not in str(error)


def test_an_enable_password_that_is_refused():
    error = failed(Console(IOS, "", "", "wr0ng"), Router(enable="en4ble"), "show clock")
    assert error.stage == "enable" and "Bad secrets" in error.reason


def test_an_enable_password_is_not_tried_twice():
    console = Console(IOS, "", "", "wr0ng")
    console.command("show clock", 0, 10000)
    for said, typed in ((b"R1>", b"\r"), (b"\r\nR1>", b"enable\r"), (b"enable\r\nPassword: ", b"wr0ng\r")):
        console.feed(said, 10)
        console.tick(console.deadline)
        assert console.take() == typed
    console.feed(b"\r\nPassword: ", 20)
    console.tick(console.deadline)
    assert console.done and console.take() == b""


def test_secrets_are_blotted_out_of_what_the_device_says():
    console, router = ready(password="s3cret")
    router.answers = [("show", "% Error: no s3cret here\r\n")]
    error = failed(console, router, "show it")
    assert error.reason == "% Error: no *** here" and "s3cret" not in repr(console)
    assert console.hidden("my s3cret") == "my ***"


def test_lines_of_a_mode_are_one_dialogue():
    console, router = ready()
    assert asked(console, router, "configure terminal", OPEN) == ""
    assert router.lines == ["configure terminal"] + OPEN.split("\n")[:-1]


def test_a_refused_line_ends_the_dialogue_and_the_mode_is_left():
    console, router = ready()
    error = failed(console, router, "configure terminal", "ip access-list extended KNOCK\nnonsense\npermit x\nend\n")
    assert error.stage == "refused" and "Invalid input" in error.reason
    assert router.lines == ["configure terminal", "ip access-list extended KNOCK", "nonsense", "end"]
    assert asked(console, router, "show clock") == "line one\nline two\n"


def test_a_mode_that_was_entered_by_mistake_is_left():
    console, router = ready()
    assert asked(console, router, "configure terminal") == ""
    assert router.mode == "root"


def test_what_only_looks_like_an_error_is_none():
    console, router = ready()
    for said in (
        "% Duplicate permit statement ignored.\r\n",
        "%SYS-5-CONFIG_I: Configured from console\r\n",
        "100% of\r\n",
    ):
        router.answers = [("permit", said)]
        assert asked(console, router, "permit x") == said.replace("\r", "")


def test_log_lines_that_burst_in_do_no_harm():
    log = b"*Mar  1 00:00:12.345: %LINK-3-UPDOWN: Interface Gi0/1, changed state to up\r\n"
    console, router = ready()
    router.burst = log
    assert asked(console, router, "show clock").endswith("line one\nline two\n")
    console.feed(b"\r\n" + log, 20000)  # at the prompt, which is not shown again
    assert asked(console, router, "show clock", now=20100) == "line one\nline two\n"
    console.feed(b"\r\n" + log, 29000)
    console.command("show clock", 30000, 10000)
    assert console.take() == b"\x15\r"  # the last thing seen is the log, not the prompt
    console.feed(b"\r\nR1#", 30100)
    console.tick(console.deadline)
    assert console.take() == b"show clock\r"
    console.feed(b"show cl\r\n" + log + b"R1#show clock\r\n", 30200)  # in the middle of the echo
    console.feed(log + b"not R1#\r\nline one\r\nR1#", 30300)
    assert console.done and console.outcome().endswith("not R1#\nline one\n")


def test_pagers_of_all_shapes_are_answered():
    for pager, wiped in (
        (b" --More-- ", b"\b\b\b\b\b\b\b\b\b\b          \b\b\b\b\b\b\b\b\b\b"),
        (b"--More--", b"\r        \r"),
        (b"<--- More --->", b"\r              \r"),
        (b"\x1b[7m--More--\x1b[m", b"\x1b[2K\r"),
        (b"---(more)---", b"\r                                        \r"),
        (b"---(more 45%)---", b"\r\x1b[K"),
        (b"-- [Q quit|D dump|down]", b"\r                       \r"),
    ):
        console, router = ready()
        console.command("show clock", 0, 10000)
        assert console.take() == b"show clock\r"
        console.feed(b"show clock\r\none\r\n" + pager, 10)
        assert console.take() == b"" and console.deadline == 160
        console.tick(160)
        assert console.take() == b" ", pager
        console.feed(wiped + b"two\r\nR1#", 200)
        assert console.done and console.outcome() == "one\ntwo\n", pager


def test_questions_are_answered():
    console, _ = ready()
    console.command("reload", 0, 10000)
    console.take()
    console.feed(b"reload\r\nProceed with reload? [confirm]", 10)
    console.tick(console.deadline)
    assert console.take() == b"\r"


def test_of_a_long_line_the_end_is_echo_enough():
    console, _ = ready()
    console.command("permit tcp host 192.0.2.7 any eq 22", 0, 10000)
    console.take()
    console.feed(b"permit tcp h\b\b\b\b\b\b\b\b$2.0.2.7 any eq 22\r\nR1#", 10)
    assert console.done and console.outcome() == ""


def test_what_arrived_otherwise_than_it_was_typed_confirms_nothing():
    """A character that was lost on its way makes another address of it, and that is open to a stranger."""
    line = b"permit tcp host 192.0.2.7 any eq 22"
    for right, wrong in (
        (b"192", b"12"),
        (b"192", b"182"),
        (b"192", b"1922"),
        (b"tcp", b"udp"),
        (b"permit", b"7permit"),
    ):
        heard = line.replace(right, wrong)
        console, _ = ready()
        console.command(line.decode(), 0, 10000)
        console.take()
        console.feed(heard + b"\r\nR1#", 10)
        assert not console.done
        talk(console, Router(mode="dead"), 10)
        assert failure(console).stage == "lost", heard
    log = b"\r\n*Mar  1 00:01:02: %SYS-5-CONFIG_I: Configured from console\r\n"
    for heard in (
        line,
        line[:20] + log + line[20:],
        line[:20] + log + b"R1#" + line,
        b"permit tcp host 192 \r" + line[19:],
    ):
        console, _ = ready()
        console.command(line.decode(), 0, 10000)
        console.take()
        console.feed(heard + b"\r\nR1#", 10)
        assert console.done, heard


def test_a_prompt_without_the_echo_confirms_nothing():
    console, _ = ready()
    console.command("configure terminal", 0, 10000, "no permit tcp host 192.0.2.7 any eq 22\nend\n")
    console.take()
    console.feed(b"configure terminal\r\nR1(config)#", 10)
    console.take()
    console.feed(b"\r\n\r\nWelcome back\r\nR1#", 20)  # restarted, and there is no log-in
    assert not console.done
    console.tick(console.deadline)
    console.tick(console.deadline)
    assert failure(console).stage == "lost"


def test_a_prompt_outside_of_the_mode_confirms_nothing():
    console, _ = ready()
    console.command("configure terminal", 0, 10000, "no permit tcp host 192.0.2.7 any eq 22\nend\n")
    console.take()
    console.feed(b"configure terminal\r\nR1(config)#", 10)
    console.take()
    console.feed(b"no permit tcp host 192.0.2.7 any eq 22\r\nWelcome back\r\nR1#", 20)
    assert failure(console).stage == "lost"


def test_a_boot_log_in_the_middle_means_that_the_session_is_lost():
    console, _ = ready()
    console.command("show clock", 0, 10000)
    console.take()
    console.feed(b"show clock\r\nU-Boot 2020\r\nHit any key to stop autoboot: 0\r\nR1#", 20)
    assert failure(console).stage == "lost"


def test_wrapped_echo_and_colours_are_recognised():
    console, _ = ready()
    console.command("show a very long line", 0, 10000)
    console.take()
    console.feed(
        b"\x1b[1mshow a very\x1b[m lo \rng line\r\n\x1b]0;title\x07\x1b[32mdone\x1b[0m\r\n\x1b[1mR1#\x1b[m ", 10
    )
    assert console.done and console.outcome() == "done\n"


def test_a_routeros_paints_its_lines_twice():
    console = Console(routeros.PROFILE, "knock", "s3cret")
    prompt = b"\r\r\r\r[knock@MikroTik] >" + b" " * 60 + b"\r[knock@MikroTik] > "
    console.command("/a add", 0, 10000, "/b add\n")
    for said, typed in (
        (b"\r\nMikroTik 7.21.5 (stable)\r\nMikroTik Login: ", b"knock+ct511w4098h\r"),
        (b"knock+ct511w4098h\r\nPassword: ", b"s3cret\r"),
        (b"\r\nDo you want to see the software license? [Y/n]: ", b"n\r"),
        (b"\r\n" + prompt, b"\r"),
        (b"\r\n" + prompt, b"/a add\r"),
        (b"/a add\r[knock@MikroTik] > /a add\r\n" + prompt, b"/b add\r"),
    ):
        console.feed(said, 10)
        console.tick(console.deadline)
        assert console.take() == typed
    assert console.deadline > 1000  # the prompt that is painted again ends nothing
    console.feed(b"/b add\r[knock@MikroTik] > /b add\r\n\rfailure: it is full\r\n" + prompt, 20)
    error = failure(console)
    assert error.reason == "failure: it is full"
    console.command("/c print", 100, 10000)
    assert console.take() == b"/c print\r"


def test_an_answer_that_never_ends_ends_at_its_time():
    console, router = ready()
    router.mode = "dead"
    error = failed(console, router, "show clock", now=1000, timeout=3000)
    assert error.stage == "time" and "show clock" in error.reason
    router.mode = "root"
    assert asked(console, router, "show clock", now=10000) == "line one\nline two\n"


def test_a_dead_device_is_given_up():
    console = Console(IOS)
    console.start(0)
    console.command("show clock", 0, 10000)
    assert talk(console, Router(mode="dead")) == 30000
    error = failure(console)
    assert error.stage == "prompt" and "nothing" in error.reason


def test_an_answer_longer_than_wanted_is_no_answer():
    console, router = ready()
    router.answers = [("show", "x" * 60 + "\r\n")]
    console.command("show clock", 0, 10000, "", 50)
    talk(console, router)
    error = failure(console)
    assert error.stage == "long"


def test_a_line_is_whole_or_no_answer():
    for length, stage in ((15000, None), (17000, "long")):
        console = Console(ASH, terminal=False)
        console.start(0)
        console.command("nft -j list sets", 0, 10000)
        console.feed(b"@@1\n" + b"x" * length + b"@@1:0\n", 10)
        assert console.done
        if stage:
            assert failure(console).stage == stage
        else:
            assert console.outcome() == "x" * length + "\n"


def test_a_session_that_was_logged_out_is_built_anew():
    console, router = ready(Router("knock", "s3cret", "en4ble"), user="knock", password="s3cret", enable="en4ble")
    router.mode = "login"
    console.feed(b"\r\nR1 con0 is now available\r\n\r\nPress RETURN to get started.\r\n", 600000)
    assert console.sessions == 1
    assert asked(console, router, "show clock", now=700000) == "line one\nline two\n"
    assert router.lines == ["enable", "terminal length 0", "show clock"] and console.sessions == 2


def test_a_session_that_was_logged_out_in_silence_is_found_out():
    console, router = ready(Router("knock", "s3cret", "en4ble"), user="knock", password="s3cret", enable="en4ble")
    router.mode = "login"
    assert asked(console, router, "show clock", now=700000) == "line one\nline two\n"
    assert router.lines == ["enable", "terminal length 0", "show clock"]


def test_a_log_in_prompt_in_the_middle_means_that_the_session_is_lost():
    console, _ = ready(user="knock", password="s3cret")
    console.command("show clock", 0, 10000)
    console.take()
    console.feed(b"show cl\r\n\r\nUser Access Verification\r\n\r\nUsername: ", 10)
    console.tick(console.deadline)
    error = failure(console)
    assert error.stage == "lost"
    assert console.take() == b""  # nothing is typed there before the next command


def test_a_boot_loader_that_counts_down_is_not_typed_at():
    console = Console(IOS)
    console.start(0)
    console.command("show clock", 0, 10000)
    console.feed(b"\r\nU-Boot 2020\r\nHit any key to stop autoboot:  3 ", 1000)
    now = 1000
    for second in b"210":
        while console.deadline < now + 1000:
            console.tick(console.deadline)
            assert console.take() == b""
        now += 1000
        console.feed(b"\b\b\b %c " % second, now)
    console.feed(b"\r\nStarting kernel\r\n", now + 10)
    while not console.done:
        console.tick(console.deadline)
        assert console.take() == b""
    console.command("show clock", 40000, 10000)
    console.feed(b"\r\nR1#", 40100)
    console.tick(console.deadline)
    assert console.take() == b"\r"


def test_a_boot_log_with_a_pause_is_not_typed_at():
    console = Console(IOS)
    console.start(0)
    console.command("show clock", 0, 10000)
    for now in range(1000, 12000, 2500):
        console.feed(b"[ %d] booting\r\n" % now, now)
        console.tick(now + 2400)
        assert console.take() == b""


def test_a_console_that_is_never_silent_is_woken_all_the_same():
    """Who makes a router log something every second (a scan will do) must not keep us from closing."""
    log = b"\r\n*Mar  1 00:00:12.345: %%SEC-6-IPACCESSLOGP: list 101 denied tcp 198.51.100.%d(4711)\r\n"
    for user, mode in (("", "root"), ("", "config"), ("knock", "login")):
        router = Router(user, user and "s3cret", "en4ble", mode=mode)
        console = Console(IOS, user, "s3cret", "en4ble")
        console.command("show clock", 0, 10000)
        now, screen = 0, b""
        while not console.done and now < 40000:
            now += 10
            screen += router.type(console.take())
            if now % 1000 == 0:
                screen += log % (now // 1000)
            if now % 50 == 0 and screen:
                console.feed(screen, now)
                screen = b""
            console.tick(now)
        assert "line one\nline two\n" in console.outcome(), mode
        assert now >= 15000  # it may have been a boot log


def test_what_the_kernel_says_at_the_prompt_of_a_shell_is_not_strange():
    console = Console(ASH)
    console.start(0)
    console.command("true", 0, 10000)
    now = 0
    while b"true" not in console.take():
        now += 2000
        console.tick(now)
        console.feed(b"\r\nroot@OpenWrt:/# ", now)
    console.feed(b"echo @@1; true; echo @@1:$?\r\n@@1\r\n@@1:0\r\nroot@OpenWrt:/# ", now)
    console.feed(b"[ 4711.123456] br-lan: port 1(eth0) entered forwarding state\r\n", now)
    assert not console.strange
    console.command("id", now, 10000)
    assert console.take() == b"echo @@2; id; echo @@2:$?\n" and console.sessions == 1
    console.feed(b"@@2\r\n@@2:0\r\n[    0.000000] Linux version 6.6\r\n- init -\r\n", now)
    assert console.strange


def test_a_stranger_who_logs_in_as_autoboot_stops_nobody():
    """Routers log the name of who could not log in, on their console: he must not pass for a boot loader."""
    ios = b"\r\n*Mar  1 00:01:02: %SEC_LOGIN-4-LOGIN_FAILED: Login failed [user: autoboot] [Source: 198.51.100.1]\r\n"
    mikrotik = b"\r    \r02:27:17 echo: system,error,critical login failure for user autoboot via ssh\r\n"
    for said in (ios, mikrotik):
        console, router = ready()
        router.burst = said[2:]
        assert asked(console, router, "show clock", now=1000).endswith("line one\nline two\n")
        console.feed(said + b"R1#", 2000)
        assert not console.strange and console.sessions == 1
        console = Console(IOS)
        console.command("show clock", 0, 10000)
        console.feed(said + b"R1#", 10)
        talk(console, Router(mode="root"), 10)
        assert console.outcome() == "line one\nline two\n"


def test_a_restart_in_silence_that_ends_before_enable_counts_as_a_new_session():
    console, router = ready()
    router.mode = "exec"
    assert asked(console, router, "show clock", now=700000) == "line one\nline two\n"
    assert router.lines == ["enable", "terminal length 0", "show clock"] and console.sessions == 2
    router.mode, router.lines = "config", []  # somebody else was here, but the session stands
    assert asked(console, router, "show clock", now=1400000) == "line one\nline two\n"
    assert router.lines == ["end", "show clock"] and console.sessions == 2


def test_what_comes_between_enable_and_its_password_does_no_harm():
    for said in (b"\r\n", b"*Mar  1 00:01:02: %SYS-5-CONFIG_I: Configured from console\r\n"):
        console = Console(IOS, "", "", "en4ble")
        console.command("show clock", 0, 10000)
        for heard, typed in (
            (b"R1>", b"\r"),
            (b"\r\nR1>", b"enable\r"),
            (b"enable\r\n" + said + b"Password: ", b"en4ble\r"),
            (b"\r\nR1#", b"terminal length 0\r"),
        ):
            console.feed(heard, 10)
            if not console.take() == typed:
                console.tick(console.deadline)
                assert console.take() == typed, said


def test_a_secret_is_blotted_out_as_the_screen_shows_it():
    console = Console(IOS, "knock", "p\xe4ss \t")
    assert console.hidden("Password: p..ss") == "Password: ***"  # what is no plain letter is heard as dots
    assert console.hidden("p\xe4ss \t") == "***"
    assert console.hidden("p\xc3\xa4ss \t") == "***"  # as `tinyknop console` shows what was typed


def test_a_line_opened_again_forgets_the_session():
    console, router = ready()
    console.command("show clock", 0, 10000)
    console.start(100)
    error = failure(console)
    assert error.stage == "lost"
    router.type(console.take())
    assert asked(console, router, "show clock", now=200) == "line one\nline two\n"
    assert router.lines == ["terminal length 0", "show clock"]


def test_close_logs_out():
    console, _ = ready()
    console.close(0)
    assert console.take() == b"exit\r" and console.deadline is None


def test_one_command_at_a_time():
    console, _ = ready()
    console.command("show clock", 0, 10000)
    try:
        console.command("show clock", 0, 10000)
        raise AssertionError("not refused")
    except ConsoleError as error:
        assert error.stage == "word"


def test_what_cannot_be_a_line_is_refused_before_anything_is_typed():
    console, _ = ready()
    for words in (("show", "a\rreload"), ("a\n",), ("caf\xe9",), ("x" * 1001,), ("show", "?"), ("a\tb",)):
        try:
            console.line(words)
            raise AssertionError("not refused")
        except ConsoleError as error:
            assert error.stage == "word"
    assert console.line(("show", "clock")) == "show clock" and console.take() == b""


def test_words_of_a_shell_are_quoted():
    assert quoted(("nft", "add", "{ 1 }", "a;b", "", "-j")) == "nft add '{ 1 }' 'a;b' '' -j"
    assert quoted(("echo", "it's", "$HOME")) == "echo 'it'\\''s' '$HOME'"


def shell(said, status=0, prompt=b"root@OpenWrt:~# "):
    """Returns what a shell shows for the line that a console has typed: its echo, answer, mark and prompt."""

    def type(data):
        if not data or b"echo @@" not in data:
            return prompt and (b"\r\n" + prompt if data else b"")
        mark = data.split(b";")[0][len(b"echo ") :]
        echo = data.replace(b"\n", b"\r\n") if prompt else b""
        return echo + mark + b"\r\n" + said + mark + b":%d\r\n" % status + prompt

    return type


class Shell:
    def __init__(self, *said):
        self.type = shell(*said)


def test_a_shell_says_its_exit_status():
    console = Console(ASH)
    console.start(0)
    assert asked(console, Shell(b"one\r\n@@1:\r\ntwo"), "ipset list") == "one\n@@1:\ntwo\n"
    error = failed(console, Shell(b"ipset: no such set\r\n", 1), "ipset list", now=5000)
    assert error.stage == "refused" and error.reason == "ipset: no such set"
    assert failed(console, Shell(b"", 3), "false", now=6000).reason == "status 3"


def test_a_shell_takes_input_for_a_command():
    console = Console(ASH, terminal=False)
    console.start(0)
    console.command("nft -f -", 0, 10000, "add x\nadd y\n")
    assert console.take() == b"echo @@1; nft -f - <<'@@1.'; echo @@1:$?\nadd x\nadd y\n@@1.\n"
    console.feed(b"@@1\n@@1:0\n", 10)
    assert console.done and console.outcome() == ""


def test_a_shell_without_a_terminal_needs_no_prompt():
    console = Console(ASH, terminal=False)
    console.start(0)
    assert asked(console, Shell(b"out\n", 0, b""), "uci show", timeout=100) == "out\n"
    console.feed(b"something late\n", 50)
    assert asked(console, Shell(b"out\n", 0, b""), "uci show", timeout=100, now=90000) == "out\n"


def test_what_comes_at_the_prompt_is_strange_but_for_the_prompt_and_the_log():
    for said, strange in (
        (b"\r\nR1#\r\nR1#", False),
        (b"\r\n*Mar  1 00:01:02: %SYS-5-CONFIG_I: Configured from console\r\nR1#", False),
        (b"\r\nUser Access Verification\r\n\r\nUsername: ", True),
        (b"\r\nUsername: ", True),  # with no line of its own before it
        (b"\r\nSystem Bootstrap, Version 15.4\r\nR1#", True),  # the same prompt, after a restart
    ):
        console, _ = ready()
        assert not console.strange
        console.feed(said, 1000)
        assert console.strange == strange, said


def test_a_restart_that_ends_at_the_same_prompt_counts_as_a_new_session():
    console, router = ready()
    console.feed(b"\r\nSystem Bootstrap, Version 15.4\r\nR1#", 1000)
    assert asked(console, router, "show clock", now=2000) == "line one\nline two\n"
    assert console.sessions == 2 and not console.strange
    console.command("", 100000, 1000)  # an idle session: the prompt is asked for
    console.take()
    console.feed(b"\r\nSystem Bootstrap, Version 15.4\r\n\r\nR1#", 100010)
    talk(console, router, 100010)
    assert console.outcome() == "" and console.sessions == 3


def test_an_idle_session_whose_prompt_is_still_there_is_the_same():
    console, router = ready()
    for now in (100000, 200000):
        assert asked(console, router, "", now=now) == ""
    assert console.sessions == 1 and router.lines == []


def test_a_log_in_that_takes_its_time_to_refuse_is_not_woken():
    """busybox' login is silent for three seconds before it says no: a key pressed meanwhile would hide its words."""
    console = Console(ASH, user="knock", password="wrong")
    console.start(0)
    console.command("true", 0, 10000)
    now = 0
    for said, typed in ((b"vm login: ", b"knock\n"), (b"knock\r\nPassword: ", b"wrong\n")):
        console.feed(said, now)
        now = console.deadline + 1
        console.tick(now)
        assert console.take() == typed
    console.feed(b"\r\n", now)
    while console.deadline < now + 4000:
        console.tick(console.deadline)
        assert console.take() == b""
    console.feed(b"Login incorrect\r\nvm login: ", now + 4000)
    console.tick(console.deadline)
    try:
        console.outcome()
        raise AssertionError("it was let in")
    except ConsoleError as error:
        assert error.stage == "login" and "Login incorrect" in error.reason


def test_a_prompt_that_comes_letter_by_letter_is_not_strange():
    console = Console(ASH)
    console.start(0)
    console.command("true", 0, 10000)
    now = 0
    while b"true" not in console.take():
        now += 2000
        console.tick(now)
        console.feed(b"\r\nroot@OpenWrt:/# ", now)
    console.feed(b"echo @@1; true; echo @@1:$?\r\n@@1\r\n@@1:0\r\n", now)
    assert console.done and console.outcome() == ""
    for letter in b"root@OpenWrt:/# ":
        console.feed(bytes([letter]), now)
        assert not console.strange, letter
        now += 1
    console.feed(b"\x1b[6n", now)
    assert not console.strange
    console.feed(b"\r\nOpen", now)
    assert console.strange


def test_a_command_that_follows_at_once_does_not_wait_for_the_prompt_of_a_shell():
    console = Console(ASH)
    console.start(0)
    console.command("true", 0, 10000)
    now = 0
    while b"true" not in console.take():
        now += 2000
        console.tick(now)
        console.feed(b"\r\nroot@OpenWrt:/# ", now)
    console.feed(b"echo @@1; true; echo @@1:$?\r\n@@1\r\n@@1:0\r\nroot@Op", now)
    console.command("id", now, 10000)
    assert console.take() == b"echo @@2; id; echo @@2:$?\n" and console.sessions == 1


def test_the_role_that_junos_says_before_its_prompt_is_not_strange():
    console, _ = ready()
    console.feed(b"\r\n\r\n{master:0}\r\nR1#", 1000)
    assert not console.strange
