"""OpenPGP by the gpg binary: seals a plain text for a recipient, opens a message, judges who signed it.

gpg gets its input by pipes and no secret in words or environment. What it did is read from its status lines (GnuPG's
doc/DETAILS), never from its texts or its exit status, which is 2 for a message that opens but has an unknown signer.
"""

from __future__ import annotations

import os
from collections import namedtuple

from .. import compat, spa
from ..child import ended
from ..errors import Rejected
from ..loop import Loop, Queue, current
from ..seal import GPG_LENGTH, LONGEST_TEXT, Keys
from .privileges import NothingPassedOn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..stanza import Gpg

PREFIX = b"hQ"  # the first 12 bits of every message to an RSA key, in base64; not sent
OPEN_S = 10  # seconds for one decryption: 0.01 here, but a small router starts gpg-agent first
SEAL_S, AGENT_S = 30, 120  # seconds for a signature; where gpg-agent may ask a person for a passphrase, longer
MOST_RUNNING, MOST_WAITING = 4, 64  # processes and messages: a flood must not multiply what one gpg takes

_FITS = 4096  # bytes; every new pipe holds them, so what gpg reads is written before it starts
_MOST = {"plain": 4096, "status": 65536, "words": 16384}  # bytes taken of each output; whatever says more is ended
_COMMON = ["--batch", "--no-tty", "--no-armor"]
# Whoever made a packet must not make us look for a key on the network, whatever the home's gpg.conf says.
_COMMON += ["--disable-dirmngr", "--no-auto-key-retrieve", "--no-auto-key-locate"]
# fwknop encrypts to a key that nobody has certified, too. A home's gpg.conf may ask for further recipients, or for
# hidden ones: no packet has room, and "hQ" would not hold.
_SEALING = ["--trust-model=always", "--no-encrypt-to", "--no-throw-keyids", "--encrypt"]
# What gpg-agent needs to reach a person.
_FOR_AGENT = "GPG_TTY TERM DISPLAY WAYLAND_DISPLAY XAUTHORITY XDG_RUNTIME_DIR DBUS_SESSION_BUS_ADDRESS".split()
# What gpg makes of a signature, and what is to be done about it.
_JUDGEMENTS = {
    "GOODSIG": "",
    "EXPSIG": "the signature has expired",
    "EXPKEYSIG": "the key has expired",
    "REVKEYSIG": "the key is revoked",
    "BADSIG": "it is not that of this message",
    "ERRSIG": "the server's GPG_HOME_DIR has no such public key; import and certify it",
}
_UNCERTIFIED = "the key is not certified there; in the server's GPG_HOME_DIR: gpg --lsign-key %s"

# key_id (16 digits) and fingerprint (all digits) are those of the key that made the signature, primary is the
# fingerprint of the key it belongs to; each may be "" where it does not verify. `problem` is "" where it does.
Signature = namedtuple("Signature", "key_id fingerprint valid primary problem")


def seal(
    plain: bytes,
    recipient: str,
    signer: str | None = None,
    home: str | None = None,
    exe: str | None = None,
    passphrase: str | None = None,
    agent: bool = False,
) -> bytes:
    """Returns the OpenPGP message of a plain text for `recipient`, signed where a signer is given.

    Keys are named as gpg takes them. `passphrase` is the signing key's: None or "" where it needs none, and unused with
    `agent`, where gpg-agent has it or asks for it. `home` and `exe` default to gpg's own. Blocks, in a loop of its own:
    not for a task. Raises Rejected("key", gpg's reason).
    """
    words = ["--homedir=" + home] if home else []
    words += ["--recipient=" + recipient, *_SEALING]
    words += ["--sign", "--local-user=" + signer] if signer else []
    names = ["HOME", "GNUPGHOME"] + (_FOR_AGENT if agent else [])
    job = _Job("key", exe or "gpg", words, names)
    secret = None if agent else passphrase or ""
    status = Loop().run_until(job.run(plain, secret, AGENT_S if agent else SEAL_S))
    names = [line[0] for line in status]
    if job.code or "END_ENCRYPTION" not in names or (signer and "SIG_CREATED" not in names):
        raise Rejected("key", job.reason())
    return job.said("plain")


