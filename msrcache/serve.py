"""The life of a serving process: signals, draining, re-reading the configuration.

States: starting -> serving -> draining -> ended. SIGTERM and SIGINT drain, a second one ends at once; SIGHUP
re-reads the configuration and the certificates, and a bad file keeps the old ones.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import uvloop

from msrcache import __version__
from msrcache.assembly import Application, configure_logs
from msrcache.config.load import Loaded
from msrcache.config.model import Config
from msrcache.config.problem import ConfigError
from msrcache.inquiry import CannotStart
from msrcache.telemetry.logs import get_logger

log = get_logger(__name__)

SWITCH_INTERVAL = 0.0005
"""Seconds for which the loop's thread may keep the interpreter from those that write and hash. A batch changes hands
three times on its way to a reader: with the default of 5 ms the first byte of a cold blob came 15 ms late."""


def run(loaded: Loaded, again: Callable[[], Loaded]) -> int:
    """Serve until SIGTERM or SIGINT, then drain; SIGHUP re-reads. Returns the exit code. Raises CannotStart."""
    configure_logs(loaded.config)
    for problem in loaded.problems:
        log.warning(str(problem))
    sys.setswitchinterval(SWITCH_INTERVAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(_serve(loaded.config, again))
    leave(code)
    return code


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


async def _serve(config: Config, again: Callable[[], Loaded]) -> int:
    loop = asyncio.get_running_loop()
    leave, hurry, reread = asyncio.Event(), asyncio.Event(), asyncio.Event()
    draining: asyncio.Task[None] | None = None

    def asked_to_leave() -> None:
        (hurry if leave.is_set() else leave).set()
        if hurry.is_set() and draining is not None:
            draining.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_leave)
    loop.add_signal_handler(signal.SIGHUP, reread.set)
    async with Application(config).running() as application:
        _announce(application)
        rereading = asyncio.create_task(_reread(application, reread, again))
        try:
            await leave.wait()
            draining = asyncio.create_task(application.drain())
            if hurry.is_set():  # twice before it had begun
                draining.cancel()
            await asyncio.wait({draining})
            if not draining.cancelled():
                draining.result()
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
