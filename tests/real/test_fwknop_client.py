"""The client's front end beside the real fwknop: the same words, files and input, and what both say, write and send."""

import contextlib
import fcntl
import io
import itertools
import os
import pty
import re
import shlex
import socket
import subprocess
import sys
import termios
import threading

import pytest

from tests.keyrings import CLIENT, SERVER, keyrings
from tests.need import need
from tests.real import net, peers
from tinyknop import Keys, log, unseal
from tinyknop.host import fwknop

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OFFLINE = "--no-rc-file --no-save-args --key-rijndael abc "
ASK = "-A tcp/22 -a 1.2.3.4 -D 127.0.0.1 " + OFFLINE


@pytest.fixture(autouse=True)
def sinks():
    kept = log.sink, log.threshold
    yield
    log.sink, log.threshold = kept


class Side:
    """A home directory and what one program said there last: status, out, err."""

    def __init__(self, home, run):
        self.home = home
        self.run = run
        home.mkdir()

    def call(self, words, typed=b"", **env):
        """Runs it with words (a text is split at blanks) and what is on its standard input."""
        words = words.split() if isinstance(words, str) else words
        full = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LC_ALL": "C", **env}
        self.status, out, err = self.run(words, typed, full, self.home)
        self.out, self.err = plain(out, self.home), plain(err, self.home)
        return self

    def write(self, name, text):
        """Puts a file that only its owner can read into the home."""
        path = self.home / name
        path.write_text(text)
        path.chmod(0o600)

    def files(self):
        """Returns {name: (mode, text)} of the home's files."""
        return {
            path.name: (path.stat().st_mode & 0o777, plain(path.read_text(), self.home)) for path in self.home.iterdir()
        }


def reference(words, typed, env, home):
    """Runs the real client, without a terminal."""
    done = subprocess.run(
        ["fwknop", *words], input=typed, capture_output=True, env=env, cwd=home, timeout=20, start_new_session=True
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@contextlib.contextmanager
def standing_in(typed, env, home):
    """Lets code of this process have another standard input, environment and directory."""
    kept_env, kept_dir, kept_input = dict(os.environ), os.getcwd(), os.dup(0)
    near, far = os.pipe()
    os.write(far, typed)
    os.close(far)
    os.dup2(near, 0)
    os.close(near)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(home)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept_env)
        os.chdir(kept_dir)
        os.dup2(kept_input, 0)
        os.close(kept_input)


def ours(words, typed, env, home):
    """Runs our front end in this process, which costs no start of Python."""
    out, err = io.StringIO(), io.StringIO()
    with standing_in(typed, env, home), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = fwknop.main(list(words))
    return status, out.getvalue(), err.getvalue()


def plain(text, home):
    """Returns a text without what no two runs have in common."""
    text = text.replace(str(home), "HOME")
    text = re.sub(r"(Random Value: )\d{16}", r"\1RAND", text)
    text = re.sub(r"(Timestamp: )\d+", r"\1TIME", text)
    text = re.sub(r"(Encoded Data: )\d{16}:([^:]+):\d+:", r"\1RAND:\2:TIME:", text)
    text = re.sub(r"(Data Digest: |HMAC: |Final SPA Data: )([A-Za-z0-9+/]+)", lambda m: m[1] + str(len(m[2])), text)
    text = re.sub(r"(HMAC_KEY_BASE64:? +|KEY_BASE64:? +)(\S+)", lambda m: m[1] + str(len(m[2])), text)
    text = re.sub(r"(GET \S*/)([A-Za-z0-9_-]{100,})", lambda m: m[1] + str(len(m[2])), text)
    text = re.sub(r"(?<=[Ff]wknop.)(client )?\d+\.\d+\.\d+( \(tinyknop\))?", r"\1VERSION", text)
    return text


@pytest.fixture
def sides(tmp_path):
    """Returns (our side, the reference's side)."""
    need("fwknop")
    return Side(tmp_path / "ours", ours), Side(tmp_path / "theirs", reference)


def same(sides, words, typed=b"", files=True, **env):
    """Runs both and compares all they say, without our remedies in brackets and our word on values that are cut."""
    for side in sides:
        side.call(shlex.split(words), typed, **env)
    one, two = sides
    told = once(two.err).splitlines()
    said = [line for line in one.err.splitlines() if "the value ends at the first blank" not in line]
    mine = [
        known if line and known and line.startswith(known + " (") else line
        for line, known in itertools.zip_longest(said, told)
    ]
    assert mine == told, words
    assert (cut(one.out), one.status) == (cut(two.out), two.status), words
    if files:
        assert one.files() == two.files(), words


