"""Stanza: who may open what, for how long, through which ports. One table of keywords, whatever format they came in.

Parsers are as those of `keywords.py`: (text, warn) -> value.
"""

from collections import namedtuple

from . import compat, crypto, net
from .errors import ConfigError
from .keywords import DIGITS, Keywords, address, leading, number, one_of, text, yes
from .seal import LONGEST_HMAC_KEY, LONGEST_KEY, Keys
from .seal import MODES as SEALING
from .spa import BASE64, from_base64, to_base64

TIMEOUT = 30  # seconds; fwknopd's DEF_FW_ACCESS_TIMEOUT, and what its 0 means
LONGEST = 8388608  # seconds; fwknopd's top for both timeouts
_LISTED = 31  # characters of an entry in a list of ports
_LEGACY_KEY = 16  # bytes; fwknop cuts a longer key of this mode
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NAME = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.@:+#-"


def listed(value):
    """Returns the items of a comma-separated list, blanks around them cut."""
    return [item.strip() for item in value.split(",")]


def networks(value, warn):
    """Reads a list of networks; None stands for ANY."""
    found = []
    anybody = False
    for item in listed(value):
        if item.upper() == "ANY":
            anybody = True
            continue
        if warn is not None and 1 <= item.count(".") < 3 and ":" not in item:
            whole = _classful(item)
            warn("%r is taken for %s: write the whole address" % (item, whole))
            item = whole
        network = net.network(item)
        if network[1] == 0:
            raise ValueError("%r is everybody: write ANY" % item)
        found.append(network)
    return None if anybody else tuple(found)


def _classful(item):
    """Returns 1.2.0.3 for 1.2.3, as inet_aton reads it (fwknopd 2.6.10)."""
    address, slash, mask = item.partition("/")
    parts = address.split(".")
    last = parts.pop()
    if not last or len(last) > 8 or not compat.only_in(last.encode(), DIGITS):
        raise ValueError("%r is not an IPv4 address such as 192.0.2.7" % item)
    rest, count = int(last), 4 - len(parts)
    if rest >> 8 * count:
        raise ValueError("%r is not an IPv4 address such as 192.0.2.7" % item)
    parts += ["%d" % (rest >> 8 * i & 255) for i in range(count - 1, -1, -1)]
    return ".".join(parts) + slash + mask


def openings(value, warn):
    """Reads a list of openings; where fwknop reads tcp/1000-2000 as tcp/1000, that is said."""
    found = []
    for item in listed(value):
        if len(item) > _LISTED:
            raise ValueError("an entry has at most %d characters, such as tcp/22" % _LISTED)
        proto, slash, port = item.partition("/")
        digits = port[: leading(port)]
        if warn is not None and digits and (digits != port or int(digits) == 0 or proto != proto.lower()):
            proto = proto.lower()
            warn("%r is taken for %s/%s: list each opening, as in tcp/22, udp/53" % (item, proto, digits))
            if int(digits) == 0 and proto in ("tcp", "udp"):
                continue  # no packet of ours can ask for port 0
            item = "%s/%s" % (proto, digits)
        opening = net.opening(item)
        if opening not in found:
            found.append(opening)
    return tuple(found)


def _names(value, warn):
    found = [_name(item, warn) for item in listed(value)]
    if len(set(found)) != len(found):
        raise ValueError("names one of them twice")
    return tuple(found)


def _name(value, warn):
    if not 1 <= len(value) <= 64 or not compat.only_in(value.encode(), _NAME):
        raise ValueError("a name has 1 to 64 letters, digits and _ . @ : + # -")
    return value


_SECRETS = ("KEY", "KEY_BASE64", "HMAC_KEY", "HMAC_KEY_BASE64", "GPG_DECRYPT_PW")
_UNCHANGED = (
    "[*] %s value is not properly set in stanza source '%s' in access file: '%s': put in a key of `tinyknop keygen`"
)


def _unchanged(value):
    if not value:
        raise ValueError("is empty: put in a key of `tinyknop keygen`")


def key_text(value, warn):
    """Reads a passphrase: its bytes as written."""
    return passphrase(value, warn).encode()


def key_base64(value, warn):
    """Reads a key in base64, padded or not; fwknop stops at the first `=` and looks at no spare bits."""
    _unchanged(value)
    data = value.encode()
    if not compat.only_in(data, BASE64 + b"="):
        raise ValueError("is not base64: put in a key of `tinyknop keygen`")
    bare = data.split(b"=")[0]
    usable = bare[:-1] if len(bare) % 4 == 1 else bare
    key = from_base64(usable) if usable else b""
    if not key:
        raise ValueError("is empty: put in a key of `tinyknop keygen`")
    exact = to_base64(key)
    if data not in (exact, exact + b"=" * (-len(exact) % 4)):
        if warn is None:
            raise ValueError("is not whole base64: put in a key of `tinyknop keygen`")
        warn("is not whole base64, and taken as far as it goes: put in a key of `tinyknop keygen`")
    return key


