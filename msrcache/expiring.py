"""What a replica does about expiry, built from the configuration: it notes what it serves, rescues what is condemned,
and takes its turn as the janitor.

Where nothing expires nothing is noted, and the janitor only removes litter of our own.
Not here: what is due (cache/expiry), and the commands.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msrcache.background import in_background
from msrcache.cache.condemned import Condemned
from msrcache.cache.expiry import Terms
from msrcache.cache.janitor import Done, Janitor, Policy, wait_of
from msrcache.cache.ledger import Blocked, Ledger
from msrcache.cache.litter import tidy
from msrcache.cache.presence import Presence
from msrcache.cache.uses import Journal, Uses
from msrcache.config.model import Config
from msrcache.leases import Held, Turns
from msrcache.oci.digest import Digest
from msrcache.storage.errors import StorageError
from msrcache.storage.store import Store
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics

log = get_logger(__name__)


JANITOR = "janitor"


AGAIN = 60.0
"""Seconds after which a lease that another replica has is asked for again."""


def policy_of(config: Config) -> Policy:
    """What expires by the configuration."""
    cache = config.cache
    wait = wait_of(belief=cache.belief, lifetime=cache.redirect.lifetime, journal=cache.journal)
    budget = cache.expiry.budget if config.storage.delete_enabled else 0
    return Policy(terms=Terms(ttl=config.blob_ttl, budget=budget), pins=cache.expiry.pins, wait=wait)


class Expiring:
    """The part of a replica that looks after expiry. `uses` is there whether anything expires or not."""

    def __init__(
        self, config: Config, presence: Presence, *, replica: str, metrics: Metrics, clock: Clock
    ) -> None:
        """`presence`: what is believed of blobs, until they may have gone."""
        self.uses = Uses()
        self.condemned: Condemned | None = None
        self._presence = presence
        self._config = config
        self._replica = replica
        self._metrics = metrics
        self._clock = clock
        self._journal: Journal | None = None

    def __repr__(self) -> str:
        return f"<Expiring {self._journal!r} {self.condemned!r}>"

    @asynccontextmanager
    async def running(self, store: Store) -> AsyncIterator[None]:
        """Notes and rescues while the context is open; on leaving the uses are written down once more."""
        async with contextlib.AsyncExitStack() as stack:
            if self._config.expires and not self._config.storage.readonly:
                await self._note_uses(store, stack)
            yield

    async def flush(self) -> None:
        """Write down now what was used."""
        if self._journal is not None:
            await self._journal.flush()

    def may_go(self, digest: Digest) -> bool:
        """Whether the blob may be deleted before a URL of it ends."""
        return self.condemned is not None and self.condemned.may_go(digest)

    async def look(self, store: Store, held: Held) -> Done | None:
        """One look as the janitor, which has its turn; None where nothing expires. Raises StorageError, Blocked."""
        done = None
        ledger = Ledger(store, replica=self._replica)
        if self._config.expires:
            janitor = Janitor(
                store, ledger, policy_of(self._config), metrics=self._metrics, lost=lambda: held.lost
            )
            done = await janitor.look()
            if done.condemned or done.deleted:
                log.info("expired", condemned=done.condemned, deleted=done.deleted, bytes=done.bytes)
        await tidy(store, now=await ledger.moment())
        return done

    async def _note_uses(self, store: Store, stack: contextlib.AsyncExitStack) -> None:
        interval = self._config.cache.journal
        journal = Journal(self.uses, store, replica=self._replica, interval=interval, metrics=self._metrics)
        condemned = Condemned(
            store,
            interval=interval,
            flush=journal.flush,
            forget=self._presence.forget,
            metrics=self._metrics,
            clock=self._clock,
        )
        self._journal, self.condemned, self.uses.wanted = journal, condemned, condemned.used
        stack.push_async_callback(journal.flush)
        in_background(stack, journal.run())
        in_background(stack, condemned.run())

    async def keep_house(self, store: Store, turns: Turns) -> None:
        """Take its turn as the janitor, by this replica's leases, until it is cancelled.

        Looks every interval, the first time in the second half of one: replicas that start together take turns.
        """
        if self._config.storage.readonly:
            return
        interval = self._config.cache.expiry.interval
        wait = interval * (1 + random.random()) / 2
        while True:
            await asyncio.sleep(wait)
            result = await self._took_turn(store, turns)
            self._metrics.janitor_runs_total.labels(result).inc()
            # Whoever has the lease may be dead: who asks again soon succeeds him.
            wait = min(interval, AGAIN) if result == "busy" else interval

    async def _took_turn(self, store: Store, turns: Turns) -> str:
        try:
            async with turns(JANITOR) as held:
                if held is None:
                    return "busy"
                ago = await Ledger(store, replica=self._replica).looked()
                if ago is not None and ago < self._config.cache.expiry.interval / 2:
                    return "early"
                await self.look(store, held)
                return "done"
        except Blocked as error:
            log.error("nothing expires", reason=str(error))
            return "blocked"
        except StorageError as error:
            log.warning("the look for what has expired ended early", error=str(error))
            return "failed"
