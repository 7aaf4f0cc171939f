"""Who is calling, where a proxy of the operator's own stands in between: X-Forwarded-*, Forwarded,
X-Request-Id.

Believed only from a connection whose peer is trusted. The client is the last address of the chain that is
not one of our proxies: what stands before it was written by the client.
"""

import itertools
import re
import secrets
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from aiohttp import web

from msrcache.server.connection import Connection
from msrcache.server.listener import Networks, is_trusted, plain_address

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:+/=@-]{1,128}")
HOST: Final = re.compile(r"[A-Za-z0-9.\-_]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")
_START: Final = secrets.token_hex(8)
_NUMBERS: Final = itertools.count()
# An id names a request among all replicas; nobody gains by guessing one. Random bytes for each are a system call.


@dataclass(frozen=True, slots=True)
class Origin:
    """The client as far as it can be known; an empty address is a unix socket's."""

    address: str
    scheme: str
    host: str


def request_id(request: web.BaseRequest, connection: Connection) -> str:
    """The id of a trusted proxy where it is well-formed, else a new one."""
    if connection.trusted:
        given = request.headers.get("X-Request-Id", "")
        if REQUEST_ID.fullmatch(given):
            return given
    return f"{_START}{next(_NUMBERS):016x}"


def origin(request: web.BaseRequest, connection: Connection, trusted: Networks) -> Origin:
    """Address, scheme and host of the client."""
    scheme = "https" if connection.secure else "http"
    host = request.headers.get("Host", "")
    if not connection.trusted:
        return Origin(connection.address, scheme, host)
    headers = request.headers
    chain = [part.strip() for value in headers.getall("X-Forwarded-For", ()) for part in value.split(",")]
    given_scheme = headers.get("X-Forwarded-Proto", "").rpartition(",")[2].strip().lower()
    given_host = headers.get("X-Forwarded-Host", "").rpartition(",")[2].strip()
    if "Forwarded" in headers:
        elements = [element for element in request.forwarded if element]
        chain = chain or [element["for"] for element in elements if "for" in element]
        last = elements[-1] if elements else {}
        given_scheme = given_scheme or last.get("proto", "").lower()
        given_host = given_host or last.get("host", "")
    return Origin(
        _client(chain, connection.address, trusted),
        given_scheme if given_scheme in ("http", "https") else scheme,
        given_host if HOST.fullmatch(given_host) else host,
    )


def _client(chain: list[str], peer: str, trusted: Networks) -> str:
    address = peer
    for part in reversed(chain):
        parsed = _address(part)
        if parsed is None:
            break
        address = parsed
        if not is_trusted(address, trusted):
            break
    return address


def _address(text: str) -> str | None:
    """An address of the chain without port and brackets; None where it is none (unknown, _hidden)."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return plain_address(str(ip_address(text)))
    except ValueError:
        return None
