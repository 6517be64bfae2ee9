"""The recipes of fwknop's release notes, run as written there: fwknop's client against both daemons, files unchanged.

docs/recipes.md has them for users. Three are elsewhere: 2.6.8's ipset set in front of a real sshd, 2.6.7's filter of
commands by sudoers, and programs that are not there (2.6.10) are in `test_commands.py`.
"""

import os
import re
import socket
import sys
import threading
import time

import pytest

from tests.need import need
from tests.real import net, peers

DAEMONS = {"fwknopd": peers.fwknopd, "tinyknop": peers.front_end}
PROGRAMS = {"fwknopd": ["fwknopd"], "tinyknop": [sys.executable, "-m", "tinyknop", "fwknopd"]}
both = pytest.mark.parametrize("which", sorted(DAEMONS))


@pytest.fixture(autouse=True)
def real_client():
    need("fwknop", "fwknopd")


def seconds_left(network, source=net.CLIENT):
    """Waits for the rule that lets somebody in; returns for how long it is there from now on, as its comment says."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for rule in peers.rules(network):
            if " -s %s/32 " % source in rule:
                return int(rule.split("_exp_")[1].split()[0]) - time.time()
        time.sleep(0.02)
    raise AssertionError("no rule for %s" % source)


# ---- 2.6.7: fwknopd --key-gen ----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("maker", sorted(PROGRAMS))
def test_keys_of_key_gen_go_into_both_files_as_they_are_printed(network, which, maker):
    keys = network.at(network.server, "env", "PYTHONPATH=" + peers.ROOT, *PROGRAMS[maker], "--key-gen")
    assert [line.split(" ")[0] for line in keys.splitlines()] == ["KEY_BASE64:", "HMAC_KEY_BASE64:"]
    DAEMONS[which](network, "SOURCE ANY\nOPEN_PORTS tcp/%d\n" % net.SERVICE + keys)
    rc_file = os.path.join(network.dir, ".fwknoprc")
    peers.write(rc_file, "[gate]\nSPA_SERVER %s\nACCESS tcp/%d\nALLOW_IP source\n" % (net.SERVER, net.SERVICE) + keys)
    assert not network.can_connect()
    network.at(network.client, "env", "HOME=" + network.dir, "fwknop", "-n", "gate", "--no-save-args")
    assert network.wait_connect(True) is not None


# ---- 2.6.8: the line for ipset ---------------------------------------------------------------------------------------


@both
def test_the_ipset_line_runs_as_it_is_written(network, which):
    """With the program's bare name; the real sshd behind it is in `test_commands.py`."""
    need("ipset")
    network.at(network.server, "ipset", "create", "fwknop_allow", "hash:ip,port", "timeout", "30")
    cycle = "ipset add fwknop_allow $SRC,$PROTO:$PORT timeout $CLIENT_TIMEOUT"
    access = peers.stanza(cmd_cycle_open=cycle, cmd_cycle_close="NONE", fw_access_timeout=None)
    daemon = DAEMONS[which](network, access)
    peers.fwknop(network, seconds=9)
    daemon.wait_line("Running CMD_CYCLE_OPEN command: ipset add fwknop_allow %s,6:%d" % (net.CLIENT, net.SERVICE))
    deadline = time.monotonic() + 3
    while not peers.elements(network, "fwknop_allow") and time.monotonic() < deadline:
        time.sleep(0.02)
    (entry,) = peers.elements(network, "fwknop_allow").items()
    assert entry[0] == "%s,tcp:%d" % (net.CLIENT, net.SERVICE) and 5 < entry[1] <= 9


# ---- 2.6.9: SHA-3 ----------------------------------------------------------------------------------------------------

SHA3 = ("sha3_256", "sha3_512")


@both
@pytest.mark.parametrize("hmac", SHA3)
def test_sha3_is_the_digest_and_the_hmac(network, which, hmac):
    access = peers.stanza(hmac_digest_type=hmac, open_ports="tcp/%d,tcp/1,tcp/2" % net.SERVICE, fw_access_timeout="30")
    daemon = DAEMONS[which](network, access)
    peers.fwknop(network, access="tcp/1")  # the default HMAC, SHA-256, is not what the stanza requires
    for number, digest in enumerate(SHA3):
        allow = "10.99.0.%d" % (20 + number)
        peers.fwknop(network, "-m", digest, "--hmac-digest-type", hmac, allow=allow)
        assert 0 < seconds_left(network, allow) <= 30
    assert len(peers.rules(network)) == 2 and "dport 1 " not in "".join(peers.rules(network))
    daemon.wait_line("Added access rule to FWKNOP_INPUT for 10.99.0.21")


# ---- 2.6.9: X-Forwarded-For ------------------------------------------------------------------------------------------


class Proxy:
    """A web proxy on the server's eth0 that hands each request to its port 80, and says whom it is for."""

    def __init__(self, network, port=8080):
        self.network = network
        self.listener = network.new_socket(network.server)
        network.listeners.append(self.listener)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((net.SERVER, port))
        self.listener.listen(8)
        rule = "-I INPUT -i eth0 -p tcp --dport %d -j ACCEPT" % port
        network.at(network.server, "iptables", "-w", *rule.split())
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        """Takes requests until the listener is closed."""
        while True:
            try:
                client, address = self.listener.accept()
            except OSError:  # the only way out: the network is being removed
                return
            with client:
                self.hand_on(client, address[0])

    def hand_on(self, client, address):
        """Reads one request, adds who sent it to X-Forwarded-For, as web proxies do, and passes it to port 80."""
        request = b""
        while b"\r\n\r\n" not in request:
            more = client.recv(4096)
            if not more:
                return
            request += more
        lines = request.split(b"\r\n\r\n")[0].split(b"\r\n")
        lines[0] = re.sub(rb" http://[^/]*", b" ", lines[0])
        said = [line.split(b": ", 1)[1] for line in lines if line.lower().startswith(b"x-forwarded-for:")]
        lines = [line for line in lines if not line.lower().startswith(b"x-forwarded-for:")]
        lines.append(b"X-Forwarded-For: " + b", ".join([*said, address.encode()]))
        with self.network.new_socket(self.network.server) as onward:
            onward.settimeout(3)
            onward.connect(("127.0.0.1", 80))
            onward.sendall(b"\r\n".join(lines) + b"\r\n\r\n")


