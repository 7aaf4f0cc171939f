"""How keys are spelled in a container: with Docker Registry 2.8's leading slash, without, and while both are there."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from msrcache.storage.azure import Azure
from msrcache.storage.azurecontainer import REMEMBERED, Names
from msrcache.storage.azureparameters import MIB, AzureParameters, Identity
from msrcache.storage.driver import ObjectInfo
from msrcache.storage.errors import Denied, NotFound
from tests.contract.harness import Spooler, keys, pattern, read, write
from tests.stage.azureservice import RunningAzure
from tests.stage.process import until

BLOB = "docker/registry/v2/blobs/sha256/ab/abcd/data"
LINK = "docker/registry/v2/repositories/a/_layers/sha256/abcd/link"
LEASE = "msrcache/leases/sha256/abcd/0"


def names(*, both: bool | None = None, **more: Any) -> Names:
    """With these parameters; `both` as it was found out."""
    identity = Identity(kind="shared_key", key="")
    found = Names(AzureParameters(account="a1b", container="c", url="https://x", identity=identity, **more))
    if both is not None:
        found.both = both
    return found


@pytest.mark.parametrize(
    ("more", "blob", "lease"),
    [
        ({}, BLOB, LEASE),
        ({"adopt": "none"}, BLOB, LEASE),
        ({"adopt": "leadingslash"}, f"/{BLOB}", LEASE),
        ({"rootdirectory": "some/folder"}, f"some/folder/{BLOB}", f"some/folder/{LEASE}"),
    ],
)
def test_what_is_written_is_told_not_found_out(more: dict[str, Any], blob: str, lease: str) -> None:
    """One name for each key, whatever else is there; our records have no slash, so that leases have one name."""
    for both in (False, True):
        found = names(both=both, **more)
        assert (found.own(BLOB), found.own(LEASE)) == (blob, lease)
        assert found.key(blob) == BLOB
        assert found.key(lease) == LEASE


def test_the_other_spelling() -> None:
    """Of content only, and only where some is there."""
    assert names(both=True).all(BLOB) == [BLOB, f"/{BLOB}"]
    assert names(both=True, adopt="leadingslash").all(BLOB) == [f"/{BLOB}", BLOB]
    assert names(both=True).all(LEASE) == [LEASE]
    assert names(both=False).all(BLOB) == [BLOB]
    assert names(rootdirectory="x").both is False
    assert names(adopt="none").both is False
    assert names().both is None


def test_where_a_blob_was_found_is_remembered_within_bounds() -> None:
    """For URLs; what was found or written by our own name is forgotten again."""
    found = names(both=True)
    assert found.likely(BLOB) == BLOB
    found.found(BLOB, f"/{BLOB}")
    assert found.likely(BLOB) == f"/{BLOB}"
    found.found(BLOB, BLOB)
    assert found.likely(BLOB) == BLOB
    for number in range(REMEMBERED + 10):
        found.found(f"docker/{number}", f"/docker/{number}")
    assert len(found._other) == REMEMBERED


@pytest.fixture
def container(azure_service: RunningAzure) -> str:
    """An empty one."""
    return azure_service.make_container()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes spool files."""
    spooler = Spooler(tmp_path)
    yield spooler
    spooler.close()


@asynccontextmanager
async def driver(service: RunningAzure, container: str, **more: Any) -> AsyncIterator[Azure]:
    """On that container."""
    made = service.driver(container, chunksize=MIB, **more)
    try:
        yield made
    finally:
        await made.close()


def left(service: RunningAzure, container: str, *, blob: bytes = b"", link: bytes = b"") -> None:
    """Content as Docker Registry 2.8 writes it: blocks, no MD5, a slash before the name."""
    for key, data in ((BLOB, blob), (LINK, link)):
        if data:
            writing = service.client.get_blob_client(container, f"/{key}")
            writing.stage_block("1", data)
            writing.commit_block_list(["1"])


@pytest.mark.real
@pytest.mark.parametrize("adopt", ["auto", "leadingslash"])
async def test_old_content_is_served(azure_service: RunningAzure, container: str, adopt: str) -> None:
    """stat, open, ranges, listings, URLs; create finds it; a delete takes it away."""
    left(azure_service, container, blob=b"12345", link=b"sha256:abcd")
    async with driver(azure_service, container, adopt=adopt) as made, aiohttp.ClientSession() as session:
        assert (await made.stat(BLOB)).size == 5
        assert await read(made, LINK) == b"sha256:abcd"
        assert await keys(made.list("docker/registry/v2")) == [BLOB, LINK]
        assert await keys(made.list("")) == [BLOB, LINK]
        url = await made.presign(BLOB, 60.0)
        async with session.get(url or "") as answer:
            assert (answer.status, await answer.read()) == (200, b"12345")
        assert not await made.create(LINK, b"x")
        await made.delete(BLOB, LINK)
        with pytest.raises(NotFound):
            await made.stat(BLOB)
        assert azure_service.blobs(container) == {}


