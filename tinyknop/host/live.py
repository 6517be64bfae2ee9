"""`tinyknop check --live`: tries a running set-up from outside: probe, knock, probe, close, probe.

It says which step fails and why. It is run where a client would be: on another host, or in a network namespace of the
server (`ip netns exec NAME ...`). Where the daemon's socket is named, which a namespace can reach, it asks there what
became of the knock, and closes by hand.
"""

from __future__ import annotations

import argparse
import errno
import socket
import time

from tinyknop import client
from tinyknop.errors import ConfigError
from tinyknop.gate import STAGES
from tinyknop.host import knock, status
from tinyknop.host.stages import ABOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Place = tuple[int, Any]  # address family and socket address, as client.locate returns them

WAIT_S = 90  # for the end of an opening that nobody can close by hand
PROBE_S = 1.0  # that a port gets to answer
# A SYN that was dropped is sent anew by the next probe, not by the kernel a second later; far away it takes longer.
SHORTEST_S, LONGEST_S = 0.25, 4
PAUSE_S = 0.05
UNREACHABLE = (errno.ENETUNREACH, errno.EHOSTUNREACH)


class Failed(Exception):
    """A step that failed, and what may be the reason."""


def step(number: int, text: str) -> None:
    """Says that a step went well."""
    print("ok      %d. %s" % (number, text), flush=True)


def probe(goal: Place, seconds: float) -> str:
    """Returns "open", "refused", "silent" or "unreachable" for (address family, address) of a TCP port."""
    with socket.socket(goal[0], socket.SOCK_STREAM) as one:
        one.settimeout(seconds)
        try:
            one.connect(goal[1])
        except ConnectionRefusedError:
            return "refused"
        except OSError as error:
            return "unreachable" if error.errno in UNREACHABLE else "silent"
    return "open"


def wait(goal: Place, wanted: bool, seconds: float) -> tuple[str, float]:
    """Probes until a port is as wanted; returns (how it is, seconds that took)."""
    started, patience = time.monotonic(), SHORTEST_S
    while True:
        found, took = probe(goal, patience), time.monotonic() - started
        if (found == "open") == wanted or took >= seconds:
            return found, took
        patience = min(2 * patience, LONGEST_S) if found == "silent" else SHORTEST_S
        time.sleep(PAUSE_S)


