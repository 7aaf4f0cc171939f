"""A request's way to its answer: who we are there, where it sends us, and which answers are none.

Redirects are followed here, at most ten, never from https to http. A credential, the account's or the
caller's, goes to the upstream's own origin and to no other; so a redirect to an object store is followed
without, and one that comes back has it again. What another origin refuses is no verdict about the caller.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp.abc import AbstractResolver
from yarl import URL

from msrcache.oci.errors import RangeInvalid, RegistryError, UpstreamBroken
from msrcache.oci.pulls import Pull
from msrcache.telemetry.clock import Clock
from msrcache.telemetry.metrics import Metrics
from msrcache.upstream.answers import Whole, elsewhere, refusal
from msrcache.upstream.auth import Authorizer
from msrcache.upstream.settings import UpstreamSettings
from msrcache.upstream.tokens import Tokens
from msrcache.upstream.wire import Reply, Wire

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_HOPS: Final = 10
_ERROR_LIMIT: Final = 64 << 10
_TOKEN_LIMIT: Final = 1 << 20
_CONTENT: Final = frozenset({200, 206})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is asked; `path` begins with /v2/ and is encoded."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Route:
    """The way to one upstream."""

    def __init__(
        self, settings: UpstreamSettings, *, metrics: Metrics, clock: Clock, resolver: AbstractResolver | None
    ) -> None:
        self._url = URL(settings.url.rstrip("/").removesuffix("/v2"))
        self._name = settings.name
        self._namespace = settings.namespace
        self._clock = clock
        self._wire = Wire(settings, metrics=metrics, clock=clock, resolver=resolver)
        self._tokens = Tokens(self._token, metrics=metrics, clock=clock, offline=settings.offline_token)
        self._authorizer = Authorizer(settings, self._tokens)
        self.prefix = self._url.raw_path.rstrip("/")

    async def close(self) -> None:
        """Ends every connection. Idempotent."""
        await self._tokens.close()
        await self._wire.close()

    async def open(self, request: Request, pull: Pull, *, allow_405: bool = False) -> Reply:
        """An answer of 200 or 206 (or 405 where that says enough). Raises RegistryError for every other."""
        reply = await self._followed(request, pull)
        if reply.status in _CONTENT or (allow_405 and reply.status == 405):
            return reply
        raise await self._error(reply, pull)

    async def whole(self, request: Request, pull: Pull, *, limit: int) -> Whole:
        """As open, read to its end."""
        return await self._wire.whole(await self.open(request, pull), limit=limit)

    async def _followed(self, request: Request, pull: Pull) -> Reply:
        url = URL(f"{self._url.origin()}{self.prefix}{request.path}", encoded=True)
        if self._namespace:
            url = url.extend_query(ns=self._namespace)
        for _ in range(_HOPS + 1):
            reply = await self._authorized(request, url, pull)
            if reply.status not in _REDIRECTS:
                return reply
            reply.close()
            url = self._target(url, reply.headers.get("Location", ""))
        raise UpstreamBroken(f"the upstream {self._name} sent us on more than {_HOPS} times")

    def _target(self, url: URL, location: str) -> URL:
        try:
            target = url.join(URL(location, encoded=True)).with_fragment(None)
            if not location or target.scheme not in {"http", "https"} or not target.host:
                raise ValueError(location)
            target = target.with_user(None)
        except ValueError:
            raise UpstreamBroken(
                f"the upstream {self._name} sent us to no address that can be asked"
            ) from None
        if url.scheme == "https" and target.scheme == "http":
            raise UpstreamBroken(
                f"the upstream {self._name} sent us from https to plain http at {target.host}: that is refused;"
                " let it send us to an https address"
            )
        return target

    async def _authorized(self, request: Request, url: URL, pull: Pull) -> Reply:
        headers = dict(request.headers)
        if pull.request_id and self._at_home(url):
            headers["X-Request-Id"] = pull.request_id
        credential = pull.right.credential
        if not self._at_home(url):
            return await self._wire.send(request.method, url, headers)
        if credential is not None:
            given = {"Authorization": credential.header} if credential.header else {}
            return await self._wire.send(request.method, url, headers | given)
        return await self._as_ourselves(request.method, url, headers, _purpose(pull))

    async def _as_ourselves(self, method: str, url: URL, headers: Mapping[str, str], purpose: str) -> Reply:
        ticket = await self._authorizer.ticket(purpose)
        shown = {"Authorization": ticket.header} if ticket else {}
        reply = await self._wire.send(method, url, {**headers, **shown})
        if reply.status != 401:
            return reply
        challenges = reply.headers.getall("WWW-Authenticate", ())
        try:
            renewed = await self._authorizer.answer(purpose, challenges, ticket)
        except BaseException:
            reply.close()
            raise
        if renewed is None:
            return reply
        reply.close()
        return await self._wire.send(method, url, {**headers, "Authorization": renewed.header})

    def _at_home(self, url: URL) -> bool:
        return url.origin() == self._url.origin()

    async def _error(self, reply: Reply, pull: Pull) -> RegistryError:
        now = self._clock.time()
        length = reply.headers.get("Content-Range", "").strip().removeprefix("bytes */")
        if reply.status == 416 and length.isascii() and length.isdigit():
            reply.close()
            return RangeInvalid(int(length[:19]))
        home = self._at_home(reply.url)
        try:
            answer = await self._wire.whole(reply, limit=_ERROR_LIMIT)
        except RegistryError:
            answer = Whole(reply.status, reply.headers, b"")  # its status says enough
        if home:
            return refusal(answer, host=self._name, kind=pull.kind, now=now)
        return elsewhere(answer, host=self._name, target=str(reply.url.host), now=now)

    async def _token(
        self, method: str, url: URL, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Whole:
        reply = await self._wire.aside(method, url, headers, form)
        return await self._wire.whole(reply, limit=_TOKEN_LIMIT)


def _purpose(pull: Pull) -> str:
    """Pulls of one purpose get the same challenge."""
    repository = getattr(pull, "repository", None)
    return f"repository {repository}" if repository is not None else pull.kind
