"""A user's filter: compiled by libpcap (or by tcpdump, which may hold one of its own), and run on packets of a file.

A program is a list of (code, jump if true, jump if false, value), as in `capture/filters.py`.
"""

from __future__ import annotations

import ctypes
import subprocess

from tinyknop.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Program = list[tuple[int, int, int, int]]

DLT_RAW = 12
LONGEST = 4096  # instructions; the kernel takes no more
SNAP = 262144  # what a program returns for a packet that it keeps
NO_NETMASK = 0xFFFFFFFF
LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
TCPDUMP = "tcpdump"
# tcpdump's names for the link types of the capture files we read.
NAMES = {0: "NULL", 1: "EN10MB", 12: "RAW", 51: "PPP_ETHER", 108: "LOOP", 113: "LINUX_SLL", 276: "LINUX_SLL2"}


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction))]


def compile(text: str, where: str = "filter", link: int = DLT_RAW) -> Program:
    """Returns the program of a filter for packets of a link type (libpcap's number); raises ConfigError at `where`.

    A name of a host in it is looked up, which may take as long as that takes.
    """
    if "\0" in text:
        raise ConfigError(where, "the filter holds a NUL character")
    library = _library()
    try:
        program = _by_tcpdump(text, link) if library is None else _by_libpcap(library, text, link)
    except ValueError as error:
        raise ConfigError(where, 'filter "%s": %s' % (text, error))
    except OSError:
        reason = 'filter "%s": there is no libpcap here to compile it; install libpcap, or write udp port N'
        raise ConfigError(where, reason % text)
    if len(program) > LONGEST:
        raise ConfigError(where, 'filter "%s": it takes %d steps, and the kernel 4096' % (text, len(program)))
    return program


def _library() -> ctypes.CDLL | None:
    for name in LIBRARIES:
        try:
            return ctypes.CDLL(name)
        except OSError:
            pass
    return None


def _by_libpcap(library: ctypes.CDLL, text: str, link: int) -> Program:
    """Returns the program; raises ValueError with libpcap's words."""
    library.pcap_open_dead.restype = ctypes.c_void_p
    library.pcap_geterr.restype = ctypes.c_char_p
    handle = ctypes.c_void_p(library.pcap_open_dead(link, SNAP))
    program = _Program()
    try:
        if library.pcap_compile(handle, ctypes.byref(program), text.encode(), 1, ctypes.c_uint32(NO_NETMASK)):
            raise ValueError(library.pcap_geterr(handle).decode("utf-8", "replace"))
        lines = [program.instructions[i] for i in range(program.length)]
        copied = [(line.code, line.yes, line.no, line.k) for line in lines]
        library.pcap_freecode(ctypes.byref(program))
        return copied
    finally:
        library.pcap_close(handle)


def _by_tcpdump(text: str, link: int) -> Program:
    """Returns the program; raises ValueError with tcpdump's words, OSError where there is none."""
    if link not in NAMES:
        raise ValueError("not for packets of link type %d" % link)
    argv = [TCPDUMP, "-y", NAMES[link], "-s", str(SNAP), "-ddd", "--", text]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ValueError(words[-1] if words else "tcpdump ends with status %d" % done.returncode)
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    return [(int(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in rows if len(row) == 4]


_SIZES = {0x00: 4, 0x08: 2, 0x10: 1}
_COMPUTE: dict[int, Callable[[int, int], int]] = {
    0x00: lambda a, b: a + b,
    0x10: lambda a, b: a - b,
    0x20: lambda a, b: a * b,
    0x30: lambda a, b: a // b,
    0x40: lambda a, b: a | b,
    0x50: lambda a, b: a & b,
    0x60: lambda a, b: a << b if b < 32 else 0,
    0x70: lambda a, b: a >> b if b < 32 else 0,
    0x80: lambda a, b: -a,
    0x90: lambda a, b: a % b,
    0xA0: lambda a, b: a ^ b,
}
_COMPARE: dict[int, Callable[[int, int], bool]] = {
    0x10: lambda a, b: a == b,
    0x20: lambda a, b: a > b,
    0x30: lambda a, b: a >= b,
    0x40: lambda a, b: bool(a & b),
}


def run(program: Program, data: bytes, size: int | None = None) -> int:
    """Returns how many bytes of a packet a program keeps (0: drop it); `size`: its length on the wire, where cut.

    Does what the kernel does: a load beyond the end and a division by zero drop the packet.
    """
    size = len(data) if size is None else size
    a = x = at = 0
    memory = [0] * 16
    while True:
        code, yes, no, k = program[at]
        at += 1
        kind, operation, other = code & 7, code & 0xF0, x if code & 8 else k
        if kind in (0, 1):  # load
            value = _load(code, k, x, data, size, memory)
            if value is None:
                return 0
            a, x = (value, x) if kind == 0 else (a, value)
        elif kind in (2, 3):
            memory[k & 15] = a if kind == 2 else x
        elif kind == 4:
            if operation in (0x30, 0x90) and not other:
                return 0
            a = _COMPUTE[operation](a, other) & 0xFFFFFFFF
        elif kind == 5:
            at += other if operation == 0 else yes if _COMPARE[operation](a, other) else no
        elif kind == 6:
            return a if code & 0x18 == 0x10 else k
        else:  # tax, txa
            a, x = (x, x) if code & 0x80 else (a, a)


def _load(code: int, k: int, x: int, data: bytes, size: int, memory: list[int]) -> int | None:
    """Returns the value that a load gives, None beyond the packet's end."""
    mode = code & 0xE0
    if mode in (0x00, 0x60, 0x80):
        return k if mode == 0 else memory[k & 15] if mode == 0x60 else size
    if mode == 0xA0:
        return (data[k] & 15) * 4 if k < len(data) else None
    start = k + (x if mode == 0x40 else 0) & 0xFFFFFFFF
    end = start + _SIZES[code & 0x18]
    return int.from_bytes(data[start:end], "big") if end <= len(data) else None
