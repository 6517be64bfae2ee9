"""The daemon's own socket: who connects gets one JSON line, the state of everything, and is hung up on."""

import os
import socket

from . import compat, log, loop

_BACKLOG = 4
_PATIENCE_S = 5  # seconds that a reader gets to take its answer


class Door:
    """A unix socket in the state directory, for its owner only."""

    def __init__(self, path, report):
        self.path = path
        self.report = report
        self._socket = None

    def open(self):
        """Listens; where the runtime or the directory does not allow it, says so and goes on without."""
        if compat.MICROPYTHON:
            return
        try:
            if os.path.exists(self.path):
                os.remove(self.path)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.bind(self.path)
            os.chmod(self.path, 0o600)
            self._socket.listen(_BACKLOG)
            self._socket.setblocking(False)
        except OSError as error:
            log.warning("%s: %s; `tinyknop status` will not work", self.path, error)
            self._socket = None
            return
        loop.current().reader(self._socket, self._answer)

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

    def _answer(self):
        try:
            peer = self._socket.accept()[0]
        except OSError:
            return
        peer.setblocking(False)
        import json  # 7 ms, which the first knock after a start should not wait for

        loop.current().spawn(_told(peer, json.dumps(self.report()).encode() + b"\n"))


async def _told(peer, data):
    try:
        while data and await loop.writable(peer, _PATIENCE_S):
            data = data[peer.send(data) :]
    except OSError:
        pass  # the reader went away
    peer.close()
