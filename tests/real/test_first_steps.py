"""docs/first-steps.md is what happens: its commands, as they stand there, on two fresh Debian systems."""

import os
import re
import subprocess

import pytest

from tests.real.machine import ROOT, Machine, joined

PAGE = os.path.join(ROOT, "docs", "first-steps.md")
MOST = 10
PROMPT = re.compile(r"root@(gate|laptop):~# (.*)")
# What a fresh clone would hold, as far as the page uses it.
TREE = ("tinyknop", "ports", "boards", "scripts", "docs", "pyproject.toml", "README.md", "SECURITY.md", "LICENSE")


def steps():
    """Returns [(machine, command, lines that it prints)] of the page's transcript."""
    found = []
    with open(PAGE) as file:
        blocks = file.read().split("```\n")[1::2]
    for line in "".join(blocks).splitlines():
        prompt = PROMPT.fullmatch(line)
        if prompt:
            found.append((prompt.group(1), prompt.group(2), []))
        else:
            found[-1][2].append(line)
    return found


def test_it_takes_no_more_than_ten_commands():
    assert 0 < len(steps()) <= MOST


def test_the_readme_alone_has_all_of_them_in_this_order():
    with open(os.path.join(ROOT, "README.md")) as file:
        lines = [line.partition("  #")[0].rstrip() for line in file]
    wanted = ["root@%s:~# %s" % (machine, command) for machine, command, _ in steps()]
    assert [line for line in lines if line.startswith("root@")] == wanted


@pytest.fixture
def machines():
    """Two machines as the page supposes them: names, a checkout, and a log-in by ssh."""
    with Machine("gate") as gate, Machine("laptop") as laptop:
        joined(gate, laptop)
        pack = ["tar", "--exclude=__pycache__", "-C", ROOT, "-cf", "-", *TREE]  # which other tests write to meanwhile
        packed = subprocess.run(pack, check=True, capture_output=True).stdout
        argv = gate.inside("tar", "--no-same-owner", "-C", "/root/tinyknop", "-xf", "-")
        gate.say("mkdir tinyknop")
        subprocess.run(argv, input=packed, check=True)
        for machine in (gate, laptop):
            machine.say("printf '192.0.2.1 gate\\n192.0.2.2 laptop\\n' >> /etc/hosts")
        laptop.say("ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519")
        gate.say("mkdir -p -m 700 .ssh; cat > .ssh/authorized_keys", text=laptop.say("cat .ssh/id_ed25519.pub"))
        laptop.say("ssh-keyscan gate > .ssh/known_hosts 2>/dev/null")
        yield {"gate": gate, "laptop": laptop}


def test_the_transcript_is_what_happens(machines):
    connect = "timeout 1 bash -c 'head -c 3 < /dev/tcp/gate/22'"
    assert "SSH" in machines["laptop"].say(connect)
    for name, command, wanted in steps():
        if "knock" in command:  # the door is shut, or there would be nothing to show
            assert "SSH" not in machines["laptop"].say(connect, check=False)
        said = machines[name].say(command).splitlines()
        shown = [line for line in wanted if line != "..."]
        assert [line for line in said if line in shown] == shown, "%s printed:\n%s" % (command, "\n".join(said))
        if "..." not in wanted:
            assert said == shown, command
    for machine in machines.values():  # a package for each, and no error on the way
        assert "ii " in machine.say("dpkg -l tinyknop")
