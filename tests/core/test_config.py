"""The readers: fwknop's two grammars, includes, JSON, and how `load` tells the formats apart."""

import os

from tinyknop import compat, config, log, ready
from tinyknop.config import access, fwknopd
from tinyknop.errors import ConfigError

STANZA = "SOURCE ANY\nKEY secret\n"


class Files:
    """Files below a new directory in /tmp, gone at the end of the `with`."""

    def __init__(self, **texts):
        self.dir = "/tmp/tinyknop-test-%d" % int.from_bytes(compat.urandom(6), "big")
        self.texts = texts
        self.heard = []

    def __enter__(self):
        os.mkdir(self.dir)  # on MicroPython what is written there can be read by others, which is warned of
        for name in self.texts:
            self.write(name.replace("_", "."), self.texts[name])
        self.sink = log.sink
        log.sink = lambda level, text: self.heard.append(text)
        return self

    def __exit__(self, *error):
        log.sink = self.sink
        for name in os.listdir(self.dir):
            os.remove(self.dir + "/" + name)
        os.rmdir(self.dir)

    def write(self, name, text):
        with compat.append_to(self.path(name)) as file:
            file.write(text if isinstance(text, bytes) else text.replace("@", self.dir).encode())

    def path(self, name):
        return self.dir + "/" + name


def said_in(said, *parts):
    """Tells whether each part is in one of the warnings."""
    return all([any([part in text for text in said]) for part in parts])


def refusal(act, *words):
    try:
        act(*words)
    except ConfigError as error:
        return error
    raise AssertionError("%r was taken" % (words,))


def conf(text, warn=None):
    """Returns (name, value) of the entries of a fwknopd.conf."""
    with Files(f_conf=text) as files:
        return [(name, value) for name, value, _ in fwknopd.entries(files.path("f.conf"), warn)]


def stanzas(warn=None, **texts):
    """Returns, for each stanza of a.conf, its entries' (name, value)."""
    with Files(**texts) as files:
        reader = access.Reader(warn)
        reader.file(files.path("a.conf"))
        return [[(name, value) for name, value, _ in found] for found in reader.stanzas]


def loaded(**texts):
    with Files(**texts) as files:
        return config.load(files.path("a.conf"))


def test_a_value_ends_at_the_semicolon_and_its_blanks_are_cut():
    assert conf("A  one two  ; rest\nB\tx\t\nC y;\nD a#b\r\n") == [
        ("A", "one two"),
        ("B", "x"),
        ("C", "y"),
        ("D", "a#b"),
    ]


def test_blanks_at_the_end_of_a_passphrase_are_part_of_it():
    text = "SOURCE ANY\nKEY: a  b \nHMAC_KEY\tc\t; no more\nGPG_DECRYPT_PW d \r\nREQUIRE_USERNAME bob \n"
    values = [value for _, value in stanzas(a_conf=text)[0]]
    assert values == ["ANY", "a  b ", "c\t", "d ", "bob"]
    assert "give HMAC_KEY a value" in refusal(lambda: stanzas(a_conf=text + "HMAC_KEY  ;\n")).reason


def test_comments_begin_a_line():
    assert conf("# a\n; b\n\r\n\n\0x\n# \xe9\xff\nA b\n") == [("A", "b")]
    said = []
    assert conf(" # x\n", said.append) == [("#", "x")]  # a name, then, and nobody knows it


def test_a_line_without_a_value_is_said_and_passed_over_by_front_ends():
    said = []
    assert conf("A\nB ;\nC c\n", said.append) == [("C", "c")]
    assert said_in(said, "*Invalid config file entry in", "at line 1.", "at line 2.")
    assert refusal(conf, "A\n").stage.endswith("f.conf:1")


def test_a_dollar_at_the_start_is_a_variable_set_before():
    text = "R /run\nA $R/x y\nB x$R\nC $R\nD $C\n"
    assert conf(text) == [("R", "/run"), ("A", "/run/x"), ("B", "x$R"), ("C", "/run"), ("D", "/run")]


def test_an_unknown_variable_makes_no_setting():
    said = []
    assert conf("A $NONE/x\nB b\n", said.append) == [("B", "b")]
    assert said_in(said, "[*] Invalid embedded variable in: '$NONE/x'")
    assert "Invalid embedded variable" in refusal(conf, "A $NONE\n").reason


def test_lines_that_fwknopd_would_tear_are_refused():
    assert refusal(conf, "A a\nB " + "b" * 1022 + "\n").stage.endswith(":2")
    assert refusal(conf, "A a" + "b" * 1000 + "\nB $A" + "c" * 1000 + "\n").stage.endswith(":2")
    assert conf("# " + "b" * 5000 + "\nA a\n") == [("A", "a")]


