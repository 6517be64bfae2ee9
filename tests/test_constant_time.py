"""No secret is compared but by `crypto.equal`: a walk over every function's syntax tree.

A value is secret by its name, or because an expression with a secret in it was given to its name in the same function.
What may tell it byte by byte is refused: `==`, `in`, an order, `startswith` and its like, a look-up in a dictionary.
The few that are right stand in ALLOWED with the reason. A walk cannot follow a secret through a list that another
function made, nor into C: what really happens is counted in tests/host/test_timing.py.
"""

import ast
import functools
import re

import pytest

from tests.test_architecture import OURS, ROOT

SECRET = re.compile(r"(^|_)(macs?|authenticate|hmac_key|digests?|hints?|secrets?|password|passphrase|token)$")
# In these files a name `key` is a place in a table, or a public key; everywhere else it is a secret.
KEY_OF_A_TABLE = set(
    """ports/carriers/ssh.py ports/firewalld.py ports/ipfw.py ports/nftables.py ports/pf.py ports/shared/ledger.py
    ports/shared/router.py ports/shared/rules.py ports/shared/sets.py ports/shared/stamped.py tinyknop/grants.py
    tinyknop/host/check.py tinyknop/host/metrics.py tinyknop/host/snort.py tinyknop/keeper.py tinyknop/loop.py
    tinyknop/nft.py tinyknop/watch/score.py tinyknop/watch/watcher.py""".split()
)
MAKES = {"mac", "authenticate", "digest", "derived", "hint"}  # what a call to one of these returns is secret
KEEPS = set(
    """a2b_base64 b2a_base64 bytearray bytes enumerate from_base64 from_bytes hex hexlify int list memoryview reversed
    set sorted str to_base64 tuple unpack unpack_from zip""".split()
)
LOOKS = set(
    "startswith endswith find rfind index rindex count get pop setdefault remove partition __eq__ __contains__".split()
)

CONFIGURED = "both sides are the owner's own configuration, read before any packet is"
OWN_BYTES = "the sender's own bytes against another spelling of them, once the HMAC holds"
SEEN = "a digest of a packet that its sender knows, and that an HMAC key has passed"
ALLOWED = {
    ("tinyknop/gate.py", "keys.key in gpg"): CONFIGURED,
    ("tinyknop/gate.py", "kind != last"): CONFIGURED,
    ("tinyknop/gate.py", "same not in found"): CONFIGURED,
    ("tinyknop/gate.py", "found[same]"): CONFIGURED,
    ("tinyknop/gate.py", "family.mac not in (None, _never)"): "which function makes it, not what it makes",
    ("tinyknop/gate.py", "digests[0] not in stored"): SEEN,
    ("tinyknop/gate.py", "digests[1] not in stored"): SEEN,
    ("tinyknop/gate.py", "digest not in stored"): SEEN,
    ("tinyknop/client.py", "spa.to_base64(key) != bare"): "a key against its own other spelling",
    ("tinyknop/host/fwkeys.py", "key == hmac_key"): CONFIGURED,
    ("tinyknop/stanza.py", "data not in (exact, exact + b'=' * (-len(exact) % 4))"): CONFIGURED,
    ("tinyknop/stanza.py", "hmac_key in (key, self.gpg and self.gpg.password.encode())"): CONFIGURED,
    ("tinyknop/stanza.py", "len(material) > longest"): CONFIGURED,
    ("tinyknop/stanza.py", "places[name]"): CONFIGURED,
    ("tinyknop/ready.py", "value[name]"): CONFIGURED,
    ("tinyknop/console.py", "line.endswith(end)"): "how a router's prompt for a password ends",
    ("ports/wireguard.py", "c in LETTERS + '/'"): "the characters of a public key",
    ("tinyknop/hints.py", "self.table.get(word, ())"): "ours is put into the table; see docs/hints.md for who finds it",
    ("tinyknop/replay.py", "digest not in self._seen"): SEEN,
    ("tinyknop/replay.py", "digest in self._seen"): SEEN,
    ("tinyknop/replay.py", "self._seen.get(digest)"): SEEN,
    ("tinyknop/replay.py", "self._seen[digest]"): SEEN,
    ("tinyknop/replay.py", "other._seen[digest]"): SEEN,
}
ALLOWED_FILES = {
    "tinyknop/crypto/aes.py": "plain AES looks up tables by secret bytes, as its head and SECURITY.md say",
}


def name_of(node):
    return getattr(node, "attr", getattr(node, "id", ""))


def secret(node, tainted, plain_key):
    """Tells whether an expression is secret, given the names of its function that are."""
    if isinstance(node, ast.Call):
        name = name_of(node.func)
        method = isinstance(node.func, ast.Attribute) and secret(node.func.value, tainted, plain_key)
        within = any(secret(part, tainted, plain_key) for part in node.args)
        return name in MAKES or method or (within and name in KEEPS)
    if isinstance(node, (ast.Name, ast.Attribute)):
        name = name_of(node)
        if SECRET.search(name) or name == "key" and not plain_key:
            return True
        return isinstance(node, ast.Name) and name in tainted
    if isinstance(node, (ast.Constant, ast.Compare, ast.BoolOp, ast.Lambda)):
        return False
    return any(secret(part, tainted, plain_key) for part in ast.iter_child_nodes(node))


