"""Everything that reads untrusted or hand-written bytes, as functions of bytes that raise only where there is a fault.

TARGETS is name -> function. What a reader may well raise (Rejected, ConfigError, …) is caught inside; any other
exception is a find, and so is an assertion here: each target also says what must hold of what comes out. `seeds(name)`
gives bytes to begin with.
"""

import io
import json
import os
import pathlib
import shutil
import struct
import tempfile
from atexit import register
from types import SimpleNamespace

from tinyknop.ports import cisco_ios, ipset, junos, openwrt, routeros
from tinyknop.ports.shared import ledger, router, sets, stamped
from tinyknop.ports.shared import rules as iptables

from tinyknop import (
    Keys,
    Rejected,
    capture,
    compat,
    config,
    conntrack,
    crypto,
    grants,
    hints,
    journal,
    log,
    net,
    netlink,
    nft,
    ports,
    replay,
    spa,
    unseal,
    web,
)
from tinyknop.capture import filter_of, filters, ip, nfqueue, pcap
from tinyknop.config import fwknopd
from tinyknop.console import Console, ConsoleError
from tinyknop.control import _words
from tinyknop.errors import ConfigError, PortError
from tinyknop.gate import STAGES, Datagram, Gate
from tinyknop.host import addresses, bpf, gpg, rcfile, rules
from tinyknop.host.fwoptions import Refused
from tinyknop.lines import Lines
from tinyknop.seal import HEADER, MODES, PREFIX
from tinyknop.settings import Settings
from tinyknop.stanza import Stanza
from tinyknop.watch import files, nflog, parse, score

HERE = pathlib.Path(__file__).resolve().parents[1]
NOW = 1700000000
SECRET = b"s3cret key of the fuzzer"
SALT = b"saltsalt"
SOURCE, HOST, PROXY = b"\xc0\x00\x02\x63", b"\x0a\x00\x00\x01", b"\x7f\x00\x00\x01"

