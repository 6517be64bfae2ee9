"""vyos: address groups of a VyOS router, which a firewall rule of yours names (source group address-group).

NOT RUN ON THE REAL THING: made from the dialogue shapes of VyOS' documentation.

One group for each opening, as knock-tcp-22; a name without $PROTO and $PORT means that one opening admits the address
to all. Make the groups beforehand, each with a description, so that they stay when they are empty. A commit takes
seconds. The configuration is never saved, so that a power cut closes all. Nothing else may be in the groups that is a
host: `sync` would remove it.
"""

from .shared import vyatta

PROFILE = vyatta.PROFILE
OPTIONS = vyatta.OPTIONS
CARRIER = "ssh"


class Port(vyatta.Port):
    kind = "vyos"
    families = (vyatta.group("address-group", "address"), vyatta.group("ipv6-address-group", "address"))
