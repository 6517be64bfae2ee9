"""A configuration as it was understood, which `tinyknop compile` writes: no table of keywords is needed to read it.

{"made": "SHA-256 of FORMAT and of all lines after this one",
"settings": {attribute: value},
"names": [attribute, ...], "stanzas": [[value, ...], ...]}

A value is JSON's own; a tuple is a list there, bytes are {"b": hexadecimal}, and a table is {"d": {name: value}}.
Whoever changes it by hand is told so: the way to another configuration is to compile it anew.
"""

import os
from binascii import hexlify, unhexlify

from . import compat, crypto, log
from .errors import ConfigError
from .seal import Keys

FORMAT = b"tinyknop 1"  # to be changed with the attributes that the daemon goes by
_START = '{"made": "'
# What only `config` goes by to make those tables.
_READ = set(
    """places entries access_file access_folder locale kind firewall destination_rule prepend enable_snat snat_to output
    comment_check flush_at_init chain output_chain forward_chain dnat_chain snat_chain masquerade_chain pf_anchor
    interface filter snap promisc any_direction exit_at_down pcap_file udp_server udp_port tcp_server tcp_port nfq
    nfq_interface nfq_port nfq_table nfq_chain nfq_queue ipfw_start_rule ipfw_max_rules ipfw_active_set ipfw_expire_set
    ipfw_purge_interval ipfw_check_state ipfw_flush_at_init ipfw_flush_at_exit gpg_exe key_file""".split()
)


class Record:
    """The attributes of a Settings or a Stanza, without what could read one."""


def bare(other):
    """Returns a Settings or a Stanza as a Record."""
    made = Record()
    for name in other.__dict__:
        setattr(made, name, other.__dict__[name])
    return made


def dump(settings, stanzas):
    """Returns the text of what `load` gives back."""
    import json  # 3 MB and 7 ms that a daemon started from another format does without

    names = _names(stanzas[0])
    parts: list = [("settings", {name: _plain(getattr(settings, name)) for name in _names(settings)})]
    parts.append(("names", names))
    parts.append(("stanzas", [[_plain(getattr(stanza, name)) for name in names] for stanza in stanzas]))
    body = ",\n".join(['"%s": %s' % (name, json.dumps(value)) for name, value in parts]) + "}"
    return _START + _check(body.encode()) + '",\n' + body


def load(path):
    """Returns (settings, stanzas) as Records, None where a file is of another kind; raises ConfigError."""
    import json

    try:
        mode = os.stat(path)[0]
        data = (compat.read_bytes(path) or b"") if mode & 0o170000 == 0o100000 else b""
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return None
    line, _, body = data.partition(b"\n")
    if not line.startswith(_START.encode()):
        return None
    if mode & 0o177:
        log.warning("%s: others can read the keys in it: chmod 600 it", path)
    if line[len(_START) :] != _check(body.rstrip()).encode() + b'",':
        raise ConfigError(path, "of another version of tinyknop, or changed since: make it anew (`tinyknop compile`)")
    whole = json.loads(data)
    settings = _record(whole["settings"].items())
    settings.captures, settings.places, settings.entries = list(settings.captures), {}, ()
    stanzas = [_record(zip(whole["names"], values)) for values in whole["stanzas"]]
    for stanza in stanzas:
        stanza.keys = Keys(*stanza.keys)
        able(stanza, settings)
        if not compat.MICROPYTHON and stanza.gpg is not None:
            from .stanza import Gpg

            stanza.gpg = Gpg(*stanza.gpg)
    return settings, stanzas


def able(stanza, settings):
    """Raises ConfigError where this machine cannot run or open what a stanza allows."""
    if stanza.gpg_home is not None and not is_directory(stanza.gpg_home):
        raise ConfigError(stanza.where, "GPG_HOME_DIR: %s is not a directory: check the path" % stanza.gpg_home[:80])
    accounts = (stanza.exec_user, stanza.exec_group, stanza.sudo_user, stanza.sudo_group)
    if stanza.cmd_exec or stanza.gpg is not None or any(accounts):
        try:
            execute = __import__("tinyknop.host.execute", None, None, ("check",))
        except ImportError:
            raise ConfigError(stanza.where, "commands and GPG need CPython: take ENABLE_CMD_EXEC and GPG_* out")
        execute.check(stanza, settings)


def is_directory(path):
    """Tells whether a directory is there."""
    try:
        return os.stat(path)[0] & 0o170000 == 0o040000
    except (OSError, ValueError):
        return False


def _names(record):
    return [name for name in sorted(record.__dict__) if name[0] != "_" and name not in _READ]


def _check(body):
    return hexlify(crypto.digest("sha256", FORMAT + body)).decode()


def _plain(value):
    """Returns a value as JSON can have it."""
    if isinstance(value, bytes):
        return {"b": hexlify(value).decode()}
    if isinstance(value, dict):
        return {"d": {name: _plain(value[name]) for name in sorted(value)}}
    if isinstance(value, Keys):
        value = (value.key, value.hmac_key, value.mode, value.hmac)
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _whole(value):
    """Returns what `_plain` was given."""
    if isinstance(value, dict):
        table = value.get("d")
        return unhexlify(value["b"]) if table is None else {name: _whole(table[name]) for name in table}
    return tuple([_whole(item) for item in value]) if isinstance(value, list) else value


def _record(pairs):
    made = Record()
    for name, value in pairs:
        setattr(made, name, _whole(value))
    return made
