"""Settings: the daemon's own, in one table of keywords, whatever format they came in."""

from binascii import crc32

from . import compat, net
from .errors import ConfigError
from .hints import MAX_AGE
from .keywords import Keywords, address, anything, number, one_of, text, yes

STATE_DIR = "/var/lib/tinyknop"
RUN_DIR = "/run/fwknop"  # where fwknopd's files are unless FWKNOP_RUN_DIR says otherwise
FACILITIES = ("LOG_DAEMON",) + tuple(["LOG_LOCAL%d" % i for i in range(8)])
SWEEP = 300  # seconds
FIREWALLS = {"iptables": "iptables", "nft": "nftables", "ipset": "ipset"}  # program -> kind of port
FIREWALLS.update({"firewall-cmd": "firewalld", "ipfw": "ipfw", "pfctl": "pf"})
_POLLING = "PCAP_DISPATCH_COUNT PCAP_LOOP_SLEEP UDPSERV_SELECT_TIMEOUT NFQ_LOOP_SLEEP PF_EXPIRE_INTERVAL".split()


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
    if kind_of(value) is None:
        raise ValueError("%r is no firewall that is known: give the path of %s" % (value[:80], ", ".join(FIREWALLS)))
    return value


def kind_of(program):
    """Returns the kind of port for a firewall's program, or None."""
    base = program[program.rfind("/") + 1 :]
    return "iptables" if base.startswith("iptables") else FIREWALLS.get(base)


def snat_address(value, warn):
    """Reads an address; fwknopd looks at it only where SNAT is on, as `outfit` then does."""
    return value if warn else address(value, warn)


def trusted(value, warn):
    """Reads the networks of the proxies whose X-Forwarded-For is believed."""
    return tuple([net.network(item.strip()) for item in value.split(",")])


# fwknopd's chains: name in the variables, option of the port, what it is unless the file says otherwise.
CHAINS = (
    ("INPUT", "chain", "ACCEPT, filter, INPUT, 1, FWKNOP_INPUT, 1"),
    ("OUTPUT", "output_chain", "ACCEPT, filter, OUTPUT, 1, FWKNOP_OUTPUT, 1"),
    ("FORWARD", "forward_chain", "ACCEPT, filter, FORWARD, 1, FWKNOP_FORWARD, 1"),
    ("DNAT", "dnat_chain", "DNAT, nat, PREROUTING, 1, FWKNOP_PREROUTING, 1"),
    ("SNAT", "snat_chain", "SNAT, nat, POSTROUTING, 1, FWKNOP_POSTROUTING, 1"),
    ("MASQUERADE", "masquerade_chain", "MASQUERADE, nat, POSTROUTING, 1, FWKNOP_MASQUERADE, 1"),
)
# Each of these is there twice: with IPT for iptables, with FIREWD for firewalld.
_TWINS = (
    ("ENABLE_%s_FORWARDING", "forwarding", yes, False),
    ("ENABLE_%s_LOCAL_NAT", "local_nat", yes, False),
    ("ENABLE_%s_SNAT", "enable_snat", yes, False),
    ("ENABLE_%s_OUTPUT", "output", yes, False),
    ("ENABLE_%s_COMMENT_CHECK", "comment_check", yes, True),
    ("FLUSH_%s_AT_INIT", "flush_at_init", yes, True),
    ("FLUSH_%s_AT_EXIT", "flush_at_exit", unless_no, True),
) + tuple([("%s_" + name + "_ACCESS", option, text, spec) for name, option, spec in CHAINS])


def _twins(prefix):
    return tuple([(row[0] % prefix, None, prefix + " " + row[1], row[2], row[3]) for row in _TWINS])


