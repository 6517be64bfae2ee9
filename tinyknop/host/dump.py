"""`tinyknop fwknopd -D`: the configuration as fwknopd shows it (docs/fwknopd.md sections 2.2 and 3.6)."""

from __future__ import annotations

import time

from tinyknop import crypto
from tinyknop.keywords import leading
from tinyknop.settings import KEYWORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyknop.settings import Settings
    from tinyknop.stanza import Stanza

ORDER = """CONFIG_FILE OVERRIDE_CONFIG PCAP_INTF PCAP_FILE ENABLE_PCAP_PROMISC PCAP_FILTER PCAP_DISPATCH_COUNT
PCAP_LOOP_SLEEP ENABLE_PCAP_ANY_DIRECTION EXIT_AT_INTF_DOWN MAX_SNIFF_BYTES ENABLE_SPA_PACKET_AGING MAX_SPA_PACKET_AGE
ENABLE_DIGEST_PERSISTENCE RULES_CHECK_THRESHOLD CMD_EXEC_TIMEOUT ENABLE_SPA_OVER_HTTP ENABLE_TCP_SERVER TCPSERV_PORT
ENABLE_UDP_SERVER UDPSERV_PORT UDPSERV_SELECT_TIMEOUT LOCALE SYSLOG_IDENTITY SYSLOG_FACILITY ENABLE_X_FORWARDED_FOR
ENABLE_DESTINATION_RULE ENABLE_RULE_PREPEND ENABLE_NAT_DNS ENABLE_IPT_FORWARDING ENABLE_IPT_LOCAL_NAT ENABLE_IPT_SNAT
SNAT_TRANSLATE_IP ENABLE_IPT_OUTPUT FLUSH_IPT_AT_INIT FLUSH_IPT_AT_EXIT IPT_INPUT_ACCESS IPT_OUTPUT_ACCESS
IPT_FORWARD_ACCESS IPT_DNAT_ACCESS IPT_SNAT_ACCESS IPT_MASQUERADE_ACCESS ENABLE_IPT_COMMENT_CHECK FWKNOP_RUN_DIR
FWKNOP_CONF_DIR ACCESS_FILE ACCESS_FOLDER FWKNOP_PID_FILE DIGEST_FILE GPG_HOME_DIR GPG_EXE SUDO_EXE FIREWALL_EXE VERBOSE
FAULT_INJECTION_TAG""".split()
# Defaults that are no constant of the table, or of what only fwknopd has.
DEFAULTS = {
    "PCAP_DISPATCH_COUNT": "100",
    "PCAP_LOOP_SLEEP": "100000",
    "RULES_CHECK_THRESHOLD": "20",
    "UDPSERV_SELECT_TIMEOUT": "500000",
    "FWKNOP_CONF_DIR": "/etc/fwknop",
    "CMD_EXEC_TIMEOUT": None,
    "ENABLE_PCAP_ANY_DIRECTION": None,
    "VERBOSE": None,
}
# What `-D` shows as the value of these is the attribute of the settings, which depends on others.
WORKED_OUT = {
    "FWKNOP_PID_FILE": "pid_file",
    "DIGEST_FILE": "digest_file",
    "FIREWALL_EXE": "firewall",
}
SECRET = "<see the access.conf file>"
STANZA = """DESTINATION OPEN_PORTS RESTRICT_PORTS KEY KEY_BASE64 KEY_LEN HMAC_KEY HMAC_KEY_BASE64 HMAC_KEY_LEN
HMAC_DIGEST_TYPE FW_ACCESS_TIMEOUT MAX_FW_TIMEOUT ENABLE_CMD_EXEC ENABLE_CMD_SUDO_EXEC CMD_SUDO_EXEC_USER
CMD_SUDO_EXEC_GROUP CMD_EXEC_USER CMD_EXEC_GROUP CMD_CYCLE_OPEN CMD_CYCLE_CLOSE CMD_CYCLE_TIMER REQUIRE_USERNAME
REQUIRE_SOURCE_ADDRESS FORCE_NAT+(ip) FORCE_NAT+(proto) FORCE_NAT+(port) FORCE_SNAT+(ip) FORCE_MASQUERADE DISABLE_DNAT
FORWARD_ALL ACCESS_EXPIRE GPG_HOME_DIR GPG_EXE GPG_DECRYPT_ID GPG_DECRYPT_PW GPG_REQUIRE_SIG GPG_IGNORE_SIG_VERIFY_ERROR
GPG_REMOTE_ID GPG_FINGERPRINT_ID""".replace("+", "\0").split()


def shown(value: str | int | None) -> str | None:
    """Returns a value of a table as the file would have it."""
    if value is None or isinstance(value, str):
        return value
    return ("Y" if value else "N") if isinstance(value, bool) else "%d" % value


