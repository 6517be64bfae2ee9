"""The front end's command line: what fwknopd's options do, and that none is taken and then ignored."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from tests import need
from tinyknop import log
from tinyknop.errors import ConfigError
from tinyknop.host import fwknopd, pidfile


@pytest.fixture(autouse=True)
def quiet():
    kept = log.sink, log.threshold
    yield
    log.sink, log.threshold = kept


@pytest.fixture
def files(tmp_path):
    """Returns a function that writes the two files and returns the options that name them."""

    def write(conf="", access="SOURCE ANY\nKEY secret\nREQUIRE_SOURCE Y\n"):
        for name, text in (("fwknopd.conf", "PCAP_INTF lo;\n" + conf), ("access.conf", access)):
            path = tmp_path / name
            path.write_text(text)
            path.chmod(0o600)
        return [
            "-c", str(tmp_path / "fwknopd.conf"), "-a", str(tmp_path / "access.conf"), "-r", str(tmp_path / "run")
        ]  # fmt: skip

    return write


def call(capsys, *words):
    status = fwknopd.main(list(words))
    out, err = capsys.readouterr()
    return status, out, err


def test_every_option_of_the_reference_is_known():
    known = """access-file access-folder afl-fuzzing afl-pkt-file config-file packet-limit digest-file dump-config
    dump-serv-err-codes exit-parse-config exit-parse-digest-cache foreground fault-injection-tag fw-list fw-list-all
    fw-flush gpg-home-dir gpg-exe help interface key-gen key-gen-file key-len hmac-key-len hmac-digest-type kill locale
    nfq-capture no-ipt-check-support no-firewd-check-support override-config pid-file pcap-filter pcap-file
    pcap-any-direction rotate-digest-cache run-dir restart status sudo-exe test udp-server verbose syslog-enable
    version""".split()
    assert sorted(known) == sorted(row[1].rstrip("=") for row in fwknopd.OPTIONS)


def test_an_unknown_option_prints_the_usage_on_stdout(capsys):
    for word in ("--frob", "-k", "-a"):
        status, out, err = call(capsys, word)
        assert status == 1 and "Usage: fwknopd" in out and err == ""
    status, out, _ = call(capsys, "-h")
    assert status == 0 and "Usage: fwknopd" in out


def test_long_options_may_be_shortened():
    assert fwknopd.words_of(["--inter", "eth1", "-vv"]) == {"interface": "eth1", "verbose": 2}


def test_what_only_test_builds_have_is_refused_by_name(capsys, files):
    for short, name, text in fwknopd.OPTIONS:
        if not text:
            words = ["--" + name.rstrip("=")] + (["1"] if short.endswith(":") or name.endswith("=") else [])
            status, _, err = call(capsys, *files(), *words)
            assert status == 1 and "--%s: there only in test builds" % name.rstrip("=") in err


def test_the_version_names_the_firewall(capsys):
    status, out, _ = call(capsys, "-V")
    assert status == 0 and out.startswith("fwknopd server ") and "compiled for firewall bin: " in out


def test_keys_are_printed_in_two_lines(capsys):
    status, out, _ = call(capsys, "--key-gen")
    lines = out.splitlines()
    assert status == 0 and len(lines) == 2
    assert lines[0].startswith("KEY_BASE64: ") and len(lines[0]) == 12 + 44
    assert lines[1].startswith("HMAC_KEY_BASE64: ") and len(lines[1]) == 17 + 88


@pytest.mark.parametrize("hmac, size", sorted(fwknopd.HMAC_BYTES.items()))
def test_each_hmac_has_a_default_length(capsys, hmac, size):
    import base64

    _, out, _ = call(capsys, "--key-gen", "--hmac-digest-type", hmac, "--key-len", "16")
    assert [len(base64.b64decode(line.split()[1])) for line in out.splitlines()] == [16, size]


def test_lengths_out_of_range_are_refused(capsys):
    for words in (("--key-len", "33"), ("--key-len", "0"), ("--hmac-key-len", "129"), ("--hmac-digest-type", "x")):
        status, _, err = call(capsys, "--key-gen", *words)
        assert status == 1 and words[0] in err


def test_keys_are_written_for_their_owner_only(capsys, tmp_path):
    path = tmp_path / "keys"
    status, out, _ = call(capsys, "--key-gen-file", str(path))
    assert status == 0 and out == "[+] Wrote Rijndael and HMAC keys to: %s" % path
    assert path.stat().st_mode & 0o777 == 0o600 and path.read_text().count("\n") == 2


def test_only_one_of_four_controls(capsys):
    for words in (("-D", "-S"), ("-K", "-R"), ("-S", "-K", "-R")):
        status, _, err = call(capsys, *words)
        text = "The -D, -K, -R, and -S options are mutually exclusive.  Pick only one.\n"
        assert (status, err) == (1, text)


def test_controls_with_nothing_running(capsys, files):
    for word in ("-S", "-R", "-K"):
        status, out, err = call(capsys, *files(), word)
        assert status == 1 and "No running fwknopd detected." in err and out == ""


def test_a_parsed_configuration_says_so(capsys, files):
    status, _, err = call(capsys, *files(), "--exit-parse-config")
    assert (status, err) == (0, "Configs parsed, exiting.\n")


def test_errors_name_file_line_and_end_with_1(capsys, files):
    for conf, access, part in (
        ("", "SOURCE 0.0.0.0/0\nKEY k\n", "access.conf:1: SOURCE: "),
        ("", "SOURCE ANY\n", "No keys found"),
        ("", "# nothing\n", "[*] Could not find valid SOURCE stanza in access file: "),
        (
            "",
            "SOURCE ANY\nKEY_BASE64 __CHANGEME__\n",
            "access.conf:2: [*] KEY_BASE64 value is not properly set in stanza source 'ANY'",
        ),
        ("MAX_SPA_PACKET_AGE 0\n", "SOURCE ANY\nKEY k\n", "fwknopd.conf:2: MAX_SPA_PACKET_AGE: "),
        ("FIREWALL_EXE /bin/true\n", "SOURCE ANY\nKEY k\n", "fwknopd.conf:2: FIREWALL_EXE: "),
        ("IPFW_ACTIVE_SET_NUM 2\nFIREWALL_EXE /sbin/ipfw\n", "SOURCE ANY\nKEY k\n", "IPFW_ACTIVE_SET_NUM"),
        ("", "SOURCE ANY\nKEY k\nFORCE_NAT 192.0.2.1 22\n", "ENABLE_IPT_FORWARDING"),
        ("", "SOURCE ANY\nKEY k\nENABLE_CMD_EXEC Y\nCMD_EXEC_USER nobody-at-all\n", "access.conf:"),
        ("", "SOURCE ANY\nGPG_ALLOW_NO_PW Y\nGPG_DISABLE_SIG Y\nGPG_HOME_DIR /none\n", "not a directory"),
        ("IPT_INPUT_ACCESS ACCEPT, filter\n", "SOURCE ANY\nKEY k\n", "fwknopd.conf:2: "),
    ):
        status, _, err = call(capsys, *files(conf, access), "--exit-parse-config")
        assert status == 1 and part in err, (part, err)


def test_an_access_file_must_be_a_file_and_no_link(capsys, files, tmp_path):
    words = files()
    os.symlink(tmp_path / "access.conf", tmp_path / "link")
    for path in (tmp_path / "link", tmp_path, tmp_path / "none"):
        for option in ("--access-file", "--pcap-file"):
            status, _, err = call(capsys, *words, option, str(path), "--exit-parse-config")
            assert status == 1 and option in err and "no such regular file" in err


def test_a_capture_file_and_its_filter_are_announced(capsys, files):
    settings, _ = fwknopd.read(fwknopd.words_of(files("PCAP_FILE /x.pcap\n")), lambda text: None)
    log.sink = fwknopd.plain
    fwknopd.announce(settings)
    said = "".join(capsys.readouterr())
    assert "Reading pcap file: /x.pcap\n" in said and "PCAP filter is: 'udp port 62201'\n" in said


def test_options_win_over_files(files, tmp_path):
    other = tmp_path / "other.conf"
    other.write_text("MAX_SPA_PACKET_AGE 7\nPCAP_INTF eth3\n")
    other.chmod(0o600)
    words = files("MAX_SPA_PACKET_AGE 5\nDIGEST_FILE /x\n")
    words += ["-i", "eth9", "-P", "udp port 99", "-p", "/p", "-d", "/d", "-t", "-O", str(other)]
    settings, _ = fwknopd.read(fwknopd.words_of(words), lambda text: None)
    assert settings.captures[0]["interface"] == "eth9" and settings.captures[0]["filter"] == "udp port 99"
    assert (settings.pid_file, settings.digest_file, settings.test, settings.max_age) == ("/p", "/d", True, 7)
    for word, kind in (("-U", "udp"), ("-n", "nfqueue"), ("--pcap-file=/x.pcap", "pcap")):
        settings, _ = fwknopd.read(fwknopd.words_of([*words, word]), lambda text: None)
        assert settings.captures[0]["kind"] == kind
    settings, _ = fwknopd.read(fwknopd.words_of([*words, "--pcap-any-direction"]), lambda text: None)
    assert settings.captures[0]["any_direction"] == "Y"


def test_programs_and_folders_named_must_be_there(capsys, files):
    for option in ("--gpg-home-dir", "--gpg-exe", "--sudo-exe"):
        status, _, err = call(capsys, *files(), option, "/none", "--exit-parse-config")
        assert status == 1 and option in err
    status, _, err = call(capsys, *files(), "-C", "many", "--exit-parse-config")
    assert status == 1 and "--packet-limit" in err


ACCESS = """SOURCE ANY
KEY secret1
HMAC_KEY other2
OPEN_PORTS tcp/22
REQUIRE_SOURCE_ADDRESS Y
CMD_CYCLE_OPEN /bin/true $SRC
CMD_CYCLE_CLOSE NONE
ACCESS_EXPIRE 12/31/2030
FORCE_NAT 1.2.3.4 22
SOURCE 10.0.0.0/8, 1.2.3.4
DESTINATION 1.1.1.1
KEY_BASE64 c2VjcmV0MQ==
HMAC_KEY_BASE64 b3RoZXIxMjM=
HMAC_DIGEST_TYPE sha512
REQUIRE_SOURCE_ADDRESS Y
MAX_FW_TIMEOUT 60
ENABLE_CMD_EXEC Y
CMD_EXEC_USER root
"""


def test_the_configuration_is_dumped_as_fwknopd_dumps_it(capsys, files):
    words = files("ENABLE_IPT_FORWARDING Y;\n", ACCESS)
    need.need("fwknopd")
    theirs = subprocess.run(["fwknopd", *words, "-D"], capture_output=True, text=True).stdout.splitlines()
    status, out, err = call(capsys, *words, "-D")
    ours = out.splitlines()
    assert (status, err) == (0, "") and len(ours) == len(theirs) > 100
    different = [line for line, other in zip(ours, theirs) if line != other]
    # fwknopd takes the path of -c for an override as well, and reads the file twice.
    assert [line for line in different if "OVERRIDE_CONFIG" not in line] == []
    assert "secret1" not in out and "other2" not in out


def test_error_codes_have_their_numbers(capsys):
    status, out, _ = call(capsys, "--dump-serv-err-codes")
    theirs = subprocess.run([need.need("fwknopd"), "--dump-serv-err-codes"], capture_output=True, text=True).stdout
    numbers = [[line.split(",")[0] for line in text.splitlines() if line] for text in (out, theirs)]
    assert status == 0 and numbers[0] == numbers[1]


def test_the_digest_cache_is_read_and_left_alone(capsys, files, tmp_path):
    words = files()
    (tmp_path / "run").mkdir(mode=0o700)
    cache = tmp_path / "run" / "digest.cache"
    cache.write_text("# comment\nnonsense\n")
    status, _, err = call(capsys, *words, "--exit-parse-digest-cache")
    assert status == 0 and err.endswith("Digest cache parsed, exiting.\n") and "at line 2" in err
    assert cache.read_text() == "# comment\nnonsense\n"


def test_what_is_listed_without_chains_is_empty_and_no_error(capsys, files):
    status, out, _ = call(capsys, *files(), "--fw-list")
    assert status == 0 and out.startswith("Listing rules in fwknopd iptables chains...")
    status, out, _ = call(capsys, *files(), "--fw-list-all")
    assert status == 0 and out.startswith("Listing all iptables rules in applicable tables...")


def test_a_second_daemon_finds_the_pid_file_locked(tmp_path):
    path = str(tmp_path / "pid")
    code = "import sys; from tinyknop.host import pidfile; f = pidfile.take(%r); print(1, flush=True); sys.stdin.read()"
    child = subprocess.Popen(
        [sys.executable, "-c", code % path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    )
    try:
        child.stdout.readline()
        assert pidfile.holder(path) == child.pid
        assert pidfile.status(path) == (0, "Detected fwknopd is running (pid=%d)." % child.pid)
        with pytest.raises(ConfigError) as caught:
            pidfile.take(path)
        assert "[*] An instance of fwknopd is already running: (PID=%d)." % child.pid in str(caught.value)
        assert open(path).read() == "%d\n" % child.pid
        assert os.stat(path).st_mode & 0o777 == 0o600
        status, line = pidfile.kill(path)
        assert (status, line) == (0, "Killed fwknopd (pid=%d) via SIGTERM" % child.pid)
    finally:
        child.kill()
        child.communicate()
    assert pidfile.status(path) == (1, "No running fwknopd detected.")
    assert pidfile.kill(path)[0] == 1  # the stale id in the file is nobody's


@pytest.fixture
def held(tmp_path):
    """A pid file that a process holds which does not end by SIGTERM: (path, child)."""
    path = str(tmp_path / "pid")
    code = "import signal, sys; from tinyknop.host import pidfile; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    code += "; f = pidfile.take(%r); print(1, flush=True); sys.stdin.read()" % path
    words = [sys.executable, "-c", code]
    child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
    child.stdout.readline()
    yield path, child
    child.kill()
    child.communicate()


def test_one_that_does_not_end_is_killed(held, monkeypatch):
    path, child = held
    monkeypatch.setattr(pidfile, "KILL_WAIT_S", 0.1)
    assert pidfile.kill(path) == (0, "Killed fwknopd (pid=%d) via SIGKILL" % child.pid)
    assert child.wait(10) == -signal.SIGKILL
    assert pidfile.holder(path) is None


def test_one_of_another_user_is_left_alone(held, monkeypatch):
    path, child = held

    def refused(pid, number):
        assert pid == child.pid
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refused)
    assert pidfile.kill(path) == (1, "Unable to send signal to fwknop: only its user or root may")
    assert pidfile.restart(path) == (1, "Unable to send signal to fwknop: Operation not permitted")
    assert pidfile.holder(path) == child.pid


def test_one_that_ends_before_the_signal_counts_as_ended(held, monkeypatch):
    path, child = held

    def gone(pid, number):
        raise ProcessLookupError(errno.ESRCH, "No such process")

    monkeypatch.setattr(os, "kill", gone)
    assert pidfile.kill(path) == (0, "Killed fwknopd (pid=%d)" % child.pid)


def test_a_pid_file_that_cannot_be_one_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path, reason in ((tmp_path / "no" / "pid", "No such file"), (tmp_path / "link", "oo many")):
        with pytest.raises(ConfigError, match="cannot write the pid file: .*%s" % reason):
            pidfile.take(str(path))
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(ConfigError, match="cannot look at the pid file: Is a directory"):
        pidfile.holder(str(tmp_path))


def environment():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return dict(os.environ, PYTHONPATH=root)


def wait_for(act, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if act():
            return True
        time.sleep(0.02)
    return False


def udp_port():
    """Returns a UDP port that was free a moment ago."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_daemon_starts_reads_anew_and_ends(files, tmp_path):
    words = files("ENABLE_UDP_SERVER Y\nUDPSERV_PORT %d\n" % udp_port()) + ["-f", "-t"]
    log_file = tmp_path / "log"
    with open(log_file, "wb") as out:
        child = subprocess.Popen([sys.executable, "-m", "tinyknop", "fwknopd"] + words, stderr=out, env=environment())
    try:
        assert wait_for(lambda: "Starting fwknopd main event loop." in log_file.read_text()), log_file.read_text()
        pid_file = str(tmp_path / "run" / "fwknopd.pid")
        child.send_signal(signal.SIGUSR1)  # what nobody listens to must not end it, or its grants stay open
        child.send_signal(signal.SIGUSR2)
        child.send_signal(signal.SIGHUP)
        assert wait_for(lambda: "Re-starting fwknopd" in log_file.read_text())
        assert pidfile.holder(pid_file) == child.pid  # the reference loses its lock here
        (tmp_path / "access.conf").write_text("SOURCE nonsense\n")
        child.send_signal(signal.SIGHUP)
        assert wait_for(lambda: "the old configuration stays" in log_file.read_text())
        assert fwknopd.main(words + ["-S"]) == 0 and child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 0
        text = log_file.read_text()
        assert "Got SIGHUP. Re-reading configs." in text and "Got SIGTERM. Exiting..." in text
        assert text.rstrip().endswith("Shutting Down fwknopd.")
    finally:
        child.kill()
        child.wait()


