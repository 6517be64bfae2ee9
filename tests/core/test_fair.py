"""Who gets which queue under a flood: the program for the kernel, and the list of those who flood."""

from test_filters import execute, v4, v6

from tinyknop.capture import fair, filters
from tinyknop.compat import monotonic

FACTORS = [0x9E3779B1, 0x85EBCA6B]


def from4(number):
    return b"\x0a" + number.to_bytes(3, "big")


def from6(site, host=1):
    return b"\x20\x01" + bytes(2) + site.to_bytes(4, "big") + host.to_bytes(8, "big")


def packet(source):
    if len(source) == 4:
        return v4()[:12] + source + v4()[16:]
    return v6()[:8] + source + v6()[24:]


SOURCES = [from4(number) for number in range(300)] + [from6(number) for number in range(300)]


def test_program_gives_each_source_a_queue_and_spreads_them():
    program = fair.spread([], 16, FACTORS)
    found = [execute(program, packet(source)) for source in SOURCES]
    assert set(found) == set(range(1, 16))
    for queue in range(1, 16):
        assert 10 < found.count(queue) < 120
    assert found == [execute(program, packet(source) + b"more") for source in SOURCES]


def test_a_site_of_ipv6_is_one_source():
    program = fair.spread([], 16, FACTORS)
    for site in range(50):
        assert len({execute(program, packet(from6(site, host))) for host in (0, 1, 2**63)}) == 1


def test_program_sends_listed_sources_and_only_them_to_the_penalty_queue():
    listed = [source for number, source in enumerate(SOURCES) if number % 2]
    program = fair.spread([fair.key(source[:8], FACTORS) for source in listed], 16, FACTORS)
    for source in SOURCES:
        assert (execute(program, packet(source)) == 0) == (source in listed)


def test_longest_program_is_one_that_the_kernel_takes():
    keys = [fair.key(from4(number), FACTORS) for number in range(fair.MOST)]
    words = list(range(fair.PREFERRED))
    assert len(fair.hinted(words, 16) + fair.spread(keys, fair.QUEUES, FACTORS)) < 4096


def test_packets_with_a_hint_have_a_queue_of_their_own():
    words = [int.from_bytes(b"%04d" % number, "big") for number in range(0, 1000, 7)]
    program = fair.hinted(words, 16) + fair.spread([], 16, FACTORS)
    for frame in (lambda data: v4(data), lambda data: v4(data, options=bytes(8)), v6):
        for number in range(0, 1000, 5):
            queue = execute(program, frame(b"123456%04d" % number + b"x" * 200))
            assert (queue == 16) == (number % 7 == 0)
            assert 0 < queue <= 16


def test_a_flood_gives_hints_their_queue_until_somebody_misuses_them():
    world = World()
    number = int.from_bytes(b"hint", "big")
    knock = v4(b"123456hint" + b"x" * 200)
    assert execute(world.programs[-1], knock) < 16
    world.fence.prefer([number])
    assert execute(world.programs[-1], knock) == 16
    world.flood(knock[12:16], fair.MANY + 1)
    ticks(world, 100)
    assert world.queue(knock[12:16]) == 0 and execute(world.programs[-1], knock) == 16  # the source may be forged
    _, heard, listed = world.fence.turn(world.made[-1])
    assert listed == ()
    for _ in range(fair.MANY + 1):
        heard(from4(9))
    ticks(world, 200)
    assert execute(world.programs[-1], knock) == 0 and world.queue(from4(9)) > 0
    world.fence.prefer([number])
    assert execute(world.programs[-1], knock) == 16
    world.fence.prefer(list(range(fair.PREFERRED + 1)))
    assert execute(world.programs[-1], knock) == 0


def test_what_is_no_ip_packet_is_nobodys():
    program = fair.spread([], 16, FACTORS)
    for data in (b"", b"\x45", b"\x60" + bytes(9)):
        assert execute(program, data) == 0


class Socket:
    def __init__(self):
        self.closed = False

    def recv(self, size):
        raise OSError(11, "nothing there")

    def setsockopt(self, *option):
        pass

    def close(self):
        self.closed = True


class Timer:
    def cancel(self):
        pass


