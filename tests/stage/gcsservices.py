"""fake-gcs-server, and before it what it does not enforce. An async context that yields a `RunningGcs`."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from yarl import URL

from msrcache.storage.gcs import Gcs
from msrcache.storage.gcsparameters import parameters
from tests.stage.gcsfront import Front, front
from tests.stage.process import Process, answers, free_port, running
from tests.stage.tools import need


@dataclass(frozen=True, slots=True)
class RunningGcs:
    """A service that answers; `front` is what drivers speak to."""

    front: Front
    process: Process

    @property
    def port(self) -> int:
        """The loopback port."""
        return int(self.front.url.rpartition(":")[2])

    def settings(self, bucket: str, *, port: int | None = None, **more: object) -> dict[str, object]:
        """What stands below `storage: gcs:` for a bucket of it; `port` is that of a proxy in front."""
        url = self.front.url if port is None else f"http://127.0.0.1:{port}"
        account = self.front.account.info(f"{self.front.url}/token")
        return {"bucket": bucket, "endpoint": url, "credentials": account, **more}

    def driver(self, bucket: str, *, port: int | None = None, **more: object) -> Gcs:
        """A driver of our own on a bucket of it."""
        return Gcs(parameters(self.settings(bucket, port=port, **more)))

    async def make_bucket(self, bucket: str, **settings: object) -> None:
        """A new bucket."""
        async with self.front.client.post(
            f"{self.front.behind}/storage/v1/b", json={"name": bucket, **settings}
        ) as answer:
            assert answer.status == 200, await answer.text()

    async def remove_bucket(self, bucket: str) -> None:
        """With all that is in it."""
        where = f"{self.front.behind}/storage/v1/b/{bucket}"
        for key in await self.objects(bucket):
            async with self.front.client.delete(
                URL(f"{where}/o/{quote(key, safe='')}", encoded=True)
            ) as answer:
                assert answer.status < 300, await answer.text()
        async with self.front.client.delete(where) as answer:
            assert answer.status < 300, await answer.text()

    async def objects(self, bucket: str) -> dict[str, int]:
        """The first thousand objects with their sizes."""
        async with self.front.client.get(f"{self.front.behind}/storage/v1/b/{bucket}/o") as answer:
            found = await answer.json()
        return {item["name"]: int(item["size"]) for item in found.get("items", ())}


@dataclass(frozen=True, slots=True)
class Emulator:
    """A fake-gcs-server that runs; it belongs to no loop."""

    url: str
    process: Process


@contextlib.asynccontextmanager
async def emulator(folder: Path) -> AsyncIterator[Emulator]:
    """fake-gcs-server in memory: over files its keys are file names, and may be no longer."""
    program, port = need("fake-gcs-server"), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{port}"
    url = f"http://{host}"
    argv: list[str | Path] = [program, "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)]
    argv += ["-backend", "memory", "-external-url", url, "-public-host", host, "-log-level", "warn"]

    async def ready() -> bool:
        return await answers(f"{url}/storage/v1/b")

    log = folder / "fake-gcs-server.log"
    async with running("fake-gcs-server", argv, ready=ready, log=log) as process:
        yield Emulator(url, process)


@contextlib.asynccontextmanager
async def strict(behind: Emulator) -> AsyncIterator[RunningGcs]:
    """The emulator, and before it what it does not enforce."""
    async with front(behind.url) as before:
        yield RunningGcs(before, behind.process)


@contextlib.asynccontextmanager
async def fakegcs(folder: Path) -> AsyncIterator[RunningGcs]:
    """Both at once."""
    async with emulator(folder) as behind, strict(behind) as service:
        yield service
