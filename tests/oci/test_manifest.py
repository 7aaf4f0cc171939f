"""Reading manifests: kinds, children, and bytes that mean harm."""

import json
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.oci import descriptor as types
from msrcache.oci.descriptor import Descriptor
from msrcache.oci.digest import Digest
from msrcache.oci.errors import ManifestInvalid
from msrcache.oci.manifest import LARGEST, children, media_type_of
from tests.stage import images

A, B, C = (Digest.of(letter) for letter in (b"a", b"b", b"c"))
READERS: list[Callable[[bytes], object]] = [media_type_of, children]


def entry(digest: Digest, kind: str = types.OCTETS, size: int = 1) -> dict[str, object]:
    """A descriptor as manifests write it."""
    return {"mediaType": kind, "digest": str(digest), "size": size}


def written(**fields: object) -> bytes:
    """A manifest of schema 2 with these fields."""
    return json.dumps({"schemaVersion": 2, **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"mediaType": types.SCHEMA2_MANIFEST}, types.SCHEMA2_MANIFEST),
        ({"mediaType": types.SCHEMA2_LIST, "manifests": []}, types.SCHEMA2_LIST),
        ({"mediaType": types.OCI_INDEX}, types.OCI_INDEX),
        ({"mediaType": "application/vnd.example.own+json"}, "application/vnd.example.own+json"),
        ({"manifests": []}, types.OCI_INDEX),
        ({"layers": []}, types.OCI_MANIFEST),
        ({"mediaType": "", "manifests": []}, types.OCI_INDEX),
        ({"mediaType": None, "manifests": None}, types.OCI_MANIFEST),
        ({"schemaVersion": 1, "fsLayers": []}, types.SCHEMA1_MANIFEST),
        ({"schemaVersion": 1, "signatures": []}, types.SCHEMA1_MANIFEST),
        ({"schemaVersion": 1, "signatures": [{}], "mediaType": "a/b"}, types.SCHEMA1_SIGNED),
        ({"schemaVersion": None, "mediaType": types.OCI_ARTIFACT}, types.OCI_ARTIFACT),
    ],
)
def test_the_media_type_is_derived_as_docker_registry_does(fields: dict[str, object], kind: str) -> None:
    """schemaVersion first, then the field, then the shape."""
    assert media_type_of(written(**fields)) == kind


def test_an_image_has_its_config_and_layers() -> None:
    """In order, with media types and sizes."""
    config, layer = entry(A, types.OCI_MANIFEST, 7), entry(B, size=2**40)
    assert children(written(config=config, layers=[layer, entry(C, "")])) == (
        Descriptor(types.OCI_MANIFEST, A, 7),
        Descriptor(types.OCTETS, B, 2**40),
        Descriptor(types.OCTETS, C, 1),
    )


def test_the_stages_images_are_read() -> None:
    """Manifests written by another hand: kinds and children agree with their author."""
    single = images.simple_image()
    index = images.index({"amd64": single})
    for made in (single, index):
        assert media_type_of(made.manifest.bytes()) == made.manifest.media_type
    assert {str(child.digest) for child in children(single.manifest.bytes())} == {
        blob.digest for blob in single.blobs
    }
    assert [(str(child.digest), child.size) for child in children(index.manifest.bytes())] == [
        (single.digest, single.manifest.size)
    ]


@pytest.mark.parametrize(
    "kind", [types.OCI_INDEX, types.SCHEMA2_LIST, None, "application/vnd.example.own+json"]
)
def test_an_index_has_its_manifests(kind: str | None) -> None:
    """Of every kind, of none written, and of one nobody knows; a config beside them does not count."""
    data = written(mediaType=kind, manifests=[entry(A), entry(B)], config=entry(C))
    assert [child.digest for child in children(data)] == [A, B]


def test_the_subject_is_no_child() -> None:
    """An artifact needs its config and blobs; what it refers to may not even exist."""
    data = written(config=entry(A), layers=[entry(B)], subject=entry(C), artifactType="a/b")
    assert [child.digest for child in children(data)] == [A, B]
    withdrawn = json.dumps({"mediaType": types.OCI_ARTIFACT, "blobs": [entry(A)], "subject": entry(C)})
    assert [child.digest for child in children(withdrawn.encode())] == [A]


def test_repeated_layers_are_named_once() -> None:
    """Content is stored once however often an image uses it."""
    assert [child.digest for child in children(written(layers=[entry(A), entry(B), entry(A)]))] == [A, B]


