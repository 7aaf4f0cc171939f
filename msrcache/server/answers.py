"""Answers of the registry's interface: status, headers and small bodies, the same on every path.

Not here: bodies of blobs (deliver), which answer it is (handlers).
"""

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from aiohttp import HttpVersion, web
from multidict import CIMultiDict

from msrcache.oci.descriptor import OCTETS, Descriptor
from msrcache.oci.errors import CONTENT_TYPE, RegistryError, Unauthorized
from msrcache.oci.registry import Answer, Outcome
from msrcache.server.exchange import Exchange
from msrcache.server.sent import Head, send

API_VERSION: Final = "registry/2.0"
ALWAYS: Final = "max-age=31536000"
"""A blob never changes; Docker Registry's own value."""
SMALL: Final = 256 * 1024
"""Bytes of a body up to which an answer is written in one piece."""
REMEMBERED: Final = 512
"""Heads that are kept rendered; each is about as large as its headers."""
LINK: Final = re.compile(r"<([^<>]*)>(.*)", re.DOTALL)


def heading(exchange: Exchange, given: Mapping[str, str]) -> CIMultiDict[str]:
    """The given headers with those that every answer has."""
    namespace = getattr(exchange.pull, "namespace", None)
    headers = _merged(given, exchange.settings.headers, namespace)
    if "X-Request-Id" not in headers:
        headers["X-Request-Id"] = exchange.request_id
    return headers


def _merged(
    given: Mapping[str, str], operators: Mapping[str, tuple[str, ...]], namespace: str | None
) -> CIMultiDict[str]:
    headers = CIMultiDict(given)
    headers.popall("X-Request-Id", None)  # only the operator may say another than ours
    headers["Docker-Distribution-Api-Version"] = API_VERSION
    headers["Server"] = "msrcache"
    for name, values in operators.items():
        headers.popall(name, None)
        for value in values:
            headers.add(name, value)
    if namespace:
        headers["OCI-Namespace"] = namespace
    return headers


async def answer(
    exchange: Exchange, status: int, headers: Mapping[str, str], body: bytes = b""
) -> web.StreamResponse:
    """Send a whole answer. To HEAD no body goes out, but its length is told."""
    request, operators = exchange.request, exchange.settings.headers
    bare = request.method == "HEAD" or status == 304
    if len(body) > SMALL and not bare:
        return await _answer_large(exchange, status, headers, body)
    told = _Told(
        status,
        request.version,
        bool(request.keep_alive) and not exchange.closing,
        tuple(headers.items()),
        tuple(operators.items()) if operators else (),
        getattr(exchange.pull, "namespace", None),
        len(body),
        bare,
    )
    # Strangers choose what is wrong, and how: that is not remembered.
    head = _head(told) if status < 400 else _head.__wrapped__(told)
    if bare:
        body = b""
    response = await send(request, head, body, request_id=exchange.request_id)
    exchange.answering(status)
    exchange.sent = len(body)
    return response


class _Told(NamedTuple):
    """All that the remembered part of a head depends on."""

    status: int
    version: HttpVersion
    keep_alive: bool
    given: tuple[tuple[str, str], ...]
    operators: tuple[tuple[str, tuple[str, ...]], ...]
    namespace: str | None
    length: int
    bare: bool


@lru_cache(REMEMBERED)
def _head(told: _Told) -> Head:
    headers = _merged(CIMultiDict(told.given), dict(told.operators), told.namespace)
    if told.bare:
        headers.setdefault("Content-Length", str(told.length))
    else:
        headers["Content-Length"] = str(told.length)
        headers.setdefault("Content-Type", OCTETS)
    return Head.of(told.status, told.version, headers, keep_alive=told.keep_alive)


async def _answer_large(
    exchange: Exchange, status: int, headers: Mapping[str, str], body: bytes
) -> web.StreamResponse:
    merged = heading(exchange, headers)
    merged.popall("Content-Length", None)
    merged.setdefault("Content-Type", OCTETS)
    response = web.Response(status=status, headers=merged, body=body)
    if exchange.closing:
        response.force_close()
    await response.prepare(exchange.request)
    exchange.answering(status)
    await response.write_eof()
    exchange.sent = len(body)
    return response


def described(descriptor: Descriptor, outcome: Outcome) -> dict[str, str]:
    """The headers that describe content: type, digest as digest and as ETag, and how we came by it."""
    digest = str(descriptor.digest)
    return {
        "Content-Type": descriptor.media_type,
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "X-Cache": outcome.value,
    }


def unchanged(exchange: Exchange, descriptor: Descriptor) -> bool:
    """Whether If-None-Match names this content; quoted or bare, as Docker Registry takes it."""
    given = exchange.request.headers.get("If-None-Match")
    if given is None:
        return False
    digest = str(descriptor.digest)
    words = (word.strip().removeprefix("W/").strip('"') for word in given.split(","))
    return any(word in (digest, "*") for word in words)


async def refuse(exchange: Exchange, error: RegistryError) -> web.StreamResponse:
    """Send an error as the specification has it, with the request's id where its detail has room for it."""
    headers = CIMultiDict(error.headers)
    headers["Content-Type"] = CONTENT_TYPE
    if isinstance(error, Unauthorized):
        for challenge in error.challenges:
            headers.add("WWW-Authenticate", challenge)
    body = error.body()
    if error.detail is None:
        # Not set in the error: one and the same may be the answer of all who waited for it.
        told = json.loads(body)
        told["errors"][0]["detail"] = {"request": exchange.request_id}
        body = json.dumps(told, separators=(",", ":")).encode()
    return await answer(exchange, error.status, headers, body)


async def pass_on(exchange: Exchange, given: Answer) -> web.StreamResponse:
    """Send what the upstream answered; a Link to its next page is made to lead through here."""
    headers = {name: value for name, value in given.headers.items() if name.lower() != "content-length"}
    for name in list(headers):
        if name.lower() == "link":
            headers[name] = through_here(exchange, headers[name])
    return await answer(exchange, given.status, headers, given.body)


def through_here(exchange: Exchange, link: str) -> str:
    """A Link header that leads here: below http.prefix, and absolute where http.host is given."""
    match = LINK.fullmatch(link.strip())
    if match is None:
        return link
    target = urlsplit(match[1])
    settings = exchange.settings
    path = settings.prefix + target.path[target.path.find("/v2/") + 1 :]
    where = "" if settings.relative_urls else settings.host
    query = f"?{target.query}" if target.query else ""
    return f"<{where}{path}{query}>{match[2]}"
