"""The firewalld port against the real firewalld, with a D-Bus of its own, in namespaces of its own.

Run by pytest, each case is a child in new network, mount and process namespaces, so nothing of it outlives the child:
`unshare -nm -pf --mount-proc --kill-child python test_firewalld.py BACKEND CASE`. A second network is the client's.
"""

import os
import socket
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
 <type>system</type>
 <listen>unix:path=/run/dbus/system_bus_socket</listen>
 <auth>EXTERNAL</auth>
 <policy context="default">
  <allow user="*"/> <allow own="*"/> <allow send_destination="*"/> <allow receive_sender="*"/>
 </policy>
</busconfig>
"""
CLIENT, SERVER = "10.99.0.2", "10.99.0.1"
CLIENT6, SERVER6 = "fd99::2", "fd99::1"
SERVICE, OTHER = 2222, 2223
GREETING = b"service\n"


class Machine:
    """This namespace with firewalld at work, a service behind it, and a client one cable away."""

    def __init__(self, backend):
        from tests.real.net import run

        for place in ("/run", "/var/log"):
            run("mount", "-t", "tmpfs", "tmpfs", place)
        for folder in ("/run/dbus", "/run/firewalld"):
            os.mkdir(folder)
        self.network(run)
        self.write("/run/bus.conf", BUS)
        self.write("/run/firewalld/firewalld.conf", "FirewallBackend=%s\nIPv6_rpfilter=no\n" % backend)
        self.run = run
        run("dbus-daemon", "--config-file=/run/bus.conf", "--fork")
        with open("/run/firewalld.log", "wb") as out:
            words = ["--nofork", "--nopid", "--log-target=console", "--system-config", "/run/firewalld"]
            self.firewalld = subprocess.Popen(["firewalld", *words], stdout=out, stderr=out)
        self.wait(lambda: "running" == run("firewall-cmd", "--state", check=False).strip(), 20)
        for port in (SERVICE, OTHER):
            self.serve(port)

    def network(self, run):
        run("ip", "link", "set", "lo", "up")
        run("ip", "netns", "add", "client")
        run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", "client")
        for where, four, six in (([], SERVER, SERVER6), (["-n", "client"], CLIENT, CLIENT6)):
            run("ip", *where, "addr", "add", four + "/24", "dev", "eth0")
            run("ip", *where, "addr", "add", six + "/64", "dev", "eth0", "nodad")
            run("ip", *where, "link", "set", "eth0", "up")

    def write(self, path, text):
        with open(path, "w") as out:
            out.write(text)

    def serve(self, port):
        listener = socket.socket(socket.AF_INET6)
        listener.bind(("::", port))
        listener.listen(8)
        threading.Thread(target=greet, args=(listener,), daemon=True).start()

    def wait(self, call, seconds):
        """Asks until it is true; returns after how many seconds."""
        began = time.monotonic()
        while not call():
            if time.monotonic() - began > seconds:
                with open("/run/firewalld.log") as log:
                    raise AssertionError("not within %d s; firewalld says: %s" % (seconds, log.read()))
            time.sleep(0.05)
        return time.monotonic() - began

    def connects(self, port=SERVICE, address=SERVER):
        """Tells whether the client gets through to the service."""
        from tests.real.net import enter

        outcome = []

        def attempt():
            enter("client")
            with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
                probe.settimeout(0.5)
                try:
                    probe.connect((address, port))
                    outcome.append(probe.recv(9) == GREETING)
                except OSError:  # refused by firewalld with an ICMP message of some kind
                    outcome.append(False)

        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return outcome[0]


def greet(listener):
    while True:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(GREETING)


class Firewall:
    """The port on this machine."""

    def __init__(self, **options):
        from tinyknop.ports import make

        from tinyknop.loop import Loop, current

        self.loop = current() or Loop()
        table = {"kind": "firewalld"}
        table.update(options)
        self.port = make("fw", table, {})
        self.do(self.port.start())

    def do(self, coroutine):
        async def ended():
            try:
                return await coroutine
            finally:
                self.loop.soon(lambda: None)  # or the loop's last turn would wait for the next deadline

        return self.loop.run_until(ended())

    def open(self, seconds=60, **fields):
        made = grant(seconds=seconds, **fields)
        began = time.monotonic()
        self.do(self.port.open(made, seconds))
        print("open: %.0f ms" % ((time.monotonic() - began) * 1000))
        return made


def grant(id=1, source=CLIENT, openings=(("tcp", SERVICE),), seconds=60, nat=None):
    from tinyknop.grants import Grant

    now = int(time.time())
    return Grant(id, source, openings, now, now + seconds, "alice", nat, SERVER, source)


def open_and_close(machine):
    fw = Firewall()
    assert not machine.connects() and not machine.connects(address=SERVER6)
    both = [fw.open(openings=(("tcp", SERVICE), ("udp", 53))), fw.open(id=2, source=CLIENT6)]
    assert machine.connects() and machine.connects(address=SERVER6) and not machine.connects(OTHER)
    for one in both:
        fw.do(fw.port.close(one))
        fw.do(fw.port.close(one))
    assert not machine.connects() and not machine.connects(address=SERVER6)
    assert machine.run("firewall-cmd", "--list-rich-rules").strip() == ""


def a_reload_is_survived(machine):
    fw = Firewall(destination="Y")
    made = fw.open()
    assert machine.connects()
    machine.run("firewall-cmd", "--reload")
    assert not machine.connects()
    end = time.monotonic() + 50  # a call may take seconds on a busy machine, and the time left is then less
    fw.do(fw.port.sync([(made, round(end - time.monotonic()))]))
    assert machine.connects()
    before = machine.run("firewall-cmd", "--list-rich-rules")
    fw.do(fw.port.sync([(made, round(end - time.monotonic()))]))
    assert machine.run("firewall-cmd", "--list-rich-rules") == before
    fw.do(fw.port.sync([]))
    assert not machine.connects()


def firewalld_ends_it_by_itself(machine):
    fw = Firewall()
    fw.open(seconds=1)
    assert machine.connects()
    took = machine.wait(lambda: not machine.connects(), 5)
    print("ended after %.1f s" % took)
    assert machine.run("firewall-cmd", "--list-rich-rules").strip() == ""


def extended(machine):
    fw = Firewall()
    fw.open(seconds=1)
    fw.open(seconds=60)
    time.sleep(2.5)
    assert machine.connects()
    assert len(machine.run("firewall-cmd", "--list-rich-rules").strip().split("\n")) == 1
    again = Firewall()  # another process takes over
    again.do(again.port.sync([(grant(), 2)]))
    machine.wait(lambda: not machine.connects(), 6)


def the_owners_rules_come_first(machine):
    rule = 'rule family="ipv4" source address="%s" port port="%d" protocol="tcp" drop' % (CLIENT, SERVICE)
    machine.run("firewall-cmd", "--add-rich-rule=" + rule)
    fw = Firewall()
    fw.open(openings=(("tcp", SERVICE), ("tcp", OTHER)))
    assert machine.connects(OTHER) and not machine.connects()
    fw.do(fw.port.stop(True))
    assert not machine.connects(OTHER)
    assert machine.run("firewall-cmd", "--list-rich-rules").strip() == rule


def direct_rules(machine):
    from tinyknop.grants import Nat

    chains = {
        "forward_chain": "ACCEPT, filter, FORWARD, 1, FWKNOP_FORWARD, 1",
        "dnat_chain": "DNAT, nat, PREROUTING, 1, FWKNOP_PREROUTING, 1",
    }
    fw = Firewall(mode="direct", ipv6="N", **chains)
    plain = fw.open()
    assert machine.connects() and not machine.connects(OTHER)
    machine.run("firewall-cmd", "--reload")
    assert not machine.connects()
    fw.do(fw.port.sync([(plain, 50)]))
    assert machine.connects()
    rich = Firewall()  # beside them: this backend knows rich rules too
    made = rich.open(openings=(("tcp", OTHER),))
    assert machine.connects(OTHER)
    rich.do(rich.port.close(made))
    assert not machine.connects(OTHER)
    nat = fw.open(id=2, openings=(("tcp", 8000),), nat=Nat(True, SERVER, OTHER, None, False, True))
    assert machine.connects(8000)
    for one in (plain, nat):
        fw.do(fw.port.close(one))
    assert not machine.connects() and not machine.connects(8000)
    fw.do(fw.port.stop(True))
    assert "FWKNOP" not in machine.run("iptables-save")


def direct_rules_with_the_other_backend(machine):
    from tinyknop import log

    warned = []
    log.warning = lambda text, *words: warned.append(text % words)
    fw = Firewall(mode="direct", ipv6="N")
    fw.open()
    assert not machine.connects()  # as firewalld.direct(5) says: both must accept
    assert [text for text in warned if "FirewallBackend=iptables" in text]


CASES = {
    "nftables": (
        open_and_close,
        a_reload_is_survived,
        firewalld_ends_it_by_itself,
        extended,
        the_owners_rules_come_first,
        direct_rules_with_the_other_backend,
    ),
    "iptables": (direct_rules,),
}


def check(backend, case):
    from tests.need import lacking, need

    need("unshare", "ip", "iptables", "nft", "dbus-daemon", "firewalld", "firewall-cmd")
    if os.geteuid():
        lacking("must be root: firewalld will not run without")
    argv = ["unshare", "-nm", "-pf", "--mount-proc", "--kill-child", sys.executable, os.path.abspath(__file__)]
    environment = dict(os.environ, PYTHONPATH=ROOT)
    done = subprocess.run(
        [*argv, backend, case.__name__],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )
    print(done.stdout.decode())
    assert done.returncode == 0, done.stdout.decode()


def test_rich_rules_open_and_close():
    check("nftables", open_and_close)


def test_a_reload_is_survived():
    check("nftables", a_reload_is_survived)


def test_firewalld_ends_an_opening_by_itself():
    check("nftables", firewalld_ends_it_by_itself)


def test_an_extended_opening_outlives_its_first_time():
    check("nftables", extended)


def test_the_owners_rules_come_first():
    check("nftables", the_owners_rules_come_first)


def test_direct_rules_open_survive_a_reload_and_do_nat_beside_rich_rules():
    check("iptables", direct_rules)


def test_direct_rules_with_the_nftables_backend_are_warned_of():
    check("nftables", direct_rules_with_the_other_backend)


if __name__ == "__main__":
    cases = {case.__name__: case for case in CASES[sys.argv[1]]}
    cases[sys.argv[2]](Machine(sys.argv[1]))
