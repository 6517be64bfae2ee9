"""The daemon's state as Prometheus reads it (text format 0.0.4): for the textfile collector, or over HTTP on loopback.

The listener is a process of its own that asks the daemon's socket for each scrape: the daemon itself answers nobody.
"""

from __future__ import annotations

import sys
from socket import AF_INET6
from socketserver import TCPServer

from tinyknop import net
from tinyknop.errors import ConfigError
from tinyknop.gate import STAGES

try:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
except ImportError:
    raise ConfigError("--metrics", "needs Python's http and email (on OpenWrt python3-urllib)") from None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    Answer = dict[str, Any]  # the daemon's JSON
    Labels = tuple[tuple[str, object], ...]  # names and values

TYPE = "text/plain; version=0.0.4; charset=utf-8"
LOOPBACK = ((bytes((127, 0, 0, 0)), 8), (bytes(15) + b"\1", 128))
PATIENCE_S = 5  # that a client gets to say what it wants
# Name, type, help; after that what _samples finds.
FAMILIES = (
    ("start_time_seconds", "gauge", "When the daemon was started, in seconds since 1970."),
    ("knocks_total", "counter", "Knocks that were honoured, by kind: granted (an opening) or commands."),
    ("refused_total", "counter", "Packets that were refused, by the stage that refused them."),
    ("open_grants", "gauge", "Grants that are open."),
    ("stanzas", "gauge", "Stanzas in force."),
    ("stanza_knocks_total", "counter", "Honoured knocks of a stanza, for the hundred stanzas that knocked last."),
    ("stanza_last_knock_seconds", "gauge", "When a stanza last knocked, in seconds since 1970."),
    ("capture_received_total", "counter", "Packets that a capture heard."),
    ("capture_dropped_total", "counter", "Packets that a capture lost or found malformed."),
    ("capture_up", "gauge", "1 while a capture hears, 0 while its interface is down."),
    ("port_up", "gauge", "1 while a port works, 0 while it fails."),
    (
        "port_failing_since_seconds",
        "gauge",
        "Since when a port has failed, in seconds since 1970; absent while it works.",
    ),
    ("port_owed_closes", "gauge", "Closes that a port has not confirmed yet."),
    ("watch_lines_total", "counter", "Lines of the firewall's log that were read."),
    ("watch_sources", "gauge", "Sources that scan us, by danger level, of those in the daemon's report."),
    ("watch_blocked", "gauge", "Sources that are blocked."),
)


