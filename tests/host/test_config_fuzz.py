"""No bytes make a reader raise anything but ConfigError, strict or lenient, nor take more than linear time.

tests/corpus/config/ holds small files that are odd in one way each; names in them are from that folder. The readers of
.fwknoprc are under test as well, whose error is Refused. tests/real/test_config_alike.py compares with fwknopd.
"""

import json
import locale
import os
import pathlib
import shutil
import sys
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.need import share
from tinyknop import config, log
from tinyknop.config import compiled, fwknopd
from tinyknop.errors import ConfigError
from tinyknop.host import fwknopd as front
from tinyknop.host import fwrequest, rcfile
from tinyknop.host.fwoptions import VARIABLES, Refused
from tinyknop.settings import KEYWORDS as SETTINGS
from tinyknop.stanza import KEYWORDS as STANZAS
from tinyknop.stanza import Stanza

CORPUS = pathlib.Path(__file__).resolve().parents[1] / "corpus" / "config"
NAMES = [name for table in (STANZAS, SETTINGS) for part in (table.rows, table.later, table.idle) for name in part]
BITS = ["SOURCE ANY\n", "KEY_BASE64 ", "HMAC_KEY: ", "%include /dev/null\n", "$FWKNOP_RUN_DIR/x", ";", "#", "\n", " "]
# Odd for each kind of parser: switches, numbers, lists, addresses, keys, dates, paths, commands, chains.
VALUES = (
    "Y,0,1,30s,-1,+1,007,0x7,1.5,1e9,62201,65536,131071,99999999999999999999,²,٣,tcp/22,tcp/0,tcp/,/,tcp/22/7,TCP/22,"
    "1.2.3,1.2,7,1.2.3.4/33,1.2.3.4/255.0.255.0,::,::1/64,::ffff:1.2.3.4/129,fe80::1%eth0,ANY,any,=,==,A,AAAA,AA=A,é,\0,"
    "\x1b[2J,\ud800,1/1/30,13/32/99999,0/0/0,//,NONE,none,$,$$,$A,$FWKNOP_RUN_DIR,${X},%s%n,{},__CHANGEME__,1.2.3.4 22,"
    "1.2.3.4 65536,root,../..,/,/dev/null,//x//,*,!"
).split(",") + ["", ",", ",,,", "ACCEPT, filter, INPUT, 1, MINE, 1", "ACCEPT,,,,,", "x" * 300, "1" * 400, "(" * 200]
LINES = st.lists(st.sampled_from(NAMES + BITS + VALUES) | st.text(max_size=9), max_size=40).map(" ".join)
STANZA = b"SOURCE ANY\nKEY k\n"
BYTES = st.binary(max_size=400) | LINES.map(lambda text: text.encode("utf-8", "surrogatepass"))


@pytest.fixture(autouse=True)
def log_and_locale_kept():
    kept = log.sink, log.threshold, locale.setlocale(locale.LC_ALL)
    log.sink = lambda level, text: None
    yield
    log.sink, log.threshold = kept[:2]
    locale.setlocale(locale.LC_ALL, kept[2])


def put(path, data):
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    return path


def ways(path):
    """Returns every way in which a file of fwknop's is read: as either file, strict and lenient, by the front end."""
    here = os.path.dirname(path)
    good = put(os.path.join(here, "good"), STANZA)
    empty = put(os.path.join(here, "empty"), b"")
    options = {"config-file": path, "access-file": good, "run-dir": here}
    return {
        "load": lambda said: config.load(path),
        "access": lambda said: config.fwknop([], path, path, said),
        "conf": lambda said: config.fwknop(fwknopd.entries(path, said), path, path, said),
        "front end": lambda said: front.read(options, said),
        "front end, access": lambda said: front.read(
            dict(options, **{"access-file": path, "config-file": empty}), said
        ),
        "settings": lambda said: config.fwknop_settings(front.entries(options, said)[0], path, said),
    }