def test_a_colon_after_a_name_is_dropped():
    assert stanzas(a_conf="SOURCE: ANY\nKEY:\tse cret # x\n") == [[("SOURCE", "ANY"), ("KEY", "se cret # x")]]


def test_each_source_begins_a_stanza():
    assert stanzas(a_conf="SOURCE a\nKEY b\nSOURCE c\nKEY $d\n") == [
        [("SOURCE", "a"), ("KEY", "b")],
        [("SOURCE", "c"), ("KEY", "$d")],
    ]


def test_what_stands_before_the_first_source_counts_for_nothing():
    said = []
    assert stanzas(said.append, a_conf="KEY x\nSOURCE a\n") == [[("SOURCE", "a")]]
    assert said_in(said, "before the first SOURCE")
    refusal(lambda: stanzas(a_conf="KEY x\nSOURCE a\n"))


def test_a_line_without_a_value_is_fatal_in_access_conf():
    for reader in (access.Reader(), access.Reader(lambda text: None)):
        with Files(a_conf="SOURCE a\nKEY\n") as files:
            error = refusal(reader.file, files.path("a.conf"))
        assert error.stage.endswith("a.conf:2") and "[*] Invalid access file entry in" in error.reason


def test_what_stands_behind_a_wrong_mark_is_never_shown():
    for line in ("KEY_BASE64=c2VjcmV0", "KEY_BASE64=c2VjcmV0 x", "KEY,c2VjcmV0", 'KEY"c2VjcmV0" x'):
        for text in ("SOURCE ANY\n%s\n", "%s\nSOURCE ANY\nKEY k\n"):
            with Files(a_conf=text % line) as files:
                error = refusal(config.load, files.path("a.conf"))
                assert "c2V" not in str(error) and "KEY" in str(error)
                assert "c2V" not in "".join(files.heard)


def test_an_include_stands_where_it_is_and_the_outer_stanza_goes_on():
    found = stanzas(a_conf="SOURCE a\n%include @/b.conf\nKEY k\n", b_conf="SOURCE b\nKEY l\n")
    assert found == [[("SOURCE", "a"), ("KEY", "k")], [("SOURCE", "b"), ("KEY", "l")]]


def test_an_include_may_stand_before_the_first_source():
    assert stanzas(a_conf="%include @/b.conf\n", b_conf="SOURCE b\n") == [[("SOURCE", "b")]]


def test_includes_go_three_files_deep():
    texts = {"a_conf": "%include @/b.conf\n", "b_conf": "%include @/c.conf\n", "c_conf": "SOURCE c\n"}
    assert stanzas(**texts) == [[("SOURCE", "c")]]
    texts["c_conf"] = "%include @/d.conf\n"
    texts["d_conf"] = "SOURCE d\n"
    assert "[*] Refusing to go deeper than 3 levels. Lost in Limbo: " in refusal(lambda: stanzas(**texts)).reason


def test_a_file_that_includes_itself_a_hundred_times_ends():
    refusal(lambda: stanzas(a_conf="%include @/a.conf\n" * 100))


def test_a_folder_is_read_in_order_and_only_conf():
    with Files(b_conf="SOURCE b\n", a_conf="SOURCE a\n", c_config="SOURCE x\n") as files:
        files.write("z.conf~", "SOURCE z\n")
        reader = access.Reader()
        reader.folder(files.dir + "/", "f:1")
        assert [found[0][1] for found in reader.stanzas] == ["a", "b"]
    assert refusal(access.Reader().folder, "/nonexistent", "f:1").stage == "f:1"


def test_include_keys_takes_keys_only():
    said = []
    texts = {"a_conf": "SOURCE a\n%include_keys @/k.conf\n", "k_conf": "KEY_BASE64: x\nOPEN_PORTS tcp/22\nHMAC_KEY y\n"}
    assert stanzas(said.append, **texts) == [[("SOURCE", "a"), ("KEY_BASE64", "x"), ("HMAC_KEY", "y")]]
    assert said_in(said, "Ignoring invalid entry: 'OPEN_PORTS'")
    refusal(lambda: stanzas(**texts))


def test_an_access_conf_alone_has_fwknopds_settings():
    settings, found = loaded(a_conf=STANZA + "SOURCE 192.0.2.7\nKEY other\n")
    assert [(stanza.number, stanza.name) for stanza in found] == [(1, "#1"), (2, "#2")]
    assert settings.state_dir == "/run/fwknop" and settings.captures[0]["interface"] == "eth0"
    assert settings.ports["firewall"]["kind"] == "iptables"


