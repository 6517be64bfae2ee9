"""One line per event, to whoever set `sink`. No secret, no plain text and no whole packet ever gets here."""

import sys

LEVELS = ("debug", "info", "warning", "error")
threshold = 1  # index into LEVELS; below it nothing is formatted


def _to_stderr(level, text):
    sys.stderr.write(text + "\n" if level == "info" else "%s: %s\n" % (level, text))


sink = _to_stderr


def _say(level, text, values):
    text = text % values if values else text
    try:
        sink(level, text)
    except Exception:  # nosec B110 # a full disk, or nobody reads on: what runs must not end for want of a witness
        pass


def debug(text, *values):
    """Logs what only somebody looking for a fault wants to see."""
    if threshold <= 0:
        _say("debug", text, values)


def info(text, *values):
    """Logs an event of normal running."""
    if threshold <= 1:
        _say("info", text, values)


def warning(text, *values):
    """Logs what the owner should look at; the daemon goes on."""
    if threshold <= 2:
        _say("warning", text, values)


def error(text, *values):
    """Logs what does not work."""
    _say("error", text, values)
