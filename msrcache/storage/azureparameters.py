"""What may stand below `storage: azure:`, by the names and with the defaults of Docker Registry 2.8 and 3.

    storage:
      azure:
        accountname: registrycache
        container: blobs
        accountkey: …                 # or one of:
        sastoken: sv=…&sig=…          #   a shared access signature
        connectionstring: …           #   what the portal shows: account, key or signature, addresses
        credentials:                  #   an identity; nothing at all is default_credentials
          type: managed_identity      #   client_secret, managed_identity, workload_identity, default_credentials

Not here: what is done with them (`azure`, `azureclient`), and how identities get tokens (`azurecredentials`).
"""

import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import parse_qs, urlsplit, urlunsplit

from msrcache import __version__
from msrcache.config.units import parse_duration
from msrcache.storage.parameters import Parameters

MIB: Final = 1 << 20
SMALLEST_PART: Final = MIB
LARGEST_PART: Final = 4000 * MIB
DEFAULT_PART: Final = 8 * MIB
DEFAULT_REALM: Final = "core.windows.net"

SHARED_KEY: Final = "shared_key"
SIGNATURE: Final = "sas"
CLIENT_SECRET: Final = "client_secret"  # noqa: S105  the name of a kind
MANAGED: Final = "managed_identity"
WORKLOAD: Final = "workload_identity"
DEFAULT: Final = "default_credentials"
IDENTITIES: Final = (CLIENT_SECRET, MANAGED, WORKLOAD, DEFAULT)

ADOPT: Final = ("auto", "leadingslash", "none")

_ACCOUNT: Final = re.compile(r"[a-z0-9-]{3,63}")
_CONTAINER: Final = re.compile(r"\$root|[a-z0-9](?:-?[a-z0-9]){2,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who we are; `kind` is one of shared_key, sas and IDENTITIES. Nothing of it is ever shown but the kind."""

    kind: str = DEFAULT
    key: str = field(default="", repr=False)
    sas: str = field(default="", repr=False)
    clientid: str = field(default="", repr=False)
    tenantid: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)

    @property
    def ends(self) -> float | None:
        """When the signature ends; None where it does not say, as with a stored access policy."""
        text = parse_qs(self.sas).get("se", [""])[0]
        try:
            return datetime.fromisoformat(text).timestamp() if text else None
        except ValueError:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureParameters:
    """All that can be configured, connection string and addresses taken apart. Texts are empty where nothing is."""

    account: str
    container: str
    url: str
    """Of the account: scheme, host, and its path where the service has one address for all accounts."""
    identity: Identity
    rootdirectory: str = ""
    chunksize: int = DEFAULT_PART
    adopt: str = "auto"
    max_retries: int = 5
    retry_delay: float = 0.1
    skipverify: bool = False
    ca: str = ""
    useragent: str = f"msrcache/{__version__}"

    def __repr__(self) -> str:
        return (
            f"<AzureParameters {self.container}/{self.rootdirectory} at {self.url} by {self.identity.kind}>"
        )

    @property
    def makes_container(self) -> bool:
        """Whether a container that is missing is made, as Docker Registry 2.8 does, which knows account keys only."""
        return self.identity.kind == SHARED_KEY


def parameters(given: Mapping[str, object]) -> AzureParameters:
    """The parameters, checked. Raises ParameterError."""
    reader = Parameters("azure", given)
    connection = _connection(reader)
    account = reader.text("accountname", connection.get("accountname", ""))
    realm = reader.text("realm", DEFAULT_REALM)
    written = reader.text("serviceurl", "") or _endpoint(connection)
    url, signature = _parted(reader, written or f"https://{account}.blob.{realm}")
    if not account:
        account = _account_of(url)
    found = AzureParameters(
        account=account,
        container=reader.text("container"),
        url=url,
        identity=_identity(reader, connection, signature),
        rootdirectory=reader.text("rootdirectory", "").strip("/"),
        chunksize=reader.whole("chunksize", DEFAULT_PART),
        adopt=reader.text("adopt", "auto").lower(),
        max_retries=reader.whole("max_retries", 5),
        retry_delay=_duration(reader, "retry_delay", 0.1),
        skipverify=reader.flag("skipverify", default=False),
        ca=reader.text("ca", ""),
        useragent=reader.text("useragent", f"msrcache/{__version__}"),
    )
    reader.done()
    _check(found, reader)
    return found


