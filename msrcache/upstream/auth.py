"""The service account's Authorization header for the upstream: from what was learned, or from its challenge.

States of one purpose (a repository, the catalog, or nothing in particular):
  unknown    ask without a header; a 401 brings the challenge
  known      Basic: the account's header. Bearer: a token for exactly the realm, service and scope of the challenge
A 401 to a header that was remembered gets one further try with a new token; a 401 to a fresh token, or a
challenge that can't be met, is the upstream's answer. Only the upstream's own origin is ever sent what is
made here: `client` asks for a header for no other (an HTTP library's middleware would run again at every
redirect, and hand it on).
"""

import ipaddress
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from yarl import URL

from msrcache.oci.errors import Unauthorized, UpstreamBroken
from msrcache.upstream.challenge import Challenge, parse_challenges
from msrcache.upstream.settings import UpstreamSettings
from msrcache.upstream.tokens import IDENTITY, Account, TokenKey, Tokens

_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Ticket:
    """A header to send. `fresh`: it was made a moment ago for this very request."""

    header: str = field(repr=False)
    fresh: bool
    key: TokenKey | None = None


class Authorizer:
    """What the service account shows at the upstream."""

    def __init__(self, settings: UpstreamSettings, tokens: Tokens) -> None:
        self._settings = settings
        self._account = Account(settings.username, settings.password)
        self._tokens = tokens
        self._known: OrderedDict[str, Challenge] = OrderedDict()

    async def ticket(self, purpose: str) -> Ticket | None:
        """What to send at once; None where nothing is known yet. Raises as Tokens.get."""
        challenge = self._known.get(purpose)
        return None if challenge is None else await self._ticket(challenge)

    async def answer(self, purpose: str, headers: Sequence[str], used: Ticket | None) -> Ticket | None:
        """What to send after a 401 with these challenges to `used`; None where that 401 is the answer."""
        challenge = self._choose(parse_challenges(headers))
        if challenge is None:
            return None
        known = self._known.get(purpose)
        if used is not None:
            if used.key is not None:
                self._tokens.forget(used.key, used.header.removeprefix("Bearer "))
            same = known is not None and _same(known, challenge)
            if same and (used.fresh or challenge.scheme == "basic"):
                return None
        self._remember(purpose, challenge)
        try:
            return await self._ticket(challenge)
        except Unauthorized as error:
            raise Unauthorized(error.message, tuple(headers)) from None

    def _remember(self, purpose: str, challenge: Challenge) -> None:
        self._known[purpose] = challenge
        self._known.move_to_end(purpose)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    async def _ticket(self, challenge: Challenge) -> Ticket:
        if challenge.scheme == "basic":
            return Ticket(self._account.basic, fresh=False)
        key = TokenKey(challenge.realm, challenge.service, challenge.scope, self._account)
        known = self._tokens.remembered(key)
        if known is not None:
            return Ticket(f"Bearer {known}", fresh=False, key=key)
        return Ticket(f"Bearer {await self._tokens.get(key)}", fresh=True, key=key)

    def _choose(self, challenges: Sequence[Challenge]) -> Challenge | None:
        """Bearer before Basic, which would show the password to every request."""
        for challenge in challenges:
            if challenge.scheme == "bearer" and challenge.realm:
                self._check(challenge.realm)
                return challenge
        named = self._account.username and self._account.username != IDENTITY
        return next((c for c in challenges if c.scheme == "basic" and named), None)

    def _check(self, realm: str) -> None:
        """The account's password would go there. Raises UpstreamBroken where it must not."""
        name = self._settings.name
        try:
            url = URL(realm, encoded=True)
        except ValueError:
            url = URL()
        if url.scheme not in {"http", "https"} or not url.host or url.user is not None:
            raise UpstreamBroken(f"the upstream {name} names a token service that is no URL")
        downgraded = url.scheme == "http" and self._settings.url.startswith("https:")
        if downgraded and not self._settings.skipverify and not _loopback(url.host):
            raise UpstreamBroken(
                f"the upstream {name} is https, but its token service {url.host} is plain http:"
                " no password is sent there"
            )


def _same(one: Challenge, other: Challenge) -> bool:
    return (one.scheme, one.realm, one.service, one.scope) == (
        other.scheme,
        other.realm,
        other.service,
        other.scope,
    )


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
