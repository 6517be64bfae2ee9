"""`tinyknop keygen`: a fresh key pair, in the two lines that fwknopd prints and both servers read.

With --for, all that both sides need: what goes into the server's configuration, what into the client's, and a QR code.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import stat
import sys
from base64 import b64encode

from tinyknop import crypto, net
from tinyknop.compat import urandom
from tinyknop.errors import ConfigError

KEY_BYTES = 32  # the most that the protocol takes
HMAC_BYTES = 64  # fwknop's own length; a key may be longer than a hash block, which gains nothing
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:]{2,39}")
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")

SERVER = """\
[[stanza]]
name = "%(name)s"
source = ["ANY"]
key_base64 = "%(key)s"
hmac_key_base64 = "%(hmac_key)s"
%(toml_hmac)sopenings = [%(listed)s]
require_source_address = true
timeout = 30
"""
ACCESS = """\
SOURCE                  ANY
OPEN_PORTS              %(openings)s
REQUIRE_SOURCE_ADDRESS  Y
KEY_BASE64              %(key)s
HMAC_KEY_BASE64         %(hmac_key)s
%(rc_hmac)s"""
TARGET = """\
[target.%(name)s]
host = "%(host)s"
openings = [%(listed)s]
address = "resolve"
hints = true
key_base64 = "%(key)s"
hmac_key_base64 = "%(hmac_key)s"
%(target_hmac)s"""
RC = """\
[%(name)s]
SPA_SERVER              %(host)s
ACCESS                  %(openings)s
ALLOW_IP                resolve
KEY_BASE64              %(key)s
HMAC_KEY_BASE64         %(hmac_key)s
USE_HMAC                Y
%(rc_hmac)s"""
PARTS = (  # end of the file's name, what it is for, its text
    ("stanza.toml", "for the server: into tinyknop.toml", SERVER),
    ("access.conf", "or, with fwknopd on the server: into access.conf", ACCESS),
    ("target.toml", "for the client: into ~/.tinyknop/tinyknop.toml, then `tinyknop knock %(name)s`", TARGET),
    ("fwknoprc", "or, with fwknop on the client: into ~/.fwknoprc, then `fwknop -n %(name)s`", RC),
)


def fresh(hmac: str = "sha256") -> tuple[str, str]:
    """Returns a key and an HMAC key in base64; the latter is as long as a block of its hash, 64 to 128 bytes."""
    size = min(max(HMAC_BYTES, crypto.BLOCKS[hmac]), 128)
    return b64encode(urandom(KEY_BYTES)).decode(), b64encode(urandom(size)).decode()


def pair(hmac: str = "sha256") -> str:
    """Returns the two lines of a new key pair."""
    return "KEY_BASE64: %s\nHMAC_KEY_BASE64: %s\n" % fresh(hmac)


def write(path: str, text: str) -> None:
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


def replace(path: str, text: str) -> None:
    """Writes a secret file that only its owner can read in the place of one that may be there; raises OSError.

    Into a new file, since somebody may have the old one open. A pipe or a link of ours is written to as it is.
    """
    found = os.lstat(path) if os.path.lexists(path) else None
    if found and found.st_uid != os.geteuid() and not stat.S_ISCHR(found.st_mode):
        raise PermissionError(errno.EPERM, "it belongs to somebody else, who could read it", path)
    whole = found is None or stat.S_ISREG(found.st_mode)
    place = "%s.%d" % (path, os.getpid()) if whole else path
    handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_EXCL if whole else os.O_TRUNC), 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                os.fchmod(handle, 0o600)  # before there is a key in it
            file.write(text)
        if whole:
            os.rename(place, path)
    except OSError:
        if whole:
            os.unlink(place)
        raise


def values(host: str, name: str, openings: str, hmac: str) -> dict[str, str]:
    """Returns what the parts are filled with, new keys among it; raises ConfigError for what cannot stand in a file."""
    if HOST.fullmatch(host) is None:
        raise ConfigError("--for", "%r is neither the name of a host nor an address" % host[:80])
    if NAME.fullmatch(name) is None or name.lower() == "default":
        raise ConfigError("--for", "%r: a name has up to 64 letters, digits, _ and -, and is not default" % name[:80])
    try:
        wanted = ["%s/%d" % opening for opening in net.openings(openings)]
    except ValueError as error:
        raise ConfigError("--openings", str(error)) from None
    found = {"host": host, "name": name, "openings": ",".join(wanted)}
    found["listed"] = ", ".join('"%s"' % one for one in wanted)
    found["key"], found["hmac_key"] = fresh(hmac)
    plain = hmac == "sha256"  # which everybody takes where nothing is said
    found["toml_hmac"] = "" if plain else 'hmac_digest_type = "%s"\n' % hmac
    found["target_hmac"] = "" if plain else 'hmac = "%s"\n' % hmac
    found["rc_hmac"] = "" if plain else "HMAC_DIGEST_TYPE        %s\n" % hmac
    return found


def both_sides(options: argparse.Namespace) -> int:
    """Prints what both sides need, or writes it to files of a folder; and a QR code."""
    from tinyknop.host import qr

    host, name = options.sides
    found = values(host, name, options.openings, options.hmac)
    drawn = options.qr or (options.qr is None and sys.stdout.isatty())
    if options.qr:
        qr.available()  # before there is anything to keep secret
    for ending, purpose, text in PARTS:
        if options.output is None:
            print("# %s\n%s" % (purpose % found, text % found))
        else:
            path = os.path.join(options.output, "%s.%s" % (name, ending))
            write(path, text % found)
            print("%s: %s" % (path, purpose % found))
    if drawn:
        try:
            qr.draw(qr.content(found["key"], found["hmac_key"]))
            print("The QR code holds both keys, for the Fwknop2 app: clear the screen once it was scanned.")
        except ConfigError as error:
            print(error, file=sys.stderr)
    return 0


def parser() -> argparse.ArgumentParser:
    """Returns the parser of our words."""
    made = argparse.ArgumentParser("tinyknop keygen", description="Makes a key pair for one stanza and its client.")
    made.add_argument(
        "-o", "--output", metavar="FILE", help="write it there, readable by its owner only; with --for a folder"
    )
    made.add_argument("--hmac", choices=crypto.NAMES, default="sha256", help="the HMAC it is for (%(default)s)")
    made.add_argument(
        "--for", dest="sides", nargs=2, metavar=("HOST", "NAME"), help="make a stanza NAME and its client's at HOST"
    )
    made.add_argument(
        "-A", "--openings", metavar="LIST", default="tcp/22", help="what may be opened, with --for (%(default)s)"
    )
    made.add_argument("--qr", action="store_true", default=None, help="draw a QR code, with --for (on a terminal)")
    made.add_argument("--no-qr", dest="qr", action="store_false", help="draw none")
    return made


def main(words: list[str]) -> int:
    """Prints a key pair or writes it to a file."""
    options = parser().parse_args(words)
    if options.sides:
        return both_sides(options)
    text = pair(options.hmac)
    if options.output is None:
        print(text, end="")
    else:
        write(options.output, text)
        print("%s: a new key pair; the same file goes to the client and the server" % options.output)
    return 0
