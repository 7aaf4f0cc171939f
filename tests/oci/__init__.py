"""Tests of msrcache.oci."""
