"""Captures: where datagrams come from. A kind of capture is a file here; nothing is registered.

A capture module has OPTIONS (name -> default) and a class Capture(options, sink) with start(loop), stop, describe and
the counters received and dropped. `sink(datagram)` is called for each datagram; nobody is ever answered. `over` is None
or a callable (reason, exit status) for a capture that cannot go on, or has come to its end. `stop` may return a task
that still tidies up.
"""

import socket

from tinyknop import hints, log
from tinyknop.capture import filters
from tinyknop.errors import ConfigError

_COMPARES = "packets without a hint of a stanza end in the kernel"
_NO_ROOM = "no room in the kernel for so many hints: they are compared here"

QUOTA = 64  # datagrams a wake-up: at 4 microseconds each, a flood delays a timer by a quarter of a millisecond

BUFFER = 8 << 20  # bytes of a socket's queue, charged with the kernel's overhead: 10,000 packets, 40 ms of work


def make(options, sink):
    """Builds the capture of a [[capture]] table; raises ConfigError for an unknown kind or option."""
    where = options.get("where", "capture")
    kind = options.get("kind") or "packet"
    try:
        plain = all("a" <= c <= "z" for c in kind) and kind not in ("filters", "ip", "fair")
        module = __import__("tinyknop.capture." + (kind if plain else "-"), None, None, ("Capture",))
    except ImportError:
        raise ConfigError(where, 'capture: kind = "%s": no such kind; packet and udp always work' % kind)
    for option in sorted(options):
        if option not in module.OPTIONS and option not in ("kind", "where"):
            listed = ", ".join(sorted(module.OPTIONS))
            raise ConfigError(where, "capture: %s: no such option of %s (it has: %s)" % (option, kind, listed))
    made = module.Capture(options, sink)
    made.options, made.compares, made.words = options, None, ()
    return made


def compare(one, words, required):
    """Has the kernel compare hints (`Hints.words`): where they are `required`, what has none of them is dropped there.

    Else, under a flood, what has one gets a queue of its own. Where there is no comparison - another kind of capture, a
    filter of the owner's own, no room - the gate refuses what it must. What that changes is logged.
    """
    plain = one.sifted() if hasattr(one, "sifted") else None
    if plain is None:
        return
    one.words = () if required else words
    if one.fence:
        one.fence.prefer(one.words)
    if not required and one.compares is None:
        return
    state = (_COMPARES if words else _NO_ROOM) if required else None
    try:
        program = hints.program(words, filters.SNAP) + [(filters.RET, 0, 0, 0)]
        _renew(one, one.sifted(program) if state == _COMPARES else plain, plain)
    except (OSError, ImportError):  # ImportError: a board
        state = _NO_ROOM
    if state != one.compares:
        log.info("%s: %s", one.describe(), state or "the kernel compares no hints any more")
    one.compares = state


def _renew(one, program, plain):
    """Puts a program on a capture's sockets in place of theirs, none of which is ever without: no packet is lost.

    Raises OSError where this kernel has no room for it; then all have the short program `plain`.
    """
    sockets = one.sockets + (one.fence.others() if one.fence else [])
    one.program = program
    try:
        for sock in sockets:
            try:
                filters.attach(sock, program)
            except OSError:
                filters.attach(sock, plain)  # there may only be no room for it beside the old one
                filters.attach(sock, program)
    except OSError:
        one.program = plain
        for sock in sockets:
            filters.attach(sock, plain)
        raise


def number(options, name, default, low, high):
    """Returns the number from `low` to `high` among a capture's options; raises ConfigError."""
    text = str(options.get(name) or default)
    if not all("0" <= c <= "9" for c in text) or len(text) > 9 or not low <= int(text) <= high:
        reason = "%s = %s: it is a number from %d to %d" % (name, text, low, high)
        raise ConfigError(options.get("where", "capture"), reason)
    return int(text)


def port_of(options):
    """Returns the port among a capture's options; raises ConfigError."""
    return number(options, "port", 62201, 1, 65535)


def yes(options, name, default="N"):
    """Tells whether an option is Y; raises ConfigError for anything but Y and N."""
    text = options.get(name) or default
    if text not in ("Y", "N"):
        raise ConfigError(options.get("where", "capture"), "%s = %s: it is Y or N" % (name, text))
    return text == "Y"


def filter_of(options):
    """Returns (port, None) for a filter that is built in, (None, text) for one to be compiled; raises ConfigError."""
    text = " ".join(str(options.get("filter") or "").split())
    if not text:
        return port_of(options), None
    head, _, port = text.rpartition(" ")
    if head in ("udp port", "udp dst port") and all("0" <= c <= "9" for c in port):
        return port_of({"port": port, "where": options.get("where", "capture")}), None
    return None, text


def roomy(sock):
    """Gives a socket a long queue; without CAP_NET_ADMIN the kernel may give less (net.core.rmem_max)."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, 33, BUFFER)  # SO_RCVBUFFORCE
    except OSError as error:
        log.debug("no forced receive buffer (error %d), taking what net.core.rmem_max allows", error.errno)
        sock.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_RCVBUF", 8), BUFFER)
