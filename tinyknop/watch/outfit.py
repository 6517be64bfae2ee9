"""What a scorer knows: psad's files, or the few signatures of our own, and the Snort rules at hand."""

from tinyknop import compat
from tinyknop.errors import ConfigError

from . import files, known
from .score import Limits, Scorer
from .sids import Sids

# Option of [watch] and of `tinyknop watch` -> the file's name in psad's folder.
FILES = {"signatures": "signatures", "auto_dl": "auto_dl", "snort_rule_dl": "snort_rule_dl", "psad_conf": "psad.conf"}
FILES.update({"icmp_types": "icmp_types", "icmp6_types": "icmp6_types"})


def paths(options):
    """Returns {name of FILES: path} of what options name; `psad` is a folder whose files count where it has them."""
    found, folder = {}, options.get("psad")
    for name in FILES:
        path = options.get(name) or ""
        if folder and not path and _exists(folder + "/" + FILES[name]):
            path = folder + "/" + FILES[name]
        if path:
            found[name] = path
    if folder and not found:
        raise ConfigError(options.get("where", "watch"), "psad = %s: there is none of psad's files" % folder)
    return found


def _exists(path):
    try:
        return compat.exists(path)
    except OSError:  # what was named is no folder, or not for us
        return False


def scorer(options):
    """Returns (Scorer, Sids) of options with the names in FILES, `psad` and `rules`; raises ConfigError."""
    where = paths(options)
    made = Scorer(Limits(files.conf(where["psad_conf"]) if "psad_conf" in where else None))
    if "signatures" in where:
        made.take(files.readable(where["signatures"], files.signature))
    else:
        made.take([files.signature(text) for text in known.SIGNATURES.split("\n") if text])
    if "auto_dl" in where:
        made.take_auto(files.readable(where["auto_dl"], files.auto_dl))
    if "snort_rule_dl" in where:
        made.rule_levels = dict(files.readable(where["snort_rule_dl"], files.rule_dl))
    if "icmp_types" in where:
        made.valid = files.icmp_types(where["icmp_types"])
    if "icmp6_types" in where:
        made.valid6 = files.icmp_types(where["icmp6_types"])
    rules = options.get("rules") or ""
    sids = Sids([path for path in rules.split(",") if path])
    made.known = sids
    return made, sids
