"""The table of what one packet does to a firewall: the same for both clients and both daemons but for named exceptions.

A row says how the daemons are configured, what the client is told, and what must hold after. Rows that start their
daemons alike (`conf`, `argv`, `last`) share one start: their stanzas stand in one access.conf, each with own keys.

Words in braces: {key} {hmac} the row's keys in base64 · {ip} an address of its own to allow · {src} the packet's source
· {world} the folder of the files · {packet} where the client saves its packet · {client} which client · {n} the row.

Rules are written as `CHAIN MATCH TARGET`, without FWKNOP_, /32 and what `-p` implies; `seconds` says for how long.
`ours` is what differs on purpose when tinyknop is the daemon, `mine` when it is the client; `better` names the reason
in docs/differences.md.
"""

from collections import namedtuple

FIELDS = "name client access conf argv also rc rules files cached says seconds after"
FIELDS += " ours mine better status apart alone last digest"
Row = namedtuple("Row", FIELDS)
Broken = namedtuple("Broken", "name conf access argv also status")

SCENARIOS = []
BROKEN = []
STANZA = "SOURCE ANY\nKEY_BASE64 {key}\nHMAC_KEY_BASE64 {hmac}\n"
ALWAYS = "--no-save-args "
PLAIN = ALWAYS + "--no-rc-file -D 10.99.0.1 "
SSH = "-A tcp/22 -a {ip}"
DEFAULTS = {"conf": "", "argv": "", "also": {}, "rc": {}, "rules": (), "files": {}, "cached": 1, "says": None}
DEFAULTS.update(seconds=30, after=None, ours={}, mine={}, better=None, status=0, apart=False, alone=False, last="rule")
DEFAULTS.update(digest="run/digest.cache")
PHRASES = {
    "old": "SPA data time difference is too great",
    "ports": "One or more requested protocol/ports was denied per access.conf.",
    "nat": "requested NAT access, but is not enabled/supported",
    "command": "SPA Command messages are not allowed in the current configuration.",
    "source": "Got 0.0.0.0 when valid source IP was required.",
    "replay": "Replay detected from source IP: {src}",
}


def row(name, client=SSH, access="", **more):
    """Adds a row, and returns it; what it leaves out is the row's keys and the stanza that has them."""
    keys = more.pop("keys", "{keys} ")
    steps = [client] if isinstance(client, str) else list(client)
    words = [step if step.split()[0] in STEPS else prefix(step, keys) + step for step in steps]
    stanza = access if "\nSOURCE" in "\n" + access or "%include" in access else STANZA + access
    made = Row(name=name, client=words, access=stanza, **dict(DEFAULTS, **more))
    if made.alone != "apart from the table":
        SCENARIOS.append(made)
    return made


STEPS = ("resend", "pause", "web")


def prefix(step, keys):
    """Returns the options that come before a row's own."""
    return ALWAYS if "--rc-file" in step else PLAIN + keys


def opens(*ports, who="{ip}"):
    """Returns the INPUT rules of plain access."""
    return tuple("INPUT -s %s -p %s --dport %s -j ACCEPT" % (who, *port.split("/")) for port in ports)


def broken(name, access=STANZA, conf="", argv="", also=None, status=1):
    """Adds a configuration that both daemons refuse to run with."""
    BROKEN.append(Broken(name, conf, access, argv, also or {}, status))


# ---- what opens ------------------------------------------------------------------------------------------------------

row("one port", rules=opens("tcp/22"))
row("several ports", "-A tcp/22,udp/53,tcp/993 -a {ip}", rules=opens("tcp/22", "udp/53", "tcp/993"))
row("udp alone", "-A udp/1194 -a {ip}", rules=opens("udp/1194"))
row("highest port", "-A tcp/65535 -a {ip}", rules=opens("tcp/65535"))
row("packet source", "-A tcp/1001 -s", rules=opens("tcp/1001", who="{src}"))
row("own address", "-A tcp/1002 -a {src}", rules=opens("tcp/1002", who="{src}"))
row("same packet's port twice", "-A tcp/22,tcp/22 -a {ip}", rules=opens("tcp/22"))
row(
    "more ports than a packet holds",
    "-A %s -a {ip}" % ",".join("tcp/%d" % (20000 + count) for count in range(23)),
    cached=0,
    mine={"status": 1},
    better="client-limit",
)
row(
    "second knock extends",
    (SSH, "pause", SSH),
    rules=opens("tcp/22") * 2,
    cached=2,
    ours={"rules": opens("tcp/22")},
    better="extend",
)
row(
    "closes on time",
    "-A tcp/22 -a {ip} -f 3",
    rules=opens("tcp/22"),
    seconds=3,
    after={"rules": ()},
)

# ---- ciphers, digests, HMACs -----------------------------------------------------------------------------------------

for mode in ("cbc", "ctr", "ecb", "cfb", "ofb"):
    row("mode " + mode, SSH + " -M " + mode, "ENCRYPTION_MODE %s\n" % mode, rules=opens("tcp/22"))
row(
    "mode legacy",
    SSH + " -M legacy",
    "SOURCE ANY\nKEY sixteen bytes it\nENCRYPTION_MODE legacy\n",
    keys="--key-rijndael 'sixteen bytes it' ",
    rules=opens("tcp/22"),
)
row("mode is not the stanza's", SSH + " -M ctr", "ENCRYPTION_MODE cbc\n", cached=0)
NAMES = ("md5", "sha1", "sha256", "sha384", "sha512", "sha3_256", "sha3_512")
for digest in NAMES:
    row("digest " + digest, SSH + " -m " + digest, rules=opens("tcp/22"))
for digest in NAMES:
    row(
        "hmac " + digest, SSH + " --hmac-digest-type " + digest, "HMAC_DIGEST_TYPE %s\n" % digest, rules=opens("tcp/22")
    )
row(
    "sha3 twice", SSH + " -m sha3_512 --hmac-digest-type sha3_256", "HMAC_DIGEST_TYPE sha3_256\n", rules=opens("tcp/22")
)
row("hmac type is not the stanza's", SSH + " --hmac-digest-type sha512", cached=0)
row(
    "no hmac",
    access="SOURCE ANY\nKEY_BASE64 {key}\n",
    keys="--key-base64-rijndael {key} ",
    rules=opens("tcp/22"),
)
row("no hmac where one is required", keys="--key-base64-rijndael {key} ", cached=0)
row("hmac where none is expected", access="SOURCE ANY\nKEY_BASE64 {key}\n", cached=0)
row("wrong key", keys="--key-rijndael wrong --use-hmac --key-base64-hmac {hmac} ", cached=0)
row("wrong hmac key", keys="--key-base64-rijndael {key} --use-hmac --key-hmac wrong ", cached=0)

