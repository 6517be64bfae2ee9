"""One packet of fwknop's client: what must hold before, the message, the sealing, and the way back."""

from __future__ import annotations

import os
import pwd
import random
import re
import shutil

from tinyknop import compat, log, net, spa
from tinyknop.client import WIRE_LIMIT
from tinyknop.errors import Rejected
from tinyknop.host import gpg
from tinyknop.host.fwoptions import RAW, Refused
from tinyknop.seal import seal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tinyknop.host.fwrequest import Request
    from tinyknop.host.gpg import Signature
    from tinyknop.seal import Keys

SHORTEST_WIRE = 140  # characters; what is shorter fwknopd drops without a word
FIRST_PORT, LAST_PORT = 10000, 65534  # what --rand-port and --nat-rand-port choose from
# Where a packet is refused, as the reference's library says it; our reason follows in brackets.
PHRASES = {
    "username": "fko_set_username: Error 91 - Args contain invalid data",
    "message": "fko_set_spa_message: Error 102 - Invalid SPA access message format",
    "nat": "fko_set_nat_access_str: Error 4 - Args contain invalid data",
    "timeout": "fko_set_spa_client_timeout: Error 42 - Args contain invalid data",
    "timestamp": "fko_set_timestamp: Error 19 - Args contain invalid data",
    "key": "fko_spa_data_final: Error 95 - Invalid key length",
    "length": "fko_set_spa_message: Error 94 - Value or Size of the data exceeded the max allowed",
}


def check(request: Request) -> None:
    """Raises Refused for what cannot be asked for; the order of the checks is the reference's."""
    excused = any(request[name] for name in ("test", "key-gen", "version", "show-last", "last-cmd"))
    if not request["SPA_SERVER"] and not excused:
        raise Refused("Must use --destination unless --test mode is used")
    if request["save-rc-stanza"] and not (request["named-config"] or request["SPA_SERVER"]):
        raise Refused("Must use --destination unless --test mode is used")
    if request["ALLOW_IP"] is None and not request.resolves and not excused:
        raise Refused("Must use one of [-s|-R|-a] to specify IP for SPA access.")
    _check_addresses(request)
    if request["VERBOSE"] and request["ALLOW_IP"] == "source" and not excused:
        log.warning("[-] WARNING: Should use -a or -R to harden SPA against potential MITM attacks")
    if request["http-proxy"] is not None and request["SPA_SERVER_PROTO"] != "http":
        raise Refused("Cannot set --http-proxy with a non-HTTP protocol.")
    if request["USE_GPG"] and not request["GPG_RECIPIENT"]:
        raise Refused("Must specify --gpg-recipient-key when GPG is used.")
    if request["ENCRYPTION_MODE"] == "asymmetric" and not request["USE_GPG"]:
        raise Refused("Must specify GPG recipient/signing keys when Asymmetric encryption mode is used.")
    if request["ENCRYPTION_MODE"] == "legacy" and request["USE_HMAC"]:
        raise Refused("Legacy encryption mode is incompatible with HMAC usage.")
    if request["FW_TIMEOUT"] > spa.LONGEST_TIMEOUT:
        raise Refused("fwknop: %s (a server takes %d seconds at most)" % (PHRASES["timeout"], spa.LONGEST_TIMEOUT))
    _warn_of_unused(request)


def _check_addresses(request: Request) -> None:
    allowed = request["ALLOW_IP"]
    if allowed not in (None, "source", "resolve"):
        try:
            net.packed(allowed)
        except ValueError:
            raise Refused("Invalid allow IP specified for SPA access") from None
        if ":" in allowed:
            log.warning("[-] %s is an IPv6 address: tinyknop's server takes it, fwknopd does not", allowed)
    if request["SPOOF_SOURCE_IP"] is not None:
        if not re.fullmatch(r"[0-9.]+", request["SPOOF_SOURCE_IP"]):
            raise Refused("Invalid spoof IP")
        try:
            net.packed(request["SPOOF_SOURCE_IP"])
        except ValueError:
            raise Refused("Invalid spoof IP") from None
        if request["SPA_SERVER_PROTO"] not in RAW:
            raise Refused("Must set -P <udpraw|tcpraw|icmp> with a spoofed source IP")


