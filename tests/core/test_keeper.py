"""The keeper: what is open stays so on every port or, where a stanza requires all of them, on none."""

import json
import os

from tinyknop import keeper, log, loop
from tinyknop.control import _parts
from tinyknop.errors import PortError, Rejected
from tinyknop.grants import Grant
from tinyknop.says import Says

FOLDER = "/tmp/tinyknop-test-keeper"
DEVICES = {}  # kind -> port that another configuration has


class Settings:
    state_dir = FOLDER
    forwarding = local_nat = flush_at_exit = test = False
    ports = {"near": {"kind": "near"}, "far": {"kind": "far"}}
    carriers = {}
    blocks = ()


class Stanza:
    name, ports, force_nat, cut = "alice", ("near", "far"), None, False


class Device:
    """A port that remembers what it holds, and fails while it is told to."""

    outlives_us = True

    def __init__(self):
        self.held, self.broken, self.left = [], False, None

    def describe(self):
        return "device"

    def check(self, grant):
        if ":" in grant.source:
            raise PortError("device", "no IPv6 here")

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
        self.left = flush


def asked(source="192.0.2.7", seconds=60, stanza="alice"):
    now = keeper.compat.wall()
    return Grant(None, source, (("tcp", 22),), now, now + seconds, stanza, None, "0.0.0.0", source)


def driven(body, blind=False):
    """Runs `body(keeper, near, far)` with two ports, which can be read back unless they are `blind`."""
    devices = {"near": Device(), "far": Device()}
    for device in devices.values():
        device.blind = blind
    kept = keeper.ports.make, log.sink
    keeper.ports.make = lambda name, options, carriers: devices.get(options["kind"]) or DEVICES[options["kind"]]
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


def test_a_grant_that_ends_while_a_daemon_starts_is_closed_on_the_device():
    async def body(one, near, far):
        one.open(asked(), ["far", "near"])
        await settled(lambda: near.held and far.held)
        again, sync = keeper.Keeper(Settings(), [Stanza()], loop.current(), Says()), far.sync

        async def slow(live):
            await sync(live)
            for number in list(again.grants.live):
                again.close(number)

        far.sync = slow
        await again.recover()
        await settled(lambda: not near.held and not far.held and not again.report(0)[1])

    driven(body)


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


def test_where_all_are_required_a_command_that_must_not_begin_takes_the_grant_back():
    """The note could not be written: the disk is full. The other port is not to stay open."""

    async def body(one, near, far):
        note = one._journal.begins
        one._journal.begins = lambda number, port, openings: port == "near" and note(number, port, openings)
        one.open(asked(), Stanza.ports, True)
        await settled(lambda: not one.grants.live)
        await settled(lambda: not near.held)
        assert not far.held

    driven(body, True)


def test_where_all_are_required_what_another_grant_holds_for_longer_counts_as_open():
    async def body(one, near, far):
        one.open(asked(seconds=90), ("near",))
        await settled(lambda: near.held)
        grant = one.open(asked(stanza="bob"), Stanza.ports, True)
        await settled(lambda: far.held and not one._together)
        near.broken = True
        one.workers["near"].resync()
        await settled(lambda: one.workers["near"].failure)
        assert far.held and grant.id in one.grants.live

    driven(body)


def test_where_all_are_required_a_reload_before_all_have_opened_takes_nothing_back_later():
    async def body(one, near, far):
        new = DEVICES["new"] = Device()
        opening, far.open = far.open, lambda grant, seconds: loop.sleep(60)
        grant = one.open(asked(), Stanza.ports, True)
        await settled(lambda: near.held)
        changed = await one.change(*another({"near": {"kind": "near"}, "far": {"kind": "new"}}, "near", "far"))
        await one.settle(changed, True)
        await settled(lambda: new.held and not one._together)
        assert grant.id in one.grants.live and opening

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
        assert [row["ports"] for row in one.report(0)[1]] == [["far"]]
        assert one.closed_by_hand(grant.id) and len(one.report(0)[1]) == 0
        assert not one.closed_by_hand(grant.id)

    driven(body)


def test_what_a_port_can_never_open_is_refused_and_no_failure_of_its_device():
    async def body(one, near, far):
        try:
            one.open(asked("2001:db8::1"), Stanza.ports)
        except Rejected as error:
            assert error.stage == "nat" and error.reason == "no IPv6 here"
        else:
            raise AssertionError("opened")
        assert not one.grants.live and one.workers["near"].failure is None

    driven(body)


def another(ports, *names):
    """Returns settings with these [port.NAME] tables, and stanzas that ask for these names."""

    class Changed(Settings):
        pass

    class Asks(Stanza):
        pass

    Changed.ports, Asks.ports = ports, names
    return Changed, [Asks]


