"""What may stand below `storage: gcs:`, by the names and with the defaults of Docker Registry 2.8 and 3.

    storage:
      gcs:
        bucket: registry-cache
        keyfile: /certs/cache-writer.json    # without: the machine's own identity, as Google's programs find it
        rootdirectory: mirror
        endpoint: https://storage-vpc.p.googleapis.com   # a private endpoint, or an emulator
        ca: /certs/private.pem               # its certificate authority, beside the system's

Not here: what is done with them (`gcs`, `gcsclient`, `gcsidentity`).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from msrcache import __version__
from msrcache.storage.parameters import Parameters

KIB: Final = 1 << 10
ALIGNED: Final = 256 * KIB
"""Bytes; the service takes the pieces of an upload in multiples of it."""
DEFAULT_CHUNK: Final = 20 * ALIGNED
LARGEST_CHUNK: Final = 1 << 30
DEFAULT_CONCURRENCY: Final = 50
SMALLEST_CONCURRENCY: Final = 25
DEFAULT_UNIVERSE: Final = "googleapis.com"
EMULATOR: Final = "STORAGE_EMULATOR_HOST"
"""The variable by which Google's libraries find an emulator."""

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_UNIVERSE: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class GcsParameters:
    """All that can be configured. Texts are empty where nothing is."""

    bucket: str
    keyfile: str = ""
    credentials: Mapping[str, object] = field(default_factory=dict)
    rootdirectory: str = ""
    chunksize: int = DEFAULT_CHUNK
    maxconcurrency: int = DEFAULT_CONCURRENCY
    useragent: str = f"msrcache/{__version__}"
    endpoint: str = f"https://storage.{DEFAULT_UNIVERSE}"
    universedomain: str = DEFAULT_UNIVERSE
    ca: str = ""
    skipverify: bool = False

    def __repr__(self) -> str:
        return f"<GcsParameters {self.bucket}/{self.rootdirectory} at {self.endpoint}>"

    @property
    def anonymous(self) -> bool:
        """Whether no credentials are sent: a plain endpoint would give the machine's away."""
        return not self.keyfile and not self.credentials and self.endpoint.startswith("http://")

    @property
    def trusted(self) -> str | None:
        """The file with further authorities; None where the system's own suffice."""
        return self.ca or None


def parameters(given: Mapping[str, object]) -> GcsParameters:
    """The parameters, checked. Raises ParameterError."""
    reader = Parameters("gcs", given)
    universe = reader.text("universedomain", DEFAULT_UNIVERSE).lower()
    found = GcsParameters(
        bucket=reader.text("bucket"),
        keyfile=reader.text("keyfile", ""),
        credentials=reader.mapping("credentials") or {},
        rootdirectory=reader.text("rootdirectory", "").strip("/"),
        chunksize=reader.whole("chunksize", DEFAULT_CHUNK),
        # As in Docker Registry: what is less counts as the least.
        maxconcurrency=max(
            SMALLEST_CONCURRENCY, reader.whole("maxconcurrency", DEFAULT_CONCURRENCY, minimum=1)
        ),
        useragent=reader.text("useragent", f"msrcache/{__version__}"),
        endpoint=_endpoint(reader.text("endpoint", "") or os.environ.get(EMULATOR, ""), universe),
        universedomain=universe,
        ca=reader.text("ca", ""),
        skipverify=reader.flag("skipverify", default=False),
    )
    reader.done()
    _check(found, reader)
    return found


def _endpoint(given: str, universe: str) -> str:
    if not given:
        return f"https://storage.{universe}"
    # As Google's libraries read their variable: a bare host is an emulator.
    return (given if "://" in given else f"http://{given}").rstrip("/")


def _check(found: GcsParameters, reader: Parameters) -> None:
    endpoint = urlsplit(found.endpoint)
    for wrong, name, should in (
        (not _BUCKET.fullmatch(found.bucket), "bucket", "should be a bucket's name, without gs://"),
        (bool(found.keyfile) and bool(found.credentials), "keyfile", "and credentials exclude each other"),
        (bool(found.credentials) and "type" not in found.credentials, "credentials", "should say its type"),
        (
            not ALIGNED <= found.chunksize <= LARGEST_CHUNK or found.chunksize % ALIGNED > 0,
            "chunksize",
            f"should be a multiple of {ALIGNED} bytes, at most {LARGEST_CHUNK}",
        ),
        (
            not _UNIVERSE.fullmatch(found.universedomain),
            "universedomain",
            f"should be a domain such as {DEFAULT_UNIVERSE}",
        ),
        (
            endpoint.scheme not in ("http", "https") or not endpoint.hostname or bool(endpoint.path),
            "endpoint",
            "should be https://host, or https://host:port",
        ),
    ):
        if wrong:
            raise reader.wrong(name, should)
