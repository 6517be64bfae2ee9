"""Snort rules written for the tests: every option of the table, what fwsnort leaves out, and packets that match."""

import struct

# Of each option in docs/rules.md at least one; sids count up from 9100001. `%s` is for the message and the sid.
RULES = """
tcp any any -> any 21 flow:to_server,established; content:"USER tk"; nocase;
tcp any any -> any 21 flow:established; content:"PASS|20|tk|0d 0a|";
tcp any any -> any 80 content:"GET /tk"; offset:0; depth:7;
tcp any any -> any 80 content:"tk-agent"; offset:10; depth:60;
tcp any any -> any 80 content:"one tk"; content:"two tk"; distance:1;
tcp any any -> any 80 content:"one tk"; content:"two tk"; distance:0; within:20;
tcp any any -> any 80 content:"yes tk"; content:!"not tk";
tcp any any -> any 80 uricontent:"/tk/admin.cgi"; nocase;
tcp any any -> any 80 content:"/tk-uri"; http_uri; urilen:<40;
tcp any any -> any 80 content:"tk-header"; http_header; rawbytes;
tcp any any -> any 80 content:"short"; content:"much longer tk"; fast_pattern;
tcp any any -> any 80 pcre:"/tkfirst.*tksecond/i";
tcp any any -> any 80 pcre:"/tkfirst.*tksecond.*tkthird/";
tcp any any -> any 80 content:"quoted \\"tk\\" text";
tcp any any -> any 80 content:"semi\\;tk\\:colon";
tcp any any -> any 80 content:"|74 6b|bin|00 01 02 ff|";
tcp any any -> any 25 flags:SF;
tcp any any -> any 125 flags:S,12;
tcp any any -> any 126 flags:A+;
tcp any any -> any 25 flags:FPU;
tcp any any -> any 25 flags:0;
tcp any any -> any 25 flags:S+; ttl:<5;
tcp any any -> any 25 ttl:>250; content:"ttl tk";
tcp any any -> any 25 ttl:77;
udp any any -> any any tos:4; content:"tos tk";
icmp any any -> any any itype:8; icode:0; content:"icmp tk";
icmp any any -> any any itype:13;
icmp any any -> any any itype:3; icode:9;
icmp any any -> any any content:"ping tk"; dsize:7;
ip any any -> any any ip_proto:47;
ip any any -> any any ip_proto:igmp;
ip any any -> any any content:"any proto tk";
udp any any -> any 53 dsize:>500;
udp any any -> any 53 dsize:<3;
udp any any -> any 69 dsize:10<>20; content:"tftp tk";
tcp any any -> any 110 content:"resp tk"; resp:rst_all;
udp any any -> any 111 content:"resp tk"; resp:icmp_port;
tcp any any -> any 1:1024 content:"range tk";
tcp any any -> any !80 content:"not eighty tk";
tcp any any -> any [80,8080,9000:9010] content:"list tk";
tcp any 1024: -> any 143 content:"high source tk";
tcp any :1023 -> any 143 content:"low source tk";
tcp $EXTERNAL_NET any -> $HOME_NET $HTTP_PORTS content:"variables tk";
tcp $EXTERNAL_NET any -> $HTTP_SERVERS $SHELLCODE_PORTS content:"servers tk";
tcp 10.99.0.0/24 any -> any 26 content:"from net tk";
tcp !10.99.0.0/24 any -> any 26 content:"not from net tk";
tcp [10.98.0.0/16,10.99.0.2] any -> [10.99.0.1] 26 content:"from list tk";
tcp 10.99.0.2 any -> 10.99.0.1 26 content:"one to one tk";
tcp any any -> any 27 flow:from_server,established; content:"served tk";
tcp any any -> any 27 flow:stateless; content:"stateless tk";
tcp any any -> any 27 flow:to_client; content:"to client tk";
tcp any any -> any 27 classtype:attempted-admin; reference:cve,1999-0001; content:"classed tk"; rev:7; priority:2;
tcp any any -> any 27 reference:url,example.org/tk; content:"referred tk"; metadata:policy balanced, service smtp;
udp any any -> any 161 content:"public tk"; metadata:created_at 2010_07_30, updated_at 2019_07_26;
udp any 53 -> any any content:"answer tk";
udp any any -> any 5060 content:"SIP tk"; depth:6; nocase;
udp any any -> any 5060 content:"|ff ff|tk"; depth:4; content:"later tk"; distance:2; within:40;
udp any any -> any 5061 content:"head tk"; offset:4; depth:7; content:"tail tk"; distance:0; within:7;
udp any any -> any 5061 content:"negative tk"; content:"neg"; distance:-20;
tcp any any -> any 5062 content:"|ff d8 ff e0|tk|00 10|"; offset:2;
tcp any any -> any 5062 content:"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAtk";
udp any any -> any 5063 content:"gid tk"; gid:3;
""".strip().split("\n")

