"""generic: the owner's own lines for a device that no other kind knows.

`open` and `close` are lines separated by ";", with $SRC, $PROTO and $PORT in them, such as
"configure terminal; access-list 10 permit $SRC; end". They are typed for each opening. What the device holds is not
read back: each close is said until it succeeds. Try them with `tinyknop console` first.
"""

from tinyknop import net
from tinyknop.errors import ConfigError, PortError

from .shared.profile import Profile

PROFILE = Profile(ends="#>$%", spaced=True, setup=("terminal length 0",))
OPTIONS = {"open": None, "close": None}
CARRIER = "serial"


class Port:
    self_timed = False
    blind = True
    tries = 1 << 30  # of a close: the line may be dead for hours

    def __init__(self, name, options, carrier):
        self.name, self.carrier = name, carrier
        self.said = []
        for option in ("open", "close"):
            lines = [line.strip() for line in (options.get(option) or "").split(";")]
            if not all(lines):
                reason = 'port.%s: %s: give lines separated by ";", as in "permit $SRC"'
                raise ConfigError(options.get("where", "port." + name), reason % (name, option))
            self.said.append(lines)

    @property
    def outlives_us(self):
        return self.carrier.outlives_us

    async def start(self):
        pass

    def check(self, grant):
        """Raises PortError for a grant that can never be opened here; the worker asks this first."""
        if grant.nat:
            raise PortError(self.describe(), "lines of your own cannot do NAT; name a port of kind iptables or command")

    async def open(self, grant, seconds):
        """Types the lines of `open` for each opening."""
        self.check(grant)
        await self.type(self.said[0], grant)

    async def close(self, grant):
        """Types the lines of `close` for each opening."""
        if not grant.nat:
            await self.type(self.said[1], grant)

    async def sync(self, live):
        pass

    async def stop(self, flush=False):
        pass

    def describe(self):
        return "%s (generic via %s)" % (self.name, self.carrier.describe())

    async def type(self, lines, grant):
        source = net.printed(net.packed(grant.source))
        for proto, port in grant.openings:
            text = "\n".join(lines).replace("$SRC", source).replace("$PROTO", proto).replace("$PORT", str(port))
            first, _, rest = text.partition("\n")
            await self.carrier.say(*first.split(" "), text=rest + "\n" if rest else None)