def read(path, data=None, by=None):
    """Reads a file in every way, or in those named; ConfigError is the only way to fail, with a reason of one line.

    Returns the names of the ways that took it.
    """
    if data is not None:
        put(path, data)
    told: list = []
    taken = []
    for name, act in ways(path).items():
        try:
            if by is None or name in by:
                act(told.append)
                taken.append(name)
        except ConfigError as error:
            assert error.stage and error.reason and "\n" not in error.reason
    assert all(isinstance(text, str) and "\n" not in text for text in told)
    return taken


def base(factory, name):
    return str(factory.getbasetemp() / name)


@given(BYTES)
def test_any_bytes_as_access_conf(tmp_path_factory, data):
    read(base(tmp_path_factory, "access.conf"), data)


@given(LINES)
def test_any_lines_below_a_source(tmp_path_factory, text):
    data = ("SOURCE ANY\nKEY k\n" + text.replace(" ", "\n", 3)).encode("utf-8", "surrogatepass")
    read(base(tmp_path_factory, "access.conf"), data)


@given(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=12))
def test_any_value_of_any_keyword(tmp_path_factory, name, value):
    line = "%s %s\n" % (name, value)
    path = base(tmp_path_factory, "fuzz.conf")
    read(path, line.encode("utf-8", "surrogatepass"))
    read(path, ("SOURCE ANY\nKEY k\n" + line).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("warn", [None, lambda text: None], ids=["strict", "lenient"])
def test_each_odd_value_of_each_keyword(warn):
    rows = [("SOURCE", "ANY", "f:1"), ("KEY", "k", "f:2")]
    for value in VALUES:
        for name in filter(None, NAMES):
            try:
                if name in SETTINGS.rows or name in SETTINGS.idle:
                    config.fwknop_settings([(name, value, "f:1")], "f", warn)
                else:
                    Stanza(rows + [(name, value, "f:3")], "f:1", warn).complete(config.keys_from, config.local)
            except ConfigError as error:
                assert error.stage and error.reason


@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), min_size=2, max_size=6))
def test_keywords_that_go_together(tmp_path_factory, pairs):
    """NAT with its chains, cycles with their timers, GPG with its signers, sets of rules with other sets."""
    text = "".join("%s %s\n" % pair for pair in pairs)
    data = text.encode("utf-8", "surrogatepass")
    read(base(tmp_path_factory, "pairs.conf"), data, ["front end"])
    read(base(tmp_path_factory, "pairs.conf"), STANZA + data, ["access"])


@pytest.mark.parametrize("value", ["a\0b", "xx_XX", "\x1b", "C" * 900])
def test_front_end_ends_with_a_status_whatever_the_locale_is_called(tmp_path, value):
    access = put(str(tmp_path / "access.conf"), b"SOURCE ANY\nKEY k\n")
    path = put(str(tmp_path / "fwknopd.conf"), ("LOCALE %s\n" % value).encode())
    words = ["-c", path, "-a", access, "-r", str(tmp_path), "--exit-parse-config"]
    assert front.main(words) in (0, 1)


# ---- the corpus ------------------------------------------------------------------------------------------------------

