"""What fwknop's client can be told: the variables of its rc file and its options, in two tables.

Both set the same values; how a text is read is said once. Refuses to guess: what cannot be read is refused in
fwknop's words, and where fwknop makes something of it (`5x` is 5), so do we, with a warning (Doubt).
"""

from __future__ import annotations

import re

from tinyknop import __version__, crypto, net
from tinyknop.errors import TinyknopError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any, Callable

    Reader = Callable[[str], Any]
    Option = tuple[str, str, str, str, Any, str]

PROTOCOLS = ("udp", "tcp", "http", "icmp", "tcpraw", "udpraw")
RAW = ("icmp", "tcpraw", "udpraw")
MODES = {
    "cbc": "CBC", "ctr": "CTR", "legacy": "legacy", "asymmetric": "Asymmetric", "ecb": "ECB", "cfb": "CFB", "ofb": "OFB"
}  # fmt: skip
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST_USER, LONGEST_AGENT = 29, 99  # characters that the reference keeps
MOST_TIMEOUT = 131072  # seconds that its command line takes; a server takes half of that


class Refused(TinyknopError):
    """What ends the run with status 1; its text is the line to print."""

    def __init__(self, text: str) -> None:
        super().__init__("fwknop", text)

    def __str__(self) -> str:
        return self.reason


class Usage(Refused):
    """The words cannot be understood."""


class Doubt(Exception):
    """A text that fwknop makes something of, with a warning from us: the warning, and the value taken."""

    def __init__(self, text: str, value: Any) -> None:
        super().__init__(text, value)
        self.text = text
        self.value = value


def number(low: int, top: int, complaint: str) -> Callable[[str], int]:
    """Returns the reader of a number; `complaint` gets the text, the bounds by name."""

    def read(text: str) -> int:
        found = re.match(r"\s*[-+]?[0-9]{1,12}", text)
        value = int(found.group()) if found else 0
        if not low <= value <= top:
            raise ValueError(complaint % {"text": text, "low": low, "top": top})
        if not found or found.group() != text:
            raise Doubt("'%s' is not a number: write the %d that is taken for it" % (text, value), value)
        return value

    return read


def named(names: Container[str], complaint: str) -> Callable[[str], str]:
    """Returns the reader of one of `names`, in any case."""

    def read(text: str) -> str:
        if text.lower() not in names:
            raise ValueError(complaint % text)
        return text.lower()

    return read


def yes(text: str) -> bool:
    """Returns True for Y, False for N; raises Doubt(..., None) for what changes nothing."""
    if text.upper() not in ("Y", "N"):
        raise Doubt("'%s' is neither Y nor N and changes nothing: write one of them" % text, None)
    return text.upper() == "Y"


def verbose(text: str) -> int:
    """Returns how much to say, 0 to 4."""
    if text.upper() in ("Y", "N"):
        return int(text.upper() == "Y")
    return number(0, 4, "VERBOSE is Y, N or 0 to 4")(text)


def offset(text: str) -> int:
    """Returns the seconds of a time offset such as 90, 2h or -1d."""
    found = re.match("([^smhd]*)([smhd]?)", text, re.I)
    assert found is not None
    digits = re.sub("[^0-9]", "", found.group(1))  # the reference passes over whatever else stands before the unit
    if not 1 <= len(digits) <= 8 or int(digits) > 65536:
        raise ValueError("Invalid time offset: '%s'" % text)
    seconds = int(digits) * UNITS.get(found.group(2).lower(), 1)
    seconds = -seconds if text.startswith("-") else seconds
    if not re.fullmatch("[-+]?[0-9]+[smhd]?", text, re.I):
        raise Doubt("'%s' is taken for %d seconds: write a whole number and s, m, h or d" % (text, seconds), seconds)
    return seconds


def shift(sign: int) -> Callable[[str], int]:
    """Returns the reader of --time-offset-plus or -minus: a sign in the text changes nothing, as in the reference."""

    def read(text: str) -> int:
        try:
            return sign * abs(offset(text))
        except Doubt as doubt:
            raise Doubt(doubt.text, sign * abs(doubt.value)) from None

    return read


def address(text: str) -> str:
    """Returns an address, `source` or `resolve`; raises ValueError."""
    if text.lower() in ("source", "resolve"):
        return text.lower()
    net.packed(text)
    return text


def base64(name: str) -> Callable[[str], str]:
    """Returns the reader of a key in base64; the text stays text, so that it can be stored as it came."""

    def read(text: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9+/]*={0,2}", text):  # never shown: it may be a key with one slip
            raise ValueError("Base64 encoded %s argument '(not shown)' doesn't look like base64-encoded data." % name)
        size = len(text.rstrip("=")) * 3 // 4
        if not 1 <= size <= 128:
            raise ValueError("[*] Invalid key length: '%d', must be in [1,128]" % size)
        return text

    return read


