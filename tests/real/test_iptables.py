"""The iptables port against the kernel, in a network namespace of its own, with both flavours of the tools.

Run by pytest, each case is a child in a new namespace: `unshare -nm python test_iptables.py FLAVOUR CASE`.
"""

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, ROOT)

from tinyknop.grants import Grant  # noqa: E402 (the cases run as a program, too)

FLAVOURS = ("iptables-nft", "iptables-legacy")
NOW = int(time.time())
SSH = (("tcp", 22),)
CHAINS = {
    "output_chain": "ACCEPT, filter, OUTPUT, 1, FWKNOP_OUTPUT, 1",
    "forward_chain": "ACCEPT, filter, FORWARD, 1, FWKNOP_FORWARD, 1",
    "dnat_chain": "DNAT, nat, PREROUTING, 1, FWKNOP_PREROUTING, 1",
    "snat_chain": "SNAT, nat, POSTROUTING, 1, FWKNOP_POSTROUTING, 1",
    "masquerade_chain": "MASQUERADE, nat, POSTROUTING, 1, FWKNOP_MASQUERADE, 1",
}
DATE = re.compile(r"-m time --datestop (\S+) -m comment --comment _exp_(\d+)")


class Firewall:
    """A port on this machine, and what the tools say of it."""

    def __init__(self, flavour, **options):
        from tinyknop.ports import make

        from tinyknop.loop import Loop

        self.loop, self.flavour = Loop(), flavour
        table = {"kind": "iptables", "binary": flavour}
        table.update(options)
        self.port = make("fw", table, {})
        self.said = 0
        say = self.port.carrier.say

        def counted(*words, **more):
            self.said += 1
            return say(*words, **more)

        self.port.carrier.say = counted
        self.do(self.port.start())
        self.do(self.port.sync([]))  # as the worker does, with nothing live

    def do(self, coroutine):
        async def ended():
            try:
                return await coroutine
            finally:
                self.loop.soon(lambda: None)  # or the loop's last turn would wait for the next deadline

        return self.loop.run_until(ended())

    def open(self, id="1", source="10.0.0.1", openings=SSH, left=60, nat=None, destination="10.99.0.1"):
        now = int(time.time())
        grant = Grant(id, source, openings, now, max(now, NOW) + left, "alice", nat, destination, source)
        # The cases name the times of long ones; imported by others, this file's NOW may be long past.
        if left > 10 and now - NOW < 30:
            grant = Grant(id, source, openings, NOW, NOW + left, "alice", nat, destination, source)
        self.do(self.port.open(grant, left))
        return grant

    def close(self, grant):
        self.do(self.port.close(grant))

    def tool(self, *words, six=False):
        binary = self.flavour.replace("iptables", "ip6tables") if six else self.flavour
        done = subprocess.run([binary, "-w"] + list(words), capture_output=True)
        assert done.returncode == 0, "%s: %s" % (words, done.stderr.decode())
        return done.stdout.decode()

    def rules(self, chain="FWKNOP_INPUT", six=False, table="filter"):
        """Returns the rules of a chain without the dates, each of which has to be that of its comment."""
        found = []
        for line in self.tool("-t", table, "-S", chain, six=six).split("\n"):
            for date, e in DATE.findall(line):
                assert date == time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(e)))
            if line.startswith("-A"):
                found.append(DATE.sub(r"-m comment --comment _exp_\2", line)[len("-A " + chain + " ") :])
        return found

    def jumps(self):
        return self.tool("-S", "INPUT").count("-j FWKNOP_INPUT")


def rule(source="10.0.0.1/32", left=60, proto="tcp", port=22):
    words = "-s %s -p %s -m %s --dport %d -m comment --comment _exp_%d -j ACCEPT"
    return words % (source, proto, proto, port, NOW + left)


def open_extend_close(flavour):
    fw = Firewall(flavour)
    assert fw.said == 4  # a look and a transaction for IPv4 and IPv6
    both = SSH + (("udp", 53),)
    fw.open(openings=both)
    assert fw.rules() == [rule(), rule(proto="udp", port=53)]
    assert fw.said == 5
    grant = fw.open(openings=both, left=90)
    assert fw.rules() == [rule(left=90), rule(left=90, proto="udp", port=53)]
    fw.close(grant)
    fw.close(grant)
    assert fw.rules() == [] and fw.jumps() == 1


