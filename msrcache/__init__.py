"""A highly available pull-through cache for OCI registries; `assembly` is the architecture on one page."""

__version__ = "0.1.0"
