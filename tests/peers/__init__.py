"""Real registries and real clients, with the cache between them."""
