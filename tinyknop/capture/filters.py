"""Socket filters in classic BPF: what cannot be a knock never leaves the kernel.

A program is a list of (code, jump if true, jump if false, value), as in `struct sock_filter`. It is written here with
names for jump targets, so that later filters (fan-out, hints) can be put together from the same pieces.
"""

import socket
import struct

from tinyknop.compat import MICROPYTHON
from tinyknop.errors import ConfigError

MIN_PAYLOAD = 140  # fwknopd's MIN_SPA_DATA_SIZE; the shortest packet of all vectors is longer
MAX_PAYLOAD = 1500  # its MAX_SPA_PACKET_LEN
SNAP = 60 + 8 + MAX_PAYLOAD  # longest IPv4 header, UDP header

LD_W, LD_H, LD_B = 0x20, 0x28, 0x30
LD_H_X, LD_B_X = 0x48, 0x50  # relative to X
LDX_IMM, LDX_IHL = 0x01, 0xB1  # X = value; X = length of the IPv4 header at the offset
ST, LD_M = 0x02, 0x60  # to and from the scratch memory
TAX, TXA = 0x07, 0x87
AND, ADD, ADD_X, MUL, RSH = 0x54, 0x04, 0x0C, 0x24, 0x74
JA, JEQ, JGT, JGE, JSET = 0x05, 0x15, 0x25, 0x35, 0x45
RET, RET_A = 0x06, 0x16
NET = 0xFFF00000  # SKF_NET_OFF: counted from the IP header, whatever the program is attached to
DLT_RAW = 12  # libpcap's name for packets that begin with their IP header
PKTTYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE
OUTGOING = 4  # PACKET_OUTGOING; on `lo` every packet is seen a second time like this

KEEP = [(RET, 0, 0, SNAP)]  # the program that keeps everything
_ATTACH = 26  # SO_ATTACH_FILTER
_LEAF = 8  # values compared one after the other; above that the search is binary


def assemble(lines):
    """Returns the program for lines of (label, code, value, if true, if false); the last three may be absent.

    A jump names a label, or is None for the next line. Labels lie below their jumps, at most 255 lines away.
    """
    at = {}
    for i, line in enumerate(lines):
        if line[0]:
            at[line[0]] = i
    program = []
    for i, line in enumerate(lines):
        jumps = [at[name] - i - 1 if name else 0 for name in line[3:]] + [0, 0]
        program.append((line[1], jumps[0], jumps[1], line[2]))
    return program


def knock(port, then=KEEP):
    """Returns the program that keeps UDP datagrams to `port`, IPv4 and IPv6, that may be knocks.

    That is: no fragment, no IPv6 extension header, a payload as long as a knock's, of which the first four bytes can
    be base64. The packet begins at its IP header, as a SOCK_DGRAM packet socket has it. What is left is up to
    the program `then`, for which X is where the UDP header begins.
    """
    lines = [
        (None, LD_B, 0),
        (None, AND, 0xF0),
        (None, JEQ, 0x60, "six", None),
        (None, JEQ, 0x40, None, "drop"),
        (None, LD_B, 9),
        (None, JEQ, 17, None, "drop"),
        (None, LD_H, 6),
        (None, JSET, 0x3FFF, "drop", None),
        (None, LDX_IHL, 0),
        (None, JEQ, 0x10000, None, "udp"),  # a halfword never is: jumps always
        ("six", LD_B, 6),
        (None, JEQ, 17, None, "drop"),
        (None, LDX_IMM, 40),
        ("udp", LD_H_X, 2),
        (None, JEQ, port, None, "drop"),
    ]
    return assemble(lines + _worth()) + then


def payload(then=KEEP):
    """Returns the program that keeps what may be a knock for a UDP socket, which sees packets from their UDP header."""
    return assemble([(None, LDX_IMM, 0)] + _worth()) + then


def _worth():
    """The lines that judge a UDP datagram with its header at X; what comes behind them decides about what they keep."""
    lines = [
        (None, LD_H_X, 4),
        (None, JGE, MIN_PAYLOAD + 8, None, "drop"),
        (None, JGT, MAX_PAYLOAD + 8, "drop", None),
    ]
    for i in range(4):
        after = "byte%d" % (i + 1)
        lines += [
            ("byte%d" % i, LD_B_X, 8 + i),
            (None, JEQ, 0x2B, after, None),  # +
            (None, JGE, 0x2F, None, "drop"),  # / and digits
            (None, JGT, 0x39, None, after),
            (None, JGE, 0x41, None, "drop"),  # letters, and the six characters between the two cases
            (None, JGT, 0x7A, "drop", after),
        ]
    return lines + [("drop", RET, 0), ("byte4", JA, 0)]


def search(values, found):
    """Returns the program that ends with `found` where A is one of the sorted values, else with what X is."""
    count = len(values)
    if count <= _LEAF:
        code = [(JEQ, count - i + 1, 0, value) for i, value in enumerate(values)]
        return code + [(TXA, 0, 0, 0), (RET_A, 0, 0, 0), (RET, 0, 0, found)]
    low, high = search(values[: count // 2], found), search(values[count // 2 :], found)
    return [(JGE, 0, 1, values[count // 2]), (JA, 0, 0, len(low))] + low + high


def inbound(program):
    """Returns a program that drops what this machine sends, and asks `program` about the rest."""
    return [(LD_B, 0, 0, PKTTYPE), (JEQ, 0, 1, OUTGOING), (RET, 0, 0, 0)] + program


def compiled(text, where, link=DLT_RAW):
    """Returns the program of a filter in tcpdump's language, for packets of a link type; "none" keeps everything.

    Raises ConfigError at `where`.
    """
    if text == "none":
        return [(RET, 0, 0, 0x40000)]
    try:
        return _bpf().compile(text, where, link)
    except ImportError:
        raise ConfigError(where, 'filter "%s": only "udp port N" works here' % text)


def run(program, data):
    """Returns how many bytes of a packet a compiled program keeps; 0: none."""
    return _bpf().run(program, data)


def _bpf():
    # By name, as this is the core: a board has no host/.
    return __import__("tinyknop.host.bpf", None, None, ("compile",))


def attach(sock, program, level=socket.SOL_SOCKET, option=_ATTACH):
    """Puts a program on a socket (or its group) in place of the one there; raises OSError where the kernel won't."""
    code = b"".join([struct.pack("@HBBI", *line) for line in program])
    if MICROPYTHON:
        import uctypes

        address = uctypes.addressof(code)
    else:
        from array import array  # knows its address; ctypes would cost 0.7 MB

        held = array("B", code)
        address = held.buffer_info()[0]
    sock.setsockopt(level, option, struct.pack("@HP", len(program), address))  # the kernel copies it at once
