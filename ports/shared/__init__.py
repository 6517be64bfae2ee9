"""What several ports have in common: words, listings, bookkeeping. Nothing in here is a kind of port."""
