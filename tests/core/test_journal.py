"""The journal: what was opened and not closed is there again, whatever a power cut left of the file."""

import os

from tinyknop.errors import Rejected
from tinyknop.grants import Grant, Nat, replaced
from tinyknop.journal import Journal
from tinyknop.lines import PART, SPARE

PATH = (os.getenv("TMPDIR") or "/tmp") + "/tinyknop-test-journal"
OPENINGS = (("tcp", 22), ("udp", 53))
ONE = Grant(1, "192.0.2.7", OPENINGS, 100, 130, "alice's laptop, 50%", None, "0.0.0.0", "192.0.2.7")
NAT = Nat(False, "10.0.0.5", 8443, "masquerade", False, True)
TWO = Grant(2, "2001:db8::7", (("tcp", 443),), 100, 160, "bob", NAT, "2001:db8::1", "2001:db8::9")


def fresh():
    for path in (PATH, PATH + ".new"):
        try:
            os.remove(path)
        except OSError:
            pass
    return Journal(PATH)


def read():
    with open(PATH, "rb") as file:
        return file.read()


def test_open_grants_are_loaded_with_their_ports():
    journal = fresh()
    journal.opened(ONE, ("firewall", "edge router"), False)
    journal.opened(TWO, ("firewall",), True)
    assert Journal(PATH).load() == [(ONE, ("firewall", "edge router")), (TWO, ("firewall",))]


def test_closed_grants_are_gone_and_an_extension_counts():
    journal = fresh()
    journal.opened(ONE, ("firewall",), False)
    journal.opened(TWO, ("firewall",), False)
    later = replaced(TWO, opened=110, until=170)
    journal.opened(later, ("firewall",), False)
    journal.closed(1)
    assert Journal(PATH).load() == [(later, ("firewall",))]


def test_a_missing_file_is_an_empty_journal():
    assert fresh().load() == []


def test_a_torn_last_line_is_ignored_wherever_it_was_torn():
    journal = fresh()
    journal.opened(ONE, ("firewall",), False)
    whole = read()
    journal.opened(TWO, ("firewall",), False)
    both = read()
    for cut in range(len(whole), len(both)):
        with open(PATH, "wb") as file:
            file.write(both[:cut])
        assert Journal(PATH).load() == [(ONE, ("firewall",))], cut


def test_lines_that_are_no_event_are_ignored():
    journal = fresh()
    journal.opened(ONE, ("firewall",), False)
    with open(PATH, "ab") as file:
        file.write(b"\xff\xfe\nopen\nopen 9 nonsense tcp/22 1 2 a - b\nclose x\nshut 1\n\n")
    assert Journal(PATH).load() == [(ONE, ("firewall",))]


def test_rewriting_keeps_what_is_given_and_goes_on_appending():
    journal = fresh()
    journal.opened(ONE, ("firewall",), False)
    journal.rewrite([(TWO, ("firewall",))])
    journal.opened(ONE, ("firewall",), False)
    assert Journal(PATH).load() == [(ONE, ("firewall",)), (TWO, ("firewall",))]


def test_a_journal_that_cannot_be_written_refuses_the_grant():
    journal = Journal("no/such/directory/journal")
    try:
        journal.opened(ONE, ("firewall",), False)
    except Rejected as error:
        assert error.stage == "full"
    else:
        raise AssertionError("accepted")


def test_a_line_cut_short_by_a_full_disk_does_not_spoil_the_next():
    class Full:
        def write(self, data):
            return 5

        def close(self):
            pass

    journal = fresh()
    journal.opened(ONE, ("firewall",), False)
    good, journal._lines._file = journal._lines._file, Full()
    try:
        journal.opened(TWO, ("firewall",), False)
    except Rejected as error:
        assert error.stage == "full"
    good.write(b"open ")
    journal._lines._file = good
    journal.opened(TWO, ("firewall",), False)
    assert [entry[0].id for entry in Journal(PATH).load()] == [1, 2]


def test_it_says_when_it_is_worth_compacting():
    journal = fresh()
    journal._lines._count = SPARE + 3
    assert journal.overgrown(1)
    assert not journal.overgrown(2)
    fresh()


def test_what_is_opened_and_closed_while_the_file_is_written_anew_is_kept():
    journal = fresh()
    many = [replaced(ONE, id=number) for number in range(10, 10 + 2 * PART)]
    journal.opened(ONE, ("firewall",), False)
    parts = journal.renewal([(grant, ("firewall",)) for grant in many])
    next(parts)
    journal.closed(10)
    next(parts)
    journal.opened(TWO, ("firewall",), False)
    assert list(parts) == []
    journal.closed(11)
    assert [grant for grant, _ in Journal(PATH).load()] == [TWO] + many[2:]


def test_writing_anew_again_puts_an_end_to_the_one_before():
    journal = fresh()
    first = journal.renewal([(replaced(ONE, id=number), ()) for number in range(1, 2 * PART + 1)])
    next(first)
    journal.rewrite([(TWO, ("firewall",))])
    assert list(first) == []
    journal.closed(9)
    assert Journal(PATH).load() == [(TWO, ("firewall",))]


def test_a_line_after_one_that_the_process_before_tore_stands_alone():
    with open(PATH, "wb") as file:
        file.write(b"open 1 192.0.2.7 tcp/22 100")
    journal = Journal(PATH)
    assert journal.load() == []
    journal.opened(TWO, ("firewall",), False)
    assert Journal(PATH).load() == [(TWO, ("firewall",))]
