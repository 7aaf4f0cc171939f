"""Links: which repositories a blob or a manifest was pulled through, and what a tag last named.

A digest is not a permission: without its link a stored blob is no hit for a repository until the upstream has
confirmed it there. Links are small objects; that one is there is believed for a bounded time and in bounded number.
A store that fails here means "not known", never an error: the upstream is asked instead.
"""

from collections import OrderedDict

from msrcache.cache.layout import layer_link, parse_link, revision_link, tag_index_link, tag_link
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository, Tag
from msrcache.storage.errors import LeftAlone, NotFound, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger

BELIEFS = 200_000
LINK_LIMIT = 512
"""Bytes; the longest link holds a sha512 digest."""

log = get_logger(__name__)


class Links:
    """Reads and writes links, remembering those that are there."""

    def __init__(self, store: Store, clock: Clock, *, belief: float = 600.0) -> None:
        """`belief`: seconds for which a link that was seen is believed to be there."""
        self._store = store
        self._clock = clock
        self._belief = belief
        self._seen: OrderedDict[str, tuple[Digest, float]] = OrderedDict()

    async def has_layer(self, repository: Repository, digest: Digest) -> bool:
        """Whether this blob is known to belong to the repository."""
        return await self._holds(layer_link(repository, digest), digest)

    async def has_revision(self, repository: Repository, digest: Digest) -> bool:
        """Whether this manifest is; Docker Registry before 2.1.1 linked manifests as layers."""
        if await self._holds(revision_link(repository, digest), digest):
            return True
        return await self._holds(layer_link(repository, digest), digest)

    async def tagged(self, repository: Repository, tag: Tag) -> Digest | None:
        """The digest that the tag named when it was last resolved through the cache."""
        return await self._read(tag_link(repository, tag))

    async def put_layer(self, repository: Repository, digest: Digest) -> None:
        """Note that the blob belongs to the repository."""
        await self._write(layer_link(repository, digest), digest)

    async def put_revision(self, repository: Repository, digest: Digest) -> bool:
        """Note that the manifest belongs to the repository. Whether the link is there: no tag may name it else."""
        return await self._write(revision_link(repository, digest), digest)

    async def put_tag(self, repository: Repository, tag: Tag, digest: Digest) -> None:
        """Note what the tag names now. The index entry first, as Docker Registry does."""
        if self._believed(tag_link(repository, tag)) == digest:
            return
        if await self._write(tag_index_link(repository, tag, digest), digest):
            await self._write(tag_link(repository, tag), digest)

    def forget(self, repository: Repository, digest: Digest) -> None:
        """The blob was not found: its link may have gone with it, and is written again with the next fill."""
        self._seen.pop(layer_link(repository, digest), None)

    async def _holds(self, key: str, digest: Digest) -> bool:
        if self._believed(key) == digest:
            return True
        return await self._read(key) == digest

    async def _read(self, key: str) -> Digest | None:
        try:
            digest = parse_link(await self._store.get(key, LINK_LIMIT))
        except (NotFound, LeftAlone):
            return None
        except StorageError as error:
            log.warning("link not read, asking the upstream instead", key=key, error=str(error))
            return None
        if digest is not None:
            self._believe(key, digest)
        return digest

    async def _write(self, key: str, digest: Digest) -> bool:
        if self._believed(key) == digest:
            return True
        try:
            await self._store.put(key, str(digest).encode())
        except LeftAlone:
            return False  # that the store is left alone is told once, not for each link
        except StorageError as error:
            log.warning("link not written: the next pull asks the upstream again", key=key, error=str(error))
            return False
        self._believe(key, digest)
        return True

    def _believed(self, key: str) -> Digest | None:
        digest, since = self._seen.get(key, (None, 0.0))
        return digest if self._clock.monotonic() - since < self._belief else None

    def _believe(self, key: str, digest: Digest) -> None:
        self._seen[key] = (digest, self._clock.monotonic())
        self._seen.move_to_end(key)
        if len(self._seen) > BELIEFS:
            self._seen.popitem(last=False)
