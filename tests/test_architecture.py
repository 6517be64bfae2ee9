"""The architecture diagram, as a test: who imports whom, what MicroPython can run, how large things may grow."""

import ast
import os
import pathlib
import subprocess

import pytest

from scripts.stage import CPYTHON_ONLY

ROOT = pathlib.Path(__file__).resolve().parents[1]

# A module imports from its own line and from those above it, never in a circle.
LAYERS = (
    ("errors", "compat", "log"),
    ("crypto", "net", "netlink"),
    ("keywords", "nft", "conntrack", "web"),
    ("spa", "seal", "hints", "stanza", "settings"),
    ("ready", "config", "gate", "rules", "replay", "grants", "lines"),
    ("journal", "loop", "child", "child_small", "capture", "console", "watch"),
    ("ports", "worker", "blind", "workers", "control", "says"),
    ("keeper",),
    ("desk",),
    ("daemon", "client"),
    ("host", "__main__"),
)
# firewalld's direct rules are iptables' own, said through firewall-cmd.
ONE_OVER_ANOTHER = {("ports/firewalld.py", "tinyknop.ports.iptables")}
# The session of the carriers serial and ssh, which is no port either; a pin's pulse has an end.
MAY_WAIT = {("ports/shared/dialogue.py", "tinyknop.loop"), ("ports/gpio.py", "tinyknop.loop")}
FOR_PORTS = {"errors", "compat", "log", "console", "net", "netlink"}
FOR_CARRIERS = FOR_PORTS | {"loop", "child", "child_small", "nft", "conntrack"}
SANS_IO = ("spa", "seal", "stanza", "gate", "rules", "hints", "grants", "netlink", "console")
OUTSIDE_WORLD = {"socket", "select", "time", "os", "io", "termios", "subprocess", "threading"}
CLOCK_AND_DISK = {"monotonic", "wall", "fsync", "boot_wall"}
# Packet fills in an absent timestamp, as the public API promises.
MAY_ASK_THE_TIME = {"spa"}

IN_BOTH_PYTHONS = set(
    "sys os time struct binascii hashlib socket select errno json collections heapq array gc uctypes termios".split()
)
# Not even behind a try: each costs a router memory and start-up time.
HEAVY = set(
    "typing dataclasses enum functools itertools subprocess logging argparse ipaddress contextlib asyncio pathlib "
    "pyroute2 Crypto serial".split()
)
LACKING_METHODS = set(
    "zfill ljust rjust removeprefix removesuffix isalnum isascii expandtabs casefold fullmatch findall groupdict "
    "iter_unpack _replace _asdict bit_length".split()
)
LACKING_ERRORS = set(
    "FileNotFoundError FileExistsError BlockingIOError TimeoutError ConnectionError ConnectionRefusedError "
    "BrokenPipeError PermissionError InterruptedError ProcessLookupError ChildProcessError".split()
)
LACKING_KEYWORDS = {"print": {"flush"}, "open": {"newline", "opener"}, "dumps": {"indent", "sort_keys"}}
LACKING_KEYWORDS["namedtuple"] = {"defaults"}
# This holds the branch for CPython beside the one for MicroPython; it is still imported and compiled there.
BOTH_BRANCHES = {"tinyknop/compat.py"}

# The design asks for 3,500 lines of core. What every daemon loads stands above that: all kinds of message, hints, the
# tables of fwknop's variables with their remedies, a journal and workers that survive whatever fails. What only some
# configurations load comes on top, and is listed here, so that neither can grow unseen.
ON_DEMAND = tuple(
    """blind capture/fair capture/http capture/nfqueue capture/pcap capture/tcp capture/udp child_small client
    config/compiled conntrack console crypto/aes crypto/md5 crypto/sha1 crypto/sha3 crypto/sha512 crypto/small desk
    nft ready web""".split()
)
CORE_LINES, ON_DEMAND_LINES, MODULE_LINES, PORT_LINES, FUNCTION_LINES = 4470, 2490, 300, 150, 40
# A port whose device needs more room, with the reason.
LARGER_PORTS = {
    # Nine kinds of set for each family, and the owner's own chains, in which they have to stand.
    "ports/nftables.py": 330,
    # Two families, sets that the owner made, and thousands of elements at a time.
    "ports/ipset.py": 190,
}


def python_files(*folders):
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


OURS = python_files("tinyknop", "ports")
PORTABLE = [path for path in OURS if not path.startswith(CPYTHON_ONLY)]
CORE = [path for path in OURS if path.startswith("tinyknop/") and path.split("/")[1] not in ("host", "watch")]


