"""`tinyknop check` finds what the daemon would refuse at its start, and names what is not here yet."""

import pytest

from tests.host.texts import config
from tinyknop.host import cli


def checked(path, capsys):
    """Returns (exit status, what was said) of `tinyknop check`."""
    status = cli.main(["tinyknop", "check", str(path)])
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize(
    "old, new, wanted",
    [
        ('"packet"', '"pakcet"', 'kind = "pakcet": no such kind'),
        ("interface", "interfase", "interfase: no such option of packet"),
        ("port = 62201", 'port = "x"', "port = x: it is a number from 1 to 65535"),
        ("port = 62201", "port = 622010", "port = 622010: it is a number"),
        ('"lo"', '"a-name-that-is-too-long"', "at most 15 characters"),
    ],
)
def test_a_capture_that_cannot_be_is_found_with_its_line(tmp_path, capsys, old, new, wanted):
    path = config(tmp_path, old, new)
    status, said = checked(path, capsys)
    assert status == 1 and said.startswith("%s:4: " % path) and wanted in said


@pytest.mark.parametrize(
    "old, new, wanted",
    [
        ("[daemon]", '[daemon]\nuser = "nobody-at-all"', "warning: there is no user nobody-at-all here: adduser"),
        ('"lo"', '"nosuch0"', "warning: there is no interface nosuch0 here"),
    ],
)
def test_what_is_not_here_yet_is_a_warning(tmp_path, capsys, old, new, wanted):
    status, said = checked(config(tmp_path, old, new), capsys)
    assert status == 0 and wanted in said
    assert wanted not in checked(config(tmp_path), capsys)[1]


@pytest.mark.parametrize("command", ["check", "serve"])
def test_keys_in_a_configuration_that_others_can_read_are_refused(tmp_path, capsys, command):
    path = config(tmp_path)
    words = ["tinyknop", command] + (["-c"] if command == "serve" else []) + [str(path)]
    path.chmod(0o640)
    assert cli.main(words) == 1
    assert "%s:15: key_base64: others can read the file: chmod 600" % path in capsys.readouterr().err
    key = tmp_path / "alice.key"
    text = path.read_text().split("\n")
    cli.main(["tinyknop", "keygen", "-o", str(key)])
    path.write_text("\n".join(text[:14] + ['key_file = "%s"' % key] + text[16:]))
    assert cli.main(["tinyknop", "check", str(path)]) == 0
