"""`tinyknop check`: reads a configuration of any format and says in plain words what it allows. Opens nothing.

With --live it tries a running set-up instead, which `live.py` does.
"""

from __future__ import annotations

import argparse
import json
import os
import pwd

from tinyknop import config, net
from tinyknop.errors import ConfigError
from tinyknop.host import toml
from tinyknop.host.serve import fit, number_of, shut

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyknop.settings import Settings
    from tinyknop.stanza import Gpg, Stanza

SHORT_KEY = 16  # bytes; below it trying all keys of a captured packet comes into reach
SHORT_HMAC_KEY = 16


def openings(pairs: Sequence[tuple[str, int]]) -> str:
    """Returns "tcp/22, udp/53"."""
    return ", ".join("%s/%d" % pair for pair in pairs)


def networks(nets: Sequence[tuple[bytes, int]] | None) -> str:
    """Returns the networks of a stanza as people write them."""
    if nets is None:
        return "anybody"
    return ", ".join(net.printed(base) + ("/%d" % bits if bits < 8 * len(base) else "") for base, bits in nets)


def title(stanza: Stanza) -> str:
    """Returns what a stanza is called."""
    return "stanza %s (%s)" % (stanza.name or stanza.number, stanza.where)


def says(stanza: Stanza) -> list[str]:
    """Returns the lines that say what a stanza allows."""
    what = openings(stanza.open_ports) if stanza.open_ports is not None else "any port"
    if getattr(stanza, "restrict_ports", ()):
        what += " but never " + openings(stanza.restrict_ports)
    time = "for %d s" % stanza.timeout
    if stanza.max_timeout is not None:
        time += ", or as long as the client asks up to %d s" % stanza.max_timeout
    lines = ["%s: %s may open %s %s" % (title(stanza), networks(stanza.source), what, time)]
    if stanza.destination is not None:
        lines.append("  only by packets sent to %s" % networks(stanza.destination))
    if stanza.require_user:
        lines.append("  only as user %s" % stanza.require_user)
    if stanza.require_source:
        lines.append("  the packet must name the address to let in")
    if stanza.expires is not None:
        from time import gmtime, strftime

        lines.append("  until %s UTC, and nothing after that" % strftime("%Y-%m-%d %H:%M:%S", gmtime(stanza.expires)))
    if stanza.gpg is not None:
        lines.append("  by GPG messages %s" % signers(stanza.gpg))
    if stanza.force_nat is not None:
        lines.append("  each led inside to %s port %d" % stanza.force_nat)
    if stanza.cycle is not None:
        lines.append("  by running: %s" % stanza.cycle[0])
        lines.append("  and at the end: %s" % (stanza.cycle[1] or "nothing"))
    if stanza.cmd_exec:
        who = "sudo, as %s" % (stanza.sudo_user or "root") if stanza.sudo else stanza.exec_user or "root"
        lines.append("  and may run any command as %s" % who)
    lines.append("  through " + ", ".join(stanza.ports))
    return lines


def signers(gpg: Gpg) -> str:
    """Returns whose signatures a stanza takes."""
    if not gpg.require_sig:
        return "of anybody, signed or not"
    return "signed by " + ", ".join((gpg.fingerprints or ()) + (gpg.remote_ids or ()) or ("anybody in the keyring",))


def weak(settings: Settings, stanzas: Sequence[Stanza]) -> list[str]:
    """Returns a line for each setting that is allowed and not wise."""
    lines = []
    if not settings.ageing:
        lines.append("packets of any age are taken: only the memory of digests stops a replay; leave ageing on")
    if not settings.replay:
        lines.append("no memory of digests: a packet can be used again while it is young; leave it on")
    for stanza in stanzas:
        keys = stanza.keys
        assert keys is not None  # its key file has been read
        lines += weak_gpg(stanza)
        if keys.hmac_key is None:
            lines.append("%s: no HMAC: every packet is decrypted unchecked; add an HMAC key" % title(stanza))
        elif len(keys.hmac_key) < SHORT_HMAC_KEY:
            text = "%s: the HMAC key has only %d bytes; make a pair with `tinyknop keygen`"
            lines.append(text % (title(stanza), len(keys.hmac_key)))
        if keys.key and len(keys.key) < SHORT_KEY:
            text = "%s: the key has only %d bytes; make a pair with `tinyknop keygen`"
            lines.append(text % (title(stanza), len(keys.key)))
        if keys.mode == "legacy":
            lines.append("%s: the legacy mode cuts keys to 16 bytes; use cbc" % title(stanza))
        if stanza.source is None and stanza.open_ports is None:
            lines.append("%s: anybody with the key may open any port; list the openings" % title(stanza))
        if keys.hmac in ("md5", "sha1") and keys.hmac_key is not None:
            lines.append("%s: an HMAC of %s is dated; use sha256" % (title(stanza), keys.hmac))
    return lines


