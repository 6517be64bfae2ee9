"""The judgement, without sockets: which stanza grants, and at which stage everything else is refused."""

from tinyknop import Keys, Packet, crypto, net, seal
from tinyknop.errors import Rejected
from tinyknop.gate import STAGES, Command, Datagram, Gate
from tinyknop.grants import Nat
from tinyknop.hints import hint
from tinyknop.spa import BASE64, compose, to_base64

NOW = 1700000000
KEYS = Keys(b"an encryption key", b"an hmac key")
OTHERS = Keys(b"another key", b"another hmac key")
NET = (b"\xc0\x00\x02\x00", 24)


class Settings:
    ageing = True
    max_age = 120
    test = http = any_agent = forwarded_for = forwarding = local_nat = False
    snat = None
    proxies = ()


class Inwards(Settings):
    forwarding = local_nat = True


class Stanza:
    """The attributes that the gate looks at, with their defaults."""

    def __init__(self, **given):
        self.name, self.source, self.destination, self.expires = "alice", None, None, None
        self.open_ports, self.restrict_ports, self.keys = None, (), KEYS
        self.timeout, self.max_timeout, self.require_source, self.require_user = 30, None, False, None
        self.gpg = self.cycle = self.force_nat = self.force_snat = None
        self.cmd_exec = self.masquerade = self.forward_all = self.disable_dnat = self.require_hint = False
        for name in given:
            setattr(self, name, given[name])


class Seen:
    """A replay store in memory."""

    def __init__(self):
        self.digests, self.rows = [], []

    def known(self, digest):
        return digest in self.digests

    def add(self, digest, datagram, stamp, now):
        self.digests.append(digest)
        self.rows.append((datagram, stamp, now))


