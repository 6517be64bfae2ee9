"""Stands in for a board's `network` on MicroPython's unix port: the wireless network is whatever the machine has."""

STA_IF = 0


def country(code):
    assert len(code) == 2


def hostname(name):
    assert name


class WLAN:
    """Joins at the second look."""

    def __init__(self, interface):
        self.looks = -1

    def active(self, on):
        assert on

    def connect(self, name, password):
        assert name and password
        self.looks = 0

    def isconnected(self):
        if self.looks >= 0:
            self.looks += 1
        return self.looks > 2

    def ifconfig(self):
        return ("10.99.0.1", "255.255.255.0", "10.99.0.254", "10.99.0.254")
