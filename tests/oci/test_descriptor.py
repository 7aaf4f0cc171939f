"""Descriptors and media types."""

from msrcache.oci import descriptor
from msrcache.oci.descriptor import DEFAULT_ACCEPT, INDEX_TYPES, MANIFEST_TYPES, SCHEMA1_TYPES, Descriptor
from msrcache.oci.digest import Digest


def test_a_descriptor_is_a_value() -> None:
    """Equal descriptors are one: they are keys of sets and dictionaries."""
    first = Descriptor("application/octet-stream", Digest.of(b""), 0)
    assert {first, Descriptor(descriptor.OCTETS, Digest.of(b""), 0)} == {first}


def test_every_kind_of_manifest_is_asked_for() -> None:
    """A registry converts what is not accepted, so all kinds are, and unknown ones too."""
    assert set(DEFAULT_ACCEPT) == MANIFEST_TYPES | {"*/*"}
    assert INDEX_TYPES | SCHEMA1_TYPES < MANIFEST_TYPES


def test_an_index_is_preferred_to_one_of_its_manifests() -> None:
    """Registries that read Accept in order would give one platform's manifest away as the whole image."""
    last_index = max(DEFAULT_ACCEPT.index(kind) for kind in INDEX_TYPES)
    assert all(DEFAULT_ACCEPT.index(kind) > last_index for kind in MANIFEST_TYPES - INDEX_TYPES)
