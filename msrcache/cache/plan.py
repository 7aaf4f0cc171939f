"""The plan: what of this store is due, with what only the store can say: pins, fills under way, and manifests.

Nothing is written here and nothing deleted: `msrcache gc --dry-run` is this and a table.
"""

import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from msrcache.cache.expiry import Due, Holdings, Terms, due, held_back
from msrcache.cache.layout import (
    LEASES,
    blob_key,
    digest_of_lease,
    digest_of_link,
    is_revision,
    repository_of,
)
from msrcache.cache.ledger import Progress, links, listing
from msrcache.oci.digest import Digest
from msrcache.oci.errors import ManifestInvalid
from msrcache.oci.manifest import LARGEST, children
from msrcache.oci.names import Repository
from msrcache.storage.errors import NotFound
from msrcache.storage.store import Store

READ_AT_ONCE: Final = 8
"""Manifests."""


class Digests:
    """A set of digests in a third of the memory."""

    def __init__(self) -> None:
        self.raw: set[bytes] = set()

    def __repr__(self) -> str:
        return f"<Digests [{len(self.raw)}]>"

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, Digest) and bytes.fromhex(digest.hex) in self.raw

    def add(self, digest: Digest) -> None:
        """Have this one too."""
        self.raw.add(bytes.fromhex(digest.hex))

    def lacking(self, other: "Digests") -> int:
        """How many of these the other has not."""
        return len(self.raw - other.raw)


class Pinned:
    """Which links belong to pinned repositories; each name is matched once."""

    def __init__(self, pins: Sequence[re.Pattern[str]]) -> None:
        self._pins = pins
        self._known: dict[Repository, bool] = {}

    def __repr__(self) -> str:
        return f"<Pinned [{len(self._pins)} patterns]>"

    def has(self, key: str) -> bool:
        """Whether the link's repository is pinned."""
        repository = repository_of(key) if self._pins else None
        if repository is None:
            return False
        if repository not in self._known:
            self._known[repository] = any(pin.fullmatch(str(repository)) for pin in self._pins)
        return self._known[repository]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is due, manifests behind what they name, and what those name."""

    due: list[Due] = field(default_factory=list)
    names: dict[Digest, tuple[Digest, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Linked:
    """What links say: what was pulled through a pinned repository or is being filled, and what is a manifest."""

    spared: Digests = field(default_factory=Digests)
    manifests: Digests = field(default_factory=Digests)


async def planned(
    store: Store,
    holdings: Holdings,
    terms: Terms,
    *,
    pins: Sequence[re.Pattern[str]],
    now: float,
    progress: Progress,
) -> Plan:
    """What is due now. Raises StorageError."""
    if not await asyncio.to_thread(due, holdings, terms, frozenset(), now=now, most=1):
        return Plan()
    linked = await _linked(store, pins, progress)
    found = await asyncio.to_thread(due, holdings, terms, linked.spared, now=now)
    names = await _names(store, [one.digest for one in found if one.digest in linked.manifests], progress)
    going = {one.digest for one in found}
    others = {digest for named in names.values() for digest in named if digest not in going}
    staying = held_back(names, await asyncio.to_thread(holdings.among, others))
    going -= staying
    left = sorted((one for one in found if one.digest in going), key=lambda one: height(one.digest, names))
    return Plan(left, names)


def height(digest: Digest, names: dict[Digest, tuple[Digest, ...]]) -> int:
    """0: names nothing; 1: a manifest; 2: an index of manifests that go too (pure)."""
    if digest not in names:
        return 0
    return 2 if any(one in names for one in names[digest]) else 1


async def _linked(store: Store, pins: Sequence[re.Pattern[str]], progress: Progress) -> Linked:
    linked, pinned = Linked(), Pinned(pins)
    async for key, _ in links(store, progress):
        if (digest := digest_of_link(key)) is None:
            continue
        if is_revision(key):
            linked.manifests.add(digest)
        if pinned.has(key):
            linked.spared.add(digest)
    async for key, _ in listing(store, LEASES):
        if (digest := digest_of_lease(key)) is not None:
            linked.spared.add(digest)
    return linked


async def _names(
    store: Store, manifests: Collection[Digest], progress: Progress
) -> dict[Digest, tuple[Digest, ...]]:
    names: dict[Digest, tuple[Digest, ...]] = {}
    wanted = list(manifests)
    for start in range(0, len(wanted), READ_AT_ONCE):
        progress("manifests read", start, len(wanted))
        some = wanted[start : start + READ_AT_ONCE]
        names.update(zip(some, await asyncio.gather(*(_named(store, one) for one in some)), strict=True))
    return names


async def _named(store: Store, manifest: Digest) -> tuple[Digest, ...]:
    """What it names; nothing where it is gone or is no manifest."""
    try:
        data = await store.get(blob_key(manifest), LARGEST)
        return tuple(child.digest for child in await asyncio.to_thread(children, data))
    except (NotFound, ManifestInvalid):
        return ()
