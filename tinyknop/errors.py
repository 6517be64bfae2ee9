"""The three ways to fail. Reasons are for people: one line, and never a key, a plain text or a whole packet."""


class TinyknopError(Exception):
    """Something the owner should read: where it happened, and why, in one line."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return "%s: %s" % (self.stage, self.reason)


class Rejected(TinyknopError):
    """A packet that is not honoured; `stage` is from the closed list of `gate.STAGES`. Never answered on the wire."""


class ConfigError(TinyknopError):
    """A setting that cannot be meant; `stage` is "FILE:LINE", the reason says what to write instead."""


class PortError(TinyknopError):
    """A port, carrier or capture that could not do its work; `stage` describes it."""


class Refused(PortError):
    """A device has answered that it does not take a command: said again, it would be refused again."""
