"""Scores sources as psad 2.4.6 does: danger levels from 1 to 5, by packets, hosts, signatures and rules. No I/O.

What is remembered is bounded by the number of pairs of a source and a host: the sources that were seen least recently
are forgotten first. Times are seconds of any clock that does not go back.
"""

from tinyknop import compat, log

from . import files

PAIRS = 500 if compat.MICROPYTHON else 10000  # 600 bytes each on CPython
SIDS = 32  # signatures and rules that are remembered of one source
_PACKETS = (5, 15, 150, 1500, 10000)
_HOSTS = (10, 20, 50, 100, 500)
# What psad leaves out, since it reads neither the names of these protocols nor ports where there are none.
_UNCOUNTED = ("ah", "esp", "udplite", "sctp")
_PORTED = ("tcp", "udp")
_TWICE = 4
_CODES = {0: 1, 3: 16, 4: 1, 5: 4, 6: 1, 8: 1, 10: 1, 11: 2, 12: 3, 13: 1, 14: 1, 15: 1, 16: 1, 17: 1, 18: 1, 40: 6}
_CODES6 = {1: 7, 2: 1, 3: 2, 4: 3, 138: 2, 139: 3, 140: 3}
_CODES6.update({kind: 1 for kind in range(128, 156) if kind not in (138, 139, 140, 150)})


def _pairs(codes, more):
    return set([(kind, code) for kind in codes for code in range(codes[kind])] + more)


class Limits:
    """The thresholds; `conf` is what `files.conf` read of a psad.conf."""

    def __init__(self, conf=()):
        conf = conf or {}

        def number(name, default):
            text = conf.get(name, "")
            return int(text) if text.isdigit() and len(text) < 10 else default

        self.packets = [number("DANGER_LEVEL%d" % (i + 1), _PACKETS[i]) for i in range(5)]
        self.hosts = [number("DL%d_UNIQUE_HOSTS" % (i + 1), _HOSTS[i]) for i in range(5)]
        self.span = number("PORT_RANGE_SCAN_THRESHOLD", 1)
        self.protocols = number("PROTOCOL_SCAN_THRESHOLD", 5)
        self.timeout = number("SCAN_TIMEOUT", 3600)  # seconds
        if conf.get("ENABLE_PERSISTENCE", "N") == "Y":
            self.timeout = 1 << 40
        self.answers = conf.get("IGNORE_CONNTRACK_BUG_PKTS", "Y") != "Y"  # whether packets with ACK or RST count
        self.mark = conf.get("SNORT_SID_STR", "SID").encode()
        for name in ("IGNORE_PORTS", "IGNORE_PROTOCOLS", "IGNORE_INTERFACES", "IGNORE_LOG_PREFIXES"):
            if conf.get(name, "NONE") != "NONE":
                log.warning("%s of psad.conf is not heeded: let the firewall not log these", name)


class Source:
    """What is known of one source."""

    __slots__ = "level sure packets most hosts sids seen told blocked".split()

    def __init__(self, now):
        self.level = 0
        self.sure = 0  # the level that does not depend on counts
        self.packets = 0
        self.most = 0  # packets to one host
        self.hosts = {}  # packed address -> [packets, lowest port, highest port, once and _TWICE, protocols]
        self.sids = {}  # sid -> [message, packets, last Event]
        self.seen = now
        # The watcher's: the level that was told, and until when there is no need to ask for a block again.
        self.told = self.blocked = 0


def _level(limits, count):
    return len([limit for limit in limits if limit <= count])