WHOLE_FILES = sorted(path.name for path in CORPUS.glob("*.*") if path.suffix in (".access", ".conf"))
# What our own readers take without a word; the others have something that fwknop only warns of, or refuses.
CLEAN = set(
    "crlf no-last-newline nul-first semicolons colons latin1-comment line-1022 line-1023 "
    "comment-5000 command-255 include include-colon include-deep-2 include-folder include-folder-slash control "
    "cr-inside include-in-stanza include-keys include-keys-twice include-folder-tilde duplicated same-stanza-twice "
    "utf8-value dollar".split()
)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A copy that only its owner can read; git keeps no such modes."""
    home = tmp_path / "corpus"
    shutil.copytree(CORPUS, home)
    for path in home.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    monkeypatch.chdir(home)
    return home


@pytest.mark.parametrize("name", WHOLE_FILES)
def test_corpus_file_is_taken_or_refused(corpus, name):
    taken = read(str(corpus / name))
    if name.endswith(".access"):
        clean = name[: -len(".access")] in CLEAN
        assert ("load" in taken) <= ("access" in taken)
        assert clean == ("load" in taken), taken


@pytest.mark.parametrize("name", ["include-self", "include-loop", "include-folder-loop", "include-deep-3"])
def test_includes_go_three_files_deep(corpus, name):
    with pytest.raises(ConfigError, match="Refusing to go deeper than 3 levels"):
        config.load(str(corpus / (name + ".access")))


def test_a_file_that_includes_much_is_given_up_soon(corpus):
    put("wide.inc", b"%include widest.inc\n" * 300)
    put("widest.inc", b"SOURCE ANY\nKEY k\n")
    put("access.conf", b"%include wide.inc\n" * 300)
    began = time.thread_time()
    with pytest.raises(ConfigError, match="more than 10000 files"):
        config.load("access.conf")
    assert time.thread_time() - began < 10


def test_nul_bytes_are_refused_and_named(corpus):
    """fwknopd ends the text there; we would hand the NUL on to syslog, the locale and the user names."""
    for name in ("nul-in-value.access", "nul-in-name.access"):
        with pytest.raises(ConfigError, match=name + ":4: .*NUL"):
            config.fwknop([], name, name, lambda text: None)


def test_a_dollar_that_begins_no_name_is_text(corpus):
    """As in fwknopd 2.6.10; `$` alone, `$A` and `$_` are errors in both."""
    path = put(
        "dollar.conf", b"".join(b"V%d %s\n" % pair for pair in enumerate((b"$1", b"$$", b"${A}", b"$a", b"$ x")))
    )
    assert [value for _, value, _ in fwknopd.entries(path, lambda text: None)] == ["$1", "$$", "${A}", "$a", "$ x"]
    for text in (b"$", b"$A", b"$_"):
        with pytest.raises(ConfigError, match="Invalid embedded variable"):
            fwknopd.entries(put("dollar.conf", b"V " + text + b"\n"))


# ---- linear time -----------------------------------------------------------------------------------------------------


def lines_of(count, line):
    """Returns so many lines; %d or the like in one is its number."""
    return b"".join(line % number if b"%" in line else line for number in range(count))


OWN = b"ACCESS_FILE access\n"
# What grows, as a function of how many times: (file name, bytes).
GROWING = {
    "empty lines": ("access.conf", lambda n: b"\n" * 40 * n),
    "comments": ("access.conf", lambda n: STANZA + b"# SOURCE ANY\n" * 5 * n),
    "one line": ("access.conf", lambda n: STANZA + b"OPEN_PORTS " + b"tcp/22," * 40 * n),
    "one line of blanks": ("access.conf", lambda n: STANZA + b" \t" * 100 * n + b"x"),
    "one line of semicolons": ("access.conf", lambda n: STANZA + b"KEY " + b";" * 200 * n),
    "carriage returns": ("access.conf", lambda n: STANZA + b"\r" * 200 * n),
    "NULs": ("access.conf", lambda n: STANZA + b"\0" * 200 * n),
    "stanzas": ("access.conf", lambda n: lines_of(n, b"SOURCE 192.0.2.1\nKEY k%d\n")),
    "stanzas of cycles": (
        "access.conf",
        lambda n: lines_of(n, STANZA + b"CMD_CYCLE_OPEN /bin/true %d\nCMD_CYCLE_CLOSE NONE\n"),
    ),
    "one stanza": ("access.conf", lambda n: STANZA + b"OPEN_PORTS tcp/22\n" * n),
    "unknown names": ("access.conf", lambda n: STANZA + lines_of(n // 16, b"OPEN_PORTZ_%05d x\n")),
    "lists": ("access.conf", lambda n: STANZA + (b"OPEN_PORTS " + b"tcp/22," * 140 + b"tcp/1\n") * (n // 8)),
    "included files": ("access.conf", lambda n: STANZA + b"%include access\n" * n),
    "key files": ("access.conf", lambda n: lines_of(n, b"SOURCE ANY\n%%include_keys keys\n# %d\n")),
    "variables": ("fwknopd.conf", lambda n: OWN + b"SYSLOG_IDENTITY x;\n" * n),
    "unknown variables": ("fwknopd.conf", lambda n: OWN + lines_of(n // 16, b"PCAP_INTFS_%05d x\n")),
    "substitutions": ("fwknopd.conf", lambda n: OWN + b"LOCALE x\n" + b"SYSLOG_IDENTITY $LOCALE/x;\n" * n),
    "a growing value": ("fwknopd.conf", lambda n: OWN + b"LOCALE x\n" + b"LOCALE $LOCALE/x;\n" * n),
    "json": (
        "tinyknop.json",
        lambda n: json.dumps(
            {"daemon": [], "capture": [{"kind": "udp"}], "port": {"firewall": {"kind": "iptables"}}}
            | {"stanza": [{"source": "ANY", "KEY": "k%d" % number} for number in range(n)]}
        ).encode(),
    ),
    "nested json": ("tinyknop.json", lambda n: b'{"stanza": ' + b"[" * 50 * n),
    "toml": (
        "tinyknop.toml",
        lambda n: (
            b'[[capture]]\nkind = "udp"\n[port.firewall]\nkind = "iptables"\n'
            + lines_of(n, b'[[stanza]]\nname = "s%d"\nsource = ["ANY"]\nkey_file = "keys"\n')
        ),
    ),
}


class Steps:
    """Counts the calls and lines of Python that run inside it: the same on every machine, however busy."""

    def __enter__(self):
        self.count, self.before = 0, sys.gettrace()
        sys.settrace(self.trace)
        return self

    def __exit__(self, *_):
        sys.settrace(self.before)  # that of coverage, which else would see nothing of all later tests

    def trace(self, frame, event, arg):
        self.count += 1
        return self.trace


def attempt(path):
    """Reads a file by its name's reader, strict, and lenient where there is such a way."""
    acts = [lambda: config.load(path)]
    if path.endswith("access.conf"):
        acts.append(lambda: config.fwknop([], path, path, lambda text: None))
    elif path.endswith("fwknopd.conf"):
        acts.append(lambda: front.read({"config-file": path, "access-file": "access"}, lambda text: None))
    for act in acts:
        try:
            act()
        except ConfigError:
            pass


