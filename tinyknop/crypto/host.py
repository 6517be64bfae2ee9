"""The back end of CPython: hashlib for digests and HMACs, pycryptodome for AES (imported at first use: 4 MB)."""

import hashlib
from _operator import _compare_digest as equal  # noqa: F401  (part of the interface; hmac would cost an import)

_BLOCKS = {"sha384": 128, "sha512": 128, "sha3_256": 136, "sha3_512": 72}
_found: list = []  # what `_aes` returns, once it was asked
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def digest(name, data):
    """Returns the digest of `data` under one of `crypto.NAMES`."""
    return _new(name)(data).digest()


def mac(name, key):
    """Returns a function from bytes to their HMAC (RFC 2104); the key is hashed here, once, not per call."""
    new = _new(name)
    block = _BLOCKS.get(name, 64)
    if len(key) > block:
        key = new(key).digest()
    key += bytes(block - len(key))
    inner = new(key.translate(_INNER)).copy
    outer = new(key.translate(_OUTER)).copy

    def authenticate(data):
        state = inner()
        state.update(data)
        last = outer()
        last.update(state.digest())
        return last.digest()

    return authenticate


def encrypt(mode, key, iv, data):
    """Returns `data`, whole 16-byte blocks, encrypted by AES-256 in mode ecb, cbc, cfb, ofb or ctr."""
    aes = _aes()
    return _cipher(aes, mode, key, iv).encrypt(data) if aes else _small().encrypt(mode, key, iv, data)


def decrypt(mode, key, iv, data):
    """Returns what `encrypt` made into `data`."""
    aes = _aes()
    return _cipher(aes, mode, key, iv).decrypt(data) if aes else _small().decrypt(mode, key, iv, data)


def _new(name):
    return getattr(hashlib, name)


def _aes():
    """Returns pycryptodome's AES; None where it is not installed, and plain Python does, more slowly."""
    if not _found:  # to ask again would cost a tenth of what deciphering does
        _found.append(None)
        for package in ("Crypto", "Cryptodome"):  # the second is what Debian's own package is called
            try:
                _found[0] = __import__(package + ".Cipher.AES", None, None, ("new",))
                break
            except ImportError:
                pass
    return _found[0]


def _small():
    from . import small

    return small


def _cipher(aes, mode, key, iv):
    if mode == "ecb":
        return aes.new(key, aes.MODE_ECB)
    if mode == "ctr":
        return aes.new(key, aes.MODE_CTR, nonce=b"", initial_value=iv)
    if mode == "cfb":
        return aes.new(key, aes.MODE_CFB, iv=iv, segment_size=128)
    return aes.new(key, aes.MODE_OFB if mode == "ofb" else aes.MODE_CBC, iv=iv)
