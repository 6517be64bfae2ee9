"""Stanza hints: the table slot by slot, what the gate makes of them, and the kernel's filter for them."""

from tinyknop import Keys, Packet, crypto, hints, seal
from tinyknop.errors import ConfigError
from tinyknop.gate import Datagram, Gate
from tinyknop.hints import MOST_WORDS, Hints, hint, program
from tinyknop.settings import Settings
from tinyknop.spa import to_base64
from tinyknop.stanza import Stanza

NOW = 1700000000
SLOT = NOW // 60
SOURCE = b"\xc0\x00\x02\x07"


class Seen:
    """A replay store that forgets."""

    def known(self, digest):
        return False

    def add(self, digest, datagram, stamp, now):
        pass


def key(number):
    return b"hmac key %d" % number


def table(count):
    """Returns a table for so many owners, which are their own numbers."""
    return Hints([(crypto.mac("sha256", key(number)), number) for number in range(count)])


def word(number, slot):
    return to_base64(hint(key(number), slot * 60))


def held(made):
    """Returns what a table holds: {(number of the owner, slot)}."""
    known = {word(number, slot): (number, slot) for number in range(5) for slot in range(SLOT - 30, SLOT + 31)}
    return {known[text] for text in made.table}


def every(slots, count=5):
    return {(number, slot) for number in range(count) for slot in slots}


def test_a_table_holds_two_slots_to_either_side_and_the_next():
    made = table(5)
    made.advance(NOW)
    assert held(made) == every(range(SLOT - 2, SLOT + 4))
    assert made.table[word(3, SLOT - 2)] == (3,)
    assert (made.since, made.until) == (SLOT * 60, SLOT * 60 + 60)
    assert made.since <= NOW < made.until


def test_it_moves_on_a_slot_at_a_time_and_forgets():
    made = table(5)
    made.advance(NOW)
    made.advance(NOW + 60)
    assert held(made) == every(range(SLOT - 1, SLOT + 5))
    for _ in range(3):
        made.advance(NOW + 60)
    assert held(made) == every(range(SLOT - 1, SLOT + 5))