def cut(text):
    """Returns a text up to the usage, which is in other words."""
    return re.sub(r"(?s)\n*fwknop client .?VERSION.*Usage.*|\n*fwknop client version.*", "USAGE", text)


def once(text):
    """Returns a text whose first line is not said twice: the reference reads its options two times."""
    lines = text.splitlines(True)
    return "".join(lines[1:] if lines[:1] == lines[1:2] else lines)


# What both do alike; each is added to ASK.
ALIKE = """
-T
-T -v

-v
-T -P http
-T -P http -v
-T -P http -v -p 80
-T -P http -v -H foo
-T -P http -v -H foo:99
-T -P http -v -H http://foo:99/
-T -S 4444 -v
-P tcpraw -S 77 -v
-P udpraw -S 77 -v
-P icmp -S 77 -v
-P icmp -S 77 -v -Q 9.9.9.9
-T -P icmp -S 77 -v --icmp-type 8 --icmp-code 15
-T -m md5
-T -m sha1
-T -m sha384
-T -m sha512 -v
-T -m sha3_256
-T -m SHA3_512 -v
-T -M ecb -v
-T -M cfb
-T -M ofb
-T -M CTR
-T -M legacy -v
-T --key-hmac foo -v
-T --key-hmac foo --hmac-digest-type md5 -v
-T --key-hmac foo --hmac-digest-type sha3_512 -v
-T --key-base64-hmac Zm9v
-T -f 30 -v
-T -f 65536
-T -f 5 -f 0
-T -N 10.0.0.1
-T -N 10.0.0.1 -f 30 -v
-T -N 10.0.0.1:99
-T -N 10.0.0.1:099
-T -N host.a-b.c,99
-T -N 10.0.0.1,99 -A tcp/22,tcp/23
-T --nat-local -v
-T --nat-local -f 30 -v
-T --nat-local -D foo.example.org
-T --nat-local -N 10.0.0.1,99
-T --nat-local --nat-port 99
-T --nat-port 99
-T -N 10.0.0.1 --nat-port 99
-T -N 10.0.0.1,77 --nat-port 99
-T -N 10.0.0.1 --nat-port 0
-T -C id
-T -C "a b  c,d:e"
-T -C ""
-T -U bobby
-T -U ""
-T -a 1.1.1.1 -s
-T -s -a 1.1.1.1
-T -s -v
-T -D ""
-T -A tcp/00022
-T -A tcp/22,udp/53
-T --dest 1.2.3.4
-T -P UDP
-T --time-offset-plus 2D
-T --key-base64-rijndael YWJj
-T -H foo
-T -P udp -H foo
-V
""".split("\n")[1:-1]
# What both refuse in the same words.
REFUSED = """
-T -P http -v -H foo:x
-T -P http -H foo:99999
-T -P icmp -D nosuch.invalid
-T -N host_x:99
-T -N 10.0.0.1:99999
-T -N 10.0.0.1:
-T -N 10.0.0.1:0
-T -N 10.0.0.1:x
-T -N 10.0.0.1 --nat-port 99 -A tcp/22,tcp/23
-T -a 256.1.1.1
-T -a 1.2.3
-a 1.2.3
-T -a 1.2.3.4x
-T -A icmp/22
-T -A tcp/0
-T -A TCP/22
-T -A tcp/22,
-T -A tcp/22,,tcp/23
-D nosuch.invalid
-D nosuch.invalid -P tcpraw
-D nosuch.invalid -P http
-v -P tcp -p 1
-v -P http -p 1
-T --nat
-T --access
-T --foo
-T -C
-T -W
-T --test=3
-T --key-hmac abc
-T --key-rijndael 123456789012345678901234567890123
-T -Q foo
-T -Q 1.2.3.4
-T -H foo -P udp
-T -P bar
-T -g
-T --gpg-agent
-T --gpg-no-signing-pw
-T --use-hmac -A tcp/0
-T -M asymmetric
-T -M legacy --key-hmac 55
-T -M foo
-T -M pcbc
-T -m foo
-T --hmac-digest-type foo
-T --hmac-digest-type md5
-T --use-hmac
-T -f 140000
-T -f -1
-T -p 70000
-T -S 70000
-T --icmp-type 50
-T --icmp-code 16
-T --time-offset-plus abc
-T --time-offset-plus 70000
-T --time-offset-minus 123456789
-T --key-len 200
-T --hmac-key-len 0
-T --fault-injection-tag x
-T --stdin -A tcp/1 --key-hmac 5 -G /nonexist --fd 99 -M legacy
""".split("\n")[1:-1]


