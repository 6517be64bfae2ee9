"""Commands that a knock runs: the same users, words and effects as with the real fwknopd, and nothing that leaks.

Both daemons run in a mount namespace of their own, where passwd, group and sudoers are copies with a user more.
"""

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from tests.need import need
from tests.real import net, peers

USER, USER_ID = "knocker", 47011
GROUP, GROUP_ID = "knockers", 47012  # a group that no user is called like
EXTRA, EXTRA_ID = "extras", 47013  # the user's supplementary group
BOTH = ("fwknopd", "tinyknop")
HIDE = """
d=$1; shift
for name in passwd group sudoers; do mount --bind $d/$name /etc/$name || exit 9; done
exec "$@"
"""
NOTE = """#!/bin/sh
# note NAME WORD...: leaves who runs it, and with what, in out/NAME
exec >%(out)s/.$1.part
echo "$(id -un) $(id -gn) $(id -Gn | tr ' ' ,) $*"
grep -E '^(Uid|Gid|Groups)' /proc/$$/status | tr -s '\\t \\n' ' '; echo
pwd
tr '\\0' ';' </proc/$$/environ; echo
ls -l /proc/self/fd
mv %(out)s/.$1.part %(out)s/$1
"""


class World:
    """The folder of a test: who there is, who may run what by sudo, a program that leaves notes, and the notes."""

    def __init__(self, network, sudoers):
        self.network = network
        self.dir = pathlib.Path(network.dir)
        self.dir.chmod(0o755)
        self.out = self.dir / "out"
        self.out.mkdir()
        self.out.chmod(0o1777)
        self.note = self.dir / "note"
        self.note.write_text(NOTE % {"out": self.out})
        self.note.chmod(0o755)
        for name, more in (
            ("passwd", "%s:*:%d:%d::/nonexistent:/bin/sh\n" % (USER, USER_ID, USER_ID)),
            (
                "group",
                "%s:x:%d:\n%s:x:%d:\n%s:x:%d:%s\n" % (USER, USER_ID, GROUP, GROUP_ID, EXTRA, EXTRA_ID, USER),
            ),
        ):
            (self.dir / name).write_text(pathlib.Path("/etc", name).read_text() + more)
        peers.write(str(self.dir / "sudoers"), sudoers.replace("{note}", str(self.note)), 0o440)

    def start(self, which, access, ready=True, wait=True, **conf):
        """Starts a daemon that reads these files."""
        conf_file, access_file, run_dir = peers.fwknop_files(self.network, access, which, **conf)
        program = ["fwknopd"] if which == "fwknopd" else [sys.executable, "-m", "tinyknop", "fwknopd"]
        argv = ["unshare", "-m", "sh", "-c", HIDE, "sh", str(self.dir), *program]
        argv += ["-f", "-c", conf_file, "-a", access_file, "-r", run_dir]
        daemon = peers.Process(self.network, self.network.server, argv, {"TINYKNOP_SECRET": "s"})
        if ready:
            daemon.wait_line(peers.FWKNOPD_READY)
        return daemon

    def ask(self, *words, key=peers.KEY):
        """Sends a command message by the real client."""
        argv = ["env", "HOME=" + self.network.dir, "fwknop", "--no-rc-file", "--no-save-args", "-D", net.SERVER]
        argv += ["-a", net.CLIENT, "-C", " ".join(map(str, words)), "--use-hmac"]
        argv += [
            "--key-base64-rijndael",
            peers.base64_text(key),
            "--key-base64-hmac",
            peers.base64_text(peers.HMAC_KEY),
        ]
        self.network.at(self.network.client, *argv)

    def noted(self, name, within=5.0):
        """Waits for a note, and for its first line to be whole; returns its lines."""
        path = self.out / name
        until(lambda: path.exists() and path.read_text().endswith("\n"), within)
        return path.read_text().splitlines()


@pytest.fixture
def made(network):
    """Makes the World of a test, with the lines of its sudoers."""
    need("fwknop", "fwknopd", "sudo", "unshare")
    return lambda sudoers="": World(network, sudoers)


def numbered(number):
    """Returns a key of its own, so that many stanzas stand in one file."""
    return peers.KEY[:-2] + b"%02d" % number


