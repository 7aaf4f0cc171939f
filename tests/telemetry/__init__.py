"""Tests of msrcache.telemetry."""
