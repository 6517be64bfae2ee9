"""`tinyknop fwknopd`: stands in for fwknop's daemon, with its files, options, pid file, signals and log phrases.

Options whose part is not built yet are refused by name: none is taken and then ignored.
"""

import getopt
import os
import stat
import sys

from tinyknop import __version__, config, crypto, log
from tinyknop.config import fwknopd as reader
from tinyknop.errors import ConfigError, TinyknopError
from tinyknop.host import pidfile

CONFIG = "/etc/fwknop/fwknopd.conf"
# Short option, long option ("=" where it takes an argument), line of help; "" where it is not built yet.
OPTIONS = (
    ("a:", "access-file=", "Use this access file"),
    ("", "access-folder=", "Read every *.conf of this folder instead of an access file"),
    ("A", "afl-fuzzing", ""),
    ("", "afl-pkt-file=", ""),
    ("c:", "config-file=", "Use this configuration file (%s)" % CONFIG),
    ("C:", "packet-limit=", ""),
    ("d:", "digest-file=", "Keep the digests of packets seen here"),
    ("D", "dump-config", ""),
    ("", "dump-serv-err-codes", ""),
    ("", "exit-parse-config", "Read the configuration, then end"),
    ("", "exit-parse-digest-cache", ""),
    ("f", "foreground", "Stay in the foreground and log to stderr"),
    ("", "fault-injection-tag=", ""),
    ("", "fw-list", ""),
    ("", "fw-list-all", ""),
    ("", "fw-flush", ""),
    ("", "gpg-home-dir=", ""),
    ("", "gpg-exe=", ""),
    ("h", "help", "Print this and end"),
    ("i:", "interface=", "Listen on this interface"),
    ("", "key-gen", "Print a fresh pair of keys, then end"),
    ("", "key-gen-file=", "Write a fresh pair of keys to this file, then end"),
    ("", "key-len=", "Bytes of the encryption key"),
    ("", "hmac-key-len=", "Bytes of the HMAC key"),
    ("", "hmac-digest-type=", "The HMAC that the key is for"),
    ("K", "kill", "End the running daemon"),
    ("l:", "locale=", ""),
    ("n", "nfq-capture", ""),
    ("", "no-ipt-check-support", "Taken; rules are looked up so that no probe is needed"),
    ("", "no-firewd-check-support", ""),
    ("O:", "override-config=", "Read these files, with commas between them, after the configuration"),
    ("p:", "pid-file=", "Use this pid file"),
    ("P:", "pcap-filter=", "Listen to this port: \"udp port 62201\""),
    ("", "pcap-file=", ""),
    ("", "pcap-any-direction", ""),
    ("", "rotate-digest-cache", "Set the old digests aside at the start"),
    ("r:", "run-dir=", "Keep what has to be remembered in this directory"),
    ("R", "restart", "Make the running daemon read its configuration anew"),
    ("S", "status", "Tell whether a daemon runs"),
    ("", "sudo-exe=", ""),
    ("t", "test", "Judge packets, open nothing"),
    ("U", "udp-server", "Listen on a UDP socket"),
    ("v", "verbose", "Log more; may be repeated"),
    ("", "syslog-enable", "Log to syslog as well when in the foreground"),
    ("V", "version", "Print the version and end"),
)  # fmt: skip
OVERRIDES = (  # option, the variable that it sets
    ("digest-file", "DIGEST_FILE"),
    ("interface", "PCAP_INTF"),
    ("pcap-filter", "PCAP_FILTER"),
    ("pid-file", "FWKNOP_PID_FILE"),
    ("run-dir", "FWKNOP_RUN_DIR"),
    ("access-file", "ACCESS_FILE"),
    ("access-folder", "ACCESS_FOLDER"),
)
PATHS = ("access-file", "access-folder", "config-file", "digest-file", "pid-file", "run-dir")
CONTROLS = (
    ("dump-config", pidfile.status),
    ("kill", pidfile.kill),
    ("restart", pidfile.restart),
    ("status", pidfile.status),
)
HMAC_BYTES = {"md5": 16, "sha1": 20, "sha256": 64, "sha384": 128, "sha512": 128, "sha3_256": 64, "sha3_512": 64}
SAYS = {
    "ready": "Starting fwknopd main event loop.",
    "SIGHUP": "Got SIGHUP. Re-reading configs.",
    "read": "Re-starting fwknopd: %(stanzas)s",
    "SIGTERM": "Got SIGTERM. Exiting...",
    "SIGINT": "Got SIGINT. Exiting...",
    "end": "Shutting Down fwknopd.",
}


