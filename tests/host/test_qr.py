"""`tinyknop qr`: what it reads, and that a scanner reads what it draws."""

import io
import subprocess
import sys

import pytest

from tests.need import need
from tinyknop.errors import ConfigError
from tinyknop.host import cli, keygen, qr

KEY, HMAC = "vmrDZjIssc06fvSEBotNEEKaMKZkqzAYJTdsVS4/V7k=", "8Cl0oS4GQViPjmppZfTxDu7ojCso9tQxrmzqz2yq21NESPNVRcdrbw=="


def scanned(drawn, path):
    """Returns what a scanner reads from a drawn code: each character is two modules, one above the other."""
    rows = []
    for line in drawn.splitlines():
        rows += [[letter in "█▀" for letter in line], [letter in "█▄" for letter in line]]
    size = 4  # pixels of a module
    pixels = b"".join(b"".join((b"\xff" if light else b"\0") * size for light in row) * size for row in rows)
    path.write_bytes(b"P5 %d %d 255\n" % (len(rows[0]) * size, len(rows) * size) + pixels)
    done = subprocess.run([need("zbarimg"), "-q", "--raw", str(path)], capture_output=True, timeout=60)
    return done.stdout.decode().rstrip("\n")


def given(monkeypatch, text):
    """Puts a text on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


@pytest.mark.parametrize(
    "text",
    [
        "KEY_BASE64: %s\nHMAC_KEY_BASE64: %s\n" % (KEY, HMAC),
        "SOURCE ANY\nKEY_BASE64   %s;\r\nHMAC_KEY_BASE64\t%s\r\n#KEY_BASE64 x\n" % (KEY, HMAC),
        'key_base64 = "%s"\nhmac_key_base64 = "%s"\n' % (KEY, HMAC),
        "HMAC_KEY_BASE64: %s\nKEY_BASE64: %s\n" % (HMAC, KEY),
    ],
)
def test_keys_are_found_in_what_generators_and_files_hold(text):
    assert qr.pairs(text) == [(KEY, HMAC)]


def test_second_key_begins_the_next_pair_and_a_lone_hmac_key_is_none():
    text = "KEY_BASE64 %s\nHMAC_KEY_BASE64 %s\nSOURCE ANY\nKEY_BASE64 QUJD\n" % (KEY, HMAC)
    assert qr.pairs(text) == [(KEY, HMAC), ("QUJD", None)]
    assert qr.pairs("HMAC_KEY_BASE64 %s\nKEY passphrase\n" % HMAC) == []


def test_scanner_reads_the_one_line_that_the_app_wants(monkeypatch, capsys, tmp_path):
    given(monkeypatch, "KEY_BASE64: %s\nHMAC_KEY_BASE64: %s\n" % (KEY, HMAC))
    assert cli.main(["tinyknop", "qr"]) == 0
    drawn = capsys.readouterr().out
    assert "\33" not in drawn
    assert scanned(drawn, tmp_path / "code.pgm") == "KEY_BASE64:%s HMAC_KEY_BASE64:%s" % (KEY, HMAC)


@pytest.mark.parametrize("words", [["fwknopd", "--key-gen"], ["fwknop", "--key-gen"], ["keygen"]])
def test_key_generators_can_be_piped_into_it(monkeypatch, capsys, tmp_path, words):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cli.main(["tinyknop", *words]) == 0
    made = capsys.readouterr().out
    given(monkeypatch, made)
    assert cli.main(["tinyknop", "qr"]) == 0
    text = scanned(capsys.readouterr().out, tmp_path / "code.pgm")
    lines = [line for line in made.splitlines() if "KEY_BASE64: " in line]  # fwknop also tells of its new rc file
    assert text == " ".join(lines).replace(": ", ":")


@pytest.mark.parametrize("program", ["fwknop", "fwknopd"])
def test_real_programs_keys_are_read(program, tmp_path):
    argv = [need(program), "--key-gen"] + (["--no-rc-file"] if program == "fwknop" else [])
    made = subprocess.run(argv, capture_output=True, text=True, timeout=30, env={"HOME": str(tmp_path)}).stdout
    assert len(qr.pairs(made)) == 1 and None not in qr.pairs(made)[0]


def test_each_stanza_of_a_file_gets_its_code(capsys, tmp_path):
    path = tmp_path / "access.conf"
    path.write_text("SOURCE ANY\n%sSOURCE ANY\n%s" % (keygen.pair(), keygen.pair()))
    assert cli.main(["tinyknop", "qr", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "keys 1 of 2:" in shown and "keys 2 of 2:" in shown


def test_input_without_keys_and_a_missing_library_are_told(monkeypatch, capsys, tmp_path):
    given(monkeypatch, "KEY secret words\n")
    assert cli.main(["tinyknop", "qr"]) == 1
    said = capsys.readouterr().err
    assert "no KEY_BASE64 line" in said and "secret" not in said
    assert cli.main(["tinyknop", "qr", str(tmp_path / "none")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "segno", None)
    with pytest.raises(ConfigError, match="pip install 'tinyknop\\[qr\\]'"):
        qr.main([])


def test_terminal_gets_its_colours_set():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    qr.draw("text", shown)
    assert all(line.startswith(qr.COLOURS) and line.endswith("\33[0m") for line in shown.getvalue().splitlines())