def test_requests_are_answered_alike(sides):
    for more in ALIKE:
        same(sides, ASK + more)
        assert sides[0].status == 0, more


def test_what_is_refused_is_refused_alike(sides):
    for more in REFUSED:
        same(sides, ASK + more)
        assert sides[0].status == 1, more


@pytest.mark.parametrize(
    "words",
    [
        OFFLINE + "-T",
        OFFLINE + "-T -A tcp/22",
        OFFLINE + "-A tcp/22",
        OFFLINE + "-A tcp/22 -D 127.0.0.1",
        OFFLINE + "-T -C id -D 1.2.3.4",
        OFFLINE + "-T -C id -R -D 1.2.3.4",
        OFFLINE + "-T -C id -s",
        OFFLINE + "-A tcp/22 -T -R -w /nonexist",
        OFFLINE + "-A tcp/22 -T -R -w /nonexist --use-wget-user-agent",
        OFFLINE + "-A tcp/22 -T -R -w /nonexist -u foo",
        OFFLINE + "-A tcp/22 -T --resolve-http-only --resolve-url https://foo",
        "-T -A tcp/22 -s --no-rc-file --no-save-args",
        "-k --no-rc-file",
        "-k --no-rc-file --hmac-digest-type md5",
        "-k --no-rc-file --hmac-digest-type sha1",
        "-k --no-rc-file --hmac-digest-type sha384",
        "-k --no-rc-file --hmac-digest-type sha512",
        "-k --no-rc-file --hmac-digest-type sha3_512 --hmac-key-len 20",
        "-k --no-rc-file --key-len 5 --hmac-key-len 7 -v",
        "-K /nonexist/foo.keys --no-rc-file",
        "--no-rc-file --show-last",
        "--no-rc-file -l",
        "--no-rc-file --show-last -E /nonexist/foo",
        "--no-rc-file -n foo",
        "--no-rc-file --stanza-list",
        "--no-rc-file --save-rc-stanza",
        "--stanza-list --rc-file /nonexist",
        "--rc-file /nonexist/foo -T -A tcp/22 -s",
        "--no-home-dir -T -A tcp/22 -s",
        "--no-home-dir --no-rc-file -T -A tcp/22 -s --key-rijndael abc",
        "--no-home-dir --no-rc-file -E x -T -A tcp/22 -s",
        "-h --no-rc-file",
    ],
)
def test_other_runs_are_alike(sides, words):
    same(sides, words)


def test_user_name_comes_from_the_same_places(sides):
    for env in ({"SPOOF_USER": "su", "LOGNAME": "ln"}, {"LOGNAME": "ln", "USER": "us"}, {"USER": "us"}):
        for side in sides:
            side.call(ASK + "-T", **env)
        found = [re.search("Username: (.*)", side.out).group(1) for side in sides]
        assert found[0] == found[1], env


