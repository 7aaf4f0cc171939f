"""What `make run` starts: the cache on loopback and, where no upstream is named, something to pull.

    python -m tests.stage.demo [--port 5000] [--upstream https://msr.example.com]

The demonstration registry is the tests' own and serves one image; it is no part of the product.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from tests.stage import images
from tests.stage.process import answers, free_port, listens
from tests.stage.shelf import shelf
from tests.stage.tools import PROJECT

REPOSITORY, TAG = "demo/hello", "1"


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


def environment(port: int, upstream: str, store: Path) -> dict[str, str]:
    """The cache's configuration; all else are its embedded defaults."""
    return {
        **os.environ,
        "REGISTRY_HTTP_ADDR": f"127.0.0.1:{port}",
        "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(store),
        "REGISTRY_PROXY_REMOTEURL": upstream,
        "REGISTRY_CACHE_DRAIN_DELAY": "0s",  # Ctrl-C, and no load balancer that has to notice
    }


def announcement(port: int, upstream: str, store: Path, *, demonstration: bool) -> str:
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
  store          {store}   (stays when this ends)
{login}
  docker pull {name}
  skopeo copy --src-tls-verify=false docker://{name} dir:/tmp/msrcache-image
  crane pull --insecure {name} /tmp/msrcache-image.tar

Pull twice: the second time nothing is asked of the upstream but who may read. Ctrl-C ends it.
"""


async def run(port: int, named: str, store: Path) -> int:
    """Runs the cache until it ends or is interrupted; its exit code."""
    if await listens(port):
        print(
            f"127.0.0.1:{port} is taken by another program; choose a port: make run PORT={port + 1}",
            file=sys.stderr,
        )
        return 1
    store.mkdir(parents=True, exist_ok=True)
    async with upstream_of(named) as upstream:
        program = Path(sys.executable).with_name("msrcache")
        settings = environment(port, upstream, store)
        # a group of its own: Ctrl-C reaches us alone, and we pass it on as SIGTERM, which drains
        cache = await asyncio.create_subprocess_exec(program, "serve", env=settings, start_new_session=True)
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        told = announce(port, upstream, store, demonstration=not named)
        watchers: set[asyncio.Task[object]] = {
            asyncio.create_task(cache.wait()),
            asyncio.create_task(stopping.wait()),
            asyncio.create_task(told),
        }
        return await _until_over(cache, stopping, watchers)


async def announce(port: int, upstream: str, store: Path, *, demonstration: bool) -> None:
    """Prints the announcement once the cache answers, then waits for ever."""
    while not await answers(f"http://127.0.0.1:{port}/v2/", below=600):
        await asyncio.sleep(0.1)
    print(announcement(port, upstream, store, demonstration=demonstration), flush=True)
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


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description="msrcache on loopback, with something to pull")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--upstream", default="", help="URL of the registry to cache; none: a demonstration")
    parser.add_argument("--store", type=Path, help="folder of the blobs; default: below ./var")
    options = parser.parse_args()
    store = options.store or PROJECT / "var" / ("upstream" if options.upstream else "demo")
    return asyncio.run(run(options.port, options.upstream, store))


if __name__ == "__main__":
    sys.exit(main())
