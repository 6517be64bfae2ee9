"""The command line: a table of commands, each a module imported only when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from tinyknop.errors import TinyknopError

# Name, module with main(words) -> exit status (or module:function), one line of help.
COMMANDS = (
    ("serve", "tinyknop.host.serve", "Listens for knocks and drives the ports"),
    ("knock", "tinyknop.host.knock", "Sends one knock"),
    ("keygen", "tinyknop.host.keygen", "Prints a fresh key pair, or all that both sides need (--for)"),
    ("check", "tinyknop.host.check", "Reads a configuration, says what it means, and exits"),
    ("status", "tinyknop.host.status", "Shows what is open and what was refused"),
    ("list", "tinyknop.host.byhand:list_", "Shows what is open, and which closes are owed"),
    ("open", "tinyknop.host.byhand:open_", "Opens a port by hand, as a knock would"),
    ("close", "tinyknop.host.byhand:close", "Ends an opening before its time"),
    ("explain", "tinyknop.host.explain", "Says which check refuses a packet, and what to change"),
    ("qr", "tinyknop.host.qr", "Draws the keys of its input as a QR code for a phone"),
    ("watch", "tinyknop.host.watch", "Scores who scans us, by the firewall's log"),
    ("rules", "tinyknop.host.rules", "Turns Snort rules into input for iptables-restore"),
    ("compile", "tinyknop.host.compile", "Makes one JSON file of a configuration, for a board"),
    ("console", "tinyknop.host.console", "Logs in to a router as a port would, and shows what passes"),
    ("demo", "tinyknop.host.demo", "Shows a knock open and close a real firewall, in namespaces of its own"),
    ("fwknopd", "tinyknop.host.fwknopd", "Stands in for fwknop's daemon, with its files and options"),
    ("fwknop", "tinyknop.host.fwknop", "Stands in for fwknop's client, with its options and rc file"),
)
MODULES = {name: module for name, module, _ in COMMANDS}
DROP_INS = ("fwknopd", "fwknop")  # also chosen by the program's own name, so that a link of that name works


def usage() -> str:
    """Returns the help text."""
    lines = ["usage: tinyknop COMMAND ...", ""]
    lines += ["  %-8s  %s" % (name, text) for name, _, text in COMMANDS]
    lines += ["", "`tinyknop COMMAND --help` says more about one of them; `tinyknop --version` prints the version."]
    return "\n".join(lines)


def call(name: str, words: list[str]) -> int:
    """Runs one command and returns its exit status; what goes wrong becomes one line on stderr and status 1."""
    try:
        module, _, function = MODULES[name].partition(":")
        status = getattr(import_module(module), function or "main")(words)
        sys.stdout.flush()
        return status or 0
    except TinyknopError as error:
        print(error, file=sys.stderr)
        return 1
    except BrokenPipeError:
        # `tinyknop status | head`: nobody reads on, and Python's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        return 130


def unknown(name: str) -> int:
    """Says that there is no such command, and which one may be meant."""
    from difflib import get_close_matches

    near = get_close_matches(name, [known for known, _, _ in COMMANDS], 1)
    meant = " (did you mean %s?)" % near[0] if near else ""
    print("tinyknop: %s: no such command%s; `tinyknop --help` lists them" % (name, meant), file=sys.stderr)
    return 2


def main(argv: list[str] | None = None) -> int:
    """Entry point of the `tinyknop` program: returns the exit status."""
    argv = list(sys.argv if argv is None else argv)
    program = os.path.basename(argv[0]) if argv else "tinyknop"
    words = argv[1:]
    if program in DROP_INS:
        return call(program, words)
    if not words:
        print(usage(), file=sys.stderr)
        return 2
    if words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words[0] in ("-V", "--version"):
        from tinyknop import __version__

        print("tinyknop %s" % __version__)
        return 0
    if words[0] not in MODULES:
        return unknown(words[0])
    return call(words[0], words[1:])
