"""Two network namespaces joined by a veth: a client, and a server that drops what nobody opened.

Everything is made under names of this process's own and removed on leaving, also after a failure. Sockets are made
inside a namespace by a thread that enters it for a moment, so a connection attempt costs no process.
"""

import ctypes
import errno
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

CLIENT, SERVER = "10.99.0.2", "10.99.0.1"
CLIENT6, SERVER6 = "fd99::2", "fd99::1"
SERVICE = 2222
CLONE_NEWNET = 0x40000000
SERVED = b"tinyknop service\n"

_count = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def run(*argv, check=True, timeout=30):
    """Runs a command without a shell; returns what it printed."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
    text = done.stdout.decode("utf-8", "replace")
    if check and done.returncode:
        raise RuntimeError("%s: status %d: %s" % (" ".join(argv), done.returncode, text.strip()))
    return text


def _service_thread(listener):
    while True:
        try:
            peer, _ = listener.accept()
        except OSError:  # the only way out: stop() shut the listener down
            return
        with peer:
            try:
                peer.sendall(SERVED)
            except OSError:  # the peer reset the connection before it was served
                pass


class Net:
    """The network of one test; use it as a context manager. `client` and `server` are names of namespaces."""

    def __init__(self, clients=1, workdir=None):
        tag = "tk%x-%x" % (os.getpid(), next(_count))
        self.server = tag + "s"
        self.clients = [tag + "c" + str(number) for number in range(clients)]
        self.client = self.clients[0]
        self.outer = tag[:13] + "v"
        self.own_dir = workdir is None
        self.dir = tempfile.mkdtemp(prefix="tinyknop-") if workdir is None else str(workdir)
        self.listeners = []
        self.processes = []

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_):
        self.remove()

    def build(self):
        """Makes namespaces, links, addresses and the firewall; a further client has 10.99.1.2, 10.99.2.2, …"""
        for name in [self.server] + self.clients:
            run("ip", "netns", "add", name)
            self.at(name, "ip", "link", "set", "lo", "up")
        for number, name in enumerate(self.clients):
            self.link(number, name)
        for tool in ("iptables", "ip6tables"):
            self.at(self.server, tool, "-w", "-P", "INPUT", "DROP")
            self.at(self.server, tool, "-w", "-A", "INPUT", "-i", "lo", "-j", "ACCEPT")
            self.at(
                self.server, tool, "-w", "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"
            )
        self.at(self.server, "ip6tables", "-w", "-A", "INPUT", "-p", "icmpv6", "-j", "ACCEPT")

    def link(self, number, name):
        """Joins one client to the server: eth0 there, eth0, eth1, … here."""
        near = "eth%d" % number
        run("ip", "link", "add", near, "netns", self.server, "type", "veth", "peer", "name", "eth0", "netns", name)
        for namespace, device, last in ((self.server, near, 1), (name, "eth0", 2)):
            self.at(namespace, "ip", "addr", "add", "10.99.%d.%d/24" % (number, last), "dev", device)
            six = "fd99:%s:%d/64" % ("" if not number else "%d:" % number, last)
            self.at(namespace, "ip", "addr", "add", six, "dev", device, "nodad")
            self.at(namespace, "ip", "link", "set", device, "up")

    def remove(self):
        """Ends what runs inside, then removes the namespaces; their links and firewalls go with them."""
        for process in reversed(self.processes):
            process.stop()
        for listener in self.listeners:
            try:
                listener.shutdown(socket.SHUT_RDWR)
            except OSError:  # it never listened
                pass
            listener.close()
        for name in [self.server] + self.clients:
            run("ip", "netns", "del", name, check=False)
        if self.own_dir:
            shutil.rmtree(self.dir, ignore_errors=True)

    def at(self, namespace, *argv, check=True, timeout=30):
        """Runs a command in a namespace; returns what it printed."""
        return run("ip", "netns", "exec", namespace, *argv, check=check, timeout=timeout)

    def inside(self, namespace, call):
        """Calls `call()` in a thread that has entered the namespace; returns or raises what it did."""
        outcome = []

        def body():
            try:
                enter(namespace)
                outcome.extend((call(), None))
            except BaseException as error:  # handed to the caller's thread
                outcome.extend((None, error))

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]

    def new_socket(self, namespace, family=socket.AF_INET, kind=socket.SOCK_STREAM, proto=0):
        """Returns a socket that belongs to the namespace for ever, usable from any thread."""
        return self.inside(namespace, lambda: socket.socket(family, kind, proto))

    def serve(self, port=SERVICE, family=socket.AF_INET):
        """Starts a TCP service behind the firewall that greets everyone who gets through."""
        listener = self.new_socket(self.server, family)
        self.listeners.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", port))
        listener.listen(64)
        threading.Thread(target=_service_thread, args=(listener,), daemon=True).start()

    def can_connect(self, port=SERVICE, address=SERVER, timeout=0.4, namespace=None):
        """True if the service answers; a SYN dropped by the firewall is given up after `timeout`."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.new_socket(namespace or self.client, family) as probe:
            probe.settimeout(timeout)
            try:
                probe.connect((address, port))
                return probe.recv(64) == SERVED
            except OSError as error:
                if isinstance(error, socket.timeout) or error.errno in (errno.ETIMEDOUT, errno.ECONNREFUSED):
                    return False
                raise

    def wait_connect(self, wanted, port=SERVICE, within=5.0, address=SERVER):
        """Asks until the service is reachable (or is not); returns after how many seconds, None if it never was so."""
        start = time.monotonic()
        while time.monotonic() - start < within:
            # A first try that meets a closed firewall would wait a second for TCP's own retry: many short tries.
            if self.can_connect(port, address, timeout=0.15) == wanted:
                return time.monotonic() - start
        return None

    def send(self, data, port=62201, address=SERVER, namespace=None, source_port=0):
        """Sends one UDP datagram from the client."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with self.new_socket(namespace or self.client, family, socket.SOCK_DGRAM) as sender:
            if source_port:
                sender.bind(("", source_port))
            sender.sendto(data, (address, port))


def enter(namespace):
    """Moves the calling thread, and only it, into a network namespace."""
    descriptor = os.open("/run/netns/" + namespace, os.O_RDONLY)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, "setns %s: %s" % (namespace, os.strerror(code)))
    finally:
        os.close(descriptor)