def test_after_a_step_of_the_clock_it_is_whole_at_once():
    made = table(5)
    for now in (NOW, NOW - 1200, NOW + 1200, NOW + 1260, NOW + 1140):
        made.advance(now)
        assert held(made) >= every(range(now // 60 - 2, now // 60 + 3))
    for _ in range(9):
        made.advance(NOW)
    assert held(made) == every(range(SLOT - 2, SLOT + 4))


def test_what_comes_next_is_made_in_shares():
    made = table(200)
    made._share = 40
    made.advance(NOW)
    sizes = []
    for _ in range(6):
        sizes.append(len(made._made[SLOT + 3]))
        made.advance(NOW + 1)
    assert sizes == [40, 80, 120, 160, 200, 200]
    made.advance(NOW + 60)
    assert len(made._made[SLOT - 2]) == 160 and len(made._made[SLOT + 4]) == 40
    assert len(made._made[SLOT + 3]) == 200


def test_owners_with_the_same_hint_are_found_together_and_forgotten_apart():
    mac = crypto.mac("sha256", key(1))
    made = Hints([(mac, "one"), (mac, "two")])
    made.advance(NOW)
    assert made.table[word(1, SLOT)] == ("one", "two")
    made._share = 1
    made.advance(NOW + 60)
    assert made.table[word(1, SLOT - 2)] == ("one",)
    made.advance(NOW + 60)
    assert word(1, SLOT - 2) not in made.table


def test_words_are_sorted_numbers_as_the_kernel_loads_them():
    made = table(3)
    words = made.words(NOW)
    assert words == sorted(words) and len(words) == 18
    assert words == sorted([int.from_bytes(word(n, s), "big") for n, s in every(range(SLOT - 2, SLOT + 4), 3)])
    assert made.words(NOW + 60) == table(3).words(NOW + 60)


def test_words_of_a_slot_do_for_the_next_one_too():
    made = table(200)
    words = made.words(SLOT * 60)
    for second in (0, 59, 60, 119):
        slot = SLOT + second // 60
        for number in (0, 199):
            for near in range(slot - 2, slot + 3):
                assert int.from_bytes(word(number, near), "big") in words


def test_more_words_than_fit_into_a_filter_are_none():
    most = MOST_WORDS // 6
    assert len(table(most).words(NOW)) > 6 * most - 20
    assert table(most + 1).words(NOW) == ()


def test_the_gate_tells_the_words_and_whether_they_are_required():
    gate = Gate([stanza(1, DEMAND), stanza(2, DEMAND)], Settings())
    assert len(gate.words(NOW)) == 12 and gate.only_hinted
    for gate in (Gate([stanza(1, DEMAND), stanza(2)], Settings()), Gate([stanza(1)], Settings())):
        assert gate.words(NOW) and not gate.only_hinted
    gpg = stanza(1)
    gpg.keys = Keys(b"key", None)
    assert Gate([gpg], Settings()).words(NOW) == ()


def run(code, data, x):
    """Runs the few instructions of `program`; the packet's payload is 8 bytes behind X."""
    a = at = steps = 0
    while True:
        kind, yes, no, k = code[at]
        at, steps = at + 1, steps + 1
        if kind == 0x06:
            return k, steps
        if kind == 0x40:
            a = int.from_bytes(data[x + k : x + k + 4], "big")
        elif kind == 0x05:
            at += k
        else:
            at += yes if (a == k if kind == 0x15 else a >= k) else no


def test_the_program_keeps_what_has_a_hint_and_drops_the_rest():
    for count in (0, 1, 2, 32, 33, 64, 65, 1000, MOST_WORDS):
        words = [i * 1000003 + 7 for i in range(count)]
        code = program(words, 1568) + [(0x06, 0, 0, 0)]
        assert len(code) <= 4050 and all([line[1] < 256 and line[2] < 256 for line in code]), count
        for number in words[:: max(1, count // 50)] if count < 3 else (words[0], words[count // 2], words[-1]):
            data = bytes(20) + bytes(8) + b"8abcde" + number.to_bytes(4, "big") + b"rest"
            kept, steps = run(code, data, 20)
            assert kept == 1568 and steps < 60
        for number in (0, 5, 8, 0xFFFFFFFF, words[count // 2] + 1 if count else 1):
            data = bytes(20) + bytes(8) + b"8abcde" + number.to_bytes(4, "big") + b"rest"
            assert run(code, data, 20)[0] == 0


def stanza(number, *more):
    given = [("KEY", "key %d" % number), ("HMAC_KEY", "hmac key %d" % number), ("name", "u%d" % number)]
    return Stanza([(name, text, "a:%d" % (i + 1)) for i, (name, text) in enumerate(given + list(more))], "a:1")


def knock(number, stamp=NOW, hinted=True, message="192.0.2.7,tcp/22", **fields):
    salt = b"abcd" + (hint(key(number), stamp) if hinted else b"\0\0\0") + b"e"
    keys = Keys(b"key %d" % number, key(number))
    return seal(Packet(message, "alice", timestamp=stamp, **fields), keys, salt=salt)


def judge(gate, payload, now=NOW):
    return gate.judge(Datagram(payload, SOURCE, 5, bytes(4), 62201, 17), now, Seen())


DEMAND = ("require_hint", "Y")


def test_a_hint_finds_its_stanza_among_many_by_one_hmac():
    gate, count = Gate([stanza(i) for i in range(30)], Settings()), [0]
    judge(gate, knock(3))  # whatever is made once is made now
    for family in list(gate._anywhere):
        family.mac = counting(family.mac, count)
    assert judge(gate, knock(29)).grant.stanza == "u29" and count == [1]
    assert judge(gate, knock(28, hinted=False)).grant.stanza == "u28" and count[0] > 20


def counting(mac, count):
    def authenticate(data):
        count[0] += 1
        return mac(data)

    return authenticate


def test_every_age_that_is_accepted_is_in_the_table():
    gate = Gate([stanza(1, DEMAND), stanza(2, DEMAND)], Settings())
    for now in (SLOT * 60, SLOT * 60 + 59):
        for apart in (-120, -61, -60, 0, 60, 61, 120):
            assert judge(gate, knock(2, now + apart), now).grant, (now, apart)
        assert judge(gate, knock(2, now - 121), now).stage in ("age", "hint")
        assert judge(gate, knock(2, now - 181), now).stage == "hint"


def test_require_hint_refuses_a_packet_without_before_any_hmac():
    gate = Gate([stanza(1, DEMAND), stanza(2, DEMAND)], Settings())
    assert gate.only_hinted and not gate._anywhere
    assert judge(gate, knock(2, hinted=False)).stage == "hint"
    assert judge(gate, b"8" * 200).stage == "hint"
    assert judge(gate, knock(2)).grant.stanza == "u2"


def test_stanzas_that_require_no_hint_are_found_as_before():
    gate = Gate([stanza(1, DEMAND), stanza(2)], Settings())
    assert not gate.only_hinted
    assert judge(gate, knock(2, hinted=False)).grant.stanza == "u2"
    assert judge(gate, knock(1, hinted=False)).stage == "hmac"
    assert judge(gate, knock(1)).grant.stanza == "u1"


def test_one_key_two_demands_is_decided_for_each_stanza():
    both = [stanza(1, DEMAND), stanza(1, ("timeout", "7"))]
    both[1].name = "without"
    gate = Gate(both, Settings())
    assert judge(gate, knock(1)).grant.stanza == "u1"
    assert judge(gate, knock(1, hinted=False)).grant.stanza == "without"


def test_a_hint_is_never_trusted():
    gate = Gate([stanza(1), stanza(2), stanza(3, DEMAND)], Settings())
    forged = knock(1)[:6] + knock(2)[6:10] + knock(1)[10:]
    assert judge(gate, forged).stage == "hmac"
    salt = b"abcd" + hint(key(2), NOW) + b"e"  # someone else's hint, but a right HMAC
    payload = seal(Packet("192.0.2.7,tcp/22", timestamp=NOW), Keys(b"key 1", key(1)), salt=salt)
    assert judge(gate, payload).grant.stanza == "u1"
    salt = b"abcd" + hint(key(1), NOW) + b"e"
    payload = seal(Packet("192.0.2.7,tcp/22", timestamp=NOW), Keys(b"key 3", key(3)), salt=salt)
    assert judge(gate, payload).grant is None


def test_a_hint_follows_the_hmac_key_whatever_the_digest():
    made = stanza(1, ("HMAC_DIGEST_TYPE", "sha512"), DEMAND)
    salt = b"abcd" + hint(key(1), NOW) + b"e"
    payload = seal(Packet("192.0.2.7,tcp/22", timestamp=NOW), made.keys, salt=salt)
    assert judge(Gate([made], Settings()), payload).grant


def test_a_hinted_packet_is_held_to_source_and_rules():
    elsewhere = ("SOURCE", "10.0.0.0/8")
    gate = Gate([stanza(1, elsewhere), stanza(2, DEMAND, elsewhere), stanza(3, ("openings", "tcp/80"))], Settings())
    # The third is for everybody, so that its HMAC is what refuses the others' knocks last.
    assert [judge(gate, knock(i)).stage for i in (1, 2, 3)] == ["hmac", "hmac", "openings"]
    assert judge(Gate([stanza(2, DEMAND, elsewhere)], Settings()), knock(2)).stage == "source"


def refusal(made, *entries):
    try:
        made = made()
        Settings([(name, text, "s:%d" % (i + 1)) for i, (name, text) in enumerate(entries)]).fits([made])
    except ConfigError as error:
        return error
    raise AssertionError("taken")


def test_what_can_have_no_hint_cannot_require_one():
    def bare():
        return Stanza([("KEY", "k", "a:1"), DEMAND + ("a:2",)], "a:1")

    gpg = (("GPG_DECRYPT_PW", "x"), ("GPG_REMOTE_ID", "ABCD1234"))
    for made in (bare, lambda: stanza(1, DEMAND, *gpg)):
        error = refusal(made)
        assert "require_hint" in error.reason and "take this line out" in error.reason
    assert refusal(bare).stage == "a:2"


def test_nor_can_packets_that_are_older_than_the_table():
    error = refusal(lambda: stanza(1, DEMAND), ("MAX_SPA_PACKET_AGE", "121"))
    assert error.stage == "s:1" and "120 seconds" in error.reason
    assert refusal(lambda: stanza(1, DEMAND), ("ENABLE_SPA_PACKET_AGING", "N")).stage == "s:1"
    assert refusal(lambda: stanza(1, DEMAND), ("PCAP_FILE", "a.pcap")).stage == "a:1"
    assert hints.MAX_AGE == 120
