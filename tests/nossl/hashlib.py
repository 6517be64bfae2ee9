"""What OpenWrt's micropython-nossl and the ESP8266 have: this folder is put before MicroPython's own modules."""

from uhashlib import sha256  # noqa: F401 (all there is)
