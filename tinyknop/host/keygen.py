"""`tinyknop keygen`: a fresh key pair, in the two lines that fwknopd prints and both servers read."""

import argparse
import os
from base64 import b64encode

from tinyknop import crypto
from tinyknop.compat import urandom
from tinyknop.errors import ConfigError

KEY_BYTES = 32  # the most that the protocol takes
HMAC_BYTES = 64  # fwknop's own length; a key may be longer than a hash block, which gains nothing


def pair(hmac="sha256"):
    """Returns the two lines of a new key pair; the HMAC key is as long as a block of its hash, 128 bytes at most."""
    size = min(max(HMAC_BYTES, crypto.BLOCKS[hmac]), 128)
    key = b64encode(urandom(KEY_BYTES)).decode()
    hmac_key = b64encode(urandom(size)).decode()
    return "KEY_BASE64: %s\nHMAC_KEY_BASE64: %s\n" % (key, hmac_key)


def write(path, text):
    """Writes a key file that only its owner can read; refuses to replace one, since a lost key locks people out."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(path, "is already there and may hold a key in use: give another name, or remove it") from None
    except OSError as error:
        raise ConfigError(path, "cannot make the key file: %s" % error.strerror) from None
    with os.fdopen(handle, "w") as file:
        os.fchmod(handle, 0o600)
        file.write(text)


def replace(path, text):
    """Writes a secret file that only its owner can read in the place of one that may be there; raises OSError."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w") as file:
        os.fchmod(handle, 0o600)  # before there is a key in it
        file.truncate()
        file.write(text)


def main(words):
    """Prints a key pair or writes it to a file."""
    parser = argparse.ArgumentParser("tinyknop keygen", description="Makes a key pair for one stanza and its client.")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there, readable by its owner only")
    parser.add_argument("--hmac", choices=crypto.NAMES, default="sha256", help="the HMAC it is for (%(default)s)")
    options = parser.parse_args(words)
    text = pair(options.hmac)
    if options.output is None:
        print(text, end="")
    else:
        write(options.output, text)
        print("%s: a new key pair; the same file goes to the client and the server" % options.output)
    return 0
