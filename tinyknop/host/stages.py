"""Every stage at which a packet is refused, in people's words: what it means and what to do about it.

`tinyknop explain` and docs/troubleshooting.md say it from here.
"""

ABOUT = {
    "size": (
        "the payload is shorter than 140 or longer than 1500 bytes, so it cannot be a knock",
        "Strangers and scanners do this. If it was yours: what cuts the packet on its way (an MTU, a proxy)?",
    ),
    "prefix": (
        "the payload begins with the prefix that every sender must leave out",
        "The program that sent it does not speak fwknop's format. Update it.",
    ),
    "http": (
        "the HTTP request around the packet is not one that this server takes",
        "fwknop's own agent name is required unless ALLOW_ANY_USER_AGENT is set. Is the way a GET of the packet?",
    ),
    "source": (
        "no stanza is for the address that the packet came from",
        "Add the address or its network to the stanza's source, or write ANY. Behind NAT it is the outer address.",
    ),
    "destination": (
        "no stanza is for the address that the packet was sent to",
        "Correct the stanza's destination, or take it out.",
    ),
    "expired": (
        "the stanza has an end, and it is over",
        "Move access_expire (or access_expire_epoch), or take it out.",
    ),
    "hint": (
        "every stanza that it could be for requires a hint, and it has none of theirs",
        "Set hints = true in the client's target; compare both clocks; fwknop's own client sends none, so its stanza"
        " cannot have require_hint.",
    ),
    "length": (
        "its length is not that of a packet for this stanza: from 400 characters on a packet is taken for GPG",
        "Shorten what is asked for, or add the stanza's GPG keys. A GPG stanza without key needs a GPG packet.",
    ),
    "key": (
        "the key of the stanza or target cannot be one",
        "Make a new pair with `tinyknop keygen`.",
    ),
    "charset": (
        "it holds a character outside base64, or base64 that nobody writes so",
        "Strangers do this. If it was yours, something on its way has changed it.",
    ),
    "hmac": (
        "the HMAC is that of no stanza: other keys, another HMAC, or a stranger",
        "Compare both sides' HMAC key and HMAC type. `tinyknop keygen --for HOST NAME` writes both sides anew.",
    ),
    "replay": (
        "this very packet was here before, or it is older than what the server still remembers",
        "A client never sends a packet twice, so somebody repeats it, or the net has doubled it. Nothing to do, unless"
        " the true knock beside it was refused as well.",
    ),
    "decrypt": (
        "the HMAC holds, but the key does not open it",
        "Compare both sides' key (KEY_BASE64) and encryption mode.",
    ),
    "fields": (
        "it was opened, and what is inside is not made of an SPA packet's fields",
        "Key or mode differ, or the client is broken. Compare both sides' key and encryption mode.",
    ),
    "digest": (
        "the digest inside does not fit its fields",
        "Key or mode differ, or the client is broken. Compare both sides' key and encryption mode.",
    ),
    "username": ("the user name inside has a form that is not allowed", "Give the client another user name."),
    "timestamp": ("the time inside is none", "The client is broken, or its clock stands before 1970."),
    "version": ("the version inside is none", "The client is broken. Update it."),
    "type": ("the kind of message inside is none that exists", "The client is newer than this server, or broken."),
    "message": (
        "what it asks for is not written as ADDRESS,PROTOCOL/PORT",
        "Correct what the client asks for, such as tcp/22. fwknop's server takes no IPv6 address.",
    ),
    "nat": (
        "it asks for NAT to something that cannot be, or that no port of the stanza can do",
        "Correct the inside host of the request. NAT needs iptables, nftables or firewalld, and a host that resolves.",
    ),
    "server_auth": ("its server authentication field has a form that is not allowed", "Take it out of the client."),
    "timeout": ("the time it asks for is no number of seconds", "Correct the client's timeout."),
    "signature": (
        "its GPG signature is missing, does not verify, or is by somebody who is not listed",
        "List the signer in gpg_fingerprint_id, and have the signer's public key in the server's keyring.",
    ),
    "clock": (
        "this server's clock is behind what it was: after a power cut without a clock chip, say",
        "Set the clock (NTP). Knocks are refused until then, since old ones could not be told from new ones.",
    ),
    "age": (
        "its time and this server's clock are too far apart",
        "Set both clocks (NTP). The window is max_age, 120 s unless you say otherwise; leave it small.",
    ),
    "address": (
        "it names no address, and the stanza requires one",
        'Let the client say which: address = "resolve" or an address, or -R or -a; not "source" or -s.',
    ),
    "user": (
        "the user name inside is not the one that the stanza requires",
        "Correct require_username, or the client.",
    ),
    "openings": (
        "it asks for a port that the stanza does not allow",
        "Add it to the stanza's openings, or correct what the client asks for.",
    ),
    "disabled": (
        "it is a kind of message that the stanza, or the server, does not allow",
        "Commands need enable_cmd_exec in the stanza; NAT needs forwarding enabled; in test mode nothing is opened.",
    ),
    "full": (
        "it could not be honoured safely: the disk or a store is full, or a required port is down",
        "Look at ports, and at the space in the state directory; `tinyknop status` says which it is.",
    ),
}
