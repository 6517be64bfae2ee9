"""Ports: what a device is told. A kind of port is a file here, a carrier a file in carriers/; nothing is registered.

A port module has OPTIONS (name -> default text, None where there is none), CARRIER (the kind of carrier it takes
when the configuration names none) and a class Port with start, open, close, sync, stop and describe. OWN names the
options that say what it must have for itself on its device: it takes away there what no grant of its own explains.
"""

from tinyknop.errors import ConfigError

UNKNOWN = '%s: kind = "%s": no such kind (docs/configuration.md has all)'
COMMON = ("kind", "via", "where")  # what every [port.NAME] may have; "where" is put there by the readers


def make(name, options, carriers):
    """Builds the port of a [port.NAME] table; carriers it has to make are left in `carriers`, for others to share."""
    module = _module("tinyknop.ports.", "port." + name, options)
    where = options.get("where", "port." + name)
    if not hasattr(module, "Port"):  # what several ports share is no kind
        raise ConfigError(where, UNKNOWN % ("port." + name, options["kind"]))
    known = module.OPTIONS
    for option in sorted(options):
        if option not in known and option not in COMMON:
            listed = ", ".join(sorted(known)) or "none"
            raise ConfigError(where, "port.%s: %s: no such option of %s (it has: %s)"
                              % (name, option, options["kind"], listed))  # fmt: skip
    given = {"where": where}
    for option in known:
        given[option] = options.get(option, known[option])
    via = options.get("via") or module.CARRIER
    if via not in carriers:
        if options.get("via") not in (None, "", "local", "netlink", "tape"):
            raise ConfigError(where, 'port.%s: via = "%s": there is no [carrier.%s]' % (name, via, via))
        carriers[via] = carrier(via, {"kind": via, "where": where})
    return module.Port(name, given, carriers[via])


def apart(tables):
    """Raises ConfigError where two of these [port.NAME] tables, by name, would hold the same thing of one device."""
    taken: dict = {}
    for name in sorted(tables):
        options = tables[name]
        try:
            module = _module("tinyknop.ports.", "port." + name, options)
        except ConfigError:  # `make` says so, where it is needed
            continue
        via = options.get("via") or "local"
        for option in getattr(module, "OWN", ()):
            value = options.get(option, module.OPTIONS[option])
            other = taken.setdefault(("local" if via == "netlink" else via, option, value), name)
            if value and other != name:
                reason = 'port.%s: %s = "%s" is that of port.%s, too: who knocks at one would be let in by both'
                raise ConfigError(options.get("where", "port." + name), reason % (name, option, value, other))


def carrier(name, options):
    """Builds the carrier of a [carrier.NAME] table, or a plain one of that kind ("local", "netlink", "tape")."""
    if "kind" not in options:
        options = dict(options)
        options["kind"] = name
    return _module("tinyknop.ports.carriers.", "carrier." + name, options).Carrier(name, options)


def _module(package, name, options):
    kind = options.get("kind") or ""
    where = options.get("where", name)
    if not kind:
        raise ConfigError(where, '%s: say which kind it is, as kind = "iptables"' % name)
    path = package + kind.replace("-", "_")
    plain = all("a" <= c <= "z" or "0" <= c <= "9" or c == "-" for c in kind)
    if not plain or kind == "carriers":
        raise ConfigError(where, UNKNOWN % (name, kind))
    try:
        return __import__(path, None, None, ("OPTIONS",))
    except ImportError as error:
        if path not in str(error):  # the kind is there, something it needs is not
            raise ConfigError(where, '%s: kind = "%s" cannot be used here: %s' % (name, kind, error))
    raise ConfigError(where, UNKNOWN % (name, kind))
