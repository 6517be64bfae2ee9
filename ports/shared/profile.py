"""How kinds of devices talk, as data: what a console has to know to log in and to understand an answer.

This is no kind of port. The profile of a kind is in its own file, as PROFILE; "shell" is here, as no kind goes with it:
any POSIX shell, behind which ports of the kinds ipset, iptables and nftables can be.
"""

from tinyknop.errors import ConfigError


class Profile:
    """How one kind of device talks: Profile(setup=(...), ...); what is left out is as below.

    Prompts and questions are compared with the end of the current line, less trailing blanks.
    """

    newline = "\r"
    wake = "\x15\r"  # ^U wipes out what somebody left half typed
    interrupt = "\x03\r"
    login = ("ogin:", "sername:")
    password = ("assword:",)
    user = "%s"  # what is typed as the user's name
    ends = "#>"  # what a prompt may end with
    spaced = False  # whether a prompt may have blanks inside
    inside = ("(",)  # a prompt with one of these in it is of a mode, which the lines of `leave` leave
    leave = ("end",)
    climb = ()  # (end of a prompt, line to type there to get on), as for enable
    setup = ()  # lines typed once after logging in, whatever is answered: paging off
    answers = ()  # (end of a question, what to type: with a newline where it needs one)
    errors = ("%",)  # an answer with a line that starts so is a refusal,
    fine = ()  # unless one of these is in it
    logout = "exit"
    shell = False  # a POSIX shell: its answers end with a mark and the exit status

    def __init__(self, **fields):
        for name, value in fields.items():
            getattr(self, name)  # a misspelt one
            setattr(self, name, value)


SHELL = Profile(
    newline="\n",
    wake="\x15\n",
    interrupt="\x03\n",
    login=("login:",),
    ends="#$",
    spaced=True,
    inside=(),
    answers=(("press Enter to activate this console.", "\n"),),  # OpenWrt's
    shell=True,  # nosec B604 # a field of ours: the device speaks a shell's language
)


def profile(name, where):
    """Returns the Profile of a kind, such as "cisco-ios", for a carrier; raises ConfigError(where, ...)."""
    if name == "shell":
        return SHELL
    try:
        if all("a" <= c <= "z" or "0" <= c <= "9" or c == "-" for c in name):
            return __import__("tinyknop.ports." + name.replace("-", "_"), None, None, ("PROFILE",)).PROFILE
    except (ImportError, AttributeError):
        pass
    raise ConfigError(
        where, 'profile = "%s": no such profile; take shell, or the kind of router (docs/routers.md)' % name
    )
