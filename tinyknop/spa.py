"""The codec: a Packet's fields to and from the plain text that is encrypted (protocol sections 2 to 6).

Each field has one check, used in both directions, so nothing can be made here that would be refused here.
"""

import binascii

from . import compat, crypto, net
from .errors import Rejected

COMMAND, ACCESS, NAT, ACCESS_TIMEOUT, NAT_TIMEOUT, LOCAL_NAT, LOCAL_NAT_TIMEOUT = range(7)
_NAT_TYPES = (NAT, NAT_TIMEOUT, LOCAL_NAT, LOCAL_NAT_TIMEOUT)
_TIMEOUT_TYPES = (ACCESS_TIMEOUT, NAT_TIMEOUT, LOCAL_NAT_TIMEOUT)
_WITH_TIMEOUT = {ACCESS: ACCESS_TIMEOUT, NAT: NAT_TIMEOUT, LOCAL_NAT: LOCAL_NAT_TIMEOUT}
_WITHOUT_TIMEOUT = {ACCESS_TIMEOUT: ACCESS, NAT_TIMEOUT: NAT, LOCAL_NAT_TIMEOUT: LOCAL_NAT}

BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_DIGITS = b"0123456789"
_NOT_IN_USER = b'"/\\[]:;|=,+*?<>'
_NOT_IN_HOST = b" /?\"'\\"

RAND_LENGTH = 16
LONGEST_USER = 48  # bytes: 64 base64 characters, all that the C decoder takes, although its encoder writes 63
LONGEST_VERSION = 8
LONGEST_MESSAGE = 192  # bytes: 256 base64 characters
LONGEST_NAT = 127
LONGEST_HOST = 70
LONGEST_AUTH = 63
LAST_TIMESTAMP = 0x7FFFFFFF  # the C decoder reads a signed 32-bit number
LONGEST_TIMEOUT = 65536  # seconds
SHORTEST_PLAIN, LONGEST_PLAIN = 36, 1499
MOST_COLONS = 11  # where the C decoder stops counting; what follows cannot match as a digest

# Digest names by the length of their base64 text; SHA-2 is tried before SHA-3 where they share one.
_BY_LENGTH = {22: ("md5",), 27: ("sha1",), 43: ("sha256", "sha3_256"), 64: ("sha384",), 86: ("sha512", "sha3_512")}


class Packet:
    """The fields of one SPA packet; absent text is None, an absent timeout 0 (seconds).

    `message_type` None is chosen from the other fields, and a given one follows them as protocol section 4 says.
    """

    def __init__(
        self,
        message: "str | None" = None,
        username: "str | None" = "NO_USER",
        rand: "str | None" = None,
        timestamp: "int | None" = None,
        version: str = "3.0.0",
        message_type: "int | None" = None,
        nat_access: "str | None" = None,
        server_auth: "str | None" = None,
        client_timeout: int = 0,
        digest: "str | None" = None,
        digest_type: "str | None" = None,
    ) -> None:
        self.message = message
        self.username = username
        self.rand = _random_digits() if rand is None else rand
        self.timestamp = compat.wall() if timestamp is None else timestamp
        self.version = version
        self.nat_access = nat_access
        self.server_auth = server_auth
        self.message_type = _type_for(message_type, nat_access, client_timeout)
        self.client_timeout = client_timeout if self.message_type != COMMAND else 0
        self.digest = digest
        self.digest_type = digest_type

    def __repr__(self) -> str:
        return "Packet(message_type=%r, username=%r, timestamp=%r)" % (
            self.message_type,
            self.username,
            self.timestamp,
        )


def _type_for(kind: "int | None", nat_access: "str | None", timeout: int) -> int:
    if kind is None:
        kind = ACCESS
    if nat_access is not None and kind not in _NAT_TYPES:
        kind = NAT
    return _WITH_TIMEOUT.get(kind, kind) if timeout else _WITHOUT_TIMEOUT.get(kind, kind)


def _random_digits() -> str:
    """Returns 16 random decimal digits; bytes of 250 and more are thrown away, so each digit is as likely."""
    digits = ""
    while len(digits) < RAND_LENGTH:
        digits += "".join([str(byte % 10) for byte in compat.urandom(20) if byte < 250])
    return digits[:RAND_LENGTH]


def to_base64(data: bytes) -> bytes:
    """Returns base64 without padding, as bytes."""
    return binascii.b2a_base64(data).rstrip(b"\n=")


