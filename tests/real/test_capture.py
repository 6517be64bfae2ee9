"""The packet and udp captures between two real namespaces, and what happens to interfaces under them."""

import errno
import os
import time

import pytest

from tests.need import lacking, need
from tests.real import net
from tinyknop import log
from tinyknop.capture import fair, make, packet
from tinyknop.compat import monotonic
from tinyknop.errors import ConfigError, PortError
from tinyknop.loop import Loop
from tinyknop.net import packed

KNOCK = b"5" * 200
BOGUS = b"BOGUS"


class Watch:
    """A capture running in the server's namespace; every call of its loop happens in there."""

    def __init__(self, network, **options):
        self.network = network
        self.seen = []
        self.loop = Loop()
        self.capture = make(options, self.heard)
        self.inside(lambda: self.capture.start(self.loop))

    def heard(self, datagram):
        self.seen.append(datagram)
        return not datagram.payload.startswith(BOGUS)

    def flood(self, count=200):
        """Sends bogus packets, and reads them: all of them, as they are far fewer than fit."""
        for _ in range(count):
            self.network.send(BOGUS + KNOCK)
        assert self.turn(lambda: len(self.seen) == count)
        del self.seen[:]

    def inside(self, call):
        return self.network.inside(self.network.server, call)

    def turn(self, until, within=5.0):
        """Runs the loop until `until()` holds; tells whether it ever did."""

        def body():
            deadline = time.monotonic() + within
            while time.monotonic() < deadline:
                self.loop.at(monotonic() + 10, int)
                self.loop.turn()
                if until():
                    return True
            return False

        return self.inside(body)

    def ip(self, *words):
        self.network.at(self.network.server, "ip", *words)

    def payloads(self):
        """What has come by the time that a last knock, sent now, does."""
        self.network.send(b"LAST" + KNOCK)
        assert self.turn(lambda: self.seen and self.seen[-1].payload.startswith(b"LAST"))
        found = [datagram.payload for datagram in self.seen[:-1]]
        del self.seen[:]
        return found

    def knock_arrives(self, within=5.0):
        """Sends a knock every now and then until one is seen."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            try:
                self.network.send(KNOCK)
            except OSError:  # no route while the interface is down
                pass
            if self.turn(lambda: self.seen, 0.1):
                return True
        return False


@pytest.fixture
def network():
    """The two namespaces alone; the firewall drops everything and there is no service."""
    if os.geteuid():
        lacking("network namespaces with names need root")
    need("ip", "iptables", "ip6tables")
    with net.Net() as made:
        yield made


@pytest.fixture
def watch(network):
    made = []

    def begin(**options):
        made.append(Watch(network, **options))
        return made[-1]

    yield begin
    for one in made:
        one.inside(one.capture.stop)


@pytest.mark.parametrize("interface", ["eth0", "any"])
def test_knock_is_seen_behind_a_firewall_that_drops_it(watch, interface):
    here = watch(interface=interface)
    here.network.send(KNOCK, source_port=4000)
    here.network.send(KNOCK, address=net.SERVER6)
    assert here.turn(lambda: len(here.seen) == 2)
    four, six = sorted(here.seen, key=lambda datagram: len(datagram.source))
    assert tuple(four) == (KNOCK, packed(net.CLIENT), 4000, packed(net.SERVER), 62201, 17)
    assert (six.source, six.destination, six.payload) == (packed(net.CLIENT6), packed(net.SERVER6), KNOCK)
    assert (here.capture.received, here.capture.dropped) == (2, 0)


def test_kernel_keeps_to_itself_what_cannot_be_a_knock(watch):
    here = watch(interface="eth0", port="62201", promisc="Y")
    for payload in (b"", b"x" * 139, b"\0" * 200, b"x" * 1501, os.urandom(1)[:0] + b"\xff" * 60000):
        here.network.send(payload)
    here.network.send(KNOCK, port=62202)
    here.network.send(b"x" * 140)
    here.network.send(b"x" * 1472)
    assert [len(payload) for payload in here.payloads()] == [140, 1472]
    assert here.capture.malformed == 0


def test_loopback_and_own_packets_are_seen_once_or_not_at_all(watch):
    here = watch(interface="lo")
    server = here.network.server
    here.network.send(KNOCK, address="127.0.0.1", namespace=server)
    here.network.send(b"LAST" + KNOCK, address="::1", namespace=server)
    assert here.turn(lambda: here.seen and here.seen[-1].payload.startswith(b"LAST"))
    assert len(here.seen) == 2
    there = watch(interface="eth0")
    here.network.send(KNOCK, address=net.CLIENT, namespace=server)  # goes out of eth0
    assert there.payloads() == []


def test_a_turn_drains_no_more_than_its_quota(watch):
    here = watch(interface="eth0")
    for _ in range(200):
        here.network.send(KNOCK)
    here.inside(here.loop.turn)
    assert len(here.seen) == 64
    assert here.turn(lambda: len(here.seen) == 200)


@pytest.fixture
def lines():
    """What has been logged."""
    found = []
    before, log.sink = log.sink, lambda level, text: found.append(text)
    yield found
    log.sink = before


def test_burst_of_true_knocks_is_no_flood(watch):
    here = watch(interface="eth0")
    for _ in range(300):
        here.network.send(KNOCK)
    assert here.turn(lambda: len(here.seen) == 300)
    assert here.capture.fence is None


@pytest.mark.parametrize("options", [{"interface": "eth0"}, {"interface": "any"}, {"kind": "udp"}])
def test_flood_gives_each_source_its_queue_until_it_is_over(watch, monkeypatch, lines, options):
    monkeypatch.setattr(fair, "CALM_MS", 300)
    monkeypatch.setattr(fair, "LISTED_MS", 300)
    here = watch(**options)
    for tool in ("iptables", "ip6tables"):
        here.network.at(here.network.server, tool, "-I", "INPUT", "-p", "udp", "-j", "ACCEPT")
    here.flood()
    for address in (net.SERVER, net.SERVER6):
        here.network.send(KNOCK, address=address)
    assert here.turn(lambda: len(here.seen) == 2)
    here.turn(lambda: False, 0.15)
    del here.seen[:]
    here.flood(60)
    assert here.turn(lambda: packed(net.CLIENT) in here.capture.fence.listed)
    here.network.send(KNOCK)  # from one who is listed: read all the same
    assert here.turn(lambda: len(here.seen) == 1)
    assert here.turn(lambda: not here.capture.fence.flooded)
    here.network.send(KNOCK)
    assert here.turn(lambda: len(here.seen) == 2)
    assert ("flooded" in lines[0], "over" in lines[1], len(lines)) == (True, True, 2)


def test_kernel_that_shares_nothing_out_is_named_once_and_will_do(watch, monkeypatch, lines):
    monkeypatch.setattr(packet, "FANOUT", 99)
    here = watch(interface="eth0")
    here.flood()
    here.ip("link", "set", "eth0", "down")
    here.turn(lambda: False, 0.5)
    here.ip("link", "set", "eth0", "up")
    assert here.knock_arrives()
    assert here.turn(lambda: "is back" in lines[-1])
    assert [("one queue for everybody" in line) for line in lines] == [True, False, False]


def test_interface_down_and_up_under_flood_is_survived(watch):
    here = watch(interface="eth0")
    here.flood()
    here.ip("link", "set", "eth0", "down")
    here.turn(lambda: False, 0.5)
    here.ip("link", "set", "eth0", "up")
    assert here.knock_arrives()
    here.turn(lambda: False, 2.1)
    del here.seen[:]
    here.flood()
    assert here.knock_arrives()


def test_error_that_an_idle_queue_could_not_tell_means_nothing_later(watch, monkeypatch, lines):
    monkeypatch.setattr(fair, "CALM_MS", 100)
    here = watch(interface="eth0")
    here.flood()
    assert here.turn(lambda: not here.capture.fence.flooded)
    here.ip("link", "set", "eth0", "down")
    here.turn(lambda: False, 0.5)
    here.ip("link", "set", "eth0", "up")
    assert here.knock_arrives()
    assert here.turn(lambda: "is back" in lines[-1])
    del here.seen[:], lines[:]
    here.flood()
    assert len(lines) == 1 and "flooded" in lines[0]


def test_interface_down_and_up_is_survived_and_logged_once(watch):
    here = watch(interface="eth0")
    lines = []
    before, log.sink = log.sink, lambda level, text: lines.append(text)
    try:
        here.ip("link", "set", "eth0", "down")
        here.turn(lambda: False, 1.0)
        here.ip("link", "set", "eth0", "up")
        assert here.knock_arrives()
        assert here.turn(lambda: len(lines) == 2)
    finally:
        log.sink = before
    assert "went down" in lines[0] and "is back" in lines[1]


def test_interface_made_anew_under_another_index_is_found(watch):
    here = watch(interface="eth0")
    index = here.capture.index
    here.ip("link", "del", "eth0")
    here.turn(lambda: False, 1.0)
    here.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")  # takes the next index
    here.network.link(0, here.network.client)
    assert here.knock_arrives()
    assert here.turn(lambda: here.capture.index != index)


def test_interface_that_goes_again_while_it_is_opened_is_tried_once_more(watch, monkeypatch):
    here = watch(interface="eth0")
    tries, made = [], packet.make_socket

    def gone_at_first(*words):
        tries.append(words)
        if len(tries) == 1:
            raise OSError(errno.ENODEV, "No such device")
        return made(*words)

    here.ip("link", "del", "eth0")
    here.turn(lambda: False, 0.3)
    monkeypatch.setattr(packet, "make_socket", gone_at_first)
    here.network.link(0, here.network.client)
    assert here.knock_arrives()
    assert len(tries) == 2 and here.capture.failing_since is None


@pytest.mark.parametrize(
    "number, said",
    [
        (errno.EPERM, "this needs CAP_NET_RAW"),
        (errno.ENODEV, "the interface has just gone"),
        (errno.ENOMEM, "the filter is too long for this kernel (sysctl net.core.optmem_max)"),
        (errno.EAFNOSUPPORT, "error 97; does this kernel have CONFIG_PACKET?"),
    ],
)
def test_a_socket_that_cannot_be_had_says_what_to_do(monkeypatch, number, said):
    def refused(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(packet, "make_socket", refused)
    with pytest.raises(PortError) as caught:
        make({"interface": "any"}, print).start(Loop())
    assert said in str(caught.value)


def test_interface_down_at_start_is_waited_for(watch, network):
    network.at(network.server, "ip", "link", "set", "eth0", "down")
    here = watch(interface="eth0")
    network.at(network.server, "ip", "link", "set", "eth0", "up")
    assert here.knock_arrives()


def test_missing_interface_names_the_line(watch):
    with pytest.raises(ConfigError, match='tinyknop.toml:3: interface = "eth9": there is no such interface'):
        watch(interface="eth9", where="tinyknop.toml:3")


@pytest.mark.parametrize(
    "options", [{"port": "0"}, {"port": "65536"}, {"port": "x"}, {"promisc": "yes"}, {"interface": "x" * 16}]
)
def test_option_that_cannot_be_meant_is_refused(options):
    with pytest.raises(ConfigError):
        make(options, print)


def test_unknown_kinds_and_options_are_refused():
    for options in ({"kind": "pigeon"}, {"kind": "filters"}, {"kind": "os.path"}, {"interfaces": "eth0"}):
        with pytest.raises(ConfigError):
            make(options, print)


def test_without_the_right_the_capability_is_named():
    if os.geteuid():
        lacking("only root can give up its rights")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            try:
                make({"interface": "lo"}, print).start(Loop())
            except PortError as error:
                code = 0 if "CAP_NET_RAW" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def test_udp_socket_hears_both_families_and_drops_what_is_too_long(watch):
    here = watch(kind="udp")
    for tool in ("iptables", "ip6tables"):
        here.network.at(here.network.server, tool, "-I", "INPUT", "-p", "udp", "-j", "ACCEPT")
    here.network.send(KNOCK, source_port=4000)
    here.network.send(KNOCK, address=net.SERVER6)
    assert here.turn(lambda: len(here.seen) == 2)
    four, six = sorted(here.seen, key=lambda datagram: len(datagram.source))
    assert tuple(four) == (KNOCK, packed(net.CLIENT), 4000, bytes(4), 62201, 17)
    assert (six.source, six.destination) == (packed(net.CLIENT6), bytes(4))
    del here.seen[:]
    for payload in (b"", b"x" * 139, b"x" * 1500, b"x" * 1501, b"GET " + KNOCK, b"x" * 65000):
        here.network.send(payload)
    assert here.payloads() == [b"x" * 1500]
    assert here.capture.dropped == 0  # the kernel did that


def test_udp_address_is_the_destination_and_a_taken_port_is_named(watch):
    here = watch(kind="udp", address=net.SERVER)
    here.network.at(here.network.server, "iptables", "-I", "INPUT", "-p", "udp", "-j", "ACCEPT")
    here.network.send(KNOCK)
    assert here.turn(lambda: here.seen)
    assert here.seen[0].destination == packed(net.SERVER)
    with pytest.raises(PortError, match="another program has this port"):
        watch(kind="udp", address=net.SERVER)
