"""What scripts/man.py makes is up to date, complete, and what `man` can show."""

import pathlib
import re
import subprocess

import pytest

from scripts import about, man
from tests.need import need
from tinyknop.gate import STAGES
from tinyknop.host.cli import COMMANDS

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def made():
    return man.files()


def test_files_are_those_that_the_code_makes_now(made):
    assert man.stale(made) == [], "run `make man`"


def test_every_command_has_a_page_with_its_options(made):
    pages = {name.split("/")[-1].rpartition(".")[0]: text for name, text in made.items() if "/man/" in name}
    assert set(pages) == {"tinyknop", "tinyknop.toml"} | {"tinyknop-" + name for name, _, _ in COMMANDS}
    assert "\\-\\-watch" in pages["tinyknop-status"] and "\\-\\-live" in pages["tinyknop-check"]
    assert "access\\-folder" in pages["tinyknop-fwknopd"] and "\\-\\-config" in pages["tinyknop-serve"]


def test_pages_are_sound(made):
    names = sorted(str(ROOT / name) for name in made if "/man/" in name)
    done = subprocess.run([need("mandoc"), "-T", "lint", "-W", "warning", *names], capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if "missing date" not in line]  # a date would change each time
    assert lines == []
    for name in names:
        shown = subprocess.run(["mandoc", "-T", "ascii", name], capture_output=True, text=True, check=True).stdout
        assert len(shown.splitlines()) > 10


def described(rows):
    return {row[0] for row in rows}


def test_every_keyword_is_described_and_nothing_else_is(made):
    from tinyknop.settings import KEYWORDS as settings
    from tinyknop.stanza import KEYWORDS as stanza

    rows, others = man.daemon_rows()
    assert described(rows) == set(about.texts(about.DAEMON))
    assert {row[1] for row in settings.table if not row[0]} <= described(rows), "a word of ours without a text"
    assert len(rows) + len(others) == len(settings.table)
    assert described(man.stanza_rows()) == set(about.texts(about.STANZA)) and len(man.stanza_rows()) == len(
        stanza.table
    )
    assert described(man.target_rows()) == set(about.texts(about.TARGET))
    assert described(man.watch_rows()) == set(about.texts(about.WATCH))
    for folder, package, block, _, _ in man.SECTIONS:
        there = [(kind, row[0]) for kind, _, rows in man.kinds(folder, package, getattr(about, block)) for row in rows]
        for word in about.texts(getattr(about, block)):
            assert word in there or (word[0] == "*" and word[1] in [option for _, option in there]), word


def test_every_counter_has_its_line_in_the_troubleshooting(made):
    text = made["docs/troubleshooting.md"]
    assert re.findall(r"^\| `(\w+)` \|", text, re.M) == list(STAGES)


def test_keys_and_figures_of_the_metrics_are_those_of_the_code():
    from tinyknop.host.metrics import FAMILIES

    text = (ROOT / "docs/troubleshooting.md").read_text()
    names = {"tinyknop_" + name for name, _, _ in FAMILIES}
    assert set(re.findall(r"tinyknop_\w+", text)) <= names


def test_links_of_the_docs_lead_somewhere():
    for name in ("configuration", "threat-model", "migration", "troubleshooting"):
        for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs" / (name + ".md")).read_text()):
            assert "://" in link or (ROOT / "docs" / link).exists(), (name, link)
