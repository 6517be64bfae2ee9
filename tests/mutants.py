"""Packets for differential tests: true ones, nearly true ones (sealed in order, wrong inside) and damaged ones.

`cases` is deterministic: the same seed gives the same packets, so that a find can be had again from two numbers.
"""

import base64
import random
from collections import namedtuple

from tinyknop import Keys, crypto
from tinyknop.seal import HEADER, MODES, PREFIX
from tinyknop.spa import to_base64

Case = namedtuple("Case", "how data key hmac_key mode hmac")
USERS = (b"alice", b"a b", b"x" * 48, b"x" * 49, b"a/b", b"", b"NO_USER", b"\xc3\xa9", b"a'b", b"\x01", b"a\x00b", b"~")
HOSTS = (
    "192.0.2.7",
    "0.0.0.0",
    "255.255.255.255",
    "1.2.3",
    "01.2.3.4",
    "1.2.3.4.5",
    "256.1.1.1",
    "",
    "::1",
    "a.b",
    "-1",
)
ASKS = (
    "tcp/22",
    "udp/53,tcp/22",
    "tcp/0",
    "tcp/65536",
    "icmp/1",
    "tcp/22,",
    "id",
    "\x01",
    "tcp/022",
    "tcp",
    "TCP/22",
    "/",
)
NATS = (
    "10.0.0.1,22",
    "host.example,8022",
    ",22",
    "a,0",
    "a,65536",
    "a",
    "a,1,2",
    "a b,1",
    "x" * 70 + ",1",
    "x" * 71 + ",1",
)
TIMEOUTS = (b"0", b"40", b"65536", b"65537", b"99999", b"-1", b"", b" 5", b"+5", b"007", b"5x", b"123456")
TIMES = (
    b"1700000000",
    b"0",
    b"2147483647",
    b"2147483648",
    b"-1",
    b"",
    b"17x",
    b" 17",
    b"0000000000017",
    b"17000000000",
)
VERSIONS = (b"3.0.0", b"2.0.1", b"  ", b"%s%n", b"123456789", b"", b"1")
KINDS = (b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"9", b"", b"1 ", b"01", b"-1", b"a")
ODD = (b"", b"=", b"a", b"AA", b"AAA", b"A" * 300, b"%$#", b"::", b"AAAA:AAAA", b"\x00", b"\xff", b" ", b"YWJj=")


def text_of(rng):
    """Returns the base64 of a message: mostly of one that fwknop takes."""
    usual = rng.random() < 0.7
    host, ask = ("192.0.2.7", rng.choice(ASKS[:2])) if usual else (rng.choice(HOSTS), rng.choice(ASKS))
    comma = "," if usual or rng.random() < 0.9 else rng.choice((";", "", ",,"))
    return to_base64((host + comma + ask).encode("latin-1") or b"x")


def fields_of(rng):
    """Returns the fields of a plain text, mostly in order, as a list of bytes."""
    usual = [rng.random() < 0.85 for _ in range(6)]
    kind = rng.choice(KINDS[:7]) if usual[0] else rng.choice(KINDS)
    fields = [
        b"".join([b"%d" % rng.randrange(10) for _ in range(16)]),
        to_base64(b"alice" if usual[1] else rng.choice(USERS)),
        b"1700000000" if usual[2] else rng.choice(TIMES),
        b"3.0.0" if usual[3] else rng.choice(VERSIONS),
        kind,
        text_of(rng),
    ]
    if (kind in (b"2", b"4", b"5", b"6")) != (rng.random() < 0.05):
        fields.append(to_base64((NATS[0] if usual[4] else rng.choice(NATS)).encode()))
    if rng.random() < 0.15:
        fields.append(to_base64(rng.choice((b"crypt,secret", b"x" * 63, b"x" * 64, b"\xff", b"a\x00", b"\n"))))
    if (kind in (b"3", b"4", b"6")) != (rng.random() < 0.05):
        fields.append(b"40" if usual[5] else rng.choice(TIMEOUTS))
    return fields


