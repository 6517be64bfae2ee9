"""Settings: the daemon's own; and Keywords, what a table of keywords is, for them and for stanzas.

Readers hand over entries (name, text, "FILE:LINE"); what a text means is known here and in `stanza.py`, nowhere else. A
parser takes (text, warn): `warn` is None where only what is meant beyond doubt is taken, else what fwknop runs with is
taken and warned of. It raises ValueError with a reason that says what to write.
"""

from . import compat
from .errors import ConfigError

DIGITS = b"0123456789"

STATE_DIR = "/var/lib/tinyknop"
RUN_DIR = "/run/fwknop"  # where fwknopd's files are unless FWKNOP_RUN_DIR says otherwise
FACILITIES = ("LOG_DAEMON",) + tuple(["LOG_LOCAL%d" % i for i in range(8)])
INPUT = "ACCEPT, filter, INPUT, 1, FWKNOP_INPUT, 1"


def text(value, warn):
    """Reads a text, which must not be empty."""
    if not value:
        raise ValueError("has no value")
    return value


def yes(value, warn):
    """Reads a yes or no; fwknop looks at the first letter only, and takes all but a y for no."""
    if value.lower() not in ("y", "n", "yes", "no"):
        if warn is None:
            raise ValueError("%r is neither Y nor N" % value)
        warn("%r is taken for %s: write Y or N" % (value, "Y" if value[:1] in ("y", "Y") else "N"))
    return value[:1] in ("y", "Y")


def number(low, top):
    """Returns a parser of whole numbers; fwknop reads leading digits and forgets the rest."""

    def parse(value, warn):
        digits = value
        if not value or not compat.only_in(value.encode(), DIGITS):
            digits = value[: leading(value)]
            if warn is None or value[:1] == "-":
                raise ValueError("%r is not a whole number from %d to %d" % (value, low, top))
            warn("%r is taken for %s: write the number alone" % (value, digits or "0"))
        if len(digits) > 18 or not low <= int(digits or "0") <= top:
            raise ValueError("value '%s' not in the range %d-%d" % (value, low, top))
        return int(digits or "0")

    return parse


def leading(value):
    """Returns how many digits a text begins with."""
    count = 0
    while count < len(value) and "0" <= value[count] <= "9":
        count += 1
    return count


def one_of(names):
    """Returns a parser of one of some names, in capitals or not."""

    def parse(value, warn):
        if value.lower() not in names:
            raise ValueError("%r is not one of %s" % (value, ", ".join(names)))
        return value.lower()

    return parse


class Keywords:
    """A table of rows (fwknop's name, our name, attribute, parser, default), and what is known beside it.

    `later` are rows (name, parser, default) of features that are not built yet: only their default is taken.
    `idle` are rows (name, parser) that steer something which we do not have, such as the sleep of a polling loop.
    """

    def __init__(self, rows, later, idle, kind):
        self.table = rows
        self.kind = kind  # what fwknop calls one of them: "access" or "configuration"
        self.rows = {}
        for row in rows:
            for name in row[:2]:
                if name:
                    self.rows[name] = row
        self.later = {row[0]: row for row in later}
        self.idle = {row[0]: row for row in idle}

    def read(self, entries, warn, any_case=False):
        """Returns ({attribute: value}, {attribute: "FILE:LINE"}) of entries; raises ConfigError."""
        values = {row[2]: row[4] for row in self.table}
        places = {}
        for name, value, where in entries:
            if any_case and name not in self.rows and name == name.lower():
                name = name.upper()
            said = None if warn is None else _saying(warn, where, name)
            try:
                row = self._row(name, value, where, said, warn)
                if row is not None:
                    values[row[2]] = row[3](value, said)
                    places[row[2]] = where
            except ValueError as error:
                raise ConfigError(where, "%s: %s" % (name, error.args[0] if error.args else "is wrong"))
        return values, places

    def _row(self, name, value, where, said, warn):
        """Returns the row of a name that counts; None where it does not."""
        if name in self.rows:
            return self.rows[name]
        if name in self.idle:
            self.idle[name][1](value, said)
            return None
        if name in self.later:
            _, parser, default = self.later[name]
            if parser(value, said) != default:
                reason = "not supported yet: take the line out"
                if warn is None or self.kind == "access":
                    raise ValueError(reason)
                said(reason + "; it has no effect")
            return None
        remedy = meant(name, list(self.rows) + list(self.later) + list(self.idle))
        if warn is None:
            raise ConfigError(where, "%s: no such keyword%s" % (name[:40], remedy or "; take the line out"))
        file, _, _ = where.rpartition(":")
        text = "%s: [*] Ignoring unknown %s parameter: '%s' in %s%s"
        warn(text % (where, self.kind, name[:40], file, remedy or "; take the line out"))
        return None


def _saying(warn, where, name):
    return lambda reason: warn("%s: %s: %s" % (where, name, reason))