class Usage(Exception):
    """The words cannot be understood."""


def words_of(words):
    """Returns {long option: argument, or how often it was given}; raises Usage."""
    short = "".join(row[0] for row in OPTIONS)
    names = {"-" + row[0][0]: row[1].rstrip("=") for row in OPTIONS if row[0]}
    try:
        found, _ = getopt.gnu_getopt(words, short, [row[1] for row in OPTIONS])
    except getopt.GetoptError as error:
        raise Usage(error.msg) from None
    options: dict = {}
    for name, value in found:
        name = names.get(name) or name[2:]
        if name + "=" in [row[1] for row in OPTIONS]:
            options[name] = value
        else:
            options[name] = int(options.get(name, 0)) + 1
    for name in PATHS:  # once a daemon, we leave this directory
        if name in options:
            options[name] = os.path.abspath(options[name])
    return options


def usage():
    """Returns the help text."""
    lines = ["Usage: fwknopd [options]", ""]
    for short, name, text in OPTIONS:
        shown = "--" + name.replace("=", " ARG")
        shown = " %s%s" % ("-%s, " % short[0] if short else "    ", shown)
        lines.append("%-34s %s" % (shown, text or "(not supported yet)"))
    return "\n".join(lines)


def refuse(options):
    """Raises ConfigError for options that cannot be honoured."""
    for _, name, text in OPTIONS:
        if name.rstrip("=") in options and not text:
            raise ConfigError("fwknopd", "--%s: not supported yet: leave it out" % name.rstrip("="))
    for name, kind in (("access-file", stat.S_ISREG), ("access-folder", stat.S_ISDIR)):
        if name in options:
            try:
                fits = kind(os.lstat(options[name]).st_mode)
            except (OSError, ValueError):
                fits = False
            if not fits:
                what = "regular file" if kind is stat.S_ISREG else "directory"
                raise ConfigError("--" + name, "[*] %s: no such %s: check the path" % (options[name], what))


def entries(options, warn):
    """Returns the entries of the configuration file, of those read after it, and of the options."""
    path = options.get("config-file", os.path.abspath(CONFIG))
    known = {"CONFIG_FILE": path}
    found = reader.entries(path, warn, known)
    for other in options.get("override-config", "").split(","):
        if other:
            found += reader.entries(os.path.abspath(other), warn, known)
    if "access-file" in options and "access-folder" not in options:
        found = [entry for entry in found if entry[0] != "ACCESS_FOLDER"]
    found += [(variable, options[name], "--" + name) for name, variable in OVERRIDES if name in options]
    if "udp-server" in options:
        found.append(("ENABLE_UDP_SERVER", "Y", "--udp-server"))
    return found, path


def read(options, warn):
    """Returns (settings, stanzas) as files and options want them; raises ConfigError."""
    import tinyknop.ports as ports  # mypy cannot see that ports/ is tinyknop.ports

    found, path = entries(options, warn)
    settings, stanzas = config.fwknop(found, path, warn=warn)
    settings.test = "test" in options
    for name in sorted(settings.ports):
        ports.make(name, settings.ports[name], {})  # a chain that cannot be is found before anything is opened
    return settings, stanzas


def pair(options):
    """Returns the two lines of a new pair of keys; raises ConfigError."""
    hmac = options.get("hmac-digest-type", "sha256").lower()
    if hmac not in crypto.NAMES:
        raise ConfigError("--hmac-digest-type", "%s: use one of %s" % (hmac, ", ".join(crypto.NAMES)))
    lengths = []
    for name, top, default in (("key-len", 32, 32), ("hmac-key-len", 128, HMAC_BYTES[hmac])):
        text = options.get(name, str(default))
        if not text.isdigit() or len(text) > 3 or not 1 <= int(text) <= top:
            raise ConfigError("--" + name, "%s: write a number from 1 to %d" % (text, top))
        lengths.append(int(text))
    from base64 import b64encode

    names = ("KEY_BASE64", "HMAC_KEY_BASE64")
    return "".join("%s: %s\n" % (n, b64encode(os.urandom(size)).decode()) for n, size in zip(names, lengths))


def generate(options):
    """Prints a pair of keys or writes it to a file."""
    text = pair(options)
    path = options.get("key-gen-file")
    if path is None:
        print(text, end="")
        return 0
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(path, "cannot write the key file: %s" % error.strerror) from None
    with os.fdopen(handle, "w") as file:
        os.fchmod(handle, 0o600)  # the reference leaves it to the umask, which lets others read keys
        file.write(text)
    print("[+] Wrote Rijndael and HMAC keys to: %s" % path, end="")
    return 0


