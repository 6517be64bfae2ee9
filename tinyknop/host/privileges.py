"""What the daemon may do: the capabilities that its configuration needs, and becoming `user` with those alone.

A capability of the kernel is a slice of root's rights. Without `user` nothing is given up, but what is missing is told
at the start by name; else the first knock would tell it.
"""

from __future__ import annotations

import errno
import os
import pwd

from tinyknop import log
from tinyknop.compat import whole
from tinyknop.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyknop.settings import Settings
    from tinyknop.stanza import Stanza

NUMBERS = {  # of linux/capability.h
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYSLOG": 34,
}
PASSED_ON = ("CAP_NET_ADMIN", "CAP_NET_RAW")  # to firewall programs that we start
FIREWALLS = ("iptables", "ipset", "nftables", "block", "wireguard")  # kinds of port that need CAP_NET_ADMIN
BY_PROGRAM = ("iptables", "wireguard")  # those that tell the kernel by a program, where nothing else is named
ELSEWHERE = ("ssh", "serial", "tape")  # carriers whose words do not touch this machine
LOCK = "/run/xtables.lock"  # iptables-legacy's own; only root can make it

_VERSION = 0x20080522  # of struct __user_cap_header_struct: two words of 32 capabilities each
_KEEPCAPS, _BOUNDED, _UNBIND, _NO_NEW, _AMBIENT = 8, 23, 24, 38, 47  # prctl
_RAISE, _LOWER_ALL = 2, 4


def needed(settings: Settings, stanzas: Sequence[Stanza], uid: int) -> dict[str, str]:
    """Returns {capability: what for} of a configuration whose daemon runs as the user with that number.

    Whether the configuration makes sense otherwise, captures and ports say later.
    """
    found: dict[str, str] = {}
    for capture in settings.captures:
        kind, number = capture.get("kind"), capture.get("port", "")
        if kind == "packet":
            found.setdefault("CAP_NET_RAW", "the capture of kind packet")
        elif kind == "nfqueue":
            found.setdefault("CAP_NET_ADMIN", "the capture of kind nfqueue")
        elif 0 <= whole(number) < lowest_port():
            found.setdefault("CAP_NET_BIND_SERVICE", "the capture of kind %s on port %s" % (kind, number))
    for name, port in sorted(settings.ports.items()):
        if port.get("kind") in FIREWALLS and way(settings, port) not in ELSEWHERE:
            found.setdefault("CAP_NET_ADMIN", "port %s (%s)" % (name, port["kind"]))
            if legacy(port):
                found.setdefault("CAP_NET_RAW", "port %s (iptables-legacy)" % name)
    if settings.watch is not None:
        for name, why in watching(settings.watch).items():
            found.setdefault(name, why)
    for stanza in stanzas:
        if stanza.cut:
            found.setdefault("CAP_NET_ADMIN", "cut in stanza %s" % stanza.name)
        if stanza.cmd_exec and other_user(stanza, uid):
            why = "commands of stanza %s as %s" % (stanza.name, stanza.exec_user or "group " + stanza.exec_group)
            for name in ("CAP_SETUID", "CAP_SETGID", "CAP_KILL"):
                found.setdefault(name, why)
    return found


def watching(table: dict[str, str]) -> dict[str, str]:
    """Returns {capability: what for} of a [watch] table."""
    kind, port = table.get("kind"), table.get("port") or "514"
    if kind == "nflog":
        return {"CAP_NET_ADMIN": "[watch] of kind nflog"}
    if kind == "kmsg" and number_in("/proc/sys/kernel/dmesg_restrict", 1):
        return {"CAP_SYSLOG": "[watch] of kind kmsg"}
    if kind == "syslog" and 0 <= whole(port) < lowest_port():
        return {"CAP_NET_BIND_SERVICE": "[watch] of kind syslog on port " + port}
    return {}


def way(settings: Settings, port: dict[str, str]) -> str:
    """Returns the kind of carrier that a port's words go by; "" for its own default."""
    via = port.get("via") or ""
    return settings.carriers.get(via, {}).get("kind") or via


def programs(settings: Settings) -> bool:
    """Tells whether a firewall of this machine is told by programs that we start, rather than by netlink."""
    ways = [(port.get("kind"), way(settings, port)) for port in settings.ports.values()]
    local = any(kind in FIREWALLS and via == "local" or kind in BY_PROGRAM and not via for kind, via in ways)
    return local or any(capture.get("kind") == "nfqueue" for capture in settings.captures)


