"""`cut = true`: what a grant let in ends with it, and nobody else's connections do."""

import threading
import time

import pytest

from tests.real import net, peers


@pytest.mark.parametrize("kind", ("iptables", "ipset"))
@pytest.mark.parametrize("cut", (True, False))
def test_connections_end_with_their_grant_where_the_stanza_says_so(kind, cut):
    with net.Net() as network:
        echo(network)
        if kind == "ipset":
            peers.owner_rule(network)
        daemon = peers.serve(
            network, peers.toml_stanza(network, timeout=2, more="cut = true" if cut else ""), kind=kind
        )
        peers.fwknop(network)
        daemon.wait_line("opened")
        with network.new_socket(network.client) as connection:
            connection.settimeout(5)
            connection.connect((net.SERVER, net.SERVICE))
            assert alive(connection)
            daemon.wait_line("closing")
            time.sleep(0.2)  # the cut comes right after the close; where there is none, nothing tells that
            assert alive(connection) is not cut


def alive(connection):
    """Tells whether an established connection still carries data, or its end."""
    connection.settimeout(1.5)
    try:
        connection.sendall(b"still there?\n")
        return connection.recv(100) == b"still there?\n"
    except OSError:
        return False


def echo(network):
    """Starts a service that says everything back, for as long as its one client likes."""
    listener = network.new_socket(network.server)
    listener.bind(("", net.SERVICE))
    listener.listen(1)
    network.listeners.append(listener)

    def body():
        try:
            peer, _ = listener.accept()
            with peer:
                while peer.sendall(peer.recv(100) or b"end") is None:
                    pass
        except OSError:
            return

    threading.Thread(target=body, daemon=True).start()
