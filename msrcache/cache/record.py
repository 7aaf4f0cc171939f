"""A replica's record: what it shows the others of itself with every heartbeat.

JSON with ``"v": 1``. A reader takes what it understands: unknown fields are ignored, missing or strange ones have their
defaults, and a record of a later version is read like one of this. Not here: when it is written, and who is alive.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

VERSION: Final = 1
LIMIT: Final = 64 << 10
"""Bytes; a record that is larger is not read."""
FILLS: Final = 8
"""Fills that a record names; how many there are stands among the figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaRecord:
    """`started` is by its writer's clock, for people; `uptime` in seconds; `unreached`: replica -> what was seen."""

    replica: str
    beat: int = 0
    v: int = VERSION
    version: str = ""
    address: str = ""
    state: str = "ready"
    started: float = 0.0
    uptime: float = 0.0
    fills: Sequence[Mapping[str, object]] = ()
    figures: Mapping[str, float] = field(default_factory=dict)
    degraded: Mapping[str, str] = field(default_factory=dict)
    unreached: Mapping[str, str] = field(default_factory=dict)

    def told(self) -> dict[str, object]:
        """As the mapping that is written, and that /debug/fleet shows."""
        return {
            "v": self.v,
            "replica": self.replica,
            "version": self.version,
            "address": self.address,
            "state": self.state,
            "started": round(self.started, 3),
            "uptime": round(self.uptime, 1),
            "beat": self.beat,
            "fills": [dict(fill) for fill in self.fills[:FILLS]],
            "figures": dict(self.figures),
            "degraded": dict(self.degraded),
            "unreached": dict(self.unreached),
        }

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(self.told(), default=str).encode()


def parse_record(replica: str, data: bytes) -> ReplicaRecord | None:
    """What stands there of this replica; None where it cannot be understood at all."""
    try:
        told = json.loads(data)
    except ValueError:
        return None
    return record_of(replica, told) if isinstance(told, dict) else None


def record_of(replica: str, told: Mapping[str, object]) -> ReplicaRecord:
    """A record from its mapping, as far as it is understood."""
    fills = told.get("fills")
    return ReplicaRecord(
        replica=replica,
        beat=int(_number(told, "beat")),
        v=int(_number(told, "v")) or VERSION,
        version=_text(told, "version"),
        address=_text(told, "address"),
        state=_text(told, "state") or "ready",
        started=_number(told, "started"),
        uptime=_number(told, "uptime"),
        fills=tuple(fill for fill in fills if isinstance(fill, dict)) if isinstance(fills, list) else (),
        figures={
            name: value
            for name, value in _mapping(told, "figures").items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        },
        degraded={name: str(text) for name, text in _mapping(told, "degraded").items()},
        unreached={name: str(text) for name, text in _mapping(told, "unreached").items()},
    )


def _number(told: Mapping[str, object], name: str) -> float:
    value = told.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 0


def _text(told: Mapping[str, object], name: str) -> str:
    value = told.get(name)
    return value if isinstance(value, str) else ""


def _mapping(told: Mapping[str, object], name: str) -> Mapping[str, object]:
    value = told.get(name)
    return value if isinstance(value, dict) else {}