log.sink = lambda level, text: None
_home = tempfile.mkdtemp(prefix="tinyknop-fuzz-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
register(shutil.rmtree, _home, True)


def put(name, data):
    """Writes a file that only its owner can read; returns its path."""
    path = os.path.join(_home, name)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    return path


# ---- packets ---------------------------------------------------------------------------------------------------------

KEYS = [Keys(SECRET[:16], None, mode) for mode in MODES] + [Keys(SECRET, SECRET * 2, "cbc", n) for n in crypto.NAMES]
AS_IT_IS, SIGNED, SEALED, FIELDS = range(4)  # what a first byte asks to be done with the bytes after it


def wire(how, data, keys):
    """Returns the datagram of bytes: as they are, signed by whoever has the HMAC key, or sealed by whoever has both."""
    if how == AS_IT_IS:
        return data
    if how == FIELDS:
        data += b":" + spa.to_base64(crypto.digest("sha256", data))
    if how != SIGNED:
        mode, key, iv = keys.derived(SALT)
        pad = 16 - len(data) % 16
        data = spa.to_base64(HEADER + SALT + crypto.encrypt(mode, key, iv, data + bytes([pad]) * pad))[len(PREFIX) :]
    return data + (keys.mac(PREFIX + data) if keys.hmac_key else b"")


def chosen(data, keys):
    """Returns (the keys that the first byte names, the datagram that it makes of the others)."""
    kind = data[0] if data else 0
    one = keys[kind // 4 % len(keys)]
    return one, wire(kind % 4, data[1:], one)


def opened(data, keys, ipv6):
    """Returns a Packet, or the stage that refused it."""
    try:
        return unseal(data, keys, ipv6)
    except Rejected as error:
        assert error.stage in STAGES and "\n" not in error.reason and "s3cret" not in str(error)
        return error.stage


def unsealed(data):
    keys, datagram = chosen(data, KEYS)
    packet = opened(datagram, keys, True)
    if isinstance(packet, str):
        assert opened(datagram, keys, False) in (packet, "message")  # where fwknop would have stopped
        return
    four = opened(datagram, keys, False)
    assert four == "message" or vars(four) == vars(packet)
    place = len(datagram) // 2
    other = datagram[:place] + (b"A" if datagram[place] != 65 else b"B") + datagram[place + 1 :]
    assert keys.hmac_key is None or opened(other, keys, True) == "hmac"
    try:
        again = spa.parse(spa.compose(packet, packet.digest_type), True)
    except Rejected as error:  # what we never send, but take: section 4 of docs/protocol.md
        assert error.stage in ("nat", "version", "server_auth"), error
        return
    assert {**vars(again), "digest": 0} == {**vars(packet), "digest": 0}


class Seen:
    """A replay store in memory."""

    def __init__(self):
        self.digests = set()

    def known(self, digest):
        return digest in self.digests

    def add(self, digest, datagram, stamp, now):
        assert 0 <= stamp <= spa.LAST_TIMESTAMP
        self.digests.add(digest)


def stanza(*entries):
    """Returns the Stanza of (name, text) entries."""
    made = Stanza([(name, text, "f:1") for name, text in entries], "f:1")
    made.complete(config.keys_from, config.local)
    made.name = made.name or entries[0][1]
    return made


TEXT = SECRET.decode()
GATE = Gate(
    [
        stanza(("SOURCE", "192.0.2.0/24"), ("KEY", TEXT), ("HMAC_KEY", TEXT + "1"), ("FORCE_NAT", "10.0.0.5 22")),
        stanza(("SOURCE", "ANY"), ("KEY", TEXT), ("HMAC_KEY", TEXT + "2"), ("OPEN_PORTS", "tcp/22,udp/53")),
        stanza(("SOURCE", "ANY"), ("KEY", TEXT[:16]), ("ENCRYPTION_MODE", "legacy"), ("REQUIRE_USERNAME", "alice")),
        stanza(("SOURCE", "ANY"), ("KEY", TEXT[:9]), ("HMAC_KEY", TEXT + "3"), ("ENABLE_CMD_EXEC", "Y")),
        stanza(
            ("SOURCE", "::/8,192.0.2.0/25"), ("KEY", TEXT), ("HMAC_KEY", TEXT + "4"), ("REQUIRE_SOURCE_ADDRESS", "Y")
        ),
    ],
    Settings(
        [("ENABLE_SPA_OVER_HTTP", "Y", "f"), ("ENABLE_X_FORWARDED_FOR", "Y", "f"), ("ENABLE_IPT_FORWARDING", "Y", "f")]
    ),
)
GATE_KEYS = [Keys(SECRET, SECRET + more) for more in (b"1", b"2", b"4")]
GATE_KEYS += [Keys(SECRET[:9], SECRET + b"3"), Keys(SECRET[:16], None, "legacy")]


def judged(data):
    """As it is heard: from a source of either family, and once more, when it must be a replay."""
    source = (SOURCE, bytes(15) + b"\7")[len(data) % 2]
    datagram = Datagram(chosen(data, GATE_KEYS)[1], source, 40000, HOST, 62201, 17)
    seen = Seen()
    decision = GATE.judge(datagram, NOW, seen)
    assert decision.stage in STAGES or (decision.stage is None and (decision.grant or decision.command))
    if decision.stage is None:
        assert seen.digests and GATE.judge(datagram, NOW, seen).stage == "replay"
    if decision.grant is not None:
        grant = decision.grant
        assert net.packed(grant.source) and NOW < grant.until <= NOW + 65536 and grant.openings
        assert net.openings(",".join(["%s/%d" % one for one in grant.openings])) == grant.openings


def http(data):
    settings = SimpleNamespace(any_agent=len(data) % 2, forwarded_for=True, proxies=web.PROXIES)
    if web.is_request(data):
        try:
            knock, client = web.decode(data, PROXY, settings)
        except Rejected as error:
            assert error.stage == "http"
            return
        assert len(knock) >= web.SHORTEST and (client is None or len(client) in (4, 16))
        assert web.decode(data, SOURCE, settings) == (knock, None), "believed a stranger"


def slots(data):
    """The table of hints holds what packets may carry now, whatever the clock does from call to call."""
    owners = [(crypto.mac("sha256", bytes([number + 1])), number) for number in range(1 + len(data) % 3)]
    made, now = hints.Hints(owners), NOW
    for byte in data[:40]:
        now = max(now + (byte - 100) * (7 if byte % 2 else 1), 0)
        made.advance(now)
        for number, (mac, _) in enumerate(owners):
            for near in range(-hints.REACH, hints.REACH + 1):
                slot = now // hints.SLOT + near
                word = spa.to_base64(mac(hints._text(max(slot, 0)))[:3])
                assert slot < 0 or number in made.table[word]
    assert len(made.table) <= len(owners) * (len(data[:40]) + 1) * (2 * hints.REACH + 2)


# ---- captures --------------------------------------------------------------------------------------------------------


def frame(data):
    one, any_one = ip.parse(data), ip.parse_any(data)
    assert len(ip.source_of(data)) <= 16
    assert one is None or one == any_one
    if any_one is not None:
        assert any_one.payload in data and len(any_one.source) == len(any_one.destination) in (4, 16)
        assert max(any_one.sport, any_one.dport) < 65536


def queued(data):
    """NFQUEUE: a message with any packet in it; and any message, which only the kernel can send."""
    head = b"\0\0\0\1" + netlink.attr(1, struct.pack(">IHB", 7, 0x800, 1))
    for _, _, _, told in netlink.messages(netlink.netfilter(3, 0, 0, 0, head[4:] + netlink.attr(10, data))):
        number, hook, packet = nfqueue.packet_of(told)
        assert (number, hook, packet) == (7, 1, data)
        frame(packet)
    for _, _, _, told in netlink.messages(data) + [(0, 0, 0, data)]:
        try:
            frame(nfqueue.packet_of(told)[2])
        except struct.error:
            pass


def saved(data):
    """A pcap or pcapng file, whose damage is told as a ValueError."""
    found = pcap.records(io.BytesIO(data[4:]), data[:4])
    try:
        for link, packet in found or ():
            assert len(packet) <= pcap.LONGEST
            frame(pcap.packet_of(link, packet))
    except ValueError as error:
        assert "damaged" in str(error)


def filtered(data):
    """The kernel's filter never drops what could be a knock, nor keeps what cannot be one."""
    kept, datagram = bpf.run(FILTER, data), ip.parse(data)
    could = datagram is not None and datagram.dport == 62201 and 140 <= len(datagram.payload) <= 1500
    assert kept or not (could and compat.only_in(datagram.payload[:4], spa.BASE64))
    assert could or not kept or datagram is None or datagram.dport == 62201


FILTER = filters.knock(62201)


# ---- state on disk ---------------------------------------------------------------------------------------------------


def cache(data):
    path = put("digest.cache", data)
    store = replay.Replay(path)
    store.load()
    known = dict(store._seen)
    other = replay.Replay(path)
    other.load()
    assert other._seen == known and other.floor == store.floor, "written anew it says something else"
    gram = Datagram(b"x", SOURCE, 1, HOST, 2, 17)
    try:
        store.add(crypto.digest("sha256", data), gram, compat.wall(), compat.wall())
    except Rejected as error:
        assert error.stage in ("clock", "replay", "full")
    assert store.known(crypto.digest("sha256", data))


def journalled(data):
    """A journal as it is, and one whose lines all have the right sum."""
    for given in (data, b"".join([journal._summed(line.partition(b" #")[0]) for line in data.split(b"\n")])):
        journal_of(given)


def journal_of(data):
    path = put("grants.journal", data)
    book = journal.Journal(path)
    live = book.load()
    ledger_of = grants.Grants()
    for grant, names in live:
        assert net.packed(grant.source) and all(0 <= port < 65536 for _, port in grant.openings)
        assert isinstance(grants.seconds_left(grant, NOW), int) and isinstance(names, tuple)
        ledger_of.add(grant)
    book.rewrite(live)
    again, numbers = journal.Journal(path), {grant.id for grant, _ in live}
    assert again.load() == live, "written anew it says something else"
    assert again.begun == {number: held for number, held in book.begun.items() if number in numbers}


def torn(data):
    """A file of lines, cut anywhere: what is appended then stands on a line of its own."""
    path = put("lines", data)
    kept = Lines(path)
    before = [line for line in kept.read() if line.endswith(b"\n")]
    kept.append(b"new line\n")
    after = [line for line in Lines(path).read()]
    assert after[-1] == b"new line\n" and after[: len(before)] == before


# ---- configuration ---------------------------------------------------------------------------------------------------


def taken(read, *what):
    """Calls a reader, which may refuse in its own words of one line."""
    try:
        return read(*what)
    except (ConfigError, Refused) as error:
        assert str(error) and "\n" not in getattr(error, "reason", "")
    return None


def access(data):
    path = put("access.conf", data)
    said = []
    strict = taken(config.load, path)
    lenient = taken(config.fwknop, [], path, path, said.append)
    assert strict is None or lenient is not None, "the strict reader takes what the lenient one refuses"
    assert all("\n" not in text for text in said)


def conf(data):
    path = put("fwknopd.conf", data)
    said = []
    for warn in (None, said.append):
        found = taken(fwknopd.entries, path, warn)
        if found is not None:
            taken(config.fwknop_settings, found, path, warn)


def rc(data):
    path = put("rc", data)
    rows = taken(rcfile.read, path) or []
    for name, found in rows:
        taken(rcfile.checked, found, path)
        rcfile.find(rows, name)
    name = "office"
    taken(rcfile.store, path, name, [("SPA_SERVER", "192.0.2.1")], lambda variable: True)
    again = rcfile.find(taken(rcfile.read, path) or [], name)
    assert again and ("SPA_SERVER", "192.0.2.1") in [(row.name, row.value) for row in again], "stored, and not there"
    assert [name for name, _ in rows] == [one for one, _ in rcfile.read(path)][: len(rows)]


def whole(path):
    """Reads a configuration, and makes its captures, carriers and ports; tells whether all of that was taken."""
    found = taken(config.load, path)
    if found is None:
        return False
    settings, carriers = found[0], {}
    made = [taken(capture.make, table, None) for table in settings.captures]
    for name, table in settings.carriers.items():
        carriers[name] = taken(ports.carrier, name, table)
    known = {name: one for name, one in carriers.items() if one}
    made += [taken(ports.make, name, table, known) for name, table in settings.ports.items()]
    return None not in made + list(carriers.values())


def native(data):
    whole(put("tinyknop.toml", data))


def compiled(data):
    whole(put("tinyknop.json", data))


def ready(data):
    """What `compile` made, changed since: its sum must not hold."""
    made = put("made.json", b"")
    if not READY:
        path = put("whole.toml", TOML)
        from tinyknop.ready import dump

        READY.append(dump(*config.load(path)).encode())
    place = int.from_bytes(data[:2], "big") % len(READY[0])
    changed = READY[0][:place] + data[2:] + READY[0][place + len(data[2:]) :]
    found = taken(config.load, put("made.json", changed))
    assert found is None or changed.rstrip() == READY[0].rstrip(), made


READY = []
TOML = b"""[[capture]]
kind = "udp"
[port.firewall]
kind = "ipset"
[[stanza]]
name = "alice"
source = ["ANY"]
key = "k"
hmac_key = "h"
openings = ["tcp/22"]
ports = ["firewall"]
"""


def filters_text(data):
    """A filter in tcpdump's language, from a configuration."""
    taken(filter_of, {"filter": data.decode("latin-1")})


def listed_rules(data):
    """Snort's rules, as read and as translated for both families."""
    made = rules.Ruleset(SimpleNamespace(sid=(), variables={}, max_rules=0, nflog=None, reject=True, first_packets=0))
    made.read("f", data.decode("latin-1"))
    for six in (False, True):
        made.translate(six)
        for line in made.chains(six):
            assert all(" " <= c <= "~" for c in line), line


# ---- what devices and programs answer --------------------------------------------------------------------------------

PROFILES = (cisco_ios.PROFILE, openwrt.PROFILE, routeros.PROFILE, junos.PROFILE)


def dialogue(data):
    """A device's command line: what it says is cut at each 0xFE, and the pause is the byte behind that."""
    console = Console(PROFILES[(data or b"\0")[0] % len(PROFILES)], "knock", "s3cret", "en4ble")
    now, typed = 0, b""
    console.start(now)
    console.command("show clock", now, 5000, "end\n")
    for part in data[1:].split(b"\xfe"):
        now += 20 * part[0] if part else 0
        console.feed(part[1:], now)
        typed += console.take()
    for _ in range(400):
        if console.done:
            break
        now = max(now, console.deadline)
        console.tick(now)
        typed += console.take()
    assert console.done and len(typed) < 65536
    try:
        console.outcome()
    except ConsoleError as error:
        assert "s3cret" not in str(error) and "en4ble" not in str(error)


# A message of the kernel's that is cut or changed: a worker takes these for a failure of its device.
ODD = (ValueError, KeyError, IndexError, TypeError, struct.error, PortError)


def kernel(data):
    """Answers of the kernel: lists of ipset and nftables, links, sockets; both byte orders."""
    for order in "<>":
        for kind, _, _, body in netlink.messages(data, order):
            netlink.error_of(body, order)
            for read in (netlink.ipset_listed, netlink.link_of):
                try:
                    read(body, order)
                except ODD:
                    pass
            for words in (["list", "chains"], ["list", "chain", "inet", "f", "c"], ["list", "set", "inet", "f", "s"]):
                try:
                    assert nft.printed(words, [(0, body), (1, body)], order).isprintable is not None
                except ODD:
                    pass
            assert kind < 65536 and (len(body) < 28 or conntrack.far_end(body) is not None)
    try:
        assert all(isinstance(part, str) for part in sets.printed("s", [data]))
    except ODD:
        pass


def printed(data):
    """Lists as tools print them, here or on a router: ipset, iptables, pf."""
    text = data.decode("latin-1")
    try:
        ipset.members(text)
    except ODD:
        pass
    for line in text.split("\n"):
        found = iptables.recognised(line)
        assert found is None or ledger.expiry(line) == found[1]
        stamped.key(line)
        for shape in SHAPES:
            found = router.matched(shape, line)
            assert found is None or all(found.values())


SHAPES = ("permit $PROTO host $ADDR any eq $PORT", "set $LIST $ADDR/32;", "$ADDR", "host $ADDR $ADDR")


def by_gpg(data):
    """gpg's status lines, then the lists of a stanza."""
    lines = [line.split(" ") for line in data.decode("ascii", "replace").split("\n")]
    found = gpg._signature([line for line in lines if len(line) > 1])  # it says no judgement without a key's number
    for ignore in (False, True):
        wants = SimpleNamespace(
            require_sig=True, ignore_sig=ignore, fingerprints=["AB" * 20], remote_ids=["0xABABABAB"]
        )
        try:
            gpg.allowed(found, wants)
            assert found is not None and "AB" * 20 in (found.fingerprint, found.primary)
        except Rejected as error:
            assert error.stage == "signature"


def by_web(data):
    """What a web page says our address is."""
    found = addresses.leading(data.decode("latin-1"))
    assert found is None or net.printed(net.packed(found)) == found


def control(data):
    """Words at the daemon's own socket."""
    try:
        words = _words(json.loads(data or b"[]"))
    except (ValueError, RuntimeError):
        return
    assert isinstance(words, list)


# ---- the log watch ---------------------------------------------------------------------------------------------------


def watched(data):
    for line in data.split(b"\n"):
        event = parse.parse(line)
        if event is not None:
            assert len(event.source) in (4, 16) and all(" " <= c <= "~" for c in event.prefix + event.interface)
            scorer = score.Scorer()
            found = scorer.score(event, 0)
            assert found is None or 0 <= found.level <= 5


def group(data):
    """NFLOG: a message with any packet, and any message; what it makes is a line that can be read."""
    message = netlink.netfilter(4, 0, 0, 0, netlink.attr(9, data))
    for line in list(nflog.lines(message)) + list(nflog.lines(data)):
        assert b"\n" not in line
        parse.parse(line)


def psads(data):
    path = put("psad", data)
    for read in (files.signature, files.auto_dl, files.rule_dl):
        files.readable(path, read)
    files.icmp_types(path)
    score.Limits(files.conf(path))


TARGETS = {
    "unseal": unsealed, "gate": judged, "http": http, "hints": slots, "ip": frame, "nfqueue": queued, "pcap": saved,
    "bpf": filtered, "replay": cache, "journal": journalled, "lines": torn, "access": access, "fwknopd": conf,
    "rc": rc, "toml": native, "json": compiled, "ready": ready, "filter": filters_text, "rules": listed_rules,
    "console": dialogue, "kernel": kernel, "printed": printed, "gpg": by_gpg, "address": by_web, "control": control,
    "watch": watched, "nflog": group, "psad": psads,
}  # fmt: skip