def legacy(port: dict[str, str]) -> bool:
    """Tells whether a port's program is iptables-legacy, which talks to the kernel by a raw socket."""
    folders = [""] + (os.environ.get("PATH") or os.defpath).split(":")  # shutil.which would cost the start 5 ms
    places = [os.path.join(folder, port.get("binary") or "iptables") for folder in folders]
    found = [place for place in places if os.path.isabs(place) and os.path.exists(place)]
    return port["kind"] == "iptables" and bool(found) and "legacy" in os.path.realpath(found[0])


def lowest_port() -> int:
    """Returns the lowest port that everybody may listen on."""
    return number_in("/proc/sys/net/ipv4/ip_unprivileged_port_start", 1024)


def number_in(path: str, otherwise: int) -> int:
    try:
        with open(path) as file:
            return int(file.read())
    except (OSError, ValueError):
        return otherwise


def other_user(stanza: Stanza, uid: int) -> bool:
    """Tells whether a stanza's commands run as somebody else than the user with that number."""
    if stanza.exec_group:
        return True
    return bool(stanza.exec_user) and pwd.getpwnam(stanza.exec_user).pw_uid != uid


def check(settings: Settings, stanzas: Sequence[Stanza], uid: int | None = None) -> None:
    """Raises ConfigError where this process lacks a capability that the configuration needs.

    `uid` is the number of the user that it will be, its own if None.
    """
    status = process_status()
    if status is None:
        return
    held = int(status["CapEff"], 16)
    for name, why in sorted(needed(settings, stanzas, os.geteuid() if uid is None else uid).items()):
        if not held >> NUMBERS[name] & 1:
            remedy = "start it as root, or give it %s (systemd: AmbientCapabilities= and CapabilityBoundingSet= of"
            raise ConfigError(name, "missing, and %s needs it: %s the unit)" % (why, remedy % name))
    for stanza in stanzas:
        if stanza.cmd_exec and stanza.sudo and status.get("NoNewPrivs") == "1":
            reason = "sudo does not work for stanza %s: take NoNewPrivileges= out of the unit" % stanza.name
            raise ConfigError("NoNewPrivileges", reason)


def process_status() -> dict[str, str] | None:
    """Returns /proc/self/status as {name: text}; None where there is no such file, as on other systems than Linux."""
    try:
        with open("/proc/self/status") as file:
            rows = [line.partition(":") for line in file]
    except OSError:
        return None
    return {name: text.strip() for name, _, text in rows}


def become(settings: Settings, stanzas: Sequence[Stanza]) -> None:
    """Becomes the user that the settings name, with the capabilities that are needed alone; raises ConfigError.

    The state directory and what is in it becomes that user's. Commands by sudo, and commands as root, need a way back
    to all rights, so then the bounding set stays as it was.
    """
    where = settings.places.get("user", "user")
    try:
        entry = pwd.getpwnam(settings.user)
    except KeyError:
        reason = "user: there is no user %r: adduser --system --group --no-create-home %s"
        raise ConfigError(where, reason % (settings.user, settings.user)) from None
    here = os.geteuid()
    if here not in (0, entry.pw_uid):
        raise ConfigError(where, "user: only root can become %s: start it as root, or as %s" % ((settings.user,) * 2))
    check(settings, stanzas, entry.pw_uid)
    needs = needed(settings, stanzas, entry.pw_uid)
    try:
        if here != entry.pw_uid:
            hand_over(settings.state_dir, entry)
        reduce(entry, [NUMBERS[name] for name in needs], ways_back(stanzas))
    except OSError as error:
        reason = "user: cannot become %s (%s): start it as root with CAP_SETUID, CAP_SETGID and CAP_CHOWN, or as %s"
        raise ConfigError(where, reason % (settings.user, error.strerror, settings.user)) from None
    readable(settings.user)
    held = ", ".join("%s for %s" % (name, needs[name]) for name in sorted(needs))
    log.info("running as %s with %s", settings.user, held or "no capability")
    tell(settings, stanzas)
    pass_on(settings)


def readable(user: str, paths: Sequence[str] = (__file__, os.__file__)) -> None:
    """Warns where we, by now that user, cannot read our own files: some are read only when they are first needed."""
    for path in paths:
        try:
            with open(path, "rb"):
                pass
        except PermissionError:
            text = "user: %s cannot read %s: `tinyknop status`, and other things that are loaded when they are needed, "
            log.warning(
                text + "will not work; install the program and its Python where that user can read them", user, path
            )
        except OSError:  # in an archive, or frozen
            pass


def pass_on(settings: Settings) -> None:
    """Lets firewall programs have what they need of what we kept: at the start, and once a reload wants some.

    Only what an exec may inherit can be passed on: what we kept in `become`, or were given by systemd.
    """
    if not settings.user or os.geteuid() == 0:
        return
    if programs(settings):
        kept = int((process_status() or {}).get("CapInh", "0"), 16)
        raise_ambient([number for number in NUMBERS.values() if kept >> number & 1])
    lock = os.access(LOCK, os.R_OK)  # all that it takes; in the unit /run cannot be written to
    if not lock and any(port.get("kind") == "iptables" for port in settings.ports.values()):
        os.environ.setdefault("XTABLES_LOCKFILE", settings.state_dir + "/xtables.lock")


