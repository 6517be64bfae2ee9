"""What scripts look for in fwknopd's log (docs/fwknopd.md section 10.4): the daemon's events in its words."""

from __future__ import annotations

import time

from tinyknop import crypto, log, net, spa
from tinyknop.gate import within
from tinyknop.rules import TESTING
from tinyknop.says import BURST as BURST
from tinyknop.says import Says, openings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from tinyknop.gate import Datagram, Decision
    from tinyknop.grants import Grant
    from tinyknop.rules import Command
    from tinyknop.says import Limiter
    from tinyknop.settings import Settings
    from tinyknop.spa import Packet
    from tinyknop.stanza import Stanza
    from tinyknop.worker import Worker

DECODE = "Error creating fko context: Decryption failed or decrypted data is invalid"
FORMAT = "preprocess_spa_data() returned error %d for incoming packet."
SAID = {  # stage -> level, text after the stanza
    "decrypt": ("warning", DECODE),
    "openings": ("warning", "One or more requested protocol/ports was denied per access.conf."),
    "address": ("warning", "Got 0.0.0.0 when valid source IP was required."),
    "full": ("warning", "Could not add digest to replay cache"),
}
OWN = ("replay", "clock", "key")  # stages before a packet is decoded for which fwknopd has no words
COMMANDS_OFF = "SPA Command messages are not allowed in the current configuration."


