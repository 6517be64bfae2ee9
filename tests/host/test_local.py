"""A command of this machine that fails says in one line why, and what to do where that is known."""

import pytest
from tinyknop.ports.carriers import local

from tinyknop.errors import PortError
from tinyknop.host import cli
from tinyknop.loop import Loop


def said(*words, **how):
    return Loop().run_until(local.Carrier().say(*words, **how))


def program(tmp_path, text, name="program", mode=0o755):
    path = tmp_path / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(mode)
    return str(path)


def test_what_a_command_writes_comes_back_as_text_whatever_it_is(tmp_path):
    assert said("/bin/echo", "a b", "$HOME; id") == "a b $HOME; id\n"
    assert said("/bin/cat", text="one\ntwo\n") == "one\ntwo\n"
    assert said(program(tmp_path, "printf 'x\\303\\244y'")) == "x??y"


@pytest.mark.parametrize(
    "text, reason",
    [
        ("echo first; echo; echo second; exit 3", "first; second"),
        ("exit 3", "status 3"),
        ("echo 'Operation not permitted' >&2; exit 4", "Operation not permitted (this needs root or CAP_NET_ADMIN)"),
        ("exit 127", "not found"),
        ("echo all right; kill -9 $$", "all right"),
    ],
)
def test_a_failure_is_told_in_the_commands_own_words(tmp_path, text, reason):
    path = program(tmp_path, text)
    with pytest.raises(PortError) as caught:
        said(path)
    assert caught.value.reason == "%s: %s" % (path, reason)


@pytest.mark.parametrize(
    "name, package", [("ipset", "ipset"), ("ip6tables-nft", "iptables"), ("firewall-cmd", "firewalld"), ("other", None)]
)
def test_a_command_that_is_missing_is_named_with_its_package(tmp_path, name, package):
    with pytest.raises(PortError) as caught:
        said(str(tmp_path / name))
    remedy = " (on Debian: apt install %s)" % package if package else ""
    assert caught.value.reason == "%s: not found%s" % (tmp_path / name, remedy)


def test_a_file_that_is_no_program_is_no_traceback(tmp_path):
    with pytest.raises(PortError, match="ermission denied"):
        said(program(tmp_path, "", mode=0o644))


def test_one_that_does_not_end_is_killed_and_one_that_never_stops_talking_is_no_answer(tmp_path):
    with pytest.raises(PortError, match="no end after 1 s: killed"):
        said("/bin/sleep", "60", within=1)
    with pytest.raises(PortError, match="answered more than %d bytes" % local.LONGEST_OUTPUT):
        said(program(tmp_path, "head -c %d /dev/zero | tr '\\0' x" % (local.LONGEST_OUTPUT + 1)))


@pytest.mark.parametrize("way", ["local", "tape"])
def test_a_port_of_this_machine_can_be_tried_without_a_daemon_as_one_behind_a_line(tmp_path, capsys, way):
    config = tmp_path / "tinyknop.toml"
    config.write_text(
        '[port.own]\nkind = "command"\nvia = "%s"\nopen = "/bin/true $SRC"\nclose = "/bin/true $SRC"\n' % way
    )
    config.chmod(0o600)
    assert cli.main(["tinyknop", "console", "own", "-c", str(config), "--open", "192.0.2.7", "tcp/22"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("%s: logged in after 0." % way) and "opened: 192.0.2.7 tcp/22" in said
