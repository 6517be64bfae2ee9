"""The same files, read by the real fwknopd and by our front end: both take them, for the same, or both refuse them.

Where the two differ, the line says by which name docs/compatibility.md knows it, and does differ: neither an unnamed
difference nor an outdated name passes. Each line stands alone first, then in random pairs of files.
"""

import contextlib
import io
import locale
import pathlib
import random
import re
import shutil
import subprocess

import pytest

from tests.need import need, share
from tests.real import peers
from tinyknop import log
from tinyknop.host import fwknopd
from tinyknop.settings import KEYWORDS as SETTINGS
from tinyknop.stanza import KEYWORDS as STANZAS

ROOT = pathlib.Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "corpus" / "config"
KEYS = "KEY_BASE64 %s\nHMAC_KEY_BASE64 %s\n" % (peers.base64_text(peers.KEY), peers.base64_text(peers.HMAC_KEY))
STANZA = "SOURCE ANY\n" + KEYS

# Values that each line of a kind is tried with; after "|" the name of the difference that the value makes.
YES = "Y N y no yes maybe 0 1 Yours"
NUMBER = "1 2 007 30s 62201 12x -1 +7|odd-values 99999999999999999999 x"
NETWORKS = (
    "ANY any 192.0.2.1 192.0.2.0/24 192.0.2.0/255.255.255.0 1.2.3 1.2 192.0.2.1,ANY 192.0.2.1/0 192.0.2.1/33 0.0.0.0/0 "
    "0.0.0.0 256.1.1.1 host 192.0.2.1/ 192.0.2.1, 1.2.3.4.5 2001:db8::/32|ipv6 7|odd-values 0x10|odd-values "
    "010.0.2.1|odd-values 192.0.2.1/08|odd-values 192.0.2.0/255.0.255.0|odd-values"
)
OPENINGS = (
    "tcp/22 tcp/22,udp/53 tcp/22,tcp/22 tcp/0 tcp/65535 tcp/65536 tcp/1000-2000 tcp icmp/1 22 /22 tcp/22, "
    "TCP/22 1.2.3.4/0 tcp/000000000000000000000000022|odd-values tcp/0000000000000000000000000022 tcp/|odd-values "
    "tcp/x|odd-values tcp/22/3"
)
KEY = "abc __CHANGEME__ __changeme__ a#b $x " + "k" * 32 + " " + "k" * 33
BASE64 = "QUJD QUI QUI= QUJDREVG==== ! QU=JD __CHANGEME__ a-b"
HMAC = "abc __CHANGEME__ " + "k" * 128 + " " + "k" * 137
PATH = "/etc /nonexistent relative"
ACCOUNT = "root nobody nosuchuser"
CHAIN = "ACCEPT,filter,INPUT,1,MINE,1 ACCEPT,filter,INPUT,1,MINE ACCEPT Y DROP,filter,INPUT,0,MINE,0"
OTHER_BUILD = "1 x|other-builds -1|other-builds 99999999999999999999|other-builds"
TEXT = "x 0 a,b"

