"""Floods of bogus packets at the full rate of this machine: frames made beforehand, sent by sendmmsg(2).

As a program: floods.py INTERFACE MAC SOURCES SECONDS FAMILY; SOURCES 0 stands for random forged ones. It prints how
many packets were sent in how many seconds. Only ever started in a namespace of the tests' own.
"""

import base64
import ctypes
import os
import random
import re
import socket
import struct
import subprocess
import sys
import time

BATCH = 256  # frames a system call
FORGED = 65536  # different frames where every source is forged; by then the first ones are long forgotten
QDISC_BYPASS = 20  # PACKET_QDISC_BYPASS
SERVER, SERVER6 = "10.99.0.1", "fd99::1"


class Flood:
    """A flood that runs in a process of its own, from the client's end of a network (see net.Net)."""

    def __init__(self, network, sources, seconds, family=4):
        found = network.at(network.server, "ip", "-o", "link", "show", "eth0")
        mac = re.search(r"link/ether (\S+)", found).group(1)
        argv = ["ip", "netns", "exec", network.client, sys.executable, "-S", os.path.abspath(__file__), "eth0", mac]
        argv += [str(sources), str(seconds), str(family)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE)
        self.process.stdout.readline()  # "begun": the frames are made

    def rate(self):
        """Waits for its end; returns the packets a second."""
        text = self.process.stdout.read()
        self.process.wait()
        sent, seconds = text.split()
        return int(sent) / float(seconds)

    def stop(self):
        """Ends it early."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def checksum(head):
    """Returns the checksum of an IPv4 header."""
    total = sum(struct.unpack(">10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def frame(ethernet, number, forged, family):
    """Returns a frame with a bogus knock: 204 characters of base64, from a source of this number or a random one."""
    payload = base64.b64encode(os.urandom(153))
    udp = struct.pack(">HHHH", random.randrange(1024, 65536), 62201, 8 + len(payload), 0) + payload
    if family == 6:
        prefix = os.urandom(6) if forged else struct.pack(">IH", number, 0)
        source = struct.pack(">H", 0x2001) + prefix + os.urandom(8)
        head = struct.pack(">IHBB", 0x60000000, len(udp), 17, 64) + source + socket.inet_pton(socket.AF_INET6, SERVER6)
        return ethernet + b"\x86\xdd" + head + udp
    source = random.randrange(0x0B000000, 0x7F000000) if forged else 0xC6120000 + number  # 198.18.0.0/15
    ends = struct.pack(">I", source) + socket.inet_aton(SERVER)
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + ends
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    return ethernet + b"\x08\x00" + head + udp


def messages(frames):
    """Returns an array of `struct mmsghdr` for frames, and what it points to."""
    vectors = (ctypes.c_size_t * (2 * len(frames)))()
    size = 64 if ctypes.sizeof(ctypes.c_void_p) == 8 else 32
    words = size // ctypes.sizeof(ctypes.c_size_t)
    array = (ctypes.c_size_t * (words * len(frames)))()
    base = ctypes.addressof(vectors)
    for number, data in enumerate(frames):
        vectors[2 * number] = ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value
        vectors[2 * number + 1] = len(data)
        # msg_name, its length, msg_iov, how many; the rest is 0
        array[words * number + 2] = base + number * ctypes.sizeof(ctypes.c_size_t) * 2
        array[words * number + 3] = 1
    return array, size, (vectors, frames)


def flood(interface, mac, sources, seconds, family):
    """Sends for so many seconds; returns (packets, seconds)."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((interface, 0))
    sock.setsockopt(263, QDISC_BYPASS, 1)
    ethernet = bytes(int(part, 16) for part in mac.split(":")) + b"\x02\0\0\0\0\1"
    count = FORGED if not sources else max(BATCH, sources * (1 + BATCH // sources))
    frames = [frame(ethernet, number % max(sources, 1), not sources, family) for number in range(count)]
    array, size, kept = messages(frames)
    print("begun", flush=True)
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    send.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    sent = at = 0
    base, descriptor, clock = ctypes.addressof(array), sock.fileno(), time.monotonic
    begun = clock()
    while clock() - begun < seconds:
        done = send(descriptor, base + at * size, min(BATCH, count - at), 0)
        if done > 0:
            sent += done
            at = (at + done) % count
    return sent, clock() - begun


if __name__ == "__main__":
    print("%d %.3f" % flood(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])))
