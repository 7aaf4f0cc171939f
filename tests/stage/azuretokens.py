"""What gives identities their tokens: a token service as Entra's for applications and federated workloads, and the
endpoint of a managed identity. Small and real: HTTP, forms, refusals; the tokens are what Azurite takes for true.
"""

import base64
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.stage.certificates import Authority

TENANT = "11111111-1111-1111-1111-111111111111"
CLIENT = "22222222-2222-2222-2222-222222222222"
SECRET = "app-secret"
HEADER = "identity-header"


@dataclass(slots=True)
class AzureTokens:
    """A running token service; `url` is its address."""

    url: str = ""
    ledger: list[str] = field(default_factory=list)
    """What tokens were asked for with."""
    life: int = 3600
    """Seconds that a token is said to be good for; the service takes it longer."""
    audience: str = "https://storage.azure.com"
    """Whom its tokens are for; any other the service refuses."""
    assertion: str = ""
    """The federated token that is known."""

    async def application(self, request: web.Request) -> web.Response:
        """POST /<tenant>/oauth2/v2.0/token."""
        form = await request.post()
        assertion = str(form.get("client_assertion", ""))
        self.ledger.append(f"assertion {assertion}" if assertion else "secret")
        known = assertion == self.assertion if assertion else form.get("client_secret") == SECRET
        if not known or request.match_info["tenant"] != TENANT or form.get("client_id") != CLIENT:
            told = {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret."}
            return web.json_response(told, status=401)
        return web.json_response(
            {"token_type": "Bearer", "expires_in": self.life, "access_token": self._token()}
        )

    async def managed(self, request: web.Request) -> web.Response:
        """GET /identity, as on App Service and Container Apps."""
        self.ledger.append(f"managed {request.query.get('client_id', 'system')}")
        if request.headers.get("X-IDENTITY-HEADER") != HEADER:
            return web.json_response({"message": "no such identity"}, status=401)
        ends = str(int(time.time()) + self.life)
        told = {"access_token": self._token(), "expires_on": ends, "resource": request.query["resource"]}
        return web.json_response({**told, "token_type": "Bearer"})

    def _token(self) -> str:
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": f"https://sts.windows.net/{TENANT}/",
            "aud": self.audience,
            "oid": CLIENT,
        }
        claims |= {"nbf": now - 60, "iat": now - 60, "exp": now + 3600, "tid": TENANT}
        return ".".join(_part(part) for part in ({"alg": "none", "typ": "JWT"}, claims)) + "."


@asynccontextmanager
async def azure_tokens(authority: Authority) -> AsyncIterator[AzureTokens]:
    """A token service on a free port of the loopback, by TLS, known as localhost."""
    service = AzureTokens()
    application = web.Application()
    application.router.add_post("/{tenant}/oauth2/v2.0/token", service.application)
    application.router.add_get("/identity", service.managed)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        pair = authority.issue("tokens")
        context.load_cert_chain(pair.certificate, pair.key)
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        service.url = f"https://localhost:{runner.addresses[0][1]}"
        yield service
    finally:
        await runner.cleanup()


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
