"""Packets of ours read by the real libfko, and its packets read by us, for every combination there is."""

import pytest

from tests.need import need
from tests.real import libfko
from tinyknop import Keys, Packet, Rejected, seal, unseal

KEY, HMAC_KEY = b"an encryption key", b"and a key for the hmac of another length"
FIELDS = [name for name in libfko.Fields._fields]
# type, message, NAT, timeout: one of each kind of message
KINDS = (
    (0, "192.0.2.7,/bin/echo it works", None, 0),
    (1, "192.0.2.7,tcp/22,udp/53", None, 0),
    (2, "192.0.2.7,tcp/22", "10.0.0.1,8022", 0),
    (3, "0.0.0.0,tcp/22", None, 40),
    (4, "192.0.2.7,tcp/22", "10.0.0.1,8022", 3600),
    (5, "192.0.2.7,tcp/22", "10.0.0.1,8022", 0),
    (6, "192.0.2.7,tcp/22", "10.0.0.1,8022", 1),
)


@pytest.fixture(scope="module")
def lib():
    """libfko, or a skip that says what is missing."""
    loaded = libfko.load()
    if loaded is None:
        need("libfko.so")
    return loaded


def same(ours, theirs):
    """Compares every field; libfko has '' where we have None, and 0 where there is no timeout."""
    for name in FIELDS:
        assert (getattr(ours, name) or None) == (getattr(theirs, name) or None), name


@pytest.mark.parametrize("mode", sorted(libfko.MODES))
@pytest.mark.parametrize("hmac", (None,) + libfko.DIGESTS)
@pytest.mark.parametrize("digest", libfko.DIGESTS)
def test_libfko_reads_what_we_seal_and_we_read_what_it_makes(lib, mode, hmac, digest):
    secret = HMAC_KEY if hmac else None
    keys = Keys(key=KEY, hmac_key=secret, mode=mode, hmac=hmac or "sha256")
    packet = Packet(message="192.0.2.7,tcp/22", username="alice")
    data = seal(packet, keys, digest=digest)
    theirs = libfko.decode(lib, data, KEY, secret, mode, hmac or "sha256")
    assert (theirs.message, theirs.username, theirs.digest_type) == ("192.0.2.7,tcp/22", "alice", digest)
    assert (theirs.rand, theirs.timestamp) == (packet.rand, packet.timestamp)
    same(unseal(data, keys), theirs)
    made = libfko.encode(lib, theirs, KEY, secret, mode, hmac or "sha256", digest)
    same(unseal(made, keys), libfko.decode(lib, made, KEY, secret, mode, hmac or "sha256"))


@pytest.mark.parametrize("auth", (None, "crypt,secret"))
@pytest.mark.parametrize("kind, message, nat, timeout", KINDS)
def test_every_kind_of_message_means_the_same_on_both_sides(lib, kind, message, nat, timeout, auth):
    keys = Keys(key=KEY, hmac_key=HMAC_KEY)
    packet = Packet(
        message=message, username="bob", message_type=kind, nat_access=nat, server_auth=auth, client_timeout=timeout
    )
    theirs = libfko.decode(lib, seal(packet, keys), KEY, HMAC_KEY)
    assert theirs.message_type == kind
    assert (theirs.nat_access or None, theirs.server_auth or None, theirs.client_timeout) == (nat, auth, timeout)
    made = libfko.encode(lib, theirs, KEY, HMAC_KEY)
    same(unseal(made, keys), libfko.decode(lib, made, KEY, HMAC_KEY))


# Commands and local NAT must be asked for: nothing in their fields tells them from an access message.
@pytest.mark.parametrize("kind, message, nat, timeout", [row for row in KINDS if row[0] in (1, 2, 3, 4)])
def test_a_type_that_is_not_given_is_one_that_libfko_accepts(lib, kind, message, nat, timeout):
    packet = Packet(message=message, username="bob", nat_access=nat, client_timeout=timeout)
    theirs = libfko.decode(lib, seal(packet, Keys(key=KEY, hmac_key=HMAC_KEY)), KEY, HMAC_KEY)
    assert theirs.message_type == kind


@pytest.mark.parametrize("length", (1, 15, 16, 17, 31, 32))
@pytest.mark.parametrize("secret", (1, 63, 64, 65, 127, 128))
def test_keys_of_every_length_agree(lib, length, secret):
    key, hmac_key = bytes(range(1, length + 1)), bytes(range(100, 100 + secret))
    for mode in ("cbc", "legacy"):
        keys = Keys(key=key, hmac_key=hmac_key, mode=mode)
        data = seal(Packet(message="192.0.2.7,tcp/22", username="alice"), keys)
        same(unseal(data, keys), libfko.decode(lib, data, key, hmac_key, mode))


def test_what_libfko_makes_with_other_keys_is_refused_here_and_ours_there(lib):
    keys, others = Keys(key=KEY, hmac_key=HMAC_KEY), Keys(key=KEY, hmac_key=b"another")
    data = seal(Packet(message="192.0.2.7,tcp/22", username="alice"), keys)
    with pytest.raises(libfko.FkoError):
        libfko.decode(lib, data, KEY, b"another")
    with pytest.raises(Rejected) as refused:
        unseal(data, others)
    assert refused.value.stage == "hmac"
