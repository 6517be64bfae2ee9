"""routeros: address lists of a MikroTik router, which a filter rule of yours names (src-address-list=).

NOT RUN ON THE REAL THING: made from the dialogue shapes of MikroTik's documentation.

One list for each opening, as knock-tcp-22; a list name without $PROTO and $PORT means that one opening admits the
address to all. The router ends an entry itself when its time is up, and forgets all of them in a power cut. Ours have
the comment tinyknop; others are never touched. Over ssh, log in as USER+ct511w4098h, a terminal without colours and of
that size; a serial log-in does so by itself.
"""

from .shared import router

PROFILE = router.Profile(
    wake="\x03\r",
    login=("ogin:", "sername:"),
    user="%s+ct511w4098h",  # no colours, no questions to the terminal, which is that wide and high
    ends=">",
    spaced=True,
    inside=("] /", "] <", "<SAFE"),
    leave=("/",),
    answers=(("[Y/n]:", "n\r"), ("[y/N]:", "n\r"), ("to continue!", "\r"), ("new password>", "\x03")),
    errors=(
        "failure:",
        "bad command",
        "syntax error",
        "expected ",
        "invalid ",
        "no such ",
        "input does not match",
        "missing ",
        "not enough permissions",
        "ambiguous",
    ),  # fmt: skip
    logout="/quit",
)
OPTIONS = {"list": "knock-$PROTO-$PORT", "list6": "knock-$PROTO-$PORT"}
CARRIER = "ssh"


def addresses(menu, bits):
    """Returns the words for hosts of one family; an entry is renewed by another in its place."""
    remove = menu + ' remove [find list="$LIST" address="$ADDR%s" comment="tinyknop"]; :put done' % bits
    add = menu + " add list=$LIST address=$ADDR%s timeout=$SECONDSs comment=tinyknop; :put done" % bits
    each = (
        ':foreach i in=[%s find comment=tinyknop] do={:put ("entry " . [%s get $i list] . " " . [%s get $i address])}'
        "; :put done"
    )
    shapes = ("entry $LIST $ADDR" + bits,)
    return router.Family((remove, add), (remove,), each % (menu, menu, menu), shapes, whole="done")


class Port(router.Port):
    kind = "routeros"
    profile = PROFILE
    self_timed = True
    proof = "done"  # an error, of which there are many, ends the line of commands that it happens in
    families = (addresses("/ip firewall address-list", ""), addresses("/ipv6 firewall address-list", "/128"))
