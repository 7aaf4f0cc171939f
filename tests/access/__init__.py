"""Tests of msrcache.access."""
