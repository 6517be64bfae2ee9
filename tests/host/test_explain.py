"""`tinyknop explain`: which check of which stanza, what to change, the fields where there is a key, never a key."""

import argparse
import contextlib
import functools
import io
import pathlib
import struct
import sys
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyknop import Keys, Packet, config, crypto, seal
from tinyknop.compat import wall
from tinyknop.errors import ConfigError
from tinyknop.gate import STAGES
from tinyknop.host import cli, explain, status
from tinyknop.host.stages import ABOUT
from tinyknop.replay import Replay
from tinyknop.spa import to_base64

ALICE = Keys(b"the key of alice", b"the hmac key of alice")
BOB = Keys(b"the key of bob", b"the hmac key of bob", "ctr", "sha512")
CONFIG = """
[daemon]
state_dir = "{state}"
{daemon}
[[capture]]
kind = "packet"
[port.firewall]
kind = "iptables"
[[stanza]]
name = "alice"
source = {source}
key = "the key of alice"
hmac_key = "the hmac key of alice"
openings = ["tcp/22"]
{more}
[[stanza]]
name = "bob"
source = ["ANY"]
key = "the key of bob"
hmac_key = "the hmac key of bob"
hmac_digest_type = "sha512"
encryption_mode = "ctr"
"""


def written(tmp_path, more="", source='["ANY"]', daemon=""):
    path = tmp_path / "tinyknop.toml"
    path.write_text(CONFIG.format(state=tmp_path, more=more, source=source, daemon=daemon))
    path.chmod(0o600)
    return str(path)


def packet(keys=ALICE, message="192.0.2.7,tcp/22", **more):
    return seal(Packet(message=message, username="alice", **more), keys)


