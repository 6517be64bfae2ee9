"""The client's core: what a target may say, what a knock holds, and what is refused before anything is sent."""

import socket

from tinyknop import client, compat, log
from tinyknop.errors import ConfigError, Rejected
from tinyknop.seal import Keys, unseal

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
KEYS = Keys(key=b"0123456789abcdef0123456789abcdef", hmac_key=b"hmac")
NOW = 1700000000


def target(*entries):
    """Returns a target with keys and one opening, and what `entries` ("name=text") change."""
    made = client.Target(
        [("openings", "tcp/22", "f:1"), ("key_base64", KEY, "f:2"), ("hmac_key", "hmac", "f:3")], "f:0"
    )
    for number, entry in enumerate(entries):
        name, _, text = entry.partition("=")
        made.set(name, text, "g:%d" % (number + 1))
    return made


def refused(call, *values):
    """Returns (stage, reason) of the ConfigError that a call raises."""
    try:
        call(*values)
    except ConfigError as error:
        assert "\n" not in error.reason
        return error.stage, error.reason
    raise AssertionError("nothing was refused")


def test_knock_holds_what_the_target_says():
    packet = unseal(client.build(target("address=192.0.2.7", "user=alice", "timeout=60"), NOW), KEYS)
    assert packet.message == "192.0.2.7,tcp/22"
    assert (packet.username, packet.timestamp, packet.client_timeout, packet.message_type) == ("alice", NOW, 60, 3)


def test_source_is_asked_for_as_no_address():
    packet = unseal(client.build(target(), NOW), KEYS)
    assert (packet.message, packet.message_type, packet.client_timeout) == ("0.0.0.0,tcp/22", 1, 0)


def test_digest_hmac_and_mode_are_the_chosen_ones():
    keys = Keys(key=KEYS.key, hmac_key=b"hmac", mode="ctr", hmac="sha512")
    data = client.build(target("digest=sha1", "hmac=SHA512", "mode=CTR"), NOW)
    assert unseal(data, keys).digest_type == "sha1"


def test_fwknops_names_mean_the_same():
    made = target("SPA_SERVER=gate", "SPA_SERVER_PORT=7", "ACCESS=udp/53", "ALLOW_IP=source", "FW_TIMEOUT=9")
    assert (made.host, made.port, made.openings, made.timeout) == ("gate", 7, (("udp", 53),), 9)


def test_wrong_settings_name_their_place_and_what_to_write():
    for entry, part in (
        ("openings=tcp/0", "port from 1 to 65535"),
        ("openings=", "not an opening"),
        ("openings=tcp/22,", "not an opening"),
        ("openings=icmp/1", "not an opening"),
        ("port=65536", "0 to 65535"),
        ("port=-1", "0 to 65535"),
        ("port=", "0 to 65535"),
        ("timeout=30s", "0 to 65536"),
        ("timeout=65537", "0 to 65536"),
        ("address=gate.example.net", "nor source, nor resolve"),
        ("address=01.2.3.4", "leading zeros"),
        ("digest=sha3", "not one of md5"),
        ("hmac=none", "not one of md5"),
        ("mode=gcm", "not one of cbc"),
        ("key_base64=!!", "not base64"),
        ("key_base64=AAAAA", "not base64"),
        ("key_base64=", "not base64"),
        ("key_base64=AB", "stray bits"),
        ("hints=maybe", "neither Y nor N"),
        ("host=", "is empty"),
        ("opening=tcp/22", "no such setting"),
    ):
        stage, reason = refused(target, entry)
        assert stage == "g:1" and part in reason, (entry, reason)


def test_error_never_shows_the_key():
    for entry in ("key_base64=geheim!", "hmac_key_base64=geheim?"):
        assert "geheim" not in refused(target, entry)[1]


def test_missing_key_says_how_to_make_one():
    made = client.Target([("openings", "tcp/22", "f:1")], "office")
    stage, reason = refused(client.build, made)
    assert stage == "office" and "tinyknop keygen" in reason


def test_key_too_long_is_refused_with_its_length():
    assert "33 bytes" in refused(client.build, target("key_base64=" + "A" * 44))[1]


