"""Image content for tests: blobs, manifests and indexes, OCI and schema 2, and their push over HTTP.

Written without `msrcache`, so that it can witness for or against it. Everything is deterministic: the same
arguments make the same bytes. Layers are real tar archives, so that engines can unpack them; `zstd_layer` is
the exception (its media type is what matters; the bytes are arbitrary).
"""

import gzip
import hashlib
import io
import json
import platform
import random
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
SCHEMA2_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
SCHEMA2_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
SCHEMA2_CONFIG = "application/vnd.docker.container.image.v1+json"
SCHEMA2_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes with a media type; `data` is a file where they are too many for memory."""

    media_type: str
    data: bytes | Path
    digest: str
    size: int
    diff_id: str = ""  # of a layer: the digest of the archive before compression

    def descriptor(self, **more: object) -> dict[str, object]:
        """As it stands in manifests and indexes."""
        return {"mediaType": self.media_type, "size": self.size, "digest": self.digest, **more}

    def bytes(self) -> bytes:
        """All of it."""
        return self.data if isinstance(self.data, bytes) else self.data.read_bytes()


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest with its blobs, or an index with the images that it names."""

    manifest: Content
    blobs: tuple[Content, ...] = ()
    children: tuple["Image", ...] = ()

    @property
    def digest(self) -> str:
        """The manifest's."""
        return self.manifest.digest

    @property
    def layers(self) -> tuple[Content, ...]:
        """The blobs but the configuration."""
        return self.blobs[1:]

    def all_blobs(self) -> dict[str, Content]:
        """By digest, those of all platforms."""
        found = {blob.digest: blob for blob in self.blobs}
        for child in self.children:
            found |= child.all_blobs()
        return found

    def all_manifests(self) -> dict[str, Content]:
        """By digest, its own last: the order in which a registry takes them."""
        found: dict[str, Content] = {}
        for child in self.children:
            found |= child.all_manifests()
        return found | {self.digest: self.manifest}


def digest_of(data: bytes, algorithm: str = "sha256") -> str:
    """`sha256:…` of the bytes."""
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def content(
    data: bytes, media_type: str = "application/octet-stream", *, algorithm: str = "sha256"
) -> Content:
    """Any bytes."""
    return Content(media_type, data, digest_of(data, algorithm), len(data))


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that do not compress, the same for the same seed."""
    return random.Random(seed).randbytes(size)


def tar_layer(files: Mapping[str, bytes], *, flavour: str = "oci", compress: bool = True) -> Content:
    """A real layer with these files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    plain = sink.getvalue()
    data = gzip.compress(plain, compresslevel=1, mtime=0) if compress else plain
    if flavour == "oci":
        media_type = OCI_LAYER + ("+gzip" if compress else "")
    else:
        media_type = SCHEMA2_LAYER
    return Content(media_type, data, digest_of(data), len(data), digest_of(plain))


def empty_layer(flavour: str = "oci") -> Content:
    """The layer of nothing, which many images share."""
    return tar_layer({}, flavour=flavour)


def zstd_layer(size: int, seed: int = 0) -> Content:
    """Looks like a zstd layer to a registry; no engine could unpack it."""
    data = b"\x28\xb5\x2f\xfd" + noise(size, seed)
    return Content(OCI_LAYER + "+zstd", data, digest_of(data), len(data), digest_of(data))


def big_layer(path: Path, size: int, seed: int = 0) -> Content:
    """A sparse file, a mark every 16 MiB: large without costing disk; hashing takes a second per GB."""
    with path.open("wb") as sink:
        for offset in range(0, size, 16 * 1024 * 1024):
            sink.seek(offset)
            sink.write(f"mark {seed} at {offset}".encode()[: size - offset])
        sink.truncate(size)
    with path.open("rb") as source:
        digest = "sha256:" + hashlib.file_digest(source, "sha256").hexdigest()
    return Content(OCI_LAYER, path, digest, size, digest)


def _json(value: object) -> bytes:
    return json.dumps(value, indent=3).encode()  # as Docker writes it: nobody may count on compact JSON


def image(
    layers: Sequence[Content],
    *,
    flavour: str = "oci",
    architecture: str = ARCHITECTURE,
    labels: Mapping[str, str] | None = None,
) -> Image:
    """An image of these layers; flavour is `oci` or `docker` (schema 2)."""
    settings = {
        "architecture": architecture,
        "os": "linux",
        "created": "2024-01-01T00:00:00Z",
        "config": {"Cmd": ["/hello"], "Labels": dict(labels or {})},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created_by": f"layer {n}"} for n, _ in enumerate(layers)],
    }
    types = (OCI_CONFIG, OCI_MANIFEST) if flavour == "oci" else (SCHEMA2_CONFIG, SCHEMA2_MANIFEST)
    config = content(_json(settings), types[0])
    manifest = {
        "schemaVersion": 2,
        "mediaType": types[1],
        "config": config.descriptor(),
        "layers": [layer.descriptor() for layer in layers],
    }
    return Image(content(_json(manifest), types[1]), (config, *layers))


def simple_image(layers: int = 3, *, size: int = 20_000, flavour: str = "oci", seed: int = 0) -> Image:
    """A few real layers with a file of noise each; 200 of them make the image of many layers."""
    made = [tar_layer({f"file-{n}": noise(size, seed * 1000 + n)}, flavour=flavour) for n in range(layers)]
    return image(made, flavour=flavour, labels={"seed": str(seed)})


def index(images: Mapping[str, Image], *, flavour: str = "oci") -> Image:
    """An index; the keys are architectures."""
    media_type = OCI_INDEX if flavour == "oci" else SCHEMA2_LIST
    entries = [
        one.manifest.descriptor(platform={"architecture": name, "os": "linux"})
        for name, one in images.items()
    ]
    data = _json({"schemaVersion": 2, "mediaType": media_type, "manifests": entries})
    return Image(content(data, media_type), (), tuple(images.values()))


def platforms(architectures: Iterable[str] = (ARCHITECTURE, "s390x"), *, flavour: str = "oci") -> Image:
    """An index of an image per platform (this machine's and one more), no layer shared."""
    made = {}
    for seed, name in enumerate(architectures, start=50):
        layer = tar_layer({"arch": name.encode() + noise(5000, seed)}, flavour=flavour)
        made[name] = image([layer], flavour=flavour, architecture=name)
    return index(made, flavour=flavour)


def artifact(
    subject: Image, data: bytes = b"signature", kind: str = "application/vnd.test.signature"
) -> Image:
    """A manifest that refers to another (OCI 1.1 `subject`), for the referrers API."""
    config = content(b"{}", OCI_EMPTY)
    layer = content(data, kind)
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": kind,
        "config": config.descriptor(),
        "layers": [layer.descriptor()],
        "subject": subject.manifest.descriptor(),
    }
    return Image(content(_json(manifest), OCI_MANIFEST), (config, layer))
