"""Which address we have, as the web tells the client: every way in which a page or wget may fail has its line."""

import socket
import threading
import time

import pytest

from tinyknop import log
from tinyknop.host import addresses
from tinyknop.host.fwoptions import Refused

AGENT = "Fwknop/2.6.10"


@pytest.fixture
def page():
    """Returns a function that serves one answer, in pieces, and returns (its URL, the list of what is then asked)."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(*pieces):
        asked = []

        def once():
            stream = listener.accept()[0]
            with stream:
                asked.append(stream.recv(4096))
                for piece in pieces:
                    stream.sendall(piece)

        threading.Thread(target=once, daemon=True).start()
        return "http://127.0.0.1:%d/ip" % listener.getsockname()[1], asked

    yield serve
    listener.close()


def wanted(url=None, **more):
    return {"RESOLVE_HTTP_ONLY": True, "RESOLVE_URL": url, "HTTP_USER_AGENT": AGENT, "VERBOSE": 0, **more}


def refused(request):
    with pytest.raises(Refused) as caught:
        addresses.resolve(request)
    return str(caught.value)


def test_an_answer_may_come_in_pieces(page):
    url, asked = page(b"HTTP/1.0 200 OK\r\nA: b\r", b"\n\r\n192.0.", b"2.7\n")
    assert addresses.resolve(wanted(url)) == "192.0.2.7"
    assert asked[0].startswith(b"GET /ip HTTP/1.0\r\nUser-Agent: Fwknop/2.6.10\r\n")


@pytest.mark.parametrize(
    "answer, said",
    [
        (b"HTTP/1.0 200 OK\r\n", "Did not find the end of HTTP header."),
        (b"HTTP/1.0 404 Nobody\r\n\r\nno such page", "Invalid IP in HTTP response: HTTP/1.0 404 Nobody"),
        (b"HTTP/1.0 200 OK\r\n\r\n1.2.3.400", "Invalid IP in HTTP response"),
        (b"", "Did not find the end of HTTP header."),
        (b"A" * 100000, "Did not find the end of HTTP header."),
    ],
)
def test_an_answer_without_an_address_is_none(page, answer, said):
    assert said in refused(wanted(page(answer)[0]))


@pytest.mark.parametrize(
    "url, said",
    [
        ("http://127.0.0.1:x/ip", "is not a URL such as http://192.0.2.1:8080/ip"),
        ("http://127.0.0.1/a b", "is not a URL such as"),
        ("http://127.0.0.1/a\r\nHost: b", "is not a URL such as"),
        ("HTTPS://127.0.0.1/ip", "https is not supported for --resolve-http-only"),
        ("http://no.such.name.invalid/ip", "error in getaddrinfo: "),
        ("http://%s.example/ip" % ("a" * 70), "is no host name"),
        ("http://127.0.0.1:1/ip", "Could not create socket: Connection refused"),
    ],
)
def test_a_url_that_leads_nowhere_says_why(url, said):
    assert said in refused(wanted(url))


def test_the_second_page_is_asked_where_the_first_fails(page, monkeypatch):
    told, waited = [], []
    monkeypatch.setattr(log, "sink", lambda level, text: told.append(text))
    monkeypatch.setattr(addresses.time, "sleep", waited.append)
    url, asked = page(b"HTTP/1.0 200 OK\r\n\r\n192.0.2.8")
    monkeypatch.setattr(addresses, "PAGES", ("127.0.0.1:1/first", url[len("http://") :]))
    assert addresses.resolve(wanted()) == "192.0.2.8"
    assert waited == [addresses.RETRY_S] and len(asked) == 1
    assert "Connection refused" in told[0]


@pytest.mark.parametrize(
    "script, said",
    [
        ("echo 192.0.2.9; exec yes", None),  # its first line is all that counts, whatever it goes on with
        ("printf 192.0.2.9; exec 1>&- 2>&-; exec sleep 60", None),
        ("exec tr '\\0' x < /dev/zero", "Could not resolve IP via: '"),
        ("echo", "Could not resolve IP via: '"),
    ],
)
def test_what_wget_prints_is_read_no_further_than_needed(tmp_path, script, said):
    program = tmp_path / "wget"
    program.write_text("#!/bin/sh\nPATH=/usr/bin:/bin\n%s\n" % script)
    program.chmod(0o700)
    request = wanted(RESOLVE_HTTP_ONLY=False, WGET_CMD=str(program), USE_WGET_USER_AGENT=False)
    before = time.monotonic()
    if said:
        assert said in refused(request)
    else:
        assert addresses.resolve(request) == "192.0.2.9"
    assert time.monotonic() - before < addresses.ANSWER_S


def test_a_wget_that_says_nothing_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "ANSWER_S", 0.1)
    request = wanted(RESOLVE_HTTP_ONLY=False, WGET_CMD="/bin/sleep 60 #", USE_WGET_USER_AGENT=True)
    monkeypatch.setattr(addresses, "wget_words", lambda request: ["/bin/sleep", "60"])
    assert "Could not resolve IP via: '/bin/sleep 60'" in refused(request)


@pytest.mark.parametrize("program", ["/nonexistent/wget", "/"])
def test_a_wget_that_is_none_is_no_traceback(program):
    request = wanted(RESOLVE_HTTP_ONLY=False, WGET_CMD=program, USE_WGET_USER_AGENT=False)
    assert "Could not resolve IP via: '%s" % program in refused(request)
