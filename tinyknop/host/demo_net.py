"""The demo's private network: two network namespaces joined by a veth, a service, an eavesdropper.

It is only ever built inside fresh namespaces (demo.py sees to that), so it cannot touch the machine's own network.
All processes started here are ended by their ids, and by the kernel when this process dies.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

CLIENT, SERVER = "10.99.0.2", "10.99.0.1"
SERVICE_PORT, KNOCK_PORT = 22, 62201
GREETING = b"hello from behind the firewall\n"
_PR_SET_PDEATHSIG = 1
_SO_TIMESTAMPNS = 35  # socket.SO_TIMESTAMPNS appeared in Python 3.14 only
_ETH_P_ALL = 3


def serve_tcp() -> NoReturn:
    """The service behind the firewall: greets, then says back what it is told. Runs in the server's namespace."""
    listener = socket.create_server(("0.0.0.0", SERVICE_PORT))
    print("listening", flush=True)
    peers: list[socket.socket] = []
    while True:
        for ready in select.select([listener, *peers], [], [])[0]:
            if ready is listener:
                peers.append(listener.accept()[0])
                peers[-1].sendall(GREETING)
                continue
            try:
                data = ready.recv(1024)
                ready.sendall(data)
            except OSError:
                data = b""
            if not data:
                peers.remove(ready)
                ready.close()


def connect(timeout: float) -> socket.socket | None:
    """Returns a connection to the service that has been greeted, or None where nobody answers within `timeout`."""
    try:
        line = socket.create_connection((SERVER, SERVICE_PORT), timeout)
    except OSError:
        return None
    try:
        line.settimeout(2)
        if line.recv(len(GREETING), socket.MSG_WAITALL) == GREETING:
            return line
    except OSError:
        pass
    line.close()
    return None


def still_answers(line: socket.socket) -> bool:
    """Tells whether an open connection to the service carries data both ways."""
    try:
        line.sendall(b"still there?")
        return line.recv(64) == b"still there?"
    except OSError:
        return False


class Network:
    """The two namespaces: ours is the client's, the service's is the server's."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []
        self.server: int | None = None

    def start(self) -> None:
        """Starts the service in a namespace of its own and joins it to ours."""
        serve = "from tinyknop.host.demo_net import serve_tcp; serve_tcp()"
        service = self.spawn(["unshare", "-n", "--", sys.executable, "-c", serve], stdout=subprocess.PIPE)
        self.server, said = service.pid, service.stdout
        assert said is not None  # it is a pipe
        if not select.select([said], [], [], 10)[0] or said.readline() != b"listening\n":
            raise OSError("the TCP service did not start")
        pid = str(self.server)
        run(["ip", "link", "add", "tk-client", "type", "veth", "peer", "name", "tk-server", "netns", pid])
        for address, name, here in ((CLIENT, "tk-client", True), (SERVER, "tk-server", False)):
            at = [] if here else self.inside()
            run(at + ["ip", "address", "add", address + "/24", "dev", name])
            run(at + ["ip", "link", "set", name, "up"])
            run(at + ["ip", "link", "set", "lo", "up"])

    def inside(self) -> list[str]:
        """Returns the words that make a command run in the server's namespace."""
        return ["nsenter", "-t", str(self.server), "-n", "--"]

    def spawn(self, words: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Starts a process that ends when we do, out of the terminal's reach (we end it, not its Ctrl-C)."""
        options.update(stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_dying_with(os.getpid()))
        child: subprocess.Popen[bytes] = subprocess.Popen(words, **options)
        self.started.append(child)
        return child

    def stop(self) -> None:
        """Ends every process that was started here, last first; politely, then not."""
        for child in reversed(self.started):
            if child.poll() is None:
                child.terminate()
                try:
                    child.wait(3)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
            if child.stdout:
                child.stdout.close()


class Eavesdropper:
    """Sees every frame on the client's wire, as anybody on the way would."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self.socket.bind(("tk-client", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)

    def knock(self, timeout: float) -> tuple[bytes, float] | None:
        """Returns (payload, wall-clock time) of the next knock on the wire, or None if there is none in time."""
        deadline = time.monotonic() + timeout
        while select.select([self.socket], [], [], max(0, deadline - time.monotonic()))[0]:
            frame, extra = self.socket.recvmsg(65536, 64)[:2]
            header = 14 + (frame[14] & 15) * 4 if frame[12:14] == b"\x08\x00" else len(frame)
            udp = frame[header:]
            if len(udp) < 8 or frame[23] != socket.IPPROTO_UDP or udp[2:4] != struct.pack("!H", KNOCK_PORT):
                continue
            seconds, nanoseconds = struct.unpack("ll", extra[0][2][:16])
            return udp[8 : struct.unpack("!H", udp[4:6])[0]], seconds + nanoseconds / 1e9
        return None


def run(words: list[str]) -> str:
    """Runs a command to its end and returns what it printed; raises OSError with its complaint if it fails."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=30)
    text = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        raise OSError("%s: %s" % (" ".join(words), text.strip() or "status %d" % done.returncode))
    return text


def _dying_with(parent: int) -> Callable[[], None]:
    """Returns what a new child calls so that the kernel kills it when `parent` is gone, however that went."""

    def ask_kernel() -> None:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died between fork and prctl
            os._exit(1)

    return ask_kernel
