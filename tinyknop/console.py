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

`command` wakes the device, logs in and finds the prompt first where that has not been done, or was lost. Several lines
that belong together (a configuration mode) are one command: the first line, and the others as `text`.
"""

from .errors import TinyknopError

STAGES = ("word", "prompt", "login", "enable", "lost", "time", "long", "refused")


class ConsoleError(TinyknopError):
    """`stage` is from STAGES; only after "refused" and "word" is the session still known to be in order.

    word: nothing was sent, a line cannot be typed; prompt, login, enable: no way in; lost: logged out, or rebooted, in
    the middle; time: no end of the answer; long: more of it than wanted; refused: the device's own error, as `reason`.
    """


class Profile:
    """How one kind of device talks (data; see ports/cisco_ios.py for one). Its fields are the class's attributes."""


class Console:
    """One dialogue. `done`: no command is under way. `ready`: logged in, as far as we know.

    `deadline`: when `tick` has to be called at the latest, in the clock of `now`; None while nothing is awaited.
    """

    def __init__(self, profile, user="", password="", enable="", terminal=True, idle=30000):
        """`terminal` False: no login, echo or prompt, as in `ssh -T` (shell profiles only). `idle`: after so many ms
        without a command the prompt is asked for again before the next (None: never; where the end of a session is
        noticed anyhow)."""

    def line(self, words):
        """Returns the words as the line to type; raises ConsoleError("word", ...) for what cannot be a line."""

    def start(self, now):
        """The line has (again) been opened: forgets the session. A command under way ends with stage "lost"."""

    def command(self, line, now, timeout, text="", keep=65536):
        """Begins a command, answered within `timeout` ms of its being sent, in at most `keep` bytes.

        `text`: to a router, further lines, each typed when the prompt is back; a refused one ends it, and modes are
        left again (Profile.leave). To a shell, the command's standard input.
        """

    def feed(self, data, now):
        """Takes in bytes that came from the device."""

    def tick(self, now):
        """Does what is due at `now`."""

    def take(self):
        """Returns the bytes to send now, b"" for none; each is returned once."""

    def outcome(self):
        """Returns the answer of the command that is done, without echo and prompt; raises its ConsoleError."""

    def close(self, now):
        """Ends the session (there is something to `take`); a command under way ends with stage "lost"."""

    def hidden(self, text):
        """Returns text with our secrets blotted out, for a transcript."""


def quoted(words):
    """Returns words as one line for a POSIX shell, as for `ssh host LINE`; raises ConsoleError("word", ...)."""
