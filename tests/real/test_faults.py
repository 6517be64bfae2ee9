"""What a daemon meets on a bad day: kill -9 at any moment, disks, clocks, descriptors, memory and processes that fail.

More of it: the console's and ssh's devices in test_devices.py, the xtables lock in test_iptables.py, a log that nobody
reads in test_adversary.py, a simulated day in test_day.py, a journal torn anywhere in tests/host/test_fuzz.py.
"""

import errno
import os
import random
import shutil
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from tinyknop.ports.carriers.netlink import Carrier

from tests.need import lacking, need, share
from tests.real import faults, net, peers
from tests.real.faults import BOOT, KEYS, KINDS, Knock, Lab, Run
from tinyknop import Packet, seal
from tinyknop.errors import PortError
from tinyknop.loop import Loop

CAPABLE = "-all,+net_raw,+dac_read_search"  # the second for a Python that lies where only root may look
UID = "61%d" % (os.getpid() % 1000)  # nobody's on this machine, so its processes are this test's alone
AS_NOBODY = ("setpriv", "--reuid", UID, "--regid", UID, "--clear-groups")


@pytest.fixture
def lab(request):
    """The network of one kind of port, with a sender."""
    root()
    with Lab(getattr(request, "param", "ipset")) as made:
        made.sender = made.new_socket(made.client, kind=socket.SOCK_DGRAM)
        with made.sender:
            yield made


def root():
    if os.geteuid():
        lacking("must be root: namespaces that last need it")
    need("ip", "ipset", "nft", "iptables-nft", "ip6tables-nft", "prlimit", "setpriv", "vtysh", "zebra")


