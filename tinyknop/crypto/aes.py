"""AES-256 (FIPS 197) in plain Python, whole blocks in ECB; the modes are built on it in `small`.

Table look-ups leave traces in a processor's cache: see `small`.
"""

from array import array
from struct import pack_into, unpack_from

_made: dict = {}  # what is computed at first use and kept: by direction its tables, by None the S-boxes


def _boxes():
    """Returns the S-box and its inverse, from the powers of 3 and of its inverse in GF(2^8)."""
    if None in _made:
        return _made[None]
    box = bytearray(256)
    inverse = bytearray(256)
    p = q = 1
    while True:
        p ^= p << 1 ^ (0x11B if p & 0x80 else 0)
        p &= 0xFF
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q = q & 0xFF ^ (0x09 if q & 0x80 else 0)
        value = q ^ q << 1 ^ q << 2 ^ q << 3 ^ q << 4
        value = (value ^ value >> 8) & 0xFF ^ 0x63
        box[p] = value
        if p == 1:
            break
    box[0] = 0x63
    for i in range(256):
        inverse[box[i]] = i
    _made[None] = box, inverse
    return box, inverse


def _tables(forward):
    """Returns four tables that do the byte substitution and the column mix of one direction, and its S-box."""
    if forward not in _made:
        box = _boxes()[0 if forward else 1]
        tables = [array("I", bytes(1024)) for _ in range(4)]
        for i in range(256):
            one = box[i]
            two = one << 1 ^ (0x11B if one & 0x80 else 0)
            word = two << 24 | one << 16 | one << 8 | one ^ two
            if not forward:
                four = two << 1 ^ (0x11B if two & 0x80 else 0)
                eight = four << 1 ^ (0x11B if four & 0x80 else 0)
                nine = eight ^ one
                word = (eight ^ four ^ two) << 24 | nine << 16 | (nine ^ four) << 8 | nine ^ two
            for table in tables:
                table[i] = word
                word = word >> 8 | (word & 0xFF) << 24
        _made[forward] = tables + [box]
    return _made[forward]


def _schedule(key):
    """Returns the 60 round words of a key of 32 bytes."""
    box = _boxes()[0]
    words = list(unpack_from(">8I", key, 0))
    power = 1
    for i in range(8, 60):
        word = words[i - 1]
        if i % 8 == 0:
            word = (word << 8 | word >> 24) & 0xFFFFFFFF
        if i % 4 == 0:
            word = box[word >> 24] << 24 | box[word >> 16 & 255] << 16 | box[word >> 8 & 255] << 8 | box[word & 255]
        if i % 8 == 0:
            word ^= power << 24
            power <<= 1
        words.append(words[i - 8] ^ word)
    return words


def _reverse(words):
    """Returns the round words of the equivalent inverse cipher: rounds from last to first, inner ones unmixed.

    Words 1 and 3 of each round change places: with the block's changed too, both directions turn the same way.
    """
    t0, t1, t2, t3, _ = _tables(False)
    box = _boxes()[0]
    turned = []
    for i in range(56, -1, -4):
        for j in (i, i + 3, i + 2, i + 1):
            w = words[j]
            if 0 < i < 56:
                w = t0[box[w >> 24]] ^ t1[box[w >> 16 & 255]] ^ t2[box[w >> 8 & 255]] ^ t3[box[w & 255]]
            turned.append(w)
    return turned


class AES:
    """A key, used like MicroPython's `cryptolib.aes(key, 1)`."""

    def __init__(self, key):
        self.words = _schedule(key)

    def encrypt(self, data):
        """Returns whole blocks, encrypted each by itself."""
        return _crypt(data, self.words, _tables(True), 1, 3)

    def decrypt(self, data):
        """Returns whole blocks, decrypted each by itself."""
        return _crypt(data, _reverse(self.words), _tables(False), 3, 1)


def _crypt(data, words, tables, second, fourth):
    t0, t1, t2, t3, box = tables
    out = bytearray(len(data))
    for at in range(0, len(data), 16):
        block = unpack_from(">4I", data, at)
        a = block[0] ^ words[0]
        b = block[second] ^ words[1]
        c = block[2] ^ words[2]
        d = block[fourth] ^ words[3]
        for i in range(4, 56, 4):
            e = t0[a >> 24] ^ t1[b >> 16 & 255] ^ t2[c >> 8 & 255] ^ t3[d & 255] ^ words[i]
            f = t0[b >> 24] ^ t1[c >> 16 & 255] ^ t2[d >> 8 & 255] ^ t3[a & 255] ^ words[i + 1]
            g = t0[c >> 24] ^ t1[d >> 16 & 255] ^ t2[a >> 8 & 255] ^ t3[b & 255] ^ words[i + 2]
            d = t0[d >> 24] ^ t1[a >> 16 & 255] ^ t2[b >> 8 & 255] ^ t3[c & 255] ^ words[i + 3]
            a = e
            b = f
            c = g
        e = (box[a >> 24] << 24 | box[b >> 16 & 255] << 16 | box[c >> 8 & 255] << 8 | box[d & 255]) ^ words[56]
        f = (box[b >> 24] << 24 | box[c >> 16 & 255] << 16 | box[d >> 8 & 255] << 8 | box[a & 255]) ^ words[57]
        g = (box[c >> 24] << 24 | box[d >> 16 & 255] << 16 | box[a >> 8 & 255] << 8 | box[b & 255]) ^ words[58]
        d = (box[d >> 24] << 24 | box[a >> 16 & 255] << 16 | box[b >> 8 & 255] << 8 | box[c & 255]) ^ words[59]
        if second == 1:
            pack_into(">4I", out, at, e, f, g, d)
        else:
            pack_into(">4I", out, at, e, d, g, f)
    return bytes(out)
