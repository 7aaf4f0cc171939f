"""Tokens for Swift, by version 1 of its authentication (tempauth and its like) or by Keystone, renewed in time.

States: none -> held -> (due: held, and one renewal under way) -> ended.

Rules:
1. A token is renewed when a tenth of its life is left, while it is used on; and at once after the service refused it.
2. However many wait for a token, one renewal is under way. Who stops waiting does not stop it.
3. A renewal that failed is not tried again for PAUSE seconds, unless the token that is held still works. What is then
   right heals without a restart: the password is read anew each time where it stands in a file.
4. A token's life is measured on our own clock, from its length as it was told.

Not here: Keystone (`swiftkeystone`), requests for objects (`swiftclient`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import aiohttp

from msrcache.storage.errors import StorageError, Unavailable, Unusable
from msrcache.storage.swifterrors import NAME, Answered, CredentialsRefused, unanswered
from msrcache.storage.swiftparameters import SwiftParameters

PAUSE: Final = 5.0
"""Seconds after which a renewal that failed is tried again."""

DEADLINE: Final = 30.0
"""Seconds for one renewal."""

SHORTEST: Final = 1.0
"""Seconds that a token is held for, whatever it says."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Who we are for a while, and where the account is; `life` in seconds, None where nothing was told."""

    token: str
    url: str
    life: float | None = None

    def __repr__(self) -> str:
        return f"<Grant at {self.url} for {self.life} s>"


@dataclass(frozen=True, slots=True)
class _Held:
    grant: Grant
    due: float
    ends: float


class Tokens:
    """The token of one account."""

    def __init__(self, renew: Callable[[], Awaitable[Grant]]) -> None:
        self._renew = renew
        self._held: _Held | None = None
        self._last: Grant | None = None
        self._renewing: asyncio.Task[Grant] | None = None
        self._failed: tuple[float, StorageError] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<Tokens {'held' if self._held else 'none'}{', renewing' if self._renewing else ''}>"

    @property
    def last(self) -> Grant | None:
        """The last one, which may have ended: where the account is does not change with it."""
        return self._last

    async def current(self) -> Grant:
        """One that should work. Raises StorageError."""
        now = asyncio.get_running_loop().time()
        if self._held is not None and now < self._held.due:
            return self._held.grant
        if self._held is not None and now >= self._held.ends:
            self._held = None
        if self._renewing is None:
            if (failed := self._recent(now)) is None:
                self._renewing = asyncio.create_task(self._renewed())
                self._renewing.add_done_callback(self._ended)
            elif self._held is None:
                raise failed
        if self._held is not None or self._renewing is None:
            assert self._held is not None
            return self._held.grant
        return await asyncio.shield(self._renewing)

    def refused(self, grant: Grant) -> None:
        """The service does not take it."""
        if self._held is not None and self._held.grant is grant:
            self._held = None

    async def close(self) -> None:
        """No renewal goes on; idempotent."""
        self._closed = True
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})

    def _recent(self, now: float) -> StorageError | None:
        if self._closed:
            return StorageError(NAME, "", None, "the driver has been closed")
        if self._failed is not None and now - self._failed[0] < PAUSE:
            error = self._failed[1]
            return type(error)(NAME, "", error.cause, error.message)
        return None

    async def _renewed(self) -> Grant:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(DEADLINE):
                grant = await self._renew()
        except StorageError as error:
            self._failed = (loop.time(), error)
            raise
        except TimeoutError as error:
            slow = Unavailable(NAME, "", None, f"no token came within {DEADLINE:g} s")
            self._failed = (loop.time(), slow)
            raise slow from error
        now, self._failed = loop.time(), None
        life = float("inf") if grant.life is None else max(SHORTEST, grant.life)
        self._held, self._last = _Held(grant, now + 0.9 * life, now + life), grant
        return grant

    def _ended(self, task: "asyncio.Task[Grant]") -> None:
        self._renewing = None
        if not task.cancelled():
            task.exception()  # told to whoever waited


class Version1:
    """Asks a Swift's own authentication: one GET with user and key."""

    def __init__(self, given: SwiftParameters) -> None:
        self._given = given

    async def __call__(self, session: aiohttp.ClientSession, proxy: str | None) -> Grant:
        """Raises StorageError."""
        given = self._given
        secret = await secret_of(given)
        named = {"X-Auth-User": given.username, "X-Auth-Key": secret}
        try:
            async with session.get(
                given.authurl, headers=named, proxy=proxy, allow_redirects=False
            ) as answer:
                status, headers = answer.status, answer.headers
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise unreachable(given, error) from error
        if not 200 <= status < 300:
            raise refused_by(given, status)
        url, token = headers.get("X-Storage-Url", ""), headers.get("X-Auth-Token", "")
        if not url or not token:
            text = f"{given.authurl} answers, but gives no token: it is no authentication of version 1"
            raise Unusable(NAME, "", None, text)
        life = headers.get("X-Auth-Token-Expires", "")
        return Grant(token, url.rstrip("/"), float(life) if life.isascii() and life.isdigit() else None)


async def secret_of(given: SwiftParameters) -> str:
    """The password or its like. Raises CredentialsRefused."""
    try:
        secret = await asyncio.to_thread(given.secret) if given.passwordfile else given.secret()
    except (OSError, ValueError) as error:
        text = "storage.swift.passwordfile cannot be read"
        raise CredentialsRefused(NAME, "", error, text) from error
    if not secret:
        raise CredentialsRefused(NAME, "", None, "storage.swift.passwordfile is empty")
    return secret


def unreachable(given: SwiftParameters, error: BaseException) -> StorageError:
    """Nobody answers at authurl, or nobody who is trusted."""
    return unanswered(f"the authentication at {given.authurl}", "", error)


def refused_by(given: SwiftParameters, status: int) -> StorageError:
    """What the authentication's refusal means."""
    cause = Answered(str(status))
    who = given.username or f"the application credential {given.applicationcredential}"
    if status in (401, 403):
        text = f"{given.authurl} does not know {who} with this password or secret, or not in this project"
        return CredentialsRefused(NAME, "", cause, text)
    if status == 429 or status >= 500:
        return Unavailable(NAME, "", cause, f"the authentication at {given.authurl} cannot answer now")
    text = f"what answers at {given.authurl} is no authentication of this version: correct authurl or authversion"
    return Unusable(NAME, "", cause, text)
