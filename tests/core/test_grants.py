"""Grants and books: a second knock extends, and the end of one grant never closes what another holds open."""

from tinyknop.grants import Book, Ends, Grant, Grants, first, replaced, seconds_left, timed

SSH, DNS = ("tcp", 22), ("udp", 53)


def grant(number, until, openings=(SSH,), source="192.0.2.7"):
    return Grant(number, source, openings, 100, until, "alice", None, "0.0.0.0", source)


def test_a_second_knock_extends_the_grant_and_keeps_its_id():
    grants = Grants()
    first = grants.add(grant(None, 130))
    second = grants.add(grant(None, 150))
    assert (first.id, second.id, second.until) == (1, 1, 150)
    assert len(grants.live) == 1


def test_a_shorter_second_knock_shortens_nothing():
    grants = Grants()
    grants.add(grant(None, 150))
    assert grants.add(grant(None, 120)).until == 150


def test_an_extension_gives_no_more_than_the_time_left_where_the_clock_was_a_day_ahead_before_a_restart():
    grants = Grants()
    first = grants.add(replaced(grant(None, 86430), opened=86400))
    second = grants.add(grant(None, 120))
    assert second.id == first.id and second.until == 130


def test_grants_of_other_sources_and_openings_get_ids_of_their_own():
    grants = Grants()
    numbers = [
        grants.add(grant(None, 130)).id,
        grants.add(grant(None, 130, (SSH, DNS))).id,
        grants.add(grant(None, 130, source="192.0.2.8")).id,
    ]
    assert numbers == [1, 2, 3]
    assert grants.remove(2).openings == (SSH, DNS)
    assert grants.remove(2) is None
    assert grants.add(grant(None, 130, (SSH, DNS))).id == 4
    for number in (1, 3, 4):
        grants.remove(number)
    assert not grants.live and not grants._ids


def test_recovered_ids_are_not_given_again():
    grants = Grants()
    grants.add(grant(7, 130))
    assert grants.add(grant(None, 130, (DNS,))).id == 8


def test_what_another_grant_holds_longer_needs_no_opening():
    book = Book()
    assert book.enter(grant(1, 150)).openings == (SSH,)
    assert book.enter(grant(2, 130)) is None
    assert book.enter(grant(3, 150)) is None
    assert book.enter(grant(4, 140, (SSH, DNS))).openings == (DNS,)
    assert book.enter(grant(5, 160, (SSH, DNS))).openings == (SSH, DNS)


def test_the_end_of_one_grant_closes_only_what_no_other_holds():
    book = Book()
    book.enter(grant(1, 130, (SSH, DNS)))
    book.enter(grant(2, 150))
    assert book.strike(grant(1, 130, (SSH, DNS))).openings == (DNS,)
    assert not book.empty()
    assert book.strike(grant(2, 150)).openings == (SSH,)
    assert book.strike(grant(2, 150)) is None and book.empty()


def test_live_names_each_opening_once_under_its_longest_holder():
    book = Book()
    book.enter(grant(1, 130, (SSH, DNS)))
    book.enter(grant(2, 150))
    live = sorted([(g.id, g.openings, g.until) for g in book.live()])
    assert live == [(1, (DNS,), 130), (2, (SSH,), 150)]


def test_time_left_is_never_more_than_the_grants_own_length():
    assert seconds_left(grant(1, 130), 110) == 20
    assert seconds_left(grant(1, 130), 50) == 30  # the clock went back


def test_what_ends_in_this_second_counts_for_one_and_what_is_over_for_nothing():
    first, last, over = grant(1, 132), grant(2, 130), grant(3, 129)
    assert timed([first, last, over], 130) == [(first, 2), (last, 1)]
    assert seconds_left(grant(1, 130), 131) == -1


def test_a_step_of_the_clock_moves_every_time():
    grants, book = Grants(), Book()
    book.enter(grants.add(grant(None, 130)))
    grants.shift(1000)
    book.shift(1000)
    assert (grants.live[1].opened, grants.live[1].until) == (1100, 1130)
    assert book.live()[0].until == 1130


def test_unheld_names_what_nobody_holds_open():
    book = Book()
    book.enter(grant(2, 150))
    assert book.unheld(grant(1, 130, (SSH, DNS))).openings == (DNS,)
    assert book.unheld(grant(1, 130)) is None


def test_grants_end_in_their_order_a_few_at_a_time_and_not_before_an_extension():
    ends = Ends()
    for number, deadline in ((1, 50), (2, 20), (3, 30), (4, 10), (4, 60), (5, 25)):
        ends.put(number, deadline)
    ends.drop(5)
    assert ends.next() == 20
    assert (ends.due(40, 1), ends.due(40, 9), ends.due(40, 9)) == ([2], [3], [])
    assert (ends.next(), ends.due(99, 9), ends.next()) == (50, [1, 4], None)


def test_a_grant_that_ends_at_this_very_moment_is_due_at_any_moment_even_0():
    for now in (0, 7):
        ends = Ends()
        ends.put(1, now)
        ends.put(2, now + 1)
        assert ends.due(now, 9) == [1] and ends.next() == now + 1
        assert ends.due(now + 1, 9) == [2] and ends.due(now + 9, 9) == []
        ends.drop(3)
        assert not ends._at and not ends._heap


def test_addresses_of_ours_are_told_apart_where_a_port_can():
    here, there = [Grant(i, "192.0.2.7", (SSH,), 100, 130, "alice", None, "10.0.0.%d" % i, "") for i in (1, 2)]
    book = Book(True)
    assert book.enter(here) and book.enter(there)
    assert book.strike(here).openings == (SSH,)
    for book in (Book(), Book(False)):
        assert book.enter(here) and book.enter(there) is None
        assert book.strike(here) is None


def test_the_first_of_some_items_are_all_where_no_number_is_said():
    for most, found in ((2, [1, 2]), (3, [1, 2, 3]), (9, [1, 2, 3]), (None, [1, 2, 3]), (0, [])):
        assert first((1, 2, 3), most) == found


def test_a_grant_that_is_needed_whole_is_not_made_anew():
    book, whole = Book(), grant(1, 130, (SSH, DNS))
    assert book.enter(whole) is whole and book.live()[0] is whole and book.unheld(grant(2, 130)) is None
    assert book.enter(grant(2, 130)) is None
    assert [(one.id, one.openings) for one in book.live()] == [(1, (SSH, DNS))]  # of two ends alike the first holds
