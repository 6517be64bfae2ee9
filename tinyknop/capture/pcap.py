"""pcap: reads the packets that somebody saved in a file (classic pcap or pcapng) as if they came now, and then ends."""

from struct import unpack_from

from tinyknop.capture import QUOTA, filter_of, filters, ip
from tinyknop.errors import ConfigError, PortError

OPTIONS = {"file": "", "filter": "", "port": "62201"}

LONGEST = 1 << 18  # bytes of one record, as in libpcap; a longer one is a damaged file
# Bytes before the IP header by link type: BSD loopback, Ethernet, PPPoE, Linux "cooked" 1 and 2; none in all others.
HEADERS = {0: 4, 1: 14, 51: 8, 108: 4, 113: 16, 276: 20}
RAW = (101, 228, 229)  # the file's numbers for what libpcap calls DLT_RAW


class Capture:
    """One file, handed on in turns so that a long one holds nothing up; `over` is told when it has ended."""

    def __init__(self, options, sink):
        self.where = options.get("where", "capture")
        self.path = options.get("file") or ""
        if not self.path:
            raise ConfigError(self.where, 'capture: file = "PATH" is missing')
        self.port, self.text = filter_of(options)
        if self.text is not None:
            filters.compiled(self.text, self.where, 1)  # its grammar; the file's own link type may refuse more
        self.sink = sink
        self.over = None
        self.received = 0
        self.dropped = 0
        self._file = self._records = None
        self._programs = {}  # link type -> the filter, compiled for it

    def describe(self):
        return "pcap %s" % self.path

    def start(self, loop):
        """Opens the file; raises PortError where it cannot be read, ConfigError where it is no capture file."""
        try:
            self._file = open(self.path, "rb")
            magic = self._file.read(4)
        except OSError as error:
            self.stop()
            raise PortError(self.describe(), "cannot be read: error %s" % error.errno)
        self._records = records(self._file, magic)
        if self._records is None:
            self.stop()
            raise ConfigError(self.where, "%s: no capture file (pcap or pcapng)" % self.path)
        self._loop = loop
        loop.soon(self._turn)

    def stop(self):
        """Closes the file."""
        self._records = None
        if self._file:
            self._file.close()
            self._file = None

    def _turn(self):
        """Hands on the next QUOTA packets."""
        for _ in range(QUOTA):
            if self._records is None:
                return
            try:
                link, frame = next(self._records)
                datagram = self._kept(link, frame)
            except StopIteration:
                return self._end("end of %s" % self.path, None)
            except (OSError, ValueError, ConfigError) as error:
                return self._end("%s: %s" % (self.path, error), 1)
            if datagram is not None:
                self.received += 1
                self.sink(datagram)
        self._loop.soon(self._turn)

    def _end(self, reason, status):
        self.stop()
        if self.over:
            self.over(reason, status)

    def _kept(self, link, frame):
        """Returns the Datagram of a frame that the filter keeps."""
        link = filters.DLT_RAW if link in RAW else link
        if self.text is None:
            datagram = ip.parse(packet_of(link, frame))
            return datagram if datagram and datagram.dport == self.port else None
        if self.text != "none":
            if link not in self._programs:
                self._programs[link] = filters.compiled(self.text, self.where, link)
            if not filters.run(self._programs[link], frame):
                return None
        return ip.parse_any(packet_of(link, frame))


def packet_of(link, frame):
    """Returns the IP packet in a frame of a link type; what is none is found out by whoever parses it."""
    at = HEADERS.get(link, 0)
    if link == 1:
        kind = frame[12:14]
        if kind == b"\x81\x00":  # one 802.1Q tag
            kind, at = frame[16:18], 18
        if kind == b"\x88\x64":  # a PPPoE session
            at += 8
        elif kind < b"\x06\x00":  # the length of an 802.3 frame, and maybe SNAP
            at += 8 if frame[at : at + 2] == b"\xaa\xaa" else 3
    return frame[at:]


def records(file, magic):
    """Returns the iterator over (link type, frame) of a file whose first 4 bytes are read, None for another file.

    It raises ValueError where the file is damaged; a last record that is cut short ends it.
    """
    for order in "<>":
        if magic in (_magic(0xA1B2C3D4, order), _magic(0xA1B23C4D, order)):  # microseconds, nanoseconds
            head = file.read(20)
            return _classic(file, order, unpack_from(order + "I", head, 16)[0] & 0xFFFF) if len(head) == 20 else None
    return _blocks(file) if magic == b"\x0a\x0d\x0d\x0a" else None


def _magic(value, order):
    return value.to_bytes(4, "little" if order == "<" else "big")


def _classic(file, order, link):
    while True:
        head = file.read(16)
        if len(head) < 16:
            return
        size = unpack_from(order + "I", head, 8)[0]
        frame = _read(file, size)
        if len(frame) < size:
            return
        yield link, frame


def _read(file, size):
    if size > LONGEST:
        raise ValueError("damaged: a record of %d bytes" % size)
    return file.read(size)


def _blocks(file):
    """The records of a pcapng file."""
    links: list = []
    kind, order = b"\x0a\x0d\x0d\x0a", "<"
    while len(kind) == 4:
        head = file.read(4)
        body = b""
        if kind == b"\x0a\x0d\x0d\x0a":  # a section, which may have another byte order than the one before
            body = file.read(4)
            order, links = ">" if body == b"\x1a\x2b\x3c\x4d" else "<", []
        if len(head) < 4:
            return
        size = unpack_from(order + "I", head)[0] - 8
        body += _read(file, max(size - len(body), 0))
        if len(body) < size or size < 4:
            return
        number = unpack_from(order + "I", kind)[0]
        if number == 1:  # an interface
            links.append(unpack_from(order + "H", body)[0])
        elif number == 6 and len(body) >= 24:  # a packet
            interface, _, _, length = unpack_from(order + "IIII", body)
            if interface < len(links):
                yield links[interface], body[20 : min(20 + length, len(body) - 4)]
        elif number == 3 and links:  # a packet without a time
            yield links[0], body[4 : min(4 + unpack_from(order + "I", body)[0], len(body) - 4)]
        kind = file.read(4)
