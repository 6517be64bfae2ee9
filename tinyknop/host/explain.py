"""`tinyknop explain`: a packet against a configuration, offline: which stanza, which check fails, what to change.

Opens nothing, sends nothing and stores nothing. Where the configuration has the key it shows the packet's fields; a key
it never shows. Without a packet it asks the running daemon for the sources, sizes and stages of those refused last.
"""

from __future__ import annotations

import os
import re
import sys
import time

from tinyknop import compat, config, crypto, log, net
from tinyknop.errors import ConfigError, Rejected
from tinyknop.gate import SHORTEST, STAGES, Datagram, Decision, Gate, within
from tinyknop.host import status
from tinyknop.host.fwshow import TYPES
from tinyknop.host.stages import ABOUT
from tinyknop.replay import Replay
from tinyknop.seal import MODES, Keys, check, unseal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, Union

    from tinyknop.settings import Settings
    from tinyknop.spa import Packet
    from tinyknop.stanza import Gpg, Stanza

    Memory = Union[Replay, "Forgetful"]

LONGEST = 1 << 26  # bytes of a capture file
MOST = 100  # packets of a file that are explained, and stanzas that are listed
HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}[\s:]*)+")
NOWHERE = bytes(4)
PORT = 62201


class Seen(Replay):
    """The daemon's memory of packets, read and never written."""

    def add(self, digest: bytes, datagram: Datagram, stamp: int, now: int) -> None:
        """Raises Rejected where the daemon would have to refuse."""
        if self.enabled and now < self.clock - self.max_age:
            raise Rejected("clock", "the clock is %d s behind what it was" % (self.clock - now))
        if self.enabled and stamp <= max(self.floor, self._booted):
            raise Rejected("replay", "stamped before the last restart of this machine, or long ago")


class Forgetful:
    """A memory that knows no packet."""

    def known(self, digest: bytes) -> bool:
        """Tells that it was not here."""
        return False

    def add(self, digest: bytes, datagram: Datagram, stamp: int, now: int) -> None:
        """Stores nothing."""


def memory(settings: Settings) -> tuple[Memory, str | None]:
    """Returns (what remembers the packets of this server, None or why nobody does)."""
    store = Seen(settings.digest_file, settings.ageing, settings.max_age, settings.replay)
    try:
        if settings.replay and os.path.exists(settings.digest_file):
            store.read()
            return store, None
    except OSError as error:
        return Forgetful(), "%s: %s: whether it is a replay is not looked at" % (settings.digest_file, error.strerror)
    return Forgetful(), "%s: not there: whether it is a replay is not looked at" % settings.digest_file


def payload_of(data: bytes) -> bytes:
    """Returns the bytes of a packet that somebody wrote as hexadecimal, or as it is."""
    text = data.strip()
    if len(text) >= 2 * SHORTEST and HEX.fullmatch(text):
        return bytes.fromhex(re.sub(rb"[\s:]", b"", text).decode())
    return data if data.startswith(b"GET ") else text  # the blank line at the end of a request is part of it


def captured(path: str, data: bytes, ports: set[int]) -> list[Datagram] | None:
    """Returns the datagrams to some ports in a capture file, None where it is another kind of file."""
    import io

    from tinyknop.capture import ip, pcap

    file = io.BytesIO(data)
    found = pcap.records(file, file.read(4))
    if found is None:
        return None
    datagrams = []
    try:
        for link, frame in found:
            datagram = ip.parse_any(pcap.packet_of(link, frame))
            if datagram is not None and datagram.payload and (datagram.proto != 17 or datagram.dport in ports):
                datagrams.append(datagram)
    except ValueError as error:
        raise ConfigError(path, str(error)) from None
    if not datagrams:
        raise ConfigError(path, "no packet to port %s in it" % ", ".join(map(str, sorted(ports))))
    return datagrams


def contents(word: str) -> bytes:
    """Returns the bytes of a file, of standard input ("-"), or of the word itself; raises ConfigError."""
    try:
        if word == "-":
            return sys.stdin.buffer.read(LONGEST)
        if os.path.exists(word):
            with open(word, "rb") as file:
                return file.read(LONGEST)
    except OSError as error:
        raise ConfigError(word, "cannot be read: %s" % error.strerror) from None
    if len(word) < SHORTEST:
        raise ConfigError(word, "neither a file nor a packet, which has at least %d characters" % SHORTEST)
    return word.encode()


