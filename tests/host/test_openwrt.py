"""The Python package for OpenWrt needs python3-light and -ctypes: what runs there imports no more."""

import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What OpenWrt splits off python3-light into packages of its own, by module; and what only pip brings.
ELSEWHERE = """asyncio cgi curses dbm decimal _decimal distutils email lib2to3 logging lzma _lzma multiprocessing
ssl _ssl _hashlib pydoc readline sqlite3 unittest urllib uuid webbrowser xml unicodedata Crypto Cryptodome pyroute2
serial segno""".split()
# Stands before all other finders; a module that is not there raises ModuleNotFoundError, as on the router.
LIGHT = """
import sys
class Light:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in %r:
            raise ModuleNotFoundError("not in python3-light: " + name, name=name)
sys.meta_path.insert(0, Light())
sys.path.insert(0, %r)
sys.argv[0] = "tinyknop"
from tinyknop.host.cli import main
sys.exit(main())
"""
KEYS = '[[stanza]]\nname = "a"\nsource = ["ANY"]\nkey_file = "%s"\nopenings = ["tcp/22"]\nports = ["f"]\n'
CONFIG = """[daemon]
state_dir = "%s/state"

[[capture]]
kind = "udp"
address = "127.0.0.1"
port = 62201

[port.f]
kind = "nftables"
via = "tape"

"""


def run(*words):
    """Runs the command line as python3-light would; returns (exit status, what it printed)."""
    code = LIGHT % (ELSEWHERE, ROOT)
    done = subprocess.run([sys.executable, "-I", "-c", code, *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def config(tmp_path):
    status, said = run("keygen", "-o", str(tmp_path / "a.key"))
    assert status == 0, said
    path = tmp_path / "tinyknop.toml"
    path.write_text(CONFIG % tmp_path + KEYS % (tmp_path / "a.key"))
    return str(path)


def test_keys_configuration_and_status_need_no_more(config):
    status, said = run("check", config)
    assert status == 0 and "stanza a" in said, said
    status, said = run("status", "-c", config)
    assert status == 1 and "not in python3-light" not in said, said
    status, said = run("status", "-c", config, "--metrics", "--listen", "127.0.0.1:0")
    assert status == 1 and "python3-urllib" in said and "Traceback" not in said


def test_a_knock_needs_no_more(config, tmp_path):
    words = ("-A", "tcp/22", "-a", "192.0.2.7", "-k", str(tmp_path / "a.key"), "--dry-run")
    status, said = run("knock", "127.0.0.1", *words)
    assert status == 0, said


def test_a_knock_that_is_sent_needs_no_more(config, tmp_path):
    words = ("-A", "tcp/22", "-k", str(tmp_path / "a.key"))
    for host in ("127.0.0.1", "localhost"):
        status, said = run("knock", host, "-a", "192.0.2.7", *words)
        assert status == 0, said
    status, said = run("knock", "b\u00fccher.invalid", "-a", "192.0.2.7", *words)
    assert status == 1 and "does not resolve" in said and "Traceback" not in said
    status, said = run("knock", "127.0.0.1", "-R", *words)
    assert status == 1 and "python3-urllib" in said and "Traceback" not in said


def test_fwknops_words_need_no_more(config, tmp_path):
    """The key is what `tinyknop keygen` made."""
    keys = dict(line.split(": ") for line in (tmp_path / "a.key").read_text().splitlines())
    words = ["--no-rc-file", "--no-save-args", "-A", "tcp/22", "-a", "192.0.2.7"]
    words += ["--key-base64-rijndael", keys["KEY_BASE64"], "--key-base64-hmac", keys["HMAC_KEY_BASE64"], "--use-hmac"]
    for host in ("127.0.0.1", "localhost"):
        status, said = run("fwknop", "-D", host, *words)
        assert status == 0, said


def test_the_daemon_needs_no_more(config):
    """It starts, and is ended by its own limit: a start that needs more ends with the name of the module."""
    code = LIGHT % (ELSEWHERE, ROOT)
    argv = [sys.executable, "-I", "-c", code, "serve", "-c", config]
    daemon = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        said = []
        for line in daemon.stdout:
            said.append(line)
            if line.startswith("ready"):
                break
        assert said and said[-1].startswith("ready"), said
    finally:
        daemon.terminate()
        daemon.wait()
        daemon.stdout.close()
