"""What only CPython does for the daemon: runs commands, opens GPG messages, looks up names. None blocks the loop."""

from __future__ import annotations

import os
import socket

from tinyknop import log, loop, net
from tinyknop.compat import trace
from tinyknop.errors import Rejected

TYPE_CHECKING = False
if TYPE_CHECKING:
    from threading import Thread

    from tinyknop.host.execute import Executor
    from tinyknop.host.gpg import Opener
    from tinyknop.rules import Command
    from tinyknop.settings import Settings
    from tinyknop.stanza import Gpg, Stanza

LOOK_UP_S = 5  # seconds that a name server gets
MOST_LOOK_UPS = 32  # at once: a thread and two descriptors each, for longer than that where no name server answers
NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_")


class Tools:
    """Given to the daemon; each tool is imported when it is first needed."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._executor: Executor | None = None
        self._opener: Opener | None = None
        self._look_ups: list[Thread] = []

    def take(self, settings: Settings) -> None:
        """Goes by new settings from now on."""
        self.settings = settings
        if self._executor is not None:
            self._executor.take(settings)

    def idle(self) -> bool:
        """Tells whether no command runs."""
        return self._executor is None or not self._executor.running

    def execute(self, command: Command, stanza: Stanza) -> None:
        """Starts a command message's command, and returns at once."""
        from tinyknop.host.execute import Executor

        self._executor = self._executor or Executor(self.settings)
        loop.current().spawn(_executed(self._executor, command, stanza))

    async def opened(self, message: bytes, gpg: Gpg) -> tuple[bytes, Rejected | None]:
        """Returns (plain text, None or the Rejected of its signature) of a message; raises Rejected."""
        from tinyknop.host.gpg import Opener, allowed

        self._opener = self._opener or Opener()
        plain, signature = await self._opener.opened(message, gpg)
        if signature is not None:
            text = "Incoming SPA data signed by '%s' (fingerprint '%s')."
            log.info(text, signature.key_id[-8:], signature.fingerprint)
        if gpg.require_sig and (signature is None or not (signature.valid or gpg.ignore_sig)):
            allowed(signature, gpg)  # raises: not remembered, or whoever has the public key could fill our memory
        try:
            allowed(signature, gpg)
        except Rejected as error:
            return plain, error
        return plain, None

    async def resolve(self, name: str) -> str:
        """Returns the IPv4 address of a host name, as text; raises Rejected("nat", ...)."""
        if not name or name[0] in ".-" or not NAME.issuperset(name):
            raise Rejected("nat", "the inside host is neither an address nor a host name")
        from threading import Thread

        self._look_ups = [one for one in self._look_ups if one.is_alive()]
        if len(self._look_ups) >= MOST_LOOK_UPS:
            raise Rejected(
                "nat", "%d names of inside hosts are being looked up; one more would have to wait" % MOST_LOOK_UPS
            )
        answer, ours = os.pipe()
        self._look_ups.append(Thread(target=_look_up, args=(name, ours), daemon=True))
        self._look_ups[-1].start()
        try:
            found = os.read(answer, 64).decode() if await loop.readable(answer, LOOK_UP_S) else ""
        finally:
            os.close(answer)
        if not found:
            raise Rejected("nat", "Unable to resolve Hostname in NAT SPA message")
        log.info("Resolved NAT IP in SPA message: %s", found)
        address: str = net.printed(net.packed(found))
        return address


async def _executed(executor: Executor, command: Command, stanza: Stanza) -> None:
    try:
        await executor.run(command.text, stanza)
    except Rejected as error:
        log.warning("(stanza %s) command not run: %s", stanza.name, error.reason)
    except OSError as error:
        log.error("(stanza %s) command not run: %s", stanza.name, error)


def _look_up(name: str, ours: int) -> None:
    """Writes the address into a pipe; a thread of its own, since the system's resolver can only wait."""
    try:
        found = socket.getaddrinfo(name.encode(), None, socket.AF_INET, socket.SOCK_STREAM)
        os.write(ours, str(found[0][4][0]).encode())
    except (OSError, UnicodeError, IndexError):
        pass
    except Exception as error:  # the top of a thread
        log.error("%s", trace(error))
    finally:
        os.close(ours)