DEFAULT = "[default]\nALLOW_IP source\nACCESS tcp/22\n"
STANZAS = DEFAULT + "[a]\nACCESS tcp/23\n[B c]\nACCESS tcp/24\n  [d] x\nACCESS: tcp/25\n[A]\nFW_TIMEOUT 9\n"
# Lines of an rc file that both take.
TAKEN = [
    "FW_TIMEOUT 60", "ALLOW_IP SOURCE", "ALLOW_IP 5.6.7.8", "ACCESS tcp/22;x", "ACCESS tcp/22 x", "USE_HMAC N",
    "TIME_OFFSET -5", "TIME_OFFSET 5m", "VERBOSE Y", "SPA_SERVER_PROTO HTTP", "SPA_SERVER_PORT 70", "DIGEST_TYPE MD5",
    "ENCRYPTION_MODE CTR", "HMAC_KEY_BASE64 Zm9v", "NAT_PORT 99", "NAT_ACCESS 1.2.3.4,9", "NAT_LOCAL Y\nSPA_SERVER h",
    "NAT_LOCAL Y\nNAT_PORT 99\nSPA_SERVER h", "HMAC_KEY a#b", "SPA_SERVER 1.2.3.4 ; comment", "; foo",
    "SPOOF_USER\tbob", "# long " + "0" * 300, "HMAC_KEY foo\nHMAC_DIGEST_TYPE sha3_256", "KEY def\nKEY_BASE64 Zm9v",
    "GPG_RECIPIENT foo", "GPG_SIGNER foo", "HTTP_USER_AGENT foo", "RESOLVE_HTTP_ONLY Y", "RESOLVE_IP_HTTPS N",
    "SERVER_RESOLVE_IPV4 Y", "RAND_PORT N", "NO_SAVE_ARGS Y", "USE_WGET_USER_AGENT N", "SPA_SOURCE_PORT 99",
    "RESOLVE_URL http://x", "GPG_HOMEDIR /x", "GPG_EXE /x", "USE_GPG_AGENT Y", "GPG_NO_SIGNING_PW Y",
    "GPG_SIGNING_PW x", "SPA_SERVER a.b",
    "SPA_SERVER_PROTO udpraw\nSPA_SERVER 127.0.0.1\nSPA_SOURCE_PORT 9\nSPOOF_SOURCE_IP 1.2.3.4",
]  # fmt: skip
NOT_TAKEN = [
    "FW_TIMEOUT 70000", "ALLOW_IP resolv", "ALLOW_IP 300.1.1.1", "VERBOSE 5", "SPA_SERVER_PROTO foo",
    "DIGEST_TYPE foo", "ENCRYPTION_MODE foo", "NAT_ACCESS 1.2.3.4,x", "SPOOF_SOURCE_IP x", "USE_GPG Y",
]  # fmt: skip


def test_rc_files_are_read_alike(sides):
    for line in TAKEN + NOT_TAKEN:
        for side in sides:
            side.write(".fwknoprc", DEFAULT + line + "\n")
        same(sides, "-T --key-rijndael abc --no-save-args -v")
        assert sides[0].status == (line in NOT_TAKEN), line
    for name in ("a", "A", "'b C'", "d", "default", "nosuch"):
        for side in sides:
            side.write(".fwknoprc", STANZAS)
        same(sides, "-T --key-rijndael abc --no-save-args -n " + name)
    same(sides, "--stanza-list --icmp-type 41 -n nosuch -M foo")


def test_loose_rc_file_is_warned_of_alike(sides):
    for side in sides:
        side.write(".fwknoprc", DEFAULT)
        (side.home / ".fwknoprc").chmod(0o644)
    same(sides, "-T --key-rijndael abc --no-save-args")


def test_keys_come_from_the_same_places(sides):
    base = "-A tcp/22 -a 1.2.3.4 -D 127.0.0.1 --no-rc-file --no-save-args -T "
    for side in sides:
        side.write("k", "#c\n;c\n127.0.0.1: foo bar \n127.0.0.1:=  zed\n10.0.0.1: no\n")
        side.write("k2", "10.0.0.1: no\n")
        side.write("k3", "127.0.0.1: mac\n")
    same(sides, base + "--stdin", b"hello\n")
    same(sides, base + "--stdin", b"hello")
    same(sides, base + "--fd 0", b"hello\n")
    for words in ("--fd 9", "--fd -1", "-G k", "-G k2", "-G none", "-G k --get-hmac-key k3", "-G k --get-hmac-key k2"):
        same(sides, base + words)


def packets(sides, words, typed=b""):
    """Returns both sides' packets of one command line, as bytes."""
    for side in sides:
        side.call(words + " -T -B pk", typed)
        assert side.status == 0, side.err
    return [(side.home / "pk").read_bytes() for side in sides]


FIELDS = "username version message_type message nat_access server_auth client_timeout digest_type".split()


def test_packets_hold_the_same_fields(sides):
    table = [(mode, "sha256", "sha256") for mode in ("cbc", "ecb", "cfb", "ofb", "ctr", "legacy")]
    table += [("cbc", name, name) for name in ("md5", "sha1", "sha384", "sha512", "sha3_256", "sha3_512")]
    asked = ("-A tcp/22", "-A tcp/22,udp/53 -f 40", "-A tcp/22 -N 10.1.1.1:99", "-A tcp/22 --nat-local -f 9", "-C id")
    for mode, digest, hmac in table:
        hmac_key = None if mode == "legacy" else b"mac"
        words = "-a 1.2.3.4 -D 127.0.0.1 %s -M %s -m %s" % (OFFLINE, mode, digest)
        words += "" if mode == "legacy" else " --hmac-digest-type %s --key-hmac mac" % hmac
        for more in asked:
            pair = packets(sides, words + " " + more)
            assert [text[-1:] for text in pair] == [b"\n", b"\n"]
            opened = [unseal(text[:-1], Keys(b"abc", hmac_key, mode, hmac)) for text in pair]
            assert [getattr(opened[0], name) for name in FIELDS] == [getattr(opened[1], name) for name in FIELDS]
            assert abs(opened[0].timestamp - opened[1].timestamp) <= 1


