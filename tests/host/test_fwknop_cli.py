"""The client's front end where it differs from fwknop on purpose, and what needs no fwknop to be shown."""

import contextlib
import os
import pathlib
import re
import shlex
import socket
import subprocess
import sys

import pytest

from tinyknop import Keys, log, unseal
from tinyknop.host import cli, fwargs, fwkeys, fwknop, fwrequest
from tinyknop.host.fwoptions import OPTIONS, SECRET_OPTIONS, VARIABLES, Doubt, offset

ROOT = pathlib.Path(__file__).resolve().parents[2]
OFFLINE = "--no-rc-file --no-save-args --key-rijndael abc "
ASK = "-A tcp/22 -a 1.2.3.4 -D 127.0.0.1 " + OFFLINE
RC = "[default]\nALLOW_IP source\nACCESS tcp/22\nSPA_SERVER 127.0.0.1\n"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Gives each test a home of its own; returns its path."""
    kept = log.sink, log.threshold
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    log.sink, log.threshold = kept


@pytest.fixture
def call(capsys):
    """Returns a function that runs the client with words and a standard input: (status, out, err)."""

    def run(words, typed=b""):
        with typing(typed):
            status = fwknop.main(shlex.split(words))
        return (status, *capsys.readouterr())

    return run


@contextlib.contextmanager
def typing(typed):
    """Puts bytes on standard input."""
    kept = os.dup(0)
    near, far = os.pipe()
    os.write(far, typed)
    os.close(far)
    os.dup2(near, 0)
    os.close(near)
    try:
        yield
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def rc(home, text):
    path = home / ".fwknoprc"
    path.write_text(text)
    path.chmod(0o600)


def packet(home, keys):
    """Returns the Packet in the file `pk`."""
    return unseal((home / "pk").read_bytes()[:-1], keys)


def listed(heading, pattern, columns):
    """Returns what of a pattern stands in code type in the first columns of a table of docs/fwknop-client.md."""
    text = (ROOT / "docs" / "fwknop-client.md").read_text(encoding="utf-8").split("\n%s\n" % heading)[1].split("\n#")[0]
    rows = ["|".join(line.split("|")[1 : columns + 1]) for line in text.splitlines() if line.startswith("|")]
    return {word for row in rows for word in re.findall("`(%s)`" % pattern, row)}


def test_every_option_of_the_reference_is_known():
    known = {"--" + row[1] for row in OPTIONS} | {"-" + row[0] for row in OPTIONS if row[0]}
    assert listed("## 1. Command line", "-[^`]+", 2) | {"-h", "--help"} == known
    assert len({row[1] for row in OPTIONS}) == len(OPTIONS)


def test_every_variable_of_the_reference_is_known():
    assert listed("### 3.2 Variables", "[A-Z0-9_]+", 1) == set(VARIABLES)


def test_every_option_has_help_and_sets_something():
    for _, name, argument, sets, reader, text in OPTIONS:
        assert text and sets and (callable(reader) if argument else not callable(reader)), name


def test_usage_lists_every_option(call):
    status, out, _ = call("--help")
    assert status == 0 and all("--" + row[1] in out for row in OPTIONS)


def test_command_and_program_name_choose_the_client(capsys):
    for argv in (["tinyknop", "fwknop", "-V", "--no-rc-file"], ["/usr/bin/fwknop", "-V", "--no-rc-file"]):
        assert cli.main(argv) == 0
        assert "FKO protocol version 3.0.0" in capsys.readouterr().out


def test_keys_are_never_stored(call, home):
    secrets = "--key-rijndael S3CRET --key-base64-rij=UzNDUkVU --key-hmac S3CRET2 --key-base64-hmac UzNDUkVUMg=="
    status, _, err = call("-T -A tcp/22 -s --no-rc-file " + secrets)
    assert status == 0, err
    text = (home / ".fwknop.run").read_text()
    assert text == "fwknop -T -A tcp/22 -s --no-rc-file --use-hmac --use-hmac \n"
    assert (home / ".fwknop.run").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "words, kept",
    [
        ("-C --key-hmac -vA tcp/22 --key-hmac x", "-C --key-hmac -vA tcp/22 --use-hmac"),
        ("-vAtcp/1 --key-rij k -T", "-vAtcp/1 -T"),
        ("--access --key-rijndael --key-rijndael=k", "--access --key-rijndael"),
        ("-T -- --key-hmac x", "-T -- --key-hmac x"),
        ("--server-cmd=--key-hmac -b", "--server-cmd=--key-hmac -b"),
        ("--key-base64-h k -", "--use-hmac -"),
    ],
)
def test_only_keys_are_left_out_of_the_stored_words(words, kept):
    assert fwrequest.without_keys(words.split()) == kept.split()


def test_no_way_to_write_a_key_option_is_stored():
    for name in SECRET_OPTIONS:
        for cut in range(len("key-b"), len(name) + 1):
            if sum(row[1].startswith(name[:cut]) for row in OPTIONS) == 1:
                for words in (["--" + name[:cut], "S3"], ["--%s=S3" % name[:cut]]):
                    assert not [word for word in fwrequest.without_keys(words) if "S3" in word]


def test_stored_words_with_blanks_come_back_whole(call, home):
    call('--no-rc-file -T -s -C "a  it\'s" --stdin', b"abc\n")
    status, out, _ = call("--no-rc-file -l", b"abc\n")
    assert status == 0 and "Message String: 0.0.0.0,a  it's" in out
    assert fwargs.words_of("fwknop -C it's me ") == ["-C", "it's", "me"]


def test_key_files_are_their_owners_alone(call, home):
    (home / "k").write_text("old and longer than what is new " * 9)
    (home / "k").chmod(0o644)
    assert call("-k --no-rc-file -K k")[0] == 0
    lines = (home / "k").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["KEY_BASE64", "HMAC_KEY_BASE64"]
    assert (home / "k").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name, size", sorted(fwkeys.HMAC_BYTES.items()))
def test_each_hmac_has_a_default_key_length(call, name, size):
    status, out, _ = call("-k --no-rc-file --hmac-digest-type " + name)
    pair = dict(line.split(": ") for line in out.splitlines())
    assert status == 0
    assert [len(fwkeys.decoded(pair[word])) for word in ("KEY_BASE64", "HMAC_KEY_BASE64")] == [32, size]


def test_both_keys_come_from_one_descriptor(call, home):
    for words in ("--stdin", "--fd 0"):
        base = "-T -B pk -A tcp/22 -s --no-rc-file --no-save-args --use-hmac "
        assert call(base + words, b"one key\nthe other\nand no more\n")[0] == 0
        assert packet(home, Keys(b"one key", b"the other")).message == "0.0.0.0,tcp/22"
    assert call(base + "--stdin", b"one key\n")[0] == 1


def test_empty_keys_are_refused(call):
    ask = "-T -A tcp/22 -s --no-rc-file --no-save-args "
    for words in ("--stdin", "--key-rijndael ''", "--key-rijndael a --key-hmac ''", "--key-base64-rijndael ''"):
        status, out, err = call(ask + words, b"\n")
        assert (status, out) == (1, "") and err, words


def test_n_clears_what_default_sets(call, home):
    rc(home, RC + "USE_HMAC Y\nHMAC_KEY mac\nNAT_LOCAL Y\nKEY abc\n[x]\nUSE_HMAC N\nNAT_LOCAL N\n")
    assert call("-T -B pk")[0] == 0
    assert packet(home, Keys(b"abc", b"mac")).message_type == 5
    assert call("-T -B pk -n x")[0] == 0
    assert packet(home, Keys(b"abc")).message_type == 1


def test_named_stanza_can_have_the_address_asked_for(home):
    request = fwrequest.Request()
    rc(home, RC + "[x]\nALLOW_IP resolve\n")
    fwrequest.from_file(request, str(home / ".fwknoprc"), "x")
    assert request.resolves


def test_hmac_key_file_is_the_hmac_key(call, home):
    (home / "k").write_text("127.0.0.1: mac\n")
    rc(home, RC + "KEY abc\nHMAC_KEY_FILE k\n")
    assert call("-T -B pk")[0] == 0
    assert packet(home, Keys(b"abc", b"mac")).message == "0.0.0.0,tcp/22"


def test_key_of_the_command_line_beats_the_file_in_any_spelling(call, home):
    rc(home, RC + "KEY abc\nHMAC_KEY mac\n")
    assert call("-T -B pk --key-base64-rijndael ZGVm --key-base64-hmac Zm9v")[0] == 0
    assert packet(home, Keys(b"def", b"foo")).message == "0.0.0.0,tcp/22"


@pytest.mark.parametrize("proto, kind", [("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)])
def test_source_port_is_used(call, proto, kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("", 0))
        wanted = probe.getsockname()[1]
    with socket.socket(socket.AF_INET, kind) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(5)
        if proto == "tcp":
            ear.listen()
        status, _, err = call("%s -P %s -p %d -S %d" % (ASK, proto, ear.getsockname()[1], wanted))
        assert status == 0, err
        peer = ear.accept()[1] if proto == "tcp" else ear.recvfrom(2048)[1]
    assert peer == ("127.0.0.1", wanted)


def test_ipv6_is_sent_with_a_warning(call):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ear:
        ear.bind(("::1", 0))
        ear.settimeout(5)
        words = "-A tcp/22 -a 2001:db8::7 -D ::1 -p %d %s" % (ear.getsockname()[1], OFFLINE)
        status, _, err = call(words)
        data = ear.recv(2048)
    assert status == 0 and err.count("fwknopd does not") == 2
    assert unseal(data, Keys(b"abc"), ipv6=True).message == "2001:db8::7,tcp/22"
    assert call(words + " --server-resolve-ipv4")[0] == 1


def test_nothing_to_open_is_a_plain_message(call):
    status, out, err = call("-a 1.2.3.4 -D 127.0.0.1 " + OFFLINE)
    assert (status, out) == (1, "") and "say what with -A" in err


@pytest.mark.parametrize("more, fit", [("", 20), ("--key-hmac mac", 17), ("-m md5", 22)])
def test_too_many_openings_are_refused_with_the_number_that_fits(call, home, more, fit):
    words = "%s -T -B pk -U root %s -A " % (ASK, more)
    status, out, err = call(words + ",".join(["tcp/22"] * 40))
    found = re.search(r"40 openings are too many for one packet, (\d+) fit", err)
    assert status == 1 and out == "" and found and not (home / "pk").exists()
    count = int(found.group(1))
    assert count == fit
    assert call(words + ",".join(["tcp/22"] * count))[0] == 0 and len((home / "pk").read_bytes()) <= 400
    assert call(words + ",".join(["tcp/22"] * (count + 1)))[0] == 1


def test_long_command_is_refused(call):
    status, _, err = call(ASK + "-T -C " + "x" * 250)
    assert status == 1 and "Error 101" in err and "192 bytes" in err


def test_what_a_server_would_refuse_is_not_sent(call):
    for words in ("-f 70000", "--time-offset-plus 65536d", "-a 010.1.1.1", "-T -U bob/by"):
        status, out, err = call(ASK + words)
        assert (status, out) == (1, "") and err, words


def test_secrets_are_in_no_message(call, home):
    rc(home, RC + "KEY_BASE64 S3CRET!\n")
    outputs = [call("-T")]
    rc(home, RC + "KEYBASE64 S3CRET\n")
    outputs.append(call("-T"))
    rc(home, RC + "S3CRET\n")
    outputs.append(call("-T"))
    outputs.append(call(ASK + "-T --key-base64-rijndael S3CRET!"))
    outputs.append(call(ASK + "-T --key-rijndael " + "S3CRET" * 9))
    for status, out, err in outputs:
        assert status == 1 and "S3CRET" not in out + err


def test_lenient_readings_warn_with_their_place(call, home):
    rc(home, RC + "KEY abc\nFW_TIMEOUT 30s\nUSE_HMAC yes\n")
    status, out, err = call("-T -p 99x extra")
    assert status == 0 and "Client Timeout: 30" in out
    assert ".fwknoprc:6: FW_TIMEOUT: '30s' is not a number: write the 30" in err
    assert ".fwknoprc:7: USE_HMAC: 'yes' is neither Y nor N" in err
    assert "--server-port: '99x' is not a number" in err and "not an option, so not used: extra" in err


def test_a_key_that_the_rc_file_cuts_is_told_and_not_shown(call, home):
    rc(home, RC + "KEY S3CRET and more\n")
    status, out, err = call("-T")
    assert status == 0 and ".fwknoprc:5: KEY: the value ends at the first blank" in err and "base64" in err
    assert "S3CRET" not in err and "and more" not in err


def test_what_a_stanza_stores_is_read_back(call, home):
    words = "-A tcp/22 -a 192.0.2.7 -D 127.0.0.1 --key-rijndael 'my pass' --key-hmac 'a#b;c' -u 'my agent'"
    status, _, err = call(words + " -w '/usr/bin/wget -4' -T -n office --save-rc-stanza")
    assert status == 0 and "HTTP_USER_AGENT is not stored" in err and "WGET_CMD is not stored" in err
    status, _, err = call("-n office -T -B pk")
    assert (status, err) == (0, "")
    assert packet(home, Keys(b"my pass", b"a#b;c")).message == "192.0.2.7,tcp/22"


def test_wishes_without_effect_are_told(call):
    status, out, err = call(ASK + "-T -C id -N 10.0.0.1,9 --nat-local -f 9 -R")
    assert status == 0 and "Message Type: 0 (Command msg)" in out
    assert all(option in err for option in ("-N is", "--nat-local is", "-f is", "-R is"))


@pytest.mark.parametrize(
    "text, seconds",
    [("90", 90), ("2h", 7200), ("-1D", -86400), ("5M", 300), ("7s", 7), ("0", 0), ("65536", 65536), ("+5", 5)],
)
def test_time_offsets(text, seconds):
    assert offset(text) == seconds


@pytest.mark.parametrize("text", ["", "abc", "65537", "123456789", "12345678s", "--1", "1 2"])
def test_bad_time_offsets(text):
    with pytest.raises((ValueError, Doubt)):
        offset(text)


@pytest.mark.parametrize(
    "text, seconds",
    [("1.5h", 54000), ("5 h", 18000), ("5xm", 300), ("5mm", 300), ("0x10", 10), (" 5", 5), ("--5", -5), ("5y", 5)],
)
def test_odd_time_offsets_are_those_of_the_reference_and_told(text, seconds):
    with pytest.raises(Doubt, match="%d seconds" % seconds) as raised:
        offset(text)
    assert raised.value.value == seconds


def test_a_time_offset_is_not_cut_to_what_its_first_digits_say():
    with pytest.raises(ValueError):
        offset("000000005")


def test_user_agent_cannot_change_the_request(call):
    status, _, err = call(ASK + "-P http -p 9 -u 'x\r\nHost: evil'")
    assert status == 1 and "control character" in err


def test_name_that_cannot_be_one_is_refused(call):
    for name in ("a..b", "x" * 300, "a b"):
        status, _, err = call(ASK + "-D '%s'" % name)
        assert status == 1 and "packet not sent" in err


def test_raw_packets_without_root_are_refused_plainly(tmp_path):
    words = [*shlex.split(ASK), "-P", "tcpraw"]
    body = "import encodings.idna, os, sys; from tinyknop.host import fwknop; os.setuid(65534); "
    body += "sys.exit(fwknop.main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", body, *words], capture_output=True, text=True, env=dict(os.environ, PYTHONPATH=str(ROOT))
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.endswith("run it as root\nsend_spa_packet: packet not sent.\n")


def test_line_end_smuggled_into_a_word_is_refused(call):
    for words in ("-N '10.0.0.1\n,9'", "-N '10.0.0.1,9\n'", "-a '1.2.3.4\n'", "-A 'tcp/22\n'", "-U 'x\n'"):
        status, out, err = call(ASK + "-T " + words)
        assert (status, out) == (1, "") and err, words
