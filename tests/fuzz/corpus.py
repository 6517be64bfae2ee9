"""What fuzzing begins with: the vectors, packets by tests/mutants.py, odd configurations, and a good input each."""

import json
import random
import struct

from tests import mutants
from tests.fuzz import targets
from tinyknop import Packet, netlink, seal

UDP = struct.pack(">HHHH", 40000, 62201, 208, 0) + b"A" * 200
FOUR = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(UDP), 0, 0, 64, 17, 0, b"\xc0\0\2\7", b"\x0a\0\0\1")
SIX = struct.pack(">IHBB16s16s", 6 << 28, len(UDP), 17, 64, bytes(15) + b"\7", bytes(15) + b"\1")
TCP = struct.pack(">HHIIBBHHH", 40000, 62201, 1, 2, 0x50, 0x18, 512, 0, 0) + b"A" * 150
FRAMES = (
    FOUR + UDP,
    SIX + UDP,
    b"\x46" + FOUR[1:] + bytes(4) + UDP,
    FOUR[:2] + struct.pack(">H", 20 + len(TCP)) + FOUR[4:9] + b"\6" + FOUR[10:] + TCP,
    SIX[:4] + struct.pack(">H", len(TCP)) + b"\6" + SIX[7:] + TCP,
    FOUR[:9] + b"\1" + FOUR[10:] + b"\x08\0" + bytes(6) + b"A" * 200,
    SIX[:6] + b"\x3a" + SIX[7:] + b"\x80\0" + bytes(6) + b"A" * 200,
)
ETHERNET = bytes(12) + b"\x08\0" + FRAMES[0]
CLASSIC = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
CLASSIC += (struct.pack("<IIII", 1, 2, len(ETHERNET), len(ETHERNET)) + ETHERNET) * 2


def block(kind, body):
    """Returns a block of a pcapng file."""
    size = 12 + len(body) + -len(body) % 4
    return struct.pack("<II", kind, size) + body + bytes(-len(body) % 4) + struct.pack("<I", size)


