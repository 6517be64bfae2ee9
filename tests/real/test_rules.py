"""`tinyknop rules` beside Debian's fwsnort, in the kernel's own tables, and on real packets."""

import os
import random
import re
import socket
import struct
import subprocess
import sys

import pytest

from tests.need import need
from tests.real import net, rulefile
from tests.real.peers import ROOT, write

FIRST, BEYOND, NEVER = 9100001, 9200001, 9300001
FLAVOURS = ("iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy")


def tinyknop(network, *words, check=True):
    """Runs `tinyknop rules` in the server's namespace; returns (status, stdout, stderr)."""
    argv = ["ip", "netns", "exec", network.server, sys.executable, "-m", "tinyknop", "rules", *words]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=network.dir, env=dict(os.environ, PYTHONPATH=ROOT))
    assert not (check and done.returncode), done.stderr
    return done.returncode, done.stdout, done.stderr


def rule_file(network, name, lines, first):
    return write(os.path.join(network.dir, name), rulefile.numbered(lines, first))


@pytest.fixture
def files(network):
    """Three rule files: what both translate, what we do beyond, what nobody can."""
    return [
        rule_file(network, "both.rules", rulefile.RULES, FIRST),
        rule_file(network, "beyond.rules", rulefile.BEYOND, BEYOND),
        rule_file(network, "never.rules", [line for line, _ in rulefile.SKIPPED], NEVER),
    ]


def sids(text):
    return {int(number) for number in re.findall(r"SID(\d+)", text)}


def fwsnort(network, path, *words):
    """Runs Debian's fwsnort with state of its own; returns the sids that it translates."""
    home = os.path.join(network.dir, "fwsnort")
    os.makedirs(home, exist_ok=True)
    with open("/etc/fwsnort/fwsnort.conf") as file:
        text = re.sub(r"(?m)^(LOG_DIR|STATE_DIR)\s.*$", r"\1 %s;" % home, file.read())
    config = write(os.path.join(home, "fwsnort.conf"), text)
    network.at(network.server, "fwsnort", "-c", config, "--snort-rfile", path, "--no-addresses", *words)
    with open(os.path.join(home, "fwsnort.save")) as file:
        return sids(file.read())


def test_we_translate_all_that_fwsnort_does_and_more(network, files):
    need("fwsnort")
    for flag, words in (("-4", ()), ("-6", ("--ip6tables",))):
        theirs = fwsnort(network, files[0], *words) | fwsnort(network, files[1], *words)
        _, text, said = tinyknop(network, flag, *files)
        assert theirs - sids(text) == set(), said
        assert len(theirs) > 40
        if flag == "-4":
            assert sids(text) >= set(range(FIRST, FIRST + len(rulefile.RULES)))
            assert sids(text) >= set(range(BEYOND, BEYOND + len(rulefile.BEYOND)))
            assert len(sids(text) - theirs) >= 15


def test_every_skipped_rule_has_its_reason_and_the_count_is_right(network, files):
    _, text, said = tinyknop(network, "-4", *files)
    for number, (line, reason) in enumerate(rulefile.SKIPPED):
        where = "never.rules:%d: SID %d: skipped: " % (number + 1, NEVER + number)
        found = [one for one in said.splitlines() if where in one]
        assert len(found) == 1 and re.search(reason, found[0]), (line, said)
    good = len(rulefile.RULES) + len(rulefile.BEYOND)
    last = said.splitlines()[-2]
    assert "%d of %d rules" % (good, good + len(rulefile.SKIPPED)) in last
    assert "%d skipped" % len(rulefile.SKIPPED) in last


def test_every_line_is_taken_by_both_flavours_and_all_of_it_by_the_kernel(network, files):
    need("iptables-legacy", "ip6tables-legacy")
    tinyknop(network, "--output", network.dir, *files)
    for tool in FLAVOURS:
        path = os.path.join(network.dir, "rules.v6" if tool[2] == "6" else "rules.v4")
        with open(path) as file:
            text = file.read()
        for words in (["--test"], []):
            argv = ["ip", "netns", "exec", network.server, tool + "-restore", "--noflush", *words]
            done = subprocess.run(argv, input=text, capture_output=True, text=True)
            assert done.returncode == 0 and "rror" not in done.stderr, (tool, done.stderr)
        listed = network.at(network.server, tool + "-save")
        assert sids(listed) == sids(text)