def config(settings: Settings, path: str, overrides: str | None) -> list[str]:
    """Returns the lines about fwknopd.conf; variables that fwknopd has not come last, and only when they are set."""
    given = {name: value for name, value, _ in settings.entries}
    given.update({"CONFIG_FILE": path, "OVERRIDE_CONFIG": overrides or None})
    rest = [name for name in KEYWORDS.rows if name.isupper() and name in given and name not in ORDER]
    lines = ["Current fwknopd config settings:"]
    for number, name in enumerate(ORDER + rest):
        row = KEYWORDS.rows.get(name)
        value = given.get(name, DEFAULTS.get(name, shown(row[4]) if row and name not in DEFAULTS else None))
        if name in WORKED_OUT:
            value = shown(getattr(settings, WORKED_OUT[name]))
        if name == "ENABLE_SPA_PACKET_AGING" and value is None:
            value = shown(settings.ageing)
        lines.append("%3d. %-28s =  '%s'" % (number, name, "<not set>" if value is None else value))
    return [*lines, ""]


def stanza(one: Stanza) -> list[str]:
    """Returns the lines about one stanza, secrets left out."""
    given = {name: value for name, value, _ in one.entries()}
    keys = one.keys
    assert keys is not None  # a key file has been read
    length = len(keys.key or b""), len(keys.hmac_key or b"")
    force_nat = one.force_nat if "FORCE_NAT" in given else None
    values: dict[str, str | None] = {
        "KEY_LEN": "%d" % length[0],
        "HMAC_KEY_LEN": "%d" % length[1],
        "HMAC_DIGEST_TYPE": "%d" % (crypto.NAMES.index(keys.hmac) + 1 if length[1] else 0),
        "FW_ACCESS_TIMEOUT": _number(given.get("FW_ACCESS_TIMEOUT", ""), 30),
        "MAX_FW_TIMEOUT": "%d" % (one.max_timeout or 300),
        "CMD_CYCLE_TIMER": _number(given.get("CMD_CYCLE_TIMER", ""), 0),
        "FORCE_NAT\0(ip)": force_nat and force_nat[0],
        "FORCE_NAT\0(port)": "%d" % (force_nat[1] if force_nat else 0),
        "FORCE_SNAT\0(ip)": one.force_snat,
        "ACCESS_EXPIRE": one.expires and time.asctime(time.localtime(one.expires)),
        "GPG_HOME_DIR": one.gpg_home or one.gpg and one.gpg.home,
        "REQUIRE_SOURCE_ADDRESS": _yes(one.require_source),
        "GPG_REQUIRE_SIG": _yes(one.gpg.require_sig if one.gpg else yes(given.get("GPG_REQUIRE_SIG"))),
        "GPG_IGNORE_SIG_VERIFY_ERROR": _yes(yes(given.get("GPG_IGNORE_SIG_VERIFY_ERROR"))),
    }
    for name in ("KEY", "HMAC_KEY", "GPG_DECRYPT_PW"):
        values[name] = SECRET if name in given or name + "_BASE64" in given else None
        values[name + "_BASE64"] = SECRET if name + "_BASE64" in given else None
    if one.gpg:
        values["GPG_DECRYPT_PW"] = SECRET
    booleans = "ENABLE_CMD_EXEC ENABLE_CMD_SUDO_EXEC FORCE_MASQUERADE DISABLE_DNAT FORWARD_ALL".split()
    attributes = "cmd_exec sudo masquerade disable_dnat forward_all".split()
    values.update({name: _yes(getattr(one, attribute)) for name, attribute in zip(booleans, attributes)})
    lines = ["SOURCE (%d):  %s" % (one.number, given.get("SOURCE", "ANY")), "=" * 62]
    for name in STANZA:
        value = values[name] if name in values else given.get(name)
        lines.append("%27s:  %s" % (name.replace("\0", " "), "<not set>" if value is None else value))
    return [*lines, ""]


def access(stanzas: Sequence[Stanza]) -> list[str]:
    """Returns the lines about access.conf."""
    lines = ["Current fwknopd access settings:"]
    for one in stanzas:
        lines += stanza(one)
    return [*lines, ""]


def _number(text: str, default: int) -> str:
    digits = text[: leading(text)]
    return "%d" % (int(digits or "0") or default)


def yes(value: str | None) -> bool:
    return (value or "")[:1] in ("y", "Y")


def _yes(value: bool) -> str:
    return "Yes" if value else "No"


def error_codes() -> str:
    """Returns fwknopd's table of error codes; the texts are ours."""
    packet = (
        "not a valid SPA message format|not enough data for an SPA message|not an SPA message|"
        "SPA over HTTP, but ENABLE_SPA_OVER_HTTP is not set|the packet cannot be decoded|no digest of the packet|"
        "the digest cache cannot be read or written|a replayed SPA message|timestamp outside the allowed window|"
        "the access checks refuse it|a command failed|an unsupported kind of message|undefined or unknown error|"
        "general processing error"
    ).split("|")
    firewall = ("adding a firewall rule failed", "deleting a firewall rule failed", "unknown firewall error")
    rows = list(enumerate(packet, 4096)) + list(enumerate(firewall, 8192))
    return "\n".join("err code: %d, err string: '%s'" % row for row in rows) + "\n"
