"""A hostile network, a careless admin and a crashing machine, against the real daemon in a namespace."""

import binascii
import os
import signal
import subprocess
import time

import pytest

from tests.need import need
from tests.real import net, peers
from tinyknop import Keys, Packet, seal

KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
ACCESS = "%s,tcp/%d" % (net.CLIENT, net.SERVICE)
OTHER = "IPT_INPUT_ACCESS ACCEPT, filter, INPUT, 1, OTHER_INPUT, 1;\n"
NO_TIME = """#!/bin/sh
text=$(cat)
case "$text" in *"-m time"*) echo "no time match" >&2; exit 2;; esac
printf '%s\\n' "$text" | exec iptables-restore "$@"
"""


def knock(network, message=ACCESS, keys=KEYS, **fields):
    """Sends a knock and returns its bytes."""
    data = seal(Packet(message=message, **fields), keys)
    network.send(data)
    return data


def until(what, within=5.0):
    deadline = time.monotonic() + within
    while not what() and time.monotonic() < deadline:
        time.sleep(0.03)
    return what()


def again(daemon, text, within=8.0):
    """Gives the daemon another fwknopd.conf by SIGHUP."""
    peers.write(daemon.config, text)
    mark = daemon.mark()
    daemon.signal(signal.SIGHUP)
    return until(lambda: [line for line in daemon.lines[mark:] if "Re-starting" in line or "stays" in line], within)


def conf_of(daemon):
    with open(daemon.config) as file:
        return file.read()


def fake(network, name, text):
    path = os.path.join(network.dir, name)
    return peers.write(path, text, 0o755)


def test_one_client_with_a_fast_clock_does_not_lock_everybody_out(network):
    daemon = peers.front_end(network, max_spa_packet_age="1")
    knock(network, timestamp=int(time.time()) + 86400)
    assert until(lambda: "time difference is too great" in daemon.text())
    time.sleep(2.5)
    knock(network)
    knock(network, "10.99.0.9,tcp/%d" % net.SERVICE)
    assert network.wait_connect(True, within=2) is not None, daemon.text()


def test_a_log_that_nobody_reads_any_more_ends_nothing(network):
    """The program behind `tinyknop fwknopd -f 2>&1 |` is gone; what is open must still close."""
    conf, access, run = peers.fwknop_files(network, peers.stanza(fw_access_timeout="2"), "mute")
    argv = ["ip", "netns", "exec", network.server, *peers.PYTHON, "-m", "tinyknop", "fwknopd", "-f"]
    argv += ["-c", conf, "-a", access, "-r", run]
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=peers.ROOT
    )
    try:
        said = b""
        while b"main event loop" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        process.stderr.close()
        knock(network)
        opened = network.wait_connect(True, within=3)
        time.sleep(2.5)
        assert process.poll() is None, "the daemon is gone with status %s" % process.poll()
        assert opened is not None and not peers.rules(network)
    finally:
        process.kill()
        process.wait()


def test_rules_of_a_chain_that_is_no_longer_configured_go(network):
    """SIGHUP with another IPT_INPUT_ACCESS while a grant lives, where the kernel has no time match."""
    binary = fake(network, "iptables-notime", '#!/bin/sh\nexec iptables "$@"\n')
    fake(network, "iptables-notime-restore", NO_TIME)
    daemon = peers.front_end(network, peers.stanza(fw_access_timeout="4"), firewall_exe=binary)
    knock(network)
    assert network.wait_connect(True) is not None
    text = conf_of(daemon) + OTHER
    assert again(daemon, text), daemon.text()
    time.sleep(6)
    assert not network.can_connect(), network.at(network.server, "iptables", "-S") + daemon.text()


def test_replay_detection_that_is_switched_on_by_sighup_is_on(network):
    daemon = peers.front_end(network, peers.stanza(fw_access_timeout="1"), enable_digest_persistence="N")
    assert again(daemon, conf_of(daemon).replace("PERSISTENCE N", "PERSISTENCE Y"))
    data = knock(network)
    assert network.wait_connect(True) is not None
    assert network.wait_connect(False) is not None
    network.send(data)
    assert network.wait_connect(True, within=1.5) is None, daemon.text()