def _warn_of_unused(request: Request) -> None:
    """Says which wishes change nothing, so that none is ignored in silence."""
    if request["server-cmd"]:
        for name, option in (("NAT_ACCESS", "-N"), ("NAT_LOCAL", "--nat-local"), ("FW_TIMEOUT", "-f")):
            if name in request.told and request[name]:
                log.warning("[-] %s is not part of a command message, so it is not sent", option)
    if request["ALLOW_IP"] not in (None, "resolve") and "RESOLVE_IP_HTTPS" in request.told:
        log.warning("[-] -R is not carried out, since an address is given: leave out one of them")


def user_of(request: Request) -> str:
    """Returns the user name to send: -U, else what the environment or the system says."""
    try:
        login = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a user without a name, as in some containers
        login = None
    from_environment = [os.environ.get(name) for name in ("SPOOF_USER", "LOGNAME", "USER")]
    names: list[str | None] = [request["SPOOF_USER"], *from_environment[:2], login, from_environment[2], "NO_USER"]
    return next(name for name in names if name)


def random_port() -> int:
    """Returns a port from the range of the reference, not to be foreseen by others."""
    return random.SystemRandom().randint(FIRST_PORT, LAST_PORT)


def nat_of(request: Request, port: str) -> str | None:
    """Returns the NAT field `host,port`, or None; `port` is the one that -A names. Raises Refused."""
    wanted = request["NAT_ACCESS"]
    if wanted is None:
        if not request["NAT_LOCAL"]:
            return None
        wanted = request["SPA_SERVER"]  # a name stays one: the server looks it up
        return "%s,%s" % (wanted, port)
    host, separator, text = wanted.replace(":", ",").partition(",")
    failure = "\nfwknop: " + PHRASES["nat"]
    if separator:
        if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
            raise Refused("[*] Invalid port value in -N arg." + failure)
        port = "%d" % int(text)
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,%d}" % spa.LONGEST_HOST, host):
        raise Refused("[*] Invalid NAT destination '%s' for -N arg.%s" % (host, failure))
    return "%s,%s" % (host, port)


def packet_of(request: Request) -> spa.Packet:
    """Returns the Packet that is asked for; raises Refused. The address to allow has been resolved."""
    address = "0.0.0.0" if request["ALLOW_IP"] == "source" else request["ALLOW_IP"]
    access, nat, kind = request["ACCESS"], None, None
    if address in (None, "resolve"):
        error = "101 - Invalid SPA command message format" if request["server-cmd"] else None
        error = error or "100 - Invalid allow IP address in the SPA message data"
        raise Refused("fwknop: fko_set_spa_message: Error %s (give an address: -a, or -s)" % error)
    if request["server-cmd"]:
        access, kind = request["server-cmd"], spa.COMMAND
    elif not access:
        raise Refused("fwknop: nothing to open: say what with -A, such as -A tcp/22")
    else:
        first = re.match(r"[a-z]+/([0-9]+)", access)
        nat = nat_of(request, first.group(1) if first else "")
        kind = spa.LOCAL_NAT if request["NAT_LOCAL"] else None
        access = _moved(request, access, address, nat)
    return spa.Packet(
        message="%s,%s" % (address, access),
        username=user_of(request),
        timestamp=compat.wall() + request["TIME_OFFSET"],
        message_type=kind,
        nat_access=nat,
        client_timeout=request["FW_TIMEOUT"],
    )


def _moved(request: Request, access: str, address: str, nat: str | None) -> str:
    """Returns what is asked for with the port for NAT, where one is wished, in the place of its own."""
    port = random_port() if request["NAT_RAND_PORT"] else request["NAT_PORT"]
    if not port:
        return access
    if "," in access:
        raise Refused("[*] NAT for multiple ports/protocols not yet supported.")
    access = "%s/%d" % (access.partition("/")[0], port)
    if request["NAT_RAND_PORT"] and nat:
        said = "[+] Randomly assigned port '%d' on: '%s,%s' will grant access to: '%s'"
        print(said % (port, address, access, nat))
    return access


def sealed(packet: spa.Packet, keys: Keys, request: Request, secret: bytes | None = None) -> bytes:
    """Returns the packet's bytes as on the wire; raises Refused, with how many openings fit where it is too long."""
    try:
        data = _sealed(packet, keys, request, secret)
        if len(data) < SHORTEST_WIRE:
            said = "[-] %d characters, and fwknopd takes no fewer than %d: add an HMAC, or use a longer digest"
            log.warning(said, len(data), SHORTEST_WIRE)
        if len(data) < WIRE_LIMIT or request["USE_GPG"]:
            return data
        reason = Rejected("length", "%d characters, and a server takes %d" % (len(data), WIRE_LIMIT - 1))
    except Rejected as error:
        reason = error
    if reason.stage == "length" or len(packet.message or "") > spa.LONGEST_MESSAGE:
        _say_what_fits(packet, keys, request, secret)
    if reason.stage == "key" and request["USE_GPG"]:
        raise Refused("fwknop: %s\nGPG ERR: %s" % (_gpg_phrase(request, reason.reason), reason.reason))
    raise _refused(packet, reason)


