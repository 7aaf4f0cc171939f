"""What `make run` does: the demonstration can be pulled, by itself and through the cache that it starts."""

import re
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.stage import clients
from tests.stage.demo import REPOSITORY, TAG, demonstration_image, upstream_of
from tests.stage.engines import Containerd, Docker
from tests.stage.process import answers, free_port, running, start, until
from tests.stage.trystore import EMULATORS


async def test_the_demonstration_registry_serves_its_image() -> None:
    """Tag, digest, tags list, blobs whole and in part; 404 in the specification's form for all else."""
    image = demonstration_image()
    async with upstream_of("") as url, aiohttp.ClientSession(f"{url}/v2/") as session:
        for reference in (TAG, image.digest):
            async with session.get(f"{REPOSITORY}/manifests/{reference}") as answer:
                assert await answer.read() == image.manifest.bytes()
                assert answer.headers["Docker-Content-Digest"] == image.digest
                assert answer.content_type == image.manifest.media_type
        layer = image.layers[0]
        async with session.get(
            f"{REPOSITORY}/blobs/{layer.digest}", headers={"Range": "bytes=5-9"}
        ) as answer:
            assert answer.status == 206
            assert await answer.read() == layer.bytes()[5:10]
        async with session.get(f"{REPOSITORY}/tags/list") as answer:
            assert await answer.json() == {"name": REPOSITORY, "tags": [TAG]}
        async with session.get("no/such/manifests/1") as answer:
            assert answer.status == 404
            assert (await answer.json())["errors"][0]["code"] == "MANIFEST_UNKNOWN"


async def test_a_named_upstream_is_taken_as_it_is() -> None:
    """UPSTREAM=… starts nothing beside the cache."""
    async with upstream_of("https://msr.example.com") as url:
        assert url == "https://msr.example.com"


@pytest.mark.real
async def test_make_run_gets_as_far_as_a_pull(tmp_path: Path) -> None:
    """The program behind `make run` says how to pull; that works, cold and warm; Ctrl-C ends it with 0."""
    port = free_port()
    argv = [
        sys.executable,
        "-m",
        "tests.stage.demo",
        "--port",
        str(port),
        "--folder",
        str(tmp_path / "store"),
    ]
    demo = start("demo", argv, log=tmp_path / "log")
    try:

        async def announced() -> bool:
            return demo.ended or "is ready" in demo.said()

        await until(announced, what="the demonstration")
        assert not demo.ended, demo.said()
        reference = f"127.0.0.1:{port}/{REPOSITORY}:{TAG}"
        assert f"crane pull --insecure {reference}" in demo.said()
        for turn in ("cold", "warm"):
            layout = await clients.crane_pull(reference, tmp_path / turn)
            assert demonstration_image().digest in (layout / "index.json").read_text()
        demo.popen.send_signal(signal.SIGINT)
        assert await demo.wait() == 0, demo.said()
    finally:
        await demo.stop()


@pytest.mark.real
@pytest.mark.parametrize("store", EMULATORS)
async def test_make_run_tries_every_store(tmp_path: Path, store: str) -> None:
    """STORE=… says what the store is; pulls through the cache come from it; it is gone in the end."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.stage.demo", "--port", str(port), "--store", store]
    demo = start("demo", argv, log=tmp_path / "log", env={"TMPDIR": str(tmp_path)})
    try:

        async def announced() -> bool:
            return demo.ended or "is ready" in demo.said(100_000)

        await until(announced, what="the demonstration", seconds=60)
        said = demo.said(100_000)
        assert not demo.ended, said
        (label,) = re.findall(r"^  store +(.*)$", said, re.MULTILINE)
        assert label.startswith(f"{store.upper()}: ")
        assert label.endswith("gone when this ends")
        for turn in ("cold", "warm"):
            layout = await clients.crane_pull(f"127.0.0.1:{port}/{REPOSITORY}:{TAG}", tmp_path / turn)
            assert demonstration_image().digest in (layout / "index.json").read_text()

        async def stored() -> bool:  # a client has its last byte before the store has it
            return await outcomes(port) == {"hit"}

        await until(stored, what="every blob to come from the store")
        demo.popen.send_signal(signal.SIGINT)
        assert await demo.wait() == 0, demo.said()
    finally:
        await demo.stop()
    assert list(tmp_path.glob("msrcache-*")) == []


async def outcomes(port: int) -> set[str]:
    """What the cache says of each blob of the image: where its bytes came from."""
    url = f"http://127.0.0.1:{port}/v2/{REPOSITORY}/blobs/"
    found = set()
    async with aiohttp.ClientSession() as session:
        for digest in demonstration_image().all_blobs():
            async with session.get(url + digest, allow_redirects=False) as answer:
                assert answer.status == 200
                found.add(answer.headers["X-Cache"])
    return found


async def test_an_unknown_store_is_said() -> None:
    """One sentence with those that there are."""
    said = await clients.run(sys.executable, "-m", "tests.stage.demo", "--store", "tape")
    assert said.code == 1
    assert said.err.startswith("STORE=tape is not known; there are: filesystem, s3, ")


async def test_a_store_without_its_program_says_what_to_do(tmp_path: Path) -> None:
    """No traceback: what is absent, and how it is brought."""
    argv = [sys.executable, "-m", "tests.stage.demo", "--port", str(free_port()), "--store", "s3"]
    said = await clients.run(*argv, env={"MSRCACHE_TEST_TOOLS": str(tmp_path)})
    assert said.code == 1
    assert "versitygw is not installed: run scripts/test-deps" in said.err
    assert "Traceback" not in said.err


@pytest.mark.real
async def test_what_make_run_starts_serves_every_client(
    tmp_path: Path, docker: Docker, containerd: Containerd
) -> None:
    """docker, ctr, buildah and skopeo get the demonstration image by the reference that is printed."""
    port, image = free_port(), demonstration_image()
    argv = [
        sys.executable,
        "-m",
        "tests.stage.demo",
        "--port",
        str(port),
        "--folder",
        str(tmp_path / "store"),
    ]

    async def ready() -> bool:
        return await answers(f"http://127.0.0.1:{port}/v2/")

    async with running("demo", argv, ready=ready, log=tmp_path / "log"):
        reference = f"127.0.0.1:{port}/{REPOSITORY}:{TAG}"
        assert await docker.pull(reference) == image.digest
        await docker.forget(reference)
        await containerd.pull(reference, hosts={f"127.0.0.1:{port}": f"http://127.0.0.1:{port}"})
        assert set(image.all_blobs()) <= set(await containerd.blobs())
        await containerd.forget(reference)
        await clients.buildah_pull(reference, tmp_path / "buildah")
        copied = await clients.skopeo_copy(reference, tmp_path / "skopeo")
        assert {digest[7:] for digest in image.all_blobs()} <= {file.name for file in copied.iterdir()}


async def test_a_taken_port_is_said(tmp_path: Path) -> None:
    """One sentence with what to do, and nothing started."""
    async with upstream_of("") as url:
        port = url.rpartition(":")[2]
        argv = [sys.executable, "-m", "tests.stage.demo", "--port", port, "--folder", str(tmp_path / "store")]
        said = await clients.run(*argv)
    assert said.code == 1
    assert f"make run PORT={int(port) + 1}" in said.err
    assert not (tmp_path / "store").exists()
