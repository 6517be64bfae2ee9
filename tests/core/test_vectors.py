"""Every vector of tests/vectors: decoded to the fields, or refused at the stage, that the C library agreed to.

Each vector is one line of its file, read one at a time: a board cannot hold the whole.
"""

import hashlib
import json
from binascii import a2b_base64, unhexlify

from tinyknop import Keys, Packet, Rejected, crypto, seal, unseal
from tinyknop.crypto import small

FOLDER = __file__.rsplit("/", 1)[0] + "/../vectors/" if "/" in __file__ else "../vectors/"
STAGES = (
    "length key charset hmac decrypt fields digest username timestamp version type message nat server_auth timeout"
).split()
# A vector's fields that a Packet is made from; the digest is computed.
FIELDS = (
    "rand username timestamp version message_type message nat_access server_auth client_timeout digest digest_type"
).split()


class Sha256Only:
    """What MicroPython's smallest builds have for hashlib."""

    sha256 = hashlib.sha256


def each(name):
    with open(FOLDER + name) as file:
        for line in file:
            line = line.strip().rstrip(",")
            if line not in ("[", "]", ""):
                yield json.loads(line)


def opened(vector):
    """Returns a vector's Keys and its Packet, or the stage that refused it."""
    hmac_key = vector["hmac_key_b64"]
    keys = Keys(
        key=a2b_base64(vector["key_b64"]),
        hmac_key=None if hmac_key is None else a2b_base64(hmac_key),
        mode=vector["encryption_mode"],
        hmac=vector["hmac_type"] or "sha256",
    )
    try:
        return keys, unseal(bytes([ord(letter) for letter in vector["packet"]]), keys)
    except Rejected as refused:
        assert refused.stage in STAGES, (vector["id"], refused.stage)
        return keys, refused.stage


def expected(vector):
    fields = vector["expect"].copy()
    fields["digest_type"] = crypto.NAMES[fields["digest_type"] - 1]
    return fields


def check_positive(vector):
    keys, packet = opened(vector)
    name = vector["id"]
    if not keys.key:
        assert packet == "key", (name, packet)
        return
    if isinstance(packet, str):
        assert vector["strict_may_refuse"], (name, packet)
        return
    fields = expected(vector)
    for field in FIELDS:
        assert getattr(packet, field) == fields[field], (name, field, getattr(packet, field))
    digest = fields["digest_type"]
    fields["digest"] = fields["digest_type"] = None
    again = seal(Packet(**fields), keys, digest=digest, salt=unhexlify(vector["salt_hex"]))
    assert again.decode() == vector["packet"], name


def check_all():
    count = 0
    for vector in each("spa_vectors.json"):
        count += 1
        if vector["kind"] == "positive":
            check_positive(vector)
        else:
            stage = opened(vector)[1]
            assert stage == vector["expect_error"], (vector["id"], stage, vector["expect_error"])
    assert count == 672, count


def with_back_end(backend, check):
    """Runs a check with another back end in place of the one that `crypto` chose."""
    names = ("digest", "mac", "equal", "encrypt", "decrypt")
    before = [getattr(crypto, name) for name in names]
    try:
        for name in names:
            setattr(crypto, name, getattr(backend, name))
        check()
    finally:
        for name, function in zip(names, before):
            setattr(crypto, name, function)


def test_every_vector_holds_with_the_back_end_in_use():
    check_all()


def test_every_vector_holds_with_the_small_back_end():
    with_back_end(small, check_all)


def test_every_vector_holds_where_the_runtime_has_sha256_only():
    before = small.hashlib, small._aes
    small.hashlib, small._aes = Sha256Only, None
    try:
        with_back_end(small, check_all)
    finally:
        small.hashlib, small._aes = before


def test_what_only_the_c_decoder_tolerates_is_read_alike_or_refused_at_a_known_stage():
    count = 0
    for vector in each("spa_tolerated.json"):
        count += 1
        packet = opened(vector)[1]
        if isinstance(packet, str):
            continue
        fields = expected(vector)
        for field in FIELDS:
            assert getattr(packet, field) == fields[field], (vector["id"], field, getattr(packet, field))
    assert count == 21, count