class Refusing(Seen):
    """One that refuses at a stage, as a store does that is full or whose clock is behind."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def add(self, digest, datagram, stamp, now):
        raise Rejected(self.stage, "no")


def knock(message="192.0.2.7,tcp/22", keys=KEYS, **fields):
    fields.setdefault("timestamp", NOW)
    return seal(Packet(message=message, username="alice", **fields), keys)


def judge(payload, *stanzas, **more):
    gate = Gate(stanzas or (Stanza(),), more.get("settings", Settings))
    source = more.get("source", b"\xc0\x00\x02\x63")
    gram = Datagram(payload, source, 5, b"\x0a\x00\x00\x01", 62201, 17)
    return gate.judge(gram, more.get("now", NOW), more.get("seen") or Seen(), more.get("opened"))


def test_a_true_knock_is_granted_for_the_stanzas_time():
    grant = judge(knock("192.0.2.7,tcp/22,udp/53,tcp/22")).grant
    assert (grant.source, grant.openings) == ("192.0.2.7", (("tcp", 22), ("udp", 53)))
    assert (grant.opened, grant.until, grant.stanza) == (NOW, NOW + 30, "alice")


def test_what_cannot_be_a_knock_is_refused_before_any_key_is_touched():
    cases = (
        (b"", "size"),
        (b"A" * 139, "size"),
        (b"A" * 1501, "size"),
        (b"U2FsdGVkX1" + b"A" * 200, "prefix"),
        (b"hQ" + b"A" * 400, "prefix"),
        (b"8" + b"A" * 200 + b"\n", "charset"),
        (b"8" + b"A" * 200 + b"=", "charset"),
        (b"\x00" * 200, "charset"),
    )
    for payload, stage in cases:
        assert judge(payload).stage == stage, payload


def test_each_reason_has_its_stage():
    cases = (
        (knock(keys=OTHERS), Stanza(), "hmac"),
        (knock(), Stanza(source=(NET,), keys=OTHERS), "hmac"),
        (knock(), Stanza(source=((b"\x0a\x00\x00\x00", 8),)), "source"),
        (knock(), Stanza(destination=(NET,)), "destination"),
        (knock(), Stanza(expires=NOW), "expired"),
        (knock(), Stanza(keys=Keys(b"wrong", b"an hmac key")), "decrypt"),
        (knock(timestamp=NOW - 121), Stanza(), "age"),
        (knock(timestamp=NOW + 121), Stanza(), "age"),
        (knock("0.0.0.0,tcp/22"), Stanza(require_source=True), "address"),
        (knock(), Stanza(require_user="bob"), "user"),
        (knock(), Stanza(open_ports=(("tcp", 23),)), "openings"),
        (knock("192.0.2.7,tcp/22,tcp/99"), Stanza(open_ports=(("tcp", 22), ("tcp", 22))), "openings"),
        (knock(), Stanza(restrict_ports=(("tcp", 22),)), "openings"),
        (knock("192.0.2.7,id", message_type=0), Stanza(), "disabled"),
        (knock(nat_access="10.0.0.5,22"), Stanza(), "disabled"),
    )
    for payload, stanza, stage in cases:
        decision = judge(payload, stanza)
        assert decision.stage == stage, (stage, decision)
        assert decision.grant is None
        assert decision.reason


def test_exactly_the_window_passes():
    assert judge(knock(timestamp=NOW - 120)).grant
    assert judge(knock(timestamp=NOW + 120)).grant


def test_the_first_stanza_that_grants_ends_the_search():
    stanzas = (
        Stanza(name="elsewhere", source=((b"\x0a\x00\x00\x00", 8),)),
        Stanza(name="ports", open_ports=(("tcp", 80),)),
        Stanza(name="others", keys=OTHERS),
        Stanza(name="user", require_user="bob"),
        Stanza(name="expired", expires=1),
        Stanza(name="grants", timeout=7),
        Stanza(name="too late", timeout=9),
    )
    grant = judge(knock(), *stanzas).grant
    assert (grant.stanza, grant.until) == ("grants", NOW + 7)


def test_a_packet_that_several_stanzas_refuse_counts_under_the_latest_stage():
    stanzas = (Stanza(open_ports=()), Stanza(keys=OTHERS), Stanza(require_user="bob"))
    assert judge(knock(), *stanzas).stage == "openings"
    assert judge(knock(), Stanza(keys=OTHERS), Stanza(source=())).stage == "hmac"


def test_a_replay_is_refused_before_it_is_decrypted_and_after_a_denial_too():
    seen = Seen()
    payload = knock()
    assert judge(payload, Stanza(require_user="bob"), seen=seen).stage == "user"
    assert judge(payload, seen=seen).stage == "replay"
    assert len(seen.digests) == 1


def test_an_hmac_has_one_spelling_or_a_recorded_packet_would_be_no_replay():
    for hmac in ("md5", "sha1", "sha256", "sha384", "sha512"):
        keys = Keys(b"an encryption key", b"an hmac key", hmac=hmac)
        payload, seen = knock(keys=keys), Seen()
        taken = []
        for i in range(64):
            spelt = payload[:-1] + BASE64[i : i + 1]
            if judge(spelt, Stanza(keys=keys), Stanza(keys=OTHERS), seen=seen).stage != "hmac":
                taken.append(spelt)
        assert taken == [payload]


def test_what_fails_the_hmac_leaves_no_digest():
    seen = Seen()
    judge(knock(keys=OTHERS), seen=seen)
    assert seen.digests == []


def test_a_store_that_refuses_stops_the_knock_for_every_stanza_that_can_read_it():
    bare = Keys(b"an encryption key")
    for keys in (KEYS, bare):
        stanzas = [Stanza(keys=keys), Stanza(keys=keys, gpg="ring", name="bob")]
        for stage in ("full", "clock", "replay"):
            assert judge(knock(keys=keys), *stanzas, seen=Refusing(stage)).stage == stage


def test_no_address_means_the_packets_own_source_ipv6_too():
    six = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x07"
    assert judge(knock("0.0.0.0,tcp/22")).grant.source == "192.0.2.99"
    assert judge(knock("0.0.0.0,tcp/22"), source=six).grant.source == "2001:db8::7"


def test_a_client_timeout_is_capped():
    def until(asked, **given):
        return judge(knock(client_timeout=asked), Stanza(**given)).grant.until - NOW

    assert until(40) == 40
    assert until(500) == 300
    assert until(500, max_timeout=60) == 60
    assert until(0, max_timeout=10) == 10
    assert until(0, timeout=3600) == 3600


def test_without_an_hmac_another_spelling_is_refused():
    keys = Keys(b"an encryption key")
    payload = knock(keys=keys)
    assert judge(payload, Stanza(keys=keys)).grant
    for spelled in (b"9" + payload[1:] if payload[:1] == b"8" else b"8" + payload[1:], payload + b"="):
        assert judge(spelled, Stanza(keys=keys)).grant is None


def test_test_mode_opens_nothing_and_writes_no_digest():
    class Testing(Settings):
        test = True

    seen = Seen()
    assert judge(knock(), seen=seen, settings=Testing).stage == "disabled"
    assert seen.digests == []


def test_test_mode_tells_what_it_left_out_from_what_is_not_allowed():
    class Testing(Settings):
        test = forwarding = True

    allowed, command = Stanza(), knock("192.0.2.7,id", message_type=0)
    allowed.cmd_exec = True
    for payload, stanza, left_out in (
        (knock(), Stanza(), True),
        (knock(nat_access="10.0.0.5,22"), Stanza(), True),
        (command, allowed, True),
        (command, Stanza(), False),
    ):
        assert judge(payload, stanza, settings=Testing).reason.startswith("test mode") == left_out


def test_the_stanza_used_last_is_tried_first_and_the_outcome_stays():
    gate = Gate((Stanza(name="one"), Stanza(name="two", keys=OTHERS)), Settings)

    def ask(payload):
        return gate.judge(Datagram(payload, bytes(4), 5, bytes(4), 62201, 17), NOW, Seen()).grant.stanza

    assert [ask(knock(keys=k)) for k in (OTHERS, KEYS, OTHERS, OTHERS)] == ["two", "one", "two", "two"]
    assert gate._anywhere[0].groups[0].keys is OTHERS


def test_every_stage_is_named_once():
    assert len(STAGES) == len({stage: 1 for stage in STAGES}) == 31


def test_a_nat_message_leads_inside_where_that_is_enabled():
    payload = knock("192.0.2.7,tcp/22,tcp/23", nat_access="10.0.0.5,2222")
    grant = judge(payload, settings=Inwards).grant
    assert grant.nat == Nat(False, "10.0.0.5", 2222, None, False, True)
    assert grant.openings == (("tcp", 22),) and (grant.destination, grant.sender) == ("10.0.0.1", "192.0.2.99")
    stanza = Stanza(masquerade=True, forward_all=True, disable_dnat=True)
    assert judge(payload, stanza, settings=Inwards).grant.nat == Nat(False, "10.0.0.5", 2222, "masquerade", True, False)
    local = knock(nat_access="gate.example.net,80", message_type=5)
    assert judge(local, settings=Inwards).grant.nat == Nat(True, "gate.example.net", 80, None, False, True)


def test_forced_nat_wins_over_the_packet_and_makes_nat_of_any_request():
    stanza = Stanza(force_nat=("10.0.0.9", 22), force_snat="10.0.0.1")
    for payload in (knock(), knock(nat_access="10.0.0.5,2222")):
        nat = judge(payload, stanza, settings=Inwards).grant.nat
        assert nat == Nat(False, "10.0.0.9", 22, "10.0.0.1", False, True)


def test_nat_to_every_host_is_the_stanzas_to_give_and_no_packets():
    for host in ("0.0.0.0", "::"):
        assert judge(knock(nat_access=host + ",22"), Stanza(disable_dnat=True), settings=Inwards).stage == "nat"
        assert judge(knock(nat_access=host + ",22", message_type=5), settings=Inwards).stage == "nat"
    stanza = Stanza(force_nat=("0.0.0.0", 0), forward_all=True, masquerade=True)
    assert judge(knock(), stanza, settings=Inwards).grant.nat == Nat(False, "0.0.0.0", 0, "masquerade", True, False)


def test_a_command_message_is_a_command_where_the_stanza_allows_it():
    payload = knock("0.0.0.0,touch /tmp/a b,c", message_type=0)
    decision = judge(payload, Stanza(cmd_exec=True))
    assert decision.stage is None and decision.grant is None
    assert decision.command == Command("touch /tmp/a b,c", "192.0.2.99", "192.0.2.99")
    assert judge(payload).stage == "disabled"


def test_a_cycle_takes_the_first_opening_for_as_long_as_the_client_asks():
    stanza = Stanza(cycle=("open", "close"), timeout=7, open_ports=(("tcp", 22), ("tcp", 23)))
    grant = judge(knock("192.0.2.7,tcp/22,tcp/23"), stanza).grant
    assert grant.openings == (("tcp", 22),) and grant.until == NOW + 7
    assert judge(knock(client_timeout=900), stanza).grant.until == NOW + 900
    capped = Stanza(cycle=("open", "close"), timeout=7, max_timeout=60)
    assert judge(knock(client_timeout=900), capped).grant.until == NOW + 60
    assert judge(knock("192.0.2.7,tcp/99"), stanza).stage == "openings"
    assert judge(knock("192.0.2.7,reboot now", message_type=0), stanza).stage == "openings"


def test_a_cycle_runs_whatever_host_a_packet_names_for_nat():
    stanza = Stanza(cycle=("open", "close"))
    for host in ("0.0.0.0", "no.such.host.example", "10.0.0.5"):
        grant = judge(knock(nat_access=host + ",22"), stanza, settings=Inwards).grant
        assert grant.nat is None and grant.openings == (("tcp", 22),)
    assert judge(knock(nat_access="10.0.0.5,22"), stanza).stage == "disabled"


def test_http_is_decoded_where_it_is_on():
    class Web(Settings):
        http = True

    plain = knock()
    request = (
        b"GET /" + plain.replace(b"+", b"-").replace(b"/", b"_") + b" HTTP/1.0\r\nUser-Agent: Fwknop/2.6.10\r\n\r\n"
    )
    assert judge(request, settings=Web).grant.source == "192.0.2.7"
    assert judge(request).stage == "charset"
    assert judge(request.replace(b"Fwknop", b"Mozilla"), settings=Web).stage == "http"


def sealed_by_gpg(keys, byte=b"\0"):
    message = b"\x85\x01" + byte * 600  # its base64 begins with hQ, as that of every message to an RSA key
    text = to_base64(message)
    return message, text[2:] + (keys.mac(text) if keys.hmac_key else b"")


def test_a_gpg_message_is_opened_after_its_hmac_and_the_replay_check_and_judged_again():
    stanza = Stanza(gpg="a key ring", keys=Keys(None, b"an hmac key"))
    message, payload = sealed_by_gpg(stanza.keys)
    gate = Gate((stanza,), Settings)
    gram = Datagram(payload, b"\xc0\x00\x02\x63", 5, b"\x0a\x00\x00\x01", 62201, 17)
    seen = Seen()
    pending = gate.judge(gram, NOW, seen).pending
    assert pending.message == message and pending.group.gpg == "a key ring" and not seen.digests
    plain = compose(Packet(message="192.0.2.7,tcp/22", username="alice", timestamp=NOW), "sha256")
    refused = gate.judge(gram, NOW, Seen(), [(pending.group, None, Rejected("decrypt", "no"))])
    assert refused.stage == "decrypt"
    unsigned = Seen()
    assert gate.judge(gram, NOW, unsigned, [(pending.group, plain, Rejected("signature", "no"))]).stage == "signature"
    assert len(unsigned.digests) == 1
    opened = [(pending.group, plain, None)]
    assert gate.judge(gram, NOW, seen, list(opened)).grant.source == "192.0.2.7"
    assert gate.judge(gram, NOW, seen, list(opened)).stage == "replay"
    assert gate.judge(Datagram(payload[:-1] + b"A", *list(gram)[1:]), NOW, Seen()).stage == "hmac"


def test_without_an_hmac_a_gpg_text_opens_once_however_its_message_is_spelt():
    stanza = Stanza(gpg="ring", keys=Keys(None, None))
    gate, seen = Gate((stanza,), Settings), Seen()
    plain = compose(Packet(message="192.0.2.7,tcp/22", username="alice", timestamp=NOW), "sha256")
    stages = []
    for byte in (b"\1", b"\2"):
        gram = Datagram(sealed_by_gpg(stanza.keys, byte)[1], b"\1\2\3\4", 5, b"\x0a\x00\x00\x01", 62201, 17)
        group = gate.judge(gram, NOW, seen).pending.group
        stages.append(gate.judge(gram, NOW, seen, [(group, plain, None)]).stage)
    assert stages == [None, "replay"] and len(seen.digests) == 2


def test_length_tells_gpg_from_rijndael():
    message, payload = sealed_by_gpg(KEYS)
    assert judge(payload).stage == "length"
    assert judge(knock(), Stanza(gpg="ring", keys=Keys(None, b"an hmac key"))).stage == "length"
    both = Stanza(gpg="ring")
    assert judge(knock(), both).grant and judge(payload, both).pending.message == message


def test_a_gpg_message_has_one_spelling():
    stanza = Stanza(gpg="ring", keys=Keys(None, None))
    message, payload = sealed_by_gpg(stanza.keys, b"\x01")
    assert judge(payload, stanza).pending.message == message
    last = payload[-1:]
    assert judge(payload[:-1] + (b"B" if last != b"B" else b"C"), stanza).stage == "charset"


def test_what_one_stanza_refused_another_with_the_same_keys_may_grant():
    seen = Seen()
    denied, granted = Stanza(open_ports=(("tcp", 23),)), Stanza(gpg="ring", name="bob")
    assert judge(knock(), denied, granted, seen=seen).grant.stanza == "bob"
    assert len(seen.digests) == 1


def test_a_gpg_message_that_one_stanza_refused_is_opened_for_the_next():
    keys = Keys(None, b"an hmac key")
    one, two = Stanza(gpg="one", keys=keys), Stanza(gpg="two", keys=keys, name="bob")
    gate, seen, opened = Gate((one, two), Settings), Seen(), []
    gram = Datagram(sealed_by_gpg(keys)[1], b"\1\2\3\4", 5, b"\x0a\x00\x00\x01", 62201, 17)
    plain = compose(Packet(message="192.0.2.7,tcp/22", username="alice", timestamp=NOW), "sha256")
    for fault in (Rejected("signature", "not the one"), None):
        group = gate.judge(gram, NOW, seen, opened).pending.group
        opened.append((group, plain, fault))
    assert gate.judge(gram, NOW, seen, opened).grant.stanza == "bob"
    assert gate.judge(gram, NOW, seen).stage == "replay"


def ask(gate, payload, source, seen=None):
    gram = Datagram(payload, source, 5, b"\x0a\x00\x00\x01", 62201, 17)
    return gate.judge(gram, NOW, Seen() if seen is None else seen)


def test_a_source_finds_its_stanzas_among_many():
    count = 300
    stanzas = [
        Stanza(name="u%d" % i, keys=Keys(b"k%d" % i, b"h%d" % i), source=((b"\x0a\0" + i.to_bytes(2, "big"), 32),))
        for i in range(count)
    ]
    stanzas.append(Stanza(name="net", keys=OTHERS, source=((b"\x0a\0\0\0", 8), (b"\x20\x01" + bytes(14), 16))))
    gate, tried = Gate(stanzas, Settings), []
    for families in gate._near.lists(b"\x0a\0\1\0"):
        tried += families
    assert len(tried) == 2
    assert ask(gate, knock(keys=stanzas[256].keys), b"\x0a\0\1\0").grant.stanza == "u256"
    assert ask(gate, knock(keys=OTHERS), b"\x0a\0\1\0").grant.stanza == "net"
    assert ask(gate, knock(keys=OTHERS), b"\x20\x01" + bytes(14)).grant.stanza == "net"
    assert ask(gate, knock(keys=stanzas[255].keys), b"\x0a\0\1\0").stage == "hmac"
    for source in (b"\x0b\0\1\0", b"\x0a\0\1\0" + bytes(12)):
        assert ask(gate, knock(keys=OTHERS), source).stage == "source"


def test_a_true_knock_costs_one_hmac():
    gate, count = Gate((Stanza(),), Settings), []
    family = gate._anywhere[0]
    mac = family.mac
    family.mac = lambda text: count.append(1) or mac(text)
    KEYS._mac = None  # what `Keys.mac` would have to make
    payload = knock()
    KEYS._mac = None
    assert ask(gate, payload, bytes(4)).grant and len(count) == 1 and KEYS._mac is None


def test_an_hmac_key_that_is_too_long_is_no_packets():
    keys = Keys(b"k", b"h" * 137)
    stanza = Stanza(keys=keys)
    assert judge(b"8" * 200, stanza, Stanza(keys=OTHERS)).stage == "hmac"
    assert judge(knock(keys=OTHERS), stanza, Stanza(keys=OTHERS)).grant


def test_stanzas_that_can_read_the_same_packet_keep_the_files_order():
    plain, legacy = Keys(b"sixteen bytes ok", b"h"), Keys(b"sixteen bytes ok", b"h", mode="legacy")
    one, two = Stanza(name="one", keys=legacy, require_user="bob"), Stanza(name="two", keys=plain)
    three = Stanza(name="three", keys=legacy)
    gate = Gate((one, two, three, Stanza(keys=OTHERS)), Settings)
    for payload, name in ((knock(keys=plain), "two"), (knock(keys=legacy), "two"), (knock(keys=plain), "two")):
        assert ask(gate, payload, bytes(4)).grant.stanza == name


class Dice:
    """Repeatable numbers on either Python."""

    def __init__(self, seed):
        self.state = seed

    def roll(self, sides):
        self.state = (self.state * 1103515245 + 12345) & 0x7FFFFFFF
        return (self.state >> 16) % sides

    def pick(self, things):
        return things[self.roll(len(things))]


NETS = (None, None, ((b"\x0a\0\0\0", 8),), ((b"\x0a\1\0\0", 16), (b"\x0a\0\0\0", 8)), ((b"\x0a\1\2\3", 32),), ())
SOURCES = (b"\x0a\1\2\3", b"\x0a\1\0\0", b"\x0a\0\0\0", b"\x0b\0\0\0", b"\x20\x01" + bytes(14))
SOME_KEYS = (
    KEYS,
    OTHERS,
    Keys(b"an encryption key", b"an hmac key", hmac="sha512"),
    Keys(b"another key", b"an hmac key"),
    Keys(b"sixteen bytes ok", b"h"),
    Keys(b"sixteen bytes ok", b"h", mode="legacy"),
    Keys(b"sixteen bytes ok"),
    Keys(b"sixteen bytes ok", mode="legacy"),
    Keys(b"an encryption key"),
)


def some_stanza(dice, name):
    return Stanza(
        name=name,
        keys=dice.pick(SOME_KEYS),
        source=dice.pick(NETS),
        destination=dice.pick((None, None, None, (NET,))),
        expires=dice.pick((None, None, None, 1)),
        require_user=dice.pick((None, None, "bob")),
        require_hint=False,
        gpg=dice.pick((None, None, "ring")),
    )


def in_file_order(stanzas, payload, source):
    """Returns (the stanza that grants, the stage), by asking one stanza after the other."""
    latest = 0
    for stanza in stanzas:
        decision = ask(Gate((stanza,), Settings), payload, source, Seen())
        if decision.stage is None:
            return decision.stanza.name, None
        latest = max(latest, STAGES.index(decision.stage))
    return None, STAGES[latest]


def test_the_outcome_is_that_of_the_files_order_whatever_came_before():
    dice = Dice(8)
    payloads = [knock(keys=keys) for keys in SOME_KEYS] + [b"8" * 204, sealed_by_gpg(KEYS)[1]]
    for _ in range(12):
        stanzas = [some_stanza(dice, "u%d" % i) for i in range(1 + dice.roll(7))]
        gate = Gate(stanzas, Settings)
        for _ in range(20):
            payload, source = dice.pick(payloads), dice.pick(SOURCES)
            decision = ask(gate, payload, source)
            found = (None if decision.stage else decision.stanza.name, decision.stage)
            assert found == in_file_order(stanzas, payload, source), [s.__dict__ for s in stanzas]


def gram_of(payload, source=b"\xc0\x00\x02\x63"):
    return Datagram(payload, source, 5, b"\x0a\x00\x00\x01", 62201, 17)


def counted(gate):
    """Has a gate's families write down whose HMAC is computed, and who is asked what it can use; returns both lists."""
    macs, asked = [], []

    def watched(family):
        name, mac, usable = family.groups[0].stanzas[0].name, family.mac, family.usable
        family.mac = lambda text: macs.append(name) or mac(text)
        family.usable = lambda *words: asked.append(name) or usable(*words)

    for family in gate._anywhere:
        watched(family)
    return macs, asked


