"""Object keys: the only place that spells them.

The layout is Docker Registry's, version 2, so that content which it left is adopted in place and what we write
can be read by it. Our own records live beside it below ``msrcache/``.
"""

import re

from msrcache.oci.digest import Digest
from msrcache.oci.errors import RegistryError
from msrcache.oci.names import Repository, Tag

ROOT = "docker/registry/v2/"
REPOSITORIES = ROOT + "repositories/"
BLOBS = ROOT + "blobs/"
OURS = "msrcache/"
REPLICAS = OURS + "replicas/"
LEASES = OURS + "leases/"
USES = OURS + "uses/"
MERGED = USES + "merged/"
LOOKED = MERGED + "looked"
"""Written by whoever begins to look for what has expired."""
CONDEMNED = OURS + "condemned/"
SHARDS = tuple(f"{number:02x}" for number in range(256))
"""The first two hex digits of a digest, by which blobs and what is known of their uses are taken in parts."""

_BLOB = re.compile(re.escape(BLOBS) + r"(?P<algorithm>[^/]+)/[^/]+/(?P<hex>[^/]+)/data\Z")
_OF_LINK = re.compile(r"(?P<algorithm>sha256|sha512)/(?P<hex>[0-9a-f]+)/link\Z")
_OF_LEASE = re.compile(re.escape(LEASES) + r"(?P<algorithm>sha256|sha512)/(?P<hex>[0-9a-f]+)/[0-9]+\Z")
_REVISION = re.compile(re.escape(REPOSITORIES) + r"(?P<name>.+)/(?:_manifests/revisions|_layers)/.+/link\Z")


def blob_key(digest: Digest) -> str:
    """Where the bytes of a blob or a manifest stand."""
    return f"{BLOBS}{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/data"


def layer_link(repository: Repository, digest: Digest) -> str:
    """Says that this blob was once pulled through this repository."""
    return f"{REPOSITORIES}{repository}/_layers/{digest.algorithm}/{digest.hex}/link"


def revision_link(repository: Repository, digest: Digest) -> str:
    """Says that this manifest was once pulled through this repository."""
    return f"{REPOSITORIES}{repository}/_manifests/revisions/{digest.algorithm}/{digest.hex}/link"


def tag_link(repository: Repository, tag: Tag) -> str:
    """Holds the digest that a tag had when it was last resolved."""
    return f"{REPOSITORIES}{repository}/_manifests/tags/{tag}/current/link"


def tag_index_link(repository: Repository, tag: Tag, digest: Digest) -> str:
    """Says that the tag once named this digest; Docker Registry walks these when it deletes."""
    return f"{REPOSITORIES}{repository}/_manifests/tags/{tag}/index/{digest.algorithm}/{digest.hex}/link"


def replica_key(replica: str) -> str:
    """Where a replica shows its heartbeat."""
    return REPLICAS + replica


def replica_of(key: str) -> str | None:
    """The replica whose heartbeat stands at this key; None for any other key."""
    name = key.removeprefix(REPLICAS)
    return name if name != key and name and "/" not in name else None


def shard_of_blobs(algorithm: str, shard: str) -> str:
    """The folder of the blobs whose digests begin so."""
    return f"{BLOBS}{algorithm}/{shard}"


def digest_of_blob(key: str) -> Digest | None:
    """The blob that stands at the key; None for any other key."""
    match = _BLOB.match(key)
    return _digest(match["algorithm"], match["hex"]) if match is not None else None


def digest_of_link(key: str) -> Digest | None:
    """The digest that a link's key names; None for any other key, and for a tag's current link."""
    match = _OF_LINK.search(key)
    return _digest(match["algorithm"], match["hex"]) if match is not None else None


def current_of(key: str) -> str | None:
    """The current link of the tag whose index entry stands at the key; None for any other key."""
    tag, found, _ = key.partition("/index/")
    return f"{tag}/current/link" if found and "/_manifests/tags/" in tag else None


def is_revision(key: str) -> bool:
    """Whether a link's key says that what it names is a manifest."""
    return "/_manifests/revisions/" in key


def digest_of_lease(key: str) -> Digest | None:
    """The blob that the record of a lease is of; None for any other key, and for a named lease."""
    match = _OF_LEASE.match(key)
    return _digest(match["algorithm"], match["hex"]) if match is not None else None


def rung_of(key: str) -> tuple[str, int | None]:
    """The lease that a record's key belongs to, and the record's generation; None for a key that is no record's."""
    lease, _, number = key.rpartition("/")
    return lease, int(number) if number.isascii() and number.isdigit() else None


def journal_key(replica: str, interval: int) -> str:
    """What a replica used in one interval; written once, never again."""
    return f"{USES}{replica}/{interval:010d}"


def merged_key(shard: str) -> str:
    """What is known of the uses of all blobs whose digests begin so."""
    return f"{MERGED}{shard}"


def clock_key(replica: str) -> str:
    """Written and removed at once, to ask the store what time it is."""
    return f"{OURS}probe/{replica}/clock"


def condemned_key(digest: Digest) -> str:
    """The mark of a blob that is to be deleted unless it is used."""
    return f"{CONDEMNED}{digest.algorithm}/{digest.hex}"


def quarantine_key(digest: Digest) -> str:
    """What was found in place of a blob, which was removed for it."""
    return f"{OURS}quarantine/{digest.algorithm}/{digest.hex}"


def digest_of_mark(key: str) -> Digest | None:
    """The blob that a mark is of; None for any other key."""
    algorithm, _, digits = key.removeprefix(CONDEMNED).partition("/")
    return _digest(algorithm, digits) if key.startswith(CONDEMNED) else None


def _digest(algorithm: str, digits: str) -> Digest | None:
    try:
        return Digest(algorithm, digits)
    except RegistryError:
        return None


def lease_of(digest: Digest) -> str:
    """The lease of a blob's fill."""
    return f"{digest.algorithm}/{digest.hex}"


def named_lease(name: str) -> str:
    """A lease for work of which there is one in the fleet: the janitor's."""
    return f"named/{name}"


def lease_key(lease: str, n: int) -> str:
    """Rung n of a lease."""
    return f"{LEASES}{lease}/{n}"


def parse_link(data: bytes) -> Digest | None:
    """The digest that a link file holds; None for an empty or half-written one.

    Docker Registry 2.x writes links in place, so a crash may leave them short.
    """
    try:
        return Digest.parse(data.decode("ascii").strip())
    except (UnicodeDecodeError, RegistryError):
        return None


def repository_of(key: str) -> Repository | None:
    """The repository that a link's key belongs to; None for any other key."""
    match = _REVISION.match(key)
    if match is None:
        return None
    try:
        return Repository.parse(match["name"])
    except RegistryError:
        return None