def test_it_goes_to_the_background_once_it_is_ready(files, tmp_path):
    words = files("ENABLE_UDP_SERVER Y\nUDPSERV_PORT %d\n" % udp_port()) + ["-t"]
    argv = [sys.executable, "-m", "tinyknop", "fwknopd"] + words
    done = subprocess.run(argv, env=environment(), capture_output=True, timeout=20)
    assert done.returncode == 0, done.stderr
    pid = pidfile.holder(str(tmp_path / "run" / "fwknopd.pid"))
    try:
        again = subprocess.run(argv, env=environment(), capture_output=True, timeout=20)
        assert again.returncode == 1 and b"already running: (PID=%d)" % pid in again.stderr
        assert subprocess.run(argv + ["-R"], env=environment(), timeout=20).returncode == 0
    finally:
        killed = subprocess.run(argv + ["-K"], env=environment(), capture_output=True, timeout=20)
    assert killed.stdout == b"Killed fwknopd (pid=%d) via SIGTERM\n" % pid


def test_words_of_ours_that_have_no_effect_here_are_told(capsys, files):
    status, _, err = call(capsys, *files("log json\nlog_to syslog\n"), "--exit-parse-config")
    assert status == 0
    for number, name in ((2, "log"), (3, "log_to")):
        assert "fwknopd.conf:%d: [*] Ignoring unknown configuration parameter: '%s'" % (number, name) in err


def test_a_run_directory_of_somebody_else_is_refused(capsys, files, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir(0o700)
    mine = os.geteuid()
    words = files()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 4242)
    status, _, err = call(capsys, "-f", *words)
    assert status == 1 and "somebody else's (user number %d)" % mine in err
