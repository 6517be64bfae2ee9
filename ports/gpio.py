"""gpio: a pin of a board, with a relay, a door's lock or an LED behind it. On as long as anything is open.

The address and the openings of a knock are the stanza's to judge; a pin has only on and off. With `pulse` it goes on
for so many milliseconds at every knock that opens, whatever time was asked for: a gate that wants a push of a button.
A board that loses its power lets go of the pin; have a resistor pull it to off until the daemon is up again.
"""

from tinyknop.compat import monotonic, whole
from tinyknop.errors import ConfigError, PortError
from tinyknop.loop import current

OPTIONS = {
    "pin": None,  # its number, or its name as machine.Pin takes it ("LED" on a Pico W)
    "active": "high",  # the level that is on; many relay boards want low
    "pulse": "",  # milliseconds; empty: on from the first opening to the end of the last
}
CARRIER = "tape"  # never spoken to


class Port:
    self_timed = False
    outlives_us = False  # it is off after a reset
    nats = False

    def __init__(self, name, options, carrier):
        self.name = name
        self.pin = options["pin"]
        where = options.get("where", "port." + name)
        if not self.pin:
            raise ConfigError(where, "port.%s: pin is missing, as in pin = 15" % name)
        if options["active"] not in ("high", "low"):
            raise ConfigError(where, "port.%s: active = %s: it is high or low" % (name, options["active"]))
        self.on = 1 if options["active"] == "high" else 0
        pulse = options["pulse"] or "0"
        if not 0 <= whole(pulse) < 100000:
            raise ConfigError(where, "port.%s: pulse = %s: say how many milliseconds, as in 500" % (name, pulse))
        self.pulse = int(pulse)
        self._open = set()  # (source, opening) of what holds it on
        self._line = self._timer = None

    async def start(self):
        """Takes the pin, off; raises PortError where there are no pins."""
        self._taken()

    def _taken(self):
        if self._line is None:
            try:
                from machine import Pin

                number = int(self.pin) if self.pin.isdigit() else self.pin
                self._line = Pin(number, Pin.OUT, value=1 - self.on)
            except (ImportError, ValueError, TypeError) as error:
                raise PortError(self.describe(), "there is no such pin here: %s" % error)
        return self._line

    async def open(self, grant, seconds):
        """Sets the pin on for a grant: until its end, or for a pulse."""
        if not self.pulse:
            self._open.update(_held(grant))
        elif self._timer is not None:
            self._timer.cancel()
        self._taken().value(self.on)
        if self.pulse:
            self._timer = current().at(monotonic() + self.pulse, self._off)

    async def close(self, grant):
        """Sets the pin off once nothing holds it on."""
        self._open.difference_update(_held(grant))
        if not self._open and not self.pulse:
            self._off()

    async def sync(self, live):
        """Sets the pin as these grants want it; what lived before a reset gives no second pulse."""
        if not self.pulse:
            self._open = set([held for grant, _ in live for held in _held(grant)])
            self._taken().value(self.on if self._open else 1 - self.on)

    async def stop(self, flush=False):
        self._off()

    def _off(self):
        if self._line is not None:
            self._line.value(1 - self.on)

    def describe(self):
        return "%s (gpio %s)" % (self.name, self.pin)


def _held(grant):
    return [(grant.source, opening) for opening in grant.openings]