# ---- where keys come from --------------------------------------------------------------------------------------------

PASSPHRASES = "SOURCE ANY\nKEY open says me #{n}\nHMAC_KEY authentic words #{n}\n"
row(
    "passphrases",
    access=PASSPHRASES,
    keys="--key-rijndael 'open says me #{n}' --key-hmac 'authentic words #{n}' ",
    rules=opens("tcp/22"),
)
RC = """[default]
DIGEST_TYPE sha512
[other]
SPA_SERVER 192.0.2.1
[gate]
SPA_SERVER 10.99.0.1
ACCESS tcp/22
ALLOW_IP {ip}
KEY_BASE64 {key}
HMAC_KEY_BASE64 {hmac}
USE_HMAC Y
FW_TIMEOUT 45
"""
row("rc file", "--rc-file {home}/rc -n gate", rc={"rc": RC}, rules=opens("tcp/22"), seconds=45)
row("rc file and option", "--rc-file {home}/rc -n gate -f 50", rc={"rc": RC}, rules=opens("tcp/22"), seconds=50)
row(
    "rc file in the home",
    "--rc-file {home}/.fwknoprc -n GATE -A udp/53",
    rc={".fwknoprc": RC},
    rules=opens("udp/53"),
    seconds=45,
)
row(
    "key files",
    access=PASSPHRASES,
    keys="-G {home}/keys --get-hmac-key {home}/hmac-keys ",
    rc={
        "keys": "# servers\n192.0.2.1: other\n10.99.0.1: open says me #{n}\n",
        "hmac-keys": "10.99.0.1: authentic words #{n}\n",
    },
    rules=opens("tcp/22"),
)

LONG = "a passphrase of more than thirty-two characters #{n}"
row(
    "passphrases that are too long",
    access="SOURCE ANY\nKEY %s\nHMAC_KEY also %s\n" % (LONG, LONG),
    keys="--key-rijndael '%s' --key-hmac 'also %s' " % (LONG, LONG),
    status=1,
    cached=0,
    alone=True,
)
row(
    "short passphrases",
    access="SOURCE ANY\nKEY x{n}\nHMAC_KEY y{n}\n",
    keys="--key-rijndael x{n} --key-hmac y{n} ",
    rules=opens("tcp/22"),
)
row(
    "saved stanza",
    (
        "-D 10.99.0.1 -A tcp/22 -a {ip} -f 44 {keys} -T --rc-file {home}/saved --save-rc-stanza -n gate",
        "--rc-file {home}/saved -n gate",
    ),
    rules=opens("tcp/22"),
    seconds=44,
)
RESOLVED = opens("tcp/1009", who="198.18.250.{last}")
row("address found by http", "-A tcp/1009 --resolve-http-only --resolve-url http://127.0.0.1/ip", rules=RESOLVED)
row(
    "address found by wget",
    "-A tcp/22 -R --resolve-url https://gate.example/ip -w {home}/wget",
    rc={"wget": "#!/bin/sh\necho {ip}\n"},
    rules=opens("tcp/22"),
)

# ---- which stanza, which ports, who ----------------------------------------------------------------------------------

row("ports listed", "-A tcp/22,udp/53 -a {ip}", "OPEN_PORTS udp/53, tcp/22\n", rules=opens("tcp/22", "udp/53"))
row("port not listed", "-A tcp/23 -a {ip}", "OPEN_PORTS tcp/22\n", says=PHRASES["ports"])
row("one of two not listed", "-A tcp/22,tcp/23 -a {ip}", "OPEN_PORTS tcp/22\n", says=PHRASES["ports"])
row("listed for the other protocol", "-A udp/22 -a {ip}", "OPEN_PORTS tcp/22\n", says=PHRASES["ports"])
row(
    "port listed twice",
    access="OPEN_PORTS tcp/22,tcp/22\n",
    says=PHRASES["ports"],
    ours={"rules": opens("tcp/22"), "says": None},
    better="ports-are-sets",
)
row(
    "port listed twice and another",
    "-A tcp/22,tcp/99 -a {ip}",
    "OPEN_PORTS tcp/22,tcp/22\n",
    rules=opens("tcp/22", "tcp/99"),
    ours={"rules": (), "says": PHRASES["ports"]},
    better="ports-are-sets",
)
row("restricted", "-A tcp/22,tcp/23 -a {ip}", "RESTRICT_PORTS tcp/23\n", says=PHRASES["ports"])
row("not restricted", "-A tcp/22 -a {ip}", "RESTRICT_PORTS tcp/23\n", rules=opens("tcp/22"))
row("restricted beats open", "-A tcp/23 -a {ip}", "OPEN_PORTS tcp/23\nRESTRICT_PORTS tcp/23\n", says=PHRASES["ports"])
row("right user", SSH + " -U alice", "REQUIRE_USERNAME alice\n", rules=opens("tcp/22"))
row(
    "wrong user",
    SSH + " -U mallory",
    "REQUIRE_USERNAME alice\n",
    says="does not match required username: alice",
)
row("user in other case", SSH + " -U Alice", "REQUIRE_USERNAME alice\n", says="does not match required username: alice")
row("address required and given", access="REQUIRE_SOURCE_ADDRESS Y\n", rules=opens("tcp/22"))
row("address required, not given", "-A tcp/22 -s", "REQUIRE_SOURCE_ADDRESS Y\n", says=PHRASES["source"])
row("address required by its other name", "-A tcp/22 -s", "REQUIRE_SOURCE Y\n", says=PHRASES["source"])
FROM = "SOURCE %s\nKEY_BASE64 {key}\nHMAC_KEY_BASE64 {hmac}\n"
row("source network", access=FROM % "10.99.0.0/24", rules=opens("tcp/22"))
row("source networks", access=FROM % "192.0.2.1, 10.99.0.0/255.255.255.0", rules=opens("tcp/22"))
row("source network of others", access=FROM % "192.0.2.0/24", cached=0)
row(
    "source of no stanza",
    access=FROM % "192.0.2.0/24",
    cached=0,
    alone=True,
    says="No access data found for source IP: {src}",
)
row("destination", access="DESTINATION 10.99.0.0/24\n", rules=opens("tcp/22"))
row("destination of others", access="DESTINATION 10.99.1.0/24\n", cached=0)
row("stanza expired", access="ACCESS_EXPIRE 11/23/2020\n", cached=0)
row("stanza not yet expired", access="ACCESS_EXPIRE 11/23/2036\n", rules=opens("tcp/22"))
row("stanza expired by epoch", access="ACCESS_EXPIRE_EPOCH 1600000000\n", cached=0)
row("stanza not yet expired by epoch", access="ACCESS_EXPIRE_EPOCH 2100000000\n", rules=opens("tcp/22"))
STANZAS = """SOURCE 192.0.2.1
KEY_BASE64 {key}
HMAC_KEY_BASE64 {hmac}

SOURCE ANY
KEY_BASE64 {key}
HMAC_KEY_BASE64 {hmac}
OPEN_PORTS tcp/80

SOURCE ANY
KEY_BASE64 {key}
HMAC_KEY another key #{n}

SOURCE ANY
KEY_BASE64 {key}
HMAC_KEY_BASE64 {hmac}
REQUIRE_USERNAME bob

SOURCE ANY
KEY_BASE64 {key}
HMAC_KEY_BASE64 {hmac}
ACCESS_EXPIRE 01/01/2020

SOURCE ANY
KEY_BASE64 {key}
HMAC_KEY_BASE64 {hmac}
DESTINATION 192.0.2.1

SOURCE ANY
KEY_BASE64 {key}
HMAC_KEY_BASE64 {hmac}
OPEN_PORTS tcp/22
FW_ACCESS_TIMEOUT 45

SOURCE ANY
KEY_BASE64 {key}
HMAC_KEY_BASE64 {hmac}
FW_ACCESS_TIMEOUT 99
"""
row("six stanzas refuse, the seventh grants", access=STANZAS, rules=opens("tcp/22"), seconds=45)

