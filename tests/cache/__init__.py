"""Tests of msrcache.cache."""