def test_missing_openings_and_unresolved_address_are_refused():
    made = target()
    made.openings = None
    assert "nothing to open" in refused(client.build, made)[1]
    assert refused(client.build, target("address=resolve"))[0] == "g:1"


def test_too_many_openings_says_how_many_fit_and_so_many_do():
    many = ["tcp/%d" % (10000 + i) for i in range(60)]
    for settings in ((), ("hmac=sha512",), ("hmac=md5", "digest=md5"), ("address=192.0.2.255",)):
        stage, reason = refused(client.build, target("openings=" + ",".join(many), *settings), NOW)
        assert stage == "g:1" and "60 openings" in reason
        fit = int(reason.split(" fit")[0].split()[-1])
        data = client.build(target("openings=" + ",".join(many[:fit]), *settings), NOW)
        assert len(data) < 400
        refused(client.build, target("openings=" + ",".join(many[: fit + 1]), *settings), NOW)


def test_user_name_that_no_server_takes_is_refused_as_such():
    try:
        client.build(target("user=a:b"))
    except Rejected as error:
        assert error.stage == "username"
        return
    raise AssertionError("nothing was refused")


def test_ipv6_message_is_sent_with_a_warning():
    said = []
    old, log.sink = log.sink, lambda level, text: said.append((level, text))
    try:
        data = client.build(target("address=2001:DB8:0::7"), NOW)
    finally:
        log.sink = old
    assert unseal(data, KEYS, ipv6=True).message == "2001:db8::7,tcp/22"
    assert said[0][0] == "warning" and "fwknopd refuses" in said[0][1]


def test_hint_stands_in_the_salt_at_bytes_4_to_6():
    data = client.build(target("hints=Y"), NOW)
    expected = client.spa.to_base64(client.hint(b"hmac", NOW))
    assert data[6:10] == expected
    assert unseal(data, KEYS).timestamp == NOW
    assert client.hint(b"hmac", NOW) != client.hint(b"hmac", NOW + 60)


def test_hints_without_an_hmac_key_are_refused():
    made = client.Target([("openings", "tcp/22", "f:1"), ("key_base64", KEY, "f:2"), ("hints", "Y", "f:3")])
    assert refused(client.build, made)[0] == "f:3"


def test_key_lines_are_read_with_their_places():
    data = b"# made today\n\nKEY_BASE64: AAAA\nHMAC_KEY_BASE64 BBBB\r\nKEY: a:b c\n"
    assert client.parse_keys(data, "k") == [
        ("key_base64", "AAAA", "k:3"),
        ("hmac_key_base64", "BBBB", "k:4"),
        ("key", "a:b c", "k:5"),
    ]


def test_broken_key_file_is_refused_by_line_without_showing_it():
    stage, reason = refused(client.parse_keys, b"\ngeheim\n", "k")
    assert stage == "k:2" and "geheim" not in reason
    assert refused(client.parse_keys, b"KEY: \xff\n", "k")[0] == "k:1"
    assert refused(client.parse_keys, b"\n# nothing\n", "k") == (
        "k",
        "no key in it: make one with `tinyknop keygen -o FILE`",
    )
    assert "keygen" in refused(client.read_keys, "/nonexistent/key")[1]


def test_name_that_does_not_resolve_is_refused():
    assert "does not resolve" in refused(client.locate, "no.such.name.invalid", 1)[1]
    assert "does not resolve" in refused(client.locate, "a" * 70 + ".invalid", 1)[1]


def test_datagram_arrives_as_sent():
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(compat.sockaddr("127.0.0.1", 42201))
    client.send(b"knock", client.locate("127.0.0.1", 42201))
    assert receiver.recv(100) == b"knock"
    receiver.close()


def test_verify_sees_a_service_and_gives_up_on_none():
    service = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    service.bind(compat.sockaddr("127.0.0.1", 42202))
    service.listen(1)
    place = client.locate("127.0.0.1", 62201)
    assert client.printed(place) == "127.0.0.1"
    assert client.verify(place, 42202, 2) is not None
    service.close()
    assert client.verify(place, 42203, 1) is None


def test_only_a_tcp_opening_can_be_verified():
    assert client.first_tcp(target("openings=udp/53,tcp/22")) == 22
    assert "only a TCP opening" in refused(client.first_tcp, target("openings=udp/53"))[1]
