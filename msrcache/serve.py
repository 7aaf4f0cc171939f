"""The life of a serving process: signals, draining, re-reading the configuration.

States: starting -> serving -> draining -> ended. SIGTERM and SIGINT drain, a second one ends at once; SIGHUP
re-reads the configuration and the certificates, and a bad file keeps the old ones.
"""

import asyncio
import logging
import os
import secrets
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import uvloop

from msrcache import __version__
from msrcache.assembly import Application
from msrcache.config.load import Loaded
from msrcache.config.model import Config
from msrcache.config.problem import ConfigError
from msrcache.config.shares import Share, share
from msrcache.inquiry import CannotStart
from msrcache.server.binding import ListenFailed, prove_free
from msrcache.server.cores import cores
from msrcache.server.forking import hearing
from msrcache.server.seat import Seat
from msrcache.server.workers import Supervisor, WorkersFailed
from msrcache.storage.drivers import preload
from msrcache.telemetry.logs import get_logger
from msrcache.telling import configure_logs

log = get_logger(__name__)

SWITCH_INTERVAL = 0.0005
"""Seconds for which the loop's thread may keep the interpreter from those that write and hash. A batch changes hands
three times on its way to a reader: with the default of 5 ms the first byte of a cold blob came 15 ms late."""


def run(loaded: Loaded, again: Callable[[], Loaded]) -> int:
    """Serve until SIGTERM or SIGINT, then drain; SIGHUP re-reads. Returns the exit code. Raises CannotStart."""
    configure_logs(loaded.config)
    for problem in loaded.problems:
        log.warning(str(problem))
    count = loaded.config.cache.workers or cores()
    if count > 1:
        return Crew(loaded, again, count).run()
    return _alone(loaded.config, again)


def _alone(
    config: Config, again: Callable[[], Loaded], *, seat: Seat | None = None, after: Loaded | None = None
) -> int:
    """One process that serves: the only one, or the worker in this seat."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_serve(config, again, seat, after))
    leave(code)
    return code


class Crew:
    """What the workers of one supervisor have in common: how they are configured, now and when one is started later."""

    def __init__(self, loaded: Loaded, again: Callable[[], Loaded], count: int) -> None:
        self._first = loaded
        self._latest: Loaded | None = None
        self._again = again
        self._count = count
        self._secret = secrets.token_hex(32)

    def run(self) -> int:
        """As run."""
        config = self._first.config
        taken = (config.http.addr, config.http.debug.addr, config.cache.metrics.addr)
        try:
            asyncio.run(prove_free(*(addr for addr in taken if addr)))
            preload(config.storage)
            log.info("workers are started", version=__version__, workers=self._count)
            return Supervisor(self._count, self._work, reread=self._reread).run()
        except (ListenFailed, WorkersFailed) as error:
            raise CannotStart(str(error)) from error

    def _work(self, seat: Seat) -> int:
        """A worker's whole life, in its own process."""
        after = self._latest and self._shared(self._latest, seat)
        first = self._shared(self._first, seat)
        configure_logs((after or first).config)
        try:
            return _alone(first.config, lambda: self._shared(self._again(), seat), seat=seat, after=after)
        except CannotStart as error:
            seat.cannot(str(error))
            return 2

    def _shared(self, loaded: Loaded, seat: Seat) -> Loaded:
        asked = self._first.config.cache.workers
        part = Share(number=seat.number, of=seat.of, asked=asked, secret=self._secret)
        return replace(loaded, config=share(loaded.config, part))

    def _reread(self) -> None:
        """What the workers re-read too: they tell what is wrong with it."""
        with suppress(ConfigError):
            self._latest = self._again()


def leave(code: int, *, patience: float = 2.0) -> None:
    """Return when the process can end by itself; end it where threads hang in a disk that does not answer.

    The interpreter would wait for them, and a file server may be away for hours.
    """
    until = time.monotonic() + patience
    hanging = [t for t in threading.enumerate() if t is not threading.current_thread() and not t.daemon]
    for thread in hanging:
        thread.join(max(0.0, until - time.monotonic()))
    if any(thread.is_alive() for thread in hanging):
        log.warning("stopped without waiting for a disk that does not answer")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(code)


class Leaving:
    """Being asked to leave, and being asked again, which cuts what still drains."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self._hurry = False
        self._draining: asyncio.Task[None] | None = None

    def ask(self) -> None:
        """A signal: the first drains, the second ends at once."""
        if self.asked.is_set():
            self.hurry()
        self.asked.set()

    def hurry(self) -> None:
        """End at once."""
        self.asked.set()
        self._hurry = True
        if self._draining is not None:
            self._draining.cancel()

    async def drain(self, application: Application) -> None:
        """Until it has drained, or is not to any more."""
        self._draining = asyncio.create_task(application.drain())
        if self._hurry:  # twice before it had begun
            self._draining.cancel()
        await asyncio.wait({self._draining})
        if not self._draining.cancelled():
            self._draining.result()


async def _serve(config: Config, again: Callable[[], Loaded], seat: Seat | None, after: Loaded | None) -> int:
    loop = asyncio.get_running_loop()
    leaving, reread = Leaving(), asyncio.Event()
    application = Application(config, seat=seat, after=after)
    loop.add_signal_handler(signal.SIGHUP, reread.set)
    if seat is None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leaving.ask)
    else:
        # A second SIGTERM says nothing: it may be the group's, beside the supervisor's own.
        loop.add_signal_handler(signal.SIGTERM, leaving.asked.set)
        seat.listen(application.metrics.registry, told={"hurry": leaving.hurry, "gone": leaving.asked.set})
        hearing()
    async with application.running():
        _announce(application)
        if seat is not None:
            seat.ready()
        rereading = asyncio.create_task(_reread(application, reread, again))
        try:
            await leaving.asked.wait()
            await leaving.drain(application)
        finally:
            rereading.cancel()
    log.info("stopped")
    return 0


async def _reread(application: Application, asked: asyncio.Event, again: Callable[[], Loaded]) -> None:
    while True:
        await asked.wait()
        asked.clear()
        try:
            await application.reload(await asyncio.to_thread(again))
        except (ConfigError, CannotStart) as error:
            application.metrics.config_reloads_total.labels("failed").inc()
            log.error("configuration not taken over: the old one stays", error=str(error))
        except Exception:  # whatever it was, the process serves on and may be asked again
            application.metrics.config_reloads_total.labels("failed").inc()
            log.exception("configuration not taken over, by an error of this program: the old one stays")
        else:
            application.metrics.config_reloads_total.labels("loaded").inc()
            log.info("configuration re-read")


def _announce(application: Application) -> None:
    config = application.config
    log.info(
        "msrcache is listening",
        version=__version__,
        addresses=", ".join(application.service.addresses),
        upstreams=", ".join(entry.url for entry in config.upstreams),
        storage=config.storage.driver,
        access=config.access.mode,
        spool=str(config.spool_path),
    )
    if config.access.mode == "open":
        log.warning("access mode open: everybody who reaches this port reads what the service account may")
