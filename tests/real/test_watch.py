"""Log watch beside Debian's psad: real packets, real NFLOG rules, the same level for the same source."""

import os
import re
import shutil
import subprocess

import pytest

from tests.need import need
from tests.real.scans import HOST, HOST6, Wire, icmp, ip, raw, tcp, udp
from tinyknop import net
from tinyknop.watch import outfit
from tinyknop.watch.parse import parse

PSAD = "/etc/psad"
PRIVATE = """EMAIL_ADDRESSES root@localhost;
HOSTNAME test;
ALERTING_METHODS noemail;
ENABLE_WHOIS_LOOKUPS N;
ENABLE_DNS_LOOKUPS N;
ENABLE_FW_LOGGING_CHECK N;
ENABLE_INTF_LOCAL_NETS N;
AUTO_DETECT_JOURNALCTL N;
ENABLE_SIG_MSG_SYSLOG N;
PSAD_DIR {0}/log;
PSAD_RUN_DIR {0}/run;
PSAD_FIFO_DIR {0}/fifo;
PSAD_CONF_DIR {0}/etc;
FWSNORT_RULES_DIR {0}/etc/snort_rules;
FW_DATA_FILE {0}/log/fwdata;
"""
# Lower steps, so that levels 4 and 5 take a hundred packets and not ten thousand: psad reads some 300 lines a second.
LOW = {"DANGER_LEVEL3": "20", "DANGER_LEVEL4": "40", "DANGER_LEVEL5": "100", "DL3_UNIQUE_HOSTS": "15"}
LOW.update({"DL4_UNIQUE_HOSTS": "18", "DL5_UNIQUE_HOSTS": "20", "PORT_RANGE_SCAN_THRESHOLD": "3"})
RULES = """alert tcp any any -> any 21 (msg:"a rule of the tests"; classtype:misc-activity; sid:2000500; rev:2;)
alert tcp any any -> any 21 (msg:"another"; content:"two"; classtype:misc-activity; sid:2000501; rev:1;)
"""
RULE_LEVELS = "2000501 4;\n"
AUTO = """198.51.100.201 0;
198.51.100.202 5;
198.51.100.203 4 tcp;
198.51.100.204 3 tcp/1-1024;
198.51.100.205 1;
198.51.100.208/29 3 udp; # a network
"""


def to(how, *contents, six=False):
    """Returns a packet for each content: `how` is a host's number, or a list of them."""
    hosts = how if isinstance(how, list) else [how] * len(contents)
    return [((HOST6 if six else HOST) % host, content) for host, content in zip(hosts, contents * len(hosts))]


def ports(make, count, first=7000, **more):
    """Returns contents for so many ports."""
    return [make(first + number, **more) for number in range(count)]


def six(*contents):
    return to(1, *contents, six=True)


