"""`make bench`: tinyknop beside the real fwknopd, in one run, on the same packets, measured by the same means.

    bench.py [--out FILE] [WORKLOAD]...

A workload is a file of this folder with TITLE and run(), which returns its section in Markdown. Each replaces only its
own section of docs/bench.md, between marks; the plot beside it and the table in README.md are made from what then
stands there. With --out nothing but FILE, and the plot beside it, is written. One that fails says so; the others go on.
"""

import importlib.util
import os
import platform
import subprocess
import sys
import time
import traceback

import common
import plot

ORDER = "ports flood stanzas hot grants devices micropython rules watch".split()
DOCS, README = os.path.join(common.ROOT, "docs", "bench.md"), os.path.join(common.ROOT, "README.md")
SHORT = (  # section, row, what the README calls it where that differs
    ("ports", "knock to open, median", ""),
    ("ports", "the same while 1,000 are open, median", ""),
    ("ports", "1,000 knocks back to back", ""),
    ("ports", "still open 3 s after their time", ""),
    ("flood", "1 source", "knocks opened under a flood from 1 source"),
    ("flood", "500 sources", "the same, from 500 sources"),
    ("flood", "forged sources", "the same, from forged sources"),
    ("stanzas", "bogus packet, 1,000 stanzas", "CPU per bogus packet, 1,000 users"),
    ("ports", "resident memory after a knock", ""),
    ("ports", "start to first knock accepted", ""),
)
HEAD = "# Measurements\n\n![From knock to opening, and what opens under a flood](bench.svg)\n"
COLUMNS = ("fwknopd", "iptables-nft", "ipset", "ipset, hints required")


def workloads():
    """Returns the names of the workloads that are there, in their order."""
    here = os.path.dirname(os.path.abspath(__file__))
    return [name for name in ORDER if os.path.exists(os.path.join(here, name + ".py"))]


def loaded(name):
    """Returns the module of a workload, by its file: `ports` is the name of a folder, too."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), name + ".py")
    spec = importlib.util.spec_from_file_location("bench_" + name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def about():
    """Returns one paragraph on where this was measured."""
    version = subprocess.run(["fwknopd", "-V"], stdout=subprocess.PIPE).stdout.decode().split(",")[0]
    where = (platform.machine(), platform.release(), os.cpu_count(), platform.python_version(), version)
    return (
        "Measured by `make bench` on %s, Linux %s, %d cores, Python %s, beside %s. Python runs with `-S`, without the "
        "editable install's finder. `python bench/bench.py NAME` measures one section anew." % where
    )


def section(text, name):
    """Returns what stands between the marks of a section, "" where there is none."""
    return text.partition("<!-- %s -->\n" % name)[2].partition("<!-- /%s -->" % name)[0]


def replaced(text, name, new):
    """Returns a text with the section of that name replaced, or added at the end."""
    start, end = "<!-- %s -->\n" % name, "<!-- /%s -->" % name
    before, found, rest = text.partition(start)
    if not found:
        return "%s\n%s%s\n%s\n" % (text, start, new.rstrip("\n"), end)
    return "".join([before, start, new.rstrip("\n"), "\n", end, rest.partition(end)[2]])


def cells(text, name):
    """Returns {row: {column: cell}} of the first table of a section."""
    lines = [line.strip("| ").split(" | ") for line in section(text, name).split("\n") if line.startswith("| ")]
    return {row[0]: dict(zip(lines[0][1:], row[1:])) for row in lines[1:]}


def into_readme(text):
    """Puts the most telling rows between the marks of README.md."""
    rows = []
    for name, title, called in SHORT:
        found = cells(text, name).get(title)
        if found:
            shown = [found.get(column, "").partition(";")[0] for column in COLUMNS]
            rows.append([called or title, *shown])
    where = (
        "The columns after the first are tinyknop with that port; in brackets, how many times better than fwknopd.\n"
        "[docs/bench.md](docs/bench.md) has all, a plot too, and says where and how it was measured.\n"
    )
    new = common.table(["measure", "fwknopd", "iptables-nft", "ipset", "ipset, with hints"], rows) + "\n\n" + where
    write(README, replaced(read(README), "bench", new))


def read(path):
    """Returns the text of a file with marks, or the head of a new one."""
    if not os.path.exists(path):
        return HEAD
    with open(path, encoding="utf-8") as file:
        text = file.read()
    return text if "<!-- " in text else HEAD


def write(path, text):
    """Writes a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main(words):
    """Measures what is asked for, or all; returns the exit status."""
    out = None
    if words[:1] == ["--out"]:
        out, words = words[1], words[2:]
    unknown = [name for name in words if name not in workloads()]
    if unknown:
        raise SystemExit("bench: no workload %s; there are %s" % (unknown[0], ", ".join(workloads())))
    common.prepare()
    text, failed = replaced(read(out or DOCS), "machine", about()), []
    for name in words or workloads():
        began = time.monotonic()
        print("%s" % name, file=sys.stderr, flush=True)
        try:
            workload = loaded(name)
            text = replaced(text, name, "## %s\n\n%s" % (workload.TITLE, workload.run()))
            print(section(text, name), flush=True)
        except Exception:  # whatever it is, the other figures are worth having
            failed.append(name)
            traceback.print_exc()
        print("%s: %.0f s" % (name, time.monotonic() - began), file=sys.stderr, flush=True)
    write(out or DOCS, text)
    write(os.path.splitext(out or DOCS)[0] + ".svg", plot.drawn(cells(text, "ports"), cells(text, "flood")))
    if out is None:
        into_readme(text)
    if failed:
        print("bench: failed: %s" % ", ".join(failed), file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
