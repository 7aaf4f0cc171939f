"""What may stand below `storage: swift:`, by the names and with the defaults of Docker Registry 2.8, and some more.

    storage:
      swift:
        authurl: https://keystone.example.com:5000/v3
        username: registry-cache      # or applicationcredentialid and applicationcredentialsecret
        password: …                   # or passwordfile
        domain: Default
        tenant: registry              # what others call the project
        container: registry-cache
        region: RegionOne

Without a user or an application credential the environment is asked (OS_AUTH_URL, OS_USERNAME, …, ST_AUTH, ST_USER).

Not here: what is done with them (`swift`, `swiftidentity`).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msrcache import __version__
from msrcache.storage.parameters import Parameters

MIB: Final = 1 << 20
SMALLEST_PART: Final = MIB
LARGEST_PART: Final = 5 << 30
DEFAULT_PART: Final = 20 * MIB
LONGEST_PREFIX: Final = 48
"""Bytes: names have 1,024, keys up to 900, and segments need some."""

ENDPOINTS: Final = ("public", "internal", "admin")

SYSTEM_AUTHORITIES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep what they trust; the library would bring a list of its own."""

ENVIRONMENT: Final[Mapping[str, tuple[str, ...]]] = {
    "authurl": ("OS_AUTH_URL", "ST_AUTH"),
    "username": ("OS_USERNAME", "ST_USER"),
    "password": ("OS_PASSWORD", "ST_KEY"),
    "tenant": ("OS_PROJECT_NAME", "OS_TENANT_NAME"),
    "tenantid": ("OS_PROJECT_ID", "OS_TENANT_ID"),
    "domain": ("OS_USER_DOMAIN_NAME",),
    "domainid": ("OS_USER_DOMAIN_ID",),
    "tenantdomain": ("OS_PROJECT_DOMAIN_NAME",),
    "tenantdomainid": ("OS_PROJECT_DOMAIN_ID",),
    "trustid": ("OS_TRUST_ID",),
    "region": ("OS_REGION_NAME",),
    "applicationcredentialid": ("OS_APPLICATION_CREDENTIAL_ID",),
    "applicationcredentialname": ("OS_APPLICATION_CREDENTIAL_NAME",),
    "applicationcredentialsecret": ("OS_APPLICATION_CREDENTIAL_SECRET",),
    "ca": ("OS_CACERT",),
}
"""What each parameter is called where clients of OpenStack and Swift look for it."""

