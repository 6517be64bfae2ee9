"""The files of Debian's package, as they are shipped: our front end reads them as its fwknopd does.

All is done on copies. Debian's access.conf holds `__CHANGEME__` twice, which both programs refuse.
"""

import hashlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.need import lacking, need
from tests.real import peers
from tinyknop import log
from tinyknop.errors import ConfigError
from tinyknop.host import check, fwknopd

SHIPPED = ("/etc/fwknop/fwknopd.conf", "/etc/fwknop/access.conf")
HOLDER = "__CHANGEME__"
# What fwknopd says of its own two: it takes the path of -c for that of -O as well.
OWN_PLACES = re.compile(r" *[01]\. (CONFIG_FILE|OVERRIDE_CONFIG) ")


@pytest.fixture(autouse=True)
def log_kept():
    kept = log.sink, log.threshold
    yield
    log.sink, log.threshold = kept


@pytest.fixture
def files(tmp_path):
    """Copies of both files, once it is sure that nobody has edited them."""
    need("fwknopd", "fwknop", "dpkg-query")
    listed = subprocess.run(["dpkg-query", "-W", "-f", "${Conffiles}", "fwknop-server"], capture_output=True, text=True)
    sums = dict(line.split()[:2] for line in listed.stdout.splitlines() if line.strip())
    for path in SHIPPED:
        with open(path, "rb") as file:
            if sums.get(path) != hashlib.md5(file.read()).hexdigest():
                lacking("%s is not as Debian ships it" % path)
        shutil.copy2(path, tmp_path)
    return tmp_path


@pytest.fixture
def keyed(files):
    """The same, with two keys in their places."""
    access = files / "access.conf"
    text = access.read_text(encoding="utf-8")
    text = re.sub("(?m)^(KEY_BASE64 +)%s" % HOLDER, r"\g<1>" + peers.base64_text(peers.KEY), text)
    text = re.sub("(?m)^(HMAC_KEY_BASE64 +)%s" % HOLDER, r"\g<1>" + peers.base64_text(peers.HMAC_KEY), text)
    access.write_text(text, encoding="utf-8")
    return files


def words_of(files, *more):
    return ["-c", str(files / "fwknopd.conf"), "-a", str(files / "access.conf"), "-r", str(files / "run"), *more]


def theirs(files, *more):
    """Returns (exit status, output) of Debian's fwknopd."""
    done = subprocess.run(
        ["fwknopd", *words_of(files, *more)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20
    )
    return done.returncode, done.stdout.decode()


def ours(capsys, files, *more):
    """Returns the same of our front end, run in this process."""
    capsys.readouterr()
    status = fwknopd.main(words_of(files, *more))
    told = capsys.readouterr()
    return status, told.out + told.err


def dump(text):
    """Returns the lines of a dump that say what is set."""
    return [
        line for line in text.splitlines() if re.match(r" *\d+\. |SOURCE|.{27}:  ", line) and not OWN_PLACES.match(line)
    ]


@pytest.mark.parametrize("option", ["--exit-parse-config", "-D"])
def test_as_shipped_the_missing_key_is_fwknopds_error(files, capsys, option):
    refused = "KEY_BASE64 value is not properly set in stanza source 'ANY' in access file: '%s'" % (
        files / "access.conf"
    )
    # -f, for without it fwknopd tells syslog alone.
    for status, text in (theirs(files, "-f", option), ours(capsys, files, "-f", option)):
        assert (status, refused in text) == (1, True), text


def test_one_key_is_not_enough(files, capsys):
    access = files / "access.conf"
    text = access.read_text(encoding="utf-8")
    access.write_text(re.sub("(?m)^KEY_BASE64.*", "KEY_BASE64 QUJDREVGRw==", text), encoding="utf-8")
    for status, text in (theirs(files, "-fD"), ours(capsys, files, "-fD")):
        assert status == 1 and "HMAC_KEY_BASE64" in text and "value is not properly set" in text, text


def test_with_two_keys_both_files_load_and_mean_the_same(keyed, capsys):
    for status, text in (theirs(keyed, "--exit-parse-config"), ours(capsys, keyed, "--exit-parse-config")):
        assert status == 0 and "Configs parsed, exiting." in text
    real, here = theirs(keyed, "-D"), ours(capsys, keyed, "-D")
    assert (real[0], here[0]) == (0, 0)
    assert len(dump(real[1])) > 90
    assert dump(here[1]) == dump(real[1])


def examples():
    """Yields each setting that the files show as a comment; a sentence begins with a blank, a name does not."""
    for path in SHIPPED:
        with open(path, encoding="utf-8") as file:
            for line in file:
                if re.match(r"#[A-Z_]+\s+\S", line):
                    yield path.rsplit("/", 1)[1], line[1:]


# iptables is what Debian's fwknopd is built for; it knows no other name.
OTHER_BUILDS = re.compile("(ENABLE_|FLUSH_)?(FIREWD|IPFW|PF|NFQ|ENABLE_NFQ)_|ENABLE_NFQ|DIGEST_DB_FILE")
# There they are read by the parser of another program or machine: the firewall, the keyring, or the installed files.
NOT_HERE = re.compile("FIREWALL_EXE +/bin/firewall-cmd|ACCESS_FILE|GPG_HOME_DIR +/homedir")


def test_each_example_in_the_files_does_the_same_in_both(keyed, capsys):
    differ = []
    for name, line in examples():
        if OTHER_BUILDS.match(line) or NOT_HERE.match(line):
            continue
        path = keyed / name
        whole = path.read_text(encoding="utf-8")
        path.write_text(whole + line, encoding="utf-8")
        real, here = theirs(keyed, "-D"), ours(capsys, keyed, "-D")
        path.write_text(whole, encoding="utf-8")
        if real[0] != here[0] or dump(real[1]) != dump(here[1]):
            differ.append((line, real[0], here[0], sorted(set(dump(real[1])) ^ set(dump(here[1])))[:4]))
    assert not differ, "\n".join(map(repr, differ))


def test_examples_for_other_builds_load(keyed, capsys):
    with open(keyed / "fwknopd.conf", "a") as file:
        file.writelines(line for name, line in examples() if name == "fwknopd.conf" and OTHER_BUILDS.match(line))
    assert ours(capsys, keyed, "--exit-parse-config")[0] == 0


def test_check_says_what_they_allow(keyed, capsys):
    with open(keyed / "fwknopd.conf", "a") as file:
        file.write("ACCESS_FILE %s;\n" % (keyed / "access.conf"))
    for name in ("fwknopd.conf", "access.conf"):
        assert check.main([str(keyed / name)]) == 0
        told = capsys.readouterr().out
        assert "listens by packet: " in told and "interface eth0" in told
        assert "anybody may open any port for 30 s" in told


def test_check_names_the_line_of_the_missing_key(files):
    with pytest.raises(ConfigError, match=r"access\.conf:205: .*KEY_BASE64.* value is not properly set.*keygen"):
        check.main([str(files / "access.conf")])


@pytest.mark.parametrize("program", [["fwknopd"], [sys.executable, "-m", "tinyknop", "fwknopd"]])
def test_a_daemon_with_these_files_takes_a_knock(keyed, network, program):
    daemon = peers.Process(network, network.server, [*program, "-f", *words_of(keyed)])
    daemon.wait_line(peers.FWKNOPD_READY)
    peers.fwknop(network)
    assert network.wait_connect(True) is not None