def knock(lab, number, seconds=30):
    """Sends a knock for a source of its own; returns it."""
    made = Knock("10.67.%d.%d" % (number // 250, number % 250 + 1), seconds)
    lab.sender.sendto(made.data, (net.SERVER, 62201))
    return made


def until(tells, within=20.0):
    """Waits until `tells()` is true."""
    deadline = time.monotonic() + within
    while not tells():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def counted(daemon, name):
    return peers.status(daemon)["counters"][name]


def answers(daemon):
    """Tells whether `tinyknop status` would work."""
    try:
        return counted(daemon, "granted") > 0
    except OSError:
        return False


def sound(daemon):
    """Asserts that the daemon logged no fault of its own."""
    said = daemon.text()
    assert "Traceback" not in said and "fault in the program" not in said, said[-3000:]


# ---- kill -9 ---------------------------------------------------------------------------------------------------------


def test_killed_at_random_points_of_a_busy_run():
    root()
    runs = [Run(kind, share(1, time.time())) for kind in KINDS]
    with ThreadPoolExecutor(len(runs)) as pool:
        wrong = sum(pool.map(lambda run: run.run(share(8, 500)), runs), [])
    assert not wrong, "\n".join(wrong)
    assert all(run.replayed for run in runs)


# ---- disks -----------------------------------------------------------------------------------------------------------


STATE = ("grants.journal", "digest.cache")


@pytest.fixture
def small(lab):
    """The lab with a state directory on a disk of a few KB."""
    state = lab.dir + "/serve/state"
    os.makedirs(state, 0o700)
    net.run("mount", "-t", "tmpfs", "-o", "size=32k,mode=700", "tinyknop-test", state)
    yield lab
    for process in lab.processes:
        process.stop()
    net.run("umount", "-l", state)


def fill(path, left=0):
    """Writes a file until the disk is full, but for some bytes, in pages of 4,096."""
    with open(path, "wb", 0) as file:
        try:
            while True:
                file.write(b"x" * 512)
        except OSError as error:
            assert error.errno == errno.ENOSPC
        file.truncate(os.path.getsize(path) - left)


def test_a_full_disk_opens_nothing_new_closes_what_is_open_and_is_forgotten_once_there_is_room(small):
    daemon = small.daemon()
    first = knock(small, 0, 3)
    until(lambda: first.source in small.sources())
    fill(small.dir + "/serve/state/filler")
    number = 0
    while not counted(daemon, "full"):  # what is left of the last pages takes some lines
        number += 1
        knock(small, number)
        time.sleep(0.01)
        assert number < 500
    granted = counted(daemon, "granted")
    until(lambda: first.source not in small.sources())
    until(lambda: len(small.sources()) == granted - 1)
    for more in range(5):
        knock(small, number + 1 + more)
    until(lambda: counted(daemon, "full") >= 6)
    assert counted(daemon, "granted") == granted
    os.remove(small.dir + "/serve/state/filler")
    last = knock(small, number + 10)
    until(lambda: last.source in small.sources())
    held = small.sources()
    daemon.kill()
    daemon = small.daemon()
    assert small.sources() == held
    small.sender.sendto(last.data, (net.SERVER, 62201))
    until(lambda: counted(daemon, "replay") == 1)
    sound(daemon)


@pytest.mark.parametrize("left", [0, 4096])
def test_a_disk_that_is_full_at_the_start_lets_nobody_in_and_nobody_stay(small, left):
    """With room for a part of a state file, too: what is written anew must not take the place of all."""
    daemon = small.daemon()
    kept = [knock(small, number, 60) for number in range(50)]
    first = knock(small, 100, 6)
    until(lambda: len(small.sources()) == 51)
    daemon.kill()
    state = small.dir + "/serve/state"
    sizes = [os.path.getsize(state + "/" + name) for name in STATE]
    assert min(sizes) > 4096
    fill(state + "/filler", left)
    daemon = small.daemon()
    assert "No space left" in daemon.text()
    assert [os.path.getsize(state + "/" + name) for name in STATE] == sizes
    assert len(small.sources()) == 51
    number = 100
    while not counted(daemon, "full"):  # what is left of the last pages takes some lines
        number += 1
        knock(small, number)
        time.sleep(0.01)
        assert number < 500
    until(lambda: first.source not in small.sources())
    daemon.kill()
    os.remove(state + "/filler")
    daemon = small.daemon()
    assert small.sources() >= {one.source for one in kept}
    for one in kept:
        small.sender.sendto(one.data, (net.SERVER, 62201))
    until(lambda: counted(daemon, "replay") == 50)
    sound(daemon)


def test_a_disk_that_is_read_only_at_the_start_lets_nobody_in_and_nobody_stay(small):
    daemon = small.daemon()
    first, second = knock(small, 0, 5), knock(small, 1, 60)
    until(lambda: len(small.sources()) == 2)
    daemon.kill()
    state = small.dir + "/serve/state"
    net.run("mount", "-o", "remount,ro", state)
    daemon = small.daemon()
    assert "Read-only file system" in daemon.text()
    assert first.source in small.sources(), "it ended before its time, or the machine is very slow"
    knock(small, 2)
    until(lambda: small.sources() == {second.source})
    again = small.daemon(ready=False)  # one at a time, there too
    assert again.wait(30) and "another daemon" in again.text()
    # `ip netns exec` has made the daemon's mounts its own.
    for there in ((), ("nsenter", "--mount=/proc/%d/ns/mnt" % daemon.pid)):
        net.run(*there, "mount", "-o", "remount,rw", state)
    last = knock(small, 3)
    until(lambda: last.source in small.sources())
    until(lambda: answers(daemon))
    daemon.kill()
    daemon = small.daemon()
    assert small.sources() == {second.source, last.source}
    small.sender.sendto(second.data, (net.SERVER, 62201))
    until(lambda: counted(daemon, "replay") == 1)
    sound(daemon)


def spoilt(rng, path):
    """Changes a file as a bad disk does: some bits, some bytes of zero, or its end is gone."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    for _ in range(rng.randrange(1, 4)):
        place, how = rng.randrange(len(data) + 1), rng.randrange(3)
        if how == 0 and place < len(data):
            data[place] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[place : place + 512] = bytes(len(data[place : place + 512]))
        else:
            del data[place:]
    with open(path, "wb") as file:
        file.write(data)
    return data


def test_whatever_a_bad_disk_made_of_the_state_the_daemon_starts(lab):
    rng = random.Random(share(1, time.time()))
    daemon = lab.daemon()
    for number in range(5):
        knock(lab, number, 60)
    until(lambda: len(lab.sources()) == 5)
    daemon.kill()
    kept = lab.dir + "/kept/"
    os.mkdir(kept)
    for name in STATE:
        shutil.copy(daemon.state + "/" + name, kept)
    for _ in range(share(6, 200)):
        for name in STATE:
            shutil.copy(kept + name, daemon.state)
        spoilt(rng, daemon.state + "/" + rng.choice(STATE))
        daemon = lab.daemon()
        fresh = knock(lab, 100 + rng.randrange(1000000) % 60000, 60)
        until(lambda source=fresh.source: source in lab.sources())
        sound(daemon)
        daemon.kill()
        lab.processes.remove(daemon)


# ---- the clock -------------------------------------------------------------------------------------------------------

STEPPED = """import sys, time
from tinyknop import compat
compat.wall = lambda: int(time.time()) + int(open(%r).read())
"""


def clocked(lab, offset):
    """Starts a daemon whose wall clock is the real one and what a file says."""
    path = peers.write(lab.dir + "/offset", "%d" % offset)
    return lab.daemon(boot=STEPPED % path + BOOT)


def stamped(lab, number, offset, seconds=30):
    """Sends a knock of a client whose clock is as the daemon's."""
    source = "10.68.0.%d" % number
    packet = Packet("%s,tcp/22" % source, "alice", timestamp=int(time.time()) + offset, client_timeout=seconds)
    data = seal(packet, KEYS)
    lab.sender.sendto(data, (net.SERVER, 62201))
    return source, data


DAY = 86400


def with_every_kind(body):
    """Runs `body(lab)` with each kind of port, at the same time: they mostly wait."""

    def run(kind):
        with Lab(kind) as lab, lab.new_socket(lab.client, kind=socket.SOCK_DGRAM) as lab.sender:
            body(lab)

    root()
    with ThreadPoolExecutor(len(KINDS)) as pool:
        for done in [pool.submit(run, kind) for kind in KINDS]:
            done.result()


def test_the_clock_jumps_a_day_ahead_and_back():
    with_every_kind(jumps)


def jumps(lab):
    """Sends knocks to a daemon while its clock jumps; what is open must stay, and end."""
    daemon = clocked(lab, 0)
    sent, refused = [], 0
    for number, offset in enumerate((0, DAY, 0, -DAY, 0)):
        mark = daemon.mark()
        if number:
            peers.write(lab.dir + "/offset", "%d" % offset)
            daemon.wait_line("the clock was set by", 20, mark)
            assert sent[-1][0] in lab.sources(), "%s: a live grant was lost" % lab.kind
        began = time.monotonic()
        sent.append(stamped(lab, number, offset, 6))
        until(lambda: sent[-1][0] in lab.sources())
        refused += len(sent)
        for _, data in sent:
            lab.sender.sendto(data, (net.SERVER, 62201))
        until(lambda count=refused: counted(daemon, "replay") + counted(daemon, "age") == count)
        assert counted(daemon, "granted") == number + 1
    until(lambda: not lab.sources(), 30)
    assert time.monotonic() - began > 5
    sound(daemon)


def test_a_boot_without_a_clock_lets_nobody_in_twice_and_nobody_stay():
    with_every_kind(boots_without_a_clock)


def boots_without_a_clock(lab):
    """Starts a daemon again whose clock says 1970, and then sets it right."""
    daemon = clocked(lab, 0)
    source, data = stamped(lab, 1, 0, 8)
    until(lambda: source in lab.sources())
    daemon.kill()
    began, early = time.monotonic(), 1000 - int(time.time())
    daemon = clocked(lab, early)  # 1970
    until(lambda: source in lab.sources())
    stamped(lab, 2, early)
    until(lambda: counted(daemon, "clock") == 1)
    lab.sender.sendto(data, (net.SERVER, 62201))
    until(lambda: counted(daemon, "replay") == 1)
    until(lambda: not lab.sources(), 30)
    assert time.monotonic() - began < 8 + 10, "longer than its own length"
    mark = daemon.mark()
    peers.write(lab.dir + "/offset", "0")  # the time comes from the network
    daemon.wait_line("the clock was set by", 20, mark)
    lab.sender.sendto(data, (net.SERVER, 62201))
    until(lambda: counted(daemon, "replay") == 2)
    time.sleep(1.1)  # a second that has begun counts as over
    later, _ = stamped(lab, 3, 0)
    until(lambda: later in lab.sources())
    sound(daemon)


# ---- limits ----------------------------------------------------------------------------------------------------------


def limited(daemon, what, *words):
    net.run(*words, "prlimit", "--pid", str(daemon.pid), what)


@pytest.mark.parametrize("lab", ["iptables-nft", "command"], indirect=True)
def test_without_descriptors_nothing_is_forgotten(lab):
    daemon = lab.daemon()
    first = knock(lab, 0, 2)
    until(lambda: first.source in lab.sources())
    limited(daemon, "--nofile=3:4096")
    time.sleep(3)  # the end of the grant comes and cannot be said
    assert first.source in lab.sources()
    second = knock(lab, 1, 30)
    time.sleep(0.5)
    limited(daemon, "--nofile=4096:4096")
    until(lambda: first.source not in lab.sources(), 30)
    third = knock(lab, 2, 30)
    until(lambda: third.source in lab.sources())
    if not lab.by_command:  # of an open command that failed nobody knows how far it came: it is not said again
        until(lambda: second.source in lab.sources())
    sound(daemon)


def test_few_descriptors_at_the_start_are_a_start_or_a_reason(lab):
    started = 0
    for most in (6, 9, 12, 13, 20):
        stanza = peers.toml_stanza(lab, openings=(), timeout=30)
        words = ["prlimit", "--nofile=%d:%d" % (most, most)]
        daemon = faults.start(lab, stanza, "ipset", None, False, words)
        until(lambda d=daemon: d.process.poll() is not None or peers.SERVE_READY in d.text(), 30)
        if daemon.process.poll() is None:
            sent = knock(lab, most, 30)
            try:
                until(lambda source=sent.source: source in lab.sources(), 3)
                started += 1
            except AssertionError:  # too few to import what decrypts: said, and the daemon goes on
                assert daemon.process.poll() is None and "Too many open files" in daemon.text(), daemon.text()
        else:
            assert "Traceback" not in daemon.text() and "24" in daemon.text(), daemon.text()
        daemon.stop()
        lab.processes.remove(daemon)
    assert started


@pytest.mark.parametrize("lab", ["ipset", "nftables", "command"], indirect=True)
def test_without_memory_what_is_open_still_ends(lab):
    daemon = lab.daemon()
    first = knock(lab, 0, 5)
    until(lambda: first.source in lab.sources())
    limited(daemon, "--as=%d:unlimited" % (1 << 20))
    for number in range(1, 600):  # what they take is more than the heap has left
        knock(lab, number, 60)
        if number % 20 == 0:
            time.sleep(0.01)
    time.sleep(1)
    alive = daemon.process.poll() is None
    if alive:
        limited(daemon, "--as=unlimited:unlimited")
    else:
        daemon = lab.daemon()
    until(lambda: first.source not in lab.sources(), 30)
    last = knock(lab, 1000, 30)
    until(lambda: last.source in lab.sources(), 30)
    known = {row["source"] for row in peers.status(daemon)["grants"]}
    until(lambda: lab.sources() <= {row["source"] for row in peers.status(daemon)["grants"]})
    if not lab.by_command:  # as above
        until(lambda: lab.sources() == {row["source"] for row in peers.status(daemon)["grants"]})
    assert last.source in known


@pytest.mark.parametrize("lab", ["command"], indirect=True)
def test_where_no_process_can_be_made_closes_are_said_later(lab):
    home = lab.dir + "/serve"
    os.chmod(lab.dir, 0o711)
    for path in (home, lab.dir + "/held"):
        os.makedirs(path, exist_ok=True)
        os.chown(path, int(UID), int(UID))
    peers.write(lab.dir + "/door", faults.COMMAND % {"held": lab.dir + "/held"}, 0o755)
    stanza = peers.toml_stanza(lab, openings=(), timeout=30)
    options = 'open = "%s/door open $SRC"\nclose = "%s/door close $SRC"' % (lab.dir, lab.dir)
    os.chown(lab.dir + "/alice.key", int(UID), int(UID))
    words = [*AS_NOBODY, "--inh-caps", CAPABLE]
    daemon = faults.start(lab, stanza, "command", options, False, [*words, "--ambient-caps", CAPABLE, "sh", "-c",
                          'until [ -O "$0" ]; do sleep 0.05; done; exec "$@"', home + "/tinyknop.toml"])  # fmt: skip
    os.chown(home + "/tinyknop.toml", int(UID), int(UID))
    daemon.wait_line(peers.SERVE_READY, 30)
    first = knock(lab, 0, 2)
    until(lambda: first.source in lab.sources())
    limited(daemon, "--nproc=1:", *AS_NOBODY)
    time.sleep(3)
    assert first.source in lab.sources()
    limited(daemon, "--nproc=100:", *AS_NOBODY)
    until(lambda: first.source not in lab.sources(), 30)
    second = knock(lab, 1)
    until(lambda: second.source in lab.sources())
    sound(daemon)


def test_answers_of_the_kernel_that_find_no_room_are_asked_for_again(lab):
    """ENOBUFS: some of the answers to a batch are lost, and with them whether it was done."""
    entries = ["10.70.%d.%d,tcp:22" % (number // 250, number % 250 + 1) for number in range(500)]
    commands = [("ipset", "add", "-exist", peers.SET, entry, "timeout", "60") for entry in entries]

    def asked():
        carrier, loop = Carrier(), Loop()
        loop.run_until(carrier.start())
        loop.run_until(carrier.say("ipset", "list", peers.SET, "-terse"))
        carrier.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        failed = 0
        try:
            loop.run_until(carrier.say_all(commands))
        except PortError:
            failed = 1
        loop.run_until(carrier.say_all(commands[:1]))
        listing = loop.run_until(carrier.say("ipset", "list", peers.SET))
        loop.run_until(carrier.stop())
        return failed, listing

    failed, listing = lab.inside(lab.server, asked)
    assert failed and listing.count(",tcp:22")
    assert entries[0] in listing
