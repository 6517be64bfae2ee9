"""junos: prefix lists of a Juniper router, which a firewall filter of yours names (from source-prefix-list).

NOT RUN ON THE REAL THING: made from the dialogue shapes of Juniper's documentation.

One list for each opening, as knock-tcp-22; a list name without $PROTO and $PORT means that one opening admits the
address to all. Make the lists, filters and a user of a class that gives the CLI (not root's shell) beforehand. Changes
are made in a private candidate and committed: a commit takes seconds, and Junos keeps it over a power cut. Nothing else
may be in the lists that is a host: `sync` would remove it.
"""

from .shared import router

PROFILE = router.Profile(
    wake="\x15\r",
    inside=("#",),
    leave=("exit configuration-mode",),
    climb=(("%", "cli"),),
    ends="#>%",
    setup=("set cli screen-length 0", "set cli screen-width 0", "set cli complete-on-space off"),
    answers=(("[yes,no] (yes)", "yes\r"), ("[yes,no] (no)", "yes\r")),
    errors=("error:", "syntax error", "unknown command", "missing argument", "invalid ", "ambiguous"),
    fine=("not found", "does not exist"),
)
OPTIONS = {"list": "knock-$PROTO-$PORT", "list6": "knock6-$PROTO-$PORT"}
CARRIER = "ssh"

SHOW = "show configuration policy-options | display set | match $START | no-more"


def prefixes(bits):
    """Returns the words for hosts of one family."""
    entry = "policy-options prefix-list $LIST $ADDR/" + bits
    return router.Family(("set " + entry,), ("delete " + entry,), SHOW, ("set " + entry,))


class Port(router.Port):
    kind = "junos"
    profile = PROFILE
    enter = "configure private"
    leave = ("commit and-quit",)
    proof = "commit complete"
    families = (prefixes("32"), prefixes("128"))
    seconds = 120
