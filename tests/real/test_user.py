"""The daemon that root starts and that goes on as `user`: what it keeps, what it gives away, and what still works."""

import os
import pwd
import shutil
import signal
import stat
import sys

import pytest

from tests.need import need
from tests.real import net, peers

USER = pwd.getpwnam("nobody")
SETGID, SETUID, KILL, ADMIN, RAW = 1 << 6, 1 << 7, 1 << 5, 1 << 12, 1 << 13
ALONE = "NoNewPrivs:\t1\n"


def reachable(path):
    """Tells whether every user may look at what is at an absolute path."""
    while path != "/" and os.stat(path).st_mode & stat.S_IXOTH:
        path = os.path.dirname(path)
    return path == "/"


@pytest.fixture
def site(guarded):
    """The network, with a folder that USER may pass through and a checkout that it can read."""
    os.chmod(guarded.dir, 0o711)
    guarded.python, guarded.env = sys.executable, {"HOME": "/nonexistent"}
    if not reachable(peers.ROOT):  # a checkout in somebody's closed home
        for name in ("tinyknop", "ports"):
            shutil.copytree(os.path.join(peers.ROOT, name), os.path.join(guarded.dir, name))
        guarded.env["PYTHONPATH"] = guarded.dir
    if not reachable(sys.executable):
        guarded.python = sys._base_executable
    return guarded


def begin(site, kind="ipset", more="", before=(), ready=True, owner=USER.pw_uid, user=USER.pw_name, options=None):
    """Starts the daemon, after the words `before`; what it reads is owned by USER, what it writes by root."""
    home = os.path.join(site.dir, "user")
    os.makedirs(home, mode=0o711, exist_ok=True)
    words = {"kind": kind, "capture": "packet", "interface": 'interface = "eth0"\n'}
    if options is None:
        options = 'set = "%s"' % peers.SET if kind == "ipset" else ""
    text = peers.TOML.format(state=home + "/state", options=options, **words)
    if user:
        text = text.replace("[daemon]\n", '[daemon]\nuser = "%s"\n' % user)
    config = peers.write(home + "/tinyknop.toml", text + peers.toml_stanza(site, timeout=30, more=more))
    for path in (config, os.path.join(site.dir, "alice.key")):
        os.chown(path, owner, -1)
    argv = [*before, site.python, "-m", "tinyknop", "serve", "-c", config]
    daemon = peers.Process(site, site.server, argv, site.env)
    daemon.state, daemon.config, daemon.home = home + "/state", config, home
    if ready:
        daemon.wait_line(peers.SERVE_READY)
    return daemon


def held(daemon):
    """Returns /proc/PID/status, and {"CapEff": number, ...} of it."""
    with open("/proc/%d/status" % daemon.pid) as file:
        text = file.read()
    rows = [line.split() for line in text.splitlines() if line.startswith("Cap")]
    return text, {row[0][:-1]: int(row[1], 16) for row in rows}


def owners(folder):
    """Returns the numbers of the users that own a folder and what is in it."""
    return {os.stat(folder).st_uid} | {entry.stat(follow_symlinks=False).st_uid for entry in os.scandir(folder)}


