"""Docker Registry and the cache on one folder."""