def escaped(value: object) -> str:
    """Returns a label's value as the format wants it; what is no text, such as half of a pair of UTF-16, as "?"."""
    return str(value).encode("utf-8", "replace").decode().replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _named(items: Iterable[dict[str, Any]], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (label, item); a second item of the same name gets a number, since no series may come twice."""
    seen: dict[str, int] = {}
    for item in items:
        name = str(item.get(key, ""))
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else "%s #%d" % (name, seen[name]), item


def _samples(answer: Answer) -> Iterator[tuple[str, Labels, int]]:
    """Yields (name of the family, labels as pairs, value)."""
    counters = answer.get("counters", {})
    yield "start_time_seconds", (), answer.get("started", 0)
    for kind in ("granted", "commands"):
        yield "knocks_total", (("kind", kind),), counters.get(kind, 0)
    for stage in STAGES:
        yield "refused_total", (("stage", stage),), counters.get(stage, 0)
    yield "open_grants", (), answer.get("open", len(answer.get("grants", ())))
    yield "stanzas", (), answer.get("stanza_count", 0)
    for name, last, knocks in answer.get("stanzas", ()):
        yield "stanza_knocks_total", (("stanza", name),), knocks
        if last:
            yield "stanza_last_knock_seconds", (("stanza", name),), last
    for name, item in _named(answer.get("captures", ()), "device"):
        labels = (("capture", name),)
        yield "capture_received_total", labels, item.get("received", 0)
        yield "capture_dropped_total", labels, item.get("dropped", 0)
        yield "capture_up", labels, int(not item.get("failing_since"))
    for name, item in _named(answer.get("ports", ()), "name"):
        both = (("port", name), ("device", item.get("device", "")))
        yield "port_up", both, int(not item.get("failure"))
        if item.get("failing_since"):
            yield "port_failing_since_seconds", both, item["failing_since"]
        yield "port_owed_closes", both, item.get("owed", 0)
    watched = answer.get("watch")
    if watched:
        yield "watch_lines_total", (), watched.get("lines", 0)
        levels = [row["level"] for row in watched.get("sources", ())]
        for level in range(1, 6):
            yield "watch_sources", (("level", level),), levels.count(level)
        yield "watch_blocked", (), len(watched.get("blocked", ()))


def text(answer: Answer) -> str:
    """Returns a daemon's answer as one page of metrics."""
    found: dict[str, list[str]] = {}
    for name, labels, value in _samples(answer):
        inside = ",".join('%s="%s"' % (label, escaped(text)) for label, text in labels)
        line = "tinyknop_%s%s %d" % (name, "{%s}" % inside if inside else "", value)
        found.setdefault(name, []).append(line)
    lines = []
    for name, kind, help_text in FAMILIES:
        if name in found:
            lines += ["# HELP tinyknop_%s %s" % (name, help_text), "# TYPE tinyknop_%s %s" % (name, kind)]
            lines += found[name]
    return "\n".join(lines) + "\n"


def place(where: str) -> tuple[str, int]:
    """Returns (address, port) of "127.0.0.1:9762" or "[::1]:9762"; raises ConfigError for another machine's."""
    host, colon, port = where.rpartition(":")
    host = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        address = net.packed(host)
        if not port.isdigit() or not 0 <= int(port) <= 65535:
            raise ValueError
    except ValueError:
        raise ConfigError("--listen", "%r is not an address and a port, such as 127.0.0.1:9762" % where) from None
    if not any(net.contains(network, address) for network in LOOPBACK):
        reason = "%s is not loopback: who may read this is for a web server in front of it to decide" % host
        raise ConfigError("--listen", reason)
    return host, int(port)


def handler(ask: Callable[[], str]) -> type[BaseHTTPRequestHandler]:
    """Returns the class that answers requests with what `ask()` returns, a page of metrics."""

    class Handler(BaseHTTPRequestHandler):
        """One scrape."""

        timeout = PATIENCE_S

        def do_GET(self) -> None:  # noqa: N802  (the library's name for it)
            if self.path.split("?")[0] != "/metrics":
                self.reply(404, "metrics are at /metrics\n")
                return
            try:
                self.reply(200, ask())
            except ConfigError as error:
                self.reply(503, "%s\n" % error)

        def reply(self, status: int, page: str) -> None:
            data = page.encode()
            self.send_response(status)
            self.send_header("Content-Type", TYPE)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: object) -> None:
            """Says nothing: a scrape is no event."""

    return Handler


class Listener(ThreadingHTTPServer):
    """The HTTP server of one address."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Binds without asking a name server who we are, as the library would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a client that went away, of which the library would print a traceback."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Listener6(Listener):
    """The same for IPv6."""

    address_family = AF_INET6


def server(where: str, ask: Callable[[], str]) -> Listener:
    """Returns an HTTP server that is bound; raises ConfigError where that cannot be."""
    host, port = place(where)
    try:
        return (Listener6 if ":" in host else Listener)((host, port), handler(ask))
    except OSError as error:
        raise ConfigError("--listen", "cannot listen at %s: %s" % (where, error.strerror)) from None


def serve(where: str, ask: Callable[[], Answer]) -> int:
    """Answers scrapes until somebody interrupts it, with what `ask()` returns: the daemon's answer."""
    with server(where, lambda: text(ask())) as listener:
        host = "[%s]" % listener.server_name if ":" in listener.server_name else listener.server_name
        print("metrics at http://%s:%d/metrics" % (host, listener.server_port), flush=True)
        try:
            listener.serve_forever()
        except KeyboardInterrupt:
            pass
    return 0