class World:
    """A loop, a group of sockets and a kernel that take note."""

    def __init__(self, fault=None):
        self.first, self.made, self.programs, self.readers, self.tick = Socket(), [], [], [], None
        self.fault = fault
        self.fence = fair.Fence("packet x", self, lambda sock: None, [(self.first, self.another, self.attach)])

    def another(self):
        if self.fault and len(self.made) == self.fault:
            raise OSError(24, "too many open files")
        self.made.append(Socket())
        return self.made[-1]

    def attach(self, program):
        self.programs.append(program)

    def reader(self, sock, callback):
        self.readers = [one for one in self.readers if one is not sock] + ([sock] if callback else [])

    def at(self, deadline, callback):
        self.tick = callback
        return Timer()

    def flood(self, source, count):
        heard = self.fence.turn(self.first)[1]
        for _ in range(count):
            heard(source)

    def queue(self, source):
        return execute(self.programs[-1], packet(source))


def ticks(world, ms):
    """Runs a tick as if so many milliseconds had gone by."""
    before = fair.monotonic
    now = monotonic() + ms
    fair.monotonic = lambda: now
    try:
        world.tick()
    finally:
        fair.monotonic = before


def test_flood_opens_the_other_queues_once():
    world = World()
    assert len(world.made) == len(world.readers) == fair.QUEUES - 1
    assert len(world.programs) == 1
    world.fence.full(world.first, fair.SHARE)
    assert len(world.made) == fair.QUEUES - 1
    assert [world.fence.turn(sock)[0] for sock in (world.first, world.made[0])] == [fair.PENALTY_SHARE, fair.SHARE]
    assert world.queue(from4(1)) > 0


def test_source_with_many_bogus_packets_is_fenced_in_for_a_while():
    world = World()
    world.flood(from4(1), fair.MANY + 1)
    world.flood(from4(2), fair.MANY)
    world.flood(from6(5, 1), 30)
    world.flood(from6(5, 2), 30)
    ticks(world, 100)
    assert (world.queue(from4(1)), world.queue(from6(5, 77))) == (0, 0)
    assert world.queue(from4(2)) > 0
    installed = len(world.programs)
    ticks(world, 200)
    assert len(world.programs) == installed  # nothing new: no pause for a new program
    ticks(world, 101 + fair.LISTED_MS)
    assert world.queue(from4(1)) > 0


def test_who_is_seen_in_a_full_penalty_queue_stays_in_it():
    world = World()
    world.flood(from4(1), fair.MANY + 1)
    world.flood(from4(2), fair.MANY + 1)
    ticks(world, 100)
    world.flood(from4(1), 1)
    world.fence.full(world.first, fair.SHARE)
    ticks(world, 3000)
    ticks(world, 3200)
    assert (world.queue(from4(1)), world.queue(from4(2)) > 0) == (0, True)


def test_what_a_listed_source_sent_before_is_not_looked_at():
    world = World()
    world.flood(from4(1), fair.MANY + 1)
    ticks(world, 100)
    assert from4(1) in world.fence.turn(world.made[0])[2]
    assert world.fence.turn(world.first)[2] == ()


def test_fewer_packets_are_many_while_queues_are_full():
    world = World()
    for moment in range(1, 6):
        for number in range(20):
            world.flood(from4(number), 3)
        world.fence.full(world.made[3], fair.SHARE)
        ticks(world, 100 * moment)
    assert len(world.fence.listed) == 20


def test_list_and_counts_are_bounded():
    world = World()
    for number in range(fair.COUNTED + 100):
        world.flood(from4(number), 1)
    assert len(world.fence._counts) == fair.COUNTED
    world.fence._counts = {from4(number): 60 for number in range(fair.MOST + 9)}
    ticks(world, 100)
    assert len(world.fence.listed) == fair.MOST


def test_calm_comes_back():
    world = World()
    world.flood(from4(1), fair.MANY + 1)
    ticks(world, 100)
    ticks(world, 200 + fair.LISTED_MS)
    ticks(world, 200 + fair.LISTED_MS + fair.CALM_MS)
    assert (world.fence.turn(world.first), world.readers) == ((fair.QUOTA, None, ()), [])
    assert world.programs[-1] == [(filters.RET, 0, 0, 0)]
    world.fence.full(world.first, fair.QUOTA // 2)  # a burst of true knocks is no flood
    assert world.readers == []
    world.fence.full(world.first, fair.QUOTA)
    assert len(world.made) == fair.QUEUES - 1  # they are there already
    assert len(world.readers) == fair.QUEUES - 1


def test_without_further_sockets_all_goes_on_with_one():
    world = World(fault=3)
    assert [sock.closed for sock in world.made] == [True] * 3
    assert (world.fence.flooded, world.readers, world.first.closed) == (False, [], False)
    world.fence.full(world.first, fair.QUOTA)
    assert len(world.made) == 3  # not tried again with every packet
