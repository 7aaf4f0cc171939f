"""A stand-in for Alibaba Cloud OSS in memory: OUR READING of its documentation, not OSS.

There is no OSS to be had here, and no emulator. This one keeps what the driver relies on: V4 signatures in header and
query with their expiry, forbid-overwrite (not in a bucket with versions), multipart with its listings and abort, pages
of ListObjectsV2, ranges with and without the standard behaviour, bulk deletes, MD5s that are verified, CRC-64s that are
told, refusals with the service's codes. tests/stage/test_oss.py holds it against both official SDKs.

    python -m tests.stage.ossservice PORT BUCKET     # keys as KEY and SECRET below; forgets all when it ends
"""

import asyncio
import hashlib
import itertools
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from urllib.parse import quote, unquote, urlsplit

from aiohttp import web

from msrcache.storage.oss import Oss
from msrcache.storage.ossclient import Crc
from msrcache.storage.ossparameters import parameters
from tests.stage.certificates import KeyPair
from tests.stage.ossforms import (
    ACTIONS,
    Bucket,
    Stored,
    Upload,
    check_md5,
    document,
    elements,
    iso,
    listed_object,
    operation_of,
    parsed,
    refusal,
    span_of,
    upload_of,
    xml,
)
from tests.stage.osssigning import Account, Asked, RefusedError, verify

KEY = "test-key-id"
SECRET = "test-key-secret"
REGION = "cn-hangzhou"


