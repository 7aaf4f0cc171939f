"""Reading manifests and indexes: their kind and the content they name. Their bytes are never rewritten.

Manifests come from strangers. Whatever the bytes are, the functions here return or raise ManifestInvalid, in
time and memory bounded by LARGEST.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn

from msrcache.oci.descriptor import (
    INDEX_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    OCTETS,
    SCHEMA1_LAYER,
    SCHEMA1_MANIFEST,
    SCHEMA1_SIGNED,
    SCHEMA1_TYPES,
    Descriptor,
)
from msrcache.oci.digest import Digest
from msrcache.oci.errors import DigestInvalid, ManifestInvalid, shown

LARGEST: Final = 16 * 1024 * 1024
"""Bytes that a manifest may have; the specification asks registries for 4 MB."""

# 16 MiB of "[]," would become 5.6 million lists and 350 MiB; a manifest of that size has some 300,000 values.
_MOST_VALUES: Final = 500_000
_LARGEST_SIZE: Final = 2**63 - 1
# RFC 6838 4.2. What passes goes into a Content-Type header.
_MEDIA_TYPE: Final = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}"
)


def media_type_of(data: bytes) -> str:
    """The media type of a manifest stored without it, by Docker Registry's rule. Raises ManifestInvalid.

    schemaVersion 1: schema1, signed where it holds signatures; else what `mediaType` says; else an OCI index
    where there is `manifests`, and an OCI manifest where there is not.
    """
    return _media_type(_load(data))


def children(data: bytes) -> tuple[Descriptor, ...]:
    """The content that a manifest names, in its order, each once. Raises ManifestInvalid.

    Of an index its manifests; of a manifest its config and layers (`blobs` of an OCI artifact). `subject` is
    no child: it may be absent by specification, and an image does not need it. Schema1 does not write sizes:
    its layers come with size 0, which means not known.
    """
    document = _load(data)
    kind = _media_type(document)
    if kind in SCHEMA1_TYPES:
        found = _layers_of_schema1(document)
    elif kind in INDEX_TYPES or (document.get("manifests") is not None and "layers" not in document):
        found = _listed(document, "manifests")
    else:
        found = _parts(document)
    return tuple(dict.fromkeys(found))


def _load(data: bytes) -> Mapping[str, object]:
    if len(data) > LARGEST:
        raise ManifestInvalid(f"the manifest has {len(data)} bytes, more than {LARGEST}")
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise ManifestInvalid(f"the manifest has more than {_MOST_VALUES} values")
    try:
        document = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError:
        raise ManifestInvalid("the manifest is nested too deeply") from None
    except ValueError as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise ManifestInvalid(f"the manifest is no JSON: {error}") from None
    if not isinstance(document, dict):
        raise ManifestInvalid("the manifest is no JSON object")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _media_type(document: Mapping[str, object]) -> str:
    version = document.get("schemaVersion")
    written = document.get("mediaType")
    # type(), not ==: JSON's true equals 1 in Python.
    if type(version) is int and version == 1:
        return SCHEMA1_SIGNED if document.get("signatures") else SCHEMA1_MANIFEST
    if written is not None and written != "":
        # OCI artifact manifests carry no schemaVersion; any other one is refused as Docker Registry does.
        if version is None or (type(version) is int and version == 2):
            return _checked_type(written)
    elif type(version) is int and version == 2:
        return OCI_MANIFEST if document.get("manifests") is None else OCI_INDEX
    raise ManifestInvalid(f"the manifest has schemaVersion {shown(str(version))}; it should be 1 or 2")


def _checked_type(text: object) -> str:
    if not isinstance(text, str) or not _MEDIA_TYPE.fullmatch(text):
        raise ManifestInvalid(f"the manifest holds the media type {shown(str(text))}, which is none")
    return text


def _parts(document: Mapping[str, object]) -> Iterator[Descriptor]:
    config = document.get("config")
    if config is not None:
        yield _descriptor(config)
    yield from _listed(document, "layers")
    yield from _listed(document, "blobs")


def _listed(document: Mapping[str, object], key: str) -> Iterator[Descriptor]:
    for entry in _array(document, key):
        yield _descriptor(entry)


def _layers_of_schema1(document: Mapping[str, object]) -> Iterator[Descriptor]:
    for entry in _array(document, "fsLayers"):
        if not isinstance(entry, dict):
            raise ManifestInvalid("an entry of fsLayers is no JSON object")
        yield Descriptor(SCHEMA1_LAYER, _digest(entry.get("blobSum")), 0)


def _array(document: Mapping[str, object], key: str) -> list[object]:
    entries = document.get(key)
    if entries is None:  # absent, or null as Go writes an empty list
        return []
    if not isinstance(entries, list):
        raise ManifestInvalid(f"{key} of the manifest is no list")
    return entries


def _descriptor(entry: object) -> Descriptor:
    if not isinstance(entry, dict):
        raise ManifestInvalid("a descriptor of the manifest is no JSON object")
    size = entry.get("size")
    if type(size) is not int or not 0 <= size <= _LARGEST_SIZE:
        raise ManifestInvalid("a descriptor of the manifest has no size in bytes")
    return Descriptor(_checked_type(entry.get("mediaType") or OCTETS), _digest(entry.get("digest")), size)


def _digest(text: object) -> Digest:
    if not isinstance(text, str):
        raise ManifestInvalid("a descriptor of the manifest has no digest")
    try:
        return Digest.parse(text)
    except DigestInvalid as error:
        raise ManifestInvalid(f"a descriptor of the manifest is wrong: {error.message}") from None