async def opened(message: bytes, gpg: Gpg) -> tuple[bytes, Signature | None]:
    """Returns (plain text, Signature or None) of an OpenPGP message; the loop goes on meanwhile.

    `gpg` is a stanza.Gpg. Raises Rejected("decrypt", gpg's reason). The signature is only reported (see `allowed`), but
    for one of another text: with it gpg stops before it has checked the rest, so that is Rejected("signature", ...)
    here, unless the stanza ignores signatures that do not verify.
    """
    job = _Job("decrypt", gpg.exe, ["--homedir=" + gpg.home, "--max-output=%d" % _MOST["plain"], "--decrypt"])
    status = await job.run(message, gpg.password, OPEN_S)
    names = [line[0] for line in status]
    begin = names.index("BEGIN_DECRYPTION") if "BEGIN_DECRYPTION" in names else 0
    if "BADSIG" in names:
        end = len(names)
        if not gpg.ignore_sig:
            raise Rejected("signature", "the signature is not that of this message")
    elif "DECRYPTION_OKAY" in names and "END_DECRYPTION" in names and "DECRYPTION_FAILED" not in names:
        end = names.index("END_DECRYPTION")
    else:
        raise Rejected("decrypt", job.reason())
    around = names[:begin] + names[end:]
    # A second text, or one beside the encrypted one, would let a stranger's text pass as the signed one.
    if not begin or "ERROR" in names or names.count("PLAINTEXT") != 1 or "PLAINTEXT" in around or "NEWSIG" in around:
        raise Rejected("decrypt", "more in the message than one text, encrypted, and its signature")
    plain = job.said("plain")
    if not 0 < len(plain) <= spa.LONGEST_PLAIN:
        raise Rejected("decrypt", "not 1 to %d bytes of text" % spa.LONGEST_PLAIN)
    return plain, _signature(status)


def _signature(status: list[list[str]]) -> Signature | None:
    """Returns the first Signature in gpg's status lines, as fwknopd does, or None.

    Like fwknopd it asks for a key that the keyring's owner has certified (or trusts fully by others' certificates).
    """
    starts = [number for number, line in enumerate(status) if line[0] == "NEWSIG"] + [len(status)]
    first = {line[0]: line[1:] for line in status[starts[0] : starts[min(1, len(starts) - 1)]]}
    judged = [name for name in _JUDGEMENTS if name in first]
    if not judged:
        return None
    words = first[judged[-1]]
    if judged == ["ERRSIG"]:
        fingerprint = primary = words[6] if len(words) > 6 and words[6] != "-" else ""
    else:
        proven = first.get("VALIDSIG", [""])
        fingerprint = proven[0]
        primary = proven[9] if len(proven) > 9 else fingerprint
    problem = _JUDGEMENTS[judged[-1]]
    if not problem and not (fingerprint and ("TRUST_FULLY" in first or "TRUST_ULTIMATE" in first)):
        problem = _UNCERTIFIED % (primary or words[0])
    return Signature(words[0], fingerprint, not problem, primary, problem)


def allowed(signature: Signature | None, gpg: Gpg) -> None:
    """Raises Rejected("signature", reason) unless a stanza.Gpg allows a message with this Signature (None: unsigned).

    As fwknopd (docs/fwknopd.md, 4.4): fingerprints first, and where both lists are set both must hold. Beyond it: any
    case, long ids, and the ids and fingerprint of the primary key where a subkey signed.
    """
    if not gpg.require_sig:
        return
    if signature is None:
        raise Rejected("signature", "not signed")
    if not signature.valid and not gpg.ignore_sig:
        raise Rejected("signature", "signed by ID: %s, but %s" % (signature.key_id[-8:], signature.problem))
    prints = {text for text in (signature.fingerprint, signature.primary) if text}
    ids = prints | {text[-16:] for text in prints} | {signature.key_id}
    ids |= {text[-8:] for text in ids}
    if gpg.fingerprints is not None and not prints & _listed(gpg.fingerprints):
        said = "signed by: %s, but that fingerprint is not in the GPG_FINGERPRINT_ID list"
        raise Rejected("signature", said % (signature.fingerprint or "an unknown key"))
    if gpg.remote_ids is not None and not ids & _listed(gpg.remote_ids):
        said = "signed by ID: %s, but that ID is not in the GPG_REMOTE_ID list"
        raise Rejected("signature", said % signature.key_id[-8:])