def meant(name, known):
    """Returns " (did you mean ...?)" for the known name nearest to a wrong one, or ""."""
    best, least = "", 4  # more than three slips are another word
    for other in known:
        if len(name) <= 40 and abs(len(other) - len(name)) < least:
            apart = _apart(name.upper(), other.upper())
            if apart < least and apart * 3 <= len(other):
                best, least = other, apart
    return " (did you mean %s?)" % best if best else ""


def _apart(one, other):
    """Returns how many letters to put in, take out or change make one text the other."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        last, row[0] = row[0], i + 1
        for j, wanted in enumerate(other):
            last, row[j + 1] = row[j + 1], min(row[j] + 1, row[j + 1] + 1, last + (letter != wanted))
    return row[-1]


def absolute(value, warn):
    """Reads a path from the root; a relative one would mean another place once the daemon has left its directory."""
    if value[:1] != "/":
        raise ValueError("%r is not an absolute path" % value)
    return value.rstrip("/") or "/"


def unless_no(value, warn):
    """Reads a yes or no for which fwknopd takes all but an N for yes."""
    if warn is not None and value[:1] not in ("y", "Y", "n", "N"):
        warn("%r is taken for Y: write Y or N" % value)
        return True
    return yes(value, warn)


def spa_filter(value, warn):
    """Reads `udp port N` into the port; other filters are not understood yet."""
    words = value.split()
    if len(words) != 3 or words[:2] != ["udp", "port"]:
        raise ValueError("%r is not supported yet: write udp port 62201, with your port" % value[:80])
    return number(1, 65535)(words[2], None)


def udp_port(value, warn):
    """Reads a port; fwknopd takes up to 131071 and cuts that to 16 bits."""
    port = number(1, 131071)(value, warn)
    if port <= 65535:
        return port
    if warn is None or port == 65536:
        raise ValueError("%d is no port: write one from 1 to 65535" % port)
    warn("%d is cut to %d: write a port from 1 to 65535" % (port, port & 65535))
    return port & 65535


def facility(value, warn):
    """Reads the name of a syslog facility, in any case."""
    if value.upper() not in FACILITIES:
        raise ValueError("Invalid SYSLOG_FACILITY setting '%s': write LOG_DAEMON or LOG_LOCAL0 to 7" % value[:40])
    return value.upper()


def firewall(value, warn):
    """Reads the path of a firewall's program; its name says which kind of port it is."""
    base = value[value.rfind("/") + 1 :]
    if base not in ("iptables", "iptables-nft", "iptables-legacy"):
        raise ValueError("%r is not supported yet: give the path of iptables" % value)
    return value


def anything(value, warn):
    """Takes any text."""
    return value


_PERIOD = number(1, 8388608)
_RULE = number(0, 131071)

