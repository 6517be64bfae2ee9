"""The wireguard port by its words alone: no interface, no root."""

from driving import at_once
from tinyknop.ports.carriers.tape import Carrier as Tape

from tinyknop import ports
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant, Nat

ALICE = "RnJnQrsFgYXCc9cVRXQcSckh4BIVVTyCNHDtSuFaXwE="
BOB = "yQK4qXKZ5a0L1Zz0C1k1n0vH2Qm8rJ6m0m9m2f1c3X8="
OWNERS = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
PEERS = "alice %s 10.8.0.2/32 fd08::2/128 /etc/wireguard/alice.psk,bob %s 10.8.0.3" % (ALICE, BOB)
ADD = "wg set wg0 peer %s preshared-key /etc/wireguard/alice.psk allowed-ips 10.8.0.2/32,fd08::2/128" % ALICE
REMOVE = "wg set wg0 peer %s remove" % ALICE


def grant(number=1, stanza="alice", source="192.0.2.7", openings=(("udp", 51820),), nat=None):
    return Grant(number, source, openings, 100, 130, stanza, nat, "0.0.0.0", source)


def made(*answers, peers=PEERS, **more):
    tape = Tape()
    tape.answers = list(answers)
    options = {"kind": "wireguard", "via": "tape", "peers": peers, "where": "t.toml:7"}
    options.update(more)
    return ports.make("wg", options, {"tape": tape}), tape


def refused(**options):
    try:
        made(**options)
    except ConfigError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def test_open_adds_the_stanzas_peer_and_close_removes_it():
    port, tape = made()
    at_once(port.open(grant(), 30))
    at_once(port.close(grant()))
    assert tape.lines == [ADD, REMOVE]


def test_peer_without_a_preshared_key_names_none():
    port, tape = made()
    at_once(port.open(grant(stanza="bob"), 30))
    assert tape.lines == ["wg set wg0 peer %s allowed-ips 10.8.0.3/32" % BOB]


def test_peer_stays_while_another_source_or_opening_of_its_stanza_holds_it():
    port, tape = made()
    at_once(port.open(grant(), 30))
    at_once(port.open(grant(2, source="192.0.2.8"), 30))
    at_once(port.open(grant(3, openings=(("tcp", 22),)), 30))
    tape.lines = []
    at_once(port.close(grant()))
    at_once(port.close(grant(2, source="192.0.2.8")))
    assert tape.lines == []
    at_once(port.close(grant(3, openings=(("tcp", 22),))))
    assert tape.lines == [REMOVE]


def test_close_of_what_was_never_open_still_removes():
    port, tape = made()
    at_once(port.close(grant()))
    assert tape.lines == [REMOVE]


def shown(*rows):
    return "wg show wg0 allowed-ips", "".join(["%s\t%s\n" % row for row in rows])


def test_sync_removes_ours_without_a_grant_and_leaves_the_owners():
    port, tape = made(shown((ALICE, "10.8.0.2/32"), (OWNERS, "10.8.0.9/32"), (BOB, "10.8.0.3/32")))
    at_once(port.sync([(grant(stanza="bob"), 30)]))
    assert tape.lines == ["wg show wg0 allowed-ips", REMOVE]


def test_sync_adds_what_lives_and_puts_networks_right():
    port, tape = made(shown((BOB, "(none)"), (OWNERS, "10.8.0.9/32")))
    at_once(port.sync([(grant(), 30), (grant(2, stanza="bob"), 30)]))
    assert sorted(tape.lines) == sorted(
        ["wg show wg0 allowed-ips", ADD, "wg set wg0 peer %s allowed-ips 10.8.0.3/32" % BOB]
    )


def test_sync_says_nothing_where_all_is_as_it_should_be():
    port, tape = made(shown((ALICE, "fd08::2/128 10.8.0.2/32")))
    at_once(port.sync([(grant(), 30)]))
    assert tape.lines == ["wg show wg0 allowed-ips"]
    at_once(port.close(grant()))
    assert tape.lines[-1] == REMOVE


def test_flush_removes_ours_and_a_plain_stop_nothing():
    port, tape = made(shown((ALICE, "10.8.0.2/32"), (OWNERS, "10.8.0.9/32")))
    at_once(port.stop())
    assert tape.lines == []
    at_once(port.stop(True))
    assert tape.lines == ["wg show wg0 allowed-ips", REMOVE]


def test_interface_that_is_not_there_fails_the_start():
    port, _ = made(("wg show wg0", PortError("tape", "No such device")))
    try:
        at_once(port.start())
    except PortError as error:
        assert "No such device" in str(error)
    else:
        raise AssertionError("it started")


def test_stanza_without_a_peer_and_nat_can_never_be():
    port, _ = made()
    nat = Nat(False, "10.0.0.9", 22, None, False, True)
    for asked, word in ((grant(stanza="carol"), "carol"), (grant(nat=nat), "NAT")):
        try:
            port.check(asked)
        except PortError as error:
            assert word in str(error)
        else:
            raise AssertionError("it could be")
    assert port.check(grant())[0] == ALICE


def test_wrong_options_name_their_place_and_the_remedy():
    for peers, word in (
        ("", "at least"),
        ("alice", "at least"),
        ("alice %s" % ALICE, "at least"),
        ("alice %s /a.psk" % ALICE, "no network"),
        ("alice %s 10.8.0.2/33" % ALICE, "0 to 32"),
        ("alice %s ten" % ALICE, "IPv4"),
        ("alice %s 10.8.0.2" % ALICE[:-2], "44 characters"),
        ("alice %s 10.8.0.2" % ("A" * 44), "44 characters"),
        ("alice %s 10.8.0.2" % ("-" * 43 + "="), "44 characters"),
        ("alice %s 10.8.0.2,alice %s 10.8.0.3" % (ALICE, BOB), "twice"),
        ("alice %s 10.8.0.2,bob %s 10.8.0.3" % (ALICE, ALICE), "twice"),
    ):
        said = refused(peers=peers)
        assert said.startswith("t.toml:7: port.wg: ") and word in said, (peers, said)
    assert "no name of an interface" in refused(interface="wg 0")
    assert "no name of an interface" in refused(interface="a" * 16)