def ipv6_goes_by_ip6tables(flavour):
    fw = Firewall(flavour)
    grant = fw.open(source="2001:db8::7")
    assert fw.rules(six=True) == [rule("2001:db8::7/128")] and fw.rules() == []
    fw.close(grant)
    assert fw.rules(six=True) == []


def started_twice_hooked_once(flavour):
    fw = Firewall(flavour)
    fw.open()
    again = Firewall(flavour)
    assert again.jumps() == 1 and again.rules() == [rule()]
    grant = Grant("1", "10.0.0.1", SSH, NOW, NOW + 60, "alice", None, "0.0.0.0", "10.0.0.1")
    again.do(again.port.sync([(grant, 60)]))
    assert again.rules() == [rule()]
    again.close(grant)
    assert again.rules() == []
    Firewall(flavour, flush_at_init="Y").do(fw.port.stop(True))
    assert "FWKNOP" not in fw.tool("-S")


def a_flush_by_others_is_mended(flavour):
    fw = Firewall(flavour)
    grants = [(fw.open("1"), 60), (fw.open("2", "10.0.0.2"), 60)]
    expected = sorted([rule(), rule("10.0.0.2/32")])
    fw.tool("-F", "FWKNOP_INPUT")
    fw.do(fw.port.sync(grants))
    assert sorted(fw.rules()) == expected
    fw.tool("-F")  # the jump goes too; the next open notices
    fw.open("3", "10.0.0.3")
    assert sorted(fw.rules()) == sorted(expected + [rule("10.0.0.3/32")]) and fw.jumps() == 1
    fw.tool("-F")
    fw.tool("-X")
    fw.close(grants[0][0])
    fw.open("3", "10.0.0.3", left=70)
    assert sorted(fw.rules()) == sorted([rule("10.0.0.2/32"), rule("10.0.0.3/32", 70)]) and fw.jumps() == 1


def rules_of_others_stay(flavour):
    fw = Firewall(flavour)
    fw.tool("-A", "FWKNOP_INPUT", "-s", "10.9.9.9", "-m", "comment", "--comment", "office hours", "-j", "ACCEPT")
    foreign = fw.rules()
    for source, left in (("10.8.8.8/32", -5), ("10.7.7.7/32", 500)):
        fw.tool("-A", "FWKNOP_INPUT", *rule(source, left).split())
    fw.do(fw.port.sync([]))
    assert fw.rules() == foreign + [rule("10.7.7.7/32", 500)]


