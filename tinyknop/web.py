"""SPA over HTTP: takes the knock out of a GET request, and the client's address out of what trusted proxies say of it.

Pure. docs/fwknopd.md section 4.2, but X-Forwarded-For is believed only of listed proxies, and lists are understood.
"""

from . import log, net
from .errors import Rejected

SHORTEST = 140
# Whose X-Forwarded-For is believed where nothing else is set: loopback and private networks.
PROXIES = tuple(
    [
        net.network(text)
        for text in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")
    ]
)


def is_request(payload):
    """Tells whether a payload is a GET request that may carry a knock."""
    return payload[:5].upper() == b"GET /"


def decode(payload, source, settings):
    """Returns (the knock, the client's packed address as a trusted proxy forwarded it, or None) of a GET request.

    `source` is the packed address that the request came from. Raises Rejected("http", ...).
    """
    if not settings.any_agent and b"User-Agent: Fwknop" not in payload:
        raise Rejected("http", "not the user agent Fwknop")
    knock = (payload[5:].split(None, 1) or [b""])[0] if payload[5:6] > b" " else b""
    if len(knock) < SHORTEST:
        raise Rejected("http", "the request's target is too short for a knock")
    knock = knock.replace(b"-", b"+").replace(b"_", b"/")
    if not settings.forwarded_for or not _trusted(source, settings):
        return knock, None
    return knock, _forwarded(payload, settings)


def _trusted(address, settings):
    return any([net.contains(network, address) for network in settings.proxies])


def _forwarded(payload, settings):
    """Returns the right-most address that is no proxy of ours, since a client can put anything before it, or None."""
    client = None
    head = payload.replace(b"\r\n", b"\n").partition(b"\n\n")[0]  # the body is the client's own
    names = [line.partition(b":") for line in head.split(b"\n")]
    values = b",".join([value for name, _, value in names if name.lower() == b"x-forwarded-for"])
    for item in reversed(values.split(b",") if values else []):
        try:
            client = net.packed(item.strip().decode())
        except (ValueError, UnicodeError):
            log.debug("Error parsing X-Forwarded-For header: a value is not an IP address")
            return None
        if not _trusted(client, settings):
            break
    return client
