"""Knocks for routers behind ssh, beside fwknopd's command cycle, and what slow and dead devices cost everybody else.

Run by `python bench/bench.py devices`, or alone: `python bench/devices.py` prints the tables. Needs root.
"""

import os
import statistics
import time

import common
from common import KEYS, Probe, packet, say

from tests.real import cables, net, peers
from tests.real.cables import Cable, Sshd, Wire, toml_of
from tinyknop import Keys
from tinyknop.loop import Loop

TITLE = "Routers: knock to entry over ssh, and who waits for a slow one"
OTHERS = Keys(key=b"k" * 16, hmac_key=b"h" * 16)  # of the stanza for the devices
KNOCKS = 15  # for each figure over ssh; fwknopd takes a second for some
LOCAL = 60  # for each figure of the local firewall
DELAYS = (0, 0.025)  # seconds each way to the router
WITH = "a serial line of 9600 baud, an ssh device, a dead device"
HEAD = """[daemon]
state_dir = "%s/state"

[[capture]]
kind = "packet"
interface = "eth0"
port = 62201

[port.local]
kind = "ipset"
set = "%s"
"""


def opened(probe, number):
    """Knocks for the port of this number; returns the ms until it is open."""
    began = time.perf_counter()
    probe.knock(packet(number))
    if not probe.wait(number, 10):
        raise RuntimeError("a knock opened nothing in 10 s")
    return (time.perf_counter() - began) * 1000