def tell(settings: Settings, stanzas: Sequence[Stanza]) -> None:
    """Logs what will be different from a daemon that runs as root."""
    more = "the rights that firewall programs get" if programs(settings) else "no more rights than that"
    for name, port in sorted(settings.ports.items()):
        if port.get("kind") == "command" and way(settings, port) not in ELSEWHERE:
            log.warning("port %s: its commands run as %s, with %s", name, settings.user, more)
        if port.get("kind") == "firewalld" and way(settings, port) not in ELSEWHERE:
            log.warning("port %s: firewalld obeys %s only if a rule of polkit says so", name, settings.user)
    for stanza in stanzas:
        if stanza.cmd_exec and not (stanza.exec_user or stanza.sudo):
            log.warning("stanza %s: its commands run as %s; CMD_EXEC_USER names another", stanza.name, settings.user)


def ways_back(stanzas: Sequence[Stanza]) -> bool:
    """Tells whether commands are to run with all of root's rights."""
    return any(one.cmd_exec and (one.sudo or (one.exec_user and pwd.getpwnam(one.exec_user).pw_uid == 0))
               for one in stanzas)  # fmt: skip


def hand_over(path: str, entry: pwd.struct_passwd) -> None:
    """Gives root's state directory, and the plain files in it, to a user; the directory last, as the sign of it.

    In a directory that is not root's a name may lead anywhere, so nothing in there is touched; one of a third party's
    raises PermissionError.
    """
    owner = os.stat(path).st_uid
    if owner == entry.pw_uid:
        return
    if owner != os.geteuid():
        raise PermissionError(errno.EPERM, "%s belongs to user number %d" % (path, owner))
    for found in os.scandir(path):
        if found.is_file(follow_symlinks=False) and found.stat(follow_symlinks=False).st_nlink == 1:
            os.chown(found.path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    os.chown(path, entry.pw_uid, entry.pw_gid)


def reduce(entry: pwd.struct_passwd, keep: list[int], way_back: bool) -> None:
    """Takes on a user's identity and keeps the capabilities of these numbers, for itself alone; raises OSError."""
    change = os.geteuid() != entry.pw_uid
    if change:
        prctl(_KEEPCAPS, 1)
        if not way_back:
            unbind(keep)
        os.initgroups(entry.pw_name, entry.pw_gid)
        os.setresgid(entry.pw_gid, entry.pw_gid, entry.pw_gid)
        os.setresuid(entry.pw_uid, entry.pw_uid, entry.pw_uid)
    capset(keep)
    prctl(_AMBIENT, _LOWER_ALL)
    if not way_back:
        prctl(_NO_NEW, 1)


def unbind(keep: list[int]) -> None:
    """Takes what is not kept out of the bounding set, so that no child can ever have it either."""
    for number in range(64):
        try:
            if number not in keep and prctl(_BOUNDED, number):
                prctl(_UNBIND, number)
        except OSError:  # no such capability, or CAP_SETPCAP is not ours: then somebody else has set the bounds
            return


def raise_ambient(keep: list[int]) -> None:
    """Lets the programs that we start have what a firewall needs, as far as we keep it."""
    for name in PASSED_ON:
        if NUMBERS[name] in keep:
            prctl(_AMBIENT, _RAISE, NUMBERS[name])


class NothingPassedOn:
    """While in it, a program that is started gets no capability of ours: what a packet asks for should have none."""

    def __enter__(self) -> None:
        self.kept = int((process_status() or {}).get("CapAmb", "0"), 16)
        if self.kept:
            prctl(_AMBIENT, _LOWER_ALL)

    def __exit__(self, *_: object) -> None:
        raise_ambient([number for number in range(64) if self.kept >> number & 1])


def capset(keep: list[int]) -> None:
    """Sets the permitted, effective and inheritable capabilities of this thread; raises OSError."""
    import ctypes

    mask = sum(1 << number for number in keep)
    words = [mask & 0xFFFFFFFF] * 3 + [mask >> 32] * 3
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.capset((ctypes.c_uint32 * 2)(_VERSION, 0), (ctypes.c_uint32 * 6)(*words)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def prctl(option: int, *words: int) -> int:
    """Calls prctl(2) with up to four further words; returns its answer, raises OSError."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    padded = [ctypes.c_ulong(word) for word in (*words, 0, 0, 0, 0)[:4]]
    answer: int = libc.prctl(option, *padded)
    if answer < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer
