"""Pushes image content to a real registry over HTTP, with the token flow of Docker Registry.

A pusher for tests only: msrcache itself never pushes.
"""

import asyncio
import base64
import contextlib
import io
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from yarl import URL

from tests.stage.images import Content, Image


@dataclass(slots=True)
class Pusher:
    """A client of one registry with one account; speaks Basic or Bearer, as the registry asks."""

    url: str
    session: aiohttp.ClientSession
    basic: str  # an Authorization header, "" for nobody
    context: ssl.SSLContext | bool
    _authorization: dict[str, str] = field(default_factory=dict)

    async def push(self, repository: str, image: Image, *tags: str) -> None:
        """All blobs and manifests; the image itself by its tags, or by digest when there are none."""
        for blob in image.all_blobs().values():
            await self.blob(repository, blob)
        for digest, manifest in image.all_manifests().items():
            if digest != image.digest:
                await self.manifest(repository, manifest, digest)
        for reference in tags or (image.digest,):
            await self.manifest(repository, image.manifest, reference)

    async def manifest(self, repository: str, manifest: Content, reference: str) -> None:
        """One manifest or index."""
        url = f"{self.url}/v2/{repository}/manifests/{reference}"
        headers = {"Content-Type": manifest.media_type}
        await self._send(repository, "PUT", url, headers=headers, data=manifest.data)

    async def blob(self, repository: str, blob: Content) -> None:
        """One blob, in one piece; not sent where the registry has it."""
        known = f"{self.url}/v2/{repository}/blobs/{blob.digest}"
        if (await self._send(repository, "HEAD", known, refused=False)).status == 200:
            return
        opened = await self._send(repository, "POST", f"{self.url}/v2/{repository}/blobs/uploads/")
        location = URL(self.url).join(URL(opened.headers["Location"])).update_query(digest=blob.digest)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        await self._send(repository, "PUT", str(location), headers=headers, data=blob.data)

    async def _send(
        self,
        repository: str,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | Path | None = None,
        refused: bool = True,
    ) -> aiohttp.ClientResponse:
        answer = await self._once(repository, method, url, headers, data)
        if answer.status == 401:
            await self._authorize(repository, answer.headers.get("WWW-Authenticate", ""))
            answer = await self._once(repository, method, url, headers, data)
        if refused and answer.status >= 300:
            raise AssertionError(f"{method} {url}: {answer.status} {await answer.text()}")
        return answer

    async def _once(
        self,
        repository: str,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        data: bytes | Path | None,
    ) -> aiohttp.ClientResponse:
        sent = dict(headers or {})
        if authorization := self._authorization.get(repository):
            sent["Authorization"] = authorization
        with contextlib.ExitStack() as stack:
            body = stack.enter_context(data.open("rb")) if isinstance(data, Path) else _file(data)
            target = URL(url, encoded=True)
            async with self.session.request(
                method, target, headers=sent, data=body, ssl=self.context
            ) as answer:
                await answer.read()
                return answer

    async def _authorize(self, repository: str, challenge: str) -> None:
        if challenge.lower().startswith("basic") and self.basic:
            self._authorization[repository] = self.basic
            return
        fields = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
        query = {"service": fields["service"], "scope": f"repository:{repository}:pull,push"}
        headers = {"Authorization": self.basic} if self.basic else {}
        async with self.session.get(fields["realm"], params=query, headers=headers) as answer:
            assert answer.status == 200, f"token server: {answer.status} {await answer.text()}"
            self._authorization[repository] = f"Bearer {(await answer.json())['token']}"


@contextlib.asynccontextmanager
async def pusher(
    url: str, *, user: str = "", password: str = "", bundle: Path | None = None
) -> AsyncIterator[Pusher]:
    """A pusher with an account of its own; bundle is the CA file of a registry behind TLS."""
    basic = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode() if user else ""
    context: ssl.SSLContext | bool = True
    if bundle is not None:
        context = await asyncio.to_thread(ssl.create_default_context, cafile=str(bundle))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_read=60)) as session:
        yield Pusher(url, session, basic, context)


async def push(
    url: str,
    repository: str,
    image: Image,
    *tags: str,
    user: str = "",
    password: str = "",
    bundle: Path | None = None,
) -> None:
    """Pushes one image to a registry."""
    async with pusher(url, user=user, password=password, bundle=bundle) as one:
        await one.push(repository, image, *tags)


def _file(data: bytes | None) -> io.BytesIO | None:
    """Bytes as the HTTP client wants large ones."""
    return None if data is None else io.BytesIO(data)
