"""SHA-1 (FIPS 180-4) in plain Python, for knocks that name it as their digest or HMAC."""

from struct import pack, unpack_from

START = (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0)


def _compress(state, data, at):
    m = 0xFFFFFFFF
    w = list(unpack_from(">16I", data, at))
    for i in range(16, 80):
        x = w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16]
        w.append((x << 1 | x >> 31) & m)
    a, b, c, d, e = state
    for i in range(20):
        a, b, c, d, e = (
            (a << 5 | a >> 27) + (d ^ b & (c ^ d)) + e + 0x5A827999 + w[i] & m,
            a,
            (b << 30 | b >> 2) & m,
            c,
            d,
        )
    for i in range(20, 40):
        a, b, c, d, e = (a << 5 | a >> 27) + (b ^ c ^ d) + e + 0x6ED9EBA1 + w[i] & m, a, (b << 30 | b >> 2) & m, c, d
    for i in range(40, 60):
        f = (b & c | d & (b | c)) + 0x8F1BBCDC
        a, b, c, d, e = (a << 5 | a >> 27) + f + e + w[i] & m, a, (b << 30 | b >> 2) & m, c, d
    for i in range(60, 80):
        a, b, c, d, e = (a << 5 | a >> 27) + (b ^ c ^ d) + e + 0xCA62C1D6 + w[i] & m, a, (b << 30 | b >> 2) & m, c, d
    old = state
    return old[0] + a & m, old[1] + b & m, old[2] + c & m, old[3] + d & m, old[4] + e & m


def _padding(length):
    return b"\x80" + bytes((55 - length) % 64) + pack(">Q", length * 8)


SHA1 = (_compress, START, 64, _padding, lambda state: pack(">5I", *state))
