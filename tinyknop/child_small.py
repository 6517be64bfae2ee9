"""Child processes for MicroPython's unix port, whose only way to one is `os.system`, a shell that blocks.

It is called once, for a shell in the background that starts whatever it is told through a fifo: words of a safe
alphabet, which it takes as they are and never as part of a script. Nothing here waits: how a child ended comes through
another fifo, in messages of one length that no other writer can cut. When we die that shell sees the end of its
input, ends what was to last no longer than us, removes its folder and goes.
"""

import errno
import os
import select
from binascii import hexlify

from . import compat
from .loop import Queue, current

_SAFE = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:/,=+@-"
_LENGTH = 16  # of a message: number of the run; p and its process id, s and its exit status, e: all output is there
_LONGEST = 4096  # bytes that a fifo which can be written takes without waiting, and all at once (PIPE_BUF)
_LINGER = 200  # ms that output may come after the end: a daemon that a command left behind never closes it
_LOST = 5000  # ms after a kill by which its end must have been heard, or the shell is gone
_PIECE = 512  # bytes of one read, which takes some 2 ms for as many
_LAST_WORDS = 2000  # bytes that are kept of what a lasting child complains about

# A child leads a session of its own where there is a setsid, so that it can be ended with its children; without one
# env sees to it that no word is a command of the shell's own. It holds none of the daemon's files that a shell can
# name, and neither fifo.
_SHELL = """cd '%s' || exit 1
(exec 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-
export LC_ALL=C PATH="${PATH:-/usr/sbin:/usr/bin:/sbin:/bin}"
s=env; command -v setsid >/dev/null && s=setsid
say() { printf '%%08d%%c%%07d' $1 $2 $3 >&3; }
go() { n=$1 i=$2; shift 2; $s "$@" <$i 2>&1 3>&- & say $n p $!; wait $!; say $n s $?; }
some() { head -c $2 >$1.out 3>&-; say $1 e 0; exec cat >/dev/null 3>&-; }
run() { n=$1 k=$2; shift 2; case $k in 0) go $n "$@";; *) go $n "$@" | some $n $k;; esac }
last() { n=$1; shift; $s "$@" <$n.to >$n.from 2>$n.err 3>&- & echo $! >$n.held; say $n p $!; wait $!; say $n s $?
rm -f $n.to $n.from $n.err $n.held; }
hold() { mkfifo $1.to $1.from $1.err && say $1 e 0; }
end() { kill -9 -$1 || kill -9 $1; }
set -f
exec 5<words
while read -r line <&5; do case $line in r*|l*) $line 5<&- & ;; *) $line;; esac; done
set +f
for f in *.held; do read -r p <$f && end $p; done
rm -rf '%s') </dev/null >/dev/null 2>&1 3>fifo &"""

_shell: "_Shell | None" = None


async def run(argv, stdin, timeout, keep):
    """As `child.run`, for words of letters, digits and _.:/,=+@- alone; raises OSError for others (EINVAL)."""
    return await _there(argv).run(argv, stdin, timeout, keep)


async def hold(argv):
    """Starts a child that is to be talked to and lasts no longer than we do; returns it as a Held.

    Raises OSError as `run` does; a program that is missing is one that ends at once.
    """
    shell = _there(argv)
    return await Held(shell).start(argv)


def _there(argv):
    """Returns the shell for words that it can be told; raises OSError."""
    global _shell
    if not hasattr(os, "system"):
        raise OSError(errno.EOPNOTSUPP)  # a board
    for word in argv:
        if not word or not compat.only_in(word.encode(), _SAFE):
            raise OSError(errno.EINVAL)
    if _shell is None or _shell.lost:
        _shell = _Shell()
    return _shell


_ELSE = "/tmp"  # nosec B108 # mkdir makes a new folder there, or fails


