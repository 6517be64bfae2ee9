"""The keeper: what is open stays so on every port or, where a stanza requires all of them, on none."""

import os

from tinyknop import keeper, log, loop
from tinyknop.errors import PortError, Rejected
from tinyknop.grants import Grant
from tinyknop.says import Says

FOLDER = "/tmp/tinyknop-test-keeper"


class Settings:
    state_dir = FOLDER
    forwarding = local_nat = flush_at_exit = test = False
    ports = {"near": {"kind": "near"}, "far": {"kind": "far"}}
    carriers = {}


class Stanza:
    name, ports, force_nat, cut = "alice", ("near", "far"), None, False


class Device:
    """A port that remembers what it holds, and fails while it is told to."""

    outlives_us = True

    def __init__(self):
        self.held, self.broken = [], False

    def describe(self):
        return "device"

    async def start(self):
        pass

    async def open(self, grant, seconds):
        if self.broken:
            raise PortError("device", "broken")
        self.held.append(grant.source)

    async def close(self, grant):
        self.held = [source for source in self.held if source != grant.source]

    async def sync(self, live):
        if self.broken:
            raise PortError("device", "broken")
        self.held = [pair[0].source for pair in live]

    async def stop(self, flush):
        pass


def asked(source="192.0.2.7"):
    now = keeper.compat.wall()
    return Grant(None, source, (("tcp", 22),), now, now + 60, "alice", None, "0.0.0.0", source)


def driven(body):
    """Runs `body(keeper, near, far)` with two ports; what it returns must then be so."""
    devices = {"near": Device(), "far": Device()}
    kept = keeper.ports.make, log.sink
    keeper.ports.make = lambda name, options, carriers: devices[name]
    log.sink = lambda level, text: None
    try:
        os.mkdir(FOLDER)
    except OSError:
        pass
    scheduler = loop.Loop()
    one = keeper.Keeper(Settings, [Stanza], scheduler, Says())

    async def whole():
        await one.recover()
        await body(one, devices["near"], devices["far"])
        for worker in one.workers.values():
            await worker.stop(False)

    try:
        scheduler.run_until(whole())
    finally:
        keeper.ports.make, log.sink = kept
        os.remove(FOLDER + "/grants.journal")


async def settled(what):
    for _ in range(500):
        if what():
            return
        await loop.sleep(0.002)
    raise AssertionError("not settled")


def test_a_port_that_fails_leaves_the_other_open():
    async def body(one, near, far):
        far.broken = True
        one.open(asked(), Stanza.ports)
        await settled(lambda: near.held and one.workers["far"].failure)
        assert near.held == ["192.0.2.7"] and len(one.grants.live) == 1

    driven(body)


def test_where_all_are_required_one_that_fails_takes_the_grant_back():
    async def body(one, near, far):
        far.broken = True
        one.open(asked(), Stanza.ports, True)
        await settled(lambda: one.workers["far"].failure)
        await settled(lambda: not near.held)
        assert not one.grants.live
        try:
            one.open(asked("192.0.2.8"), Stanza.ports, True)
        except Rejected as error:
            assert error.stage == "full" and "far" in error.reason
        else:
            raise AssertionError("opened while a port is down")

    driven(body)


def test_where_all_are_required_a_port_that_fails_later_takes_nothing_back():
    async def body(one, near, far):
        one.open(asked(), Stanza.ports, True)
        await settled(lambda: near.held and far.held)
        far.broken = True
        one.workers["far"].resync()
        await settled(lambda: one.workers["far"].failure)
        assert near.held and len(one.grants.live) == 1

    driven(body)


def test_a_debt_can_be_let_go_of_by_hand():
    async def body(one, near, far):
        grant = one.open(asked(), Stanza.ports)
        await settled(lambda: near.held and far.held)
        far.broken = True
        one.workers["far"].resync()
        await settled(lambda: one.workers["far"].failure)
        assert one.closed_by_hand(grant.id)
        await settled(lambda: not near.held)
        assert one.report(0)[1][0]["ports"] == ["far"]
        assert one.closed_by_hand(grant.id) and one.report(0)[1] == []
        assert not one.closed_by_hand(grant.id)

    driven(body)
