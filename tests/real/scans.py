"""Packets as a scanner makes them, sent from a namespace, and what an NFLOG rule in another one says of them."""

import re
import select
import socket
import struct
import time

from tinyknop.watch import nflog

GROUP = 7
BITS = {"F": 1, "S": 2, "R": 4, "P": 8, "A": 16, "U": 32, "2": 64, "1": 128}
SCANNERS = re.compile(rb" SRC=(198\.51\.100\.|2001:0db8:0001:)")
HOST, HOST6 = "192.0.2.%d", "2001:db8:2::%x"


def checksum(data):
    """Returns the Internet checksum; a packet whose header has a wrong one never reaches a rule."""
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip(source, destination, proto, data, ttl=64, ident=4321, options=b""):
    """Returns an IP packet of either version."""
    if ":" in source:
        head = struct.pack(">IHBB", 6 << 28, len(data), proto, ttl)
        return head + b"".join(socket.inet_pton(socket.AF_INET6, text) for text in (source, destination)) + data
    words = 5 + len(options) // 4
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, words * 4 + len(data), ident, 0x4000, ttl, proto, 0)
    head += socket.inet_aton(source) + socket.inet_aton(destination) + options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + data


def tcp(port, flags="S", seq=1, window=1024, sport=40000, data=b""):
    """Returns (6, TCP segment)."""
    bits = sum(BITS[letter] for letter in flags)
    return 6, struct.pack(">HHIIBBHHH", sport, port, seq, 0, 5 << 4, bits, window, 0, 0) + data


def udp(port, data=b"", sport=40000):
    """Returns (17, UDP datagram)."""
    return 17, struct.pack(">HHHH", sport, port, 8 + len(data), 0) + data


def icmp(kind, code=0, data=b"", number=1, seq=1, six=False):
    """Returns (1 or 58, ICMP message)."""
    return 58 if six else 1, struct.pack(">BBHHH", kind, code, 0, number, seq) + data


def raw(proto, data=bytes(16)):
    """Returns (proto, anything)."""
    return proto, data


class Wire:
    """The client's end of the link, and a group on the server that gets all that comes in, as lines."""

    def __init__(self, network, rules=True):
        self.network = network
        for tool in ("iptables", "ip6tables") if rules else ():
            words = "-w -t raw -A PREROUTING -i eth0 -j NFLOG --nflog-group %d --nflog-prefix" % GROUP
            network.at(network.server, tool, *words.split(), "DROP ")
        text = network.at(network.server, "cat", "/sys/class/net/eth0/address")
        self.there = bytes.fromhex(text.strip().replace(":", ""))
        self.out = network.new_socket(network.client, socket.AF_PACKET, socket.SOCK_DGRAM)

    def listen(self):
        """Binds the group; one socket may."""
        self.group = self.network.inside(self.network.server, lambda: nflog.bound(GROUP))

    def send(self, packets):
        """Sends IP packets."""
        for packet in packets:
            self.out.sendto(packet, ("eth0", 0x86DD if packet[0] >> 4 == 6 else 0x800, 0, 0, self.there))

    def heard(self, wanted, within=20.0):
        """Returns the lines of `wanted` packets of scans; what neighbours say to each other is left out."""
        found, deadline = [], time.monotonic() + within
        while len(found) < wanted:
            left = deadline - time.monotonic()
            assert left > 0, "%d of %d packets were logged" % (len(found), wanted)
            if select.select([self.group], [], [], left)[0]:
                found += [line for line in nflog.lines(self.group.recv(1 << 17)) if SCANNERS.search(line)]
        return found

    def close(self):
        self.out.close()