_CONTAINER: Final = re.compile(r"[^/\x00-\x1f]{1,256}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SwiftParameters:
    """All that can be configured. Texts are empty where nothing is."""

    container: str
    authurl: str = ""
    username: str = ""
    password: str = ""
    passwordfile: str = ""
    applicationcredentialid: str = ""
    applicationcredentialname: str = ""
    applicationcredentialsecret: str = ""
    tenant: str = ""
    tenantid: str = ""
    domain: str = ""
    domainid: str = ""
    tenantdomain: str = ""
    tenantdomainid: str = ""
    trustid: str = ""
    region: str = ""
    authversion: int = 0
    endpointtype: str = "public"
    insecureskipverify: bool = False
    ca: str = ""
    chunksize: int = DEFAULT_PART
    prefix: str = ""
    secretkey: str = ""
    accesskey: str = ""
    tempurlcontainerkey: bool = True
    tempurlmethods: tuple[str, ...] = ()
    useragent: str = f"msrcache/{__version__}"

    def __repr__(self) -> str:
        return f"<SwiftParameters {self.container}/{self.prefix} by {self.authurl}>"

    @property
    def version(self) -> int:
        """Of the authentication: 1 (tempauth and its like), 2, 3, or 0 where Keystone itself is asked which."""
        if self.authversion:
            return self.authversion
        if self.applicationcredential:
            return 3
        named = re.search(r"/v([123])(?:[./]|$)|/auth/v1", urlsplit(self.authurl).path)
        return int(named.group(1) or 1) if named else 0

    @property
    def applicationcredential(self) -> str:
        """Its id or name."""
        return self.applicationcredentialid or self.applicationcredentialname

    @property
    def trusted(self) -> str | None:
        """The file with the authorities that are trusted; None leaves it to the libraries."""
        chosen = self.ca or os.environ.get("SSL_CERT_FILE")
        return chosen or next((path for path in SYSTEM_AUTHORITIES if Path(path).exists()), None)

    def secret(self) -> str:
        """The password, or the secret of the application credential. May read a file. Raises OSError."""
        if self.passwordfile:
            return Path(self.passwordfile).read_text().strip("\r\n")
        return self.applicationcredentialsecret if self.applicationcredential else self.password


def parameters(given: Mapping[str, object]) -> SwiftParameters:
    """The parameters, checked. Raises ParameterError."""
    reader = Parameters("swift", given)
    reader.text("rootdirectory", "")  # stood in Docker Registry's sample, and was never read; see make()
    texts = {name: reader.text(name, "") for name in ENVIRONMENT}
    found = SwiftParameters(
        container=reader.text("container"),
        passwordfile=reader.text("passwordfile", ""),
        authversion=reader.whole("authversion", 0),
        endpointtype=reader.text("endpointtype", "public").lower().removesuffix("url"),
        insecureskipverify=reader.flag("insecureskipverify", default=False),
        chunksize=reader.whole("chunksize", DEFAULT_PART),
        prefix=reader.text("prefix", "").lstrip("/"),
        secretkey=reader.text("secretkey", ""),
        accesskey=reader.text("accesskey", ""),
        tempurlcontainerkey=reader.flag("tempurlcontainerkey", default=True),
        tempurlmethods=tuple(word.upper() for word in reader.words("tempurlmethods")),
        useragent=reader.text("useragent", f"msrcache/{__version__}"),
        **texts,
    )
    reader.done()
    if not found.username and not found.applicationcredential:
        found = replace(found, **_environment(texts))  # type: ignore[arg-type]  # all of these are texts
    _check(found, reader)
    return found


def _environment(texts: Mapping[str, str]) -> dict[str, str]:
    """What the environment says where the parameters say nothing."""
    said = {}
    for name, variables in ENVIRONMENT.items():
        values = (os.environ.get(variable, "") for variable in variables)
        said[name] = texts[name] or next(filter(None, values), "")
    return said


def _check(found: SwiftParameters, reader: Parameters) -> None:
    for wrong, name, should in (
        (not found.authurl, "authurl", "is missing"),
        (not found.authurl.startswith(("http://", "https://")), "authurl", "should be a URL"),
        (not found.username and not found.applicationcredential, "username", "is missing"),
        (
            not (found.passwordfile or found.password or found.applicationcredentialsecret),
            "password",
            "is missing; or give passwordfile",
        ),
        (
            bool(found.applicationcredentialname) and not (found.applicationcredentialid or found.username),
            "applicationcredentialname",
            "needs username, or applicationcredentialid instead",
        ),
        (found.authversion > 3, "authversion", "should be 1, 2 or 3, or 0 to find out"),
        (found.version == 1 and bool(found.trustid), "trustid", "needs Keystone: authurl is of version 1"),
        (found.endpointtype not in ENDPOINTS, "endpointtype", f"should be one of {', '.join(ENDPOINTS)}"),
        (not _CONTAINER.fullmatch(found.container), "container", "should be a name without slashes"),
        (
            len(found.prefix.encode()) > LONGEST_PREFIX,
            "prefix",
            f"should be at most {LONGEST_PREFIX} bytes",
        ),
        (
            not SMALLEST_PART <= found.chunksize <= LARGEST_PART,
            "chunksize",
            f"should be a whole number of bytes from {SMALLEST_PART} to {LARGEST_PART}",
        ),
    ):
        if wrong:
            raise reader.wrong(name, should)
