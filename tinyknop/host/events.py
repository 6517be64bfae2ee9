"""The daemon's log as one line for each event, in logfmt or JSON, to stderr, syslog or the journal.

Who, what, which stanza, until when: in fields of fixed names, so that a program can read them. No field holds a key, a
plain text or a packet. What is not an event of its own (a port that fails, say) is an event "message" with its text.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import syslog
import time

from tinyknop import log, net
from tinyknop.errors import ConfigError
from tinyknop.says import Says, openings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tinyknop.gate import Datagram, Decision
    from tinyknop.grants import Grant
    from tinyknop.rules import Command
    from tinyknop.settings import Settings
    from tinyknop.stanza import Stanza
    from tinyknop.worker import Worker

    Field = tuple[str, Any]  # a name, and a text or number
    Form = Callable[[list[Field]], str]

JOURNAL = "/run/systemd/journal/socket"
LOG = "/dev/log"  # where syslog(3) finds its daemon
NAME = "tinyknop"  # in syslog and the journal, unless SYSLOG_IDENTITY says otherwise
PRIORITIES = {"debug": syslog.LOG_DEBUG, "info": syslog.LOG_INFO, "warning": syslog.LOG_WARNING}
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/,@+-")


class Event(str):
    """A line for `log` that keeps its fields, a list of (name, text or number)."""

    fields: list[Field]

    def __new__(cls, event: str, *fields: Field) -> Event:
        made = super().__new__(cls, event)
        made.fields = [("event", event)] + [(name, value) for name, value in fields if value is not None]
        return made


def fields_of(text: str) -> list[Field]:
    """Returns the fields of a line: its own, or those of a message that is only a text."""
    return getattr(text, "fields", None) or [("event", "message"), ("text", str(text))]


def logfmt(fields: list[Field]) -> str:
    """Returns `name=value name="two words"`; what could break the line is escaped as in JSON."""
    words = []
    for name, value in fields:
        shown = str(value)
        words.append("%s=%s" % (name, shown if shown and PLAIN.issuperset(shown) else json.dumps(shown)))
    return " ".join(words)


def as_json(fields: list[Field]) -> str:
    """Returns one JSON object on one line."""
    return json.dumps(dict(fields))


FORMS: dict[str, Form | None] = {"logfmt": logfmt, "json": as_json, "text": None}


def stamp(second: float) -> str:
    """Returns a wall-clock second as 2026-01-31T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


class Events(Says):
    """The daemon's events, each as an Event."""

    def refused(self, decision: Decision, datagram: Datagram) -> None:
        """A datagram was refused; junk is only summed up."""
        if decision.packet is None and decision.stage not in ("full", "signature"):
            return
        stanza = decision.stanza.name if decision.stanza is not None else None
        source = net.printed(datagram.source)
        fields = (("source", source), ("stanza", stanza), ("stage", decision.stage), ("reason", decision.reason))
        # Not by its "%s": an Event has to arrive as it is.
        self.limiter(decision).say(lambda form, text: log.warning(text), Event("refused", *fields))

    def summed(self, news: list[tuple[str, int]]) -> None:
        """So many datagrams were refused since the last summary, a field for each stage."""
        log.info(Event("summary", ("refused", sum(count for _, count in news)), *news))

    def opened(self, grant: Grant, stanza: Stanza, datagram: Datagram) -> None:
        """A grant is in the journal, and its ports are being told."""
        log.info(Event("opened", *self.said(grant), ("sender", grant.sender), *until(grant)))

    def by_hand(self, grant: Grant) -> None:
        """A person opened something with `tinyknop open`."""
        log.info(Event("opened", *self.said(grant), ("by", "hand"), *until(grant)))

    def commanded(self, command: Command, stanza: Stanza, datagram: Datagram) -> None:
        """A command message is about to be carried out; its text is not for the log."""
        log.info(Event("command", ("source", command.source), ("stanza", stanza.name), ("sender", command.sender)))

    def added(self, worker: Worker, grant: Grant) -> None:
        """A port has confirmed that a grant, or a part of it, is open."""
        log.debug(Event("added", *self.said(grant), ("port", worker.name)))

    def closing(self, grant: Grant) -> None:
        """A grant is at its end."""
        log.info(Event("closing", *self.said(grant)))

    def removed(self, worker: Worker, grant: Grant) -> None:
        """A port has confirmed that a grant is closed."""
        log.debug(Event("removed", *self.said(grant), ("port", worker.name)))

    def said(self, grant: Grant) -> tuple[Field, ...]:
        """Returns what every event of a grant says."""
        inside = "%s:%d" % (grant.nat.host, grant.nat.port) if grant.nat is not None else None
        who = (("id", grant.id), ("source", grant.source), ("stanza", grant.stanza))
        return (*who, ("openings", openings(grant)), ("inside", inside))


