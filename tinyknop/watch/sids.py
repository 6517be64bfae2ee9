"""What is known of a Snort rule by its number: from rule files, and from the JSON that `tinyknop rules` writes.

A rule is looked up when a packet first matches it, so a small machine need not hold twenty thousand of them.
"""

import os

from tinyknop import log
from tinyknop.errors import ConfigError

from .files import lines, options_of

_LISTS = ("reference", "content")


class Sids:
    """Rules of files and folders (their *.rules and *.json); raises ConfigError where one is not there."""

    def __init__(self, paths):
        self._files = []
        self._known = {}
        for path in paths:
            self._files += _inside(path)
        for path in [path for path in self._files if path.endswith(".json")]:
            self._side(path)

    def __call__(self, sid):
        return self.find(sid) is not None

    def find(self, sid):
        """Returns {"msg", "classtype", "reference", "content", "metadata", "priority", "rev"} of a rule, or None."""
        if sid not in self._known:
            self._known[sid] = self._searched(sid)
        return self._known[sid]

    def _searched(self, sid):
        for path in self._files:
            for _, text in [] if path.endswith(".json") else lines(path):
                if "sid" in text and ("%d" % sid) in text:
                    rule = described(text)
                    if rule is not None and rule["sid"] == sid:
                        return rule
        return None

    def _side(self, path):
        import json

        try:
            with open(path, "rb") as file:
                for sid, rule in json.loads(file.read().decode()).items():
                    self._known[int(sid)] = _whole(rule)
        except (OSError, ValueError, AttributeError, TypeError, RuntimeError) as error:
            log.warning("%s: left out: not what `tinyknop rules` writes: %s", path, error)


def _inside(path):
    try:
        names = sorted(os.listdir(path)) if os.stat(path)[0] & 0o170000 == 0o040000 else None
    except OSError as error:
        raise ConfigError(path, "cannot read it: error %s; it is a file or folder of Snort rules" % error.errno)
    if names is None:
        return [path]
    return [path + "/" + name for name in names if name.endswith(".rules") or name.endswith(".json")]


def _whole(rule):
    """Returns a rule of the side file with every field there and of its type."""
    if not isinstance(rule, dict):
        raise ValueError("a rule is no object")
    made: dict = {name: "%s" % (rule.get(name) or "") for name in ("msg", "classtype", "priority", "rev")}
    for name in _LISTS:
        found = rule.get(name) or []
        made[name] = ["%s" % item for item in found] if isinstance(found, list) else ["%s" % found]
    fields = rule.get("metadata") or {}
    if not isinstance(fields, dict):
        raise ValueError("metadata is no object")
    made["metadata"] = {"%s" % name: "%s" % fields[name] for name in fields}
    return made


def described(text):
    """Returns what a Snort rule says of itself, its number under "sid"; None for a text that is no rule with one."""
    at = text.find("(")
    if at < 0 or text.lstrip()[:1] == "#":
        return None
    body = text[at + 1 :].rstrip()
    rule: dict = {"msg": "", "classtype": "", "priority": "", "rev": "", "reference": [], "content": [], "metadata": {}}
    rule["sid"] = 0
    for name, value in options_of((body[:-1] if body[-1:] == ")" else body) + ";"):
        if name in _LISTS:
            rule[name].append(bare(value))
        elif name == "metadata":
            for item in value.split(","):
                words = item.split(None, 1) or [""]
                rule["metadata"][words[0]] = words[1].strip() if len(words) > 1 else ""
        elif name == "sid":
            rule["sid"] = int(value) if value.isdigit() else 0
        elif name in rule:
            rule[name] = bare(value)
    return rule if rule["sid"] else None


def bare(value):
    """Returns an option's value without its quotes and backslashes; a negated one, `!"..."`, as it is."""
    if value[:1] == '"':
        value = value[1 : value.rfind('"')] if value.rfind('"') > 0 else value[1:]
    out, at = "", 0
    while at < len(value):
        at += value[at] == "\\" and at + 1 < len(value)
        out += value[at]
        at += 1
    return out