def stanzas(rows):
    """Returns an access.conf with a stanza for each row of options."""
    keys = [numbered(number) for number in range(len(rows))]
    return "".join(peers.stanza(key=key, enable_cmd_exec="Y", **row) for key, row in zip(keys, rows))


USERS = (  # options, what the note says of user, group and groups
    ({}, "root root"),
    ({"cmd_exec_user": USER}, "knocker knocker knocker"),
    ({"cmd_exec_user": USER, "cmd_exec_group": "daemon"}, "knocker daemon daemon"),
    ({"cmd_exec_user": "nobody"}, "nobody nogroup nogroup"),
    ({"enable_cmd_sudo_exec": "Y"}, "root root"),
    ({"enable_cmd_sudo_exec": "Y", "cmd_sudo_exec_user": USER}, "knocker knocker knocker,extras"),
    (
        {
            "enable_cmd_sudo_exec": "Y",
            "cmd_sudo_exec_user": USER,
            "cmd_sudo_exec_group": "daemon",
            "cmd_exec_group": "root",
        },
        "knocker daemon daemon,knocker,extras",
    ),
    ({"enable_cmd_sudo_exec": "Y", "cmd_sudo_exec_user": "nobody", "cmd_exec_user": USER}, "nobody nogroup nogroup"),
)


@pytest.mark.parametrize("which", BOTH)
def test_users_groups_and_sudo_are_those_of_fwknopd(made, which):
    world = made("root ALL=(ALL:ALL) NOPASSWD: ALL\n%s ALL=(nobody) NOPASSWD: {note}\n" % USER)
    world.start(which, stanzas([row for row, _ in USERS]))
    for number, (_, said) in enumerate(USERS):
        world.ask(world.note, "n%d" % number, "a;b", "$HOME", key=numbered(number))
        assert world.noted("n%d" % number)[0].startswith(said), number
        assert world.noted("n%d" % number)[0].endswith(" n%d a;b $HOME" % number)
        assert world.noted("n%d" % number)[2] == "/"


@pytest.mark.parametrize("which", BOTH)
def test_sudoers_filters_what_may_be_run(made, which):
    """The recipe of fwknop 2.6.7's release notes: fwknopd hands all to sudo, sudoers says what is allowed."""
    world = made("%s ALL=(nobody) NOPASSWD: {note} allowed *\n" % USER)
    row = {"enable_cmd_sudo_exec": "Y", "cmd_sudo_exec_user": "nobody", "cmd_exec_user": USER}
    daemon = world.start(which, stanzas([row]))
    world.ask(world.note, "denied", "x", key=numbered(0))
    daemon.wait_line("CMD_EXEC: command returned 0, pid_status: 1")
    world.ask(world.note, "allowed", "x", key=numbered(0))
    assert world.noted("allowed")[0].startswith("nobody nogroup nogroup allowed x")
    assert not (world.out / "denied").exists()
    words = "Running command '/usr/bin/sudo -u nobody %s allowed x' setuid/setgid user/group to %s/%s (UID=%d,GID=%d)"
    daemon.wait_line(words % (world.note, USER, USER, USER_ID, USER_ID))


@pytest.mark.parametrize("which", BOTH)
def test_a_command_cannot_give_options_to_sudo(made, which):
    """fwknopd 2.6.10 lets the packet choose the group, since sudo takes `-g root` for an option of its own."""
    world = made("root ALL=(ALL:ALL) NOPASSWD: ALL\n")
    row = {"enable_cmd_sudo_exec": "Y", "cmd_sudo_exec_user": USER}
    daemon = world.start(which, stanzas([row]))
    world.ask("-g root", world.note, "options", key=numbered(0))
    daemon.wait_line("CMD_EXEC: command returned 0, pid_status: ")
    assert (world.out / "options").exists() == (which == "fwknopd")
    if which == "fwknopd":
        assert world.noted("options")[0].startswith("%s root " % USER)


