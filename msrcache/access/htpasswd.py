"""The accounts file of mode `basic`: htpasswd with bcrypt entries, read again when it changes.

Other kinds of entries (MD5, SHA-1, crypt, plain text) are refused with a warning that names line and
account. The file is looked at once a second at most, off the event loop; when it cannot be read any more,
the accounts that were read last stay. Unlike Docker Registry, a missing file is not created with an account
nobody chose: it is an error.
"""

import asyncio
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from msrcache.access.questions import Questions, answer_of
from msrcache.oci.errors import Unavailable
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.logs import get_logger

LARGEST_FILE = 16 << 20
DEAREST = 16  # cost 16 is about four seconds of a core; more would be a way to stop us
_ENTRY = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_CHEAPEST = 4

log = get_logger(__name__)


class AccountsError(Exception):
    """The file is missing or cannot be read; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Names and their bcrypt hashes; `nobody` is a hash of the same price that no password has."""

    hashes: Mapping[str, bytes]
    nobody: bytes

    def __repr__(self) -> str:
        return f"<Accounts [{len(self.hashes)}]>"


def parse_htpasswd(text: str) -> tuple[Accounts, list[str]]:
    """The accounts of a file and what is wrong with it, in words; the last entry of a name counts."""
    hashes: dict[str, bytes] = {}
    warnings: list[str] = []
    dearest = 0
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, colon, hashed = line.partition(":")
        cost = _cost(hashed)
        if not colon or not name:
            warnings.append(f"line {number} is no entry (name:hash): it is left out")
        elif cost is None:
            warnings.append(
                f"line {number}, account {name!r}: not a bcrypt hash of cost {_CHEAPEST} to {DEAREST}, so it"
                " cannot log in; make it anew with: htpasswd -B"
            )
        else:
            hashes[name] = hashed.encode()
            dearest = max(dearest, cost)
    # The salt and the hash of a password that nobody has; the price of a check lies in the cost alone.
    nobody = f"$2b${dearest or 10:02d}${'.' * 53}".encode()
    return Accounts(hashes, nobody), warnings


def _cost(hashed: str) -> int | None:
    match = _ENTRY.fullmatch(hashed)
    if match is None or not _CHEAPEST <= int(match[1]) <= DEAREST:
        return None
    return int(match[1])


class Htpasswd:
    """The accounts in the file at `path`, as it is now; `every` is how many seconds one look is good for."""

    def __init__(self, path: Path, *, clock: Clock, every: float = 1.0) -> None:
        self._path = path
        self._clock = clock
        self._every = every
        self._looked = float("-inf")
        self._stamp: tuple[int, int, int] | None = None
        self._accounts: Accounts | None = None
        self._complaint = ""
        self._looks: Questions[str, None] = Questions()

    def __repr__(self) -> str:
        return f"<Htpasswd {self._path} {self._accounts!r}>"

    async def load(self) -> None:
        """Read the file now. Raises AccountsError: for the start, where it is better not to begin."""
        try:
            await self._look()
        except OSError as error:
            raise AccountsError(self._words(error)) from error

    async def accounts(self) -> Accounts:
        """The accounts, at most a second old. Raises Unavailable where none were ever read."""
        if self._clock.monotonic() - self._looked >= self._every:
            await answer_of(self._looks.under_way("") or self._looks.put("", self._refresh))
        if self._accounts is None:
            raise Unavailable("the accounts of this cache cannot be read: its operator finds why in the log")
        return self._accounts

    async def close(self) -> None:
        """Stop looking."""
        await self._looks.close()

    async def _refresh(self) -> None:
        try:
            await self._look()
        except OSError as error:
            self._complain(self._words(error))
        else:
            self._complaint = ""
        self._looked = self._clock.monotonic()

    async def _look(self) -> None:
        found = await asyncio.to_thread(_read, self._path, self._stamp)
        if found is None:
            return
        self._stamp, text = found
        self._accounts, warnings = parse_htpasswd(text)
        for warning in warnings:
            log.warning("htpasswd entry refused", file=str(self._path), reason=warning)
        log.info("accounts read", file=str(self._path), accounts=len(self._accounts.hashes))

    def _complain(self, words: str) -> None:
        """Once for each cause: the file is looked at every second."""
        if words != self._complaint:
            log.error(words, accounts="those read before stay" if self._accounts else "nobody can log in")
        self._complaint = words

    def _words(self, error: OSError) -> str:
        reason = error.strerror or str(error)
        return (
            f"htpasswd file {self._path} cannot be read ({reason}): create it with `htpasswd -B -c`,"
            " or correct its path"
        )


def _read(path: Path, known: tuple[int, int, int] | None) -> tuple[tuple[int, int, int], str] | None:
    """Stamp and text of the file, or None where it is the known one."""
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp == known:
            return None
        if status.st_size > LARGEST_FILE:
            raise OSError(27, f"it is larger than {LARGEST_FILE} bytes")
        return stamp, file.read(LARGEST_FILE).decode("utf-8", "replace")
