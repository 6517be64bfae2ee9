"""The table of what is the same as in fwknop, better or not there: whole, and true where a test can tell."""

import pathlib
import re

import pytest

from tinyknop.config import access
from tinyknop.host import fwknopd
from tinyknop.settings import KEYWORDS as SETTINGS
from tinyknop.stanza import KEYWORDS as STANZA

DOCS = pathlib.Path(__file__).resolve().parents[1] / "docs"
TABLE = (DOCS / "compatibility.md").read_text(encoding="utf-8")


def section(file, start, end):
    """Returns the part of a file between two of its headings."""
    text = (DOCS / file).read_text(encoding="utf-8")
    return text[text.index(start) : text.index(end)]


def first_cells(text, count=1):
    """Yields the first cells of the rows of the tables in a text."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|-"):
            yield "|".join(re.split(r"(?<!\\)\|", line)[1 : 1 + count])


def names(text, count=1):
    """Returns the names in backquotes of the first cells, bare of their arguments."""
    found = [name for cell in first_cells(text, count) for name in re.findall(r"`([^`]+)`", cell)]
    return [name.split(" ")[0] for name in found]


def listed(heading):
    """Returns {name: (same, better or not; the note)} of a part of our table."""
    part = TABLE[TABLE.index("## " + heading) :]
    part = part[: part.find("\n## ", 4)] if part.find("\n## ", 4) > 0 else part
    rows = {}
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows.update({name: (cells[1], cells[2]) for name in re.findall(r"`([^`]+)`", cells[0])})
    return rows


PARTS = (
    ("Options of the server", names(section("fwknopd.md", "## 1. Command line", "### 1.1"), 2)),
    ("Variables of fwknopd.conf", names(section("fwknopd.md", "### 2.2 Variables", "## 3. access.conf"))),
    ("Directives and variables of access.conf", names(section("fwknopd.md", "### 3.1 Grammar", "### 3.3"))),
    ("Options of the client", names(section("fwknop-client.md", "## 1. Command line", "### 1.1"), 2)),
    ("Variables of .fwknoprc", names(section("fwknop-client.md", "### 3.2 Variables", "### 3.3"))),
)


@pytest.mark.parametrize("heading,wanted", PARTS)
def test_every_name_of_the_reference_is_in_the_table(heading, wanted):
    rows = listed(heading)
    assert len(wanted) > 30
    assert [name for name in wanted if name not in rows] == []


@pytest.mark.parametrize("heading", [heading for heading, _ in PARTS])
def test_a_row_says_same_better_or_not_and_the_last_two_say_how_or_why(heading):
    for name, (how, why) in listed(heading).items():
        assert how in ("same", "better", "not"), name
        assert how == "same" or why, name


def test_every_row_has_the_cells_of_its_table():
    """A row of two or more is a slip of the pen; a name stands for one difference."""
    for part in TABLE.split("\n## ")[1:]:
        sizes = {len(re.split(r"(?<!\\)\|", line)) for line in part.splitlines() if line.startswith("|")}
        assert len(sizes) == 1, part[:60]
    named = re.findall(r"^\| ([a-z0-9-]+) \|", TABLE, re.M)
    assert len(named) == len(set(named))


def test_a_difference_that_is_called_by_name_is_described():
    named = set(re.findall(r"^\| ([a-z0-9-]+) \|", TABLE, re.M))
    assert len(named) > 40
    for heading, _ in PARTS:
        for name, (how, why) in listed(heading).items():
            bare = re.sub(r"`[^`]*`", "", why) if how == "better" else ""
            for word in re.findall(r"\b[a-z0-9]+(?:-[a-z0-9]+)+\b", bare):
                assert word in named or word == "firewall-cmd", (name, word)


def test_what_the_table_has_the_readers_know():
    options = {row[1].rstrip("=") for row in fwknopd.OPTIONS}
    for name in listed("Options of the server"):
        if name.startswith("--"):
            assert name[2:] in options, name
    for name in listed("Variables of fwknopd.conf"):
        assert name in SETTINGS.rows or name in SETTINGS.idle or name in SETTINGS.later, name
    for name in listed("Directives and variables of access.conf"):
        assert name in STANZA.rows or name.startswith("%include"), name


def test_what_is_taken_without_effect_is_listed_as_not():
    rows = listed("Variables of fwknopd.conf")
    idle = [name for name in SETTINGS.idle if rows[name][0] != "not"]
    # These three only give a path a name, which they do; the fourth is unused in both.
    assert sorted(idle) == ["CONFIG_FILE", "FWKNOP_CONF_DIR", "OVERRIDE_CONFIG", "PF_EXPIRE_INTERVAL"]


def test_key_files_take_the_names_of_the_reference():
    text = section("fwknopd.md", "### 3.1 Grammar", "### 3.2")
    row = [line for line in text.splitlines() if line.startswith("| `%include_keys")][0]
    assert sorted(set(re.findall(r"`([A-Z_0-9]+)`", row))) == sorted(access.KEY_NAMES)
