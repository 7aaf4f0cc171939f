"""What a replica does about expiry, built from the configuration: the journal of its uses.

Not here: what is due (cache/expiry), and the commands.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msrcache.cache.uses import Journal, Uses
from msrcache.config.model import Config
from msrcache.storage.store import Store
from msrcache.telemetry.metrics import Metrics


class Expiring:
    """The part of a replica that notes what is used. `uses` is there whether anything expires or not."""

    def __init__(self, config: Config, *, replica: str, metrics: Metrics) -> None:
        self.uses = Uses()
        self._config = config
        self._replica = replica
        self._metrics = metrics
        self._journal: Journal | None = None

    def __repr__(self) -> str:
        return f"<Expiring {self._journal!r}>"

    @asynccontextmanager
    async def running(self, store: Store) -> AsyncIterator[None]:
        """Notes what is used while the context is open; on leaving it is written down once more."""
        if not self._config.expires or self._config.storage.readonly:
            yield
            return
        interval = self._config.cache.journal
        journal = Journal(self.uses, store, replica=self._replica, interval=interval, metrics=self._metrics)
        self._journal = journal
        task = asyncio.create_task(journal.run(), name="journal of uses")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await journal.flush()

    async def flush(self) -> None:
        """Write down now what was used."""
        if self._journal is not None:
            await self._journal.flush()
