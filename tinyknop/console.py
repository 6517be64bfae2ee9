"""The dialogue with a router's command line, sans-IO: bytes in, bytes out, a deadline out. Times are milliseconds.

A carrier owns the line (a serial port, a child running ssh) and does only this:

    console = Console(profile, user="knock", password=..., enable=...)
    console.start(now)                      # each time the line was opened
    console.command(console.line(words), now, 10000)
    while not console.done:
        write(console.take())               # whatever is to be sent by now
        ...wait for bytes until console.deadline...
        console.feed(data, now)             # or console.tick(now) when the deadline has come first
    return console.outcome()                # the answer, or ConsoleError

A profile says how a kind of device talks: see Profile in ports/shared/profile.py. `command` wakes the device, logs in
and finds the prompt first where that has not been done, or was lost; an empty line does nothing else. Lines that belong
together (a configuration mode) are one command: the first line, and the others as `text`. So nothing ever comes between
them, and whatever is refused, the mode is left before the command is done.

How an answer's end is known: the line typed was echoed, no more and no less (where it was painted anew, its end), and
after its line feed the current line is exactly the prompt that was learned, or one of a mode. A prompt without the echo
is none (the device was restarted and has never got the line, or another one), nor is one outside of the mode before the
last line. A shell is asked to print a mark and the exit status instead. Bytes are looked at one by one, and what
depends on silence on times alone: it does not matter how they were cut.
"""

from .errors import TinyknopError

_LISTEN = 1500  # ms before the first wake-up: a boot loader that counts seconds down is heard, and never typed at
_WAKE = 3000  # ms of silence before another, and until the echo
_REFUSAL = 8000  # ms of silence before another, after a password: a log-in that refuses one waits, mostly for 3 s
_SETTLED = 150  # ms of silence after which the current line counts as whole; a character takes 1 ms at 9600 baud
_ECHO = 12  # characters of the end of a line, less its blanks, where a device scrolls or a log line bursts in
_HOLD = 30000  # ms without typing after a boot loader said that a key would stop it
_LOGIN = 30000  # ms from the first wake-up to the prompt; banners at 9600 baud and a slow AAA server take 10 s
_STEPS = 6  # prompts passed on the way from the log-in to the one we want, or out of modes
_LONGEST, _WIDEST = 1000, 16384  # characters of a line to type, and of one that is heard
_BOOT = ("autoboot", "interrupt boot", "to stop boot", "u-boot console", "enter failsafe", "enter setup")
_PAGERS = (("(END)", "q"), ("--More--", " "), ("--more--", " "), ("More --->", " "), (")---", " "), ("|down]", " "))
_PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/,=+@-"


class ConsoleError(TinyknopError):
    """`stage` is one of those below; only after "refused" and "word" is the session still known to be in order.

    word: nothing was sent, a line cannot be typed; prompt, login, enable: no way in; lost: logged out, or rebooted, in
    the middle; time: no end of the answer; long: more of it than wanted; refused: the device's own error, as `reason`.
    """


class _Screen:
    """The current line as a person would see it: colours are left out, erased and overwritten text is gone."""

    def __init__(self):
        self.line = ""
        self.escape = 0  # 1: after ESC, 2: inside ESC [, 3: inside a title, 4: one more character
        self.returned = False  # a carriage return came: what is written next overwrites

    def put(self, c):
        """Takes in a byte; returns the line that a line feed finished, else None."""
        if self.escape and c not in (10, 13):
            self.escape = self._after(c)
            return None
        self.escape = int(c == 27)
        if c == 10:
            line, self.line, self.returned = self.line, "", False
            return line
        if c == 13:
            self.returned = True
        elif c in (8, 127):
            self.line = self.line[:-1]
        elif c >= 32:
            line, self.returned = "" if self.returned else self.line, False
            self.line = (line + (chr(c) if c < 127 else "."))[:_WIDEST]
        return None

    def _after(self, c):
        if self.escape == 1:
            return {91: 2, 93: 3, 80: 3, 40: 4, 41: 4, 35: 4}.get(c, 0)
        if self.escape == 2:
            return 0 if 64 <= c <= 126 else 2
        return 0 if self.escape == 4 or c == 7 else 1 if c == 27 else 3


