"""GnuPG homes for tests: a server's, a client's and a stranger's, made once for a test run.

RSA keys take seconds to make, so there are few; keys that only sign are Ed25519. Agents are ended, by their home, and
the homes removed when the test run ends.
"""

import atexit
import functools
import os
import shutil
import subprocess
import tempfile

from tests.need import need

PASSPHRASE = "a passphrase of the tests"
SERVER, LOCKED_SERVER, CLIENT = "server@tests", "vault@tests", "client@tests"
LOCKED, SUBKEY, OLD, STRANGER = "locked@tests", "subkey@tests", "old@tests", "stranger@tests"
UNCERTIFIED, UNKNOWN = "uncertified@tests", "unknown@tests"
LONG_AGO = "20200101T000000"


class Keyrings:
    """Paths `server` and `client` (homes), `old_gpg` (a gpg that lives on New Year 2020), and `prints` by user id."""

    def __init__(self):
        # Short: an agent's socket has a path of at most 107 bytes.
        self.dir = tempfile.mkdtemp(prefix="tkgpg")
        self.server, self.client = (os.path.join(self.dir, name) for name in ("s", "c"))
        for home in (self.server, self.client):
            os.mkdir(home, 0o700)
            with open(home + "/gpg-agent.conf", "w") as file:  # no test may live off the passphrase of another
                file.write("default-cache-ttl 0\nmax-cache-ttl 0\n")
        atexit.register(self.remove)
        self.gpg = need("gpg")
        self.old_gpg = self.script("oldgpg", 'exec %s --faked-system-time=%s! "$@"' % (self.gpg, LONG_AGO))
        self.prints = {}
        self.make(self.server, SERVER, "rsa2048", "sign,encr,cert")
        self.make(self.server, LOCKED_SERVER, "rsa2048", "sign,encr,cert", passphrase=PASSPHRASE)
        self.make(self.client, CLIENT, "rsa2048", "sign,cert")
        self.make(self.client, LOCKED, "ed25519", "sign,cert", passphrase=PASSPHRASE)
        self.make(self.client, SUBKEY, "ed25519", "cert")
        self.say(self.client, "--quick-add-key", self.prints[SUBKEY], "ed25519", "sign", "never", exe=self.old_gpg)
        self.make(self.client, OLD, "future-default", "default", expires="1d")
        self.make(self.client, STRANGER, "ed25519", "sign,cert")
        self.make(self.client, UNCERTIFIED, "ed25519", "sign,cert")
        self.make(self.client, UNKNOWN, "ed25519", "sign,cert")
        certified = (CLIENT, LOCKED, SUBKEY, OLD, STRANGER)
        self.hand(self.client, self.server, UNCERTIFIED, *certified)
        for name in certified:
            self.say(self.server, "--default-key", SERVER, "--quick-lsign-key", self.prints[name], exe=self.old_gpg)
        self.hand(self.server, self.client, SERVER, LOCKED_SERVER)

    def script(self, name, body):
        """Writes an executable shell script; returns its path."""
        path = os.path.join(self.dir, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o755), "w") as file:
            file.write("#!/bin/sh\n%s\n" % body)
        return path

    def say(self, home, *words, exe=None, passphrase="", stdin=b""):
        """Runs gpg; returns its standard output."""
        argv = [exe or self.gpg, "--homedir", home, "--batch", "--no-tty", "--quiet", "--pinentry-mode", "loopback"]
        argv += ["--passphrase", passphrase, *words]
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def make(self, home, name, kind, use, expires="never", passphrase=""):
        """Makes a key pair, dated LONG_AGO: that a gpg of that time can use it too."""
        self.say(home, "--quick-generate-key", name, kind, use, expires, exe=self.old_gpg, passphrase=passphrase)
        self.prints[name] = self.listed(home, name)[0]

    def listed(self, home, name):
        """Returns the fingerprints of a key, its subkeys after it."""
        lines = self.say(home, "--with-colons", "--list-keys", name).decode().splitlines()
        return [line.split(":")[9] for line in lines if line.startswith("fpr:")]

    def hand(self, giver, taker, *names):
        """Brings public keys from one home into another, where they stay without trust."""
        self.say(taker, "--import", stdin=self.say(giver, "--export", *names))

    def remove(self):
        """Ends the agents and removes all homes."""
        for home in (self.server, self.client):
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], stderr=subprocess.DEVNULL, timeout=30)
        shutil.rmtree(self.dir, ignore_errors=True)


@functools.cache
def keyrings():
    """Returns the Keyrings of this test run."""
    return Keyrings()
