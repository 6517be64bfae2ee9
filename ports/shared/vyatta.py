"""What the descendants of Vyatta have in common: address groups, changed in a configuration mode and committed."""

from . import router

PROFILE = router.Profile(
    newline="\n",
    wake="\x15\n",
    interrupt="\x03\n",
    ends="#$",
    inside=("#",),
    leave=("exit discard",),
    setup=("set terminal length 0", "terminal length 0"),
    errors=(
        "Invalid command",
        "Ambiguous command",
        "Incomplete command",
        "Configuration path:",
        "Set failed",
        "Delete failed",
        "Commit failed",
        "commit failed",
        "Cannot exit",
        "The specified configuration node",
        "[[",
    ),  # fmt: skip
    fine=("already exists", "does not exist", "Nothing to delete"),
)
OPTIONS = {"list": "knock-$PROTO-$PORT", "list6": "knock6-$PROTO-$PORT"}


def group(kind, leaf):
    """Returns the words for hosts of one family."""
    entry = "firewall group %s $LIST %s $ADDR" % (kind, leaf)
    show = "show configuration commands | match $START"  # others may have groups of thousands
    return router.Family(("set " + entry,), ("delete " + entry,), show, ("set " + entry,))


class Port(router.Port):
    profile = PROFILE
    enter = "configure"
    leave = ("commit", "exit")
    seconds = 120

    def lines_of(self, said):
        """Without the quotes around values."""
        return super().lines_of(said.replace("'", ""))
