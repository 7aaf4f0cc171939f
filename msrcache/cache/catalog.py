"""The catalog from the store: which repositories have something cached.

MSR's cache answers ``GET /v2/_catalog`` so. Listing walks the links, so the answer is kept for a while; it may lag.
"""

import json
from collections.abc import Mapping

from msrcache.cache.layout import REPOSITORIES, repository_of
from msrcache.oci.errors import Unavailable
from msrcache.oci.pulls import Catalog
from msrcache.oci.registry import Answer
from msrcache.storage.errors import NotFound, StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock

KEPT = 60.0
"""Seconds for which one walk of the links is used."""
PAGE = 100
LARGEST_PAGE = 1000


class StoredCatalog:
    """Answers Catalog pulls from what the store holds."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._names: list[str] = []
        self._walked = float("-inf")

    async def answer(self, pull: Catalog) -> Answer:
        """One page of names in byte order. Raises Unavailable when the store cannot be listed."""
        names = [name for name in await self._all() if pull.last is None or name > pull.last]
        count = PAGE if pull.n is None else min(pull.n, LARGEST_PAGE)
        page = names[:count]
        headers: Mapping[str, str] = {"Content-Type": "application/json; charset=utf-8"}
        if page and len(names) > len(page):
            link = f'</v2/_catalog?n={count}&last={page[-1]}>; rel="next"'
            headers = {**headers, "Link": link}
        return Answer(200, headers, json.dumps({"repositories": page}).encode())

    async def _all(self) -> list[str]:
        if self._clock.monotonic() - self._walked > KEPT:
            self._names = sorted(await self._walk())
            self._walked = self._clock.monotonic()
        return self._names

    async def _walk(self) -> set[str]:
        found: set[str] = set()
        try:
            async for key, _ in self._store.list(REPOSITORIES):
                if (repository := repository_of(key)) is not None:
                    found.add(str(repository))
        except NotFound:
            return set()
        except StorageError as error:
            raise Unavailable(f"the store cannot be listed: {error}") from error
        return found
