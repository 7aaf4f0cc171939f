"""Sizes of blobs, learnt from the manifests that were served here: small blobs are fetched without asking the fleet.

A manifest may lie about a size. Nothing believes it but the choice of whether a lease is worth its price.
"""

from collections import OrderedDict

from msrcache.oci.digest import Digest
from msrcache.oci.errors import ManifestInvalid
from msrcache.oci.manifest import children

REMEMBERED = 100_000
"""Blobs; the longest unused goes first, and takes the lease."""
READ = 64 * 1024
"""Bytes of the longest manifest that is read for this on the loop."""


class Sizes:
    """What manifests said."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[Digest, int] = OrderedDict()

    def __repr__(self) -> str:
        return f"<Sizes [{len(self._sizes)} blobs]>"

    def learn(self, manifest: bytes) -> None:
        """Note the sizes of what a manifest names."""
        if len(manifest) > READ:
            return
        try:
            named = children(manifest)
        except ManifestInvalid:
            return
        for descriptor in named:
            if descriptor.size:  # schema1 names layers without their sizes
                self._sizes[descriptor.digest] = descriptor.size
                self._sizes.move_to_end(descriptor.digest)
        while len(self._sizes) > REMEMBERED:
            self._sizes.popitem(last=False)

    def get(self, digest: Digest) -> int | None:
        """The size, as far as it is known."""
        return self._sizes.get(digest)
