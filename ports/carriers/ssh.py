"""ssh: one lasting child, OpenSSH's client or Dropbear's, that holds a session with a router's command line, or with a
POSIX shell (profile "shell" or "openwrt"), so that a command costs one round trip and no new connection.

The child takes no settings but those named here, knows the device's host key from a file of the carrier's own, and
never asks anybody: an unknown key is refused, with its fingerprint and the command that accepts it. Log in by a key
wherever the device can; where it cannot, `password_file` is typed at the child's own terminal, which carries nothing
else, once it asks. On MicroPython's unix port it is started by `tinyknop.child_small`: there only a key will do, and no
jump host.
"""

import errno
import os
from binascii import a2b_base64, b2a_base64, hexlify

from tinyknop.ports.shared import dialogue

from tinyknop import log
from tinyknop.child import ended, run
from tinyknop.compat import MICROPYTHON, urandom
from tinyknop.errors import PortError
from tinyknop.loop import current

OPTIONS = {
    "host": None,
    "port": "22",
    "key_file": "",  # of the user that the daemon runs as, without a passphrase
    "known_hosts": "/etc/tinyknop/known_hosts",
    "jump": "",  # "host", "user@host" or "user@host:port": goes through there
    "keepalive": "15",  # seconds; after two unanswered ones the session counts as lost
    "binary": "ssh",  # or dbclient
}
OPTIONS.update(dialogue.OPTIONS)

NAME = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.:@%+-/"
LAST_WORDS = 2000  # bytes that are kept of what the child complains about
PIECE = 2048  # bytes; a console takes some ms for as much
END_S = 2  # that a child gets to say goodbye