NEXT = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(1, struct.pack("<HHI", 1, 0, 65535))
NEXT += block(6, struct.pack("<IIIII", 0, 0, 0, len(ETHERNET), len(ETHERNET)) + ETHERNET)
NEXT += block(3, struct.pack("<I", len(ETHERNET)) + ETHERNET)
GET = b"GET /" + b"A" * 160 + b" HTTP/1.1\r\nUser-Agent: Fwknop/2.6\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.1\r\n\r\n"
DIGEST = b"q" * 43
CACHE = b"# <digest> <proto> <src_ip> <src_port> <dst_ip> <dst_port> <time>\n"
CACHE += DIGEST + b" 17 192.0.2.7 40000 10.0.0.1 62201 1700000000\n" + b"r" * 43
CACHE += b" 17 0.0.0.0 1 10.0.0.1 62201 4000000000 4000000100\n# tinyknop floor=1600000000 clock=1700000000\n"
JOURNAL = b"open 1 192.0.2.7 tcp/22,udp/53 1700000000 1700000030 alice - firewall,edge%20router 10.0.0.1 192.0.2.7\n"
JOURNAL += (
    b"open 2 2001:db8::7 tcp/22 1700000000 1700000060 #1 0,10.0.0.5,22,masquerade,0,1 firewall 0.0.0.0 ::1\nclose 1\n"
    b"begun 2 firewall tcp/22\n"
)
ACCESS = b"SOURCE ANY\nKEY_BASE64 aGVsbG8=\nHMAC_KEY k\nOPEN_PORTS tcp/22, udp/53\nFW_ACCESS_TIMEOUT 30\n"
LOG = b"Jan  1 00:00:00 host kernel: [  12.34] SID1234 ESTAB IN=eth0 OUT= MAC=01:02 SRC=192.0.2.7 DST=10.0.0.1 LEN=60 "
LOG += b"TOS=0x00 PREC=0x00 TTL=64 ID=1 DF OPT (0704) PROTO=TCP SPT=1 DPT=22 SEQ=1 ACK=0 WINDOW=512 RES=0x00 SYN URGP=0"
ICMP = b"IN=eth0 OUT= SRC=192.0.2.7 DST=10.0.0.1 LEN=60 TTL=64 ID=1 PROTO=ICMP TYPE=3 CODE=1 [SRC=10.0.0.1 DST=1.2.3.4 "
SNORT = b'var HOME [10.0.0.0/8,!10.1.0.0/16]\nalert tcp $HOME any -> !$EXTERNAL_NET [22,80:90] (msg:"x|3b| y"; '
SNORT += b'flow:to_server,established; content:"|90 90|AB"; nocase; offset:3; depth:9; dsize:>5; '
SNORT += b'flags:S+; pcre:"/a(b|c)d/i"; ttl:<5; '
SNORT += b"byte_test:2,>,512,1,relative; classtype:misc; reference:cve,1-2; sid:1234; rev:2;)\n"
PSAD = b'alert icmp $EXTERNAL any -> [10.0.0.0/8,1.2.3.4] !80:90 (msg:"x"; itype:8; icode:0; dsize:>800; sid:1;)\n'
PSAD += b"192.0.2.0/24 5 tcp/22,80-90;\n1234 3;\n0 echo\n      0 code\nDANGER_LEVEL1 5;\n"
SETS = b"Name: s\nType: hash:ip,port\nMembers:\n192.0.2.7,tcp:22 timeout 30\n2001:db8::7,tcp:22 timeout 0\n"
RULES = b"-A FWKNOP_INPUT -s 192.0.2.7/32 -p tcp -m tcp --dport 22 -m time --datestop 2030-01-01T00:00:00 -m comment "
RULES += b'--comment _exp_1700000030 -j ACCEPT\npass in from 192.0.2.7 to any port = ssh label "_exp_1700000030"\n'
GPG = b"NEWSIG\nGOODSIG 0123456789ABCDEF name\nVALIDSIG " + b"AB" * 20 + b" 2020-01-01 1 0 4 0 1 8 00 " + b"AB" * 20
GPG += b"\nTRUST_FULLY 0 pgp\n"
TALK = b"\0\xfe\x20\r\nR1#\xfe\x20\r\nR1#\xfe\x01terminal length 0\r\nR1#\xfe\x01terminal width 0\r\nR1#"
TALK += b"\xfe\x01show clock\r\n12:00\r\nR1#\xfe\x01end\r\nR1#"


def packets(keys):
    """Yields inputs of `unseal` and `gate`: a byte that says what to do, and what to do it with."""
    rng = random.Random(1)
    for number in range(len(keys)):
        for _ in range(8):
            yield bytes([4 * number + targets.SEALED]) + mutants.plain_of(rng)
            yield bytes([4 * number + targets.FIELDS]) + b":".join(mutants.fields_of(rng))
        whole = seal(Packet(message="192.0.2.7,tcp/22", username="alice", timestamp=targets.NOW), keys[number])
        yield bytes([4 * number + targets.AS_IT_IS]) + whole
        cut = len(whole) - keys[number].hmac_length
        yield bytes([4 * number + targets.SIGNED]) + whole[:cut]


def configurations(*endings):
    """Yields the odd files of tests/corpus/config with one of these endings."""
    for path in sorted((targets.HERE / "corpus" / "config").iterdir()):
        if path.suffix in endings and path.stat().st_size < 4096:
            yield path.read_bytes()


def vectors():
    """Yields the packets of the vectors as they are."""
    for vector in json.loads((targets.HERE / "vectors" / "spa_vectors.json").read_bytes()):
        yield b"\0" + vector["packet"].encode("utf-8", "replace")
        yield bytes([targets.SEALED]) + (vector.get("plaintext") or "").encode("utf-8", "replace")


