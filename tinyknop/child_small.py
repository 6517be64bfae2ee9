"""Child processes for MicroPython's unix port, whose only way to one is `os.system`, a shell that blocks.

The shell gets words of a safe alphabet alone, each in single quotes, puts the child into the background and is gone
within a few milliseconds. How it ended comes through a fifo, in messages of one length that no other writer can cut.
"""

import errno
import os
from binascii import hexlify

from . import compat
from .loop import Queue, current

_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/,=+@-"
_LENGTH = 16  # of a message: number of the run; p and its process id, s and its exit status, or e: all output is there
_LINGER = 200  # ms that output may come after the end: a daemon that a command left behind never closes it

# The child leads a session of its own where there is a setsid, so that it can be ended with its children; without one
# env sees to it that no word is a command of the shell's own. It holds neither the fifo nor what the daemon has open.
_RUN = """cd %(folder)s || exit 1
(say() { printf '%(number)08d%%c%%07d' $1 $2 >&3; }
export LC_ALL=C PATH="${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}"
go() { $s %(words)s <%(stdin)s 2>&1 3>&- & say p $!; wait $!; say s $?; }
exec 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
s=env; command -v setsid >/dev/null && s=setsid
%(go)s) </dev/null >/dev/null 2>&1 3>fifo &"""
_KEEP = "go | { head -c %d >%d.out 3>&-; say e 0; exec cat >/dev/null 3>&-; }"

_shell = None


async def run(argv, stdin, timeout, keep):
    """As `child.run`, for words of letters, digits and _.:/,=+@- alone; raises OSError for others (EINVAL)."""
    global _shell
    if not hasattr(os, "system"):
        raise OSError(errno.EOPNOTSUPP)  # a board
    for word in argv:
        if not compat.only_in(word.encode(), _SAFE):
            raise OSError(errno.EINVAL)
    if _shell is None:
        _shell = _Shell()
    return await _shell.run(argv, stdin, timeout, keep)


class _Shell:
    """A folder of our own with the fifo in it, and the runs that are under way."""

    def __init__(self):
        self.folder = (os.getenv("TMPDIR") or "/tmp") + "/tinyknop." + hexlify(compat.urandom(12)).decode()
        quoted = "'%s'" % self.folder
        if not compat.only_in(self.folder.encode(), _SAFE) or os.system(
            "umask 077; mkdir %s && mkfifo %s/fifo" % (quoted, quoted)
        ):
            raise OSError(errno.EACCES)
        self.fifo = open(self.folder + "/fifo", "r+b")  # reading and writing: neither waits for a peer
        self.buffer = bytearray(_LENGTH)
        self.runs = {}  # number -> Queue of (kind, value)
        self.count = 0

    async def run(self, argv, stdin, timeout, keep):
        self.count = number = self.count % 99999999 + 1
        out = "%s/%d" % (self.folder, number)
        loop, news = current(), Queue()
        if not self.runs:
            loop.reader(self.fifo, self.hear)
        self.runs[number] = news
        timer = None
        try:
            if stdin:
                with open(out + ".in", "wb") as file:
                    file.write(stdin)
            words = {"folder": "'%s'" % self.folder, "number": number, "words": " ".join(["'%s'" % w for w in argv])}
            words["stdin"] = "%d.in" % number if stdin else "/dev/null"
            words["go"] = _KEEP % (keep, number) if keep else "go"
            if os.system(_RUN % words):
                raise OSError(errno.EAGAIN)  # no process to be had
            timer = loop.at(compat.monotonic() + int(timeout * 1000), lambda: news.put(("t", 0)))
            status = await _ended(news, keep, loop)
            output = (compat.read_bytes(out + ".out") or b"") if keep else b""
            return (127, _WHY[status]) if status in _WHY else (status, output)
        finally:
            if timer is not None:
                timer.cancel()
            del self.runs[number]
            if not self.runs:
                loop.reader(self.fifo, None)
            for name in (out + ".in", out + ".out"):
                try:
                    os.remove(name)
                except OSError:
                    pass

    def hear(self):
        """Takes one message in; the poll asks again while there are more."""
        self.fifo.readinto(self.buffer)
        number = int(self.buffer[:8])
        if number in self.runs:
            self.runs[number].put((chr(self.buffer[8]), int(self.buffer[9:])))


_WHY = {127: b"No such file or directory", 126: b"Permission denied"}


async def _ended(news, keep, loop):
    """Waits until a child has ended and its output is there; returns its status, 124 where its time was up."""
    process = status = linger = None
    killed = complete = False
    while status is None or keep and not complete:
        for kind, value in await news.get():
            if kind == "p":
                process = value
            elif kind == "s":
                status = value
                linger = loop.at(compat.monotonic() + _LINGER, lambda: news.put(("e", 0)))
            elif kind == "e":
                complete = True
            elif kind == "t":
                killed = True
        if killed and process and status is None:
            os.system("kill -9 -%d 2>/dev/null || kill -9 %d 2>/dev/null" % (process, process))
    if linger is not None:
        linger.cancel()
    return 124 if killed else status
