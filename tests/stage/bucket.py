"""A storage service with signed URLs, small and real: a memory driver's objects over HTTP, and the driver that signs.

As services do, a URL is for one method, one key, one host and a time; whatever else is refused with 403. Range is
honoured. The ledger has every request that came by a URL.
"""

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from msrcache.oci.errors import RegistryError
from msrcache.oci.ranges import Span, content_range, parse_range
from msrcache.storage.memory import Contents, Faults, Memory

SECRET = b"known to the service and to us"


class Signing(Memory):
    """The memory driver, with URLs of a bucket."""

    def __init__(self, bucket: "Bucket", *, faults: Faults | None = None) -> None:
        super().__init__(bucket.contents, faults=faults)
        self.bucket = bucket

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """As Driver."""
        await self.faults.before("presign", key)
        where, until = endpoint or self.bucket.url, str(int(time.time() + ttl))
        host = urlsplit(where).netloc
        query = urlencode({"expires": until, "signature": _sign("GET", host, key, until)})
        return f"{where.rstrip('/')}/{key}?{query}"


@dataclass(slots=True)
class Bucket:
    """A running service; `url` is where its driver reaches it."""

    contents: Contents
    url: str = ""
    ledger: list[str] = field(default_factory=list)
    ahead: float = 0.0
    """Seconds that its clock is ahead of the one that signs."""

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        key, wanted = request.path.removeprefix("/"), request.headers.get("Range", "")
        self.ledger.append(" ".join(filter(None, (request.method, key, wanted))))
        if not _signed(request, key, now=time.time() + self.ahead):
            return web.Response(status=403, text="SignatureDoesNotMatch")
        found = self.contents.objects.get(key)
        if found is None:
            return web.Response(status=404, text="NoSuchKey")
        span = Span.whole(len(found.data))
        if wanted and (asked := parse_range(wanted)) is not None:
            try:
                span = asked.resolve(len(found.data))
            except RegistryError as error:
                return web.Response(status=error.status, headers=dict(error.headers))
        told = {"Content-Range": content_range(span, len(found.data))} if wanted else {}
        body = found.data[span.start : span.stop]
        return web.Response(status=206 if wanted else 200, headers=told, body=body)


@asynccontextmanager
async def bucket(contents: Contents | None = None) -> AsyncIterator[Bucket]:
    """A service on a free port of the loopback, known as localhost."""
    service = Bucket(contents or Contents())
    runner = web.ServerRunner(web.Server(service.serve))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        service.url = f"http://localhost:{runner.addresses[0][1]}"
        yield service
    finally:
        await runner.cleanup()


def _signed(request: web.BaseRequest, key: str, *, now: float) -> bool:
    until = request.query.get("expires", "0")
    right = _sign(request.method, request.host, key, until)
    return hmac.compare_digest(request.query.get("signature", ""), right) and now < int(until)


def _sign(method: str, host: str, key: str, until: str) -> str:
    return hmac.new(SECRET, f"{method} {host} {key} {until}".encode(), hashlib.sha256).hexdigest()
