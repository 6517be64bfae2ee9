"""Not there without a TLS library."""

raise ImportError("no module named 'cryptolib'")
