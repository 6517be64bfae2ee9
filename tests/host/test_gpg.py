"""gpg: what it seals opens again, what it says is bounded in size and time, and who may have signed."""

import os
import time

import pytest

from tests import keyrings
from tests.keyrings import CLIENT, LOCKED, LOCKED_SERVER, OLD, PASSPHRASE, SERVER, STRANGER, SUBKEY
from tinyknop.errors import Rejected
from tinyknop.host import gpg
from tinyknop.loop import Loop, sleep
from tinyknop.seal import Keys
from tinyknop.stanza import Gpg

PLAIN = b"a plain text of the tests"


@pytest.fixture(scope="module")
def rings():
    return keyrings.keyrings()


def settings(rings, **other):
    usual = Gpg(None, "", True, False, None, None, rings.server, rings.gpg)
    return usual._replace(**other)


def opened(message, settings):
    return Loop().run_until(gpg.opened(message, settings))


def sealed(rings, signer=CLIENT, recipient=SERVER, **other):
    return gpg.seal(PLAIN, recipient, signer, rings.client, **other)


def unwrapped(rings, packets):
    """Returns packets of OpenPGP encrypted as they are: what a sender of bad will can do."""
    words = ("--no-literal", "--trust-model", "always", "--recipient", SERVER, "--encrypt")
    return rings.say(rings.client, *words, stdin=packets)


def refused(call, *args, **more):
    """Returns the stage and the reason with which a call is refused."""
    with pytest.raises(Rejected) as caught:
        call(*args, **more)
    return caught.value.stage, caught.value.reason


def judged(signature, **lists):
    """Returns the reason for which a signature is not allowed, or None."""
    usual = {"require_sig": True, "ignore_sig": False, "remote_ids": None, "fingerprints": None}
    words = Gpg(decrypt_id=None, password="", home="", exe="", **dict(usual, **lists))
    try:
        return gpg.allowed(signature, words)
    except Rejected as error:
        assert error.stage == "signature"
        return error.reason


def test_signed_message_opens_and_names_its_signer(rings):
    plain, signature = opened(sealed(rings), settings(rings))
    mark = rings.prints[CLIENT]
    assert (plain, signature) == (PLAIN, gpg.Signature(mark[-16:], mark, True, mark, ""))


def test_unsigned_message_has_no_signature(rings):
    assert opened(sealed(rings, None), settings(rings)) == (PLAIN, None)


def test_subkey_signature_names_the_subkey_and_the_primary_key(rings):
    primary, subkey = rings.listed(rings.client, SUBKEY)
    assert opened(sealed(rings, SUBKEY), settings(rings))[1] == gpg.Signature(subkey[-16:], subkey, True, primary, "")


def test_passphrase_of_the_signing_key_is_needed_and_wrong_ones_are_refused(rings):
    for wrong in (None, "", "wrong"):
        stage, reason = refused(sealed, rings, LOCKED, passphrase=wrong)
        assert stage == "key" and "passphrase" in reason
    message = sealed(rings, LOCKED, passphrase=PASSPHRASE)
    assert opened(message, settings(rings))[1].valid


def test_agent_is_asked_where_wanted(rings):
    assert opened(sealed(rings, agent=True), settings(rings))[1].valid


def test_passphrase_of_the_decryption_key_is_needed_and_wrong_ones_are_refused(rings):
    message = sealed(rings, CLIENT, LOCKED_SERVER)
    for wrong in ("", "wrong"):
        stage, reason = refused(opened, message, settings(rings, password=wrong))
        assert stage == "decrypt" and "passphrase" in reason
    assert opened(message, settings(rings, password=PASSPHRASE))[0] == PLAIN


def test_reasons_and_words_never_hold_the_passphrase(rings):
    spy = rings.script("spy", 'for word; do echo "gpg: failed: $word" >&2; done; env >&2; exit 2')
    for call in (
        lambda: sealed(rings, LOCKED, passphrase=PASSPHRASE, exe=spy),
        lambda: opened(b"x" * 500, settings(rings, exe=spy, password=PASSPHRASE)),
    ):
        assert PASSPHRASE not in refused(call)[1]


def test_environment_of_gpg_is_minimal(rings, monkeypatch):
    monkeypatch.setenv("TINYKNOP_SECRET", "of the environment")
    spy = rings.script("environment", "exec env >%s/environment.txt" % rings.dir)
    refused(opened, b"x" * 500, settings(rings, exe=spy))
    with open(rings.dir + "/environment.txt") as file:
        names = {line.split("=")[0] for line in file}
    assert names <= {"PATH", "LC_ALL", "PWD", "_", "SHLVL", "OLDPWD"}