def plain(level, text):
    """Writes a line to stderr as fwknopd does: no time, no level."""
    sys.stderr.write(text + "\n")


def to_syslog(settings, also=None):
    """Sends the log to syslog, and to another sink as well."""
    import syslog

    syslog.openlog(settings.syslog_identity, syslog.LOG_PID, getattr(syslog, settings.syslog_facility))
    levels = {"debug": syslog.LOG_DEBUG, "info": syslog.LOG_INFO, "warning": syslog.LOG_WARNING}

    def sink(level, text):
        syslog.syslog(levels.get(level, syslog.LOG_ERR), text)
        if also:
            also(level, text)

    log.sink = sink


def prepare(settings):
    """Makes the run directory where it is missing."""
    try:
        os.makedirs(settings.state_dir, 0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(settings.state_dir, "cannot make the run directory: %s" % error.strerror) from None


def daemonize():
    """Goes to the background; the first process waits until the second says through the pipe that it is ready.

    Returns the pipe's end. fwknopd's first process ends at once, so that nobody learns of a start that failed.
    """
    heard, ready = os.pipe()
    if os.fork():
        os.close(ready)
        said = os.read(heard, 1)
        sys.stderr.flush()
        os._exit(0 if said else 1)
    os.close(heard)
    os.setsid()
    os.umask(0o077)
    return ready


def detach(ready):
    """Lets the first process end, and leaves its terminal and directory."""
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    os.close(nowhere)
    os.write(ready, b"1")
    os.close(ready)


def serve(options, settings, stanzas):
    """Runs the daemon, in the foreground or not; returns the exit status."""
    from tinyknop.host.run import run

    ready = None if "foreground" in options else daemonize()
    held = pidfile.take(settings.pid_file)
    if "rotate-digest-cache" in options and os.path.exists(settings.digest_file):
        os.replace(settings.digest_file, settings.digest_file + "-old")
    if ready is not None:
        to_syslog(settings, plain)
    elif "syslog-enable" in options:
        to_syslog(settings, plain)
    capture = settings.captures[0]
    if settings.udp_server:
        log.info("Kicking off UDP server to listen on port %s.", capture["port"])
    else:
        log.info("Sniffing interface: %s", settings.interface)
        log.info("PCAP filter is: 'udp port %s'", capture["port"])

    def detached():
        if ready is not None:
            detach(ready)
            to_syslog(settings)

    status = run(settings, stanzas, lambda: read(options, log.warning), SAYS, detached)
    held.close()
    return status


def control(options):
    """Does what -K, -R and -S ask for."""
    asked = [(name, act) for name, act in CONTROLS if name in options]
    if len(asked) > 1:
        text = "The -D, -K, -R, and -S options are mutually exclusive.  Pick only one."
        print(text, file=sys.stderr)
        return 1
    from tinyknop.settings import RUN_DIR, Settings

    found, path = entries(options, lambda text: None)
    settings = Settings([("FWKNOP_RUN_DIR", RUN_DIR, path)] + found, lambda text: None, False)
    status, line = asked[0][1](settings.pid_file)
    print(line, file=sys.stderr if status else sys.stdout)
    return status


def act(options):
    """Does what the options ask for; returns the exit status."""
    if "key-gen" in options or "key-gen-file" in options:
        return generate(options)
    if "version" in options:
        print("fwknopd server %s (tinyknop), compiled for firewall bin: iptables" % __version__)
        return 0
    if "help" in options:
        print(usage())
        return 0
    if sum(name in options for name, _ in CONTROLS) > 1:
        return control(options)
    refuse(options)
    if any(name in options for name, _ in CONTROLS):
        return control(options)
    settings, stanzas = read(options, log.warning)
    if settings.verbose + options.get("verbose", 0):
        log.threshold = 0
    if "exit-parse-config" in options:
        log.info("Configs parsed, exiting.")
        return 0
    prepare(settings)
    return serve(options, settings, stanzas)


def main(words):
    """Entry point of the front end: returns the exit status."""
    log.sink = plain
    try:
        return act(words_of(words))
    except Usage as error:
        print("fwknopd: %s\n%s" % (error, usage()))
    except (TinyknopError, OSError) as error:
        plain("error", str(error))
    return 1
