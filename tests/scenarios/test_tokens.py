"""The service account's token: fetched once, renewed when it ends in the middle of a pull."""

import asyncio
import json
from pathlib import Path

from tests.scenarios.plays import cache, pull, pulling, settled
from tests.stage.images import noise
from tests.stage.scripted import Hold, Request, Scripted, Turn, scripted

DATA = noise(200_000, 7)
K = 80_000


class Tokens:
    """A guard that asks for a Bearer token, and a token service that numbers those it gives."""

    def __init__(self, upstream: Scripted, service: Scripted) -> None:
        self.given = 0
        self.valid = set[str]()
        challenge = f'Bearer realm="{service.url}/token",service="registry",scope="repository:team/app:pull"'
        self._challenge = Turn(status=401, body=b"{}", headers=(("WWW-Authenticate", challenge),))
        upstream.guard = self._guard
        service.guard = self._give

    def _guard(self, request: Request) -> Turn | None:
        return None if request.authorization.removeprefix("Bearer ") in self.valid else self._challenge

    def _give(self, _request: Request) -> Turn:
        self.given += 1
        token = f"token-{self.given}"
        self.valid.add(token)
        body = json.dumps({"token": token, "expires_in": 300}).encode()
        return Turn(body=body, headers=(("Content-Type", "application/json"),))


async def test_a_herd_costs_one_token(tmp_path: Path) -> None:
    """Ten cold pulls of ten blobs at once: one question to the token service."""
    async with scripted() as upstream, scripted() as service, cache(tmp_path, upstream) as application:
        tokens = Tokens(upstream, service)
        blobs = [noise(1000, 100 + n) for n in range(10)]
        paths = [upstream.publish_blob(data) for data in blobs]
        answers = await asyncio.gather(*(pull(application, path) for path in paths))
        assert [answer.body for answer in answers] == blobs
        assert tokens.given == 1


async def test_a_token_that_ends_in_mid_pull_is_renewed(tmp_path: Path) -> None:
    """The body breaks at byte k and the token is no longer taken: a new one is fetched, the rest comes by Range."""
    async with scripted() as upstream, scripted() as service, cache(tmp_path, upstream) as application:
        tokens = Tokens(upstream, service)
        path = upstream.publish_blob(DATA)
        hold = Hold(K - 1000)
        upstream.script(path, Turn(hold=hold, cut=K))
        async with pulling(application, path) as client:
            assert await client.take(K - 1000) == DATA[: K - 1000]
            tokens.valid.clear()
            hold.go.set()
            assert await client.rest() == DATA[K - 1000 :]
        await settled(application)
        assert tokens.given == 2
        whole, part = f"GET {path}", f"GET {path} bytes={K}-"
        assert upstream.lines == [whole, whole, part, part]
