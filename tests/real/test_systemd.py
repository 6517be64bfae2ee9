"""The hardened unit under a real systemd, in a Debian of its own: what it may, what it may not, and what it says."""

import os
import shutil

import pytest

from tests.need import lacking
from tests.real.machine import ROOT, Machine, joined, package

GATE = "192.0.2.1"
LAPTOP = "192.0.2.2"
RAW, ADMIN, BIND = 1 << 13, 1 << 12, 1 << 10
UNIT = "tinyknop.service"
DROP_INS = "/etc/systemd/system/tinyknop.service.d/"
CLOSED = "/usr/share/doc/tinyknop/examples/closed.nft"

CONFIG = """[daemon]
state_dir = "/var/lib/tinyknop"
{daemon}
[[capture]]
kind = "{capture}"
{interface}port = {port}

[port.firewall]
kind = "{kind}"
{options}
[[stanza]]
name = "alice"
source = ["ANY"]
key_file = "/etc/tinyknop/alice.key"
openings = ["tcp/22"]
timeout = 30
ports = ["firewall"]
{more}"""

# Retries, since the gate may be slow on a busy machine; each is given up before TCP itself would try again.
GREETING = "for i in %%s; do timeout 0.9 bash -c 'head -c 7 < /dev/tcp/%s/22' && break; done" % GATE


class Site:
    """A gate with the package installed and its firewall shut, and a laptop with a key."""

    def __init__(self, gate, laptop):
        self.gate, self.laptop = gate, laptop
        deb = package()
        for machine in (gate, laptop):
            machine.copy_in(deb, "/root/tinyknop.deb")
            machine.say("dpkg -i tinyknop.deb && rm tinyknop.deb")
        shutil.rmtree(os.path.dirname(deb))
        gate.say("tinyknop keygen -o /etc/tinyknop/alice.key && chown tinyknop /etc/tinyknop/alice.key")
        laptop.say("umask 077 && cat > alice.key", text=gate.say("cat /etc/tinyknop/alice.key"))

    def configure(self, kind="nftables", capture="packet", port=62201, daemon='user = "tinyknop"', options="", more=""):
        """Writes the configuration; the daemon's user owns it, as the package leaves it."""
        interface = 'interface = "eth0"\n' if capture == "packet" else ""
        words = {"kind": kind, "capture": capture, "port": port, "interface": interface}
        text = CONFIG.format(daemon=daemon, options=options, more=more, **words)
        self.gate.say("cat > /etc/tinyknop/tinyknop.toml", text=text)

    def shut(self):
        """Shuts the gate as whoever follows the documentation does."""
        self.gate.say("iptables -F; iptables -P INPUT ACCEPT; nft -f " + CLOSED)

    def drop_in(self, text):
        """Changes the unit for this test."""
        self.gate.say("mkdir -p %s && cat > %stest.conf && systemctl daemon-reload" % (DROP_INS, DROP_INS), text=text)

    def begin(self, check=True):
        """Starts the unit anew; returns what it said since."""
        self.gate.say("systemctl reset-failed %s; journalctl --rotate; journalctl --vacuum-time=1s" % UNIT, check=False)
        self.gate.say("systemctl restart " + UNIT, check=check)
        return self.gate.journal()

    def pid(self):
        return self.gate.say("systemctl show -P MainPID " + UNIT).strip()

    def held(self, pid=None):
        """Returns {"CapEff": number, ...} of the daemon."""
        rows = [line.split() for line in self.gate.say("cat /proc/%s/status" % (pid or self.pid())).splitlines()]
        return {row[0][:-1]: int(row[1], 16) for row in rows if row[0].startswith("Cap")}

    def greeted(self, knock=True):
        """Tells whether ssh greets the laptop, after a knock."""
        first = "tinyknop knock %s -a %s -A tcp/22 -k alice.key && " % (GATE, LAPTOP) if knock else ""
        return "SSH-2.0" in self.laptop.say(first + GREETING % ("1 2 3 4 5 6 7 8" if knock else "1"), check=False)


