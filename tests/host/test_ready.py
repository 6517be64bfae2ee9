"""A compiled configuration is the configuration: whatever the daemon goes by comes back, and nothing else is taken."""

import ast
import pathlib

import pytest

from tinyknop import config, ready
from tinyknop.errors import ConfigError

CORE = pathlib.Path(ready.__file__).parent
READERS = {"settings.py", "stanza.py", "ready.py", "client.py"}

CONF = """FWKNOP_RUN_DIR {0}
ACCESS_FILE {0}/access.conf
FIREWALL_EXE /usr/sbin/iptables
ENABLE_IPT_FORWARDING Y
ENABLE_SPA_OVER_HTTP Y
"""
ACCESS = """SOURCE 192.0.2.0/24, 2001:db8::/32
OPEN_PORTS tcp/22, udp/53
KEY_BASE64 a2V5
HMAC_KEY_BASE64 aG1hYw==
HMAC_DIGEST_TYPE sha512
FORCE_NAT 10.0.0.5 22
ACCESS_EXPIRE 01/02/2031

SOURCE ANY
GPG_DECRYPT_ID 0123ABCD
GPG_DECRYPT_PW words
GPG_FINGERPRINT_ID 00112233445566778899AABBCCDDEEFF00112233
ENABLE_CMD_EXEC Y
"""


@pytest.fixture
def both(tmp_path):
    """(what was compiled, what came back), each (settings, stanzas), and the file."""
    for name, text in (("fwknopd.conf", CONF), ("access.conf", ACCESS)):
        (tmp_path / name).write_text(text.format(tmp_path))
        (tmp_path / name).chmod(0o600)
    made = config.load(str(tmp_path / "fwknopd.conf"))
    path = tmp_path / "made.json"
    path.write_text(ready.dump(*made) + "\n")
    path.chmod(0o600)
    return made, config.load(str(path)), path


def test_all_that_the_daemon_goes_by_comes_back(both):
    (settings, stanzas), (again, same), _ = both
    assert len(same) == len(stanzas) == 2
    for one, other in zip([settings, *stanzas], [again, *same]):
        names = {name for name in vars(one) if name[0] != "_"} - ready._READ
        assert names == set(vars(other)) - {"places", "entries"}
        for name in names - {"keys"}:
            assert getattr(one, name) == getattr(other, name), name
    for one, other in zip(stanzas, same):
        assert vars(one.keys) == vars(other.keys)
    assert same[1].gpg.fingerprints == stanzas[1].gpg.fingerprints


def test_what_is_left_out_is_read_by_nobody_else():
    wrong = []
    for path in sorted(CORE.rglob("*.py")):
        inside = path.relative_to(CORE)
        if inside.parts[0] in ("config", "host") or inside.name in READERS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            whose = (
                getattr(node, "value", None)
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
                else None
            )
            name = getattr(whose, "attr", getattr(whose, "id", ""))
            if name in ("settings", "_settings", "stanza") and node.attr in ready._READ:
                wrong.append("%s:%d %s" % (inside, node.lineno, node.attr))
    assert wrong == []


def test_it_can_be_compiled_anew(both):
    _, again, path = both
    assert ready.dump(*again) + "\n" == path.read_text()


def test_a_change_by_hand_is_refused(both):
    path = both[2]
    path.write_text(path.read_text().replace('"tcp"', '"udp"'))
    with pytest.raises(ConfigError, match="tinyknop compile"):
        config.load(str(path))


def test_what_others_can_read_is_said(both, capsys):
    path = both[2]
    path.chmod(0o644)
    config.load(str(path))
    assert "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{}", '{"made": 1}', '{"made": "x",\n', '{"made": "x"\n}'])
def test_anything_else_is_refused_or_read_as_what_it_is(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        config.load(str(path))