ONE = (tcp(7000),)
SOURCE_ROUTE = bytes((131, 7, 8, 192, 0, 2, 1, 0))  # loose, and already where it leads
# What is sent from one source each: [(destination, (protocol, data)), ...], and how the IP header differs.
SCANS = {
    "4 ports": to(1, *ports(tcp, 4)),
    "5 ports": to(1, *ports(tcp, 5)),
    "14 ports": to(1, *ports(tcp, 14)),
    "15 ports": to(1, *ports(tcp, 15)),
    "150 ports": to(1, *ports(tcp, 150)),
    "one port": to(1, *ONE * 20),
    "two ports": to(1, *ports(tcp, 2) * 3),
    "downwards": to(1, *reversed(ports(tcp, 6))),
    "FIN": to(1, *ports(tcp, 6, flags="F")),
    "one FIN": to(1, tcp(7000, "F")),
    "NULL": to(1, *ports(tcp, 6, flags="")),
    "XMAS": to(1, *ports(tcp, 6, flags="FPU")),
    "SYN and FIN": to(1, tcp(7000, "SF")),
    "ACK": to(1, *ports(tcp, 20, flags="A")),
    "RST": to(1, *ports(tcp, 20, flags="R")),
    "answers": to(1, *ports(tcp, 20, flags="SA")),
    "ECN": to(1, *ports(tcp, 6, flags="S12")),
    "all flags": to(1, *ports(tcp, 6, flags="FSRPAU")),
    "UDP": to(1, *ports(udp, 15)),
    "UDP of one port": to(1, *[udp(7000)] * 15),
    "TCP and UDP": to(1, *ports(tcp, 3), *ports(udp, 2)),
    "the same port of both": to(1, *ONE * 3, *[udp(7000)] * 3),
    "once each": to(1, tcp(7000), udp(7000), *[raw(47)] * 3),
    "sweep of 9": to(list(range(1, 10)), *ONE),
    "sweep of 10": to(list(range(1, 11)), *ONE),
    "sweep of 20": to(list(range(1, 21)), *ONE),
    "3 to each of 2": to([1, 2] * 3, *ports(tcp, 3)),
    "sweep, then a host": to(list(range(1, 11)), *ONE) + to(1, *ONE * 20),
    "5 protocols": to(1, *ONE * 2, *[raw(number) for number in (2, 47, 103, 104)]),
    "4 protocols": to(1, *ONE * 2, *[raw(number) for number in (2, 47, 103)]),
    "all protocols": to(1, *[raw(number) for number in range(120, 150) if number not in (132, 136)]),
    "GRE": to(1, *[raw(47)] * 5),
    "ESP and AH": to(1, *[raw(50), raw(51)] * 4),
    "ping": to(1, *[icmp(8, data=bytes(56))] * 5),
    "ping sweep": to(list(range(1, 21)), icmp(8, data=bytes(56))),
    "large ping": to(1, icmp(0, data=bytes(900))),
    "router advertisement": to(1, *[icmp(9)] * 4),
    "an unknown type": to(1, icmp(99)),
    "an impossible code": to(1, icmp(8, 7)),
    "ICMP error": to(1, icmp(3, 3, ip("192.0.2.1", "198.51.100.1", *udp(53), ttl=60))),
    "ICMP address mask": to(1, icmp(17)),
    "loose source route": (to(1, tcp(80)), {"options": SOURCE_ROUTE}),
    "TTL of 0": (to(1, *ONE), {"ttl": 0}),
    "an agent's port": to(1, tcp(705)),
    "worm": to(1, udp(1434, bytes(376))),
    "not the worm": to(1, udp(1434, bytes(8))),
    "trojan": to(1, udp(31335, bytes(3))),
    "not quite": to(1, udp(31335, bytes(2))),
    "window of a trojan": to(1, tcp(7000, window=55808)),
    "seq of a scanner": to(1, tcp(7000, seq=1958810375)),
    "port 0": to(1, tcp(0), udp(0)),
    "multicast": [("239.0.0.1", tcp(7000))],
    "IPv6 ports": six(*ports(tcp, 6)),
    "IPv6 one port": six(*ONE * 6),
    "IPv6 UDP": six(*ports(udp, 16)),
    "IPv6 sweep": to(list(range(1, 13)), *ONE, six=True),
    "IPv6 ping": six(*[icmp(128, six=True)] * 5),
    "IPv6 unknown type": six(icmp(99, six=True)),
    "IPv6 impossible code": six(icmp(1, 99, six=True)),
    "IPv6 agent's port": six(tcp(705)),
    "IPv6 GRE": six(*[raw(47)] * 5),
}
# The same by the source's own address, which auto_dl names.
NAMED = {201: to(1, *ports(tcp, 20)), 202: to(1, *ONE), 203: to(1, *ONE), 204: to(1, *ONE), 205: to(1, *ports(tcp, 6))}
NAMED.update({208: to(1, udp(53)), 209: to(1, *ONE), 215: to(1, udp(53)), 216: to(1, udp(53))})


def scans():
    """Yields (source, what, packets) for each scan."""
    for number, (what, scan) in enumerate(SCANS.items(), 1):
        sent, head = scan if isinstance(scan, tuple) else (scan, {})
        source = ("2001:db8:1::%x" if what.startswith("IPv6") else "198.51.100.%d") % number
        yield source, what, [ip(source, host, *content, **head) for host, content in sent]
    for number, sent in NAMED.items():
        source = "198.51.100.%d" % number
        yield source, "auto_dl, %d" % number, [ip(source, host, *content) for host, content in sent]


def private(home, etc):
    """Makes directories for a psad of its own, with a copy of the files of another."""
    for name in ("log", "run", "fifo", "etc/snort_rules"):
        os.makedirs(os.path.join(home, name))
    for name in os.listdir(etc):
        if os.path.isfile(os.path.join(etc, name)):
            shutil.copy(os.path.join(etc, name), os.path.join(home, "etc", name))


