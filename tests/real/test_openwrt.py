"""The packages for OpenWrt: installed into a root of their own by their Makefile, configured by UCI under busybox ash,
started by the very words that procd is told, opening a real nftables firewall with the chains of fw4.

OpenWrt's shell libraries and procd are stand-ins here, of the same interface; no device was at hand.
"""

import json
import os
import re
import subprocess

import pytest

from tests.need import need
from tests.real import net, peers
from tests.real.router import FEED, Router
from tinyknop.host import toml

PACKAGES = ("tinyknop", "tinyknop-micropython")
FILES = os.path.join(FEED, "files")
SCRIPTS = [name for name in sorted(os.listdir(FILES)) if not name.endswith((".config", ".keep"))]

# The chains of fw4 as its firewall of the default configuration has them; the rules are ours.
FW4 = """
table inet fw4
flush table inet fw4
table inet fw4 {
	chain input {
		type filter hook input priority filter; policy drop;
		iifname "lo" accept
		ct state established,related accept
		iifname "eth0" jump input_wan
		jump handle_reject
	}
	chain forward { type filter hook forward priority filter; policy drop; }
	chain input_wan { jump reject_from_wan; }
	chain reject_from_wan { iifname "eth0" jump handle_reject; }
	chain handle_reject { reject; }
	chain mangle_input { type filter hook input priority mangle; policy accept; }
}
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_clean(name):
    path = os.path.join(FILES, name)
    subprocess.run([need("busybox"), "ash", "-n", path], check=True)
    # SC2034, SC2317: what rc.common reads and calls. SC3043: local, which ash has. SC1091: a library of OpenWrt's.
    # SC2018, SC2019: keywords are ASCII, and busybox may lack the classes.
    words = ["-s", "dash", "-e", "SC2034,SC2317,SC3043,SC1091,SC2018,SC2019", path]
    done = subprocess.run([need("shellcheck"), *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def routers():
    """Both packages, each on a router of its own behind a firewall as fw4 makes it."""
    need("nft", "fwknop", "busybox", "mpy-cross", "micropython")
    with net.Net() as one, net.Net() as other:
        with Router(one, PACKAGES[0]) as python, Router(other, PACKAGES[1]) as small:
            for router in (python, small):
                network = router.network
                network.at(network.server, "iptables", "-P", "INPUT", "ACCEPT")
                network.at(network.server, "nft", "flush", "ruleset")
                network.serve()
                router.say("/etc/init.d/tinyknop enable")
                fw4_loads(router)
            yield {"tinyknop": python, "tinyknop-micropython": small}


@pytest.fixture
def router(routers, request):
    made = routers[request.param]
    made.say(
        "rm -rf /var/run/tinyknop /tmp/running/* /etc/config/fwknopd /etc/fwknop; : > /tmp/logger; : > /tmp/procd.log"
    )
    made.say("echo eth0 > /tmp/networks/wan; rm -f /tmp/networks/lan")
    with open(os.path.join(FILES, "tinyknop.config")) as file:
        made.write("/etc/config/tinyknop", file.read())
    yield made
    if made.daemon is not None:
        made.daemon.stop()
        made.daemon = None
    fw4_loads(made)


both = pytest.mark.parametrize("router", PACKAGES, indirect=True)
one = pytest.mark.parametrize("router", PACKAGES[:1], indirect=True)


def fw4_loads(router, policy="drop"):
    """Does to the ruleset what `fw4 reload` does; with the policy accept, a zone's rule rejects what comes in."""
    text = FW4.replace("priority filter; policy drop;\n", "priority filter; policy %s;\n" % policy)
    path = peers.write(os.path.join(router.dir, "fw4.nft"), text)
    router.network.at(router.network.server, "nft", "-f", path)


def enable(router, **changes):
    """Enables the configuration as it is shipped, but for the port that the tests serve."""
    text = router.read("/etc/config/tinyknop").replace("option enabled '0'", "option enabled '1'")
    text = text.replace("tcp/22", "tcp/%d" % net.SERVICE)
    for old, new in changes.items():
        text = text.replace(old, new)
    router.write("/etc/config/tinyknop", text)


def keys_of(router, path="/etc/tinyknop/first.key"):
    """Returns the options of fwknop's client for a key file."""
    words = dict(line.split(": ") for line in router.read(path).splitlines())
    return ["--key-base64-rijndael", words["KEY_BASE64"], "--use-hmac", "--key-base64-hmac", words["HMAC_KEY_BASE64"]]


def knock(router, keys):
    network = router.network
    argv = ["env", "HOME=" + network.dir, "fwknop", "--no-rc-file", "--no-save-args", "-D", net.SERVER]
    argv += ["-A", "tcp/%d" % net.SERVICE, "-a", net.CLIENT, *keys]
    network.at(network.client, *argv)


