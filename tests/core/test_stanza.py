"""Stanzas: what each keyword means, what is refused and in which words."""

from tinyknop import net
from tinyknop.errors import ConfigError
from tinyknop.keywords import meant
from tinyknop.stanza import KEYWORDS, Stanza, date

KEY = ("KEY", "secret", "a:2")


def made(*pairs, warn=None):
    """Returns the stanza of (name, text) pairs, with a key unless one is among them."""
    entries = [(name, text, "a:%d" % (i + 1)) for i, (name, text) in enumerate(pairs)]
    if not [name for name, _ in pairs if name in ("KEY", "KEY_BASE64", "key_file")]:
        entries.append(KEY)
    return Stanza(entries, "a:1", warn)


def refusal(*pairs, warn=None):
    """Returns the ConfigError that the pairs make."""
    try:
        made(*pairs, warn=warn)
    except ConfigError as error:
        return error
    raise AssertionError("%r was taken" % (pairs,))


def lenient(*pairs):
    """Returns (stanza, warnings) as a drop-in front end reads the pairs."""
    said = []
    return made(("REQUIRE_SOURCE", "Y"), *pairs, warn=said.append), said


def test_defaults_are_those_of_fwknopd():
    stanza = made(("SOURCE", "ANY"))
    assert stanza.source is None and stanza.destination is None
    assert stanza.open_ports is None and stanza.restrict_ports == ()
    assert (stanza.timeout, stanza.max_timeout, stanza.expires) == (30, None, None)
    assert stanza.require_source is False and stanza.require_user is None
    assert stanza.ports == ("firewall",)
    keys = stanza.keys
    assert (keys.key, keys.hmac_key, keys.mode, keys.hmac) == (b"secret", None, "cbc", "sha256")


def test_networks_may_be_written_in_every_way():
    text = "192.0.2.7, 198.51.100.0/24,203.0.113.0/255.255.255.128, 2001:db8::/32"
    expected = tuple([net.network(item.strip()) for item in text.split(",")])
    assert made(("SOURCE", text)).source == expected
    assert made(("DESTINATION", text)).destination == expected
    assert made(("SOURCE", "192.0.2.7,any")).source is None


def test_networks_that_nobody_can_mean_are_refused():
    for text in ("0.0.0.0/0", "::/0", "example.net", "192.0.2.0/33", "1.2.3", "", "192.0.2.7,"):
        assert refusal(("SOURCE", text)).stage == "a:1", text


def test_front_ends_read_a_short_address_as_inet_aton_does():
    stanza, said = lenient(("SOURCE", "1.2.3"))
    assert stanza.source == (net.network("1.2.0.3"),)
    assert "write the whole address" in said[0]


def test_openings_are_sets():
    assert made(("OPEN_PORTS", "tcp/22, udp/53,tcp/22")).open_ports == (("tcp", 22), ("udp", 53))
    assert made(("openings", "tcp/22")).open_ports == (("tcp", 22),)
    assert made(("RESTRICT_PORTS", "udp/53")).restrict_ports == (("udp", 53),)


def test_a_range_of_ports_is_refused_and_front_ends_take_its_first():
    for text in ("tcp/1000-2000", "icmp/1", "tcp", "tcp/70000", "tcp/0", "tcp/22,", "tcp/" + "0" * 30 + "22"):
        refusal(("OPEN_PORTS", text))
    stanza, said = lenient(("OPEN_PORTS", "tcp/1000-2000"))
    assert stanza.open_ports == (("tcp", 1000),) and len(said) == 1


def test_a_list_of_port_0_alone_allows_nothing():
    assert lenient(("OPEN_PORTS", "tcp/0"))[0].open_ports == ()


def test_the_last_of_two_keys_counts():
    assert made(("KEY", "one"), ("KEY_BASE64", "dHdv")).keys.key == b"two"
    assert made(("KEY_BASE64", "dHdv"), ("KEY", "one")).keys.key == b"one"
    assert made(("HMAC_KEY", "one"), ("HMAC_KEY_BASE64", "dHdv")).keys.hmac_key == b"two"


def test_base64_may_lack_its_padding():
    assert made(("KEY_BASE64", "YWI=")).keys.key == b"ab"
    assert made(("KEY_BASE64", "YWI")).keys.key == b"ab"