def test_keys_are_taken_byte_for_byte(sides):
    for side in sides:
        side.write("k", "127.0.0.1:=  z e=d \n")
        side.write(".fwknoprc", DEFAULT + "KEY abc\nKEY_BASE64 Zm9v\n[b]\nHMAC_KEY mac#\n")
    base = "-A tcp/22 -a 1.2.3.4 -D 127.0.0.1 --no-save-args "
    for words, typed, keys in (
        ("--no-rc-file --stdin", b" hel lo \nx", Keys(b" hel lo ")),
        ("--no-rc-file -G k", b"", Keys(b"z e=d ")),
        ("", b"", Keys(b"abc")),
        ("-n b", b"", Keys(b"abc", b"mac")),
        ("--no-rc-file --key-base64-rijndael AAEC --key-base64-hmac /+8=", b"", Keys(b"\0\1\2", b"\xff\xef")),
        ("--no-rc-file --key-rijndael abc --key-base64-rijndael Zm9v", b"", Keys(b"abc")),
        ("--no-rc-file -M legacy --key-rijndael 12345678901234567", b"", Keys(b"1234567890123456", mode="legacy")),
    ):
        for text in packets(sides, base + words, typed):
            assert unseal(text[:-1], keys).message == "1.2.3.4,tcp/22"


def test_packet_files_grow_alike(sides):
    same(sides, ASK + "-T -B pk", files=False)
    same(sides, ASK + "-T -B pk -b", files=False)
    assert [len((side.home / "pk").read_bytes()) for side in sides] == [324, 324]
    same(sides, ASK + "-T -B pk", files=False)
    assert [len((side.home / "pk").read_bytes()) for side in sides] == [162, 162]


def test_command_lines_are_stored_and_run_alike(sides):
    same(sides, "--no-rc-file -T -A tcp/22 -s -D 127.0.0.1 --stdin", b"abc\n")
    same(sides, "--no-rc-file --show-last")
    same(sides, "--no-rc-file --show-last -v")
    same(sides, "--no-rc-file -l", b"abc\n")
    same(sides, "--no-rc-file -l -v", b"abc\n")
    same(sides, "--no-rc-file -V")
    same(sides, "--no-rc-file -k")
    same(sides, "--no-rc-file --foo")
    same(sides, "--no-rc-file -T -A tcp/22 -s -E other --stdin", b"abc\n")
    same(sides, "--no-rc-file -s -T --stdin -D 1.2.3.4 -A " + "1" * 1100, files=False)


SAVED = """
-A tcp/22 -a 1.2.3.4 -D 10.0.0.1 --use-hmac --key-gen --save-rc-stanza -f 60 -v
-A tcp/22 -a 1.2.3.4 -T --key-rijndael abc --save-rc-stanza -n x -p 99
-A tcp/1 -a 5.5.5.5 -T -P http -H foo:8 --nat-local --nat-port 9 -N 4.4.4.4:9 -M ctr -m md5 -S 9 -U foo -u agent \
 -w /bin/foo --resolve-url https://x --use-wget-user-agent --time-offset-minus 3m --key-rijndael abc -v \
 --key-hmac foo --hmac-digest-type sha1 --no-save-args -f 1 -D foo --save-rc-stanza -n all
-A tcp/1 -a 5.5.5.5 -D 127.0.0.1 -T -r -P tcpraw -S 8 -Q 1.2.3.4 --time-offset-plus 4 --key-rijndael abc \
 --save-rc-stanza -n raw
-T --save-rc-stanza --key-rijndael abc -A tcp/1 -a 5.5.5.5
--save-rc-stanza --key-rijndael abc -D 1.2.3.4
""".replace("\\\n", "").split("\n")[1:-1]