@both
def test_the_first_run_makes_a_key_of_its_own_and_tells_the_firewall(router):
    router.say("rm -f /etc/tinyknop/first.key /tmp/uci.batch; /etc/uci-defaults/95-tinyknop")
    first = router.read("/etc/tinyknop/first.key")
    assert re.fullmatch(r"KEY_BASE64: [A-Za-z0-9+/]{43}=\nHMAC_KEY_BASE64: [A-Za-z0-9+/]{86}==\n", first)
    assert router.say("stat -c %a /etc/tinyknop/first.key").strip() == "600"
    batch = router.read("/tmp/uci.batch").split()
    assert "firewall.tinyknop.path=/usr/share/tinyknop/firewall.include" in batch
    assert "firewall.tinyknop.fw4_compatible=1" in batch
    router.say("/etc/uci-defaults/95-tinyknop")  # an upgrade keeps both
    assert router.read("/etc/tinyknop/first.key") == first
    assert router.read("/tmp/uci.batch").split() == batch
    router.say("rm /etc/tinyknop/first.key; /etc/uci-defaults/95-tinyknop")
    assert router.read("/etc/tinyknop/first.key") != first


@both
def test_disabled_as_it_is_shipped_it_does_nothing_and_says_how_to_enable_it(router):
    said = router.say("/etc/init.d/tinyknop start")
    assert "command" not in router.told()
    assert "uci set tinyknop.main.enabled=1" in router.read("/tmp/logger") + said


@both
def test_what_procd_is_told_opens_the_firewall_survives_a_crash_and_a_reload_of_fw4(router):
    router.say("[ -s /etc/tinyknop/first.key ] || /etc/uci-defaults/95-tinyknop")
    enable(router)
    router.say("/etc/init.d/tinyknop start")
    told = router.told()
    assert told["respawn"] == ["3600", "5", "0"]
    assert told["trigger"] == ["tinyknop", "fwknopd"] and told["interface"] == ["wan"]
    daemon = router.start()
    network = router.network
    assert not network.can_connect()
    knock(router, keys_of(router))
    assert network.wait_connect(True) is not None
    # A crash: procd starts it anew, and what was open is.
    daemon.kill()
    router.start()
    assert network.can_connect()
    # fw4 loads its rules anew: what it runs afterwards has ours put back.
    fw4_loads(router)
    assert not network.can_connect()
    router.say(": > /tmp/procd.log; . /usr/share/tinyknop/firewall.include")
    log = router.read("/tmp/procd.log")
    if router.package == "tinyknop":
        assert log == "signal\ttinyknop\t*\tHUP\n"
        router.daemon.signal(1)
    else:
        assert log.startswith("kill\ttinyknop\nset\ninstance\n")
        router.daemon.stop()
        router.start()
    assert network.wait_connect(True) is not None


@both
def test_a_network_that_comes_back_with_another_device_is_heard_there(router):
    enable(router)
    router.say("/etc/init.d/tinyknop start")
    captures = json.loads(router.read("/var/etc/tinyknop.json"))["capture"]
    assert captures == [{"kind": "packet", "port": "62201", "interface": "eth0"}]
    router.say("echo pppoe-wan > /tmp/networks/wan; : > /tmp/running/tinyknop; : > /tmp/procd.log")
    router.say("ACTION=ifdown INTERFACE=wan /etc/hotplug.d/iface/95-tinyknop")
    assert router.read("/tmp/procd.log") == ""
    router.say("ACTION=ifup INTERFACE=wan /etc/hotplug.d/iface/95-tinyknop")
    assert "pppoe-wan" in router.read("/var/etc/tinyknop.json")
    log = router.read("/tmp/procd.log")
    assert log.startswith("signal" if router.package == "tinyknop" else "set\ninstance")
    router.say("rm /tmp/networks/wan; /etc/init.d/tinyknop start")
    assert "command" not in router.told()
    assert "network wan is not up" in router.read("/tmp/logger")


@both
def test_what_is_disabled_is_ended_by_the_reload_and_enabled_again_by_another(router):
    router.say(": > /tmp/running/tinyknop; /etc/init.d/tinyknop reload")
    assert "kill" not in router.read("/tmp/procd.log")  # with the service procd forgets its triggers
    assert "command" not in router.told() and "trigger" in router.told()


