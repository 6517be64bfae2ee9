"""tinyknop: single packet authorization for small machines, in place of fwknop.

This file is the public API. It imports no socket and no clock; the daemon, the client and the ports are
imported by whoever wants them.
"""

# Ports live beside this package in a checkout and inside it once installed; MicroPython gets a staged tree
# where they are inside too, and its __path__ is a str.
if isinstance(globals().get("__path__"), list):
    import os

    _here = os.path.dirname(os.path.abspath(__file__))
    if not os.path.isdir(os.path.join(_here, "ports")):
        __path__.append(os.path.dirname(_here))
    del os, _here

from .errors import ConfigError, PortError, Rejected, TinyknopError  # noqa: E402  (after the path above)
from .seal import Keys, seal, unseal  # noqa: E402
from .spa import Packet  # noqa: E402

__version__ = "0.1.0"
__all__ = ("ConfigError", "Keys", "Packet", "PortError", "Rejected", "TinyknopError", "seal", "unseal")
