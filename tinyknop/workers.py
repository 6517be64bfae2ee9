"""The workers that a configuration asks for, one for each port, with the carriers that they share."""

from . import ports
from .errors import ConfigError
from .worker import Worker


def made(names, settings, stanzas, carriers, owner):
    """Returns a worker for each of these ports; adds to `carriers` (name -> carrier) those that are not there yet.

    Raises ConfigError before any device is touched.
    """
    asked = [name for stanza in stanzas for name in stanza.ports] + list(settings.blocks)
    ports.apart({name: settings.ports[name] for name in asked if name in settings.ports})
    for name, options in settings.carriers.items():
        if name not in carriers:
            carriers[name] = ports.carrier(name, options)
    found = []
    for name in names:
        if name not in settings.ports:
            raise ConfigError("stanza", "there is no port called %s: add [port.%s]" % (name, name))
        port = ports.make(name, settings.ports[name], carriers)
        _leads_inside(port, name, settings, stanzas)
        found.append(_kind(port)(name, port, owner, table(settings, name)))
    return found


def _leads_inside(port, name, settings, stanzas):
    """Raises ConfigError where NAT is on and a stanza's port cannot do it: the grant would open nothing."""
    for stanza in stanzas:
        asked = stanza.force_nat is not None or settings.forwarding or settings.local_nat
        if asked and name in stanza.ports and not getattr(port, "nats", False):
            raise ConfigError(stanza.where, "port %s cannot do NAT: switch NAT off, or use iptables" % name)


def _kind(port):
    """Returns the class of a port's worker."""
    if not getattr(port, "blind", False):
        return Worker
    from .blind import Blind  # 4 KB on a board, where most ports can be read back

    return Blind


def table(settings, name):
    """Returns what a port is configured with, wherever it stands in the file."""
    options = settings.ports[name]
    return bare(options), bare(settings.carriers.get(options.get("via")))


def bare(table):
    """Returns a table, or None, without the place that it was read from."""
    return table and {key: value for key, value in table.items() if key != "where"}
