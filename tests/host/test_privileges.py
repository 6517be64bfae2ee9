"""What a configuration needs of the system, and what is said where it is missing; who supervises us hears the rest."""

import os
import pwd
import socket
from types import SimpleNamespace

import pytest

from tinyknop import log
from tinyknop.errors import ConfigError
from tinyknop.host import notify, privileges
from tinyknop.loop import Loop, sleep

ALL = (1 << 41) - 1


def settings(captures=(), ports=None, carriers=None, **more):
    found = {"captures": list(captures), "ports": ports or {}, "carriers": carriers or {}, "places": {}, "watch": None}
    return SimpleNamespace(**{**found, **more})


def stanza(name="alice", **more):
    words = {"cut": False, "cmd_exec": False, "sudo": False, "exec_user": None, "exec_group": None}
    return SimpleNamespace(name=name, **{**words, **more})


PACKET = {"kind": "packet"}
NEEDS = (  # captures, ports, carriers, what is needed
    ([PACKET], {}, {}, {"CAP_NET_RAW"}),
    ([{"kind": "nfqueue"}], {}, {}, {"CAP_NET_ADMIN"}),
    ([{"kind": "udp", "port": "62201"}], {}, {}, set()),
    ([{"kind": "udp"}], {}, {}, set()),
    ([{"kind": "udp", "port": "53"}], {}, {}, {"CAP_NET_BIND_SERVICE"}),
    ([{"kind": "pcap", "file": "/x"}], {}, {}, set()),
    ([PACKET], {"f": {"kind": "nftables"}}, {}, {"CAP_NET_RAW", "CAP_NET_ADMIN"}),
    ([], {"f": {"kind": "ipset"}}, {}, {"CAP_NET_ADMIN"}),
    ([], {"f": {"kind": "iptables", "binary": "no-such-program"}}, {}, {"CAP_NET_ADMIN"}),
    ([], {"f": {"kind": "ipset", "via": "edge"}}, {"edge": {"kind": "ssh"}}, set()),
    ([], {"f": {"kind": "nftables", "via": "tape"}}, {}, set()),
    ([], {"b": {"kind": "block"}}, {}, {"CAP_NET_ADMIN"}),
    ([], {"w": {"kind": "wireguard"}}, {}, {"CAP_NET_ADMIN"}),
    ([], {"w": {"kind": "wireguard", "via": "edge"}}, {"edge": {"kind": "ssh"}}, set()),
    ([], {"f": {"kind": "command"}, "g": {"kind": "gpio"}}, {}, set()),
    (
        [{}, {"kind": "udp", "port": "x"}, {"kind": "udp", "port": "\u00b2"}],
        {"f": {}},
        {},
        set(),
    ),  # others say what is wrong with these
)


@pytest.mark.parametrize("captures, ports, carriers, wanted", NEEDS)
def test_a_configuration_needs_no_more_than_its_parts_do(captures, ports, carriers, wanted, monkeypatch):
    monkeypatch.setattr(privileges, "lowest_port", lambda: 1024)
    assert set(privileges.needed(settings(captures, ports, carriers), [stanza()], 0)) == wanted


@pytest.mark.parametrize(
    "table, wanted",
    [
        ({"kind": "nflog", "group": "7"}, {"CAP_NET_ADMIN"}),
        ({"kind": "kmsg"}, {"CAP_SYSLOG"}),
        ({"kind": "syslog"}, {"CAP_NET_BIND_SERVICE"}),
        ({"kind": "syslog", "port": "5514"}, set()),
        ({"kind": "file", "path": "/x"}, set()),
        ({"kind": "nflog", "port": "x"}, {"CAP_NET_ADMIN"}),
        ({"kind": "syslog", "port": "x"}, set()),  # the watcher says what is wrong with it
    ],
)
def test_a_log_watch_has_what_it_reads_by(table, wanted, monkeypatch):
    numbers = {"/proc/sys/net/ipv4/ip_unprivileged_port_start": 1024, "/proc/sys/kernel/dmesg_restrict": 1}
    monkeypatch.setattr(privileges, "number_in", lambda path, otherwise: numbers[path])
    assert set(privileges.needed(settings(watch=table), [stanza()], 0)) == wanted


def test_a_ring_of_the_kernel_that_everybody_may_read_needs_nothing(monkeypatch):
    monkeypatch.setattr(privileges, "number_in", lambda path, otherwise: 0)
    assert privileges.needed(settings(watch={"kind": "kmsg"}), [stanza()], 0) == {}


def test_iptables_legacy_needs_a_raw_socket_as_well(tmp_path):
    program = tmp_path / "xtables-legacy-multi"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    link = tmp_path / "iptables"
    link.symlink_to(program)
    needs = privileges.needed(settings(ports={"f": {"kind": "iptables", "binary": str(link)}}), [], 0)
    assert needs == {
        "CAP_NET_ADMIN": "port f (iptables)",
        "CAP_NET_RAW": "port f (iptables-legacy)",
    }


