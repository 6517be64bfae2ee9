"""Netlink messages as bytes: what the kernel is told about ipset, and what it answers. Opens no socket.

Every function that knows a byte order takes it as its last argument ("<" or ">", as in `struct`), because many routers
are big-endian; without one it is this machine's. Fields that ipset itself defines are big-endian everywhere.
"""

import struct
import sys

HOST = "<" if sys.byteorder == "little" else ">"

# Kinds of message that netlink itself defines.
ERROR = 2  # with error number 0 it is the acknowledgement
DONE = 3  # the end of a list

REQUEST = 1
MULTI = 2
ACK = 4
EXCL = 0x200
CREATE = 0x400
DUMP = 0x300

NESTED = 0x8000
BIG = 0x4000

AF_INET = 2  # the kernel's numbers; `socket.AF_INET6` is another number on other systems
AF_INET6 = 10

PROTOCOLS = (("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("sctp", 132), ("udplite", 136))

IPSET = 6  # nfnetlink's number for the subsystem
IPSET_CREATE = 2
IPSET_LIST = 7
IPSET_ADD = 9
IPSET_DEL = 10
IPSET_TEST = 11

IPSET_MAXNAME = 31
IPSET_LONGEST = 2147483  # seconds; the kernel counts milliseconds in 31 bits

# Errors that ipset adds to errno's (include/uapi/linux/netfilter/ipset/ip_set.h).
IPSET_NO_TYPE = 4098
IPSET_EXISTS = 4103  # an entry; for a test: it is not there
IPSET_FULL = 4352

RTM_NEWLINK = 16
RTM_GETLINK = 18
IFF_UP = 1


def attr(kind, data, order=HOST):
    """Returns one attribute, padded to the next multiple of four bytes."""
    size = 4 + len(data)
    return struct.pack(order + "HH", size, kind) + data + bytes(-size % 4)


def attrs(data, order=HOST):
    """Returns the attributes in `data` as (kind without flags, bytes); stops at the first that is cut short."""
    found = []
    at = 0
    while at + 4 <= len(data):
        size, kind = struct.unpack(order + "HH", data[at : at + 4])
        if size < 4 or at + size > len(data):
            break
        found.append((kind & 0x3FFF, data[at + 4 : at + size]))
        at += size + (-size % 4)
    return found


def message(kind, flags, seq, body, order=HOST):
    """Returns one netlink message; `seq` comes back in its answer."""
    return struct.pack(order + "IHHII", 16 + len(body), kind, flags | REQUEST, seq, 0) + body


def messages(data, order=HOST):
    """Returns the messages in what one `recv` gave, as (kind, flags, seq, body); drops one that is cut short."""
    found = []
    at = 0
    while at + 16 <= len(data):
        size, kind, flags, seq = struct.unpack(order + "IHHI", data[at : at + 12])
        if size < 16 or at + size > len(data):
            break
        found.append((kind, flags, seq, data[at + 16 : at + size]))
        at += size + (-size % 4)
    return found


def error_of(body, order=HOST):
    """Returns the error number that an ERROR or DONE message carries, positive; 0 means success."""
    return -struct.unpack(order + "i", body[:4])[0] if len(body) >= 4 else 0


def netfilter(subsystem, command, flags, seq, body, family=AF_INET, resource=0, order=HOST):
    """Returns one nfnetlink message; `resource` is a queue's number, or the subsystem where a batch begins."""
    head = struct.pack(">BBH", family, 0, resource)
    return message(subsystem << 8 | command, flags, seq, head + body, order)


def _ipset(command, flags, seq, name, body, order):
    head = attr(1, b"\x07", order) + attr(2, name.encode() + b"\0", order)  # 7: the protocol since Linux 4.20
    return netfilter(IPSET, command, flags | ACK, seq, head + body, order=order)


def ipset_create(seq, name, family, maxelem=None, timeout=0, order=HOST):
    """Returns the message that makes a hash:ip,port set; an equal one that exists already is no error."""
    data = attr(6 | BIG, struct.pack(">I", timeout), order)
    if maxelem is not None:
        data += attr(19 | BIG, struct.pack(">I", maxelem), order)
    body = attr(3, b"hash:ip,port\0", order)
    body += attr(4, b"\x01", order)  # revision 1, the oldest with SCTP: every kernel in use accepts it
    body += attr(5, bytes([family]), order) + attr(7 | NESTED, data, order)
    return _ipset(IPSET_CREATE, CREATE, seq, name, body, order)


def ipset_entry(command, seq, name, entry, timeout=None, order=HOST):
    """Returns the message that adds, deletes or tests an entry (packed address, protocol's number or None, port).

    Adding what is there renews its time, and deleting what is not there is no error. A timeout of 0 is for ever.
    None: an entry of a set that holds addresses alone.
    """
    address, proto, port = entry
    data = attr(1 | NESTED, attr((1 if len(address) == 4 else 2) | BIG, address, order), order)
    if proto is not None:
        data += attr(4 | BIG, struct.pack(">H", port), order) + attr(7, bytes([proto]), order)
    if timeout is not None:
        data += attr(6 | BIG, struct.pack(">I", timeout), order)
    return _ipset(command, 0, seq, name, attr(7 | NESTED, data, order), order)


def ipset_list(seq, name, order=HOST):
    """Returns the message that asks for a set with all its entries."""
    return _ipset(IPSET_LIST, DUMP, seq, name, b"", order)


def _number(data):
    return int.from_bytes(data, "big")


def ipset_entry_of(data, order=HOST):
    """Returns (packed address, protocol's number, port, seconds left, prefix); the last four None where not there."""
    address, proto, port, timeout, prefix = b"", None, None, None, None
    for kind, value in attrs(data, order):
        if kind == 1:
            for _, inner in attrs(value, order):
                address = inner
        elif kind == 3:
            prefix = _number(value)
        elif kind == 4:
            port = _number(value)
        elif kind == 6:
            timeout = _number(value)
        elif kind == 7:
            proto = _number(value)
    return address, proto, port, timeout, prefix


def ipset_listed(body, order=HOST):
    """Returns (type, header, entries) of one message of a list; only the first of a list has a header, others {}.

    The header may have "family", "elements", "references", "memory" and those of its options that `names` holds.
    """
    names: tuple = ((6, "timeout"), (12, "bitmask"), (18, "hashsize"), (19, "maxelem"), (20, "netmask"))
    names += ((24, "elements"), (25, "references"), (26, "memory"))
    kind_name, header, entries = "", {}, []
    for kind, value in attrs(body[4:], order):
        if kind == 3:
            kind_name = value[:-1].decode()
        elif kind == 4:
            header["revision"] = _number(value)
        elif kind == 5:
            header["family"] = _number(value)
        elif kind == 7:
            for number, inner in attrs(value, order):
                for known, name in names:
                    if known == number:
                        header[name] = _number(inner)
        elif kind == 8:
            for _, inner in attrs(value, order):
                entries.append(ipset_entry_of(inner, order))
    return kind_name, header, entries


def address(raw, order=HOST):
    """Returns what `bind` takes for a netlink socket; `raw` as MicroPython wants it, a sockaddr_nl."""
    return struct.pack(order + "HHII", 16, 0, 0, 0) if raw else (0, 0)


def link_query(seq, name, order=HOST):
    """Returns the rtnetlink message that asks for one interface by name."""
    return message(RTM_GETLINK, 0, seq, bytes(16) + attr(3, name.encode() + b"\0", order), order)


def link_of(body, order=HOST):
    """Returns (index, is it up) from the answer to `link_query`."""
    index, flags = struct.unpack(order + "iI", body[4:12])
    return index, bool(flags & IFF_UP)
