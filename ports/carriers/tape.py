"""tape: only writes down what would be said, for dry runs and tests. It never touches the machine."""

from tinyknop import log

KEPT = 1000  # lines; a dry run may last for weeks


class Carrier:
    outlives_us = False

    def __init__(self, name="tape", options=None):
        self.name = name
        self.lines = []  # what was said, words joined by blanks; lines of `text` follow, set in by two blanks
        self.answers = []  # (start of a line, answer), first match counts; an exception as the answer is raised

    async def start(self):
        pass

    async def stop(self):
        pass

    async def say(self, *words, text=None, within=None, keep=None):
        """Writes the words down and returns the answer the table has for them, or nothing."""
        line = " ".join(words)
        said = [line] + ["  " + part for part in (text or "").split("\n") if part]
        for part in said:
            log.debug("tape: " + part)
        self.lines = (self.lines + said)[-KEPT:]
        for start, answer in self.answers:
            if line.startswith(start):
                if isinstance(answer, Exception):
                    raise answer
                return answer
        return ""

    def describe(self):
        return self.name


Tape = Carrier