@pytest.mark.real
async def test_while_both_are_there(azure_service: RunningAzure, container: str, spool: Spooler) -> None:
    """What is written anew is what is read, everywhere; a listing has each key once; a delete names both."""
    left(azure_service, container, blob=b"12345", link=b"old")
    async with driver(azure_service, container) as here, driver(azure_service, container) as there:
        assert await read(there, LINK) == b"old"
        await here.put(LINK, b"new")
        await here.put(LEASE, b"1")
        assert await read(there, LINK) == b"new"
        await write(here, BLOB, spool(pattern(2 * MIB)))
        assert await read(there, BLOB) == pattern(2 * MIB)
        assert await keys(there.list("docker")) == [BLOB, LINK]
        assert await keys(there.list("")) == [BLOB, LINK, LEASE]
        assert set(azure_service.blobs(container)) == {BLOB, LINK, f"/{BLOB}", f"/{LINK}", LEASE}
        assert "both is served" in " ".join(await there.situation())
        await there.delete(LINK)
        with pytest.raises(NotFound):
            await here.stat(LINK)


@pytest.mark.real
async def test_a_version_goes_under_both_names(azure_service: RunningAzure, container: str) -> None:
    """What is older than what was seen goes too, what is newer stays, whatever it is called."""
    left(azure_service, container, blob=b"12345")
    async with driver(azure_service, container) as made:
        old = await made.stat(BLOB)
        await written_later(made, old)
        await made.delete_version(BLOB, old)
        assert azure_service.blobs(container) == {BLOB: 3}
        left(azure_service, container, blob=b"12345")
        await written_later(made, await made.container.stat_named(BLOB, f"/{BLOB}"))
        await made.delete_version(BLOB, await made.stat(BLOB))
        assert azure_service.blobs(container) == {}
        await made.put(BLOB, b"new")
        new = await made.stat(BLOB)

        async def later() -> bool:
            left(azure_service, container, blob=b"12345")
            return (await made.container.stat_named(BLOB, f"/{BLOB}")).modified > new.modified

        await until(later, what="a later second of the service's clock")
        await made.delete_version(BLOB, new)
        assert azure_service.blobs(container) == {f"/{BLOB}": 5}


async def written_later(made: Azure, old: ObjectInfo) -> None:
    """Returns when the blob was written anew, by the service's clock, which counts seconds."""

    async def later() -> bool:
        await made.put(BLOB, b"new")
        return (await made.stat(BLOB)).modified > old.modified

    await until(later, what="a later second of the service's clock")


@pytest.mark.real
async def test_what_it_costs(azure_service: RunningAzure, container: str) -> None:
    """One listing to find out; then a request more for a miss and for a hit of old content, none for new."""
    left(azure_service, container, blob=b"12345")
    async with driver(azure_service, container) as made:
        before = len(await azure_service.requests(container))
        await made.put(LINK, b"1")
        await read(made, LINK)
        await read(made, BLOB)
        with pytest.raises(NotFound):
            await made.stat(BLOB.replace("abcd", "abce"))
        await made.put(LEASE, b"1")
        await made.stat(LEASE)
        missing = BLOB.replace("abcd", "abce")
        assert (await azure_service.requests(container))[before:] == [
            f"PUT {LINK}", "GET comp=list", f"GET {LINK}",
            f"GET {BLOB}", f"GET /{BLOB}",
            f"HEAD {missing}", f"HEAD /{missing}",
            f"PUT {LEASE}", f"HEAD {LEASE}",
        ]  # fmt: skip


@pytest.mark.real
async def test_none_is_not_looked_for(azure_service: RunningAzure, container: str) -> None:
    """`adopt: none` saves the listing, and old content is not there."""
    left(azure_service, container, blob=b"12345")
    async with driver(azure_service, container, adopt="none") as made:
        with pytest.raises(NotFound):
            await made.stat(BLOB)
    assert "GET comp=list" not in await azure_service.requests(container)


@pytest.mark.real
async def test_who_may_not_list_goes_on(
    azure_service: RunningAzure, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the right to list, only what is written by our own spelling is there, and nothing else is lost."""
    async with driver(azure_service, container) as made:

        async def pages(key: str, prefix: str, *, size: int) -> AsyncIterator[object]:
            if size:
                raise Denied("azure", key, None, f"{size} names with {prefix}")
            yield key

        monkeypatch.setattr(made.container.client, "pages", pages)
        await made.put(BLOB, b"1")
        assert (await made.stat(BLOB)).size == 1
        assert made.container.names.both is False
