"""GPG with the real fwknop: its client's packets open here, and what is sealed here opens its firewall."""

import os
import subprocess

import pytest

from tests import keyrings
from tests.keyrings import CLIENT, LOCKED_SERVER, OLD, PASSPHRASE, SERVER, STRANGER, SUBKEY, UNCERTIFIED
from tests.need import need
from tests.real import net, peers
from tinyknop import spa
from tinyknop.host import gpg
from tinyknop.loop import Loop
from tinyknop.seal import Keys
from tinyknop.stanza import Gpg

HMAC = Keys(b"", peers.HMAC_KEY)


@pytest.fixture(scope="module")
def rings():
    made = keyrings.keyrings()
    # Without it neither fwknop nor fwknopd can hand a passphrase to a gpg of today.
    for home in (made.server, made.client):
        peers.write(home + "/gpg.conf", "pinentry-mode loopback\n")
    return made


def fwknop_packet(rings, *more, hmac=True, stdin=b""):
    """Returns the packet that the real client would send."""
    path = os.path.join(rings.dir, "packet")
    argv = [need("fwknop"), "--no-rc-file", "--no-save-args", "--test", "-D", "127.0.0.1", "-A", "tcp/22"]
    argv += ["-a", "192.0.2.7", "--gpg-home-dir", rings.client, "--gpg-recipient-key", SERVER, "-B", path, *more]
    if hmac:
        argv += ["--use-hmac", "--key-base64-hmac", peers.base64_text(peers.HMAC_KEY)]
    environment = dict(os.environ, HOME=rings.dir)
    # Status 1 as it cannot decrypt again what it has made: the private key is the server's.
    subprocess.run(argv, input=stdin, env=environment, capture_output=True, timeout=30)
    with open(path, "rb") as file:
        packet = file.read().strip()
    os.remove(path)
    return packet


def opened(rings, packet, keys):
    """Returns (Packet, Signature) of a packet as the server takes it; checks the HMAC as the gate does."""
    text = packet[: len(packet) - keys.hmac_length]
    if keys.hmac_key is not None:
        assert keys.mac(gpg.PREFIX + text) == packet[len(text) :]
    settings = Gpg(None, "", True, False, None, None, rings.server, rings.gpg)
    message = gpg.message_of(text)
    assert gpg.wire(message, keys) == packet
    plain, signature = Loop().run_until(gpg.opened(message, settings))
    return spa.parse(plain), signature


@pytest.mark.parametrize("keys", [HMAC, Keys(b"")], ids=["hmac", "no hmac"])
@pytest.mark.parametrize("signer", [CLIENT, SUBKEY, None])
def test_packet_of_the_real_client_opens(rings, keys, signer):
    words = ["--gpg-no-signing-pw"] + (["--gpg-signer-key", signer] if signer else [])
    packet, signature = opened(rings, fwknop_packet(rings, *words, hmac=keys.hmac_key is not None), keys)
    assert (packet.message, packet.message_type) == ("192.0.2.7,tcp/22", spa.ACCESS)
    assert (signature and signature.primary) == rings.prints.get(signer)
    assert signature is None or signature.valid


def test_packet_of_the_real_client_with_a_passphrase_opens(rings):
    words = ("--gpg-signer-key", keyrings.LOCKED, "--stdin")
    packet, signature = opened(rings, fwknop_packet(rings, *words, hmac=False, stdin=PASSPHRASE.encode()), Keys(b""))
    assert packet.message == "192.0.2.7,tcp/22" and signature.valid


def access(rings, signer, **more):
    """Returns a GPG stanza of access.conf."""
    words = {
        "hmac_key_base64": peers.base64_text(peers.HMAC_KEY),
        "open_ports": "tcp/%d" % net.SERVICE,
        "fw_access_timeout": "3",
        "gpg_home_dir": rings.server,
        "gpg_decrypt_id": rings.prints[SERVER][-8:],
        "gpg_allow_no_pw": "Y",
        "gpg_remote_id": (rings.listed(rings.client, SUBKEY)[1] if signer == SUBKEY else rings.prints[signer])[-8:],
    }
    words.update(more)
    return "SOURCE ANY\n" + "".join("%s %s\n" % (n.upper(), v) for n, v in words.items() if v is not None)


def sealed(rings, signer, recipient=SERVER, keys=HMAC, **more):
    """Returns a packet of ours that asks for the service."""
    plain = spa.compose(spa.Packet(message="%s,tcp/%d" % (net.CLIENT, net.SERVICE), username="tests"), "sha256")
    return gpg.wire(gpg.seal(plain, recipient, signer, rings.client, **more), keys)


@pytest.mark.parametrize(
    ("signer", "more"),
    [
        (CLIENT, {}),
        (CLIENT, {"hmac_key_base64": None}),
        (SUBKEY, {}),
        (None, {"gpg_remote_id": None, "gpg_disable_sig": "Y"}),
        (OLD, {"gpg_ignore_sig_verify_error": "Y"}),
    ],
    ids=["signed", "no hmac", "subkey", "unsigned", "expired but ignored"],
)
def test_packet_sealed_here_opens_the_firewall_of_fwknopd(network, rings, signer, more):
    need("fwknopd")
    daemon = peers.fwknopd(network, access(rings, signer or CLIENT, **more))
    keys = Keys(b"") if "hmac_key_base64" in more else HMAC
    network.send(sealed(rings, signer, keys=keys, exe=rings.old_gpg if signer == OLD else None))
    assert network.wait_connect(True) is not None, daemon.text()


def test_packet_for_a_key_with_a_passphrase_opens_the_firewall_of_fwknopd(network, rings):
    need("fwknopd")
    more = {"gpg_decrypt_pw": PASSPHRASE, "gpg_allow_no_pw": None}
    daemon = peers.fwknopd(network, access(rings, CLIENT, **more))
    network.send(sealed(rings, CLIENT, LOCKED_SERVER))
    assert network.wait_connect(True) is not None, daemon.text()


@pytest.mark.parametrize(
    ("signer", "listed", "said"),
    [
        (STRANGER, CLIENT, "is not in the GPG_REMOTE_ID list"),
        (None, CLIENT, "Missing GPG signature"),
        (OLD, OLD, "Key expired"),
        (UNCERTIFIED, UNCERTIFIED, "Bad GPG signature"),
    ],
)
def test_fwknopd_and_we_refuse_the_same_signers(network, rings, signer, listed, said):
    need("fwknopd")
    daemon = peers.fwknopd(network, access(rings, listed))
    packet = sealed(rings, signer, exe=rings.old_gpg if signer == OLD else None)
    network.send(packet)
    daemon.wait_line(said)
    assert not network.can_connect()
    _, signature = opened(rings, packet, HMAC)
    short = (rings.prints[listed][-8:],)
    with pytest.raises(gpg.Rejected):
        gpg.allowed(signature, Gpg(None, "", True, False, short, None, rings.server, rings.gpg))