def test_odd_base64_is_refused_and_front_ends_take_it_as_far_as_it_goes():
    for text in ("YWJjZ", "YWI=YWI=", "YWK"):
        assert "base64" in refusal(("KEY_BASE64", text)).reason
    assert lenient(("KEY_BASE64", "YWJjZ"))[0].keys.key == b"abc"
    assert lenient(("KEY_BASE64", "YWI=YWI="))[0].keys.key == b"ab"


def test_keys_that_cannot_be_are_refused_everywhere():
    for pairs, part in (
        ((("KEY_BASE64", "a!b"),), "not base64"),
        ((("KEY_BASE64", "===="),), "empty"),
        ((("KEY", ""),), "empty"),
        ((("KEY", "__CHANGEME__"),), "not properly set"),
        ((("KEY_BASE64", "__changeme__"),), "not properly set"),
        ((("HMAC_KEY_BASE64", "__CHANGEME__"),), "not properly set"),
        ((("KEY", "same"), ("HMAC_KEY", "same")), "should not be identical"),
        ((("ENCRYPTION_MODE", "pcbc"),), "is not one of"),
        ((("HMAC_DIGEST_TYPE", "sha224"),), "is not one of"),
    ):
        assert part in refusal(*pairs).reason
        assert part in refusal(*pairs, warn=lambda text: None).reason


def test_a_key_that_is_too_long_is_refused_and_front_ends_run_without_it():
    for name, size, top in (("KEY", 33, 32), ("HMAC_KEY", 137, 136)):
        assert "at most %d bytes" % top in refusal((name, "k" * size)).reason
        stanza, said = lenient((name, "k" * size), *((("KEY", "other"),) if name == "HMAC_KEY" else ()))
        assert "no packet can be for it" in said[0] and stanza.keys is not None


def test_no_reason_holds_a_key():
    for pairs in ((("KEY", "hush" * 9),), (("KEY_BASE64", "hush!"),), (("KEY", "hush"), ("HMAC_KEY", "hush"))):
        assert "hush" not in str(refusal(*pairs))


def test_a_stanza_without_a_key_is_refused():
    try:
        Stanza([("SOURCE", "ANY", "a:1")], "a:1")
    except ConfigError as error:
        assert error.stage == "a:1" and "No keys found" in error.reason
    else:
        raise AssertionError


def test_the_legacy_mode_takes_16_bytes_and_front_ends_cut():
    pairs = (("KEY", "k" * 17), ("ENCRYPTION_MODE", "Legacy"))
    assert "16 bytes" in refusal(*pairs).reason
    stanza, said = lenient(*pairs)
    assert stanza.keys.key == b"k" * 16 and "it is cut" in said[0]


def test_timeouts_of_0_are_the_defaults():
    assert made(("FW_ACCESS_TIMEOUT", "0")).timeout == 30
    assert made(("MAX_FW_TIMEOUT", "0")).max_timeout is None
    assert made(("FW_ACCESS_TIMEOUT", "8388608")).timeout == 8388608
    assert "not in the range 0-8388608" in refusal(("FW_ACCESS_TIMEOUT", "8388609")).reason


def test_30s_is_refused_and_front_ends_take_30():
    assert refusal(("FW_ACCESS_TIMEOUT", "30s")).stage == "a:1"
    stanza, said = lenient(("FW_ACCESS_TIMEOUT", "45s"))
    assert stanza.timeout == 45
    assert said == ["a:2: FW_ACCESS_TIMEOUT: '45s' is taken for 45: write the number alone"]
    assert refusal(("FW_ACCESS_TIMEOUT", "-1"), warn=lambda text: None).stage == "a:1"


def test_an_odd_boolean_is_refused_and_front_ends_look_at_its_first_letter():
    for text, value in (("Y", True), ("yes", True), ("n", False)):
        assert made(("REQUIRE_SOURCE_ADDRESS", text)).require_source is value
    refusal(("REQUIRE_SOURCE", "1"))
    assert lenient(("REQUIRE_SOURCE_ADDRESS", "1"))[0].require_source is False
    assert lenient(("REQUIRE_SOURCE_ADDRESS", "yup"))[0].require_source is True


def test_an_unknown_name_is_refused_with_the_one_that_is_meant():
    error = refusal(("OPEN_PROTS", "tcp/22"))
    assert str(error) == "a:1: OPEN_PROTS: no such keyword (did you mean OPEN_PORTS?)"
    assert "did you mean" not in refusal(("FROBNICATE", "1")).reason
    _, said = lenient(("OPEN_PROTS", "tcp/22"))
    assert "[*] Ignoring unknown access parameter: 'OPEN_PROTS' in a" in said[0]