@pytest.mark.parametrize("kind, passed_on", [("ipset", 0), ("iptables", ADMIN | RAW)])
def test_it_goes_on_as_its_user_with_what_its_configuration_needs(site, kind, passed_on):
    """Programs are needed for iptables alone, so only there a child of ours inherits anything."""
    os.makedirs(site.dir + "/user/state", mode=0o700)
    os.chmod(site.dir + "/user", 0o711)
    for name in ("digest.cache", "grants.journal"):
        peers.write(site.dir + "/user/state/" + name, "")
    daemon = begin(site, kind)
    assert "running as nobody with CAP_NET_ADMIN for port firewall (%s), CAP_NET_RAW for" % kind in daemon.text()
    status, caps = held(daemon)
    assert "Uid:%s\n" % ("\t%d" % USER.pw_uid * 4) in status
    assert "Gid:%s\n" % ("\t%d" % USER.pw_gid * 4) in status
    assert "\nGroups:\t%d \n" % USER.pw_gid in status and ALONE in status
    assert {caps[name] for name in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {ADMIN | RAW}
    assert caps["CapAmb"] == passed_on
    assert not site.can_connect()
    peers.knock(site)
    assert site.wait_connect(True) is not None
    assert owners(daemon.state) == {USER.pw_uid}
    after = daemon.mark()
    daemon.signal(signal.SIGHUP)
    daemon.wait_line("was read anew", after=after)
    assert site.can_connect()
    assert held(daemon)[1] == caps
    os.chown(daemon.config, 0, 0)
    after = daemon.mark()
    daemon.signal(signal.SIGHUP)
    daemon.wait_line("the old configuration stays", after=after)
    assert site.can_connect()
    assert daemon.stop() == 0
    assert not site.can_connect()


def test_a_reload_that_wants_more_than_was_kept_is_refused(site):
    daemon = begin(site)
    after = daemon.mark()
    with open(daemon.config, "r+") as file:
        text = file.read()
        file.seek(0)
        file.write(text.replace("[port.firewall]", '[[capture]]\nkind = "udp"\nport = 53\n\n[port.firewall]'))
    daemon.signal(signal.SIGHUP)
    line = daemon.lines[daemon.wait_line("the old configuration stays", after=after)]
    assert "CAP_NET_BIND_SERVICE: missing, and the capture of kind udp on port 53 needs it" in line
    peers.knock(site)
    assert site.wait_connect(True) is not None


def test_commands_as_root_need_a_way_back_and_nothing_else_has_it(site):
    """The bounds stay, as sudo or a command of root could do nothing without; the daemon itself has no more for it."""
    more = 'enable_cmd_exec = true\ncmd_exec_user = "root"\nrequire_source_address = false\n'
    daemon = begin(site, more=more)
    status, caps = held(daemon)
    assert ALONE not in status and "Uid:%s\n" % ("\t%d" % USER.pw_uid * 4) in status
    assert caps["CapEff"] == caps["CapPrm"] == ADMIN | RAW | SETUID | SETGID | KILL
    assert caps["CapBnd"] == held_by_us()
    ask = [sys.executable, "-m", "tinyknop", "fwknop", "--no-rc-file", "--no-save-args", "-D", net.SERVER]
    ask += ["-a", net.CLIENT, "--use-hmac", "-C", "/usr/bin/touch %s/roots" % daemon.home]
    ask += ["--key-base64-rijndael", peers.base64_text(peers.KEY)]
    ask += ["--key-base64-hmac", peers.base64_text(peers.HMAC_KEY)]
    site.at(site.client, "env", "HOME=" + site.dir, "PYTHONPATH=" + peers.ROOT, *ask)
    daemon.wait_line("command returned 0")
    assert os.stat(daemon.home + "/roots").st_uid == 0  # in a folder that only root can write to


def held_by_us():
    """Returns the bounding set of the tests themselves."""
    with open("/proc/self/status") as file:
        return int(file.read().partition("CapBnd:")[2].split()[0], 16)


ORDINARY = ("setpriv", "--reuid=%d" % USER.pw_uid, "--regid=%d" % USER.pw_gid, "--clear-groups")


def refused(daemon):
    """Returns the one line with which a daemon gives up."""
    assert daemon.wait() == 1
    (line,) = daemon.lines
    return line


def test_an_ordinary_user_is_told_in_one_line_what_is_missing(site):
    need("setpriv")
    home = site.dir + "/user"
    os.makedirs(home)
    os.chown(home, USER.pw_uid, USER.pw_gid)
    said = refused(begin(site, before=ORDINARY, ready=False))
    assert "CAP_NET_ADMIN: missing, and port firewall (ipset) needs it: start it as root" in said
    assert "setpriv" not in said


def test_with_ambient_capabilities_it_needs_no_root_at_all(site):
    """What a unit of systemd with User= and AmbientCapabilities= does."""
    need("setpriv")
    home = site.dir + "/user"
    os.makedirs(home, mode=0o711)
    os.chown(home, USER.pw_uid, USER.pw_gid)
    some = ("--inh-caps=-all,+net_admin,+net_raw", "--ambient-caps=-all,+net_admin,+net_raw")
    daemon = begin(site, before=(*ORDINARY, *some))
    status, caps = held(daemon)
    assert "Uid:%s\n" % ("\t%d" % USER.pw_uid * 4) in status and ALONE in status
    assert (caps["CapEff"], caps["CapPrm"], caps["CapAmb"]) == (ADMIN | RAW, ADMIN | RAW, 0)
    peers.knock(site)
    assert site.wait_connect(True) is not None


def test_one_user_cannot_become_another_and_what_a_reload_could_not_read_shows_at_the_start(site):
    need("setpriv")
    other = pwd.getpwnam("daemon")
    home = site.dir + "/user"
    os.makedirs(home + "/state", mode=0o700)
    for path in (home, home + "/state"):
        os.chown(path, other.pw_uid, other.pw_gid)
    as_other = ("setpriv", "--reuid=%d" % other.pw_uid, "--regid=%d" % other.pw_gid, "--clear-groups")
    said = refused(begin(site, before=as_other, ready=False, owner=other.pw_uid))
    assert "user: only root can become nobody: start it as root, or as nobody" in said
    for path in (home, home + "/state"):
        os.chown(path, 0, 0)
    daemon = begin(site, ready=False, owner=0)
    assert daemon.wait() == 1
    assert "(as user nobody, which has to own it, for a reload)" in daemon.lines[-1]


def test_root_without_the_right_to_become_another_is_told_so(site):
    """As in a container that was given the capabilities of the firewall alone."""
    need("setpriv")
    bounds = ("setpriv", "--bounding-set=-all,+net_raw,+net_admin,+dac_override")
    said = refused(begin(site, before=bounds, ready=False))
    assert "user: cannot become nobody (Operation not permitted): start it as root with CAP_SETUID" in said


@pytest.mark.parametrize(
    "kind, options, said",
    [
        (
            "command",
            'open = ["true"]\nclose = ["true"]',
            "not allowed to see packets; this needs CAP_NET_RAW (root, or Amb",
        ),
        ("ipset", 'set = "s"', "not allowed; this needs CAP_NET_ADMIN (root, or AmbientCapabilities="),
    ],
)
def test_root_of_a_container_in_the_hosts_network_is_told_what_it_lacks_there(site, kind, options, said):
    """It holds every capability, but over another network than the one it is in: only the kernel knows."""
    need("unshare")
    daemon = begin(site, kind, before=("unshare", "-Ur"), ready=False, user="", owner=0, options=options)
    assert said in refused(daemon)
