"""Digests, HMACs and AES-256 behind five functions, from one of two back ends.

`host` is hashlib and pycryptodome; `small` needs neither and runs on a board. Both give the same bytes.
"""

import os

NAMES = ("md5", "sha1", "sha256", "sha384", "sha512", "sha3_256", "sha3_512")
SIZES = {"md5": 16, "sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64, "sha3_256": 32, "sha3_512": 64}
# Bytes of a hash block: HMAC pads its key to this. For SHA-3 it is the sponge's rate (protocol section 10).
BLOCKS = {"md5": 64, "sha1": 64, "sha256": 64, "sha384": 128, "sha512": 128, "sha3_256": 136, "sha3_512": 72}

try:
    if hasattr(os, "getenv") and os.getenv("TINYKNOP_CRYPTO") == "small":
        raise ImportError
    from . import host as backend
except ImportError:
    from . import small as backend  # type: ignore[no-redef]

digest = backend.digest
mac = backend.mac
equal = backend.equal
encrypt = backend.encrypt
decrypt = backend.decrypt
