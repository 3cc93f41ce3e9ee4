"""How Cartwright is run: the command line, the local stack and what production needs."""