def _timeout(value, warn):
    return number(0, LONGEST)(value, warn) or TIMEOUT


def _max_timeout(value, warn):
    """0 is fwknopd's own 300, which is what None stands for."""
    return number(0, LONGEST)(value, warn) or None


def _epoch(value, warn):
    return number(0, 1 << 40)(value, warn) or None


def date(value, warn):
    """Reads MM/DD/YYYY into (epoch of that midnight in UTC,); the configuration's reader shifts it to local time."""
    parts = value.split("/")
    if len(parts) != 3 or not all([1 <= len(p) <= 4 and compat.only_in(p.encode(), DIGITS) for p in parts]):
        raise ValueError("%r is not a date: write MM/DD/YYYY" % value)
    month, day, year = [int(part) for part in parts]
    year += 2000 if year < 100 else 0
    if not 1 <= month <= 12 or not 1 <= day <= _DAYS[month - 1] or not 1970 <= year:
        raise ValueError("%r is not a date: write MM/DD/YYYY" % value)
    return (days(year, month, day) * 86400,)


def days(year, month, day):
    """Returns the days from 1970 to a date. Years begin in March here, so that a leap day comes last."""
    year -= month < 3
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * ((month + 9) % 12) + 2) // 5 + day - 719469


def command(value, warn):
    """Reads a command line; fwknopd has room for 255 characters."""
    if len(value) > 255:
        raise ValueError("has more than 255 characters: put them into a script")
    return value


def inside(value, warn):
    """Reads `ADDRESS PORT`, where a connection is led to."""
    words = value.split()
    if len(words) != 2:
        raise ValueError("%r is not an address and a port, such as 192.0.2.7 22" % value)
    return address(words[0], warn), number(0, 65535)(words[1], warn)


def passphrase(value, warn):
    """Reads a passphrase as text; fwknopd takes blanks at its end for a part of it, which nobody can see."""
    _unchanged(value)
    if value[-1:] in (" ", "\t"):
        if warn is None:
            raise ValueError("ends in a blank: cut it, or write the key in base64")
        warn("ends in a blank, which is part of it: cut it on both sides, or write the key in base64")
    return value


def ids(value, warn):
    """Reads a list of key ids or fingerprints."""
    return tuple(listed(value))


MODES = SEALING + ("asymmetric",)

KEYWORDS = Keywords(
    (
        ("SOURCE", "source", "source", networks, None),
        ("DESTINATION", "destination", "destination", networks, None),
        ("OPEN_PORTS", "openings", "open_ports", openings, None),
        ("RESTRICT_PORTS", None, "restrict_ports", openings, ()),
        ("KEY", None, "key", key_text, None),
        ("KEY_BASE64", None, "key", key_base64, None),
        ("HMAC_KEY", None, "hmac_key", key_text, None),
        ("HMAC_KEY_BASE64", None, "hmac_key", key_base64, None),
        ("HMAC_DIGEST_TYPE", None, "hmac", one_of(crypto.NAMES), "sha256"),
        ("ENCRYPTION_MODE", None, "mode", one_of(MODES), "cbc"),
        ("FW_ACCESS_TIMEOUT", "timeout", "timeout", _timeout, TIMEOUT),
        ("MAX_FW_TIMEOUT", "max_timeout", "max_timeout", _max_timeout, None),
        ("REQUIRE_USERNAME", None, "require_user", text, None),
        ("REQUIRE_SOURCE_ADDRESS", None, "require_source", yes, False),
        ("REQUIRE_SOURCE", None, "require_source", yes, False),
        ("ACCESS_EXPIRE", None, "expires", date, None),
        ("ACCESS_EXPIRE_EPOCH", None, "expires", _epoch, None),
        ("ENABLE_CMD_EXEC", None, "cmd_exec", yes, False),
        ("CMD_EXEC_USER", None, "exec_user", text, None),
        ("CMD_EXEC_GROUP", None, "exec_group", text, None),
        ("ENABLE_CMD_SUDO_EXEC", None, "sudo", yes, False),
        ("CMD_SUDO_EXEC_USER", None, "sudo_user", text, None),
        ("CMD_SUDO_EXEC_GROUP", None, "sudo_group", text, None),
        ("CMD_CYCLE_OPEN", None, "cycle_open", command, None),
        ("CMD_CYCLE_CLOSE", None, "cycle_close", command, None),
        ("CMD_CYCLE_TIMER", None, "cycle_timer", number(1, LONGEST), None),
        ("FORCE_NAT", None, "force_nat", inside, None),
        ("FORCE_SNAT", None, "force_snat", address, None),
        ("FORCE_MASQUERADE", None, "masquerade", yes, False),
        ("FORWARD_ALL", None, "forward_all", yes, False),
        ("DISABLE_DNAT", None, "disable_dnat", yes, False),
        ("GPG_DECRYPT_ID", None, "gpg_decrypt_id", text, None),
        ("GPG_DECRYPT_PW", None, "gpg_password", passphrase, None),
        ("GPG_ALLOW_NO_PW", None, "gpg_no_password", yes, False),
        ("GPG_REQUIRE_SIG", None, "gpg_require", yes, False),
        ("GPG_DISABLE_SIG", None, "gpg_disable", yes, False),
        ("GPG_IGNORE_SIG_VERIFY_ERROR", None, "gpg_ignore", yes, False),
        ("GPG_REMOTE_ID", None, "gpg_ids", ids, None),
        ("GPG_FINGERPRINT_ID", None, "gpg_fingerprints", ids, None),
        ("GPG_HOME_DIR", None, "gpg_home", text, None),
        ("GPG_EXE", None, "gpg_exe", text, None),
        (None, "cut", "cut", yes, False),
        (None, "require_all", "require_all", yes, False),
        (None, "require_hint", "require_hint", yes, False),
        (None, "name", "name", _name, None),
        (None, "key_file", "key_file", text, None),
        (None, "ports", "ports", _names, ("firewall",)),
    ),
    (),
    (),
    "access",
)  # fmt: skip

