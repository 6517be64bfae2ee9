"""The back ends of crypto give the bytes of the standards, with the runtime's own hashes and AES and without them."""

import hashlib
from binascii import b2a_base64, hexlify, unhexlify

from tinyknop import crypto
from tinyknop.crypto import aes, small

# The digest over the digests of messages of 0 to 299 bytes, so that every padding is met; made by OpenSSL.
DIGESTS = (
    ("md5", "07078cab541bc45f0a66e2c0213a32f4"),
    ("sha1", "dfc942b5ddc5fe6421ccada9be50fa42e873926c"),
    ("sha256", "d5238871a46ac4a1a75ac3fb19d645b0b3b9e5f35f5f720e2b240d605c6b694e"),
    ("sha384", "e3a73ee7e40ce4f9bb660f1ec279e2e3145ce11a3d066daaf5ba43639ef37a5e105d92e2090d8f782a96ca4c97457b29"),
    (
        "sha512",
        "30d6c78a55e1f152f00703601a37b39b96c6c8fa2b3e66fb9c8182466b108d39d5dd84827c69cadb4376853da7ec31ea83a0a7a0e5a713bac426e0f0ceea8424",
    ),
    ("sha3_256", "dabd5ac39c87c1b00c4e69fda62098b8ab8cbe822a59392a3c8c70a4f147cde0"),
    (
        "sha3_512",
        "0493bb1ed8a67423b47070272de6694f08760209bb73a028830c7546427a73465bfd9ffab0eeb9e34ace03bf29ef4584dd137fdd2e6cd64aae3a56d203cef640",
    ),
)

KEY = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4"
PLAIN = (
    "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"
    "30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710"
)
# NIST SP 800-38A, appendix F, AES-256.
SEALED = (
    (
        "ecb",
        "f3eed1bdb5d2a03c064b5a7e3db181f8591ccb10d410ed26dc5ba74a31362870"
        "b6ed21b99ca6f4f9f153e7b1beafed1d23304b7a39f9f3ff067d8d8f9e24ecc7",
    ),
    (
        "cbc",
        "f58c4c04d6e5f1ba779eabfb5f7bfbd69cfc4e967edb808d679f777bc6702c7d"
        "39f23369a9d9bacfa530e26304231461b2eb05e2c39be9fcda6c19078c6a9d1b",
    ),
    (
        "cfb",
        "dc7e84bfda79164b7ecd8486985d386039ffed143b28b1c832113c6331e5407b"
        "df10132415e54b92a13ed0a8267ae2f975a385741ab9cef82031623d55b1e471",
    ),
    (
        "ofb",
        "dc7e84bfda79164b7ecd8486985d38604febdc6740d20b3ac88f6ad82a4fb08d"
        "71ab47a086e86eedf39d1c5bba97c4080126141d67f37be8538f5a8be740e484",
    ),
    (
        "ctr",
        "601ec313775789a5b7a7f504bbf3d228f443e3ca4d62b59aca84e990cacaf5c5"
        "2b0930daa23de94ce87017ba2d84988ddfc9c58db67aada613c2dd08457941a6",
    ),
)

TEXT = (
    b"U2FsdGVkX18BI0VniavN78X5I/gPMNRYmOnDW/HbwRVCYQd4NOQavcNLg4KP9xDWCKFH0jj9kXWJ8sYFoQZnTaQsg4JgbQlQ1iIOBZZdXOxoUVOo"
    b"HPOS/tmN/ryuLdHwLhsIC9t0PwtgY+qSj/Omj20++2YGw6e5Wb/Dhe0eNYs"
)
SHORT = b"an example HMAC key, 32 bytes ok"
# The worked example of the protocol specification: name, key, the HMAC of TEXT in base64 as SPA writes it.
MACS = (
    ("md5", SHORT, "lyRhR+MOewQ4bi1mCn0SZA"),
    ("sha1", SHORT, "3Gh/B8DcGDBRKYkWyGXWd4SpQfU"),
    ("sha256", SHORT, "vKICkvFf0cz2CbqJGMRUBf9bnwwPkwUrm9EXv7yNJs4"),
    ("sha384", SHORT, "vgO/nWZ5+xI4RcxxEfX2RwSFjwTXROm6AkzDu/1B7G5Yp/eDu9fqc9h+tHYuvriz"),
    ("sha512", SHORT, "vBABJH4nVh7KTv+qYg87vseUJOh+ttBmj0T96iVIxOGOWV0F4qfDi1Lk3GQJIK23WQsJCX4yK6WupiyfM83pvA"),
    ("sha3_256", SHORT, "bAkbfu7ZpF5Ad4N66T7J5E9nvPPZQXXoOgqsoiQ/EZI"),
    ("sha3_512", SHORT, "FGV/LlyDU6lGoEofJ5Zns+j0jW3yJNBeC1xPSYDI/RBmy9puCwEb3mIGqH90Gvxc5wW8P9qMixMm0RpRKGHhOw"),
    ("sha3_512", b"a" * 100, "6HC91mJtQJC0ghe2YrklEZ9Cgv4LpeynWu+pkDCnUdosq2z3P2BDQUJhI5CjgKiMcdlgg7GvGvgMNBWtrMyq+A"),
    ("sha3_256", b"a" * 136, "53DddDkeBrMaufvlJmCHLbGZqLIrF+Z1R5dOCeco+qc"),
)


