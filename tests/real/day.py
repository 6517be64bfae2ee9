"""A day in the life of a daemon, in minutes: day.py FOLDER HOURS. Run it in a network namespace of its own.

The clock is simulated; sockets, files, the journal and the packet capture are real. Knocks, floods, SIGHUPs, an
interface that comes and goes, a near device that always works, and a far one that is slow and at times away. Prints
one line of JSON: what is held early and late, what was granted, and how late every close was.
"""

import gc
import json
import os
import random
import socket
import struct
import subprocess
import sys
import time

from tinyknop import compat

START = 1800000000
clock = [START * 1000]
compat.wall = lambda: clock[0] // 1000
compat.monotonic = lambda: clock[0] - START * 1000 + 5000

from tinyknop import Keys, Packet, config, keeper, log, seal  # noqa: E402  (the clock comes first)
from tinyknop.daemon import Daemon  # noqa: E402
from tinyknop.errors import PortError  # noqa: E402
from tinyknop.loop import Loop, sleep  # noqa: E402

HOUR = 3600
SETTLED = 2 * HOUR  # after which all that is kept for some time has come and gone
KEYS = Keys(key=b"a key of the day", hmac_key=b"and one for its hmac")
TOML = """
[daemon]
state_dir = "%(folder)s"
[[capture]]
kind = "packet"
interface = "door"
port = 62201
[port.near]
kind = "command"
open = "near"
[port.far]
kind = "command"
open = "far %(version)d"
"""
STANZA = """
[[stanza]]
name = "%s"
source = ["ANY"]
key = "%s"
hmac_key = "%s"
openings = ["tcp/22"]
timeout = 30
max_timeout = 600
ports = ["near", "far"]
"""


def frame(data):
    """Returns an Ethernet frame with a UDP datagram for port 62201."""
    udp = struct.pack(">HHHH", 40000, 62201, 8 + len(data), 0) + data
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\xc6\x33\x64\x07", b"\x0a\x4d\x00\x01")
    return b"\xff" * 6 + b"\x02" + bytes(5) + b"\x08\x00" + ip + udp


class Device:
    """What stands at the far end of a port: it outlives us, answers late, and is away at times."""

    outlives_us = True
    nats = by_destination = blind = False

    def __init__(self, name, delay, due):
        self.name, self.delay = name, delay
        self.due = due  # (source, openings) -> ms at which it is to end
        self.held = set()  # (source, openings)
        self.away = False
        self.back = 0  # ms at which it came back last
        self.late = []  # ms between the end of a grant, or the return of the device, and its close
        self.early = 0

    def describe(self):
        return self.name

    def check(self, grant):
        pass

    async def start(self):
        await self.said()

    async def said(self):
        await sleep(self.delay)
        if self.away:
            raise PortError(self.name, "away")

    async def open(self, grant, seconds):
        await self.said()
        self.held.add((grant.source, grant.openings))

    def ended(self, key):
        if key in self.held:
            self.held.remove(key)
            self.early += clock[0] < self.due[key] - 1000
            self.late.append(clock[0] - max(self.due[key], self.back))

    async def close(self, grant):
        await self.said()
        self.ended((grant.source, grant.openings))

    async def sync(self, live):
        await self.said()
        kept = {(grant.source, grant.openings) for grant, _ in live}
        for key in self.held - kept:
            self.ended(key)
        self.held = kept

    async def stop(self, flush):
        pass


