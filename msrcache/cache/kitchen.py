"""What the fills of a process share: the parts around them, and their settings."""

from dataclasses import dataclass, field

from msrcache.cache.backlog import Backlog
from msrcache.cache.lease import Leases
from msrcache.cache.links import Links
from msrcache.cache.local import LocalTier
from msrcache.cache.news import News
from msrcache.cache.presence import Presence
from msrcache.cache.sizes import Sizes
from msrcache.cache.spool import Spool
from msrcache.cache.uses import Uses
from msrcache.oci.peers import Followable
from msrcache.oci.pulls import BlobPull
from msrcache.oci.registry import Registry
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class FillSettings:
    """Seconds, but for the counts."""

    concurrency: int = 64
    queue: float = 10.0
    abandon: float = 300.0
    early: bool = False
    verify_timeout: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kitchen:
    """What every fill needs."""

    upstream: Registry
    store: Store
    spool: Spool
    backlog: Backlog
    links: Links
    presence: Presence
    leases: Leases
    metrics: Metrics
    clock: Clock
    settings: FillSettings
    local: LocalTier | None = None
    peers: Followable | None = None
    sizes: Sizes = field(default_factory=Sizes)
    uses: Uses = field(default_factory=Uses)
    news: News = field(default_factory=News)

    async def published(self, pull: BlobPull) -> None:
        """Its blob is in the store, as every replica finds it: link it, and let the others know."""
        self.news.note(pull.digest)
        await self.links.put_layer(pull.repository, pull.digest)
