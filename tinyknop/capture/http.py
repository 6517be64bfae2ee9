"""http: a port for SPA over HTTP, where clients may use nothing else. Reads one request and never answers.

The knock is taken out of the request by the gate (`web.py`), which also knows which proxies to believe.
"""

from tinyknop.capture import tcp

OPTIONS = {"address": "", "port": "80"}


class Capture(tcp.Capture):
    """As `tcp`, but a request ends with its blank line, so nobody has to wait for the end of the connection."""

    kind = "http"

    def __init__(self, options, sink):
        tcp.Capture.__init__(self, dict(options, port=options.get("port") or OPTIONS["port"]), sink)

    def through(self, data):
        """Tells whether the request is whole."""
        return b"\r\n\r\n" in data or b"\n\n" in data