def three(**more):
    return [Stanza(name="u%d" % i, keys=Keys(b"k%d" % i, b"h%d" % i), **more) for i in range(3)]


def test_what_the_sizes_and_prefixes_are_to_the_byte():
    for length in (140, 1500):
        assert judge(b"8" * length).stage in ("hmac", "length")
    assert judge(b"hQ" + b"A" * 398).stage == judge(b"8" * 400).stage == "length"
    assert judge(b"hQ" + b"A" * 397).stage == judge(b"8" * 399).stage == "hmac"
    assert judge(b"hQ" + b"A" * 399).stage == "prefix"


def test_exactly_four_hundred_characters_are_for_gpg():
    keys = Keys(None, b"an hmac key")
    text = to_base64(b"\x85\x01" + bytes(267))  # the HMAC takes 43 of the 400, and hQ is not sent
    payload = text[2:] + keys.mac(text)
    assert len(payload) == 400
    assert judge(payload, Stanza(gpg="ring", keys=keys)).pending.message == b"\x85\x01" + bytes(267)


def test_a_decision_names_its_stanza_and_packet_as_far_as_they_are_known():
    granted = judge(knock())
    assert (granted.stanza.name, granted.packet.username, granted.reason) == ("alice", "alice", None)
    command = judge(knock("0.0.0.0,id", message_type=0), Stanza(cmd_exec=True))
    assert (command.stanza.name, command.packet.message) == ("alice", "0.0.0.0,id")
    refused = judge(knock(), Stanza(require_user="bob"))
    assert (refused.stanza.name, refused.packet.username) == ("alice", "alice")
    assert refused.reason == "the user name is not the one that the stanza requires"
    unread = judge(knock(), Stanza(keys=Keys(b"wrong", b"an hmac key")))
    assert (unread.stanza.name, unread.packet) == ("alice", None)
    assert unread.reason == "what comes out is not an SPA message: another key or mode"
    pending = judge(sealed_by_gpg(KEYS)[1], Stanza(gpg="ring"))
    assert (pending.stanza.name, pending.packet) == ("alice", None)


