"""Builds one knock, sends it over UDP, and looks whether it was honoured.

Refuses to send what no server would take. Reads no terminal and runs nothing: `tinyknop.host.knock` does.
"""

import os
import socket
import time

from . import crypto, log, net, spa
from .compat import TYPE_CHECKING, monotonic, only_in, peer, urandom, wall
from .errors import ConfigError, Rejected
from .hints import hint
from .seal import GPG_LENGTH, LONGEST_KEY, MODES, Keys, seal

PORT = 62201
VERIFY_S = 10  # a slow router (serial console, see docs) needs some seconds to open
WIRE_LIMIT = GPG_LENGTH  # fwknopd measures the whole datagram, HMAC included (protocol section 9)

# What fwknop's rc file calls our settings.
RC_NAMES = {
    "SPA_SERVER": "host",
    "SPA_SERVER_PORT": "port",
    "ACCESS": "openings",
    "ALLOW_IP": "address",
    "FW_TIMEOUT": "timeout",
    "DIGEST_TYPE": "digest",
    "HMAC_DIGEST_TYPE": "hmac",
    "ENCRYPTION_MODE": "mode",
    "SPOOF_USER": "user",
}


def _text(text):
    if not text:
        raise ValueError("is empty")
    return text


def _number(top):
    def parse(text):
        if not text or len(text) > 6 or not only_in(text.encode(), b"0123456789") or int(text) > top:
            raise ValueError("%r is not a number from 0 to %d" % (text, top))
        return int(text)

    return parse


def _one_of(names):
    def parse(text):
        name = text.lower()
        if name not in names:
            raise ValueError("%r is not one of %s" % (text, ", ".join(names)))
        return name

    return parse


def _yes(text):
    if text.upper() not in ("Y", "N"):
        raise ValueError("%r is neither Y nor N" % text)
    return text.upper() == "Y"


def _address(text):
    """Returns "source", "resolve" or the canonical text of an address."""
    if text in ("source", "resolve"):
        return text
    try:
        return net.printed(net.packed(text))
    except ValueError as error:
        raise ValueError("%s, nor source, nor resolve" % error)


def _base64(text):
    """Returns the key in base64 text, padded or not."""
    bare = text.rstrip("=").encode()
    if not bare or not only_in(bare, spa.BASE64) or len(bare) % 4 == 1:
        raise ValueError("the key is not base64: make one with `tinyknop keygen`")
    key = spa.from_base64(bare)
    if spa.to_base64(key) != bare:
        raise ValueError("the key's base64 ends in stray bits: copy it again, whole")
    return key


# Setting -> (how its text is read, what it is where nobody sets it).
SETTINGS = {
    "host": (_text, None),
    "port": (_number(65535), PORT),
    "openings": (net.openings, None),
    "address": (_address, "source"),
    "timeout": (_number(spa.LONGEST_TIMEOUT), 0),
    "digest": (_one_of(crypto.NAMES), "sha256"),
    "hmac": (_one_of(crypto.NAMES), "sha256"),
    "mode": (_one_of(MODES), "cbc"),
    "user": (_text, "NO_USER"),
    "hints": (_yes, False),
    "verify": (_number(3600), None),
    "resolve_url": (_text, None),
    "key_file": (_text, None),
    "key": (str.encode, None),
    "key_base64": (_base64, None),
    "hmac_key": (str.encode, None),
    "hmac_key_base64": (_base64, None),
}
KEY_WORDS = ("key", "key_base64", "hmac_key", "hmac_key_base64")


class Target:
    """Where a knock goes and what it asks for: one attribute per name of SETTINGS, made from (name, text, where)."""

    if TYPE_CHECKING:

        def __getattr__(self, name): ...  # what SETTINGS lists

    def __init__(self, entries, where="target"):
        self.where = where
        self.places = {}
        for name in SETTINGS:
            setattr(self, name, SETTINGS[name][1])
        for name, text, place in entries:
            self.set(name, text, place)

    def set(self, name, text, place):
        """Reads one setting, which replaces an earlier one of that name; raises ConfigError naming its place."""
        plain = RC_NAMES.get(name.upper(), name.lower())
        if plain not in SETTINGS:
            known = ", ".join(sorted(SETTINGS))
            raise ConfigError(place, "%s: no such setting of a target; there are %s" % (name, known))
        try:
            setattr(self, plain, SETTINGS[plain][0](text))
        except ValueError as error:
            raise ConfigError(place, str(error) if place.startswith("--") else "%s: %s" % (name, error))
        self.places[plain] = place

    def place(self, name):
        """Returns where a setting was made, or the target's own place."""
        return self.places.get(name, self.where)

    def keys(self):
        """Returns the Keys, those of the key file included; raises ConfigError where there are none."""
        if self.key_file:
            for name, text, place in read_keys(self.key_file):
                if name not in self.places:  # what the target itself says comes first
                    self.set(name, text, place)
        key = self.key_base64 if self.key_base64 is not None else self.key
        hmac_key = self.hmac_key_base64 if self.hmac_key_base64 is not None else self.hmac_key
        if not key:
            raise ConfigError(
                self.where, "no key: make one with `tinyknop keygen -o FILE`, then name it by key_file or -k"
            )
        if len(key) > LONGEST_KEY:
            raise ConfigError(
                self.place("key_base64"), "the key has %d bytes; %d is the most" % (len(key), LONGEST_KEY)
            )
        return Keys(key=key, hmac_key=hmac_key or None, mode=self.mode, hmac=self.hmac)


