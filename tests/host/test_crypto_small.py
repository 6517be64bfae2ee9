"""The small back end, with and without the runtime's own hashes, against hashlib and pycryptodome on random input."""

import hashlib
import hmac

import pytest
from Crypto.Cipher import AES
from hypothesis import given
from hypothesis import strategies as st

from tinyknop import crypto
from tinyknop.crypto import host, small

MODES = ("ecb", "cbc", "cfb", "ofb", "ctr")
BLOCKS = st.integers(0, 10).flatmap(lambda n: st.binary(min_size=16 * n, max_size=16 * n))
KEY = st.binary(min_size=32, max_size=32)
IV = st.binary(min_size=16, max_size=16)


class Sha256Only:
    sha256 = hashlib.sha256


@pytest.fixture(params=("own", "hidden"), scope="module", autouse=True)
def runtime(request):
    before = small.hashlib, small._aes
    if request.param == "hidden":
        small.hashlib, small._aes = Sha256Only, None
    yield
    small.hashlib, small._aes = before


@given(name=st.sampled_from(crypto.NAMES), data=st.binary(max_size=600))
def test_digest_is_that_of_hashlib(name, data):
    assert small.digest(name, data) == hashlib.new(name, data).digest()


@given(name=st.sampled_from(crypto.NAMES), parts=st.lists(st.binary(max_size=200), max_size=5))
def test_a_message_in_parts_is_the_message(name, parts):
    state = small.hashes(name)()
    for part in parts:
        state.update(part)
    assert state.digest() == hashlib.new(name, b"".join(parts)).digest()


@given(name=st.sampled_from(crypto.NAMES), key=st.binary(max_size=150), data=st.binary(max_size=400))
def test_mac_is_that_of_hmac(name, key, data):
    assert small.mac(name, key)(data) == host.mac(name, key)(data) == hmac.digest(key, data, name)


@given(mode=st.sampled_from(MODES), key=KEY, iv=IV, data=BLOCKS)
def test_modes_are_those_of_pycryptodome(mode, key, iv, data):
    sealed = host.encrypt(mode, key, iv, data)
    assert small.encrypt(mode, key, iv, data) == sealed
    assert small.decrypt(mode, key, iv, sealed) == data


@given(key=KEY, data=BLOCKS)
def test_one_block_at_a_time_is_aes(key, data):
    assert small.encrypt("ecb", key, b"", data) == AES.new(key, AES.MODE_ECB).encrypt(data)


@given(left=st.binary(max_size=40), right=st.binary(max_size=40))
def test_equal_is_equality(left, right):
    assert small.equal(left, right) == (left == right)
    assert small.equal(left, bytes(left))
