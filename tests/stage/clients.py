"""Real clients that pull: skopeo, crane and buildah. Engines with daemons are in `engines`.

Each function returns what the program printed and raises `ClientFailedError` with all of its output where it
fails. References are `host:port/repository:tag` or `…@digest`, without a scheme.
"""

import asyncio
import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.stage.tools import need

SECONDS = 90  # a client that has not ended by then hangs

# containers/image wants a policy file even where it accepts everything
ACCEPT_ANYTHING = {"default": [{"type": "insecureAcceptAnything"}]}


class ClientFailedError(AssertionError):
    """The client ended with an error, or not at all; the message has its output."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a program printed before it ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a client says it is."""

    user: str
    password: str

    def encoded(self) -> str:
        """As in docker's config.json."""
        return base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


async def run(
    *argv: str | Path, env: Mapping[str, str] | None = None, seconds: float = SECONDS, stdin: bytes = b""
) -> Ran:
    """Runs a program to its end, whatever its code; killed and reported after the time."""
    process = await asyncio.create_subprocess_exec(
        *map(str, argv),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        raise ClientFailedError(f"still running after {seconds:g} s: {_line(argv)}") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(errors="replace"), err.decode(errors="replace"))


async def ran(
    *argv: str | Path, env: Mapping[str, str] | None = None, seconds: float = SECONDS, stdin: bytes = b""
) -> Ran:
    """As run, but raises ClientFailedError for every code but 0."""
    result = await run(*argv, env=env, seconds=seconds, stdin=stdin)
    if result.code != 0:
        raise ClientFailedError(f"code {result.code}: {_line(argv)}\n{result.out}\n{result.err}"[-6000:])
    return result


def _line(argv: Sequence[str | Path]) -> str:
    return " ".join(map(str, argv))


def docker_config(folder: Path, accounts: Mapping[str, Account] | None = None) -> Path:
    """A DOCKER_CONFIG folder with the accounts, by registry host (`127.0.0.1:5000`)."""
    folder.mkdir(parents=True, exist_ok=True)
    auths = {host: {"auth": account.encoded()} for host, account in (accounts or {}).items()}
    (folder / "config.json").write_text(json.dumps({"auths": auths}))
    return folder


def _host(reference: str) -> str:
    return reference.split("/", 1)[0]


# --- skopeo ---


def _skopeo(folder: Path) -> list[str | Path]:
    folder.mkdir(parents=True, exist_ok=True)
    policy = folder / "policy.json"
    policy.write_text(json.dumps(ACCEPT_ANYTHING))
    return [need("skopeo"), "--policy", policy, "--tmpdir", folder]


async def skopeo_copy(
    reference: str,
    folder: Path,
    *,
    account: Account | None = None,
    ca_folder: Path | None = None,
    every_platform: bool = False,
) -> Path:
    """Copies an image to `folder`/image, in skopeo's `dir:` layout: a blob's file is named by its hex."""
    target = folder / "image"
    argv = [*_skopeo(folder), "copy", *_skopeo_source(account, ca_folder, "src-")]
    if every_platform:
        argv.append("--all")
    await ran(*argv, f"docker://{reference}", f"dir:{target}")
    return target


async def skopeo_inspect(
    reference: str, folder: Path, *, account: Account | None = None, ca_folder: Path | None = None
) -> dict[str, object]:
    """What skopeo says of an image: Digest, Layers, RepoTags and more."""
    source = _skopeo_source(account, ca_folder, "")
    result = await ran(*_skopeo(folder), "inspect", *source, f"docker://{reference}")
    parsed: dict[str, object] = json.loads(result.out)
    return parsed


def _skopeo_source(account: Account | None, ca_folder: Path | None, prefix: str) -> list[str]:
    argv = [f"--{prefix}tls-verify=false"] if ca_folder is None else [f"--{prefix}cert-dir={ca_folder}"]
    argv.append(f"--{prefix}creds={account.user}:{account.password}" if account else f"--{prefix}no-creds")
    return argv


# --- crane ---


async def _crane(folder: Path, account: Account | None, verb: str, reference: str, *more: str) -> Ran:
    config = docker_config(folder / "docker", {_host(reference): account} if account else None)
    return await ran(need("crane"), verb, "--insecure", reference, *more, env={"DOCKER_CONFIG": str(config)})


async def crane_pull(reference: str, folder: Path, *, account: Account | None = None) -> Path:
    """Pulls an image with all its platforms into an OCI layout, `folder`/layout."""
    target = folder / "layout"
    await _crane(folder, account, "pull", reference, str(target), "--format=oci")
    return target


async def crane_manifest(reference: str, folder: Path, *, account: Account | None = None) -> str:
    """The manifest's text, as it was served."""
    return (await _crane(folder, account, "manifest", reference)).out


async def crane_digest(reference: str, folder: Path, *, account: Account | None = None) -> str:
    """The digest that a HEAD brings."""
    return (await _crane(folder, account, "digest", reference)).out.strip()


# --- buildah ---


async def buildah_pull(reference: str, folder: Path, *, account: Account | None = None) -> str:
    """Pulls into a storage of its own and unpacks it (vfs); returns the image's id."""
    folder.mkdir(parents=True, exist_ok=True)
    policy = folder / "policy.json"
    policy.write_text(json.dumps(ACCEPT_ANYTHING))
    argv: list[str | Path] = [need("buildah"), "--root", folder / "root", "--runroot", folder / "run"]
    argv += ["--storage-driver", "vfs", "pull", "--quiet", "--tls-verify=false", "--signature-policy", policy]
    if account is not None:
        argv.append(f"--creds={account.user}:{account.password}")
    settings = folder / "registries.conf"
    settings.write_text("")
    env = {"CONTAINERS_REGISTRIES_CONF": str(settings), "TMPDIR": str(folder)}
    return (await ran(*argv, reference, env=env)).out.strip()