def given(function):
    """Yields (where it goes, expression) for everything in a function that gives a name a value."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                yield from pairs(target, node.value)
        elif isinstance(node, (ast.AugAssign, ast.NamedExpr)):
            yield node.target, node.value
        elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
            yield node.target, node.iter


def pairs(target, value):
    """Yields what `a, b = x, y` gives to each name; the whole of a value that is not written out like that."""
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for one, other in zip(target.elts, value.elts):
            yield from pairs(one, other)
    else:
        yield target, value


def tainted_in(function, plain_key):
    """Returns the names of a function that something secret was given to."""
    found, before = set(), -1
    left = [pair for pair in given(function) if not isinstance(pair[0], (ast.Attribute, ast.Subscript))]
    while len(found) != before:
        before = len(found)
        for target, value in left:
            if secret(value, found, plain_key):
                found |= {part.id for part in ast.walk(target) if isinstance(part, ast.Name)}
    return found


def telling(node, known):
    """Tells whether a node compares a secret, or looks something up by it."""
    if isinstance(node, ast.Compare):
        sides = [node.left] + node.comparators
        for operation, one, other in zip(node.ops, sides, sides[1:]):
            free = isinstance(operation, (ast.Is, ast.IsNot)) or {type(one), type(other)} & {ast.Constant}
            if not free and (known(one) or known(other)):
                return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LOOKS:
        return any(known(part) for part in node.args)
    return isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load) and known(node.slice)


def finds(path, text):
    """Returns [(path, expression)] of what may tell a secret."""
    plain_key = path in KEY_OF_A_TABLE
    found = []
    for function in ast.walk(ast.parse(text)):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            tainted = tainted_in(function, plain_key)
            for node in ast.walk(function):
                if telling(node, lambda part: secret(part, tainted, plain_key)):  # noqa: B023
                    found.append((path, ast.unparse(node)))
    return found


@functools.lru_cache(None)
def all_finds():
    return [find for path in OURS for find in finds(path, (ROOT / path).read_text(encoding="utf-8"))]


def test_no_secret_is_compared_but_by_equal():
    wrong = [find for find in all_finds() if find not in ALLOWED and find[0] not in ALLOWED_FILES]
    assert wrong == []


def test_what_is_allowed_is_still_there():
    found = all_finds()
    assert [row for row in ALLOWED if row not in found] == []
    assert [path for path in ALLOWED_FILES if path not in dict(found)] == []


# A line of the product, and how a hurried hand might spell it.
HURRIED = (
    ("tinyknop/gate.py", "not equal(family.mac(text), wanted)", "family.mac(text) != wanted"),
    ("tinyknop/gate.py", "not equal(family.mac(text), wanted)", "not wanted.startswith(family.mac(text))"),
    ("tinyknop/gate.py", "not equal(family.mac(text), wanted)", "family.mac(text) not in (wanted,)"),
    ("tinyknop/seal.py", "not crypto.equal(keys.mac(text), data[cut:])", "keys.mac(text) != data[cut:]"),
    ("tinyknop/seal.py", "not crypto.equal(keys.mac(text), data[cut:])", "keys.mac(text)[:8] < data[cut:]"),
    ("tinyknop/spa.py", "crypto.equal(to_base64(crypto.digest(name, covered)), text)", "crypto.digest(1) == text"),
)


@pytest.mark.parametrize("path, ours, theirs", HURRIED)
def test_a_hurried_compare_in_the_product_is_found(path, ours, theirs):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert ours in text
    new = finds(path, text.replace(ours, theirs))
    assert set(new) - set(finds(path, text)), theirs


LEAKS = (
    "for a, b in zip(family.mac(text), wanted):\n  if a != b: return False",
    "right = keys.mac(text); part = right[:4]\n return part == data[:4]",
    "right = to_base64(mac(text))\n return any(x == y for x, y in zip(right, data))",
    "state = keys.mac(text)\n for i in range(9):\n  if state[i] != data[i]: return False",
    "if (found := mac(text)) == data: return True",
    "return {mac(text): 1}.get(mac(data))",
    "return known[mac(text)]",
    "return self.hmac_key == other",
    "return keys.key.hex() == text",
    "return data in [one.key for one in every]",
    "return hint(key, stamp) == data[6:9]",
    "return data.endswith(self.secret)",
)


@pytest.mark.parametrize("body", LEAKS)
def test_a_leak_is_found(body):
    assert finds("tinyknop/new.py", "def f(self, text, data):\n " + body + "\n"), body


FINE = (
    "return equal(mac(text), data)",
    "return len(self.key) == 32 or self.key is None",
    "return mac(text) and size == len(mac(text))",
    "name = keys.mode\n return name == mode",
)


@pytest.mark.parametrize("body", FINE)
def test_what_tells_nothing_is_not_found(body):
    assert not finds("tinyknop/new.py", "def f(self, text, data):\n " + body + "\n"), body


def test_the_comparison_itself_has_no_early_end():
    """`equal` of `small` is the only one that is ours: one loop over all bytes, and nothing in it but sums."""
    tree = ast.parse((ROOT / "tinyknop/crypto/small.py").read_text(encoding="utf-8"))
    [ours] = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "equal"]
    [loop] = [node for node in ast.walk(ours) if isinstance(node, (ast.For, ast.While))]
    branches = (ast.If, ast.IfExp, ast.BoolOp, ast.Compare, ast.Return, ast.Break, ast.Continue, ast.Try, ast.Raise)
    assert [node for node in ast.walk(loop) if isinstance(node, branches)] == []
    assert isinstance(ours.body[-1], ast.Return)
