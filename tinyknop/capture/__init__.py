"""Captures: where datagrams come from. A kind of capture is a file here; nothing is registered.

A capture module has OPTIONS (name -> default) and a class Capture(options, sink) with start(loop), stop, describe and
the counters received and dropped. `sink(datagram)` is called for each datagram; nobody is ever answered.
"""

import socket

from tinyknop import log
from tinyknop.errors import ConfigError

QUOTA = 64  # datagrams a wake-up: at 4 microseconds each, a flood delays a timer by a quarter of a millisecond

BUFFER = 8 << 20  # bytes of a socket's queue, charged with the kernel's overhead: 10,000 packets, 40 ms of work


def make(options, sink):
    """Builds the capture of a [[capture]] table; raises ConfigError for an unknown kind or option."""
    where = options.get("where", "capture")
    kind = options.get("kind") or "packet"
    try:
        plain = all("a" <= c <= "z" for c in kind) and kind != "filters"
        module = __import__("tinyknop.capture." + (kind if plain else "-"), None, None, ("Capture",))
    except ImportError:
        raise ConfigError(where, 'capture: kind = "%s": no such kind; packet and udp always work' % kind)
    for option in sorted(options):
        if option not in module.OPTIONS and option not in ("kind", "where"):
            listed = ", ".join(sorted(module.OPTIONS))
            raise ConfigError(where, "capture: %s: no such option of %s (it has: %s)" % (option, kind, listed))
    made = module.Capture(options, sink)
    made.options = options
    return made


def port_of(options):
    """Returns the UDP port among a capture's options; raises ConfigError."""
    text = str(options.get("port", 62201))
    if not 1 <= len(text) <= 5 or not all("0" <= c <= "9" for c in text) or not 1 <= int(text) <= 65535:
        raise ConfigError(options.get("where", "capture"), "port = %s: a port is a number from 1 to 65535" % text)
    return int(text)


def roomy(sock):
    """Gives a socket a long queue; without CAP_NET_ADMIN the kernel may give less (net.core.rmem_max)."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
    except OSError as error:
        log.debug("no forced receive buffer (error %d), taking what net.core.rmem_max allows", error.errno)
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUF", 8), BUFFER)