def test_a_group_is_looked_up_among_groups(made):
    """fwknopd looks for CMD_EXEC_GROUP among users, and does not start with this file."""
    rows = [{"cmd_exec_user": USER, "cmd_exec_group": GROUP}]
    world = made()
    daemon = world.start("tinyknop", stanzas(rows))
    world.ask(world.note, "group", key=numbered(0))
    assert world.noted("group")[:2] == [
        "knocker knockers knockers group",
        "Uid: %d %d %d %d Gid: %d %d %d %d Groups: " % ((USER_ID,) * 4 + (GROUP_ID,) * 4),
    ]
    daemon.stop()
    refused = world.start("fwknopd", stanzas(rows), ready=False)
    assert refused.wait() == 1 and "Unable to determine GID for CMD_EXEC_GROUP" in refused.text()


@pytest.mark.parametrize("row", [{}, {"cmd_exec_user": USER}])
def test_a_command_sees_nothing_of_the_daemons(made, row):
    world = made()
    world.start("tinyknop", stanzas([row]))
    world.ask(world.note, "sees", key=numbered(0))
    lines = world.noted("sees")
    who = USER if row else "root"
    variables = dict(part.split("=", 1) for part in lines[3].rstrip(";").split(";"))
    assert sorted(set(variables) - {"PWD"}) == ["HOME", "LC_ALL", "LOGNAME", "PATH", "SHELL", "USER"]
    assert (variables["USER"], variables["HOME"]) == (who, "/nonexistent" if row else "/root")
    opened = dict(line.split()[-3::2] for line in lines[4:] if " -> " in line)
    assert sorted(opened) == ["0", "1", "2", "3"], opened  # 3 is the folder that ls reads
    assert opened["0"] == "/dev/null" and opened["2"].startswith("pipe:")


@pytest.mark.parametrize("which", BOTH)
def test_a_command_that_cannot_be_executed_leaves_no_second_daemon(made, which):
    world = made()
    daemon = world.start(which, stanzas([{}]))
    before = processes(world.network)
    for words in ("no-such-program x", "/etc/passwd x", "/ x"):
        mark = daemon.mark()
        world.ask(words, key=numbered(0))
        # fwknopd now and then says 0 instead: its handler of SIGCHLD was there first.
        status = " 255" if which == "tinyknop" else ""
        daemon.wait_line("CMD_EXEC: command returned 0, pid_status:" + status, after=mark)
    assert processes(world.network) == before


def processes(network):
    return sorted(net.run("ip", "netns", "pids", network.server).split())


def test_commands_that_hang_or_flood_delay_no_knock_and_fill_no_memory(made):
    world = made()
    opens = peers.stanza(key=numbered(7), fw_access_timeout="30")
    daemon = world.start("tinyknop", stanzas([{}]) + opens, cmd_exec_timeout="2")
    world.ask("head -c 3000000 /dev/zero", key=numbered(0))
    for _ in range(3):
        world.ask("sleep 30", key=numbered(0))
    daemon.wait_line("Running command 'sleep 30'")
    begin = time.monotonic()
    peers.fwknop(world.network, key=numbered(7))
    assert world.network.wait_connect(True, within=1.5) is not None
    assert time.monotonic() - begin < 1.8
    mark = daemon.wait_line("took longer than CMD_EXEC_TIMEOUT, 2 s: killed")
    daemon.wait_line("pid_status: 124", after=mark)
    assert daemon.rss_kb() < 40000
    until(lambda: len(processes(world.network)) == 1)


def test_a_cycle_that_hangs_and_floods_delays_no_other_stanza(made):
    world = made()
    cycle = {"cmd_cycle_open": "/usr/bin/yes", "cmd_cycle_close": "NONE", "fw_access_timeout": None}
    daemon = world.start("tinyknop", peers.stanza(**cycle) + peers.stanza(key=numbered(1), fw_access_timeout="30"))
    peers.fwknop(world.network)
    daemon.wait_line("Running CMD_CYCLE_OPEN command: /usr/bin/yes")
    peers.fwknop(world.network, key=numbered(1))
    assert world.network.wait_connect(True, within=1.5) is not None
    used = daemon.cpu()
    time.sleep(0.5)
    assert daemon.cpu() - used < 0.15
    assert daemon.rss_kb() < 40000
    daemon.kill()  # `yes` ends with the pipe that it writes to