@pytest.fixture(scope="module")
def machines():
    with Machine("gate") as gate, Machine("laptop") as laptop:
        joined(gate, laptop)
        yield Site(gate, laptop)


@pytest.fixture
def site(machines):
    machines.gate.say("rm -rf %s /var/lib/tinyknop; systemctl daemon-reload" % DROP_INS)
    machines.gate.say("install -d -m 700 -o tinyknop -g tinyknop /var/lib/tinyknop")
    machines.shut()
    machines.configure()
    yield machines
    machines.gate.say("systemctl stop " + UNIT)


WAYS = (  # kind of port, capture, what the owner prepares, what is kept, what programs of ours get
    ("nftables", "packet", "", RAW | ADMIN, 0),
    ("iptables", "packet", "nft flush ruleset; iptables -P INPUT DROP", RAW | ADMIN, RAW | ADMIN),
    ("nftables", "udp", "nft add rule inet filter input udp dport 62201 accept", ADMIN, 0),
)


@pytest.mark.parametrize("kind, capture, prepare, kept, passed_on", WAYS)
def test_the_hardened_unit_opens_with_the_capabilities_its_configuration_needs(
    site, kind, capture, prepare, kept, passed_on
):
    site.gate.say(prepare or "true")
    site.configure(kind, capture)
    said = site.begin()
    assert not site.greeted(knock=False)
    assert "running as tinyknop with CAP_NET_ADMIN for port firewall (%s)" % kind in said
    held = site.held()
    assert (held["CapEff"], held["CapPrm"], held["CapAmb"]) == (kept, kept, passed_on)
    assert held["CapBnd"] == RAW | ADMIN
    assert site.greeted()
    assert site.gate.say("stat -c %U:%a /var/lib/tinyknop/*").split().count("tinyknop:600") >= 4
    site.gate.say("systemctl stop %s" % UNIT)
    assert not site.greeted(knock=False)


@pytest.mark.parametrize(
    "left, lacking, why",
    [
        ("CAP_NET_RAW", "CAP_NET_ADMIN", "port firewall (nftables)"),
        ("CAP_NET_ADMIN", "CAP_NET_RAW", "the capture of kind packet"),
    ],
)
def test_with_fewer_capabilities_it_says_which_one_and_what_for(site, left, lacking, why):
    wanted = "%s: missing, and %s needs it: start it as root, or give it %s (systemd: Amb" % (lacking, why, lacking)
    words = "-p User=tinyknop -p AmbientCapabilities=%s -p CapabilityBoundingSet=%s" % (left, left)
    said = site.gate.say(
        "systemd-run --quiet --wait --pipe %s tinyknop serve -c /etc/tinyknop/tinyknop.toml; echo status $?" % words
    )
    assert wanted in said and "status 1" in said
    bare = "setpriv --reuid tinyknop --regid tinyknop --clear-groups --inh-caps -all,+%s --ambient-caps +%s" % (
        (left.lower().replace("cap_", ""),) * 2
    )
    said = site.gate.say(bare + " tinyknop serve -c /etc/tinyknop/tinyknop.toml; echo status $?")
    assert wanted in said and "status 1" in said


def test_root_that_may_not_become_another_user_is_told_so(site):
    words = "-p 'CapabilityBoundingSet=CAP_NET_RAW CAP_NET_ADMIN CAP_DAC_OVERRIDE'"
    serve = "tinyknop serve -c /etc/tinyknop/tinyknop.toml"
    said = site.gate.say("systemd-run --quiet --wait --pipe %s %s; echo status $?" % (words, serve))
    assert "cannot become tinyknop (Operation not permitted): start it as root with CAP_SETUID" in said
    assert "status 1" in said


