"""The scheduler: order, deadlines, waits that end, and faults that stay where they are."""

from tinyknop import compat, log
from tinyknop.loop import Loop, Queue, sleep


def quiet(body):
    """Runs with the log caught; returns what was logged."""
    lines = []
    kept, log.sink = log.sink, lambda level, text: lines.append(text)
    try:
        body()
    finally:
        log.sink = kept
    return lines


def test_cancelled_timers_fill_no_memory_however_long_they_had():
    loop, ran = Loop(), []
    start = compat.monotonic()
    loop.at(start + 2, lambda: ran.append("soon"))
    kept = loop.at(start + 1000000, lambda: ran.append("late"))
    for _ in range(1000):
        loop.at(start + (1 << 41), None).cancel()
    loop.at(start + 1, lambda: ran.append("first"))
    assert len(loop._timers) < 300 and kept in [row[2] for row in loop._timers]
    while len(ran) < 2:
        loop.turn()
    assert ran == ["first", "soon"]


def test_timers_run_in_the_order_of_their_deadlines():
    loop, seen = Loop(), []
    now = compat.monotonic()
    loop.at(now + 20, loop.stop)
    for delay in (9, 3, 6):
        loop.at(now + delay, lambda delay=delay: seen.append(delay))
    loop.run()
    assert seen == [3, 6, 9]


def test_a_cancelled_timer_does_nothing():
    loop, seen = Loop(), []
    now = compat.monotonic()
    loop.at(now + 1, lambda: seen.append(1)).cancel()
    loop.at(now + 5, loop.stop)
    loop.run()
    assert seen == []


def test_a_task_returns_its_result_to_who_awaits_it():
    loop = Loop()

    async def inner():
        await sleep(0.001)
        return 7

    async def outer():
        return await loop.spawn(inner()) + 1

    assert loop.run_until(outer()) == 8


def test_an_exception_reaches_who_awaits_the_task():
    loop = Loop()

    async def fails():
        raise ValueError("no")

    async def outer():
        try:
            await loop.spawn(fails())
        except ValueError as error:
            return str(error)

    assert loop.run_until(outer()) == "no"


def test_a_fault_in_a_callback_is_logged_and_the_loop_goes_on():
    loop = Loop()

    def body():
        loop.soon(lambda: 1 // 0)
        loop.at(compat.monotonic() + 2, loop.stop)
        loop.run()

    assert "ZeroDivisionError" in quiet(body)[0]


def test_a_task_that_nobody_awaits_has_its_fault_logged():
    loop = Loop()

    async def fails():
        raise ValueError("lost")

    def body():
        loop.spawn(fails())
        loop.at(compat.monotonic() + 2, loop.stop)
        loop.run()

    assert "lost" in quiet(body)[0]


def test_a_queue_hands_over_everything_at_once():
    loop = Loop()
    queue = Queue()

    async def reads():
        first = await queue.get()
        loop.soon(lambda: queue.put(3))
        return first, await queue.get()

    loop.at(compat.monotonic() + 1, lambda: (queue.put(1), queue.put(2)))
    assert loop.run_until(reads()) == ([1, 2], [3])


def test_a_cancelled_task_ends_where_it_waits():
    loop, seen = Loop(), []

    async def forever():
        try:
            await sleep(1000)
        finally:
            seen.append("ended")

    task = loop.spawn(forever())
    loop.turn()
    task.cancel()
    assert task.done and seen == ["ended"]