class Daemon:
    """The daemon's socket, where it can be reached from here."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.before = status.ask(path)
        self.ids = [grant["id"] for grant in self.before["grants"]]

    def refusals(self) -> list[tuple[str, int]]:
        """Returns [(stage, how many)] of what was refused since the start."""
        now = status.state(self.path)["counters"]
        moved = [(stage, now.get(stage, 0) - self.before["counters"].get(stage, 0)) for stage in STAGES]
        return [(stage, count) for stage, count in moved if count > 0]

    def heard(self) -> int:
        """Returns how many packets the captures have received since the start."""
        now: int = sum(one["received"] for one in status.state(self.path)["captures"])
        before: int = sum(one["received"] for one in self.before["captures"])
        return now - before

    def taken(self) -> int:
        """Returns how many knocks were honoured since the start."""
        now: int = status.state(self.path)["counters"]["granted"]
        before: int = self.before["counters"]["granted"]
        return now - before

    def why(self) -> str:
        """Returns what the daemon knows about a knock that opened nothing."""
        refused = self.refusals()
        if self.taken():
            sick = [one for one in status.state(self.path)["ports"] if one["failure"]]
            if sick:
                return "the daemon took it, but port %s fails: %s" % (sick[0]["name"], sick[0]["failure"])
            return (
                "the daemon took it and its ports work: is its rule before the one that drops? does a service listen?"
            )
        if refused:
            stage = refused[-1][0]
            return "the daemon refused it at %s: %s. %s" % (stage, *ABOUT[stage])
        if self.heard():
            return "the daemon heard packets, and counted none of them: look at its log"
        return "the daemon heard no packet: compare the capture's interface and port with where the knock is sent"

    def close(self, openings: list[str]) -> int:
        """Closes what the knock has opened; returns how many grants that were."""
        grants = [one for one in status.ask(self.path)["grants"] if one["id"] not in self.ids]
        mine = [one for one in grants if set(one["openings"]) & set(openings)]
        for one in mine:
            status.ask(self.path, ("close", str(one["id"])))
        return len(mine)


def try_out(target: client.Target, data: bytes, daemon: Daemon | None, patience: int) -> None:
    """Goes through the steps; raises Failed at the first that fails."""
    place = client.locate(target.host, target.port)
    port = client.first_tcp(target)
    goal = client.locate(client.printed(place), port, socket.SOCK_STREAM, place[0])
    name = "%s tcp/%d" % (client.printed(place), port)
    found = probe(goal, PROBE_S)
    if found == "open":
        reason = "%s answers before any knock: the firewall lets everybody in, or only you (from loopback, or because"
        raise Failed((reason + " something is open for you already)") % name)
    if found == "unreachable":
        raise Failed("%s cannot be reached from here at all: there is no way to it" % name)
    step(1, "%s is closed before the knock (%s)" % (name, found))
    client.send(data, place)
    step(2, "knock sent: %d bytes by udp to port %d" % (len(data), target.port))
    try:
        after(target, daemon, patience, goal, name)
    except Failed:
        if daemon is not None:
            daemon.close(asked(target))
        raise


def asked(target: client.Target) -> list[str]:
    """Returns what a target asks for, as the daemon says it."""
    return ["%s/%d" % opening for opening in target.openings]


def after(target: client.Target, daemon: Daemon | None, patience: int, goal: Place, name: str) -> None:
    """Goes through the steps from the knock on; raises Failed at the first that fails."""
    limit = target.verify or client.VERIFY_S
    found, took = wait(goal, True, limit)
    if found == "refused" and (daemon is None or daemon.taken()):
        raise Failed("%s refuses connections: if the firewall drops others, it is open and no service listens" % name)
    if found != "open":
        raise Failed("%s did not open within %d s: %s" % (name, took, why(daemon)))
    step(3, "%s answers %.1f s after the knock" % (name, took))
    if daemon is not None:
        if not daemon.close(asked(target)):
            raise Failed("%s is open, and the daemon has opened nothing for this knock: what has?" % name)
        step(4, "closed by hand")
    else:
        step(4, "waiting for its end, for %d s at most" % patience)
    found, took = wait(goal, False, patience if daemon is None else limit)
    if found == "open":
        raise Failed("%s still answers after %d s: does another rule let you in, or is its time longer?" % (name, took))
    step(5, "%s is closed again, after %.1f s" % (name, took))


def why(daemon: Daemon | None) -> str:
    """Returns what may be the reason for a port that stays closed."""
    if daemon is not None:
        return daemon.why()
    return "on the server, `tinyknop status` has the stage that refused it, and `tinyknop explain` says what that means"


def daemon_of(options: argparse.Namespace) -> Daemon | None:
    """Returns the Daemon, or None where none is named: one that runs here by chance may be another server's."""
    if not (options.socket or options.server):
        return None
    return Daemon(status.socket_of(argparse.Namespace(socket=options.socket, config=options.server)))


def parser() -> argparse.ArgumentParser:
    """Returns the parser of our words: those of `tinyknop knock`, and where the daemon is."""
    made = knock.parser()
    made.prog = "tinyknop check --live"
    made.description = "Tries a running set-up from outside: is it closed, does a knock open it, does it close again?"
    made.add_argument("--socket", metavar="PATH", help="the daemon's socket, if it can be reached from here")
    made.add_argument("--server", metavar="FILE", help="the daemon's configuration, which says where its socket is")
    made.add_argument(
        "--wait",
        metavar="SECONDS",
        type=int,
        default=WAIT_S,
        help="for its end, where there is no socket (%(default)s)",
    )
    return made


def main(words: list[str]) -> int:
    """Goes through the steps; exit status 1 where one fails."""
    told = parser().parse_args(words)
    if told.then or told.dry_run:
        raise ConfigError("--live", "it knocks and does nothing else: leave --then and --dry-run out")
    target = knock.gather(told)
    if target.address == "resolve":
        target.set("address", knock.resolve(target.resolve_url or knock.RESOLVE_URL), "-R")
    if told.verify is not None:
        target.set("verify", told.verify, "--verify")
    client.first_tcp(target)
    try:
        try_out(target, client.build(target), daemon_of(told), told.wait)
    except Failed as error:
        print("FAILED  %s" % error)
        return 1
    print("All works.")
    return 0
