"""The OCI conformance suite against the cache."""
