"""Redirects: which hits are left to the storage service, and by which URL.

Rules:
1. The URL is made here; the store is asked (one stat) only where the blob's presence is not believed. Equal looks at
   once are one look.
2. No URL goes to a caller whose right could not be judged just now: a grace ends when the upstream is back, a URL
   lives on whatever the upstream then says. And none goes to a blob that may be deleted before it ends. Such hits are
   streamed.
3. The first entry of `clients` that has the client's network decides; where none has, it is redirected to where the
   driver itself reaches its service.
4. Blobs below `threshold` are streamed: the client's second connection would cost more than their bytes.
5. Where the driver has no URL, or fails to sign one, the hit is streamed. While the store fails us nobody is sent
   there: what cannot be streamed then is a miss, and no pull fails.

A base (Docker Registry's middleware `redirect`) takes the service's place, whatever the driver: scheme and host,
then the object's key, unsigned.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address

from msrcache.cache.flight import Flights
from msrcache.cache.layout import blob_key
from msrcache.cache.presence import Presence
from msrcache.oci.digest import Digest
from msrcache.oci.errors import RegistryError
from msrcache.oci.pulls import BlobPull
from msrcache.oci.registry import Elsewhere
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

LIFETIME = 20 * 60.0
"""Seconds for which a URL is good unless it is set otherwise, as Docker Registry's."""
REUSED = 60.0
"""Seconds for which a URL is given again: signing is most of a redirect's price, and crowds want the same blobs.
At most a quarter of its life."""
URLS = 10_000

log = get_logger(__name__)


class Way(StrEnum):
    """What became of a hit that could have been redirected; the metric's label."""

    BELIEVED = "believed"  # redirected without a request
    LOOKED = "looked"  # redirected after one
    ABSENT = "absent"  # looked at, and not there: a miss
    CLIENT = "client"  # streamed to this network
    SICK = "sick"  # the store fails us, so it may fail the client
    SMALL = "small"  # streamed: smaller than a connection is worth
    GRACE = "grace"  # streamed: the upstream is away
    CONDEMNED = "condemned"  # streamed: it may be deleted before the URL ends
    UNSIGNED = "unsigned"  # streamed: there is no URL


@dataclass(frozen=True, slots=True)
class Clients:
    """How the clients of some networks get hits: redirected to `endpoint` ("": the driver's own), or streamed."""

    networks: tuple[IPv4Network | IPv6Network, ...]
    redirect: bool = True
    endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectSettings:
    """`threshold` in bytes; `base` is scheme://host of Docker Registry's middleware, "" without it; `lifetime` in
    seconds: the janitor waits as long before it deletes.
    """

    enabled: bool = True
    threshold: int = 0
    base: str = ""
    lifetime: float = LIFETIME
    clients: tuple[Clients, ...] = ()


def endpoint_for(address: str, clients: tuple[Clients, ...]) -> str | None:
    """Where this client reaches the service ("": where we do), None where its hits are streamed (pure)."""
    if not clients:
        return ""
    try:
        client = ip_address(address)
    except ValueError:
        return ""  # a unix socket has no network, so no entry is about it
    for entry in clients:
        if any(client in network for network in entry.networks):
            return entry.endpoint if entry.redirect else None
    return ""


