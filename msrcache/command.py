"""What commands on the configured store have in common: opening it, telling how far they are, and their answer."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final, TextIO

from msrcache.cache.ledger import Progress
from msrcache.config.model import Config
from msrcache.inquiry import CannotStart
from msrcache.storage.driver import Driver
from msrcache.storage.drivers import open_driver
from msrcache.storage.parameters import ParameterError
from msrcache.storage.store import Store, StoreSettings
from msrcache.telemetry.clock import SystemClock
from msrcache.telemetry.metrics import Metrics

EVERY: Final = 0.2
"""Seconds between two lines of progress."""


def opened_driver(config: Config) -> Driver:
    """The configured store's driver. Raises CannotStart."""
    try:
        return open_driver(config.storage)
    except ParameterError as error:
        raise CannotStart(str(error)) from error


@asynccontextmanager
async def opened(config: Config, *, writable: bool = True) -> AsyncIterator[Store]:
    """The configured store, for a command. Raises CannotStart."""
    settings = StoreSettings(writable=writable)
    store = Store(opened_driver(config), metrics=Metrics(), clock=SystemClock(), settings=settings)
    try:
        yield store
    finally:
        await store.close()


def told_on(stream: TextIO) -> Progress:
    """Progress, as one line that is written over where somebody looks; nothing where nobody does."""
    last = [0.0]

    def tell(what: str, done: int, of: int) -> None:
        if not stream.isatty() or time.monotonic() - last[0] < EVERY:
            return
        last[0] = time.monotonic()
        stream.write(f"\r\x1b[K{what}: {done:,}" + (f" of {of:,}" if of else ""))
        stream.write("\r" if of and done >= of else "")
        stream.flush()

    return tell


def write(out: TextIO, lines: Sequence[str], answer: object, *, as_json: bool) -> None:
    """The answer, as lines for people or as JSON."""
    out.write(json.dumps(answer, indent=2) + "\n" if as_json else "".join(f"{line}\n" for line in lines))
