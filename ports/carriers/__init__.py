"""Carriers: how words get to a device. Only these touch the machine; a port says what, a carrier says it.

A carrier module has a class Carrier(name, options) with `await say(*words, text=None)`, which returns what was
answered and raises PortError when the command failed, and start, stop, describe and outlives_us.
"""