def test_of_two_stanzas_that_refuse_at_the_same_stage_the_later_is_named():
    one, two = Stanza(name="one", open_ports=()), Stanza(name="two", open_ports=())
    assert judge(knock(), one, two).stanza.name == "two"


def test_a_packet_of_the_wrong_length_is_told_what_it_would_be_for():
    payload = sealed_by_gpg(KEYS)[1]
    for more in ({}, {"expires": NOW + 9}):  # with and without what can be decided beforehand
        assert "are taken for GPG" in judge(payload, Stanza(**more)).reason
        gpg = Stanza(gpg="ring", keys=Keys(None, b"an hmac key"), **more)
        assert "are not GPG" in judge(knock(), gpg).reason


def test_the_store_gets_the_datagram_the_stamp_and_the_clock():
    seen = Seen()
    payload = knock(timestamp=NOW - 7)
    assert judge(payload, seen=seen).grant
    assert seen.rows == [(gram_of(payload), NOW - 7, NOW)]
    assert seen.digests == [crypto.digest("sha256", payload)]


class Web(Settings):
    http = True


def get(payload, *headers):
    spelt = payload.replace(b"+", b"-").replace(b"/", b"_")
    return b"\r\n".join((b"GET /" + spelt + b" HTTP/1.0", b"User-Agent: Fwknop/2.6.10") + headers) + b"\r\n\r\n"