KEYWORDS = Keywords(
    (
        ("FWKNOP_RUN_DIR", "state_dir", "state_dir", absolute, STATE_DIR),
        ("DIGEST_FILE", "digest_file", "digest_file", text, None),
        ("FWKNOP_PID_FILE", "pid_file", "pid_file", text, None),
        ("ENABLE_SPA_PACKET_AGING", "ageing", "ageing", yes, True),
        ("MAX_SPA_PACKET_AGE", "max_age", "max_age", number(1, 100000), 120),
        ("ENABLE_DIGEST_PERSISTENCE", "replay", "replay", yes, True),
        ("PCAP_INTF", None, "interface", text, "eth0"),
        ("PCAP_FILTER", None, "port", spa_filter, 62201),
        ("ENABLE_PCAP_PROMISC", None, "promisc", yes, False),
        ("ENABLE_UDP_SERVER", None, "udp_server", yes, False),
        ("UDPSERV_PORT", None, "udp_port", udp_port, 62201),
        ("FIREWALL_EXE", None, "firewall", firewall, "iptables"),
        ("IPT_INPUT_ACCESS", None, "chain", text, INPUT),
        ("ENABLE_RULE_PREPEND", None, "prepend", yes, False),
        ("FLUSH_IPT_AT_INIT", None, "flush_at_init", yes, True),
        ("FLUSH_IPT_AT_EXIT", None, "flush_at_exit", unless_no, True),
        ("ACCESS_FILE", None, "access_file", text, "/etc/fwknop/access.conf"),
        ("ACCESS_FOLDER", None, "access_folder", text, None),
        ("SYSLOG_IDENTITY", None, "syslog_identity", text, "fwknopd"),
        ("SYSLOG_FACILITY", None, "syslog_facility", facility, "LOG_DAEMON"),
        ("VERBOSE", None, "verbose", number(0, 1000), 0),
    ),
    # What is set to its default asks for nothing new; a default of None stands for "not set".
    tuple(
        [(name, yes, False) for name in (
            "ENABLE_PCAP_ANY_DIRECTION", "ENABLE_SPA_OVER_HTTP", "ALLOW_ANY_USER_AGENT", "ENABLE_X_FORWARDED_FOR",
            "ENABLE_TCP_SERVER", "ENABLE_NFQ_CAPTURE", "ENABLE_DESTINATION_RULE", "ENABLE_IPT_FORWARDING",
            "ENABLE_IPT_LOCAL_NAT", "ENABLE_IPT_SNAT", "ENABLE_IPT_OUTPUT", "ENABLE_FIREWD_FORWARDING",
            "ENABLE_FIREWD_LOCAL_NAT", "ENABLE_FIREWD_SNAT", "ENABLE_FIREWD_OUTPUT", "IPFW_ADD_CHECK_STATE",
        )]
        + [(name, yes, True) for name in ("ENABLE_IPT_COMMENT_CHECK", "ENABLE_FIREWD_COMMENT_CHECK", "ENABLE_NAT_DNS")]
        + [(name, text, None) for name in ("PCAP_FILE", "SNAT_TRANSLATE_IP", "FAULT_INJECTION_TAG")]
    ),
    # What steers a part that only fwknopd has, or that does nothing before its switch above is on.
    tuple(
        [(name, _PERIOD) for name in (
            "PCAP_DISPATCH_COUNT", "PCAP_LOOP_SLEEP", "UDPSERV_SELECT_TIMEOUT", "NFQ_LOOP_SLEEP",
            "IPFW_EXPIRE_PURGE_INTERVAL", "PF_EXPIRE_INTERVAL",
        )]
        + [(name, anything) for name in (
            "CONFIG_FILE", "OVERRIDE_CONFIG", "FWKNOP_CONF_DIR", "CMD_EXEC_TIMEOUT", "LOCALE", "DIGEST_DB_FILE",
            "GPG_HOME_DIR", "GPG_EXE", "SUDO_EXE", "NFQ_INTERFACE", "NFQ_PORT", "NFQ_TABLE", "NFQ_CHAIN",
            "NFQ_QUEUE_NUMBER", "PF_ANCHOR_NAME", "IPT_OUTPUT_ACCESS", "IPT_FORWARD_ACCESS", "IPT_DNAT_ACCESS",
            "IPT_SNAT_ACCESS", "IPT_MASQUERADE_ACCESS", "FIREWD_INPUT_ACCESS", "FIREWD_OUTPUT_ACCESS",
            "FIREWD_FORWARD_ACCESS", "FIREWD_DNAT_ACCESS", "FIREWD_SNAT_ACCESS", "FIREWD_MASQUERADE_ACCESS",
        )]
        + [(name, yes) for name in (
            "EXIT_AT_INTF_DOWN", "FLUSH_FIREWD_AT_INIT", "FLUSH_FIREWD_AT_EXIT", "FLUSH_IPFW_AT_INIT",
            "FLUSH_IPFW_AT_EXIT",
        )]
        + [(name, _RULE) for name in ("RULES_CHECK_THRESHOLD", "IPFW_START_RULE_NUM", "IPFW_MAX_RULES")]
        + [(name, number(0, 63)) for name in ("IPFW_ACTIVE_SET_NUM", "IPFW_EXPIRE_SET_NUM")]
        + [("MAX_SNIFF_BYTES", number(1, 32768)), ("TCPSERV_PORT", udp_port)]
    ),
    "configuration",
)  # fmt: skip


class Settings:
    """Attributes as in the table; `captures`, `ports` and `carriers` are what the daemon makes them of."""

    def __init__(self, entries=(), warn=None, any_case=True):
        values, self.places = KEYWORDS.read(entries, warn, any_case)
        for name in values:
            setattr(self, name, values[name])
        self.entries = entries
        self.digest_file = self.digest_file or self.state_dir + "/digest.cache"
        self.pid_file = self.pid_file or self.state_dir + "/fwknopd.pid"
        self.test = False
        self.captures = []
        self.ports = {}
        self.carriers = {}

    def outfit(self, where):
        """Makes the capture and the port "firewall" of fwknop's variables; returns itself."""
        if self.udp_server:
            place = self.places.get("udp_port", where)
            self.captures = [{"kind": "udp", "port": "%d" % self.udp_port, "where": place}]
        else:
            place = self.places.get("interface", where)
            capture = {"kind": "packet", "interface": self.interface, "port": "%d" % self.port, "where": place}
            capture["promisc"] = _letter(self.promisc)
            self.captures = [capture]
        firewall = {"kind": "iptables", "binary": self.firewall, "chain": self.chain}
        firewall["where"] = self.places.get("chain", where)
        for name in ("flush_at_init", "flush_at_exit", "prepend"):
            firewall[name] = _letter(getattr(self, name))
        self.ports = {"firewall": firewall}
        return self

    def fits(self, stanzas):
        """Raises ConfigError where stanzas do not go with the settings: a name used twice, a port that is not there."""
        names = set()
        for stanza in stanzas:
            if stanza.name in names:
                raise ConfigError(stanza.where, "there are two stanzas called %s: rename one" % stanza.name)
            names.add(stanza.name)
            for port in stanza.ports:
                if port not in self.ports:
                    there = ", ".join(sorted(self.ports)) or "none"
                    raise ConfigError(stanza.where, "ports: there is no port called %s (there is %s)" % (port, there))


def _letter(value):
    return "Y" if value else "N"
