"""What it takes to end connections that are established: their conntrack entries, and this machine's own sockets.

Without the second a TCP connection to this machine survives the first: its next packet out makes a new entry, by which
the answer counts as established (nf_conntrack_tcp_loose is on by default). Opens no socket. `order` is as in `netlink`.
"""

import struct

from . import net
from .netlink import ACK, AF_INET, AF_INET6, DUMP, HOST, NESTED, PROTOCOLS, attr, message, netfilter

CONNTRACK, DELETE = 1, 2  # nfnetlink's numbers for the subsystem and its message
SOCK_DIAG = 4  # the netlink protocol that knows sockets
BY_FAMILY, DESTROY = 20, 21
LIVE = 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9  # states: established, opening, closing
MAPPED = bytes(10) + b"\xff\xff"  # an IPv4 address in an IPv6 socket
SOURCE, PROTOCOL, TO_PORT = 1, 8, 32  # what a filter looks at, of the direction that began the connection


def words(grant):
    """Returns the commands that end what came in by a grant, sockets first: what they send would make new entries.

    The program `conntrack` fails where there is nothing to end; the netlink carrier doesn't.
    """
    nat = grant.nat
    every = nat is not None and nat.every and not nat.local
    said: list = []
    for proto, port in grant.openings:
        if proto == "tcp" and (nat is None or nat.local):
            said.append(("ss", "-K", "-t", "dst", grant.source, "sport", "=", ":%d" % (nat.port if nat else port)))
        # Where nothing rewrites it, the client names the inside port.
        what = () if every else ("-p", proto, "--dport", str(port if nat is None or nat.dnat else nat.port))
        said.append(("conntrack", "-D", "-s", grant.source) + what)
    return said


def entries(seq, said, order=HOST):
    """Returns the message for `conntrack -D -s ADDRESS [-p PROTO --dport PORT]`, which needs Linux 5.8.

    It always names an address: without one the kernel would delete everything. Raises ValueError for other words.
    """
    numbers = [number for name, number in PROTOCOLS if said[5:6] == (name,)]
    whole = len(said) == 8 and said[4:5] + said[6:7] == ("-p", "--dport") and numbers
    if said[:3] != ("conntrack", "-D", "-s") or not whole and len(said) != 4:
        raise ValueError("not a command that this carrier knows")
    source, flags, ports = net.packed(said[3]), SOURCE, b""
    family, kind = (AF_INET, 1) if len(source) == 4 else (AF_INET6, 3)
    if numbers:
        flags |= PROTOCOL | TO_PORT
        ports = attr(1, bytes(numbers), order) + attr(3, struct.pack(">H", int(said[7])), order)
        ports = attr(2 | NESTED, ports, order)
    path = attr(1 | NESTED, attr(1 | NESTED, attr(kind, source, order), order) + ports, order)
    chosen = attr(25 | NESTED, attr(1, struct.pack(order + "I", flags), order), order)
    return netfilter(CONNTRACK, DELETE, ACK, seq, path + chosen, family, 0, order)


def peer(said):
    """Returns (packed address, port of ours) of `ss -K -t dst ADDRESS sport = :PORT`; raises ValueError for others."""
    if len(said) != 8 or said[:4] + said[5:7] != ("ss", "-K", "-t", "dst", "sport", "=") or said[7][:1] != ":":
        raise ValueError("not a command that this carrier knows")
    return net.packed(said[4]), int(said[7][1:])


def sockets(seq, family, port, order=HOST):
    """Returns the message that asks for TCP connections of a family with that port on our side."""
    asked = struct.pack(order + "BBBBI", family, 6, 0, 0, LIVE) + struct.pack(">H", port) + bytes(46)
    return message(BY_FAMILY, DUMP, seq, asked, order)


def far_end(body):
    """Returns the packed address at the other end of a connection that was listed; of IPv4 in IPv6 the IPv4 one."""
    address = body[24:40] if body[0] == AF_INET6 else body[24:28]
    return address[12:] if address[:12] == MAPPED else address


def destroy(seq, body, order=HOST):
    """Returns the message that resets a connection that was listed."""
    asked = struct.pack(order + "BBBBI", body[0], 6, 0, 0, LIVE) + body[4:52]
    return message(DESTROY, ACK, seq, asked, order)