def _listed(names: Sequence[str]) -> set[str]:
    """Returns key ids or fingerprints in gpg's spelling; gpg itself prints some with 0x or with blanks."""
    upper = [name.upper().replace(" ", "") for name in names]
    return {name[2:] if name.startswith("0X") else name for name in upper}


def wire(message: bytes, keys: Keys) -> bytes:
    """Returns the datagram of an OpenPGP message; of `keys` only the HMAC counts.

    Raises Rejected: "key" where the recipient's key is not RSA, or the HMAC key cannot be; "length" where it won't fit.
    """
    text = spa.to_base64(message)
    if not text.startswith(PREFIX):
        raise Rejected("key", "fwknop needs a recipient whose encryption key is RSA (or ElGamal), at least 1024 bits")
    data: bytes = text[len(PREFIX) :] + (b"" if keys.hmac_key is None else keys.mac(text))
    if len(text) < GPG_LENGTH + len(PREFIX):
        raise Rejected("length", "fewer than 400 characters are not taken for GPG")
    if len(data) > LONGEST_TEXT:
        raise Rejected("length", "%d characters, and a packet has %d: use smaller keys" % (len(data), LONGEST_TEXT))
    return data


def message_of(text: bytes) -> bytes:
    """Returns the OpenPGP message in a payload without its HMAC; raises Rejected("charset" or "length", reason)."""
    if len(text) < GPG_LENGTH:
        raise Rejected("length", "fewer than 400 characters are not taken for GPG")
    if not compat.only_in(text, spa.BASE64):
        raise Rejected("charset", "a character outside base64")
    message: bytes = spa.from_base64(PREFIX + text)
    if spa.to_base64(message) != PREFIX + text:
        raise Rejected("charset", "base64 with spare bits set")
    return message


class Opener:
    """Lets MOST_RUNNING messages be opened at once, and MOST_WAITING wait their turn, first come first served."""

    def __init__(self) -> None:
        self.running = 0
        self.waiting: list[Queue] = []

    async def opened(self, message: bytes, gpg: Gpg) -> tuple[bytes, Signature | None]:
        """As the function `opened`; raises Rejected("full", ...) too, at once, where too many wait already."""
        if self.running < MOST_RUNNING:
            self.running += 1
        elif len(self.waiting) < MOST_WAITING:
            await self._turn()
        else:
            raise Rejected("full", "%d GPG messages wait to be opened" % MOST_WAITING)
        try:
            return await opened(message, gpg)
        finally:
            self._next()

    async def _turn(self) -> None:
        turn = Queue()
        self.waiting.append(turn)
        try:
            await turn.get()
        except GeneratorExit:  # cancelled: the place in the queue, or the turn it had just got, goes to the next
            if turn in self.waiting:
                self.waiting.remove(turn)
            else:
                self._next()
            raise

    def _next(self) -> None:
        if self.waiting:
            self.waiting.pop(0).put(True)
        else:
            self.running -= 1


