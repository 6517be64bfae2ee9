"""Sealing, to the byte: what each refusal says, where its bounds are, and what is never shown."""

from tinyknop import Keys, Packet, Rejected, crypto, seal, unseal
from tinyknop.seal import PREFIX, check
from tinyknop.spa import from_base64, to_base64

KEYS = Keys(b"an encryption key", b"an hmac key")
BARE = Keys(b"an encryption key")
NAMES = "md5 sha1 sha256 sha384 sha512 sha3_256 sha3_512"
MODES = "cbc ecb cfb ofb ctr legacy"


def refusal(work, *words, **more):
    """Returns "stage: reason" of what a piece of work refuses, None where it does not."""
    try:
        work(*words, **more)
    except Rejected as error:
        return "%s: %s" % (error.stage, error.reason)
    return None


def knock(keys=KEYS, message="192.0.2.7,tcp/22", **more):
    return seal(Packet(message, "alice"), keys, **more)


def signed(text):
    """Returns the datagram of a text that somebody with the HMAC key made."""
    return text[len(PREFIX) :] + KEYS.mac(text)


def test_keys_that_cannot_be_are_named_by_what_they_have_to_be():
    hmac_key, key = "key: an HMAC key is 1 to 136 bytes", "key: an encryption key is 1 to 32 bytes"
    cases = (
        (Keys(b"k", b""), hmac_key),
        (Keys(b"k", b"h" * 137), hmac_key),
        (Keys(b"k", "text"), hmac_key),
        (Keys(b"k", b"h", hmac="crc32"), "key: no such HMAC; use one of " + NAMES),
        (Keys(b"", b"h"), key),
        (Keys(b"k" * 33), key),
        (Keys("text"), key),
        (Keys(b"k", mode="pcbc"), "key: no such encryption mode; use one of " + MODES),
    )
    for keys, reason in cases:
        assert refusal(knock, keys) == reason
    for keys in (Keys(b"k", b"h"), Keys(b"k" * 32, b"h" * 136)):
        assert unseal(knock(keys), keys).username == "alice"


def test_a_key_and_an_iv_are_32_and_16_bytes_and_legacy_is_cbc_with_a_filled_key():
    mode, key, iv = Keys(b"secret").derived(b"12345678")
    assert (mode, len(key), len(iv)) == ("cbc", 32, 16)
    assert Keys(b"secret0000000000", mode="cbc").derived(b"12345678") == Keys(b"secret", mode="legacy").derived(
        b"12345678"
    )


def test_an_impossible_key_is_told_before_an_impossible_packet():
    for keys in (Keys(b"k", b""), Keys(b"k", b"h", hmac="crc32"), Keys(b""), Keys(b"k", mode="pcbc")):
        assert refusal(check, b"!" * 36, keys)[:4] == "key:"


def test_a_salt_is_eight_bytes():
    for size in (0, 7, 9):
        assert refusal(knock, salt=bytes(size)) == "key: a salt is 8 bytes"
    assert from_base64(PREFIX + knock(BARE, salt=b"12345678"))[8:16] == b"12345678"


def test_lengths_are_held_to_their_bounds():
    bounds, left = "length: a packet is 36 to 1499 characters", "less than 36 characters are left without the HMAC"
    for keys in (BARE, KEYS):
        for size in (0, 35, 1500):
            assert refusal(check, b"A" * size, keys) == bounds
    long = "length: 400 characters or more are taken for GPG"
    assert check(b"A" * 36, BARE) == PREFIX + b"A" * 36
    assert check(b"A" * 399, BARE) == PREFIX + b"A" * 399
    assert refusal(check, b"A" * 400, BARE) == refusal(check, b"A" * 1499, BARE) == long
    assert refusal(check, b"A" * 78, KEYS) == "length: " + left
    assert refusal(check, b"A" * 79, KEYS) == refusal(check, b"A" * 1499, KEYS) == "hmac: the HMAC does not match"
    for size in (36, 389):
        text = PREFIX + b"A" * size
        assert check(signed(text), KEYS) == text
    assert refusal(check, signed(PREFIX + b"A" * 390), KEYS) == long


def test_what_is_sealed_is_of_the_length_class_that_will_be_read():
    long = "192.0.2.7," + ",".join(["tcp/%d" % port for port in range(10000, 10016)])
    for keys in (KEYS, BARE):
        assert refusal(knock, keys, long) == "length: 400 characters or more are taken for GPG"
        assert unseal(knock(keys, long[:-70]), keys).message == long[:-70]


def test_what_is_wrong_inside_is_told_apart():
    good, charset = knock(BARE), "charset: a character outside base64"
    assert refusal(unseal, b"!" + good[1:], BARE) == charset
    assert refusal(unseal, b"!" + knock()[1:], KEYS) == charset
    assert refusal(unseal, good + b"AAAA", BARE) == "decrypt: not a whole number of blocks"
    data = from_base64(PREFIX + good)
    header = to_base64(data[:7] + b"^" + data[8:])  # of the last byte only half is in the prefix
    assert header.startswith(PREFIX)
    assert refusal(unseal, header[len(PREFIX) :], BARE) == "decrypt: the header is not that of an SPA packet"


def test_spare_bits_are_zero():
    for length in range(20, 60):
        good = knock(BARE, "192.0.2.7," + ",".join(["tcp/22"] * (length // 7)))
        if len(PREFIX + good) % 4:
            last = bytes([good[-1] + 1])
            assert refusal(unseal, good[:-1] + last, BARE) == "charset: base64 with spare bits set"
            return
    raise AssertionError("no packet has spare bits")


def test_a_plain_text_is_held_to_its_bounds_and_padding_comes_off_once():
    def sealed(plain):
        mode, key, iv = BARE.derived(b"12345678")
        return to_base64(b"Salted__12345678" + crypto.encrypt(mode, key, iv, plain))[len(PREFIX) :]

    bounds = "length: a plain text is 36 bytes or more"
    other = "decrypt: what comes out is not an SPA message: another key or mode"
    for size, reason in ((32, bounds), (35, bounds), (36, other), (47, other), (48, other)):
        pad = 48 - size or 16
        assert refusal(unseal, sealed(b"x" * size + bytes([pad]) * pad), BARE) == reason, size
    for wrong in (bytes(16), b"\x11" * 17, b"\1\2", b"\x0f" + b"\x10" * 15):
        assert refusal(unseal, sealed(b"x" * (48 - len(wrong)) + wrong), BARE) == other


def test_keys_show_their_kinds_and_never_themselves():
    assert repr(KEYS) == "Keys(mode='cbc', hmac='sha256')"
    assert repr(Keys(b"secret", mode="legacy", hmac="md5")) == "Keys(mode='legacy', hmac=None)"


def test_an_ipv6_address_is_for_those_who_ask():
    wire = knock(message="2001:db8::7,tcp/22")
    assert unseal(wire, KEYS, True).message == "2001:db8::7,tcp/22"
    assert refusal(unseal, wire, KEYS).startswith("message: ")
