"""Child processes of this machine, with no shell and no waiting: words in, exit status and bounded output out."""

import errno
import os

from . import compat, log
from .loop import current, readable, sleep

LONGEST_OUTPUT = 1 << 24  # bytes of a child's answer that are kept (10,000 rules)
_PACE = 50  # ms between two reads of what nobody keeps: a flood costs no CPU, a long answer still gets to its end


async def run(argv, stdin=b"", timeout=10, keep=LONGEST_OUTPUT):
    """Runs a child without a shell; returns (exit status, its stdout and stderr as bytes, at most `keep` of them).

    With `keep` 0 the output goes to /dev/null. The status is 127 where the program is missing or cannot be started,
    124 where it took longer than `timeout` seconds and was killed with its process group, 128 and the signal's number
    where a signal ended it. Raises OSError where there are no child processes to be had (a board, no descriptors).
    """
    if compat.MICROPYTHON:
        from . import child_small

        return await child_small.run(argv, stdin, timeout, keep)
    talk = _Talk(stdin, keep)
    try:
        pid = talk.spawn(argv)
        talk.begin()
        return await ended(pid, timeout), talk.rest()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOEXEC):
            return 127, os.strerror(error.errno).encode()
        raise
    finally:
        talk.shut(0)
        talk.shut(1)


def _environment():
    known: dict = {"PATH": os.getenv("PATH") or "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    # iptables-legacy's lock may have been moved to where an unprivileged daemon can open it.
    if os.getenv("XTABLES_LOCKFILE"):
        known["XTABLES_LOCKFILE"] = os.getenv("XTABLES_LOCKFILE")
    return known


class _Talk:
    """A child's standard input and output; `ends` are ours."""

    def __init__(self, stdin, keep):
        self.stdin = stdin
        self.keep = keep
        self.output = bytearray()
        self.ends: list = [None, None]
        self.loop = current()

    def spawn(self, argv):
        """Starts the child; returns its process id."""
        theirs = []
        try:
            there, self.ends[0] = os.pipe()
            theirs.append(there)
            self.ends[1], sink = os.pipe() if self.keep else (None, os.open("/dev/null", os.O_WRONLY))
            theirs.append(sink)
            actions = [(os.POSIX_SPAWN_DUP2, there, 0), (os.POSIX_SPAWN_DUP2, sink, 1), (os.POSIX_SPAWN_DUP2, sink, 2)]
            return os.posix_spawnp(argv[0], argv, _environment(), file_actions=actions, setpgroup=0, setsigdef=[13])
        finally:
            for fd in theirs:
                os.close(fd)

    def begin(self):
        """Watches what is still open."""
        for fd, watch, callback in zip(self.ends, (self.loop.writer, self.loop.reader), (self.write, self.read)):
            if fd is not None:
                os.set_blocking(fd, False)
                watch(fd, callback)

    def write(self):
        try:
            self.stdin = self.stdin[os.write(self.ends[0], self.stdin) :]
        except OSError:  # it reads no further
            self.stdin = b""
        if not self.stdin:
            self.shut(0)

    def read(self):
        """Takes in what there is; returns whether there may be more."""
        try:
            part = os.read(self.ends[1], 65536)
        except OSError:  # nothing just now
            return False
        if not part:
            self.shut(1)
        elif len(self.output) < self.keep:
            self.output.extend(part)
        else:
            self.loop.reader(self.ends[1], None)
            self.loop.at(compat.monotonic() + _PACE, self.begin)
        return part

    def rest(self):
        """Returns the output, with what a child that has ended left in the pipe."""
        while self.ends[1] is not None and len(self.output) < self.keep and self.read():
            pass
        return bytes(self.output[: self.keep])

    def shut(self, which):
        """Closes our end of its input (0) or output (1)."""
        fd, self.ends[which] = self.ends[which], None
        if fd is not None:
            (self.loop.reader if which else self.loop.writer)(fd, None)
            os.close(fd)


async def ended(pid, timeout=1 << 31):
    """Waits for the end of a child that leads its own process group; returns its exit status as `run` does.

    After `timeout` seconds the whole group is killed.
    """
    deadline = compat.monotonic() + int(timeout * 1000)
    killed = False
    try:
        fd = os.pidfd_open(pid)
    except (AttributeError, OSError):  # no Linux, or one before 5.3: look 200 times a second
        fd = None
    try:
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                code = os.waitstatus_to_exitcode(status)
                return 124 if killed else code if code >= 0 else 128 - code
            if compat.monotonic() >= deadline:
                killed, deadline = True, deadline + 60000
                _kill(pid)
            left = (deadline - compat.monotonic()) / 1000
            await (sleep(min(left, 0.005)) if fd is None else readable(fd, left))
    except GeneratorExit:  # nobody waits any more, but somebody must still reap it, and end it when its time is up
        current().spawn(ended(pid, (deadline - compat.monotonic()) / 1000))
        raise
    finally:
        if fd is not None:
            os.close(fd)


def _kill(pid):
    try:
        os.killpg(pid, 9)
    except OSError as error:  # it has become another user, and we are not root
        log.warning("process %d has used up its time but cannot be killed: %s", pid, error)
