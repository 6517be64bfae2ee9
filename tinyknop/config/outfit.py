"""What fwknopd.conf's variables come to: the tables of its captures, and of the port "firewall"."""

import os

from ..errors import ConfigError
from ..keywords import address
from ..settings import CHAINS, kind_of

IPFW = "start_rule max_rules active_set expire_set purge_interval check_state flush_at_init flush_at_exit".split()
QUICK_SWEEP = 10  # seconds; the rules that others put into our chains have no timer of their own


def outfit(settings, where):
    """Gives settings their captures and their port; returns them. Raises ConfigError."""
    if settings.firewall is None:
        settings.firewall = first_firewall()
    if settings.enable_snat and settings.snat_to is not None:
        try:
            address(settings.snat_to, None)
        except ValueError as error:
            raise ConfigError(settings.places["snat_to"], "Invalid IPv4 addr for SNAT_TRANSLATE_IP: %s" % error)
    settings.kind = kind_of(settings.firewall) or "nftables"
    if settings.kind == "ipfw" and settings.ipfw_active_set == settings.ipfw_expire_set:
        raise ConfigError(where, "IPFW_ACTIVE_SET_NUM and IPFW_EXPIRE_SET_NUM are the same: change one")
    if settings.kind in ("iptables", "firewalld") and "sweep" not in settings.places:
        settings.sweep = QUICK_SWEEP
    if settings.kind == "ipfw":
        settings.flush_at_exit = settings.ipfw_flush_at_exit
    elif settings.kind == "pf":
        settings.flush_at_exit = True  # as fwknopd: the anchor is emptied whatever the file says
    settings.captures = captures(settings, where)
    settings.ports = {"firewall": firewall(settings, where)}
    return settings


def first_firewall():
    """Returns the path of the first firewall's program that is here; "" where only the kernel itself can be told."""
    for name in ("iptables", "nft"):
        for folder in ("/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"):
            try:
                os.stat(folder + name)
                return folder + name
            except OSError:
                pass
    return ""


def captures(settings, where):
    """Returns the tables of the captures: a file, NFQUEUE, UDP server, or else packets, and TCP beside them."""
    made = []
    if settings.pcap_file:
        made.append({"kind": "pcap", "file": settings.pcap_file, "filter": settings.filter or "none"})
    elif settings.nfq:
        table = {"kind": "nfqueue", "port": "%d" % settings.nfq_port, "queue": "%d" % settings.nfq_queue}
        table.update({"interface": settings.nfq_interface, "table": settings.nfq_table, "chain": settings.nfq_chain})
        table["binary"] = settings.firewall if settings.kind == "iptables" else "iptables"
        made.append(table)
    elif settings.udp_server:
        made.append({"kind": "udp", "port": "%d" % settings.udp_port})
    else:
        for interface in settings.interface.split(","):
            table = {"kind": "packet", "interface": interface.strip(), "filter": settings.filter or "none"}
            table["snap"] = "%d" % settings.snap
            for name in ("promisc", "any_direction", "exit_at_down"):
                table[name] = _letter(getattr(settings, name))
            made.append(table)
        if settings.tcp_server:
            # Where the owner's filter lets TCP in, the packet capture reads it, and the listener only shakes hands.
            alone = settings.filter.startswith("udp ")
            made.append({"kind": "tcp", "port": "%d" % settings.tcp_port, "read": _letter(alone)})
    for table in made:
        table["where"] = settings.places.get("interface", where)
    return made


def firewall(settings, where):
    """Returns the table of the port that FIREWALL_EXE names."""
    kind = settings.kind
    table = {"kind": kind, "where": settings.places.get("firewall", where)}
    if kind in ("iptables", "firewalld", "pf", "ipfw"):
        table.update({"binary": settings.firewall, "destination": _letter(settings.destination_rule)})
    if kind == "pf":
        table["anchor"] = settings.pf_anchor
    elif kind == "ipfw":
        for name in IPFW:
            value = getattr(settings, "ipfw_" + name)
            table[name] = _letter(value) if isinstance(value, bool) else "%d" % value
    elif kind in ("iptables", "firewalld"):
        for name in ("flush_at_init", "flush_at_exit", "prepend", "comment_check"):
            table[name] = _letter(getattr(settings, name))
        if kind == "firewalld":
            table["mode"] = "direct"
        for _, option, _ in CHAINS:
            table["where"] = settings.places.get(option, table["where"])
            table[option] = getattr(settings, option) if option in _in_use(settings) else ""
    return table


def _in_use(settings):
    """Returns the options of the chains that are in use."""
    names = ["chain"]
    if settings.output:
        names.append("output_chain")
    if settings.forwarding or settings.local_nat:
        names += ["forward_chain", "dnat_chain"]
        if settings.snat is not None:
            names += ["snat_chain", "masquerade_chain"]
    return names


def _letter(value):
    return "Y" if value else "N"
