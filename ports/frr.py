"""frr: access lists of FRRouting's zebra, typed into `vtysh` or into zebra's own command line.

Run on the real thing: FRR 8.4.4 of Debian 12 (tests/real/test_frr.py), with its passwords, `enable` and pager.

These lists say which routes are taken (distribute-list, route-map): what FRR lets in is routing, not packets. For
packets on a Linux router take a port of kind nftables or ipset via the same carrier. One list for each opening, as
knock-tcp-22. Nothing else may be in the lists that is a host: `sync` would remove it. The configuration is never saved.
"""

from .shared import router

PROFILE = router.Profile(
    climb=((":~$", "vtysh"), (":~#", "vtysh"), (">", "enable")),
    ends="#>$",
    setup=("terminal length 0",),
    errors=("%", "Configuration failed", "command not found"),
    fine=("does not exist", "doesn't exist"),
)
OPTIONS = {"list": "knock-$PROTO-$PORT", "list6": "knock-$PROTO-$PORT"}
CARRIER = "ssh"

SHOW = "show running-config | include access-list|^end"


def hosts(command, bits):
    """Returns the words for hosts of one family."""
    entry = "%s $LIST permit $ADDR/%s" % (command, bits)
    return router.Family((entry,), ("no " + entry,), SHOW, (entry.replace("permit", "seq $N permit"),), whole="end")


class Port(router.Port):
    kind = "frr"
    profile = PROFILE
    enter = "configure terminal"
    leave = ("end",)
    families = (hosts("access-list", "32"), hosts("ipv6 access-list", "128"))
