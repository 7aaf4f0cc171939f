"""What stands before fake-gcs-server and enforces what it does not, as Google's documentation has it.

Tokens: each request needs one that this server gave, for an assertion that the account's key has signed.
Signed URLs: the V4 signature is verified over the request as it came, and its time.
Uploads: pieces follow each other, are multiples of 256 KiB but for the last, and stand as far as they came; the
service says how far, publishes against the checksum of the whole, and cancels.
Deletions: a stale generation deletes nothing.
Permissions: those of the account, by the request; this is our reading of them.
The objects, their generations, conditions, checksums and ranges are the emulator's. The ledger has what was asked.
"""

import json
import re
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from io import BytesIO
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
import google_crc32c
from aiohttp import web
from yarl import URL

from tests.stage.googleaccount import EMAIL, Account, Tokens, Turn

ALIGNED = 256 << 10
OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o(?:/([^/]+))?")
UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o")
HOP = frozenset({"host", "transfer-encoding", "connection", "content-length", "authorization"})


NEEDED = {
    "read": "storage.objects.get",
    "stat": "storage.objects.get",
    "bucket": "storage.buckets.get",
    "list": "storage.objects.list",
    "write": "storage.objects.create",
    "begin": "storage.objects.create",
    "delete": "storage.objects.delete",
}
"""The permission for each request; who replaces an object must also be allowed to delete it."""


@dataclass(slots=True)
class Session:
    """An upload that was begun."""

    key: str
    url: str
    received: int = 0
    crc32c: int = 0
    published: dict[str, Any] | None = None
    ended: int = 0
    """The status with which it is spoken of no more."""