class Carrier(dialogue.Carrier):
    """A router or shell behind ssh; `dialogue.Carrier` holds the session."""

    late = 130  # a kernel goes on sending for a child that was killed: 102 s by tcp(7)'s 8 tries

    def __init__(self, name, options):
        dialogue.Carrier.__init__(self, name, options, OPTIONS)
        given = self.options
        if not given["host"]:
            self.wrong('carrier.%s: host is missing, as in host = "192.0.2.1"' % name)
        for option in ("host", "user", "key_file", "known_hosts", "jump", "binary"):
            if given[option].startswith("-") or [c for c in given[option] if c not in NAME and c not in "[]"]:
                self.wrong("carrier.%s: %s = %s: letters, digits and _.:@%%+-/ only" % (name, option, given[option]))
        self.whole("port", 1, 65535)
        self.whole("keepalive", 1, 3600)
        self.device = "ssh " + self.known_as()
        self.terminal = not self.profile.shell
        if not self.terminal:  # a router logs an idle user out; of a shell the child notices the end by itself
            self.idle = None
        self.dropbear = given["binary"].split("/")[-1].startswith("dbclient")
        self.typed = bool(given["password_file"] or given["password_env"])
        if self.dropbear and not given["known_hosts"].endswith("/.ssh/known_hosts"):
            self.wrong("carrier.%s: known_hosts: dbclient knows a file called .../.ssh/known_hosts only" % name)
        if self.dropbear and given["jump"]:
            self.wrong("carrier.%s: jump needs OpenSSH's client; leave out binary" % name)

    async def connect(self):
        """Starts the child; raises PortError where there is none to be had."""
        if MICROPYTHON:
            return await self.held()
        try:
            return _Child(self.argv(), self.password() if self.typed else "", self.home())
        except OSError as error:
            reason = error.strerror
            if error.errno == errno.ENOENT:
                package = "dropbear-bin" if self.dropbear else "openssh-client"
                reason = "not found (on Debian: apt install %s)" % package
            raise PortError(self.name, "%s: %s" % (self.options["binary"], reason))

    async def held(self):
        """Starts the child where all its words have to be plain ones: MicroPython's unix port."""
        from tinyknop.child_small import hold

        if self.typed or self.options["jump"]:
            raise PortError(self.name, "MicroPython logs in by key_file alone, and through no jump host")
        home = ["HOME=" + self.home()] if self.dropbear else []
        try:
            return await hold(["env", "TERM=dumb"] + home + self.argv())
        except OSError as error:
            raise PortError(self.name, "%s: cannot be started (error %s)" % (self.options["binary"], error.errno))

    def argv(self):
        """Returns the child's words."""
        given = self.options
        who = ["-l", given["user"]] if given["user"] else []
        where = who + ["-p", given["port"]] + (["-i", given["key_file"]] if given["key_file"] else [])
        target = ["--", given["host"]] if not self.dropbear else [given["host"]]
        target += [] if self.terminal else ["/bin/sh"]
        if self.dropbear:
            return [given["binary"], "-t" if self.terminal else "-T", "-K", given["keepalive"]] + where + target
        words = [given["binary"], "-tt" if self.terminal else "-T"] + self.settings(self.typed)
        return words + self.way() + where + target

    def settings(self, asked=False, known=None):
        """Returns what OpenSSH's client goes by; `asked`: whether it may be asked for a password.

        With `known`, a file, it finds out which key the device has and gets no further.
        """
        given = self.options
        said = ["-F", "none", "-e", "none"]
        words = ["LogLevel=ERROR", "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no", "IdentityAgent=none"]
        words += ["ClearAllForwardings=yes", "ServerAliveCountMax=2", "NumberOfPasswordPrompts=1"]
        words += ["ServerAliveInterval=" + given["keepalive"], "ConnectTimeout=%d" % self.seconds]
        words += ["IdentitiesOnly=yes"] if given["key_file"] else []
        words += ["UserKnownHostsFile=" + (known or given["known_hosts"])]
        words += ["StrictHostKeyChecking=" + ("accept-new" if known else "yes")]
        words += ["PreferredAuthentications=none"] if known else []
        words += ["BatchMode=" + ("no" if asked else "yes")]
        for word in words:
            said += ["-o", word]
        return said

    def way(self):
        """Returns the words for going through the jump host, whose key is in the same file."""
        user, _, rest = self.options["jump"].rpartition("@")
        if not rest:
            return []
        host, port = rest, "22"
        if rest.startswith("["):
            host, _, port = rest[1:].partition("]:")
        elif rest.count(":") == 1:
            host, _, port = rest.partition(":")
        words = [self.options["binary"], "-T"] + self.settings()
        words += ["-i", self.options["key_file"]] if self.options["key_file"] else []
        words += ["-l", user] if user else []
        # The client hands this to a shell: all its words are the owner's, of letters that mean nothing there.
        return ["-o", "ProxyCommand=" + " ".join(words + ["-p", port, "-W", "'[%h]:%p'", "--", host.rstrip("]")])]

    def home(self):
        """Returns the directory that holds Dropbear's known hosts; None for OpenSSH, which is told the file."""
        return self.options["known_hosts"][: -len("/.ssh/known_hosts")] if self.dropbear else None

    async def why(self, error):
        """Returns the reason of a failed dialogue; of a host key that is not known, with the command to accept it."""
        said = self.trouble or (self.farewell() if self.line is not None and self.line.said else "")
        if "IDENTIFICATION HAS CHANGED" in said:
            return "the host key is not the one in %s any more: %s" % (self.options["known_hosts"], self.renewal())
        if "host key is known" in said or "Host key verification failed" in said:
            return await self.stranger()
        if "trusted hosts file" in said:
            given = self.options
            text = "%s; if that is the device's own key, accept it: HOME=%s %s -l %s -p %s %s"
            return text % (said, self.home(), given["binary"], given["user"], given["port"], given["host"])
        return said or error.reason

    def renewal(self):
        """Returns how to forget the old key."""
        name, known = self.known_as(), self.options["known_hosts"]
        return "if the device was exchanged, forget it: ssh-keygen -R '%s' -f %s" % (name, known)

    def known_as(self):
        """Returns the device's name in a known_hosts file."""
        host, port = self.options["host"], self.options["port"]
        return host if port == "22" else "[%s]:%s" % (host, port)

    async def stranger(self):
        """Asks the device for its host key; returns what to compare and what to type."""
        folder = "/tmp/tinyknop-" + hexlify(urandom(16)).decode()  # nosec B108 # of our own: `ps` shows a file's name
        path = folder + "/known_hosts"
        given = self.options
        argv = [given["binary"], "-T"] + self.settings(known=path) + self.way()
        keys: list = []
        try:
            os.mkdir(*((folder,) if MICROPYTHON else (folder, 0o700)))
            await run(argv + ["-l", given["user"] or "nobody", "-p", given["port"], "--", given["host"]], b"", 15, 0)
            with open(path) as file:
                keys = [text.split() for text in file.read().split("\n")]
        except OSError as error:
            log.debug("%s: its host key could not be asked for: %s", self.name, error)
        finally:
            for gone, name in ((os.remove, path), (os.rmdir, folder)):
                try:
                    gone(name)
                except OSError:  # it was never made
                    pass
        keys = [key for key in keys if len(key) == 3 and key[0] == self.known_as()]
        if not keys:
            return "the host key of %s, or of the jump host, is not in %s" % (self.known_as(), given["known_hosts"])
        text = "unknown host key, %s %s; if that is the device's own, accept it: echo '%s' >> %s"
        return text % (keys[0][1], fingerprint(keys[0][2]), " ".join(keys[0]), given["known_hosts"])

    def farewell(self):
        """Returns what the child complained of, for people."""
        lines = [line.strip() for line in self.line.complaint().split("\n") if line.strip(" @\r")]
        said = "; ".join(lines[-3:])
        if "IDENTIFICATION HAS CHANGED" in self.line.said:
            return "IDENTIFICATION HAS CHANGED"
        if "Permission denied" in said:
            return "the device lets us not in: %s (key_file and user right, key allowed there?)" % said
        return said or "the session has ended"