def tree_of(path):
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), path)


def dotted(path):
    """Returns the name a file is imported by: ports/ipset.py is tinyknop.ports.ipset."""
    parts = path[: -len(".py")].split("/")
    parts = ["tinyknop", *parts] if parts[0] == "ports" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {dotted(path): path for path in OURS}


def absolute(node, path):
    """Returns the full name of the module that a `from ... import` names."""
    if not node.level:
        return node.module
    package = dotted(path).split(".")
    package = package if path.endswith("__init__.py") else package[:-1]
    base = package[: len(package) - node.level + 1]
    return ".".join(base + ([node.module] if node.module else []))


def imported(path, tree=None):
    """Yields (module, names taken from it) for every import in a file, those inside functions too."""
    for node in ast.walk(tree or tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node, path)
            submodules = [alias.name for alias in node.names if "%s.%s" % (module, alias.name) in NAMES]
            for name in submodules:
                yield "%s.%s" % (module, name), ()
            taken = [alias.name for alias in node.names if alias.name not in submodules]
            if taken or not submodules:
                yield module, tuple(taken)


def part(module):
    """Returns the name in LAYERS that a module of ours belongs to; "" for the package itself."""
    return (module.split(".") + [""])[1]


def ours(path):
    return [module for module, _ in imported(path) if module.split(".")[0] == "tinyknop"]


def rank(name):
    return [name in layer for layer in LAYERS].index(True)


def code_lines(path):
    """Counts lines of code: no blank lines, comments or docstrings."""
    text = (ROOT / path).read_text(encoding="utf-8")
    skipped = set()
    for node in ast.walk(ast.parse(text)):
        body = getattr(node, "body", None)
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
            skipped.update(range(first.lineno, first.end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(1 for number, line in lines if number not in skipped and line.strip() and line.strip()[0] != "#")


def test_every_module_has_its_place_in_the_diagram():
    placed = {name for layer in LAYERS for name in layer} | {""}
    assert [path for path in OURS if part(dotted(path)) not in placed] == []


def test_imports_point_one_way():
    wrong = []
    for path in OURS:
        mine = part(dotted(path))
        if mine in ("", "ports"):
            continue
        for module in ours(path):
            name = part(module)
            if name != mine and (name == "" and mine not in ("host", "__main__") or name and rank(name) > rank(mine)):
                wrong.append("%s imports %s" % (path, module))
    assert wrong == []


def test_no_two_modules_import_each_other_in_a_circle():
    reaches = {}
    for name, path in NAMES.items():
        # A package and what is inside it are one part: a submodule may take a table from its own __init__.
        reaches[name] = {
            module for module in ours(path) if module in NAMES and not (name + ".").startswith(module + ".")
        }
    grown = True
    while grown:
        grown = False
        for targets in reaches.values():
            more = set().union(*(reaches[target] for target in targets)) - targets if targets else set()
            grown = grown or bool(more)
            targets |= more
    assert [name for name, targets in reaches.items() if name in targets] == []


def test_ports_import_only_what_a_port_may_and_never_one_another():
    wrong = []
    for path in python_files("ports"):
        allowed = FOR_CARRIERS if path.startswith("ports/carriers/") else FOR_PORTS
        for module in ours(path):
            own_package = path.endswith("__init__.py") and module.startswith(dotted(path))
            shared = module.startswith("tinyknop.ports.shared") or (path, module) in ONE_OVER_ANOTHER | MAY_WAIT
            if part(module) not in allowed and not own_package and not shared:
                wrong.append("%s imports %s" % (path, module))
    assert wrong == []


@pytest.mark.parametrize("name", SANS_IO)
def test_sans_io_modules_touch_no_socket_clock_or_file(name):
    path = "tinyknop/%s.py" % name
    touched = {module for module, _ in imported(path)} & OUTSIDE_WORLD
    banned = {"open"} | (set() if name in MAY_ASK_THE_TIME else CLOCK_AND_DISK)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned:
            touched.add(node.func.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "compat":
            touched.update({node.attr} & banned)
    assert touched == set()


def guarded(body, certain=True):
    """Yields (statement, certain) of a module's own level: certain is False behind a try or an if."""
    for node in body:
        yield node, certain
        if isinstance(node, (ast.If, ast.Try)):
            inner = node.body + node.orelse + getattr(node, "finalbody", [])
            for handler in getattr(node, "handlers", []):
                inner = inner + handler.body
            yield from guarded(inner, False)


@pytest.mark.parametrize("path", PORTABLE)
def test_portable_modules_import_at_their_head_only_what_micropython_has(path):
    wrong = []
    for node, certain in guarded(tree_of(path).body):
        if not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        for module, _ in imported(path, ast.Module([node], [])):
            top = module.split(".")[0]
            if top in HEAVY or (certain and top not in IN_BOTH_PYTHONS | {"tinyknop"}):
                wrong.append("%d: %s" % (node.lineno, module))
    assert wrong == []


def forbidden(node):
    """Returns what MicroPython cannot run about a node of the syntax tree, or None."""
    kind = type(node).__name__
    if kind in ("Match", "TryStar", "TypeAlias"):
        return kind
    if isinstance(node, ast.arguments) and node.posonlyargs:
        return "positional-only parameters"
    if isinstance(node, ast.Raise) and node.cause is not None:
        return "raise from"
    if isinstance(node, ast.Slice) and node.step is not None:
        return "slice with a step"
    if isinstance(node, ast.Dict) and None in node.keys:
        return "** in a dict"
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)) and isinstance(node.ctx if kind != "Set" else None, ast.Load):
        return "* in a list" if any(isinstance(item, ast.Starred) for item in node.elts) else None
    if isinstance(node, ast.ClassDef) and node.keywords:
        return "keywords of a class"
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
        return "__future__"
    if isinstance(node, ast.Delete) and any(
        isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Slice) for target in node.targets
    ):
        return "del of a slice"
    return None