KEYWORDS = Keywords(
    (
        ("FWKNOP_RUN_DIR", "state_dir", "state_dir", absolute, STATE_DIR),
        ("DIGEST_FILE", "digest_file", "digest_file", text, None),
        ("FWKNOP_PID_FILE", "pid_file", "pid_file", text, None),
        ("ENABLE_SPA_PACKET_AGING", "ageing", "ageing", yes, None),
        ("MAX_SPA_PACKET_AGE", "max_age", "max_age", number(1, 100000), 120),
        ("ENABLE_DIGEST_PERSISTENCE", "replay", "replay", yes, True),
        ("PCAP_INTF", None, "interface", text, "eth0"),
        ("PCAP_FILTER", None, "filter", anything, "udp port 62201"),
        ("PCAP_FILE", None, "pcap_file", text, None),
        ("ENABLE_PCAP_PROMISC", None, "promisc", yes, False),
        ("ENABLE_PCAP_ANY_DIRECTION", None, "any_direction", yes, False),
        ("EXIT_AT_INTF_DOWN", None, "exit_at_down", yes, True),
        ("MAX_SNIFF_BYTES", None, "snap", number(1, 32768), 1500),
        ("ENABLE_UDP_SERVER", None, "udp_server", yes, False),
        ("UDPSERV_PORT", None, "udp_port", udp_port, 62201),
        ("ENABLE_TCP_SERVER", None, "tcp_server", yes, False),
        ("TCPSERV_PORT", None, "tcp_port", udp_port, 62201),
        ("ENABLE_NFQ_CAPTURE", None, "nfq", yes, False),
        ("NFQ_INTERFACE", None, "nfq_interface", text, ""),
        ("NFQ_PORT", None, "nfq_port", number(1, 65535), 62201),
        ("NFQ_TABLE", None, "nfq_table", text, "mangle"),
        ("NFQ_CHAIN", None, "nfq_chain", text, "FWKNOP_NFQ"),
        ("NFQ_QUEUE_NUMBER", None, "nfq_queue", number(0, 65535), 1),
        ("ENABLE_SPA_OVER_HTTP", "http", "http", yes, False),
        ("ALLOW_ANY_USER_AGENT", None, "any_agent", yes, False),
        ("ENABLE_X_FORWARDED_FOR", None, "forwarded_for", yes, False),
        (None, "trusted_proxies", "proxies", trusted, None),
        ("FIREWALL_EXE", None, "firewall", firewall, None),
        ("ENABLE_DESTINATION_RULE", None, "destination_rule", yes, False),
        ("ENABLE_RULE_PREPEND", None, "prepend", yes, False),
        ("ENABLE_NAT_DNS", None, "nat_dns", yes, True),
        ("SNAT_TRANSLATE_IP", None, "snat_to", snat_address, None),
        ("RULES_CHECK_THRESHOLD", None, "sweep", number(0, 131071), None),
        ("PF_ANCHOR_NAME", None, "pf_anchor", text, "fwknop"),
        ("IPFW_START_RULE_NUM", None, "ipfw_start_rule", number(0, 131071), 10000),
        ("IPFW_MAX_RULES", None, "ipfw_max_rules", number(1, 131071), 65535),
        ("IPFW_ACTIVE_SET_NUM", None, "ipfw_active_set", number(0, 63), 1),
        ("IPFW_EXPIRE_SET_NUM", None, "ipfw_expire_set", number(0, 63), 2),
        ("IPFW_EXPIRE_PURGE_INTERVAL", None, "ipfw_purge_interval", number(1, 131071), 30),
        ("IPFW_ADD_CHECK_STATE", None, "ipfw_check_state", yes, False),
        ("FLUSH_IPFW_AT_INIT", None, "ipfw_flush_at_init", yes, True),
        ("FLUSH_IPFW_AT_EXIT", None, "ipfw_flush_at_exit", yes, True),
        ("CMD_EXEC_TIMEOUT", None, "cmd_exec_timeout", number(0, 8388608), 0),
        ("SUDO_EXE", None, "sudo_exe", text, "/usr/bin/sudo"),
        ("GPG_HOME_DIR", None, "gpg_home", text, "/root/.gnupg"),
        ("GPG_EXE", None, "gpg_exe", text, "/usr/bin/gpg"),
        ("ACCESS_FILE", None, "access_file", text, "/etc/fwknop/access.conf"),
        ("ACCESS_FOLDER", None, "access_folder", text, None),
        ("LOCALE", None, "locale", text, None),
        # Who to be once started; fwknopd warns of the name and goes on.
        (None, "user", "user", text, None),
        ("SYSLOG_IDENTITY", None, "syslog_identity", text, "fwknopd"),
        ("SYSLOG_FACILITY", None, "syslog_facility", facility, "LOG_DAEMON"),
        (None, "log", "log", one_of(("text", "logfmt", "json")), "text"),
        (None, "log_to", "log_to", one_of(("stderr", "syslog", "journald")), "stderr"),
        ("VERBOSE", None, "verbose", number(0, 1 << 31), 0),
    )
    + _twins("IPT")
    + _twins("FIREWD"),
    # Only its default is taken: fwknop's own test builds alone know it.
    (("FAULT_INJECTION_TAG", text, None),),
    # What steers the polling of fwknopd, which we have not, or only gives a path a name.
    tuple([(name, number(1, 8388608)) for name in _POLLING])
    + tuple([(name, anything) for name in ("CONFIG_FILE", "OVERRIDE_CONFIG", "FWKNOP_CONF_DIR", "DIGEST_DB_FILE")]),
    "configuration",
)  # fmt: skip


