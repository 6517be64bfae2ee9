"""A daemon and a client with nothing but Python's standard library: a bare environment, our files copied into it.

What docs/supply-chain.md says about this is what is tried here, in front of a real firewall.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.need import need
from tests.real import net, peers

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIBRARIES = "Crypto Cryptodome pyroute2 serial tomli segno".split()
LOOK = """
import importlib.util, tinyknop.crypto
print([name for name in %r if importlib.util.find_spec(name)], tinyknop.crypto.backend.__name__, tinyknop.__file__)
""" % (LIBRARIES,)
OWNERS_NFT = """flush ruleset
table inet filter {
    chain input {
        type filter hook input priority filter; policy drop;
        ct state established accept
    }
}
"""
# TOML has no reader in the standard library before 3.11; JSON has.
FORMATS = ("toml", "json") if sys.version_info >= (3, 11) else ("json",)


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The Python of an environment without pip, with a copy of tinyknop and nothing else."""
    home = tmp_path_factory.mktemp("bare")
    base = getattr(sys, "_base_executable", sys.executable)
    subprocess.run([base, "-m", "venv", "--without-pip", str(home)], check=True, timeout=60)
    [site] = home.glob("lib/python3*/site-packages")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "tinyknop", site / "tinyknop", ignore=ignore)
    shutil.copytree(ROOT / "ports", site / "tinyknop" / "ports", ignore=ignore)
    python = str(home / "bin" / "python")
    for name, wanted in (("", "host"), ("small", "small")):
        env = dict(os.environ, TINYKNOP_CRYPTO=name)
        told = subprocess.run([python, "-I", "-c", LOOK], capture_output=True, timeout=60, check=True, env=env).stdout
        assert told.decode().split() == ["[]", "tinyknop.crypto." + wanted, str(site / "tinyknop" / "__init__.py")]
    return python


def owners(network, kind):
    """The owner's firewall, for a kind of port that wants one."""
    if kind == "ipset":
        peers.owner_rule(network)
    if kind == "nftables":  # instead of the fixture's, which is of iptables
        path = peers.write(os.path.join(network.dir, "owners.nft"), OWNERS_NFT)
        network.at(network.server, "nft", "-f", path)


def configured(network, bare, kind, options, written):
    """Returns the path of a configuration, compiled by the bare Python where it is to be JSON."""
    home = os.path.join(network.dir, kind)
    os.makedirs(home, mode=0o700)
    text = peers.TOML.format(
        state=home + "/state", kind=kind, capture="packet", interface='interface = "eth0"\n', options=options
    )
    path = peers.write(home + "/tinyknop.toml", text + peers.toml_stanza(network, timeout=2))
    if written == "toml":
        return path
    python = bare if "toml" in FORMATS else sys.executable
    env = dict(os.environ, PYTHONPATH=str(ROOT))  # which -I has Python pass over
    isolated = ["-I"] if python == bare else []
    argv = [python, *isolated, "-m", "tinyknop", "compile", "-o", home + "/tinyknop.json", path]
    subprocess.run(argv, check=True, timeout=60, env=env)
    os.chmod(home + "/tinyknop.json", 0o600)
    return home + "/tinyknop.json"


def opens(network, bare, config):
    """Has the daemon open the service for the client's knock, and close it; returns what the daemon said."""
    daemon = peers.Process(network, network.server, [bare, "-I", "-m", "tinyknop", "serve", "-c", config])
    daemon.wait_line(peers.SERVE_READY)
    assert not network.can_connect()
    words = ["-m", "tinyknop", "knock", net.SERVER, "-A", "tcp/%d" % net.SERVICE, "-a", net.CLIENT]
    words += ["--key-file", peers.key_file(network, "client")]
    network.at(network.client, "env", "HOME=" + network.dir, bare, "-I", *words)
    assert network.wait_connect(True) is not None, daemon.text()
    assert network.wait_connect(False) is not None, daemon.text()
    daemon.stop()
    text = daemon.text()
    assert "Traceback" not in text
    return text


@pytest.mark.parametrize("back_end", ("", "small"))
def test_daemon_and_client_without_any_library_open_and_close_a_port(network, bare, back_end, monkeypatch):
    need("iptables", "ipset", "nft")
    monkeypatch.setenv("TINYKNOP_CRYPTO", back_end)
    netlink = 'set = "%s"\nvia = "kernel"\n\n[carrier.kernel]\nkind = "netlink"' % peers.SET
    for number, (kind, options) in enumerate((("iptables", ""), ("ipset", netlink), ("nftables", ""))):
        owners(network, kind)
        opens(network, bare, configured(network, bare, kind, options, FORMATS[number % len(FORMATS)]))


WITHOUT_TOML = """
import sys, runpy
sys.modules["tomllib"] = sys.modules["tomli"] = None
runpy.run_module("tinyknop", run_name="__main__", alter_sys=True)
"""


def test_without_a_reader_of_toml_the_rest_works_and_toml_says_what_it_needs(bare, tmp_path):
    """As in Python 3.9 without tomli: a client that takes a host and a key file, and `check` of JSON."""
    key, toml = tmp_path / "key", tmp_path / "tinyknop.toml"

    def run(*words):
        argv = [bare, "-I", "-c", WITHOUT_TOML, *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=tmp_path)

    assert run("keygen", "-o", str(key)).returncode == 0
    done = run("knock", "127.0.0.1", "-A", "tcp/22", "-a", "192.0.2.1", "-k", str(key), "--dry-run")
    assert done.returncode == 0, done.stderr
    toml.write_text("[daemon]\n")
    done = run("check", str(toml))
    assert done.returncode and "tomli" in done.stderr + done.stdout and "Traceback" not in done.stderr


def test_what_needs_a_library_says_which(bare, tmp_path):
    """A QR code is the only thing that cannot be had without one."""
    key = tmp_path / "key"
    subprocess.run([bare, "-I", "-m", "tinyknop", "keygen", "-o", str(key)], check=True, timeout=60)
    done = subprocess.run([bare, "-I", "-m", "tinyknop", "qr", str(key)], capture_output=True, text=True, timeout=60)
    assert done.returncode and "segno" in done.stderr and "Traceback" not in done.stderr
