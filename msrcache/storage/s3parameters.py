"""What may stand below `storage: s3:`, by the names and with the defaults of Docker Registry 2.8 and 3.

    storage:
      s3:
        region: eu-west-3
        bucket: registry-cache
        accesskey: AKIA…              # without keys: environment, shared file, web identity, container, instance
        secretkey: …
        regionendpoint: https://minio.example.com:9000   # another service than Amazon's
        ca: /certs/minio.pem          # its certificate authority, beside the system's

Not here: what is done with them (`s3`, `s3client`).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from msrcache import __version__
from msrcache.storage.parameters import Parameters

MIB: Final = 1 << 20
SMALLEST_PART: Final = 5 * MIB
LARGEST_PART: Final = 5 << 30
DEFAULT_PART: Final = 10 * MIB
DEFAULT_REGION: Final = "us-east-1"
"""Where another service is named by regionendpoint and no region is."""

STORAGE_CLASSES: Final = (
    "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "OUTPOSTS", "GLACIER_IR",
    "EXPRESS_ONEZONE", "NONE",
)  # fmt: skip
ACLS: Final = (
    "private", "public-read", "public-read-write", "authenticated-read", "aws-exec-read", "bucket-owner-read",
    "bucket-owner-full-control",
)  # fmt: skip
LOG_LEVELS: Final = (
    "off", "debug", "debugwithsigning", "debugwithhttpbody", "debugwithrequestretries", "debugwithrequesterrors",
    "debugwitheventstreambody",
)  # fmt: skip

SYSTEM_AUTHORITIES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep what they trust; the SDK would bring a list of its own."""

_REGION: Final = re.compile(r"[a-z0-9-]+")
_BUCKET: Final = re.compile(r"[A-Za-z0-9._:/-]{3,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Parameters:
    """All that can be configured. Texts are empty where nothing is."""

    bucket: str
    region: str = DEFAULT_REGION
    accesskey: str = ""
    secretkey: str = ""
    sessiontoken: str = ""
    regionendpoint: str = ""
    forcepathstyle: bool = False
    encrypt: bool = False
    keyid: str = ""
    secure: bool = True
    skipverify: bool = False
    ca: str = ""
    v4auth: bool = True
    chunksize: int = DEFAULT_PART
    rootdirectory: str = ""
    storageclass: str = "STANDARD"
    objectacl: str = "private"
    useragent: str = f"msrcache/{__version__}"
    usedualstack: bool = False
    accelerate: bool = False
    usefipsendpoint: bool = False
    loglevel: str = "off"

    def __repr__(self) -> str:
        where = f" at {self.regionendpoint}" if self.regionendpoint else ""
        return f"<S3Parameters {self.bucket}/{self.rootdirectory} in {self.region}{where}>"

    @property
    def traced(self) -> bool:
        """Whether every request is logged."""
        return self.loglevel != "off"

    @property
    def trusted(self) -> str | None:
        """The file with the authorities that are trusted; None leaves it to the SDK."""
        chosen = self.ca or os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
        return chosen or next((path for path in SYSTEM_AUTHORITIES if Path(path).exists()), None)

    def written(self) -> dict[str, str]:
        """What every request that makes an object says beside its content, by the API's names."""
        said = {}
        if self.storageclass != "NONE":
            said["StorageClass"] = self.storageclass
        # What is private is so without saying: buckets without ACLs refuse to be told.
        if self.objectacl != "private":
            said["ACL"] = self.objectacl
        if self.encrypt:
            said["ServerSideEncryption"] = "aws:kms" if self.keyid else "AES256"
        if self.encrypt and self.keyid:
            said["SSEKMSKeyId"] = self.keyid
        return said


def parameters(given: Mapping[str, object]) -> S3Parameters:
    """The parameters, checked. Raises ParameterError."""
    reader = Parameters("s3", given)
    for ignored in ("multipartcopychunksize", "multipartcopymaxconcurrency", "multipartcopythresholdsize"):
        reader.whole(ignored, 0)  # nothing is ever copied
    endpoint = reader.text("regionendpoint", "")
    found = S3Parameters(
        bucket=reader.text("bucket"),
        region=reader.text("region", DEFAULT_REGION if endpoint else None),
        accesskey=reader.text("accesskey", ""),
        secretkey=reader.text("secretkey", ""),
        sessiontoken=reader.text("sessiontoken", ""),
        regionendpoint=endpoint,
        # As in Docker Registry 2.8: a service of one's own is asked by path.
        forcepathstyle=reader.flag("forcepathstyle", default=bool(endpoint)),
        encrypt=reader.flag("encrypt", default=False),
        keyid=reader.text("keyid", ""),
        secure=reader.flag("secure", default=True),
        skipverify=reader.flag("skipverify", default=False),
        ca=reader.text("ca", ""),
        v4auth=reader.flag("v4auth", default=True),
        chunksize=reader.whole("chunksize", DEFAULT_PART),
        rootdirectory=reader.text("rootdirectory", "").strip("/"),
        storageclass=reader.text("storageclass", "STANDARD").upper(),
        objectacl=reader.text("objectacl", "private"),
        useragent=reader.text("useragent", f"msrcache/{__version__}"),
        usedualstack=reader.flag("usedualstack", default=False),
        accelerate=reader.flag("accelerate", default=False),
        usefipsendpoint=reader.flag("usefipsendpoint", default=False),
        loglevel=reader.text("loglevel", "off").lower(),
    )
    reader.done()
    _check(found, reader)
    return _with_scheme(found)


def _check(found: S3Parameters, reader: Parameters) -> None:
    for wrong, name, should in (
        (not _REGION.fullmatch(found.region), "region", "should be a region such as eu-west-3"),
        (
            not _BUCKET.fullmatch(found.bucket),
            "bucket",
            "should be a bucket's name, or the ARN of an access point",
        ),
        (bool(found.accesskey) != bool(found.secretkey), "secretkey", "and accesskey need each other"),
        (bool(found.sessiontoken) and not found.accesskey, "sessiontoken", "needs accesskey and secretkey"),
        (bool(found.keyid) and not found.encrypt, "keyid", "needs encrypt: true"),
        (not found.v4auth and not found.regionendpoint, "v4auth", "can be false only with a regionendpoint"),
        (
            found.accelerate and bool(found.regionendpoint),
            "accelerate",
            "is Amazon's own: not with a regionendpoint",
        ),
        (
            found.storageclass not in STORAGE_CLASSES,
            "storageclass",
            f"should be one of {', '.join(STORAGE_CLASSES)}",
        ),
        (found.objectacl not in ACLS, "objectacl", f"should be one of {', '.join(ACLS)}"),
        (found.loglevel not in LOG_LEVELS, "loglevel", f"should be one of {', '.join(LOG_LEVELS)}"),
        (
            not SMALLEST_PART <= found.chunksize <= LARGEST_PART,
            "chunksize",
            f"should be a whole number of bytes from {SMALLEST_PART} to {LARGEST_PART}",
        ),
    ):
        if wrong:
            raise reader.wrong(name, should)


def _with_scheme(found: S3Parameters) -> S3Parameters:
    endpoint = found.regionendpoint
    if not endpoint or "://" in endpoint:
        return found
    return replace(found, regionendpoint=f"{'https' if found.secure else 'http'}://{endpoint}")
