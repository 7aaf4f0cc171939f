"""Tests of msrcache.storage."""