# What fwsnort leaves out and we do not.
BEYOND = """
icmp any any -> any any icmp_id:678; itype:8;
icmp any any -> any any icmp_seq:4242; itype:8;
ip any any -> any any id:39426;
tcp any any -> any 25 window:55808; flags:S;
tcp any any -> any 25 seq:674711609; flags:S;
tcp any any -> any 25 ack:123456; flags:A;
ip any any -> any any sameip;
udp any any -> any 7000 byte_test:2,>,500,4;
udp any any -> any 7001 byte_test:4,=,7,0,little; content:"test tk";
udp any any -> any 7002 byte_test:1,&,64,2; content:"bits tk";
udp any any -> any 7003 byte_test:1,!=,9,9,big;
udp any any -> any 7004 isdataat:100; content:"long tk";
udp any any -> any 7005 pcre:"/name=[0-9]{3,}&tkvalue=\\d+/";
udp any any -> any 7006 content:"x tk"; pcre:"/(GET|POST)\\s+tkpath\\x2fadmin/Ui";
icmp any any -> any any itype:>40;
udp any any -> any 7007 content:"limited tk"; threshold:type limit, track by_src, count 1, seconds 60;
tcp any any -> any 7010 dsize:5<>6;
tcp any any -> any [80,81,82,83,84,85,86,87,88,89,90,91,92,93,94,95,96,97] content:"many ports tk";
""".strip().split("\n")

# What cannot be said in iptables, with a word of the reason.
SKIPPED = (
    ('udp any any -> any 1 asn1:bitstring_overflow,absolute_offset 0; content:"a tk";', "asn1"),
    ('udp any any -> any 1 byte_jump:4,0; content:"b tk";', "byte_jump"),
    ('udp any any -> any 1 byte_test:4,>,5,0,relative; content:"c tk";', "relative"),
    ('udp any any -> any 1 flowbits:isset,tk; content:"d tk";', "flowbits"),
    ('udp any any -> any 1 content:"e tk"; isdataat:!5,relative;', "isdataat"),
    ('udp any any -> any 1 pcre:"/[0-9]+/";', "no literal"),
    ('udp any any -> any 1 pcre:"/one|two/";', "alternatives"),
    ('udp any any -> any 1 pcre:!"/tkthing/";', "must not match"),
    ('http any any -> any 1 content:"f tk";', "protocol http"),
    ('udp any any -> any $NO_PORTS content:"g tk";', "NO_PORTS"),
    ('udp any any -> any 1 content:"h tk"; depth:2;', "longer than its depth"),
    ('udp any any -> any 1 content:"|4|";', "no hex"),
    ('udp any any -> any 1 threshold:type both, track by_src, count 5, seconds 60; content:"i tk";', "threshold"),
    ('udp any any -> any 1 content:"j tk"; base64_decode:bytes 12;', "base64_decode"),
    ("udp any any -> any 99999 dsize:1;", "99999"),
    ("udp 10.0.0.300 any -> any 1 dsize:1;", "10.0.0.300|0 to 255"),
)