def test_a_cycle_has_an_open_a_close_and_a_timer():
    stanza = made(("CMD_CYCLE_OPEN", "add $SRC"), ("CMD_CYCLE_CLOSE", "del $SRC"), ("CMD_CYCLE_TIMER", "7"))
    assert stanza.cycle == ("add $SRC", "del $SRC") and stanza.timeout == 7
    assert made(("CMD_CYCLE_OPEN", "add"), ("CMD_CYCLE_CLOSE", "NONE")).cycle == ("add", None)
    assert "need each other" in refusal(("CMD_CYCLE_OPEN", "add")).reason
    assert "need each other" in refusal(("CMD_CYCLE_CLOSE", "del")).reason
    assert "CMD_CYCLE_TIMER" in refusal(("CMD_CYCLE_OPEN", "add"), ("CMD_CYCLE_CLOSE", "del")).reason
    assert "255" in refusal(("CMD_CYCLE_OPEN", "a" * 256)).reason


def test_nat_is_led_to_an_address_and_a_port():
    assert made(("FORCE_NAT", "192.0.2.1 22")).force_nat == ("192.0.2.1", 22)
    for text in ("192.0.2.1", "host 22", "192.0.2.1 70000", "192.0.2.1 22 tcp"):
        assert "FORCE_NAT" in refusal(("FORCE_NAT", text)).reason
    assert "need FORCE_NAT or FORWARD_ALL" in refusal(("FORCE_MASQUERADE", "Y")).reason
    assert made(("FORCE_SNAT", "192.0.2.1"), ("FORWARD_ALL", "Y")).force_nat == ("0.0.0.0", 0)


def test_a_passphrase_that_ends_in_a_blank_is_told_of():
    for name in ("KEY", "HMAC_KEY", "GPG_DECRYPT_PW"):
        assert "ends in a blank" in refusal((name, "abc ")).reason
        more = () if name != "GPG_DECRYPT_PW" else (("GPG_DISABLE_SIG", "Y"),)
        one, said = lenient((name, "abc\t"), *more)
        assert [text for text in said if "ends in a blank" in text]
        phrase = one.gpg and one.gpg.password.encode()
        assert {"KEY": one.keys.key, "HMAC_KEY": one.keys.hmac_key, "GPG_DECRYPT_PW": phrase}[name] == b"abc\t"
    refusal(("KEY", "__CHANGEME__ "), warn=[].append)


def test_gpg_needs_a_passphrase_or_none_and_to_know_who_signs():
    assert made(("GPG_REMOTE_ID", "ABCD1234")).gpg is None
    gpg = made(("GPG_DECRYPT_PW", "secret"), ("GPG_REMOTE_ID", "ABCD1234, 12345678")).gpg
    assert gpg.password == "secret" and gpg.remote_ids == ("ABCD1234", "12345678") and gpg.require_sig
    assert "GPG_FINGERPRINT_ID" in refusal(("GPG_ALLOW_NO_PW", "Y")).reason
    assert made(("GPG_ALLOW_NO_PW", "Y"), ("GPG_DISABLE_SIG", "Y")).gpg.require_sig is False
    wanted = made(("GPG_ALLOW_NO_PW", "Y"), ("GPG_DISABLE_SIG", "Y"), ("GPG_REQUIRE_SIG", "Y"), ("GPG_REMOTE_ID", "A"))
    assert wanted.gpg.require_sig
    assert "asymmetric" in refusal(("ENCRYPTION_MODE", "asymmetric")).reason


