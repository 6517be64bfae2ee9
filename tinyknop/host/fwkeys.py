"""The keys of one run: from the request, key files, a descriptor or the terminal; and new ones made."""

from __future__ import annotations

import binascii
import os
import termios

from tinyknop import log
from tinyknop.host import keygen
from tinyknop.host.fwoptions import Refused
from tinyknop.seal import Keys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tinyknop.host.fwrequest import Request

LEGACY_KEY = 16  # bytes of a key that the old mode uses
LONGEST_KEY_FILE = 1 << 20
NO_KEY = "[*] getpasswd() key error."
KEY_BYTES = 32
HMAC_BYTES = {"md5": 16, "sha1": 20, "sha256": 64, "sha384": 128, "sha512": 128, "sha3_256": 64, "sha3_512": 64}
ERASE = b"\x08"


def read_line(number: int) -> bytes | None:
    """Returns one line of a descriptor without its end, and no byte more than it; None at the end of input."""
    line = b""
    while True:
        byte = os.read(number, 1)
        if not byte:
            return line or None
        if byte == b"\n":
            return line
        line += byte


def prompted(prompt: str) -> bytes:
    """Returns what is typed at the controlling terminal, unseen; raises Refused where there is none."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise Refused(NO_KEY) from None
    before = termios.tcgetattr(terminal)
    silent = list(before)
    silent[3] &= ~termios.ECHO
    try:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, silent)
        os.write(terminal, prompt.encode())
        typed = read_line(terminal) or b""
        os.write(terminal, b"\n")
    except KeyboardInterrupt:  # an empty key, as in the reference; here an empty key ends the run
        typed = b""
    finally:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, before)
        os.close(terminal)
    while ERASE in typed:  # terminals erase by DEL; the reference erases by this as well
        place = typed.index(ERASE)
        typed = typed[: max(place - 1, 0)] + typed[place + 1 :]
    return typed


def asked(request: Request, prompt: str) -> bytes:
    """Returns a key from the next line of --fd or --stdin, else from the terminal; raises Refused for an empty one."""
    key: bytes | None
    if request["fd"] is None:
        key = prompted(prompt)
    else:
        try:
            key = read_line(request["fd"])
        except OSError as error:
            said = "getpasswd() - Unable to create a stream from the file descriptor : %s\n%s"
            raise Refused(said % (error.strerror, NO_KEY)) from None
    if not key:
        raise Refused(NO_KEY)
    return key


def from_file(path: str, server: str) -> bytes:
    """Returns the key of a server in a key file, the last that is there; raises Refused."""
    try:
        with open(path, "rb") as file:
            data = file.read(LONGEST_KEY_FILE)
    except OSError:
        raise Refused("Could not open config file: %s" % path) from None
    key = b""
    for line in data.split(b"\n"):
        name, colon, rest = line.partition(b":")
        if colon and line[:1] not in (b"#", b";") and name.strip() == os.fsencode(server):
            key = rest.lstrip(b" \t=").rstrip(b"\r")
    if not key:
        raise Refused("Could not get key for IP: %s from: %s" % (server, path))
    return key


def decoded(text: str) -> bytes:
    """Returns the bytes of a key in base64, padded or not."""
    bare = text.rstrip("=")
    bare = bare[:-1] if len(bare) % 4 == 1 else bare
    return binascii.a2b_base64(bare + "=" * (-len(bare) % 4))


def _key(request: Request, plain: str, coded: str, file: str | None) -> bytes | None:
    """Returns a key that the request names, by the order of the reference, or None."""
    if request[plain] is not None:
        return os.fsencode(request[plain])
    if request[coded] is not None:
        return decoded(request[coded])
    if file and request[file] is not None:
        return from_file(request[file], request["SPA_SERVER"])
    return None


def passphrase(request: Request) -> bytes | None:
    """Returns the passphrase of the GPG signing key, None where gpg-agent or nobody has one; raises Refused."""
    if request["USE_GPG_AGENT"]:
        print("[+] GPG mode set, signing passphrase acquired via gpg-agent")
        return None
    if request["GPG_NO_SIGNING_PW"]:
        print("[+] GPG mode set, signing passphrase not required")
        return None
    key = _key(request, "GPG_SIGNING_PW", "GPG_SIGNING_PW_BASE64", None)
    if key is None:
        key = _key(request, "KEY", "KEY_BASE64", "KEY_FILE")
    if key is None and request["GPG_SIGNER"]:
        key = asked(request, "Enter passphrase for signing: ")
    return key


def _wanting(request: Request) -> bool:
    """Tells whether a key is given nowhere but by --fd or a prompt."""
    main = ["KEY", "KEY_BASE64", "KEY_FILE"]
    if request["USE_GPG"]:
        main += ["GPG_SIGNING_PW", "GPG_SIGNING_PW_BASE64"]
    hmac = ["HMAC_KEY", "HMAC_KEY_BASE64", "HMAC_KEY_FILE"]
    slots = [main, hmac] if request["USE_HMAC"] else [main]
    return not all(any(request[name] is not None for name in slot) for slot in slots)


def keys(request: Request) -> tuple[Keys, bytes | None]:
    """Returns (the Keys, the GPG passphrase or None); raises Refused. With GPG the encryption key is empty."""
    secret = None
    if request["fd"] is not None and not _wanting(request):
        log.warning("[-] --stdin and --fd are not read, since the keys are given elsewhere: leave out one of them")
    if request["USE_GPG"]:
        secret = passphrase(request)
        key = secret or b""
    else:
        given = _key(request, "KEY", "KEY_BASE64", "KEY_FILE")
        key = asked(request, "Enter encryption key: ") if given is None else given
    hmac_key = None
    if request["USE_HMAC"]:
        hmac_key = _key(request, "HMAC_KEY", "HMAC_KEY_BASE64", "HMAC_KEY_FILE")
        if hmac_key is None:
            hmac_key = asked(request, "Enter HMAC key: ")
        if len(hmac_key) > 128:
            raise Refused("[*] Invalid decoded key length: '%d', must be in [0,128]" % len(hmac_key))
    mode = request["ENCRYPTION_MODE"]
    if mode == "legacy" and len(key) > LEGACY_KEY:
        log.warning(
            "WARNING: Encryption key in '-M legacy' mode must be <= 16 bytes\n"
            "long - truncating before sending SPA packet. Upgrading remote\nfwknopd is recommended."
        )
        key = key[:LEGACY_KEY]
    if hmac_key is not None and key == hmac_key:
        said = "[*] The encryption passphrase and HMAC key should not be identical, no SPA packet sent. Exiting."
        raise Refused(said)
    return Keys(key, hmac_key, mode if mode != "asymmetric" else "cbc", request["HMAC_DIGEST_TYPE"]), secret


def fresh(request: Request) -> tuple[str, str]:
    """Returns the two texts in base64 of a new pair of keys; raises Refused."""
    length = request["key-len"] or KEY_BYTES
    if length > KEY_BYTES:
        raise Refused("fwknop: fko_key_gen: Error 68 - Args contain invalid data: --key-len is at most %d" % KEY_BYTES)
    hmac_length = request["hmac-key-len"] or HMAC_BYTES[request["HMAC_DIGEST_TYPE"]]
    return _random(length), _random(hmac_length)


def _random(size: int) -> str:
    return binascii.b2a_base64(os.urandom(size), newline=False).decode()


def write(path: str, text: str) -> None:
    """Writes a key file that only its owner can read, an old one replaced as in the reference; raises Refused."""
    try:
        keygen.replace(path, text)
    except OSError as error:
        raise Refused("Unable to create key gen file: %s: %s" % (path, error.strerror)) from None
    print("[+] Wrote Rijndael and HMAC keys to: %s" % path)
