"""The back end of boards and small routers: the runtime's own hashes and AES where it has them, plain Python otherwise.

A plain one is a module of its own, imported when it is first asked for. Nothing here is quick or hardened like C:
plain AES looks its tables up by secret bytes, so use it only where nobody else can time the machine's cache.
"""

import hashlib

from . import BLOCKS

try:
    from cryptolib import aes as _aes
except ImportError:
    _aes = None

# Which module holds a hash that MicroPython's builds may lack. All have SHA-256.
_PLAIN = {"md5": "md5", "sha1": "sha1", "sha384": "sha512", "sha512": "sha512", "sha3_256": "sha3", "sha3_512": "sha3"}

try:
    from _operator import _compare_digest as equal
except ImportError:

    def equal(ours, theirs):  # type: ignore[no-redef]
        """Tells whether two byte strings are the same, in a time that does not depend on where they differ."""
        differs = len(ours) ^ len(theirs)
        for one, other in zip(ours, theirs):
            differs |= one ^ other
        return differs == 0


class Hash:
    """A hash in plain Python, used like those of hashlib, with the copy() that MicroPython's own lack.

    An algorithm is (compress, state, block, padding, output): its step, where that starts, the bytes it takes,
    what ends a message of n bytes, and how the digest is read from the last state.
    """

    def __init__(self, algorithm, data=b""):
        self.algorithm = algorithm
        self.state = algorithm[1]
        self.rest = b""
        self.length = 0
        self.update(data)

    def update(self, data):
        """Takes more of the message."""
        self.length += len(data)
        self._compress(self.rest + data if self.rest else data)

    def digest(self):
        """Returns the digest; like MicroPython's, it ends the message."""
        self._compress(self.rest + self.algorithm[3](self.length))
        return self.algorithm[4](self.state)

    def copy(self):
        """Returns a second hash that has seen the same bytes."""
        other = Hash(self.algorithm)
        other.state, other.rest, other.length = self.state, self.rest, self.length
        return other

    def _compress(self, data):
        compress, _, block, _, _ = self.algorithm
        state = self.state
        whole = len(data) - len(data) % block
        for at in range(0, whole, block):
            state = compress(state, data, at)
        self.state = state
        self.rest = data[whole:]


def plain(name):
    """Returns the constructor of a hash in plain Python, called like `hashlib.md5`."""
    algorithm = getattr(_module(_PLAIN[name]), name.upper())
    return lambda data=b"": Hash(algorithm, data)


def hashes(name):
    """Returns a hash's constructor: the runtime's own where it has one."""
    return getattr(hashlib, name, None) or plain(name)


def digest(name, data):
    """Returns the digest of `data` under one of `crypto.NAMES`."""
    return hashes(name)(data).digest()


def mac(name, key):
    """Returns a function from bytes to their HMAC (RFC 2104); the key is hashed and padded here, not per call."""
    new = hashes(name)
    if len(key) > BLOCKS[name]:
        key = new(key).digest()
    key += bytes(BLOCKS[name] - len(key))
    inner = bytes([byte ^ 0x36 for byte in key])
    outer = bytes([byte ^ 0x5C for byte in key])
    if hasattr(new(b""), "copy"):
        return _copied(new(inner).copy, new(outer).copy)
    return lambda data: new(outer + new(inner + data).digest()).digest()


def encrypt(mode, key, iv, data):
    """Returns `data`, whole 16-byte blocks, encrypted by AES-256 in mode ecb, cbc, cfb, ofb or ctr."""
    block = _cipher(key).encrypt
    if mode == "ecb":
        return block(data)
    if mode == "ctr":
        return _xor(data, block(_counters(iv, len(data))))
    done = []
    for at in range(0, len(data), 16):
        part = data[at : at + 16]
        if mode == "cbc":
            iv = part = block(_xor(part, iv))
        elif mode == "cfb":
            iv = part = _xor(part, block(iv))
        else:
            iv = block(iv)
            part = _xor(part, iv)
        done.append(part)
    return b"".join(done)


def decrypt(mode, key, iv, data):
    """Returns what `encrypt` made into `data`."""
    if mode == "ecb":
        return _cipher(key).decrypt(data)
    chain = (iv + data)[: len(data)]
    if mode == "cbc":
        return _xor(_cipher(key).decrypt(data), chain)
    if mode == "cfb":
        return _xor(_cipher(key).encrypt(chain), data)
    return encrypt(mode, key, iv, data)  # ofb and ctr only mix a key stream in


def _copied(inner, outer):
    def authenticate(data):
        state = inner()
        state.update(data)
        last = outer()
        last.update(state.digest())
        return last.digest()

    return authenticate


def _cipher(key):
    """Returns an object for one direction: MicroPython's cannot encrypt once it has decrypted."""
    return _aes(key, 1) if _aes else _module("aes").AES(key)


def _counters(iv, length):
    first = int.from_bytes(iv, "big")
    wrap = (1 << 128) - 1
    return b"".join([(first + i & wrap).to_bytes(16, "big") for i in range(length // 16)])


def _xor(left, right):
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")


def _module(name):
    return __import__("tinyknop.crypto." + name, None, None, (name,))
