"""What `make run` starts: the cache on loopback and, where no upstream is named, something to pull.

    python -m tests.stage.demo [--port 5000] [--upstream https://msr.example.com] [--store s3]
    python -m tests.stage.demo --registry 0.0.0.0:5000     # the demonstration registry alone, for docker-compose.yml

The demonstration registry and the emulators of stores are the tests' own; they are no part of the product.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stage import images
from tests.stage.process import answers, free_port, listens
from tests.stage.shelf import shelf
from tests.stage.tools import PROJECT
from tests.stage.trystore import EMULATORS, configuration

REPOSITORY, TAG = "demo/hello", "1"
FILESYSTEM = "filesystem"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `make run` was told."""

    port: int
    upstream: str
    store: str
    folder: Path
    """Of the blobs, where the store is the file system."""


@dataclass(frozen=True, slots=True)
class Store:
    """Where the cache keeps its blobs: its arguments and variables for that, and how a person is told."""

    arguments: list[str | Path]
    variables: dict[str, str]
    said: str


def demonstration_image() -> images.Image:
    """Three real layers: a greeting, and two with enough in them to see a cold and a warm pull differ."""
    layers = [
        images.tar_layer({"hello.txt": b"Hello from the demonstration registry, by way of msrcache.\n"}),
        images.tar_layer({"data/first": images.noise(3_000_000, 1)}),
        images.tar_layer({"data/second": images.noise(12_000_000, 2)}),
    ]
    return images.image(layers, labels={"description": "demonstration image of msrcache"})


@contextlib.asynccontextmanager
async def upstream_of(named: str) -> AsyncIterator[str]:
    """The upstream that was named; without one, the demonstration registry."""
    if named:
        yield named
        return
    image = await asyncio.to_thread(demonstration_image)
    async with shelf({(REPOSITORY, TAG): image}, free_port()) as url:
        yield url


@contextlib.asynccontextmanager
async def store_of(wanted: Wanted) -> AsyncIterator[Store]:
    """The folder, or an emulator that ends with this."""
    if wanted.store == FILESYSTEM:
        wanted.folder.mkdir(parents=True, exist_ok=True)
        variables = {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(wanted.folder)}
        yield Store([], variables, f"{wanted.folder}   (stays when this ends)")
        return
    with tempfile.TemporaryDirectory(prefix="msrcache-") as name:
        folder = Path(name)
        async with EMULATORS[wanted.store](folder / wanted.store) as emulated:
            config = folder / "config.yml"
            config.write_text(configuration(wanted.store, emulated.settings, folder))
            said = f"{emulated.label}; gone when this ends\n  configured by  {config}"
            yield Store([config], {}, f"{wanted.store.upper()}: {said}")


def environment(port: int, upstream: str, store: Store) -> dict[str, str]:
    """The cache's configuration; all else are its embedded defaults."""
    return {
        **os.environ,
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_PROXY_REMOTEURL": upstream,
        "REGISTRY_CACHE_DRAIN_DELAY": "0s",  # Ctrl-C, and no load balancer that has to notice
        **store.variables,
    }


def announcement(port: int, upstream: str, store: str, *, demonstration: bool) -> str:
    """What a person needs to know next."""
    name = f"127.0.0.1:{port}/{REPOSITORY}:{TAG}" if demonstration else f"127.0.0.1:{port}/REPOSITORY:TAG"
    kind = "DEMONSTRATION REGISTRY, one image, gone when this ends" if demonstration else "named by UPSTREAM"
    login = (
        ""
        if demonstration
        else f"\n  log in first   docker login 127.0.0.1:{port}      (if the upstream asks)"
    )
    return f"""
msrcache is ready.
  listens on     http://127.0.0.1:{port}
  upstream       {upstream}   ({kind})
  store          {store}
{login}
  docker pull {name}
  skopeo copy --src-tls-verify=false docker://{name} dir:/tmp/msrcache-image
  crane pull --insecure {name} /tmp/msrcache-image.tar

Pull twice: the second time nothing is asked of the upstream but who may read. Ctrl-C ends it.
"""


