"""`tinyknop knock`: one knock at a named target or a host, and if asked to, the wait for its answer and a command.

Takes no key on the command line, where everybody on the machine could read it.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys

from tinyknop import client, log, net
from tinyknop.errors import ConfigError
from tinyknop.host import toml

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any
    from urllib.request import OpenerDirector

    from tinyknop.client import Target

    Entry = tuple[str, str, str]  # name, text, where
    Place = tuple[int, tuple[Any, ...]]  # address family, socket address

FILES = ("~/.tinyknop/tinyknop.toml", "tinyknop.toml")
RESOLVE_URL = "https://www.cipherdyne.org/cgi-bin/myip"  # fwknop's own default
RESOLVE_S = 10
KEYS_FROM_ENV = ("TINYKNOP_KEY_BASE64", "TINYKNOP_HMAC_KEY_BASE64")
# Flag, the target's setting it stands for, its value's name, help.
FLAGS = (
    (("-A", "--openings"), "openings", "LIST", "what to open, such as tcp/22,udp/53"),
    (("-D", "--host"), "host", "HOST", "the server, where NAME is not its name"),
    (("-p", "--port"), "port", "PORT", "the server's port for knocks (62201)"),
    (("-f", "--timeout"), "timeout", "SECONDS", "for how long; 0: as the server likes"),
    (("-k", "--key-file"), "key_file", "FILE", "the two lines that `tinyknop keygen` prints"),
    (("--digest",), "digest", "NAME", "digest inside the packet (sha256)"),
    (("--hmac",), "hmac", "NAME", "HMAC around it (sha256)"),
    (("--mode",), "mode", "NAME", "encryption mode (cbc)"),
    (("--user",), "user", "NAME", "user name in the packet (yours)"),
    (("--resolve-url",), "resolve_url", "URL", "where -R asks (%s)" % RESOLVE_URL),
)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of our words."""
    made = argparse.ArgumentParser(
        "tinyknop knock",
        description="Sends one knock.",
        epilog="Keys come from a file, from --stdin, or from the variables %s." % " and ".join(KEYS_FROM_ENV),
    )
    made.add_argument("name", metavar="NAME|HOST", help="a [target.NAME] of the configuration, or a host")
    made.add_argument("-c", "--config", metavar="FILE", help="read targets there, not in %s" % " and ".join(FILES))
    for flags, name, value, text in FLAGS:
        made.add_argument(*flags, dest=name, metavar=value, help=text)
    whom = made.add_mutually_exclusive_group()
    whom.add_argument("-a", "--address", metavar="ADDR", help="the address to let in")
    whom.add_argument("-s", "--source", action="store_const", const="source", dest="address", help="whoever sends it")
    whom.add_argument(
        "-R", "--resolve", action="store_const", const="resolve", dest="address", help="our address, as the web sees it"
    )
    made.add_argument("--stdin", action="store_true", help="read the lines of a key file from standard input")
    made.add_argument("--hints", action="store_const", const="Y", help="spare a tinyknop server the search for the key")
    made.add_argument("--dry-run", action="store_true", help="print the packet, send nothing")
    made.add_argument(
        "--verify", nargs="?", const=str(client.VERIFY_S), metavar="SECONDS", help="wait until it answers (%(const)s)"
    )
    made.add_argument("--then", nargs=argparse.REMAINDER, metavar="CMD", help="run this once it answers; comes last")
    made.add_argument("-v", "--verbose", action="store_true", help="say what is done")
    return made


def find(name: str, config: str | None) -> tuple[list[Entry], str]:
    """Returns (entries, where) of a named target from the first file that has it, else those of a host."""
    looked = []
    for path in [config] if config else [os.path.expanduser(file) for file in FILES]:
        if not config and not os.path.exists(path):
            continue
        looked.append(path)
        document = toml.Document(path)
        if name not in document.named("target"):
            continue
        entries = document.entries("target", name)
        if os.stat(path).st_mode & 0o077 and any(entry[0].lower() in client.KEY_WORDS for entry in entries):
            where = document.where("target", name)
            raise ConfigError(where, "holds a key and others can read the file: chmod 600 %s, or use key_file" % path)
        return [_rooted(entry) for entry in entries], document.where("target", name)
    return [("host", name, "NAME")], "%s (no such target in %s)" % (name, ", ".join(looked)) if looked else name


def _rooted(entry: Entry) -> Entry:
    """Returns an entry with the ~ of its key_file put out in full."""
    name, text, where = entry
    return (name, os.path.expanduser(text), where) if name.lower() == "key_file" else entry