def from_base64(text: bytes) -> bytes:
    """Returns the bytes of unpadded base64 whose alphabet has been checked; spare bits are dropped as in C."""
    if len(text) % 4 == 1:
        text = text[:-1]
    return binascii.a2b_base64(text + b"=" * (-len(text) % 4))


def compose(packet: Packet, name: str) -> bytes:
    """Returns the plain text of a packet, its digest of that name included, as bytes; raises Rejected."""
    if name not in crypto.NAMES:
        raise Rejected("digest", "no such digest; use one of " + " ".join(crypto.NAMES))
    fields = _encoded(packet)
    plain = b":".join(fields)
    return plain + b":" + to_base64(crypto.digest(name, plain))


def _encoded(packet: Packet) -> "list[bytes]":
    kind = packet.message_type
    if kind not in range(7):
        raise Rejected("type", "the message type is a number from 0 to 6")
    rand = _bytes(packet.rand, "fields")
    if len(rand) != RAND_LENGTH or not compat.only_in(rand, _DIGITS):
        raise Rejected("fields", "the random value is 16 decimal digits")
    user = _bytes(packet.username, "username")
    _check_user(user)
    if not isinstance(packet.timestamp, int) or not 0 <= packet.timestamp <= LAST_TIMESTAMP:
        raise Rejected("timestamp", "the timestamp is seconds from 0 to 2147483647")
    version = _bytes(packet.version, "version")
    if not 1 <= len(version) <= LONGEST_VERSION or b":" in version or not _printable(version):
        raise Rejected("version", "the version is 1 to 8 printable characters without a colon")
    message = _bytes(packet.message, "message")
    _check_message(message, kind, True)
    fields = [rand, to_base64(user), b"%d" % packet.timestamp, version, b"%d" % kind, to_base64(message)]
    if kind in _NAT_TYPES:
        nat = _bytes(packet.nat_access, "nat")
        _check_nat(nat, LONGEST_NAT)
        fields.append(to_base64(nat))
    if packet.server_auth is not None:
        auth = _bytes(packet.server_auth, "server_auth")
        if not 1 <= len(auth) <= LONGEST_AUTH or b"\0" in auth:
            raise Rejected("server_auth", "server auth is 1 to 63 bytes, none of them zero")
        fields.append(to_base64(auth))
    if kind in _TIMEOUT_TYPES:
        if not isinstance(packet.client_timeout, int) or not 0 <= packet.client_timeout <= LONGEST_TIMEOUT:
            raise Rejected("timeout", "the client timeout is seconds from 0 to 65536")
        fields.append(b"%d" % packet.client_timeout)
    return fields


def parse(plain: bytes, ipv6: bool = False) -> Packet:
    """Returns the Packet in a decrypted plain text; raises Rejected at the stages decrypt to timeout, in order.

    `ipv6` accepts an IPv6 address in the message, which fwknop does not know.
    """
    if len(plain) <= RAND_LENGTH or plain[RAND_LENGTH] != 0x3A or not compat.only_in(plain[:RAND_LENGTH], _DIGITS):
        raise Rejected("decrypt", "what comes out is not an SPA message: another key or mode")
    zero = plain.find(b"\0")
    if not _printable(plain if zero < 0 else plain[:zero]):
        raise Rejected("fields", "a byte that is not printable")
    fields = plain.split(b":", MOST_COLONS)
    if len(fields) < 7:
        raise Rejected("fields", "too few fields")
    digest_type = _digest_of(plain, fields[-1])
    if zero >= 0:
        raise Rejected("fields", "a zero byte")
    user = _field(fields[1], 64, "username")
    _check_user(user)
    timestamp = _number(fields[2], 12, LAST_TIMESTAMP, "timestamp")
    if not 1 <= len(fields[3]) <= LONGEST_VERSION:
        raise Rejected("version", "the version is 1 to 8 characters")
    kind = _number(fields[4], 1, 6, "type")
    message, nat, auth, timeout = _rest(fields[5:-1], kind, ipv6)
    packet = Packet(
        _text(message, "message"),
        _text(user, "username"),
        _text(fields[0], "fields"),
        timestamp,
        _text(fields[3], "version"),
        kind,
        nat,
        auth,
        timeout,
        _text(fields[-1], "digest"),
        digest_type,
    )
    packet.message_type = kind
    return packet