def obstacle(wanted: Wanted) -> str:
    """Why it cannot be started, as one sentence, or nothing."""
    if wanted.store != FILESYSTEM and wanted.store not in EMULATORS:
        return f"STORE={wanted.store} is not known; there are: {', '.join((FILESYSTEM, *EMULATORS))}"
    return ""


async def run(wanted: Wanted) -> int:
    """Runs the cache until it ends or is interrupted; its exit code."""
    problem = obstacle(wanted)
    if not problem and await listens(wanted.port):
        port = wanted.port
        problem = f"127.0.0.1:{port} is taken by another program; choose a port: make run PORT={port + 1}"
    if problem:
        print(problem, file=sys.stderr)
        return 1
    async with store_of(wanted) as store, upstream_of(wanted.upstream) as upstream:
        return await serve(wanted, store, upstream)


async def serve(wanted: Wanted, store: Store, upstream: str) -> int:
    """Runs the cache in front of what is there now."""
    program = Path(sys.executable).with_name("msrcache")
    settings = environment(wanted.port, upstream, store)
    # a group of its own: Ctrl-C reaches us alone, and we pass it on as SIGTERM, which drains
    cache = await asyncio.create_subprocess_exec(
        program, "serve", *store.arguments, env=settings, start_new_session=True
    )
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    text = announcement(wanted.port, upstream, store.said, demonstration=not wanted.upstream)
    watchers: set[asyncio.Task[object]] = {
        asyncio.create_task(cache.wait()),
        asyncio.create_task(stopping.wait()),
        asyncio.create_task(announce(wanted.port, text)),
    }
    return await _until_over(cache, stopping, watchers)


async def announce(port: int, text: str) -> None:
    """Prints the announcement once the cache answers, then waits for ever."""
    while not await answers(f"http://127.0.0.1:{port}/v2/", below=600):
        await asyncio.sleep(0.1)
    print(text, flush=True)
    await asyncio.Event().wait()


async def _until_over(
    cache: asyncio.subprocess.Process, stopping: asyncio.Event, watchers: set[asyncio.Task[object]]
) -> int:
    await asyncio.wait(watchers, return_when=asyncio.FIRST_COMPLETED)
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    if not stopping.is_set():
        return await cache.wait()
    print("\nending: requests under way are finished first", flush=True)
    with contextlib.suppress(ProcessLookupError):
        cache.terminate()
    await cache.wait()
    return 0


async def registry_alone(place: str) -> int:
    """The demonstration registry at host:port until it is told to end."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    host, _, port = place.rpartition(":")
    image = await asyncio.to_thread(demonstration_image)
    async with shelf({(REPOSITORY, TAG): image}, int(port), host=host) as url:
        print(f"DEMONSTRATION REGISTRY with {REPOSITORY}:{TAG} at {url}", flush=True)
        await stopping.wait()
    return 0


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="msrcache on loopback, with something to pull")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--upstream", default="", help="URL of the registry to cache; none: a demonstration")
    parser.add_argument("--store", default="", help=f"{FILESYSTEM} (the default), {', '.join(EMULATORS)}")
    parser.add_argument("--folder", type=Path, help="of the blobs of a file system; default: below ./var")
    parser.add_argument("--registry", default="", help="host:port: the demonstration registry alone")
    options = parser.parse_args()
    if options.registry:
        return asyncio.run(registry_alone(options.registry))
    folder = options.folder or PROJECT / "var" / ("upstream" if options.upstream else "demo")
    wanted = Wanted(options.port, options.upstream, options.store or FILESYSTEM, folder)
    try:
        return asyncio.run(run(wanted))
    except (pytest.skip.Exception, pytest.fail.Exception) as error:  # what tools say of an absent program
        print(f"STORE={wanted.store} cannot be had here: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