STRANGERS = """SOURCE ANY
KEY_BASE64 {key}
OPEN_PORTS tcp/80

SOURCE ANY
KEY a stranger #{n}

SOURCE ANY
KEY_BASE64 {key}
ENCRYPTION_MODE ctr

SOURCE ANY
KEY_BASE64 {key}
GPG_ALLOW_NO_PW Y
GPG_REMOTE_ID 01234567
FW_ACCESS_TIMEOUT 46
"""
row(
    "denied, then granted by a stanza with GPG too",
    access=STRANGERS,
    keys="--key-base64-rijndael {key} ",
    rules=opens("tcp/22"),
    seconds=46,
)

# ---- for how long ----------------------------------------------------------------------------------------------------

row("time of the stanza", access="FW_ACCESS_TIMEOUT 77\n", rules=opens("tcp/22"), seconds=77)
row("time of the client", SSH + " -f 40", rules=opens("tcp/22"), seconds=40)
row("time of the client, capped", SSH + " -f 500", "MAX_FW_TIMEOUT 60\n", rules=opens("tcp/22"), seconds=60)
row("time of the client, capped by default", SSH + " -f 5000", rules=opens("tcp/22"), seconds=300)
row("time of the client below the cap", SSH + " -f 50", "MAX_FW_TIMEOUT 60\n", rules=opens("tcp/22"), seconds=50)
row("time of the client zero", SSH + " -f 0", rules=opens("tcp/22"))
row("time zero in the stanza", access="FW_ACCESS_TIMEOUT 0\n", rules=opens("tcp/22"))
row(
    "cap below the stanza's time",
    access="FW_ACCESS_TIMEOUT 40\nMAX_FW_TIMEOUT 20\n",
    rules=opens("tcp/22"),
    seconds=40,
    ours={"seconds": 20},
    better="max-timeout",
)

# ---- ageing ----------------------------------------------------------------------------------------------------------

row("a minute old", SSH + " --time-offset-minus 60s", rules=opens("tcp/22"))
row("a minute in the future", SSH + " --time-offset-plus 1m", rules=opens("tcp/22"))
row("five minutes old", SSH + " --time-offset-minus 5m", says=PHRASES["old"])
row("an hour in the future", SSH + " --time-offset-plus 1h", says=PHRASES["old"])
row("too old for a short window", SSH + " --time-offset-minus 20", conf="MAX_SPA_PACKET_AGE 10;\n", says=PHRASES["old"])
AGELESS = "ENABLE_SPA_PACKET_AGING N;\n"
row("ageing off, older than the window", SSH + " --time-offset-minus 150", conf=AGELESS, rules=opens("tcp/22"))
row(
    "ageing off, from before the machine's start",
    SSH + " --time-offset-minus 3650d",
    conf=AGELESS,
    rules=opens("tcp/22"),
    ours={"rules": ()},
    better="stamped-before-boot",
)
row(
    "ageing off, replayed",
    (SSH + " -B {packet}", "resend"),
    conf=AGELESS,
    rules=opens("tcp/22"),
    says=PHRASES["replay"],
)

# ---- replays and things that are no packets --------------------------------------------------------------------------

SAVED = SSH + " -B {packet}"
row("replayed", (SAVED, "resend"), rules=opens("tcp/22"), says=PHRASES["replay"])
row(
    "replayed from elsewhere",
    (SAVED, "resend elsewhere"),
    rules=opens("tcp/22"),
    says="Replay detected from source IP: {other}",
)
row(
    "replayed after it was denied",
    ("-A tcp/23 -a {ip} -B {packet}", "resend"),
    "OPEN_PORTS tcp/22\n",
    says=PHRASES["replay"],
)
row("saved and sent later", (SSH + " -T -B {packet}", "resend"), rules=opens("tcp/22"))
row("prefix added again", (SSH + " -T -B {packet}", "resend prefixed"), cached=0)
row("newline at the end", (SSH + " -T -B {packet}", "resend newline"), cached=0)
row("blank inside", (SSH + " -T -B {packet}", "resend blank"), cached=0)
row("one character short", (SSH + " -T -B {packet}", "resend cut"), cached=0)
row("one character changed", (SSH + " -T -B {packet}", "resend flipped"), cached=0)
row("cut to 139 characters", (SSH + " -T -B {packet}", "resend short"), cached=0)
row("junk of the same length", (SSH + " -T -B {packet}", "resend junk"), cached=0)
row("replayed with a prefix", (SAVED, "resend prefixed"), rules=opens("tcp/22"))
NO_HMAC = {"access": "SOURCE ANY\nKEY_BASE64 {key}\n", "keys": "--key-base64-rijndael {key} "}
row(
    "replayed in another spelling, no hmac",
    (SAVED + " -U fifteen-letters", "resend respelled"),
    rules=opens("tcp/22"),
    **NO_HMAC,
)
row(
    "replayed with padding, no hmac",
    (SAVED + " -U fifteen-letters", "pause", "resend padded"),
    rules=opens("tcp/22") * 2,
    cached=2,
    ours={"rules": opens("tcp/22"), "cached": 1},
    better="one-spelling",
    **NO_HMAC,
)
row("replayed with padding", (SAVED, "resend padded"), rules=opens("tcp/22"))
row("replayed in another spelling", (SAVED + " -U fifteen-letters", "resend respelled"), rules=opens("tcp/22"))
row(
    "replay cache that cannot be written",
    conf="DIGEST_FILE {world}/out;\n",
    last="refused",
    rules=opens("tcp/22"),
    cached=0,
    ours={"rules": ()},
    better="replay-fails-closed",
)
row(
    "replay check off",
    (SAVED, "pause", "resend"),
    conf="ENABLE_DIGEST_PERSISTENCE N;\n",
    last="unremembered",
    rules=opens("tcp/22") * 2,
    cached=0,
    ours={"rules": opens("tcp/22")},
    better="extend",
)

