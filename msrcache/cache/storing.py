"""Storing a fill's blob: published, seen by another connection, linked.

Whatever fails costs one more pull, and is told. The client's bytes never wait for any of it.
"""

from pathlib import Path

from msrcache.cache.kitchen import Kitchen
from msrcache.cache.layout import blob_key
from msrcache.cache.publish import NotVisible, publish
from msrcache.cache.tail import Spilled, Tail
from msrcache.oci.digest import Digest
from msrcache.oci.errors import RegistryError
from msrcache.oci.pulls import BlobPull
from msrcache.storage.errors import LeftAlone, StorageError
from msrcache.telemetry.logs import get_logger

log = get_logger(__name__)


async def store(kitchen: Kitchen, pull: BlobPull, tail: Tail, path: Path) -> bool:
    """Whether the blob is in the store, as every replica will find it, and linked to the pull's repository."""
    settings = kitchen.settings
    try:
        await publish(
            kitchen.store,
            blob_key(pull.digest),
            tail,
            path,
            timeout=settings.verify_timeout,
            clock=kitchen.clock,
        )
    except NotVisible as error:
        unstored(kitchen, "invisible")
        kitchen.metrics.readafterwrite_failures_total.inc()
        log.error("blob not visible after it was stored", digest=str(pull.digest), error=str(error))
    except StorageError as error:
        unstored(kitchen, "skipped" if isinstance(error, LeftAlone) else "failed")
        tell = log.debug if isinstance(error, LeftAlone) else log.error
        tell("blob not stored: the next pull fetches it again", digest=str(pull.digest), error=str(error))
    except (Spilled, RegistryError):
        pass  # the fill failed, and says so itself
    else:
        await kitchen.published(pull)
        return True
    return False


def unstored(kitchen: Kitchen, reason: str) -> None:
    """Count a blob that was served and not stored."""
    kitchen.metrics.unstored_total.labels(reason).inc()


def given_up(kitchen: Kitchen, digest: Digest) -> None:
    """The same of one that had to make room."""
    unstored(kitchen, "slow")
    log.warning("blob not stored: the store is slower than the upstream", digest=str(digest))
