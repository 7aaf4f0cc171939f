"""A registry of our own that serves a few images from memory, read only and to anybody.

For the demonstration of `make run`: no program but Python is needed. Not a stand-in with faults for tests.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping

from aiohttp import web

from tests.stage.images import Content, Image

_API = {"Docker-Distribution-Api-Version": "registry/2.0"}


class Shelf:
    """Images by repository and tag; one web handler for all that can be pulled."""

    def __init__(self, images: Mapping[tuple[str, str], Image]) -> None:
        self._manifests: dict[tuple[str, str], Content] = {}
        self._blobs: dict[tuple[str, str], Content] = {}
        self._tags: dict[str, list[str]] = {}
        for (repository, tag), image in images.items():
            self._tags.setdefault(repository, []).append(tag)
            self._manifests[repository, tag] = image.manifest
            for digest, manifest in image.all_manifests().items():
                self._manifests[repository, digest] = manifest
            for digest, blob in image.all_blobs().items():
                self._blobs[repository, digest] = blob

    async def ping(self, _request: web.Request) -> web.Response:
        """GET /v2/: anybody may."""
        return web.json_response({}, headers=_API)

    async def tags(self, request: web.Request) -> web.Response:
        """GET tags/list."""
        name = request.match_info["name"]
        if name not in self._tags:
            return _unknown("NAME_UNKNOWN", name)
        return web.json_response({"name": name, "tags": sorted(self._tags[name])}, headers=_API)

    async def manifest(self, request: web.Request) -> web.Response:
        """GET and HEAD of manifests."""
        name, reference = request.match_info["name"], request.match_info["reference"]
        found = self._manifests.get((name, reference))
        return _served(request, found) if found else _unknown("MANIFEST_UNKNOWN", reference)

    async def blob(self, request: web.Request) -> web.Response:
        """GET and HEAD of blobs, with a Range."""
        name, digest = request.match_info["name"], request.match_info["digest"]
        found = self._blobs.get((name, digest))
        return _served(request, found) if found else _unknown("BLOB_UNKNOWN", digest)


def _served(request: web.Request, found: Content) -> web.Response:
    data = found.bytes()
    headers = {
        **_API,
        "Docker-Content-Digest": found.digest,
        "ETag": f'"{found.digest}"',
        "Accept-Ranges": "bytes",
    }
    span = request.http_range
    start = span.start or 0
    if "Range" not in request.headers or start < 0 or start >= len(data):
        return web.Response(body=data, content_type=found.media_type, headers=headers)
    stop = min(span.stop or len(data), len(data))
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
    return web.Response(status=206, body=data[start:stop], content_type=found.media_type, headers=headers)


def _unknown(code: str, what: str) -> web.Response:
    body = json.dumps({"errors": [{"code": code, "message": "not on this shelf", "detail": what}]})
    return web.Response(status=404, text=body, content_type="application/json", headers=_API)


@contextlib.asynccontextmanager
async def shelf(
    images: Mapping[tuple[str, str], Image], port: int, *, host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """Serves the images, by (repository, tag), on the port of loopback or another host; yields the registry's URL."""
    stand = Shelf(images)
    app = web.Application()
    app.router.add_get("/v2/", stand.ping)
    app.router.add_get("/v2/{name:.+}/tags/list", stand.tags)
    app.router.add_get("/v2/{name:.+}/manifests/{reference}", stand.manifest)
    app.router.add_get("/v2/{name:.+}/blobs/{digest}", stand.blob)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