def test_started_by_root_it_becomes_its_user_and_reloads_as_that(site):
    site.gate.say("rm -rf /var/lib/tinyknop; mkdir -m 700 /var/lib/tinyknop; touch /var/lib/tinyknop/digest.cache")
    site.gate.say("nft flush ruleset; iptables-legacy -P INPUT DROP; rm -f /run/xtables.lock")
    site.configure("iptables", options='binary = "/usr/sbin/iptables-legacy"\n')
    try:
        run = "systemd-run --quiet --unit=by-hand -p Type=notify tinyknop serve -c /etc/tinyknop/tinyknop.toml"
        site.gate.say(run)
        pid = site.gate.say("systemctl show -P MainPID by-hand").strip()
        held = site.held(pid)
        assert {held[name] for name in ("CapEff", "CapPrm", "CapAmb", "CapBnd")} == {RAW | ADMIN}
        status = site.gate.say("cat /proc/%s/status; id -u tinyknop" % pid)
        user = status.split()[-1]
        assert "Uid:\t%s\t%s\t%s\t%s\n" % ((user,) * 4) in status and "NoNewPrivs:\t1" in status
        assert site.greeted()
        owners = site.gate.say("stat -c '%U %n' /var/lib/tinyknop /var/lib/tinyknop/*").splitlines()
        assert "tinyknop /var/lib/tinyknop/xtables.lock" in owners
        assert [line for line in owners if not line.startswith("tinyknop ")] == []
        site.gate.say("kill -HUP " + pid)
        site.gate.wait_journal("was read anew", unit="by-hand")
        site.gate.say("chown root: /etc/tinyknop/alice.key && kill -HUP " + pid)
        said = site.gate.wait_journal("the old configuration stays", unit="by-hand")
        assert "alice.key" in said
    finally:
        site.gate.say(
            "chown tinyknop: /etc/tinyknop/alice.key; systemctl stop by-hand; iptables-legacy -P INPUT ACCEPT"
        )
        site.gate.say("iptables-legacy -F; iptables-legacy -X", check=False)


def test_what_its_user_could_not_reload_is_found_at_the_start(site):
    site.gate.say("chown root: /etc/tinyknop/alice.key")
    said = site.gate.say("tinyknop serve -c /etc/tinyknop/tinyknop.toml; echo status $?")
    site.gate.say("chown tinyknop: /etc/tinyknop/alice.key")
    assert "alice.key" in said and "(as user tinyknop, which has to own it, for a reload)" in said
    assert "status 1" in said


def test_a_reload_tells_whoever_asked_whether_it_was_taken(site):
    site.begin()
    site.configure(port=62202)
    site.gate.say("systemctl reload " + UNIT)
    site.gate.wait_journal("was read anew")
    site.configure(kind="nftable")
    said = site.gate.say("systemctl reload %s; echo status $?" % UNIT)
    assert "status 0" not in said
    assert 'kind = "nftable": no such kind' in site.gate.journal()
    site.configure(capture="udp", port=53)  # all right by itself, but more than the daemon kept
    site.gate.say("systemctl reload " + UNIT)
    said = site.gate.wait_journal("the old configuration stays")
    assert "CAP_NET_BIND_SERVICE: missing, and the capture of kind udp on port 53 needs it" in said
    assert site.gate.say("systemctl is-active " + UNIT).strip() == "active"


def test_one_that_hangs_is_started_anew_and_live_grants_stay(site):
    site.drop_in("[Service]\nWatchdogSec=2\nRestartSec=0\n")
    site.begin()
    assert site.greeted()
    first = site.pid()
    site.gate.say("kill -STOP " + first)
    site.gate.say("for i in $(seq 300); do [ $(systemctl show -P NRestarts %s) = 1 ] && break; sleep 0.1; done" % UNIT)
    site.gate.say("for i in $(seq 300); do systemctl is-active %s && break; sleep 0.1; done" % UNIT)
    assert site.pid() not in (first, "0")
    assert site.greeted(knock=False)