class Console:
    """One dialogue. `done`: no command is under way. `sessions`: how many were begun; once one more is, the device may
    have been restarted since the last command.

    `deadline`: when `tick` has to be called at the latest, in the clock of `now`; None while nothing is awaited.
    """

    def __init__(self, profile, user="", password="", enable="", terminal=True, idle=30000):
        """`terminal` False: no login, echo or prompt, as in `ssh -T` (shell profiles only). `idle`: after so many ms
        without a command the prompt is asked for again before the next (None: never; where the end of a session is
        noticed anyhow)."""
        self.profile, self._terminal, self._idle, self.done, self.sessions = profile, terminal, idle, True, 0
        self._user, self._password, self._enable = user, password, enable
        self._screen, self._out, self._last, self._tail = _Screen(), b"", "", ""  # _last: line that was not empty
        # Of a shell's mark; when something was typed last; no typing before; time to wake the device, if it is silent.
        self._number = self._typed = self._hold = self._due = 0
        # Something may still run, and is to be interrupted; the echo was painted anew; the secret of enable was typed.
        self._upset = self._echoed = self._torn = self._keyed = False
        self._lines: list = []
        self._off()

    def _off(self):
        self._state = "off"  # wake: looks for a prompt; leave, climb, setup, job: a line was typed; home: at the prompt
        # The prompt; whether something came there that is not the prompt; times.
        self._home, self._stale, self._until, self._quiet = "", True, None, None

    @property
    def deadline(self):
        return self._until if self._until is None or self._quiet is None else min(self._until, self._quiet)

    @property
    def strange(self):
        """Whether something stands at the prompt that is not the prompt: a log line, or the device was restarted."""
        here = self._screen.line.rstrip()
        return self._terminal and self._state == "home" and (self._stale or not self._home.startswith(here))

    def line(self, words):
        """Returns the words as the line to type; raises ConsoleError("word", ...) for what cannot be a line."""
        line = quoted(words) if self.profile.shell else " ".join(words)
        self._check(line.replace("\n", "\r"))
        return line

    def _check(self, text):
        for line in text.split("\n"):
            if len(line) > _LONGEST or not all([" " <= c <= "~" for c in line]):
                raise ConsoleError("word", "no line to type: %d characters, or not only plain ones" % len(line))
            if "?" in line and not self.profile.shell:  # asks for help, and does not wait for the end of the line
                raise ConsoleError("word", "a question mark cannot be typed here")

    def start(self, now):
        """The line has (again) been opened: forgets the session. A command under way ends with stage "lost"."""
        self._fail("lost", "the line was opened again")
        self._screen, self._out = _Screen(), b""

    def command(self, line, now, timeout, text="", keep=65536):
        """Begins a command, answered within `timeout` ms of its being sent, in at most `keep` bytes.

        `text`: to a router, further lines, each typed when the prompt is back; a refused one ends it, and modes are
        left again (`leave` of the profile). To a shell, the command's standard input.
        """
        self._check(line + "\n" + text)
        if not self.done:
            raise ConsoleError("word", "one command at a time")
        self.done, self._error, self._answer = False, None, []
        self._job = line, timeout, text, keep
        self._stale = self._stale or self.strange
        here = self._screen.line.rstrip()
        sure = self._state == "home" and not self._stale and (self.profile.shell or here == self._home)
        if not self._terminal or sure and (self._idle is None or now - self._typed < self._idle):
            return self._begin(now)
        self._known = self._state == "home"  # most likely the session still stands, with paging off
        self._candidate, self._state, self._until = self._home, "wake", now + _LOGIN
        self._named = self._passed = self._over = False
        self._wakes, self._steps = int(self._upset), 0
        self._due = self._quiet = now + _LISTEN
        if self._known and not self._stale:
            self._wake(now)

    def feed(self, data, now):
        """Takes in bytes that came from the device."""
        self.tick(now)
        for c in data:
            self._byte(c, now)
        if data:
            late = self._state == "wake" and now >= (self._until or 0) - _LOGIN // 2  # some are never silent
            self._due = self._due if late else max(self._due, now + _WAKE)
            self._quiet = None if self._until is None else now + _SETTLED

    def tick(self, now):
        """Does what is due at `now`."""
        if self._until is not None and now >= self._until:
            if self._state == "job" or self._over:
                return self._fail("time", "no end of the answer to: " + self._job[0])
            last = self._screen.line.strip() or self._last or "nothing"
            return self._fail("prompt", "no prompt in %d s; last heard: %s" % (_LOGIN // 1000, last))
        if self._quiet is not None and now >= self._quiet:
            self._quiet = None
            self._look(self._screen.line.rstrip(), now)

    def take(self):
        """Returns the bytes to send now, b"" for none; each is returned once."""
        out, self._out = self._out, b""
        return out

    def outcome(self):
        """Returns the answer of the command that is done, without echo and prompt; raises its ConsoleError."""
        if self._error:
            raise self._error
        return "".join([line + "\n" for line in self._answer])

    def close(self, now):
        """Ends the session (there is something to `take`); a command under way ends with stage "lost"."""
        if self._state == "home":
            self._type(self.profile.logout + self.profile.newline, now)
        self._fail("lost", "closed")

    def hidden(self, text):
        """Returns text with our secrets blotted out, for a transcript."""
        for secret in (self._password, self._enable):
            raw = "".join([chr(c) for c in secret.encode()])  # as bytes; what is no plain letter is heard as a dot
            heard = "".join([c if c < "\x7f" else "." for c in raw if c >= " "]).strip()
            text = text.replace(secret, "***").replace(raw, "***").replace(heard or raw, "***") if secret else text
        return text

    def _fail(self, stage, reason):
        if not self.done:
            self.done, self._error = True, ConsoleError(stage, self.hidden(reason))
            self._upset = self._upset or stage in ("time", "prompt", "long")
        self._off()

    def _type(self, text, now, patience=0):
        self._out += text.encode()
        self._typed, self._screen.line = now, ""
        self._due = self._quiet = now + (patience or _WAKE)

    def _byte(self, c, now):
        plain = 32 < c < 127 and not self._screen.escape
        self._torn = self._torn or c in (8, 10, 27) or plain and self._screen.returned
        line = self._screen.put(c)
        if line is not None:
            self._finished(line.rstrip(), now)
        elif not plain or self._state in ("off", "wake", "home"):
            return
        elif not self._echoed and not self.profile.shell:
            self._tail = (self._tail + chr(c))[-_LONGEST:]
            end = self._echo[-_ECHO:] if self._torn else self._echo
            self._echoed = self._skip = self._tail.endswith(end) and (self._torn or self._tail == end)
        elif chr(c) in self.profile.ends and not self._skip and self._prompted(self._modes):
            self._answered(now)

    def _finished(self, line, now):
        """Takes in a whole line."""
        self._last = line or self._last
        if self._held(line, now) and self._state not in ("off", "wake", "home"):
            return self._fail("lost", "it is starting: " + line)
        if self._state in ("off", "wake", "home"):
            self._stale = self._stale or not logged(line.replace(self._home or "\n", "", 1).strip())
            return None
        if self.profile.shell:
            head, mark, code = line.rpartition("@@%d:" % self._number)
            if mark and code.isdigit():
                self._lines += [head] if head else []
                return self._answered(now, int(code))
            self._skip = line == "@@%d" % self._number  # the answer begins
        if self._skip:
            self._skip, self._lines, self._size = False, [], 0
            return None
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size > self._keep or len(line) > _WIDEST - 1000:  # some of it may be cut off
            self._fail("long", "answered more than %d bytes" % self._keep)
        return None

    def _held(self, line, now):
        """Tells whether a boot loader listens that would take any key for an order to stop."""
        self._hold = now + _HOLD if _has(line, _BOOT) and not logged(line) else self._hold
        return now < self._hold

    def _look(self, line, now):
        """After silence: the current line is whole."""
        if self._held(line, now):
            self._quiet = self._hold
            return None
        for end, answer in self.profile.answers + _PAGERS:
            if line.endswith(end):
                return self._type(answer, now)
        asks = any([line.endswith(end) for end in self.profile.password])
        names = any([line.endswith(end) for end in self.profile.login])
        if self._state == "wake":
            return self._look_around(line, asks, names, now)
        if self._echoed and self._prompted(True):
            return self._answered(now)
        if asks and self._state == "climb" and not self._keyed:
            self._keyed = True
            self._type(self._enable + self.profile.newline, now)
        elif asks or names:  # the second time, if it was for the privileged mode
            self._fail("enable" if self._state == "climb" else "lost", "refused, it asks: " + line)
        elif not self._echoed and not self.profile.shell:
            if now >= self._due:
                return self._fail("lost", "it did not repeat what was typed")
            self._quiet = self._due
        return None

    def _wake(self, now):
        """Types something that cannot do harm, whatever is listening."""
        self._wakes += 1
        self._type(self.profile.wake if self._wakes % 2 else self.profile.interrupt, now)

    def _look_around(self, line, asks, names, now):
        if names and self._user and not self._named:
            self._named, self._passed = True, False
            return self._type(self.profile.user % self._user + self.profile.newline, now)
        if asks and not self._passed:  # of the line, of our user, or of one that somebody has left half logged in
            self._passed = True
            return self._type(self._password + self.profile.newline, now, _REFUSAL)
        if names or asks:
            return self._fail("login", "refused: " + self._last if self._passed else "it asks for a user, none given")
        if self._shaped(line):
            if line == self._candidate:
                return self._arrived(line, now)
            self._known = self._known and _has(line, self.profile.inside)
            self._candidate = line
            return self._type(self.profile.newline, now)
        if now >= self._due:
            return self._wake(now)
        self._quiet = self._due
        return None

    def _shaped(self, line):
        """Tells whether a line may be a prompt."""
        fits = line and line[-1] in self.profile.ends and len(line) <= 100 and line[0] != "%"
        return fits and (self.profile.spaced or " " not in line)

    def _prompted(self, modes):
        """Tells whether the device waits for a line, in one of its modes where `modes`."""
        line = self._screen.line.rstrip()
        inside = modes and self._shaped(line) and (self._state == "climb" or line.startswith(self._stem))
        return not self.profile.shell and (line == self._home or inside)

    def _arrived(self, line, now):
        """At a prompt that is certain: leaves modes, climbs, sets up, then begins the command."""
        self._home, self._upset, stem = line, False, line[:-1]
        for cut in "(:>#%$ ":
            stem = stem.split(cut)[0]
        self._stem = stem[:12]  # IOS shortens the name in the prompts of its modes
        self._steps += 1
        if self._steps > _STEPS:
            return self._fail("enable", "no way on from " + line)
        if _has(line, self.profile.inside):
            return self._say_all(self.profile.leave, "leave", now)
        if self._over:
            self._state, self._stale, self.done, self._until, self._quiet = "home", False, True, None, None
            return None
        for end, way in self.profile.climb:
            if line.endswith(end):
                return self._say_all((way,), "climb", now)
        if self._known and not (self._stale or self._named or self._passed):
            return self._begin(now)
        self.sessions += 1
        return self._say_all(self.profile.setup, "setup", now)

    def _begin(self, now):
        lines, timeout, text, keep = self._job
        lines += "" if self.profile.shell else "\n" + text
        self._until, self._steps, self._over = now + timeout, 0, False
        self._say_all([part for part in lines.split("\n") if part], "job", now, keep)

    def _say_all(self, lines, state, now, keep=65536):
        self._state, self._todo, self._keep = state, list(lines), keep
        self._modes = state == "leave" or state == "job" and len(self._todo) > 1
        self._at = self._home
        self._next(now)

    def _next(self, now):
        """Types the next line, or goes on from where the last one led."""
        if self._todo:
            return self._say(self._todo.pop(0), now)
        if self._state == "setup":
            return self._begin(now)
        self._over = self._over or self._state == "job"
        return self._arrived(self._at, now)

    def _say(self, line, now):
        if self.profile.shell:
            self._number += 1
            mark, text = "@@%d" % self._number, self._job[2] if self._state == "job" else ""
            line = "echo %s; %s%s; echo %s:$?" % (mark, line, " <<'%s.'" % mark if text else "", mark)
            if text:
                line += "\n%s%s%s." % (text, "" if text.endswith("\n") else "\n", mark)
        self._echo, self._tail = line.replace(" ", ""), ""
        self._echoed = self._skip = self._keyed = self._torn = False
        self._lines, self._size = [], 0
        self._type(line + self.profile.newline, now)

    def _answered(self, now, status=0):
        """At the end of an answer: takes it in."""
        was, self._at = self._at, self._home if self.profile.shell else self._screen.line.rstrip()
        said = "; ".join([line.strip() for line in self._lines if line.strip(" ^")][-3:])
        if self._state == "climb" and self._at == self._home:
            return self._fail("enable", "refused: " + (said or self._at))
        if self._state == "job":
            if self._todo and was != self._home == self._at:
                return self._fail("lost", "it is out of its mode: " + said)
            if self._refused() or status:
                self._error, self._todo = ConsoleError("refused", self.hidden(said or "status %d" % status)), []
            self._answer += self._lines
        return self._next(now)

    def _refused(self):
        lines = [line.strip() for line in self._lines if not logged(line)]
        wrong = [line for line in lines if any([line.startswith(start) for start in self.profile.errors])]
        return wrong and not self.profile.shell and not _has("\n".join(lines), self.profile.fine)


def _has(line, words):
    return any([word in line for word in words])


def logged(line):
    """Tells whether a line may come at any time: none, of Cisco's log, as "*Mar 1 00:01: %SYS-5-CONFIG_I: ...", of
    RouterOS', as "12:01:02 echo: system,...", of Linux', as "[   47.110815] eth0: ...", but for that of its start, or
    the role of a Junos router, as "{master:0}"."""
    parts = line.partition("%")[2].split(":")[0].split("-")
    seconds = line[1:].split(".")[0].strip() if line[:1] == "[" else "0"
    known = " echo: " in line or line[:1] + line[-1:] in ("", "{}") or seconds.isdigit() and seconds != "0"
    return known or len(parts) > 2 and parts[1].isdigit() and " " not in parts[0]


def quoted(words):
    """Returns words as one line for a POSIX shell, as for `ssh host LINE`."""
    plain = [bool(word) and all([c in _PLAIN for c in word]) for word in words]
    return " ".join([w if bare else "'%s'" % w.replace("'", "'\\''") for w, bare in zip(words, plain)])
