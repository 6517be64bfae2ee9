"""local: runs words as a command of this machine. There is no shell, so there is nothing to quote."""

import errno

from tinyknop import log
from tinyknop.child import LONGEST_OUTPUT, run
from tinyknop.errors import PortError

REPLY_S = 10  # iptables -w may wait for another's lock; 200 rules in one call took 0.02 s, so this is a stuck peer
PACKAGES = (  # start of a command's name, the Debian package that brings it
    ("iptables", "iptables"),
    ("ip6tables", "iptables"),
    ("ipset", "ipset"),
    ("nft", "nftables"),
    ("firewall-cmd", "firewalld"),
    ("conntrack", "conntrack"),
)
ABSENT = "No such file or directory"
DENIED = ("Permission denied", "Operation not permitted", "you must be root")


class Carrier:
    outlives_us = False

    def __init__(self, name="local", options=None):
        self.name = name

    async def start(self):
        pass

    async def stop(self):
        pass

    async def say(self, *words, text=None, within=REPLY_S, keep=LONGEST_OUTPUT):
        """Runs the words for `within` seconds at most, with `text` at their standard input; returns what they wrote.

        Raises PortError where they fail or say more than anybody can want; `keep` bytes of it are kept.
        """
        try:
            status, output = await run(list(words), (text or "").encode(), within, keep)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise PortError(self.describe(), "%s: %s" % (words[0], error))
            status, output = 127, b""
        log.debug("CMD: '%s' (res: %d, err: %s)", " ".join(words), status, output[:200] if status else "")
        if len(output) >= LONGEST_OUTPUT:  # half a listing must not pass for the whole
            raise PortError(self.describe(), "%s: answered more than %d bytes" % (words[0], LONGEST_OUTPUT))
        output = "".join([chr(c) if c < 128 else "?" for c in output]) if max(output or b" ") > 127 else output.decode()
        if status:
            raise PortError(self.describe(), "%s: %s" % (words[0], reason(words[0], status, output, within)))
        return output

    def describe(self):
        return self.name


def reason(command, status, output, within):
    """Says in one line why a command failed, and what to do where that is known."""
    if status == 124:
        return "no end after %d s: killed" % within
    lines = [line.strip() for line in output.split("\n") if line.strip()]
    said = "; ".join(lines[:3]) or "status %d" % status
    if status == 127 and said in ("status 127", ABSENT):
        return "not found" + remedy(command)
    if any(word in said for word in DENIED):
        said += " (this needs root or CAP_NET_ADMIN)"
    return said


def remedy(command):
    """Names the Debian package that has a command, where we know it."""
    base = command.split("/")[-1]
    for start, package in PACKAGES:
        if base.startswith(start):
            return " (on Debian: apt install %s)" % package
    return ""
