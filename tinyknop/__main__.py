"""`python -m tinyknop ...` is the command line; `micropython -m tinyknop CONFIG` is the daemon, and
`micropython -m tinyknop knock FILE NAME` one knock at a target of a JSON file."""

import gc
import sys

from tinyknop import compat
from tinyknop.errors import ConfigError, TinyknopError


def serve(path):
    """Runs the daemon until it is killed, or a capture is through; returns the exit status.

    Nothing is tidied up at a SIGTERM, which MicroPython cannot see: the next start takes up what the journal says.
    """
    from tinyknop import log

    settings, stanzas = read(path)
    if settings.user:
        raise ConfigError(path, "user: MicroPython cannot become another user: take it out")
    state(settings.state_dir)
    daemon = start(settings, stanzas)
    ends = []

    def over(reason, status):
        (log.error if status else log.info)("%s", reason)
        ends.append(status or 0)
        daemon.loop.stop()

    daemon.over = over
    try:
        daemon.loop.run()
    except KeyboardInterrupt:
        daemon.loop.run_until(daemon.stop())
    return ends[0] if ends else 0


def start(settings, stanzas):
    """Returns a daemon that hears; raises TinyknopError or OSError."""
    from tinyknop import log
    from tinyknop.daemon import Daemon
    from tinyknop.loop import Loop

    daemon = Daemon(settings, stanzas, Loop())
    daemon.loop.run_until(daemon.start())
    gc.collect()
    # What lasts would else lie scattered over the whole heap, with no room for anything long between.
    gc.threshold(min(gc.mem_free() // 8, 65536))  # type: ignore[attr-defined]
    log.info("ready: %s; stanzas: %d", ", ".join([one.describe() for one in daemon.captures]), len(stanzas))
    return daemon


def read(path):
    """Returns the settings and stanzas of a file, and forgets what could read it: tables of keywords, 70 KB of heap."""
    from tinyknop import ready

    made = ready.load(path) if path.endswith(".json") else None
    if made is None:
        from tinyknop import config

        settings, stanzas = config.load(path)
        settings.entries = ()
        made = ready.bare(settings), [ready.bare(one) for one in stanzas]
        del config
    del ready
    package = sys.modules["tinyknop"]
    for name in list(sys.modules):
        part = name.split(".")[1:2]
        if part and part[0] in ("config", "settings", "stanza", "keywords", "ready"):
            del sys.modules[name]
            if hasattr(package, part[0]):
                delattr(package, part[0])
    gc.collect()
    return made


def state(path):
    """Makes the state directory where it is missing, for its owner only; refuses one that others can look into."""
    import os

    try:
        mode = os.stat(path)[0]
    except OSError:
        if hasattr(os, "system") and "'" not in path:  # the one way to a mode there
            os.system("umask 077; exec mkdir -p -- '%s'" % path)  # nosec B605 # the owner's own, without a quote
        else:
            os.mkdir(path)
        mode = os.stat(path)[0]
    if mode & 0o077:
        raise ConfigError(path, "others can look into the state directory: chmod 700 %s" % path)


def knock(path, name):
    """Sends one knock at the target of that name in a JSON file."""
    import json

    from tinyknop import client

    with open(path) as file:
        targets = json.load(file).get("target", {})
    if name not in targets:
        raise ConfigError(path, "no target is called %s" % name)
    entries = [(key, as_text(value), path) for key, value in targets[name].items()]
    target = client.Target(entries, path)
    client.send(client.build(target), client.locate(target.host or name, target.port))


def as_text(value):
    """Returns what a JSON value is in the one table of settings: list -> "a,b", True -> "Y", 30 -> "30"."""
    if isinstance(value, list):
        return ",".join([as_text(item) for item in value])
    if isinstance(value, bool):
        return "Y" if value else "N"
    return str(value)


def small_main(words):
    """Runs what MicroPython can: the daemon, or a knock; returns the exit status."""
    try:
        if len(words) == 3 and words[0] == "knock":
            knock(words[1], words[2])
        elif len(words) == 1:
            return serve(words[0])
        else:
            print("usage: micropython -m tinyknop CONFIG | knock FILE NAME")
            return 2
    except (TinyknopError, OSError) as error:
        sys.stderr.write("%s\n" % error)
        return 1
    return 0


if __name__ == "__main__":
    if compat.MICROPYTHON:
        sys.exit(small_main(sys.argv[1:]))
    from tinyknop.host import cli

    sys.exit(cli.main())
