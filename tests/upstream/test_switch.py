"""Promises of upstream.switch: a pull stays where it began, and what was replaced is closed after its last pull."""

from contextlib import AsyncExitStack

from msrcache.oci.pulls import Catalog
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.balance import Balanced
from msrcache.upstream.client import Upstream
from msrcache.upstream.settings import UpstreamSettings
from msrcache.upstream.switch import Switch
from tests.stage.clock import FakeClock
from tests.upstream.played import Asked, Played, Say, blob_pull, manifest_pull, played, read

DATA = b"layer" * 1000


class Noted(Balanced):
    """Says whether it was closed."""

    def __init__(self, server: Played) -> None:
        metrics, clock = Metrics(), FakeClock()
        client = Upstream(UpstreamSettings(url=server.url), metrics=metrics, clock=clock)
        super().__init__([client], metrics=metrics, clock=clock)
        self.closed = 0

    async def close(self) -> None:
        """As Balanced.close."""
        self.closed += 1
        await super().close()


def honest(asked: Asked) -> Say:
    """Blobs, and a manifest."""
    if "/manifests/" in asked.target:
        body = b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json"}'
        return Say(body=body, headers=(("Content-Type", "application/vnd.oci.image.manifest.v1+json"),))
    return Say(body=DATA if "/blobs/" in asked.target else b"{}")


async def test_a_body_under_way_keeps_its_registry_open() -> None:
    """Replaced in the middle of a body: the body ends well, then the old registry is closed, once."""
    async with played(honest) as one, played(honest) as two, AsyncExitStack() as stack:
        old, new = Noted(one), Noted(two)
        switch = Switch(old)
        stack.push_async_callback(switch.close)
        async with switch.blob(blob_pull(DATA)) as blob:
            switch.change(new)
            assert (old.closed, switch.current) == (0, new)
            assert await read(blob) == DATA
        await switch.close()
        assert (old.closed, new.closed) == (1, 1)
        assert two.ledger == []


async def test_every_question_goes_to_the_current_one() -> None:
    """resolve, manifest, blob and relay, each of the new registry after the change; the idle old one is closed."""
    async with played(honest) as one, played(honest) as two:
        old, new = Noted(one), Noted(two)
        switch = Switch(old)
        switch.change(new)
        await switch.resolve(manifest_pull())
        await switch.manifest(manifest_pull())
        async with switch.blob(blob_pull(DATA)) as blob:
            assert await read(blob) == DATA
        await switch.relay(Catalog())
        assert one.ledger == []
        assert len(two.ledger) >= 4
        assert "[0 replaced" in repr(switch)
        await switch.close()
        assert old.closed == 1