def test_a_knock_over_http_is_stored_as_the_packet_that_it_carries():
    payload, seen = knock(), Seen()
    assert judge(get(payload), settings=Web, seen=seen).grant
    assert seen.rows == [(gram_of(payload), NOW, NOW)]
    assert judge(payload, settings=Web, seen=seen).stage == "replay"


def test_what_http_carries_has_no_prefix_either():
    assert judge(get(b"hQ" + b"A" * 400), settings=Web).stage == "prefix"
    assert judge(get(b"hQ" + b"A" * 200), settings=Web).stage == "hmac"
    assert judge(b"GET /" + b"A" * 200, settings=Web).reason == "not the user agent Fwknop"


def test_a_trusted_proxys_word_is_the_source_of_a_knock_without_an_address():
    class Proxied(Web):
        forwarded_for, proxies = True, (NET,)

    for message in ("0.0.0.0,tcp/22", "0.0.0.0,id"):
        request = get(knock(message, message_type=int(message.endswith("22"))), b"X-Forwarded-For: 203.0.113.9")
        found = judge(request, Stanza(cmd_exec=True), settings=Proxied)
        assert (found.grant or found.command).source == "203.0.113.9"
        found = judge(request, Stanza(cmd_exec=True), settings=Proxied, source=b"\x0a\0\0\1")
        assert (found.grant or found.command).source == "10.0.0.1"  # nobody that is trusted says so


