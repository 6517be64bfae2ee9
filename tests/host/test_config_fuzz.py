"""No bytes make a reader raise anything but ConfigError, strict or lenient."""

import os

from hypothesis import given
from hypothesis import strategies as st

from tinyknop import config
from tinyknop.config import fwknopd
from tinyknop.errors import ConfigError
from tinyknop.settings import KEYWORDS as SETTINGS
from tinyknop.stanza import KEYWORDS as STANZAS

NAMES = [name for table in (STANZAS, SETTINGS) for part in (table.rows, table.later, table.idle) for name in part]
BITS = ["SOURCE ANY\n", "KEY_BASE64 ", "HMAC_KEY: ", "%include /dev/null\n", "$FWKNOP_RUN_DIR/x", ";", "#", "\n", " "]
VALUES = [
    "Y",
    "0",
    "30s",
    "tcp/22",
    "1.2.3",
    "::1/64",
    "ANY",
    "-1",
    "=",
    "AAAA",
    "\0",
    "99999999999999999999",
    "é",
    "²",
]
LINES = st.lists(st.sampled_from(NAMES + BITS + VALUES) | st.text(max_size=9), max_size=40).map(" ".join)
BYTES = st.binary(max_size=400) | LINES.map(lambda text: text.encode("utf-8", "surrogatepass"))


def read(path, data):
    """Reads bytes in every way; ConfigError is the only way to fail, with a reason of one line."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)

    def said(text):
        assert isinstance(text, str)

    for act in (
        lambda: config.load(path),
        lambda: config.fwknop([], path, path, said),
        lambda: config.fwknop(fwknopd.entries(path, said), path, path, said),
    ):
        try:
            act()
        except ConfigError as error:
            assert error.stage and error.reason and "\n" not in error.reason


@given(BYTES)
def test_any_bytes_as_access_conf(tmp_path_factory, data):
    read(str(tmp_path_factory.getbasetemp() / "access.conf"), data)


@given(LINES)
def test_any_lines_below_a_source(tmp_path_factory, text):
    data = ("SOURCE ANY\nKEY k\n" + text.replace(" ", "\n", 3)).encode("utf-8", "surrogatepass")
    read(str(tmp_path_factory.getbasetemp() / "access.conf"), data)


@given(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=12))
def test_any_value_of_any_keyword(tmp_path_factory, name, value):
    line = "%s %s\n" % (name, value)
    path = str(tmp_path_factory.getbasetemp() / "fuzz.conf")
    read(path, line.encode("utf-8", "surrogatepass"))
    read(path, ("SOURCE ANY\nKEY k\n" + line).encode("utf-8", "surrogatepass"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner),
    max_leaves=12,
)


@given(
    BYTES
    | st.dictionaries(st.sampled_from(config.compiled.TABLES), JSON).map(lambda d: __import__("json").dumps(d).encode())
)
def test_any_bytes_as_json(tmp_path_factory, data):
    read(str(tmp_path_factory.getbasetemp() / "fuzz.json"), data)