def fingerprint(key):
    """Returns "SHA256:..." of a public key in base64, as OpenSSH prints it."""
    from hashlib import sha256

    return "SHA256:" + b2a_base64(sha256(a2b_base64(key)).digest()).decode().rstrip("\n=")


def _environment(home):
    known = {"PATH": os.getenv("PATH") or "/usr/bin:/bin", "LC_ALL": "C", "TERM": "dumb"}
    known["HOME"] = home or os.getenv("HOME") or "/"
    return known


def _moves(ends, terminal):
    """Returns what makes three descriptors a child's standard input and outputs, and a fourth its terminal."""
    moves: list = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(ends)]
    # The first terminal that the leader of a session opens becomes its own.
    moves.append((os.POSIX_SPAWN_OPEN, terminal, os.ttyname(terminal), os.O_RDWR, 0))
    return moves + [(os.POSIX_SPAWN_CLOSE, terminal)]


class _Child:
    """The client, its three ends, and its terminal: there it asks for a password, and its hanging up ends the client
    should we die (of a session with a terminal at the other end, the end of its input does not).
    """

    def __init__(self, argv, password, home):
        self.said = ""
        self._password = password
        self._asked = ""
        self._loop = current()
        ours: list = []
        theirs = []
        try:
            for reading in (True, False, False):
                pair = os.pipe()
                theirs.append(pair[0 if reading else 1])
                ours.append(pair[1 if reading else 0])
            ours += os.openpty()  # its far end too: while nobody held that, ours would be hung up
            moves = _moves(theirs, ours[4])
            self.pid = os.posix_spawnp(
                argv[0], argv, _environment(home), file_actions=moves, setsid=True, setsigdef=[13]
            )
        except OSError:
            for fd in ours:
                os.close(fd)
            raise
        finally:
            for fd in theirs:
                os.close(fd)
        self.sink, self.file, self._errors, self._terminal, self._held = ours
        for fd in ours:
            os.set_blocking(fd, False)
        self._loop.reader(self._errors, self._complain)
        self._loop.reader(self._terminal, self._prompted)

    def read(self):
        """Returns the bytes that are there, none (b"") at the end, None where nothing is there just now."""
        try:
            return os.read(self.file, PIECE)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return None
            raise

    def write(self, data):
        """Writes what the pipe takes now; returns how many bytes."""
        try:
            return os.write(self.sink, data)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return 0
            raise

    def complaint(self):
        """Returns the last of what the child wrote to its stderr."""
        while self._errors is not None and self._complain():
            pass
        return self.said

    def _complain(self):
        try:
            data = os.read(self._errors, PIECE)
        except OSError:
            return False
        if not data:
            self._loop.reader(self._errors, None)
            os.close(self._errors)
            self._errors = None
        text = "".join([chr(c) if 32 <= c < 127 or c == 10 else "" for c in data])
        self.said = (self.said + text)[-LAST_WORDS:]
        if self.said.endswith("(y/n) "):  # Dropbear's client, about an unknown host key
            self._kill()
        return bool(data)

    def _prompted(self):
        """Types the password, once, where it is asked for."""
        try:
            data = os.read(self._terminal, PIECE)
        except OSError:
            data = b""
        self._asked = (self._asked + "".join([chr(c) for c in data if c < 127]))[-LAST_WORDS:]
        if self._password and "assword:" in self._asked:
            os.write(self._terminal, self._password.encode() + b"\n")
            self._password = ""
        if not data:
            self._loop.reader(self._terminal, None)

    def close(self):
        """Ends the child at once: what it has not sent yet must never get there behind a later session's back."""
        for fd in (self._errors, self._terminal):
            if fd is not None:
                self._loop.reader(fd, None)
        for fd in (self._errors, self._terminal, self._held, self.sink, self.file):
            if fd is not None:
                os.close(fd)
        self._errors = None
        self._kill()
        self._loop.spawn(ended(self.pid, END_S))

    def _kill(self):
        try:
            os.killpg(self.pid, 9)
        except OSError:  # it has ended by itself
            pass
