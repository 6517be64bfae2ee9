"""Lines as the kernel writes them, and files that tests of the log watch read."""

import os
from binascii import hexlify

TCP = (
    b"Jul 30 21:24:44 moria kernel: [553.949673] DROP IN=eth0 OUT= MAC=26:00:00:00:00:01:26:00:00:00:00:02:08:00 "
    b"SRC=%s DST=%s LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=40995 DF PROTO=TCP SPT=35170 DPT=%d SEQ=3038265977 ACK=0 "
    b"WINDOW=64240 RES=0x00 %s URGP=0 OPT (020405B40402080A000000000000000001030307)"
)
UDP = (
    b"DROP IN=eth0 OUT= MAC= SRC=%s DST=%s LEN=%d TOS=0x00 PREC=0x00 TTL=64 ID=40995 DF PROTO=UDP SPT=34345 DPT=%d "
    b"LEN=28"
)
ICMP = (
    b"DROP IN=eth0 OUT= MAC= SRC=%s DST=%s LEN=%d TOS=0x00 PREC=0x00 TTL=64 ID=0 DF PROTO=ICMP TYPE=%d CODE=%d ID=1 "
    b"SEQ=1"
)
HERE = b"192.168.10.1"


def tcp(source, port, flags=b"SYN", host=HERE):
    """Returns the line of a TCP packet."""
    return TCP % (source, host, port, flags)


def udp(source, port, size=48, host=HERE):
    """Returns the line of a UDP packet of `size` bytes."""
    return UDP % (source, host, size, port)


def icmp(source, kind, code=0, size=84):
    """Returns the line of an ICMP packet."""
    return ICMP % (source, HERE, size, kind, code)


_OURS = "%s/tinyknop-watch-%s" % (os.getenv("TMPDIR") or "/tmp", hexlify(os.urandom(8)).decode())


def temporary(text=b"", ending=""):
    """Writes a file that no other process has, one for each ending; returns its path."""
    path = _OURS + ending
    with open(path, "wb") as file:
        file.write(text)
    return path