class Day:
    """The daemon, its devices, and the time."""

    def __init__(self, folder):
        self.folder, self.rng, self.version = folder, random.Random(1), 0
        self.due = {}
        self.near, self.far = Device("near", 0.01, self.due), Device("far", 0.3, self.due)
        devices = {"near": self.near, "far": self.far}
        keeper.ports.make = lambda name, options, carriers: devices[name]
        self.loop = Loop()
        self.daemon = Daemon(*self.configured(), self.loop)
        self.street = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.street.bind(("street", 0))
        self.sent = self.unheard = 0

    def configured(self):
        """Returns the configuration of now; its second stanza is there at every other reload."""
        text = TOML % {"folder": self.folder, "version": self.version}
        text += STANZA % ("alice", KEYS.key.decode(), KEYS.hmac_key.decode())
        if self.version % 2:
            text += STANZA % ("bob", "key of bob", "hmac key of bob")
        path = os.path.join(self.folder, "tinyknop.toml")
        with open(path, "w") as file:
            file.write(text)
        return config.load(path)

    def until(self, moment):
        """Lets the time pass up to a moment (ms), from deadline to deadline, so that no poll ever waits."""
        while True:
            due = [deadline - 5000 + START * 1000 for deadline, _, timer in self.loop._timers[:1]]
            clock[0] = max(clock[0], min(due + [moment]))
            self.loop.soon(int)
            self.loop.turn()
            if clock[0] >= moment and len(self.loop._ready) == 0:
                return

    def run(self, coroutine):
        """Runs a coroutine to its end."""
        task = self.loop.spawn(coroutine)
        task.watched = True
        while not task.done:
            self.until(clock[0] + 10)
        return task.outcome()

    def link(self, state):
        """Takes the interface up or down; the kernel needs up to a real second until packets pass again."""
        subprocess.run(["ip", "link", "set", "door", state], check=True)
        while state == "up" and b"state UP" not in subprocess.check_output(["ip", "link", "show", "street"]):
            time.sleep(0.02)

    def send(self, data):
        self.street.send(frame(data))
        self.until(clock[0] + 1)

    def sealed(self, source, seconds):
        """Returns a knock, and notes when it is to end."""
        key = source, (("tcp", 22),)
        self.due[key] = max(self.due.get(key, 0), clock[0] + seconds * 1000)
        return seal(Packet(message=source + ",tcp/22", timestamp=compat.wall(), client_timeout=seconds), KEYS)

    def knock(self):
        """Sends a knock for one of 200 clients, for up to ten minutes."""
        source = "192.0.2.%d" % self.rng.randrange(1, 201)
        self.sent += 1
        before = self.daemon.counters["granted"]
        self.send(self.sealed(source, self.rng.randrange(1, 600)))
        self.unheard += self.daemon.counters["granted"] == before

    def flood(self):
        """Sends a burst of packets that look like knocks, replays among them."""
        true = self.sealed("192.0.2.250", 30)
        for number in range(300):
            self.send(true if number % 10 == 0 else seal(Packet(message="1.2.3.4,tcp/22"), Keys(b"x", b"%d" % number)))

    def minute(self, number):
        """One minute of the day; what happens in it depends on its number."""
        for _ in range(self.rng.randrange(4)):
            self.until(clock[0] + self.rng.randrange(4000))
            self.knock()
        if number % 30 == 7:
            self.flood()
        if number % 60 == 20:
            self.version += 1
            self.run(self.daemon.reload(*self.configured()))
        if number % 180 == 11:
            self.link("down")
            self.until(clock[0] + 15000)
            self.link("up")
            self.until(clock[0] + 20000)
        if number % 50 == 33:
            self.far.away = True
        if number % 50 == 40:
            self.far.away, self.far.back = False, clock[0]
        self.until((START + (number + 1) * 60) * 1000)

    def held(self):
        """Returns what the process holds: KB of memory, descriptors, timers, objects."""
        gc.collect()
        with open("/proc/self/statm") as file:
            kilobytes = int(file.read().split()[1]) * 4
        timers = len([1 for row in self.loop._timers if row[2].callback])
        return [kilobytes, len(os.listdir("/proc/self/fd")), timers, len(gc.get_objects())]


def main(folder, hours):
    log.sink = lambda level, text: errors.append(text) if level <= log.ERROR else None
    errors = []
    subprocess.run(["ip", "link", "add", "door", "type", "veth", "peer", "name", "street"], check=True)
    subprocess.run(["ip", "link", "set", "street", "up"], check=True)
    day = Day(folder)
    day.link("up")
    day.run(day.daemon.start())
    early = None
    for number in range(hours * 60):
        day.minute(number)
        if clock[0] >= (START + SETTLED) * 1000 and early is None:
            early = day.held()
    day.far.away, day.far.back = False, clock[0]
    day.until(clock[0] + 15 * 60 * 1000)  # all that is open ends
    found = {"early": early, "late": day.held(), "sent": day.sent, "unheard": day.unheard, "errors": errors[:5]}
    found.update({"counters": day.daemon.counters, "hours": (clock[0] / 1000 - START) / HOUR})
    for device in (day.near, day.far):
        found[device.name] = {"open": len(device.held), "closes": len(device.late), "early": device.early}
        found[device.name]["latest"] = max(device.late)
    found["live"] = len(day.daemon.keeper.grants.live)
    print(json.dumps(found))


main(sys.argv[1], int(sys.argv[2]))
