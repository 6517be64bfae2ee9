"""`python -m tinyknop ...` is the command line; `micropython -m tinyknop CONFIG` is the daemon, and
`micropython -m tinyknop knock FILE NAME` one knock at a target of a JSON file."""

import sys

from tinyknop import compat


def serve(path):
    """Runs the daemon until it is stopped from outside."""
    from tinyknop import config
    from tinyknop.daemon import Daemon
    from tinyknop.loop import Loop

    settings, stanzas = config.load(path)
    loop = Loop()
    loop.run_until(Daemon(settings, stanzas, loop).start())
    loop.run()


def knock(path, name):
    """Sends one knock at the target of that name in a JSON file."""
    import json

    from tinyknop import client

    with open(path) as file:
        targets = json.load(file).get("target", {})
    if name not in targets:
        raise client.ConfigError(path, "no target is called %s" % name)
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
    from tinyknop.errors import TinyknopError

    try:
        if len(words) == 3 and words[0] == "knock":
            knock(words[1], words[2])
        elif len(words) == 1:
            serve(words[0])
        else:
            print("usage: micropython -m tinyknop CONFIG | knock FILE NAME")
            return 2
    except TinyknopError as error:
        sys.stderr.write("%s\n" % error)
        return 1
    return 0


if __name__ == "__main__":
    if compat.MICROPYTHON:
        sys.exit(small_main(sys.argv[1:]))
    from tinyknop.host import cli

    sys.exit(cli.main())
