"""Writes docs/man/*, docs/configuration.md and the table of docs/troubleshooting.md from what the code knows.

    python scripts/man.py          writes them anew
    python scripts/man.py --check  status 1, and the names, where one is out of date

The words of commands are those of their argparse parsers, those of configurations the tables of keywords.
"""

import argparse
import ast
import contextlib
import importlib
import importlib.util
import io
import os
import pathlib
import re
import sys
import tokenize

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts import about  # noqa: E402  (after the path above)

MARKS = ("<!-- stages -->", "<!-- /stages -->")
# Kinds of value, by the name of the parser that reads them.
KINDS = {
    "absolute": "path", "text": "text", "anything": "text", "yes": "true, false", "unless_no": "true, false",
    "address": "address", "networks": "list of networks", "openings": "list of openings", "_names": "list of names",
    "_name": "name", "key_text": "text", "key_base64": "base64", "_timeout": "seconds", "_max_timeout": "seconds",
    "_epoch": "seconds since 1970", "date": "MM/DD/YYYY", "command": "command line", "inside": "address and port",
    "passphrase": "text", "ids": "list of ids", "udp_port": "1 to 65535", "facility": "LOG_DAEMON, LOG_LOCAL0 to 7",
    "firewall": "path", "snat_address": "address", "trusted": "list of networks", "_text": "text",
    "_yes": "true, false", "_address": "address, source, resolve", "_base64": "base64", "encode": "text",
}  # fmt: skip


class Stopped(Exception):
    """Carries a parser out of a command's `main`."""


def told(module, function, *words):
    """Returns (argparse parser, None) of a command, or (None, what it prints) for one that reads its words itself."""

    def stop(parser, *_args, **_options):
        raise Stopped(parser)

    kept = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args
    argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_known_args = stop
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            getattr(importlib.import_module(module), function or "main")([*words, "--help"])
    except Stopped as found:
        return found.args[0], None
    finally:
        argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args = kept
    return None, printed.getvalue()


def roff(text):
    """Returns a text as roff takes it, one line."""
    text = " ".join(str(text).split()).replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text


def marked(text):
    """Returns a text with what stands between `backquotes` in bold."""
    return re.sub(r"`([^`]*)`", r"\\fB\1\\fP", roff(text))


def value_of(action):
    """Returns what an option takes, as in a synopsis; "" for a switch."""
    if action.nargs == 0:
        return ""
    metavar = action.metavar or action.dest.upper()
    names = list(metavar) if isinstance(metavar, tuple) else [metavar]
    if action.choices and action.metavar is None:
        names = ["|".join(map(str, action.choices))]
    shown = " ".join("\\fI%s\\fP" % roff(name) for name in names)
    if action.nargs in ("?", "*"):
        return "[%s]" % shown
    return shown + (" ..." if action.nargs in ("+", argparse.REMAINDER) else "")


def synopsis(parser):
    """Returns the words of a command as one line of roff."""
    words = ["\\fB%s\\fP" % roff(parser.prog)]
    for action in parser._actions:
        if not action.option_strings:
            words.append(value_of(action))
        elif action.dest != "help":
            word = ("\\fB%s\\fP %s" % (roff(action.option_strings[-1]), value_of(action))).strip()
            words.append(word if action.required else "[%s]" % word)
    return " ".join(words)


def options(parser):
    """Returns the lines about the words of a command."""
    lines = []
    for action in parser._actions:
        names = ", ".join("\\fB%s\\fP" % roff(name) for name in action.option_strings)
        text = action.help % dict(vars(action), prog=parser.prog) if action.help else ""
        lines += [".TP", (names + " " + value_of(action)).strip() or roff(action.dest), marked(text)]
    return lines


def page(name, section, summary, body):
    """Returns a manual page."""
    from tinyknop import __version__

    head = '.TH %s %d "" "tinyknop %s" "tinyknop"' % (name.upper().replace("-", "\\-"), section, __version__)
    made = ['.\\" Made by scripts/man.py from the code: change it there.', head, ".SH NAME"]
    also = "tinyknop(1), tinyknop\\-serve(8), tinyknop.toml(5)"
    return "\n".join([*made, "%s \\- %s" % (roff(name), roff(summary)), *body, ".SH SEE ALSO", also]) + "\n"