# The attributes of a stanza that are simply what the table says.
_PLAIN_NAMES = (
    "name source destination open_ports restrict_ports timeout max_timeout require_source require_user expires "
    "cmd_exec exec_user exec_group sudo sudo_user sudo_group force_nat force_snat masquerade forward_all disable_dnat "
    "cut require_all require_hint gpg_home"
).split()
_NO_HINT = "require_hint: packets of GPG, or without HMAC, have no hints: add an HMAC key, or take this line out"
# How packets of 400 characters and more are opened; texts, but for the booleans and the tuples of allowed signers.
Gpg = namedtuple("Gpg", "decrypt_id password require_sig ignore_sig remote_ids fingerprints home exe")


class Stanza:
    """One stanza. `key_file` is (path, "FILE:LINE") and `keys` None until `complete` was given what the file holds."""

    if compat.TYPE_CHECKING:

        def __getattr__(self, name): ...  # what KEYWORDS lists

    def __init__(self, entries, where, warn=None):
        self.where = where
        self.number = 0  # the reader counts
        self._warn = warn
        self._entries = entries
        self._parse(entries)

    def complete(self, read, local):
        """Takes in the key file, by `read(path, where, warn)` -> entries, and shifts a date by `local(epoch)`."""
        if self.key_file is not None:
            whole: list = []
            for entry in self._entries:
                whole += read(entry[1], entry[2], self._warn) if entry[0] == "key_file" else [entry]
            self._entries = whole
            self._parse(whole)
        if isinstance(self._expiry, tuple):
            self.expires = local(self._expiry[0])
        self._warn = None
        if compat.MICROPYTHON:  # only `compile` wants them, on a computer
            self._entries = None

    def equip(self, home, exe):
        """Fills in the daemon's own keyring and gpg where the stanza names none."""
        gpg = self.gpg
        if gpg is not None:
            self.gpg: Gpg | None = Gpg(*gpg[:6], gpg.home or home, gpg.exe or exe)

    def entries(self):
        """Returns the entries that this was made of, key files taken in."""
        return self._entries

    def _parse(self, entries):
        for name, value, where in entries:
            if name in _SECRETS and value.strip().upper() == "__CHANGEME__":
                raise ConfigError(where, _UNCHANGED % (name, entries[0][1], where.rpartition(":")[0]))
        values, places = KEYWORDS.read(entries, self._warn)
        for name in _PLAIN_NAMES:
            setattr(self, name, values[name])
        self.ports, self._expiry = values["ports"], values["expires"]
        self.key_file = (values["key_file"], places["key_file"]) if values["key_file"] else None
        self.gpg = None if self.key_file else _gpg(values, places, self.where)
        self.keys = None if self.key_file else self._keys(values, places)
        self.cycle = _cycle(values, places, self.where)
        if self.cycle is not None:
            self.timeout = values["cycle_timer"] or values["timeout"]
        self._translate(values, places)
        if self.require_hint and (self.gpg or (self.keys and self.keys.hmac_key is None)):
            raise ConfigError(places["require_hint"], _NO_HINT)
        if self._warn is not None:
            self._remark(places)

    def _translate(self, values, places):
        """Sees that source translation has something to go with; raises ConfigError."""
        if self.force_snat or self.masquerade:
            if not (values["force_nat"] or self.forward_all):
                where = places.get("force_snat") or places["masquerade"]
                raise ConfigError(where, "FORCE_SNAT and FORCE_MASQUERADE need FORCE_NAT or FORWARD_ALL: add one")
            self.force_nat = values["force_nat"] or ("0.0.0.0", 0)

    def _keys(self, values, places):
        """Returns the Keys, once they can be those of a stanza; raises ConfigError."""
        key, hmac_key, mode = values["key"], values["hmac_key"], values["mode"]
        if key is None and self.gpg is None:
            reason = "[*] No keys found for access stanza source: add KEY_BASE64 (`tinyknop keygen` makes one)"
            raise ConfigError(self.where, reason)
        if mode == "asymmetric":
            if self.gpg is None:
                raise ConfigError(
                    places["mode"], "ENCRYPTION_MODE: asymmetric is for GPG: add GPG_DECRYPT_PW, or use cbc"
                )
            key, mode = None, "cbc"
        if mode == "legacy" and key and len(key) > _LEGACY_KEY:
            reason = "a key of the legacy mode has at most 16 bytes: shorten it, or use cbc"
            if self._warn is None:
                raise ConfigError(places["key"], reason)
            self._warn("%s: %s (it is cut)" % (places["key"], reason))
            key = key[:_LEGACY_KEY]
        for name, material, longest in (("key", key, LONGEST_KEY), ("hmac_key", hmac_key, LONGEST_HMAC_KEY)):
            if material is not None and len(material) > longest:
                reason = "a key for this has at most %d bytes, this one %d: make one with `tinyknop keygen`"
                if self._warn is None:
                    raise ConfigError(places[name], reason % (longest, len(material)))
                self._warn("%s: %s (no packet can be for it)" % (places[name], reason % (longest, len(material))))
        if hmac_key is not None and hmac_key in (key, self.gpg and self.gpg.password.encode()):
            raise ConfigError(places["hmac_key"], "key and HMAC key should not be identical: make another HMAC key")
        return Keys(key=key, hmac_key=hmac_key, mode=mode, hmac=values["hmac"])

    def _remark(self, places):
        """Warns of what fwknopd warns of."""
        if not self.require_source:
            source = [entry[1] for entry in self._entries if entry[0] == "SOURCE"] or ["ANY"]
            text = "%s: Warning: REQUIRE_SOURCE_ADDRESS not enabled for access stanza source: '%s'"
            self._warn(text % (self.where, source[0]))
        if self.max_timeout is not None and self.max_timeout < self.timeout:
            text = (
                "%s: Warning: MAX_FW_TIMEOUT < FW_ACCESS_TIMEOUT, honoring MAX_FW_TIMEOUT: raise it, or lower the other"
            )
            self._warn(text % places["max_timeout"])