def test_a_port_that_is_only_renamed_keeps_its_worker_and_what_it_holds():
    async def body(one, near, far):
        grant = one.open(asked(), ("near",))
        await settled(lambda: near.held)
        worker = one.workers["near"]
        DEVICES["new"] = Device()
        # Another takes the old name: the two must not be mixed up.
        changed = await one.change(*another({"edge": {"kind": "near"}, "near": {"kind": "new"}}, "edge", "near"))
        await one.settle(changed, True)
        assert one.workers["edge"] is worker and one.workers["near"] is not worker and not near.left
        assert [row["ports"] for row in one.report(0)[0]] == [["edge"]]
        one.close(grant.id)
        await settled(lambda: not near.held)

    driven(body)


def test_a_changed_port_is_taken_over_by_its_successor_and_its_device_left_empty():
    async def body(one, near, far):
        new = DEVICES["new"] = Device()
        one.open(asked(), ("near",))
        await settled(lambda: near.held)
        changed = await one.change(*another({"edge": {"kind": "new"}, "far": {"kind": "far"}}, "edge"))
        one.open(asked("192.0.2.8"), ("near",))
        assert one.workers["near"].port is near
        await one.settle(changed, True)
        assert sorted(one.workers) == ["edge", "near"]  # what nobody holds anything on is gone
        for number in list(one.grants.live):
            one.close(number)
        await settled(lambda: list(one.workers) == ["edge"] and near.left)
        assert not near.held and not new.held and far.left

    driven(body)


def test_a_configuration_that_is_not_taken_leaves_nothing_on_its_devices():
    async def body(one, near, far):
        new = DEVICES["new"] = Device()
        grant = one.open(asked(), ("far",))
        changed = await one.change(*another({"near": {"kind": "near"}, "edge": {"kind": "new"}}, "near", "edge"))
        new.held.append("192.0.2.7")
        await one.settle(changed, False)
        assert new.left and not new.held and sorted(one.workers) == ["far", "near"]
        await settled(lambda: far.held)
        one.close(grant.id)
        await settled(lambda: not far.held)

    driven(body)


def test_a_port_that_fails_to_start_for_another_configuration_takes_nothing_back():
    async def body(one, near, far):
        new = DEVICES["new"] = Device()
        new.broken = True
        far.open = lambda grant, seconds: loop.sleep(60)  # it takes its time
        one.open(asked(), Stanza.ports, True)
        await settled(lambda: near.held)
        changed = await one.change(*another({"near": {"kind": "near"}, "far": {"kind": "new"}}, "near", "far"))
        assert changed[-1][0][0].failure == "broken" and len(one.grants.live) == 1
        await one.settle(changed, False)

    driven(body)


def test_names_that_change_places_keep_their_workers_where_a_device_cannot_be_read_back():
    async def body(one, near, far):
        first = one.open(asked(), ("near",))
        await settled(lambda: near.held)
        swapped = {"near": {"kind": "far"}, "far": {"kind": "near"}}
        await one.settle(await one.change(*another(swapped, "near", "far")), True)
        assert one.workers["far"].port is near and one.workers["near"].port is far
        DEVICES["new"] = Device()
        await one.settle(await one.change(*another({"far": {"kind": "new"}}, "far")), True)
        assert sorted(one.workers) == ["far", "far (old)"]
        assert [names for _, names in one._journal.load()] == [("far (old)",)]
        one.close(first.id)
        await settled(lambda: not near.held and list(one.workers) == ["far"])

    driven(body, True)


def test_what_a_worker_that_goes_has_closed_is_still_owed_by_the_one_in_its_place():
    """A kill just then must find the close in the journal: the new device may be one that no start can clean."""

    async def body(one, near, far):
        new = DEVICES["new"] = Device()
        grant = one.open(asked(), ("far",))
        await settled(lambda: far.held)
        changed = await one.change(*another({"near": {"kind": "near"}, "far": {"kind": "new"}}, "near", "far"))
        old, new.broken = one.workers["far"], True
        assert new.held
        one.close(grant.id)
        await one.settle(changed, True)
        one.closed(old, grant.id)
        assert new.held and list(one._owed) == [grant.id]
        new.broken = False
        for _ in range(5):
            if one._owed:
                await loop.sleep(0.7)
        assert not new.held and not one._owed

    driven(body)


