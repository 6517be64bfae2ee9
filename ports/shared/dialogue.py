"""What serial and ssh share: one lasting session with a device, driven through a console.Console.

One command is under way at a time, whoever asks (two ports may have one carrier). A session that breaks, or that no
longer answers as it should, is dropped with its line; whoever speaks next is told so by a PortError, and only the word
after that builds a new one: what the device forgot in between is for a port's `sync` to find. An idle line is listened
to, and asked for its prompt now and then: a device that was restarted says so, or wants a new log-in.
"""

from tinyknop import compat, log
from tinyknop.console import Console, ConsoleError, quoted
from tinyknop.errors import PortError, Refused
from tinyknop.loop import Queue, current, sleep

from .profile import profile
from .table import Table

OPTIONS = {  # of both; the rest are a carrier's own
    "profile": None,  # how to log in and what the prompt looks like: cisco-ios, frr, openwrt, ...
    "user": "",
    "password_file": "",
    "password_env": "",  # name of an environment variable, where there is no file
    "enable_password_file": "",
    "timeout": "10",  # seconds until an answer is given up
}

LONGEST_ANSWER = 1 << 20  # bytes; more than a router's access list can want
END = "@@end"  # of a text
BATCH = 50  # commands at once: 5 s of them at 9600 baud
GOODBYE_S = 0.1  # that a logout gets to pass the line
BARRED_MS = 500  # for which a device that cannot be reached is not tried again: less than a worker's first pause
LOGIN_S = 30  # seconds, as a console gives
APART_MS = 10000  # between two times that workers are told of a new session: a device may want one for each command
ODD_MS = 1000  # after which what is no prompt is looked into: a log line may be on its way, 0.2 s at 9600 baud
LOOKED_AT = 4096  # bytes of a session, for whether they are text


def whole(line, text):
    """Returns (a shell's command, its input) such that a part of them, where a line was cut, does nothing.

    Of an open brace a shell runs nothing; an input, which it takes as far as it came, has to have our end.
    """
    if not text:
        return "{ %s </dev/null; } 2>&1" % line, ""
    body = """printf %%s "${x%%%s}" | %s""" % (END, line)
    text += END if text.endswith("\n") else "\n" + END
    return "{ x=$(cat); case $x in *%s) %s;; *) false;; esac; } 2>&1" % (END, body), text


class Turn:
    """Lets one task in at a time, in the order in which they came."""

    def __init__(self):
        self._tickets = []

    async def take(self):
        """Returns a ticket once it is ours; `give` it back."""
        ticket = Queue()
        self._tickets.append(ticket)
        try:
            while self._tickets[0] is not ticket:
                await ticket.get()
        except BaseException:  # cancelled while it stood in line
            self.give(ticket)
            raise
        return ticket

    def give(self, ticket):
        """Lets the next one in."""
        self._tickets.remove(ticket)
        if self._tickets:
            self._tickets[0].put(None)


