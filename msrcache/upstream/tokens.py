"""Bearer tokens of the service account: fetched once however many wait, remembered, renewed before they
expire.

A key is (realm, service, scope, account). A token is used for nine tenths of its life, so that a pull that
starts with it does not end without it. The token service is asked with GET and Basic; with POST where that is
what it takes, or where it gave a refresh token. A token kept here goes to the upstream's own origin only:
`auth` sees to that.
"""

import asyncio
import email.utils
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from aiohttp.helpers import encode_basic_auth
from yarl import URL

from msrcache.oci.errors import RegistryError, Unauthorized, UpstreamBroken, UpstreamUnavailable
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.answers import Whole
from msrcache.upstream.retry import parse_retry_after

Ask = Callable[[str, URL, Mapping[str, str], Mapping[str, str] | None], Awaitable[Whole]]
"""(method, url, headers, form) -> the whole answer; raises RegistryError."""

_SHORTEST: Final = 60.0  # seconds; a token that says less, or nothing, is taken to live so long
_USABLE: Final = 0.9
_REMEMBERED: Final = 4096
_CLIENT: Final = "msrcache"
IDENTITY: Final = "<token>"
"""The username under which the password is a refresh token, as Docker's clients have it."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who we are to the upstream; an empty username is nobody."""

    username: str = ""
    password: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The Authorization value of the Basic scheme; "" for nobody."""
        return encode_basic_auth(self.username, self.password) if self.username else ""


@dataclass(frozen=True, slots=True)
class TokenKey:
    """What a token is for."""

    realm: str
    service: str
    scope: str
    account: Account


@dataclass(frozen=True, slots=True)
class Token:
    """A token and the monotonic moment up to which it is used."""

    text: str = field(repr=False)
    until: float
    refresh: str = field(default="", repr=False)


def read_token(answer: Whole, *, asked: float, now: float) -> Token:
    """A token service's answer; `asked` is monotonic, `now` the epoch's. Raises ValueError for nonsense. Pure."""
    fields = json.loads(answer.body)
    if not isinstance(fields, dict):
        raise ValueError("no object")  # noqa: TRY004 - it is what was received, not how we were called
    text = fields.get("token") or fields.get("access_token")
    if not isinstance(text, str) or not text or not text.isascii() or not text.isprintable():
        raise ValueError("no token")
    lifetime = fields.get("expires_in") or 0
    if not isinstance(lifetime, int | float):
        raise ValueError("expires_in is no number")  # noqa: TRY004 - as above
    # Its own Date says what its clock says: the two clocks need not agree.
    date = _moment(email.utils.parsedate_to_datetime, answer.headers.get("Date")) or now
    issued = _moment(datetime.fromisoformat, fields.get("issued_at")) or date
    left = max(_SHORTEST, min(float(lifetime), 1e9)) - max(0.0, date - issued)
    refresh = fields.get("refresh_token")
    return Token(text, asked + _USABLE * left, refresh if isinstance(refresh, str) else "")


def _moment(parse: Callable[[str], datetime], text: object) -> float | None:
    try:
        found = parse(str(text))
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


class Tokens:
    """All tokens of one upstream's service account."""

    def __init__(self, ask: Ask, *, metrics: Metrics, clock: Clock, offline: bool = False) -> None:
        self._ask = ask
        self._metrics = metrics
        self._clock = clock
        self._offline = offline
        self._known: OrderedDict[TokenKey, Token] = OrderedDict()
        self._fetches: dict[TokenKey, asyncio.Task[Token]] = {}
        self._refresh: dict[tuple[str, str, Account], str] = {}
        self._by_post: set[str] = set()  # realms that refuse GET

    def __repr__(self) -> str:
        return f"<Tokens [{len(self._known)} known, {len(self._fetches)} asked for]>"

    def remembered(self, key: TokenKey) -> str | None:
        """The token that may still be used, or None."""
        token = self._known.get(key)
        return token.text if token and self._clock.monotonic() < token.until else None

    def forget(self, key: TokenKey, text: str) -> None:
        """The upstream refused this token. One that came since then stays."""
        token = self._known.get(key)
        if token and token.text == text:
            del self._known[key]

    async def get(self, key: TokenKey) -> str:
        """A token. Raises Unauthorized, UpstreamUnavailable or UpstreamBroken, naming the token service."""
        known = self.remembered(key)
        if known is not None:
            return known
        task = self._fetches.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._fetch(key))
            self._fetches[key] = task
            task.add_done_callback(lambda done: self._fetched(key, done))
        return (await asyncio.shield(task)).text

    async def close(self) -> None:
        """Stops what is being asked."""
        tasks = tuple(self._fetches.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _fetched(self, key: TokenKey, done: asyncio.Task[Token]) -> None:
        self._fetches.pop(key, None)
        if not done.cancelled() and done.exception() is None:
            self._known[key] = done.result()
            self._known.move_to_end(key)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    async def _fetch(self, key: TokenKey) -> Token:
        asked = self._clock.monotonic()
        host = URL(key.realm).host
        answer = await self._answer(key)
        if answer.status != 200:
            raise self._refused(answer, key)
        try:
            token = read_token(answer, asked=asked, now=self._clock.time())
        except (ValueError, RecursionError):
            self._count("failed")
            raise UpstreamBroken(f"the token service {host} answered, but not with a token") from None
        if token.refresh:
            self._refresh[key.realm, key.service, key.account] = token.refresh
        self._count("fetched")
        return token

    async def _answer(self, key: TokenKey) -> Whole:
        try:
            refresh = self._refresh_token(key)
            if refresh:
                answer = await self._post(key, {"grant_type": "refresh_token", "refresh_token": refresh})
                if answer.status not in {400, 401, 403, 404, 405} or key.account.username == IDENTITY:
                    return answer
                del self._refresh[key.realm, key.service, key.account]  # withdrawn or expired
            return await self._by_password(key)
        except RegistryError:
            self._count("failed")
            raise

    def _refresh_token(self, key: TokenKey) -> str:
        given = key.account.password if key.account.username == IDENTITY else ""
        return self._refresh.get((key.realm, key.service, key.account), given)

    async def _by_password(self, key: TokenKey) -> Whole:
        if not (key.account.username and key.realm in self._by_post):
            answer = await self._get(key)
            if answer.status not in {404, 405, 501} or not key.account.username:
                return answer
        form = {
            "grant_type": "password",
            "username": key.account.username,
            "password": key.account.password,
        }
        answer = await self._post(key, form | ({"access_type": "offline"} if self._offline else {}))
        if answer.status == 200:
            self._by_post.add(key.realm)
        return answer

    async def _get(self, key: TokenKey) -> Whole:
        query = [("service", key.service)] if key.service else []
        query += [("scope", scope) for scope in key.scope.split()]
        headers: dict[str, str] = {}
        if key.account.username:
            headers["Authorization"] = key.account.basic
            query.append(("account", key.account.username))
            if self._offline:
                query += [("client_id", _CLIENT), ("offline_token", "true")]
        url = URL(key.realm, encoded=True)
        return await self._ask("GET", url.extend_query(query), headers, None)

    async def _post(self, key: TokenKey, form: dict[str, str]) -> Whole:
        form = {"service": key.service, "client_id": _CLIENT, **form}
        if key.scope:
            form["scope"] = key.scope
        headers = {"Content-Type": "application/x-www-form-urlencoded"}  # the wire adds none by itself
        return await self._ask("POST", URL(key.realm, encoded=True), headers, form)

    def _refused(self, answer: Whole, key: TokenKey) -> RegistryError:
        who = f"the account {key.account.username!r}" if key.account.username else "a nameless client"
        text = f"the token service {URL(key.realm).host} says {answer.status} to {who}"
        if answer.status in {400, 401, 403}:
            self._count("refused")
            return Unauthorized(f"{text}; check the upstream's username and password")
        self._count("failed")
        retry_after = parse_retry_after(answer.headers.get("Retry-After"), self._clock.time())
        if answer.status >= 500 or answer.status in {408, 429}:
            return UpstreamUnavailable(text, retry_after=retry_after)
        return UpstreamBroken(text)

    def _count(self, result: str) -> None:
        self._metrics.upstream_tokens_total.labels(result).inc()