def heard(network, tool="iptables"):
    """Returns the sids whose lines have counted packets since the last look."""
    text = network.at(network.server, tool + "-save", "-c")
    network.at(network.server, tool, "-Z")
    return {int(n) for n in re.findall(r"(?m)^\[(?!0:)\d+:\d+\] -A TINYKNOP_RULES.*SID(\d+)", text)}


def listen(network, port):
    """Makes a TCP service that takes what comes."""
    server = network.new_socket(network.server)
    network.listeners.append(server)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((net.SERVER, port))
    server.listen(8)
    network.at(network.server, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", str(port), "-j", "ACCEPT")
    return server


def spoken(network, server, text, back=b""):
    """Says a text over a TCP connection, and another one back; returns the sids that this raises."""
    with network.new_socket(network.client) as client:
        client.settimeout(10)
        client.connect(server.getsockname())
        peer = server.accept()[0]
        with peer:
            heard(network)
            client.sendall(text)
            peer.settimeout(10)
            assert peer.recv(4096) == text
            if back:
                peer.sendall(back)
                assert client.recv(4096) == back
            return heard(network)


def test_packet_of_a_rule_raises_its_sid_alone_and_a_changed_one_does_not(network, files):
    tinyknop(network, "--apply", "--metadata", network.dir + "/meta/rules.json", *files)
    for name in ("all.rp_filter=0", "eth0.rp_filter=0", "all.accept_local=1"):  # for what comes from ourselves
        network.at(network.server, "sysctl", "-q", "-w", "net.ipv4.conf." + name)
    sender = network.new_socket(network.client, socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    with sender:
        network.can_connect()  # so that nothing waits for an address of the link layer
        heard(network)
        for first, table in ((FIRST, rulefile.PACKETS), (BEYOND, rulefile.PACKETS_BEYOND)):
            for line, good, other in table:
                for packet, wanted in ((good, True), (other, False)):
                    sender.sendto(packet, (net.SERVER, 0))
                    found = heard(network)
                    assert found == ({first + line} if wanted else set()), (first + line, wanted)


def test_connection_of_a_rule_raises_its_sid_by_state_and_direction(network, files):
    tinyknop(network, "--apply", "--metadata", network.dir + "/rules.json", *files)
    server = listen(network, 21)
    assert spoken(network, server, b"user TK\r\n") == {FIRST}
    assert spoken(network, server, b"PASS tk\r\n") == {FIRST + 1}
    assert spoken(network, server, b"user TX\r\n") == set()
    assert spoken(network, server, b"banner", b"USER tk") == set()  # from the other side


def policy(network, tool):
    """Returns the rules and chains of a table."""
    lines = network.at(network.server, tool, "-w", "-S").splitlines(True)
    return "".join(line for line in lines if line[0] == "-")  # and no word about what the other flavour has


def test_apply_replaces_remove_restores_and_one_family_alone_is_possible(network, files):
    before = {tool: policy(network, tool) for tool in FLAVOURS[:2]}
    meta = ("--metadata", network.dir + "/rules.json")
    tinyknop(network, "--apply", *meta, files[0])
    both = {tool: policy(network, tool) for tool in before}
    tinyknop(network, "--apply", *meta, files[0])
    assert {tool: policy(network, tool) for tool in before} == both
    tinyknop(network, "--apply", "-4", "--sid", str(FIRST), *meta, files[0])
    assert sids(policy(network, "iptables")) == {FIRST}
    assert policy(network, "ip6tables") == both["ip6tables"]
    assert policy(network, "iptables").count("-j TINYKNOP_RULES\n") == 4
    tinyknop(network, "--remove")
    tinyknop(network, "--remove")
    assert {tool: policy(network, tool) for tool in before} == before


def test_what_one_family_refuses_is_put_in_neither(network, files):
    before = policy(network, "iptables")
    fake = os.path.join(network.dir, "bin")
    os.mkdir(fake)
    write(fake + "/ip6tables-restore", "#!/bin/sh\necho refused >&2\nexit 1\n", 0o755)
    argv = ["env", "PATH=%s:%s" % (fake, os.environ["PATH"]), "PYTHONPATH=" + ROOT, sys.executable, "-m", "tinyknop"]
    words = ["rules", "--apply", "--metadata", network.dir + "/rules.json", files[0]]
    said = network.at(network.server, *argv, *words, check=False)
    assert "refused" in said
    assert policy(network, "iptables") == before


def test_heaviest_rule_and_mangled_ones_are_taken_and_change_nothing_else(network):
    rng = random.Random(5)
    path = write(os.path.join(network.dir, "odd.rules"), "")
    with open(path, "w", encoding="utf-8") as file:
        file.write(rulefile.numbered([rulefile.HEAVY, rulefile.HEAVY_NUMBERS], 1))
        file.write(rulefile.mangled(rng, 1500, 100))
    before = {tool: policy(network, tool) for tool in FLAVOURS}
    tinyknop(network, "--output", network.dir, "--reject", "--max-rules", "0", path)
    for tool in FLAVOURS:
        with open(os.path.join(network.dir, "rules.v6" if tool[2] == "6" else "rules.v4")) as file:
            text = file.read()
        argv = ["ip", "netns", "exec", network.server, tool + "-restore", "--noflush"]
        done = subprocess.run(argv, input=text, capture_output=True, text=True)
        assert done.returncode == 0, (tool, done.stderr)
        assert len(sids(text)) > 100 and (tool[2] == "6" or {1, 2} <= sids(text))
        others = [line for line in policy(network, tool).splitlines() if "TINYKNOP_RULES" not in line]
        assert "\n".join(others) + "\n" == before[tool]


def test_ipv6_datagram_raises_its_sid_alone(network, files):
    tinyknop(network, "--apply", "-6", "--metadata", network.dir + "/rules.json", *files)
    network.at(network.server, "ip6tables", "-I", "INPUT", "1", "-p", "icmpv6", "-j", "ACCEPT")
    cases = [(FIRST + line, *both) for line, *both in rulefile.PACKETS if both[0][9] == 17 and line not in (24,)]
    cases += [
        (BEYOND + line, *both) for line, *both in rulefile.PACKETS_BEYOND if both[0][9] == 17 and line not in (2, 6)
    ]
    with network.new_socket(network.client, socket.AF_INET6, socket.SOCK_DGRAM) as client:
        client.sendto(b"", (net.SERVER6, 9))
        for sid, good, other in cases:
            for packet, wanted in ((good, {sid}), (other, set())):
                source, port = struct.unpack_from("!HH", packet, 20)
                if source != 40000:  # another socket's
                    continue
                heard(network, "ip6tables")
                client.sendto(packet[28:], (net.SERVER6, port))
                assert heard(network, "ip6tables") == wanted, (sid, wanted)
    assert len(cases) > 12


def test_only_the_first_packets_of_a_connection_are_looked_at(network, files):
    # Of a connection that is dropped the kernel keeps no count: each packet is its first.
    network.at(network.server, "iptables", "-A", "INPUT", "-p", "udp", "--dport", "161", "-j", "ACCEPT")
    for words, wanted in ((("--first-packets", "3"), 3), (("--first-packets", "0"), 5)):
        tinyknop(network, "--apply", "-4", *words, "--metadata", network.dir + "/rules.json", files[0])
        with network.new_socket(network.client, kind=socket.SOCK_DGRAM) as client:
            for _ in range(5):
                client.sendto(b"the public tk", (net.SERVER, 161))
        text = network.at(network.server, "iptables-save", "-c")
        assert re.findall(r"(?m)^\[(\d+):.*SID%d " % (FIRST + 53), text) == [str(wanted)]


def test_nflog_carries_the_prefix(network, files):
    tinyknop(network, "--apply", "--nflog", "7", "--metadata", network.dir + "/rules.json", files[0])
    listed = network.at(network.server, "iptables-save")
    assert re.search(r'--nflog-prefix +"\[1\] SID%d ESTAB " --nflog-group 7' % FIRST, listed), listed[:2000]
