"""A stanza of access.conf goes by its number: at the next start the number may be another stanza's."""

from tinyknop import config

STANZA = """SOURCE ANY
KEY a_key_of_number_%d
HMAC_KEY an_hmac_key_of_number_%d
CMD_CYCLE_OPEN /bin/open %d $SRC
CMD_CYCLE_CLOSE /bin/close %d $SRC
CMD_CYCLE_TIMER 60
"""


def ports(tmp_path, numbers):
    """Returns the tables of the ports of cycles, by name, for stanzas of these numbers in this order."""
    access, conf = tmp_path / "access.conf", tmp_path / "fwknopd.conf"
    access.write_text("\n".join(STANZA % ((number,) * 4) for number in numbers))
    conf.write_text("FWKNOP_RUN_DIR %s;\nACCESS_FILE %s;\n" % (tmp_path, access))
    for path in (access, conf):
        path.chmod(0o600)
    settings, _ = config.load(str(conf))
    found = {name: table for name, table in settings.ports.items() if name.startswith("cycle ")}
    return {name: (table["open"], table["close"]) for name, table in found.items()}


def test_what_the_journal_says_of_a_command_is_never_taken_for_another(tmp_path):
    """The open command that still waited would be another stanza's, and open what the knocker has no key for."""
    before, after = ports(tmp_path, (1, 2, 3)), ports(tmp_path, (1, 3))
    assert len(before) == 3 and len(after) == 2
    assert [name for name in after if name in before and after[name] != before[name]] == []
