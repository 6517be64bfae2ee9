"""Fuzzing: what reads untrusted or hand-written input, and the loop that feeds it mutated bytes."""
