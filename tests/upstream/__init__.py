"""Tests of msrcache.upstream."""