def test_serve_and_fwknopd_do_not_share_a_state_directory(network):
    daemon = peers.front_end(network)
    text = conf_of(daemon) + "FWKNOP_RUN_DIR %s;\nACCESS_FILE %s;\n" % (daemon.state, daemon.access)
    second = peers.write(os.path.join(network.dir, "fwknopd.conf"), text)
    argv = [*peers.PYTHON, "-m", "tinyknop", "serve", "-c", second]
    other = peers.Process(network, network.server, argv)
    until(lambda: "ready: " in other.text() or other.process.poll() is not None)
    assert "ready: " not in other.text(), other.text()


def test_a_sighup_during_a_reload_is_not_lost(network):
    """The admin takes a user away and sends SIGHUP while the SIGHUP before is still at work."""
    daemon = peers.front_end(network, firewall_exe=slow_iptables(network))
    peers.write(network.dir + "/slow", "")
    peers.write(daemon.config, conf_of(daemon) + OTHER)
    daemon.signal(signal.SIGHUP)
    assert until(lambda: "Got SIGHUP" in daemon.text())
    time.sleep(0.3)
    peers.write(daemon.access, peers.stanza(key=b"another key", hmac_key=b"another hmac key"))
    daemon.signal(signal.SIGHUP)
    assert until(lambda: daemon.text().count("Re-starting fwknopd"), 10)
    os.remove(network.dir + "/slow")
    until(lambda: daemon.text().count("Re-starting fwknopd") == 2, 4)
    knock(network)
    assert network.wait_connect(True, within=1) is None, daemon.text()


@pytest.mark.parametrize(
    "conf, change",
    (
        ({"enable_nfq_capture": "Y", "nfq_port": "62201"}, ("NFQ_PORT 62201", "NFQ_PORT 62202")),
        ({"enable_tcp_server": "Y"}, ("PCAP_FILTER udp port 62201", "PCAP_FILTER tcp port 62201")),
    ),
)
def test_a_capture_can_be_changed_by_sighup(network, conf, change):
    need("iptables")
    daemon = peers.front_end(network, **conf)
    text = conf_of(daemon)
    assert change[0] in text
    lines = again(daemon, text.replace(*change))
    assert lines and "Re-starting" in lines[0], daemon.text()


def test_test_mode_leaves_the_firewall_alone_with_nfqueue(network):
    before = network.at(network.server, "iptables-save")
    daemon = peers.front_end(network, ready=False, enable_nfq_capture="Y")
    daemon.wait_line(peers.FWKNOPD_READY)
    daemon.stop()
    conf, access, run = daemon.config, daemon.access, daemon.state
    argv = [*peers.PYTHON, "-m", "tinyknop", "fwknopd", "-f", "-t", "-c", conf, "-a", access, "-r", run]
    other = peers.Process(network, network.server, argv)
    other.wait_line(peers.FWKNOPD_READY)
    time.sleep(0.5)
    rules = network.at(network.server, "iptables-save")
    assert "NFQUEUE" not in rules, before + rules


def test_a_start_without_standard_error_is_a_start(network):
    conf, access, run = peers.fwknop_files(network, peers.stanza(), "closed")
    argv = ["ip", "netns", "exec", network.server, "sh", "-c", 'exec "$@" 2>&-', "sh", *peers.PYTHON, "-m", "tinyknop"]
    argv += ["fwknopd", "-c", conf, "-a", access, "-r", run]
    status = subprocess.run(argv, cwd=peers.ROOT, timeout=15).returncode
    alive = None
    try:
        with open(run + "/fwknopd.pid") as file:
            pid = int(file.read())
        alive = pid if os.path.exists("/proc/%d" % pid) else None
        assert status == 0 and alive, (status, alive)
    finally:
        if alive:
            os.kill(alive, signal.SIGTERM)
            until(lambda: not os.path.exists("/proc/%d" % alive))


def slow_iptables(network):
    """Returns a firewall whose listings take a second while the file `slow` is there."""
    text = '#!/bin/sh\n[ ! -e %s/slow ] || sleep 1\nexec iptables "$@"\n' % network.dir
    fake(network, "iptables-slow-restore", '#!/bin/sh\nexec iptables-restore "$@"\n')
    return fake(network, "iptables-slow", text)


