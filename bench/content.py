"""What is pulled: files in the layout of Docker Registry, written straight into a folder."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

REPOSITORY = "bench/image"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """One blob; digest with its algorithm."""

    digest: str
    size: int

    @property
    def path(self) -> str:
        """Its path in a request."""
        return f"/v2/{REPOSITORY}/blobs/{self.digest}"


class Shelf:
    """A folder that a registry can serve, filled as blobs are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seed = 0

    def blob(self, size: int) -> Blob:
        """A new blob of the size: one random mebibyte, numbered, over and over."""
        self._seed += 1
        piece = Random(self._seed).randbytes(MIB)
        hasher = hashlib.sha256()
        staged = self.folder / "staged"
        self.folder.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as file:
            for start in range(0, size, MIB):
                part = (start.to_bytes(8, "big") + piece[8:])[: size - start]
                hasher.update(part)
                file.write(part)
        return self._shelve(staged, hasher.hexdigest(), "_layers", size)

    def manifest(self, tag: str, *layers: Blob) -> Blob:
        """A manifest of the layers, by the tag."""
        config = self.small(b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}')
        entries = [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": b.digest, "size": b.size}
            for b in layers
        ]
        data = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.digest,
                "size": config.size,
            },
            "layers": entries,
        }
        made = self.small(json.dumps(data).encode(), "_manifests/revisions")
        for place in ("current", f"index/{made.digest.replace(':', '/')}"):
            self._link(f"_manifests/tags/{tag}/{place}", made.digest)
        return made

    def small(self, data: bytes, links: str = "_layers") -> Blob:
        """A blob of these bytes."""
        staged = self.folder / "staged"
        staged.write_bytes(data)
        return self._shelve(staged, hashlib.sha256(data).hexdigest(), links, len(data))

    def _shelve(self, staged: Path, name: str, links: str, size: int) -> Blob:
        place = self.folder / "docker/registry/v2/blobs/sha256" / name[:2] / name
        place.mkdir(parents=True, exist_ok=True)
        staged.rename(place / "data")
        self._link(f"{links}/sha256/{name}", f"sha256:{name}")
        return Blob(f"sha256:{name}", size)

    def _link(self, place: str, digest: str) -> None:
        folder = self.folder / "docker/registry/v2/repositories" / REPOSITORY / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "link").write_text(digest)