def numbered(lines, first):
    """Returns a rule file of bare rules, sids from `first` on."""
    return "".join(
        'alert %s (msg:"test %d"; %s sid:%d;)\n' % (*parts(line, first + number), first + number)
        for number, line in enumerate(lines)
    )


def parts(line, sid):
    """Splits a bare rule into header and options, with a number for its message in between."""
    words = line.split(None, 7)
    return " ".join(words[:6]), sid, " ".join(words[6:])


def checksum(data):
    """Returns the Internet checksum."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


def ip(proto, payload, ttl=64, tos=0, ident=1, source="10.99.0.2", destination="10.99.0.1"):
    """Returns an IPv4 packet; the kernel's raw socket fills in length and checksum."""
    ends = bytes(map(int, (source + "." + destination).split(".")))
    return struct.pack("!BBHHHBBH", 0x45, tos, 20 + len(payload), ident, 0, ttl, proto, 0) + ends + payload


def tcp(port, payload=b"", flags=2, seq=1, ack=0, window=1024, **more):
    """Returns an IPv4 packet with a TCP segment, its checksum right."""
    head = struct.pack("!HHIIBBHHH", 40000, port, seq, ack, 0x50, flags, window, 0, 0)
    pseudo = bytes([10, 99, 0, 2, 10, 99, 0, 1, 0, 6]) + struct.pack("!H", len(head) + len(payload))
    total = checksum(pseudo + head + payload)
    return ip(6, head[:16] + struct.pack("!H", total) + head[18:] + payload, **more)


def udp(port, payload, source=40000, source_address="10.99.0.2", **more):
    """Returns an IPv4 packet with a UDP datagram that has no checksum."""
    head = struct.pack("!HHHH", source, port, 8 + len(payload), 0)
    return ip(17, head + payload, source=source_address, **more)


def icmp(kind, code=0, ident=1, seq=1, payload=b"", **more):
    """Returns an IPv4 packet with an ICMP message, its checksum right."""
    body = struct.pack("!BBHHH", kind, code, 0, ident, seq) + payload
    return ip(1, body[:2] + struct.pack("!H", checksum(body)) + body[4:], **more)


def pad(text, size):
    """Returns bytes with blanks up to a size."""
    return text + b" " * (size - len(text))