def judged(stanza: Stanza, settings: Settings, datagram: Datagram, now: int, seen: Memory) -> Decision:
    """Returns the Decision of one stanza, by the very code that decides in the daemon."""
    if datagram.source == NOWHERE and stanza.source:  # nobody said where it came from: from where it may
        source = stanza.source[0][0]
        datagram = Datagram(
            datagram.payload, source, datagram.sport, datagram.destination, datagram.dport, datagram.proto
        )
    if datagram.destination == NOWHERE and stanza.destination:
        to = stanza.destination[0][0]
        datagram = Datagram(datagram.payload, datagram.source, datagram.sport, to, datagram.dport, datagram.proto)
    gate = Gate([stanza], settings)
    gate.advance(now)
    decision: Decision = gate.judge(datagram, now, seen)
    opened: list[tuple[Any, bytes | None, Rejected | None]] = []
    while decision.pending is not None:
        group, message = decision.pending
        try:
            plain, fault = unlocked(settings, message, group.gpg)
        except Rejected as error:
            plain, fault = None, error
        opened.append((group, plain, fault))
        decision = gate.judge(datagram, now, seen, opened)
        if decision.pending is not None and decision.pending.group is group:
            break
    return decision


def unlocked(settings: Settings, message: bytes, gpg: Gpg) -> tuple[bytes, Rejected | None]:
    """Returns (plain text, what is wrong with its signature) of a GPG message; raises Rejected."""
    from tinyknop.host.tools import Tools
    from tinyknop.loop import Loop

    found: tuple[bytes, Rejected | None] = Loop().run_until(Tools(settings).opened(message, gpg))
    return found


def guesses(stanza: Stanza, payload: bytes) -> Iterator[str]:
    """Yields what would have let the packet through: other HMACs, keys in each other's place, other modes."""
    keys = stanza.keys
    if keys is None or not keys.key:
        return
    for name in crypto.NAMES if keys.hmac_key else ():
        if _holds(payload, Keys(keys.key, keys.hmac_key, keys.mode, name), check):
            yield 'its HMAC is %s: set hmac_digest_type = "%s" in the stanza, or the client\'s HMAC to %s' % (
                (name, name, keys.hmac)
            )
        if len(keys.hmac_key) <= 32 and _holds(payload, Keys(keys.hmac_key, keys.key, keys.mode, name), check):
            yield "the client uses the stanza's key as HMAC key: exchange the two on one side"
    if keys.hmac_key and _holds(payload, Keys(keys.key, None, keys.mode), unseal):
        yield "it was sent without an HMAC: give the client the HMAC key"
    for mode in MODES:
        if mode != keys.mode and _holds(payload, Keys(keys.key, keys.hmac_key, mode, keys.hmac), unseal):
            yield 'its encryption mode is %s: set encryption_mode = "%s" in the stanza, or the client\'s to %s' % (
                (mode, mode, keys.mode)
            )


def _holds(payload: bytes, keys: Keys, test: Callable[[bytes, Keys], object]) -> bool:
    try:
        test(payload, keys)
    except Rejected:
        return False
    return True


def when(second: int) -> str:
    """Returns a wall-clock second in UTC, or its number where no calendar goes that far."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(second))
    except (OverflowError, OSError, ValueError):
        return "second %d" % second


def fields(packet: Packet, now: int) -> list[str]:
    """Returns the lines that show a packet's fields; what the sender proves itself to others with stays hidden."""
    stamp = "%d (%s, %d s %s now)" % (
        (packet.timestamp, when(packet.timestamp), abs(now - packet.timestamp))
        + ("before" if packet.timestamp <= now else "after",)
    )
    rows = (
        ("user name", packet.username),
        ("time", stamp),
        ("kind", "%d, %s" % (packet.message_type, TYPES[packet.message_type])),
        ("message", packet.message),
        ("NAT", packet.nat_access),
        ("server auth", packet.server_auth and "given, not shown"),
        ("timeout", packet.client_timeout or None),
        ("digest", packet.digest_type),
        ("version", packet.version),
    )
    shown = [(name, "".join(c if c.isprintable() else "?" for c in str(value))) for name, value in rows if value]
    return status.table([[name + ":", text] for name, text in shown])


def outcome(stanza: Stanza, decision: Decision) -> str:
    """Returns what a stanza that takes a packet does."""
    if decision.command is not None:
        return "runs the command that it holds"
    grant = decision.grant
    opens = ",".join("%s/%d" % opening for opening in grant.openings)
    left = "opens %s for %s, %d s, through %s"
    return left % (opens, grant.source, grant.until - grant.opened, ", ".join(stanza.ports))


def verdict(
    stanza: Stanza, settings: Settings, datagram: Datagram, now: int, seen: Memory
) -> tuple[Decision, list[str]]:
    """Returns (decision, lines) of one stanza; what a second time or a late one hides is looked at as well."""
    decision = judged(stanza, settings, datagram, now, seen)
    name = "stanza %s (%s)" % (stanza.name, stanza.where)
    if decision.stage is None:
        return decision, ["%s: takes it: %s" % (name, outcome(stanza, decision))]
    lines = ["%s: refused at %s: %s" % (name, decision.stage, decision.reason)]
    if decision.stage in ("hmac", "decrypt", "fields", "length"):
        lines += ["  " + guess for guess in guesses(stanza, datagram.payload)]
    again = decision
    if again.stage == "replay":
        again = judged(stanza, settings, datagram, now, Forgetful())
    if again.stage == "age":
        stamp = again.packet.timestamp
        lines.append("  its time is %s, this clock's %s" % (when(stamp), when(now)))
        again = judged(stanza, settings, datagram, stamp, Forgetful())
    if again is not decision:
        text = "takes it: " + outcome(stanza, again) if again.stage is None else "%s: %s" % (again.stage, again.reason)
        lines.append("  the first time, and in time: %s" % text)
        if again.stage is not None:
            lines.append("  " + ABOUT[again.stage][1])
    return Decision(None, None, decision.stage, decision.reason, stanza, again.packet or decision.packet, None), lines


