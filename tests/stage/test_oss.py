"""Our stand-in for OSS, held against both official SDKs: what they send it understands, what it answers they do.

That it refuses what OSS would refuse is our reading; that their signatures are taken and others are not is proved here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import alibabacloud_oss_v2 as v2
import oss2
import pytest
from alibabacloud_oss_v2.exceptions import OperationError
from oss2.credentials import StaticCredentialsProvider

from tests.stage.ossservice import KEY, REGION, SECRET, Service, ossservice

BUCKET = "held-against"
NAME = "a/ü b+c~%41"
"""Every character that clients quote differently."""


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """With an empty bucket."""
    async with ossservice() as running:
        running.make_bucket(BUCKET)
        yield running


def old(service: Service, secret: str = SECRET) -> oss2.Bucket:
    """A client of oss2, which blocks."""
    auth = oss2.ProviderAuthV4(StaticCredentialsProvider(KEY, secret))
    return oss2.Bucket(auth, service.url, BUCKET, region=REGION, is_path_style=True)


def new(service: Service, secret: str = SECRET) -> v2.Client:
    """A client of the newer SDK, in its blocking form: another transport than our driver's."""
    provider = v2.credentials.StaticCredentialsProvider(KEY, secret)
    config = v2.Config(REGION, service.url, credentials_provider=provider, use_path_style=True)
    config.retry_max_attempts = 1
    return v2.Client(config)


async def test_objects_by_the_older_sdk(service: Service) -> None:
    """Put, forbidden put, get of a range, head, list in pages, bulk delete; its CRC-64 is ours."""

    def use() -> None:
        bucket = old(service)
        bucket.put_object(NAME, b"12345")  # checks the CRC-64 itself
        with pytest.raises(oss2.exceptions.ServerError, match="FileAlreadyExists"):
            bucket.put_object(NAME, b"2", headers={"x-oss-forbid-overwrite": "true"})
        assert bucket.get_object(NAME, byte_range=(1, 2)).read() == b"23"
        assert bucket.head_object(NAME).content_length == 5
        service.page = 2
        for number in range(5):
            bucket.put_object(f"b/{number}", b"")
        listed = [found.key for found in oss2.ObjectIteratorV2(bucket)]
        assert listed == [NAME, *(f"b/{number}" for number in range(5))]
        bucket.batch_delete_objects([NAME, "b/0", "not-there"])
        with pytest.raises(oss2.exceptions.NoSuchKey):
            bucket.head_object(NAME)

    await asyncio.to_thread(use)


async def test_parts_by_the_older_sdk(service: Service) -> None:
    """Begin, parts, their listing, complete with and without an object there, abort, listing of uploads."""

    def use() -> None:
        bucket, part = old(service), b"0" * (100 << 10)
        upload = bucket.init_multipart_upload(NAME).upload_id
        sent = [
            oss2.models.PartInfo(number, bucket.upload_part(NAME, upload, number, part).etag)
            for number in (1, 2)
        ]
        assert [found.part_number for found in oss2.PartIterator(bucket, NAME, upload)] == [1, 2]
        assert [found.key for found in oss2.MultipartUploadIterator(bucket)] == [NAME]
        bucket.complete_multipart_upload(NAME, upload, sent)
        assert bucket.get_object(NAME).read() == part * 2
        upload = bucket.init_multipart_upload(NAME).upload_id
        sent = [oss2.models.PartInfo(1, bucket.upload_part(NAME, upload, 1, part).etag)]
        forbid = {"x-oss-forbid-overwrite": "true"}
        with pytest.raises(oss2.exceptions.ServerError, match="FileAlreadyExists"):
            bucket.complete_multipart_upload(NAME, upload, sent, headers=forbid)
        bucket.abort_multipart_upload(NAME, upload)
        with pytest.raises(oss2.exceptions.NoSuchUpload):
            bucket.list_parts(NAME, upload)

    await asyncio.to_thread(use)


async def test_objects_by_the_newer_sdk(service: Service) -> None:
    """The same by the other transport, and its own paginator and uploader (which checks CRC-64s)."""

    def use() -> None:
        client = new(service)
        client.put_object(v2.PutObjectRequest(BUCKET, NAME, body=b"12345"))
        with pytest.raises(OperationError, match="FileAlreadyExists"):
            client.put_object(v2.PutObjectRequest(BUCKET, NAME, body=b"2", forbid_overwrite=True))
        got = client.get_object(v2.GetObjectRequest(BUCKET, NAME, range_header="bytes=1-2"))
        assert got.body.content == b"23"
        service.page = 2
        for number in range(5):
            client.put_object(v2.PutObjectRequest(BUCKET, f"b/{number}", body=b""))
        pages = client.list_objects_v2_paginator().iter_page(v2.ListObjectsV2Request(BUCKET, prefix="b/"))
        assert [found.key for page in pages for found in page.contents] == [
            f"b/{number}" for number in range(5)
        ]

    await asyncio.to_thread(use)


async def signed_by_old(service: Service) -> str:
    """A URL of oss2."""
    return str(await asyncio.to_thread(lambda: old(service).sign_url("GET", NAME, 60, slash_safe=True)))


async def signed_by_new(service: Service) -> str:
    """A URL of the newer SDK."""
    return str((await asyncio.to_thread(lambda: new(service).presign(v2.GetObjectRequest(BUCKET, NAME)))).url)


async def fetched(url: str, **headers: str) -> tuple[int, bytes]:
    """As anybody fetches it."""
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


@pytest.mark.parametrize("sign", [signed_by_old, signed_by_new])
async def test_urls_of_both_sdks(service: Service, sign: Callable[[Service], Any]) -> None:
    """They are good for a GET with and without Range, not for another object, and not after their time."""
    await asyncio.to_thread(lambda: old(service).put_object(NAME, b"12345"))
    url = await sign(service)
    assert await fetched(url) == (200, b"12345")
    assert await fetched(url, Range="bytes=1-2") == (206, b"23")
    assert (await fetched(url.replace(urlsplit(url).path, f"/{BUCKET}/other")))[0] == 403
    assert (await fetched(url[:-1] + ("0" if url[-1] != "0" else "1")))[0] == 403
    service.ahead = 3600.0
    assert (await fetched(url))[0] == 403


async def test_signatures_that_are_refused(service: Service) -> None:
    """A wrong secret, another region, a clock that is off, a request that was changed, and no signature at all."""
    for refused in (
        lambda: old(service, "wrong").head_object(NAME),
        lambda: new(service, "wrong").put_object(v2.PutObjectRequest(BUCKET, NAME, body=b"1")),
    ):
        with pytest.raises((oss2.exceptions.OssError, OperationError)):
            await asyncio.to_thread(refused)
    elsewhere = oss2.ProviderAuthV4(StaticCredentialsProvider(KEY, SECRET))
    bucket = oss2.Bucket(elsewhere, service.url, BUCKET, region="cn-beijing", is_path_style=True)
    with pytest.raises(oss2.exceptions.InvalidArgument, match="region"):
        await asyncio.to_thread(lambda: bucket.put_object(NAME, b"1"))
    service.ahead = 1000.0
    with pytest.raises(oss2.exceptions.OssError, match="RequestTimeTooSkewed"):
        await asyncio.to_thread(lambda: old(service).put_object(NAME, b"1"))
    assert (await fetched(f"{service.url}/{BUCKET}/{NAME}"))[0] == 403
    assert service.buckets[BUCKET].objects == {}
