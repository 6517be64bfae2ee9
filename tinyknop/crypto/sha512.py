"""SHA-512 and SHA-384 (FIPS 180-4) in plain Python. The constants are computed, as the standard defines them."""

from array import array
from struct import pack, unpack_from

_M = 0xFFFFFFFFFFFFFFFF


def _root(number, degree):
    """Returns the whole part of a square or cube root, by Newton's steps from above."""
    root = 1 << 74
    while True:
        power = root if degree == 2 else root * root
        lower = ((degree - 1) * root + number // power) // degree
        if lower >= root:
            return root
        root = lower


def _primes(count):
    found: list = []
    number = 2
    while len(found) < count:
        if all([number % prime for prime in found]):
            found.append(number)
        number += 1
    return found


PRIMES = _primes(80)
# The first 64 bits behind the point of each prime's cube root.
CUBES = array("Q", [_root(prime << 192, 3) & _M for prime in PRIMES])
SQUARES = tuple([_root(prime << 128, 2) & _M for prime in PRIMES[:16]])
del PRIMES


def _compress(state, data, at):
    m = _M
    w = list(unpack_from(">16Q", data, at))
    for i in range(16, 80):
        x = w[i - 15]
        y = w[i - 2]
        p = x | x << 64  # a word beside itself: a rotation is one shift
        q = y | y << 64
        w.append(w[i - 16] + w[i - 7] + ((p >> 1 ^ p >> 8 ^ x >> 7) & m) + ((q >> 19 ^ q >> 61 ^ y >> 6) & m) & m)
    a, b, c, d, e, f, g, h = state
    cubes = CUBES
    for i in range(80):
        p = e | e << 64
        q = a | a << 64
        t = h + ((p >> 14 ^ p >> 18 ^ p >> 41) & m) + (g ^ e & (f ^ g)) + cubes[i] + w[i]
        x = t + ((q >> 28 ^ q >> 34 ^ q >> 39) & m) + (a & b | c & (a | b)) & m
        h = g
        g = f
        f = e
        e = d + t & m
        d = c
        c = b
        b = a
        a = x
    return tuple([old + new & m for old, new in zip(state, (a, b, c, d, e, f, g, h))])


def _padding(length):
    return b"\x80" + bytes((111 - length) % 128) + pack(">QQ", 0, length * 8)


def _output(state):
    return pack(">8Q", *state)


SHA512 = (_compress, SQUARES[:8], 128, _padding, _output)
SHA384 = (_compress, SQUARES[8:], 128, _padding, lambda state: _output(state)[:48])
