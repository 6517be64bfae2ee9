"""Sends one packet as fwknop's client does: udp, tcp, http, and by hand-made IPv4 headers (icmp, tcpraw, udpraw)."""

from __future__ import annotations

import os
import re
import socket
import struct

from tinyknop import client, log
from tinyknop.host.fwoptions import RAW, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tinyknop.host.fwrequest import Request

CONNECT_S = 30  # a SYN that is dropped is sent anew after 1, 3, 7 and 15 s
NOT_SENT = "send_spa_packet: packet not sent."
TTL = 255
SYN, WINDOW = 0x02, 32767
ECHO_REQUEST = 8


def located(host: str, port: int | None, request: Request, kind: int) -> tuple[int, tuple[Any, ...]]:
    """Returns (family, socket address) of a host, IPv4 first; raises Refused with the resolver's words."""
    only = socket.AF_INET if request["SERVER_RESOLVE_IPV4"] or request["SPA_SERVER_PROTO"] in RAW else 0
    try:
        found = [(item[0], item[-1]) for item in socket.getaddrinfo(client.plain(host), port, only, kind)]
    except socket.gaierror as error:
        if request["SPA_SERVER_PROTO"] in RAW:
            text = "resolve_dst_addr() : %s\n[*] Unable to resolve %s as an ip address" % (error.strerror, host)
        else:
            text = "error in getaddrinfo: %s" % error.strerror
        raise Refused("%s\n%s" % (text, NOT_SENT)) from None
    except (UnicodeError, LookupError):  # LookupError: this Python has no IDNA
        raise Refused("error in getaddrinfo: %s is no host name\n%s" % (host, NOT_SENT)) from None
    found.sort(key=lambda item: item[0] != socket.AF_INET)
    if found[0][0] != socket.AF_INET:
        log.warning("[-] %s is reached by IPv6, which tinyknop's server takes and fwknopd does not", host)
    return found[0]


def send(data: bytes, request: Request) -> int:
    """Sends the packet by the protocol asked for; returns the number of bytes sent, raises Refused."""
    proto = request["SPA_SERVER_PROTO"]
    try:
        if proto in RAW:
            return _raw(data, request)
        if proto == "http":
            host, port = proxy(request) or (request["SPA_SERVER"], request["SPA_SERVER_PORT"])
            return _connected(http_request(data, request), host, port, request, socket.SOCK_STREAM)
        kind = socket.SOCK_DGRAM if proto == "udp" else socket.SOCK_STREAM
        return _connected(data, request["SPA_SERVER"], request["SPA_SERVER_PORT"], request, kind)
    except OSError as error:
        raise Refused("send_spa_packet: %s\n%s" % (error.strerror or error, NOT_SENT)) from None


def _connected(data: bytes, host: str, port: int, request: Request, kind: int) -> int:
    """Sends over a connected socket of our port, if one is asked for."""
    family, address = located(host, port, request, kind)
    with socket.socket(family, kind) as sender:
        sender.settimeout(CONNECT_S)
        try:
            if request["SPA_SOURCE_PORT"]:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sender.bind(("", request["SPA_SOURCE_PORT"]))
            sender.connect(address)
        except OSError as error:
            said = "send_spa_packet_tcp_or_udp: Could not create socket: %s\n%s"
            raise Refused(said % (error.strerror or error, NOT_SENT)) from None
        sender.sendall(data)
    return len(data)


def proxy(request: Request) -> tuple[str, int] | None:
    """Returns (host, port) of the HTTP proxy, or None; raises Refused."""
    text = request["http-proxy"]
    if text is None:
        return None
    text = text[len("http://") :] if text.lower().startswith("http://") else text
    host, colon, port = text.rstrip("/").rpartition(":")
    if not colon or text.endswith("]"):  # [2001:db8::1] without a port
        return text.rstrip("/").strip("[]"), request["SPA_SERVER_PORT"]
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise Refused("[-] proxy port value is invalid, must be in [1-65535]\n" + NOT_SENT)
    return host.strip("[]"), int(port)


def _in_url(host: str) -> str:
    """Returns a host as URLs have it: IPv6 in brackets."""
    return "[%s]" % host if ":" in host else host


def http_request(data: bytes, request: Request) -> bytes:
    """Returns the GET request that carries a packet, as bytes."""
    path = "/" + data.decode().replace("+", "-").replace("/", "_")
    through = proxy(request)
    host = _in_url(request["SPA_SERVER"])
    if through:
        path, host = "http://" + host + path, _in_url(through[0])
    lines = ["GET %s HTTP/1.0" % path, "User-Agent: " + request["HTTP_USER_AGENT"], "Accept: */*", "Host: " + host]
    text = "\r\n".join([*lines, "Connection: close", "", ""])
    if any(ord(letter) < 32 and letter not in "\r\n" for letter in text) or text.count("\n") != 6:
        raise Refused("--user-agent: a control character would change the request: leave it out")
    return os.fsencode(text)


def _raw(data: bytes, request: Request) -> int:
    """Sends one IPv4 packet whose headers are ours; needs root."""
    kind = socket.SOCK_RAW
    _, (destination, _) = located(request["SPA_SERVER"], None, request, kind)
    packet = raw_packet(data, request, destination)
    try:
        sender = socket.socket(socket.AF_INET, kind, socket.IPPROTO_RAW)
    except PermissionError as error:
        said = "send_spa_packet_%s: create socket: %s: run it as root\n%s"
        raise Refused(said % (request["SPA_SERVER_PROTO"], error.strerror, NOT_SENT)) from None
    with sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        return sender.sendto(packet, (destination, 0))


def raw_packet(data: bytes, request: Request, destination: str) -> bytes:
    """Returns the whole IPv4 packet; an unset source address (0.0.0.0) is the kernel's to fill in."""
    source, port = request["SPA_SOURCE_PORT"], request["SPA_SERVER_PORT"]
    if request["SPA_SERVER_PROTO"] == "tcpraw":
        proto = socket.IPPROTO_TCP
        inner = struct.pack("!HHLLBBHHH", source, port, 1, 0, 5 << 4, SYN, WINDOW, 0, 0)
    elif request["SPA_SERVER_PROTO"] == "udpraw":
        proto = socket.IPPROTO_UDP
        inner = struct.pack("!HHHH", source, port, 8 + len(data), 0)
    else:
        proto = socket.IPPROTO_ICMP
        echo = (int.from_bytes(os.urandom(2), "big"), 1) if request["icmp-type"] == ECHO_REQUEST else (0, 0)
        fields = (request["icmp-type"], request["icmp-code"])
        inner = struct.pack("!BBHHH", *fields, 0, *echo)
        inner = struct.pack("!BBHHH", *fields, checksum(inner + data), *echo)
    ends = [socket.inet_aton(address) for address in (request["SPOOF_SOURCE_IP"] or "0.0.0.0", destination)]
    size = 20 + len(inner) + len(data)
    # The kernel fills in the identification, where it is 0, and the header's own checksum.
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, size, 0, 0, TTL, proto, 0, *ends)
    return head + inner + data


def checksum(data: bytes) -> int:
    """Returns the Internet checksum of bytes."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