COMMAND = 'enable_cmd_exec = true\ncmd_exec_user = "nobody"\nrequire_source_address = false\n'
ASK = (
    "tinyknop fwknop --no-rc-file --no-save-args -D %s -a %s --use-hmac -C '%s'"
    " --key-base64-rijndael $(sed -n 's/^KEY_BASE64: //p' alice.key)"
    " --key-base64-hmac $(sed -n 's/^HMAC_KEY_BASE64: //p' alice.key)"
)


def test_commands_as_another_user_ask_for_more_and_get_nothing_of_ours(site):
    site.gate.say("nft flush ruleset; iptables -P INPUT DROP")
    site.configure("iptables", more=COMMAND)  # whose programs get two of ours
    said = site.begin(check=False)
    assert "CAP_KILL: missing, and commands of stanza alice as nobody needs it" in said
    site.gate.say("mkdir -p %s; cp /usr/share/doc/tinyknop/examples/commands.conf %s" % (DROP_INS, DROP_INS))
    site.gate.say("systemctl daemon-reload")
    site.begin()
    site.laptop.say(ASK % (GATE, LAPTOP, "/usr/bin/cat /proc/self/status"))
    said = site.gate.wait_journal("command returned 0, pid_status: 0")
    rows = dict(line.split(":\t", 1) for line in said.splitlines() if ":\t" in line)
    assert set(rows["Uid"].split()) == {"65534"}
    assert [rows[name] for name in ("CapEff", "CapPrm", "CapAmb")] == ["0" * 16] * 3


OLD_UNIT = "/lib/systemd/system/fwknop-server.service"
OLD_FILES = {
    "/etc/fwknop/fwknopd.conf": "PCAP_INTF eth0;\n",
    "/etc/fwknop/access.conf": "SOURCE ANY\nKEY_BASE64 %s\nHMAC_KEY_BASE64 %s\nOPEN_PORTS tcp/22\n",
}


def drop_in_of_the_docs():
    """Returns the drop-in that docs/migration.md shows."""
    with open(os.path.join(ROOT, "docs", "migration.md")) as file:
        return file.read().split("```\n[Service]\n")[1].split("```")[0]


def test_fwknops_own_unit_runs_ours_with_a_drop_in(site):
    if not os.path.exists(OLD_UNIT):
        lacking("the unit of Debian's fwknop-server")
    lines = site.gate.say("cat /etc/tinyknop/alice.key").splitlines()
    keys = dict(line.replace(":", " ").split() for line in lines if "KEY" in line)
    site.gate.copy_in(OLD_UNIT, "/etc/systemd/system/fwknop-server.service")
    site.gate.say("mkdir -p /etc/fwknop /etc/systemd/system/fwknop-server.service.d")
    for path, text in OLD_FILES.items():
        made = text % (keys["KEY_BASE64"], keys["HMAC_KEY_BASE64"]) if "%s" in text else text
        site.gate.say("umask 077 && cat > " + path, text=made)
    override = "/etc/systemd/system/fwknop-server.service.d/override.conf"
    site.gate.say("cat > " + override, text="[Service]\n" + drop_in_of_the_docs())
    site.gate.say("nft flush ruleset; iptables -P INPUT DROP; iptables -A INPUT -m state --state ESTABLISHED -j ACCEPT")
    site.gate.say("systemctl daemon-reload && systemctl start fwknop-server")
    try:
        assert not site.greeted(knock=False)
        assert site.greeted()
        site.gate.say("systemctl reload fwknop-server")
        site.gate.say("kill -KILL $(systemctl show -P MainPID fwknop-server)")
        site.gate.say("for i in $(seq 50); do systemctl is-active -q fwknop-server && exit; sleep 0.2; done; exit 1")
        assert site.greeted()
        assert "granted  1" in site.gate.say("tinyknop status -c /etc/fwknop/fwknopd.conf")  # of the new process
    finally:
        said = site.gate.say("journalctl -u fwknop-server --no-pager", check=False)
        site.gate.say("systemctl stop fwknop-server; rm %s; systemctl daemon-reload" % override)
    assert "Traceback" not in said, said
