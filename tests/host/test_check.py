"""`tinyknop check` finds what the daemon would refuse at its start, and names what is not here yet."""

import os
import pathlib
import pwd
import tempfile

import pytest

from tests.host.texts import config
from tests.need import lacking
from tinyknop.host import cli


def checked(path, capsys):
    """Returns (exit status, what was said) of `tinyknop check`."""
    status = cli.main(["tinyknop", "check", str(path)])
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize(
    "old, new, wanted",
    [
        ('"packet"', '"pakcet"', 'kind = "pakcet": no such kind'),
        ("interface", "interfase", "interfase: no such option of packet"),
        ("port = 62201", 'port = "x"', "port = x: it is a number from 1 to 65535"),
        ("port = 62201", "port = 622010", "port = 622010: it is a number"),
        ('"lo"', '"a-name-that-is-too-long"', "at most 15 characters"),
    ],
)
def test_a_capture_that_cannot_be_is_found_with_its_line(tmp_path, capsys, old, new, wanted):
    path = config(tmp_path, old, new)
    status, said = checked(path, capsys)
    assert status == 1 and said.startswith("%s:4: " % path) and wanted in said


@pytest.mark.parametrize(
    "old, new, wanted",
    [
        ("[daemon]", '[daemon]\nuser = "nobody-at-all"', "warning: there is no user nobody-at-all here: adduser"),
        ('"lo"', '"nosuch0"', "warning: there is no interface nosuch0 here"),
    ],
)
def test_what_is_not_here_yet_is_a_warning(tmp_path, capsys, old, new, wanted):
    status, said = checked(config(tmp_path, old, new), capsys)
    assert status == 0 and wanted in said
    assert wanted not in checked(config(tmp_path), capsys)[1]


@pytest.mark.parametrize("command", ["check", "serve"])
def test_keys_in_a_configuration_that_others_can_read_are_refused(tmp_path, capsys, command):
    path = config(tmp_path)
    words = ["tinyknop", command] + (["-c"] if command == "serve" else []) + [str(path)]
    path.chmod(0o640)
    assert cli.main(words) == 1
    assert "%s:15: key_base64: others can read the file: chmod 600" % path in capsys.readouterr().err
    key = tmp_path / "alice.key"
    text = path.read_text().split("\n")
    cli.main(["tinyknop", "keygen", "-o", str(key)])
    path.write_text("\n".join(text[:14] + ['key_file = "%s"' % key] + text[16:]))
    assert cli.main(["tinyknop", "check", str(path)]) == 0


ACCESS = """SOURCE 10.0.0.0/8, 192.0.2.7
DESTINATION 198.51.100.1
OPEN_PORTS tcp/22, udp/53
RESTRICT_PORTS tcp/25
KEY short
HMAC_KEY shorter
HMAC_DIGEST_TYPE md5
ENCRYPTION_MODE legacy
FW_ACCESS_TIMEOUT 30
MAX_FW_TIMEOUT 300
REQUIRE_USERNAME alice
REQUIRE_SOURCE_ADDRESS Y
ACCESS_EXPIRE 01/31/2030
FORCE_NAT 10.0.0.5 8022
ENABLE_CMD_EXEC Y
CMD_EXEC_USER nobody

SOURCE ANY
KEY_BASE64 QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=
CMD_CYCLE_OPEN /bin/echo open $SRC
CMD_CYCLE_CLOSE NONE
ENABLE_CMD_EXEC Y
CMD_SUDO_EXEC_USER root
"""
# What a file without any of this must not make it say.
SAID = """
#1 # 10.0.0.0/8, 192.0.2.7 may open tcp/22, udp/53 but never tcp/25 for 30 s, or as long as the client asks up to 300 s
#1   only by packets sent to 198.51.100.1
#1   only as user alice
#1   the packet must name the address to let in
#1   until 2030-01-31 00:00:00 UTC, and nothing after that
#1   each led inside to 10.0.0.5 port 8022
#1   and may run any command as nobody
#1   through firewall
#2 # anybody may open any port for 30 s
#2   by running: /bin/echo open $SRC
#2   and at the end: nothing
#2   and may run any command as root
#2   through cycle #2
warning: packets of any age are taken
warning: no memory of digests
warning: stanza #1 # the HMAC key has only 7 bytes
warning: stanza #1 # the key has only 5 bytes
warning: stanza #1 # the legacy mode cuts keys to 16 bytes
warning: stanza #1 # an HMAC of md5 is dated
warning: stanza #2 # commands run as root
warning: stanza #2 # no HMAC
warning: stanza #2 # anybody with the key may open any port
"""