def until(grant: Grant) -> tuple[Field, Field]:
    """Returns when a grant ends, and how long it lasts."""
    return ("until", stamp(grant.until)), ("seconds", grant.until - grant.opened)


def to_stderr(form: Form, level: str, text: str) -> None:
    """Writes one line with its time and level; in plain text as `log` does without us."""
    fields = [("time", stamp(time.time())), ("level", level)] + fields_of(text)
    sys.stderr.write(form(fields) + "\n")
    sys.stderr.flush()


def to_syslog(form: Form | None, level: str, text: str) -> None:
    """Gives syslog one line; time and level are its own. It would refuse a NUL, and some daemons break at a "\\n"."""
    line = form(fields_of(text)) if form else "".join(c if c.isprintable() else "?" for c in text)
    syslog.syslog(PRIORITIES.get(level, syslog.LOG_ERR), line)


class Journal:
    """systemd's journal, spoken to in its own protocol, so that `journalctl TINYKNOP_STANZA=alice` finds a field."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __call__(self, form: Form | None, level: str, text: str) -> None:
        """Sends one line and its fields."""
        pairs: list[Field] = [("PRIORITY", PRIORITIES.get(level, syslog.LOG_ERR)), ("SYSLOG_IDENTIFIER", self.name)]
        pairs.append(("MESSAGE", form(fields_of(text)) if form else text))
        if form:
            pairs += [("TINYKNOP_" + name.upper(), value) for name, value in fields_of(text)]
        self.socket.sendto(b"".join(field(name, str(value)) for name, value in pairs), JOURNAL)


def field(name: str, value: str) -> bytes:
    """Returns a field as the journal reads it: a value of several lines goes with its length."""
    data = value.encode("utf-8", "replace")
    if b"\n" not in data:
        return b"%s=%s\n" % (name.encode(), data)
    return b"%s\n%s%s\n" % (name.encode(), len(data).to_bytes(8, "little"), data)


def use(settings: Settings) -> Events | None:
    """Sends the log where and how the settings want it; returns the daemon's Says, or None for its own words.

    Raises ConfigError where there is no journal.
    """
    form = FORMS[settings.log]
    places = getattr(settings, "places", {})  # compiled settings have none
    # "fwknopd" is what SYSLOG_IDENTITY is where nobody has set it.
    unset = settings.syslog_identity == "fwknopd" and "syslog_identity" not in places
    name = NAME if unset else settings.syslog_identity
    write: Callable[[Any, str, str], None] = to_stderr  # which alone does not take None for a form
    if settings.log_to == "syslog":
        syslog.openlog(name, syslog.LOG_PID, getattr(syslog, settings.syslog_facility))
        write = to_syslog
        if not os.path.exists(LOG):
            log.warning("log_to: there is no syslog here (%s): until there is, what is logged is lost", LOG)
    elif settings.log_to == "journald":
        if not os.path.exists(JOURNAL):
            reason = "log_to: there is no journal here (%s): write stderr or syslog" % JOURNAL
            raise ConfigError(places.get("log_to", "log_to"), reason)
        write = Journal(name)
    if form or write is not to_stderr:
        log.sink = lambda level, text: write(form, level, text)
    return Events() if form else None
