"""Lines of LOG to Events, and packets of NFLOG to lines: both as the kernel has them, neither ever raises."""

from binascii import unhexlify

from watching import icmp, tcp, udp

from tinyknop import net
from tinyknop.watch import nflog
from tinyknop.watch.parse import parse

FWSNORT = (
    b"Jul 30 21:24:44 moria kernel: [650982.555939] [1] SID2000500 ESTAB IN=eth0 OUT= MAC=00:13:46:3a:41:4b:00:0c:41:24"
    b":56:37:08:00 SRC=192.168.10.11 DST=192.168.10.1 LEN=59 TOS=0x00 PREC=0x00 TTL=63 ID=0 DF PROTO=TCP SPT=58801 "
    b"DPT=21 WINDOW=4117 RES=0x00 ACK PSH URGP=0 OPT (0101080A4538966A09B20FBC)"
)
SIX = (
    b"[  553.951107] DROP IN=vb OUT= MAC=26:00:00:00:00:01:26:00:00:00:00:02:86:dd SRC=fd00:0007:0000:0000:0000:0000:"
    b"0000:0001 DST=fd00:0007:0000:0000:0000:0000:0000:0002 LEN=80 TC=0 HOPLIMIT=63 FLOWLBL=80634 PROTO=TCP SPT=56122 "
    b"DPT=22 WINDOW=64800 RES=0x00 SYN URGP=0"
)
QUOTED = (
    b"IN=eth0 OUT= MAC= SRC=10.0.0.9 DST=10.0.0.1 LEN=88 TOS=0x00 PREC=0xC0 TTL=63 ID=7 PROTO=ICMP TYPE=3 CODE=3 "
    b"[SRC=10.0.0.1 DST=10.0.0.9 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=1 DF PROTO=UDP SPT=53 DPT=5353 LEN=40 ]"
)


def test_a_tcp_line_has_all_that_scoring_asks_for():
    event = parse(tcp(b"203.0.113.7", 21))
    assert (event.prefix, event.sid, event.chain, event.interface) == ("DROP", 0, "INPUT", "eth0")
    assert net.printed(event.source) == "203.0.113.7" and net.printed(event.destination) == "192.168.10.1"
    assert (event.proto, event.sport, event.dport, event.flags) == ("tcp", 35170, 21, "S")
    assert (event.size, event.ttl, event.id, event.window, event.seq) == (60, 64, 40995, 64240, 3038265977)


def test_the_first_length_is_that_of_the_packet():
    assert parse(udp(b"203.0.113.7", 53, 48)).size == 48


def test_flags_are_sorted_letters():
    flags = b"CWR ECE URG ACK PSH RST SYN FIN"
    assert parse(tcp(b"203.0.113.7", 21, flags)).flags == "12AFPRSU"
    assert parse(tcp(b"203.0.113.7", 21, b"")).flags == ""


def test_a_line_of_fwsnort_has_its_rules_number():
    event = parse(FWSNORT)
    assert (event.sid, event.prefix, event.flags, event.dport) == (2000500, "[1] SID2000500 ESTAB", "AP", 21)
    assert parse(FWSNORT.replace(b"SID", b"RULE"), b"RULE").sid == 2000500
    assert parse(FWSNORT.replace(b"SID2000500", b"SIDx")).sid == 0


def test_ipv6_lines():
    event = parse(SIX)
    assert net.printed(event.source) == "fd00:7::1" and event.ttl == 63 and event.size == 80
    assert (event.id, event.dport, event.prefix) == (-1, 22, "DROP")


def test_what_an_icmp_error_quotes_is_not_taken_for_the_packet():
    event = parse(QUOTED)
    assert net.printed(event.source) == "10.0.0.9" and event.size == 88
    assert (event.proto, event.kind, event.code, event.dport, event.id) == ("icmp", 3, 3, -1, 7)


def test_icmp_has_two_numbers_called_id():
    event = parse(icmp(b"203.0.113.7", 8).replace(b" ID=0 ", b" ID=99 "))
    assert (event.id, event.icmp_id, event.icmp_seq, event.kind) == (99, 1, 1, 8)


def test_chains_are_told_by_the_interfaces():
    line = tcp(b"203.0.113.7", 21)
    assert parse(line.replace(b"OUT= ", b"OUT=eth1 ")).chain == "FORWARD"
    out = parse(line.replace(b"IN=eth0 OUT= ", b"IN= OUT=eth1 "))
    assert (out.chain, out.interface) == ("OUTPUT", "eth1")
    bridge = parse(line.replace(b"IN=eth0 OUT= ", b"IN=br0 OUT= PHYSIN=veth0 PHYSOUT=veth1 "))
    assert (bridge.chain, bridge.interface) == ("INPUT", "br0")


def test_headers_and_prefixes_of_any_kind():
    body = tcp(b"203.0.113.7", 21).partition(b"DROP ")[2]
    for head, prefix in (
        (b"", ""),
        (b"DROP:", "DROP:"),
        (b"SRC=1.2.3.4 DPT=1 ", "SRC=1.2.3.4 DPT=1"),
        (b"2026-07-30T21:24:44.123456+02:00 moria kernel: [  1.5] a b ", "a b"),
        (b"Jul  3 21:24:44 moria kernel: IN=x ", "IN=x"),
        (b"<4>[12.5] \xff\x00 ", "??"),
    ):
        event = parse(head + body)
        assert net.printed(event.source) == "203.0.113.7" and event.dport == 21, head
        assert event.prefix.endswith(prefix), (head, event.prefix)


