"""The other ways in: users' filters, TCP, HTTP, ICMP and spoofed packets of the real client, NFQUEUE, files."""

import os
import socket
import subprocess
import time

import pytest

from tests.need import lacking, need
from tests.real import net, peers
from tests.real.test_capture import KNOCK, Watch
from tinyknop import Keys, unseal, web
from tinyknop.capture import make, packet, tcp
from tinyknop.compat import monotonic
from tinyknop.errors import ConfigError, PortError
from tinyknop.host import bpf
from tinyknop.loop import Loop
from tinyknop.net import packed

KEYS = Keys(key=peers.KEY, hmac_key=peers.HMAC_KEY)
FILTERS = (
    "udp port 62201",
    "tcp port 80",
    "icmp",
    "icmp6 or ip6",
    "ip",
    "udp dst portrange 62000-62300 and src net 10.99.0.0/24",
    "not udp",
    "tcp[tcpflags] & tcp-syn != 0",
    "udp[8:4] = 0x35353535 or ip[8] > 200",
    "greater 300",
    "ip proto 17 and (len - 20) * 2 / 3 % 7 != 1",
)


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
        left = one.inside(one.capture.stop)
        assert left is None or one.turn(lambda left=left: left.done)


def accept(network, *words):
    """Lets packets through the server's firewall."""
    for tool in ("iptables", "ip6tables"):
        network.at(network.server, tool, "-w", "-I", "INPUT", *words, "-j", "ACCEPT")


def arrives(here, within=3.0):
    """Returns the first datagram that is a knock of the real client, and what it says."""
    found = []

    def look():
        found.extend(datagram for datagram in here.seen if len(datagram.payload) >= 140)
        return found

    assert here.turn(look, within), here.seen
    return found[0], unseal(found[0].payload, KEYS)


