"""SPA over HTTP: what is taken out of a request, and whose word on the client's address is believed."""

from tinyknop import net, web
from tinyknop.errors import Rejected

KNOCK = b"5" * 150 + b"+/" + b"A" * 60
SPELT = KNOCK.replace(b"+", b"-").replace(b"/", b"_")
PROXY, STRANGER = net.packed("127.0.0.1"), net.packed("198.51.100.9")


class Settings:
    http, any_agent, forwarded_for, proxies = True, False, True, web.PROXIES


def request(*headers, target=SPELT, agent=b"User-Agent: Fwknop/2.6.10"):
    return b"\r\n".join((b"GET /" + target + b" HTTP/1.0", agent, b"Accept: */*") + headers) + b"\r\n\r\n"


def forwarded(*values, source=PROXY, name=b"X-Forwarded-For: "):
    found = web.decode(request(*[name + value for value in values]), source, Settings)
    assert found[0] == KNOCK
    return found[1] and net.printed(found[1])


def refusal(payload):
    try:
        web.decode(payload, PROXY, Settings)
    except Rejected as error:
        assert error.stage == "http"
        return error.reason
    return None


def test_get_requests_are_told_in_any_case_from_everything_else():
    assert web.is_request(b"GET /abc") and web.is_request(b"get /") and web.is_request(b"gEt /x")
    for payload in (b"", b"GET", b"GET ", b"POST /x", b"GET\t/", b"5" * 200):
        assert not web.is_request(payload)


def test_knock_is_the_target_with_its_two_characters_put_back():
    assert web.decode(request(), PROXY, Settings) == (KNOCK, None)
    assert web.decode(b"get" + request()[3:], PROXY, Settings) == (KNOCK, None)


def test_user_agent_is_demanded_in_its_exact_case():
    for agent in (b"User-Agent: curl", b"user-agent: Fwknop/2", b"User-Agent: fwknop", b"User-Agent:Fwknop"):
        assert "agent" in refusal(request(agent=agent))


def test_any_user_agent_will_do_where_the_settings_say_so():
    class Any(Settings):
        any_agent = True

    assert web.decode(request(agent=b"User-Agent: curl"), PROXY, Any) == (KNOCK, None)
    assert web.decode(b"GET /" + SPELT, PROXY, Any) == (KNOCK, None)


def test_short_target_is_refused():
    for target in (b"", b"index.html", b"A" * 139, b" " + SPELT, b"A\t" + SPELT):
        assert "short" in refusal(request(target=target))
    assert refusal(request(target=b"A" * 140)) is None


def test_forwarded_address_is_believed_of_listed_proxies_alone():
    assert forwarded(b"203.0.113.5") == "203.0.113.5"
    assert forwarded(b"2001:db8::5", source=net.packed("::1")) == "2001:db8::5"
    assert forwarded(b"203.0.113.5", source=STRANGER) is None
    assert forwarded(b"203.0.113.5", source=net.packed("2001:db8::1")) is None


def test_header_is_ignored_unless_the_settings_ask_for_it():
    class Deaf(Settings):
        forwarded_for = False

    assert web.decode(request(b"X-Forwarded-For: 203.0.113.5"), PROXY, Deaf) == (KNOCK, None)


def test_header_is_found_in_any_case_and_with_any_blanks():
    for name in (b"x-forwarded-for: ", b"X-FORWARDED-FOR:", b"X-Forwarded-For: \t "):
        assert forwarded(b"203.0.113.5", name=name) == "203.0.113.5"


def test_last_address_that_is_no_proxy_of_ours_is_the_client():
    assert forwarded(b"192.0.2.66, 203.0.113.5") == "203.0.113.5"
    assert forwarded(b"192.0.2.66, 203.0.113.5, 10.0.0.4,192.168.1.1") == "203.0.113.5"
    assert forwarded(b"garbage, 203.0.113.5, 10.0.0.4") == "203.0.113.5"
    assert forwarded(b"192.0.2.66", b"203.0.113.5") == "203.0.113.5"  # a proxy that adds a header of its own


def test_client_inside_a_trusted_network_is_the_first_of_the_list():
    assert forwarded(b"10.1.1.1, 10.0.0.4") == "10.1.1.1"


def test_value_that_is_no_address_leaves_the_packets_own_source():
    for value in (
        b"",
        b"unknown",
        b"203.0.113.5, nobody",
        b"nobody, 10.0.0.1",
        b"1.2.3",
        b"\xff\xfe",
        b"203.0.113.5:80",
    ):
        assert forwarded(value) is None


def test_no_bytes_make_it_raise_anything_else():
    whole = request(b"X-Forwarded-For: 192.0.2.66, 203.0.113.5")
    for place in range(len(whole)):
        for data in (whole[:place], whole[:place] + b"\0\xff" + whole[place + 1 :]):
            try:
                web.decode(data, PROXY, Settings)
            except Rejected as error:
                assert error.stage == "http"