# ---- how the files are written ---------------------------------------------------------------------------------------

row(
    "included file",
    access="%include {world}/more-{n}.conf\n",
    also={"more-{n}.conf": STANZA + "OPEN_PORTS tcp/22\n"},
    rules=opens("tcp/22"),
)
row(
    "included folder",
    access="%include_folder {world}/folder-{n}\n",
    also={
        "folder-{n}/a.conf": "SOURCE ANY\nKEY nobody #{n}\n",
        "folder-{n}/b.conf": STANZA,
        "folder-{n}/c.txt": "junk\n",
    },
    rules=opens("tcp/22"),
)
row(
    "included keys",
    access="SOURCE ANY\nOPEN_PORTS tcp/22\n%include_keys {world}/keys-{n}.conf\nFW_ACCESS_TIMEOUT 44\n",
    also={"keys-{n}.conf": "KEY_BASE64 {key}\nHMAC_KEY_BASE64 {hmac}\n"},
    rules=opens("tcp/22"),
    seconds=44,
)
row(
    "colons, comments, blanks and a repeated name",
    access="# a comment\n\nSOURCE:   ANY\n; another\nKEY_BASE64: {key}\nHMAC_KEY_BASE64:\t{hmac};  no more\n"
    "OPEN_PORTS tcp/80\nOPEN_PORTS tcp/22   \n",
    rules=opens("tcp/22"),
)
row("unknown name", access="OPEN_PROTS tcp/80\n", rules=opens("tcp/22"), says=None)
row("number with junk behind it", access="FW_ACCESS_TIMEOUT 40s\n", rules=opens("tcp/22"), seconds=40)
row(
    "override file",
    SSH + " --time-offset-minus 90",
    conf="MAX_SPA_PACKET_AGE 10;\nENABLE_IPT_OUTPUT N;\n",
    argv="-O {world}/over.conf,{world}/over2.conf",
    also={"over.conf": "MAX_SPA_PACKET_AGE 20;\nENABLE_IPT_OUTPUT Y;\n", "over2.conf": "MAX_SPA_PACKET_AGE 200;\n"},
    rules=(*opens("tcp/22"), "OUTPUT -d {ip} -p tcp --sport 22 -j ACCEPT"),
)
row(
    "variable in a value",
    conf="FWKNOP_CONF_DIR {world};\nDIGEST_FILE $FWKNOP_CONF_DIR/elsewhere.cache;\n",
    digest="elsewhere.cache",
    rules=opens("tcp/22"),
)
row(
    "access folder",
    argv="--access-folder {world}/stanzas",
    also={"stanzas/one.conf": STANZA + "FW_ACCESS_TIMEOUT 33\n", "stanzas/last.conf": "{last-stanza}"},
    access="SOURCE 192.0.2.1\nKEY not read\n",
    alone=True,
    seconds=33,
    rules=opens("tcp/22"),
)

# ---- iptables --------------------------------------------------------------------------------------------------------

ALL_THREE = "ENABLE_IPT_OUTPUT Y;\nENABLE_DESTINATION_RULE Y;\nENABLE_RULE_PREPEND Y;\n"
row(
    "destination rule",
    conf="ENABLE_DESTINATION_RULE Y;\n",
    rules=["INPUT -s {ip} -d 10.99.0.1 -p tcp --dport 22 -j ACCEPT"],
)
row(
    "output rules",
    "-A tcp/22,udp/53 -a {ip}",
    conf="ENABLE_IPT_OUTPUT Y;\n",
    rules=(
        *opens("tcp/22", "udp/53"),
        "OUTPUT -d {ip} -p tcp --sport 22 -j ACCEPT",
        "OUTPUT -d {ip} -p udp --sport 53 -j ACCEPT",
    ),
)
row(
    "prepended, with destination and output",
    "-A tcp/22,udp/53 -a {ip}",
    conf=ALL_THREE,
    rules=(
        "INPUT -s {ip} -d 10.99.0.1 -p udp --dport 53 -j ACCEPT",
        "INPUT -s {ip} -d 10.99.0.1 -p tcp --dport 22 -j ACCEPT",
        "OUTPUT -s 10.99.0.1 -d {ip} -p udp --sport 53 -j ACCEPT",
        "OUTPUT -s 10.99.0.1 -d {ip} -p tcp --sport 22 -j ACCEPT",
    ),
)
row(
    "chain of another name",
    conf="IPT_INPUT_ACCESS ACCEPT, filter, INPUT, 1, FWKNOP_DOORS, 1;\n",
    rules=["DOORS -s {ip} -p tcp --dport 22 -j ACCEPT"],
)
row("no look for the comment match", conf="ENABLE_IPT_COMMENT_CHECK N;\n", rules=opens("tcp/22"))
row("no probe for iptables -C", argv="--no-ipt-check-support", rules=opens("tcp/22"))

# ---- NAT -------------------------------------------------------------------------------------------------------------

NAT = "ENABLE_IPT_FORWARDING Y;\nENABLE_IPT_LOCAL_NAT Y;\n"
INSIDE = "192.168.77.5"


def forwards(asked, given, host=INSIDE, who="{ip}"):
    """Returns the rules of a connection to one inside host."""
    return (
        "FORWARD -s %s -p tcp --dport %s -j ACCEPT" % (who, given),
        "PREROUTING -s %s -p tcp --dport %s -j DNAT --to-destination %s:%s" % (who, asked, host, given),
    )


