"""The TOML reader: right lines, one-line errors, and no text that tomllib takes makes the scanner fail."""

import datetime
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyknop.errors import ConfigError
from tinyknop.host import toml

TEXT = '''# a comment with [brackets] and = signs
[daemon]
state_dir = "/tmp/x"   # [not.a.table]

[[capture]]
kind = "packet"

[port.firewall]
kind = "ipset"
[port."edge router"]
via = 'edge'

[[stanza]]
name = """two
lines = 1"""
openings = [
  "tcp/22", # [[stanza]]
  "udp/53",
]
timeout = 30

[[stanza]]
"na\\u006de" = "b"
key.file . x = 1
inline = { a = 1, b = [1, 2] }
after = \'\'\'it''s
]\'\'\'
last = true
'''


def written(tmp_path, text):
    path = tmp_path / "tinyknop.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def refused(tmp_path, text, look=lambda document: None):
    """Returns (line or "", reason) of the error that a text makes."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        look(toml.Document(path))
    assert caught.value.stage.startswith(path) and "\n" not in caught.value.reason
    return caught.value.stage[len(path) + 1 :], caught.value.reason


def test_each_key_has_its_line():
    lines = toml.lines_of(TEXT)
    for path, mark in (
        (("daemon",), "[daemon]"),
        (("daemon", "state_dir"), "state_dir"),
        (("capture", 0, "kind"), 'kind = "packet"'),
        (("port", "firewall", "kind"), 'kind = "ipset"'),
        (("port", "edge router", "via"), "via ="),
        (("stanza", 0, "name"), "name ="),
        (("stanza", 0, "openings"), "openings ="),
        (("stanza", 0, "timeout"), "timeout ="),
        (("stanza", 1, "name"), '"na'),
        (("stanza", 1, "key"), "key.file"),
        (("stanza", 1, "key", "file", "x"), "key.file"),
        (("stanza", 1, "inline"), "inline ="),
        (("stanza", 1, "after"), "after ="),
        (("stanza", 1, "last"), "last ="),
    ):
        assert lines[path] == 1 + TEXT[: TEXT.index("\n" + mark) + 1].count("\n"), path


def test_lines_count_the_same_with_windows_line_ends(tmp_path):
    document = toml.Document(written(tmp_path, TEXT.replace("\n", "\r\n")))
    assert document.lines == toml.lines_of(TEXT)


def test_values_become_the_texts_of_the_one_table(tmp_path):
    text = '[daemon]\na = ["x", "y"]\nb = true\nc = false\nd = 30\ne = "t"\n'
    entries = toml.Document(written(tmp_path, text)).entries("daemon")
    assert [entry[:2] for entry in entries] == [("a", "x,y"), ("b", "Y"), ("c", "N"), ("d", "30"), ("e", "t")]
    assert [entry[2].rpartition(":")[2] for entry in entries] == ["2", "3", "4", "5", "6"]


def test_value_inside_an_inline_table_has_the_line_of_its_table(tmp_path):
    document = toml.Document(written(tmp_path, '\n\nport = { firewall = { kind = "x" } }\n'))
    assert document.where("port", "firewall", "kind").endswith(":3")


def test_errors_name_line_and_remedy(tmp_path):
    def daemon(document):
        document.entries("daemon")

    assert refused(tmp_path, "\n[demon]\n") == ("2", refused(tmp_path, "\n[demon]\n")[1])
    assert "did you mean daemon?" in refused(tmp_path, "\n[demon]\n")[1]
    assert refused(tmp_path, "\n\n[other.x]\n")[0] == "3"
    assert refused(tmp_path, "[daemon]\n\na = \n")[0] == "3"
    assert refused(tmp_path, '[daemon]\na = "x')[1].startswith("not valid TOML")
    assert refused(tmp_path, "[daemon]\na = 1.5\n", daemon)[0] == "2"
    assert "fraction" in refused(tmp_path, "[daemon]\na = 1.5\n", daemon)[1]
    assert "date" in refused(tmp_path, "[daemon]\na = 2020-01-01\n", daemon)[1]
    assert "table" in refused(tmp_path, "[daemon]\na = {}\n", daemon)[1]
    assert "list" in refused(tmp_path, "[daemon]\na = [[1]]\n", daemon)[1]
    assert "must be a table" in refused(tmp_path, "daemon = 1\n", daemon)[1]
    assert "[[stanza]]" in refused(tmp_path, "[stanza]\n", lambda d: d.array("stanza"))[1]
    assert "[port.NAME]" in refused(tmp_path, "[[port]]\n", lambda d: d.named("port"))[1]
    assert refused(tmp_path, "[port]\n\nkind = 1\n", lambda d: d.named("port"))[0] == "3"
    assert refused(tmp_path, b"a = 1\nb = '\xff'\n") == ("2", "not UTF-8: save the file as UTF-8 text")


def test_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot read it"):
        toml.Document(str(tmp_path / "missing.toml"))
    with pytest.raises(ConfigError, match="cannot read it"):
        toml.Document(str(tmp_path))


def test_deep_brackets_are_refused_without_a_crash(tmp_path):
    refused(tmp_path, "a = " + "[" * 100000)


def test_scanner_takes_linear_time():
    for text in ("a = [" + "1," * 200000 + "]\n", ".".join("a" * 100000) + " = 1\n", "[[stanza]]\n" * 50000):
        started = time.monotonic()
        toml.lines_of(text)
        assert time.monotonic() - started < 5


KEYS = st.text(st.characters(codec="utf-8"), max_size=6)
SCALARS = st.one_of(
    st.text(st.characters(codec="utf-8"), max_size=12),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False),
    st.dates(min_value=datetime.date(1000, 1, 1)),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))


def quoted(text, style):
    """Returns a string in one of TOML's four ways of writing it."""
    plain = all(" " <= c != "\x7f" for c in text)
    if style == 1 and plain and "'" not in text:
        return "'%s'" % text
    if style == 2 and all(" " <= c != "\x7f" or c == "\n" for c in text) and "'" not in text:
        return "'''\n%s'''" % text
    escaped = "".join(c if " " <= c != "\x7f" and c not in '"\\' else "\\U%08x" % ord(c) for c in text)
    return '"""\\\n   %s"""' % escaped if style == 3 and not escaped.startswith(" ") else '"%s"' % escaped