@both
def test_what_runs_goes_on_where_there_is_nothing_new_to_run(router):
    """Procd ends a service that is started without a command; what it opened elsewhere would stay open."""
    enable(router)
    good = router.read("/etc/config/tinyknop")
    router.say("/etc/init.d/tinyknop start; : > /tmp/running/tinyknop; : > /tmp/procd.log")
    router.write("/etc/config/tinyknop", good + "config stanze 'bob'\n\toption x '1'\n")
    router.say("/etc/init.d/tinyknop reload")
    router.write("/etc/config/tinyknop", good)
    router.say("rm /tmp/networks/wan; /etc/init.d/tinyknop reload")
    assert router.read("/tmp/procd.log") == ""
    router.say("rm /tmp/running/tinyknop; /etc/init.d/tinyknop reload")
    assert router.told()["interface"] == ["wan"]


@both
def test_a_reload_that_leads_to_another_file_starts_the_daemon_with_it(router):
    router.write("/etc/config/fwknopd", FWKNOPD)
    router.say("/etc/init.d/tinyknop start; : > /tmp/running/tinyknop")
    assert router.told()["command"][-1] == "/var/etc/tinyknop-fwknopd.conf"
    enable(router)
    router.say("/etc/init.d/tinyknop reload")
    assert router.told()["command"][-1] == "/var/etc/tinyknop.json"


UCI = r"""
config daemon 'main'
	option enabled 'yes'
	option state_dir '/var/run/tinyknop'
	option max_age '60'

config capture
	option kind 'packet'
	list network 'wan'
	list network 'lan'
	option port '62201'

config capture 'second'
	option kind 'udp'
	option port '62202'

config carrier 'edge'
	option kind 'ssh'

config port 'firewall'
	option kind 'nftables'

config stanza 'alice'
	option key_file '/etc/tinyknop/first.key'
	list openings 'tcp/22'
	list openings 'udp/51820'
	option require_username 'say "a\b"'
	list ports 'firewall'
"""


@one
def test_sections_become_tables_and_lists_stay_lists(router):
    router.say("echo br-lan > /tmp/networks/lan")
    router.write("/etc/config/tinyknop", UCI)
    path = router.say("/etc/init.d/tinyknop configure").strip()
    assert router.say("stat -c %a " + path).strip() == "600"
    assert json.loads(router.read(path)) == {
        "daemon": {"state_dir": "/var/run/tinyknop", "max_age": "60"},
        "capture": [
            {"kind": "packet", "port": "62201", "interface": "eth0"},
            {"kind": "packet", "port": "62201", "interface": "br-lan"},
            {"kind": "udp", "port": "62202"},
        ],
        "port": {"firewall": {"kind": "nftables"}},
        "carrier": {"edge": {"kind": "ssh"}},
        "stanza": [
            {
                "name": "alice",
                "key_file": "/etc/tinyknop/first.key",
                "openings": "tcp/22,udp/51820",
                "REQUIRE_USERNAME": 'say "a\\b"',
                "ports": "firewall",
            }
        ],
    }
    with open(os.path.join(FILES, "tinyknop.init")) as file:
        assert 'NATIVE_WORDS=" %s "' % " ".join(toml.NATIVE) in file.read()
    router.write("/etc/config/tinyknop", UCI + "config stanze 'bob'\n\toption x '1'\n")
    router.say("/etc/init.d/tinyknop start")
    assert "command" not in router.told()
    assert "no such section: config stanze" in router.read("/tmp/logger")


# As the package of fwknop has it: keys of access.conf and fwknopd.conf, SOURCE not always first.
FWKNOPD = """
config global
	option uci_enabled '1'

config network
	option network 'wan'

config access
	option KEY_BASE64 '%s'
	option SOURCE 'ANY'
	option HMAC_KEY_BASE64 '%s'
	option OPEN_PORTS 'tcp/%d'
	option REQUIRE_SOURCE_ADDRESS 'Y'

config access
	option SOURCE '203.0.113.0/24'
	option KEY 'a pass phrase'

config config
	option PCAP_INTF 'eth9'
	option MAX_SPA_PACKET_AGE '60'
""" % (peers.base64_text(peers.KEY), peers.base64_text(peers.HMAC_KEY), net.SERVICE)

ACCESS = """SOURCE ANY
KEY_BASE64 %s
HMAC_KEY_BASE64 %s
OPEN_PORTS tcp/%d
REQUIRE_SOURCE_ADDRESS Y
SOURCE 203.0.113.0/24
KEY a pass phrase
""" % (peers.base64_text(peers.KEY), peers.base64_text(peers.HMAC_KEY), net.SERVICE)


