"""The comparison of secrets: it reads every byte, whatever differs. Counted, not timed."""

from tinyknop import crypto
from tinyknop.crypto import small

COMPILED = "built-in" in str(crypto.equal) or "function _compare_digest" in str(crypto.equal)


class Counted:
    """Bytes that count how often one of them is read."""

    def __init__(self, data):
        self.data = data
        self.read = 0

    def __len__(self):
        return len(self.data)

    def __getitem__(self, place):
        if place >= len(self.data):
            raise IndexError
        self.read += 1
        return self.data[place]

    def __iter__(self):
        for byte in self.data:
            self.read += 1
            yield byte


def reads(equal, ours, theirs):
    """Returns (what `equal` says, how many bytes of each side it read)."""
    one, other = Counted(ours), Counted(theirs)
    return equal(one, other), one.read, other.read


def test_equal_tells_what_is_the_same():
    for equal in (crypto.equal, small.equal):
        for size in (0, 1, 16, 32, 86):
            data = bytes(range(size))
            assert equal(data, bytes(range(size)))
            for place in range(size):
                for bit in (1, 128):
                    other = data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
                    assert not equal(data, other)
            assert not equal(data, data + b"\x00")
            assert not equal(data + b"\x00", data)


def test_equal_reads_every_byte_whatever_differs():
    if COMPILED:  # in C: it takes nothing that could count; see tests/host/test_timing.py
        return
    for place in (None, 0, 15, 31):
        data = bytes(range(32))
        other = data if place is None else data[:place] + b"\xff" + data[place + 1 :]
        assert reads(small.equal, data, other) == (place is None, 32, 32), place