row("nat", SSH + " -N 192.168.77.5:8022", conf=NAT, rules=forwards(22, 8022))
row("nat with a comma", SSH + " -N 192.168.77.6,8022", conf=NAT, rules=forwards(22, 8022, "192.168.77.6"))
row("nat to the asked port", SSH + " -N 192.168.77.5", conf=NAT, rules=forwards(22, 22))
row("nat, first port only", "-A tcp/22,tcp/80 -a {ip} -N 192.168.77.5,8023", conf=NAT, rules=forwards(22, 8023))
row("nat by another port", SSH + " -N 192.168.77.5 --nat-port 2222", conf=NAT, rules=forwards(2222, 22))
row("nat by name", SSH + " -N localhost:8022", conf=NAT, rules=forwards(22, 8022, "127.0.0.1"))
NO_NAMES = NAT + "ENABLE_NAT_DNS N;\n"
row(
    "nat by name where names are off",
    SSH + " -N localhost:8022",
    conf=NO_NAMES,
    says="Received Hostname in NAT SPA message, but hostname is disabled.",
)
row(
    "nat by a name that nobody has",
    SSH + " -N gate.invalid:8022",
    conf=NAT,
    says="Unable to resolve Hostname in NAT SPA message",
)
row("nat with the client's time", SSH + " -N 192.168.77.5:8022 -f 40", conf=NAT, rules=forwards(22, 8022), seconds=40)
row(
    "nat from the packet's source",
    "-A tcp/1003 -s -N 192.168.77.5:8022",
    conf=NAT,
    rules=forwards(1003, 8022, who="{src}"),
)
row(
    "nat of a port that is not listed",
    SSH + " -N 192.168.77.5:8022",
    "OPEN_PORTS tcp/80\n",
    conf=NAT,
    says=PHRASES["ports"],
)
LOCAL = ("INPUT -s {ip} -p tcp --dport 80 -j ACCEPT",)
LOCAL += ("PREROUTING -s {ip} -p tcp --dport 2222 -j DNAT --to-destination 10.99.0.1:80",)
row("local nat", "-A tcp/80 -a {ip} --nat-local --nat-port 2222", conf=NAT, rules=LOCAL)
row(
    "local nat with the client's time",
    "-A tcp/80 -a {ip} --nat-local --nat-port 2222 -f 40",
    conf=NAT,
    rules=LOCAL,
    seconds=40,
)
row("nat is off", SSH + " -N 192.168.77.5:8022", says=PHRASES["nat"])
row("local nat is off", "-A tcp/80 -a {ip} --nat-local --nat-port 2222", says=PHRASES["nat"])
row("plain access beside nat", conf=NAT, rules=opens("tcp/22"))
row("forced nat", "-A tcp/2222 -a {ip}", "FORCE_NAT 192.168.77.5 22\n", conf=NAT, rules=forwards(2222, 22))
row(
    "forced nat beats the packet's",
    "-A tcp/2222 -a {ip} -N 192.168.77.9:99",
    "FORCE_NAT 192.168.77.5 22\n",
    conf=NAT,
    rules=forwards(2222, 22),
)
row(
    "forced nat of local nat",
    "-A tcp/80 -a {ip} --nat-local --nat-port 2222",
    "FORCE_NAT 192.168.77.5 25\n",
    conf=NAT,
    rules=(
        "INPUT -s {ip} -p tcp --dport 25 -j ACCEPT",
        "PREROUTING -s {ip} -p tcp --dport 2222 -j DNAT --to-destination 192.168.77.5:25",
    ),
)
row("nat without dnat", SSH + " -N 192.168.77.5:8022", "DISABLE_DNAT Y\n", conf=NAT, rules=forwards(22, 8022)[:1])
row(
    "everything is forwarded, plain request",
    "-A tcp/2222 -a {ip}",
    "FORWARD_ALL Y\n",
    conf=NAT,
    rules=opens("tcp/2222"),
)
row(
    "everything is forwarded to one host",
    "-A tcp/2222 -a {ip}",
    "FORWARD_ALL Y\nFORCE_NAT 192.168.77.5 0\n",
    conf=NAT,
    rules=("FORWARD -s {ip} -j ACCEPT", "PREROUTING -s {ip} -j DNAT --to-destination 192.168.77.5"),
)
row(
    "masquerade forced where snat is off",
    "-A tcp/2222 -a {ip}",
    "FORCE_NAT 192.168.77.5 22\nFORCE_MASQUERADE Y\n",
    conf=NAT,
    rules=forwards(2222, 22),
    ours={"rules": (*forwards(2222, 22), "MASQUERADE -d 192.168.77.5 -p tcp --dport 22 -j MASQUERADE --to-ports 2222")},
    better="snat-chains",
)
SNAT = NAT + "ENABLE_IPT_SNAT Y;\n"
row(
    "masquerade for all",
    SSH + " -N 192.168.77.5:8022",
    conf=SNAT,
    rules=(*forwards(22, 8022), "MASQUERADE -d 192.168.77.5 -p tcp --dport 8022 -j MASQUERADE --to-ports 22"),
)
row(
    "masquerade forced",
    "-A tcp/2222 -a {ip}",
    "FORCE_NAT 192.168.77.5 22\nFORCE_MASQUERADE Y\n",
    conf=SNAT,
    rules=(*forwards(2222, 22), "MASQUERADE -d 192.168.77.5 -p tcp --dport 22 -j MASQUERADE --to-ports 2222"),
)
row(
    "snat forced",
    "-A tcp/2222 -a {ip}",
    "FORCE_NAT 192.168.77.5 22\nFORCE_SNAT 192.168.77.1\n",
    conf=SNAT,
    rules=(*forwards(2222, 22), "POSTROUTING -d 192.168.77.5 -p tcp --dport 22 -j SNAT --to-source 192.168.77.1"),
)
row(
    "everything is forwarded with snat, no dnat",
    access="FORWARD_ALL Y\nDISABLE_DNAT Y\nFORCE_SNAT 192.168.77.1\n",
    conf=SNAT,
    rules=("FORWARD -s {ip} -j ACCEPT", "POSTROUTING -s {ip} -j SNAT --to-source 192.168.77.1"),
)
row(
    "everything is forwarded and masqueraded, no dnat",
    access="FORWARD_ALL Y\nDISABLE_DNAT Y\nFORCE_MASQUERADE Y\n",
    conf=SNAT,
    rules=("FORWARD -s {ip} -j ACCEPT", "MASQUERADE -s {ip} -j MASQUERADE"),
)
row(
    "snat to an address for all",
    SSH + " -N 192.168.77.5:8022",
    conf=SNAT + "SNAT_TRANSLATE_IP 192.168.77.1;\n",
    rules=(*forwards(22, 8022), "POSTROUTING -d 192.168.77.5 -p tcp --dport 8022 -j SNAT --to-source 192.168.77.1"),
)

