"""`tinyknop check --live` understands the options of `tinyknop knock` wherever they stand."""

import pytest

from tinyknop.host import live

WORDS = (["-c", "c.toml"], ["-A", "tcp/22"], ["-k", "alice.key"], ["-s"], ["--server", "s.toml"], ["--wait", "7"])


@pytest.mark.parametrize("place", range(len(WORDS) + 1))
def test_the_name_may_stand_before_between_or_behind_options(place):
    rows = [*WORDS[:place], ["office"], *WORDS[place:]]
    options = live.parser().parse_args([word for row in rows for word in row])
    assert (options.name, options.config, options.server, options.wait) == ("office", "c.toml", "s.toml", 7)
    assert (options.openings, options.key_file, options.address) == ("tcp/22", "alice.key", "source")


class Stand:
    """A daemon's socket that tells what became of the knock."""

    def __init__(self, taken):
        self.count, self.closed = taken, []

    def taken(self):
        return self.count

    def why(self):
        return "the daemon refused it at hmac"

    def close(self, openings):
        self.closed += openings
        return len(self.closed)


def outcome(monkeypatch, capsys, daemon, *answers):
    """Returns (exit status, what was said) where the port answers so, before and after the knock."""
    answers = list(answers)
    monkeypatch.setattr(live, "probe", lambda goal, seconds: answers.pop(0))
    monkeypatch.setattr(live, "wait", lambda goal, wanted, seconds: (answers.pop(0), 1))
    monkeypatch.setattr(live.client, "send", lambda data, place: None)
    monkeypatch.setattr(live, "daemon_of", lambda options: daemon)
    monkeypatch.setattr(live.knock, "gather", lambda options: target())
    return live.main(["192.0.2.1"]), capsys.readouterr().out


def target():
    entries = [("host", "192.0.2.1"), ("openings", "tcp/22"), ("address", "192.0.2.2"), ("key", "k" * 16)]
    return live.client.Target([(name, text, "x:1") for name, text in entries], "x:1")


def test_a_port_that_refuses_all_along_does_not_hide_what_the_daemon_says(monkeypatch, capsys):
    status, said = outcome(monkeypatch, capsys, Stand(0), "refused", "refused")
    assert status == 1 and "refused it at hmac" in said
    status, said = outcome(monkeypatch, capsys, Stand(1), "silent", "refused")
    assert status == 1 and "no service listens" in said


def test_a_try_that_failed_leaves_nothing_open(monkeypatch, capsys):
    """Else the next one would find the door open, or a wrong key seem to work."""
    daemon = Stand(1)
    assert outcome(monkeypatch, capsys, daemon, "silent", "refused")[0] == 1
    assert daemon.closed == ["tcp/22"]
    daemon = Stand(0)
    assert outcome(monkeypatch, capsys, daemon, "open")[0] == 1
    assert daemon.closed == []  # before the knock: not ours


NOW = {
    "counters": {"granted": 3},
    "captures": [{"received": 10}],
    "ports": [{"name": "f", "failure": None}],
    "grants": [],
}
SICK = [{"name": "f", "failure": "the set is full"}]


@pytest.mark.parametrize(
    "since, said",
    [
        ({"counters": {"granted": 4}, "ports": SICK}, "the daemon took it, but port f fails: the set is full"),
        ({"counters": {"granted": 4}}, "the daemon took it and its ports work: is its rule before the one that drops?"),
        ({"counters": {"granted": 3, "hmac": 1}, "captures": [{"received": 11}]}, "the daemon refused it at hmac: "),
        ({"captures": [{"received": 11}]}, "the daemon heard packets, and counted none of them"),
        ({}, "the daemon heard no packet: compare the capture's interface and port"),
    ],
)
def test_what_the_daemon_knows_is_told_where_nothing_opened(monkeypatch, since, said):
    monkeypatch.setattr(live.status, "ask", lambda path: NOW)
    monkeypatch.setattr(live.status, "state", lambda path: dict(NOW, **since))
    assert live.Daemon("/there").why().startswith(said)