class Scorer:
    """`score` takes Events; `known(sid)` tells whether there is a Snort rule of that number."""

    def __init__(self, limits=None, pairs=PAIRS):
        self.limits = limits or Limits()
        self.known = lambda sid: False
        self.rule_levels = {}
        self.valid = _pairs(_CODES, [(9, 0), (9, 16)])
        self.valid6 = _pairs(_CODES6, [(138, 255)])
        self._auto = []
        self._table = {}  # protocol -> ({destination port or ICMP type: [Signature]}, [Signature])
        self._half = max(pairs // 2, 1)
        self._young, self._old, self._made = {}, {}, 0
        self.forgotten = 0  # sources

    def take_auto(self, entries):
        """Takes entries of auto_dl; the narrowest network that a packet fits decides."""
        self._auto = sorted(entries, key=lambda auto: -auto.network[1])

    def take(self, signatures):
        """Takes signatures, found by their destination port or ICMP type where they name one."""
        for one in signatures:
            exact, wide = self._table.setdefault(one.proto, ({}, []))
            keys = [number for name, sign, number in one.tests if (name, sign) == ("kind", "=")]
            if one.dports and not one.dports[0] and sum([high - low for low, high in one.dports[1]]) < 512:
                keys = [port for low, high in one.dports[1] for port in range(low, high + 1)]
            for key in keys:
                exact.setdefault(key, []).append(one)
            if not keys:
                wide.append(one)

    def ignored(self, address):
        """Tells whether auto_dl says 0 of a packed address."""
        return [auto.level for auto in self._auto if files.net.contains(auto.network, address)][:1] == [0]

    def score(self, event, now=0):
        """Counts one Event; returns its Source, whose `level` may have risen, or None where it does not count."""
        proto = event.proto
        if proto in _UNCOUNTED or (proto in _PORTED and event.dport < 0):
            return None
        if proto == "tcp" and not event.sid and not self.limits.answers and ("A" in event.flags or "R" in event.flags):
            return None
        auto = self._auto_level(event)
        if auto == 0:
            return None
        source = self._source(event.source, now)
        source.sure = max(source.sure, auto or 0, self._matched(source, event))
        host = self._host(source, event.destination)
        source.packets += 1
        host[0] += 1
        if proto in _PORTED:
            once = 1 + _PORTED.index(proto)
            host[1], host[2] = min(host[1], event.dport), max(host[2], event.dport)
            host[3] |= _TWICE if host[3] & once else once
        if proto not in host[4] and len(host[4]) < self.limits.protocols:
            host[4] += (proto,)
        source.most = max(source.most, host[0])
        hosts = len(source.hosts)
        level = max(source.sure, _level(self.limits.hosts, hosts))
        if hosts >= self.limits.hosts[0]:
            level = max(level, _level(self.limits.packets, source.most))
        elif self._spread(host):
            level = max(level, _level(self.limits.packets, host[0]))
        source.level = max(source.level, level)
        return source

    def final(self, source):
        """Returns the level that all packets together come to, as psad gives it when it reads a file."""
        wide = len(source.hosts) >= self.limits.hosts[0]
        counts = [host[0] for host in source.hosts.values() if wide or self._spread(host)]
        return max(
            [source.sure, _level(self.limits.hosts, len(source.hosts)), _level(self.limits.packets, max(counts + [0]))]
        )

    def adopt(self, other):
        """Takes over what another Scorer knows of sources."""
        self._young, self._old, self._made, self.forgotten = other._young, other._old, other._made, other.forgotten

    def get(self, address):
        """Returns what is known of a packed address, a new Source where that is nothing."""
        return self._young.get(address) or self._old.get(address) or Source(0)

    def sources(self):
        """Returns [(packed address, Source), ...], the worst first."""
        known = [(address, table[address]) for table in (self._young, self._old) for address in table]
        return sorted(known, key=lambda pair: (-pair[1].level, -pair[1].packets, pair[0]))

    def _spread(self, host):
        """Tells whether what one host got is spread enough for a scan.

        As in psad, ports are compared from the second packet on that TCP or UDP brought; before, anything is.
        """
        if not host[3] & _TWICE or host[2] - host[1] >= self.limits.span:
            return True
        return len(host[4]) >= self.limits.protocols

    def _auto_level(self, event):
        for network, level, proto, some in self._auto:
            if not files.net.contains(network, event.source):
                continue
            # psad ignores an address for every protocol, whatever stands after the 0.
            if level == 0 or not proto or (proto == event.proto and _in_ports(some, event.dport)):
                return level
        return None

    def _source(self, address, now):
        """Returns what is known of a source, new where that is nothing, or too old."""
        source = self._young.get(address)
        if source is None:
            source = self._old.pop(address, None)
            if source is None:
                source = Source(now)
            self._young[address] = source
            self._grew(len(source.hosts) + 1)
        if now - source.seen > self.limits.timeout:
            source = self._young[address] = Source(now)
        source.seen = now
        return source

    def _grew(self, count):
        """Forgets the older half once the younger one is full."""
        self._made += count
        if self._made > self._half:
            self.forgotten += len(self._old)
            self._old, self._young, self._made = self._young, {}, 0

    def _host(self, source, address):
        host = source.hosts.get(address)
        if host is None:
            host = [0, 65535, 0, 0, ()]
            if len(source.hosts) < max(self.limits.hosts):  # more of them raise nothing
                source.hosts[address] = host
                self._grew(1)
        return host

    def _matched(self, source, event):
        """Returns the highest level of what one packet matches."""
        level = 0
        if event.proto == "icmp" or event.proto == "icmpv6":
            valid = self.valid if event.proto == "icmp" else self.valid6
            level = 0 if (event.kind, event.code) in valid else files.DEFAULT
        if event.sid and (event.sid in self.rule_levels or self.known(event.sid)):
            level = max(level, self.rule_levels.get(event.sid, files.DEFAULT))
            _noted(source, event.sid, "", event)
        for proto in (event.proto, "ip"):
            exact, wide = self._table.get(proto, ({}, ()))
            key = event.kind if proto == "icmp" else event.dport
            for one in exact.get(key, ()):
                level = max(level, self._tried(source, one, event))
            for one in wide:
                level = max(level, self._tried(source, one, event))
        return level

    def _tried(self, source, one, event):
        if not matches(one, event):
            return 0
        level = self.rule_levels.get(one.sid, one.level)
        if level:
            _noted(source, one.sid, one.message, event)
        return level


def _noted(source, sid, message, event):
    if sid not in source.sids and len(source.sids) >= SIDS:
        return
    known = source.sids.setdefault(sid, [message, 0, event])
    known[1] += 1
    known[2] = event


def _in_ports(some, port):
    return not some or bool([1 for low, high in some if low <= port <= high])


def matches(one, event):
    """Tells whether a packet matches a signature; what the line does not say matches nothing."""
    for name, sign, wanted in one.tests:
        if name == "flags":
            if event.flags != wanted:
                return False
        elif name == "sameip":
            if event.source != event.destination:
                return False
        elif name == "options":
            if wanted not in kinds(event.options):
                return False
        else:
            value = data(event) if name == "data" else getattr(event, name)
            same = value == wanted
            fits = value < wanted if sign == "<" else value > wanted if sign == ">" else same == (sign == "=")
            if value < 0 or not fits:
                return False
    for some, port in ((one.sports, event.sport), (one.dports, event.dport)):
        if some is not None and _in_ports(some[1], port) == some[0]:
            return False
    for some, address in ((one.source, event.source), (one.destination, event.destination)):
        if some is not None and bool([1 for net in some[1] if files.net.contains(net, address)]) == some[0]:
            return False
    return True


def data(event):
    """Returns how many bytes a packet carries, -1 where its line does not say.

    As psad: a TCP header may have 60 bytes, so nobody knows of a packet under 80; four bytes are taken off for ICMP.
    """
    header = 20 if len(event.source) == 4 else 40
    if event.proto == "tcp":
        return event.size - header - 60 if event.size > header + 60 else -1
    return max(event.size - header - (8 if event.proto == "udp" else 4), 0) if event.proto in ("udp", "icmp") else -1


def kinds(options):
    """Returns the kinds of the IP options in their bytes."""
    found, at = [], 0
    while at < len(options) and options[at]:
        found.append(options[at])
        step = 1 if options[at] == 1 else options[at + 1] if at + 1 < len(options) else 0
        if step < 1:
            break
        at += step
    return found
