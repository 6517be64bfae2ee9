"""cisco-asa: an extended access list of a Cisco ASA (9.0 or later, where one list serves IPv4 and IPv6).

NOT RUN ON THE REAL THING: made from the dialogue shapes of Cisco's documentation.

Entries come first in the list, so what you deny at its end stays behind them. Keep an entry of your own in it: with the
last one the ASA removes the list and the access-group that applies it, so a list with none of yours is refused. Do not
put host entries of the shape "permit tcp host A any eq N" into it yourself: `sync` would remove them. The configuration
is never saved.
"""

from .shared import router

PROFILE = router.Profile(
    climb=((">", "enable"),),
    setup=("terminal pager 0",),
    answers=(("[confirm]", "\r"), ("[Y]es, [N]o, [A]sk later:", "A\r")),
    errors=("ERROR:", "% ", "Command authorization failed", "Invalid password", "Access denied"),
    fine=("does not exist", "duplicate"),
)
OPTIONS = {"list": "KNOCK", "list6": "KNOCK"}
CARRIER = "serial"

FOUR = "access-list $LIST extended permit $PROTO host $ADDR any eq $PORT"
SIX = "access-list $LIST extended permit $PROTO host $ADDR any6 eq $PORT"
SHOW = "show running-config access-list $LIST"


class Port(router.Port):
    kind = "cisco-asa"
    profile = PROFILE
    enter = "configure terminal"
    leave = ("end",)
    families = (
        router.Family(
            (FOUR.replace(" ext", " line 1 ext"),), ("no " + FOUR,), SHOW, (FOUR, FOUR.replace("any", "any4"))
        ),
        router.Family((SIX.replace(" ext", " line 1 ext"),), ("no " + SIX,), SHOW, (SIX,)),
    )
    names = (("ftp", 21), ("ssh", 22), ("telnet", 23), ("smtp", 25), ("domain", 53), ("www", 80), ("https", 443))
    keeps_one = (" permit ", " deny ")