def read_keys(path):
    """Returns the entries of a key file as `keygen` writes it; refuses one that others can read."""
    try:
        mode = os.stat(path)[0]
        with open(path, "rb") as file:
            data = file.read(65536)
    except OSError as error:
        raise ConfigError(path, "cannot read the key file (%s): make one with `tinyknop keygen -o %s`" % (error, path))
    if mode & 0o077:
        raise ConfigError(path, "others can read the key file: chmod 600 %s" % path)
    return parse_keys(data, path)


def parse_keys(data, path):
    """Returns (name, text, where) of the lines `KEY_BASE64: ...` of a key file's bytes."""
    entries = []
    number = 0
    for line in data.split(b"\n"):
        number += 1
        line = line.strip()
        if not line or line.startswith(b"#"):
            continue
        name, _, value = line.replace(b":", b" ", 1).partition(b" ")
        place = "%s:%d" % (path, number)
        try:
            entry = (name.decode().lower(), value.strip().decode(), place)
        except UnicodeError:
            raise ConfigError(place, "not text: a key file has lines such as KEY_BASE64: ...")
        if entry[0] not in KEY_WORDS:  # the line itself may be a key: never shown
            raise ConfigError(place, "not a line such as KEY_BASE64: ... or HMAC_KEY_BASE64: ...")
        entries.append(entry)
    if not entries:
        raise ConfigError(path, "no key in it: make one with `tinyknop keygen -o FILE`")
    return entries


def _sealed(target, keys, count, now):
    """Returns the datagram for the first `count` openings."""
    address = "0.0.0.0" if target.address == "source" else target.address
    wanted = ",".join(["%s/%d" % opening for opening in target.openings[:count]])
    packet = spa.Packet(
        message=address + "," + wanted, username=target.user, timestamp=now, client_timeout=target.timeout
    )
    salt = None
    if target.hints:
        random = urandom(5)
        salt = random[:4] + hint(keys.hmac_key, now) + random[4:]
    return seal(packet, keys, digest=target.digest, salt=salt)


def _fits(target, keys, count, now):
    try:
        return len(_sealed(target, keys, count, now)) < WIRE_LIMIT
    except Rejected:
        return False


def build(target, now=None):
    """Returns the knock's bytes as on the wire; raises ConfigError for what cannot be asked or is too large."""
    if not target.openings:
        raise ConfigError(target.where, 'nothing to open: say which, such as -A tcp/22 or openings = ["tcp/22"]')
    if target.address == "resolve":
        raise ConfigError(target.place("address"), "resolve: only the command line can ask for our outer address")
    keys = target.keys()
    if target.hints and not keys.hmac_key:
        raise ConfigError(target.place("hints"), "hints need an HMAC key: make a pair with `tinyknop keygen`")
    now = wall() if now is None else now
    if ":" in target.address:
        log.warning("%s is an IPv6 address: fwknopd refuses it, tinyknop does not", target.address)
    if not _fits(target, keys, 1, now):
        _sealed(target, keys, 1, now)  # says what is wrong, where it is not the size
        raise ConfigError(target.where, "not even one opening fits into a packet: use a shorter user or digest")
    count = len(target.openings)
    while not _fits(target, keys, count, now):
        count -= 1
    if count < len(target.openings):
        reason = "%d openings are too many for one packet, %d fit: knock twice"
        raise ConfigError(target.place("openings"), reason % (len(target.openings), count))
    return _sealed(target, keys, count, now)


def plain(host):
    """Returns a host's name as bytes, which need no IDNA (`compat.sockaddr`), or the text that does; UnicodeError."""
    name = host.encode()
    return name if len(name) == len(host) else host


def locate(host, port, kind=socket.SOCK_DGRAM, family=0):
    """Returns (family, socket address) of a host, IPv4 first as fwknop's packets are; raises ConfigError."""
    try:
        found = [(item[0], item[-1]) for item in socket.getaddrinfo(plain(host), port, family, kind)]
    except (OSError, UnicodeError, LookupError):  # LookupError: this Python has no IDNA
        found = []
    if not found:
        raise ConfigError(host, "the name does not resolve: check its spelling and the name server, or give an address")
    for item in found:
        if item[0] == socket.AF_INET:
            return item
    return found[0]


def send(data, place):
    """Sends the knock to what `locate` returned; raises ConfigError where the system has no way there."""
    family, address = place
    sender = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sender.sendto(data, address)
    except OSError as error:
        raise ConfigError(printed(place), "cannot send the knock (%s): check the route to it" % error)
    finally:
        sender.close()


def printed(place):
    """Returns the text of the address that `locate` found."""
    return net.printed(peer(place[1])[0])


def first_tcp(target):
    """Returns the port of the first TCP opening; raises ConfigError where only UDP is asked for."""
    for proto, port in target.openings or ():
        if proto == "tcp":
            return port
    raise ConfigError(
        target.place("openings"),
        "nothing to verify: only a TCP opening can show that it answers; give one, as -A tcp/22",
    )


def _answers(place, seconds):
    probe = socket.socket(place[0], socket.SOCK_STREAM)
    try:
        probe.settimeout(seconds)
        probe.connect(place[1])
        return True
    except OSError:  # refused, unreachable or no answer: all mean not yet
        return False
    finally:
        probe.close()


def verify(place, port, seconds):
    """Waits until a TCP port of the knocked host answers; returns the milliseconds it took, or None."""
    started = monotonic()
    goal = locate(printed(place), port, socket.SOCK_STREAM, place[0])
    patience = 250  # ms; a SYN that the firewall dropped is sent anew by the next try, not by the kernel a second later
    while True:
        left = started + seconds * 1000 - monotonic()
        if left <= 0:
            return None
        if _answers(goal, min(left, patience) / 1000):
            return monotonic() - started
        patience = min(2 * patience, 4000)
        time.sleep(min(left, 50) / 1000)
