"""Bytes from sockets, past the HTTP client: bodies of upstreams and of stores alike. A leaf."""