@pytest.mark.parametrize(
    ("words", "text", "proto"),
    [
        (("-P", "udp"), "udp dst port 62201 and src host 10.99.0.2", 17),
        (("-P", "udpraw", "-Q", "192.0.2.9"), "udp and dst port 62201", 17),
        (("-P", "tcpraw", "-Q", "192.0.2.9"), "tcp port 62201", 6),
        (("-P", "icmp", "-Q", "192.0.2.9"), "icmp", 1),
        (("-P", "icmp", "-Q", "192.0.2.9", "--icmp-type", "8"), "icmp", 1),
    ],
)
def test_real_clients_packet_of_each_protocol_passes_a_users_filter(watch, words, text, proto):
    need("fwknop")
    here = watch(interface="eth0", filter=text)
    here.network.at(here.network.server, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
    peers.fwknop(here.network, *words)
    datagram, said = arrives(here)
    assert said.message.endswith("tcp/%d" % net.SERVICE)
    assert datagram.source == packed("192.0.2.9" if "-Q" in words else net.CLIENT)
    assert (datagram.destination, datagram.proto) == (packed(net.SERVER), proto)
    assert datagram.dport == (0 if proto == 1 else 62201)


def test_capture_reads_what_a_listener_beside_it_throws_away(watch):
    need("fwknop")
    here = watch(interface="any", filter="tcp port 62201")
    accept(here.network, "-p", "tcp", "--dport", "62201")
    beside = watch(kind="tcp", read="N")
    peers.fwknop(here.network, "-P", "tcp")
    datagram, _ = arrives(here)
    assert (datagram.proto, datagram.dport) == (6, 62201)
    beside.turn(lambda: False, 0.1)
    assert beside.seen == [] and beside.capture.received == 0


def test_listener_reads_the_knock_of_a_real_client(watch):
    need("fwknop")
    here = watch(kind="tcp")
    accept(here.network, "-p", "tcp", "--dport", "62201")
    peers.fwknop(here.network, "-P", "tcp")
    datagram, _ = arrives(here)
    assert (datagram.source, datagram.destination) == (packed(net.CLIENT), packed(net.SERVER))
    assert (datagram.dport, datagram.proto) == (62201, 6)


@pytest.mark.parametrize("options", [{"kind": "http"}, {"interface": "eth0", "filter": "tcp dst port 80"}])
def test_request_of_a_real_client_holds_the_knock(watch, options):
    need("fwknop")
    here = watch(**options)
    accept(here.network, "-p", "tcp", "--dport", "80")
    if options.get("kind") != "http":
        watch(kind="tcp", port="80", read="N")
    peers.fwknop(here.network, "-P", "http", "-p", "80")

    class Settings:
        any_agent, forwarded_for, proxies = False, True, web.PROXIES

    assert here.turn(lambda: [datagram for datagram in here.seen if datagram.payload])
    datagram = [datagram for datagram in here.seen if datagram.payload][0]
    assert web.is_request(datagram.payload)
    knock, forwarded = web.decode(datagram.payload, datagram.source, Settings)
    assert unseal(knock, KEYS).message.endswith("tcp/%d" % net.SERVICE)
    assert forwarded is None


class Talk:
    """TCP connections from the client to a listener."""

    def __init__(self, here):
        self.here, self.port = here, here.capture.port
        accept(here.network, "-p", "tcp", "--dport", str(self.port))
        self.open = []

    def connect(self, address=net.SERVER, source=None):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.open.append(self.here.network.new_socket(self.here.network.client, family))
        self.open[-1].settimeout(2)
        if source:
            self.open[-1].bind((source, 0))
        self.open[-1].connect((address, self.port))
        return self.open[-1]

    def ends(self, connection):
        """Waits until the server has closed; fails if it ever said a word."""
        connection.setblocking(False)
        got = []

        def closed():
            try:
                got.append(connection.recv(100))
            except ConnectionResetError:
                got.append(b"")
            except BlockingIOError:
                return False
            return True

        assert self.here.turn(closed)
        assert got == [b""]


@pytest.fixture
def talk(watch):
    made = []

    def begin(**options):
        made.append(Talk(watch(**options)))
        return made[-1]

    yield begin
    for one in made:
        for connection in one.open:
            connection.close()


def test_listener_hears_pieces_until_the_end_in_both_families(talk):
    with_one = talk(kind="tcp")
    here = with_one.here
    for address in (net.SERVER, net.SERVER6):
        peer = with_one.connect(address)
        peer.sendall(b"5" * 100)
        here.turn(lambda: False, 0.05)
        peer.sendall(b"6" * 100)
        peer.shutdown(socket.SHUT_WR)
        with_one.ends(peer)
        assert here.seen[-1].payload == b"5" * 100 + b"6" * 100
        assert here.seen[-1].destination == packed(address)
        assert here.seen[-1].sport == peer.getsockname()[1]
    assert here.capture.received == 2 and here.capture.open == []


def test_listener_neither_waits_nor_reads_for_ever(talk, monkeypatch):
    monkeypatch.setattr(tcp, "QUIET_MS", 100)
    monkeypatch.setattr(tcp, "LONGEST_MS", 250)
    with_one = talk(kind="tcp")
    here = with_one.here
    quiet, long, silent, slow = [with_one.connect() for _ in range(4)]
    quiet.sendall(KNOCK)
    long.sendall(b"x" * 1400)
    here.turn(lambda: False, 0.02)
    long.sendall(b"x" * 1400)
    begun = time.monotonic()
    with_one.ends(long)
    while time.monotonic() - begun < 0.2:
        slow.sendall(b"y")
        here.turn(lambda: False, 0.05)
    for peer in (quiet, silent, slow):
        with_one.ends(peer)
    assert 0.2 < time.monotonic() - begun < 0.6
    assert here.seen[0].payload == KNOCK
    assert [datagram.payload.strip(b"y") for datagram in here.seen[1:]] == [b""]
    assert here.capture.dropped == 1


def test_connections_of_one_source_crowd_out_their_own_oldest(talk):
    with_one = talk(kind="tcp")
    here = with_one.here
    peers_open = []
    for number in range(tcp.MOST_OF_ONE + 3):
        peers_open.append(with_one.connect())
        peers_open[-1].sendall(b"%d" % number + KNOCK)
        here.turn(lambda: False, 0.02)
    assert len(here.capture.open) == tcp.MOST_OF_ONE
    assert [datagram.payload[:1] for datagram in here.seen] == [b"0", b"1", b"2"]


def test_all_addresses_of_one_ipv6_network_are_one_source(talk):
    with_one = talk(kind="tcp")
    here = with_one.here
    sources = ["fd99::1:%d" % number for number in range(tcp.MOST_OF_ONE + 3)]
    for source in sources:
        here.network.at(here.network.client, "ip", "addr", "add", source + "/64", "dev", "eth0", "nodad")
    for source in sources:
        with_one.connect(net.SERVER6, source)
    assert here.turn(lambda: here.capture.open)
    here.turn(lambda: False, 0.1)
    assert len(here.capture.open) <= tcp.MOST_OF_ONE


def test_web_request_ends_with_its_blank_line(talk):
    with_one = talk(kind="http")
    begun = time.monotonic()
    peer = with_one.connect()
    peer.sendall(b"GET /%s HTTP/1.1\r\nUser-Agent: Fwknop/2.6.11\r\nHost: x\r\n" % KNOCK)
    with_one.here.turn(lambda: False, 0.05)
    assert with_one.here.seen == []
    peer.sendall(b"\r\n")
    with_one.ends(peer)
    assert time.monotonic() - begun < 0.9
    assert with_one.here.seen[0].payload.endswith(b"Host: x\r\n\r\n")


def test_port_of_a_listener_that_is_taken_is_named(watch):
    watch(kind="tcp")
    with pytest.raises(PortError, match="another program has this port"):
        watch(kind="http", port="62201")


def test_no_filter_at_all_and_any_direction(watch):
    here = watch(interface="eth0", filter="none")
    both = watch(interface="eth0", filter="udp port 62201", any_direction="Y")
    here.network.send(KNOCK, port=7)
    assert here.turn(lambda: [d for d in here.seen if d.dport == 7])
    here.network.send(KNOCK, address=net.CLIENT, namespace=here.network.server)
    assert both.turn(lambda: both.seen)
    assert both.seen[0].source == packed(net.SERVER)
    here.turn(lambda: False, 0.05)
    assert [d for d in here.seen if d.source == packed(net.SERVER) and d.proto == 17] == []


def test_longest_packet_is_a_setting(watch):
    here = watch(interface="eth0", filter="udp", snap="1000")
    here.network.send(b"x" * 972)
    here.network.send(b"x" * 973)
    assert [len(payload) for payload in here.payloads()] == [972]
    assert here.capture.malformed == 1


@pytest.mark.parametrize("exits", ["Y", "N"])
def test_interface_that_is_gone_for_good_ends_the_capture_if_so_set(watch, monkeypatch, exits):
    monkeypatch.setattr(packet, "GONE_MS", 500)
    monkeypatch.setattr(packet, "RETRY_MAX_MS", 250)
    here = watch(interface="eth0", exit_at_down=exits)
    ends = []
    here.capture.over = lambda *words: ends.append(words)
    here.ip("link", "set", "eth0", "down")
    here.turn(lambda: ends, 0.8)
    assert ends == []
    here.ip("link", "del", "eth0")
    assert bool(here.turn(lambda: ends, 4.0 if exits == "Y" else 1.0)) == (exits == "Y")
    if exits == "Y":
        assert ends == [("The interface disappeared: eth0", 1)]
    else:
        here.network.link(0, here.network.client)
        assert here.knock_arrives()


def test_filter_that_is_refused_says_why_and_where():
    for text in ("udp prt 5", "ether host 1:2:3:4:5:6", "tcp port 99999", "\0"):
        with pytest.raises(ConfigError) as caught:
            make({"filter": text, "where": "fwknopd.conf:7"}, print)
        assert caught.value.stage == "fwknopd.conf:7"
    with pytest.raises(ConfigError, match="(?i)syntax error"):
        make({"filter": "udp prt 5"}, print)


def test_filter_that_the_kernel_has_no_room_for_is_refused():
    text = " or ".join("host 10.%d.%d.1" % (number >> 8, number & 255) for number in range(2000))
    with pytest.raises(ConfigError, match="steps, and the kernel 4096"):
        bpf.compile(text)
    assert len(bpf.compile("not (udp port 5)")) < 40


def test_without_any_compiler_the_remedy_is_named(monkeypatch):
    monkeypatch.setattr(bpf, "LIBRARIES", ("libpcap.so.none",))
    monkeypatch.setattr(bpf, "TCPDUMP", "/nonexistent/tcpdump")
    with pytest.raises(ConfigError, match="fwknopd.conf:7: .*install libpcap, or write udp port N"):
        make({"filter": "tcp port 80", "where": "fwknopd.conf:7"}, print)
    assert make({"filter": "udp port  53"}, print).port == 53


@pytest.mark.parametrize("link", sorted(bpf.NAMES))
def test_tcpdump_compiles_what_libpcap_does(monkeypatch, link):
    need("tcpdump")
    by_library = [bpf.compile(text, link=link) for text in FILTERS]
    monkeypatch.setattr(bpf, "LIBRARIES", ())
    assert [bpf.compile(text, link=link) for text in FILTERS] == by_library
    with pytest.raises(ConfigError, match="(?i)syntax error"):
        bpf.compile("udp prt 5")
    with pytest.raises(ConfigError):
        bpf.compile("--version")


class Saved:
    """tcpdump in the server's namespace, saving what comes while the `with` lasts."""

    def __init__(self, network, path, *words):
        self.network, self.path = network, path
        argv = [need("tcpdump"), "-n", "-U", "--immediate-mode", "-w", path, "-Z", "root", *words]
        self.process = peers.Process(network, network.server, argv)
        self.process.wait_line("listening on")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # A last packet that only a file with all before it can hold.
        self.network.send(b"LAST" + KNOCK)
        deadline = time.monotonic() + 5
        while b"LAST5" not in open(self.path, "rb").read() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.process.stop()


def read(path, **options):
    """Returns the datagrams of a capture file."""
    seen, ends = [], []
    capture = make(dict(options, kind="pcap", file=path), seen.append)
    capture.over = lambda *words: ends.append(words)
    loop = Loop()
    capture.start(loop)
    while not ends:
        loop.turn()
    assert ends == [("end of %s" % path, None)]
    return seen


@pytest.mark.parametrize(
    "words", [("-i", "eth0"), ("-i", "any"), ("-i", "any", "-y", "LINUX_SLL"), ("-i", "eth0", "--nano")]
)
def test_real_knocks_are_read_from_what_tcpdump_saved(network, words):
    need("fwknop", "tcpdump")
    path = os.path.join(network.dir, "saved.pcap")
    with Saved(network, path, *[word.replace("--nano", "--time-stamp-precision=nano") for word in words]):
        for more in ((), ("-P", "icmp", "-Q", "192.0.2.9"), ("-P", "tcpraw", "-Q", "192.0.2.9")):
            peers.fwknop(network, *more)
        network.send(KNOCK, address=net.SERVER6)
    found = read(path)
    assert [datagram.payload[:4] for datagram in found[1:]] == [b"5555", b"LAST"]
    assert unseal(found[0].payload, KEYS).message.endswith("tcp/%d" % net.SERVICE)
    assert (found[0].source, found[0].destination) == (packed(net.CLIENT), packed(net.SERVER))
    for text, proto in (("icmp", 1), ("tcp dst port 62201", 6)):
        found = [datagram for datagram in read(path, filter=text) if len(datagram.payload) > 139]
        assert [datagram.proto for datagram in found] == [proto]
        unseal(found[0].payload, KEYS)


@pytest.mark.parametrize("words", [("-i", "eth0"), ("-i", "any")])
def test_interpreter_keeps_what_tcpdump_keeps(network, words):
    path = os.path.join(network.dir, "saved.pcap")
    with Saved(network, path, *words):
        for more in ((), ("-P", "icmp", "-Q", "192.0.2.9"), ("-P", "tcpraw", "-Q", "192.0.2.9")):
            peers.fwknop(network, *more)
        network.can_connect(80, timeout=0.05)
        for size in (0, 140, 300, 1400):
            network.send(b"5" * size)
            network.send(b"x" * size, port=80, address=net.SERVER6)
    for text in FILTERS:
        argv = ["tcpdump", "-r", path, "-w", path + ".kept", text]
        subprocess.run(argv, check=True, stderr=subprocess.DEVNULL)
        kept = read(path + ".kept", filter="none")
        assert read(path, filter=text) == kept, text
        assert kept or text in ("icmp6 or ip6",)


def nfq_rules(network):
    """Returns the rules of table mangle without its policies."""
    text = network.at(network.server, "iptables", "-w", "-t", "mangle", "-S")
    return [line for line in text.splitlines() if not line.startswith("-P")]


RULE = "-A FWKNOP_NFQ %s-p udp -m udp --dport 62201 -j NFQUEUE --queue-num %d --queue-bypass"


def test_queue_takes_knocks_before_the_firewall_and_leaves_nothing(watch):
    here = watch(kind="nfqueue", interface="eth0", queue="7")
    network = here.network
    wanted = ["-N FWKNOP_NFQ", "-A INPUT -j FWKNOP_NFQ", RULE % ("-i eth0 ", 7)]
    assert here.turn(lambda: nfq_rules(network) == wanted)
    accept(network, "-p", "udp")
    with network.new_socket(network.server, kind=socket.SOCK_DGRAM) as behind:
        behind.bind(("", 62201))
        behind.settimeout(0.1)
        network.send(KNOCK, source_port=4000)
        assert here.turn(lambda: here.seen)
        assert tuple(here.seen[0]) == (KNOCK, packed(net.CLIENT), 4000, packed(net.SERVER), 62201, 17)
        with pytest.raises(socket.timeout):
            behind.recv(2000)
        with pytest.raises(PortError, match="another program has this queue"):
            watch(kind="nfqueue", queue="7")
        # Somebody puts a rule before ours: fwknopd would take that away.
        network.at(network.server, "iptables", "-w", "-t", "mangle", "-I", "INPUT", "1", "-p", "sctp", "-j", "ACCEPT")
        left = here.inside(here.capture.stop)
        assert here.turn(lambda: left.done)
        assert nfq_rules(network) == ["-A INPUT -p sctp -j ACCEPT"]
        network.send(KNOCK)
        assert behind.recv(2000) == KNOCK
    assert here.inside(here.capture.stop) is None


def test_packets_that_others_queue_elsewhere_go_on(watch):
    here = watch(kind="nfqueue")
    network = here.network
    assert here.turn(lambda: len(nfq_rules(network)) == 3)
    rule = "-A OUTPUT -p udp --dport 5555 -j NFQUEUE --queue-num 1"
    network.at(network.server, "iptables", "-w", "-t", "mangle", *rule.split())
    with network.new_socket(network.client, kind=socket.SOCK_DGRAM) as peer:
        peer.bind(("", 5555))
        peer.settimeout(1)
        network.send(KNOCK, port=5555, address=net.CLIENT, namespace=network.server)
        assert here.turn(lambda: here.seen)
        assert peer.recv(2000) == KNOCK


def test_leftovers_of_a_killed_daemon_are_harmless_and_cleared(watch):
    first = watch(kind="nfqueue", queue="9")
    network = first.network
    assert first.turn(lambda: len(nfq_rules(network)) == 3)
    first.inside(lambda: first.capture._loop.reader(first.capture._sock, None))
    first.capture._sock.close()  # as after kill -9
    first.capture._sock = None
    accept(network, "-p", "udp")
    with network.new_socket(network.server, kind=socket.SOCK_DGRAM) as behind:
        behind.bind(("", 62201))
        behind.settimeout(1)
        network.send(KNOCK)
        assert behind.recv(2000) == KNOCK
    for _ in range(2):
        network.at(network.server, "iptables", "-w", "-t", "mangle", "-I", "INPUT", "-j", "FWKNOP_NFQ")
    second = watch(kind="nfqueue", queue="9", port="62201")
    assert second.turn(
        lambda: sorted(nfq_rules(network)) == sorted(["-N FWKNOP_NFQ", "-A INPUT -j FWKNOP_NFQ", RULE % ("", 9)])
    )
    assert second.knock_arrives()


def test_reload_hands_the_chain_over(watch):
    old = watch(kind="nfqueue", queue="9")
    network = old.network
    assert old.turn(lambda: len(nfq_rules(network)) == 3)
    new = watch(kind="nfqueue", queue="10")
    left = old.inside(old.capture.stop)
    assert old.turn(lambda: left.done)
    assert new.turn(lambda: RULE % ("", 10) in nfq_rules(network) and len(nfq_rules(network)) == 3)
    assert new.knock_arrives()


def test_rules_that_cannot_be_made_end_the_capture(watch):
    here = watch(kind="nfqueue", binary="/nonexistent/iptables")
    ends = []
    here.capture.over = lambda *words: ends.append(words)
    assert here.turn(lambda: ends)
    assert ends == [("the rules that fill the queue cannot be made", 1)]


def test_owners_own_rules_are_left_alone(watch):
    here = watch(kind="nfqueue", binary="")
    network = here.network
    rule = "-A INPUT -p icmpv6 --icmpv6-type echo-request -j NFQUEUE --queue-num 1"
    network.at(network.server, "ip6tables", "-w", "-t", "mangle", *rule.split())
    with network.new_socket(network.client, socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as ping:
        ping.sendto(b"\x80\0\0\0\0\0\0\0" + KNOCK, (net.SERVER6, 0))
    assert here.turn(lambda: here.seen)
    assert (here.seen[0].proto, len(here.seen[0].payload)) == (58, 200)
    here.inside(here.capture.stop)
    here.loop.at(monotonic() + 50, int)
    assert nfq_rules(network) == []