def test_an_ipv6_address_in_a_message_is_taken_from_either_kind():
    message = "2001:db8::7,tcp/22"
    assert judge(knock(message)).grant.source == "2001:db8::7"
    stanza = Stanza(gpg="ring", keys=Keys(None, b"an hmac key"))
    gate, gram = Gate((stanza,), Settings), gram_of(sealed_by_gpg(stanza.keys)[1])
    group = gate.judge(gram, NOW, Seen()).pending.group
    plain = compose(Packet(message=message, username="alice", timestamp=NOW), "sha256")
    assert gate.judge(gram, NOW, Seen(), [(group, plain, None)]).grant.source == "2001:db8::7"


def test_a_gpg_text_is_new_for_each_of_its_own_and_stored_under_a_digest_that_lasts():
    stanza = Stanza(gpg="ring", keys=Keys(None, None))
    gate, seen = Gate((stanza,), Settings), Seen()
    for byte in (b"\1", b"\2"):
        plain = compose(Packet(message="192.0.2.7,tcp/22", username="alice", timestamp=NOW), "sha256")
        gram = gram_of(sealed_by_gpg(stanza.keys, byte)[1])
        group = gate.judge(gram, NOW, seen).pending.group
        assert gate.judge(gram, NOW, seen, [(group, plain, None)]).grant
        # What an older version stored has to stay known.
        assert crypto.digest("sha256", b"gpg" + plain) in seen.digests


