"""SHA3-256 and SHA3-512 (FIPS 202) in plain Python."""

from struct import pack, unpack_from


def _constants():
    """Returns iota's 24 words and, for rho and pi together, each step's lane and left turn, as FIPS 202 makes them."""
    rounds = []
    register = 1
    for _ in range(24):
        word = 0
        for j in range(7):
            if register & 1:
                word |= 1 << (1 << j) - 1
            register = register << 1 ^ (0x171 if register & 0x80 else 0)
        rounds.append(word)
    steps = []
    x, y = 1, 0
    for t in range(24):
        x, y = y, (2 * x + 3 * y) % 5
        steps.append((x + 5 * y, (t + 1) * (t + 2) // 2 % 64))
    return tuple(rounds), tuple(steps)


ROUNDS, STEPS = _constants()


def _compress(state, data, at, lanes):
    """Mixes one block into the state, then permutes it: Keccak-f[1600]."""
    m = 0xFFFFFFFFFFFFFFFF
    steps = STEPS
    s = list(state)
    for i, lane in enumerate(unpack_from("<%dQ" % lanes, data, at)):
        s[i] ^= lane
    columns = [0] * 5
    for constant in ROUNDS:
        for x in range(5):
            columns[x] = s[x] ^ s[x + 5] ^ s[x + 10] ^ s[x + 15] ^ s[x + 20]
        for x in range(5):
            lane = columns[(x + 1) % 5]
            lane = columns[x - 1] ^ ((lane << 1 | lane >> 63) & m)
            for y in range(x, 25, 5):
                s[y] ^= lane
        moved = s[1]
        for to, turn in steps:
            lane = s[to]
            s[to] = (moved << turn | moved >> 64 - turn) & m
            moved = lane
        for y in range(0, 25, 5):
            a = s[y]
            b = s[y + 1]
            c = s[y + 2]
            d = s[y + 3]
            e = s[y + 4]
            s[y] = a ^ (b ^ m) & c
            s[y + 1] = b ^ (c ^ m) & d
            s[y + 2] = c ^ (d ^ m) & e
            s[y + 3] = d ^ (e ^ m) & a
            s[y + 4] = e ^ (a ^ m) & b
        s[0] ^= constant
    return s


def _algorithm(size):
    rate = 200 - 2 * size

    def padding(length):
        left = rate - length % rate
        return b"\x86" if left == 1 else b"\x06" + bytes(left - 2) + b"\x80"

    def compress(state, data, at):
        return _compress(state, data, at, rate // 8)

    return compress, (0,) * 25, rate, padding, lambda state: pack("<%dQ" % (size // 8), *state[: size // 8])


SHA3_256 = _algorithm(32)
SHA3_512 = _algorithm(64)
