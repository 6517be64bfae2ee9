"""The only place that asks which Python this is: clocks, entropy, files and socket addresses."""

import os
import socket
import sys
import time
from binascii import a2b_base64

MICROPYTHON = sys.implementation.name == "micropython"
TYPE_CHECKING = False  # which mypy takes for True: under it stands what only mypy has to know

# Seconds between 1970 and the runtime's own epoch: 2000 on some MicroPython boards, 1970 everywhere else.
EPOCH = 946684800 if time.gmtime(0)[0] == 2000 else 0

if MICROPYTHON:
    _ticks = [time.ticks_ms(), 0]  # type: ignore[attr-defined]

    def monotonic():
        """Returns milliseconds since some moment; never goes back and, unlike `ticks_ms`, never wraps."""
        now = time.ticks_ms()  # type: ignore[attr-defined]
        _ticks[1] += time.ticks_diff(now, _ticks[0])  # type: ignore[attr-defined]
        _ticks[0] = now
        return _ticks[1]

    _BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def only_in(data, alphabet):
        """Tells whether every byte of `data` is one of `alphabet` (both bytes)."""
        if alphabet == _BASE64:  # the decoder passes over all other bytes; it takes a thirtieth of the time
            whole = len(data) // 4 * 4
            try:
                if len(a2b_base64(data[:whole])) * 4 != whole * 3:
                    return False
            except ValueError:
                return False
            data = data[whole:]
        return not data.strip(alphabet)  # stops at the first byte that is not; a loop is 9 times slower

    def room(size):
        """Returns how many things of `size` bytes the free heap has room for, with some left for work; at least 4."""
        import gc

        gc.collect()
        return max(gc.mem_free() // size - 8, 4)  # type: ignore[attr-defined]

    def fsync(file):
        """Makes what was written to an open file safe from a power cut (`flush` is fsync(2) on MicroPython)."""
        file.flush()

    def peer(addr):
        """Returns (address, port), the address packed, of what `recvfrom` gave as the sender."""
        if isinstance(addr, tuple):  # a board, which has no inet_pton
            return _packed(addr[0]), addr[1]
        port = addr[2] << 8 | addr[3]
        if len(addr) >= 28:
            return bytes(addr[8:24]), port
        return bytes(addr[4:8]), port

    def _packed(host):
        if ":" not in host:
            return bytes([int(part) for part in host.split(".")])
        head, _, tail = host.partition("::")
        head, tail = [[int(group, 16) for group in part.split(":") if group] for part in (head, tail)]
        return b"".join([word.to_bytes(2, "big") for word in head + [0] * (8 - len(head) - len(tail)) + tail])

    # A file written a line at a time: MicroPython's unix port passes every write straight to write(2).
    def append_to(path):
        """Opens a file for appending bytes that reach the system with each write."""
        return open(path, "ab")

else:
    # On Linux the one that goes on while the machine sleeps: what is open then must not last longer for it.
    _CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def monotonic():
        """Returns milliseconds since some moment; never goes back and never wraps."""
        return int(time.clock_gettime(_CLOCK) * 1000)

    def only_in(data, alphabet):
        """Tells whether every byte of `data` is one of `alphabet` (both bytes)."""
        return not data.translate(None, alphabet)

    def room(size):
        """Returns how many things of `size` bytes there is room for: memory is the system's to give."""
        return 1 << 40

    def fsync(file):
        """Makes what was written to an open file safe from a power cut."""
        os.fsync(file.fileno())

    def peer(addr):
        """Returns (address, port), the address packed, of what `recvfrom` gave as the sender."""
        host = addr[0].split("%")[0]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.inet_pton(family, host), addr[1]

    def append_to(path):
        """Opens a file for appending bytes that reach the system with each write; made readable by its owner only."""
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600), "ab", 0)


def whole(text):
    """Returns a text of 1 to 12 digits as a number, -1 for any other; `isdigit` knows more digits than `int` does."""
    return int(text) if 0 < len(text) < 13 and all(["0" <= c <= "9" for c in text]) else -1


def trace(error):
    """Returns where an exception came from, as text of several lines."""
    import io

    out = io.StringIO()
    if MICROPYTHON:
        sys.print_exception(error, out)  # type: ignore[attr-defined]
    else:
        try:
            import traceback

            traceback.print_exception(type(error), error, error.__traceback__, file=out)
        except (OSError, ImportError):  # no descriptor left, or no right; who asks is the last to see the fault
            return repr(error)
    return out.getvalue()


def wall():
    """Returns the wall clock in whole seconds since 1970, UTC."""
    return int(time.time()) + EPOCH


def urandom(count):
    """Returns `count` bytes from the system's cryptographic random source."""
    return os.urandom(count)


def sockaddr(host, port):
    """Returns what `bind` and `sendto` take for a host name or address; raises OSError for an unknown name."""
    # As bytes: for a str CPython loads the tables of Unicode, for IDNA: 1 MB, and no part of OpenWrt's python3-light.
    return socket.getaddrinfo(host.encode(), port)[0][-1]


def exists(path):
    """Tells whether there is something of this name; raises OSError where that cannot be seen."""
    try:
        os.stat(path)
        return True
    except OSError as error:
        if error.args[0] == 2:  # ENOENT
            return False
        raise


def read_bytes(path):
    """Returns a file's bytes, or None where it cannot be read because it does not exist."""
    if not exists(path):
        return None
    with open(path, "rb") as file:
        return file.read()


def boot_wall():
    """Returns the wall-clock second at which this machine booted, or now where nobody knows."""
    try:
        with open("/proc/uptime") as file:
            return wall() - int(float(file.read().split()[0]))
    except (OSError, ValueError):
        return wall()
