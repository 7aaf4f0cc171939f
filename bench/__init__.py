"""Measures the cache beside its peers on one machine; no part of the product, and no test."""
