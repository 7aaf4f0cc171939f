"""What parameters make of the S3 driver's requests: hosts, signatures, headers."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from msrcache.oci.ranges import Span
from msrcache.storage.driver import SpoolFile
from msrcache.storage.errors import Denied
from msrcache.storage.s3 import S3
from msrcache.storage.s3parameters import MIB, parameters
from tests.contract.harness import Spooler
from tests.stage.scripted import Turn, scripted

AMAZON = {"bucket": "cache", "region": "eu-west-3", "accesskey": "AKID", "secretkey": "SECRET"}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spooler]:
    """Makes spool files."""
    spooler = Spooler(tmp_path)
    yield spooler
    spooler.close()


async def url_of(**more: object) -> str:
    """Where a driver with these parameters sends a client."""
    made = S3(parameters({**AMAZON, **more}))
    try:
        return await made.presign("a/key", 1200.0) or ""
    finally:
        await made.close()


@pytest.mark.parametrize(
    ("more", "place"),
    [
        ({}, "https://cache.s3.eu-west-3.amazonaws.com/a/key"),
        ({"bucket": "with.dots"}, "https://s3.eu-west-3.amazonaws.com/with.dots/a/key"),
        ({"region": "us-east-1"}, "https://cache.s3.us-east-1.amazonaws.com/a/key"),
        ({"region": "cn-north-1"}, "https://cache.s3.cn-north-1.amazonaws.com.cn/a/key"),
        ({"forcepathstyle": True}, "https://s3.eu-west-3.amazonaws.com/cache/a/key"),
        ({"secure": False}, "http://cache.s3.eu-west-3.amazonaws.com/a/key"),
        ({"usedualstack": True}, "https://cache.s3.dualstack.eu-west-3.amazonaws.com/a/key"),
        ({"accelerate": True}, "https://cache.s3-accelerate.amazonaws.com/a/key"),
        (
            {"usefipsendpoint": True, "region": "us-gov-west-1"},
            "https://cache.s3-fips.us-gov-west-1.amazonaws.com/a/key",
        ),
        ({"regionendpoint": "minio.test:9000"}, "https://minio.test:9000/cache/a/key"),
        (
            {"regionendpoint": "https://s3.test", "forcepathstyle": False},
            "https://cache.s3.test/a/key",
        ),
        ({"rootdirectory": "/some/folder/"}, "https://cache.s3.eu-west-3.amazonaws.com/some/folder/a/key"),
    ],
)
async def test_where_an_object_is(more: dict[str, object], place: str) -> None:
    """Amazon's hosts by region and wish, another service by path or by host."""
    parts = urlsplit(await url_of(**more))
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == place


async def test_how_a_url_is_signed() -> None:
    """Version 4, for the seconds asked for, with the session's token; no header need be sent with it."""
    query = parse_qs(urlsplit(await url_of(sessiontoken="TOKEN")).query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["1200"]
    assert query["X-Amz-SignedHeaders"] == ["host"]
    assert query["X-Amz-Security-Token"] == ["TOKEN"]
    assert query["X-Amz-Credential"][0].startswith("AKID/")


async def test_the_old_signature() -> None:
    """v4auth false, for services that know no other."""
    query = parse_qs(urlsplit(await url_of(regionendpoint="http://old.test", v4auth=False)).query)
    assert query.keys() == {"AWSAccessKeyId", "Signature", "Expires"}


async def test_headers_of_what_is_written(spool: Spooler) -> None:
    """Storage class, ACL, encryption and user agent go with every object, in one piece or in parts."""
    more = {
        "storageclass": "INTELLIGENT_TIERING", "objectacl": "bucket-owner-full-control", "encrypt": True,
        "keyid": "a-key", "useragent": "our-cache/1", "chunksize": 5 * MIB,
    }  # fmt: skip
    async with scripted() as server:
        made = S3(parameters({**AMAZON, **more, "regionendpoint": server.url}))
        server.always("/cache/a/one", Turn(body=b""), "PUT")
        server.script("/cache/a/parts?uploads", Turn(status=403, body=b""), method="POST")
        await made.put("a/one", b"1")
        file = spool(b"0" * (5 * MIB + 1))
        with pytest.raises(Denied):
            await commit(made, file)
        await made.close()
    assert [request.line for request in server.ledger] == ["PUT /cache/a/one", "POST /cache/a/parts?uploads"]
    for request in server.ledger:
        assert request.headers["x-amz-storage-class"] == "INTELLIGENT_TIERING"
        assert request.headers["x-amz-acl"] == "bucket-owner-full-control"
        assert request.headers["x-amz-server-side-encryption"] == "aws:kms"
        assert request.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "a-key"
        assert request.headers["user-agent"].startswith("our-cache/1")


async def commit(made: S3, file: SpoolFile) -> None:
    """A blob in parts."""
    async with made.writer("a/parts") as writer:
        await writer.write(file, Span(0, 5 * MIB + 1))
        await writer.commit()


async def test_one_of_many_that_may_not_be_deleted_is_an_error() -> None:
    """The answer is 200 and names it: Denied, with its key; what is not there is none."""
    missing = "<Error><Key>a/1</Key><Code>NoSuchKey</Code></Error>"
    denied = "<Error><Key>a/2</Key><Code>AccessDenied</Code></Error>"
    async with scripted() as server:
        made = S3(parameters({**AMAZON, "regionendpoint": server.url}))
        for errors in (missing, missing + denied):
            body = f"<DeleteResult>{errors}</DeleteResult>".encode()
            server.script("/cache?delete", Turn(body=body), method="POST")
        await made.delete("a/1", "a/2")
        with pytest.raises(Denied, match="allow s3:DeleteObject") as refused:
            await made.delete("a/1", "a/2")
        await made.close()
    assert refused.value.key == "a/2"