@pytest.mark.parametrize(
    ("signer", "recipient", "said"),
    [(CLIENT, "nobody@tests", "No public key"), ("nobody@tests", SERVER, "No secret key"), (CLIENT, OLD, "expired")],
)
def test_unusable_keys_are_told(rings, signer, recipient, said):
    stage, reason = refused(sealed, rings, signer, recipient)
    assert stage == "key" and said in reason


def test_message_for_another_recipient_is_refused(rings):
    foreign = settings(rings, home=rings.client)
    assert refused(opened, sealed(rings), foreign) == ("decrypt", "gpg: decryption failed: No secret key")


def test_tampered_messages_are_refused(rings):
    message = sealed(rings)
    for place in (1, 4, 30, 200, 285, 300, len(message) - 1):
        broken = message[:place] + bytes([message[place] ^ 1]) + message[place + 1 :]
        assert refused(opened, broken, settings(rings))[0] in ("decrypt", "signature")
    for part in (message[:-1], message[:271], b"", b"\x85" * 600):
        assert refused(opened, part, settings(rings))[0] == "decrypt"


def test_message_that_is_signed_but_not_encrypted_is_refused(rings):
    bare = rings.say(rings.client, "--local-user", CLIENT, "--sign", stdin=PLAIN)
    assert refused(opened, bare, settings(rings))[0] == "decrypt"


def test_second_text_beside_a_signed_one_is_refused(rings):
    signed = rings.say(rings.client, "-z0", "--local-user", CLIENT, "--sign", stdin=PLAIN)
    stored = rings.say(rings.client, "-z0", "--store", stdin=b"a stranger's text")
    secret = sealed(rings, None)
    for message in (unwrapped(rings, stored + signed), unwrapped(rings, signed + stored), secret + signed):
        assert refused(opened, message, settings(rings))[0] in ("decrypt", "signature")
        assert refused(opened, message, settings(rings, ignore_sig=True))[0] == "decrypt"
    assert refused(opened, signed + secret, settings(rings))[0] == "decrypt"


def test_signature_of_another_text_does_not_verify(rings):
    signed = rings.say(rings.client, "-z0", "--local-user", CLIENT, "--sign", stdin=PLAIN)
    message = unwrapped(rings, signed.replace(b"plain", b"other"))
    wanted = ("signature", "the signature is not that of this message")
    assert refused(opened, message, settings(rings)) == wanted
    assert refused(opened, message, settings(rings, require_sig=False)) == wanted
    plain, signature = opened(message, settings(rings, ignore_sig=True))
    assert plain == PLAIN.replace(b"plain", b"other")
    assert signature == gpg.Signature(rings.prints[CLIENT][-16:], "", False, "", "it is not that of this message")
    listed = (rings.prints[CLIENT][-8:],)
    assert "it is not that of this message" in judged(signature, remote_ids=listed)
    assert judged(signature, remote_ids=listed, ignore_sig=True) is None
    assert "fingerprint" in judged(signature, fingerprints=(rings.prints[CLIENT],), ignore_sig=True)


@pytest.mark.parametrize(
    ("signer", "said"), [(OLD, "expired"), (keyrings.UNKNOWN, "import"), (keyrings.UNCERTIFIED, "--lsign-key")]
)
def test_signature_that_fwknopd_would_not_trust_is_refused_with_a_remedy(rings, signer, said):
    message = sealed(rings, signer, exe=rings.old_gpg)
    plain, signature = opened(message, settings(rings))
    assert plain == PLAIN and not signature.valid
    listed = (rings.prints[signer],)
    assert said in judged(signature, fingerprints=listed)
    assert judged(signature, fingerprints=listed, ignore_sig=True) is None


def test_first_of_two_signatures_counts(rings):
    words = ["--trust-model", "always", "-r", SERVER, "-u", CLIENT, "-u", STRANGER, "--sign", "--encrypt"]
    signature = opened(rings.say(rings.client, *words, stdin=PLAIN), settings(rings))[1]
    assert signature.valid and signature.fingerprint in (rings.prints[CLIENT], rings.prints[STRANGER])


def test_text_longer_than_any_packet_is_refused(rings):
    large = rings.say(rings.client, "--trust-model", "always", "-r", SERVER, "--encrypt", stdin=b"x" * 5000000)
    assert refused(opened, large[:4000], settings(rings))[0] == "decrypt"
    bomb = rings.say(rings.client, "--trust-model", "always", "-r", SERVER, "--encrypt", stdin=b"x" * 100000)
    assert len(bomb) < 1000
    assert refused(opened, bomb, settings(rings))[0] == "decrypt"
    assert refused(opened, b"x" * 4097, settings(rings)) == ("decrypt", "more than 4096 bytes for gpg to read")