def test_an_end_during_a_reload_closes_everything(network):
    daemon = peers.front_end(network, peers.stanza(fw_access_timeout="60"), firewall_exe=slow_iptables(network))
    knock(network)
    assert network.wait_connect(True) is not None
    peers.write(network.dir + "/slow", "")
    peers.write(daemon.config, conf_of(daemon) + OTHER)
    daemon.signal(signal.SIGHUP)
    assert until(lambda: "Got SIGHUP" in daemon.text())
    time.sleep(0.5)
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(20) == 0
    assert not network.can_connect(), network.at(network.server, "iptables", "-S") + daemon.text()


def test_a_reload_that_is_refused_leaves_nothing_in_the_firewall(network):
    daemon = peers.front_end(network, peers.stanza(fw_access_timeout="60"))
    knock(network)
    assert network.wait_connect(True) is not None
    assert "stays" in again(daemon, conf_of(daemon).replace("INTF eth0", "INTF nope0") + OTHER)[0]
    assert "OTHER_INPUT" not in network.at(network.server, "iptables", "-S")


def test_a_user_with_a_command_cycle_open_can_be_taken_away(network):
    """Whoever has a leaked key and knocks on must not be able to keep that key in force."""
    note = network.dir + "/notes"
    script = fake(network, "note", '#!/bin/sh\necho "$@" >> %s\n' % note)
    words = {"cmd_cycle_open": script + " open", "cmd_cycle_close": script + " close", "cmd_cycle_timer": "4"}
    access = peers.stanza() + peers.stanza(key=b"a leaked key", hmac_key=b"a leaked hmac key", **words)
    daemon = peers.front_end(network, access)
    knock(network, keys=Keys(b"a leaked key", b"a leaked hmac key"))
    assert until(lambda: os.path.exists(note))
    peers.write(daemon.access, peers.stanza())
    lines = again(daemon, conf_of(daemon))
    assert lines and "stays" not in lines[0], lines
    assert until(lambda: "close" in open(note).read(), 7)


def test_a_journal_that_somebody_else_wrote_opens_nothing(network):
    """FWKNOP_RUN_DIR in a directory where everybody may write, as with -r /tmp."""
    conf, access, run = peers.fwknop_files(network, peers.stanza(), "tmp")
    os.chmod(run, 0o1777)
    now = int(time.time())
    words = (net.CLIENT, net.SERVICE, now, now + 86400)
    planted = run + "/grants.journal"
    line = "open 1 %s tcp/%d %d %d %%231 - firewall 0.0.0.0 10.0.0.1" % words
    peers.write(planted, line + " #%08x\n" % binascii.crc32(line.encode()), 0o644)
    os.chown(planted, 65534, 65534)
    argv = [*peers.PYTHON, "-m", "tinyknop", "fwknopd", "-f", "-c", conf, "-a", access, "-r", run]
    daemon = peers.Process(network, network.server, argv)
    until(lambda: peers.FWKNOPD_READY in daemon.text() or daemon.process.poll() is not None)
    assert not network.can_connect(), daemon.text()


@pytest.mark.parametrize("hostile", ("nat", "ipv6"))
def test_what_cannot_be_opened_for_one_delays_nobody_else(network, hostile):
    """A user with keys asks for NAT to 0.0.0.0, or for an IPv6 address where there is no ip6tables."""
    access = peers.stanza(open_ports=None, fw_access_timeout="2")
    daemon = peers.front_end(network, access, firewall_exe=slow_iptables(network), enable_ipt_forwarding="Y")
    for _ in range(2):
        if hostile == "nat":
            knock(network, "10.99.0.9,tcp/22", nat_access="0.0.0.0,22")
        else:
            knock(network, "2001:db8::1,tcp/22")
        time.sleep(0.1)
        knock(network)
        took = network.wait_connect(True)
        assert took is not None and took < 0.8, daemon.text()
        assert network.wait_connect(False) is not None
    assert "Added FORWARD rule" not in daemon.text() and "2001:db8::1 ->" not in daemon.text()
