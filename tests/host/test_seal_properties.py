"""Hypothesis: what is sealed comes back, what is changed is refused, and no bytes raise anything but Rejected."""

import base64

from hypothesis import assume, given
from hypothesis import strategies as st

from tinyknop import Keys, Packet, Rejected, crypto, seal, unseal
from tinyknop.seal import MODES

FIELDS = ("rand", "username", "timestamp", "version", "message_type", "message", "nat_access", "server_auth")
USER = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in '"/\\[]:;|=,+*?<>')
openings = st.builds("{}/{}".format, st.sampled_from(("tcp", "udp")), st.integers(1, 65535))
addresses = st.builds("{}.{}.{}.{}".format, *[st.integers(0, 255)] * 4)
accesses = st.builds(lambda a, o: ",".join([a, *o]), addresses, st.lists(openings, min_size=1, max_size=5))
commands = st.builds("{},{}".format, addresses, st.text(min_size=1, max_size=20).filter(lambda t: "\0" not in t))
hosts = st.text(USER.replace(" ", "").replace("'", ""), max_size=30)
nats = st.one_of(st.none(), st.builds("{},{}".format, hosts, st.integers(1, 65535)))
modes = st.sampled_from(MODES)
names = st.sampled_from(crypto.NAMES)
keys = st.builds(
    Keys,
    key=st.binary(min_size=1, max_size=32),
    hmac_key=st.one_of(st.none(), st.binary(min_size=1, max_size=136)),
    mode=modes,
    hmac=names,
)
texts = st.text(min_size=1, max_size=12).filter(lambda t: "\0" not in t)


@st.composite
def packets(draw):
    nat = draw(nats)
    command = nat is None and draw(st.booleans())
    return Packet(
        message=draw(commands if command else accesses),
        username=draw(st.text(USER, min_size=1, max_size=20)),
        rand=draw(st.text("0123456789", min_size=16, max_size=16)),
        timestamp=draw(st.integers(0, 2**31 - 1)),
        version=draw(st.text("0123456789.abc ", min_size=1, max_size=8)),
        message_type=0 if command else draw(st.sampled_from((None, 5))) if nat else None,
        nat_access=nat,
        server_auth=draw(st.one_of(st.none(), texts)),
        client_timeout=draw(st.integers(0, 65536)),
    )


def sealed(packet, key, digest):
    """Returns the datagram, or nothing for one that the size class of section 9 does not take."""
    try:
        return seal(packet, key, digest=digest)
    except Rejected as error:
        assert error.stage in ("length", "message"), error
        return None


@given(packets(), keys, names)
def test_what_is_sealed_comes_back(packet, key, digest):
    data = sealed(packet, key, digest)
    assume(data is not None)
    back = unseal(data, key)
    for field in FIELDS:
        assert getattr(back, field) == getattr(packet, field), field
    assert back.client_timeout == packet.client_timeout
    assert back.digest_type == digest


@given(packets(), keys, names, st.data())
def test_any_mutated_byte_is_refused(packet, key, digest, data):
    wire = sealed(packet, key, digest)
    assume(wire is not None)
    place = data.draw(st.integers(0, len(wire) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != wire[place]))
    try:
        unseal(wire[:place] + bytes([byte]) + wire[place + 1 :], key)
    except Rejected:
        return
    raise AssertionError("accepted")


@given(st.binary(max_size=1600), keys)
def test_no_bytes_raise_anything_but_rejected(data, key):
    for wire in (data, base64.b64encode(data).rstrip(b"=")):
        try:
            unseal(wire, key)
        except Rejected as error:
            assert "key" not in error.reason or error.stage == "key" or error.stage == "decrypt"


def test_keys_never_raise_and_seal_and_unseal_say_what_is_wrong():
    packet = Packet(message="192.0.2.7,tcp/22")
    good = seal(packet, Keys(b"k", b"h"))
    wrong = (
        Keys(b"", b"h"),
        Keys(b"k" * 33, b"h"),
        Keys(b"k", b""),
        Keys(b"k", b"h" * 137),
        Keys(b"k", b"h", mode="pcbc"),
        Keys(b"k", b"h", hmac="crc32"),
        Keys(None, b"h"),
    )
    for key in wrong:
        for attempt in (lambda key=key: seal(packet, key), lambda key=key: unseal(good, key)):
            try:
                attempt()
            except Rejected as error:
                assert error.stage == "key"
            else:
                raise AssertionError("accepted %r" % key)


def test_ipv6_in_a_message_is_for_those_who_ask():
    key = Keys(b"k", b"h")
    wire = seal(Packet(message="2001:db8::7,tcp/22"), key)
    assert unseal(wire, key, ipv6=True).message == "2001:db8::7,tcp/22"
    try:
        unseal(wire, key)
    except Rejected as error:
        assert error.stage == "message"
    else:
        raise AssertionError("accepted")


def test_no_text_of_keys_or_a_packet_has_a_secret_in_it():
    """Such texts end up in logs and tracebacks."""
    keys = Keys(b"the secret key", b"the other secret")
    assert repr(keys) == "Keys(mode='cbc', hmac='sha256')"
    assert repr(Keys(b"the secret key")) == "Keys(mode='cbc', hmac=None)"
    packet = Packet("192.0.2.7,tcp/22", username="alice", timestamp=7, server_auth="crypt,secret")
    assert "alice" in repr(packet) and "secret" not in repr(packet) and "192.0.2.7" not in repr(packet)
