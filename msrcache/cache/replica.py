"""What this process is called among the replicas: new for each start, so that two lives of one host are told apart."""

import re
import secrets
import socket

_UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")


def new_replica_id(host: str = "") -> str:
    """``<host>-<8 hex digits>``: safe in a key, a URL and a label; at most 72 characters."""
    name = _UNSAFE.sub("-", host or socket.gethostname()).strip("-.")[:63] or "replica"
    return f"{name}-{secrets.token_hex(4)}"