class Sha256Only:
    """What MicroPython's smallest builds have for hashlib."""

    sha256 = hashlib.sha256


def hidden(check, *args):
    """Runs a check of the small back end with all hidden that the runtime need not have."""
    before = small.hashlib, small._aes
    small.hashlib, small._aes = Sha256Only, None
    try:
        check(*args)
    finally:
        small.hashlib, small._aes = before


def check_digests(backend):
    for name, expected in DIGESTS:
        parts = [backend.digest(name, bytes([i * 7 + n & 255 for i in range(n)])) for n in range(300)]
        assert hexlify(backend.digest(name, b"".join(parts))).decode() == expected, name
        assert len(parts[0]) == crypto.SIZES[name], name


def check_macs(backend):
    for name, key, expected in MACS:
        function = backend.mac(name, key)
        for _ in range(2):  # a prepared state must not change by use
            found = function(TEXT)
            assert b2a_base64(found).rstrip(b"\n=").decode() == expected, name
            assert len(found) == crypto.SIZES[name], name


def check_modes(backend):
    key, plain = unhexlify(KEY), unhexlify(PLAIN)
    for mode, expected in SEALED:
        iv = bytes(range(0xF0, 0x100)) if mode == "ctr" else bytes(range(16))
        sealed = backend.encrypt(mode, key, iv, plain)
        assert hexlify(sealed).decode() == expected, mode
        assert backend.decrypt(mode, key, iv, sealed) == plain, mode


def check_counter(backend):
    key, iv = bytes(32), b"\xff" * 16
    blocks = backend.encrypt("ecb", key, iv, iv + bytes(16))
    assert backend.encrypt("ctr", key, iv, bytes(32)) == blocks
    assert backend.decrypt("ctr", key, iv, bytes(32)) == blocks


def check_equal(backend):
    assert backend.equal(b"", b"")
    assert backend.equal(b"abc", b"abc")
    for other in (b"abd", b"bbc", b"ab", b"abcd", b""):
        assert not backend.equal(b"abc", other), other


def test_digests_are_right_at_every_length():
    check_digests(crypto)
    check_digests(small)


def test_digests_in_plain_python_are_right_at_every_length():
    hidden(check_digests, small)


def test_macs_are_those_of_the_worked_example_and_of_long_keys():
    check_macs(crypto)
    check_macs(small)
    hidden(check_macs, small)


def test_a_key_longer_than_a_block_is_hashed_first():
    for name in crypto.NAMES:
        key = b"k" * (crypto.BLOCKS[name] + 1)
        assert crypto.mac(name, key)(b"x") == crypto.mac(name, crypto.digest(name, key))(b"x"), name
        assert small.mac(name, key)(b"x") == crypto.mac(name, key)(b"x"), name


def test_modes_are_those_of_the_standard():
    check_modes(crypto)
    check_modes(small)
    hidden(check_modes, small)


def test_the_counter_wraps_at_128_bits():
    check_counter(crypto)
    check_counter(small)
    hidden(check_counter, small)


def test_nothing_encrypts_to_nothing():
    for mode, _ in SEALED:
        for function in (crypto.encrypt, crypto.decrypt, small.encrypt, small.decrypt):
            assert function(mode, bytes(32), bytes(16), b"") == b"", mode


def test_equal_sees_every_difference():
    check_equal(crypto)
    check_equal(small)


def test_a_plain_hash_goes_on_from_where_it_was_copied():
    for name in ("md5", "sha1", "sha384", "sha512", "sha3_256", "sha3_512"):
        one = small.plain(name)(b"a" * 150)
        two = one.copy()
        two.update(b"c")
        one.update(b"b")
        assert one.digest() == small.digest(name, b"a" * 150 + b"b"), name
        assert two.digest() == small.digest(name, b"a" * 150 + b"c"), name


def test_a_plain_key_both_encrypts_and_decrypts():
    key = aes.AES(unhexlify("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"))
    block = unhexlify("00112233445566778899aabbccddeeff")
    sealed = unhexlify("8ea2b7ca516745bfeafc49904b496089")  # FIPS 197, appendix C.3
    assert key.encrypt(block) == sealed
    assert key.decrypt(sealed) == block
