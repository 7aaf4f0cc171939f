"""Tests of msrcache.config."""
