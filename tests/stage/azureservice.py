"""Azurite: a blob service like Azure's on a folder. An async context that yields a `RunningAzure`.

It keeps names, conditions, signatures and blocks as Azure does; that it leaves roles and billing out is said where it
matters.
"""

import asyncio
import contextlib
import itertools
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobServiceClient, ContainerSasPermissions, generate_container_sas

from msrcache.storage.azure import Azure
from msrcache.storage.azureparameters import parameters
from tests.stage.certificates import LOOPBACK, Authority
from tests.stage.process import Process, answers, free_port, running, until
from tests.stage.registries import RunningRegistry
from tests.stage.tools import need, need_root

ACCOUNT = "testaccount"
KEY = "bm8gc2VjcmV0LCBqdXN0IDMyIGJ5dGVzIG9mIHRleHQgIQ=="

HOST = f"{ACCOUNT}.blob.azurite.test"
"""What Docker Registry 2.8 makes of the account and the realm `azurite.test`; it knows no other address."""

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class RunningAzure:
    """A service that answers; `url` is that of the account."""

    url: str
    folder: Path
    process: Process
    client: Any
    """The SDK's, which blocks, for what our driver does not do."""

    @property
    def port(self) -> int:
        """The loopback port."""
        return int(self.url.rpartition(":")[2].partition("/")[0])

    def settings(self, container: str, *, port: int | None = None, **more: object) -> dict[str, object]:
        """What stands below `storage: azure:` for a container of it; `port` is that of a proxy in front."""
        url = self.url if port is None else f"http://127.0.0.1:{port}/{ACCOUNT}"
        given = {"accountname": ACCOUNT, "accountkey": KEY, "container": container, "serviceurl": url}
        return {**given, **more}

    def driver(self, container: str, *, port: int | None = None, **more: object) -> Azure:
        """A driver of our own on a container of it."""
        return Azure(parameters(self.settings(container, port=port, **more)))

    async def requests(self, container: str) -> list[str]:
        """`METHOD name` of what it was asked of a container, in order, with what is asked for where it is no blob's.

        Its log is in order, but late: a request of our own is waited for first, and left out.
        """
        marker = f"marker-{next(_numbers)}"
        blob = self.client.get_blob_client(container, marker)
        await asyncio.to_thread(blob.exists)

        async def told() -> bool:
            return marker in self.process.log.read_text(errors="replace")

        await until(told, what="the service's log")
        lines = self.process.log.read_text(errors="replace").splitlines()
        asked = (_request(line, f"/{ACCOUNT}/{container}") for line in lines)
        return [line for line in asked if line and "marker-" not in line]

    def make_container(self, name: str = "") -> str:
        """A new container."""
        name = name or f"container-{next(_numbers)}"
        self.client.create_container(name)
        return name

    def signature(self, container: str, permission: str, *, days: float = 1) -> str:
        """A shared access signature for a container."""
        allowed = ContainerSasPermissions.from_string(permission)
        expiry = datetime.now(UTC) + timedelta(days=days)
        return generate_container_sas(ACCOUNT, container, KEY, permission=allowed, expiry=expiry)

    def blobs(self, container: str) -> dict[str, int]:
        """All blobs by their names as they are, with their sizes."""
        return {blob.name: blob.size for blob in self.client.get_container_client(container).list_blobs()}

    def uncommitted(self, container: str) -> list[str]:
        """The names that have blocks and no blob."""
        listed = self.client.get_container_client(container).list_blobs(include=["uncommittedblobs"])
        return sorted({blob.name for blob in listed} - set(self.blobs(container)))


def _request(line: str, place: str) -> str:
    """What a line of the log says of a container, shortened; empty where it is none of a request below it."""
    method, _, rest = line.partition('"')[2].partition(" ")
    path, _, query = rest.partition(" ")[0].partition("?")
    if path != place and not path.startswith(f"{place}/"):
        return ""
    words = [word for word in query.split("&") if word.startswith("comp=")]
    return " ".join(filter(None, (method, path.removeprefix(place).removeprefix("/"), *words)))


@contextlib.asynccontextmanager
async def azurite(
    folder: Path, *, authority: Authority | None = None, port: int | None = None
) -> AsyncIterator[RunningAzure]:
    """Azurite; with an authority it speaks TLS, as `localhost`, and takes identities' tokens."""
    program = need("azurite-blob")
    data = folder / "blobs"
    data.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    argv: list[str | Path] = [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", data]
    # The SDK signs URLs for the newest version of the API, which Azurite knows later.
    argv += ["--skipApiVersionCheck", "--disableTelemetry"]
    host, more = f"127.0.0.1:{port}", dict[str, Any]()
    if authority is not None:
        pair = authority.issue("azurite", *LOOPBACK, HOST)
        argv += ["--cert", pair.certificate, "--key", pair.key, "--oauth", "basic"]
        host, more = f"localhost:{port}", {"connection_verify": str(authority.bundle)}
    url = f"{'http' if authority is None else 'https'}://{host}/{ACCOUNT}"

    async def ready() -> bool:
        return await answers(f"{url}/", below=500)

    # Where the system has no Node.js, scripts/test-deps has put one beside it.
    path = f"{program.parents[2] / 'node' / 'bin'}:{os.environ.get('PATH', '')}"
    env = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}", "PATH": path}
    async with running("azurite", argv, ready=ready, log=folder / "azurite.log", env=env) as process:
        with BlobServiceClient(url, {"account_name": ACCOUNT, "account_key": KEY}, **more) as client:
            yield RunningAzure(url, data, process, client)


@contextlib.asynccontextmanager
async def registry28(
    folder: Path, service: RunningAzure, container: str, authority: Authority
) -> AsyncIterator[RunningRegistry]:
    """Docker Registry 2.8 with its own Azure driver on a container; a host file of its own leads it there."""
    need_root()
    program = need("registry28")
    folder.mkdir(parents=True, exist_ok=True)
    hosts = folder / "hosts"
    hosts.write_text(f"127.0.0.1 localhost {HOST}\n")
    host = f"127.0.0.1:{free_port()}"
    given = {"accountname": ACCOUNT, "accountkey": KEY, "container": container}
    storage = {"azure": {**given, "realm": f"azurite.test:{service.port}"}, "redirect": {"disable": True}}
    path = folder / "registry.yml"
    path.write_text(json.dumps({"version": "0.1", "storage": storage, "http": {"addr": host}}))
    url = f"http://{host}"

    async def ready() -> bool:
        return await answers(f"{url}/v2/")

    within = f"mount --bind {hosts} /etc/hosts && exec {program} {path}"
    argv = ["unshare", "--mount", "sh", "-c", within]
    env = {"SSL_CERT_FILE": str(authority.bundle)}
    async with running("registry28", argv, ready=ready, log=folder / "registry.log", env=env) as process:
        yield RunningRegistry(host, url, folder, process, path, None)
