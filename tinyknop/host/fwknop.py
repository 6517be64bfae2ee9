"""`tinyknop fwknop`: stands in for fwknop's client, with its options, rc file, output and exit status.

Where it differs on purpose, docs/fwknop-client.md, section 10, says so.
"""

from __future__ import annotations

import os
import socket
import sys

from tinyknop import __version__, log
from tinyknop.errors import Rejected, TinyknopError
from tinyknop.host import addresses, fwargs, fwkeys, fwpacket, fwrequest, fwshow, rcfile, senders
from tinyknop.host.fwoptions import OPTIONS, RAW, TURN_ON, VARIABLES, Refused, Usage
from tinyknop.seal import unseal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from tinyknop.host.fwrequest import Request
    from tinyknop.seal import Keys

RC_NAME = ".fwknoprc"


def usage() -> str:
    """Returns the help text."""
    lines = ["", "fwknop client version %s (tinyknop)" % __version__, "Single Packet Authorization client", ""]
    lines += ["Usage: fwknop -A <port list> [-s|-R|-a] -D <spa_server> [options]", ""]
    for short, name, argument, _, _, text in OPTIONS:
        start = " %s --%s %s" % ("-%s," % short if short else "   ", name, argument)
        lines.append("%-32s %s" % (start.rstrip(), text))
    return "\n".join([*lines, ""])


def rc_path(request: Request, home: str | None) -> str | None:
    """Returns the path of the rc file, made where it is missing; None where none is to be read. Raises Refused."""
    if request["no-rc-file"]:
        for name, said in (
            ("named-config", "Cannot set stanza name in --no-rc-file mode."),
            ("save-rc-stanza", "Cannot save an rc stanza in --no-rc-file mode."),
            ("stanza-list", "Cannot list stanzas in --no-rc-file mode."),
        ):
            if request[name]:
                raise Refused(said)
        return None
    path: str | None = request["rc-file"]
    if not path and request["no-home-dir"]:
        raise Refused("Warning: in --no-home-dir mode, must set --rc-file path.")
    if not path:
        if not home:
            log.warning("Warning: Unable to determine HOME directory.\n No .fwknoprc file processed.")
            return None
        path = os.path.join(home, RC_NAME)
    if not os.path.exists(path) and not request["stanza-list"]:
        rcfile.make(path)
    return path


def gather(layer: dict[str, Any], home: str | None) -> tuple[Request, str | None]:
    """Returns (Request of rc file and command line, path of the rc file or None); raises Refused."""
    early = fwrequest.Request()
    early.add(layer)
    path = rc_path(early, home)
    request = fwrequest.Request()
    if path and not layer.get("stanza-list") and rcfile.check_mode(path):
        name = None if layer.get("save-rc-stanza") else layer.get("named-config")
        if layer.get("VERBOSE", 0) > 1:
            print("[*] Reading %s: [default]%s" % (path, " and [%s]" % name if name else ""))
        fwrequest.from_file(request, path, name)
    elif layer.get("named-config") and not (layer.get("save-rc-stanza") or layer.get("stanza-list")):
        raise Refused("Named configuration stanza: [%s] was not found." % layer["named-config"])
    request.add(layer)
    request.told = set(layer)
    return request, path


def may_replace(stanza: str) -> Callable[[str], bool]:
    """Returns what asks on standard input whether a variable may be replaced; the end of input means no."""

    def ask(variable: str) -> bool:
        print("Variable '%s' found in stanza '%s'. Overwrite [N/y] ? " % (variable, stanza), flush=True)
        return (fwkeys.read_line(0) or b"").strip() == b"y"

    return ask


def save_stanza(request: Request, layer: dict[str, Any], path: str) -> set[str]:
    """Stores the command line's variables in the rc file, under -n or the server's name; returns those kept out."""
    stanza = request["named-config"] or request["SPA_SERVER"]
    told = dict(layer)
    for name in ("USE_HMAC", "USE_GPG"):
        if request[name] and any(TURN_ON.get(given) == name for given in layer):
            told[name] = True
    rows = [fwrequest.stored(name, fwrequest.text_of(name, told[name])) for name in VARIABLES if name in told]
    ask = (lambda variable: True) if request["force-stanza"] else may_replace(stanza)
    refused = rcfile.store(path, stanza, [row for row in rows if row], ask)
    for name in sorted(refused):
        log.warning("[-] %s was not stored in [%s]: the old key stays", name, stanza)
    return refused


def generate(request: Request, layer: dict[str, Any], path: str | None) -> int:
    """Makes a pair of keys and prints, writes or stores it; returns the exit status."""
    names = ("KEY_BASE64", "HMAC_KEY_BASE64")
    pair = dict(zip(names, fwkeys.fresh(request)))
    text = "".join("%s: %s\n" % (name, pair[name]) for name in names)
    kept_out: set[str] = set()
    if path and request["save-rc-stanza"]:
        others = {name: value for name, value in layer.items() if name not in ("KEY", "HMAC_KEY")}
        kept_out = save_stanza(request, dict(others, **pair), path)
    if request["key-gen-file"]:
        fwkeys.write(request["key-gen-file"], text)
    elif not request["save-rc-stanza"]:
        print(text, end="")
    elif not kept_out:
        print("[+] Wrote Rijndael and HMAC keys to rc file: %s" % path)
    return 0


