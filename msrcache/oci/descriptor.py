"""Descriptors, and the media types that a registry cache has to know. All others pass through unread."""

from dataclasses import dataclass
from typing import Final

from msrcache.oci.digest import Digest

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"  # withdrawn before 1.1, still found
SCHEMA2_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA2_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
SCHEMA1_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v1+json"
SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"
SCHEMA1_LAYER: Final = "application/vnd.docker.container.image.rootfs.diff+x-gtar"
OCTETS: Final = "application/octet-stream"
"""The media type under which every blob is served."""

INDEX_TYPES: Final = frozenset({OCI_INDEX, SCHEMA2_LIST})
SCHEMA1_TYPES: Final = frozenset({SCHEMA1_MANIFEST, SCHEMA1_SIGNED})
MANIFEST_TYPES: Final = (
    frozenset({OCI_MANIFEST, OCI_ARTIFACT, SCHEMA2_MANIFEST}) | INDEX_TYPES | SCHEMA1_TYPES
)
"""What stands below /manifests/: manifests and indexes."""

DEFAULT_ACCEPT: Final = (
    OCI_INDEX,
    SCHEMA2_LIST,
    OCI_MANIFEST,
    SCHEMA2_MANIFEST,
    OCI_ARTIFACT,
    SCHEMA1_SIGNED,
    SCHEMA1_MANIFEST,
    "*/*",
)
"""What to ask an upstream for where no client said it: everything as it is, so that nothing is converted."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Content by its name: media type, digest, and size in bytes."""

    media_type: str
    digest: Digest
    size: int