def test_all_that_two_stanzas_allow_is_said_and_what_is_not_wise_of_it(tmp_path, capsys):
    access = tmp_path / "access.conf"
    access.write_text(ACCESS)
    daemon = tmp_path / "fwknopd.conf"
    switches = "ENABLE_SPA_PACKET_AGING N\nENABLE_DIGEST_PERSISTENCE N\nPCAP_INTF lo\nENABLE_IPT_FORWARDING Y\n"
    daemon.write_text("%sACCESS_FILE %s\n" % (switches, access))
    access.chmod(0o600)
    daemon.chmod(0o600)
    status, said = checked(daemon, capsys)
    lines = [line.replace("(%s:1): " % access, "# ").replace("(%s:18): " % access, "# ") for line in said.splitlines()]
    stanza, marked = "", []
    for line in lines:
        if line.startswith("stanza #"):
            stanza, line = line[7:9], line[10:]
        elif line[:2] != "  ":
            stanza = ""
        marked.append(stanza + " " + line if stanza else line)
    wanted = SAID.strip().split("\n")
    assert status == 0 and [line for line in wanted if not [one for one in marked if one.startswith(line)]] == []
    assert len([line for line in marked if line[0] == "#"]) == len([line for line in wanted if line[0] == "#"])
    assert len([line for line in marked if line[0] == "w"]) == len([line for line in wanted if line[0] == "w"])


GPG = """SOURCE ANY
OPEN_PORTS tcp/22
GPG_HOME_DIR %s
GPG_DECRYPT_ID ABCD1234
GPG_ALLOW_NO_PW Y
"""


@pytest.mark.parametrize(
    "more, who, unwise",
    [
        ("GPG_DISABLE_SIG Y\n", "of anybody, signed or not", "whoever has the public key may knock"),
        ("GPG_REMOTE_ID 1234ABCD\n", "signed by 1234ABCD", "key ids can be forged; name signers by GPG_FINGERPRINT_ID"),
        (
            "GPG_REMOTE_ID 1234ABCD\nGPG_IGNORE_SIG_VERIFY_ERROR Y\n",
            "signed by 1234ABCD",
            "signatures that do not verify are taken",
        ),
    ],
)
def test_whose_signature_counts_is_said(tmp_path, capsys, more, who, unwise):
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    path = tmp_path / "access.conf"
    path.write_text(GPG % home + more)
    path.chmod(0o600)
    status, said = checked(path, capsys)
    assert status == 0 and "by GPG messages " + who in said and unwise in said


def test_an_rc_file_is_said_and_what_is_not_wise_of_it(tmp_path, capsys):
    path = tmp_path / ".fwknoprc"
    text = "[default]\n[home]\nSPA_SERVER 192.0.2.9\nACCESS tcp/22\nALLOW_IP 192.0.2.7\nKEY secret\n"
    path.write_text(text)
    path.chmod(0o600)
    status, said = checked(path, capsys)
    assert (
        status == 0 and "stanza [home]: knocks at 192.0.2.9 port 62201 by udp for tcp/22, letting in 192.0.2.7" in said
    )
    assert "warning: [home]: no HMAC" in said
    path.write_text(text + "SPA_SERVER_PORT x\n")
    status, said = checked(path, capsys)
    assert status == 1 and said.startswith("%s:7: SPA_SERVER_PORT: 'x' is not a number" % path)


@pytest.fixture
def place():
    """A folder that every user can look into."""
    if os.geteuid():
        lacking("only root may look with the eyes of others")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


def test_what_the_daemons_user_cannot_read_is_found_before_the_start(place, capsys):
    path = config(place, "[daemon]", '[daemon]\nuser = "nobody"')
    path.chmod(0o600)
    status, said = checked(path, capsys)
    assert status == 1 and said.startswith("%s: " % path) and "(as user nobody, who has to own it)" in said
    os.chown(path, pwd.getpwnam("nobody").pw_uid, -1)
    assert checked(path, capsys)[0] == 0
    key = place / "alice.key"
    cli.main(["tinyknop", "keygen", "-o", str(key)])
    text = path.read_text().split("\n")
    path.write_text("\n".join(['key_file = "%s"' % key if line.startswith("key_base64") else line
                               for line in text if not line.startswith("hmac_key_base64")]))  # fmt: skip
    status, said = checked(path, capsys)
    assert status == 1 and str(key) in said and "nobody" in said
    os.chown(key, pwd.getpwnam("nobody").pw_uid, -1)
    assert checked(path, capsys)[0] == 0


def test_a_state_directory_that_serve_would_refuse_is_found(place, capsys):
    path = config(place)
    state = place / "state"
    assert checked(path, capsys)[0] == 0
    state.mkdir(mode=0o700)
    assert checked(path, capsys)[0] == 0
    os.chown(state, pwd.getpwnam("nobody").pw_uid, -1)
    status, said = checked(path, capsys)
    assert status == 1 and "the state directory is somebody else's" in said
