"""wireguard: a knock adds the peer of its stanza to an interface, the close removes it; in between there is a tunnel.

    peers = ["alice 2hpW...xk0= 10.8.0.2/32 fd08::2/128 /etc/wireguard/alice.psk", ...]

says for each stanza its peer: public key, the addresses it may have in the tunnel, and, beginning with a slash, a file
with the preshared key on the machine where `wg` runs, which reads it itself. Peers that are not in that list are never
touched. The openings of a knock are for other ports: name the firewall beside this one to open the UDP port as well.
"""

from binascii import a2b_base64

from tinyknop import net
from tinyknop.errors import ConfigError, PortError

OPTIONS = {
    "interface": "wg0",
    "peers": None,  # a list: stanza, public key, networks, file of the preshared key
    "binary": "wg",
}
CARRIER = "local"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_=+.-"
# Not the entry itself: somebody may have put a secret in it.
SHAPE = 'port.%s: peers, entry %d: %s; write "STANZA PUBLIC-KEY 10.8.0.2/32", more networks and /FILE as you need'


class Port:
    self_timed = False

    def __init__(self, name, options, carrier):
        self.name = name
        self.carrier = carrier
        self.outlives_us = carrier.outlives_us
        self.interface, self.binary = options["interface"], options.get("binary") or "wg"
        where = options.get("where", "port." + name)
        if not 1 <= len(self.interface) <= 15 or not all(c in LETTERS for c in self.interface):
            raise ConfigError(where, "port.%s: interface = %s: no name of an interface" % (name, self.interface))
        self.peers: dict = {}  # stanza -> (public key, networks, file or "")
        self.held = {}  # public key -> set of (source, opening) for which it is there
        for number, item in enumerate((options.get("peers") or "").split(","), 1):
            try:
                stanza, peer = parsed(item)
            except ValueError as error:
                raise ConfigError(where, SHAPE % (name, number, error))
            if stanza in self.peers or peer[0] in [known[0] for known in self.peers.values()]:
                raise ConfigError(where, "port.%s: peers: a stanza, or a key, is named twice: %s" % (name, stanza))
            self.peers[stanza] = peer

    async def start(self):
        """Looks whether the interface is there; raises PortError."""
        await self.listed()

    async def open(self, grant, seconds):
        """Adds the stanza's peer."""
        peer = self.check(grant)
        self.held.setdefault(peer[0], set()).update(claims(grant))
        await self.add(peer)

    async def close(self, grant):
        """Removes the peer once nothing holds it any more."""
        peer = self.peers.get(grant.stanza)
        if peer is None:  # it was never there
            return
        held = self.held.get(peer[0], set())
        held.difference_update(claims(grant))
        if not held:
            self.held.pop(peer[0], None)
            await self.remove(peer[0])

    async def sync(self, live):
        """Makes the interface hold exactly those of our peers that live grants explain."""
        self.held = {}
        for grant, _ in live:
            if grant.stanza in self.peers and not grant.nat:
                self.held.setdefault(self.peers[grant.stanza][0], set()).update(claims(grant))
        there = await self.listed()
        for peer in self.peers.values():
            if peer[0] not in self.held and peer[0] in there:
                await self.remove(peer[0])
            elif peer[0] in self.held and there.get(peer[0]) != sorted(peer[1]):
                await self.add(peer)

    async def stop(self, flush=False):
        """With `flush` removes our peers; those that are the owner's stay."""
        if flush:
            await self.sync([])

    def check(self, grant):
        """Returns the peer of a grant; PortError says why there can be none."""
        if grant.nat:
            raise PortError(self.describe(), "a tunnel cannot do NAT; name a port of kind iptables or nftables")
        if grant.stanza not in self.peers:
            raise PortError(self.describe(), "peers names none for the stanza %s" % grant.stanza)
        return self.peers[grant.stanza]

    async def add(self, peer):
        """Adds a peer, or renews what it has."""
        key, networks, secret = peer
        words = ("preshared-key", secret) if secret else ()
        await self.set(key, *(words + ("allowed-ips", ",".join(networks))))

    async def remove(self, key):
        """Removes a peer; one that is not there counts as removed."""
        await self.set(key, "remove")

    async def set(self, key, *words):
        await self.carrier.say(self.binary, "set", self.interface, "peer", key, *words)

    async def listed(self):
        """Returns {public key: sorted networks} of all peers; without `dump`, which would print secrets."""
        text = await self.carrier.say(self.binary, "show", self.interface, "allowed-ips")
        found = {}
        for words in [line.split() for line in text.split("\n") if line.strip()]:
            found[words[0]] = sorted([network(word) for word in words[1:] if "/" in word])
        return found

    def describe(self):
        return "%s (wireguard %s via %s)" % (self.name, self.interface, self.carrier.describe())


def claims(grant):
    """Returns what of a grant holds its peer."""
    return [(grant.source, opening) for opening in grant.openings]


def parsed(item):
    """Reads (stanza, (public key, networks, file)) of an entry of `peers`; raises ValueError."""
    words = item.split()
    if len(words) < 3:
        raise ValueError("a stanza, a key and a network at least")
    stanza, key, rest = words[0], words[1], words[2:]
    secret = rest.pop() if rest[-1].startswith("/") else ""
    try:
        whole = len(key) == 44 and len(a2b_base64(key)) == 32
    except ValueError:
        whole = False
    if not whole or not all(c in LETTERS + "/" for c in key):
        raise ValueError("a public key has 44 characters, as wg pubkey prints it")
    if not rest:
        raise ValueError("no network")
    return stanza, (key, [network(word) for word in rest], secret)


def network(text):
    """Returns a network as `wg` prints it."""
    base, bits = net.network(text)
    return "%s/%d" % (net.printed(base), bits)