def test_schema1_tells_no_sizes() -> None:
    """Its layers come with size 0, not known, and each once though empty layers repeat."""
    layers = [{"blobSum": str(digest)} for digest in (A, B, A)]
    data = json.dumps({"schemaVersion": 1, "fsLayers": layers, "history": [], "signatures": [{}]}).encode()
    assert children(data) == (Descriptor(types.SCHEMA1_LAYER, A, 0), Descriptor(types.SCHEMA1_LAYER, B, 0))


@pytest.mark.parametrize(
    "fields", [{}, {"layers": None, "config": None}, {"manifests": []}, {"manifests": None}]
)
def test_nothing_written_is_no_child(fields: dict[str, object]) -> None:
    """Go writes an empty list as null; both mean none."""
    assert children(written(**fields)) == ()


HARMFUL = {
    "nothing": b"",
    "html": b"<html>",
    "not utf-8": b'{"a":"\xff"}',
    "a list": b"[]",
    "a number": b"2",
    "null": b"null",
    "no version": b"{}",
    "version 3": b'{"schemaVersion":3}',
    "version true": b'{"schemaVersion":true}',
    "version 2.0": b'{"schemaVersion":2.0}',
    "version as text": b'{"schemaVersion":"2"}',
    "version 3 with a type": b'{"schemaVersion":3,"mediaType":"a/b"}',
    "NaN": b'{"schemaVersion":2,"a":NaN}',
    "a number of 5000 digits": b'{"schemaVersion":' + b"9" * 5000 + b"}",
    "deep lists": b'{"schemaVersion":2,"a":' + b"[" * 400_000,
    "deep objects": b'{"a":' * 400_000,
    "many values": b'{"schemaVersion":2,"a":[' + b"[]," * 600_000 + b"[]]}",
    "too long": b'{"schemaVersion":2}' + b" " * LARGEST,
    "type is a number": b'{"schemaVersion":2,"mediaType":5}',
    "type with a line end": b'{"schemaVersion":2,"mediaType":"a/b\\r\\nX: y"}',
    "type without slash": b'{"schemaVersion":2,"mediaType":"text"}',
}


@pytest.mark.parametrize("reader", READERS, ids=["media_type_of", "children"])
@pytest.mark.parametrize("data", HARMFUL.values(), ids=HARMFUL)
def test_what_is_no_manifest_is_refused(data: bytes, reader: Callable[[bytes], object]) -> None:
    """However deep, long or odd: MANIFEST_INVALID."""
    with pytest.raises(ManifestInvalid):
        reader(data)


@pytest.mark.parametrize(
    "bad",
    [
        "text",
        None,
        {},
        {"digest": str(A)},
        {"size": 1},
        {"size": 1, "digest": 5},
        {"size": 1, "digest": "sha256:short"},
        {"size": -1, "digest": str(A)},
        {"size": True, "digest": str(A)},
        {"size": 1.5, "digest": str(A)},
        {"size": 2**63, "digest": str(A)},
        {"size": 1, "digest": str(A), "mediaType": ["a/b"]},
        {"size": 1, "digest": str(A), "mediaType": "a/b\n"},
    ],
)
def test_a_wrong_descriptor_makes_the_manifest_wrong(bad: object) -> None:
    """Wherever it stands; no half of the children is given."""
    for fields in ({"layers": [entry(A), bad]}, {"manifests": [bad]}, {"config": bad or "empty"}):
        with pytest.raises(ManifestInvalid):
            children(written(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"layers": {}},
        {"manifests": "x"},
        {"schemaVersion": 1, "fsLayers": [5]},
        {"schemaVersion": 1, "fsLayers": [{}]},
        {"schemaVersion": 1, "fsLayers": {"a": 1}},
    ],
)
def test_lists_are_lists(fields: dict[str, object]) -> None:
    """Another shape is another document."""
    with pytest.raises(ManifestInvalid):
        children(written(**fields))


KEYS = st.sampled_from(
    ["schemaVersion", "mediaType", "manifests", "layers", "blobs", "config", "digest", "size", "fsLayers"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(str(A)),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, JSON), st.sampled_from([1, 2, None]))
def test_no_document_raises_anything_else(document: dict[str, object], version: int | None) -> None:
    """Whatever the JSON is, it is understood or MANIFEST_INVALID."""
    data = json.dumps({**document, **({"schemaVersion": version} if version else {})}).encode()
    with suppress(ManifestInvalid):
        assert "/" in media_type_of(data)
    with suppress(ManifestInvalid):
        assert all(child.size >= 0 for child in children(data))


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Nor bytes that are no JSON at all."""
    for reader in READERS:
        with suppress(ManifestInvalid):
            reader(data)


def test_a_manifest_of_the_largest_size_is_read() -> None:
    """The limit is the limit, not one less."""
    data = written(layers=[entry(A)])
    assert children(data + b" " * (LARGEST - len(data)))[0].digest == A
