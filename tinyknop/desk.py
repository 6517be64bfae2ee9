"""What `tinyknop status`, `list`, `open` and `close` get from a running daemon: its answers to a line of words."""

from . import compat, net
from .errors import Rejected
from .grants import Grant
from .keywords import number

_SHORT = 20  # grants in a report that was not asked for all of them
_STANZAS = 100  # in a report, those that knocked last
_LONGEST = 8388608  # seconds; a hundred days


def answer(daemon, words):
    """Returns what a request comes to: the report, or {"done": text}, or {"error": text}."""
    try:
        if not words:
            return report(daemon)
        if words[0] == "status":
            return report(daemon, _SHORT)
        if words[0] == "open":
            return {"done": _open(daemon, *words[1:])}
        if words[0] == "close":
            return {"done": _close(daemon, words[1])}
        return {"error": "%s: no such request" % words[0]}
    except (ValueError, TypeError, IndexError) as error:
        return {"error": str(error)}
    except Rejected as error:
        return {"error": error.reason}


def _open(daemon, source, wanted, seconds, names):
    source, now = net.printed(net.packed(source)), compat.wall()
    names = tuple(names.split(","))
    for name in names:
        if name not in daemon.keeper.workers:
            raise ValueError("no port called %s runs; there are %s" % (name, ", ".join(daemon.keeper.workers)))
    until = now + number(1, _LONGEST)(seconds, None)
    grant = Grant(None, source, net.openings(wanted), now, until, "by hand", None, "0.0.0.0", source)
    grant = daemon.opened(grant, names)
    daemon.says.by_hand(grant)
    return "%d" % grant.id


def _close(daemon, which):
    grants, owed, _ = daemon.keeper.report(compat.wall())
    found = [row["id"] for row in grants + owed if which in (row["source"], "%d" % row["id"])]
    if not found:
        raise ValueError("%s: neither open nor owed" % which)
    for one in found:
        daemon.keeper.closed_by_hand(one)
    return ",".join(["%d" % one for one in found])


def report(daemon, most=None):
    """Returns the state of everything as lists and dicts; of what is open and owed the first `most` to be opened.

    Of refused packets it has (second, stage, bytes, source, stanza or None), of stanzas [name, last knock, knocks].
    """
    now = compat.wall()
    grants, owed, ports = daemon.keeper.report(now, most)
    heard = []
    for one in daemon.captures:
        row = {"device": one.describe(), "received": one.received, "dropped": one.dropped}
        row["failing_since"] = getattr(one, "failing_since", None)
        heard.append(row)
    stanzas = [[one.name] + daemon.knocked.get(one.name, [0, 0]) for one in daemon.stanzas]
    stanzas.sort(key=lambda row: -row[1])
    kept = list(daemon.refused[0]) + list(daemon.refused[1])
    return {
        "started": daemon.started,
        "now": now,
        "counters": daemon.counters,
        "open": len(daemon.keeper.grants.live),
        "stanza_count": len(stanzas),
        "stanzas": stanzas[:_STANZAS],
        "refused": [(when, stage, size, net.printed(source), name) for when, stage, size, source, name in kept],
        "grants": grants,
        "owed": owed,
        "ports": ports,
        "captures": heard,
        "watch": daemon.watch and daemon.watch.report(),
    }