class Carrier(Table):
    """A session over a line that `connect` of the subclass opens.

    The line has `file` and `sink` (what to watch before reading and writing), read, write, close, and `said`: what the
    way there had to say. `lost`: callables to be called when the device may have changed behind our back: a session
    that stood has ended with nobody speaking, another had to be begun, or `late` seconds after that.
    `seen`: None, or called with ("in" or "out", bytes) of all that passes; secrets are the caller's to hide.
    """

    outlives_us = True
    device = ""  # what people call it
    terminal = True  # False where there is neither login nor echo nor prompt, as in ssh -T
    idle = 30000  # ms, see Console; after so many without a word the prompt is asked for. None: never
    late = 0  # seconds after which nothing that an earlier session sent can reach the device any more

    def __init__(self, name, options, known):
        Table.__init__(self, name, options, known)
        if not self.options["profile"]:
            self.wrong('carrier.%s: profile is missing: how the device talks, as in profile = "cisco-ios"' % name)
        self.profile = profile(self.options["profile"], self.where)
        if self.options["password_file"] and self.options["password_env"]:
            self.wrong("carrier.%s: password_file and password_env: keep one of them" % name)
        self.seconds = self.whole("timeout", 1, 3600)
        self.lost = []
        self.seen = None
        self.console = Console(self.profile)  # anew with each line
        self.line = None
        self.trouble = None  # why the last session ended, until somebody was told
        self.counted = [0, 0]  # bytes that came in this session, and those of them that are no text
        self._out = b""
        self._stood = False  # the device has answered in this session
        self._barred: tuple = (0, None)  # until when (ms) not to try again, and the reason
        self._sessions: tuple = (0, None)  # lines opened; the session that workers know of: (line, its number)
        # When workers were told last (ms); Timers: the next look, the next telling, what is no prompt.
        self._told_at = self._glance = self._telling = self._odd = None
        self._speaking = self._looking = False
        self._turn = Turn()
        self._news = Queue()
        self._timer = None

    async def connect(self):
        """Returns the opened line; raises PortError."""
        raise NotImplementedError

    async def start(self):
        """Opens the line and logs in, where that has not been done; raises PortError."""
        self.trouble, self._barred = None, (0, None)
        await self.say()

    async def stop(self):
        """Logs out and closes the line; the next word opens it again."""
        ticket = await self._turn.take()
        self._speaking = True
        try:
            if self.line is not None:
                self.console.close(compat.monotonic())
                self._flow()
                await sleep(GOODBYE_S)
                self._drop(None)
                await sleep(0.01)  # for what is left to do of it
            self.trouble = None
        finally:
            self._speaking = False
            self._turn.give(ticket)

    async def say(self, *words, text=None, within=None, keep=LONGEST_ANSWER):
        """Says one line, or one command of a shell with `text` as its input; returns what was answered.

        `text` is further lines to a router; no words at all only log in. Raises PortError where the device refuses it,
        or does not answer `within` seconds, to which a login is added. `keep` bytes of the answer are returned.
        """
        ticket = await self._turn.take()
        self._speaking = True
        try:
            trouble, self.trouble = self.trouble, None
            if compat.monotonic() < self._barred[0]:
                trouble = trouble or self._barred[1]
            if trouble:
                raise PortError(self.describe(), trouble)
            await self._ready()
            return (await self._ask(words, text or "", within or self.seconds))[:keep]
        finally:
            self._speaking = False
            self._rest()
            self._turn.give(ticket)

    async def say_all(self, commands):
        """Has a shell carry out many commands, in a round trip for each BATCH of them; each is tried.

        Raises PortError with what they said where any of them failed.
        """
        failed = None
        if len(commands) == 1:  # a shell of its own would take four processes there, and half a second at 9600 baud
            return await self.say(*commands[0])
        for at in range(0, len(commands), BATCH):
            lines = [quoted(words) + " </dev/null || x=1\n" for words in commands[at : at + BATCH]]
            try:
                await self.say("sh", text="x=0\n" + "".join(lines) + "exit $x\n")
            except PortError as error:
                failed = failed or error
        if failed:
            raise failed
        return None

    async def _ready(self):
        if self.line is None:
            password, enable = self.password(), self.secret("enable_password_file")
            self.console = Console(self.profile, self.options["user"], password, enable, self.terminal, self.idle)
            line = self.line = await self.connect()
            self.trouble, self._out, self.counted, self._stood = None, b"", [0, 0], False
            self._sessions = self._sessions[0] + 1, self._sessions[1]
            self.console.start(compat.monotonic())
            current().reader(line.file, lambda: self._readable(line))
            if not self.terminal:  # the console has no login to do, so see that somebody is there
                await self._ask(("true",), "", LOGIN_S)
            if self.late:
                current().at(compat.monotonic() + self.late * 1000, self._told)

    async def _ask(self, words, text, within):
        console = self.console
        try:
            line = console.line(words)
            if self.profile.shell and words:
                line, text = whole(line, text)
            console.command(line, compat.monotonic(), within * 1000, text, LONGEST_ANSWER)
            self._flow()
            while not console.done:
                await self._news.get()
            self._news.items = []
            answer = console.outcome()
            self._answered()
            return answer
        except ConsoleError as error:
            if error.stage in ("refused", "word"):
                if error.stage == "refused":
                    self._answered()
                raise Refused(self.describe(), "%s: %s" % (" ".join(words), error.reason))
            reason = await self.why(error)
            if error.stage == "time" and not self.trouble:
                reason = "%s: no end of it after %d s" % (" ".join(words), within)
            self._drop(None)
            self.trouble = None
            if not self._stood:
                self._barred = compat.monotonic() + BARRED_MS, reason
            raise PortError(self.describe(), reason)
        except BaseException:  # nobody waits for the answer any more: the next must not get it
            self._drop(None)
            raise

    def _answered(self):
        """Takes note of the session that stands; workers are told where it is not the one they know."""
        self._stood = True
        count, known = self._sessions
        here = count, self.console.sessions
        self._sessions = count, here
        if known not in (None, here) and self._telling is None:
            now = compat.monotonic()
            due = now if self._told_at is None else max(now, self._told_at + APART_MS)
            self._telling = current().at(due, self._told)

    def _rest(self):
        """Nobody speaks any more: sees that an idle line is looked at."""
        if self._glance is not None:
            self._glance.cancel()
            self._glance = None
        if self.line is not None and self.idle is not None:
            self._glance = current().at(compat.monotonic() + self.idle, self._look)

    def _look(self):
        if not self._looking and not self._speaking:
            self._looking = True
            current().spawn(self._looked())

    def _wondered(self):
        self._odd = None
        if self.console.strange:
            self._look()

    async def _looked(self):
        """Asks for the prompt, and logs in where that has to be done."""
        try:
            await self.say()
        except PortError as error:
            log.info("%s", error)
            self._told()
        finally:
            self._looking = False

    async def why(self, error):
        """Returns the reason of a failed dialogue, for people; carriers know more about it."""
        return self.trouble or error.reason

    def describe(self):
        """Returns the carrier's name and device for log lines."""
        return "%s (%s)" % (self.name, self.device)

    def _readable(self, line):
        try:
            data = line.read()
        except OSError as error:
            log.debug("%s: %s", self.name, error)
            data = b""
        if data is None:
            return
        if not data:
            return self._broken()
        if self.seen:
            self.seen("in", data)
        if self.counted[0] < LOOKED_AT:
            self.counted[0] += len(data)
            self.counted[1] += len([c for c in data if c > 126 or c < 32 and c not in b"\r\n\t\b\x1b\x07"])
        self.console.feed(data, compat.monotonic())
        self._flow()
        if self.console.strange and self._odd is None:
            self._odd = current().at(compat.monotonic() + ODD_MS, self._wondered)

    def _flow(self):
        """Sends what the console has to say, sets its alarm, and wakes whoever waits for its answer."""
        console, line = self.console, self.line
        said = console.take()
        if said and self.seen:
            self.seen("out", said)
        self._out += said
        if self._out and line is not None:
            current().writer(line.sink, lambda: self._write(line))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if console.deadline is not None:
            self._timer = current().at(console.deadline, self._tick)
        if console.done and self._speaking:
            self._news.put(None)

    def _tick(self):
        self._timer = None
        self.console.tick(compat.monotonic())
        self._flow()

    def _write(self, line):
        try:
            count = line.write(self._out) if self._out else 0
        except OSError as error:
            log.debug("%s: %s", self.name, error)
            return self._broken()
        self._out = self._out[count:]
        if not self._out:
            current().writer(line.sink, None)

    def _broken(self):
        """The line is gone."""
        self._drop(self.farewell())
        if not self._speaking:
            log.info("%s: %s", self.describe(), self.trouble)
            self._told()

    def _told(self):
        self._told_at, self._telling = compat.monotonic(), None
        for callback in list(self.lost):
            callback()

    def farewell(self):
        """Returns why the line is gone, for people."""
        return "the line is gone"

    def _drop(self, reason):
        """Closes the line; `reason` is for the next who speaks, None where it is said otherwise."""
        if self.line is None:
            return
        self.trouble = reason
        current().reader(self.line.file, None)
        current().writer(self.line.sink, None)
        self.line.close()
        self.line = None
        self._rest()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._out = b""
        self.console.start(compat.monotonic())  # ends a command that is under way
        if self._speaking:
            self._news.put(None)