def another_holds_the_lock(flavour):
    fw = Firewall(flavour)
    with open(os.environ["XTABLES_LOCKFILE"], "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = subprocess.Popen(["sleep", "1"], pass_fds=[lock.fileno()])  # holds it for as long as it lives
    began = time.monotonic()
    fw.open()
    waited = time.monotonic() - began
    child.wait()
    assert fw.rules() == [rule()]
    assert waited > 0.5 or flavour == "iptables-nft"


def a_rule_ends_with_nobody_there(flavour):
    """The kernel stops matching at the end of the rule's last second; a connection that is there stays."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    fw = Firewall(flavour)
    fw.tool("-P", "INPUT", "DROP")
    fw.tool("-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT")
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        address = listener.getsockname()
        assert not reachable(address)
        grant = fw.open(source="127.0.0.1", openings=(("tcp", address[1]),), left=1)
        said = fw.said
        held = socket.create_connection(address, 0.5)
        accepted, _ = listener.accept()
        while time.time() < grant.until:
            assert reachable(address) or time.time() >= grant.until
            time.sleep(0.02)
        while time.time() < grant.until + 1.1:  # the kernel goes by the time of its last tick
            time.sleep(0.02)
        assert not reachable(address)
        held.sendall(b"still here")
        assert accepted.recv(16) == b"still here"
        assert fw.said == said and len(fw.rules()) == 1  # it is there, but matches nothing
        held.close()
        accepted.close()


def reachable(address):
    try:
        socket.create_connection(address, 0.1).close()
        return True
    except OSError:
        return False


OLD = """#!/bin/sh
text=$(cat)
case "$text" in *"-C "*|*datestop*) echo "Bad argument" >&2; exit 2;; esac
printf '%%s\\n' "$text" | exec %s-restore "$@"
"""


def old_tools_without_c_and_time(flavour):
    """What is missing is found out once, at the start."""
    with tempfile.TemporaryDirectory() as folder:
        for family in ("iptables", "ip6tables"):
            os.symlink("/usr/sbin/" + flavour.replace("iptables", family), folder + "/" + family)
            with open(folder + "/" + family + "-restore", "w") as file:
                file.write(OLD % flavour.replace("iptables", family))
            os.chmod(file.name, 0o755)
        fw = Firewall(flavour, binary=folder + "/iptables", **CHAINS)
        grant, said = fw.open(), fw.said
        assert fw.rules() == [rule()] and "datestop" not in fw.tool("-S")
        fw.tool("-F", "INPUT")
        fw.do(fw.port.sync([(grant, 60)]))
        assert fw.jumps() == 1 and fw.rules() == [rule()]
        fw.close(grant)
        assert fw.rules() == [] and said < 30


def chains_and_jumps_are_as_fwknopds(flavour):
    fw = Firewall(flavour, **CHAINS)
    filters = fw.tool("-S")
    for parent in ("INPUT", "OUTPUT", "FORWARD"):
        assert "-A %s -j FWKNOP_%s\n" % (parent, parent) in filters
    jumps = [line for line in fw.tool("-t", "nat", "-S").split("\n") if line.startswith("-A")]
    assert sorted(jumps[:-2]) == ["-A PREROUTING -j FWKNOP_PREROUTING"]
    assert jumps[-2:] == ["-A POSTROUTING -j FWKNOP_MASQUERADE", "-A POSTROUTING -j FWKNOP_POSTROUTING"]
    fw.do(fw.port.stop(True))
    for table in ("filter", "nat"):
        assert "FWKNOP" not in fw.tool("-t", table, "-S") + fw.tool("-t", table, "-S", six=True)


def others_change_the_table_at_the_same_time(flavour):
    """Their rules and ours are all there in the end, each once."""
    fw = Firewall(flavour, ipv6="N", **CHAINS)
    failed = []

    def meddle():
        for n in range(25):
            for words in (["-A", "INPUT", "-s", "10.2.0.%d" % n], ["-A", "FWKNOP_INPUT", "-s", "10.3.0.%d" % n]):
                done = subprocess.run([flavour, "-w"] + words + ["-j", "ACCEPT"], stderr=subprocess.PIPE)
                failed.extend([done.stderr] if done.returncode else [])

    other = threading.Thread(target=meddle)
    other.start()
    grants = [fw.open(str(n), "10.4.0.%d" % n) for n in range(25)]
    for grant in grants[:10]:
        fw.close(grant)
    other.join()
    assert failed == []
    assert len([r for r in fw.rules("INPUT") if r.startswith("-s 10.2.0.")]) == 25
    assert len([r for r in fw.rules() if r.startswith("-s 10.3.0.")]) == 25
    ours = [r for r in fw.rules() if "_exp_" in r]
    assert sorted(ours) == sorted([rule("10.4.0.%d/32" % n) for n in range(10, 25)])


def many_rules(flavour):
    fw = Firewall(flavour)
    count = int(os.environ.get("RULES", "200"))
    took, grants = [], []
    for n in range(count):
        began = time.monotonic()
        grants.append(fw.open(str(n), "10.1.%d.%d" % (n // 100, n % 100 + 1)))
        took.append((time.monotonic() - began) * 1000)
    assert len(fw.rules()) == count
    ordered = sorted(took)
    half, most = ordered[count // 2], ordered[count * 95 // 100]
    print("%s: open: median %.1f ms, p95 %.1f ms, last of %d %.1f ms" % (flavour, half, most, count, took[-1]))
    began = time.monotonic()
    for grant in grants[:20]:
        fw.close(grant)
    print("%s: close: %.1f ms each" % (flavour, (time.monotonic() - began) * 50))
    began = time.monotonic()
    fw.do(fw.port.close(*grants[20:40]))
    print("%s: close 20 at once: %.1f ms" % (flavour, (time.monotonic() - began) * 1000))
    assert len(fw.rules()) == count - 40
    began = time.monotonic()
    fw.do(fw.port.sync([(grant, 60) for grant in grants[count // 2 :]]))
    print("%s: sync that closes the older half: %.1f ms" % (flavour, (time.monotonic() - began) * 1000))
    assert len(fw.rules()) == count // 2


def leaves_a_rule(flavour):
    """Opens like a daemon that is then killed."""
    fw = Firewall(flavour, ipv6="N")
    fw.open(source="10.99.0.2", openings=(("tcp", 2222),), left=3)
    os.kill(os.getpid(), signal.SIGKILL)


def takes_over_a_rule(flavour):
    """Finds fwknopd's rule, leaves it until its time and not longer."""
    fw = Firewall(flavour, ipv6="N")
    fw.do(fw.port.sync([]))
    assert len(fw.rules()) == 1
    due = fw.port.next_expiry()
    assert "_exp_%d " % due in fw.rules()[0]
    while time.time() < due:
        fw.do(fw.port.sync([]))
        assert len(fw.rules()) == 1 or time.time() >= due
        time.sleep(0.1)
    fw.do(fw.port.sync([]))
    assert fw.rules() == [] and fw.port.next_expiry() is None