def _cycle(values, places, where):
    """Returns (open, close) of a command cycle, close None where nothing closes; None where there is no cycle."""
    opening, closing = values["cycle_open"], values["cycle_close"]
    if opening is None and closing is None:
        return None
    if opening is None or closing is None:
        raise ConfigError(where, "CMD_CYCLE_OPEN and CMD_CYCLE_CLOSE need each other: add the other, or CLOSE NONE")
    if closing[:4] == "NONE":
        return opening, None
    if values["cycle_timer"] is None:
        raise ConfigError(places["cycle_close"], "CMD_CYCLE_CLOSE needs CMD_CYCLE_TIMER: add it, in seconds")
    return opening, closing


def _gpg(values, places, where):
    """Returns the Gpg of a stanza, or None for one without; raises ConfigError."""
    password = values["gpg_password"]
    if password is None and not values["gpg_no_password"]:
        return None
    if not values["gpg_disable"] and not values["gpg_ids"] and not values["gpg_fingerprints"]:
        raise ConfigError(where, "GPG needs the signers' GPG_FINGERPRINT_ID (or GPG_REMOTE_ID), or GPG_DISABLE_SIG Y")
    signed = values["gpg_require"] or not values["gpg_disable"]
    rest = [values[name] for name in ("gpg_ignore", "gpg_ids", "gpg_fingerprints", "gpg_home", "gpg_exe")]
    return Gpg(values["gpg_decrypt_id"], "" if values["gpg_no_password"] else password, signed, *rest)
