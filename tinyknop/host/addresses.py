"""Asks the web which address we have: through wget, as fwknop's client does, or by a plain HTTP request of our own."""

from __future__ import annotations

import os
import re
import select
import socket
import subprocess
import time

from tinyknop import log, net
from tinyknop.host.fwoptions import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tinyknop.host.fwrequest import Request

URL = "https://www.cipherdyne.org/cgi-bin/myip"
PAGES = ("www.cipherdyne.org/cgi-bin/myip", "www.cipherdyne.com/cgi-bin/myip")  # the second after RETRY_S
RETRY_S = 2
ANSWER_S = 30
LONGEST_ANSWER = 4096  # bytes; an address has 15
WGETS = ("/usr/bin/wget", "/usr/local/bin/wget", "/bin/wget")


def resolve(request: Request) -> str:
    """Returns our address as the web sees it; raises Refused."""
    if request["RESOLVE_HTTP_ONLY"]:
        return by_http(request)
    return by_wget(request)


def leading(text: str) -> str | None:
    """Returns the IPv4 address that a text starts with, or None."""
    found = re.match(r"[0-9.]{7,15}", text)
    try:
        return net.printed(net.packed(found.group())) if found else None
    except ValueError:
        return None


def wget_words(request: Request) -> list[str]:
    """Returns the words of the wget to run; blanks in them part words, as in the reference."""
    url = request["RESOLVE_URL"] or URL
    if not url.startswith("https://"):
        log.warning("[-] Warning: IP resolution URL '%s' should begin with 'https://' in -R mode.", url)
    found = [path for path in WGETS if os.access(path, os.X_OK)] or ["wget"]
    words = (request["WGET_CMD"] or found[0]).split()
    if not request["USE_WGET_USER_AGENT"]:
        words += ["-U", request["HTTP_USER_AGENT"]]
    return [*words, "--secure-protocol=auto", "--quiet", "-O", "-", *url.split()]


def by_wget(request: Request) -> str:
    """Returns the address in the first line that wget prints."""
    words = wget_words(request)
    command = " ".join(words)
    address = leading(_first_line(words))
    if address is None:
        raise Refused("[-] Could not resolve IP via: '%s'" % command)
    if request["VERBOSE"]:
        print("\n[+] Resolved external IP (via '%s') as: %s" % (command, address))
    return address


def _first_line(words: list[str]) -> str:
    """Returns the first line of a command's output and errors; "" where it cannot be run or says nothing in time."""
    try:
        # Without an environment, as in the reference: no proxy, no wgetrc of a caller steers the answer.
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={}
        )
    except (OSError, ValueError):
        return ""
    text = b""
    deadline = time.monotonic() + ANSWER_S
    with child:
        stream = child.stdout
        assert stream is not None
        while b"\n" not in text and len(text) < LONGEST_ANSWER:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                break
            piece = os.read(stream.fileno(), LONGEST_ANSWER)
            if not piece:
                break
            text += piece
        child.kill()  # it may go on for ever; its first line is all that counts
    return text.split(b"\n", 1)[0].decode("ascii", "replace")


def by_http(request: Request) -> str:
    """Returns the address that a page's body starts with, asked for by plain HTTP."""
    url = request["RESOLVE_URL"]
    if url is None:
        try:
            return _asked(PAGES[0], request)
        except Refused as error:
            log.warning("%s", error)
            time.sleep(RETRY_S)
            return _asked(PAGES[1], request)
    if url.lower().startswith("https"):
        raise Refused("[*] https is not supported for --resolve-http-only.")
    return _asked(url, request)


def _asked(url: str, request: Request) -> str:
    bare = url[len("http://") :] if url.lower().startswith("http://") else url
    place, slash, path = bare.partition("/")
    host, colon, port = place.partition(":")
    if any(letter <= " " for letter in bare) or (colon and not port.isdigit()):
        raise Refused("[*] --resolve-url: '%s' is not a URL such as http://192.0.2.1:8080/ip" % url)
    words = ["GET /%s HTTP/1.0" % path, "User-Agent: " + request["HTTP_USER_AGENT"], "Accept: */*", "Host: " + host]
    answer = _answer(host, int(port) if colon else 80, "\r\n".join([*words, "Connection: close", "", ""]))
    head, end, body = answer.partition("\r\n\r\n")
    if not end:
        raise Refused("Did not find the end of HTTP header.")
    address = leading(body)
    shown = "http://%s/%s" % (host, path)
    if address is None:
        raise Refused("[-] From %s\n    Invalid IP in HTTP response: %s" % (shown, head.split("\r\n")[0][:80]))
    if request["VERBOSE"]:
        print("\n[+] Resolved external IP (via %s) as: %s" % (shown, address))
    return address


def _answer(host: str, port: int, asked: str) -> str:
    """Returns what a web server answers, up to a bound; raises Refused."""
    try:
        with socket.create_connection((host, port), ANSWER_S) as stream:
            stream.sendall(os.fsencode(asked))
            text = b""
            while len(text) < LONGEST_ANSWER:
                piece = stream.recv(LONGEST_ANSWER)
                if not piece:
                    break
                text += piece
    except socket.gaierror as error:
        raise Refused("error in getaddrinfo: %s" % error.strerror) from None
    except OSError as error:
        raise Refused("resolve_ip_http: Could not create socket: %s" % (error.strerror or error)) from None
    except UnicodeError:
        raise Refused("error in getaddrinfo: %s is no host name" % host) from None
    return text.decode("latin-1")
