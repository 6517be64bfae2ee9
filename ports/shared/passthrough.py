"""The way of iptables' words through firewalld: what mode "direct" of the port firewalld gives the port iptables.

iptables-restore has no such way, so a transaction is said line by line, and undone as far as it came where one fails.
"""

from tinyknop import log
from tinyknop.errors import PortError


class Passthrough:
    """A carrier that has firewalld run the words of iptables and iptables-restore."""

    def __init__(self, binary, carrier):
        self.binary = binary
        self.carrier = carrier
        self.outlives_us = carrier.outlives_us

    async def say(self, *words, text=None):
        """Returns what iptables answers. Of a transaction the lines are said one by one, and undone where one fails."""
        family = "ipv6" if words[0].startswith("ip6") else "ipv4"
        if text is None:
            return await self.passed(family, [word for word in words[1:] if word != "-w"])
        table, undo = [], []
        try:
            for line in text.split("\n"):
                said = line.split(" ")
                if line.startswith("*"):
                    table = ["-t", line[1:]]
                elif line and line != "COMMIT":
                    await self.passed(family, table + said)
                    undo += [table + back for back in opposite(said)]
        except PortError:
            for back in reversed(undo):
                try:
                    await self.passed(family, back)
                except PortError as error:
                    log.warning("%s: %s", self.describe(), error.reason)
            raise
        return ""

    async def passed(self, family, words):
        answer = await self.carrier.say(self.binary, "--direct", "--passthrough", family, *words)
        said, success, rest = answer.rpartition("success")
        if not success or rest.strip():  # an older firewall-cmd says COMMAND_FAILED, and exits with 0
            raise PortError(self.describe(), answer.strip())
        return said.rstrip("\n") + "\n"

    def describe(self):
        return "firewalld via " + self.carrier.describe()


def opposite(said):
    """Returns the commands, one or none, that undo one that was done."""
    verb = {"-A": "-D", "-I": "-D", "-D": "-A", "-N": "-X"}.get(said[0])
    where = 3 if said[0] == "-I" and said[2].isdigit() else 2
    return [[verb, said[1]] + said[where:]] if verb else []
