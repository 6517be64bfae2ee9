"""The Debian package: installed, upgraded, removed and purged by dpkg in a Debian of its own."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.need import need
from tests.real.machine import ROOT, Machine, package

UNIT = "tinyknop.service"


@pytest.fixture(scope="module")
def deb():
    need("dpkg-deb")
    path = package()
    yield path
    shutil.rmtree(os.path.dirname(path))


def control(deb, field):
    return subprocess.run(["dpkg-deb", "-f", deb, field], capture_output=True, text=True, check=True).stdout.strip()


def test_the_same_tree_gives_the_same_bytes(deb, tmp_path):
    env = dict(os.environ, SOURCE_DATE_EPOCH="1700000000")
    made = []
    for number in range(2):
        argv = [sys.executable, os.path.join(ROOT, "scripts", "deb.py"), str(tmp_path / str(number))]
        path = subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout.strip()
        with open(path, "rb") as file:
            made.append(file.read())
    assert made[0] == made[1]


def test_it_holds_every_module_and_nothing_that_was_compiled(deb):
    listed = subprocess.run(["dpkg-deb", "-c", deb], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    assert {row[1] for row in rows} == {"root/root"}
    paths = {row[5][2:] for row in rows}
    base = "usr/lib/python3/dist-packages/tinyknop/"
    for folder, inside in (("tinyknop", ""), ("ports", "ports/")):
        for where, _, names in os.walk(os.path.join(ROOT, folder)):
            if "__pycache__" not in where:
                part = os.path.relpath(where, os.path.join(ROOT, folder))
                wanted = {
                    base + inside + os.path.normpath(os.path.join(part, name)) for name in names if name[0] != "."
                }
                assert wanted - paths == set()
    assert [path for path in paths if "__pycache__" in path or path.endswith(".pyc")] == []
    assert control(deb, "Architecture") == "all" and "python3" in control(deb, "Depends")


def test_shell_scripts_and_unit_are_clean(tmp_path):
    scripts = [os.path.join(ROOT, "boards", "debian", name) for name in ("postinst", "prerm", "postrm")]
    subprocess.run([need("shellcheck"), *scripts], check=True)
    unit = shutil.copy(os.path.join(ROOT, "boards", "systemd", UNIT), tmp_path)
    with open(unit) as file:
        text = file.read().replace("/usr/bin/tinyknop", "/bin/true")
    with open(unit, "w") as file:
        file.write(text)
    done = subprocess.run([need("systemd-analyze"), "verify", unit], capture_output=True, text=True)
    assert UNIT not in done.stdout + done.stderr, done.stderr
    profile = os.path.join(ROOT, "boards", "systemd", "tinyknop.apparmor")
    done = subprocess.run([need("apparmor_parser"), "-Q", "-K", profile], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_installed_started_upgraded_removed_and_purged(deb):
    with Machine("gate") as gate:
        gate.copy_in(deb, "/root/tinyknop.deb")
        gate.say("dpkg -i tinyknop.deb")
        assert gate.say("tinyknop --version").strip() == "tinyknop " + control(deb, "Version")
        assert gate.say("systemctl is-active %s; true" % UNIT).strip() == "inactive"
        said = gate.say("systemctl start %s; tinyknop serve" % UNIT, check=False)
        assert "alice.key is not there: make it with `tinyknop keygen -o FILE`" in said
        gate.say("tinyknop keygen -o /etc/tinyknop/alice.key && chown tinyknop /etc/tinyknop/alice.key")
        gate.say("systemctl reset-failed; systemctl enable --now " + UNIT)
        pid = gate.say("systemctl show -P MainPID " + UNIT)
        assert "stanza alice" in gate.say("tinyknop check /etc/tinyknop/tinyknop.toml")
        gate.say("echo '# mine' >> /etc/tinyknop/tinyknop.toml && dpkg -i tinyknop.deb")
        assert "# mine" in gate.say("cat /etc/tinyknop/tinyknop.toml")
        assert gate.say("systemctl is-active " + UNIT).strip() == "active"
        assert gate.say("systemctl show -P MainPID " + UNIT) != pid
        # Who has moved it elsewhere can still upgrade.
        gate.say("rm /etc/tinyknop/tinyknop.toml && dpkg -i tinyknop.deb")
        gate.say("dpkg -r tinyknop")
        assert gate.say("systemctl is-active %s; true" % UNIT).strip() == "inactive"
        assert "nothing" in gate.say("ls /usr/lib/python3/dist-packages/tinyknop /usr/bin/tinyknop || echo nothing")
        assert "/var/lib/tinyknop/digest.cache" in gate.say("ls /var/lib/tinyknop/digest.cache")
        gate.say("dpkg -P tinyknop")
        left = gate.say("ls /var/lib/tinyknop 2>&-; getent passwd tinyknop; stat -c '%n %U %a' /etc/tinyknop/*")
        assert left == "/etc/tinyknop/alice.key root 600\n"  # nobody else may have a copy of that
