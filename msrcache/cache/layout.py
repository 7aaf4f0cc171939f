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