# ---- commands --------------------------------------------------------------------------------------------------------

COMMAND = "-C '{world}/note cmd-{n}-{client} %s' -a {ip}"
row("command", COMMAND % "a b", "ENABLE_CMD_EXEC Y\n", files={"cmd-{n}-{client}": "root root,adm a b"})
row("command not allowed", COMMAND % "a b", says=PHRASES["command"])
row(
    "command is no shell's",
    COMMAND % "a;b $HOME | >{world}/out/x",
    "ENABLE_CMD_EXEC Y\n",
    files={"cmd-{n}-{client}": "root root,adm a;b $HOME | >{world}/out/x"},
)
row(
    "command as another user",
    COMMAND % "a b",
    "ENABLE_CMD_EXEC Y\nCMD_EXEC_USER nobody\n",
    files={"cmd-{n}-{client}": "nobody nogroup,adm a b"},
    ours={"files": {"cmd-{n}-{client}": "nobody nogroup a b"}},
    better="groups-dropped",
)
row(
    "command as another user and group",
    COMMAND % "a b",
    "ENABLE_CMD_EXEC Y\nCMD_EXEC_USER nobody\nCMD_EXEC_GROUP daemon\n",
    files={"cmd-{n}-{client}": "nobody daemon,adm a b"},
    ours={"files": {"cmd-{n}-{client}": "nobody daemon a b"}},
    better="groups-dropped",
)
row(
    "command by sudo",
    COMMAND % "a b",
    "ENABLE_CMD_EXEC Y\nENABLE_CMD_SUDO_EXEC Y\nCMD_SUDO_EXEC_USER nobody\n",
    conf="SUDO_EXE {world}/sudo;\n",
    files={"cmd-{n}-{client}": "-u nobody {world}/note cmd-{n}-{client} a b"},
    also={"sudo": '#!/bin/sh\necho "$*" > {world}/out/$4\n'},
)
WORDS = " w" * 26
row(
    "command of 28 words",
    COMMAND % WORDS[1:],
    "ENABLE_CMD_EXEC Y\n",
    files={"cmd-{n}-{client}": "root root,adm" + WORDS},
)
row(
    "command of 29 words",
    COMMAND % ("w" + WORDS),
    "ENABLE_CMD_EXEC Y\n",
    says="Error converting cmd str to argv via strtoargv()",
)
row("command that does not exist", "-C '/nowhere/at-all a' -a {ip}", "ENABLE_CMD_EXEC Y\n")
row("access beside commands", access="ENABLE_CMD_EXEC Y\n", rules=opens("tcp/22"))

CYCLE = "CMD_CYCLE_OPEN {world}/note open-$SRC-{n} $IP $PKT_SRC $DST $PORT $PROTO $TIMEOUT $CLIENT_TIMEOUT $ELSE\n"
OPENED = "root root,adm {ip} {src} 10.99.0.1 22 6 <now+%d> %d ELSE"
CLOSE = "CMD_CYCLE_CLOSE {world}/note close-$SRC-{n} $PORT\nCMD_CYCLE_TIMER %d\n"
row(
    "command cycle",
    "-A tcp/22,udp/53 -a {ip}",
    CYCLE + CLOSE % 2,
    files={"open-{ip}-{n}": OPENED % (2, 2)},
    seconds=2,
    after={"files": {"open-{ip}-{n}": OPENED % (2, 2), "close-{ip}-{n}": "root root,adm 22"}},
)
row(
    "command cycle with the client's time",
    SSH + " -f 2",
    CYCLE + CLOSE % 40,
    files={"open-{ip}-{n}": OPENED % (2, 2)},
    seconds=2,
    after={"files": {"open-{ip}-{n}": OPENED % (2, 2), "close-{ip}-{n}": "root root,adm 22"}},
)
row(
    "command cycle without a close",
    access="CMD_CYCLE_OPEN {world}/note open-$SRC-{n} $PORT\nCMD_CYCLE_CLOSE NONE\n",
    files={"open-{ip}-{n}": "root root,adm 22"},
)
row(
    "command cycle of the packet's source",
    "-A tcp/22 -s",
    "CMD_CYCLE_OPEN {world}/note open-$SRC-{n} $PORT\nCMD_CYCLE_CLOSE NONE\n",
    files={"open-{src}-{n}": "root root,adm 22"},
)
row(
    "command cycle of a port that is not listed",
    "-A tcp/23 -a {ip}",
    "OPEN_PORTS tcp/22\nCMD_CYCLE_OPEN {world}/note open-$SRC-{n} $PORT\nCMD_CYCLE_CLOSE NONE\n",
    files={"open-{ip}-{n}": "root root,adm 23"},
    ours={"files": {}, "says": PHRASES["ports"]},
    better="cycle-ports",
)
row(
    "command cycle, time capped",
    SSH + " -f 500",
    "MAX_FW_TIMEOUT 60\nCMD_CYCLE_OPEN {world}/note open-$SRC-{n} $CLIENT_TIMEOUT\nCMD_CYCLE_CLOSE NONE\n",
    files={"open-{ip}-{n}": "root root,adm 500"},
    ours={"files": {"open-{ip}-{n}": "root root,adm 60"}},
    better="max-timeout",
)
row(
    "only command cycles: no chain",
    access="CMD_CYCLE_OPEN {world}/note open-$SRC-{n} $PORT\nCMD_CYCLE_CLOSE NONE\n",
    files={"open-{ip}-{n}": "root root,adm 22"},
    last="cycle",
)

# ---- GPG -------------------------------------------------------------------------------------------------------------

