"""Sealing: plain text to the datagram on the wire and back (protocol sections 7 to 12).

`unseal` is `check` (length, alphabet, HMAC), then `decode` (decryption, fields); the gate looks for a replay between.
"""

from . import compat, crypto, spa
from .errors import Rejected

MODES = ("cbc", "ecb", "cfb", "ofb", "ctr", "legacy")
HEADER = b"Salted__"
PREFIX = b"U2FsdGVkX1"  # the base64 of the first 60 bits of every ciphertext, so it is not sent
SHORTEST_TEXT, LONGEST_TEXT = 36, 1499
GPG_PREFIX = b"hQ"  # the same of an OpenPGP message for an RSA key
GPG_LENGTH = 400  # from this many characters on the reference takes a packet for GPG
SALT_LENGTH = 8
LONGEST_KEY, LONGEST_HMAC_KEY = 32, 136
_LEGACY_KEY = 16  # bytes; the legacy mode fills shorter keys with the digit zero


class Keys:
    """What two sides share: encryption key, HMAC key (None: no HMAC), mode and HMAC names. Never raises.

    The HMAC's inner and outer states are made once, when first needed.
    """

    def __init__(self, key: "bytes | None", hmac_key: "bytes | None" = None, mode: str = "cbc", hmac: str = "sha256"):
        self.key = key
        self.hmac_key = hmac_key
        self.mode = mode
        self.hmac = hmac
        self.hmac_length = 0 if hmac_key is None else (8 * crypto.SIZES.get(hmac, 0) + 5) // 6
        self._mac = None

    def __repr__(self) -> str:
        return "Keys(mode=%r, hmac=%r)" % (self.mode, self.hmac if self.hmac_key is not None else None)

    def mac(self, text: bytes) -> bytes:
        """Returns the HMAC of a text in base64; raises Rejected("key", ...) for a key or name that cannot be."""
        if self._mac is None:
            if not isinstance(self.hmac_key, bytes) or not 1 <= len(self.hmac_key) <= LONGEST_HMAC_KEY:
                raise Rejected("key", "an HMAC key is 1 to 136 bytes")
            if self.hmac not in crypto.NAMES:
                raise Rejected("key", "no such HMAC; use one of " + " ".join(crypto.NAMES))
            self._mac = crypto.mac(self.hmac, self.hmac_key)
        return spa.to_base64(self._mac(text))  # type: ignore[misc]  # a function by now

    def derived(self, salt: bytes) -> "tuple[str, bytes, bytes]":
        """Returns the cipher's (mode, key, iv) for a salt; raises Rejected("key", ...)."""
        key, mode = self.key, self.mode
        if not isinstance(key, bytes) or not 1 <= len(key) <= LONGEST_KEY:
            raise Rejected("key", "an encryption key is 1 to 32 bytes")
        if mode not in MODES:
            raise Rejected("key", "no such encryption mode; use one of " + " ".join(MODES))
        if mode == "legacy":
            mode = "cbc"
            key += b"0" * (_LEGACY_KEY - len(key))
        out = last = b""
        while len(out) < 48:
            last = crypto.digest("md5", last + key + salt)
            out += last
        return mode, out[:32], out[32:]


def seal(packet: spa.Packet, keys: Keys, digest: str = "sha256", salt: "bytes | None" = None) -> bytes:
    """Returns the datagram of a packet, as bytes; raises Rejected at the stage that would refuse it.

    `salt` is 8 bytes, random unless given (tests, stanza hints).
    """
    plain = spa.compose(packet, digest)
    if salt is None:
        salt = compat.urandom(SALT_LENGTH)
    if len(salt) != SALT_LENGTH:
        raise Rejected("key", "a salt is 8 bytes")
    mode, key, iv = keys.derived(salt)
    pad = 16 - len(plain) % 16
    sealed = crypto.encrypt(mode, key, iv, plain + bytes([pad]) * pad)
    text = spa.to_base64(HEADER + salt + sealed)
    if keys.hmac_key is None:
        wire = text[len(PREFIX) :]
        _check_class(wire)
        return wire
    _check_class(text)
    return text[len(PREFIX) :] + keys.mac(text)


def unseal(data: bytes, keys: Keys, ipv6: bool = False) -> spa.Packet:
    """Returns the Packet in a datagram, or raises Rejected(stage, reason); nothing else is raised, whatever the bytes.

    `ipv6` accepts an IPv6 address in the message, which fwknop does not know.
    """
    return decode(check(data, keys), keys, ipv6)


def check(data: bytes, keys: Keys) -> bytes:
    """Returns the base64 text of a datagram, its prefix put back, once length, alphabet and HMAC hold."""
    length = len(data)
    if not SHORTEST_TEXT <= length <= LONGEST_TEXT:
        raise Rejected("length", "a packet is 36 to 1499 characters")
    if keys.hmac_key is None:
        _check_class(data)
        keys.derived(b"")
        if not compat.only_in(data, spa.BASE64):
            raise Rejected("charset", "a character outside base64")
        return PREFIX + data
    cut = length - keys.hmac_length
    keys.mac(b"")  # an impossible key is told before an impossible length
    if cut < SHORTEST_TEXT:
        raise Rejected("length", "less than 36 characters are left without the HMAC")
    if not compat.only_in(data[:cut], spa.BASE64):
        raise Rejected("charset", "a character outside base64")
    text = PREFIX + data[:cut]
    if not crypto.equal(keys.mac(text), data[cut:]):
        raise Rejected("hmac", "the HMAC does not match")
    _check_class(text)
    return text


def decode(text: bytes, keys: Keys, ipv6: bool) -> spa.Packet:
    """Returns the Packet in a text that `check` let through, so of 46 characters at least; raises Rejected."""
    data = spa.from_base64(text)
    if len(data) % 16:
        raise Rejected("decrypt", "not a whole number of blocks")
    # One packet has one spelling: else, without an HMAC, each other spelling would pass the replay check.
    if data[: len(HEADER)] != HEADER:
        raise Rejected("decrypt", "the header is not that of an SPA packet")
    if spa.to_base64(data) != text:
        raise Rejected("charset", "base64 with spare bits set")
    mode, key, iv = keys.derived(data[8:16])
    plain = crypto.decrypt(mode, key, iv, data[16:])
    pad = plain[-1]
    # As the C decoder: wrong padding is left in place; what then stays fails a later check.
    if 1 <= pad <= 16 and plain[-pad:] == bytes([pad]) * pad:
        plain = plain[:-pad]
    if len(plain) < spa.SHORTEST_PLAIN:
        raise Rejected("length", "a plain text is 36 bytes or more")
    return spa.parse(plain, ipv6)


def _check_class(text: bytes) -> None:
    if len(text) >= GPG_LENGTH:
        raise Rejected("length", "400 characters or more are taken for GPG")