# keyword -> values; every keyword of access.conf is here or in LINES.
ACCESS = {
    "DESTINATION": NETWORKS,
    "OPEN_PORTS": OPENINGS,
    "RESTRICT_PORTS": OPENINGS,
    "KEY": KEY,
    "KEY_BASE64": BASE64,
    "HMAC_KEY": HMAC,
    "HMAC_KEY_BASE64": BASE64 + " =|empty-keys",
    "HMAC_DIGEST_TYPE": "md5 sha1 sha256 SHA256 sha384 sha512 sha3_256 SHA3_512 sha3-256 sha224 x",
    "ENCRYPTION_MODE": "cbc CBC ctr legacy ecb cfb ofb pcbc x asymmetric|gpg-mode",
    "FW_ACCESS_TIMEOUT": NUMBER + " 0 8388608 8388609",
    "MAX_FW_TIMEOUT": NUMBER + " 0 8388608 8388609",
    "REQUIRE_USERNAME": TEXT,
    "REQUIRE_SOURCE_ADDRESS": YES,
    "REQUIRE_SOURCE": YES,
    "ACCESS_EXPIRE": "12/31/2030 1/1/30 2/29/2028 2030-01-01 12/31 x 13/1/2030|odd-values 2/30/2030|odd-values "
    "0/1/2030|odd-values 1/1/2030/1|odd-values",
    "ACCESS_EXPIRE_EPOCH": "0 1 1893456000 x 30s -1|odd-values",
    "ENABLE_CMD_EXEC": YES,
    "CMD_EXEC_USER": ACCOUNT,
    "CMD_EXEC_GROUP": ACCOUNT + " adm|command-group",
    "ENABLE_CMD_SUDO_EXEC": YES,
    "CMD_SUDO_EXEC_USER": ACCOUNT,
    "CMD_SUDO_EXEC_GROUP": ACCOUNT + " adm|command-group",
    "CMD_CYCLE_OPEN": "/bin/true",
    "CMD_CYCLE_CLOSE": "/bin/true NONE",
    "CMD_CYCLE_TIMER": NUMBER + " 0 8388609",
    "FORCE_NAT": "x 192.0.2.1",
    "FORCE_SNAT": "192.0.2.1 x",
    "FORCE_MASQUERADE": "N Y",
    "FORWARD_ALL": YES,
    "DISABLE_DNAT": YES,
    "GPG_DECRYPT_ID": TEXT,
    "GPG_DECRYPT_PW": "x __CHANGEME__",
    "GPG_ALLOW_NO_PW": "N Y",
    "GPG_REQUIRE_SIG": YES,
    "GPG_DISABLE_SIG": YES,
    "GPG_IGNORE_SIG_VERIFY_ERROR": YES,
    "GPG_REMOTE_ID": "x ABCD1234,EF567890",
    "GPG_FINGERPRINT_ID": "x ABCD1234,EF567890",
    "GPG_HOME_DIR": PATH,
    "GPG_EXE": PATH,
}
# Whole lines, and several at once: (lines, name of the difference or None).
LINES = (
    ("SOURCE ANY", None),
    ("OPEN_PORTS tcp/22, udp/53", None),
    ("OPEN_PORTS tcp/ 22", "odd-values"),
    ("DESTINATION 192.0.2.1 x", "odd-values"),
    ("NO_SUCH_NAME x", None),
    ("open_ports tcp/22", None),
    ("OPEN_PORTS", None),
    ("OPEN_PORTS;", None),
    ("OPEN_PORTS: tcp/22", None),
    (" # x", None),
    ("#OPEN_PORTS x", None),
    ("%include /nonexistent", None),
    ("%include_folder /nonexistent", None),
    ("%include_keys /nonexistent", "include-keys"),
    ("REQUIRE_USERNAME " + "u" * 1006, None),
    ("REQUIRE_USERNAME al\0ice", "bytes"),
    ("REQUIRE_USERNAME ren\udce9", "bytes"),
    ("KEY_BASE64 QUJD\nHMAC_KEY_BASE64 QUJD", None),
    ("HMAC_KEY_BASE64 " + peers.base64_text(peers.KEY), None),
    ("OPEN_PORTS x\nOPEN_PORTS tcp/22", "repeated"),
    ("DESTINATION x\nDESTINATION ANY", "repeated"),
    ("FW_ACCESS_TIMEOUT 8388609\nFW_ACCESS_TIMEOUT 5", None),
    ("ACCESS_EXPIRE x\nACCESS_EXPIRE 1/1/2031", None),
    ("CMD_CYCLE_OPEN /bin/true\nCMD_CYCLE_CLOSE NONE", None),
    ("CMD_CYCLE_OPEN /bin/true\nCMD_CYCLE_CLOSE nonesuch", None),
    ("CMD_CYCLE_OPEN /bin/true\nCMD_CYCLE_CLOSE /bin/true", None),
    ("CMD_CYCLE_OPEN /bin/true\nCMD_CYCLE_CLOSE /bin/true\nCMD_CYCLE_TIMER 5", None),
    ("CMD_CYCLE_OPEN %s\nCMD_CYCLE_CLOSE NONE" % ("/" * 255), None),
    ("CMD_CYCLE_OPEN %s\nCMD_CYCLE_CLOSE NONE" % ("/" * 256), None),
    ("GPG_ALLOW_NO_PW Y\nGPG_REMOTE_ID ABCD1234", None),
    ("GPG_ALLOW_NO_PW Y\nGPG_DISABLE_SIG Y", None),
    ("GPG_ALLOW_NO_PW Y\nGPG_DISABLE_SIG Y\nKEY_BASE64 =", "empty-keys"),
    ("CMD_CYCLE_OPEN /bin/true\nCMD_CYCLE_CLOSE none", None),
    ("CMD_CYCLE_OPEN /bin/true\nCMD_CYCLE_CLOSE NONEx", None),
    ("GPG_ALLOW_NO_PW Y\nGPG_DISABLE_SIG Y\nGPG_REQUIRE_SIG Y", None),
    ("GPG_DECRYPT_PW x\nGPG_FINGERPRINT_ID ABCD1234\nENCRYPTION_MODE asymmetric", "gpg-mode"),
    ("GPG_DECRYPT_PW x\nGPG_REMOTE_ID ABCD1234\nHMAC_KEY x", None),
    ("KEY abc ", None),
    ("KEY\tabc\t \t", None),
    ("KEY: a  b  ; no more", None),
    ("KEY abc \r", None),
    ("KEY abc\r ", None),
    ("HMAC_KEY abc ;", None),
    ("HMAC_KEY abc", None),
    ("HMAC_KEY  ", None),
    ("KEY __CHANGEME__ ", "blanks-at-the-end"),
    ("KEY_BASE64 QUJD ", "blanks-at-the-end"),
    ("HMAC_DIGEST_TYPE sha256 ", "blanks-at-the-end"),
    ("DESTINATION 192.0.2.0/24 ", "blanks-at-the-end"),
    ("REQUIRE_USERNAME bob ", "blanks-at-the-end"),
    (" ", "blanks-at-the-end"),
    ("CMD_EXEC_USER nobody\t", "blanks-at-the-end"),
)
CONF = {
    "PCAP_INTF": TEXT,
    "PCAP_FILE": "/nonexistent",
    "ENABLE_PCAP_PROMISC": YES,
    "PCAP_FILTER": "udp tcp",
    "PCAP_DISPATCH_COUNT": NUMBER + " 0 8388608 8388609",
    "PCAP_LOOP_SLEEP": NUMBER + " 0 8388608 8388609",
    "ENABLE_PCAP_ANY_DIRECTION": YES,
    "EXIT_AT_INTF_DOWN": YES,
    "MAX_SNIFF_BYTES": NUMBER + " 0 32768 32769",
    "ENABLE_SPA_PACKET_AGING": YES,
    "MAX_SPA_PACKET_AGE": NUMBER + " 0 100000 100001",
    "ENABLE_DIGEST_PERSISTENCE": YES,
    "RULES_CHECK_THRESHOLD": NUMBER + " 0 131071 131072",
    "CMD_EXEC_TIMEOUT": "0 5 30s -1|CMD_EXEC_TIMEOUT 8388609|CMD_EXEC_TIMEOUT",
    "ENABLE_SPA_OVER_HTTP": YES,
    "ALLOW_ANY_USER_AGENT": YES,
    "ENABLE_X_FORWARDED_FOR": YES,
    "ENABLE_TCP_SERVER": YES,
    "TCPSERV_PORT": NUMBER + " 0 65535 65536|odd-values 131071 131072",
    "ENABLE_UDP_SERVER": YES,
    "UDPSERV_PORT": NUMBER + " 0 65535 65536|odd-values 131071 131072",
    "UDPSERV_SELECT_TIMEOUT": NUMBER + " 0 8388608 8388609",
    "ENABLE_NFQ_CAPTURE": YES,
    "NFQ_INTERFACE": TEXT,
    "NFQ_PORT": OTHER_BUILD,
    "NFQ_TABLE": TEXT,
    "NFQ_CHAIN": TEXT,
    "NFQ_QUEUE_NUMBER": "1 x -1|other-builds 65536|other-builds",
    "NFQ_LOOP_SLEEP": "1 0|other-builds",
    "LOCALE": "C NONE xx_XX",
    "SYSLOG_IDENTITY": TEXT,
    "SYSLOG_FACILITY": "LOG_DAEMON log_local3 LOG_LOCAL8 LOG_USER local7 x",
    "ENABLE_DESTINATION_RULE": YES,
    "ENABLE_RULE_PREPEND": YES,
    "ENABLE_NAT_DNS": YES,
    "ENABLE_IPT_FORWARDING": YES,
    "ENABLE_IPT_LOCAL_NAT": YES,
    "ENABLE_IPT_SNAT": YES,
    "SNAT_TRANSLATE_IP": "192.0.2.1 x __CHANGEME__",
    "ENABLE_IPT_OUTPUT": YES,
    "FLUSH_IPT_AT_INIT": YES,
    "FLUSH_IPT_AT_EXIT": YES,
    "IPT_INPUT_ACCESS": CHAIN + " ACCEPT,filter,INPUT,x,MINE,1|odd-values",
    "IPT_OUTPUT_ACCESS": CHAIN,
    "IPT_FORWARD_ACCESS": CHAIN,
    "IPT_DNAT_ACCESS": CHAIN,
    "IPT_SNAT_ACCESS": CHAIN,
    "IPT_MASQUERADE_ACCESS": CHAIN,
    "ENABLE_IPT_COMMENT_CHECK": YES,
    "ENABLE_FIREWD_FORWARDING": YES,
    "ENABLE_FIREWD_LOCAL_NAT": YES,
    "ENABLE_FIREWD_SNAT": YES,
    "ENABLE_FIREWD_OUTPUT": YES,
    "FLUSH_FIREWD_AT_INIT": YES,
    "FLUSH_FIREWD_AT_EXIT": YES,
    "FIREWD_INPUT_ACCESS": CHAIN,
    "FIREWD_OUTPUT_ACCESS": CHAIN,
    "FIREWD_FORWARD_ACCESS": CHAIN,
    "FIREWD_DNAT_ACCESS": CHAIN,
    "FIREWD_SNAT_ACCESS": CHAIN,
    "FIREWD_MASQUERADE_ACCESS": CHAIN,
    "ENABLE_FIREWD_COMMENT_CHECK": YES,
    "FLUSH_IPFW_AT_INIT": YES,
    "FLUSH_IPFW_AT_EXIT": YES,
    "IPFW_START_RULE_NUM": "0 1 131072|other-builds",
    "IPFW_MAX_RULES": "1 0|other-builds",
    "IPFW_ACTIVE_SET_NUM": "0 1 64|other-builds",
    "IPFW_EXPIRE_SET_NUM": "0 2 64|other-builds",
    "IPFW_EXPIRE_PURGE_INTERVAL": "1 0|other-builds",
    "IPFW_ADD_CHECK_STATE": YES,
    "PF_ANCHOR_NAME": TEXT,
    "PF_EXPIRE_INTERVAL": "1 0|other-builds",
    "FWKNOP_RUN_DIR": "/tmp relative|repeated",
    "FWKNOP_CONF_DIR": PATH,
    "ACCESS_FILE": PATH,
    "ACCESS_FOLDER": "/nonexistent",
    "FWKNOP_PID_FILE": "/nonexistent/x",
    "DIGEST_FILE": "/nonexistent/x",
    "DIGEST_DB_FILE": "/nonexistent/x",
    "GPG_HOME_DIR": PATH,
    "GPG_EXE": PATH,
    "SUDO_EXE": PATH,
    "FIREWALL_EXE": "/usr/sbin/iptables /nonexistent/iptables /bin/true|FIREWALL_EXE",
    "VERBOSE": "0 1 x 30s 1001 99999 -1",
    "CONFIG_FILE": PATH,
    "OVERRIDE_CONFIG": "/nonexistent",
    "FAULT_INJECTION_TAG": "x",
}
CONF_LINES = (
    ("MAX_SPA_PACKET_AGE 0;\nMAX_SPA_PACKET_AGE 60", "repeated"),
    ("MAX_SPA_PACKET_AGE 60;\nMAX_SPA_PACKET_AGE 0", None),
    ("NO_SUCH_NAME x", None),
    ("MAX_SPA_PACKET_AGE", None),
    ("MAX_SPA_PACKET_AGE: 0", None),
    ("GPG_EXE $SUDO_EXE/x", None),
    ("SUDO_EXE /a;\nGPG_EXE $SUDO_EXE/x", None),
    ("GPG_EXE $nope", None),
    ("GPG_EXE $1", None),
    ("GPG_EXE $", None),
    ("ENABLE_IPT_SNAT Y;\nSNAT_TRANSLATE_IP x", None),
    ("ENABLE_IPT_SNAT Y;\nENABLE_IPT_FORWARDING Y;\nSNAT_TRANSLATE_IP x", None),
    ("ENABLE_IPT_SNAT Y;\nENABLE_IPT_FORWARDING Y;\nSNAT_TRANSLATE_IP 192.0.2.1", None),
    ("SYSLOG_IDENTITY " + "s" * 1010, "long-lines"),
    ("SYSLOG_IDENTITY a\0b", "bytes"),
    ("SYSLOG_IDENTITY a ", "blanks-at-the-end"),
    ("SYSLOG_FACILITY LOG_DAEMON ", "blanks-at-the-end"),
    (" ", None),
    ("SYSLOG_IDENTITY ren\udce9", "bytes"),
)
# Files of the corpus that the two do not take alike.
CORPUS_DIFFERS = {
    "brackets.access": "odd-values",
    "comment-5000.access": "long-lines",
    "duplicated-bad-first.access": "repeated",
    "duplicated-bad-first.conf": "repeated",
    "include-folder-tilde.access": "include-folder",
    "include-keys-missing.access": "include-keys",
    "latin1-key.access": "bytes",
    "latin1-value.access": "bytes",
    "latin1-value.conf": "bytes",
    "line-1024.conf": "long-lines",
    "list-entry-31.access": "odd-values",
    "no-firewall.conf": "FIREWALL_EXE",
    "nul-in-number.conf": "bytes",
    "nul-in-value.access": "bytes",
    "nul-in-value.conf": "bytes",
    "substitution-grows.conf": "long-lines",
    "surrogate.access": "bytes",
    "utf16.conf": "bytes",
    "zeros-400.access": "odd-values",
}


