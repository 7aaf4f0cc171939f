"""What the stand-in for OSS (`ossservice`) keeps, and the forms of its requests and answers."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

from tests.stage.osssigning import Asked, RefusedError


@dataclass(frozen=True, slots=True)
class Stored:
    """An object."""

    data: bytes
    etag: str
    modified: float
    crc: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Upload:
    """An upload in parts."""

    key: str
    begun: float
    parts: dict[int, Stored] = field(default_factory=dict)


@dataclass(slots=True)
class Bucket:
    """A bucket; with versions it knows no forbid-overwrite."""

    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    versions: bool = False


ACTIONS = {
    "PutObject": "oss:PutObject", "GetObject": "oss:GetObject", "HeadObject": "oss:GetObject",
    "DeleteObject": "oss:DeleteObject", "DeleteMultipleObjects": "oss:DeleteObject",
    "ListObjectsV2": "oss:ListObjects", "InitiateMultipartUpload": "oss:PutObject", "UploadPart": "oss:PutObject",
    "CompleteMultipartUpload": "oss:PutObject", "AbortMultipartUpload": "oss:AbortMultipartUpload",
    "ListMultipartUploads": "oss:ListMultipartUploads", "ListParts": "oss:ListParts",
}  # fmt: skip
"""What must be allowed for an operation, as the documentation of RAM says."""

_OF_OBJECTS = {
    ("PUT", False): "PutObject", ("GET", False): "GetObject", ("HEAD", False): "HeadObject",
    ("DELETE", False): "DeleteObject", ("PUT", True): "UploadPart", ("POST", True): "CompleteMultipartUpload",
    ("DELETE", True): "AbortMultipartUpload", ("GET", True): "ListParts",
}  # fmt: skip


def operation_of(asked: Asked, key: str) -> str:
    """Which of the API it is. Raises RefusedError."""
    words = {name for name, _ in asked.query}
    if key and "uploads" in words:
        return "InitiateMultipartUpload"
    if key:
        return _OF_OBJECTS[asked.method, "uploadId" in words]
    if "uploads" in words:
        return "ListMultipartUploads"
    if "delete" in words:
        return "DeleteMultipleObjects"
    if asked.method == "GET":
        return "ListObjectsV2"
    raise RefusedError("MethodNotAllowed", "The specified method is not allowed against this resource.", 405)


def upload_of(bucket: Bucket, asked: Asked) -> Upload:
    """The upload that is meant. Raises RefusedError."""
    found = bucket.uploads.get(asked.told("uploadId"))
    if found is None:
        raise RefusedError("NoSuchUpload", "The specified upload does not exist.", 404)
    return found


def parsed(data: bytes) -> ElementTree.Element:
    """XML that a test has sent."""
    return ElementTree.fromstring(data)  # noqa: S314  from a test


def check_md5(asked: Asked, data: bytes) -> None:
    """Raises RefusedError where the body is not what its MD5 says."""
    told = asked.headers.get("content-md5")
    if told is not None and told != b64encode(hashlib.md5(data).digest()).decode():
        raise RefusedError(
            "InvalidDigest", "The Content-MD5 you specified did not match what we received.", 400
        )


def span_of(asked: Asked, size: int) -> tuple[int, int]:
    """What of an object comes. Without the standard behaviour a span that is not within it is the whole."""
    text = asked.headers.get("range", "")
    if not text:
        return 0, size
    first, _, last = text.removeprefix("bytes=").partition("-")
    start = max(0, size - int(last)) if not first else int(first)
    stop = size if not first or not last else int(last) + 1
    if asked.headers.get("x-oss-range-behavior") != "standard":
        return (start, stop) if start < stop <= size else (0, size)
    if start >= size:
        raise RefusedError("InvalidRange", "The requested range cannot be satisfied.", 416)
    return start, min(stop, size)


def refusal(error: RefusedError, endpoint: str, method: str) -> web.Response:
    """An error document."""
    told = {"Code": error.code, "Message": error.message}
    if endpoint and "endpoint" in error.message:
        told["Endpoint"] = endpoint
    answer = document("Error", elements(**told))
    body = answer.body
    assert isinstance(body, bytes)
    # A HEAD's answer has no body.
    headers = {"x-oss-err": b64encode(body).decode()} if method == "HEAD" else {}
    return web.Response(status=error.status, headers=headers, body=body, content_type="application/xml")


def document(name: str, inner: str) -> web.Response:
    """An answer in XML."""
    body = f'<?xml version="1.0" encoding="UTF-8"?><{name}>{inner}</{name}>'
    return web.Response(body=body.encode(), content_type="application/xml")


def xml(name: str, **told: object) -> str:
    """One element with others in it."""
    return f"<{name}>{elements(**told)}</{name}>"


def elements(**told: object) -> str:
    """Elements with text."""
    return "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in told.items())


def listed_object(key: str, found: Stored) -> str:
    """What a listing says of an object."""
    told = {
        "Key": quote(key),
        "ETag": found.etag,
        "Size": len(found.data),
        "LastModified": iso(found.modified),
    }
    return xml("Contents", **told, Type="Normal", StorageClass="Standard")


def iso(seconds: float) -> str:
    """A time as listings tell it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
