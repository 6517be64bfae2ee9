"""The daemon's own socket: a line of words in, a line of JSON out: the state of everything, or what was done."""

import os
import socket

from . import compat, log, loop
from .grants import seconds_left
from .says import openings

_BACKLOG = 16
_AGAIN_MS = 5000  # until the next try where it could not be made: the disk was read-only
_PATIENCE_S = 5  # seconds that a reader gets to ask, and to take its answer
_LONGEST = 4096  # bytes of a question
_ROWS = 100  # of a long list in one part of an answer


class Door:
    """A unix socket in the state directory, for its owner only."""

    def __init__(self, path, answer):
        """`answer` takes a list of words, none for the state of everything, and returns a dict to be said in JSON.

        What it holds that JSON does not know, but can be iterated over, is said as a list, a few rows at a time.
        """
        self.path = path
        self.answer = answer
        self._socket = None
        self._again = None  # Timer of the next try

    def open(self):
        """Listens; where the runtime or the directory does not allow it, says so once and goes on without."""
        if compat.MICROPYTHON:
            return
        try:
            if os.path.exists(self.path):
                os.remove(self.path)
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            umask = os.umask(0o177)  # so that there is no moment at which others may connect
            try:
                made.bind(self.path)
            finally:
                os.umask(umask)
            made.listen(_BACKLOG)
            made.setblocking(False)
        except OSError as error:
            if self._again is None:
                log.warning("%s: %s; `tinyknop status` will not work", self.path, error)
            self._again = loop.current().at(compat.monotonic() + _AGAIN_MS, self.open)
            return
        self._socket = made
        loop.current().reader(made, lambda: self._accept(made))

    def close(self):
        """Stops listening and removes the socket."""
        if self._again is not None:
            self._again.cancel()
        if self._socket is None:
            return
        loop.current().reader(self._socket, None)
        self._socket.close()
        self._socket = None
        try:
            os.remove(self.path)
        except OSError:
            pass

    def _accept(self, made):
        try:
            peer = made.accept()[0]
        except OSError:
            return
        peer.setblocking(False)
        loop.current().spawn(_served(peer, self.answer))


async def _served(peer, answer):
    """Reads a line with a JSON list of words, or nothing up to the end, and writes the answer as a line of JSON."""
    import json  # 7 ms, which the first knock after a start should not wait for

    asked = b""
    try:
        while b"\n" not in asked and len(asked) < _LONGEST and await loop.readable(peer, _PATIENCE_S):
            part = peer.recv(_LONGEST)
            if not part:
                break
            asked += part
        for part in _parts(answer(_words(json.loads(asked or b"[]"))), json.dumps):
            while part and await loop.writable(peer, _PATIENCE_S):
                part = part[peer.send(part) :]
            if part:
                break
    except (OSError, ValueError, RuntimeError):  # RuntimeError: nested too deeply
        pass  # the reader went away, or is none of ours
    peer.close()


def _parts(answer, dumps):
    """Yields an answer as JSON in parts: knocks must not wait while thousands of rows are made and printed."""
    lead = "{"
    for name, value in answer.items():
        yield (lead + dumps(name) + ": ").encode()
        lead = ", "
        if isinstance(value, (dict, list, tuple, str)) or not hasattr(value, "__iter__"):
            yield dumps(value).encode()
            continue
        some, open_ = [], "["
        for row in value:
            some.append(row)
            if len(some) == _ROWS:
                yield (open_ + dumps(some)[1:-1]).encode()
                some, open_ = [], ", "
        yield (open_ + dumps(some)[1:-1] + "]" if some else "[]" if open_ == "[" else "]").encode()
    yield b"}\n" if lead != "{" else b"{}\n"


def _words(asked):
    """Returns a list of texts; raises ValueError for anything else."""
    if not isinstance(asked, list) or [word for word in asked if not isinstance(word, str)]:
        raise ValueError("not a list of words")
    return asked


class Rows:
    """Lines for `tinyknop status` that are made when somebody looks: those of 100,000 grants take a second."""

    def __init__(self, pairs, now):
        self._pairs, self._now = pairs, now

    def __len__(self):
        return len(self._pairs)

    def __add__(self, other):
        return Rows(self._pairs + other._pairs, self._now)

    def __iter__(self):
        for grant, names in self._pairs:
            yield _row(grant, names, self._now)


def _row(grant, names, now):
    return {
        "id": grant.id,
        "source": grant.source,
        "openings": openings(grant).split(","),
        "stanza": grant.stanza,
        "opened": grant.opened,
        "until": grant.until,
        "left": max(seconds_left(grant, now), 0),
        "ports": list(names),
    }