def literal(value, style):
    if isinstance(value, str):
        return quoted(value, style)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[ # ]\n" + ",\n".join(literal(item, style) for item in value) + "\n]"
    if isinstance(value, dict):
        return "{" + ", ".join("%s = %s" % (quoted(k, 0), inline(v, style)) for k, v in value.items()) + "}"
    return repr(value) if not isinstance(value, datetime.date) else value.isoformat()


def inline(value, style):
    """Returns a value for an inline table, on one line but for what brackets and quotes allow."""
    return literal(value, style)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=4), st.integers(0, 3))
def test_every_key_of_generated_arrays_of_tables_is_found_on_its_line(tables, style):
    text, expected = "# [[stanza]]\n", {}
    for number, table in enumerate(tables):
        text += "[[ stanza ]] # x\n"
        for key, value in table.items():
            expected[("stanza", number, key)] = 1 + text.count("\n")
            text += "%s = %s # [y]\n" % (quoted(key, 0), literal(value, style))
    try:
        toml.tomllib.loads(text)
    except toml.tomllib.TOMLDecodeError as error:
        raise AssertionError("the test wrote bad TOML: %s\n%s" % (error, text))
    lines = toml.lines_of(text)
    for path, line in expected.items():
        assert lines[path] == line


PIECES = st.sampled_from(
    [
        "a",
        "b.c",
        '"q"',
        "'l'",
        " = ",
        "=",
        "1",
        '"s"',
        "'''",
        '"""',
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        ",",
        "\n",
        "#x\n",
        " ",
    ]
    + ["[a]\n", "[[a]]\n", "a = 1\n", "b = [\n", "\\", '"""x\n"""', "'", '"', "\r\n", "\t", "\u00e9"]
)


@settings(max_examples=2000, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30))
def test_scanner_never_fails_on_what_tomllib_takes_and_finds_all_top_keys(text):
    try:
        data = toml.tomllib.loads(text)
    except toml.tomllib.TOMLDecodeError:
        return
    lines = toml.lines_of(text.replace("\r\n", "\n"))
    for key in data:
        assert (key,) in lines