def gather(options: argparse.Namespace) -> Target:
    """Returns the Target that the configuration, the environment and the flags describe together."""
    entries, where = find(options.name, options.config)
    target = client.Target(entries, where)
    if target.host is None:
        target.set("host", options.name, "NAME")
    for name in KEYS_FROM_ENV:
        plain = name[len("TINYKNOP_") :].lower()
        if os.environ.get(name) and plain not in target.places and not options.key_file:
            target.set(plain, os.environ[name], "$" + name)
    for flags, name, _, _ in FLAGS + ((("--address",), "address", "", ""), (("--hints",), "hints", "", "")):
        if getattr(options, name) is not None:
            target.set(name, getattr(options, name), flags[-1])
    if options.key_file:  # beats keys that the target itself holds
        for word in client.KEY_WORDS:
            setattr(target, word, None)
            target.places.pop(word, None)
    if options.stdin:
        for entry in client.parse_keys(sys.stdin.buffer.read(65536), "stdin"):
            target.set(*entry)
    if "user" not in target.places:
        target.set("user", _own_name(), "our name")
    return target


def _own_name() -> str:
    """Returns the user's name, as fwknop's client sends it, or fwknop's stand-in where nobody knows it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "NO_USER"


def resolve(url: str) -> str:
    """Returns the address that a web page says we have; raises ConfigError."""
    try:
        import ssl  # noqa: F401  (without it urllib knows no https)
        from urllib.error import URLError
        from urllib.request import Request
    except ImportError:
        reason = (
            "needs Python's urllib and ssl (on OpenWrt python3-urllib and python3-openssl): or give the address with -a"
        )
        raise ConfigError("-R", reason) from None

    if not url.startswith("https://"):
        raise ConfigError("--resolve-url", "%s is not an https:// address: anybody on the way could choose it" % url)
    try:
        with https_only().open(Request(url, headers={"User-Agent": "tinyknop"}), timeout=RESOLVE_S) as answer:
            text = answer.read(200).decode("ascii", "replace").strip()
    except (URLError, OSError, ValueError) as error:
        raise ConfigError(url, "cannot ask for our address (%s): give it with -a" % error) from None
    try:
        address: str = net.printed(net.packed(text.split()[0] if text else ""))
    except ValueError:
        raise ConfigError(url, "did not answer with an address: give it with -a, or another --resolve-url") from None
    return address


def https_only() -> OpenerDirector:
    """Returns an opener for https:// alone: urllib's own follows a redirect to http://, where anybody could answer."""
    from urllib import request

    opener = request.OpenerDirector()
    for name in "Proxy HTTPS HTTPRedirect HTTPDefaultError Unknown".split():
        opener.add_handler(getattr(request, name + "Handler")())
    opener.add_handler(request.HTTPErrorProcessor())
    return opener


def patience(options: argparse.Namespace, target: Target) -> int | None:
    """Returns how many seconds to wait for an answer, or None for not at all."""
    if options.verify is not None:
        target.set("verify", options.verify, "--verify")
    seconds: int | None = target.verify
    return client.VERIFY_S if seconds is None and options.then is not None else seconds


def command_of(options: argparse.Namespace) -> list[str] | None:
    """Returns the words of --then; raises ConfigError where there are none."""
    if options.then is not None and not options.then:
        raise ConfigError("--then", "names no command: put it last, such as --then ssh gate.example.net")
    words: list[str] | None = options.then
    return words


def run(words: list[str]) -> None:
    """Becomes the command; returns only when it cannot be run."""
    sys.stdout.flush()
    try:
        os.execvp(words[0], words)
    except OSError as error:
        raise ConfigError("--then", "cannot run %s: %s" % (words[0], error.strerror)) from None


def wait(place: Place, target: Target, seconds: int) -> bool:
    """Waits for the first TCP opening; returns False, and says what may be wrong, when nothing answers."""
    port = client.first_tcp(target)
    took = client.verify(place, port, seconds)
    if took is None:
        text = "%s tcp/%d does not answer after %d s: wrong key, clock or address, or no service behind it"
        print(text % (client.printed(place), port, seconds), file=sys.stderr)
        return False
    log.debug("%s tcp/%d answers after %.2f s", client.printed(place), port, took / 1000)
    return True


def located(target: Target) -> Place:
    """Returns the server's address; an unknown name that is no target either may be a misspelt one, so says both."""
    try:
        found: Place = client.locate(target.host, target.port)
        return found
    except ConfigError as error:
        if target.where.startswith(target.host):
            raise ConfigError(target.where, error.reason) from None
        raise


def main(words: list[str]) -> int:
    """Builds the knock, sends it, and does what was asked for after it."""
    options = parser().parse_args(words)
    log.threshold = 0 if options.verbose else 1
    target = gather(options)
    command = command_of(options)
    seconds = patience(options, target)
    if seconds is not None:
        client.first_tcp(target)  # an impossible wish is refused before anything is sent
    if target.address == "resolve":
        target.set("address", resolve(target.resolve_url or RESOLVE_URL), "-R")
        log.debug("our address is %s", target.address)
    if options.dry_run:
        print(client.build(target).decode())
        return 0
    data = client.build(target)
    place = located(target)
    client.send(data, place)
    log.debug("%d bytes sent to %s port %d over udp", len(data), client.printed(place), target.port)
    if seconds is None and "address" not in target.places:
        text = "no address in the knock: it opens for whoever sends it, and a server that wants one refuses it (-a, -R)"
        print("note: " + text, file=sys.stderr)
    if seconds is not None and not wait(place, target, seconds):
        return 1
    if command:
        run(command)
    return 0