@both
def test_the_configuration_of_fwknops_package_runs_as_it_is(router):
    router.write("/etc/config/fwknopd", FWKNOPD)
    router.say("mkdir -p /sbin; : > /sbin/fw4; chmod +x /sbin/fw4; /etc/init.d/tinyknop start")
    assert router.read("/var/etc/tinyknop-access.conf") == ACCESS
    conf = router.read("/var/etc/tinyknop-fwknopd.conf").splitlines()
    assert conf == [
        "MAX_SPA_PACKET_AGE 60;",
        "PCAP_INTF eth0;",
        "EXIT_AT_INTF_DOWN N;",
        "ACCESS_FILE /var/etc/tinyknop-access.conf;",
        "FWKNOP_RUN_DIR /var/run/fwknop;",
        "FIREWALL_EXE /usr/sbin/nft;",
    ]
    assert router.say("stat -c %a /var/etc/tinyknop-access.conf").strip() == "600"
    fw4_loads(router, "accept")
    router.start()
    assert not router.network.can_connect()
    peers.fwknop(router.network)
    assert router.network.wait_connect(True) is not None


@one
def test_without_a_network_or_a_device_fwknops_package_means_wan(router):
    text = FWKNOPD.replace("option network 'wan'", "").replace("option PCAP_INTF 'eth9'", "")
    router.write("/etc/config/fwknopd", text)
    router.say("/etc/init.d/tinyknop start")
    assert "PCAP_INTF eth0;" in router.read("/var/etc/tinyknop-fwknopd.conf").splitlines()
    assert router.told()["interface"] == ["wan"]


@one
def test_no_value_of_uci_becomes_a_line_or_a_command(router):
    """Who may set one option (by LuCI, say) must not set others, nor run anything."""
    for quote in ("$(touch /tmp/pwned)", "`touch /tmp/pwned`", "';touch /tmp/pwned;'", '";touch /tmp/pwned;"', "* ;"):
        shown = quote.replace("'", "'\\''")
        nasty = "x%s\nFIREWALL_EXE /tmp/pwn;\n\\n" % shown
        text = FWKNOPD.replace("'eth9'", "'%s'" % nasty).replace("'60'", "'60%s'" % nasty)
        text = text.replace("'a pass phrase'", "'%s'" % nasty).replace("option network 'wan'", "")
        router.write("/etc/config/fwknopd", text)
        router.say("rm -rf /tmp/pwned /var/etc; /etc/init.d/tinyknop configure")
        lines = router.read("/var/etc/tinyknop-fwknopd.conf").splitlines()
        names = [line.split()[0] for line in lines if line != "FIREWALL_EXE /usr/sbin/nft;"]
        assert names == ["MAX_SPA_PACKET_AGE", "PCAP_INTF", "EXIT_AT_INTF_DOWN", "ACCESS_FILE", "FWKNOP_RUN_DIR"]
        assert len(router.read("/var/etc/tinyknop-access.conf").splitlines()) == len(ACCESS.splitlines())
        router.write("/etc/config/fwknopd", FWKNOPD.replace("'wan'", "'%s'" % nasty))
        router.say("/etc/init.d/tinyknop configure || true")
        text = UCI.replace("'wan'", "'%s'" % nasty).replace("'60'", "'%s'" % nasty).replace("'tcp/22'", "'%s'" % nasty)
        router.write("/etc/config/tinyknop", text)
        path = router.say("/etc/init.d/tinyknop configure 2>/dev/null").split()[-1]
        made = json.loads(router.read(path))
        assert len(made["capture"]) == 1 and list(made["daemon"]) == ["state_dir", "max_age"]
        assert router.say("ls /tmp/pwned 2>&1 || true").strip().endswith("No such file or directory")
        router.say("rm /etc/config/tinyknop")
    assert router.say("stat -c %a /var/etc").strip() == "755"


@one
def test_without_uci_enabled_fwknops_own_files_are_read(router):
    router.write("/etc/config/fwknopd", FWKNOPD.replace("uci_enabled '1'", "uci_enabled '0'"))
    router.say("/etc/init.d/tinyknop start")
    assert "command" not in router.told()
    router.say("mkdir -p /etc/fwknop; : > /etc/fwknop/fwknopd.conf; /etc/init.d/tinyknop start")
    assert router.told()["command"] == ["/usr/bin/tinyknop", "serve", "-c", "/etc/fwknop/fwknopd.conf"]


@one
def test_a_new_firmware_keeps_the_keys_of_both_configurations(router):
    """The package fwknopd, which kept its own, is not there any more."""
    router.say("mkdir -p /etc/fwknop; : > /etc/fwknop/access.conf; : > /etc/tinyknop/first.key")
    kept = router.say("find $(cat /lib/upgrade/keep.d/tinyknop) -type f").split()
    assert {"/etc/fwknop/access.conf", "/etc/tinyknop/first.key"} <= set(kept)


@both
def test_the_sizes_in_the_documentation_are_those_of_the_files(router):
    with open(os.path.join(peers.ROOT, "docs", "openwrt.md")) as file:
        stated = re.search(r"\| `%s` \| [^|]+ \| (\d+) KB \|" % router.package, file.read())
    assert stated and abs(int(stated.group(1)) - router.size) <= router.size / 10, router.size