def test_a_kill_loses_no_command_that_waits_and_repeats_none_whatever_a_reload_calls_its_port():
    async def body(one, near, far):
        one.open(asked(), ("near",))
        await settled(lambda: near.held == ["192.0.2.7"])
        swapped = another({"near": {"kind": "far"}, "far": {"kind": "near"}}, "near", "far")
        await one.settle(await one.change(*swapped), True)
        one.workers["far"]._task.cancel()  # the kill
        one.open(asked("192.0.2.8"), ("far",))
        one._journal.rewrite(one._entries())
        near.held = []
        again = keeper.Keeper(*(swapped + (loop.current(), Says())))
        await again.recover()
        await settled(lambda: near.held)
        await loop.sleep(0.05)
        assert near.held == ["192.0.2.8"]
        third = keeper.Keeper(*(swapped + (loop.current(), Says())))
        await third.recover()
        await loop.sleep(0.05)
        assert near.held == ["192.0.2.8"]
        for number in list(third.grants.live):
            third.close(number)
        await settled(lambda: not near.held)

    driven(body, True)


def test_a_knock_that_cannot_be_journaled_gives_no_more_time():
    async def body(one, near, far):
        grant = one.open(asked(), ("near",))
        append, one._journal._lines.append = one._journal._lines.append, full
        for longer in (asked(seconds=600), asked("192.0.2.8")):
            try:
                one.open(longer, ("near",))
            except Rejected as error:
                assert error.stage == "full"
            else:
                raise AssertionError("opened")
        assert list(one.grants.live.values()) == [grant]
        one._journal._lines.append = append
        assert one.open(asked(seconds=90), ("near",)).id == grant.id

    driven(body)


def full(*_):
    raise OSError(28, "No space left on device")


def test_what_comes_just_before_the_journal_is_written_anew_is_in_it():
    """Or a kill would leave open what nobody closes, and open again what was closed by hand."""

    async def body(one, near, far):
        first, second = [one.open(asked("192.0.2.%d" % number), ("near",)) for number in (1, 2)]
        await settled(lambda: len(near.held) == 2)
        one._journal._lines.overgrown = lambda needed: True
        one._owed = {first.id: (first, ["near"]), second.id: (second, ["near"])}
        one.closed(one.workers["near"], first.id)  # begins to write anew in the next turn
        one.closed(one.workers["near"], second.id)
        del one.grants.live[first.id], one.grants.live[second.id]
        third = one.open(asked("192.0.2.3"), ("near",))
        await settled(lambda: not one._journal._compacts)
        assert [grant for grant, _ in one._journal.load()] == [third]
        for number in (first.id, second.id):
            one._ends.drop(number)

    driven(body)


def test_a_report_of_many_is_said_in_parts_and_is_json():
    async def body(one, near, far):
        for number in range(250):
            one.open(asked("10.0.0.%d" % (number + 1)), ("near",))
        grants, owed, ports = one.report(0)
        assert len(grants + owed) == 250
        parts = list(_parts({"grants": grants, "owed": owed, "ports": ports, "open": 250, "none": None}, json.dumps))
        assert len(parts) > 10 and max([part.count(b'"source"') for part in parts]) == 100
        said = json.loads(b"".join(parts))
        assert [row["id"] for row in said["grants"]] == list(range(1, 251))
        assert said["owed"] == [] and said["open"] == 250 and said["none"] is None
        assert json.loads(b"".join(list(_parts({}, json.dumps)))) == {}

    driven(body)


def test_a_configuration_that_is_not_taken_leaves_its_carriers():
    """A serial line would be held for ever, and no later reload could have it."""

    class Carrier:
        stopped = []

        def __init__(self, name):
            self.name = name

        async def stop(self):
            self.stopped.append(self.name)

    async def body(one, near, far):
        kept, keeper.ports.carrier = keeper.ports.carrier, lambda name, options: Carrier(name)
        try:
            settings, stanzas = another(Settings.ports, "near", "far")
            settings.carriers = {"line": {"kind": "serial"}}
            await one.settle(await one.change(settings, stanzas), False)
            assert Carrier.stopped == ["line"]
            await one.settle(await one.change(settings, stanzas), True)
            assert Carrier.stopped == ["line"]
            await one.settle(await one.change(Settings, [Stanza]), True)
            assert Carrier.stopped == ["line", "line"]
        finally:
            keeper.ports.carrier = kept

    driven(body)


def test_carriers_are_left_at_the_end():
    class Carrier:
        stopped = []

        async def stop(self):
            self.stopped.append(True)

    async def body(one, near, far):
        one._carriers["line"] = Carrier()
        await one.stop()
        assert Carrier.stopped == [True]

    driven(body)


def test_a_device_that_has_never_answered_is_not_waited_for_at_the_end():
    async def body(one, near, far):
        async def silent():
            await loop.sleep(60)

        near.start = silent
        again = keeper.Keeper(Settings(), [Stanza()], loop.current(), Says())
        kept, keeper._STOP_S = keeper._STOP_S, 5
        began = keeper.compat.monotonic()
        await again.recover()  # waits a second for it
        await again.stop()
        keeper._STOP_S = kept
        assert keeper.compat.monotonic() - began < 4000

    driven(body)