def _refused(packet: spa.Packet, reason: Rejected) -> Refused:
    """Returns the Refused that says a Rejected in the reference's words, with ours in brackets."""
    phrase = PHRASES.get(reason.stage, reason.stage)
    if reason.stage == "message" and packet.message_type == spa.COMMAND:
        phrase = "fko_set_spa_message: Error 101 - Invalid SPA command message format"
    return Refused("fwknop: %s (%s)" % (phrase, reason.reason))


def check_fields(packet: spa.Packet, request: Request) -> None:
    """Raises Refused for a field that cannot be sent, before anybody is asked for a key; a length is told later."""
    try:
        spa.compose(packet, request["DIGEST_TYPE"])
    except Rejected as reason:
        if packet.message_type == spa.COMMAND or len(packet.message or "") <= spa.LONGEST_MESSAGE:
            raise _refused(packet, reason) from None


def _sealed(packet: spa.Packet, keys: Keys, request: Request, secret: bytes | None) -> bytes:
    if not request["USE_GPG"]:
        return seal(packet, keys, digest=request["DIGEST_TYPE"])
    to, signer, home, exe = [request[name] for name in ("GPG_RECIPIENT", "GPG_SIGNER", "GPG_HOMEDIR", "GPG_EXE")]
    plain = spa.compose(packet, request["DIGEST_TYPE"])
    phrase = None if secret is None else secret.decode("utf-8", "surrogateescape")
    message = gpg.seal(plain, to, signer, home, exe, phrase, bool(request["USE_GPG_AGENT"]))
    return gpg.wire(message, keys)


def _gpg_phrase(request: Request, reason: str) -> str:
    """Returns the reference's words for what gpg could not do."""
    if shutil.which(request["GPG_EXE"] or "gpg") is None:
        return "fko_set_gpg_exe: Error 134 - Unable to stat the given GPG executable"
    if not os.path.isdir(request["GPG_HOMEDIR"] or "/"):
        return "fko_set_gpg_home_dir: Error 135 - Unable to stat the given GPG home directory"
    if "No public key" in reason:
        return "fko_set_gpg_recipient: Error 130 - The key for the given recipient was not found"
    if "No secret key" in reason:
        return "fko_set_gpg_signer: Error 125 - The key for the given signer was not found"
    return "fko_spa_data_final: Error 122 - Error during the encrypt and sign operation"


def _say_what_fits(packet: spa.Packet, keys: Keys, request: Request, secret: bytes | None) -> None:
    """Raises Refused with the number of openings that fit, where fewer than asked for do."""
    if packet.message_type == spa.COMMAND or request["USE_GPG"]:
        return
    whole = packet.message or ""
    address, *openings = whole.split(",")
    for count in range(min(len(openings), 64) - 1, 0, -1):
        packet.message = ",".join([address, *openings[:count]])
        try:
            fits = len(_sealed(packet, keys, request, secret)) < WIRE_LIMIT
        except Rejected:
            continue
        if fits:
            said = "fwknop: %s (%d openings are too many for one packet, %d fit: knock twice)"
            raise Refused(said % (PHRASES["length"], len(openings), count))
    packet.message = whole


def opened(data: bytes, keys: Keys, request: Request, secret: bytes | None) -> tuple[spa.Packet, Signature | None]:
    """Returns (Packet, gpg.Signature or None) of a GPG datagram, by our own access to the recipient's key.

    Raises Rejected, also where it is not signed, as the reference does.
    """
    from tinyknop.loop import Loop
    from tinyknop.stanza import Gpg

    text = data[: len(data) - keys.hmac_length]
    home = request["GPG_HOMEDIR"] or os.path.expanduser("~/.gnupg")
    password = "" if secret is None else secret.decode("utf-8", "surrogateescape")
    way = Gpg(None, password, False, True, None, None, home, request["GPG_EXE"] or "gpg")
    plain, signature = Loop().run_until(gpg.opened(gpg.message_of(text), way))
    if signature is None:
        raise Rejected("signature", "not signed: name your key with --gpg-signer-key")
    return spa.parse(plain, True), signature
