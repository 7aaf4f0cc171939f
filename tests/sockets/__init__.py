"""Tests of msrcache.sockets."""