class Phrases(Says):
    """fwknopd's words. `take` is called with the settings and stanzas in force, whenever those change."""

    replay: Any

    def __init__(self) -> None:
        super().__init__()
        self.chains: dict[str, str] = {}
        self.stanzas: list[Stanza] = []
        self.rules: dict[
            str, list[tuple[str, str]]
        ] = {}  # chain -> [(source, what), ...] in the order in which they stand there
        self.expired: set[int] = set()  # numbers of stanzas whose end was said

    def take(self, settings: Settings, stanzas: list[Stanza]) -> None:
        """Goes by this configuration from now on."""
        self.settings, self.stanzas = settings, stanzas
        names = ("chain", "output_chain", "forward_chain", "dnat_chain", "snat_chain", "masquerade_chain")
        self.chains = {name: getattr(settings, name).split(",")[4].strip() for name in names}
        if settings.kind not in ("iptables", "firewalld"):  # no chains there
            self.chains = {name: settings.kind for name in names}

    def read(self, packet: Packet) -> None:
        """Shows a packet's fields to somebody who looks for a fault; fwknopd's block, without the data it came in."""
        if log.threshold > 0:
            return
        from tinyknop.host.execute import shown

        rows = (
            ("Random Value", packet.rand),
            ("Username", packet.username),
            ("Timestamp", packet.timestamp),
            ("FKO Version", packet.version),
            ("Message Type", packet.message_type),
            ("Message String", packet.message),
            ("Nat Access", packet.nat_access or "<NULL>"),
            ("Server Auth", packet.server_auth or "<NULL>"),
            ("Client Timeout", packet.client_timeout),
            ("Digest Type", packet.digest_type),
        )
        log.debug(
            "SPA Field Values:\n=================\n%s", "\n".join("%15s: %s" % (n, shown(str(v))) for n, v in rows)
        )

    def refused(self, decision: Decision, datagram: Datagram) -> None:
        """Says why a packet was refused."""
        stage, stanza = decision.stage, decision.stanza
        limiter = self.limiter(decision)
        if limiter.spent():
            return
        source = net.printed(datagram.source)
        if stage in ("size", "prefix", "charset", "http"):
            if log.threshold <= 0:
                limiter.say(log.debug, FORMAT % (4096 if stage == "prefix" else 4098))
        elif stage == "source":
            limiter.say(log.warning, "No access data found for source IP: %s" % source)
        elif stage == "replay" and stanza is None:
            self._candidate(source, None)
            limiter.say(log.warning, self._replayed(datagram, source))
        elif stanza is None:
            self._searched(decision, datagram, source, limiter)
        else:
            self._candidate(source, stanza)
            level, text = self._reason(decision, source)
            limiter.say(getattr(log, level), "[%s] (stanza #%d) %s" % (source, stanza.number, text))

    def opened(self, grant: Grant, stanza: Stanza, datagram: Datagram) -> None:
        """Says that a stanza took a packet; what it opens is said once the firewall did it."""
        self._candidate(net.printed(datagram.source), stanza)

    def commanded(self, command: Command, stanza: Stanza, datagram: Datagram) -> None:
        """Says that a stanza took a command message; what is run is said where it is run."""
        self._candidate(net.printed(datagram.source), stanza)

    def closing(self, grant: Grant) -> None:
        """Says nothing: the rule's end is said once the firewall did it."""

    def added(self, worker: Worker, grant: Grant) -> None:
        """Says which rules were added."""
        if getattr(worker.port, "blind", False):
            return
        for kind, chain, what in self._rules(grant):
            standing = self.rules.setdefault(chain, [])
            if (grant.source, what) in standing:
                standing.remove((grant.source, what))
            standing.insert(0 if self.settings.prepend else len(standing), (grant.source, what))
            text = "Added %s rule to %s for %s -> %s %s, expires at %d"
            log.info(text, kind, chain, grant.source, self._to(grant), what, grant.until)

    def removed(self, worker: Worker, grant: Grant) -> None:
        """Says which rules were removed."""
        if getattr(worker.port, "blind", False):
            return
        for _, chain, what in self._rules(grant):
            standing = self.rules.get(chain, [])
            if (grant.source, what) in standing:
                number = standing.index((grant.source, what)) + 1
                standing.pop(number - 1)
                log.info("Removed rule %d from %s with expire time of %d", number, chain, grant.until)

    def _rules(self, grant: Grant) -> Iterator[tuple[str, str, str]]:
        """Yields (kind, chain, ports) of the rules that a grant has (docs/fwknopd.md section 5.3)."""
        nat, chains = grant.nat, self.chains
        ports = openings(grant)
        if nat is None:
            for opening in ports.split(","):
                yield "access", chains["chain"], opening
                if self.settings.output:
                    yield "OUTPUT", chains["output_chain"], opening
            return
        every = " ALL" if nat.every else ""
        shown = "*/*" if nat.every else ports
        if nat.local:
            yield "local NAT", chains["chain"], ports
        else:
            yield "FORWARD" + every, chains["forward_chain"], shown
        if nat.dnat:
            yield "DNAT" + every, chains["dnat_chain"], shown
        if nat.snat:
            yield "SNAT" + every, chains["masquerade_chain" if nat.snat == "masquerade" else "snat_chain"], shown

    def _to(self, grant: Grant) -> str:
        return grant.destination if self.settings.destination_rule else "0.0.0.0/0"

    def _candidate(self, source: str, stanza: Stanza | None) -> None:
        number = stanza.number if stanza is not None else 1
        log.info("(stanza #%d) SPA Packet from IP: %s received with access source match", number, source)

    def _searched(self, decision: Decision, datagram: Datagram, source: str, limiter: Limiter) -> None:
        """Says what became of a packet that no stanza could read."""
        for stanza in self.stanzas:
            if decision.stage == "destination" or not within(stanza.source, datagram.source):
                log.debug("(stanza #%d) filtered by SOURCE and/or DESTINATION criteria", stanza.number)
            elif stanza.expires is not None and time.time() >= stanza.expires:  # its keys were not even tried
                if stanza.number not in self.expired:
                    self.expired.add(stanza.number)
                    log.info("[%s] (stanza #%d) Access stanza has expired", source, stanza.number)
            elif decision.stage in ("hmac", "length") and not limiter.spent():
                self._candidate(source, stanza)
                text = "[%s] (stanza #%d) %s" % (source, stanza.number, _unread(decision, datagram))
                limiter.say(log.warning, text)
        # Counted even where it is not shown: each is a walk over all stanzas.
        limiter.say(log.debug, "[%s] refused at %s: %s" % (source, decision.stage, decision.reason))

    def _reason(self, decision: Decision, source: str) -> tuple[str, str]:
        """Returns (level, text) for a packet that a stanza could read and refused."""
        stage, packet, stanza = decision.stage, decision.packet, decision.stanza
        if stage == "age":
            apart = abs(int(time.time()) - packet.timestamp)
            return "warning", "SPA data time difference is too great (%d seconds)." % apart
        if stage == "user":
            text = "Username in SPA data (%s) does not match required username: %s"
            return "warning", text % (packet.username, stanza.require_user)
        if stage == "disabled":
            command = packet.message_type == spa.COMMAND
            if decision.reason == TESTING:
                skipped = "command execution" if command else "firewall manipulation"
                return "warning", "--test mode enabled, skipping %s." % skipped
            nat = "SPA packet from %s requested NAT access, but is not enabled/supported" % source
            return "warning", COMMANDS_OFF if command else nat
        if stage == "signature":
            return "warning", "Incoming SPA packet %s." % decision.reason
        if stage == "length":
            return "error", "No stanza encryption mode match for encryption type: 1."
        if packet is None and stage not in SAID and stage not in OWN:
            return SAID["decrypt"]
        return SAID.get(stage, ("warning", decision.reason))

    def _replayed(self, datagram: Datagram, source: str) -> str:
        entry = self.replay.entry(crypto.digest("sha256", datagram.payload)) or ""
        text = "Replay detected from source IP: %s, Destination proto/port: %d/%d"
        text = text % (source, datagram.proto, datagram.dport)
        words = entry.split()
        if len(words) == 6:
            created = time.strftime("%m/%d/%y %H:%M:%S", time.localtime(int(words[5])))
            more = ", Original source IP: %s, Original dst proto/port: %s/%s, Entry created: %s"
            text += more % (words[1], words[0], words[4], created)
        return text


def _unread(decision: Decision, datagram: Datagram) -> str:
    if decision.stage == "hmac":
        # 2.6.11's words, and 2.6.10's behind them.
        older = "Error creating fko context: Args contain invalid data: FKO_ERROR_INVALID_DATA_HMAC_COMPAREFAIL"
        return "Non-corresponding HMAC for this stanza (%s)" % older
    return "No stanza encryption mode match for encryption type: %d." % (1 + (len(datagram.payload) >= 400))
