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
    if (settings.user, settings.log, settings.log_to) != (None, "text", "stderr"):
        raise ConfigError(path, "user, log, log_to: MicroPython stays who it is and logs text to stderr: take them out")
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
        if compat.exists(path):
            pass
        elif hasattr(os, "system") and "'" not in path:  # the one way to a mode there
            os.system("umask 077; exec mkdir -p -- '%s'" % path)  # nosec B605 # the owner's own, without a quote
        else:
            os.mkdir(path)
        mode = os.stat(path)[0]
    except OSError as error:
        raise ConfigError(path, "state_dir: cannot be made (error %d): check the path" % error.args[0])
    if mode & 0o170077 != 0o040000:
        raise ConfigError(path, "others can look into the state directory: chmod 700 %s, if it is one" % path)


def knock(path, name):
    """Sends one knock at the target of that name in a JSON file."""
    import json

    from tinyknop import client

    try:
        with open(path) as file:
            entries = [(key, as_text(value), path) for key, value in json.load(file)["target"][name].items()]
    except OSError as error:
        raise ConfigError(path, "cannot be read (error %d): check the path" % error.args[0])
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError):  # not there, no tables, no JSON
        raise ConfigError(path, "no target is called %s, or this is not JSON: check its quotes and commas" % name)
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
        elif len(words) == 1 and words[0][:1] != "-":
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
