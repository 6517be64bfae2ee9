"""MD5 (RFC 1321) in plain Python. The key derivation of SPA needs it; it protects nothing by itself."""

from array import array
from binascii import unhexlify
from struct import pack, unpack, unpack_from

# floor(2**32 * abs(sin(i + 1))): written out, since a board's floats are too short to compute it.
SINES = array(
    "I",
    unpack(
        ">64I",
        unhexlify(
            "d76aa478e8c7b756242070dbc1bdceeef57c0faf4787c62aa8304613fd469501698098d88b44f7afffff5bb1895cd7be"
            "6b901122fd987193a679438e49b40821f61e2562c040b340265e5a51e9b6c7aad62f105d02441453d8a1e681e7d3fbc8"
            "21e1cde6c33707d6f4d50d87455a14eda9e3e905fcefa3f8676f02d98d2a4c8afffa39428771f6816d9d6122fde5380c"
            "a4beea444bdecfa9f6bb4b60bebfbc70289b7ec6eaa127fad4ef308504881d05d9d4d039e6db99e51fa27cf8c4ac5665"
            "f4292244432aff97ab9423a7fc93a039655b59c38f0ccc92ffeff47d85845dd16fa87e4ffe2ce6e0a30143144e0811a1"
            "f7537e82bd3af2352ad7d2bbeb86d391"
        ),
    ),
)
FIRST, SECOND, THIRD, FOURTH = b"\x07\x0c\x11\x16", b"\x05\x09\x0e\x14", b"\x04\x0b\x10\x17", b"\x06\x0a\x0f\x15"


def _compress(state, data, at):
    m = 0xFFFFFFFF
    sines = SINES
    x = unpack_from("<16I", data, at)
    a, b, c, d = state
    for i in range(16):
        f = a + (d ^ b & (c ^ d)) + sines[i] + x[i] & m
        s = FIRST[i & 3]
        a, d, c, b = d, c, b, b + (f << s | f >> 32 - s) & m
    for i in range(16, 32):
        f = a + (c ^ d & (b ^ c)) + sines[i] + x[5 * i + 1 & 15] & m
        s = SECOND[i & 3]
        a, d, c, b = d, c, b, b + (f << s | f >> 32 - s) & m
    for i in range(32, 48):
        f = a + (b ^ c ^ d) + sines[i] + x[3 * i + 5 & 15] & m
        s = THIRD[i & 3]
        a, d, c, b = d, c, b, b + (f << s | f >> 32 - s) & m
    for i in range(48, 64):
        f = a + (c ^ (b | d ^ m)) + sines[i] + x[7 * i & 15] & m
        s = FOURTH[i & 3]
        a, d, c, b = d, c, b, b + (f << s | f >> 32 - s) & m
    old = state
    return old[0] + a & m, old[1] + b & m, old[2] + c & m, old[3] + d & m


def _padding(length):
    return b"\x80" + bytes((55 - length) % 64) + pack("<Q", length * 8)


MD5 = (_compress, (0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476), 64, _padding, lambda state: pack("<4I", *state))
