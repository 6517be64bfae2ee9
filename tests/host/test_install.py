"""The shapes in which the package is installed: a wheel, an editable install, a bare checkout. No network."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHOW = "import tinyknop.ports.carriers, tinyknop; print(tinyknop.ports.__file__)"
OFFLINE = ("--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the sources, since setuptools leaves a build/ and an egg-info where it works."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("tinyknop", "ports"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def pip(*words, cwd):
    done = subprocess.run([sys.executable, "-m", "pip", *words], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def ports_file(code, cwd, *words, **env):
    """Returns where a fresh Python finds tinyknop.ports."""
    argv = [sys.executable, *words, "-c", code]
    env = dict({key: os.environ[key] for key in os.environ if key != "PYTHONPATH"}, **env)
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return pathlib.Path(done.stdout.strip())


def test_ports_import_from_a_wheel_that_has_every_module(copy, tmp_path):
    pip("wheel", *OFFLINE, "-w", str(tmp_path), ".", cwd=copy)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    found = ports_file(SHOW, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert found == tmp_path / "site" / "tinyknop" / "ports" / "__init__.py"
    packed = {path.relative_to(tmp_path / "site/tinyknop").as_posix() for path in (tmp_path / "site").rglob("*.py")}
    wanted = {path.relative_to(copy / "tinyknop").as_posix() for path in (copy / "tinyknop").rglob("*.py")}
    wanted |= {path.relative_to(copy).as_posix() for path in (copy / "ports").rglob("*.py")}
    assert packed == wanted


def test_ports_import_from_an_editable_install(copy, tmp_path):
    pip("install", *OFFLINE, "--prefix", str(tmp_path), "--ignore-installed", "-e", ".", cwd=copy)
    (site,) = tmp_path.rglob("site-packages")
    # -S: the editable install of the tests' own environment must not answer instead, its finder has the same name.
    code = "import site; site.addsitedir(%r); " % str(site)
    assert ports_file(code + SHOW, tmp_path, "-S") == copy / "ports" / "__init__.py"


def test_ports_import_from_a_bare_checkout(copy):
    assert ports_file(SHOW, copy) == copy / "ports" / "__init__.py"