def verbatim(text):
    """Returns a text as it stands."""
    lines = [line.replace("\\", "\\e").replace("-", "\\-") for line in text.rstrip("\n").split("\n")]
    return [".nf", *["\\&" + line if line[:1] in (".", "'") else line for line in lines], ".fi"]


def command_page(name, target, summary):
    """Returns (file name, text) of a command's page."""
    module, _, function = target.partition(":")
    title = "tinyknop-" + name
    section = 8 if name in ("serve", "fwknopd") else 1
    parser, usage = told(module, function)
    if parser is None:
        return "%s.%d" % (title, section), page(title, section, summary, [".SH SYNOPSIS", *verbatim(usage)])
    body = [".SH SYNOPSIS", synopsis(parser), ".SH DESCRIPTION", marked(parser.description or summary)]
    body += [".SH OPTIONS", *options(parser)]
    if name == "check":
        live = told(module, function, "--live")[0]
        body += [".SH A RUNNING SET\\-UP", synopsis(live), ".PP", marked(live.description), *options(live)]
        body += [".PP", marked(live.epilog)]
    elif parser.epilog:
        body += [".SH NOTES", marked(parser.epilog)]
    body += [".SH EXIT STATUS", "0 where all went well, 1 where it did not, 2 for words that are not understood."]
    return title + ".1", page(title, 1, summary, body)


def overview():
    """Returns (file name, text) of tinyknop(1)."""
    from tinyknop.host.cli import COMMANDS

    body = [".SH SYNOPSIS", "\\fBtinyknop\\fP \\fICOMMAND\\fP ...", ".SH DESCRIPTION"]
    body.append("Opens a firewall port for a few seconds to whoever sends one signed packet. Commands:")
    for name, _, summary in COMMANDS:
        body += [".TP", "\\fB%s\\fP" % roff(name), "%s. See tinyknop\\-%s." % (roff(summary), roff(name))]
    body += [".SH FILES", ".TP", "\\fI/etc/tinyknop/tinyknop.toml\\fP", "The daemon's configuration, tinyknop.toml(5)."]
    body += [".TP", "\\fI~/.tinyknop/tinyknop.toml\\fP", "The client's targets, tinyknop.toml(5)."]
    body += [".TP", "\\fI/var/lib/tinyknop\\fP", "What the daemon must not forget, and its socket."]
    return "tinyknop.1", page("tinyknop", 1, "single packet authorization for small machines", body)


def closed_over(parser):
    """Returns the values that a parser made by another function holds, by their names."""
    cells = [cell.cell_contents for cell in parser.__closure__ or ()]
    return dict(zip(parser.__code__.co_freevars, cells))


def kind(parser):
    """Returns what a keyword takes, in words."""
    if parser.__name__ in KINDS:
        return KINDS[parser.__name__]
    held = closed_over(parser)
    if "names" in held:
        return ", ".join(held["names"])
    return "%s to %s" % (held.get("low", 0), held["top"])


def shown(default):
    """Returns a default as it would be written in TOML."""
    if default is None or default == () or default == "":
        return ""
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, tuple):
        return ", ".join(map(str, default))
    return str(default)


def keyword_rows(table, block):
    """Returns (name, fwknop's name, kind, default, text) of the keywords that a block describes."""
    texts = about.texts(block)
    rows = []
    for theirs, ours, _, parser, default in table:
        name = ours or theirs.lower()
        if name in texts:
            rows.append((name, theirs or "", kind(parser), shown(default), texts[name]))
    return rows


def daemon_rows():
    """Returns the rows of [daemon], and (name, kind, default) of what only fwknopd.conf has a use for."""
    from tinyknop.settings import KEYWORDS

    rows = keyword_rows(KEYWORDS.table, about.DAEMON)
    known = [row[0] for row in rows]
    others = [row for row in KEYWORDS.table if (row[1] or row[0].lower()) not in known]
    return rows, [(row[0], kind(row[3]), shown(row[4])) for row in others]


