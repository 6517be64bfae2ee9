"""The network of a test against real peers: made for each test, gone after it."""

import os

import pytest

from tests.need import lacking, need
from tests.real import net, peers


@pytest.fixture
def network():
    """Two namespaces, a closed firewall, and a TCP service behind it."""
    if os.geteuid():
        lacking("must be root: fwknopd and namespaces that last need it")
    need("ip", "iptables", "ip6tables")
    with net.Net() as made:
        made.serve()
        yield made


@pytest.fixture
def guarded(network):
    """The same with the set, and the rule that matches it, which are the owner's to make."""
    need("ipset")
    peers.owner_rule(network)
    return network
