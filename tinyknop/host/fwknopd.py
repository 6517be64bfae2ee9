"""`tinyknop fwknopd`: stands in for fwknop's daemon, with its files, options, pid file, signals and log phrases.

Options whose part is not built yet are refused by name: none is taken and then ignored.
"""

from __future__ import annotations

import os
import signal
import stat
import sys

from tinyknop import __version__, compat, config, crypto, log
from tinyknop.config import fwknopd as reader
from tinyknop.errors import ConfigError, TinyknopError
from tinyknop.host import pidfile
from tinyknop.host.background import daemonize, detach, plain, stand_in, to_syslog
from tinyknop.host.fwdoptions import CONFIG, OPTIONS, Usage, usage, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from tinyknop.settings import Settings
    from tinyknop.stanza import Stanza

    Options = dict[str, Any]
    Entry = tuple[str, str, str]  # name, value, "FILE:LINE"
    Warn = Callable[[str], object]

OVERRIDES = (  # option, the variable that it sets
    ("digest-file", "DIGEST_FILE"),
    ("interface", "PCAP_INTF"),
    ("pcap-filter", "PCAP_FILTER"),
    ("pid-file", "FWKNOP_PID_FILE"),
    ("run-dir", "FWKNOP_RUN_DIR"),
    ("access-file", "ACCESS_FILE"),
    ("access-folder", "ACCESS_FOLDER"),
    ("gpg-home-dir", "GPG_HOME_DIR"),
    ("gpg-exe", "GPG_EXE"),
    ("sudo-exe", "SUDO_EXE"),
    ("locale", "LOCALE"),
    ("pcap-file", "PCAP_FILE"),
)
SWITCHES = (  # option, the variable that it switches on
    ("udp-server", "ENABLE_UDP_SERVER"),
    ("nfq-capture", "ENABLE_NFQ_CAPTURE"),
    ("pcap-any-direction", "ENABLE_PCAP_ANY_DIRECTION"),
)
CONTROLS: tuple[tuple[str, Callable[[str], tuple[int, str]] | None], ...] = (
    ("dump-config", None),
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


# Option -> kind of file that must be there, whether its owner must be able to run it.
FILES = (
    ("access-file", "regular file", stat.S_ISREG, False),
    ("pcap-file", "regular file", stat.S_ISREG, False),
    ("access-folder", "directory", stat.S_ISDIR, False),
    ("gpg-home-dir", "directory", stat.S_ISDIR, False),
    ("gpg-exe", "program", stat.S_ISREG, True),
    ("sudo-exe", "program", stat.S_ISREG, True),
)


def refuse(options: Options) -> None:
    """Raises ConfigError for options that cannot be honoured."""
    for _, name, text in OPTIONS:
        if name.rstrip("=") in options and not text:
            raise ConfigError("fwknopd", "--%s: there only in test builds of fwknopd: leave it out" % name.rstrip("="))
    for name, what, kind, runs in FILES:
        if name in options:
            try:
                mode = os.stat(options[name]).st_mode if runs else os.lstat(options[name]).st_mode
                fits = kind(mode) and (not runs or mode & stat.S_IXUSR)
            except (OSError, ValueError):
                fits = False
            if not fits:
                raise ConfigError("--" + name, "[*] %s: no such %s: check the path" % (options[name], what))
    if "packet-limit" in options and compat.whole(options["packet-limit"]) < 0:
        raise ConfigError("--packet-limit", "%s: write a number of packets" % options["packet-limit"])


def entries(options: Options, warn: Warn) -> tuple[list[Entry], str]:
    """Returns the entries of the configuration file, of those read after it, and of the options."""
    path = options.get("config-file", os.path.abspath(CONFIG))
    known = {"CONFIG_FILE": path}
    found = reader.entries(path, warn, known)
    for other in (known.get("OVERRIDE_CONFIG") or options.get("override-config", "")).split(","):
        if other:
            found += reader.entries(os.path.abspath(other), warn, known)
    found += [(variable, options[name], "--" + name) for name, variable in OVERRIDES if name in options]
    found += [(variable, "Y", "--" + name) for name, variable in SWITCHES if name in options]
    return found, path


def read(options: Options, warn: Warn) -> tuple[Settings, list[Stanza]]:
    """Returns (settings, stanzas) as files and options want them; raises ConfigError."""
    import tinyknop.ports as ports  # mypy cannot see that ports/ is tinyknop.ports
    from tinyknop.ports.shared import rules
    from tinyknop.settings import CHAINS

    found, path = entries(options, warn)
    settings, stanzas = config.fwknop(found, path, warn=warn)
    settings.test = "test" in options
    for table in settings.captures:
        if settings.test and table["kind"] == "nfqueue":
            table["binary"] = ""
            warn("--test: no rule fills queue %s: add one by hand, or leave --test out" % table["queue"])
    if settings.kind in ("iptables", "firewalld"):
        for _, option, _ in CHAINS:  # fwknopd reads those that are not used as well
            try:
                rules.chain(getattr(settings, option))
            except ValueError as error:
                where = settings.places.get(option, path)
                raise ConfigError(where, "%s: %s" % (option, error)) from None
    for name in sorted({"log", "log_to"} & set(settings.places)):  # the phrases that scripts look for are all it says
        where = settings.places[name]
        text = "%s: [*] Ignoring unknown configuration parameter: '%s' in %s; `tinyknop serve` knows it"
        warn(text % (where, name, where.rpartition(":")[0]))
    for name in sorted(settings.ports):
        ports.make(name, settings.ports[name], {})  # a chain that cannot be is found before anything is opened
    return settings, stanzas


def pair(options: Options) -> str:
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


def generate(options: Options) -> int:
    """Prints a pair of keys or writes it to a file."""
    text = pair(options)
    path = options.get("key-gen-file")
    if path is None:
        print(text, end="")
        return 0
    try:
        from tinyknop.host import keygen  # brings argparse, which a daemon's start does without

        keygen.replace(path, text)
    except OSError as error:
        raise ConfigError(path, "cannot write the key file: %s" % error.strerror) from None
    print("[+] Wrote Rijndael and HMAC keys to: %s" % path, end="")
    return 0


def prepare(settings: Settings) -> None:
    """Makes the run directory where it is missing; refuses somebody else's."""
    from tinyknop.host.serve import owned

    try:
        os.makedirs(settings.state_dir, 0o700, exist_ok=True)
        owned(settings.state_dir, settings.user)
    except OSError as error:
        raise ConfigError(settings.state_dir, "cannot make the run directory: %s" % error.strerror) from None


def reread(options: Options) -> tuple[Settings, list[Stanza]]:
    """Returns (settings, stanzas) anew; lets firewall programs that are new have what they need."""
    from tinyknop.host.privileges import pass_on

    settings, stanzas = read(options, log.warning)
    pass_on(settings)
    return settings, stanzas


def serve(options: Options, settings: Settings, stanzas: list[Stanza]) -> int:
    """Runs the daemon, in the foreground or not; returns the exit status."""
    from tinyknop.host.phrases import Phrases
    from tinyknop.host.run import run
    from tinyknop.host.serve import lock

    for number in (signal.SIGUSR1, signal.SIGUSR2):  # not SIG_IGN, which commands would inherit
        signal.signal(number, lambda number, frame: None)
    ready = None if "foreground" in options else daemonize()
    held = pidfile.take(settings.pid_file), lock(os.path.join(settings.state_dir, "tinyknop.lock"))
    if "rotate-digest-cache" in options and os.path.exists(settings.digest_file):
        os.replace(settings.digest_file, settings.digest_file + "-old")
    if ready is not None or "syslog-enable" in options:
        to_syslog(settings, plain)
    if settings.captures[0]["kind"] != "udp":
        announce(settings)
    words = Phrases()
    words.take(settings, stanzas)

    def detached() -> None:
        if settings.captures[0]["kind"] == "udp":  # said only once it is so: a knock before that would be lost
            announce(settings)
        if ready is not None:
            detach(ready)
            to_syslog(settings)

    limit = int(options.get("packet-limit", 0))
    status = run(settings, stanzas, lambda: reread(options), SAYS, detached, words, limit)
    for file in held:
        file.close()
    return status


def announce(settings: Settings) -> None:
    """Logs how knocks will come in, and what they open."""
    capture = settings.captures[0]
    if capture["kind"] == "udp":
        log.info("Kicking off UDP server to listen on port %s.", capture["port"])
    elif capture["kind"] in ("packet", "pcap"):
        way = "Sniffing interface: %s" if capture["kind"] == "packet" else "Reading pcap file: %s"
        log.info(way, settings.pcap_file or settings.interface)
        log.info("PCAP filter is: '%s'", settings.filter)
    else:
        log.info("Listening by %s", capture["kind"])
    for other in settings.captures[1:]:
        log.info("Kicking off TCP server to listen on port %s.", other["port"])
    log.info("Using %s", settings.firewall or "nftables, by the kernel's own interface")


def control(options: Options) -> int:
    """Does what -K, -R and -S ask for."""
    asked = [(name, act) for name, act in CONTROLS if name in options]
    if len(asked) > 1:
        text = "The -D, -K, -R, and -S options are mutually exclusive.  Pick only one."
        print(text, file=sys.stderr)
        return 1
    signalled = asked[0][1]
    if signalled is None:
        return show(options)
    found, path = entries(options, lambda text: None)
    settings = config.fwknop_settings(found, path, lambda text: None)
    status, line = signalled(settings.pid_file)
    print(line, file=sys.stderr if status else sys.stdout)
    return status


def show(options: Options) -> int:
    """Prints the configuration."""
    from tinyknop.host import dump

    settings, stanzas = read(options, log.warning)
    path = options.get("config-file", CONFIG)
    print("\n".join(dump.config(settings, path, options.get("override-config")) + dump.access(stanzas)))
    return 0


def act(options: Options) -> int:
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
    if "dump-serv-err-codes" in options:
        from tinyknop.host.dump import error_codes

        print(error_codes())
        return 0
    refuse(options)
    if any(name in options for name, _ in CONTROLS):
        return control(options)
    return start(options)


def set_locale(name: str) -> None:
    """Sets the locale; fwknopd only logs that it cannot."""
    import locale

    try:
        locale.setlocale(locale.LC_ALL, name)
    except locale.Error as error:
        log.warning("LOCALE %s: %s", name, error)


def start(options: Options) -> int:
    """Reads the configuration, then lists, flushes, ends or serves, as the options say; returns the exit status."""
    if {"fw-list", "fw-list-all", "fw-flush"} & set(options):
        from tinyknop.host import firewall

        found, path = entries(options, log.warning)
        return firewall.act(config.fwknop_settings(found, path, log.warning), options)
    from tinyknop.host.run import early

    early()
    settings, stanzas = read(options, log.warning)
    verbosity = settings.verbose + options.get("verbose", 0)
    log.threshold = 0 if verbosity else log.threshold
    if settings.locale and not settings.locale.startswith("NONE"):
        set_locale(settings.locale)
    if "exit-parse-config" in options:
        log.info("Configs parsed, exiting.")
        return 0
    prepare(settings)
    if "exit-parse-digest-cache" in options:
        from tinyknop.replay import Replay

        Replay(settings.digest_file, settings.ageing, settings.max_age).read()
        log.info("Digest cache parsed, exiting.")
        return 0
    if verbosity >= 2 and "foreground" in options:
        show(options)
    if settings.user:
        from tinyknop.host.privileges import become

        become(settings, stanzas)
    return serve(options, settings, stanzas)


def main(words: list[str]) -> int:
    """Entry point of the front end: returns the exit status."""
    stand_in()
    log.sink = plain
    try:
        return act(words_of(words))
    except Usage as error:
        print("fwknopd: %s\n%s" % (error, usage()))
    except (TinyknopError, OSError) as error:
        plain("error", str(error))
    return 1
