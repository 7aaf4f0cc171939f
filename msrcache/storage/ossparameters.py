"""What may stand below `storage: oss:`, by the names and with the defaults of Docker Registry 2.8.

    storage:
      oss:
        region: oss-cn-hangzhou       # or cn-hangzhou
        bucket: registry-cache
        accesskeyid: LTAI…            # without keys: environment, RRSA of a pod, RAM role of the machine
        accesskeysecret: …
        internal: true                # the region's internal network, which costs no traffic
        endpoint: oss.example.com     # another host: of a region, or a domain that is bound to the bucket

Not here: what is done with them (`oss`, `ossclient`), and how roles get credentials (`ossidentity`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from msrcache import __version__
from msrcache.storage.parameters import Parameters

MIB: Final = 1 << 20
SMALLEST_PART: Final = 5 * MIB
LARGEST_PART: Final = 5 << 30
DEFAULT_PART: Final = 10 * MIB

VIRTUAL: Final = "virtual"
PATH: Final = "path"
DOMAIN: Final = "domain"

_REGION: Final = re.compile(r"[a-z0-9-]+")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_ALIBABA: Final = ".aliyuncs.com"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service is reached, and how a bucket is named there."""

    url: str
    """Scheme, host, port."""
    style: str
    """The bucket before the host (virtual), in the path, or bound to the domain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OssParameters:
    """All that can be configured. Texts are empty where nothing is."""

    bucket: str
    region: str
    """As signatures name it, without `oss-`."""
    accesskeyid: str = ""
    accesskeysecret: str = ""
    securitytoken: str = ""
    ramrole: str = ""
    stsendpoint: str = ""
    endpoint: str = ""
    internal: bool = False
    forcepathstyle: bool = False
    secure: bool = True
    skipverify: bool = False
    ca: str = ""
    encrypt: bool = False
    chunksize: int = DEFAULT_PART
    rootdirectory: str = ""
    useragent: str = f"msrcache/{__version__}"

    def __repr__(self) -> str:
        return f"<OssParameters {self.bucket}/{self.rootdirectory} at {self.address().url}>"

    def address(self, endpoint: str = "") -> Address:
        """That of an endpoint, or of the configured one where it is empty (pure)."""
        told = endpoint or self.endpoint or self._regional()
        scheme = "https" if self.secure else "http"
        parts = urlsplit(told if "://" in told else f"{scheme}://{told}")
        host = parts.hostname or ""
        if self.forcepathstyle or _is_ip(host):
            return Address(f"{parts.scheme}://{parts.netloc}", PATH)
        if host.startswith(f"{self.bucket}."):  # as Docker Registry 2.8 has it told
            return Address(f"{parts.scheme}://{parts.netloc[len(self.bucket) + 1 :]}", VIRTUAL)
        return Address(f"{parts.scheme}://{parts.netloc}", VIRTUAL if host.endswith(_ALIBABA) else DOMAIN)

    @property
    def tokens(self) -> str:
        """Where the service that gives credentials for a role is reached."""
        if self.stsendpoint:
            return self.stsendpoint if "://" in self.stsendpoint else f"https://{self.stsendpoint}"
        return f"https://sts{'-vpc' if self.internal else ''}.{self.region}{_ALIBABA}"

    def _regional(self) -> str:
        return f"oss-{self.region}{'-internal' if self.internal else ''}{_ALIBABA}"


def parameters(given: Mapping[str, object]) -> OssParameters:
    """The parameters, checked. Raises ParameterError."""
    reader = Parameters("oss", given)
    found = OssParameters(
        bucket=reader.text("bucket"),
        region=reader.text("region").removeprefix("oss-"),
        accesskeyid=reader.text("accesskeyid", ""),
        accesskeysecret=reader.text("accesskeysecret", ""),
        securitytoken=reader.text("securitytoken", ""),
        ramrole=reader.text("ramrole", ""),
        stsendpoint=reader.text("stsendpoint", "").rstrip("/"),
        endpoint=reader.text("endpoint", "").rstrip("/"),
        internal=reader.flag("internal", default=False),
        forcepathstyle=reader.flag("forcepathstyle", default=False),
        secure=reader.flag("secure", default=True),
        skipverify=reader.flag("skipverify", default=False),
        ca=reader.text("ca", ""),
        encrypt=reader.flag("encrypt", default=False),
        chunksize=reader.whole("chunksize", DEFAULT_PART),
        rootdirectory=reader.text("rootdirectory", "").strip("/"),
        useragent=reader.text("useragent", f"msrcache/{__version__}"),
    )
    reader.done()
    _check(found, reader)
    return found


def _check(found: OssParameters, reader: Parameters) -> None:
    named = bool(found.accesskeyid)
    for wrong, name, should in (
        (not _REGION.fullmatch(found.region), "region", "should be a region such as oss-cn-hangzhou"),
        (
            not _BUCKET.fullmatch(found.bucket),
            "bucket",
            "should be a bucket's name: 3 to 63 lower-case letters, digits and hyphens",
        ),
        (named != bool(found.accesskeysecret), "accesskeysecret", "and accesskeyid need each other"),
        (bool(found.securitytoken) and not named, "securitytoken", "needs accesskeyid and accesskeysecret"),
        (bool(found.ramrole) and named, "ramrole", "and accesskeyid exclude each other"),
        (
            bool(found.endpoint) and not _is_endpoint(found.endpoint),
            "endpoint",
            "should be a host, with scheme and port where needed, and without a path",
        ),
        (
            not SMALLEST_PART <= found.chunksize <= LARGEST_PART,
            "chunksize",
            f"should be a whole number of bytes from {SMALLEST_PART} to {LARGEST_PART}",
        ),
    ):
        if wrong:
            raise reader.wrong(name, should)


def _is_endpoint(text: str) -> bool:
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        port = parts.port
    except ValueError:
        return False
    return bool(parts.hostname) and parts.scheme in ("http", "https") and not parts.path and port != 0


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