def explained(
    datagram: Datagram, settings: Settings, stanzas: Sequence[Stanza], now: int, seen: Memory
) -> tuple[bool, list[str]]:
    """Returns (whether a stanza takes it, lines) for one datagram."""
    source = "an unknown source" if datagram.source == NOWHERE else net.printed(datagram.source)
    lines = ["packet of %d bytes from %s" % (len(datagram.payload), source)]
    found = []
    for stanza in stanzas:
        decision, said = verdict(stanza, settings, datagram, now, seen)
        rank = len(STAGES) if decision.stage is None else STAGES.index(decision.stage)
        found.append((rank, decision, said))
        if decision.stage is None:
            break
    best = max(found, key=lambda row: row[0])
    packet = best[1].packet
    if packet is not None:
        lines += ["what is in it:"] + fields(packet, now)
    for _, _, said in found[:MOST] if best[1].stage is not None else [best]:
        lines += said
    if best[1].stage is None:
        return True, lines
    meaning, remedy = ABOUT[best[1].stage]
    if len(found) > MOST:
        lines += ["and %d stanzas more; the one that comes nearest:" % (len(found) - MOST)] + best[2]
    return False, lines + ["so it is refused at %s: %s" % (best[1].stage, meaning), remedy]


def candidates(stanzas: Sequence[Stanza], source: str) -> str:
    """Returns the names of the stanzas that packets from an address may be for, as people read them."""
    names = [stanza.name for stanza in stanzas if within(stanza.source, net.packed(source))]
    return ", ".join(names[:3]) + (" and %d more" % (len(names) - 3) if len(names) > 3 else "")


def last(options: Namespace) -> int:
    """Prints what the running daemon has refused last, for whom it may have been, and what each stage means."""
    rows = status.state(status.socket_of(options)).get("refused", ())
    if not rows:
        print("nothing was refused since the daemon was started")
        return 0
    path = options.config or status.CONFIG
    stanzas = config.load(path, status.unsaid)[1] if options.config or os.path.exists(path) else ()
    shown = []
    for second, stage, size, source, stanza in sorted(rows, key=lambda row: row[0]):
        whose = "stanza " + stanza if stanza else "perhaps for " + (candidates(stanzas, source) or "nobody")
        shown.append([when(second), source, "%d bytes" % size, stage, whose if stanza or stanzas else ""])
    print("\n".join(status.table(shown)))
    for stage in STAGES:
        if stage in [row[1] for row in rows]:
            print("%s: %s\n  %s" % (stage, *ABOUT[stage]))
    return 0


def parser() -> ArgumentParser:
    """Returns the parser of our words."""
    made = status.parser("explain", "Says which check of which stanza refuses a packet, and what to change.")
    what = "a capture file, a file with one packet, - for standard input, or the packet as text (base64, hexadecimal);"
    what += " without it: those that the daemon refused last"
    made.add_argument("packet", nargs="?", metavar="PACKET", help=what)
    made.add_argument("-s", "--source", metavar="ADDR", help="where it came from (wherever the stanza wants)")
    made.add_argument("--at", type=int, metavar="SECONDS", help="the server's time, in seconds since 1970 (now)")
    return made


def ports_of(settings: Settings) -> set[int]:
    """Returns the ports at which a configuration listens."""
    return {int(one.get("port") or PORT) for one in settings.captures} or {PORT}


def main(words: list[str]) -> int:
    """Explains each packet; exit status 1 where one is refused."""
    made = parser()
    options = made.parse_args(words)
    if options.packet is None:
        return last(options)
    path = options.config or status.CONFIG
    settings, stanzas = config.load(path, status.unsaid)
    log.sink = lambda level, text: print("note: " + text)  # who signed a GPG packet, say
    data = contents(options.packet)
    datagrams = captured(options.packet, data, ports_of(settings))
    try:
        source = net.packed(options.source) if options.source else NOWHERE
    except ValueError as error:
        raise ConfigError("--source", str(error)) from None
    if datagrams is None:
        datagrams = [Datagram(payload_of(data), source, 0, NOWHERE, PORT, 17)]
    seen, silent = memory(settings)
    if silent:
        print("note: " + silent)
    refused, now = 0, compat.wall() if options.at is None else options.at
    for datagram in datagrams[:MOST]:
        taken, lines = explained(datagram, settings, stanzas, now, seen)
        refused += not taken
        print("\n".join(lines))
    if len(datagrams) > MOST:
        print("and %d packets more, which are not looked at" % (len(datagrams) - MOST))
    return 1 if refused else 0