def weak_gpg(stanza: Stanza) -> list[str]:
    """Returns a line for each thing about a stanza's GPG, or its commands, that is allowed and not wise."""
    lines = []
    gpg = stanza.gpg
    if gpg is not None and not gpg.require_sig:
        lines.append("%s: signatures are not looked at: whoever has the public key may knock" % title(stanza))
    elif gpg is not None and gpg.ignore_sig:
        lines.append("%s: signatures that do not verify are taken" % title(stanza))
    elif gpg is not None and not gpg.fingerprints:
        lines.append("%s: key ids can be forged; name signers by GPG_FINGERPRINT_ID" % title(stanza))
    if stanza.cmd_exec and not stanza.sudo and stanza.exec_user in (None, "root"):
        lines.append("%s: commands run as root; name a CMD_EXEC_USER" % title(stanza))
    return lines


def inlets(settings: Settings) -> list[str]:
    """Returns a line for each capture, made as the daemon would make it; raises ConfigError."""
    from tinyknop import capture

    lines = []
    for table in settings.captures:
        capture.make(table, None)
        shown = ["%s %s" % (key, table[key]) for key in sorted(table) if key not in ("kind", "where")]
        lines.append("listens by %s: %s" % (table.get("kind") or "packet", ", ".join(shown)))
    return lines


def absent(settings: Settings) -> list[str]:
    """Returns a line for each thing that the daemon needs at its start and that is not on this machine."""
    from socket import if_nameindex

    lines = []
    there = {name for _, name in if_nameindex()}
    for table in settings.captures:
        for name in (table.get("interface") or "any").split(","):
            if table.get("kind") == "packet" and name not in there | {"any"}:
                lines.append("there is no interface %s here; `ip link` lists them, and any means all" % name)
    if settings.user and number_of(settings.user) is None:
        remedy = "adduser --system --group --no-create-home"
        lines.append("there is no user %s here: %s %s" % (settings.user, remedy, settings.user))
    return lines


def startable(settings: Settings, path: str) -> None:
    """Raises ConfigError for files and a state directory with which the daemon, started by root, would not start."""
    if os.geteuid():  # only root may look with the eyes of others
        return
    if os.path.exists(settings.state_dir) and not is_fwknops(path):  # whose front end goes by other rules
        fit(settings.state_dir, settings.user)
    if settings.user and number_of(settings.user):
        reason = refused_to(settings.user, path)
        if reason:
            raise ConfigError(*reason)


def is_fwknops(path: str) -> bool:
    """Tells whether a file is one of fwknop's."""
    return not path.endswith((".toml", ".json"))


def refused_to(user: str, path: str) -> tuple[str, str] | None:
    """Returns (where, reason) of what a user cannot read of a configuration, or None."""
    entry = pwd.getpwnam(user)
    answer, question = os.pipe()
    child = os.fork()
    if child == 0:
        found = None
        try:
            os.initgroups(user, entry.pw_gid)
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
            config.load(path)
        except ConfigError as error:
            found = error.stage, "%s (as user %s, who has to own it)" % (error.reason, user)
        finally:
            os.write(question, json.dumps(found).encode())
            os._exit(0)
    os.close(question)
    with os.fdopen(answer) as file:
        said = file.read()
    os.waitpid(child, 0)
    where, reason = json.loads(said or "null") or ("", "")
    return (where, reason) if reason else None


def outlets(settings: Settings) -> list[str]:
    """Returns a line for each port, and below it the rule that its owner must have."""
    import tinyknop.ports as ports  # mypy cannot see that ports/ is tinyknop.ports

    ports.apart(settings.ports)
    lines = []
    carriers = {name: ports.carrier(name, options) for name, options in settings.carriers.items()}
    for name in sorted(settings.ports):
        port = ports.make(name, settings.ports[name], carriers)
        lines.append("port %s: %s" % (name, port.describe()))
        if name in settings.blocks and hasattr(port, "rule"):
            lines.append("  nothing is blocked unless rules of yours drop by its sets, such as:")
            for tool, held in (("iptables", port.set), ("ip6tables", port.six)):
                lines.append("    %s -t raw -I PREROUTING -m set --match-set %s src -j DROP" % (tool, held))
        elif hasattr(port, "rule"):
            lines.append("  nothing opens unless a rule of yours matches it, such as:")
            lines += ["    " + line for line in port.rule().splitlines()]
    return lines


