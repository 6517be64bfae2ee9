"""`tinyknop compile`: one JSON file of a configuration, keys taken in, for a board that reads nothing else."""

from __future__ import annotations

import argparse

from tinyknop import config, ready
from tinyknop.errors import ConfigError
from tinyknop.host import keygen


def main(words: list[str]) -> int:
    """Prints the JSON, or writes it to a file that only its owner can read."""
    parser = argparse.ArgumentParser("tinyknop compile", description="Makes one JSON file of a configuration.")
    parser.add_argument("file", metavar="FILE", help="tinyknop.toml, fwknopd.conf, access.conf or JSON")
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there; it holds the keys")
    options = parser.parse_args(words)
    text = ready.dump(*config.load(options.file))
    if options.output is None:
        print(text)
        return 0
    try:
        keygen.replace(options.output, text + "\n")
    except OSError as error:
        raise ConfigError(options.output, "cannot be written: %s" % error.strerror) from None
    return 0