def lacking(node):
    """Returns the method, keyword or exception a node uses that MicroPython has not, or None."""
    if isinstance(node, ast.Name) and node.id in LACKING_ERRORS:
        return node.id
    if not isinstance(node, ast.Call):
        return None
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    keywords = {keyword.arg for keyword in node.keywords}
    if isinstance(node.func, ast.Attribute) and name in LACKING_METHODS:
        return "." + name
    if name in ("from_bytes", "to_bytes") and (keywords or len(node.args) < 2):
        return name + " without a positional byte order"
    return "%s(%s=)" % (name, keywords) if keywords & LACKING_KEYWORDS.get(name, set()) else None


@pytest.mark.parametrize("path", PORTABLE)
def test_portable_modules_use_only_what_micropython_has(path):
    wrong = []
    for node in ast.walk(tree_of(path)):
        found = forbidden(node) or (None if path in BOTH_BRANCHES else lacking(node))
        if found:
            wrong.append("%s: %s" % (getattr(node, "lineno", "?"), found))
    assert wrong == []


def test_core_stays_small():
    on_demand = ["tinyknop/%s.py" % name for name in ON_DEMAND]
    assert [path for path in on_demand if path not in CORE] == []
    assert sum(code_lines(path) for path in CORE if path not in on_demand) <= CORE_LINES
    assert sum(map(code_lines, on_demand)) <= ON_DEMAND_LINES


def test_no_module_or_port_outgrows_its_figure():
    limits = {path: MODULE_LINES for path in OURS}
    ports = [path for path in OURS if path.startswith("ports/") and path.count("/") == 1]
    limits.update({path: LARGER_PORTS.get(path, PORT_LINES) for path in ports})
    sizes = [(path, code_lines(path), limit) for path, limit in limits.items()]
    assert [row for row in sizes if row[1] >= row[2]] == []


def test_no_function_is_longer_than_forty_lines():
    long = []
    for path in OURS + python_files("scripts", "tests", "bench"):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = node.end_lineno - node.lineno + 1
                if length > FUNCTION_LINES:
                    long.append("%s:%d %s has %d lines" % (path, node.lineno, node.name, length))
    assert long == []


def test_every_module_says_what_it_is_for():
    assert [path for path in OURS if not ast.get_docstring(tree_of(path))] == []


def test_every_package_is_named_in_pyproject():
    text = (ROOT / "pyproject.toml").read_text()
    packages = [name for name, path in NAMES.items() if path.endswith("__init__.py")]
    assert [name for name in packages if '    "%s",\n' % name not in text] == []


def all_files():
    """Returns the repository's files: tracked or about to be, by git; by a walk where there is no git."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True)
        return [ROOT / os.fsdecode(name) for name in done.stdout.split(b"\0") if name]
    except (OSError, subprocess.CalledProcessError):
        hidden = {".git", ".venv", "build", "__pycache__"}
        return [path for path in ROOT.rglob("*") if not hidden & set(path.parts)]


def test_repository_stands_alone():
    elsewhere = (b"/" + b"work/", b".." + b"/shared")
    files = [path for path in all_files() if path.is_file()]
    assert [str(path) for path in files if any(text in path.read_bytes() for text in elsewhere)] == []
