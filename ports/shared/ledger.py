"""Which rules there should be and which there are, where a device knows a rule by nothing but its words. No I/O.

One rule may serve several openings (an SNAT rule has no source), so each is wanted by its holders.
"""

from collections import namedtuple

from .rules import recognised, timed

Rule = namedtuple("Rule", "table chain words")  # words without the time: `_exp_*`


class Ledger:
    def __init__(self):
        self.wanted = {}  # rule -> {holder: until}
        self.wrote = {}  # rule -> the latest time that we may have written it with
        self.present = {}  # rule -> texts that it is in its chain with, one for each time

    def holds(self, rule, holder):
        return holder in self.wanted.get(rule, ())

    def want(self, rule, holder, until):
        """Wants a rule for a holder until that wall-clock second."""
        self.wanted.setdefault(rule, {})[holder] = until

    def unwant(self, rule, holder, until):
        """Wants a rule for a holder no longer; the process before us may have written it with that `until`."""
        holders = self.wanted.get(rule, {})
        self.wrote[rule] = max(self.wrote.get(rule, 0), holders.pop(holder, 0), until)
        if not holders:
            self.wanted.pop(rule, None)

    def all(self):
        """Returns every rule that is wanted, seen or perhaps written."""
        return sorted(set(self.wanted) | set(self.present) | set(self.wrote))

    def unexplained(self):
        """Returns the times of rules that no holder explains."""
        times = []
        for rule, texts in self.present.items():
            held = self.wanted.get(rule, {}).values()
            times += [e for e in map(expiry, texts) if e not in held]
        return times

    def seen(self, table, listed):
        """Takes in what is in a table: [(chain, text)]; a text without an `_exp_` comment is not ours to look at."""
        for rule in [rule for rule in self.present if rule.table == table]:
            del self.present[rule]
        for chain, text in listed:
            found = recognised(text)
            if found:
                self.present.setdefault(Rule(table, chain, found[0]), []).append(text)

    def change(self, rule, now, dated):
        """Returns the text to add or None, those to take away, and those that are then there (give them to `done`).

        A text that no holder explains has its time, unless we wrote it or what is wanted lasts longer.
        """
        goal = max(self.wanted.get(rule, {0: 0}).values())
        texts = self.present.get(rule, [])
        limit = max(now, goal, self.wrote.get(rule, 0))
        left = [text for text in texts if expiry(text) == goal or expiry(text) > limit]
        drop = [text for text in texts if text not in left]
        if goal in map(expiry, left):
            self.wrote[rule] = max(self.wrote.get(rule, 0), goal)  # before us, or we did: a clock set back shows it
        if not goal or goal in map(expiry, left):
            return None, drop, left
        self.wrote[rule] = limit  # even if the answer gets lost
        add = timed(rule.words, goal, dated)
        return add, drop, left + [add]

    def done(self, rule, left):
        """Takes in that a change was made."""
        if left:
            self.present[rule] = left
        else:
            self.present.pop(rule, None)
            self.wrote.pop(rule, None)


def expiry(text):
    """Returns the wall-clock second of a text's `_exp_` comment."""
    return recognised(text)[1]