@dataclass(slots=True)
class Front:
    """The running server; `url` is where it is, `behind` where the emulator is."""

    behind: str
    tokens: Tokens = field(default_factory=Tokens)
    url: str = ""
    ledger: list[str] = field(default_factory=list)
    sessions: dict[str, Session] = field(default_factory=dict)
    turn: Turn = lambda line: None
    """May answer instead; lines are the ledger's."""
    lost: Callable[[str], bool] = lambda line: False
    """Whether the reply of what was done is lost."""
    allowed: set[str] = field(default_factory=lambda: set(NEEDED.values()))
    """What the account may do."""
    client: aiohttp.ClientSession = field(init=False)

    @property
    def account(self) -> Account:
        """Whose tokens and signatures are good."""
        return self.tokens.account

    @property
    def open_sessions(self) -> list[str]:
        """The keys of uploads that are open."""
        return [found.key for found in self.sessions.values() if not found.ended and found.published is None]

    def said(self, line: str) -> web.Response | None:
        """Into the ledger; the answer where a test has another, or the account may not."""
        self.ledger.append(line)
        return self.turn(line) or self._denied(NEEDED.get(line.split(" ", maxsplit=1)[0]))

    def _denied(self, permission: str | None) -> web.Response | None:
        if permission is None or permission in self.allowed:
            return None
        text = f"{EMAIL} does not have {permission} access to the Google Cloud Storage object. "
        text += f"Permission '{permission}' denied on resource (or it may not exist)."
        return refusal(403, "forbidden", text)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        path = request.rel_url.raw_path
        if (answer := await self.tokens.serve(request, self.said)) is not None:
            return answer
        if not path.startswith(("/storage/", "/upload/")):
            return await self._by_url(request)
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens.given:
            self.ledger.append("refused")
            return refusal(401, "authError", "Invalid Credentials")
        if upload := UPLOAD.fullmatch(path):
            return await self._upload(request, upload[1])
        return await self._object(request, path)

    async def _by_url(self, request: web.BaseRequest) -> web.StreamResponse:
        key = unquote(request.rel_url.raw_path.split("/", 2)[2])
        if answer := self.said(" ".join(filter(None, ("url", key, request.headers.get("Range", ""))))):
            return answer
        if not signed(self.account, request):
            return web.Response(status=403, text="<Error><Code>SignatureDoesNotMatch</Code></Error>")
        return await self._forwarded(request, f"url {key}")

    async def _object(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        found = OBJECT.fullmatch(path)
        key = unquote(found[2] or "") if found else path
        word = {"DELETE": "delete", "GET": "read" if "alt" in request.query else "stat"}[request.method]
        word = word if found else "bucket"
        line = f"{word} {key}" if key else f"list {request.query.get('prefix', '')}".strip()
        if answer := self.said(line):
            return answer
        wanted = request.query.get("ifGenerationMatch")
        if wanted is not None and found and await self._generation(found[1], key) != wanted:
            return refusal(412, "conditionNotMet", "At least one of the pre-conditions did not hold.")
        return await self._forwarded(request, line)

    async def _upload(self, request: web.BaseRequest, bucket: str) -> web.StreamResponse:
        if session := self.sessions.get(request.query.get("upload_id", "")):
            return await self._piece(request, session)
        if "upload_id" in request.query:
            return refusal(404, "notFound", "No such upload")
        if request.query["uploadType"] == "resumable":
            return await self._begin(request, bucket)
        body = await _as_far_as_it_comes(request, 1 << 40)
        described = body.split(b"\r\n\r\n", 2)[1].partition(b"\r\n")[0]
        key = json.loads(described)["name"]
        if answer := self.said(f"write {key}") or await self._over(request, bucket, key):
            return answer
        return await self._forwarded(request, f"write {key}", body)

    async def _over(self, request: web.BaseRequest, bucket: str, key: str) -> web.Response | None:
        """A refusal where what stands there must not be replaced."""
        stands, wanted = await self._generation(bucket, key), request.query.get("ifGenerationMatch")
        if wanted is not None and wanted != stands:
            return refusal(412, "conditionNotMet", "At least one of the pre-conditions did not hold.")
        return self._denied("storage.objects.delete") if stands != "0" else None

    async def _begin(self, request: web.BaseRequest, bucket: str) -> web.StreamResponse:
        body = await _as_far_as_it_comes(request, 1 << 40)
        key = json.loads(body)["name"]
        if answer := self.said(f"begin {key}") or await self._over(request, bucket, key):
            return answer
        headers = {"Content-Type": "application/json"}
        async with self.client.post(self._there(request), data=body, headers=headers) as begun:
            if begun.status != 200:
                return web.Response(status=begun.status, body=await begun.read())
            name = f"session-{len(self.sessions) + 1}"
            self.sessions[name] = Session(key, begun.headers["Location"])
        location = f"http://{request.host}{request.rel_url.raw_path}?uploadType=resumable&upload_id={name}"
        return self._unless_lost(request, f"begin {key}", web.Response(headers={"Location": location}))

    async def _piece(self, request: web.BaseRequest, session: Session) -> web.StreamResponse:
        told = request.headers.get("Content-Range", "").removeprefix("bytes ")
        word = "cancel" if request.method == "DELETE" else "ask" if told == "*/*" else "piece"
        line = f"{word} {session.key}" + (f" {told}" if word == "piece" else "")
        if answer := self.said(line):
            return answer
        if session.ended:
            return refusal(session.ended, "gone", "The upload is not known any more")
        if word == "cancel":
            session.ended = 499
            return web.Response(status=499)
        if word == "piece" and session.published is None:
            refused = await self._take(request, session, told)
            if refused is not None:
                return refused
        return self._unless_lost(request, line, _standing(session))

    async def _take(self, request: web.BaseRequest, session: Session, told: str) -> web.Response | None:
        """The bytes of a piece, as far as they come."""
        span, _, total = told.partition("/")
        start, stop = _edges(span, session.received)
        data = await _as_far_as_it_comes(request, stop - start)
        whole = len(data) == stop - start and total == str(stop)
        if start != session.received or (len(data) == stop - start and not whole and len(data) % ALIGNED):
            return refusal(400, "invalid", f"{told} does not follow {session.received} bytes")
        if not whole:
            data = data[: len(data) // ALIGNED * ALIGNED]
        session.crc32c = google_crc32c.extend(session.crc32c, data)
        text = b64encode(session.crc32c.to_bytes(4, "big")).decode()
        hashed = request.headers.get("X-Goog-Hash", f"crc32c={text}")
        if whole and hashed != f"crc32c={text}":
            session.ended = 410
            return refusal(400, "invalid", f"Provided {hashed} doesn't match calculated crc32c={text}")
        return await self._given_on(session, data, f"{total}" if whole else "*")

    async def _given_on(self, session: Session, data: bytes, total: str) -> web.Response | None:
        if not data and total == "*":
            return None
        span = f"{session.received}-{session.received + len(data) - 1}" if data else "*"
        headers = {"Content-Range": f"bytes {span}/{total}", "Content-Type": "application/octet-stream"}
        async with self.client.put(
            URL(session.url, encoded=True), data=BytesIO(data), headers=headers, allow_redirects=False
        ) as answer:
            session.received += len(data)
            if answer.status == 200:
                session.published = await answer.json()
            elif answer.status != 308:
                session.ended = 410
                return refusal(answer.status, "conditionNotMet", await answer.text())
        return None

    async def _generation(self, bucket: str, key: str) -> str:
        where = f"{self.behind}/storage/v1/b/{bucket}/o/{quote(key, safe='')}"
        async with self.client.get(URL(where, encoded=True)) as answer:
            return str((await answer.json())["generation"]) if answer.status == 200 else "0"

    async def _without_bucket(self, request: web.BaseRequest) -> bool:
        bucket = request.rel_url.raw_path.partition("/b/")[2].partition("/")[0]
        async with self.client.get(f"{self.behind}/storage/v1/b/{bucket}") as answer:
            return bool(bucket) and answer.status == 404

    def _there(self, request: web.BaseRequest) -> URL:
        return URL(self.behind + request.raw_path, encoded=True)

    async def _forwarded(
        self, request: web.BaseRequest, line: str, body: bytes | None = None
    ) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        async with self.client.request(
            request.method,
            self._there(request),
            headers=headers,
            data=None if body is None else BytesIO(body),
        ) as answer:
            if answer.status == 404 and await self._without_bucket(request):
                return refusal(404, "notFound", "The specified bucket does not exist.")
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            if self.lost(line):
                await answer.read()
                _cut(request)
                return response
            response.content_length = answer.content_length
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    def _unless_lost(self, request: web.BaseRequest, line: str, response: web.Response) -> web.Response:
        if self.lost(line):
            _cut(request)
        return response


@asynccontextmanager
async def front(behind: str, tls: ssl.SSLContext | None = None) -> AsyncIterator[Front]:
    """Before the emulator at that URL, on a free port of the loopback."""
    server = Front(behind)
    runner = web.ServerRunner(web.Server(server.serve))
    await runner.setup()
    try:
        async with aiohttp.ClientSession(auto_decompress=False) as server.client:
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
            await site.start()
            server.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
            yield server
    finally:
        await runner.cleanup()


def refusal(status: int, reason: str, message: str, **headers: str) -> web.Response:
    """As the JSON API refuses."""
    error = {"code": status, "message": message, "errors": [{"reason": reason, "message": message}]}
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return web.json_response({"error": error}, status=status, headers=told)


def signed(who: Account, request: web.BaseRequest) -> bool:
    """Whether the URL's V4 signature is the account's, over this method, path, host and query, and in its time."""
    query = dict(request.query)
    signature = bytes.fromhex(query.pop("X-Goog-Signature", ""))
    try:
        begun = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
        scope = query["X-Goog-Credential"].partition("/")[2]
        names = query["X-Goog-SignedHeaders"].split(";")
        ends = begun + int(query["X-Goog-Expires"])
    except (KeyError, ValueError):
        return False
    canonical = "\n".join(
        (
            request.method,
            request.rel_url.raw_path,
            "&".join(f"{quote(key, safe='')}={quote(query[key], safe='')}" for key in sorted(query)),
            *(f"{name}:{request.headers.get(name, '').strip()}" for name in names),
            "",
            ";".join(names),
            "UNSIGNED-PAYLOAD",
        )
    )
    digest = sha256(canonical.encode()).hexdigest()
    message = f"GOOG4-RSA-SHA256\n{query['X-Goog-Date']}\n{scope}\n{digest}"
    return who.signed(signature, message.encode()) and begun - 900 <= time.time() < ends


def _standing(session: Session) -> web.Response:
    if session.published is not None:
        return web.json_response(session.published)
    told = {"Range": f"bytes=0-{session.received - 1}"} if session.received else {}
    return web.Response(status=308, headers=told)


def _edges(span: str, received: int) -> tuple[int, int]:
    first, _, last = span.partition("-")
    return (received, received) if span == "*" else (int(first), int(last) + 1)


async def _as_far_as_it_comes(request: web.BaseRequest, size: int) -> bytes:
    data = bytearray()
    with suppress(aiohttp.ClientError, ConnectionError, web.RequestPayloadError):
        while len(data) < size and (chunk := await request.content.readany()):
            data += chunk
    return bytes(data)


def _cut(request: web.BaseRequest) -> None:
    transport = request.transport
    if transport is not None:
        transport.abort()