class Redirects:
    """Makes URLs for hits."""

    def __init__(
        self,
        store: Store,
        presence: Presence,
        *,
        settings: RedirectSettings,
        metrics: Metrics,
        clock: Clock,
        may_go: Callable[[Digest], bool] = lambda _: False,
    ) -> None:
        """`may_go`: whether a blob may be deleted before its URL ends."""
        self._store = store
        self._may_go = may_go
        self._presence = presence
        self._clock = clock
        self._settings = settings
        self._ways = {way: metrics.redirects_total.labels(way.value) for way in Way}
        self._bytes = metrics.redirected_bytes_total
        self._looks: Flights[Digest, int] = Flights()
        self._without_urls_until = 0.0
        self._urls: OrderedDict[tuple[Digest, str], tuple[str, float]] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Redirects {'on' if self._settings.enabled else 'off'} {self._presence!r}>"

    def change(self, settings: RedirectSettings) -> None:
        """Other settings for what comes next; URLs that were given stay good."""
        self._settings = settings

    async def offer(self, pull: BlobPull) -> "Offer | None":
        """A URL for this pull, to be taken once its caller is admitted; None where the hit is to be streamed.

        Raises StorageError where the blob had to be looked at, NotFound where it was not there.
        """
        if not self._settings.enabled:
            return None
        endpoint = endpoint_for(pull.address, self._settings.clients)
        size = self._presence.size(pull.digest)
        way = Way.CONDEMNED if self._may_go(pull.digest) else self._streamed(endpoint, size)
        url = await self._url(pull.digest, endpoint) if endpoint is not None and way is None else None
        if url is None:
            self._ways[way or Way.UNSIGNED].inc()
            return None
        way = Way.BELIEVED
        if size is None or not self._presence.believed(pull.digest, pull.address):
            way, size = Way.LOOKED, await self._look(pull.digest)
            if size < self._settings.threshold:
                self._ways[Way.SMALL].inc()
                return None
        return Offer(Elsewhere(url), size, way)

    def take(self, pull: BlobPull, offer: "Offer") -> bool:
        """Whether the offer may be given to the caller, who was just admitted; it then counts as a use."""
        if pull.right.graced:
            self._ways[Way.GRACE].inc()
            return False
        self._ways[offer.way].inc()
        self._bytes.inc(_asked(pull, offer.size))
        self._presence.sent(pull.digest, pull.address)
        return True

    async def close(self) -> None:
        """Stop looking."""
        await self._looks.close()

    def _streamed(self, endpoint: str | None, size: int | None) -> Way | None:
        """Why a hit is streamed, as far as that is known without a URL."""
        if endpoint is None:
            return Way.CLIENT
        if self._clock.monotonic() < self._without_urls_until and not self._settings.base:
            return Way.UNSIGNED
        if not self._store.readable:
            return Way.SICK
        return Way.SMALL if size is not None and size < self._settings.threshold else None

    async def _url(self, digest: Digest, endpoint: str) -> str | None:
        """Before any look: where there is no URL, a look would be one request too many."""
        if self._settings.base:
            return f"{self._settings.base}/{blob_key(digest)}"
        now, (url, signed) = self._clock.monotonic(), self._urls.get((digest, endpoint), ("", 0.0))
        lifetime = self._settings.lifetime
        if url and now - signed < min(REUSED, lifetime / 4):
            return url
        try:
            made = await self._store.presign(blob_key(digest), lifetime, endpoint=endpoint)
        except StorageError as error:
            log.warning("no redirect: the URL could not be signed", digest=str(digest), error=str(error))
            return None
        if made is None:
            self._without_urls_until = now + REUSED  # such a driver is not asked for each hit
        else:
            self._keep((digest, endpoint), made, now)
        return made

    def _keep(self, key: tuple[Digest, str], url: str, now: float) -> None:
        self._urls[key] = (url, now)
        self._urls.move_to_end(key)
        if len(self._urls) > URLS:
            self._urls.popitem(last=False)

    async def _look(self, digest: Digest) -> int:
        try:
            return (await self._looks.fly(digest, lambda: self._seen(digest))).result
        except NotFound:
            self._ways[Way.ABSENT].inc()
            raise

    async def _seen(self, digest: Digest) -> int:
        size = (await self._store.stat(blob_key(digest))).size
        self._presence.saw(digest, size)
        return size


@dataclass(frozen=True, slots=True)
class Offer:
    """A URL, and the size of what is there."""

    elsewhere: Elsewhere
    size: int
    way: Way


def _asked(pull: BlobPull, size: int) -> int:
    """The bytes that the client will get there."""
    if pull.range is None:
        return size
    try:
        return pull.range.resolve(size).size
    except RegistryError:
        return 0  # 416, by the service