def asked(monkeypatch, capsys, path, data, *words):
    """Returns (exit status, output) for a packet on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    status = cli.main(["tinyknop", "explain", "-c", path, "-", *words])
    shown = capsys.readouterr()
    assert shown.err == ""
    for keys in (ALICE, BOB):
        for secret in (keys.key, keys.hmac_key):
            assert secret.decode() not in shown.out and to_base64(secret).decode() not in shown.out
    return status, shown.out


def test_packet_that_is_taken_shows_its_fields_and_what_it_opens(tmp_path, monkeypatch, capsys):
    ended, said = asked(monkeypatch, capsys, written(tmp_path), packet(client_timeout=60))
    assert ended == 0
    for text in (
        "message:    192.0.2.7,tcp/22",
        "user name:  alice",
        "timeout:    60",
        "kind:       3, Client timeout",
    ):
        assert text in said, said
    assert "takes it: opens tcp/22 for 192.0.2.7, 60 s, through firewall" in said
    ended, said = asked(monkeypatch, capsys, written(tmp_path), packet(BOB, "192.0.2.7,udp/53"))
    assert ended == 0 and "stanza bob" in said and "opens udp/53" in said


CASES = {  # stage -> packet (made when the test runs, or it would be too old), stanza's lines, source, text
    "size": (lambda: b"A" * 139, "", None, "not 140 to 1500 bytes long"),
    "prefix": (lambda: b"U2FsdGVkX1" + b"A" * 200, "", None, "that the sender must strip"),
    "charset": (lambda: b"A" * 100 + b"*" + b"A" * 100, "", None, "outside base64"),
    "hmac": (lambda: packet(Keys(b"x", b"y")), "", None, "other keys, another HMAC, or a stranger"),
    "decrypt": (lambda: packet(Keys(b"x", ALICE.hmac_key)), "", None, "Compare both sides' key"),
    "age": (lambda: packet(timestamp=1), "", None, "the first time, and in time: takes it: opens tcp/22"),
    "address": (lambda: packet(message="0.0.0.0,tcp/22"), "require_source_address = true", None, 'address = "resolve"'),
    "user": (packet, 'require_username = "carol"', None, "Correct require_username"),
    "openings": (lambda: packet(message="192.0.2.7,tcp/23"), "", None, "tcp/23 is not allowed"),
    "disabled": (lambda: packet(message="192.0.2.7,date", message_type=0), "", None, "Commands need enable_cmd_exec"),
    "source": (packet, "", "198.51.100.1", "Add the address or its network"),
    "expired": (packet, "access_expire_epoch = 1000", None, "it is over"),
    "hint": (packet, "require_hint = true", None, "Set hints = true in the client"),
}


@pytest.mark.parametrize("stage", CASES)
def test_each_check_says_what_to_change(tmp_path, monkeypatch, capsys, stage):
    make, more, source, text = CASES[stage]
    path = written(tmp_path, more, '["192.0.2.0/24"]' if source else '["ANY"]')
    if stage in ("source", "expired", "hint"):  # of one stanza alone
        with open(path) as file:
            whole = file.read()
        with open(path, "w") as file:
            file.write(whole[: whole.rindex("[[stanza]]")])
    words = ["--source", source] if source else []
    ended, said = asked(monkeypatch, capsys, path, make(), *words)
    assert ended == 1 and "so it is refused at %s: " % stage in said, said
    assert text in said, said


def test_every_stage_has_its_words():
    assert tuple(ABOUT) == STAGES
    assert all(len(meaning) > 10 and remedy[-1] in ".?" for meaning, remedy in ABOUT.values())


@pytest.mark.parametrize(
    "keys, text",
    [
        (Keys(ALICE.key, ALICE.hmac_key, "cbc", "sha3_256"), 'hmac_digest_type = "sha3_256"'),
        (Keys(ALICE.hmac_key, ALICE.key), "exchange the two on one side"),
        (Keys(ALICE.key, None), "it was sent without an HMAC"),
        (Keys(ALICE.key, ALICE.hmac_key, "ctr"), 'encryption_mode = "ctr"'),
    ],
)
def test_near_misses_are_recognised(tmp_path, monkeypatch, capsys, keys, text):
    ended, said = asked(monkeypatch, capsys, written(tmp_path), packet(keys))
    assert ended == 1 and text in said, said


def test_fwknops_files_are_read_as_the_daemon_reads_them(tmp_path, monkeypatch, capsys):
    """It runs with what it only warns of; then its packets can be explained, and it can be asked how it is."""
    access, path = tmp_path / "access.conf", tmp_path / "fwknopd.conf"
    access.write_text(
        "SOURCE 192.0.2\nOPEN_PORTS tcp/22\nKEY %s\nHMAC_KEY %s\n" % (ALICE.key.decode(), ALICE.hmac_key.decode())
    )
    path.write_text("FWKNOP_RUN_DIR %s\nACCESS_FILE %s\nNO_SUCH_WORD Y\n" % (tmp_path, access))
    for file in (access, path):
        file.chmod(0o600)
    ended, said = asked(monkeypatch, capsys, str(path), packet())
    assert ended == 0 and "takes it" in said
    assert status.socket_of(argparse.Namespace(socket=None, config=str(path))) == str(tmp_path / "tinyknop.sock")


def test_packet_that_was_here_is_a_replay_and_explained_further(tmp_path, monkeypatch, capsys):
    path, data = written(tmp_path), packet(message="192.0.2.7,tcp/23", timestamp=wall() - 1)
    digests = config.load(path)[0].digest_file
    store = Replay(digests)
    store.load()
    datagram = explain.Datagram(data, bytes(4), 1, bytes(4), 62201, 17)
    store.add(crypto.digest("sha256", data), datagram, wall() - 1, wall())
    before = open(digests, "rb").read()
    ended, said = asked(monkeypatch, capsys, path, data)
    assert ended == 1 and "refused at replay" in said and "the first time, and in time: openings" in said
    assert "192.0.2.7,tcp/23" in said and "is not looked at" not in said
    assert open(digests, "rb").read() == before


def test_clock_that_went_back_and_a_stamp_from_before_are_told_as_the_daemon_would(tmp_path, monkeypatch, capsys):
    path, now = written(tmp_path), wall()
    digests = config.load(path)[0].digest_file
    store = Replay(digests)
    store.load()
    datagram = explain.Datagram(b"x" * 140, bytes(4), 1, bytes(4), 62201, 17)
    store.add(bytes(32), datagram, now + 5000, now + 5000)  # as a daemon whose clock was fast
    store.compact()
    before = open(digests, "rb").read()
    ended, said = asked(monkeypatch, capsys, path, packet())
    assert ended == 1 and "refused at clock" in said and "behind what it was" in said
    assert open(digests, "rb").read() == before
    ended, said = asked(monkeypatch, capsys, path, packet(timestamp=now + 4999), "--at", "%d" % (now + 5000))
    assert ended == 0 and "takes it" in said


def test_a_digest_cache_that_cannot_be_read_is_told_and_the_rest_explained(tmp_path, monkeypatch, capsys):
    path = written(tmp_path)
    pathlib.Path(config.load(path)[0].digest_file).mkdir()
    ended, said = asked(monkeypatch, capsys, path, packet())
    assert ended == 0 and "Is a directory: whether it is a replay is not looked at" in said


def test_a_word_that_is_a_folder_is_refused(tmp_path, capsys):
    assert cli.main(["tinyknop", "explain", "-c", written(tmp_path), str(tmp_path)]) == 1
    assert "cannot be read: Is a directory" in capsys.readouterr().err


def test_packet_may_be_text_of_many_kinds(tmp_path, monkeypatch, capsys):
    path, data = written(tmp_path), packet()
    for form in (data, data + b"\r\n", data.hex().encode(), b"\n".join([data.hex(" ").encode(), b""])):
        assert asked(monkeypatch, capsys, path, form)[0] == 0
    assert cli.main(["tinyknop", "explain", "-c", path, data.decode()]) == 0
    (tmp_path / "packet").write_bytes(data)
    assert cli.main(["tinyknop", "explain", "-c", path, str(tmp_path / "packet")]) == 0
    assert cli.main(["tinyknop", "explain", "-c", path, "no-such-file"]) == 1
    assert "neither a file nor a packet" in capsys.readouterr().err


def test_request_of_the_web_is_unwrapped(tmp_path, monkeypatch, capsys):
    request = b"GET /" + packet().replace(b"+", b"-").replace(b"/", b"_")
    request += b" HTTP/1.0\r\nUser-Agent: Fwknop/2.6.10\r\nHost: h\r\n\r\n"
    path = written(tmp_path, daemon="http = true")
    assert asked(monkeypatch, capsys, path, request)[0] == 0
    ended, said = asked(monkeypatch, capsys, path, request.replace(b"Fwknop/2.6.10", b"Mozilla/5.0"))
    assert ended == 1 and "so it is refused at http" in said


def pcap(*payloads, port=62201):
    """Returns a capture file of raw IP packets."""
    data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    for payload in payloads:
        udp = struct.pack(">HHHH", 1000, port, 8 + len(payload), 0) + payload
        ip = (
            struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes([192, 0, 2, 7]), bytes(4)) + udp
        )
        data += struct.pack("<IIII", 0, 0, len(ip), len(ip)) + ip
    return data


def test_each_packet_of_a_capture_file_is_explained(tmp_path, monkeypatch, capsys):
    path = written(tmp_path)
    ended, said = asked(monkeypatch, capsys, path, pcap(packet(), b"junk"))
    assert ended == 1 and said.count("packet of ") == 2 and "from 192.0.2.7" in said
    assert "takes it" in said and "so it is refused at size" in said
    assert asked(monkeypatch, capsys, path, pcap(packet()))[0] == 0
    ended, said = asked(monkeypatch, capsys, path, pcap(*[packet()] * (explain.MOST + 2)))
    assert said.count("packet of ") == explain.MOST and "and 2 packets more" in said
    (tmp_path / "other.pcap").write_bytes(pcap(packet(), port=53))
    assert cli.main(["tinyknop", "explain", "-c", path, str(tmp_path / "other.pcap")]) == 1
    assert "no packet to port 62201" in capsys.readouterr().err


def test_terminal_is_safe_from_what_a_packet_holds(tmp_path, monkeypatch, capsys):
    data = packet(message="192.0.2.7,\33[2Jx\u202e", message_type=0)
    said = asked(monkeypatch, capsys, written(tmp_path), data)[1]
    assert "\33" not in said and "\u202e" not in said and "192.0.2.7,?[2Jx" in said


def test_last_refused_are_told_with_those_whom_they_may_have_been_for(tmp_path, monkeypatch, capsys):
    rows = [[100, "hmac", 204, "198.51.100.9", None], [90, "age", 204, "192.0.2.7", "alice"]]
    monkeypatch.setattr(status, "state", lambda path: {"refused": rows})
    path = written(tmp_path, source='["192.0.2.0/24"]')
    assert cli.main(["tinyknop", "explain", "-c", path]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].split() == "1970-01-01 00:01:30 UTC 192.0.2.7 204 bytes age stanza alice".split()
    assert said[1].split() == "1970-01-01 00:01:40 UTC 198.51.100.9 204 bytes hmac perhaps for bob".split()
    assert said[2] == "hmac: " + ABOUT["hmac"][0] and said[5] == "  " + ABOUT["age"][1]
    rows.clear()
    assert cli.main(["tinyknop", "explain", "-c", path]) == 0
    assert capsys.readouterr().out.startswith("nothing was refused")


@functools.cache
def understood():
    """Returns (settings, stanzas)."""
    with tempfile.TemporaryDirectory() as folder:
        return config.load(written(pathlib.Path(folder), daemon="http = true"))


@settings(max_examples=60)
@given(
    st.binary(max_size=2000), st.sampled_from([b"", b"\xd4\xc3\xb2\xa1", b"\x0a\x0d\x0d\x0a", b"GET /", b"41" * 140])
)
def test_no_input_makes_it_fail(data, head):
    data = head + data
    payload = explain.payload_of(data)
    with contextlib.suppress(ConfigError):
        for datagram in explain.captured("x", data, {62201}) or [
            explain.Datagram(payload, bytes(4), 0, bytes(4), 0, 17)
        ]:
            explain.explained(datagram, *understood(), 1700000000, explain.Forgetful())


@pytest.mark.parametrize("second", ["0", "99999999999999999999", "-99999999999999999999"])
def test_any_time_can_be_asked_about(tmp_path, monkeypatch, capsys, second):
    """The epoch is a time, not "now"; and none ends in a trace, since a packet may hold one as well."""
    path = written(tmp_path)
    words = ["tinyknop", "explain", "-c", path, "--at", second, packet().decode()]
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert "refused at age" in said.out and "Traceback" not in said.err