WEB = {"enable_spa_over_http": "Y", "enable_tcp_server": "Y", "tcpserv_port": "80", "pcap_filter": "tcp port 80"}
BEHIND_PROXY = dict(WEB, enable_x_forwarded_for="Y", pcap_intf="lo")
LASTS = peers.stanza(fw_access_timeout="30")


@both
@pytest.mark.parametrize("by", [("-p", "8080"), ("-H", net.SERVER + ":8080")], ids=["reverse", "forward"])
def test_a_knock_through_a_web_proxy_opens_for_whom_the_proxy_names(network, which, by):
    DAEMONS[which](network, LASTS, **BEHIND_PROXY)
    Proxy(network)
    peers.fwknop(network, "-P", "http", *by, allow=None)
    assert seconds_left(network) > 0
    assert network.wait_connect(True) is not None


@both
def test_without_the_option_a_knock_through_a_proxy_opens_for_the_proxy(network, which):
    DAEMONS[which](network, LASTS, **dict(BEHIND_PROXY, enable_x_forwarded_for="N"))
    Proxy(network)
    peers.fwknop(network, "-P", "http", "-p", "8080", allow=None)
    assert seconds_left(network, "127.0.0.1") > 0
    assert not network.can_connect()


def test_what_a_client_puts_into_the_header_itself_does_not_count(network):
    """fwknopd takes the first entry for an address, comma and all, and opens for the proxy."""
    public = "198.51.100.2"  # a client in a private network counts as a proxy
    network.at(network.client, "ip", "addr", "add", public + "/32", "dev", "eth0")
    network.at(network.client, "ip", "route", "replace", "10.99.0.0/24", "dev", "eth0", "src", public)
    network.at(network.server, "ip", "route", "add", public, "dev", "eth0")
    peers.front_end(network, LASTS, **BEHIND_PROXY)
    Proxy(network)
    peers.fwknop(network, "-P", "http", "-p", "8080", "-u", "Fwknop/1\r\nX-Forwarded-For: 192.0.2.66", allow=None)
    assert network.wait_connect(True) is not None
    assert "192.0.2.66" not in "".join(peers.rules(network))


# ---- 2.6.10 ----------------------------------------------------------------------------------------------------------


@both
def test_max_fw_timeout_caps_what_a_client_asks_for(network, which):
    DAEMONS[which](network, peers.stanza(fw_access_timeout="30", max_fw_timeout="3"))
    peers.fwknop(network, seconds=2, allow="10.99.0.21")
    assert seconds_left(network, "10.99.0.21") <= 2
    peers.fwknop(network, seconds=100)
    assert seconds_left(network) <= 3
    assert network.wait_connect(True, within=1) is not None
    assert network.wait_connect(False) is not None


@both
def test_a_command_without_the_permissions_leaves_no_second_daemon(network, which):
    """As it was reported for 2.6.9: the stanza's user may not run the program."""
    closed = peers.write(os.path.join(network.dir, "closed"), "#!/bin/sh\n", 0o700)
    daemon = DAEMONS[which](network, peers.stanza(enable_cmd_exec="Y", cmd_exec_user="nobody"))
    before = sorted(net.run("ip", "netns", "pids", network.server).split())
    argv = ["env", "HOME=" + network.dir, "fwknop", "--no-rc-file", "--no-save-args", "-D", net.SERVER]
    argv += ["-a", net.CLIENT, "-C", closed, "--key-base64-rijndael", peers.base64_text(peers.KEY)]
    network.at(network.client, *argv, "--use-hmac", "--key-base64-hmac", peers.base64_text(peers.HMAC_KEY))
    daemon.wait_line("CMD_EXEC: command returned 0, pid_status:")
    assert sorted(net.run("ip", "netns", "pids", network.server).split()) == before
    peers.fwknop(network)
    assert network.wait_connect(True) is not None


# ---- 2.6.11 ----------------------------------------------------------------------------------------------------------

BROWSER = ("-u", "Mozilla/5.0", "-P", "http", "-p", "80")


def let_in_web(network):
    network.at(network.server, "iptables", "-w", "-I", "INPUT", "-p", "tcp", "--dport", "80", "-j", "ACCEPT")


def test_any_user_agent_is_taken_where_the_file_says_so(network):
    """Debian's 2.6.10 does not know the variable."""
    let_in_web(network)
    peers.front_end(network, LASTS, **WEB, allow_any_user_agent="Y")
    peers.fwknop(network, *BROWSER)
    assert network.wait_connect(True) is not None


@both
def test_else_the_user_agent_must_be_fwknop(network, which):
    let_in_web(network)
    daemon = DAEMONS[which](network, LASTS, **WEB)
    peers.fwknop(network, *BROWSER, allow="10.99.0.21")
    peers.fwknop(network, "-P", "http", "-p", "80")
    daemon.wait_line("Added access rule to FWKNOP_INPUT for " + net.CLIENT)
    assert "10.99.0.21" not in "".join(peers.rules(network))