@pytest.mark.parametrize("exe", ["/nonexistent/gpg", "/etc/passwd", "/etc"])
def test_missing_gpg_is_told(rings, exe):
    assert refused(sealed, rings, exe=exe)[1].startswith("cannot run %s: " % exe)
    assert refused(opened, b"x" * 500, settings(rings, exe=exe))[0] == "decrypt"


def test_gpg_that_hangs_is_ended_and_the_loop_goes_on(rings, monkeypatch):
    monkeypatch.setattr(gpg, "OPEN_S", 1)
    hanging = settings(rings, exe=rings.script("hang", "cat >/dev/null; sleep 60"))
    ticks = []

    async def watch():
        while True:
            ticks.append(time.monotonic())
            await sleep(0.01)

    loop = Loop()
    watcher = loop.spawn(watch())
    with pytest.raises(Rejected, match="took longer"):
        loop.run_until(gpg.opened(b"x" * 500, hanging))
    watcher.cancel()
    gaps = [later - sooner for sooner, later in zip(ticks, ticks[1:])]
    assert len(ticks) > 10 and max(gaps) < 0.8


FLOODS = ["yes", "yes >&2", "for x; do case $x in --status-fd=*) yes >/proc/self/fd/${x#*=};; esac; done"]


@pytest.mark.parametrize("body", FLOODS)
def test_gpg_that_floods_is_ended_at_once(rings, body):
    start = time.monotonic()
    assert "says more" in refused(opened, b"x" * 500, settings(rings, exe=rings.script("flood", body)))[1]
    assert time.monotonic() - start < 2


def test_no_descriptor_or_process_is_left(rings, no_child_left):
    before = len(os.listdir("/proc/self/fd"))
    opened(sealed(rings), settings(rings))
    refused(opened, b"x" * 500, settings(rings))
    refused(opened, b"x" * 500, settings(rings, exe="/nonexistent/gpg"))
    refused(opened, b"x" * 5000, settings(rings))
    refused(opened, b"x" * 500, settings(rings, exe=rings.script("flood", "yes")))
    assert len(os.listdir("/proc/self/fd")) == before


def signature(key="A" * 24 + "0123456789ABCDEF", primary=None):
    return gpg.Signature(key[-16:], key, True, primary or key, "")


def test_ids_and_fingerprints_in_any_case_and_length_but_cut_fingerprints():
    key = "A" * 24 + "0123456789ABCDEF"
    for listed in ("89ABCDEF", "89abcdef", "0x89ABCDEF", "0123456789abcdef", key, key.lower()):
        assert judged(signature(key), remote_ids=("11111111", listed)) is None
    for listed in ("9ABCDEF", "3456789ABCDEF", "", "AAAAAAAA", key[2:]):
        assert "GPG_REMOTE_ID" in judged(signature(key), remote_ids=(listed,))
    for listed in (key, key.lower(), "AAAA " * 6 + "0123 4567 89ab cdef"):
        assert judged(signature(key), fingerprints=(listed,)) is None
    for listed in (key[-8:], key[-16:], key[:-1], key[1:], ""):
        assert "GPG_FINGERPRINT_ID" in judged(signature(key), fingerprints=(listed,))


def test_primary_key_of_a_signing_subkey_counts():
    made = signature("B" * 40, "A" * 24 + "0123456789ABCDEF")
    assert judged(made, fingerprints=(made.primary,), remote_ids=("89ABCDEF",)) is None
    assert judged(made, fingerprints=("B" * 40,), remote_ids=("BBBBBBBB",)) is None


def test_both_lists_must_match_when_both_are_set_and_fingerprints_are_looked_at_first():
    key = "A" * 24 + "0123456789ABCDEF"
    assert judged(signature(key), remote_ids=("89ABCDEF",), fingerprints=(key,)) is None
    assert "GPG_REMOTE_ID" in judged(signature(key), remote_ids=("11111111",), fingerprints=(key,))
    assert "GPG_FINGERPRINT_ID" in judged(signature(key), remote_ids=("89ABCDEF",), fingerprints=("B" * 40,))
    assert "GPG_FINGERPRINT_ID" in judged(signature(key), remote_ids=("11111111",), fingerprints=("B" * 40,))


