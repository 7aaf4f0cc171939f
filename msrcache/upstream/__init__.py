"""A Registry over HTTP: the client of the registries that are pulled from."""