def test_what_another_program_logged_is_no_line_of_the_kernels():
    """A user name that somebody gives to sshd, say, in a file that holds more than the kernel's lines."""
    body = b"IN=" + tcp(b"203.0.113.7", 21).partition(b"IN=")[2]
    for head in (
        b"Jul 30 21:24:44 moria sshd[553]: Invalid user ",
        b"Jul 30 21:24:44 moria sshd[553]: Invalid user kernel: [  1.5] DROP ",
        b"<38>2026-07-30T21:24:44.123456+02:00 moria postfix/smtpd[9]: warning: ",
    ):
        assert parse(head + body + b" from 198.51.100.9 port 4000") is None, head
    for head in (
        b"Jul 30 21:24:44 moria ulogd[553]: DROP ",
        b"Jul 30 21:24:44 moria kernel: [  1.5] rule[7]: ",
        b"[  1.5] DROP: [7] ",
    ):
        assert parse(head + body).dport == 21, head


def test_ip_options_are_bytes():
    line = tcp(b"203.0.113.7", 21).replace(b" DF PROTO", b" DF OPT (830704C0A80001) PROTO")
    assert parse(line).options == b"\x83\x07\x04\xc0\xa8\x00\x01"
    assert parse(line.replace(b"830704", b"83070")).options == b""


def test_what_is_no_whole_line_is_none():
    whole = tcp(b"203.0.113.7", 21)
    for line in (b"", b"\xff" * 100, b" OUT=", b"IN= OUT= SRC=", whole[:60], whole[:90], whole * 40):
        assert parse(line) is None, line
    for name, wrong in ((b"SRC=203", b"SRC=2030"), (b"DST=192", b"DST=::"), (b" PROTO=TCP", b" PROTO=")):
        assert parse(whole.replace(name, wrong)) is None, wrong
    assert parse(whole.replace(b"DPT=21", b"DPT=99999999999")).dport == -1


def told(packet, **more):
    """Returns what the kernel tells about a packet, as `nflog.line` takes it."""
    attributes = {9: packet, 10: b"DROP \0", 4: b"\xff\xff\xff\xfe", 16: b"\x26\x00\x08\x00"}
    for name in more:
        attributes[int(name[1:])] = more[name]
    return attributes


def test_nflog_packets_become_the_kernels_own_lines():
    packet = unhexlify("4500003c a0234000 4006 0000 0a070701 0a070702".replace(" ", ""))
    packet += unhexlify(
        "89620015 b5185f79 00000000 a002 faf0 0000 0000 020405b4 01030307 00000000 00000000 0000".replace(" ", "")
    )
    assert nflog.line(told(packet[:56])) == (
        "DROP IN=if4294967294 OUT= MAC=26:00:08:00 SRC=10.7.7.1 DST=10.7.7.2 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=40995 "
        "DF PROTO=TCP SPT=35170 DPT=21 SEQ=3038273401 ACK=0 WINDOW=64240 RES=0x00 SYN URGP=0 "
        "OPT (020405B4010303070000000000000000)"
    )


def test_nflog_of_icmp_errors_quotes_as_the_kernel_does():
    inner = unhexlify("4500001c000100004011000001020304050607080035003500080000")
    outer = unhexlify("45c00038000200004001000005060708010203040303000000000000") + inner
    line = nflog.line(told(outer))
    assert line.endswith(
        "PROTO=ICMP TYPE=3 CODE=3 [SRC=1.2.3.4 DST=5.6.7.8 LEN=28 TOS=0x00 PREC=0x00 TTL=64 ID=1 PROTO=UDP SPT=53 "
        "DPT=53 LEN=8 ]"
    )
    assert (parse(line.encode()).kind, parse(line.encode()).proto) == (3, "icmp")


def test_nflog_of_fragments_and_headers_of_ipv6():
    head = unhexlify("6000000000182c40") + bytes(15) + b"\x01" + bytes(15) + b"\x02"
    first = head + unhexlify("1100000000000001") + unhexlify("0035003500100000") + bytes(8)
    event = parse(nflog.line(told(first)).encode())
    assert (event.proto, event.dport, event.size) == ("udp", 53, 64)
    later = head + unhexlify("1100010000000001") + bytes(16)
    assert parse(nflog.line(told(later)).encode()).dport == -1
    four = unhexlify("45000014000100104011000001020304050607080035")
    assert "FRAG:16 PROTO=UDP" in nflog.line(told(four))


def test_nflog_survives_whatever_it_is_given():
    packet = unhexlify("46000020 00010000 4006 0000 01020304 05060708 83070400".replace(" ", "")) + bytes(range(60))
    for length in range(len(packet)):
        parse(nflog.line(told(packet[:length])).encode())
        parse(nflog.line(told(b"\x60" + packet[1:length])).encode())
    for odd in (b"", b"\xff" * 16, b"\x10\x00\x00\x00\x00\x04" + bytes(10)):
        list(nflog.lines(odd))
    assert nflog.line({}) == "IN= OUT="