def stanza_rows():
    """Returns the rows of [[stanza]]."""
    from tinyknop.stanza import KEYWORDS

    return keyword_rows(KEYWORDS.table, about.STANZA)


def target_rows():
    """Returns the rows of [target.NAME]."""
    from tinyknop.client import RC_NAMES, SETTINGS

    texts = about.texts(about.TARGET)
    theirs = {ours: name for name, ours in RC_NAMES.items()}
    return [(n, theirs.get(n, ""), kind(p), shown(d), texts[n]) for n, (p, d) in SETTINGS.items()]


def comments(path):
    """Returns {option: comment} of the dict OPTIONS of a module: what it says about each beside it."""
    found = {}
    text = path.read_text(encoding="utf-8")
    inside = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "OPTIONS":
            for key in getattr(node.value, "keys", ()):
                inside[key.lineno] = key.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and token.start[0] in inside:
            found[inside[token.start[0]]] = token.string.lstrip("# ")
    return found


def kinds(folder, package, block):
    """Yields (kind, first words of its module, rows of its options) of each module in a folder that has OPTIONS."""
    texts = about.texts(block)
    for path in sorted((ROOT / folder).glob("*.py")):
        module = importlib.import_module(package + path.stem) if path.stem != "__init__" else None
        if not hasattr(module, "OPTIONS"):
            continue
        name = path.stem.replace("_", "-")
        said, shared = comments(path), comments(ROOT / "ports/shared/dialogue.py")
        rows = []
        for option, default in module.OPTIONS.items():
            text = texts.get((name, option)) or said.get(option) or texts.get(("*", option)) or shared.get(option)
            if text is None:
                raise SystemExit("scripts/about.py: %s of %s is missing: say what it is for" % (option, name))
            rows.append((option, "needed" if default is None else shown(default), text))
        summary = module.__doc__.split("\n\n")[0].replace("\n", " ").partition(": ")[2]
        yield name, summary, rows


def table(head, rows):
    """Returns a table in Markdown."""
    lines = ["| %s |" % " | ".join(head), "|" + "---|" * len(head)]
    escaped = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(lines + ["| `%s` | %s |" % (row[0], " | ".join(row[1:])) for row in escaped]) + "\n"


INTRO = """# Configuration

Made by `scripts/man.py` from the tables that the program itself reads by; don't change it here. `tinyknop check FILE`
says what a file means, or file, line and remedy of what is wrong. The file is `/etc/tinyknop/tinyknop.toml` for the
daemon and `~/.tinyknop/tinyknop.toml` for the client. A list is written `["a", "b"]`. fwknop's own files, and JSON made
of any of them by `tinyknop compile`, hold the same words: the second column has fwknop's name where there is one.
"""
CAPTURES = "Where knocks come from, one or more, each with a `kind`."
PORTS = (
    "What a device is told, each with a `kind`, and `via` a carrier where it is not this machine. Stanzas name their "
)
PORTS += "ports; `firewall` is what they use if they name none."
CARRIERS = (
    "How a port's words get to a device, each with a `kind`; this machine needs none. See [routers.md](routers.md)."
)
SECTIONS = (
    ("tinyknop/capture", "tinyknop.capture.", "CAPTURE", "[[capture]]", CAPTURES),
    ("ports", "tinyknop.ports.", "PORT", "[port.NAME]", PORTS),
    ("ports/carriers", "tinyknop.ports.carriers.", "CARRIER", "[carrier.NAME]", CARRIERS),
)


