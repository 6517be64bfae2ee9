"""What the pages on security promise is tested: every test and file that they name is there."""

import ast
import re
import sys

import pytest

from tests.test_architecture import OURS, ROOT, all_files, imported, tree_of

# What a distribution is called, and what of it is imported.
LIBRARIES = {"pycryptodome": "Crypto", "pyserial": "serial", "tomli": "tomli", "segno": "segno"}
BOARDS = {"cryptolib", "machine", "uctypes"}
PAGES = ("SECURITY.md", "docs/proof.md", "docs/strict.md", "docs/supply-chain.md", "docs/threat-model.md")
NAMED = re.compile(r"\b((?:tests/)?[a-z_/]+\.py)(?:::(\w+))?")
LINKS = re.compile(r"\]\(([^)#\s]+)")


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def named(text):
    """Yields (path of a file under tests/, name of a test or None) of what a page says in code."""
    for span in re.findall(r"`([^`\n]+)`", text):
        for path, test in NAMED.findall(span):
            if path.startswith("tests/") or "/" not in path and path.startswith("test_"):
                yield path, test or None


def files(path):
    """Returns the files that a page means: a bare name may be anywhere under tests/, but in one place."""
    if path.startswith("tests/"):
        return [ROOT / path] if (ROOT / path).is_file() else []
    return list((ROOT / "tests").rglob(path))


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def broken(text):
    """Returns what a page names that is not there."""
    wrong = []
    for path, test in named(text):
        found = files(path)
        if len(found) != 1 or test is not None and test not in functions(found[0]):
            wrong.append("%s::%s" % (path, test) if test else path)
    return wrong


@pytest.mark.parametrize("page", PAGES)
def test_every_test_that_a_page_names_is_there(page):
    assert broken(text_of(page)) == []


def test_a_name_that_is_not_there_is_found():
    assert broken("`tests/test_security.py::test_a_name_that_is_not_there_is_found` and `test_security.py`") == []
    for gone in ("tests/test_security.py::test_gone", "tests/test_gone.py", "test_gone.py"):
        assert broken("see `%s`" % gone) == [gone]


def test_every_line_of_the_threat_model_has_its_test():
    rows = [line.split("|")[1:-1] for line in text_of("SECURITY.md").splitlines() if line.startswith("| ")]
    assert len(rows) > 15
    for who, what, proof in rows[1:]:
        assert what.strip() and [test for _, test in named(proof) if test], who


def test_the_threat_model_fits_a_page():
    assert len(text_of("SECURITY.md").split()) < 1500


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    folder = (ROOT / page).parent
    gone = [link for link in LINKS.findall(text_of(page)) if "://" not in link and not (folder / link).exists()]
    assert gone == []


def test_every_page_is_part_of_the_repository():
    assert {ROOT / page for page in PAGES} <= set(all_files())


def test_asserts_only_tell_the_type_checker_what_cannot_be():
    """`python -O` leaves them out, so no check of anything may be one; bandit's B101 is off for this reason."""
    wrong = []
    for path in OURS:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Assert):
                text = ast.unparse(node.test)
                if not text.endswith(" is not None") and not text.startswith("isinstance("):
                    wrong.append("%s:%d %s" % (path, node.lineno, text))
    assert wrong == []


def test_every_library_is_declared_imported_and_described():
    text = text_of("pyproject.toml")
    wanted = re.search(r"\ndependencies = \[(.*?)\n\]", text, re.S).group(1) + re.search(r"\nqr = (.*)", text).group(1)
    assert set(re.findall(r'"([A-Za-z0-9-]+)[><=]', wanted)) == set(LIBRARIES)
    words = {module.split(".")[0] for path in OURS for module, _ in imported(path)}
    for path in OURS:
        nodes = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)]
        words |= {node.value for node in nodes if node.value == "Crypto"}  # by __import__
    assert set(LIBRARIES.values()) <= words
    known = getattr(sys, "stdlib_module_names", words) | BOARDS | {"tinyknop", "Crypto"} | set(LIBRARIES.values())
    assert words <= known
    assert [name for name in LIBRARIES if "| %s " % name not in text_of("docs/supply-chain.md")] == []
