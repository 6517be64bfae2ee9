"""What needs CPython: the command line, TOML, the drop-in front ends. Nothing outside this folder imports it
at its head."""
