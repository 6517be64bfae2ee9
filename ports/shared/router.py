"""What all kinds of routers share: how they talk and what they are told, as data, and a Port that says it.

This is no kind of port. A kind is a file beside it with a Profile, for the carrier's console, and a subclass of Port.
"""

from tinyknop import net
from tinyknop.compat import monotonic
from tinyknop.console import logged
from tinyknop.errors import ConfigError, PortError

from .profile import Profile, profile  # noqa: F401 (for the files of the kinds, and for carriers)

AT_ONCE = 50  # entries in one dialogue: some 8 s of it at 9600 baud
TRIES = 3  # listings, while the router's log bursts into them, where it may have torn an entry
KEPT = 1 << 18  # bytes of a listing: some 4,000 entries
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-"


class Family:
    """The words for IPv4, or for IPv6; $LIST, $ADDR, $PROTO, $PORT and $SECONDS in them stand for their values.

    `into`: lines before the entries. `add`, `remove`: lines for one entry; both must be harmless where it is (not)
    there. `show`: the command that lists entries; $START in it is what the names of all our lists begin with. `shapes`:
    how it prints one of ours; $N is anything. `head`: a line that names the list of those after it. `whole`: a line
    that is in every listing unless it was cut short. What is listed in another shape is somebody else's and stays.
    """

    def __init__(self, add, remove, show, shapes, into=(), head="", whole=""):
        self.add, self.remove, self.show, self.shapes = add, remove, show, shapes
        self.into, self.head, self.whole = into, head, whole


