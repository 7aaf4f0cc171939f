"""Real registries on a folder: Debian's docker-registry 2.8 and Distribution 3.1; open, basic, tokens, TLS.

Each is an async context that yields a `RunningRegistry`. Content can be pushed with `images.push`, or a
folder that somebody else filled can be served.
"""

import contextlib
import enum
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import bcrypt

from tests.stage.certificates import Authority, authority
from tests.stage.process import Process, answers, free_port, running
from tests.stage.tokens import USERS, TokenServer
from tests.stage.tools import need


class Kind(enum.StrEnum):
    """Which implementation; the value is the name of its program."""

    V2 = "docker-registry"
    V3 = "registry"


@dataclass(frozen=True, slots=True)
class RunningRegistry:
    """A registry that answers; `authority` where it speaks TLS."""

    host: str
    url: str
    folder: Path
    process: Process
    config: Path
    authority: Authority | None = None

    @property
    def port(self) -> int:
        """The loopback port."""
        return int(self.host.rpartition(":")[2])

    def requests(self) -> list[str]:
        """`METHOD path` of what it has answered so far, from its own access log, in order."""
        lines = self.process.log.read_text(errors="replace").splitlines()
        quoted = [line.split('"')[1] for line in lines if line.startswith("127.0.0.1 - ")]
        return [request.rpartition(" ")[0] for request in quoted]


def htpasswd(path: Path, users: Mapping[str, str] = USERS) -> Path:
    """Writes an htpasswd file (bcrypt, cheap rounds)."""
    lines = [f"{u}:{bcrypt.hashpw(p.encode(), bcrypt.gensalt(4)).decode()}\n" for u, p in users.items()]
    path.write_text("".join(lines))
    return path


@contextlib.asynccontextmanager
async def registry(
    kind: Kind,
    folder: Path,
    *,
    tokens: TokenServer | None = None,
    basic: bool = False,
    tls: bool = False,
    settings: Mapping[str, object] | None = None,
) -> AsyncIterator[RunningRegistry]:
    """A registry over `folder`/data; settings replace top sections of its configuration."""
    program = need(kind.value)
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    config = _config(folder, host, tokens=tokens, basic=basic) | dict(settings or {})
    ca = authority(folder / "ca") if tls else None
    if ca is not None:
        pair = ca.issue("registry")
        config["http"] = {"addr": host, "tls": {"certificate": str(pair.certificate), "key": str(pair.key)}}
    path = folder / f"{kind.name.lower()}.yml"
    path.write_text(json.dumps(config, indent=1))  # JSON is YAML
    url = f"{'https' if tls else 'http'}://{host}"

    async def ready() -> bool:
        return await answers(f"{url}/v2/")

    log = folder / f"{kind.name.lower()}.log"
    # The S3 driver of 2.8 does not start where the environment names authorities for the SDK.
    quiet = {"OTEL_TRACES_EXPORTER": "none", "AWS_CA_BUNDLE": ""}
    async with running(kind.value, [program, "serve", path], ready=ready, log=log, env=quiet) as process:
        yield RunningRegistry(host, url, folder / "data", process, path, ca)


def _config(folder: Path, host: str, *, tokens: TokenServer | None, basic: bool) -> dict[str, object]:
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": host},
    }
    if tokens is not None:
        config["auth"] = tokens.registry_section()
    elif basic:
        path = htpasswd(folder / "htpasswd")
        config["auth"] = {"htpasswd": {"realm": "test registry", "path": str(path)}}
    return config