def up_to(longest: int) -> Callable[[str], str]:
    """Returns the reader of a text that the reference cuts to so many characters."""

    def read(text: str) -> str:
        if len(text) > longest:
            raise Doubt("cut to %d characters: use fewer" % longest, text[:longest])
        return text

    return read


_PORT = number(0, 65535, "[*] Value %(text)s out of range [(%(low)d)-(%(top)d)]")
_NAMES = "{%s}" % ",".join(crypto.NAMES)
_TIMEOUT = number(0, MOST_TIMEOUT, "--fw-timeout must be within [%(low)d-%(top)d]")
_LENGTH = "Invalid %skey length '%%(text)s', must be in [%%(low)d-%%(top)d]"
_ICMP = "Invalid icmp %s '%%(text)s', must be in [%%(low)d-%%(top)d]"

# Variable of the rc file, how its text is read; in the order in which --save-rc-stanza writes them.
VARIABLES: dict[str, Reader] = {
    "DIGEST_TYPE": named(crypto.NAMES, "* Invalid digest type: %s, use " + _NAMES),
    "SPA_SERVER_PROTO": named(PROTOCOLS, "Unrecognized protocol: %s"),
    "SPA_SERVER_PORT": _PORT,
    "SPA_SOURCE_PORT": _PORT,
    "FW_TIMEOUT": _TIMEOUT,
    "ALLOW_IP": address,
    "TIME_OFFSET": offset,
    "ENCRYPTION_MODE": named(MODES, "* Invalid encryption mode: %s, use {CBC,CTR,legacy,Asymmetric}"),
    "USE_GPG": yes,
    "USE_GPG_AGENT": yes,
    "GPG_RECIPIENT": str,
    "GPG_SIGNER": str,
    "GPG_HOMEDIR": str,
    "GPG_EXE": str,
    "GPG_NO_SIGNING_PW": yes,
    "SPOOF_USER": up_to(LONGEST_USER),
    "SPOOF_SOURCE_IP": str,
    "ACCESS": str,
    "SPA_SERVER": str,
    "RAND_PORT": yes,
    "KEY": str,
    "KEY_BASE64": base64("Rijndael"),
    "GPG_SIGNING_PW": str,
    "GPG_SIGNING_PW_BASE64": base64("GPG signing"),
    "HMAC_DIGEST_TYPE": named(crypto.NAMES, "* Invalid hmac digest type: %s, use " + _NAMES),
    "HMAC_KEY_BASE64": base64("HMAC"),
    "HMAC_KEY": str,
    "USE_HMAC": yes,
    "USE_WGET_USER_AGENT": yes,
    "KEY_FILE": str,
    "HMAC_KEY_FILE": str,
    "NAT_ACCESS": str,
    "HTTP_USER_AGENT": str,
    "RESOLVE_URL": str,
    "SERVER_RESOLVE_IPV4": yes,
    "NAT_LOCAL": yes,
    "NAT_RAND_PORT": yes,
    "NAT_PORT": _PORT,
    "VERBOSE": verbose,
    "RESOLVE_IP_HTTP": yes,
    "RESOLVE_IP_HTTPS": yes,
    "RESOLVE_HTTP_ONLY": yes,
    "WGET_CMD": str,
    "NO_SAVE_ARGS": yes,
}
SECRETS = ("KEY", "KEY_BASE64", "HMAC_KEY", "HMAC_KEY_BASE64", "GPG_SIGNING_PW", "GPG_SIGNING_PW_BASE64")
# A value on the left takes the place of those on the right that come from further down: one key, two spellings.
REPLACES: dict[str, tuple[str, ...]] = {
    "KEY": ("KEY_BASE64", "KEY_FILE"),
    "KEY_BASE64": ("KEY", "KEY_FILE"),
    "KEY_FILE": ("KEY", "KEY_BASE64"),
    "HMAC_KEY": ("HMAC_KEY_BASE64", "HMAC_KEY_FILE"),
    "HMAC_KEY_BASE64": ("HMAC_KEY", "HMAC_KEY_FILE"),
    "HMAC_KEY_FILE": ("HMAC_KEY", "HMAC_KEY_BASE64"),
    "GPG_SIGNING_PW": ("GPG_SIGNING_PW_BASE64",),
    "GPG_SIGNING_PW_BASE64": ("GPG_SIGNING_PW",),
}
TURN_ON = {  # value -> what it turns on
    "HMAC_KEY": "USE_HMAC", "HMAC_KEY_BASE64": "USE_HMAC", "HMAC_KEY_FILE": "USE_HMAC",
    "GPG_RECIPIENT": "USE_GPG", "GPG_SIGNER": "USE_GPG", "GPG_HOMEDIR": "USE_GPG", "GPG_EXE": "USE_GPG",
    "USE_GPG_AGENT": "USE_GPG", "GPG_NO_SIGNING_PW": "USE_GPG",
}  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "DIGEST_TYPE": "sha256", "SPA_SERVER_PROTO": "udp", "SPA_SERVER_PORT": 62201, "SPA_SOURCE_PORT": 0,
    "FW_TIMEOUT": 0, "TIME_OFFSET": 0, "ENCRYPTION_MODE": "cbc", "HMAC_DIGEST_TYPE": "sha256", "NAT_PORT": 0,
    "HTTP_USER_AGENT": "Fwknop/" + __version__, "VERBOSE": 0, "icmp-type": 0, "icmp-code": 0, "SPA_SERVER": "",
}  # fmt: skip