@pytest.mark.parametrize("which", BOTH)
def test_the_ipset_cycle_of_fwknops_release_notes_opens_a_real_sshd(made, which, network):
    """2.6.8: CMD_CYCLE_OPEN adds to a set whose entries end by themselves, CMD_CYCLE_CLOSE NONE."""
    sshd, ipset = need("sshd", "ipset")
    world = made()
    network.at(network.server, "ipset", "create", "fwknop_allow", "hash:ip,port", "timeout", "30")
    rule = "-A INPUT -m set --match-set fwknop_allow src,dst -j ACCEPT"
    network.at(network.server, "iptables", *rule.split())
    start_sshd(network, sshd)
    template = ipset + " add fwknop_allow $SRC,$PROTO:$PORT timeout $CLIENT_TIMEOUT"
    cycle = {"cmd_cycle_open": template, "cmd_cycle_close": "NONE", "open_ports": "tcp/22", "fw_access_timeout": None}
    daemon = world.start(which, peers.stanza(**cycle))
    assert not greeted(network)
    peers.fwknop(network, access="tcp/22", seconds=2)
    daemon.wait_line("Running CMD_CYCLE_OPEN command: %s add fwknop_allow %s,6:22 timeout 2" % (ipset, net.CLIENT))
    until(lambda: greeted(network))
    assert list(peers.elements(network, "fwknop_allow")) == ["%s,tcp:22" % net.CLIENT]
    until(lambda: not peers.elements(network, "fwknop_allow"))
    assert not greeted(network)


def until(what, within=5.0):
    """Waits until something holds."""
    deadline = time.monotonic() + within
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_sshd(network, sshd):
    key = os.path.join(network.dir, "host_key")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    os.makedirs("/run/sshd", exist_ok=True)
    argv = [sshd, "-D", "-e", "-f", "/dev/null", "-h", key, "-p", "22", "-o", "PidFile=none", "-o", "UsePAM=no"]
    peers.Process(network, network.server, argv).wait_line("Server listening on 0.0.0.0 port 22")


def greeted(network):
    """Tells whether the ssh server answers the client."""
    with network.new_socket(network.client) as probe:
        probe.settimeout(0.3)
        try:
            probe.connect((net.SERVER, 22))
            return probe.recv(64).startswith(b"SSH-2.0-")
        except socket.timeout:
            return False


def test_a_cycle_is_closed_on_time_and_again_until_it_succeeds(made):
    world = made()
    trouble = world.dir / "trouble"
    trouble.touch()
    closing = world.dir / "closing"
    closing.write_text("#!/bin/sh\necho $* >>%s/tries\n[ ! -e %s ]\n" % (world.out, trouble))
    closing.chmod(0o755)
    cycle = {
        "cmd_cycle_open": "%s open $IP $PKT_SRC $DST $PORT $PROTO $CLIENT_TIMEOUT" % world.note,
        "cmd_cycle_close": "%s $IP $PORT" % closing,
        "cmd_cycle_timer": "1",
    }
    daemon = world.start("tinyknop", peers.stanza(open_ports="tcp/22,udp/53", fw_access_timeout=None, **cycle))
    peers.fwknop(world.network, access="tcp/22,udp/53", allow="10.99.0.9")
    assert world.noted("open")[0].endswith(" open 10.99.0.9 %s %s 22 6 1" % (net.CLIENT, net.SERVER))
    daemon.wait_line("Timer expired, running CMD_CYCLE_CLOSE command: %s 10.99.0.9 22" % closing)
    assert len(world.noted("tries")) == 1
    trouble.unlink()
    until(lambda: len(world.noted("tries")) > 1)
    assert set(world.noted("tries")) == {"10.99.0.9 22"}


@pytest.mark.parametrize("last", ["kill", "stop"])
def test_the_close_of_a_cycle_outlives_the_daemon(made, last):
    """fwknopd forgets it at its end, and the close command then never runs."""
    world = made()
    cycle = {
        "cmd_cycle_open": "%s open" % world.note,
        "cmd_cycle_close": "%s close $IP" % world.note,
        "cmd_cycle_timer": "2",
    }
    access = peers.stanza(fw_access_timeout=None, **cycle)
    daemon = world.start("tinyknop", access)
    peers.fwknop(world.network, allow="10.99.0.9")
    world.noted("open")
    getattr(daemon, last)()
    if last == "kill":
        assert not (world.out / "close").exists()
        world.start("tinyknop", access)
    assert world.noted("close")[0].endswith(" close 10.99.0.9")
