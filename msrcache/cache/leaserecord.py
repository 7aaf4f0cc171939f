"""The record of a rung: who holds it, and that he lives. JSON; what is not known is ignored.

Not here: what follows from it (`leaserules`), and where it stands (`rungs`).
"""

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Final

from msrcache.cache.leaserules import Rung

VERSION: Final = 1

LIMIT: Final = 4 << 10
"""Bytes of a record that are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRecord:
    """Who wrote the rung, and how often he said that he lives."""

    replica: str
    nonce: str
    address: str = ""
    """host:port of its peer port; empty: it can't be followed."""
    beat: int = 0
    released: bool = False
    known: bool = True
    """False: a newer version wrote it, or nobody can read it. It is held, and is not deleted."""

    def beaten(self, beat: int) -> "LeaseRecord":
        """The same, alive."""
        return replace(self, beat=beat)

    def encoded(self) -> bytes:
        """As it stands in the store."""
        state = "released" if self.released else "held"
        fields = {"v": VERSION, "replica": self.replica, "nonce": self.nonce, "peer": self.address}
        return json.dumps({**fields, "beat": self.beat, "state": state}).encode()


def decoded(data: bytes) -> LeaseRecord:
    """What stands at a rung. What can't be read is somebody's: each change of its bytes is taken for a sign of life."""
    try:
        return _read(json.loads(data))
    except (ValueError, TypeError, KeyError, RecursionError):
        return LeaseRecord(replica="", nonce=hashlib.sha256(data).hexdigest(), known=False)


def rung_of(record: LeaseRecord | None, nonce: str) -> Rung:
    """What the record is to an arrival with that nonce (pure)."""
    if record is None:
        return Rung.MISSING
    if not record.known:
        return Rung.NEWER
    if record.released:
        return Rung.RELEASED
    return Rung.OWN if record.nonce == nonce else Rung.HELD


def _read(fields: dict[str, object]) -> LeaseRecord:
    if fields["v"] != VERSION or fields["state"] not in ("held", "released"):
        raise ValueError("of another version")
    beat = fields["beat"]
    texts = [fields["replica"], fields["nonce"], fields.get("peer", "")]
    if not isinstance(beat, int) or not all(isinstance(text, str) for text in texts):
        raise TypeError("not what it should be")
    replica, nonce, address = map(str, texts)
    return LeaseRecord(
        replica=replica, nonce=nonce, address=address, beat=beat, released=fields["state"] == "released"
    )