def test_commands_ask_for_more_only_where_they_run_as_somebody_else():
    mine = pwd.getpwuid(os.getuid())
    other = next(entry for entry in pwd.getpwall() if entry.pw_uid != mine.pw_uid)
    rows = (
        (stanza(cmd_exec=True), set()),
        (stanza(cmd_exec=True, exec_user=mine.pw_name), set()),
        (stanza(exec_user=other.pw_name), set()),  # of no use without ENABLE_CMD_EXEC
        (stanza(cmd_exec=True, exec_user=other.pw_name), {"CAP_SETUID", "CAP_SETGID", "CAP_KILL"}),
        (stanza(cmd_exec=True, exec_group="games"), {"CAP_SETUID", "CAP_SETGID", "CAP_KILL"}),
    )
    for one, wanted in rows:
        assert set(privileges.needed(settings(), [one], mine.pw_uid)) == wanted, one
    assert set(privileges.needed(settings(), [stanza(cut=True)], 0)) == {"CAP_NET_ADMIN"}


@pytest.mark.parametrize("lacking", ["CAP_NET_RAW", "CAP_NET_ADMIN"])
def test_what_is_missing_is_named_with_its_purpose_and_the_remedy(lacking, monkeypatch):
    held = ALL & ~(1 << privileges.NUMBERS[lacking])
    monkeypatch.setattr(privileges, "process_status", lambda: {"CapEff": "%x" % held})
    config = settings([PACKET], {"firewall": {"kind": "nftables"}})
    with pytest.raises(ConfigError) as caught:
        privileges.check(config, [stanza()])
    purpose = {"CAP_NET_RAW": "the capture of kind packet", "CAP_NET_ADMIN": "port firewall (nftables)"}[lacking]
    assert str(caught.value).startswith("%s: missing, and %s needs it: start it as root" % (lacking, purpose))
    assert "AmbientCapabilities= and CapabilityBoundingSet=" in str(caught.value)


def test_nothing_is_checked_where_there_are_no_capabilities(monkeypatch):
    monkeypatch.setattr(privileges, "process_status", lambda: None)
    privileges.check(settings([PACKET]), [])


def test_sudo_without_the_right_to_new_rights_is_an_error(monkeypatch):
    monkeypatch.setattr(privileges, "process_status", lambda: {"CapEff": "%x" % ALL, "NoNewPrivs": "1"})
    privileges.check(settings(), [stanza(cmd_exec=True)])
    with pytest.raises(ConfigError, match="sudo does not work for stanza alice"):
        privileges.check(settings(), [stanza(cmd_exec=True, sudo=True)])


def test_a_user_who_is_not_there_is_named_with_the_line_that_makes_it():
    with pytest.raises(ConfigError, match=r"there is no user 'nobody-at-all': adduser --system --group"):
        privileges.become(settings(user="nobody-at-all"), [])


def test_only_root_becomes_somebody_else(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ConfigError, match="only root can become root: start it as root, or as root"):
        privileges.become(settings(user="root"), [])


def test_what_root_made_is_handed_over_the_directory_last(tmp_path, monkeypatch):
    other = SimpleNamespace(pw_uid=os.getuid() + 1, pw_gid=4242)
    (tmp_path / "grants.journal").write_text("")
    (tmp_path / "link").symlink_to("/etc/passwd")
    (tmp_path / "folder").mkdir()
    os.link(tmp_path / "grants.journal", tmp_path / "second-name")
    (tmp_path / "digest.cache").write_text("")
    given = []
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, **_: given.append((os.path.basename(path), uid, gid)))
    privileges.hand_over(str(tmp_path), other)
    assert given == [("digest.cache", other.pw_uid, 4242), (tmp_path.name, other.pw_uid, 4242)]


def test_in_a_directory_that_is_the_users_already_nothing_is_touched(tmp_path, monkeypatch):
    (tmp_path / "grants.journal").write_text("")
    monkeypatch.setattr(os, "chown", lambda *_, **__: pytest.fail("it is not ours"))
    privileges.hand_over(str(tmp_path), SimpleNamespace(pw_uid=os.getuid(), pw_gid=1))


def test_what_differs_from_a_daemon_of_root_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(log, "sink", lambda level, text: told.append((level, text)))
    ports = {"c": {"kind": "command"}, "f": {"kind": "firewalld"}, "far": {"kind": "command", "via": "edge"}}
    config = settings(ports=ports, carriers={"edge": {"kind": "ssh"}}, user="tk")
    privileges.tell(config, [stanza(cmd_exec=True), stanza("bob", cmd_exec=True, exec_user="bob")])
    assert [text.partition(":")[0] for _, text in told] == ["port c", "port f", "stanza alice"]
    assert told[0][1].endswith("no more rights than that")
    privileges.tell(settings(ports={**ports, "x": {"kind": "iptables"}}, carriers=config.carriers, user="tk"), [])
    assert told[3][1].endswith("the rights that firewall programs get"), "they inherit what iptables does"


