"""The iptables port against the kernel, in a network namespace of its own, with both flavours of the tools.

Run by pytest, each case is a child in a new namespace: `unshare -nm python test_iptables.py FLAVOUR CASE`.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
import time
from collections import namedtuple

Grant = namedtuple("Grant", "id source openings opened until stanza nat")
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FLAVOURS = ("iptables-nft", "iptables-legacy")
NOW = int(time.time())
SSH = (("tcp", 22),)


class Firewall:
    """A port on this machine, and what the tools say of it."""

    def __init__(self, flavour, **options):
        from tinyknop.ports import make

        from tinyknop.loop import Loop, current

        self.loop, self.flavour = current() or Loop(), flavour
        table = {"kind": "iptables", "binary": flavour}
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

    def open(self, id="1", source="10.0.0.1", openings=SSH, left=60):
        grant = Grant(id, source, openings, NOW, NOW + left, "alice", None)
        self.do(self.port.open(grant, left))
        return grant

    def tool(self, *words, six=False):
        binary = self.flavour.replace("iptables", "ip6tables") if six else self.flavour
        return subprocess.run([binary, "-w"] + list(words), stdout=subprocess.PIPE, check=True).stdout.decode()

    def rules(self, six=False):
        listing = self.tool("-S", "FWKNOP_INPUT", six=six).split("\n")
        return [line[len("-A FWKNOP_INPUT ") :] for line in listing if line.startswith("-A")]

    def jumps(self):
        return self.tool("-S", "INPUT").count("-j FWKNOP_INPUT")


def rule(source="10.0.0.1/32", left=60, proto="tcp", port=22):
    words = "-s %s -p %s -m %s --dport %d -m comment --comment _exp_%d -j ACCEPT"
    return words % (source, proto, proto, port, NOW + left)


def open_extend_close(flavour):
    fw = Firewall(flavour)
    both = SSH + (("udp", 53),)
    fw.open(openings=both)
    assert fw.rules() == [rule(), rule(proto="udp", port=53)]
    grant = fw.open(openings=both, left=90)
    assert fw.rules() == [rule(left=90), rule(left=90, proto="udp", port=53)]
    fw.do(fw.port.close(grant))
    fw.do(fw.port.close(grant))
    assert fw.rules() == [] and fw.jumps() == 1


def ipv6_goes_by_ip6tables(flavour):
    fw = Firewall(flavour)
    grant = fw.open(source="2001:db8::7")
    assert fw.rules(six=True) == [rule("2001:db8::7/128")] and fw.rules() == []
    fw.do(fw.port.close(grant))
    assert fw.rules(six=True) == []


def started_twice_hooked_once(flavour):
    fw = Firewall(flavour)
    fw.open()
    again = Firewall(flavour)
    assert again.jumps() == 1 and again.rules() == [rule()]
    grant = Grant("1", "10.0.0.1", SSH, NOW, NOW + 60, "alice", None)
    again.do(again.port.sync([(grant, 60)]))
    assert again.rules() == [rule()]
    again.do(again.port.close(grant))
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
    fw.do(fw.port.close(grants[0][0]))
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


def two_hundred_rules(flavour):
    fw = Firewall(flavour)
    took, grants = [], []
    for n in range(200):
        began = time.monotonic()
        grants.append(fw.open(str(n), "10.1.%d.%d" % (n // 100, n % 100 + 1)))
        took.append((time.monotonic() - began) * 1000)
    assert len(fw.rules()) == 200
    ordered = sorted(took)
    print(
        "%s: open: median %.1f ms, p95 %.1f ms, last of 200 %.1f ms" % (flavour, ordered[100], ordered[190], took[-1])
    )
    began = time.monotonic()
    fw.do(fw.port.sync([(grant, 60) for grant in grants[:100]]))
    print("%s: sync that closes 100 of 200: %.1f ms" % (flavour, (time.monotonic() - began) * 1000))
    assert len(fw.rules()) == 100


CASES = (
    open_extend_close,
    ipv6_goes_by_ip6tables,
    started_twice_hooked_once,
    a_flush_by_others_is_mended,
    rules_of_others_stay,
    another_holds_the_lock,
    two_hundred_rules,
)


def check(case):
    from tests.need import need, need_namespaces

    namespace = need_namespaces()
    flavours = FLAVOURS if os.geteuid() == 0 else FLAVOURS[:1]  # legacy has no tables in a user namespace
    need(*flavours, "ip6tables")
    with tempfile.NamedTemporaryFile() as lock:
        environment = dict(os.environ, PYTHONPATH=ROOT, XTABLES_LOCKFILE=lock.name)
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


def test_two_hundred_rules():
    check(two_hundred_rules)


if __name__ == "__main__":
    {case.__name__: case for case in CASES}[sys.argv[2]](sys.argv[1])
