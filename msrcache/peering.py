"""This replica among the others: its peer port, the address that they are told, and the way to theirs.

With `http.secret` and a store that others can share it is open; else nobody can be followed, and replicas that wait
for each other poll the store. Open it before the first lease is written, close it after the last was released.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from pathlib import Path

from msrcache.config.model import Config
from msrcache.config.storage import DEFAULT_ROOT
from msrcache.oci.peers import Followable
from msrcache.server.advertise import advertised
from msrcache.server.peer import PeerPort
from msrcache.server.settings import PeerSettings
from msrcache.sockets.mutual import MutualTls
from msrcache.storage.mounts import mount_named
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.peers import Peers

ALONE = "http.secret is not set: replicas do not follow each other's fills, those that wait for one poll the store"

log = get_logger(__name__)


class Peering:
    """The port and the way to the others'. `address` is empty, `port` and `peers` are None where nobody is followed."""

    def __init__(self, config: Config, *, metrics: Metrics, clock: Clock) -> None:
        self.address = ""
        self.port: PeerPort | None = None
        self.peers: Peers | None = None
        self._config = config
        self._metrics = metrics
        self._clock = clock
        tls = config.cache.peer.tls
        self._tls = (
            MutualTls(tls.certificate or "", tls.key or "", tls.ca, named="cache.peer.tls")
            if tls.enabled
            else None
        )

    def __repr__(self) -> str:
        return f"<Peering {self.address or 'alone'}>"

    async def open(self) -> None:
        """Listen, where this replica can have peers. Raises ListenFailed, MutualTlsProblem."""
        config, section = self._config, self._config.cache.peer
        if config.storage.driver == "inmemory" or not section.addr:
            return
        if config.secret is None:
            tell = log.warning if _is_shared(config) else log.info
            tell(ALONE)
            return
        await self.reach()
        secret = config.secret.get_secret_value().encode()
        settings = PeerSettings.of(config)
        self.port = PeerPort(settings, secret=secret, metrics=self._metrics, clock=self._clock, tls=self._tls)
        await self.port.open()
        listening = self.port.address
        self.address = await advertised(listening, given=section.advertise, addr=section.addr)
        log.info("replicas reach this one", listening=listening, advertised=self.address)

    async def reach(self) -> None:
        """Have the way to the others' ports, where there is a secret for it; a command needs no more.

        Raises MutualTlsProblem.
        """
        if self._config.secret is None:
            return
        if self._tls is not None:
            await self._tls.load()
        secret = self._config.secret.get_secret_value().encode()
        context = None if self._tls is None else self._context
        self.peers = Peers(secret, metrics=self._metrics, clock=self._clock, tls=context)

    def _context(self) -> ssl.SSLContext:
        assert self._tls is not None
        return self._tls.client

    def serve(self, fills: Followable) -> None:
        """Let the others follow these fills of this process."""
        if self.port is not None:
            self.port.serve(fills)

    async def silence(self, until: float) -> None:
        """Returns when no other replica is being answered, or when that is the time of the loop."""
        if self.port is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self.port.silence()

    def unreached(self) -> Mapping[str, str]:
        """Replica -> why it could not be reached when it was tried last."""
        return {} if self.peers is None else self.peers.reach.unreached()

    async def reload(self) -> None:
        """Read the certificates anew. Raises MutualTlsProblem and keeps the old ones."""
        if self._tls is not None:
            await self._tls.load()

    async def close(self) -> None:
        """Close the port and leave the others. Idempotent."""
        port, self.port = self.port, None
        peers, self.peers = self.peers, None
        if peers is not None:
            await peers.close()
        if port is not None:
            await port.close()


def _is_shared(config: Config) -> bool:
    """Whether other machines can have this store; a folder of a local disk they can't."""
    if config.storage.driver != "filesystem":
        return True
    mount = mount_named(Path(str(config.storage.parameters.get("rootdirectory") or DEFAULT_ROOT)))
    return mount is not None and mount.nfs