def save_packet(data: bytes, request: Request) -> None:
    """Writes the packet and a line end to the file that the request names; a failure is only told."""
    path = request["save-packet"]
    if path is None:
        return
    try:
        with open(path, "ab" if request["save-packet-append"] else "wb") as file:
            file.write(data + b"\n")
    except OSError as error:
        log.warning("write_spa_packet_data: %s: %s", path, error.strerror)


def transmit(data: bytes, request: Request) -> int:
    """Sends the packet, or tells that it is not sent; returns the number of bytes sent."""
    proto, source = request["SPA_SERVER_PROTO"], request["SPA_SOURCE_PORT"]
    if request["VERBOSE"]:
        rows = [("protocol", proto), ("source port", source or "<OS assigned>")]
        rows += [("destination port", request["SPA_SERVER_PORT"]), ("IP/host", request["SPA_SERVER"])]
        print("Generating SPA packet:")
        for name, value in rows:
            print("%20s: %s" % (name, value))
    sys.stdout.flush()
    if request["test"]:
        if proto == "http":
            text = senders.http_request(data, request).decode()
            print(text + "\n" if request["VERBOSE"] else "", end="")
        if proto in RAW:
            senders.located(request["SPA_SERVER"], None, request, socket.SOCK_RAW)
        print("%sest mode enabled, SPA packet not actually sent." % ("T" if proto == "http" else "t"))
        return 0
    return senders.send(data, request)


def settle_ports(request: Request) -> None:
    """Chooses the ports that are to be random."""
    if request["RAND_PORT"]:
        request.values["SPA_SERVER_PORT"] = fwpacket.random_port()
    if request["SPA_SERVER_PROTO"] in RAW and not request["SPA_SOURCE_PORT"]:
        request.values["SPA_SOURCE_PORT"] = fwpacket.random_port()


def knock(request: Request) -> int:
    """Builds the packet, sends it, and shows what was asked for; returns the exit status."""
    if request.resolves and not request["server-cmd"]:
        request.values["ALLOW_IP"] = addresses.resolve(request)
    settle_ports(request)
    packet = fwpacket.packet_of(request)
    fwpacket.check_fields(packet, request)
    keys, secret = fwkeys.keys(request)
    data = fwpacket.sealed(packet, keys, request, secret)
    if request["VERBOSE"] or request["test"]:
        fwshow.show(packet, data, keys, request, request["FW_TIMEOUT"])
    save_packet(data, request)
    sent = transmit(data, request)
    if request["VERBOSE"]:
        print("send_spa_packet: bytes sent: %d" % sent)
    if request["test"]:
        check_again(data, keys, request, secret)
    return 0


def check_again(data: bytes, keys: Keys, request: Request, secret: bytes | None) -> None:
    """Decodes what was built, as -T does, and with -v shows it; raises Refused where it cannot be."""
    try:
        if request["USE_GPG"]:
            packet, signature = fwpacket.opened(data, keys, request, secret)
        else:
            packet, signature = unseal(data, keys, ipv6=True), None
    except Rejected as error:
        if error.stage == "signature":
            raise Refused("fwknop: fko_decrypt_spa_data: Error 137 - Missing GPG signature") from None
        if request["USE_GPG"]:
            raise Refused("GPG ERR: %s\nNo access to recipient private key?" % error.reason) from None
        raise Refused("fwknop: fko_decrypt_spa_data: %s" % error) from None
    if request["VERBOSE"]:
        print("\nDump of the Decoded Data")
        fwshow.show(packet, data, keys, request, packet.client_timeout, False, signature)


def act(words: list[str], again: bool = False) -> int:
    """Does what the words ask for; returns the exit status. `again`: they come from the stored command line."""
    home = os.environ.get("HOME")
    layer = fwrequest.parse(words)
    if "fault-injection-tag" in layer:
        raise Refused("fwknop not compiled with fault injection support.")
    if layer.get("help"):
        print(usage())
        return 0
    request, path = gather(layer, home)
    if request["stanza-list"] and path:
        rcfile.listed(path)
        return 0
    fwpacket.check(request)
    if request["save-rc-stanza"] and not path:
        raise Refused("No rc file to save a stanza in: set $HOME or give --rc-file")
    if request["key-gen"]:
        return generate(request, layer, path)
    if path and request["save-rc-stanza"]:
        save_stanza(request, layer, path)
    if (request["show-last"] or request["last-cmd"]) and not again:
        line = fwargs.load(fwargs.path_of(request, home))
        if request["show-last"]:
            print("Last fwknop client command line: %s\n" % line)
            return 0
        if request["VERBOSE"]:
            print("Executing: %s\n" % line)
        return act(fwargs.words_of(line), True)
    if not request["NO_SAVE_ARGS"]:
        fwargs.save(fwargs.path_of(request, home), words)
    if request["version"]:
        print("fwknop client %s (tinyknop), FKO protocol version 3.0.0" % __version__)
        return 0
    return knock(request)


def plain(level: str, text: str) -> None:
    """Writes a line as fwknop does: warnings and errors to stderr, the rest to stdout."""
    print(text, file=sys.stdout if level in ("debug", "info") else sys.stderr)


def main(words: list[str]) -> int:
    """Entry point of the front end: returns the exit status."""
    log.sink = plain
    try:
        return act(words)
    except Usage as error:
        print(usage())
        print(error, file=sys.stderr)
    except (TinyknopError, OSError) as error:
        sys.stdout.flush()
        print(error, file=sys.stderr)
    return 1