def test_a_second_spelling_of_a_gpg_message_is_told_as_such():
    stanza = Stanza(gpg="ring", keys=Keys(None, None))
    payload = sealed_by_gpg(stanza.keys, b"\x01")[1]
    other = payload[:-1] + (b"B" if payload[-1:] != b"B" else b"C")
    assert judge(other, stanza).reason == "base64 with spare bits set"


def test_stanzas_that_share_all_their_keys_have_a_message_opened_once():
    keys = Keys(None, b"an hmac key")
    one, two = Stanza(gpg="ring", keys=keys, require_user="bob"), Stanza(gpg="ring", keys=keys, name="two")
    gate, gram = Gate((one, two), Settings), gram_of(sealed_by_gpg(keys)[1])
    pending = gate.judge(gram, NOW, Seen()).pending
    assert [s.name for s in pending.group.stanzas] == ["alice", "two"]
    plain = compose(Packet(message="192.0.2.7,tcp/22", username="alice", timestamp=NOW), "sha256")
    assert gate.judge(gram, NOW, Seen(), [(pending.group, plain, None)]).grant.stanza == "two"


def test_the_longest_hmac_key_is_a_key():
    keys = Keys(b"k", b"h" * 136)
    assert judge(knock(keys=keys), Stanza(keys=keys)).grant


def test_a_bogus_packet_costs_one_hmac_a_stanza_and_nothing_else():
    gate = Gate(three(), Settings)
    macs, asked = counted(gate)
    for family in gate._anywhere:
        assert family.usable(gram_of(b"8" * 200), NOW, False, False) is family.fixed[False]
    macs[:], asked[:] = [], []
    assert ask(gate, b"8" * 200, bytes(4)).stage == "hmac"
    assert (macs, asked) == (["u0", "u1", "u2"], ["u0"])


def test_no_hmac_is_computed_for_those_that_cannot_use_a_packet():
    stanzas = three()
    stanzas[1].keys, stanzas[1].gpg = Keys(None, b"h1"), "ring"
    gate = Gate(stanzas, Settings)
    macs, asked = counted(gate)
    assert ask(gate, b"8" * 200, bytes(4)).stage == "hmac" and macs == ["u0", "u2"]
    macs[:] = []
    assert ask(gate, b"8" * 400, bytes(4)).stage == "hmac" and macs == ["u1"]


def test_the_third_stanza_is_tried_when_two_have_another_hmac_key():
    stanzas = three()
    for stanza in stanzas:
        assert ask(Gate(stanzas, Settings), knock(keys=stanza.keys), bytes(4)).grant.stanza == stanza.name


def test_stanzas_of_one_key_are_found_from_the_networks_of_each():
    inside = ((b"\x0a\0\0\0", 8),)
    gate = Gate((Stanza(name="one", source=(NET,)), Stanza(name="two", source=inside)), Settings)
    assert ask(gate, knock(), b"\xc0\x00\x02\x63").grant.stanza == "one"
    assert ask(gate, knock(), b"\x0a\1\2\3").grant.stanza == "two"


def test_a_network_that_is_named_twice_has_a_stanza_tried_once():
    first, second = three(source=(NET, NET))[:2]
    gate = Gate((first, second), Settings)
    assert [len(families) for families in gate._near.lists(b"\xc0\x00\x02\x63")] == [2]


def test_without_an_hmac_the_stanza_used_last_is_tried_first_too():
    keys = [Keys(b"sixteen bytes %d." % i) for i in range(3)]
    for gpg in (None, "ring"):
        other = Stanza(name="gpg", gpg=gpg, keys=KEYS if gpg else Keys(b"yet another key."))
        gate = Gate([Stanza(name="u%d" % i, keys=keys[i]) for i in range(3)] + [other], Settings)
        assert len(gate._anywhere) == 4
        assert ask(gate, knock(keys=keys[2]), bytes(4)).grant.stanza == "u2"
        assert gate._anywhere[0].groups[0].keys is keys[2]