GPG = """SOURCE ANY
GPG_HOME_DIR {gpg}/server
GPG_DECRYPT_ID {gpg-server}
GPG_ALLOW_NO_PW Y
GPG_REQUIRE_SIG Y
HMAC_KEY_BASE64 {hmac}
%s"""
SIGNED = "--gpg-home-dir {gpg}/client --gpg-recipient-key {gpg-server} --gpg-signer-key {gpg-client} "
SIGNED += "--gpg-no-signing-pw --use-hmac --key-base64-hmac {hmac} "
row("gpg", access=GPG % "GPG_REMOTE_ID {gpg-client}\n", keys=SIGNED, rules=opens("tcp/22"))
row(
    "gpg by fingerprint",
    access=GPG % "GPG_FINGERPRINT_ID {gpg-client-fingerprint}\n",
    keys=SIGNED,
    rules=opens("tcp/22"),
)
row(
    "gpg, wrong signer",
    access=GPG % "GPG_REMOTE_ID {gpg-server}\n",
    keys=SIGNED,
    says="but that ID is not in the GPG_REMOTE_ID list.",
)
row(
    "gpg, wrong fingerprint",
    access=GPG % "GPG_FINGERPRINT_ID 0123456789ABCDEF0123456789ABCDEF01234567\n",
    keys=SIGNED,
    says="but that fingerprint is not in the GPG_FINGERPRINT_ID list.",
)
row(
    "gpg, signer of the second stanza",
    access=GPG % "GPG_REMOTE_ID {gpg-server}\n" + "\n" + GPG % "GPG_REMOTE_ID {gpg-client}\nFW_ACCESS_TIMEOUT 47\n",
    keys=SIGNED,
    rules=opens("tcp/22"),
    seconds=47,
)
row(
    "gpg without a look at the signature",
    access=(GPG % "GPG_DISABLE_SIG Y\n").replace("GPG_REQUIRE_SIG Y\n", ""),
    keys=SIGNED.replace("--gpg-signer-key {gpg-client} ", ""),
    rules=opens("tcp/22"),
)
row(
    "gpg without the signature that is required",
    access=GPG % "GPG_REMOTE_ID {gpg-client}\n",
    keys=SIGNED.replace("--gpg-signer-key {gpg-client} ", ""),
    cached=0,
)

# ---- ways in ---------------------------------------------------------------------------------------------------------

row("udp server", conf="ENABLE_UDP_SERVER Y;\n", rules=opens("tcp/22"))
row("udp server, packet source", "-A tcp/1004 -s", conf="ENABLE_UDP_SERVER Y;\n", rules=opens("tcp/1004", who="{src}"))
row("udp server by option", argv="--udp-server", rules=opens("tcp/22"))
row("udp server and a destination", access="DESTINATION 10.99.0.1\n", conf="ENABLE_UDP_SERVER Y;\n", cached=0)
row(
    "tcp server",
    SSH + " -P tcp -p 62202",
    conf="ENABLE_TCP_SERVER Y;\nTCPSERV_PORT 62202;\nPCAP_FILTER udp port 62201 or tcp port 62202;\n",
    apart=True,
    rules=opens("tcp/22"),
)
HTTP = "ENABLE_SPA_OVER_HTTP Y;\nPCAP_FILTER udp port 62201 or tcp port 80;\n"
WEB = "User-Agent: Fwknop/2.6.10"
row("http", SSH + " -P http -p 80", conf=HTTP, apart=True, rules=opens("tcp/22"))
row(
    "http from the packet's source",
    "-A tcp/1005 -s -P http -p 80",
    conf=HTTP,
    apart=True,
    rules=opens("tcp/1005", who="{src}"),
)
row("http with a browser's name", SSH + " -P http -p 80 -u Mozilla/5.0", conf=HTTP, apart=True, cached=0)
row(
    "http with a browser's name where any will do",
    SSH + " -P http -p 80 -u Mozilla/5.0",
    conf=HTTP + "ALLOW_ANY_USER_AGENT Y;\n",
    apart=True,
    cached=0,
    ours={"rules": opens("tcp/22"), "cached": 1},
    better="any-user-agent",
)
row("http as a proxy gets it", SSH + " -H 10.99.0.1:80", conf=HTTP, apart=True, cached=0)
row("udp beside http", conf=HTTP, rules=opens("tcp/22"))
row(
    "http is off",
    SSH + " -P http -p 80",
    conf="PCAP_FILTER udp port 62201 or tcp port 80;\n",
    apart=True,
    cached=0,
)
FORWARDED = HTTP + "ENABLE_X_FORWARDED_FOR Y;\n"
TESTED = " -T -B {packet}"
row(
    "forwarded for",
    ("-A tcp/22 -s" + TESTED, "web " + WEB + "|X-Forwarded-For: {ip}"),
    conf=FORWARDED,
    apart=True,
    rules=opens("tcp/22"),
)
row(
    "forwarded for, but the packet names an address",
    (SSH + TESTED, "web " + WEB + "|X-Forwarded-For: 192.0.2.200"),
    conf=FORWARDED,
    apart=True,
    rules=opens("tcp/22"),
)
row(
    "forwarded for a list",
    ("-A tcp/1006 -s" + TESTED, "web " + WEB + "|X-Forwarded-For: {ip}, 10.99.0.77"),
    conf=FORWARDED,
    apart=True,
    rules=opens("tcp/1006", who="{src}"),
    ours={"rules": opens("tcp/1006")},
    better="forwarded-for",
)
row(
    "forwarded for is off",
    ("-A tcp/1007 -s" + TESTED, "web " + WEB + "|X-Forwarded-For: {ip}"),
    conf=HTTP,
    apart=True,
    rules=opens("tcp/1007", who="{src}"),
)
ANY_PROTOCOL = "PCAP_FILTER icmp or tcp port 62201 or udp port 62201;\n"
row("icmp", SSH + " -P icmp", conf=ANY_PROTOCOL, rules=opens("tcp/22"))
row("icmp echo request", SSH + " -P icmp --icmp-type 8", conf=ANY_PROTOCOL, rules=opens("tcp/22"))
row("tcp syn", SSH + " -P tcpraw", conf=ANY_PROTOCOL, rules=opens("tcp/22"))
row("raw udp", SSH + " -P udpraw", conf=ANY_PROTOCOL, rules=opens("tcp/22"))
row(
    "forged source",
    "-A tcp/1008 -s -P udpraw -Q 198.19.{n}.{last}",
    conf=ANY_PROTOCOL,
    rules=opens("tcp/1008", who="198.19.{n}.{last}"),
)
row(
    "port of the filter", SSH + " -p 7777", conf="PCAP_FILTER udp port 7777 or udp port 62201;\n", rules=opens("tcp/22")
)
row("not the port of the filter", SSH + " -p 7778", conf="PCAP_FILTER udp port 7777 or udp port 62201;\n", cached=0)
row("random port", SSH + " -r", conf="PCAP_FILTER udp;\n", rules=opens("tcp/22"))
row(
    "filter by source",
    (SAVED + " -T", "resend elsewhere"),
    conf="PCAP_FILTER udp port 62201 and not src host 10.99.0.12 and not src host 10.99.0.13;\n",
    cached=0,
)
row(
    "filter by option",
    SSH + " -p 7777",
    argv="-P 'udp dst portrange 7777-7779 or udp port 62201'",
    rules=opens("tcp/22"),
)
row("any interface", conf="PCAP_INTF any;\n", rules=opens("tcp/22"))
row("interface by option", conf="PCAP_INTF lo;\n", argv="-i eth0", rules=opens("tcp/22"))
TEST = {"argv": "-t", "last": "log", "cached": 0}
row(
    "test mode, command",
    COMMAND % "a",
    "ENABLE_CMD_EXEC Y\n",
    says="--test mode enabled, skipping command execution.",
    **TEST,
)
row(
    "test mode, command cycle",
    access="CMD_CYCLE_OPEN {world}/note open-$SRC-{n} $PORT\nCMD_CYCLE_CLOSE NONE\n",
    files={"open-{ip}-{n}": "root root,adm 22"},
    ours={"files": {}},
    better="test-runs-nothing",
    **TEST,
)
row("test mode, nat", SSH + " -N 192.168.77.5:22", says=PHRASES["nat"], **TEST)
row(
    "test mode, nat that is allowed",
    SSH + " -N 192.168.77.5:22",
    conf="ENABLE_IPT_FORWARDING Y;\n",
    says="--test mode enabled, skipping firewall manipulation.",
    **TEST,
)
row("test mode, command that is not allowed", COMMAND % "a", says=PHRASES["command"], **TEST)
row("test mode", argv="-t", last="log", cached=0, says="--test mode enabled, skipping firewall manipulation.")