def test_new_stanzas_are_stored_alike(sides):
    for side in sides:
        side.write(".fwknoprc", "[default]\n")
    for words in SAVED:
        same(sides, words, files=False)
        texts = [(side.home / ".fwknoprc").read_text() for side in sides]
        mine, told = (re.sub("\n+", "\n", plain(text, "\0")) for text in texts)
        assert mine == told, words
        assert (sides[0].home / ".fwknoprc").stat().st_mode & 0o777 == 0o600


def test_secrets_are_asked_about_alike(sides):
    for side in sides:
        side.write(".fwknoprc", "[default]\n\n[x]\nKEY abc\nHMAC_KEY def\nSPA_SERVER 1.2.3.4\n")
    same(sides, "-T -A tcp/22 -a 1.1.1.1 --key-rijndael new --save-rc-stanza -n x --no-save-args", b"y\nn\n", False)
    assert "KEY                         new" in (sides[0].home / ".fwknoprc").read_text()
    assert "HMAC_KEY def" in (sides[0].home / ".fwknoprc").read_text()


def typed_at_terminal(argv, home, answers):
    """Runs a program with a terminal of its own and types each answer when a prompt comes; returns what it showed."""
    ours_end, theirs_end = pty.openpty()
    env = dict(os.environ, HOME=str(home), PYTHONPATH=ROOT, LC_ALL="C")
    process = subprocess.Popen(
        argv, stdin=theirs_end, stdout=theirs_end, stderr=theirs_end, env=env, cwd=home, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(theirs_end)
    shown = b""
    while True:
        try:
            piece = os.read(ours_end, 4096)
        except OSError:  # the other end is closed
            break
        shown += piece
        if shown.endswith(b": ") and answers and b"nter " in shown:
            os.write(ours_end, answers.pop(0))
    os.close(ours_end)
    return process.wait(10), plain(shown.decode().replace("\r", ""), home)


def test_keys_are_prompted_for_alike(tmp_path):
    words = "-T -A tcp/22 -s -D 127.0.0.1 --no-rc-file --no-save-args --use-hmac -B".split()
    seen = []
    for number, argv in enumerate(([sys.executable, "-m", "tinyknop", "fwknop"], [need("fwknop")])):
        answers = [b"abx\x15ab\x7fbc\n" if not number else b"abx\x15abc\n", b"mx\x08ac\n"]
        seen.append(typed_at_terminal([*argv, *words, "pk%d" % number], tmp_path, answers))
        text = (tmp_path / ("pk%d" % number)).read_bytes()
        assert unseal(text[:-1], Keys(b"abc", b"mac")).message == "0.0.0.0,tcp/22"
    assert seen[0] == seen[1]


def test_ctrl_c_at_a_prompt_sends_nothing(tmp_path):
    argv = [sys.executable, "-m", "tinyknop", "fwknop", *"-A tcp/22 -s -D 127.0.0.1 --no-rc-file".split()]
    status, shown = typed_at_terminal(argv, tmp_path, [b"ab\x03"])
    assert status == 1 and "key error" in shown and "Traceback" not in shown


class Listener:
    """A TCP server on the loopback that keeps what it hears and may answer."""

    def __init__(self, answer=b""):
        self.socket = None
        port = 2000 + os.getpid() % 7000
        while self.socket is None:  # four digits: the reference takes no more in --resolve-url
            port = port + 1 if port < 9999 else 2000
            with contextlib.suppress(OSError):
                self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.heard, self.peers, self.answer = [], [], answer
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                stream, peer = self.socket.accept()
            except OSError:
                return
            with stream:
                stream.settimeout(5)
                text = stream.recv(4096)
                while self.answer == b"" and text and (piece := stream.recv(4096)):
                    text += piece
                stream.sendall(self.answer)
                self.peers.append(peer)
                self.heard.append(text)

    def stop(self, count):
        """Returns what `count` clients said."""
        for _ in range(500):
            if len(self.heard) >= count:
                break
            self.thread.join(0.01)
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        return self.heard


def test_http_requests_and_tcp_streams_are_alike(sides):
    listener = Listener()
    for more in (
        "-P http -u Fwknop/1",
        "-P http -u Fwknop/me",
        "-u F -P http -H 127.0.0.1:%d -p 80 -D far.example" % listener.port,
    ):
        same(sides, "%s -p %d %s -v" % (ASK, listener.port, more))
    same(sides, "%s -p %d -P tcp -v" % (ASK, listener.port))
    heard = [plain(text.decode(), "\0") for text in listener.stop(8)]
    assert heard[0::2][:3] == heard[1::2][:3]
    assert [len(text) for text in heard[6:]] == [161, 161]


def test_our_address_is_asked_for_alike(sides):
    listener = Listener(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n7.7.7.7\n")
    for more in ("", " -u me", " -v"):
        where = " --resolve-http-only --resolve-url http://127.0.0.1:%d/a/b?c" % listener.port
        same(sides, OFFLINE + "-T -A tcp/22" + where + more)
    heard = [plain(text.decode(), "\0") for text in listener.stop(6)]
    assert heard[0::2] == heard[1::2]
    for side in sides:
        script = side.home / "w"
        script.write_text("#!/bin/sh\nprintf '%s|' \"$@\" >> log; env >> log; echo 9.8.7.6junk; exit 1\n")
        script.chmod(0o700)
    for more in ("", " -v", " -u me", " --use-wget-user-agent", " --resolve-url http://foo/bar", " -s", " -a 1.1.1.1"):
        for side in sides:
            side.call(OFFLINE + "-T -A tcp/22 -R -w ./w" + more)
        assert sides[0].out == sides[1].out
    assert sides[0].files()["log"] == sides[1].files()["log"]


GPG_REQUESTS = (
    "--gpg-signer-key %s --gpg-no-signing-pw -v" % CLIENT,
    "--gpg-signer-key %s --gpg-no-signing-pw --key-hmac foo" % CLIENT,
    "--gpg-signer-key %s --gpg-agent -v" % CLIENT,
)


def test_gpg_requests_are_alike(sides):
    rings = keyrings()
    words = "-T -A tcp/22 -s -D 127.0.0.1 --no-rc-file --no-save-args --gpg-home-dir %s " % rings.client
    for more in GPG_REQUESTS:  # our home has no secret key of the server: decoding again fails on both sides
        for side in sides:
            side.call(words + "--gpg-recipient-key %s " % SERVER + more)
        assert sides[0].out.split("Final")[0] == sides[1].out.split("Final")[0]
        assert [side.status for side in sides] == [1, 1]
        assert all("No access to recipient private key?" in side.err for side in sides)
    for more, said in (
        ("--gpg-recipient-key nosuch@tests --gpg-no-signing-pw", "Error 130"),
        ("--gpg-recipient-key %s --gpg-signer-key nosuch@tests --gpg-no-signing-pw" % SERVER, "Error 125"),
        ("--gpg-recipient-key %s --gpg-exe /nonexist" % SERVER, "Error 134"),
        ("--gpg-recipient-key %s --gpg-home-dir /nonexist" % SERVER, "Error 135"),
    ):
        for side in sides:
            side.call(words + more)
            assert side.status == 1 and said in side.err


def test_gpg_packet_is_decoded_again_and_shown_alike(sides):
    words = "-T -v -A tcp/22 -s -D 127.0.0.1 --no-rc-file --no-save-args --gpg-home-dir %s " % keyrings().server
    words += "--gpg-recipient-key %s --gpg-signer-key %s --gpg-no-signing-pw --key-hmac foo" % (SERVER, SERVER)
    for side in sides:
        side.call(words)
        assert side.status == 0, side.err
    wide = re.compile("Final SPA Data: .*")  # OpenPGP's lengths differ by a byte or two
    assert wide.sub("", sides[0].out) == wide.sub("", sides[1].out)


def frames(network, words, count=2):
    """Runs both clients in the client's namespace; returns the IPv4 packets that reached the server from them."""
    ear = network.new_socket(network.server, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    ear.bind(("eth0", 0))
    ear.settimeout(5)
    ask = ["-A", "tcp/22", "-a", "1.2.3.4", "-D", net.SERVER, *OFFLINE.split(), *words.split()]
    for argv in ([sys.executable, "-m", "tinyknop", "fwknop"], ["fwknop"]):
        network.at(network.client, "env", "HOME=" + network.dir, "PYTHONPATH=" + ROOT, *argv, *ask)
    found = []
    with ear:
        while len(found) < count:
            data = ear.recv(2048)[14:]
            if len(data) > 160 and data[16:20] == socket.inet_aton(net.SERVER):
                found.append(data)
    return found


def checksum(data):
    """Returns the Internet checksum of bytes, 0xffff where it is right."""
    total = sum(int.from_bytes((data + b"\0" * (len(data) % 2))[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


RAW_SIZES = {"tcpraw": 40, "udpraw": 28, "icmp": 28}


@pytest.mark.parametrize(
    "words",
    [
        "-P tcpraw -S 77",
        "-P tcpraw -S 77 -Q 192.0.2.9 -p 443",
        "-P udpraw -S 77",
        "-P udpraw -S 77 -Q 192.0.2.9",
        "-P icmp -S 77",
        "-P icmp -S 77 --icmp-type 8 -Q 192.0.2.9",
        "-P icmp -S 77 --icmp-type 3 --icmp-code 4",
    ],
)
def test_raw_packets_have_the_same_headers(network, words):
    need("fwknop")
    size = RAW_SIZES[words.split()[1]]
    heads = []
    for data in frames(network, words):
        assert checksum(data[:20]) == 0xFFFF
        assert unseal(data[size:], Keys(b"abc")).message == "1.2.3.4,tcp/22"
        head = bytearray(data[:size])
        head[4:6] = head[10:12] = b"\0\0"  # identification and checksum are the kernel's
        if "icmp" in words:
            assert checksum(data[20:]) == 0xFFFF
            head[22:24] = b"\0\0"
            if head[20] == 8:  # the identifier of an echo request is random
                head[24:26] = b"\0\0"
        heads.append(bytes(head))
    assert heads[0] == heads[1]


def test_source_port_is_used_for_udp_too(network):
    need("fwknop")
    mine, theirs = frames(network, "-S 4444")
    assert mine[20:24] == b"\x11\x5c\xf2\xf9" and mine[20:22] != theirs[20:22]
    assert mine[22:28] == theirs[22:24] + mine[24:28]


def test_random_ports_come_from_the_range_of_the_reference(sides):
    for words, pattern in (("-r", r"destination port: (\d+)"), ("-N 1.2.3.4 --nat-rand-port", r"tcp/(\d+)")):
        for side in sides:
            side.call(ASK + "-T -v " + words)
            assert 10000 <= int(re.search(pattern, side.out).group(1)) <= 65534
    texts = [re.sub(r"(port '|tcp/)\d+|(MS4yLjMuNC\w+)", r"\1", side.out) for side in sides]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "words, conf",
    [
        ("-P udp -S 4444", {}),
        ("-P udpraw -S 77", {}),
        ("-P tcpraw", {"pcap_filter": "tcp port 62201"}),
        ("-P icmp --icmp-type 8", {"pcap_filter": "icmp"}),
        ("-P http -p 80", {"pcap_filter": "tcp port 80", "enable_spa_over_http": "Y"}),
        ("-P tcp", {"enable_tcp_server": "Y", "pcap_filter": "tcp port 62201"}),
        ("-r", {"pcap_filter": "udp dst portrange 10000-65535"}),
    ],
)
def test_each_protocol_opens_the_firewall_of_fwknopd(network, words, conf):
    need("fwknopd")
    for port in ("80", "62201"):
        network.at(network.server, "iptables", "-w", "-A", "INPUT", "-p", "tcp", "--dport", port, "-j", "ACCEPT")
    if "http" in words:
        network.serve(80)
    daemon = peers.fwknopd(network, **conf)
    ask = [
        "-A",
        "tcp/%d" % net.SERVICE,
        "-a",
        net.CLIENT,
        "-D",
        net.SERVER,
        "--no-rc-file",
        "--no-save-args",
        "--stdin",
    ]
    typed = "%s\n%s\n" % (peers.KEY.decode(), peers.HMAC_KEY.decode())
    done = subprocess.run(
        ["ip", "netns", "exec", network.client, sys.executable, "-m", "tinyknop", "fwknop", *ask, "--use-hmac"]
        + words.split(),
        input=typed.encode(),
        capture_output=True,
        env=dict(os.environ, PYTHONPATH=ROOT, HOME=network.dir),
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert network.wait_connect(True) is not None, daemon.text()


def test_spoofed_source_is_who_fwknopd_lets_in(network):
    need("fwknopd")
    daemon = peers.fwknopd(network)
    ask = "-A tcp/22 -s -D %s -P udpraw -Q 192.0.2.9 --no-rc-file --no-save-args" % net.SERVER
    keys = ["--key-base64-rijndael", peers.base64_text(peers.KEY), "--key-base64-hmac"]
    keys.append(peers.base64_text(peers.HMAC_KEY))
    argv = [sys.executable, "-m", "tinyknop", "fwknop", *ask.split(), *keys]
    network.at(network.client, "env", "HOME=" + network.dir, "PYTHONPATH=" + ROOT, *argv)
    daemon.wait_line("192.0.2.9")