def watched(settings: Settings, stanzas: Sequence[Stanza]) -> list[str]:
    """Returns the line about the log watch; raises ConfigError for a table that is wrong."""
    if settings.watch is None:
        return []
    from tinyknop.watch.watcher import Watcher

    return [Watcher(settings, stanzas, None, None).means()]


def targets(path: str) -> list[str]:
    """Returns a line for each target of a TOML file, once all of it is understood."""
    from tinyknop import client

    if not path.endswith(".toml"):
        return []
    document = toml.Document(path)
    lines = []
    for name in document.named("target"):
        target = client.Target(document.entries("target", name), document.where("target", name))
        wanted = openings(target.openings or ()) or "nothing yet (-A says what)"
        text = "target %s: knocks at %s port %d for %s"
        lines.append(text % (name, target.host or name, target.port, wanted))
    return lines


def is_rc(path: str) -> bool:
    """Tells whether a file is an .fwknoprc: it is called so, or begins with a [stanza]."""
    from tinyknop.host import rcfile

    if path.endswith((".toml", ".json")):
        return False
    with open(path, encoding="utf-8", errors="replace") as file:
        lines = [line.strip() for line in file]
    first = [line for line in lines if line and line[0] not in "#;"][:1]
    return path.endswith("fwknoprc") or bool(first and rcfile.header(first[0]))


def rc_lines(path: str) -> list[str]:
    """Returns a line for each stanza of an .fwknoprc, once all of it is understood; raises TinyknopError."""
    from tinyknop import log
    from tinyknop.host import fwrequest, rcfile

    lines, doubts = [], []
    kept, log.sink = log.sink, lambda level, text: doubts.append(text)
    try:
        for name in [name for name, _ in rcfile.read(path)]:
            request = fwrequest.Request()
            fwrequest.from_file(request, path, None if name.lower() == "default" else name)
            text = "stanza [%s]: knocks at %s port %s by %s for %s, letting in %s"
            host, access = request["SPA_SERVER"] or "nobody yet", request["ACCESS"] or "nothing yet"
            what = (host, request["SPA_SERVER_PORT"], request["SPA_SERVER_PROTO"], access)
            lines.append(text % ((name,) + what + (request["ALLOW_IP"] or "nobody yet",)))
            if request["SPA_SERVER"] and not request["USE_HMAC"]:
                lines.append("warning: [%s]: no HMAC; add HMAC_KEY_BASE64 and USE_HMAC Y" % name)
    finally:
        log.sink = kept
    if doubts:  # fwknop makes something of it, which is hardly what was meant
        where, _, reason = doubts[0].replace("[-] ", "").partition(": ")
        raise ConfigError(where, reason)
    return lines


def is_client(path: str) -> bool:
    """Tells whether a TOML file has targets and nothing for a server."""
    return path.endswith(".toml") and set(toml.Document(path).data) == {"target"}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of our words."""
    made = argparse.ArgumentParser(
        "tinyknop check",
        description="Says in plain words what a configuration allows.",
        epilog="`tinyknop check --live NAME` tries a running set-up instead, from a client's side.",
    )
    made.add_argument("file", metavar="FILE", help="tinyknop.toml, JSON, fwknopd.conf, access.conf or .fwknoprc")
    return made


def main(words: list[str]) -> int:
    """Says what a configuration means; exit status 1 where it is broken."""
    if "--live" in words:
        from tinyknop.host import live

        return live.main([word for word in words if word != "--live"])
    path = parser().parse_args(words).file
    try:
        if is_rc(path):
            print("\n".join(rc_lines(path)))
            return 0
    except OSError as error:
        raise ConfigError(path, "cannot be read (%s): check the path" % error.strerror) from None
    if is_client(path):
        print("\n".join(targets(path)))
        return 0
    settings, stanzas = config.load(path)
    shut(path, stanzas)
    startable(settings, path)
    lines = inlets(settings)
    for stanza in stanzas:
        lines += says(stanza)
    lines += outlets(settings)
    lines += watched(settings, stanzas) + targets(path)
    warnings = absent(settings) + weak(settings, stanzas)
    print("\n".join(lines + ["warning: " + line for line in warnings]))
    if not stanzas:
        print("no stanza: nobody may open anything" if not os.path.basename(path).endswith("access.conf") else "empty")
    return 0
