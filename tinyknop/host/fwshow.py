"""The block of field values that fwknop's client prints about a packet."""

from __future__ import annotations

import os
import shutil

from tinyknop import crypto, spa
from tinyknop.host.fwoptions import MODES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tinyknop.host.fwrequest import Request
    from tinyknop.host.gpg import Signature
    from tinyknop.seal import Keys

TYPES = (
    "Command msg", "Access msg", "NAT access msg", "Client timeout access msg", "Client timeout NAT access msg",
    "Local NAT access msg", "Client timeout local NAT access msg",
)  # fmt: skip
MODE_CODES = {"ecb": 1, "cbc": 2, "cfb": 3, "ofb": 5, "ctr": 6, "asymmetric": 7, "legacy": 8}


def show(
    packet: spa.Packet,
    data: bytes,
    keys: Keys,
    request: Request,
    timeout: int,
    first: bool = True,
    signature: Signature | None = None,
) -> None:
    """Prints the block of field values: `first` of what is sent, else of what was decoded, `signature` by whom."""
    plain = spa.compose(packet, request["DIGEST_TYPE"]).decode()
    encoded, _, digest = plain.rpartition(":")
    cut = len(data) - keys.hmac_length
    mac = data[cut:].decode() if keys.hmac_length else "<NULL>"
    hmac = keys.hmac if keys.hmac_length else None
    mode = "asymmetric" if request["USE_GPG"] else request["ENCRYPTION_MODE"]
    rows = (
        ("Random Value", packet.rand),
        ("Username", packet.username),
        ("Timestamp", packet.timestamp),
        ("FKO Version", packet.version),
        ("Message Type", "%d (%s)" % (packet.message_type, TYPES[packet.message_type])),
        ("Message String", packet.message),
        ("Nat Access", packet.nat_access or "<NULL>"),
        ("Server Auth", packet.server_auth or "<NULL>"),
        ("Client Timeout", timeout),
        ("Digest Type", _numbered(request["DIGEST_TYPE"])),
        ("HMAC Type", _numbered(hmac)),
        ("Encryption Type", "2 (GPG)" if request["USE_GPG"] else "1 (Rijndael)"),
        ("Encryption Mode", "%d (%s)" % (MODE_CODES[mode], MODES[mode])),
        *(_gpg_rows(request, signature, first) if request["USE_GPG"] else ()),
        ("Encoded Data", encoded),
        ("SPA Data Digest", digest),
        ("HMAC", mac),
        ("Final SPA Data", (data if first else data[:cut]).decode()),
    )
    print("SPA Field Values:\n=================")
    for name, value in rows:
        print("%15s: %s" % (name, value))
    print()


def _numbered(name: str | None) -> str:
    """Returns the number and name of a digest, as the field block has them."""
    return "%d (%s)" % (crypto.NAMES.index(name) + 1, name.upper()) if name else "0 (None)"


def _gpg_rows(request: Request, signature: Signature | None, first: bool) -> tuple[tuple[str, object], ...]:
    """Returns the rows about GPG; a packet that was decoded has a signature, and neither signer nor recipient."""
    signer, recipient = (request["GPG_SIGNER"], request["GPG_RECIPIENT"]) if first else (None, None)
    verified = signature is not None and signature.valid
    return (
        ("GPG signer", signer or "<NULL>"),
        ("GPG recipient", recipient or "<NULL>"),
        ("GPG sig verify", "Yes"),
        ("GPG ignore sig", "No"),
        ("GPG sig ID", signature.key_id[-8:] if signature else "<NULL>"),
        ("GPG sig fpr", signature.fingerprint if signature else "<NULL>"),
        ("GPG sig summary", -1 if first else 3 if verified else 0),
        ("GPG sig status", -1 if first else 0 if verified else 8),
        ("GPG home dir", request["GPG_HOMEDIR"] or os.path.expanduser("~/.gnupg")),
        ("GPG exe", request["GPG_EXE"] or shutil.which("gpg") or "gpg"),
    )