@pytest.fixture(autouse=True)
def daemon():
    """The real one must be there; the log and the locale are given back."""
    need("fwknopd")
    kept = log.sink, log.threshold, locale.setlocale(locale.LC_ALL)
    yield
    log.sink, log.threshold = kept[:2]
    locale.setlocale(locale.LC_ALL, kept[2])


def put(path, text):
    """Writes a file as its owner would keep it; \\udce9 stands for the byte E9."""
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)


def both(folder, conf, access, option="--exit-parse-config"):
    """Returns the exit statuses of both programs for two files, and what each said: [text, text]."""
    words = ["-c", str(conf), "-a", str(access), "-r", str(folder / "run"), "-f", option]
    real = subprocess.run(
        ["fwknopd", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, cwd=conf.parent
    )
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(told):
        status = fwknopd.main(words)
    return real.returncode, status, [real.stdout.decode("utf-8", "replace").strip(), told.getvalue().strip()]


def differs(folder, conf, access, option="--exit-parse-config"):
    """Returns what both said where only one of them takes the texts of two files, else None.

    With -D also where both take them and one setting reads otherwise.
    """
    put(folder / "fwknopd.conf", conf)
    put(folder / "access.conf", access)
    real, here, said = both(folder, folder / "fwknopd.conf", folder / "access.conf", option)
    if (real == 0) != (here == 0):
        last = [text.split("\n")[-1] for text in said]
        return "fwknopd %d %r, ours %d %r" % (real, last[0], here, last[1])
    settings, ours = dump(said[0]), dump(said[1])
    if real == 0 and option == "-D":
        assert settings
        return (
            "; ".join("%s %r, ours %r" % (n, v, ours.get(n)) for n, v in settings.items() if v != ours.get(n)) or None
        )
    return None


def dump(text):
    """Returns {name: value} of what -D prints, but for the two places that fwknopd mixes up.

    Ours has further lines for variables of other builds.
    """
    rows = re.findall(r"(?m)^ *(?:\d+\. )?([A-Z_]+(?: \(\w+\))?) *(?:: | =) (.*)$", text)
    return {name: value for name, value in rows if name not in ("CONFIG_FILE", "OVERRIDE_CONFIG")}


def tried(values):
    """Yields (value, name of the difference or None)."""
    for item in values.split():
        value, _, name = item.partition("|")
        yield value, name or None


def judged(line, name, difference):
    """Returns a complaint where a line differs without a name, or has a name and does not differ."""
    if (difference is None) == (name is None):
        return []
    return ["%r is %s: %s" % (line[:80], name or "not named", difference or "no difference")]


@pytest.mark.parametrize("keyword", sorted(ACCESS))
def test_a_value_in_access_conf_is_taken_by_both_or_by_none(tmp_path, keyword):
    wrong = []
    for value, name in tried(ACCESS[keyword]):
        line = "%s %s\n" % (keyword, value)
        wrong += judged(line, name, differs(tmp_path, "", STANZA + line, "-D"))
    assert not wrong, "\n".join(wrong)


def test_a_source_is_taken_by_both_or_by_none(tmp_path):
    wrong = []
    for value, name in tried(NETWORKS):
        wrong += judged(value, name, differs(tmp_path, "", "SOURCE %s\n%s" % (value, KEYS), "-D"))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("keyword", sorted(CONF))
def test_a_value_in_fwknopd_conf_is_taken_by_both_or_by_none(tmp_path, keyword):
    wrong = []
    for value, name in tried(CONF[keyword]):
        line = "%s %s;\n" % (keyword, value)
        wrong += judged(line, name, differs(tmp_path, line, STANZA, "-D"))
    assert not wrong, "\n".join(wrong)


def test_lines_are_taken_by_both_or_by_none(tmp_path):
    wrong = []
    for line, name in LINES:
        wrong += judged(line, name, differs(tmp_path, "", STANZA + line + "\n", "-D"))
    for line, name in CONF_LINES:
        wrong += judged(line, name, differs(tmp_path, line + ";\n", STANZA, "-D"))
    assert not wrong, "\n".join(wrong)


def test_corpus_is_taken_by_both_or_by_none(tmp_path, monkeypatch):
    home = tmp_path / "corpus"
    shutil.copytree(CORPUS, home)
    for path in home.rglob("*.*"):
        if path.is_file():
            path.chmod(0o600)
    put(home / "nothing", "")
    monkeypatch.chdir(home)  # what is included is named from here
    wrong = []
    for path in sorted(home.glob("*.access")) + sorted(home.glob("*.conf")):
        pair = (home / "nothing", path) if path.suffix == ".access" else (path, home / "good.inc")
        real, here, said = both(tmp_path, *pair)
        same = (real == 0) == (here == 0)
        wrong += judged(path.name, CORPUS_DIFFERS.get(path.name), None if same else "%d %d %s" % (real, here, said))
    assert not wrong, "\n".join(wrong)


def every_line(table, lines):
    """Returns [(line, name)] of all values of a table, and of the lines beside it."""
    rows = [("%s %s" % (keyword, value), name) for keyword in table for value, name in tried(table[keyword])]
    return rows + [row for row in lines if "%include" not in row[0]]


@pytest.fixture(scope="module")
def known_lines(tmp_path_factory):
    """Returns (all lines, those that both programs take) for either file.

    Most lines of a random file are of the second kind, else both would refuse nearly all. A line that differs alone
    without a name is left out: the tests above tell of it.
    """
    folder = tmp_path_factory.mktemp("lines")
    found = []
    for rows, conf, access in (
        (every_line(ACCESS, LINES), "", STANZA + "%s\n"),
        (every_line(CONF, CONF_LINES), "%s;\n", STANZA),
    ):
        lines, good = [], []
        for line, name in rows:
            put(folder / "fwknopd.conf", conf and conf % line)
            put(folder / "access.conf", access % line if "%s" in access else access)
            real, here, _ = both(folder, folder / "fwknopd.conf", folder / "access.conf")
            if (real == here) == (name is None):
                lines.append((line, name))
            if real == here == 0:
                good.append((line, name))
        found.append((lines, good))
    return found


def mostly_good(chance, lines, good):
    """Returns some lines, nearly all of those that both take."""
    return [chance.choice(lines if chance.random() < 0.12 else good) for _ in range(chance.randrange(7))]


def repeats(lines):
    """Tells whether a name stands twice in a stanza or a file: fwknopd looks at the last one of some of them only."""
    names = [line.split()[0].rstrip(":;") for text, _ in lines for line in text.splitlines() if line.strip()]
    return len(set(names)) < len(names)


def test_random_pairs_are_taken_by_both_or_by_none(tmp_path, known_lines):
    """A difference needs a line with a name; what is refused for another line is no difference."""
    for_access, for_conf = known_lines
    wrong = []
    for seed in range(share(300, 5000)):
        chance = random.Random(seed)
        files = [mostly_good(chance, *for_conf)] + [
            mostly_good(chance, *for_access) for _ in range(chance.randrange(1, 4))
        ]
        access = ""
        for lines in files[1:]:
            access += "SOURCE %s\n" % chance.choice(["ANY", "192.0.2.0/24", "192.0.2.1, 198.51.100.0/255.255.255.0"])
            access += KEYS + "".join(line + "\n" for line, _ in lines)
        conf = "".join(line + ";\n" for line, _ in files[0])
        difference = differs(tmp_path, conf, access)
        if difference and not any(repeats(lines) or any(name for _, name in lines) for lines in files):
            wrong.append("seed %d: %s\n%s---\n%s" % (seed, difference, conf, access.replace(KEYS, "")))
    assert not wrong, "\n".join(wrong)


def test_every_keyword_is_tried():
    """Those in small letters are ours alone."""
    for keywords, table in ((STANZAS, ACCESS), (SETTINGS, CONF)):
        names = {name for part in (keywords.rows, keywords.later, keywords.idle) for name in part}
        assert {name for name in names if name and name.isupper()} - {"SOURCE"} == set(table)


def test_every_difference_has_its_line_in_the_docs():
    with open(ROOT / "docs" / "compatibility.md", encoding="utf-8") as file:
        text = file.read()
    named = set(re.findall(r"(?m)^\| ([a-z0-9-]+) \|", text)) | set(re.findall(r"(?m)^\| `([A-Z_]+)` \| better", text))
    rows = every_line(ACCESS, LINES) + every_line(CONF, CONF_LINES) + list(CORPUS_DIFFERS.items())
    used = {name for _, name in rows if name}
    assert sorted(used - named) == []
