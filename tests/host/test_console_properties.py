"""The console against anything: no matter how bytes are cut, none break it, and no dialogue outlasts its time."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tinyknop.ports import cisco_ios, openwrt, routeros

from tests.need import share
from tinyknop.console import Console, ConsoleError

PROFILES = (cisco_ios.PROFILE, openwrt.PROFILE, routeros.PROFILE)
COMMAND_MS = 5000
LONGEST_MS = 30000 + COMMAND_MS + 1  # the way to the prompt, and the command
# What a device says, and what only looks like it: pieces that reach all states far oftener than bytes at random.
PIECES = (
    b"\r\n", b"R1#", b"R1>", b"R1(config)#", b"\r\nR1# ", b"\nUsername: ", b"Password: ", b"show clock", b"enable",
    b"terminal length 0", b"terminal width 0", b"configure terminal", b" --More-- ", b"\b \b", b"\r", b"\x1b[2K",
    b"\x1b]0;",
    b"% Invalid input\r\n", b"%SYS-5-CONFIG_I: x\r\n", b"[confirm]", b"@@1\r\n", b"@@1:0\r\n", b"@@2:1\r\n", b"end\r\n",
    b"autoboot", b"root@OpenWrt:~# ", b"[admin@MikroTik] > ", b"\xff\xfe", b"\0", b"x" * 1100, b"<", b"",
)  # fmt: skip
noise = st.one_of(st.sampled_from(PIECES), st.binary(max_size=40))
steps = st.lists(st.tuples(noise, st.integers(0, 4000)), max_size=30)  # (bytes, ms after the ones before)
EXAMPLES = share(150, 5000)


def made(profile, begun):
    """Returns a console with a command under way."""
    console = Console(profile, "knock", "s3cret", "en4ble")
    console.start(0)
    if begun and profile is not openwrt.PROFILE:  # at the prompt already
        console.command("", 0, COMMAND_MS)
        for _ in range(8):
            console.feed(console.take() + b"\r\nR1#" if profile is cisco_ios.PROFILE else b"\r\n[a@b] >", 10)
            console.tick(console.deadline or 0)
    if console.done:
        console.command("show clock", 0, COMMAND_MS, "end\n")
    return console


def played(console, script, cut):
    """Plays a script of (bytes, ms); returns all that came of it. `cut`: bytes in one piece, 0 for all at once."""
    now, typed = 0, b""
    for data, pause in script:
        now += pause
        while console.deadline is not None and console.deadline <= now:
            console.tick(console.deadline)
        for at in range(0, len(data), cut or len(data) or 1):
            console.feed(data[at : at + (cut or len(data))], now)
        typed += console.take()
    return ended(console, now) + (typed + console.take(),)


def ended(console, now):
    """Ticks a dialogue to its end; returns when that was and what came of it."""
    turns = 0
    while not console.done:
        assert console.deadline is not None, "nothing would ever wake it"
        now, turns = max(now, console.deadline), turns + 1
        assert turns < 200
        console.tick(now)
    try:
        return now, console.outcome()
    except ConsoleError as error:
        assert "s3cret" not in str(error) and "en4ble" not in str(error)
        return now, error.stage, error.reason


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(PROFILES), st.booleans(), steps, st.integers(1, 5))
def test_how_the_bytes_are_cut_does_not_matter(profile, begun, script, cut):
    assert played(made(profile, begun), script, cut) == played(made(profile, begun), script, 0)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(PROFILES), st.booleans(), steps)
def test_nothing_outlasts_its_time_and_only_console_errors_are_raised(profile, begun, script):
    console = made(profile, begun)
    now = ended_at = played(console, script, 0)[0]
    assert ended_at <= max(LONGEST_MS, sum(pause for _, pause in script)), now


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.sampled_from(PROFILES), st.binary(max_size=3000), st.integers(0, 100))
def test_a_babbling_device_is_given_up_in_time(profile, junk, pause):
    console = made(profile, False)
    now = 0
    while not console.done and now < 2 * LONGEST_MS:
        now += pause + 50
        console.feed(junk or b"x", now)
        assert len(console.take()) < 10000
    assert console.done and now <= LONGEST_MS + pause + 50


@settings(max_examples=EXAMPLES, deadline=None)
@given(steps, st.text(max_size=50), st.text(max_size=50))
def test_no_text_becomes_more_than_the_line_it_is(script, line, text):
    console = made(cisco_ios.PROFILE, False)
    ended(console, 0)
    try:
        console.command(line, 0, COMMAND_MS, text)
    except ConsoleError as error:
        assert error.stage == "word"
        return
    assert all(" " <= c <= "~" and c != "?" for c in line.replace("\n", "") + text.replace("\n", ""))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.binary(max_size=30), max_size=10))
def test_junk_before_the_answer_does_not_end_up_in_the_next_one(junk):
    console = made(openwrt.PROFILE, False)
    ended(console, 0)
    console = Console(openwrt.PROFILE, terminal=False)
    console.start(0)
    console.command("true", 0, COMMAND_MS)
    for data in junk:
        console.feed(data, 1)
    console.feed(b"\n@@1\nanswer\n@@1:0\n", 2)
    if console.done:
        assert ended(console, 2)[1].endswith("answer\n")