@pytest.fixture
def psad(tmp_path):
    """The home of a psad of our own, with files of the tests."""
    need("psad")
    private(tmp_path, PSAD)
    (tmp_path / "etc/auto_dl").write_text(AUTO)
    (tmp_path / "etc/snort_rule_dl").write_text(RULE_LEVELS)
    (tmp_path / "etc/snort_rules/tests.rules").write_text(RULES)
    return tmp_path


def levels_of_psad(home, lines, **settings):
    """Returns {address: level} as psad prints it for a log."""
    paths = [os.path.join(home, name) for name in ("test.log", "override.conf", "etc/psad.conf")]
    with open(paths[0], "wb") as file:
        file.write(b"\n".join(lines) + b"\n")
    with open(paths[1], "w") as file:
        file.write(PRIVATE.format(home) + "".join("%s %s;\n" % pair for pair in settings.items()))
    argv = ["psad", "--test-mode", "-A", "-m", paths[0], "-O", paths[1], "-c", paths[2]]
    argv += ["--no-whois", "--no-rdns", "--no-netstat"]
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    text = done.stdout.decode("utf-8", "replace")
    assert "Finished --Analyze cycle" in text, text[-2000:]
    found = re.findall(r"^SRC:\s+([0-9a-f.:]+).*?, DL: (\d)", text, re.MULTILINE)
    return {net.printed(net.packed(address)): int(level) for address, level in found}


def levels_of_ours(home, lines, **settings):
    """Returns {address: level} of the same, from the same files."""
    etc = os.path.join(home, "etc")
    with open(etc + "/psad.conf", "a") as file:
        file.writelines("%s %s;\n" % pair for pair in settings.items())
    scorer, _ = outfit.scorer({"psad": etc, "rules": etc + "/snort_rules"})
    for line in lines:
        event = parse(line)
        if event is not None:
            scorer.score(event)
    found = {net.printed(address): scorer.final(source) for address, source in scorer.sources()}
    return {address: level for address, level in found.items() if level}


def with_rules(lines):
    """Returns lines of packets that Snort rules matched, made of one that the kernel told about."""
    line = [one for one in lines if b"SRC=198.51.100.2 " in one][0]
    found = []
    for number, (prefix, flags, count) in enumerate(
        (
            (b"[1] SID2000500 ESTAB ", b"ACK PSH", 1),
            (b"[1] SID2000500 ESTAB ", b"ACK PSH", 7),
            (b"[2] SID2000501 ", b"SYN", 1),
            (b"[3] SID77 ", b"SYN", 7),
            (b"[3] SID77 ESTAB ", b"ACK", 7),
        )
    ):
        made = line.replace(b"DROP ", prefix).replace(b" SYN ", b" " + flags + b" ")
        found += [made.replace(b"SRC=198.51.100.2 ", b"SRC=198.51.100.%d " % (230 + number))] * count
    return found


def test_psad_gives_the_same_levels(network, psad):
    wire = Wire(network)
    wire.listen()
    told, waiting = [], []
    for _, _, packets in scans():
        waiting += packets
        if len(waiting) > 150:
            wire.send(waiting)
            told, waiting = told + wire.heard(len(waiting)), []
    wire.send(waiting)
    told += wire.heard(len(waiting))
    wire.close()
    assert len(told) == sum(len(packets) for _, _, packets in scans())
    told += with_rules(told)
    # As syslog writes them, in both forms of time; the kernel's own would do for both readers.
    forms = (b"Jul 30 21:24:44 moria kernel: [650982.555939] ", b"2026-07-30T21:24:44.123456+02:00 moria kernel: ")
    lines = [forms[number % 2] + line for number, line in enumerate(told)]
    names = {source: what for source, what, _ in scans()}
    for settings in ({}, LOW):
        theirs, ours = levels_of_psad(psad, lines, **settings), levels_of_ours(psad, lines, **settings)
        assert len(set(theirs.values())) >= 4 and len(theirs) >= 35
        assert {names.get(a, a): n for a, n in ours.items()} == {names.get(a, a): n for a, n in theirs.items()}
    assert set(theirs.values()) == {1, 2, 3, 4, 5}
    assert len(SCANS) + len(NAMED) >= 30
