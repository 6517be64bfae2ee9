"""Grants and books: a second knock extends, and the end of one grant never closes what another holds open."""

from tinyknop.grants import Book, Ends, Grant, Grants, seconds_left

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


def test_recovered_ids_are_not_given_again():
    grants = Grants()
    grants.add(grant(7, 130))
    assert grants.add(grant(None, 130, (DNS,))).id == 8


def test_what_another_grant_holds_longer_needs_no_opening():
    book = Book()
    assert book.enter(grant(1, 150)).openings == (SSH,)
    assert book.enter(grant(2, 130)) is None
    assert book.enter(grant(3, 160, (SSH, DNS))).openings == (SSH, DNS)


def test_the_end_of_one_grant_closes_only_what_no_other_holds():
    book = Book()
    book.enter(grant(1, 130, (SSH, DNS)))
    book.enter(grant(2, 150))
    assert book.strike(grant(1, 130, (SSH, DNS))).openings == (DNS,)
    assert book.strike(grant(2, 150)).openings == (SSH,)
    assert book.strike(grant(2, 150)) is None


def test_live_names_each_opening_once_under_its_longest_holder():
    book = Book()
    book.enter(grant(1, 130, (SSH, DNS)))
    book.enter(grant(2, 150))
    live = sorted([(g.id, g.openings, g.until) for g in book.live()])
    assert live == [(1, (DNS,), 130), (2, (SSH,), 150)]


def test_time_left_is_never_more_than_the_grants_own_length():
    assert seconds_left(grant(1, 130), 110) == 20
    assert seconds_left(grant(1, 130), 50) == 30  # the clock went back
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