def _rest(fields, kind, ipv6):
    """Returns (message, nat, server auth, timeout) of the fields after the type (protocol section 4)."""
    with_nat, with_timeout = kind in _NAT_TYPES, kind in _TIMEOUT_TYPES
    if len(fields) > 2 + with_nat + with_timeout:
        raise Rejected("fields", "too many fields for message type %d" % kind)
    message = _field(fields[0], 256, "message")
    _check_message(message, kind, ipv6)
    fields = fields[1:]
    nat = auth = None
    late = b""
    if with_nat:
        nat = _field(fields[0] if fields else b"", 256, "nat")
        _check_nat(nat, 192)
        nat = _text(nat, "nat")
        fields = fields[1:]
    if with_timeout and fields:
        late = fields[-1]
        fields = fields[:-1]
    if fields:
        auth = _field(fields[0], 256, "server_auth")
    timeout = _number(late, 5, LONGEST_TIMEOUT, "timeout") if with_timeout else 0
    return message, nat, auth and _text(auth, "server_auth"), timeout


def _digest_of(plain, text):
    """Returns the name of the digest that matches `text`, the last field of `plain`."""
    covered = plain[: len(plain) - len(text) - 1]
    for name in _BY_LENGTH.get(len(text), ()):
        if crypto.equal(to_base64(crypto.digest(name, covered)), text):
            return name
    raise Rejected("digest", "the digest inside does not match")


def _field(text, longest, stage):
    """Returns the bytes of a base64 field, none of them zero (a C string would end there)."""
    if not 1 <= len(text) <= longest:
        raise Rejected(stage, "missing" if not text else "longer than %d characters" % longest)
    if not compat.only_in(text, BASE64):
        raise Rejected(stage, "not base64")
    data = from_base64(text)
    if not data or b"\0" in data:
        raise Rejected(stage, "empty, or a zero byte inside")
    return data


def _number(text, longest, top, stage):
    """Returns a field of plain digits; anything `int` would be lenient about is refused."""
    if not 1 <= len(text) <= longest or not compat.only_in(text, _DIGITS) or int(text) > top:
        raise Rejected(stage, "not a number from 0 to %d" % top)
    return int(text)


def _text(data, stage):
    try:
        return data.decode()
    except UnicodeError:
        raise Rejected(stage, "not UTF-8")


def _bytes(text, stage):
    """Returns the UTF-8 bytes of a field to be sent."""
    if not isinstance(text, str):
        raise Rejected(stage, "missing")
    try:
        return text.encode()
    except UnicodeError:
        raise Rejected(stage, "not UTF-8")


def _printable(data):
    return not data or (min(data) >= 0x20 and max(data) <= 0x7E)


def _check_user(user):
    if not 1 <= len(user) <= LONGEST_USER:
        raise Rejected("username", "a user name is 1 to 48 bytes")
    if not _printable(user) or any([byte in _NOT_IN_USER for byte in user]):
        raise Rejected("username", "a character that user names cannot have")


def _check_message(message, kind, ipv6):
    """Holds a message to the grammar of its type (protocol section 5); raises Rejected("message", ...)."""
    if not 1 <= len(message) <= LONGEST_MESSAGE:
        raise Rejected("message", "a message is 1 to 192 bytes")
    comma = message.find(b",")
    if comma < 0 or comma == len(message) - 1 or b"\0" in message:
        raise Rejected("message", "an address, a comma and what is asked for")
    try:
        if len(net.packed(message[:comma].decode())) == 16 and not ipv6:
            raise ValueError("fwknop knows no IPv6 address here")
        if kind != COMMAND:
            net.openings(message[comma + 1 :].decode())
    except ValueError as error:
        raise Rejected("message", str(error) if kind != COMMAND else "no address before the comma")


def _check_nat(nat, longest):
    """Holds a NAT target to the grammar `host,port`; the host is hostile text still, and is parsed again in use."""
    if not 1 <= len(nat) <= longest or nat.count(b",") != 1:
        raise Rejected("nat", "a NAT target is an address or name, a comma and a port")
    host, port = nat.split(b",")
    if len(host) > LONGEST_HOST or b"\0" in nat or any([byte in _NOT_IN_HOST for byte in host]):
        raise Rejected("nat", "a character that a NAT host cannot have, or more than 70 of them")
    if not 1 <= len(port) <= 5 or not compat.only_in(port, _DIGITS) or not 1 <= int(port) <= 65535:
        raise Rejected("nat", "a NAT port is a number from 1 to 65535")
