"""A configuration that is right, for tests that make one thing in it wrong."""

TOML = """[daemon]
state_dir = "%(folder)s/state"

[[capture]]
kind = "packet"
interface = "lo"
port = 62201

[port.firewall]
kind = "iptables"

[[stanza]]
name = "alice"
source = ["ANY"]
key_base64 = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
hmac_key_base64 = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="
openings = ["tcp/22"]
timeout = 30
ports = ["firewall"]
"""


def config(folder, old="", new=""):
    """Writes it into a folder, with one text replaced, for its owner only; returns the path."""
    text = TOML % {"folder": folder}
    assert old in text
    path = folder / "tinyknop.toml"
    path.write_text(text.replace(old, new, 1) if old else text)
    path.chmod(0o600)
    return path
