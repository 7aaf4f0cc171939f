"""Tests of msrcache.server."""