class Settings:
    """Attributes as in the table; `captures`, `ports` and `carriers` are what the daemon makes them of."""

    if compat.TYPE_CHECKING:

        def __getattr__(self, name): ...  # what KEYWORDS lists

    def __init__(self, entries=(), warn=None, any_case=True):
        values, places = KEYWORDS.read(entries, warn, any_case)
        # "IPT forwarding" or "FIREWD forwarding" -> forwarding, whichever this firewall goes by.
        mine = "FIREWD" if kind_of(values["firewall"] or "") == "firewalld" else "IPT"
        for name in values:
            prefix, blank, attribute = name.partition(" ")
            if not blank or prefix == mine:
                setattr(self, attribute or name, values[name])
                if name in places:
                    places[attribute or name] = places[name]
        self.places = places
        self.entries = entries
        if values["ageing"] is None:
            self.ageing = self.pcap_file is None  # packets of a file are as old as the file
        self.digest_file = values["digest_file"] or self.state_dir + "/digest.cache"
        self.pid_file = values["pid_file"] or self.state_dir + "/fwknopd.pid"
        # Seconds between two looks at what others did to our rules; fwknopd counts rounds of a tenth of a second.
        self.sweep = SWEEP if values["sweep"] is None else values["sweep"] // 2
        self.snat = (self.snat_to or "masquerade") if self.enable_snat and (self.forwarding or self.local_nat) else None
        self.test = False
        self.captures = []
        self.ports = {}
        self.carriers = {}
        self.watch = None  # the table [watch]
        self.blocks = ()  # names of the ports by which it blocks

    def fits(self, stanzas):
        """Raises ConfigError where stanzas do not go with the settings; makes the ports of command cycles."""
        # A capture of HTTP requests has no use but this.
        self.blocks = tuple([name for name in (self.watch or {}).get("ports", "").split(",") if name])
        self.http: bool = self.http or "http" in [one.get("kind") for one in self.captures]
        if self.http and self.proxies is None:
            from .web import PROXIES

            self.proxies: tuple | None = PROXIES
        names = set()
        for stanza in stanzas:
            if stanza.name in names:
                raise ConfigError(stanza.where, "there are two stanzas called %s: rename one" % stanza.name)
            names.add(stanza.name)
            if stanza.cycle is not None:
                opening, closing = stanza.cycle
                # A number may be another stanza's at the next start, whose command the journal must not have in mind.
                mark = crc32(("%s\n%s" % (opening, closing)).encode())
                stanza.ports = ("cycle %s %08x" % (stanza.name, mark),)
                options = {"kind": "command", "open": opening, "close": closing or "NONE"}
                options["where"] = stanza.where
                self.ports[stanza.ports[0]] = options
            if stanza.force_nat is not None:
                self._leads_inside(stanza)
            if stanza.require_hint and not (self.ageing and self.max_age <= MAX_AGE):
                where = self.places.get("max_age" if self.ageing else "ageing") or stanza.where
                reason = "stanza %s has require_hint, and packets older than %d seconds have none: take no older ones"
                raise ConfigError(where, reason % (stanza.name, MAX_AGE))
            stanza.equip(self.gpg_home, self.gpg_exe)
            for port in stanza.ports:
                if port not in self.ports:
                    there = ", ".join(sorted(self.ports)) or "none"
                    raise ConfigError(stanza.where, "ports: there is no port called %s (there is %s)" % (port, there))

    def _leads_inside(self, stanza):
        """Sees that there are chains for a stanza with FORCE_NAT or FORWARD_ALL; raises ConfigError."""
        if not (self.forwarding or self.local_nat):
            raise ConfigError(stanza.where, "FORCE_NAT needs ENABLE_IPT_FORWARDING Y in fwknopd.conf: add it")
        port = self.ports.get("firewall", {})
        if (stanza.force_snat or stanza.masquerade) and not port.get("snat_chain", "-"):
            # fwknopd runs a command without a chain here, logs success, and nothing is translated.
            port["snat_chain"], port["masquerade_chain"] = self.snat_chain, self.masquerade_chain
