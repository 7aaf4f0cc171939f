"""Content digests and the incremental hash that checks them. Which bytes are hashed is the caller's affair.

Nothing here leaves the thread it is called in: who hashes more than 64 KiB calls from a thread of its own.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from msrcache.oci.errors import ContentMismatch, DigestInvalid, shown

Buffer = bytes | bytearray | memoryview

# Upper-case hex is refused as the specification does: two spellings would be two keys of one content.
_HEX: Final = {"sha256": re.compile(r"[0-9a-f]{64}"), "sha512": re.compile(r"[0-9a-f]{128}")}

ALGORITHMS: Final = tuple(_HEX)
"""Those that content may be named by."""


@dataclass(frozen=True, slots=True)
class Digest:
    """The name of content: sha256 or sha512, and lower-case hex. No other can be made: DigestInvalid."""

    algorithm: str
    hex: str

    def __post_init__(self) -> None:
        pattern = _HEX.get(self.algorithm)
        if pattern is None:
            raise DigestInvalid(f"digest {shown(str(self))} is neither sha256:<hex> nor sha512:<hex>")
        if not pattern.fullmatch(self.hex):
            length = 64 if self.algorithm == "sha256" else 128
            raise DigestInvalid(f"digest {shown(str(self))} should have {length} lower-case hex digits")

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """`<algorithm>:<hex>`; str() gives the text back. Raises DigestInvalid."""
        algorithm, _, digits = text.partition(":")
        return cls(algorithm, digits)

    @classmethod
    def of(cls, data: Buffer, algorithm: str = "sha256") -> "Digest":
        """The digest of these bytes. Raises DigestInvalid for another algorithm."""
        hasher = Hasher(algorithm)
        hasher.update(data)
        return hasher.digest()

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


class Hasher:
    """The digest of bytes that come piece by piece. `size` counts them. Not for several threads at once."""

    __slots__ = ("_algorithm", "_hash", "_size")

    def __init__(self, algorithm: str = "sha256") -> None:
        if algorithm not in _HEX:
            raise DigestInvalid(f"cannot hash with {shown(algorithm)}, only with sha256 and sha512")
        self._algorithm = algorithm
        self._hash = hashlib.new(algorithm, usedforsecurity=False)
        self._size = 0

    @property
    def size(self) -> int:
        """Bytes so far."""
        return self._size

    def update(self, buffer: Buffer) -> None:
        """Takes the next bytes; lets go of the GIL for more than 2 KiB."""
        self._hash.update(buffer)
        self._size += buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)

    def digest(self) -> Digest:
        """The digest of what came so far; more may follow."""
        return Digest(self._algorithm, self._hash.hexdigest())

    def copy(self) -> "Hasher":
        """A second one that goes on from here."""
        twin = Hasher(self._algorithm)
        twin._hash, twin._size = self._hash.copy(), self._size
        return twin

    def verify(self, expected: Digest, size: int | None = None) -> None:
        """Returns when exactly the expected content came; `size` where it is known. Or ContentMismatch."""
        actual = self.digest()
        if actual != expected or (size is not None and size != self._size):
            raise ContentMismatch(expected, actual, self._size, wanted=size)

    def __repr__(self) -> str:
        return f"<Hasher {self._algorithm} [{self._size} bytes]>"
