"""`tinyknop keygen --for`: what it writes for one side fits what it writes for the other, in every format."""

import os
import stat
import subprocess
import sys

import pytest

from tests.need import need
from tinyknop import client, config, crypto, unseal
from tinyknop.host import cli, fwrequest, keygen, toml

SERVER = '[daemon]\nstate_dir = "/nonexistent"\n[[capture]]\nkind = "udp"\n[port.firewall]\nkind = "ipset"\n'
FILES = ("stanza.toml", "access.conf", "target.toml", "fwknoprc")


def made(tmp_path, *more, host="192.0.2.1", name="alice"):
    """Makes the files of a stanza; returns their paths by ending."""
    assert cli.main(["tinyknop", "keygen", "--for", host, name, "-o", str(tmp_path), *more]) == 0
    return {ending: tmp_path / ("%s.%s" % (name, ending)) for ending in FILES}


def stanzas(tmp_path, paths):
    """Returns the stanza that a server reads, from either of its files."""
    (tmp_path / "tinyknop.toml").write_text(SERVER + paths["stanza.toml"].read_text())
    os.chmod(tmp_path / "tinyknop.toml", 0o600)
    conf = tmp_path / "fwknopd.conf"
    conf.write_text("ACCESS_FILE %s;\n" % paths["access.conf"])
    os.chmod(conf, 0o600)
    return [config.load(str(path))[1][0] for path in (tmp_path / "tinyknop.toml", conf)]


@pytest.mark.parametrize("hmac", crypto.NAMES)
def test_both_servers_read_what_both_clients_send(tmp_path, capsys, hmac):
    paths = made(tmp_path, "--hmac", hmac, "-A", "tcp/22,udp/53")
    document = toml.Document(str(paths["target.toml"]))
    target = client.Target(document.entries("target", "alice"))
    assert target.hints and target.address == "resolve"
    target.address = "192.0.2.7"
    request = fwrequest.Request()
    fwrequest.from_file(request, str(paths["fwknoprc"]), "alice")
    assert request["SPA_SERVER"] == "192.0.2.1" and request["ACCESS"] == "tcp/22,udp/53"
    for stanza in stanzas(tmp_path, paths):
        assert stanza.open_ports == (("tcp", 22), ("udp", 53)) and stanza.require_source
        assert unseal(client.build(target), stanza.keys).message == "192.0.2.7,tcp/22,udp/53"
        assert (request["HMAC_DIGEST_TYPE"] or "sha256") == stanza.keys.hmac
        assert request["KEY_BASE64"] == target_key(document)


def target_key(document):
    """Returns the key of a target's file as text."""
    return {name: text for name, text, _ in document.entries("target", "alice")}["key_base64"]


def test_check_understands_each_of_the_files(tmp_path, capsys):
    paths = made(tmp_path)
    for ending in ("target.toml", "fwknoprc", "access.conf"):
        assert cli.main(["tinyknop", "check", str(paths[ending])]) == 0
    said = capsys.readouterr().out
    assert "target alice: knocks at 192.0.2.1 port 62201 for tcp/22" in said and "stanza [alice]: knocks at" in said


def test_real_client_sends_by_the_rc_file(tmp_path):
    paths = made(tmp_path)
    argv = [
        need("fwknop"),
        "--rc-file",
        str(paths["fwknoprc"]),
        "-n",
        "alice",
        "-a",
        "192.0.2.7",
        "-T",
        "--no-save-args",
    ]
    argv += ["-B", str(tmp_path / "packet")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, env={"HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    packet = (tmp_path / "packet").read_bytes().strip()
    for stanza in stanzas(tmp_path, paths):
        assert unseal(packet, stanza.keys).message == "192.0.2.7,tcp/22"


def test_files_are_their_owners_only_and_never_replaced(tmp_path, capsys):
    old = os.umask(0)
    try:
        paths = made(tmp_path)
    finally:
        os.umask(old)
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths.values()] == [0o600] * 4
    before = [path.read_text() for path in paths.values()]
    assert cli.main(["tinyknop", "keygen", "--for", "192.0.2.1", "alice", "-o", str(tmp_path)]) == 1
    assert "already there" in capsys.readouterr().err
    assert [path.read_text() for path in paths.values()] == before


def test_without_a_folder_all_is_printed_and_a_pipe_gets_no_code(capsys):
    assert cli.main(["tinyknop", "keygen", "--for", "gate.example.net", "alice"]) == 0
    shown = capsys.readouterr().out
    for text in ("[[stanza]]", "SOURCE ", "[target.alice]", "[alice]", "hints = true", "REQUIRE_SOURCE_ADDRESS  Y"):
        assert text in shown
    assert "█" not in shown
    assert cli.main(["tinyknop", "keygen", "--for", "gate.example.net", "alice", "--qr"]) == 0
    shown = capsys.readouterr().out
    assert "█" in shown and "clear the screen" in shown


@pytest.mark.parametrize(
    "host, name, more",
    [
        ("gate example", "alice", ()),
        ('gate"\nkind="x', "alice", ()),
        ("", "alice", ()),
        ("gate.example.net", "a]b", ()),
        ("gate.example.net", "default", ()),
        ("gate.example.net", "../alice", ()),
        ("gate.example.net", "alice", ("-A", "tcp")),
    ],
)
def test_what_cannot_stand_in_a_file_is_refused(tmp_path, capsys, host, name, more):
    assert cli.main(["tinyknop", "keygen", "--for", host, name, "-o", str(tmp_path), *more]) == 1
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr().err


def test_code_that_cannot_be_drawn_is_told_before_there_is_a_key(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "segno", None)
    words = ["tinyknop", "keygen", "--for", "192.0.2.1", "alice", "-o", str(tmp_path)]
    assert cli.main([*words, "--qr"]) == 1
    assert "tinyknop[qr]" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
    assert cli.main(words) == 0
    assert keygen.HOST.fullmatch("2001:db8::1")


def test_a_file_that_somebody_else_left_there_gets_no_key(tmp_path, monkeypatch):
    """In /tmp, say: its owner could read what we write into it."""
    path = tmp_path / "keys"
    path.write_text("")
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(PermissionError):
        keygen.replace(str(path), "secret")
    assert path.read_text() == ""
    monkeypatch.undo()
    keygen.replace(str(path), "secret")
    assert path.read_text() == "secret"


def test_a_reader_from_before_does_not_see_the_new_key(tmp_path):
    """The file was open to all, and somebody has it open: the key goes into a file of its own."""
    path = tmp_path / "keys"
    path.write_text("old")
    path.chmod(0o644)
    with open(path) as reader:
        keygen.replace(str(path), "secret")
        assert reader.read() in ("old", "") and path.stat().st_mode & 0o777 == 0o600
