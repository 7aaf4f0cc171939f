"""The registry's endpoints: one function for each kind of pull.

A handler admits the caller, asks the registry and answers; whatever is wrong it leaves to be raised.
"""

from typing import assert_never

from aiohttp import web

from msrcache.access.gate import Gate
from msrcache.oci.errors import CONTENT_TYPE
from msrcache.oci.pulls import BlobPull, Catalog, ManifestPull, Ping, Pull, Referrers, TagsList
from msrcache.oci.registry import Registry
from msrcache.server.answers import ALWAYS, answer, described, pass_on, unchanged
from msrcache.server.deliver import Delivery
from msrcache.server.exchange import Exchange


class Handlers:
    """The endpoints over one registry and one gate."""

    def __init__(self, registry: Registry, gate: Gate, delivery: Delivery) -> None:
        self._registry = registry
        self._gate = gate
        self._delivery = delivery

    async def serve(self, exchange: Exchange, pull: Pull) -> web.StreamResponse:
        """Answer the pull. Raises RegistryError before the first byte, Cut after it."""
        match pull:
            case Ping():
                await self._gate.ping(exchange.caller)
                return await answer(exchange, 200, {"Content-Type": CONTENT_TYPE}, b"{}")
            case ManifestPull():
                return await self._manifest(exchange, pull)
            case BlobPull():
                return await self._blob(exchange, pull)
            case TagsList() | Referrers() | Catalog():
                right = await self._gate.admit(exchange.caller, pull)
                pull = pull.by(right, request_id=exchange.request_id)
                return await pass_on(exchange, await self._registry.relay(pull))
            case _:
                assert_never(pull)

    async def _manifest(self, exchange: Exchange, pull: ManifestPull) -> web.StreamResponse:
        right = await self._gate.admit(exchange.caller, pull)
        pull = pull.by(right, request_id=exchange.request_id)
        if pull.head:
            return await self._resolved(exchange, pull)
        manifest = await self._registry.manifest(pull)
        exchange.outcome = manifest.outcome
        headers = described(manifest.descriptor, manifest.outcome)
        status = 304 if unchanged(exchange, manifest.descriptor) else 200
        return await answer(exchange, status, headers, manifest.data if status == 200 else b"")

    async def _blob(self, exchange: Exchange, pull: BlobPull) -> web.StreamResponse:
        right = await self._gate.admit(exchange.caller, pull)
        pull = pull.by(right, request_id=exchange.request_id, address=exchange.caller.address)
        if pull.head or "If-None-Match" in exchange.request.headers:
            return await self._resolved(exchange, pull)
        async with self._registry.blob(pull) as blob:
            return await self._delivery.blob(exchange, blob, ranged=pull.range is not None)

    async def _resolved(self, exchange: Exchange, pull: ManifestPull | BlobPull) -> web.StreamResponse:
        """What HEAD gets; a GET with If-None-Match asks it first, and is then served."""
        resolution = await self._registry.resolve(pull)
        exchange.outcome = resolution.outcome
        descriptor = resolution.descriptor
        headers = described(descriptor, resolution.outcome)
        if isinstance(pull, BlobPull):
            headers |= {"Cache-Control": ALWAYS, "Accept-Ranges": "bytes"}
        if unchanged(exchange, descriptor):
            return await answer(exchange, 304, headers)
        if isinstance(pull, BlobPull) and not pull.head:
            async with self._registry.blob(pull) as blob:
                return await self._delivery.blob(exchange, blob, ranged=pull.range is not None)
        return await answer(exchange, 200, headers | {"Content-Length": str(descriptor.size)})
