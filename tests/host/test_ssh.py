"""The carrier ssh beside other users of the machine; the rest is in tests/core/test_carriers.py and tests/real."""

import os
import stat

from tinyknop.ports.carriers import ssh

from tinyknop.loop import Loop

SPY = """#!/bin/sh
for word; do
    case $word in UserKnownHostsFile=*) echo "${word#*=}"; stat -c %%a "$(dirname "${word#*=}")" ;; esac
done > %s
"""


def test_the_file_for_a_strangers_key_is_in_a_folder_of_our_own(tmp_path):
    """Its name is in ssh's words, so in a folder of everybody's another user could put a key there first."""
    note, program = tmp_path / "note", tmp_path / "ssh"
    program.write_text(SPY % note)
    program.chmod(0o755)
    known = str(tmp_path / "known")
    open(known, "w").close()
    before = os.umask(0)
    try:
        options = {
            "profile": "shell",
            "host": "192.0.2.1",
            "user": "root",
            "binary": str(program),
            "known_hosts": known,
            "where": "t.toml:1",
        }
        said = Loop().run_until(ssh.Carrier("edge", options).stranger())
    finally:
        os.umask(before)
    path, mode = note.read_text().split()
    assert "host key of 192.0.2.1" in said
    assert int(mode, 8) & (stat.S_IRWXG | stat.S_IRWXO) == 0
    assert not os.path.exists(os.path.dirname(path))
