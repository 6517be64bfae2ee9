"""What Snort rules in iptables cost a stream of data, by how much of it is looked at: `python bench/rules.py`.

One TCP stream through two namespaces. The arrangements take turns, so that what else the machine does hits all alike;
medians count. Beside ours stands what fwsnort's own chains leave of it, on the same rules.
"""

import os
import re
import statistics
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)

from tests.real import net  # noqa: E402  (after the path above)

TITLE = "Snort rules: what they cost a stream of data"
RULES = 1350  # as many as translate of an old, complete set
SECONDS = 0.7  # of each run
ROUNDS = 9
PORT = 8080
PIECE = bytes(range(256)) * 1024  # holds none of the rules' contents; long enough for a whole packet of the kernel's
ALONE, OURS, WHOLE, THEIRS = "no rules", "tinyknop rules", "tinyknop rules --first-packets 0", "fwsnort"


def rule_file(path):
    """Writes rules as public sets have them: a content of 8 to 30 bytes, one rule in ten for the stream's own port."""
    with open(path, "w") as file:
        for number in range(RULES):
            port = PORT if number % 10 == 0 else 1 + number % 1000
            text = "probe %d %s" % (number, "abcdefgh"[: number % 8 + 1] * (number % 3 + 1))
            file.write(
                'alert tcp any any -> any %d (msg:"bench %d"; flow:to_server,established; content:"%s"; sid:%d;)\n'
                % (port, number, text, 9000001 + number)
            )
    return path


def arranged(network, path, name):
    """Puts one arrangement of rules in force."""
    at = [network.server, "env", "PYTHONPATH=" + ROOT, sys.executable, "-m", "tinyknop", "rules"]
    network.at(*at, "--remove")
    network.at(network.server, "iptables", "-F", "INPUT")
    if name == THEIRS:
        network.at(network.server, "iptables-restore", network.dir + "/fwsnort.save")
    network.at(network.server, "iptables", "-A", "INPUT", "-j", "ACCEPT")
    words = {OURS: [], WHOLE: ["--first-packets", "0"]}.get(name)
    if words is not None:
        network.at(*at, "--apply", "-4", "--metadata", network.dir + "/rules.json", *words, path)


def theirs(network, path):
    """Has fwsnort translate the rules."""
    with open("/etc/fwsnort/fwsnort.conf") as file:
        text = re.sub(r"(?m)^(LOG_DIR|STATE_DIR)\s.*$", r"\1 %s;" % network.dir, file.read())
    with open(network.dir + "/fwsnort.conf", "w") as file:
        file.write(text)
    network.at(network.server, "fwsnort", "-c", network.dir + "/fwsnort.conf", "--snort-rfile", path, "--no-addresses")


def drain(listener, seconds, outcome):
    """Counts what comes for so many seconds, after a start that is not counted; leaves bytes a second."""
    peer = listener.accept()[0]
    with peer:
        buffer, total, began = bytearray(1 << 20), 0, time.monotonic() + 0.1
        while time.monotonic() < began + seconds:
            got = peer.recv_into(buffer)
            total += got if time.monotonic() >= began else 0
            if not got:
                break
        outcome.append(total / seconds)


def throughput(network, listener):
    """Returns the bytes a second of one stream."""
    outcome: list = []
    reader = threading.Thread(target=drain, args=(listener, SECONDS, outcome))
    reader.start()
    with network.new_socket(network.client) as client:
        client.connect((net.SERVER, PORT))
        try:
            while reader.is_alive():
                client.sendall(PIECE)
        except OSError:  # the reader has seen enough
            pass
    reader.join()
    return outcome[0]


def measured():
    """Returns {arrangement: bytes a second of each round}."""
    found = {name: [] for name in (ALONE, OURS, WHOLE, THEIRS)}
    with net.Net() as network:
        path = rule_file(network.dir + "/bench.rules")
        network.at(network.server, "iptables", "-P", "INPUT", "ACCEPT")
        network.at(network.server, "iptables", "-F")
        theirs(network, path)
        with network.new_socket(network.server) as listener:
            listener.bind((net.SERVER, PORT))
            listener.listen(8)
            # First and last are what counts, next to one another; the slow ones need fewer runs.
            for number in range(ROUNDS):
                for name in (ALONE, OURS, WHOLE, THEIRS) if number < 3 else (ALONE, OURS):
                    arranged(network, path, name)
                    found[name].append(throughput(network, listener))
                    print("%s: %.0f MB/s" % (name, found[name][-1] / 1e6), file=sys.stderr)
    return found


def run():
    """Returns the section of docs/bench.md."""
    found = {name: statistics.median(rates) for name, rates in measured().items()}
    lines = ["| in force | one TCP stream, median | of that without rules |", "|---|---|---|"]
    for name, rate in found.items():
        lines.append("| %s | %.0f MB/s | %.1f %% |" % (name, rate / 1e6, 100 * rate / found[ALONE]))
    text = "%d rules, each with a content, one in ten for the port of the stream, which goes from one namespace to "
    text += "another over a veth. %d runs of %.1f s without rules and with ours, in turns; 3 of the others."
    return "\n".join(lines) + "\n\n" + text % (RULES, ROUNDS, SECONDS)


if __name__ == "__main__":
    print("# %s\n\n%s" % (TITLE, run()))