def test_unsigned_is_refused_unless_no_signature_is_required():
    assert judged(None, remote_ids=("89ABCDEF",)) == "not signed"
    assert judged(None, remote_ids=("89ABCDEF",), ignore_sig=True) == "not signed"
    assert judged(None, require_sig=False) is None
    assert judged(signature()._replace(valid=False), require_sig=False, remote_ids=("11111111",)) is None


def test_wire_and_message_are_each_other_s_inverse(rings):
    message = sealed(rings)
    for keys in (Keys(b"", b"an hmac key"), Keys(b"", b"an hmac key", hmac="sha512"), Keys(b"")):
        data = gpg.wire(message, keys)
        assert 400 <= len(data) <= 1499 and not data.startswith(b"hQ") and b"=" not in data
        assert gpg.message_of(data[: len(data) - keys.hmac_length]) == message


def test_wire_refuses_what_fwknop_cannot_take(rings):
    curve = gpg.seal(PLAIN, OLD, None, rings.client, exe=rings.old_gpg)
    assert refused(gpg.wire, curve, Keys(b""))[0] == "key"
    assert refused(gpg.wire, b"\x85\x01" + b"x" * 200, Keys(b""))[0] == "length"
    assert refused(gpg.wire, b"\x85\x01" + b"x" * 1200, Keys(b""))[0] == "length"


def test_payload_has_one_spelling():
    assert refused(gpg.message_of, b"EMA" * 100)[0] == "length"
    assert refused(gpg.message_of, b"EMA=" * 100)[0] == "charset"
    assert gpg.message_of(b"A" * 401)
    assert refused(gpg.message_of, b"A" * 400 + b"B")[0] == "charset"


class Slow:
    """Stands in for `opened`: ends when told so."""

    def __init__(self, monkeypatch):
        self.running = self.most = 0
        self.begun, self.ended = [], []
        self.go = False
        monkeypatch.setattr(gpg, "opened", self.opened)

    async def opened(self, message, _):
        self.running += 1
        self.most = max(self.most, self.running)
        self.begun.append(message)
        try:
            while not self.go:
                await sleep(0.001)
            self.ended.append(message)
            return message
        finally:
            self.running -= 1


def test_few_run_at_once_some_wait_and_the_rest_is_refused(monkeypatch):
    slow, loop, opener = Slow(monkeypatch), Loop(), gpg.Opener()
    tasks = [loop.spawn(opener.opened(number, None)) for number in range(gpg.MOST_RUNNING + gpg.MOST_WAITING)]
    loop.turn()
    with pytest.raises(Rejected) as caught:
        loop.run_until(opener.opened("too many", None))
    assert caught.value.stage == "full"
    slow.go = True
    while not all(task.done for task in tasks):
        loop.turn()
    # In turn they begin; those that run side by side end as their timers happen to.
    assert slow.begun == sorted(slow.ended) == list(range(len(tasks))) and slow.most == gpg.MOST_RUNNING
    assert loop.run_until(opener.opened("again", None)) == "again" and opener.running == 0


def test_cancelled_messages_give_their_place_to_the_next(monkeypatch):
    slow, loop, opener = Slow(monkeypatch), Loop(), gpg.Opener()
    tasks = [loop.spawn(opener.opened(number, None)) for number in range(gpg.MOST_RUNNING + 4)]
    for _ in range(3):
        loop.turn()
    tasks[5].cancel()  # it waits
    tasks[0].cancel()  # it runs: the turn goes to 4 ...
    tasks[4].cancel()  # ... which is gone before it takes it
    slow.go = True
    while not all(task.done for task in tasks):
        loop.turn()
    assert sorted(slow.ended) == [1, 2, 3, 6, 7] and slow.most <= gpg.MOST_RUNNING
    assert (opener.running, opener.waiting) == (0, [])


def test_cancelled_gpg_leaves_nothing(rings, no_child_left):
    loop, opener = Loop(), gpg.Opener()
    hanging = settings(rings, exe=rings.script("hang", "exec sleep 60"))

    async def cancelled():
        task = loop.spawn(opener.opened(b"x" * 500, hanging))
        await sleep(0.1)
        assert len(os.listdir("/proc/self/fd")) > before
        task.cancel()
        assert opener.running == 0
        deadline = time.monotonic() + 10
        await sleep(0.01)  # somebody else waits for it now
        while len(os.listdir("/proc/self/fd")) > before and time.monotonic() < deadline:
            await sleep(0.01)

    before = len(os.listdir("/proc/self/fd"))
    loop.run_until(cancelled())
    assert len(os.listdir("/proc/self/fd")) == before