class _Shell:
    """The shell, a folder with its fifos in it, and the runs that are under way."""

    def __init__(self):
        self.folder = (os.getenv("TMPDIR") or _ELSE) + "/tinyknop." + hexlify(compat.urandom(12)).decode()
        quoted = "'%s'" % self.folder
        if (
            not compat.only_in(self.folder.encode(), _SAFE)
            or os.system("umask 077; mkdir %s && mkfifo %s/fifo %s/words" % (quoted, quoted, quoted))  # nosec B605
            or os.system("umask 077; " + _SHELL % (self.folder, self.folder))  # nosec B605 # _SAFE letters only
        ):
            raise OSError(errno.EACCES)
        # For reading and writing: neither waits for a peer. The shell was forked before and holds no end of ours.
        self.fifo = open(self.folder + "/fifo", "r+b")
        self.words = open(self.folder + "/words", "r+b")
        self.poll = select.poll()
        self.poll.register(self.words, select.POLLOUT)
        self.buffer = bytearray(_LENGTH)
        self.news = {}  # number -> Queue of (kind, value)
        self.count = 0
        self.lost = False

    def tell(self, *words):
        """Has the shell do something; raises OSError where it takes nothing now."""
        line = " ".join(words).encode() + b"\n"
        if len(line) > _LONGEST:
            raise OSError(errno.EINVAL)
        if self.lost or not self.poll.poll(0):
            raise OSError(errno.EAGAIN)
        self.words.write(line)

    def begin(self):
        """Returns the number of a new run, and the queue of what is heard about it, until `forget`."""
        if not self.news:
            current().reader(self.fifo, self.hear)
        self.count = self.count % 99999999 + 1
        self.news[self.count] = news = Queue()
        return self.count, news

    def forget(self, number):
        del self.news[number]
        if not self.news:
            current().reader(self.fifo, None)

    def hear(self):
        """Takes one message in; the poll asks again while there are more."""
        self.fifo.readinto(self.buffer)
        number = int(self.buffer[:8])
        if number in self.news:
            self.news[number].put((chr(self.buffer[8]), int(self.buffer[9:])))

    async def run(self, argv, stdin, timeout, keep):
        number, news = self.begin()
        out = "%s/%d" % (self.folder, number)
        timer = None
        try:
            if stdin:
                with open(out + ".in", "wb") as file:
                    file.write(stdin)
            self.tell("run", "%d" % number, "%d" % keep, "%d.in" % number if stdin else "/dev/null", *argv)
            timer = current().at(compat.monotonic() + int(timeout * 1000), lambda: news.put(("t", 0)))
            status = await self.ended(news, keep)
            output = (compat.read_bytes(out + ".out") or b"") if keep else b""
            return (127, _WHY[status]) if status in _WHY else (status, output)
        finally:
            if timer is not None:
                timer.cancel()
            self.forget(number)
            for name in (out + ".in", out + ".out"):
                try:
                    os.remove(name)
                except OSError:
                    pass

    async def ended(self, news, keep):
        """Waits until a child has ended and its output is there; returns its status, 124 where its time was up."""
        process = status = linger = None
        killed = complete = False
        while status is None or keep and not complete:
            for kind, value in await news.get():
                if kind == "p":
                    process = value
                elif kind == "s":
                    status = value
                    linger = current().at(compat.monotonic() + _LINGER, lambda: news.put(("e", 0)))
                elif kind == "e":
                    complete = True
                elif killed:  # and it does not end
                    self.lost = True
                    raise OSError(errno.EAGAIN)
                else:
                    killed = True
                    linger = current().at(compat.monotonic() + _LOST, lambda: news.put(("t", 0)))
            if killed and process and status is None:
                self.tell("end", "%d" % process)
        if linger is not None:
            linger.cancel()
        return 124 if killed else status


_WHY = {127: b"No such file or directory", 126: b"Permission denied"}


class Held:
    """A lasting child. `file` and `sink` are what to watch before `read` and `write`, `said` its last complaint."""

    def __init__(self, shell):
        self.said = ""
        self._shell = shell
        self._process = None
        self._ended = self._closed = False

    async def start(self, argv):
        """Starts the child; returns this. Raises OSError."""
        shell = self._shell
        number, news = shell.begin()
        path = "%s/%d." % (shell.folder, number)
        late = current().at(compat.monotonic() + _LOST, lambda: news.put(("t", 0)))
        try:
            shell.tell("hold", "%d" % number)
            if (await news.get())[0][0] != "e":
                shell.lost = True
                raise OSError(errno.EAGAIN)
            self.sink = open(path + "to", "r+b")
            # While we hold its other end as well, what we read from is not at its end before the child is.
            self._other, self.file = open(path + "from", "r+b"), open(path + "from", "rb")
            self._errors = open(path + "err", "r+b")
            self._polls = [_poll(self.file), _poll(self._errors)]
            shell.tell("last", "%d" % number, *argv)
        except BaseException:
            shell.forget(number)
            raise
        finally:
            late.cancel()
        current().reader(self._errors, self._complain)
        current().spawn(self._watch(number, news))
        return self

    async def _watch(self, number, news):
        """Hears of the child until it has ended."""
        while not self._ended:
            for kind, value in await news.get():
                if kind == "p":
                    self._process = value
                    if self._closed:
                        self._kill()
                elif kind == "s":
                    self._ended = True
        self._shell.forget(number)
        self._other.close()

    def read(self):
        """Returns the bytes that are there, none (b"") at the end, None where nothing is there just now."""
        ended = self._ended
        data = _pieces(self.file, self._polls[0])
        return data if data or ended else None

    def write(self, data):
        """Writes what a fifo that can be written takes without waiting; returns how many bytes."""
        return self.sink.write(data[:_LONGEST])

    def complaint(self):
        """Returns the last of what the child wrote to its stderr."""
        self._complain()
        return self.said

    def _complain(self):
        text = "".join([chr(c) if 32 <= c < 127 or c == 10 else "" for c in _pieces(self._errors, self._polls[1])])
        self.said = (self.said + text)[-_LAST_WORDS:]
        if self.said.endswith("(y/n) "):  # Dropbear's client, about an unknown host key
            self._kill()

    def close(self):
        """Ends the child at once: what it has not sent yet must never get there behind a later session's back."""
        current().reader(self._errors, None)
        self._closed = True
        self._kill()
        for file in (self.sink, self.file, self._errors):
            file.close()

    def _kill(self):
        if self._process is not None and not self._ended:
            self._shell.tell("end", "%d" % self._process)


def _poll(file):
    poll = select.poll()
    poll.register(file, select.POLLIN)
    return poll


def _pieces(file, poll):
    """Returns the bytes that are there, one by one: MicroPython's `read` waits for as many as it was asked for."""
    found = bytearray()
    while len(found) < _PIECE and poll.poll(0):
        byte = file.read(1)
        if not byte:
            break
        found.extend(byte)
    return bytes(found)
