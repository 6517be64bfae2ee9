"""libfko itself, by ctypes: the oracle that says whether a packet is one.

Signatures are those of libfko 2.6 (`libfko.so.3`).
"""

import ctypes
import ctypes.util
from collections import namedtuple

DIGESTS = ("md5", "sha1", "sha256", "sha384", "sha512", "sha3_256", "sha3_512")
MODES = {"ecb": 1, "cbc": 2, "cfb": 3, "ofb": 5, "ctr": 6, "legacy": 8}

Fields = namedtuple(
    "Fields", "rand username timestamp version message_type message nat_access server_auth client_timeout digest_type"
)


class FkoError(Exception):
    """libfko refused; args are the number and its own text."""


def load():
    """Returns the library, or None where it is not installed."""
    for name in ("libfko.so.3", ctypes.util.find_library("fko")):
        if name:
            try:
                return declare(ctypes.CDLL(name))
            except OSError:  # not here under this name
                pass
    return None


def declare(lib):
    """Tells ctypes the prototypes; without them pointers would be cut to 32 bits."""
    context, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    for name, arguments in (
        ("fko_new", (ctypes.POINTER(context),)),
        ("fko_new_with_data", (ctypes.POINTER(context), text, text, number, number, text, number, number)),
        ("fko_spa_data_final", (context, text, number, text, number)),
        ("fko_destroy", (context,)),
        ("fko_set_rand_value", (context, text)),
        ("fko_set_username", (context, text)),
        ("fko_set_timestamp", (context, number)),
        ("fko_set_spa_message_type", (context, ctypes.c_short)),
        ("fko_set_spa_message", (context, text)),
        ("fko_set_spa_nat_access", (context, text)),
        ("fko_set_spa_server_auth", (context, text)),
        ("fko_set_spa_client_timeout", (context, number)),
        ("fko_set_spa_digest_type", (context, ctypes.c_short)),
        ("fko_set_spa_hmac_type", (context, ctypes.c_short)),
        ("fko_set_spa_encryption_mode", (context, number)),
    ):
        getattr(lib, name).argtypes = arguments
    lib.fko_errstr.argtypes = (number,)
    lib.fko_errstr.restype = text
    return lib


def check(lib, status):
    """Raises what a non-zero status means."""
    if status:
        raise FkoError(status, lib.fko_errstr(status).decode())


def decode(lib, data, key, hmac_key=None, mode="cbc", hmac="sha256"):
    """Returns the fields that libfko reads from a packet, or raises FkoError."""
    context = ctypes.c_void_p()
    secret = hmac_key or b""
    kind = DIGESTS.index(hmac) + 1 if hmac_key is not None else 0
    given = hmac_key if hmac_key is None else secret
    status = lib.fko_new_with_data(
        ctypes.byref(context), bytes(data), key, len(key), MODES[mode], given, len(secret), kind
    )
    check(lib, status)
    try:
        return fields(lib, context)
    finally:
        lib.fko_destroy(context)


def fields(lib, context):
    """Reads every field of a decoded context."""

    def text(name):
        value = ctypes.c_char_p()
        check(lib, getattr(lib, name)(context, ctypes.byref(value)))
        return None if value.value is None else value.value.decode("latin-1")

    def number(name, kind):
        value = kind()
        check(lib, getattr(lib, name)(context, ctypes.byref(value)))
        return value.value

    return Fields(
        text("fko_get_rand_value"),
        text("fko_get_username"),
        number("fko_get_timestamp", ctypes.c_long),
        text("fko_get_version"),
        number("fko_get_spa_message_type", ctypes.c_short),
        text("fko_get_spa_message"),
        text("fko_get_spa_nat_access"),
        text("fko_get_spa_server_auth"),
        number("fko_get_spa_client_timeout", ctypes.c_int),
        DIGESTS[number("fko_get_spa_digest_type", ctypes.c_short) - 1],
    )


def encode(lib, wanted, key, hmac_key=None, mode="cbc", hmac="sha256", digest="sha256"):
    """Returns the packet that libfko makes from a Fields; its timestamp is libfko's own, now."""
    context = ctypes.c_void_p()
    check(lib, lib.fko_new(ctypes.byref(context)))
    try:
        check(lib, lib.fko_set_username(context, wanted.username.encode()))
        check(lib, lib.fko_set_spa_message_type(context, wanted.message_type))
        check(lib, lib.fko_set_spa_message(context, wanted.message.encode()))
        if wanted.nat_access is not None:
            check(lib, lib.fko_set_spa_nat_access(context, wanted.nat_access.encode()))
        if wanted.server_auth is not None:
            check(lib, lib.fko_set_spa_server_auth(context, wanted.server_auth.encode()))
        if wanted.client_timeout:
            check(lib, lib.fko_set_spa_client_timeout(context, wanted.client_timeout))
            # fko_set_spa_client_timeout changes the type as it sees fit; the wanted one is set again.
            check(lib, lib.fko_set_spa_message_type(context, wanted.message_type))
        check(lib, lib.fko_set_spa_digest_type(context, DIGESTS.index(digest) + 1))
        check(lib, lib.fko_set_spa_encryption_mode(context, MODES[mode]))
        if hmac_key is not None:
            check(lib, lib.fko_set_spa_hmac_type(context, DIGESTS.index(hmac) + 1))
        check(lib, lib.fko_spa_data_final(context, key, len(key), hmac_key, len(hmac_key or b"")))
        value = ctypes.c_char_p()
        check(lib, lib.fko_get_spa_data(context, ctypes.byref(value)))
        return value.value
    finally:
        lib.fko_destroy(context)
