"""`tinyknop fwknopd --fw-list`, `--fw-list-all` and `--fw-flush`: looks at what a daemon made, or removes it."""

from __future__ import annotations

import os
import subprocess
import time

import tinyknop.ports as ports
from tinyknop import log
from tinyknop.errors import ConfigError, PortError
from tinyknop.host import status
from tinyknop.host.serve import lock
from tinyknop.journal import Journal
from tinyknop.loop import Loop
from tinyknop.settings import CHAINS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from tinyknop.grants import Grant
    from tinyknop.settings import Settings

    Table = dict[str, Any]

# Kind of port -> what lists what it holds; the words in braces are options of the port.
LISTINGS = {
    "ipset": (("ipset", "list"),),
    "nftables": (("nft", "list", "ruleset"),),
    "pf": (("{binary}", "-a", "{anchor}", "-s", "rules"),),
    "ipfw": (("{binary}", "-d", "list"),),
}
CLOSE_WAIT_S = 10  # for a running daemon, until its port has confirmed every close


def act(settings: Settings, options: dict[str, Any]) -> int:
    """Lists or flushes, as the options say; returns the exit status."""
    table = settings.ports["firewall"]
    if "fw-flush" in options:
        print("Deleting any existing firewall rules...")
        return flush(table, ended(settings.state_dir))
    chained = table["kind"] in ("iptables", "firewalld")
    if "fw-list-all" in options:
        print("Listing all iptables rules in applicable tables...", flush=True)
        lines = [words(table, chain, "-v", "-n", "-L", "--line-numbers") for chain in chains(table)]
    else:
        print("Listing rules in fwknopd iptables chains...", flush=True)
        lines = [words(table, chain, "-L", chain[4], "--line-numbers", "-n") for chain in chains(table)]
    if not chained:
        lines = [[word.format(**table) for word in argv] for argv in LISTINGS[table["kind"]]]
    for argv in lines:
        print(flush=True)
        run(argv)
        if chained and "fw-list" in options:
            run([argv[0].replace("iptables", "ip6tables"), *argv[1:]], quiet=True)
    return 0


def run(argv: list[str], quiet: bool = False) -> None:
    """Runs a listing; `quiet` where what it names need not be there."""
    try:
        subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL if quiet else None)
    except OSError as error:
        log.error("%s: %s", argv[0], error.strerror)


def chains(table: Table) -> list[list[str]]:
    """Returns the fields of the chains that are in use."""
    specs = [table[option] for _, option, _ in CHAINS if table.get(option)]
    return [[field.strip() for field in spec.split(",")] for spec in specs]


def words(table: Table, chain: list[str], *rest: str) -> list[str]:
    """Returns the words of one iptables command, as firewalld wants to hear it where it is in charge."""
    binary = [table["binary"]]
    if table["kind"] == "firewalld":
        binary += ["--direct", "--passthrough", "ipv4"]
    return [*binary, "-t", chain[1], *rest]


def ended(state: str) -> list[Grant]:
    """Ends what the port holds open, or the next knock or start would open it again.

    A running daemon is asked to. Without one the journal forgets its grants, which are returned.
    """
    path = os.path.join(state, status.SOCKET)
    try:
        numbers = {row["id"] for row in status.ask(path).get("grants", ()) if "firewall" in row["ports"]}
        for number in sorted(numbers):
            status.ask(path, ("close", str(number)))
        deadline = time.monotonic() + CLOSE_WAIT_S
        while numbers & {row["id"] for row in status.ask(path).get("owed", ())} and time.monotonic() < deadline:
            time.sleep(0.05)
    except ConfigError as error:
        log.debug("%s", error)
        try:
            return forgotten(state)
        except (ConfigError, OSError) as error:
            log.warning("what was open may be opened again: %s", error)
    return []


def forgotten(state: str) -> list[Grant]:
    """Takes the port's grants out of the journal of a daemon that is gone, returns them; ConfigError, OSError."""
    path = os.path.join(state, "grants.journal")
    if not os.path.exists(path):
        return []
    with lock(os.path.join(state, "tinyknop.lock")):
        journal = Journal(path)
        entries = journal.load()
        journal.rewrite([(grant, names) for grant, names in entries if "firewall" not in names])
    return [grant for grant, names in entries if "firewall" in names]


def flush(table: Table, left: list[Grant]) -> int:
    """Removes what a daemon made, which has `left` these grants; returns the exit status."""
    options = dict(table)
    if "flush_at_exit" in options:
        options["flush_at_exit"] = "Y"
    loop = Loop()
    try:
        port = ports.make("firewall", options, {})
        loop.run_until(port.start())  # finds out which families there are, and makes what it then removes
        if getattr(port, "shared", False):  # nothing else tells these from what the owner put there
            loop.run_until(port.close(*left))
        loop.run_until(port.sync([]))
        loop.run_until(port.stop(True))
    except PortError as error:
        log.error("%s", error)
        return 1
    return 0