# Line of RULES (from 0), a packet that it describes, one that it all but describes.
PACKETS = (
    (16, tcp(25, flags=3), tcp(25, flags=2, ttl=99)),
    (19, tcp(25, flags=0x29), tcp(25, flags=0x2D)),
    (20, tcp(25, flags=0), tcp(25, flags=1)),
    (21, tcp(25, flags=2, ttl=4), tcp(25, flags=2, ttl=5)),
    (22, tcp(25, b"say ttl tk", flags=0x12, ttl=251), tcp(25, b"say ttl tk", flags=0x12, ttl=250)),
    (23, tcp(25, flags=4, ttl=77), tcp(25, flags=4, ttl=78)),
    (24, udp(9, b"a tos tk", tos=4), udp(9, b"a tos tk", tos=8)),
    (25, icmp(8, payload=b"an icmp tk"), icmp(8, payload=b"an icmp tK")),
    (26, icmp(13, payload=bytes(12)), icmp(14, payload=bytes(12))),
    (27, icmp(3, 9, payload=ip(17, bytes(8))), icmp(3, 10, payload=ip(17, bytes(8)))),
    (28, icmp(8, payload=b"ping tk"), icmp(8, payload=b"ping tk!")),
    (29, ip(47, bytes(8)), ip(46, bytes(8))),
    (31, ip(103, b"of any proto tk"), ip(103, b"of any protO tk")),
    (32, udp(53, bytes(501)), udp(53, bytes(500))),
    (33, udp(53, b"ab"), udp(53, b"abc")),
    (34, udp(69, b"tftp tk 10"), udp(69, b"tftp tk 9")),
    (53, udp(161, b"the public tk"), udp(161, b"the Public tk")),
    (54, udp(9, b"an answer tk", source=53), udp(9, b"an answer tk", source=54)),
    (55, udp(5060, b"sip TK then"), udp(5060, b" sip TK then")),
    (56, udp(5060, b"\xff\xfftk..later tk"), udp(5060, b"\xff\xfftk.later tk")),
    (57, udp(5061, b"....head tktail tk"), udp(5061, b"....head tk.tail tk")),
    (58, udp(5061, b"negative tk"), udp(5061, b"nEgative tk")),
)
# The same of BEYOND.
PACKETS_BEYOND = (
    (0, icmp(8, ident=678), icmp(8, ident=679)),
    (1, icmp(8, seq=4242), icmp(8, seq=4241)),
    (2, udp(9, b"", ident=39426), udp(9, b"", ident=39427)),
    (3, tcp(25, window=55808, ttl=99), tcp(25, window=55809, ttl=99)),
    (4, tcp(25, seq=674711609), tcp(25, seq=674711610)),
    (5, tcp(25, flags=16, ack=123456), tcp(25, flags=16, ack=123457)),
    (7, udp(7000, b"....\x01\xf5"), udp(7000, b"....\x01\xf4")),
    (8, udp(7001, b"\x07\0\0\0test tk"), udp(7001, b"\0\0\0\x07test tk")),
    (9, udp(7002, b"..\x41bits tk"), udp(7002, b"..\x01bits tk")),
    (10, udp(7003, b"123456789\x08"), udp(7003, b"123456789\x09")),
    (11, udp(7004, pad(b"long tk", 101)), udp(7004, pad(b"long tk", 99))),
    (12, udp(7005, b"name=123&tkvalue=5"), udp(7005, b"name=123&tkvalu=5")),
    (13, udp(7006, b"x tk GET TKpath/Admin"), udp(7006, b"x tk GET TKpath Admin")),
    (14, icmp(41), icmp(40)),
    (6, udp(9, b"", source_address="10.99.0.1"), udp(9, b"", source_address="10.99.0.3")),
    (16, tcp(7010, b"12345", flags=24), tcp(7010, b"1234", flags=24)),
    (16, tcp(7010, b"123456", flags=24), tcp(7010, b"1234567", flags=24)),
)

NASTY = ('"', "'", "\\", ";", ":", "|", "!", "$(id)", "[", "]", "\n", "\0", "\t", "\n-A INPUT -j ACCEPT\n", "COMMIT",
         "|41 42|", "\u00e9", "A" * 130, "9" * 12, ",", "<>", "any", "any" * 400)  # fmt: skip
# As much of everything as one rule may have, with contents and without.
HEAVY = (
    "tcp ![10.1.0.0/16,10.2.0.0/16,10.3.0.0/16] any -> ![10.4.0.0/16,10.5.0.0/16,10.6.0.0/16] "
    "[1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,!31,!33] flow:to_server,established; flags:A+; ttl:>5; window:>6; "
    'byte_test:2,!=,500,4; byte_test:1,&,1,9; dsize:50<>1400; content:!"%s"; content:!"%s"; '
    + "".join('content:"%s"; nocase; ' % (chr(97 + number) * 127) for number in range(20))
) % ("N" * 127, "M" * 127)

HEAVY_NUMBERS = HEAVY[: HEAVY.index("content")] + "sameip; "


def mangled(rng, count, first):
    """Returns a rule file of rules into which things were thrown that a parser or a shell might take for its own."""
    lines = []
    for number in range(count):
        line = list(numbered([rng.choice(RULES + BEYOND)], first + number))
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(line))
            line[at : at + rng.randint(0, 2)] = rng.choice(NASTY)
        lines.append("".join(line).strip("\n") + "\n")
    return "".join(lines)
