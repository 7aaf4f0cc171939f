"""What the store holds of an image: manifests, layers, sizes, when they came, which are missing.

Reads the store only; asks nobody and writes nothing.
"""

from dataclasses import dataclass

from msrcache.cache.layout import blob_key, parse_link, tag_link
from msrcache.cache.links import LINK_LIMIT
from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.errors import ManifestInvalid
from msrcache.oci.manifest import LARGEST, children, media_type_of
from msrcache.oci.names import Reference, Repository, Tag
from msrcache.storage.errors import NotFound
from msrcache.storage.store import Store

DEPTH = 4
"""Indexes within indexes that are followed."""


@dataclass(frozen=True, slots=True)
class Part:
    """One manifest or blob of an image. ``size`` is what the image says, ``stored`` when it came (seconds since
    1970), None where the store does not have it.
    """

    digest: Digest
    kind: str
    media_type: str
    size: int
    stored: float | None
    depth: int

    @property
    def missing(self) -> bool:
        """Whether the store lacks it, or has it in another size."""
        return self.stored is None


async def inspect(store: Store, repository: Repository, reference: Reference) -> list[Part]:
    """The parts of the image, parents before children. Empty when the tag is not known. Raises StorageError."""
    digest = reference if isinstance(reference, Digest) else await _tagged(store, repository, reference)
    if digest is None:
        return []
    parts: dict[Digest, Part] = {}
    await _walk(store, Descriptor("", digest, 0), parts, depth=0)
    return list(parts.values())


async def _tagged(store: Store, repository: Repository, tag: Tag) -> Digest | None:
    try:
        return parse_link(await store.get(tag_link(repository, tag), LINK_LIMIT))
    except NotFound:
        return None


async def _walk(store: Store, descriptor: Descriptor, parts: dict[Digest, Part], *, depth: int) -> None:
    if descriptor.digest in parts or depth > DEPTH:
        return
    try:
        info = await store.stat(blob_key(descriptor.digest))
    except NotFound:
        kind = "manifest" if _is_manifest(descriptor) else "blob"
        parts[descriptor.digest] = _part(descriptor, kind, stored=None, size=descriptor.size, depth=depth)
        return
    nested: tuple[Descriptor, ...] = ()
    kind = "blob"
    if depth == 0 or _is_manifest(descriptor):
        descriptor, nested = await _manifest(store, descriptor)
        kind = "manifest"
    whole = not descriptor.size or descriptor.size == info.size
    stored = info.modified if whole else None
    parts[descriptor.digest] = _part(descriptor, kind, stored=stored, size=info.size, depth=depth)
    for child in nested:
        await _walk(store, child, parts, depth=depth + 1)


async def _manifest(store: Store, descriptor: Descriptor) -> tuple[Descriptor, tuple[Descriptor, ...]]:
    data = await store.get(blob_key(descriptor.digest), LARGEST)
    try:
        return Descriptor(media_type_of(data), descriptor.digest, len(data)), children(data)
    except ManifestInvalid:
        return Descriptor("(not a manifest)", descriptor.digest, len(data)), ()


def _is_manifest(descriptor: Descriptor) -> bool:
    return "manifest" in descriptor.media_type or "image.index" in descriptor.media_type


def _part(descriptor: Descriptor, kind: str, *, stored: float | None, size: int, depth: int) -> Part:
    return Part(descriptor.digest, kind, descriptor.media_type, size, stored, depth)
