"""openwrt: sets of OpenWrt's firewall (fw4, nftables), filled by `nft` at the router's shell.

Run on a real busybox log-in and ash with a real nft (tests/real/test_frr.py), not on an OpenWrt device.

Declare the sets and a rule that names them in /etc/config/firewall, for TCP as here, for UDP as knock_udp:

    config ipset
            option name 'knock_tcp'
            option family 'ipv4'
            list match 'src_ip'
            list match 'dest_port'
            option timeout '3600'
    config rule
            option src 'wan'
            option proto 'tcp'
            option ipset 'knock_tcp'
            option target 'ACCEPT'

The kernel ends an entry itself when its time is up; a reload of the firewall forgets them all, and who was let in has
to knock again. Ours have the comment tinyknop; others are never touched.

On OpenWrt 21.02 and older, whose firewall is iptables, take a port of kind ipset through the same carrier, with a set
that such a `config ipset` declares. Rules made by `uci` are no way to open a port for half a minute: each knock would
write the flash and load the whole firewall anew, which empties the sets, and a power cut would leave the port open.
"""

from .shared import router
from .shared.profile import SHELL

PROFILE = SHELL
OPTIONS = {"list": "knock_$PROTO", "list6": "knock6_$PROTO"}
CARRIER = "ssh"

KEY = "$ADDR . $PORT"
ADD = "add element inet fw4 $LIST { %s }" % KEY
REMOVE = (ADD, "delete element inet fw4 $LIST { %s }" % KEY)  # which would fail for one that is not there
RENEW = REMOVE + ('add element inet fw4 $LIST { %s timeout $SECONDSs comment "tinyknop" }' % KEY,)
SHAPE = '%s timeout $N expires $M comment "tinyknop"'
SHAPES = (SHAPE % KEY, SHAPE % (KEY + " counter packets $P bytes $B"))


class Port(router.Port):
    kind = "openwrt"
    profile = PROFILE
    self_timed = True
    enter = "nft -f -"
    families = (router.Family(RENEW, REMOVE, "nft list table inet fw4", SHAPES, head="set $LIST"),) * 2

    def lines_of(self, said):
        """An element a line."""
        for cut in "{},":
            said = said.replace(cut, "\n")
        return super().lines_of(said)
