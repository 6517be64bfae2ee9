"""fwknop's rc file: what a line means, and that storing a stanza loses nothing."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyknop import log
from tinyknop.host import fwknop, fwrequest, rcfile
from tinyknop.host.fwoptions import VARIABLES, Refused

FILE = """\
# mine
[default]
# never mind
ALLOW_IP source

[Home]   ; at home
# the old key
KEY            abc
HMAC_KEY:      mac;rest
SPA_SERVER\t10.0.0.1 # gate
ACCESS tcp/22
UNKNOWN to us

# the office
[office]
KEY_BASE64 b2ZmaWNl
"""


@pytest.fixture
def path(tmp_path):
    """Returns the path of a copy of FILE."""
    made = tmp_path / "rc"
    made.write_text(FILE)
    made.chmod(0o600)
    return str(made)


@pytest.fixture(autouse=True)
def sink():
    kept = log.sink
    yield
    log.sink = kept


def text(path):
    with open(path) as file:
        return file.read()


def always(variable):
    return True


def never(variable):
    return False


@pytest.mark.parametrize(
    "line, name, value",
    [
        ("KEY abc", "KEY", "abc"),
        ("KEY: abc", "KEY", "abc"),
        ("  KEY\t\tabc  def", "KEY", "abc"),
        ("KEY my#key", "KEY", "my"),
        ("KEY a;b", "KEY", "a"),
        ("KEY abc\r", "KEY", "abc"),
        ("KEY", "KEY", None),
        ("KEY ;abc", "KEY", None),
        ("  # comment", "#", "comment"),
        (" ", "", None),
    ],
)
def test_lines(line, name, value):
    assert rcfile.row_of(line, 7)[:3] == (name, value, 7)


@pytest.mark.parametrize(
    "line, lost",
    [
        ("KEY abc", False),
        ("KEY abc \r", False),
        ("KEY abc # mine", False),
        ("KEY abc\t;mine", False),
        ("FW_TIMEOUT 30;", False),
        ("HTTP_USER_AGENT my agent", True),
        ("KEY my secret phrase", True),
        ("KEY my#key", True),
        ("HMAC_KEY a;b", True),
    ],
)
def test_what_follows_a_value_is_a_comment_or_lost(line, lost):
    assert rcfile.lost(rcfile.row_of(line, 7)) == lost


@pytest.mark.parametrize("line", ["", "\r", "# KEY abc", "; KEY abc", "#"])
def test_comments_and_empty_lines(line):
    assert rcfile.row_of(line, 1) is None


def test_stanzas_are_found_in_any_case(path):
    stanzas = rcfile.read(path)
    assert [name for name, _ in stanzas] == ["default", "Home", "office"]
    rows = rcfile.find(stanzas, "HOME")
    assert [(row.name, row.value, row.line) for row in rows][:3] == [
        ("KEY", "abc", 8), ("HMAC_KEY", "mac", 9), ("SPA_SERVER", "10.0.0.1", 10)
    ]  # fmt: skip
    assert rcfile.find(stanzas, "away") is None and rcfile.find(stanzas, None) is None


def test_replaced_variables_stay_where_they_are_and_all_else_stays(path):
    assert rcfile.store(path, "home", [("SPA_SERVER", "10.0.0.2"), ("FW_TIMEOUT", "60")], never) == set()
    expected = FILE.replace("SPA_SERVER\t10.0.0.1 # gate", "SPA_SERVER                  10.0.0.2")
    expected = expected.replace("UNKNOWN to us\n", "UNKNOWN to us\nFW_TIMEOUT                  60\n")
    assert text(path) == expected
    assert os.stat(path).st_mode & 0o777 == 0o600 and not os.path.exists(path + ".updated")


def test_new_stanza_comes_last(path):
    rcfile.store(path, "new", [("KEY", "x")], never)
    assert text(path) == FILE + "\n[new]\nKEY                         x\n"


def test_secret_stays_where_the_answer_is_no(path):
    asked = []
    rows = [("KEY_BASE64", "bmV3"), ("HMAC_KEY", "new"), ("ACCESS", "tcp/23")]
    refused = rcfile.store(path, "home", rows, lambda name: asked.append(name) or False)
    assert asked == ["KEY", "HMAC_KEY"] and refused == {"KEY_BASE64", "HMAC_KEY"}
    assert text(path) == FILE.replace("ACCESS tcp/22", "ACCESS                      tcp/23")


def test_other_spelling_of_a_replaced_secret_goes(path):
    assert rcfile.store(path, "home", [("KEY_BASE64", "bmV3"), ("HMAC_KEY", "new")], always) == set()
    expected = FILE.replace("KEY            abc\n", "").replace(
        "HMAC_KEY:      mac;rest", "HMAC_KEY" + " " * 20 + "new"
    )
    assert text(path) == expected.replace("to us\n", "to us\nKEY_BASE64                  bmV3\n")


def test_yes_without_a_new_secret_keeps_the_old_one(path):
    rcfile.store(path, "home", [("ACCESS", "tcp/23")], always)
    assert "KEY            abc" in text(path)


def test_leftover_of_another_run_is_not_overwritten(path):
    with open(path + ".updated", "w") as file:
        file.write("somebody's")
    with pytest.raises(Refused, match="File exists: remove it"):
        rcfile.store(path, "home", [("ACCESS", "tcp/23")], always)
    assert text(path) == FILE and text(path + ".updated") == "somebody's"


def test_link_stays_a_link(path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(path)
    rcfile.store(str(link), "office", [("ACCESS", "tcp/1")], always)
    assert link.is_symlink() and "tcp/1" in text(path)


def test_end_of_input_means_no(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("tinyknop.host.fwkeys.read_line", lambda number: None)
    words = "-T -A tcp/23 -s --key-rijndael new --no-save-args --save-rc-stanza -n office --rc-file"
    assert fwknop.main([*words.split(), path]) == 0
    out, err = capsys.readouterr()
    assert "Variable 'KEY_BASE64' found in stanza 'office'. Overwrite [N/y] ? " in out
    assert "KEY was not stored" in err and "KEY_BASE64 b2ZmaWNl" in text(path) and "tcp/23" in text(path)


def test_force_asks_nothing(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = "-k --no-save-args --save-rc-stanza --force-stanza -n office --rc-file"
    assert fwknop.main([*words.split(), path]) == 0
    out = capsys.readouterr().out
    assert out == "[+] Wrote Rijndael and HMAC keys to rc file: %s\n" % path
    rows = {row.name: row.value for row in rcfile.find(rcfile.read(path), "office")}
    assert len(rows["KEY_BASE64"]) == 44 and len(rows["HMAC_KEY_BASE64"]) == 88


def test_source_is_stored_as_such(path, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    words = "-T -s -A tcp/9 --server-resolve-ipv4 --key-rijndael x --no-save-args --save-rc-stanza -n s --rc-file"
    assert fwknop.main([*words.split(), path]) == 0
    rows = {row.name: row.value for row in rcfile.find(rcfile.read(path), "s")}
    assert rows["ALLOW_IP"] == "source" and rows["SERVER_RESOLVE_IPV4"] == "Y"


def test_first_file_is_private_and_empty_of_settings(tmp_path, capsys):
    path = str(tmp_path / "rc")
    rcfile.make(path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert rcfile.read(path) == [("default", [])]
    assert capsys.readouterr().out == "[*] Creating initial rc file: %s.\n" % path


def test_what_is_stored_is_read_again(tmp_path):
    words = """-A tcp/1 -a 5.5.5.5 -P http -N 4.4.4.4:9 --nat-local --nat-port 9 -M legacy -m sha3_256 -S 9 -p 80 -U foo
    -u agent -w /bin/foo --resolve-url https://x --use-wget-user-agent -r --time-offset-minus 3m --key-rijndael abc -vv
    --key-base64-hmac Zm9v --hmac-digest-type SHA1 --no-save-args -f 1 -D foo --nat-rand-port -Q 1.1.1.1 --gpg-agent
    --gpg-recipient-key r --gpg-signer-key s --gpg-home-dir /x --gpg-exe /y --gpg-no-signing-pw --resolve-http-only"""
    layer = fwrequest.parse(words.split())
    path = tmp_path / "rc"
    path.write_text("")
    rows = [(name, fwrequest.text_of(name, layer[name])) for name in VARIABLES if name in layer]
    rcfile.store(str(path), "x", rows, always)
    again = fwrequest.layer_of(rcfile.find(rcfile.read(str(path)), "x"), "rc")
    assert again == {name: layer[name] for name in VARIABLES if name in layer}


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(b"[default]\n" + data)
    log.sink = lambda level, text: None
    for name in ("default", "x"):
        try:
            fwrequest.from_file(fwrequest.Request(), str(path), name)
        except Refused as error:
            assert "\n" not in str(error).strip()


@given(st.lists(st.text(max_size=30), max_size=12), st.dictionaries(st.sampled_from(sorted(VARIABLES)), st.just("v")))
def test_storing_keeps_every_other_line(tmp_path_factory, lines, settings):
    path = tmp_path_factory.getbasetemp() / "kept"
    lines = [line.replace("\n", " ").replace("\r", " ") for line in lines]
    body = "\n".join(["[a]", "ACCESS tcp/1", "[b]", *lines])
    path.write_bytes(body.encode("utf-8", "replace"))
    before = path.read_bytes().decode().split("\n")
    rcfile.store(str(path), "b", sorted(settings.items()), always)
    after = path.read_bytes().decode().split("\n")
    stored = {rcfile._line(name, text) for name, text in settings.items()}
    gone = [line for line in before if line.strip() and line not in after]
    assert all(rcfile.row_of(line, 0).name in {*settings, *map(rcfile.TWINS.get, settings)} for line in gone)
    assert [line for line in after if line.strip() and line not in stored] == [
        line for line in before if line.strip() and line not in gone and line not in stored
    ]
