"""The other machine of a check: one end listens and does small things to the store, the other is a driver that asks it.

Rules, so that a stranger can do nothing with a listening end:
1. Every question is signed with the secret that both ends have (HMAC-SHA256 over a challenge, the operation and what
   goes with it), and every answer too.
2. A challenge is made by the listening end and good for one question, so nothing that was overheard can be said again.
   At most CHALLENGES are open; the oldest is forgotten.
3. Only keys of a probe, below PROBE and a token of 16 hexadecimal digits, are read or written, and objects of at most
   LARGEST bytes. What was written through here and not removed is removed when the listening end leaves.

    GET  <url>   {"challenge": "…"}
    POST <url>   {"challenge", "operation", "key", "data", "span"}, X-Msrcache-Signature: HMAC of the body
                 -> {"ok": …} or {"error": {"kind", "message", "size"}}, signed over challenge and body

Not here: what is asked (`promises`), and the command around it.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import aiohttp
from aiohttp import web

from msrcache.oci.ranges import Span
from msrcache.storage.driver import Content, Driver, ObjectInfo, StreamContent, Writer
from msrcache.storage.errors import (
    Denied,
    NoSpace,
    NotFound,
    RangeNotSatisfiable,
    ReadOnly,
    StorageError,
    Unavailable,
    Unusable,
)
from msrcache.storage.keys import is_key
from msrcache.storage.stage import whole_of

CHALLENGES: Final = 256
LARGEST: Final = 1 << 20
PATH: Final = "/msrcache/check-storage/v1"
SIGNATURE: Final = "X-Msrcache-Signature"

_OURS: Final = re.compile(r"msrcache/probe/[0-9a-f]{16}(/.+)?")
_KINDS: Final[dict[str, type[StorageError]]] = {
    kind.__name__: kind for kind in (NotFound, Denied, ReadOnly, NoSpace, Unusable, Unavailable, StorageError)
}

Told = Mapping[str, Any]


class PeerProblem(Exception):
    """The other end cannot be asked; one sentence."""


def sign(secret: bytes, *parts: bytes) -> str:
    """What proves that somebody with the secret said this, and said it here: the secret signs other things too."""
    return hmac.new(secret, b"\n".join((PATH.encode(), *parts)), hashlib.sha256).hexdigest()


class Listener:
    """The end that does what it is asked, over its own driver."""

    def __init__(self, driver: Driver, secret: bytes) -> None:
        self._driver = driver
        self._secret = secret
        self._challenges: dict[str, None] = {}
        self._written: dict[str, None] = {}

    def __repr__(self) -> str:
        return f"<Listener {self._driver.name} [{len(self._written)} keys]>"

    @asynccontextmanager
    async def listening(self, host: str, port: int) -> AsyncIterator[int]:
        """The port that it listens on, while the context is open. Raises OSError."""
        app = web.Application(client_max_size=2 * LARGEST)
        app.add_routes([web.get(PATH, self._challenge), web.post(PATH, self._answer)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()
            with suppress(StorageError):
                await self._driver.delete(*self._written)

    async def _challenge(self, request: web.Request) -> web.Response:
        del request
        challenge = secrets.token_hex(16)
        self._challenges[challenge] = None
        while len(self._challenges) > CHALLENGES:
            del self._challenges[next(iter(self._challenges))]
        return web.json_response({"challenge": challenge})

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        if not hmac.compare_digest(request.headers.get(SIGNATURE, ""), sign(self._secret, b"ask", body)):
            return web.Response(status=403, text="not signed with this end's http.secret\n")
        asked = json.loads(body)
        challenge, key = str(asked.get("challenge")), str(asked.get("key"))
        opened = challenge in self._challenges
        self._challenges.pop(challenge, None)
        if not opened or not _OURS.fullmatch(key) or not is_key(key):
            return web.Response(status=403, text="this challenge is not open, or the key is no probe's\n")
        try:
            told: Told = {"ok": await self._done(asked, key)}
        except RangeNotSatisfiable as error:
            told = {"error": {"kind": "Range", "size": error.size}}
        except StorageError as error:
            kind = next((name for name, known in _KINDS.items() if isinstance(error, known)), "StorageError")
            told = {"error": {"kind": kind, "message": error.message}}
        data = json.dumps(told).encode()
        signature = sign(self._secret, b"answer", challenge.encode(), data)
        return web.Response(body=data, headers={SIGNATURE: signature})

    async def _done(self, asked: Told, key: str) -> object:
        data = base64.b64decode(asked.get("data") or "")[:LARGEST]
        match asked.get("operation"):
            case "hello":
                return {"store": self._driver.name, "exclusive": self._driver.create_is_exclusive}
            case "stat":
                return _info(await self._driver.stat(key))
            case "open":
                return await self._opened(key, asked.get("span"))
            case "put":
                self._written[key] = None
                await self._driver.put(key, data)
                return None
            case "create":
                self._written[key] = None
                return await self._driver.create(key, data)
            case "delete":
                await self._driver.delete(key)
                self._written.pop(key, None)
                return None
            case "list":
                return [[found, _info(info)] async for found, info in self._driver.list(key)]
        raise StorageError(self._driver.name, key, None, "this end does not do that")

    async def _opened(self, key: str, span: Any) -> object:
        async with self._driver.open(key, Span(*span) if span else None) as content:
            if content.span.size > LARGEST:
                raise StorageError(self._driver.name, key, None, "too large for a check")
            data = base64.b64encode(await whole_of(content)).decode()
            return {
                "info": _info(content.info),
                "span": [content.span.start, content.span.stop],
                "data": data,
            }


class Peer:
    """The driver of another machine, as far as a check needs it. Implements Driver; raises StorageError."""

    def __init__(self, url: str, secret: bytes) -> None:
        self.name = "peer"
        self.create_is_exclusive = True
        self._url = url.rstrip("/") + PATH
        self._secret = secret
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))

    def __repr__(self) -> str:
        return f"<Peer {self._url}>"

    async def hello(self, prefix: str) -> str:
        """The name of its store. Raises PeerProblem."""
        try:
            told = await self._ask("hello", prefix)
        except StorageError as error:
            raise PeerProblem(f"the other end at {self._url} cannot be asked: {error.message}") from error
        return str(told["store"])

    async def stat(self, key: str) -> ObjectInfo:
        """As Driver."""
        return ObjectInfo(*await self._ask("stat", key))

    @asynccontextmanager
    async def open(self, key: str, span: Span | None = None) -> AsyncIterator[Content]:
        """As Driver, at once."""
        told = await self._ask("open", key, span=[span.start, span.stop] if span else None)
        data = base64.b64decode(told["data"])

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        yield StreamContent(ObjectInfo(*told["info"]), Span(*told["span"]), chunks())

    async def put(self, key: str, data: bytes) -> None:
        """As Driver."""
        await self._ask("put", key, data=base64.b64encode(data).decode())

    async def create(self, key: str, data: bytes) -> bool:
        """As Driver."""
        return bool(await self._ask("create", key, data=base64.b64encode(data).decode()))

    def writer(self, key: str) -> Writer:
        """Not here: large objects are written by the end that asks."""
        raise StorageError(self.name, key, None, "the other end writes no large objects")

    async def delete(self, *keys: str) -> None:
        """As Driver, one by one."""
        for key in keys:
            await self._ask("delete", key)

    async def list(self, prefix: str) -> AsyncIterator[tuple[str, ObjectInfo]]:
        """As Driver."""
        for key, info in await self._ask("list", prefix):
            yield key, ObjectInfo(*info)

    async def presign(self, key: str, ttl: float, *, endpoint: str = "") -> str | None:
        """None: the end that asks signs."""
        del key, ttl, endpoint
        return None

    async def sweep(self, older_than: float) -> int:
        """Not here."""
        del older_than
        return 0

    async def close(self) -> None:
        """As Driver."""
        await self._session.close()

    async def _ask(self, operation: str, key: str, **more: object) -> Any:
        try:
            async with self._session.get(self._url) as answer:
                challenge = str((await answer.json(content_type=None))["challenge"])
            question = json.dumps(
                {"challenge": challenge, "operation": operation, "key": key, **more}
            ).encode()
            headers = {SIGNATURE: sign(self._secret, b"ask", question)}
            async with self._session.post(self._url, data=question, headers=headers) as answer:
                body, status, signature = (
                    await answer.read(),
                    answer.status,
                    answer.headers.get(SIGNATURE, ""),
                )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(self.name, key, error, "no answer that could be understood") from error
        if status == 403:
            raise Denied(self.name, key, None, body.decode(errors="replace").strip()[:200])
        if not hmac.compare_digest(signature, sign(self._secret, b"answer", challenge.encode(), body)):
            raise Denied(self.name, key, None, "the answer is not signed with this end's http.secret")
        return self._understood(json.loads(body), key)

    def _understood(self, told: Told, key: str) -> Any:
        if "error" not in told:
            return told["ok"]
        error = told["error"]
        if error["kind"] == "Range":
            raise RangeNotSatisfiable(self.name, key, size=int(error["size"]))
        raise _KINDS.get(error["kind"], StorageError)(self.name, key, None, error["message"])


def _info(info: ObjectInfo) -> list[object]:
    return [info.size, info.modified, info.etag, info.checksum]