def _check(found: AzureParameters, reader: Parameters) -> None:
    token = found.identity.kind in IDENTITIES
    for wrong, name, should in (
        (not found.account, "accountname", "is missing"),
        (not _ACCOUNT.fullmatch(found.account), "accountname", "should be the name of a storage account"),
        (not _CONTAINER.fullmatch(found.container), "container", "should be the name of a container"),
        (not found.url.startswith(("https://", "http://")), "serviceurl", "should begin with https://"),
        (token and not found.url.startswith("https://"), "serviceurl", "needs https:// for an identity"),
        (found.adopt not in ADOPT, "adopt", f"should be one of {', '.join(ADOPT)}"),
        (
            found.adopt == "leadingslash" and bool(found.rootdirectory),
            "adopt",
            "leadingslash is for what Docker Registry 2.8 has stored, which knows no rootdirectory",
        ),
        (
            not SMALLEST_PART <= found.chunksize <= LARGEST_PART,
            "chunksize",
            f"should be a whole number of bytes from {SMALLEST_PART} to {LARGEST_PART}",
        ),
    ):
        if wrong:
            raise reader.wrong(name, should)


def _identity(reader: Parameters, connection: Mapping[str, str], signature: str) -> Identity:
    """The one that is given; the connection string's where nothing else is."""
    key, sas = reader.text("accountkey", ""), reader.text("sastoken", "").lstrip("?") or signature
    block = reader.mapping("credentials")
    shared = SHARED_KEY in (block or {}).values()
    if (key and sas) or (block and (sas or (key and not shared))):
        raise reader.wrong(
            "credentials", "and accountkey and sastoken (also in serviceurl) exclude each other: give one"
        )
    if block:
        return _told(reader, block, key or connection.get("accountkey", ""))
    if not key and not sas:
        key = connection.get("accountkey", "")
        sas = "" if key else connection.get("sharedaccesssignature", "").lstrip("?")
    if key:
        return Identity(kind=SHARED_KEY, key=_key(reader, key))
    return Identity(kind=SIGNATURE, sas=sas) if sas else Identity()


def _told(reader: Parameters, block: Mapping[str, object], key: str) -> Identity:
    """What stands below `credentials:`, in which Docker Registry 3 also names the kind shared_key."""
    inner = Parameters("azure.credentials", block)
    kind = inner.text("type", DEFAULT)
    ids = {name: inner.text(name, "") for name in ("clientid", "tenantid", "secret")}
    inner.done()
    if kind == SHARED_KEY:
        key = key or ids["secret"]
        if not key:
            raise reader.wrong("accountkey", "is missing, for credentials of type shared_key")
        return Identity(kind=kind, key=_key(reader, key))
    if kind not in IDENTITIES:
        raise inner.wrong("type", f"should be one of {', '.join((SHARED_KEY, *IDENTITIES))}")
    if kind == CLIENT_SECRET:
        for name, value in ids.items():
            if not value:
                raise inner.wrong(name, "is missing, for type client_secret")
    return Identity(kind=kind, **ids)


def _key(reader: Parameters, text: str) -> str:
    try:
        b64decode(text, validate=True)
    except (NotBase64, ValueError):
        raise reader.wrong("accountkey", "should be a key of the account, in base64") from None
    return text


def _connection(reader: Parameters) -> Mapping[str, str]:
    """The fields of the connection string, by their names in lower case."""
    text = reader.text("connectionstring", "")
    fields = [part.partition("=") for part in text.strip().strip(";").split(";") if part]
    if any(not equals for _, equals, _ in fields):
        raise reader.wrong("connectionstring", "should be as the portal shows it: Name=value;Name=value;…")
    return {name.strip().lower(): value for name, _, value in fields}


def _endpoint(connection: Mapping[str, str]) -> str:
    """The address that a connection string names, or builds up."""
    if written := connection.get("blobendpoint"):
        return written
    account = connection.get("accountname", "")
    scheme = connection.get("defaultendpointsprotocol", "https")
    suffix = connection.get("endpointsuffix", DEFAULT_REALM)
    return f"{scheme}://{account}.blob.{suffix}" if account else ""


def _parted(reader: Parameters, url: str) -> tuple[str, str]:
    """The address, and the signature that may be its query."""
    try:
        parts = urlsplit(url if "://" in url else f"https://{url}")
        bare = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    except ValueError:
        raise reader.wrong("serviceurl", "should be the address of the account's blob service") from None
    if "@" in parts.netloc:
        raise reader.wrong("serviceurl", "should hold no user and password")
    return bare, parts.query


def _account_of(url: str) -> str:
    """The account that an address names: first in its host, or in its path where all accounts have one host."""
    parts = urlsplit(url)
    first, dot, rest = (parts.hostname or "").partition(".")
    return first if dot and rest.startswith("blob.") else parts.path.strip("/").partition("/")[0]


def _duration(reader: Parameters, name: str, default: float) -> float:
    text = reader.text(name, "")
    try:
        return parse_duration(text) if text else default
    except ValueError as error:
        raise reader.wrong(name, str(error)) from None
