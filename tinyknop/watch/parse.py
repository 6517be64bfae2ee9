"""One line of the kernel's LOG target to an Event; whatever the line is, nothing is raised.

The syslog header and the rule's prefix may be anything, but for the tag of another program, in whose words a stranger
may have a say. What comes after `IN=` is the kernel's, and packets have none in its words. A line is bytes: a log may
hold any.
"""

from collections import namedtuple

from tinyknop import compat, net

# source, destination: packed. proto: in lower case ("tcp", "icmpv6") or a number ("47"). flags: the letters of the TCP
# flags that are set, sorted, "" for none. sid: 0 without one. options: the IP options as bytes. Numbers are -1 where
# the line does not have them; size is that of the IP packet.
Event = namedtuple(
    "Event",
    "prefix sid chain interface source destination proto sport dport flags size ttl id window seq kind code icmp_id "
    "icmp_seq options",
)

_LETTERS = {b"SYN": "S", b"FIN": "F", b"RST": "R", b"PSH": "P", b"ACK": "A", b"URG": "U", b"ECE": "2", b"CWR": "1"}
_LONGEST = 4096  # bytes; a line with all options is 700
_PLAIN = bytes(range(33, 127))
_HEX = b"0123456789abcdefABCDEF"


def parse(line, mark=b"SID"):
    """Returns the Event of a line, None where it is no whole line of LOG; `mark` comes before a rule's sid."""
    out = line.find(b" OUT=")
    at = line.rfind(b"IN=", 0, out) if out > 0 else -1
    if at < 0 or len(line) > _LONGEST or _is_others(line[:at]):
        return None
    body = line[at:]
    inner = body.find(b" [")  # the packet that an ICMP error is about
    head, found, tail = (body[:inner] if inner > 0 else body).partition(b" PROTO=")
    if not found:
        return None
    first, second = _fields(head), _fields(b"PROTO=" + tail)
    if b"OUT" not in first:  # it stands behind what ends a head: not of LOG's making
        return None
    try:
        source, destination = [net.packed(_text(first.get(name, b""))) for name in (b"SRC", b"DST")]
    except ValueError:
        return None
    proto = _text(second[b"PROTO"]).lower()
    if len(source) != len(destination) or not 1 <= len(proto) <= 16:
        return None
    into, onto = _text(first[b"IN"]), _text(first[b"OUT"])
    chain = "FORWARD" if into and onto else "INPUT" if into else "OUTPUT"
    prefix = _prefix(line[:at])
    flags = "".join(sorted([_LETTERS[word] for word in second[b""] if word in _LETTERS])) if proto == "tcp" else ""
    ttl = _number(first.get(b"TTL", first.get(b"HOPLIMIT")))
    numbers = [_number(second.get(name)) for name in (b"WINDOW", b"SEQ", b"TYPE", b"CODE", b"ID", b"SEQ")]
    ports = [_number(second.get(name)) for name in (b"SPT", b"DPT")]
    size, number = _number(first.get(b"LEN")), _number(first.get(b"ID"))
    place = (prefix, _sid(line[:at], mark), chain, into or onto, source, destination, proto)
    return Event(*place + tuple(ports) + (flags, size, ttl, number) + tuple(numbers) + (_options(first),))


def _is_others(head):
    """Tells whether a line's head has another program's tag, as `sshd[553]:`; ulogd writes what the kernel told it."""
    for word in head.split():
        if word[-1:] == b":":
            name, _, number = word.partition(b"[")
            return number[-2:] == b"]:" and number[:-2].isdigit() and name not in (b"kernel", b"ulogd")
    return False


def _fields(text):
    """Returns {name: value} of words NAME=VALUE, the first of each name; the bare words are under b""."""
    found, bare = {}, []
    for word in text.split():
        name, equals, value = word.partition(b"=")
        if not equals:
            bare.append(word)
        elif name not in found:
            found[name] = value
    found[b""] = bare
    return found


def _number(digits):
    return int(digits) if digits and len(digits) <= 10 and digits.isdigit() else -1


def _text(data):
    """Returns bytes as text that can be printed anywhere."""
    if not compat.only_in(data, _PLAIN):
        data = bytes([byte if 32 < byte < 127 else 63 for byte in data])
    return data[:64].decode()


def _prefix(head):
    """Returns a rule's prefix: what is left of IN= without the syslog header and the kernel's seconds."""
    head = head[head.rfind(b"kernel:") + 7 :] if b"kernel:" in head else head
    head = head.strip()
    seconds, bracket, rest = head[1:].partition(b"]")
    if head[:1] == b"[" and bracket and b"." in seconds:
        head = rest.strip()
    return " ".join([_text(word) for word in head.split()])[:64]


def _sid(head, mark):
    """Returns the number after the last `mark` of a line's head, 0 where there is none."""
    at = head.rfind(mark) if mark else -1
    digits = head[at + len(mark) :].split(b" ")[0] if at >= 0 else b""
    return max(_number(digits), 0)


def _options(first):
    """Returns the IP options that `--log-ip-options` prints as "OPT (830704...)"."""
    for word in first[b""]:
        digits = word.strip(b"()")
        if word[:1] == b"(" and len(digits) % 2 == 0 and compat.only_in(digits, _HEX):
            return bytes([int(digits[i : i + 2], 16) for i in range(0, len(digits), 2)])
    return b""
