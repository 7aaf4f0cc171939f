"""What is written down of uses: the forms of journals and of merged records. Pure.

A journal is JSON Lines: `{"v": 1}`, then one digest a line. It has no time: when it was written is told by the store,
on whose clock alone ages are measured, so a use counts as one interval younger than it is at most.
A merged record is a line `[digest, last use, stored, size]` of the file for the first two hex digits of its digest.
What a later version adds to a record is ignored; what says that it is of a later version is not read at all.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from msrcache.oci.digest import Digest
from msrcache.oci.errors import RegistryError

VERSION: Final = 1
HEADER: Final = '{"v": 1}\n'
LARGEST: Final = 64 << 20
"""Bytes of a record that is read at all."""


class Unreadable(Exception):
    """A record that this version cannot read, so that nothing may be concluded from what is missing in it."""


@dataclass(frozen=True, slots=True)
class UseRecord:
    """What is known of a blob: when it was used last, when it was stored (seconds, on the store's clock), its size."""

    used: float
    stored: float
    size: int


def journal_text(digests: Iterable[Digest]) -> bytes:
    """A journal of these uses."""
    return (HEADER + "".join(f'"{digest}"\n' for digest in digests)).encode()


def read_journal(data: bytes) -> list[Digest]:
    """The digests of a journal. Raises Unreadable."""
    try:
        return [Digest.parse(line) for line in _lines(data)]
    except (RegistryError, AttributeError) as error:
        raise Unreadable(f"a line is no digest: {error}") from error


def merged_text(records: Mapping[Digest, UseRecord]) -> bytes:
    """The merged records of one shard, in the order of their digests."""
    lines = sorted(
        f'["{digest}", {record.used:.3f}, {record.stored:.3f}, {record.size}]\n'
        for digest, record in records.items()
    )
    return (HEADER + "".join(lines)).encode()


def read_merged(data: bytes) -> dict[Digest, UseRecord]:
    """The records of a merged file. Raises Unreadable."""
    try:
        return {
            Digest.parse(line[0]): UseRecord(float(line[1]), float(line[2]), int(line[3]))
            for line in _lines(data)
        }
    except (RegistryError, AttributeError, TypeError, ValueError, LookupError) as error:
        raise Unreadable(f"a line is no record: {error}") from error


def _lines(data: bytes) -> list[Any]:
    """What stands behind the header, parsed in one go."""
    first, *rest = data.split(b"\n")
    try:
        header = json.loads(first)
        version = header["v"]
        lines: list[Any] = json.loads(b"[" + b",".join(line for line in rest if line) + b"]")
    except (ValueError, TypeError, LookupError) as error:
        raise Unreadable(f"it is no JSON Lines with a version: {error}") from error
    if type(version) is not int or version > VERSION:
        raise Unreadable(f"it is of version {version}, and this program knows {VERSION}")
    return lines
