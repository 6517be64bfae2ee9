"""command: opens and closes by the owner's own commands. There is no shell: a template is split at blanks.

What a command did cannot be read back, so `sync` leaves it alone: the journal says what is open.
"""

from tinyknop.errors import ConfigError

OPTIONS = {"open": None, "close": None}
CARRIER = "local"
NUMBERS = {"tcp": "6", "udp": "17", "icmp": "1"}


class Port:
    self_timed = False
    outlives_us = True  # what the command changed may be anywhere

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        where = options.get("where", "port." + name)
        self.templates = []
        for option in ("open", "close"):
            template = options.get(option) or ""
            if not template:
                raise ConfigError(where, 'port.%s: %s is missing (a command, or "NONE" for close)' % (name, option))
            self.templates.append(None if option == "close" and template == "NONE" else template.split())

    async def start(self):
        pass

    async def open(self, grant, seconds):
        """Runs the open command, once for each opening."""
        await self.run(self.templates[0], grant, seconds)

    async def close(self, grant):
        await self.run(self.templates[1], grant, max(grant.until - grant.opened, 0))

    async def sync(self, live):
        pass

    async def stop(self, flush=False):
        pass

    async def run(self, template, grant, seconds):
        for opening in grant.openings if template else ():
            values = substitutes(grant, opening, seconds)
            await self.carrier.say(*[substituted(word, values) for word in template])

    def describe(self):
        return "%s (command via %s)" % (self.name, self.carrier.describe())


def substitutes(grant, opening, seconds):
    """fwknopd's variables, in the order in which it tries their names as prefixes (2.6.10)."""
    return (
        ("$IP", grant.source),
        ("$SRC", grant.source),
        ("$PKT_SRC", grant.source),
        ("$DST", "0.0.0.0"),  # a grant doesn't hold the packet's destination
        ("$PORT", str(opening[1])),
        ("$PROTO", NUMBERS[opening[0]]),
        ("$TIMEOUT", str(grant.until)),
        ("$CLIENT_TIMEOUT", str(seconds)),
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
