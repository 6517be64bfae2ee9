"""cisco-ios: a named extended access list of a Cisco IOS or IOS XE router.

NOT RUN ON THE REAL THING: made from the dialogue shapes of Cisco's documentation.

Apply the list to an interface, with at least one entry of your own before ours (such as one for established
connections), and leave out a deny at its end: entries of ours come last, the deny that nobody writes follows them. An
applied list without any entry lets everything through, so a list with none of yours is refused. Do not put host entries
of the shape "permit tcp host A any eq N" into it yourself: `sync` would remove them. The configuration is never saved
(`write memory`), so that a power cut closes all; nor should anybody else while something is open.
"""

from .shared import router

PROFILE = router.Profile(
    climb=((">", "enable"),),
    setup=("terminal length 0", "terminal width 0"),
    answers=(("[yes/no]:", "no\r"), ("[confirm]", "\r")),
    errors=("%", "Command authorization failed"),
    fine=("Duplicate", "doesn't exist", "does not exist"),
)
OPTIONS = {
    "list": "KNOCK",
    "list6": "KNOCK6",  # one for IPv6 cannot have the same name
}
CARRIER = "serial"

ADD = ("permit $PROTO host $ADDR any eq $PORT",)
REMOVE = ("no permit $PROTO host $ADDR any eq $PORT",)


class Port(router.Port):
    kind = "cisco-ios"
    profile = PROFILE
    enter = "configure terminal"
    leave = ("end",)
    families = (
        router.Family(ADD, REMOVE, "show ip access-lists $LIST", ("$N " + ADD[0],), ("ip access-list extended $LIST",)),
        router.Family(ADD, REMOVE, "show ipv6 access-list $LIST", ADD, ("ipv6 access-list $LIST",)),
    )
    names = (("ftp", 21), ("telnet", 23), ("smtp", 25), ("domain", 53), ("www", 80), ("pop3", 110), ("ntp", 123))
    keeps_one = (" permit ", " deny ")

    def lines_of(self, said):
        """Without counters and the number that an IPv6 entry ends with."""
        lines = [line.split(" (")[0].split(" sequence ")[0] for line in said.split("\n")]
        return super().lines_of("\n".join(lines))
