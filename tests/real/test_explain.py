"""`tinyknop explain` of what fwknop's own client sent, as tcpdump saved it, against files of both kinds."""

import os
import subprocess
import sys

from tests import keyrings
from tests.need import need
from tests.real import net, peers


def explain(config, *words, text=None):
    """Returns (exit status, output)."""
    argv = [sys.executable, "-m", "tinyknop", "explain", "-c", config, *words]
    done = subprocess.run(argv, cwd=peers.ROOT, capture_output=True, text=True, input=text, timeout=60)
    assert not done.stderr, done.stderr
    for secret in (peers.KEY, peers.HMAC_KEY):
        assert secret.decode() not in done.stdout and peers.base64_text(secret) not in done.stdout
    return done.returncode, done.stdout


def test_packets_that_tcpdump_saved_are_explained_and_a_replay_is_known(guarded):
    need("fwknop", "tcpdump")
    daemon = peers.serve(guarded, peers.toml_stanza(guarded, source=("192.0.2.0/24",), name="far") +
                         peers.toml_stanza(guarded))  # fmt: skip
    path = os.path.join(guarded.dir, "saved.pcap")
    argv = ["tcpdump", "-n", "-U", "--immediate-mode", "-w", path, "-Z", "root", "-i", "eth0", "udp port 62201"]
    saving = peers.Process(guarded, guarded.server, argv)
    saving.wait_line("listening on")
    before = peers.counters(daemon)
    peers.fwknop(guarded)
    assert peers.wait_counters(daemon, before) == {"granted": 1}
    before = peers.counters(daemon)
    peers.fwknop(guarded, access="tcp/23")
    assert peers.wait_counters(daemon, before) == {"openings": 1}
    saving.stop()
    status, said = explain(daemon.config, path)
    first, second = said.split("packet of ")[1:]
    assert status == 1 and "from " + net.CLIENT in first
    assert "stanza far" in first and "refused at source: no stanza is for this source" in first
    assert "refused at replay" in first and "the first time, and in time: takes it: opens tcp/2222" in first
    assert "the first time, and in time: openings: tcp/23 is not allowed" in second
    assert "message:    %s,tcp/23" % net.CLIENT in second
    # Another server, with fwknop's files, has not seen them.
    access = peers.stanza(open_ports="tcp/23")
    conf, _, _ = peers.fwknop_files(guarded, access, "other", access_file=guarded.dir + "/other/access.conf")
    status, said = explain(conf, path)
    first, second = said.split("packet of ")[1:]
    assert "is not looked at" in said and "refused at openings: tcp/2222 is not allowed" in first
    assert "stanza #1" in second and "takes it: opens tcp/23" in second


def test_gpg_packet_is_opened_with_the_servers_keyring(tmp_path):
    need("fwknop")
    rings = keyrings.keyrings()
    for home in (rings.server, rings.client):  # or fwknop could hand no passphrase to a gpg of today
        peers.write(home + "/gpg.conf", "pinentry-mode loopback\n")
    argv = ["fwknop", "--no-rc-file", "--no-save-args", "-T", "-A", "tcp/22", "-a", "192.0.2.7", "-D", "127.0.0.1"]
    argv += [
        "--gpg-recipient-key",
        keyrings.SERVER,
        "--gpg-signer-key",
        keyrings.CLIENT,
        "--gpg-home-dir",
        rings.client,
    ]
    argv += ["--gpg-no-signing-pw", "-B", str(tmp_path / "packet")]
    # Status 1 as it cannot decrypt again what it has made: the private key is the server's.
    subprocess.run(argv, env=dict(os.environ, HOME=str(tmp_path)), capture_output=True, timeout=60)
    words = dict(key=None, hmac_key=None, gpg_home_dir=rings.server, gpg_decrypt_id=rings.prints[keyrings.SERVER])
    more = "".join("%s %s\n" % (name.upper(), value) for name, value in words.items() if value)
    text = "SOURCE ANY\nOPEN_PORTS tcp/23\nREQUIRE_SOURCE_ADDRESS Y\nGPG_ALLOW_NO_PW Y\nGPG_REQUIRE_SIG Y\n" + more
    text += "GPG_FINGERPRINT_ID %s\n" % rings.prints[keyrings.CLIENT]
    peers.write(str(tmp_path / "access.conf"), text)
    conf = "ACCESS_FILE %s;\nFWKNOP_RUN_DIR %s;\nPCAP_FILTER udp port 62201;\n" % (tmp_path / "access.conf", tmp_path)
    conf = peers.write(str(tmp_path / "fwknopd.conf"), conf)
    packet = (tmp_path / "packet").read_text()
    status, said = explain(conf, "-", text=packet)
    assert status == 1 and "refused at openings: tcp/22 is not allowed" in said and "192.0.2.7,tcp/22" in said, said