def test_without_an_hmac_those_that_share_a_key_keep_the_files_order_one_with_gpg_too():
    keys = Keys(b"sixteen bytes ok")
    one, two = Stanza(name="one", keys=keys, open_ports=(("tcp", 22),)), Stanza(name="two", keys=keys, gpg="ring")
    gate = Gate((one, two, Stanza(keys=Keys(b"yet another key."))), Settings)
    for message, name in (("192.0.2.7,tcp/22", "one"), ("192.0.2.7,tcp/23", "two"), ("192.0.2.7,tcp/22", "one")):
        assert ask(gate, knock(message, keys=keys), bytes(4)).grant.stanza == name


def test_two_rings_of_gpg_without_an_hmac_keep_the_files_order():
    one = Stanza(name="one", gpg="one", keys=Keys(None))
    two = Stanza(name="two", gpg="two", keys=Keys(b"for Rijndael"))
    gate, gram = Gate((one, two), Settings), gram_of(sealed_by_gpg(one.keys)[1])
    plain = compose(Packet(message="192.0.2.7,tcp/22", username="alice", timestamp=NOW), "sha256")
    opened = []
    for made, fault in ((None, Rejected("decrypt", "no")), (plain, None)):
        opened.append((gate.judge(gram, NOW, Seen(), list(opened)).pending.group, made, fault))
    assert gate.judge(gram, NOW, Seen(), opened).grant.stanza == "two"
    assert gate.judge(gram, NOW, Seen()).pending.group.gpg == "one"


def hinted(stanza, stamp, message="192.0.2.7,tcp/22"):
    salt = b"abcd" + hint(stanza.keys.hmac_key, stamp) + b"e"
    return seal(Packet(message=message, username="alice", timestamp=stamp), stanza.keys, salt=salt)


def test_a_single_stanza_is_tried_at_once_and_needs_no_table_of_hints():
    gate = Gate((Stanza(),), Settings)
    gate.advance(NOW)
    assert ask(gate, knock(), bytes(4)).grant and not gate.hints.table
    assert gate.only_hinted is False


def test_hints_share_the_states_of_the_hmac_where_it_is_theirs():
    gate = Gate((Stanza(), Stanza(keys=Keys(b"k", b"h", hmac="sha512"))), Settings)
    shared = [mac is family.mac for mac, (family,) in gate.hints._owners]
    assert shared == [True, False]


def test_of_two_stanzas_a_hint_finds_the_one_by_its_own_hmac_alone():
    gate = Gate(three()[:2], Settings)
    gate.advance(NOW)
    assert len(gate.hints.table) == 12
    for name in ("u1", "u0"):
        stanza = [f.groups[0].stanzas[0] for f in gate._anywhere if f.groups[0].stanzas[0].name == name][0]
        gate._anywhere.sort(key=lambda family: family.groups[0].stanzas[0].name == name)  # to be tried last
        payload = hinted(stanza, NOW)
        macs, asked = counted(gate)
        assert ask(gate, payload, bytes(4)).grant.stanza == name and macs == [name]


def test_the_table_of_hints_is_whole_in_the_first_second_of_a_slot():
    stanzas = [Stanza(keys=Keys(b"k%d" % i, b"h%d" % i), require_hint=True) for i in range(70)]
    gate, start = Gate(stanzas, Settings), NOW // 60 * 60
    for now in (start, start + 60):
        for stanza in (stanzas[0], stanzas[69]):
            gram = gram_of(hinted(stanza, now + 120))
            assert gate.judge(gram, now, Seen()).grant


def test_without_its_hint_a_packet_for_others_networks_is_refused_as_one_without():
    inside = ((b"\x0a\0\0\0", 8),)
    one, two = three()[:2]
    one.require_hint, two.source = True, inside
    gate = Gate((one, two), Settings)
    assert gate.only_hinted is False
    assert ask(gate, knock(keys=one.keys), b"\xc0\x00\x02\x63").stage == "hint"
    assert ask(gate, hinted(two, NOW), b"\xc0\x00\x02\x63").stage == "source"
    assert ask(gate, hinted(one, NOW), b"\xc0\x00\x02\x63").grant
    both = Stanza(name="both", keys=one.keys, require_hint=True, destination=(NET,))
    assert ask(Gate((both, two), Settings), hinted(one, NOW), b"\xc0\x00\x02\x63").stage == "destination"


def test_junk_at_a_gate_that_takes_only_hints_is_refused_as_without_one():
    one, two = three(require_hint=True)[:2]
    gate = Gate((one, two), Settings)
    assert gate.only_hinted is True
    assert judge(b"8" * 200, one, two).stage == judge(b"\n" * 200, one, two).stage == "hint"
    assert ask(gate, hinted(two, NOW), net.packed("192.0.2.9")).grant.stanza == "u1"
