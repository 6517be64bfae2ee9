"""The cooperative scheduler: one thread, one poll, one heap of deadlines, on both Pythons.

The words: a *callback* runs to its end at once; a *task* is a coroutine that awaits `sleep`, `readable`, `writable`,
a Queue or another task. Deadlines are `compat.monotonic` milliseconds. Nothing here may wait for a device.
"""

import heapq
import select

from . import compat, log

_READ, _WRITE = select.POLLIN, select.POLLOUT
_FAULT = select.POLLERR | select.POLLHUP
_LONGEST_POLL = 60000  # ms; a bound on every wait, so that a clock nobody can trust never stops the daemon

_current = None


def current():
    """Returns the loop that runs, or the last one made."""
    return _current


class Timer:
    """A callback that waits for its deadline; `cancel` forgets it."""

    def __init__(self, callback):
        self.callback = callback

    def cancel(self):
        """Forgets the callback; its place in the heap goes when its time comes, or once many are forgotten."""
        self.callback = None


class Loop:
    """Runs callbacks and tasks; see the module's head."""

    def __init__(self):
        global _current
        _current = self
        self._poll = select.poll()
        self._watched = {}  # key of an object -> [object, on readable, on writable]
        self._timers = []
        self._room = 100  # timers after which to look for cancelled ones
        self._order = 0  # keeps callbacks with one deadline in the order they came
        self._ready = []
        self._stopped = False

    def at(self, deadline, callback):
        """Calls `callback()` at a `compat.monotonic` deadline (ms); returns its Timer."""
        timer = Timer(callback)
        self._order += 1
        if len(self._timers) >= self._room:  # a command without a time limit leaves one that is due in years
            self._timers[:] = [one for one in self._timers if one[2].callback]
            heapq.heapify(self._timers)
            self._room = 2 * len(self._timers) + 100
        heapq.heappush(self._timers, (deadline, self._order, timer))
        return timer

    def soon(self, callback):
        """Calls `callback()` in the next turn."""
        self._ready.append(callback)

    def reader(self, file, callback):
        """Calls `callback()` whenever a socket or descriptor can be read; None ends it."""
        self._watch(file, 1, callback)

    def writer(self, file, callback):
        """Calls `callback()` whenever a socket or descriptor can be written; None ends it."""
        self._watch(file, 2, callback)

    def spawn(self, coroutine):
        """Starts a task in the next turn and returns it."""
        task = Task(self, coroutine)
        self.soon(task.step)
        return task

    def stop(self):
        """Ends `run` after this turn."""
        self._stopped = True

    def run(self):
        """Runs until `stop`."""
        global _current
        _current = self
        self._stopped = False
        while not self._stopped:
            self.turn()

    def run_until(self, coroutine):
        """Runs until a coroutine ends; returns its result or raises what it raised."""
        task = self.spawn(coroutine)
        task.watched = True
        while not task.done:
            self.turn()
        return task.outcome()

    def turn(self):
        """One round: what can be read or written, what is due, and last what is ready, so no poll waits for that."""
        for key, events in self._poll.poll(self._patience()):
            watch = self._watched.get(key if isinstance(key, int) else id(key))
            if watch is None:
                continue
            if watch[1] and events & (_READ | _FAULT):
                _guarded(watch[1])
            if watch[2] and events & (_WRITE | _FAULT):
                _guarded(watch[2])
        self._due()
        ready, self._ready = self._ready, []
        for callback in ready:
            _guarded(callback)

    def _due(self):
        timers = self._timers
        now = compat.monotonic()
        while timers and timers[0][0] <= now:
            callback = heapq.heappop(timers)[2].callback
            if callback:
                _guarded(callback)

    def _patience(self):
        """Returns how many ms the poll may take."""
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if self._ready or self._stopped:
            return 0
        if not timers:
            return _LONGEST_POLL
        return min(max(timers[0][0] - compat.monotonic(), 0), _LONGEST_POLL)

    def _watch(self, file, which, callback):
        key = _key(file)
        watch = self._watched.get(key)
        if watch is None:
            if callback is None:
                return
            watch = self._watched[key] = [file, None, None]
        watch[which] = callback
        mask = (_READ if watch[1] else 0) | (_WRITE if watch[2] else 0)
        if mask:
            self._poll.register(file, mask)
        else:
            del self._watched[key]
            self._poll.unregister(file)


