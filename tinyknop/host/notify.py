"""Tells whoever supervises us (systemd, or any other with NOTIFY_SOCKET) that we are ready, alive, reloading or ending.

The protocol of sd_notify(3): lines NAME=VALUE in one datagram. Without NOTIFY_SOCKET nothing is sent.
"""

from __future__ import annotations

import os
import socket

from tinyknop import log
from tinyknop.compat import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tinyknop.loop import Loop

READY, RELOADING, STOPPING, ALIVE = "READY=1", "RELOADING=1", "STOPPING=1", "WATCHDOG=1"


def notify(*lines: str) -> bool:
    """Sends lines to the supervisor; returns whether there is one that took them."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return False
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.setblocking(False)
            to.sendto("\n".join(lines).encode(), "\0" + path[1:] if path[0] == "@" else path)
    except OSError as error:
        log.debug("the supervisor does not listen: %s", error)
        return False
    return True


def interval() -> int:
    """Returns after how many milliseconds the supervisor wants to hear from us; 0 if it does not."""
    meant = os.environ.get("WATCHDOG_PID") or str(os.getpid())
    asked = os.environ.get("WATCHDOG_USEC", "")
    if meant != str(os.getpid()) or not asked.isdigit():
        return 0
    return int(asked) // 1000


def keep_alive(loop: Loop) -> None:
    """Says from now on, twice in the time that the supervisor allows, that the loop still turns; a timer of it."""
    allowed = interval()
    if allowed:
        notify(ALIVE)
        loop.at(monotonic() + max(allowed // 2, 1), lambda: keep_alive(loop))
