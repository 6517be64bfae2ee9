"""`tinyknop console`: logs in to a device as the daemon would, shows what passes, tries one opening if asked."""

from __future__ import annotations

import argparse
import time

import tinyknop.ports as ports  # mypy cannot see that ports/ is tinyknop.ports
from tinyknop import config, net
from tinyknop.errors import ConfigError, PortError
from tinyknop.grants import Grant
from tinyknop.host import toml
from tinyknop.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Tables = dict[str, dict[str, Any]]

CONFIG = "/etc/tinyknop/tinyknop.toml"
SECONDS = 60  # that an opening lives where the device ends it itself
COLUMNS = 100  # of what passes, on a line


class Transcript:
    """Prints what passes: "<" from the device, ">" to it. Whole lines, so that a secret is never seen in two halves."""

    def __init__(self, carrier: Any, out: Callable[[str], object] = print) -> None:
        self.carrier = carrier
        self.out = out
        self.heard = ""
        carrier.seen = self.seen

    def seen(self, direction: str, data: bytes) -> None:
        """Takes in bytes that passed; direction is "in" or "out"."""
        text = data.decode("latin-1")
        if direction == "out":
            self.flush()
            return self.show(">", text)
        *lines, self.heard = (self.heard + text).split("\n")
        for line in lines:
            self.show("<", line + "\n")
        return None

    def show(self, arrow: str, text: str) -> None:
        """Prints one line; what cannot be seen as Python writes it."""
        shown = self.carrier.console.hidden(text).encode("unicode_escape").decode()
        for at in range(0, len(shown), COLUMNS):
            self.out("%s %s" % (arrow, shown[at : at + COLUMNS]))

    def flush(self) -> None:
        """Prints what has come of a line that has no end yet, such as a prompt."""
        if self.heard:
            self.show("<", self.heard)
        self.heard = ""


def tables(path: str) -> tuple[Tables, Tables]:
    """Returns the tables ({name: options} of carriers, and of ports) of a configuration; raises ConfigError.

    A tinyknop.toml needs no more than these: a profile can be tried before there is anybody to let in.
    """
    if not path.endswith(".toml"):
        settings = config.load(path)[0]
        return settings.carriers, settings.ports
    document = toml.Document(path)
    carriers, devices = (
        {name: document.options(kind, name) for name in document.named(kind)} for kind in ("carrier", "port")
    )
    return carriers, devices


def found(path: str, name: str) -> tuple[Any, Any]:
    """Returns (port or None, its carrier) of a name; raises ConfigError with the names there are."""
    ways, devices = tables(path)
    carriers = {known: ports.carrier(known, options) for known, options in ways.items()}
    if name in devices:
        port = ports.make(name, devices[name], carriers)
        return port, port.carrier
    if name in carriers:
        return None, carriers[name]
    names = ", ".join(sorted(carriers) + sorted(devices)) or "none"
    raise ConfigError("console", "%s: neither a carrier nor a port of the configuration (it has: %s)" % (name, names))


def grant_of(words: list[str]) -> Grant:
    """Returns the Grant of ["192.0.2.7", "tcp/22"]; raises ConfigError."""
    try:
        source = net.printed(net.packed(words[0]))
        opening = net.opening(words[1])
    except ValueError as error:
        raise ConfigError(
            "console", "%s: %s; write an address and an opening, as 192.0.2.7 tcp/22" % (" ".join(words), error)
        ) from None
    now = int(time.time())
    return Grant._make((0, source, (opening,), now, now + SECONDS, "console", None, "0.0.0.0", source))


async def walk(carrier: Any) -> float:
    """Logs in; returns after how many seconds. Raises PortError."""
    began = time.monotonic()
    await carrier.start()
    return time.monotonic() - began


async def tried(port: Any, opened: Grant | None, closed: Grant | None) -> None:
    """Opens and closes as asked; prints each step."""
    await port.start()
    if opened:
        await port.open(opened, SECONDS)
        print("opened: %s %s/%d" % (opened.source, *opened.openings[0]))
    if closed:
        await port.close(closed)
        print("closed: %s %s/%d" % (closed.source, *closed.openings[0]))
    elif opened:
        left = "the device ends it after %d s" % SECONDS if port.self_timed else "it stays so until you close it"
        print("%s: tinyknop console %s --close %s %s/%d" % (left, port.name, opened.source, *opened.openings[0]))


def parser_of() -> argparse.ArgumentParser:
    """Returns the parser of the command's words."""
    about = (
        "Logs in to a device as the daemon would and shows what passes. Stop the daemon first: one line, one talker."
    )
    parser = argparse.ArgumentParser("tinyknop console", description=about)
    parser.add_argument("name", metavar="CARRIER|PORT", help="a [carrier.NAME] or a [port.NAME] of the configuration")
    parser.add_argument("-c", "--config", metavar="FILE", default=CONFIG, help="the configuration (%s)" % CONFIG)
    for word in ("open", "close"):
        text = "with a PORT: try to %s this, as 192.0.2.7 tcp/22" % word
        parser.add_argument("--" + word, nargs=2, metavar=("ADDR", "OPENING"), help=text)
    return parser


def main(words: list[str]) -> int:
    """Walks through the dialogue; the exit status is 1 where it comes to no good end."""
    options = parser_of().parse_args(words)
    port, carrier = found(options.config, options.name)
    opened, closed = (grant_of(said) if said else None for said in (options.open, options.close))
    if port is None and (opened or closed):
        raise ConfigError("console", "%s is a carrier: name a port to open or close something" % options.name)
    transcript = Transcript(carrier) if hasattr(carrier, "seen") else None
    loop = Loop()
    try:
        seconds = loop.run_until(walk(carrier))
        if transcript:
            transcript.flush()
        print("%s: logged in after %.1f s" % (carrier.describe(), seconds))
        if opened or closed:
            loop.run_until(tried(port, opened, closed))
    except PortError:
        if transcript:
            transcript.flush()
        raise
    finally:
        loop.run_until(carrier.stop())
    return 0
