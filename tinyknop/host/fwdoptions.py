"""The options of fwknopd's command line: their table, the words made sense of, and the help text."""

from __future__ import annotations

import getopt
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONFIG = "/etc/fwknop/fwknopd.conf"
# Short option, long option ("=" where it takes an argument), line of help; "" where it is not built yet.
OPTIONS = (
    ("a:", "access-file=", "Use this access file"),
    ("", "access-folder=", "Read every *.conf of this folder instead of an access file"),
    ("A", "afl-fuzzing", ""),
    ("", "afl-pkt-file=", ""),
    ("c:", "config-file=", "Use this configuration file (%s)" % CONFIG),
    ("C:", "packet-limit=", "End after so many packets"),
    ("d:", "digest-file=", "Keep the digests of packets seen here"),
    ("D", "dump-config", "Print the configuration, then end"),
    ("", "dump-serv-err-codes", "Print fwknopd's error codes, then end"),
    ("", "exit-parse-config", "Read the configuration, then end"),
    ("", "exit-parse-digest-cache", "Read the configuration and the digest cache, then end"),
    ("f", "foreground", "Stay in the foreground and log to stderr"),
    ("", "fault-injection-tag=", ""),
    ("", "fw-list", "Print the rules of our chains, then end"),
    ("", "fw-list-all", "Print every rule of the tables in use, then end"),
    ("", "fw-flush", "Remove our chains, then end"),
    ("", "gpg-home-dir=", "The keyring of GPG stanzas"),
    ("", "gpg-exe=", "The gpg to run"),
    ("h", "help", "Print this and end"),
    ("i:", "interface=", "Listen on this interface"),
    ("", "key-gen", "Print a fresh pair of keys, then end"),
    ("", "key-gen-file=", "Write a fresh pair of keys to this file, then end"),
    ("", "key-len=", "Bytes of the encryption key"),
    ("", "hmac-key-len=", "Bytes of the HMAC key"),
    ("", "hmac-digest-type=", "The HMAC that the key is for"),
    ("K", "kill", "End the running daemon"),
    ("l:", "locale=", "Set this locale"),
    ("n", "nfq-capture", "Listen by NFQUEUE"),
    ("", "no-ipt-check-support", "Taken; rules are looked up so that no probe is needed"),
    ("", "no-firewd-check-support", "Taken; rules are looked up so that no probe is needed"),
    ("O:", "override-config=", "Read these files, with commas between them, after the configuration"),
    ("p:", "pid-file=", "Use this pid file"),
    ("P:", "pcap-filter=", "Listen to what this filter lets through"),
    ("", "pcap-file=", "Take the packets of this capture file, then end"),
    ("", "pcap-any-direction", "Take packets that this machine sends, too"),
    ("", "rotate-digest-cache", "Set the old digests aside at the start"),
    ("r:", "run-dir=", "Keep what has to be remembered in this directory"),
    ("R", "restart", "Make the running daemon read its configuration anew"),
    ("S", "status", "Tell whether a daemon runs"),
    ("", "sudo-exe=", "The sudo to run"),
    ("t", "test", "Judge packets, open nothing"),
    ("U", "udp-server", "Listen on a UDP socket"),
    ("v", "verbose", "Log more; may be repeated"),
    ("", "syslog-enable", "Log to syslog as well when in the foreground"),
    ("V", "version", "Print the version and end"),
)  # fmt: skip
PATHS = "access-file access-folder config-file digest-file pid-file run-dir gpg-home-dir gpg-exe sudo-exe pcap-file"


class Usage(Exception):
    """The words cannot be understood."""


def words_of(words: list[str]) -> dict[str, Any]:
    """Returns {long option: argument, or how often it was given}; raises Usage."""
    short = "".join(row[0] for row in OPTIONS)
    names = {"-" + row[0][0]: row[1].rstrip("=") for row in OPTIONS if row[0]}
    try:
        found, _ = getopt.gnu_getopt(words, short, [row[1] for row in OPTIONS])
    except getopt.GetoptError as error:
        raise Usage(error.msg) from None
    options: dict[str, Any] = {}
    for name, value in found:
        name = names.get(name) or name[2:]
        if name + "=" in [row[1] for row in OPTIONS]:
            options[name] = value
        else:
            options[name] = int(options.get(name, 0)) + 1
    for name in PATHS.split():  # once a daemon, we leave this directory
        if name in options:
            options[name] = os.path.abspath(options[name])
    return options


def usage() -> str:
    """Returns the help text."""
    lines = ["Usage: fwknopd [options]", ""]
    for short, name, text in OPTIONS:
        shown = "--" + name.replace("=", " ARG")
        shown = " %s%s" % ("-%s, " % short[0] if short else "    ", shown)
        lines.append("%-34s %s" % (shown, text or "(only in test builds of fwknopd)"))
    return "\n".join(lines)