def plain_of(rng):
    """Returns a plain text with its digest; one in three has a fault more in a field or in its number of fields."""
    fields = fields_of(rng)
    fault = rng.random()
    if fault < 0.2:
        fields[rng.randrange(len(fields))] = rng.choice(ODD)
    elif fault < 0.25:
        fields.insert(rng.randrange(len(fields)), rng.choice(ODD))
    elif fault < 0.3:
        del fields[rng.randrange(len(fields))]
    elif fault < 0.33:
        fields += [b"AA"] * rng.randrange(1, 9)
    covered = b":".join(fields)
    digest = to_base64(crypto.digest(rng.choice(crypto.NAMES), covered))
    fault = rng.random()
    if fault < 0.04:
        digest = digest[:-1]
    elif fault < 0.08:
        digest = rng.choice((b"", b"A" * 43, digest + b"A", b"=" + digest[1:]))
    return covered + b":" + digest


def keys_of(rng):
    """Returns fresh keys, one in three without an HMAC."""
    hmac_key = (
        bytes(rng.randrange(1, 256) for _ in range(rng.choice((1, 16, 64, 65, 128)))) if rng.random() < 0.7 else None
    )
    key = bytes(rng.randrange(1, 256) for _ in range(rng.choice((1, 7, 16, 31, 32))))
    return Keys(key, hmac_key, rng.choice(MODES), rng.choice(crypto.NAMES))


def sealed(rng, plain, keys):
    """Returns the base64 of what `seal` makes of a plain text, whatever is in it; padding and header may be wrong."""
    salt = bytes(rng.randrange(256) for _ in range(8))
    mode, key, iv = keys.derived(salt)
    pad = 16 - len(plain) % 16
    padding = bytes([pad]) * pad
    if rng.random() < 0.04:
        padding = bytes(rng.randrange(256) for _ in range(pad - 1)) + bytes([rng.choice((0, 1, pad, 17))])
    header = HEADER if rng.random() < 0.97 else b"Salted_" + bytes([rng.choice((0x5C, 0x5E, 0x5F, 0x5B))])
    return to_base64(header + salt + crypto.encrypt(mode, key, iv, plain + padding))


def damaged(rng, text):
    """Returns a text with one of its characters, or its end, wrong."""
    place = rng.randrange(len(text))
    how = rng.random()
    if how < 0.5:
        return text[:place] + bytes([rng.choice(b"ABCZaz09+/=-_ \n\x00\xff")]) + text[place + 1 :]
    if how < 0.7:
        return text[: -rng.randrange(1, min(len(text), 70))]
    if how < 0.85:
        return text + rng.choice((b"=", b"==", b"A", b"AAAA", b"\x00", b"\n", b" "))
    return text[:place] + rng.choice((b"A", b"=", b"\x00", b"AB")) + text[place:]


def cases(seed, count):
    """Yields `count` cases: what was done to it, the datagram, and the keys of those who read it."""
    rng = random.Random(seed)
    for _ in range(count):
        keys = keys_of(rng)
        text = sealed(rng, plain_of(rng), keys)
        where = rng.random()
        how = "made"
        if where < 0.15:  # before the HMAC: whoever has the key sends it
            text, how = PREFIX + damaged(rng, text[len(PREFIX) :]), "damaged, then signed"
        data = text[len(PREFIX) :]
        if keys.hmac_key is not None:
            data += keys.mac(text)
        if where > 0.85 and len(data) > 1:
            data, how = damaged(rng, data), "damaged"
        yield Case(how, data, keys.key, keys.hmac_key, keys.mode, keys.hmac)


def words(case):
    """Returns a case as one line of words, for a reader without a JSON that knows bytes."""
    parts = [case.data, case.key, case.hmac_key or b""]
    return " ".join([base64.b16encode(part).decode() or "-" for part in parts] + [case.mode, case.hmac])