def _key(file):
    """MicroPython's poll answers with the object, CPython's with its descriptor."""
    if compat.MICROPYTHON:
        return id(file)
    return file if isinstance(file, int) else file.fileno()


def _guarded(callback):
    try:
        callback()
    except MemoryError:  # what was to be closed might stay open: the next start takes up what the journal says
        raise
    except Exception as error:  # the top of a task: one fault must not end the daemon
        log.error("a fault in the program, please report it: %s", compat.trace(error))


class Task:
    """A coroutine under way; await it, or look at `done`."""

    def __init__(self, loop, coroutine):
        self.loop = loop
        self.done = False
        self.watched = False  # somebody wants the outcome, so a failure need not be logged here
        self._coroutine = coroutine
        self._result = self._error = None
        self._waiting = []
        self._value = None
        self._undo = None

    def step(self):
        """Runs the coroutine to its next wait."""
        if self.done:
            return
        value, self._value = self._value, None
        try:
            arm = self._coroutine.send(value)
        except StopIteration as end:
            return self._finish(end.value, None)
        except Exception as error:  # kept for whoever awaits the task
            return self._finish(None, error)
        self._undo = arm(self)

    def resume(self, value=None):
        """Called by what the task waits for, once."""
        self._undo = None
        self._value = value
        self.loop.soon(self.step)

    def cancel(self):
        """Ends the task where it waits."""
        if self.done:
            return
        if self._undo:
            self._undo()
        self._coroutine.close()
        self._finish(None, None)

    def outcome(self):
        """Returns what the coroutine returned, or raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._result

    def _finish(self, result, error):
        self.done = True
        self._result, self._error = result, error
        if error is not None and not self.watched and not self._waiting:
            log.error("a task failed, please report it: %s", compat.trace(error))
        for resume in self._waiting:
            resume(None)

    def __await__(self):
        if not self.done:
            self.watched = True
            yield self._arm
        return self.outcome()

    __iter__ = __await__

    def _arm(self, task):
        self._waiting.append(task.resume)
        return lambda: self._waiting.remove(task.resume)


class _Wait:
    """What a task awaits: `arm(task)` starts the wait and returns how to undo it."""

    def __init__(self, arm):
        self._arm = arm

    def __await__(self):
        return (yield self._arm)

    __iter__ = __await__


def sleep(seconds):
    """Awaitable: returns after so many seconds."""

    def arm(task):
        return task.loop.at(compat.monotonic() + int(seconds * 1000), task.resume).cancel

    return _Wait(arm)


def readable(file, timeout):
    """Awaitable: True once a socket or descriptor can be read, False when the time (seconds) is up."""
    return _ready(file, timeout, Loop.reader)


def writable(file, timeout):
    """Awaitable: True once a socket or descriptor can be written, False when the time (seconds) is up."""
    return _ready(file, timeout, Loop.writer)


def _ready(file, timeout, watch):
    def arm(task):
        def end(value):
            watch(task.loop, file, None)
            timer.cancel()
            if value is not None:
                task.resume(value)

        timer = task.loop.at(compat.monotonic() + int(timeout * 1000), lambda: end(False))
        watch(task.loop, file, lambda: end(True))
        return lambda: end(None)

    return _Wait(arm)


class Queue:
    """Items from callbacks to one task."""

    def __init__(self):
        self.items = []
        self._task = None

    def put(self, item):
        """Adds an item and wakes the task."""
        self.items.append(item)
        self._wake()

    def _wake(self):
        task, self._task = self._task, None
        if task:
            task.resume()

    async def get(self):
        """Returns all items that are there, at least one, oldest first."""
        while not self.items:
            await _Wait(self._arm)
        items, self.items = self.items, []
        return items

    def _arm(self, task):
        self._task = task

        def undo():
            self._task = None

        return undo