# Short option, long option, the argument's name ("": none), what it sets (a variable, or else its own name in lower
# case), how the argument is read or, without one, what is set; line of help.
OPTIONS: tuple[Option, ...] = (
    ("A", "access", "LIST", "ACCESS", str, "What to open, such as tcp/22,udp/53"),
    ("a", "allow-ip", "ADDR", "ALLOW_IP", str, "The address to let in"),
    ("s", "source-ip", "", "ALLOW_IP", "source", "Let in the address that the packet comes from"),
    ("R", "resolve-ip-https", "", "RESOLVE_IP_HTTPS", True, "Ask the web for our address, by wget"),
    ("", "resolve-ip-http", "", "RESOLVE_IP_HTTPS", True, "The same"),
    ("", "resolve-http-only", "", "RESOLVE_HTTP_ONLY", True, "Ask by plain HTTP, which can be tampered with"),
    ("", "resolve-url", "URL", "RESOLVE_URL", str, "Ask there"),
    ("w", "wget-cmd", "PATH", "WGET_CMD", str, "The wget to run"),
    ("", "use-wget-user-agent", "", "USE_WGET_USER_AGENT", True, "Let wget name itself"),
    ("u", "user-agent", "TEXT", "HTTP_USER_AGENT", up_to(LONGEST_AGENT), "How -R and -P http name themselves"),
    ("D", "destination", "HOST", "SPA_SERVER", str, "The server"),
    ("", "server-resolve-ipv4", "", "SERVER_RESOLVE_IPV4", True, "Take only an IPv4 address of the server"),
    ("p", "server-port", "PORT", "SPA_SERVER_PORT", _PORT, "The server's port (62201)"),
    ("P", "server-proto", "NAME", "SPA_SERVER_PROTO", VARIABLES["SPA_SERVER_PROTO"], " ".join(PROTOCOLS)),
    ("r", "rand-port", "", "RAND_PORT", True, "Send to a random port"),
    ("S", "source-port", "PORT", "SPA_SOURCE_PORT", _PORT, "Send from this port"),
    ("Q", "spoof-source", "ADDR", "SPOOF_SOURCE_IP", str, "Send from this address (icmp, tcpraw, udpraw)"),
    ("", "spoof-src", "ADDR", "SPOOF_SOURCE_IP", str, "The same"),
    ("U", "spoof-user", "NAME", "SPOOF_USER", up_to(LONGEST_USER), "The user name in the packet"),
    ("H", "http-proxy", "HOST", "http-proxy", str, "Send by HTTP through this HOST[:PORT]"),
    ("", "icmp-type", "N", "icmp-type", number(0, 40, _ICMP % "type"), "Type of the ICMP message (0)"),
    ("", "icmp-code", "N", "icmp-code", number(0, 15, _ICMP % "code"), "Code of the ICMP message (0)"),
    ("f", "fw-timeout", "SECONDS", "FW_TIMEOUT", _TIMEOUT, "For how long to open; 0: as the server likes"),
    ("N", "nat-access", "HOST,PORT", "NAT_ACCESS", str, "Reach this machine behind the server"),
    ("", "nat-local", "", "NAT_LOCAL", True, "Reach a service of the server itself through another port"),
    ("", "nat-port", "PORT", "NAT_PORT", _PORT, "The server's port for NAT"),
    ("", "nat-rand-port", "", "NAT_RAND_PORT", True, "A random port for NAT"),
    ("C", "server-cmd", "TEXT", "server-cmd", str, "Ask the server to run this command"),
    ("m", "digest-type", "NAME", "DIGEST_TYPE", VARIABLES["DIGEST_TYPE"], "Digest in the packet (sha256)"),
    ("M", "encryption-mode", "NAME", "ENCRYPTION_MODE", VARIABLES["ENCRYPTION_MODE"], "Encryption mode (CBC)"),
    ("", "use-hmac", "", "USE_HMAC", True, "Add an HMAC"),
    ("", "hmac-digest-type", "NAME", "HMAC_DIGEST_TYPE", VARIABLES["HMAC_DIGEST_TYPE"], "Digest of the HMAC (sha256)"),
    ("", "hmac-key-len", "BYTES", "hmac-key-len", number(1, 128, _LENGTH % "hmac "), "For -k: length of the HMAC key"),
    (
        "",
        "key-len",
        "BYTES",
        "key-len",
        number(1, 128, _LENGTH % ""),
        "For -k: length of the encryption key",
    ),
    ("", "key-rijndael", "KEY", "KEY", str, "The encryption key; everybody on this machine can see it here"),
    ("", "key-base64-rijndael", "KEY", "KEY_BASE64", VARIABLES["KEY_BASE64"], "The same in base64"),
    ("", "key-hmac", "KEY", "HMAC_KEY", str, "The HMAC key; everybody on this machine can see it here"),
    ("", "key-base64-hmac", "KEY", "HMAC_KEY_BASE64", VARIABLES["HMAC_KEY_BASE64"], "The same in base64"),
    ("G", "get-key", "FILE", "KEY_FILE", str, "Take the encryption key from lines `SERVER: KEY`"),
    ("", "get-hmac-key", "FILE", "HMAC_KEY_FILE", str, "Take the HMAC key from lines `SERVER: KEY`"),
    ("", "stdin", "", "fd", 0, "Read the encryption key, then the HMAC key, each on a line, from standard input"),
    ("", "fd", "N", "fd", number(0, 2**31 - 1, "[*] Value %(text)s out of range [(0)-(-1)]"), "… from this descriptor"),
    ("k", "key-gen", "", "key-gen", True, "Make a pair of keys, then end"),
    ("K", "key-gen-file", "FILE", "key-gen-file", str, "Write a new pair of keys there, then end"),
    ("g", "gpg-encryption", "", "USE_GPG", True, "Encrypt with GPG"),
    ("", "gpg-recipient-key", "ID", "GPG_RECIPIENT", str, "The server's GPG key"),
    ("", "gpg-signer-key", "ID", "GPG_SIGNER", str, "Our GPG key"),
    ("", "gpg-home-dir", "DIR", "GPG_HOMEDIR", str, "GPG's directory"),
    ("", "gpg-exe", "PATH", "GPG_EXE", str, "GPG's program"),
    ("", "gpg-agent", "", "USE_GPG_AGENT", True, "Let GPG's agent have the passphrase"),
    ("", "gpg-no-signing-pw", "", "GPG_NO_SIGNING_PW", True, "Our GPG key has no passphrase"),
    ("n", "named-config", "NAME", "named-config", str, "Take this stanza of the rc file"),
    ("", "rc-file", "FILE", "rc-file", str, "Read this rc file, not ~/.fwknoprc"),
    ("", "no-rc-file", "", "no-rc-file", True, "Read no rc file"),
    ("", "no-home-dir", "", "no-home-dir", True, "Look for nothing in $HOME"),
    ("", "save-rc-stanza", "", "save-rc-stanza", True, "Store these options in the rc file, then go on"),
    ("", "force-stanza", "", "force-stanza", True, "… and do not ask before a key is replaced"),
    ("", "stanza-list", "", "stanza-list", True, "List the stanzas of the rc file"),
    ("B", "save-packet", "FILE", "save-packet", str, "Write the packet there too"),
    ("b", "save-packet-append", "", "save-packet-append", True, "… after what the file holds"),
    ("E", "save-args-file", "FILE", "save-args-file", str, "Store the command line there, not in ~/.fwknop.run"),
    ("", "no-save-args", "", "NO_SAVE_ARGS", True, "Do not store the command line"),
    ("", "show-last", "", "show-last", True, "Print the stored command line"),
    ("l", "last-cmd", "", "last-cmd", True, "Run the stored command line"),
    ("", "time-offset-plus", "TIME", "plus", shift(1), "Stamp the packet later by TIME, such as 2h"),
    ("", "time-offset-minus", "TIME", "minus", shift(-1), "Stamp the packet earlier by TIME"),
    ("T", "test", "", "test", True, "Build the packet, send nothing"),
    ("v", "verbose", "", "VERBOSE", None, "Say what is done; may be repeated"),
    ("V", "version", "", "version", True, "Print the version"),
    ("h", "help", "", "help", True, "Print this"),
    ("", "fault-injection-tag", "TEXT", "fault-injection-tag", str, "Refused: there is nothing to inject"),
)
# With --help or --stanza-list only these are looked at: a mistake elsewhere does not keep us from answering.
EARLY = (
    "help", "stanza-list", "named-config", "rc-file", "no-rc-file", "no-home-dir", "save-args-file", "no-save-args",
    "save-rc-stanza", "verbose",
)  # fmt: skip
SECRET_OPTIONS = ("key-rijndael", "key-base64-rijndael", "key-hmac", "key-base64-hmac")