LISTING = netlink.netfilter(6, 7, 0, 1, netlink.attr(3, b"hash:ip,port\0") + netlink.attr(5, b"\2") + netlink.attr(
    8 | netlink.NESTED, netlink.attr(7 | netlink.NESTED, netlink.attr(1 | netlink.NESTED, netlink.attr(
        1 | netlink.BIG, b"\xc0\0\2\7")) + netlink.attr(4 | netlink.BIG, b"\0\x16") + netlink.attr(7, b"\6"))
))  # fmt: skip
CHAIN = netlink.netfilter(
    10,
    3,
    0,
    1,
    netlink.attr(1, b"filter\0")
    + netlink.attr(3, b"input\0")
    + netlink.attr(4 | netlink.NESTED, netlink.attr(1, b"\0\0\0\1") + netlink.attr(2, b"\0\0\0\0"))
    + netlink.attr(7, b"filter\0"),
)

JSON = b'{"capture": [{"kind": "udp"}], "port": {"firewall": {"kind": "ipset"}}, '
JSON += b'"stanza": [{"source": "ANY", "KEY": "k"}]}'
GOOD = {
    "http": [GET, GET.replace(b"\r\n", b"\n")], "hints": [bytes(range(60, 140)), b"\x64" * 40], "ip": FRAMES,
    "nfqueue": FRAMES, "bpf": FRAMES, "pcap": [CLASSIC, NEXT, struct.pack(">I", 0xA1B23C4D) + CLASSIC[4:]],
    "replay": [CACHE], "journal": [JOURNAL], "lines": [JOURNAL, b"", b"x"], "ready": [b"\0\0x"],
    "filter": [b"udp port 62201", b"udp dst port 1", b"none", b"tcp port 62201"], "rules": [SNORT], "console": [
        bytes([kind]) + TALK[1:] for kind in range(4)], "printed": [SETS, RULES],
    "kernel": [LISTING, CHAIN, LISTING[16:]],
    "gpg": [GPG], "address": [b"192.0.2.7\n", b"1.2.3.4.5", b"01.02.03.04"], "control": [
        b'["open", "192.0.2.7", "tcp/22", "30", "firewall"]', b'["close", "1"]', b"[[[]]]"], "watch": [LOG, ICMP],
    "nflog": FRAMES, "psad": [PSAD], "rc": [b"[default]\nSPA_SERVER 192.0.2.1\n[office]\nKEY_BASE64: eA==\n"],
    "fwknopd": [b"PCAP_INTF eth0;\nENABLE_SPA_OVER_HTTP Y;\nLOCALE $PCAP_INTF/x;\n"], "access": [ACCESS],
    "toml": [targets.TOML], "json": [JSON],
}  # fmt: skip
DEVICES = b"""[[capture]]
kind = "packet"
interface = "eth0"
port = 62201
[[capture]]
kind = "nfqueue"
queue = 7
[carrier.edge]
kind = "serial"
device = "/dev/ttyUSB0"
baud = 9600
user = "knock"
profile = "cisco-ios"
[carrier.far]
kind = "ssh"
host = "192.0.2.1"
profile = "openwrt"
[port.a]
kind = "ipset"
via = "far"
maxelem = "65536"
[port.b]
kind = "nftables"
maxelem = 65536
[port.c]
kind = "cisco-ios"
via = "edge"
list = "KNOCK"
[port.d]
kind = "command"
open = "/bin/true $SOURCE"
close = "/bin/true"
timeout = 7
[port.e]
kind = "ipfw"
start_rule = 7
[port.f]
kind = "gpio"
pin = 7
pulse = 50
[port.g]
kind = "iptables"
chain = "ACCEPT, filter, INPUT, 1, MINE, 1"
[port.h]
kind = "wireguard"
peers = "alice AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= 10.8.0.2/32"
[[stanza]]
name = "alice"
source = ["ANY"]
key = "k"
hmac_key = "h"
openings = ["tcp/22"]
ports = ["a", "b", "c", "d"]
"""
GOOD["toml"].append(DEVICES)
ENDINGS = {"access": (".access",), "fwknopd": (".conf",), "rc": (".rc", ".conf")}


def seeds(name):
    """Returns the inputs that a target begins with."""
    found = list(GOOD.get(name, ()))
    if name == "unseal":
        found += list(vectors()) + list(packets(targets.KEYS))
    elif name == "gate":
        found += list(packets(targets.GATE_KEYS))
    return found + list(configurations(*ENDINGS.get(name, ())))
