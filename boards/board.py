"""What starts tinyknop on a board: joins the wireless network, gets the time, then hears knocks until the power goes.

Two files on the board's flash say how: board.json (network and time) and tinyknop.json (`tinyknop compile` makes it).
No knock is heard before a time server has answered, so none is judged by a clock that nobody has set.
"""

import gc
import json
import socket
import struct
import time

import machine
import network

from tinyknop import compat, log
from tinyknop.__main__ import read, start, state
from tinyknop.errors import TinyknopError
from tinyknop.loop import Loop, readable, sleep

FEED_S = 2  # the loop turns well within any board's watchdog (8 s)
JOIN_S = 20  # a wireless network and its DHCP answer within 10 s, or not at all
ANSWER_S = 3  # that a time server gets
HOUR_S = 3600  # between two questions for the time; a board's clock drifts by 0.1 s in that
AGAIN_S = 60  # after a question without an answer
PATIENCE = 1440  # such questions, a day of them, before the time server's name is looked up again
FAULT_S = 30  # before a board that could not start is reset
SINCE_1900 = 2208988800  # seconds from there, where the time of the network starts, to 1970
OLDEST = 1750000000  # June 2025: a server that says less is wrong


def run(watchdog_ms, config="tinyknop.json", about="board.json"):
    """Starts everything and never returns.

    What goes wrong is printed, and the board is reset: at once, or half a minute later where it could not even start.
    """
    dog = None
    try:
        with open(about) as file:
            options = json.load(file)
        settings, stanzas = read(config)
        state(settings.state_dir)
        wlan = join(options)
        clock = Clock(options.get("ntp") or "pool.ntp.org", wlan)
        while not Loop().run_until(clock.answered()):
            join(options, wlan)
            time.sleep(FEED_S)
        daemon = start(settings, stanzas)
        dog = machine.WDT(timeout=watchdog_ms)
        daemon.loop.spawn(fed(dog))
        daemon.loop.spawn(clock.kept())
        daemon.loop.spawn(joined(options, wlan))
        gc.collect()
        log.info("address %s; %d bytes of heap are free", wlan.ifconfig()[0], gc.mem_free())
        daemon.loop.run()
    except TinyknopError as error:
        log.error("%s", error)
    except Exception as error:  # whatever it is, a door must not wait for somebody with a cable
        log.error("%s", compat.trace(error))
    if dog is None:
        time.sleep(FAULT_S)
    machine.reset()


def join(options, wlan=None):
    """Joins the network that board.json names, and waits until that is done or will not be; returns the interface."""
    if wlan is None:
        if options.get("country"):
            network.country(options["country"])
        if options.get("hostname"):
            network.hostname(options["hostname"])
        wlan = network.WLAN(network.STA_IF)
        wlan.active(True)
        if options.get("address"):  # [address, mask, gateway, name server] in the place of DHCP
            wlan.ifconfig(tuple(options["address"]))
    if not wlan.isconnected():
        connect(options, wlan)
        deadline = compat.monotonic() + JOIN_S * 1000
        while not wlan.isconnected() and compat.monotonic() < deadline:
            time.sleep(0.1)
    return wlan


def connect(options, wlan):
    """Begins to join the network; an ESP32 that still tries to raises OSError, and goes on trying."""
    try:
        wlan.connect(options["ssid"], options["password"])
    except OSError as error:
        log.warning("cannot join the network just now: %s", error)


async def joined(options, wlan):
    """Joins the network again whenever it is lost; sockets outlive that."""
    while True:
        await sleep(FEED_S)
        if not wlan.isconnected():
            log.warning("the network is gone; joining again")
            connect(options, wlan)
            await sleep(JOIN_S)


async def fed(dog):
    """Feeds the watchdog as long as the loop turns."""
    while True:
        dog.feed()
        await sleep(FEED_S)


class Clock:
    """The board's clock, set by a time server (RFC 5905, the simple form).

    A look-up of its name holds everything up: without a network for ever on some builds for the Pico W, and without a
    name server for longer than that chip's watchdog waits. A board that is reset for this hears nobody, and closes
    nothing, until it has the time again. So a server that has answered keeps its address for a day of silence.
    """

    def __init__(self, host, wlan):
        self.host = host
        self.wlan = wlan
        self.place = None
        self.patience = 0

    async def kept(self):
        """Asks every hour; a step is the daemon's to see."""
        good = True
        while True:
            await sleep(HOUR_S if good else AGAIN_S)
            good = await self.answered()

    async def answered(self):
        """Asks without holding anything up; tells whether a sane answer came, and sets the clock by it."""
        if not self.wlan.isconnected():
            return False
        sock = None
        try:
            if self.place is None:
                self.place = compat.sockaddr(self.host, 123)
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            asked = compat.urandom(8)
            sock.sendto(b"\x23" + bytes(39) + asked, self.place)
            if await readable(sock, ANSWER_S) and self.take(sock.recvfrom(64), asked):
                self.patience = PATIENCE
                return True
        except (OSError, IndexError) as error:
            log.warning("no time from %s: %s", self.host, error)
        finally:
            if sock is not None:
                sock.close()
        self.patience -= 1
        if self.patience < 0:
            self.place = None  # the name may lead elsewhere by now
        return False

    def take(self, answer, asked):
        """Sets the clock by a server's answer to what was asked; tells whether it was one."""
        data, sender = answer
        if len(data) < 48 or compat.peer(sender) != compat.peer(self.place) or data[24:32] != asked:
            return False
        if data[0] & 7 != 4 or not 1 <= data[1] <= 15 or data[0] >> 6 == 3:  # no server, or one without a clock itself
            return False
        seconds = struct.unpack(">I", data[40:44])[0]
        seconds = (seconds if seconds & 0x80000000 else seconds + (1 << 32)) - SINCE_1900
        if seconds < OLDEST:
            return False
        parts = time.gmtime(seconds - compat.EPOCH)
        machine.RTC().datetime(parts[:3] + (parts[6],) + parts[3:6] + (0,))
        return True