class Service:
    """A running stand-in."""

    def __init__(self) -> None:
        self.url = ""
        self.accounts = {KEY: Account(SECRET)}
        self.buckets: dict[str, Bucket] = {}
        self.ledger: list[str] = []
        """`bucket METHOD key` of each request, with the words of the query that say what is asked."""
        self.ahead = 0.0
        """Seconds that its clock is ahead of ours."""
        self.page = 1000
        """Of a listing."""
        self.endpoint = ""
        """Where the buckets are, if not here."""
        self._numbers = itertools.count(1)

    @property
    def port(self) -> int:
        """The loopback port."""
        return int(self.url.rpartition(":")[2])

    def now(self) -> float:
        """By its clock."""
        return time.time() + self.ahead

    def make_bucket(self, name: str = "", *, versions: bool = False) -> str:
        """A new bucket."""
        name = name or f"bucket-{next(self._numbers)}"
        self.buckets[name] = Bucket(versions=versions)
        return name

    def settings(self, bucket: str, *, port: int | None = None, **more: object) -> dict[str, object]:
        """What stands below `storage: oss:` for a bucket of it; `port` is that of a proxy in front."""
        url = f"http://localhost:{port or self.port}"
        given = {"bucket": bucket, "endpoint": url, "accesskeyid": KEY, "accesskeysecret": SECRET}
        return {**given, "region": f"oss-{REGION}", "forcepathstyle": True, **more}

    def driver(self, bucket: str, *, port: int | None = None, **more: object) -> Oss:
        """A driver of our own on a bucket of it."""
        return Oss(parameters(self.settings(bucket, port=port, **more)))

    def requests(self, bucket: str) -> list[str]:
        """`METHOD key` of what it was asked of a bucket, in order."""
        return [line.partition(" ")[2] for line in self.ledger if line.partition(" ")[0] == bucket]

    def uploads(self, bucket: str) -> list[str]:
        """The keys of the uploads in parts that are open."""
        return sorted(upload.key for upload in self.buckets[bucket].uploads.values())

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        asked = _asked(request)
        name, _, key = asked.path.removeprefix("/").partition("/")
        words = [word for word, _ in asked.query if word in ("uploads", "uploadId", "delete", "partNumber")]
        self.ledger.append(" ".join(filter(None, (name, asked.method, key, *words))))
        try:
            operation = operation_of(asked, key)
            account = verify(asked, self.accounts, region=REGION, now=self.now())
            if account.allowed is not None and ACTIONS[operation] not in account.allowed:
                raise RefusedError(
                    "AccessDenied", "You have no right to access this object because of bucket acl."
                )
            answer = self._answer(operation, name, key, asked, await request.content.read())
        except RefusedError as error:
            answer = refusal(error, self.endpoint, asked.method)
        answer.headers["Date"] = formatdate(self.now(), usegmt=True)
        answer.headers["x-oss-request-id"] = f"{next(self._numbers):024X}"
        answer.headers.setdefault("Content-Type", "application/xml")
        return answer

    def _answer(self, operation: str, name: str, key: str, asked: Asked, data: bytes) -> web.Response:
        if self.endpoint:
            raise RefusedError("AccessDenied", "The bucket must be addressed using the specified endpoint.")
        if name not in self.buckets:
            raise RefusedError("NoSuchBucket", "The specified bucket does not exist.", 404)
        check_md5(asked, data)
        doing: dict[str, Callable[[Bucket, str, Asked, bytes], web.Response]] = {
            "PutObject": self._put_object,
            "GetObject": self._get_object,
            "HeadObject": self._get_object,
            "DeleteObject": self._delete_object,
            "DeleteMultipleObjects": self._delete_many,
            "ListObjectsV2": self._list_objects,
            "InitiateMultipartUpload": self._begin,
            "UploadPart": self._upload_part,
            "CompleteMultipartUpload": self._complete,
            "AbortMultipartUpload": self._abort,
            "ListMultipartUploads": self._list_uploads,
            "ListParts": self._list_parts,
        }
        return doing[operation](self.buckets[name], key, asked, data)

    def _stored(self, asked: Asked, data: bytes, etag: str = "") -> Stored:
        crc = Crc()
        crc.update(memoryview(data))
        kept = {name: value for name, value in asked.headers.items() if name in _KEPT}
        etag = etag or hashlib.md5(data).hexdigest().upper()
        return Stored(data, f'"{etag}"', self.now(), crc.value, kept)

    def _publish(self, bucket: Bucket, key: str, asked: Asked, made: Stored) -> web.Response:
        forbidden = asked.headers.get("x-oss-forbid-overwrite", "").lower() == "true" and not bucket.versions
        if forbidden and key in bucket.objects:
            raise RefusedError("FileAlreadyExists", "The object you specified already exists.", 409)
        bucket.objects[key] = made
        return web.Response(headers={"ETag": made.etag, "x-oss-hash-crc64ecma": str(made.crc)})

    def _put_object(self, bucket: Bucket, key: str, asked: Asked, data: bytes) -> web.Response:
        return self._publish(bucket, key, asked, self._stored(asked, data))

    def _get_object(self, bucket: Bucket, key: str, asked: Asked, _: bytes) -> web.Response:
        if key not in bucket.objects:
            raise RefusedError("NoSuchKey", "The specified key does not exist.", 404)
        found = bucket.objects[key]
        if asked.headers.get("if-match", found.etag) != found.etag:
            raise RefusedError("PreconditionFailed", "At least one of the pre-conditions did not hold.", 412)
        headers = {
            "ETag": found.etag,
            "Last-Modified": formatdate(found.modified, usegmt=True),
            "x-oss-hash-crc64ecma": str(found.crc),
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        start, stop = span_of(asked, len(found.data))
        status = 200
        if "range" in asked.headers and (start, stop) != (0, len(found.data)):
            status = 206
        if asked.headers.get("x-oss-range-behavior") == "standard" and "range" in asked.headers:
            status = 206
        if asked.method == "HEAD":
            headers["Content-Length"] = str(stop - start)  # of an empty body it is left out otherwise
        if status == 206:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(found.data)}"
        return web.Response(status=status, headers=headers, body=found.data[start:stop])

    def _delete_object(self, bucket: Bucket, key: str, _: Asked, __: bytes) -> web.Response:
        bucket.objects.pop(key, None)
        return web.Response(status=204)

    def _delete_many(self, bucket: Bucket, _: str, asked: Asked, data: bytes) -> web.Response:
        if "content-md5" not in asked.headers:
            raise RefusedError("MissingArgument", "Missing Some Required Arguments: Content-MD5.", 400)
        named = [found.text or "" for found in parsed(data).iter("Key")]
        if len(named) > 1000:
            raise RefusedError("MalformedXML", "The XML you provided was not well-formed.", 400)
        for key in named:
            bucket.objects.pop(key, None)
        return web.Response()  # as in quiet mode

    def _list_objects(self, bucket: Bucket, _: str, asked: Asked, __: bytes) -> web.Response:
        prefix, after = asked.told("prefix"), asked.told("continuation-token")
        keys = sorted(key for key in bucket.objects if key.startswith(prefix) and key > after)
        limit = min(self.page, int(asked.told("max-keys") or 100))
        page, more = keys[:limit], len(keys) > limit
        listed = "".join(listed_object(key, bucket.objects[key]) for key in page)
        told = {"EncodingType": "url", "IsTruncated": str(more).lower(), "KeyCount": len(page)}
        following = {"NextContinuationToken": quote(page[-1])} if more else {}
        return document("ListBucketResult", elements(**told, **following) + listed)

    def _begin(self, bucket: Bucket, key: str, asked: Asked, _: bytes) -> web.Response:
        upload = f"{next(self._numbers):032X}"
        bucket.uploads[upload] = Upload(key, self.now())
        return document(
            "InitiateMultipartUploadResult", elements(Key=quote(key), UploadId=upload, EncodingType="url")
        )

    def _upload_part(self, bucket: Bucket, _: str, asked: Asked, data: bytes) -> web.Response:
        part = self._stored(asked, data)
        upload_of(bucket, asked).parts[int(asked.told("partNumber"))] = part
        return web.Response(headers={"ETag": part.etag, "x-oss-hash-crc64ecma": str(part.crc)})

    def _complete(self, bucket: Bucket, key: str, asked: Asked, data: bytes) -> web.Response:
        upload = upload_of(bucket, asked)
        listed = [
            (int(part.findtext("PartNumber", "0")), part.findtext("ETag", ""))
            for part in parsed(data).iter("Part")
        ]
        if listed != sorted(listed):
            raise RefusedError("InvalidPartOrder", "The list of parts was not in ascending order.", 400)
        parts = [upload.parts.get(number) for number, _ in listed]
        if not all(part and part.etag == etag for part, (_, etag) in zip(parts, listed, strict=True)):
            raise RefusedError("InvalidPart", "One or more of the specified parts could not be found.", 400)
        whole = b"".join(part.data for part in parts if part)
        if any(part and len(part.data) < 100 << 10 for part in parts[:-1]):
            raise RefusedError("EntityTooSmall", "A part other than the last is smaller than 100 KB.", 400)
        etag = f"{hashlib.md5(whole).hexdigest().upper()}-{len(parts)}"
        answer = self._publish(bucket, key, asked, self._stored(asked, whole, etag))
        del bucket.uploads[asked.told("uploadId")]
        told = document(
            "CompleteMultipartUploadResult", elements(Key=quote(key), ETag=f'"{etag}"', EncodingType="url")
        )
        told.headers.update(answer.headers)
        return told

    def _abort(self, bucket: Bucket, _: str, asked: Asked, __: bytes) -> web.Response:
        upload_of(bucket, asked)
        del bucket.uploads[asked.told("uploadId")]
        return web.Response(status=204)

    def _list_uploads(self, bucket: Bucket, _: str, asked: Asked, __: bytes) -> web.Response:
        after = (asked.told("key-marker"), asked.told("upload-id-marker"))
        found = sorted((upload.key, name, upload.begun) for name, upload in bucket.uploads.items())
        found = [item for item in found if item[0].startswith(asked.told("prefix")) and item[:2] > after]
        limit = min(self.page, int(asked.told("max-uploads") or 1000))
        page, more = found[:limit], len(found) > limit
        listed = "".join(
            xml("Upload", Key=quote(key), UploadId=name, Initiated=iso(begun)) for key, name, begun in page
        )
        told = {"EncodingType": "url", "IsTruncated": str(more).lower()}
        last = page[-1] if more else ("", "", 0.0)
        told |= {"NextKeyMarker": quote(last[0]), "NextUploadIdMarker": last[1]}
        return document("ListMultipartUploadsResult", elements(**told) + listed)

    def _list_parts(self, bucket: Bucket, key: str, asked: Asked, __: bytes) -> web.Response:
        after = int(asked.told("part-number-marker") or 0)
        found = sorted(item for item in upload_of(bucket, asked).parts.items() if item[0] > after)
        limit = min(self.page, int(asked.told("max-parts") or 1000))
        page, more = found[:limit], len(found) > limit
        listed = "".join(
            xml(
                "Part",
                PartNumber=number,
                ETag=part.etag,
                Size=len(part.data),
                LastModified=iso(part.modified),
            )
            for number, part in page
        )
        told = elements(Key=quote(key), EncodingType="url", IsTruncated=str(more).lower())
        marker = elements(NextPartNumberMarker=page[-1][0]) if page else ""
        return document("ListPartsResult", told + marker + listed)


_KEPT = frozenset({"x-oss-server-side-encryption", "content-type", "user-agent"})
"""Headers of what was stored, for tests to look at."""


@asynccontextmanager
async def ossservice(
    port: int = 0, *, tls: KeyPair | None = None, again: Service | None = None
) -> AsyncIterator[Service]:
    """A stand-in on a port of the loopback, known as localhost; `again` is one that has ended, with what it has."""
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.certificate, tls.key)
    service = again or Service()
    runner = web.ServerRunner(web.Server(service.serve, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=context)
        await site.start()
        service.url = f"{'https' if tls else 'http'}://localhost:{runner.addresses[0][1]}"
        yield service
    finally:
        await runner.cleanup()


def _asked(request: web.BaseRequest) -> Asked:
    parts = urlsplit(request.raw_path)
    pairs = (pair.partition("=") for pair in parts.query.split("&") if pair)
    query = tuple((unquote(name), unquote(value)) for name, _, value in pairs)
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Asked(request.method, unquote(parts.path), query, headers)


async def _main(port: int, bucket: str) -> None:
    async with ossservice(port) as service:
        service.make_bucket(bucket)
        print(f"a stand-in for OSS (our reading of it) on {service.url}, bucket {bucket}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2]))
