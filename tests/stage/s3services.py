"""Real S3 services on a folder: versitygw and MinIO. Each is an async context that yields a `RunningS3`."""

import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from botocore.session import get_session

from msrcache.storage.s3 import S3
from msrcache.storage.s3parameters import parameters
from tests.stage.certificates import Authority, authority
from tests.stage.clients import ran
from tests.stage.process import Process, answers, free_port, running
from tests.stage.tools import need

KEY = "testadmin"
SECRET = "testsecret123"
REGION = "us-east-1"

_session = functools.cache(get_session)
"""The SDK reads megabytes for each session."""


@dataclass(frozen=True, slots=True)
class RunningS3:
    """A service that answers; objects of versitygw are plain files below `folder`."""

    url: str
    folder: Path
    process: Process
    client: Any
    """The SDK's, which blocks, for what our driver does not do."""
    authority: Authority | None = None
    """Where it speaks TLS."""

    @property
    def port(self) -> int:
        """The loopback port."""
        return int(self.url.rpartition(":")[2])

    def settings(self, bucket: str, *, port: int | None = None, **more: object) -> dict[str, object]:
        """What stands below `storage: s3:` for a bucket of it; `port` is that of a proxy in front."""
        url = self.url if port is None else f"http://127.0.0.1:{port}"
        given = {"bucket": bucket, "regionendpoint": url, "accesskey": KEY, "secretkey": SECRET}
        return {**given, "region": REGION, **more}

    def driver(self, bucket: str, *, port: int | None = None, **more: object) -> S3:
        """A driver of our own on a bucket of it."""
        return S3(parameters(self.settings(bucket, port=port, **more)))

    def requests(self, bucket: str) -> list[str]:
        """`METHOD key` of what it was asked of a bucket, in order, from versitygw's own log; without the proof of the
        store, which may still go on when a cache has started.
        """
        lines = (line.split(" | ") for line in self.process.log.read_text(errors="replace").splitlines())
        asked = [(part[5].strip(), part[6].strip()) for part in lines if len(part) >= 8]
        return [
            f"{method} {path.removeprefix(f'/{bucket}').removeprefix('/')}".strip()
            for method, path in asked
            if path == f"/{bucket}" or path.startswith(f"/{bucket}/")
            if not path.startswith(f"/{bucket}/msrcache/probe/")
        ]

    async def add_account(self, access: str, secret: str) -> None:
        """A user without rights; of a versitygw with accounts."""
        root = ("--access", KEY, "--secret", SECRET, "--endpoint-url", self.url)
        user = ("--access", access, "--secret", secret, "--role", "user")
        await ran(need("versitygw"), "admin", *root, "create-user", *user)

    def make_bucket(self, bucket: str) -> None:
        """A new bucket."""
        self.client.create_bucket(Bucket=bucket)

    def uploads(self, bucket: str) -> list[str]:
        """The keys of the uploads in parts that are open."""
        answer = self.client.list_multipart_uploads(Bucket=bucket)
        return [found["Key"] for found in answer.get("Uploads", ())]

    def objects(self, bucket: str) -> dict[str, int]:
        """The first thousand objects with their sizes."""
        answer = self.client.list_objects_v2(Bucket=bucket)
        return {found["Key"]: found["Size"] for found in answer.get("Contents", ())}


@contextlib.asynccontextmanager
async def versitygw(folder: Path, *, accounts: bool = False, tls: bool = False) -> AsyncIterator[RunningS3]:
    """versitygw over plain files; with accounts there are others than root, with TLS it has an authority."""
    options: list[str | Path] = []
    folder.mkdir(parents=True, exist_ok=True)
    if accounts:
        (folder / "accounts").mkdir()
        options += ["--iam-dir", folder / "accounts"]
    ca = authority(folder / "ca") if tls else None
    if ca is not None:
        pair = ca.issue("s3")
        options += ["--cert", pair.certificate, "--key", pair.key]
    program = need("versitygw")
    env = {"ROOT_ACCESS_KEY": KEY, "ROOT_SECRET_KEY": SECRET}

    def argv(host: str, data: Path) -> list[str | Path]:
        return [program, "--port", host, "--keep-alive", *options, "posix", data]

    async with _service("versitygw", folder, argv, env, ca) as service:
        yield service


@contextlib.asynccontextmanager
async def minio(folder: Path) -> AsyncIterator[RunningS3]:
    """MinIO."""
    program = need("minio")
    env = {
        "MINIO_ROOT_USER": KEY,
        "MINIO_ROOT_PASSWORD": SECRET,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
    }

    def argv(host: str, data: Path) -> list[str | Path]:
        return [program, "server", "--address", host, data]

    async with _service("minio", folder, argv, env) as service:
        yield service


@contextlib.asynccontextmanager
async def _service(
    name: str,
    folder: Path,
    argv: Callable[[str, Path], list[str | Path]],
    env: dict[str, str],
    ca: Authority | None = None,
) -> AsyncIterator[RunningS3]:
    data = folder / "buckets"
    data.mkdir(parents=True)
    host = f"127.0.0.1:{free_port()}"
    url = f"{'http' if ca is None else 'https'}://{host}"

    async def ready() -> bool:
        return await answers(f"{url}/", below=500)

    log = folder / f"{name}.log"
    async with running(name, argv(host, data), ready=ready, log=log, env=env) as process:
        keys = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET}
        verify = None if ca is None else str(ca.bundle)
        client = _session().create_client("s3", REGION, endpoint_url=url, verify=verify, **keys)
        with contextlib.closing(client):
            yield RunningS3(url, data, process, client, ca)