CASES = (
    open_extend_close,
    ipv6_goes_by_ip6tables,
    started_twice_hooked_once,
    a_flush_by_others_is_mended,
    rules_of_others_stay,
    another_holds_the_lock,
    a_rule_ends_with_nobody_there,
    old_tools_without_c_and_time,
    chains_and_jumps_are_as_fwknopds,
    others_change_the_table_at_the_same_time,
    many_rules,
    leaves_a_rule,
    takes_over_a_rule,
)


def check(case):
    from tests.need import need, need_namespaces, share

    namespace = need_namespaces()
    flavours = FLAVOURS if os.geteuid() == 0 else FLAVOURS[:1]  # legacy has no tables in a user namespace
    need(*flavours, "ip6tables")
    with tempfile.NamedTemporaryFile() as lock:
        environment = dict(os.environ, PYTHONPATH=ROOT, XTABLES_LOCKFILE=lock.name, RULES=str(share(200, 1000)))
        for flavour in flavours:
            argv = [*namespace, sys.executable, os.path.abspath(__file__), flavour, case.__name__]
            done = subprocess.run(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
            print(done.stdout.decode())
            assert done.returncode == 0, "%s: %s" % (flavour, done.stdout.decode())


def test_open_extend_close():
    check(open_extend_close)


def test_ipv6_goes_by_ip6tables():
    check(ipv6_goes_by_ip6tables)


def test_started_twice_hooked_once():
    check(started_twice_hooked_once)


def test_a_flush_by_others_is_mended():
    check(a_flush_by_others_is_mended)


def test_rules_of_others_stay():
    check(rules_of_others_stay)


def test_another_process_holding_the_lock_is_waited_for():
    check(another_holds_the_lock)


def test_a_rule_ends_with_nobody_there():
    check(a_rule_ends_with_nobody_there)


def test_old_tools_without_c_and_time():
    check(old_tools_without_c_and_time)


def test_chains_and_jumps_are_as_fwknopds():
    check(chains_and_jumps_are_as_fwknopds)


def test_others_change_the_table_at_the_same_time():
    check(others_change_the_table_at_the_same_time)


def test_many_rules():
    check(many_rules)


def in_the_server(network, case, status=0):
    """Runs a case in the server's namespace, with the flavour that fwknopd uses there."""
    argv = ["ip", "netns", "exec", network.server, sys.executable, os.path.abspath(__file__), "iptables"]
    done = subprocess.run([*argv, case.__name__], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert done.returncode == status, done.stdout.decode()


def test_a_rule_of_fwknopd_that_was_killed_is_taken_over(network):
    from tests.need import need
    from tests.real import peers

    need("fwknopd", "fwknop")
    daemon = peers.fwknopd(network, flush_ipt_at_init="N")
    peers.fwknop(network, seconds=2)
    daemon.wait_line("Added access rule to FWKNOP_INPUT")
    daemon.kill()
    assert network.can_connect()
    in_the_server(network, takes_over_a_rule)
    assert not network.can_connect()


def test_fwknopd_takes_over_a_rule_of_ours(network):
    from tests.need import need
    from tests.real import peers

    need("fwknopd")
    in_the_server(network, leaves_a_rule, -signal.SIGKILL)
    assert network.can_connect()
    left = peers.rules(network)
    daemon = peers.fwknopd(network, flush_ipt_at_init="N")
    assert peers.rules(network) == left
    listed = network.at(network.server, "fwknopd", "-c", network.dir + "/fwknopd/fwknopd.conf", "--fw-list")
    assert "_exp_" + left[0].split("_exp_")[1].split(" ")[0] in listed
    daemon.wait_line("Removed rule 1 from FWKNOP_INPUT")
    assert peers.rules(network) == []


if __name__ == "__main__":
    {case.__name__: case for case in CASES}[sys.argv[2]](sys.argv[1])