class _Job:
    """One run of gpg: what it reads is in its pipes before it starts, what it says is collected up to a bound."""

    def __init__(self, stage: str, exe: str, words: list[str], names: Sequence[str] = ()) -> None:
        self.stage = stage
        self.exe = exe
        self.words = words
        known = {name: os.environ[name] for name in names if name in os.environ}
        self.environment = dict(known, PATH=os.environ.get("PATH") or "/usr/bin:/bin", LC_ALL="C")
        self.code = self.pid = 0
        self._fault = ""
        self._theirs: list[int] = []
        self._ours: dict[str, int] = {}  # name -> descriptor
        self._said: dict[str, bytearray] = {}  # name -> bytearray

    async def run(self, data: bytes, secret: str | None, seconds: int) -> list[list[str]]:
        """Runs gpg; returns its status lines as lists of words. Raises Rejected where it could not run to its end."""
        self.loop = current()
        try:
            self._start(data, secret)
            self.code = await ended(self.pid, seconds)
            self.pid = 0
            for name in list(self._ours):
                while name in self._ours and self._read(name):
                    pass
        finally:
            if self.pid:  # cancelled; `ended` still reaps it
                os.killpg(self.pid, 9)
            for name in list(self._ours):
                self._close(name)
        if self.code == 124:
            self._fault = "%s took longer than %d seconds" % (self.exe, seconds)
        if self._fault:
            raise Rejected(self.stage, self._fault)
        lines = self.said("status").decode("ascii", "replace").split("\n")
        return [line.split(" ")[1:] for line in lines if line.startswith("[GNUPG:] ")]

    def said(self, name: str) -> bytes:
        """Returns the bytes of one output: "plain", "status" or "words"."""
        return bytes(self._said[name])

    def reason(self) -> str:
        """Returns gpg's own words about what failed, fit for a log: its first complaint."""
        lines = self.said("words").decode("ascii", "replace").split("\n")
        lines = [line for line in lines if line.strip()] or ["gpg: status %d" % self.code]
        failed = [line for line in lines if "failed" in line or "skipped" in line]
        text = "".join([char if " " <= char <= "~" else "?" for char in (failed or lines)[0]])[:200]
        # Of a recipient whose key has expired gpg says no more than "No public key".
        expired = self.stage == "key" and b"] KEYEXPIRED " in self.said("status")
        return text + (" (a key has expired)" if expired else "")

    def _start(self, data: bytes, secret: str | None) -> None:
        """Starts gpg; the numbers of its further descriptors are the same there as here."""
        try:
            actions = [(os.POSIX_SPAWN_DUP2, self._given(data), 0)]
            for target, name in ((1, "plain"), (2, "words")):
                actions.append((os.POSIX_SPAWN_DUP2, self._taken(name), target))
            argv = [self.exe, *_COMMON, "--status-fd=%d" % self._inherited(self._taken("status"))]
            if secret is not None:
                given = self._inherited(self._given(secret.encode("utf-8", "surrogateescape") + b"\n"))
                argv += ["--pinentry-mode=loopback", "--passphrase-fd=%d" % given]
            with NothingPassedOn():
                self.pid = os.posix_spawnp(
                    self.exe, argv + self.words, self.environment, file_actions=actions, setpgroup=0, setsigdef=[13]
                )
        except OSError as error:
            raise Rejected(self.stage, "cannot run %s: %s" % (self.exe, os.strerror(error.errno or 0)))
        finally:
            for fd in self._theirs:
                os.close(fd)
            self._theirs = []

    def _given(self, data: bytes) -> int:
        """Returns a descriptor from which gpg reads `data`."""
        if len(data) > _FITS:
            raise Rejected(self.stage, "more than %d bytes for gpg to read" % _FITS)
        there, ours = os.pipe()
        self._theirs.append(there)
        os.set_blocking(ours, False)
        os.write(ours, data)
        os.close(ours)
        return there

    def _taken(self, name: str) -> int:
        """Returns a descriptor whose output is collected under a name."""
        ours, there = os.pipe()
        os.set_blocking(ours, False)
        self._theirs.append(there)
        self._ours[name] = ours
        self._said[name] = bytearray()
        self.loop.reader(ours, lambda: self._read(name))
        return there

    def _inherited(self, fd: int) -> int:
        os.set_inheritable(fd, True)
        return fd

    def _read(self, name: str) -> bool:
        """Takes in what is there; returns whether there may be more."""
        try:
            part = os.read(self._ours[name], 65536)
        except OSError:  # nothing now; gpg-agent may hold the other end
            return False
        self._said[name].extend(part)
        if len(self._said[name]) > _MOST[name] and not self._fault:
            self._fault = "%s says more than belongs to a packet" % self.exe
            if self.pid:
                os.killpg(self.pid, 9)
        if not part or self._fault:
            self._close(name)
        return bool(part)

    def _close(self, name: str) -> None:
        fd = self._ours.pop(name)
        self.loop.reader(fd, None)
        os.close(fd)
