"""The journal: what was opened and not closed is there again, whatever a power cut left of the file."""

import os

from tinyknop import compat, log
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


def test_what_has_begun_is_known_to_the_next_process_until_it_is_asked_for_again_or_closed():
    journal = fresh()
    for number in (1, 2, 3):
        journal.opened(replaced(ONE, id=number), ("door", "edge router"), False)
        journal.begins(number, "edge router", OPENINGS[:1])
    journal.begins(1, "edge router", OPENINGS[1:])
    journal.begins(1, "edge router", OPENINGS[1:])  # twice is once
    journal.begins(1, "door", OPENINGS)
    journal.opened(replaced(ONE, id=2, until=140), ("door", "edge router"), False)
    journal.closed(3)
    wanted = {1: {"edge router": OPENINGS, "door": OPENINGS}}
    again = Journal(PATH)
    assert [entry[0].id for entry in again.load()] == [1, 2]
    assert again.begun == journal.begun == wanted
    again.rewrite(again.load())
    last = Journal(PATH)
    assert len(last.load()) == 2 and last.begun == wanted
    assert read().count(b"begun") == 2


def test_what_begins_while_the_file_is_written_anew_is_kept():
    journal = fresh()
    many = [replaced(ONE, id=number) for number in range(1, 2 * PART)]
    for one in many[:3]:
        journal.opened(one, ("door",), False)
    journal.begins(1, "door", OPENINGS)
    journal.begins(2, "door", OPENINGS)
    parts = journal.renewal([(one, ("door",)) for one in many])
    next(parts)
    journal.begins(3, "door", OPENINGS)
    journal.opened(replaced(ONE, until=150), ("door",), False)
    assert len(list(parts)) >= 1
    again = Journal(PATH)
    assert len(again.load()) == len(many)
    assert again.begun == {2: {"door": OPENINGS}, 3: {"door": OPENINGS}}


def test_where_the_note_cannot_be_written_nothing_may_begin():
    journal = Journal("no/such/directory/journal")
    kept, log.sink = log.sink, lambda level, text: said.append(text)
    said = []
    try:
        assert not journal.begins(1, "door", OPENINGS)
    finally:
        log.sink = kept
    assert journal.begun == {} and len(said) == 1 and "no/such" in said[0]


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
        file.write(b"\xff\xfe\nopen\nbegun\nbegun 1\nbegun 1 door tcp/\nbegun x door tcp/22\n")
        file.write(b"open 9 nonsense tcp/22 1 2 a - b\nclose x\nshut 1\n\n")
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


def test_a_disk_that_takes_only_a_part_of_the_new_file_leaves_the_old_one():
    class Nearly:
        """A file on a disk that becomes full: the system takes what there is room for, and says how much."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data[: len(data) // 2])

        def fileno(self):
            return self.file.fileno()

        def flush(self):
            pass

        def close(self):
            self.file.close()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.close()

    journal = fresh()
    journal.opened(ONE, ("firewall",), False)
    journal.opened(TWO, ("firewall",), False)
    kept = compat.append_to
    compat.append_to = lambda path: Nearly(kept(path))
    try:
        journal.rewrite([(ONE, ("firewall",)), (TWO, ("firewall",))])
        raise AssertionError("written")
    except OSError as error:
        assert error.errno == 28
    finally:
        compat.append_to = kept
    journal.closed(1)
    assert Journal(PATH).load() == [(TWO, ("firewall",))]


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
