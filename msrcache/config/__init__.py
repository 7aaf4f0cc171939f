"""The configuration file and the REGISTRY_* environment, checked and typed."""
