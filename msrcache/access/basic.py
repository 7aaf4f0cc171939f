"""Mode `basic`: accounts of this cache itself; the upstream is asked with its service account.

Rules:
1. A password that was right is remembered for a minute under a keyed hash of the header, as
   long as the account's entry in the file stays the same: twenty layers at once cost one bcrypt. A wrong
   one never is.
2. Equal headers at once are checked once, off the event loop.
3. An unknown account costs what a known one does, and gets the same answer after the same time.
4. A failure is answered after a delay, and counts against the address and against the account; when
   either bucket is full, 429 without a check. It is counted before the check and given back when the
   password was right, so that a burst cannot outrun the counting.
"""

import asyncio
import base64
import binascii
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from msrcache.access.buckets import Buckets, network_of
from msrcache.access.caller import Caller, Fingerprints
from msrcache.access.htpasswd import Htpasswd
from msrcache.access.passwords import Passwords
from msrcache.access.questions import Questions, answer_of
from msrcache.oci.errors import TooManyRequests, Unauthorized
from msrcache.oci.pulls import Pull
from msrcache.oci.registry import SERVICE, Right
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics

_LONGEST_NAME = 255
_CAPACITY = 10_000
REMEMBERED = 60.0
"""Seconds for which a right password is remembered."""


@dataclass(frozen=True, slots=True)
class Login:
    """A name and a password as they came."""

    name: str
    password: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Proved:
    """A login that was right: whose, against which entry, and until when that is remembered."""

    name: str
    hashed: bytes
    until: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checking:
    """How passwords are checked: `addresses` and `accounts` count failures; `pause` waits `delay` seconds."""

    passwords: Passwords
    addresses: Buckets
    accounts: Buckets
    delay: float = 0.5
    pause: Callable[[float], Awaitable[object]] = asyncio.sleep


class BasicGate:
    """Implements Gate over an htpasswd file; `realm` is what clients show when they ask for the password."""

    def __init__(
        self,
        *,
        htpasswd: Htpasswd,
        realm: str,
        fingerprints: Fingerprints,
        checking: Checking,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._htpasswd = htpasswd
        self._challenges = (f'Basic realm="{_quoted(realm)}"',)
        self._fingerprints = fingerprints
        self._checking = checking
        self._clock = clock
        self._proved: OrderedDict[str, _Proved] = OrderedDict()
        self._checks: Questions[str, None] = Questions()
        self._told = {
            name: metrics.verdicts_total.labels(name) for name in ("yes", "remembered", "refused", "limited")
        }

    def __repr__(self) -> str:
        return f"<BasicGate {self._htpasswd!r} [{len(self._proved)} remembered]>"

    async def admit(self, caller: Caller, pull: Pull) -> Right:
        """Whoever has an account reads all that the service account may. Raises as `ping`."""
        await self._check(caller)
        return SERVICE

    async def ping(self, caller: Caller) -> None:
        """Raises Unauthorized, TooManyRequests, or Unavailable where the accounts were never read."""
        await self._check(caller)

    def identity(self, caller: Caller) -> str:
        """The account's name where its password was right, else "-"."""
        proved = self._proved.get(self._fingerprints.of(caller.credential))
        return proved.name if proved is not None else "-"

    async def close(self) -> None:
        """Stop checking."""
        await self._checks.close()
        await self._htpasswd.close()
        self._checking.passwords.close()

    async def _check(self, caller: Caller) -> None:
        hashes = (await self._htpasswd.accounts()).hashes
        key = self._fingerprints.of(caller.credential)
        proved = self._proved.get(key)
        if proved and self._clock.monotonic() < proved.until and hashes.get(proved.name) == proved.hashed:
            self._told["remembered"].inc()
            return
        try:
            await self._checked(key, caller)
        except (Unauthorized, TooManyRequests) as error:
            self._told["limited" if isinstance(error, TooManyRequests) else "refused"].inc()
            raise
        self._told["yes"].inc()

    async def _checked(self, key: str, caller: Caller) -> None:
        login = parse_basic(caller.credential.header)
        if login is None:
            raise Unauthorized("this cache wants the name and password of an account", self._challenges)
        while (equal := self._checks.under_way(key)) is not None:
            try:
                return await answer_of(equal)
            except TooManyRequests:
                continue  # the other address has used up its failures; this one may have not
        return await answer_of(self._checks.put(key, lambda: self._decide(key, caller, login)))

    async def _decide(self, key: str, caller: Caller, login: Login) -> None:
        self._proved.pop(key, None)
        counted = (
            (self._checking.addresses, network_of(caller.address)),
            (self._checking.accounts, login.name),
        )
        if wait := max(bucket.wait(name) for bucket, name in counted):
            raise TooManyRequests(wait, "too many wrong passwords: wait before the next try")
        for bucket, name in counted:
            bucket.pour(name)
        accounts = await self._htpasswd.accounts()
        hashed = accounts.hashes.get(login.name)
        try:
            right = await self._checking.passwords.check(login.password, hashed or accounts.nobody)
        except TooManyRequests:
            _give_back(counted)  # nothing was checked, so nobody failed
            raise
        if hashed is None or not right:
            await self._checking.pause(self._checking.delay)
            raise Unauthorized("there is no account of this name and password", self._challenges)
        _give_back(counted)
        self._proved[key] = _Proved(login.name, hashed, self._clock.monotonic() + REMEMBERED)
        if len(self._proved) > _CAPACITY:
            self._proved.popitem(last=False)


def _give_back(counted: Iterable[tuple[Buckets, str]]) -> None:
    for bucket, name in counted:
        bucket.pour(name, -1.0)


def parse_basic(header: str) -> Login | None:
    """Name and password of an Authorization header (RFC 7617); None where it has none. Raises nothing."""
    scheme, _, encoded = header.strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True)
    except (ValueError, binascii.Error):
        return None
    name, colon, password = decoded.partition(b":")
    if not colon or not name or len(name) > _LONGEST_NAME:
        return None
    return Login(name.decode("utf-8", "replace"), password)


def _quoted(realm: str) -> str:
    """The inside of a quoted-string (RFC 9110 5.6.4); what cannot stand in a header is left out."""
    plain = "".join(letter for letter in realm if letter.isprintable() and letter.isascii())
    return plain.replace("\\", "\\\\").replace('"', '\\"')