# ---- what the client refuses -----------------------------------------------------------------------------------------

row("request that is none", "-A none/0 -a {ip}", status=1, cached=0)
row("address that is none", "-A tcp/22 -a 1.2.3", status=1, cached=0)
row("legacy mode with an hmac", SSH + " -M legacy", status=1, cached=0)
row("message of 256 bytes", "-C {long} -a {ip}", "ENABLE_CMD_EXEC Y\n", status=1, cached=0)

# ---- rows of tests that start the daemons more than once, or not to the end ------------------------------------------

APART = "apart from the table"
REPLAYED = PHRASES["replay"]
HANDED_OVER = row("handed over", alone=APART)
COUNTED = row("counted", alone=APART)
FLUSHED = row("flushed", alone=APART)
FLUSHES = (("Y", "Y"), ("Y", "N"), ("N", "N"))
RECORDED = row("recorded", alone=APART, conf="FLUSH_IPT_AT_EXIT N;\n")

# ---- configurations that stop both at the start: exit status 1 -------------------------------------------------------

broken("sound", status=0)
broken("no stanza", access="# nothing\n")
broken("stanza without a key", access="SOURCE ANY\nOPEN_PORTS tcp/22\n")
broken("name without a value in access.conf", access=STANZA + "OPEN_PORTS\n")
broken("source that is a name", access="SOURCE gate.example\nKEY secret\n")
broken("source of all addresses", access="SOURCE 0.0.0.0/0\nKEY secret\n")
broken("destination that is none", access=STANZA + "DESTINATION here\n")
broken("port that is none", access=STANZA + "OPEN_PORTS ssh\n")
broken("mode that is none", access=STANZA + "ENCRYPTION_MODE pcbc\n")
broken("hmac that is none", access=STANZA + "HMAC_DIGEST_TYPE crc32\n")
broken("key still to be set", access="SOURCE ANY\nKEY_BASE64 __CHANGEME__\n")
broken("key that is no base64", access="SOURCE ANY\nKEY_BASE64 (what?)\n")
broken("both keys the same", access="SOURCE ANY\nKEY one key\nHMAC_KEY one key\n")
broken("date that is none", access=STANZA + "ACCESS_EXPIRE tomorrow\n")
broken("user that is none", access=STANZA + "ENABLE_CMD_EXEC Y\nCMD_EXEC_USER nobody-of-this-name\n")
broken("cycle without a close", access=STANZA + "CMD_CYCLE_OPEN /bin/true\nCMD_CYCLE_TIMER 3\n")
broken("cycle without an open", access=STANZA + "CMD_CYCLE_CLOSE /bin/true\nCMD_CYCLE_TIMER 3\n")
broken("cycle without a time", access=STANZA + "CMD_CYCLE_OPEN /bin/true\nCMD_CYCLE_CLOSE /bin/false\n")
broken("forced nat where nat is off", access=STANZA + "FORCE_NAT 192.168.77.5 22\n")
broken("forced snat without nat", access=STANZA + "FORCE_SNAT 192.168.77.5\n", conf="ENABLE_IPT_FORWARDING Y;\n")
broken("forced nat to a name", access=STANZA + "FORCE_NAT inside 22\n", conf="ENABLE_IPT_FORWARDING Y;\n")
broken("timeout out of range", access=STANZA + "FW_ACCESS_TIMEOUT 99999999\n")
broken("gpg without signers", access="SOURCE ANY\nGPG_DECRYPT_ID ABCD1234\nGPG_DECRYPT_PW secret\n")
broken("age of zero", conf="MAX_SPA_PACKET_AGE 0;\n")
broken("facility that is none", conf="SYSLOG_FACILITY LOG_NOWHERE;\n")
broken("chain of five fields", conf="IPT_INPUT_ACCESS ACCEPT, filter, INPUT, 1, FWKNOP_INPUT;\n")
broken("snat to no address", conf=NAT + "ENABLE_IPT_SNAT Y;\nSNAT_TRANSLATE_IP here;\n")
broken("unknown names and junk behind numbers", conf="MAX_SPA_PACKET_AGE 30s;\nENABLE_NOTHING Y;\n", status=0)
broken("name without a value in fwknopd.conf", conf="MAX_SPA_PACKET_AGE\n", status=0)
broken(
    "include four deep",
    access="%include {world}/1\n",
    also={"1": "%include {world}/2\n", "2": "%include {world}/3\n", "3": STANZA},
)
broken("included file missing", access=STANZA + "%include {world}/missing\n")
broken("unknown option", argv="--no-such-option")
broken("override file missing", argv="-O {world}/missing")
broken("two controls at once", argv="-S -K")
broken("version", argv="-V", status=0)
broken("help", argv="-h", status=0)