def test_every_variable_of_fwknopd_is_known():
    known = """SOURCE DESTINATION OPEN_PORTS RESTRICT_PORTS KEY KEY_BASE64 HMAC_KEY HMAC_KEY_BASE64 HMAC_DIGEST_TYPE
    ENCRYPTION_MODE FW_ACCESS_TIMEOUT MAX_FW_TIMEOUT REQUIRE_USERNAME REQUIRE_SOURCE_ADDRESS REQUIRE_SOURCE
    ACCESS_EXPIRE ACCESS_EXPIRE_EPOCH ENABLE_CMD_EXEC CMD_EXEC_USER CMD_EXEC_GROUP ENABLE_CMD_SUDO_EXEC
    CMD_SUDO_EXEC_USER CMD_SUDO_EXEC_GROUP CMD_CYCLE_OPEN CMD_CYCLE_CLOSE CMD_CYCLE_TIMER FORCE_NAT FORCE_SNAT
    FORCE_MASQUERADE FORWARD_ALL
    DISABLE_DNAT GPG_DECRYPT_ID GPG_DECRYPT_PW GPG_ALLOW_NO_PW GPG_HOME_DIR GPG_EXE GPG_REQUIRE_SIG GPG_DISABLE_SIG
    GPG_IGNORE_SIG_VERIFY_ERROR GPG_REMOTE_ID GPG_FINGERPRINT_ID""".split()
    assert [name for name in known if name not in KEYWORDS.rows and name not in KEYWORDS.later] == []


def test_dates_are_counted_right():
    for text, days in (
        ("01/01/1970", 0),
        ("02/29/2000", 11016),
        ("03/01/2000", 11017),
        ("12/31/2026", 20818),
        ("3/1/27", 20878),
        ("01/01/2100", 47482),
    ):
        assert date(text, None) == (days * 86400,), text


def test_dates_that_are_none_are_refused():
    for text in ("2030-01-01", "13/01/2030", "02/30/2030", "1/2", "", "a/b/c", "01/01/1969", "0/1/2030"):
        refusal(("ACCESS_EXPIRE", text))


def test_an_expiry_that_is_no_number_is_never_for_front_ends():
    assert made(("ACCESS_EXPIRE_EPOCH", "1900000000")).expires == 1900000000
    refusal(("ACCESS_EXPIRE_EPOCH", "never"))
    assert lenient(("ACCESS_EXPIRE_EPOCH", "never"))[0].expires is None


def test_a_date_is_shifted_to_local_time_when_the_stanza_is_completed():
    stanza = made(("ACCESS_EXPIRE", "01/02/1970"))
    stanza.complete(None, lambda midnight: midnight + 3600)
    assert stanza.expires == 90000


def test_of_two_expiries_the_last_counts_as_in_fwknopd():
    date, epoch, never = ("ACCESS_EXPIRE", "01/02/1970"), ("ACCESS_EXPIRE_EPOCH", "5"), ("ACCESS_EXPIRE_EPOCH", "0")
    for entries, expires in (
        ((date, epoch), 5),
        ((epoch, date), 86400),
        ((date, never), None),
        ((date, epoch, date), 86400),
    ):
        stanza = made(*entries)
        stanza.complete(None, int)
        assert stanza.expires == expires, entries


def test_a_key_file_takes_its_place_among_the_other_lines():
    stanza = made(("KEY", "first"), ("key_file", "/k"))
    assert stanza.keys is None and stanza.key_file == ("/k", "a:2")
    stanza.complete(lambda path, where, warn: [("KEY_BASE64", "dHdv", path + ":1")], None)
    assert stanza.keys.key == b"two" and stanza.key_file is None
    later = made(("key_file", "/k"), ("KEY", "last"))
    later.complete(lambda path, where, warn: [("KEY_BASE64", "dHdv", path + ":1")], None)
    assert later.keys.key == b"last"


def test_names_of_ports_and_stanzas():
    stanza = made(("name", "alice@example.net"), ("ports", "firewall, edge-router"))
    assert stanza.name == "alice@example.net"
    assert stanza.ports == ("firewall", "edge-router")
    for pair in (("name", "two words"), ("name", ""), ("ports", "a,,b"), ("ports", "a,a")):
        refusal(pair)


def test_front_ends_warn_as_fwknopd_does():
    said = []
    made(("SOURCE", "ANY"), ("FW_ACCESS_TIMEOUT", "60"), ("MAX_FW_TIMEOUT", "20"), warn=said.append)
    assert "Warning: REQUIRE_SOURCE_ADDRESS not enabled" in said[0]
    assert "Warning: MAX_FW_TIMEOUT < FW_ACCESS_TIMEOUT, honoring MAX_FW_TIMEOUT" in said[1]


def test_the_nearest_name_is_found():
    assert meant("hmac_key", ["KEY", "HMAC_KEY"]) == " (did you mean HMAC_KEY?)"
    assert meant("x" * 10000, ["KEY"]) == ""
