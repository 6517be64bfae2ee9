"""`tinyknop open`, `close` and `list`: what a person does without a knock; journaled and closed as any grant is."""

from __future__ import annotations

import time

from tinyknop.errors import ConfigError
from tinyknop.host import status

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def ask(options: argparse.Namespace, *words: str) -> str:
    """Returns what the daemon says it has done; raises ConfigError with its reason where it did nothing."""
    answer = status.ask(status.socket_of(options), words)
    if "error" in answer:
        raise ConfigError(words[0], status.plain(str(answer["error"])))
    return status.plain(str(answer.get("done", "")))


def open_(words: list[str]) -> int:
    """Opens something for an address."""
    made = status.parser("open", "Opens a port for an address, as if it had knocked.")
    made.add_argument("address", metavar="ADDR", help="the address to let in")
    made.add_argument("openings", metavar="LIST", help="what to open, such as tcp/22,udp/53")
    made.add_argument("-t", "--timeout", metavar="SECONDS", default="30", help="for how long (%(default)s)")
    made.add_argument("-p", "--ports", metavar="NAMES", default="firewall", help="through which ports (%(default)s)")
    options = made.parse_args(words)
    if not options.address.strip("0.:"):  # some devices take it for everybody
        raise ConfigError("open", "%s is no host's address: name the one to let in" % options.address)
    number = ask(options, "open", options.address, options.openings, options.timeout, options.ports)
    print("%s: open for %s s; `tinyknop close %s` ends it" % (number, options.timeout, number))
    return 0


def close(words: list[str]) -> int:
    """Closes what is open for an address, or under a number; lets go of closes that are owed."""
    made = status.parser("close", "Ends an opening before its time.")
    made.add_argument("which", metavar="NUMBER|ADDR", help="as `tinyknop list` shows it")
    options = made.parse_args(words)
    print("closed: %s" % ask(options, "close", options.which))
    return 0


def list_(words: list[str]) -> int:
    """Prints what is open."""
    options = status.parser("list", "Shows what is open, and which closes a device still owes.").parse_args(words)
    answer = status.ask(status.socket_of(options))
    print("\n".join(status.opened(answer, answer.get("now") or int(time.time()))))
    return 0
