"""Upstream: a registry over HTTP. Its methods are `oci.registry.Registry`'s.

One attempt each (but for a body, which heals itself): trying again, and elsewhere, is for `balance`. Nothing
is stored, and no blob's digest is checked: the fill does that.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp.abc import AbstractResolver

from msrcache.oci.descriptor import DEFAULT_ACCEPT, OCTETS, Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.errors import ContentMismatch, DigestInvalid, ManifestInvalid, UpstreamBroken
from msrcache.oci.manifest import media_type_of
from msrcache.oci.pulls import BlobPull, ManifestPull, Relayed
from msrcache.oci.ranges import RangeRequest, Span
from msrcache.oci.registry import Answer, Blob, Manifest, Outcome, Resolution
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.answers import Whole, content_length, media_type
from msrcache.upstream.body import Patience, Piece, ResumingBody, Sleep, Source
from msrcache.upstream.pieces import read_piece
from msrcache.upstream.relay import RELAY_LIMIT, passed_on, relay_path
from msrcache.upstream.retry import Random
from msrcache.upstream.route import Request, Route
from msrcache.upstream.settings import UpstreamSettings

MANIFEST_LIMIT: Final = 16 << 20
_HASHED_HERE: Final = 64 << 10


class Upstream:
    """One registry that is pulled from."""

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        metrics: Metrics,
        clock: Clock,
        resolver: AbstractResolver | None = None,
        chance: Random = random.random,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Reads CA files and certificates, connects to nothing. Raises UpstreamSettingsError."""
        self.name = settings.name
        self._metrics = metrics
        self._route = Route(settings, metrics=metrics, clock=clock, resolver=resolver)
        self._patience = Patience(
            retries=settings.retries, wait=settings.retry_wait, random=chance, sleep=sleep
        )

    def __repr__(self) -> str:
        return f"<Upstream {self.name}>"

    async def close(self) -> None:
        """Ends every connection. Idempotent."""
        await self._route.close()

    async def resolve(self, pull: ManifestPull | BlobPull) -> Resolution:
        """As Registry.resolve: HEAD, and GET where HEAD is not served or does not tell."""
        if isinstance(pull, BlobPull):
            return Resolution(Descriptor(OCTETS, pull.digest, await self._blob_size(pull)), Outcome.PASS)
        descriptor = await self._head(pull)
        if descriptor is None:
            descriptor = (await self.manifest(pull)).descriptor
        return Resolution(descriptor, Outcome.PASS)

    async def manifest(self, pull: ManifestPull) -> Manifest:
        """As Registry.manifest; the digest is our own hash of the bytes. ContentMismatch: not what was asked for."""
        answer = await self._route.whole(_manifest_request("GET", pull), pull, limit=MANIFEST_LIMIT)
        self._check_manifest(answer)
        data = answer.body
        by_digest = isinstance(pull.reference, Digest)
        algorithm = pull.reference.algorithm if isinstance(pull.reference, Digest) else "sha256"
        actual = (
            await asyncio.to_thread(Digest.of, data, algorithm)
            if len(data) > _HASHED_HERE
            else Digest.of(data, algorithm)
        )
        if isinstance(pull.reference, Digest) and by_digest and actual != pull.reference:
            raise ContentMismatch(pull.reference, actual, len(data))
        return Manifest(Descriptor(self._media_type(answer), actual, len(data)), data, Outcome.PASS)

    @asynccontextmanager
    async def blob(self, pull: BlobPull) -> AsyncIterator[Blob]:
        """As Registry.blob: the body goes on by Range where it breaks."""
        piece = await self._piece(pull, pull.range, "")
        body: ResumingBody | None = None
        try:
            size = piece.size if piece.size is not None else await self._blob_size(pull)
            span = Span.whole(size) if pull.range is None else pull.range.resolve(size)
            self._check_start(piece, span)
            body = self._body(pull, piece, span, size)
            yield Blob(Descriptor(OCTETS, pull.digest, size), span, Outcome.PASS, body)
        finally:
            piece.close()
            if body is not None:
                body.close()

    async def relay(self, pull: Relayed) -> Answer:
        """As Registry.relay."""
        request = Request(method="GET", path=relay_path(pull))
        answer = await self._route.whole(request, pull, limit=RELAY_LIMIT)
        return passed_on(answer, prefix=self._route.prefix, host=self.name)

    def _body(self, pull: BlobPull, piece: Piece, span: Span, size: int) -> ResumingBody:
        async def reopen(wanted: RangeRequest, etag: str) -> Piece:
            return await self._piece(pull, wanted, etag)

        source = Source(
            host=self.name,
            reopen=reopen,
            patience=self._patience,
            resumed=self._metrics.fill_resumes_total.inc,
        )
        return ResumingBody(piece, span, size=size, source=source)

    async def _piece(self, pull: BlobPull, wanted: RangeRequest | None, etag: str) -> Piece:
        headers: dict[str, str] = {}
        if wanted is not None:
            headers["Range"] = str(wanted)
            if etag:
                headers["If-Range"] = etag
        request = Request(method="GET", path=_blob_path(pull), headers=headers)
        reply = await self._route.open(request, pull)
        piece = read_piece(reply, ranged=wanted is not None, host=self.name)
        reply.stream()
        return piece

    def _check_start(self, piece: Piece, span: Span) -> None:
        if piece.at not in {0, span.start}:
            raise UpstreamBroken(
                f"the upstream {self.name} was asked for bytes {span} of a blob and sent those from {piece.at}"
            )

    async def _blob_size(self, pull: BlobPull) -> int:
        for method in ("HEAD", "GET"):
            reply = await self._route.open(
                Request(method=method, path=_blob_path(pull)), pull, allow_405=method == "HEAD"
            )
            async with reply:
                size = content_length(reply.headers) if reply.status == 200 else None
            if size is not None:
                return size
        raise UpstreamBroken(f"the upstream {self.name} does not tell how long the blob {pull.digest} is")

    async def _head(self, pull: ManifestPull) -> Descriptor | None:
        """None where only a GET can tell."""
        reply = await self._route.open(_manifest_request("HEAD", pull), pull, allow_405=True)
        async with reply:
            if reply.status != 200:
                return None
            self._check_html(media_type(reply.headers))
            size, kind = content_length(reply.headers), reply.headers.get("Content-Type", "")
            digest = pull.reference if isinstance(pull.reference, Digest) else _told(reply.headers)
        return Descriptor(kind, digest, size) if digest and size and kind else None

    def _check_manifest(self, answer: Whole) -> None:
        self._check_html(media_type(answer.headers))
        if answer.status != 200:
            raise UpstreamBroken(f"the upstream {self.name} says {answer.status} to a request for a manifest")

    def _check_html(self, kind: str) -> None:
        if kind in {"text/html", "application/xhtml+xml"}:
            raise UpstreamBroken(
                f"the upstream {self.name} sent a web page (HTML) instead of a manifest; is that a registry's address?"
            )

    def _media_type(self, answer: Whole) -> str:
        kind = answer.headers.get("Content-Type", "")
        if kind:
            return kind
        try:
            return media_type_of(answer.body)
        except ManifestInvalid as error:
            raise UpstreamBroken(f"the upstream {self.name} sent no manifest: {error.message}") from None


def _blob_path(pull: BlobPull) -> str:
    return f"/v2/{pull.repository}/blobs/{pull.digest}"


def _manifest_request(method: str, pull: ManifestPull) -> Request:
    accept = ", ".join(pull.accept or DEFAULT_ACCEPT)
    return Request(
        method=method,
        path=f"/v2/{pull.repository}/manifests/{pull.reference}",
        headers={"Accept": accept},
    )


def _told(headers: Mapping[str, str]) -> Digest | None:
    try:
        return Digest.parse(headers.get("Docker-Content-Digest", ""))
    except DigestInvalid:
        return None