class Port:
    """One list on one device. Subclasses give the data; an entry is (IPv6 or not, address, protocol, port).

    Where the list's name holds $PROTO and $PORT, an entry stands for that opening only; on a device whose lists hold
    addresses alone, a name without them means that one opening admits the address to all that the list stands for.
    """

    self_timed = False
    kind = ""
    profile: "Profile | None" = None
    enter = ""  # the line before all others
    leave: tuple = ()  # the lines after them
    proof = ""  # a line of the answer where all went well, for each of ours that ends with it, but at least once
    families: tuple = ()  # Family of IPv4, and of IPv6 where the device has it
    names: tuple = ()  # (name, number) of ports that the device prints as names
    keeps_one: tuple = ()  # texts of entries of which the owner must have one: an empty list lets everything through
    # That a dialogue may take at least (if not as long as the carrier's timeout), and two more for each line (at worst,
    # see console.py); a listing 20 more.
    seconds = 1

    def __init__(self, name, options, carrier):
        self.name, self.carrier = name, carrier
        where = options.get("where", "port." + name)
        self.lists = [options["list"], options["list6"]]
        if not self.lists[1]:  # no IPv6 on this device
            self.families = self.families[:1]
        for said in self.lists[: len(self.families)]:
            plain = said.replace("$PROTO", "").replace("$PORT", "")
            if not said or len(said) > 60 or not all([c in LETTERS for c in plain]):
                reason = 'port.%s: list = "%s": letters, digits, "_", "-", "." and $PROTO, $PORT make a name'
                raise ConfigError(where, reason % (name, said))
        if getattr(carrier, "profile", self.profile) is not self.profile:
            reason = 'port.%s: its carrier %s talks to another kind of device: write profile = "%s" there'
            raise ConfigError(where, reason % (name, carrier.name, self.kind))
        self.claims = {}  # entry -> {opening of a grant: monotonic time in ms at which it ends}

    @property
    def outlives_us(self):
        return self.carrier.outlives_us

    async def start(self):
        """Nothing to prepare: `sync`, which follows, logs in and looks."""

    async def open(self, grant, seconds):
        """Adds the grant's entries, or renews their time where the device keeps it."""
        entries = self._claim(grant, seconds)
        await self._say([], sorted(set(entries)))

    async def close(self, grant):
        """Removes the grant's entries, but for those that another live grant needs."""
        gone = []
        for entry, opening in self._entries(grant):
            claims = self.claims.get(entry, {})
            claims.pop(opening, None)
            if not claims:
                self.claims.pop(entry, None)
                gone.append(entry)
        await self._say(sorted(set(gone)), [])

    async def sync(self, live):
        """Makes the device's list hold exactly the entries of these grants; what is not of our shape stays."""
        self.claims = {}
        for grant, seconds in live:
            try:
                self._claim(grant, seconds)
            except PortError:  # it could not be opened here, so there is nothing to keep
                continue
        listed = await self._listed()
        stray = [entry for entry in listed if entry not in self.claims]
        await self._say(sorted(stray), sorted([e for e in self.claims if self.self_timed or e not in listed]))

    async def stop(self, flush=False):
        """With `flush` removes the entries of ours."""
        if flush and self.claims:
            entries, self.claims = sorted(self.claims), {}
            await self._say(entries, [])

    def describe(self):
        return "%s (%s %s via %s)" % (self.name, self.kind, self.lists[0], self.carrier.describe())

    def check(self, grant):
        """Raises PortError for a grant that can never be opened here; the worker asks this first."""
        if grant.nat:
            raise PortError(self.describe(), "a router's list cannot do NAT; name a port of kind iptables or nftables")
        if ":" in grant.source and len(self.families) < 2:
            raise PortError(self.describe(), "no openings for IPv6 here: list6 is empty")
        if [proto for proto, _ in grant.openings if proto not in ("tcp", "udp")]:
            raise PortError(self.describe(), "only tcp and udp can be opened")

    def _claim(self, grant, seconds):
        self.check(grant)
        entries = self._entries(grant)
        for entry, opening in entries:
            self.claims.setdefault(entry, {})[opening] = monotonic() + seconds * 1000
        return [entry for entry, _ in entries]

    def _entries(self, grant):
        """Returns (entry, opening) for each opening of a grant that can be here."""
        six = int(":" in grant.source)
        if grant.nat or six >= len(self.families):
            return []
        source = net.printed(net.packed(grant.source))
        words = "".join(self.families[six].add).replace("$LIST", self.lists[six])
        found = []
        for proto, port in grant.openings:
            entry = (six, source, proto if "$PROTO" in words else "", str(port) if "$PORT" in words else "")
            found.append((entry, (grant.source, proto, port)))
        return found

    async def _say(self, removed, added):
        """Has entries removed and added, as many in one dialogue as are said in reasonable time."""
        todo = [(entry, False) for entry in removed] + [(entry, True) for entry in added]
        for at in range(0, len(todo), AT_ONCE):
            lines, mode = [self.enter] if self.enter else [], None
            for entry, wanted in todo[at : at + AT_ONCE]:
                family = self.families[entry[0]]
                into = [self._filled(line, entry) for line in family.into]
                lines += [] if into == mode else into
                mode = into
                lines += [self._filled(line, entry) for line in (family.add if wanted else family.remove)]
            lines += self.leave
            text = "".join([line + "\n" for line in lines[1:]])
            within = self._within() + 2 * len(lines)
            answer = await self.carrier.say(*lines[0].split(" "), text=text or None, within=within)
            needed = max(1, len([line for line in lines if line.endswith(self.proof)]))
            if self.proof and self.lines_of(answer).count(self.proof) < needed:
                last = ([line for line in self.lines_of(answer) if line] or ["nothing"])[-1]
                raise PortError(self.describe(), 'it does not say "%s" but: %s' % (self.proof, last))

    def _within(self):
        return max(self.seconds, getattr(self.carrier, "seconds", 10))

    async def _listed(self):
        """Returns the entries of ours that the device has."""
        found = []
        for six, family in enumerate(self.families):
            show = family.show.replace("$LIST", self.lists[six])
            show = show.replace("$START", self.lists[six].split("$")[0] or ".")  # a pattern
            for _ in range(TRIES):
                said = await self.carrier.say(*show.split(" "), within=self._within() + 20, keep=KEPT)
                if len(said) >= KEPT or family.whole not in self.lines_of(said) + [""]:  # a stray behind it would stay
                    raise PortError(self.describe(), "the answer to %s was cut short" % show)
                here, others = self._read(said, six)
                if self.keeps_one and not others and said.strip():
                    reason = "list %s has no entry of your own: once it is empty the router lets everything through"
                    raise PortError(self.describe(), reason % self.lists[six])
                found += here
                if not [line for line in said.split("\n") if line.strip() and line[0] != "{" and logged(line)]:
                    break
        return set(found)

    def _read(self, said, six):
        """Returns (entries of ours, whether there are others) of a listing."""
        family, found, others, known = self.families[six], [], False, {}
        for line in self.lines_of(said):
            if family.head and line.startswith(family.head.split("$")[0]):
                known = matched(family.head.replace("$LIST", self.lists[six]), line)
                continue
            values = None
            for shape in family.shapes:
                values = values or matched(shape.replace("$LIST", self.lists[six]), line)
            entry = self._entry(values, known, six) if values and known is not None else None
            if entry:
                found.append(entry)
            else:
                others = others or any([text in " " + line for text in self.keeps_one])
        return found, others

    def _entry(self, values, known, six):
        values.update(known)
        try:
            address = net.packed(values["ADDR"])
        except ValueError:
            return None
        port = values.get("PORT", "")
        for name, number in self.names:
            port = str(number) if port == name else port
        return (six, net.printed(address), values.get("PROTO", ""), port) if (len(address) == 16) == six else None

    def lines_of(self, said):
        """Returns the lines of a listing, without what changes from one to the next."""
        return [" ".join(line.split()) for line in said.split("\n")]

    def _filled(self, line, entry):
        """Returns a line with an entry's values in it: parsed and printed anew, they hold nothing but plain letters."""
        line = line.replace("$LIST", self.lists[entry[0]]).replace("$ADDR", entry[1])
        if "$SECONDS" in line:
            left = max(self.claims[entry].values()) - monotonic()
            line = line.replace("$SECONDS", str(max(1, (left + 999) // 1000)))
        return line.replace("$PROTO", entry[2]).replace("$PORT", entry[3])


def matched(shape, text):
    """Returns what stands in a text for the names of a shape ($NAME, capitals), as a dict; None where it differs."""
    found: dict = {}
    while True:
        plain, dollar, shape = shape.partition("$")
        if not text.startswith(plain):
            return None
        text = text[len(plain) :]
        if not dollar:
            return None if text else found
        end = 0
        while end < len(shape) and "A" <= shape[end] <= "Z":
            end += 1
        name, shape = shape[:end], shape[end:]
        until = shape.partition("$")[0]
        at = text.find(until) if until else len(text)
        value = text[: max(at, 0)]
        if not value or " " in value or found.get(name, value) != value:
            return None
        found[name] = value
        text = text[at:]
