"""Plays against the whole cache: real sockets, a real store, and an upstream that does what the script says."""