@pytest.mark.parametrize("what", sorted(GROWING))
def test_twice_the_input_takes_twice_the_steps(tmp_path, monkeypatch, what):
    monkeypatch.chdir(tmp_path)
    put("keys", b"KEY k\n")
    put("access", STANZA)
    name, grown = GROWING[what]
    counts = []
    for size in (1, 64, 128, 256):  # the first time something may be imported
        put(name, grown(size))
        with Steps() as steps:
            attempt(name)
        counts.append(steps.count)
    # Twice, and a little for what grows by the length of a number.
    assert counts[3] - counts[2] <= 2.2 * max(counts[2] - counts[1], 100), counts


@pytest.mark.parametrize("what", sorted(GROWING))
def test_eight_times_the_input_takes_no_more_than_a_multiple_of_the_time(tmp_path, monkeypatch, what):
    """Steps do not show what runs in C. Quadratic were 64 times; less than 20 ms of CPU time are not compared."""
    monkeypatch.chdir(tmp_path)
    put("keys", b"KEY k\n")
    put("access", STANZA)
    name, grown = GROWING[what]
    spent = []
    for size in (share(100, 1000), share(800, 8000)):
        put(name, grown(size))
        tries = []
        for _ in range(3):
            began = time.thread_time()
            attempt(name)
            tries.append(time.thread_time() - began)
        spent.append(min(tries))
    assert spent[1] < 24 * max(spent[0], 0.02), spent


