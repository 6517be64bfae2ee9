"""The daemon's own socket: a line of words in, a line of JSON out: the state of everything, or what was done."""

import os
import socket

from . import compat, log, loop

_BACKLOG = 16
_PATIENCE_S = 5  # seconds that a reader gets to ask, and to take its answer
_LONGEST = 4096  # bytes of a question


class Door:
    """A unix socket in the state directory, for its owner only."""

    def __init__(self, path, answer):
        """`answer` takes a list of words, none for the state of everything, and returns what can be said in JSON."""
        self.path = path
        self.answer = answer
        self._socket = None

    def open(self):
        """Listens; where the runtime or the directory does not allow it, says so and goes on without."""
        if compat.MICROPYTHON:
            return
        try:
            if os.path.exists(self.path):
                os.remove(self.path)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            umask = os.umask(0o177)  # so that there is no moment at which others may connect
            try:
                self._socket.bind(self.path)
            finally:
                os.umask(umask)
            self._socket.listen(_BACKLOG)
            self._socket.setblocking(False)
        except OSError as error:
            log.warning("%s: %s; `tinyknop status` will not work", self.path, error)
            self._socket = None
            return
        loop.current().reader(self._socket, self._accept)

    def close(self):
        """Stops listening and removes the socket."""
        if self._socket is None:
            return
        loop.current().reader(self._socket, None)
        self._socket.close()
        self._socket = None
        try:
            os.remove(self.path)
        except OSError:
            pass

    def _accept(self):
        try:
            peer = self._socket.accept()[0]
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
        data = json.dumps(answer(_words(json.loads(asked or b"[]")))).encode() + b"\n"
        while data and await loop.writable(peer, _PATIENCE_S):
            data = data[peer.send(data) :]
    except (OSError, ValueError, RuntimeError):  # RuntimeError: nested too deeply
        pass  # the reader went away, or is none of ours
    peer.close()


def _words(asked):
    """Returns a list of texts; raises ValueError for anything else."""
    if not isinstance(asked, list) or [word for word in asked if not isinstance(word, str)]:
        raise ValueError("not a list of words")
    return asked