def configuration():
    """Returns the text of docs/configuration.md."""
    head = ("name", "in fwknop's files", "takes", "default", "what it is for")
    daemon, others = daemon_rows()
    parts = [INTRO, "## [daemon]\n", table(head, daemon)]
    parts += ["## [[stanza]]\n", "Who may open what. At least one; the first that grants a packet ends the search.\n"]
    parts.append(table(head, stanza_rows()))
    for folder, package, block, title, text in SECTIONS:
        parts += ["## %s\n" % title, text + "\n"]
        for name, summary, rows in kinds(folder, package, getattr(about, block)):
            parts.append('### kind = "%s"\n' % name)
            parts.append(summary[:1].upper() + summary[1:] + "\n")
            if rows:
                parts.append(table(("option", "default", "what it is for"), rows))
    parts += ["## [watch]\n", "Optional: scores who scans us, by the firewall's log, and can block them.\n"]
    parts.append(table(("option", "what it is for"), watch_rows()))
    parts += ["## [target.NAME]\n", "For the client: `tinyknop knock NAME`. fwknop's `.fwknoprc` has stanzas for it.\n"]
    parts += [table(head, target_rows()), "## Only in fwknopd.conf\n"]
    parts.append(
        "They say there what [[capture]] and [port.NAME] say here; [compatibility.md](compatibility.md) has each.\n"
    )
    parts.append(table(("name", "takes", "default"), others))
    return "\n".join(parts)


def manual():
    """Returns the page about tinyknop.toml."""
    body = [".SH DESCRIPTION", marked("`tinyknop check FILE` says what a file means, or what is wrong with it.")]
    groups = (("[daemon]", daemon_rows()[0]), ("[[stanza]]", stanza_rows()), ("[target.NAME]", target_rows()))
    for title, rows in groups:
        body.append(".SH %s" % roff(title))
        for name, _, takes, default, text in rows:
            body += [".TP", "\\fB%s\\fP = \\fI%s\\fP" % (roff(name), roff(takes))]
            body.append(marked(text + (" (default: %s)" % default if default else "")))
    for folder, package, block, title, _ in SECTIONS:
        body.append(".SH %s" % roff(title))
        for name, summary, rows in kinds(folder, package, getattr(about, block)):
            body += [".SS kind = %s" % roff(name), marked(summary)]
            for option, default, text in rows:
                body += [".TP", "\\fB%s\\fP" % roff(option), marked(text + (" (%s)" % default if default else ""))]
    body.append(".SH [watch]")
    for option, text in watch_rows():
        body += [".TP", "\\fB%s\\fP" % roff(option), marked(text)]
    return "tinyknop.toml.5", page("tinyknop.toml", 5, "configuration of tinyknop", body)


def watch_rows():
    """Returns (option, what it is for) of [watch]."""
    from tinyknop.watch.watcher import OPTIONS

    texts = about.texts(about.WATCH)
    return [(name, texts[name]) for name in OPTIONS if name != "where"]


def stages():
    """Returns the table of docs/troubleshooting.md."""
    from tinyknop.host.stages import ABOUT

    return table(("counter", "what it means", "what to do"), [(stage, *texts) for stage, texts in ABOUT.items()])


def files():
    """Returns {path: text} of all that is made."""
    from tinyknop.host.cli import COMMANDS

    made = {"docs/configuration.md": configuration()}
    pages = [overview(), manual()]
    for name, target, summary in COMMANDS:
        if importlib.util.find_spec(target.partition(":")[0]):
            pages.append(command_page(name, target, summary))
    made.update({"docs/man/" + name: text for name, text in pages})
    path = ROOT / "docs/troubleshooting.md"
    before, _, rest = path.read_text(encoding="utf-8").partition(MARKS[0])
    made["docs/troubleshooting.md"] = before + MARKS[0] + "\n" + stages() + MARKS[1] + rest.partition(MARKS[1])[2]
    return made


def stale(made):
    """Returns the paths that do not hold what they should, and pages that nothing makes any more."""
    wrong = [name for name, text in made.items() if not same(ROOT / name, text)]
    there = ["docs/man/" + path.name for path in (ROOT / "docs/man").glob("*")]
    return wrong + [name for name in there if name not in made]


def same(path, text):
    """Tells whether a file holds a text."""
    try:
        return path.read_text(encoding="utf-8") == text
    except OSError:
        return False


def main():
    """Writes, or checks, all files."""
    made = files()
    old = stale(made)
    if "--check" in sys.argv[1:]:
        print("\n".join("%s: out of date: make man" % name for name in old), end="\n" if old else "")
        return 1 if old else 0
    os.makedirs(ROOT / "docs/man", exist_ok=True)
    for name in old:
        if name in made:
            (ROOT / name).write_text(made[name], encoding="utf-8")
        else:
            (ROOT / name).unlink()
        print(name)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