# ---- JSON ------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(NAMES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.sampled_from(compiled.TABLES), JSON).map(lambda tree: json.dumps(tree).encode())


@given(BYTES | DOCUMENTS)
@example(b'{"daemon":[["",null,""]]}')
@example(b'{"daemon":{"\\n":false}}')
@example(b'{"daemon":[["x","y","\\n"]]}')
def test_any_bytes_as_json(tmp_path_factory, data):
    read(base(tmp_path_factory, "fuzz.json"), data, ["load"])


# ---- .fwknoprc -------------------------------------------------------------------------------------------------------

RC_NAMES = sorted(VARIABLES)
RC_BITS = ["[default]\n", "[gate]\n", "[", "]", "[]\n", "#", ";", "\n", "\r\n", " ", "\t", ":", "KEY_BASE64: "]
RC_TEXT = st.lists(st.sampled_from(RC_NAMES + RC_BITS + VALUES) | st.text(max_size=9), max_size=40).map(" ".join)
RC_BYTES = st.binary(max_size=300) | RC_TEXT.map(lambda text: text.encode("utf-8", "surrogatepass"))


def read_rc(path, data=None, name="gate"):
    """Reads an rc file as the client does; Refused, with one line, is the only way to fail."""
    if data is not None:
        put(path, data)
    for wanted in (None, name):
        try:
            fwrequest.from_file(fwrequest.Request(), path, wanted)
        except Refused as refused:
            assert str(refused) and "\n" not in str(refused)


@given(RC_BYTES)
def test_any_bytes_as_fwknoprc(tmp_path_factory, data):
    read_rc(base(tmp_path_factory, "any.rc"), data)
    read_rc(base(tmp_path_factory, "any.rc"), b"[default]\n" + data)


@given(st.sampled_from(RC_NAMES), st.sampled_from(VALUES) | st.text(max_size=12))
def test_any_value_of_any_rc_variable(tmp_path_factory, name, value):
    line = "[default]\n%s %s\n" % (name, value)
    read_rc(base(tmp_path_factory, "value.rc"), line.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("name", sorted(path.name for path in CORPUS.glob("*.rc")))
def test_corpus_rc_file_is_taken_or_refused(corpus, name):
    read_rc(str(corpus / name))
    stanzas = rcfile.read(str(corpus / name))
    assert all(isinstance(title, str) for title, _ in stanzas)


@given(RC_BYTES, st.sampled_from(RC_NAMES), st.sampled_from(["gate", "default", "g ate", "[", "é"]))
def test_what_is_stored_is_found_again_and_the_rest_stays(tmp_path_factory, data, variable, name):
    path = put(base(tmp_path_factory, "stored.rc"), data)
    before = [line for line in data.split(b"\n") if os.fsdecode(line).strip()]
    rcfile.store(path, name, [(variable, "value")], lambda asked: True)
    with open(path, "rb") as file:
        after = file.read().split(b"\n")
    rows = rcfile.find(rcfile.read(path), name)
    assert [row.value for row in rows if row.name == variable][:1] == ["value"]
    names = {variable, rcfile.TWINS.get(variable)}
    for line in before:
        row = rcfile.row_of(os.fsdecode(line), 0)
        assert line in after or (row and row.name in names), line


@pytest.mark.parametrize(
    "line", [b"x\n", b"[s%d]\nSPA_SERVER 192.0.2.1\n", b"[gate]\n", b"ACCESS tcp/22\n", b" ", b"["]
)
def test_twice_the_rc_file_takes_twice_the_steps(tmp_path, line):
    path = str(tmp_path / "long.rc")
    counts = []
    for size in (100, 200, 400):
        put(path, b"[default]\n" + lines_of(size, line))
        with Steps() as steps:
            read_rc(path)
        counts.append(steps.count)
    assert counts[2] - counts[1] <= 2.2 * max(counts[1] - counts[0], 100), counts
