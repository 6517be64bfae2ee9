"""command: opens and closes by the owner's own commands. No shell: a template is split at blanks, then filled in.

What a command did cannot be read back, so `sync` leaves it alone: the journal says what is open, and what has begun. A
knock for what is open runs the open command again; one that has begun is not repeated, as nobody knows how far it came,
not even by the next start, which runs what had not begun. A failed close is repeated.
"""

from tinyknop import log
from tinyknop.compat import whole
from tinyknop.errors import ConfigError, PortError

OPTIONS = {
    "open": None,
    "close": None,  # "NONE": nothing to run, as where the device ends an opening itself
    "timeout": "60",  # seconds that a command may take; after them it is killed with its children
}
CARRIER = "local"
NUMBERS = {"tcp": "6", "udp": "17", "icmp": "1"}
KEPT = 1000  # bytes of what a command says, for the log where it fails


class Port:
    self_timed = False
    outlives_us = True  # what the command changed may be anywhere
    nats = True  # a cycle takes the place of any firewall rule
    by_destination = True
    blind = True

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        where = options.get("where", "port." + name)
        self.templates = []
        for option in ("open", "close"):
            template = (options.get(option) or "").split()
            if not template:
                raise ConfigError(where, 'port.%s: %s is missing (a command, or "NONE" for close)' % (name, option))
            self.templates.append(None if option == "close" and template == ["NONE"] else template)
        timeout = options.get("timeout") or "60"
        if not 1 <= whole(timeout) < 10000000:
            raise ConfigError(where, "port.%s: timeout = %s: say how many seconds, as in 60" % (name, timeout))
        self.seconds = int(timeout)

    async def start(self):
        pass

    async def open(self, grant, seconds):
        """Runs the open command, once for each opening; a failure is logged, neither raised nor repeated."""
        for words in self.filled(self.templates[0], grant):
            log.info("Running CMD_CYCLE_OPEN command: %s", " ".join(words))
            try:
                await self.carrier.say(*words, within=self.seconds, keep=KEPT)
            except PortError as error:
                log.warning("CMD_CYCLE_OPEN command failed: %s", error.reason)
        for words in self.filled(self.templates[1], grant):
            log.info("Running CMD_CYCLE_CLOSE command in %d seconds: %s", seconds, " ".join(words))

    async def close(self, grant):
        """Runs the close command, once for each opening; raises PortError where one fails."""
        for words in self.filled(self.templates[1], grant):
            log.info("Timer expired, running CMD_CYCLE_CLOSE command: %s", " ".join(words))
            await self.carrier.say(*words, within=self.seconds, keep=KEPT)

    async def sync(self, live):
        pass

    async def stop(self, flush=False):
        pass

    def filled(self, template, grant):
        """Returns the words to run for each opening."""
        values = [substitutes(grant, opening) for opening in grant.openings if template]
        return [[substituted(word, value) for word in template] for value in values]

    def describe(self):
        return "%s (command via %s)" % (self.name, self.carrier.describe())


def substitutes(grant, opening):
    """fwknopd's variables, in the order in which it tries their names as prefixes (2.6.10)."""
    return (
        ("$IP", grant.source),
        ("$SRC", grant.source),
        ("$PKT_SRC", grant.sender),
        ("$DST", grant.destination),
        ("$PORT", str(opening[1])),
        ("$PROTO", NUMBERS[opening[0]]),
        ("$TIMEOUT", str(grant.until)),
        ("$CLIENT_TIMEOUT", str(max(grant.until - grant.opened, 0))),
    )


def substituted(word, values):
    """Puts values in, in one pass, so that none is looked at again; the `$` of an unknown name vanishes, as there."""
    done = ""
    while "$" in word:
        at = word.find("$")
        done, word = done + word[:at], word[at:]
        for variable, value in values:
            if word.startswith(variable):
                done, word = done + value, word[len(variable) :]
                break
        else:
            word = word[1:]
    return done + word