def test_a_fwknopd_conf_brings_its_access_file():
    with Files(f_conf="PCAP_INTF lo;\nACCESS_FILE @/a.conf;\n", a_conf=STANZA) as files:
        settings, found = config.load(files.path("f.conf"))
        assert settings.captures[0]["interface"] == "lo" and len(found) == 1


def test_an_access_folder_takes_the_place_of_the_file():
    with Files(f_cfg="ACCESS_FOLDER @\nACCESS_FILE /nonexistent\n", a_conf=STANZA) as files:
        assert len(config.load(files.path("f.cfg"))[1]) == 1


def test_a_configuration_without_a_stanza_is_refused():
    with Files(f_conf="ACCESS_FILE @/access.conf\n") as files:
        files.write("access.conf", "# nothing\n")
        assert "Could not find valid SOURCE stanza" in refusal(config.load, files.path("f.conf")).reason


def test_two_stanzas_of_one_name_and_ports_that_are_not_there_are_refused():
    text = STANZA + "name a\nSOURCE ANY\nKEY b\nname a\n"
    assert "two stanzas called a" in refusal(lambda: loaded(a_conf=text)).reason
    assert "no port called edge" in refusal(lambda: loaded(a_conf=STANZA + "ports edge\n")).reason


def test_a_missing_file_is_named():
    assert refusal(config.load, "/nonexistent/access.conf").stage == "/nonexistent/access.conf"
    assert "Could not open" in refusal(config.load, "/nonexistent/fwknopd.conf").reason
    assert "not a regular file" in refusal(config.load, "/tmp").reason


def test_a_file_that_others_can_read_is_warned_of():
    if not hasattr(os, "chmod"):
        return
    with Files(a_conf=STANZA) as files:
        os.chmod(files.path("a.conf"), 0o644)
        config.load(files.path("a.conf"))
        assert "permissions should only be user read/write (0600, -rw-------)" in files.heard[0]


def test_a_key_file_is_read_and_its_mode_looked_at():
    with Files(a_conf="SOURCE ANY\nkey_file @/k\n", k="KEY_BASE64: dHdv\nHMAC_KEY_BASE64: b25l\n") as files:
        if hasattr(os, "chmod"):
            keys = config.load(files.path("a.conf"))[1][0].keys
            assert (keys.key, keys.hmac_key) == (b"two", b"one")
            os.chmod(files.path("k"), 0o640)
            assert "others can read" in refusal(config.load, files.path("a.conf")).reason
        said = []
        config.keys_from(files.path("k"), "a:1", said.append)
        os.remove(files.path("k"))
        assert "keygen" in refusal(config.load, files.path("a.conf")).reason


def test_json_gives_back_what_was_compiled():
    with Files(a_conf=STANZA + "OPEN_PORTS tcp/22\nFW_ACCESS_TIMEOUT 9\n") as files:
        if compat.MICROPYTHON:  # compiled on a computer, read here
            return
        settings, found = config.load(files.path("a.conf"))
        files.write("b.json", ready.dump(settings, found))
        again, same = config.load(files.path("b.json"))
        assert (again.state_dir, again.captures, again.ports) == (settings.state_dir, settings.captures, settings.ports)
        assert (same[0].open_ports, same[0].timeout, same[0].where) == ((("tcp", 22),), 9, found[0].where)
        assert same[0].keys.key == b"secret"


def test_json_may_be_written_by_hand():
    text = """{"daemon": {"state_dir": "/s", "max_age": 60}, "capture": [{"kind": "udp", "port": 5}], "port":
    {"firewall": {"kind": "command"}}, "stanza": [{"name": "a", "openings": ["tcp/22", "udp/5"], "KEY": "k"}]}"""
    with Files(b_json=text) as files:
        settings, found = config.load(files.path("b.json"))
    assert (settings.state_dir, settings.max_age, settings.captures[0]["port"]) == ("/s", 60, "5")
    assert found[0].open_ports == (("tcp", 22), ("udp", 5)) and found[0].name == "a"


def test_json_that_is_something_else_is_refused():
    for text in ("", "[]", "{", '{"stanza": 1}', '{"stanza": [1]}', '{"stanza": [[1]]}', '{"x": 1}', '{"port": []}',
                 '{"capture": [1]}', '{"daemon": 1.5}', '{"daemon": {"max_age": 1.5}}', "[" * 10000):  # fmt: skip
        with Files(b_json=text) as files:
            refusal(config.load, files.path("b.json"))


def test_a_configuration_that_listens_nowhere_is_refused():
    with Files(b_json='{"stanza": [{"KEY": "k"}]}') as files:
        assert "nothing listens" in refusal(config.load, files.path("b.json")).reason