def test_a_program_that_its_user_cannot_read_is_told_at_the_start(tmp_path, monkeypatch):
    """Or nobody would know why the first `tinyknop status` finds nobody who answers."""
    told = []
    monkeypatch.setattr(log, "sink", lambda level, text: told.append(text))
    (tmp_path / "part.py").write_text("")
    paths = [str(tmp_path / "part.py"), str(tmp_path / "in.zip" / "part.py")]
    privileges.readable("tk", paths)
    assert told == []

    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(privileges, "open", refused, raising=False)
    privileges.readable("tk", paths[:1])
    assert len(told) == 1 and "tk cannot read " + paths[0] in told[0]


class Supervisor:
    """A socket as systemd's; `heard` returns the datagrams so far."""

    def __init__(self, monkeypatch, name):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(name)
        self.socket.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))

    def heard(self):
        found = []
        while True:
            try:
                found.append(self.socket.recv(1000).decode())
            except BlockingIOError:
                return found


@pytest.mark.parametrize("abstract", [False, True])
def test_the_supervisor_hears_lines_in_one_datagram(abstract, monkeypatch, tmp_path):
    name = "\0tinyknop-test-%d" % os.getpid() if abstract else str(tmp_path / "notify")
    supervisor = Supervisor(monkeypatch, name)
    assert notify.notify(notify.RELOADING, "MONOTONIC_USEC=7")
    assert notify.notify(notify.READY)
    assert supervisor.heard() == ["RELOADING=1\nMONOTONIC_USEC=7", "READY=1"]


def test_without_a_supervisor_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.notify(notify.READY)
    for path in ("relative", str(tmp_path / "gone")):
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        assert not notify.notify(notify.READY)


def test_signs_of_life_come_while_the_loop_turns(monkeypatch, tmp_path):
    supervisor = Supervisor(monkeypatch, str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    loop, heard = Loop(), []

    async def three():
        while len(heard) < 3:
            await sleep(0.01)
            heard.extend(supervisor.heard())

    notify.keep_alive(loop)
    loop.run_until(three())
    assert set(heard) == {"WATCHDOG=1"}


def test_a_watchdog_for_another_process_gets_no_answer(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.interval() == 0
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert notify.interval() == 20
    monkeypatch.setenv("WATCHDOG_USEC", "soon")
    assert notify.interval() == 0


def test_programs_that_a_reload_brings_get_what_was_kept(monkeypatch):
    """Nftables needs no program; iptables in its place does, and inherits only what is passed on by then."""
    raised = []
    monkeypatch.setattr(privileges, "raise_ambient", lambda numbers: raised.append(sorted(numbers)))
    monkeypatch.setattr(privileges, "process_status", lambda: {"CapInh": "%x" % (1 << 12 | 1 << 40)})
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setenv("XTABLES_LOCKFILE", "/there")
    old = settings(ports={"f": {"kind": "nftables"}}, user="tk", state_dir="/s")
    new = settings(ports={"f": {"kind": "iptables"}}, user="tk", state_dir="/s")
    privileges.pass_on(old)
    assert raised == []
    privileges.pass_on(new)
    assert raised == [[12]]
    new.user = None
    privileges.pass_on(new)  # nobody asked us to give up, or to pass on, anything
    assert raised == [[12]]


@pytest.mark.parametrize("port, wanted", [({}, [[12]]), ({"via": "edge"}, [])])
def test_wg_gets_the_right_to_change_the_interface_where_it_runs_here(monkeypatch, port, wanted):
    raised = []
    monkeypatch.setattr(privileges, "raise_ambient", raised.append)
    monkeypatch.setattr(privileges, "process_status", lambda: {"CapInh": "%x" % (1 << 12)})
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    ports = {"f": {"kind": "nftables"}, "t": {"kind": "wireguard", **port}}
    privileges.pass_on(settings(ports=ports, carriers={"edge": {"kind": "ssh"}}, user="tk", state_dir="/s"))
    assert raised == wanted


@pytest.mark.parametrize("there", [True, False])
def test_the_lock_of_iptables_legacy_is_shared_wherever_it_can_be_read(monkeypatch, tmp_path, there):
    """In the unit /run is mounted read-only, and flock(2) does not mind."""
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    monkeypatch.setattr(privileges, "raise_ambient", lambda numbers: None)
    monkeypatch.setenv("XTABLES_LOCKFILE", "")
    monkeypatch.delenv("XTABLES_LOCKFILE")
    monkeypatch.setattr(os, "access", lambda path, mode: there and mode == os.R_OK)
    privileges.pass_on(settings(ports={"f": {"kind": "iptables"}}, user="tk", state_dir="/s"))
    assert os.environ.get("XTABLES_LOCKFILE") == (None if there else "/s/xtables.lock")


def test_a_directory_of_a_third_party_is_not_handed_over(tmp_path, monkeypatch):
    """Who owns it can put a link there between our look and our chown."""
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 5)
    monkeypatch.setattr(os, "chown", lambda *_, **__: pytest.fail("it is not ours"))
    with pytest.raises(PermissionError):
        privileges.hand_over(str(tmp_path), SimpleNamespace(pw_uid=os.getuid() + 1, pw_gid=1))