def shown(figures):
    """Returns median, and what nine of ten kept below, as cells of a table."""
    ordered = sorted(figures)
    return ["%.1f ms" % statistics.median(ordered), "%.1f ms" % ordered[len(ordered) * 9 // 10]]


def told(what, figures):
    """Tells figures; returns their row."""
    say("%s: %s" % (what, ", ".join(shown(figures))))
    return [what, *shown(figures)]


def prepared(network, count):
    """Makes what the owner of a server has, a set and a rule that names it; returns a probe of so many ports."""
    peers.owner_rule(network)
    return Probe(network, count)


def stanza(network, name, ports, keys):
    """Returns the stanza of some keys, for these ports."""
    text = peers.toml_stanza(network, name, openings=(), timeout=20, key=keys.key, hmac_key=keys.hmac_key)
    return text.replace('ports = ["firewall"]', "ports = %s" % str(ports).replace("'", '"'))


def served(network, tables, ports, others=()):
    """Starts our daemon with these tables of devices: one stanza for `ports`, and one for `others`, if any."""
    home = network.dir + "/serve"
    os.makedirs(home, mode=0o700)
    text = HEAD % (home, peers.SET) + tables + stanza(network, "bench", ports, KEYS)
    text += stanza(network, "others", others, OTHERS) if others else ""
    config = peers.write(home + "/tinyknop.toml", text)
    daemon = peers.Process(network, network.server, [*peers.PYTHON, "-m", "tinyknop", "serve", "-c", config])
    daemon.state = home + "/state"
    daemon.wait_line(peers.SERVE_READY, 20)
    return daemon


def device(name, options, table="set"):
    """Returns the tables of a carrier, and of a set behind it."""
    return '\n[carrier.%s]\n%s\n[port.%s-port]\nkind = "ipset"\nvia = "%s"\nset = "%s"\n' % (
        name,
        toml_of(options),
        name,
        name,
        table,
    )


def round_trips(network, options, _):
    """Returns how many ms the command of an opening takes on a session that is held."""
    from tinyknop.ports import carrier

    async def measured(edge):
        took = []
        for number in range(KNOCKS + 1):
            entry = "192.0.2.%d,udp:9" % number
            began = time.perf_counter()
            await edge.say("ipset", "add", "-exist", peers.SET, entry, "timeout", "20")
            took.append((time.perf_counter() - began) * 1000)
        return took[1:]  # the first one logs in

    def body():
        loop, edge = Loop(), carrier("edge", options)
        try:
            return loop.run_until(measured(edge))
        finally:
            loop.run_until(edge.stop())

    return network.inside(network.server, body)


def ours(network, options, probe):
    """Returns how long knocks took with our daemon, which holds the session."""
    daemon = served(network, device("edge", options, peers.SET), ["edge-port"])
    took = [opened(probe, number) for number in range(KNOCKS + 1)]
    daemon.stop()
    return took[1:]  # by then it has logged in


def theirs(network, options, probe):
    """Returns how long knocks took with fwknopd, whose command begins a session each time."""
    ssh = "/usr/bin/ssh -F none -o BatchMode=yes -o UserKnownHostsFile=%(known_hosts)s -i %(key_file)s -p %(port)s"
    opening = (ssh + " root@127.0.0.1 ipset add -exist %(set)s $SRC,$PROTO:$PORT timeout 20") % dict(
        options, set=peers.SET
    )
    more = {"open_ports": None, "cmd_cycle_open": opening, "cmd_cycle_close": "NONE", "cmd_cycle_timer": "20"}
    daemon = peers.fwknopd(network, peers.stanza(fw_access_timeout=None, **more))
    took = [opened(probe, KNOCKS + 1 + number) for number in range(KNOCKS)]
    daemon.stop()
    return took


def over_ssh():
    """Returns the rows of the table for knocks over ssh."""
    rows = []
    for delay in DELAYS:
        with net.Net() as network:
            probe = prepared(network, 2 * KNOCKS + 1)
            sshd = Sshd(network, network.server, command="")
            wire = Wire(network, network.server, sshd.port, delay)
            options = sshd.options(wire.port)
            for what, measure in (
                ("the command alone, on a held session", round_trips),
                ("tinyknop, knock to entry", ours),
                ("fwknopd with `CMD_CYCLE_OPEN ssh …`, knock to entry", theirs),
            ):
                what += ", %.0f ms away" % (2000 * delay) if delay else ""
                rows.append(told(what, measure(network, options, probe)))
            probe.close()
    return rows


def with_devices(network):
    """Returns the tables of a line of 9600 baud, of a dead one and of an ssh device, and the names of their ports."""
    slow = Cable(network, cables.ash(network.server), 9600, name="slow")
    dead = Cable(network, ["/bin/sh", "-c", "stty raw -echo; exec sleep 1000"], name="dead")
    sshd = Sshd(network, network.server, command="")
    line = {"kind": "serial", "profile": "openwrt"}
    tables = device("slow", dict(line, device=slow.device, baud="9600"), "slow")
    tables += device("dead", dict(line, device=dead.device), "dead") + device("far", sshd.options(), "far")
    return tables, ["slow-port", "dead-port", "far-port"]


def beside_devices():
    """Returns the rows of the table for the local firewall, without devices and with them, knock by knock in turn."""
    rows = []
    for together in (False, True):
        with net.Net() as plain, net.Net() as loaded:
            probes, took = [prepared(plain, LOCAL), prepared(loaded, LOCAL)], ([], [])
            tables, ports = with_devices(loaded)
            served(plain, "", ["local"])
            served(loaded, tables, ["local", *ports] if together else ["local"], () if together else ports)
            for number in range(LOCAL):
                if not together:
                    probes[1].knock(packet(number, by=OTHERS))
                    time.sleep(0.03)
                for probe, figures in zip(probes, took):
                    figures.append(opened(probe, number))
                    time.sleep(0.03)
            reached = len(peers.elements(loaded, "slow")), len(peers.elements(loaded, "far"))
            say("the slow line has got %d entries by now, ssh %d" % reached)
        names = ["no devices", WITH + (", each knock for them too" if together else ", which are knocked for as well")]
        rows += [told(name, figures) for name, figures in zip(names, took)]
    return rows


def run():
    """Measures all; returns the section for docs/bench.md."""
    head = ["median", "9 of 10 within"]
    text = common.table(["over ssh", *head], over_ssh()) + "\n\n"
    text += common.table(["knock to open of the local firewall, by a daemon with", *head], beside_devices())
    return text + (
        "\n\nOver ssh: a real sshd, root's shell behind it and a real `ipset` there, directly and behind a relay that "
        'adds a delay. tinyknop holds one session (`kind = "ipset"` via an ssh carrier), fwknopd\'s command begins one '
        "for each knock; the command alone is the same `ipset add`. %d knocks each, every one for another port. The "
        "local firewall is an ipset; a daemon with devices and one without run at the same time and are knocked at in "
        "turn, %d knocks each. The devices are kept busy by as many knocks: for them alone, or for the firewall and "
        "them together, which waits for the disk, since the journal's line has to be there before anything is said to "
        "a device that outlives us.\n" % (KNOCKS, LOCAL)
    )


if __name__ == "__main__":
    common.prepare()
    print(run())
