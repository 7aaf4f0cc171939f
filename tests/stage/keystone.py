"""A small Keystone, versions 2 and 3, as far as the driver's library asks: password, trust, application credential.

Our reading of Keystone's API, checked by OpenStack's own library, which the driver uses. Its tokens are those of the
real Swift that it vouches for, so that what is asked with them is answered.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
from aiohttp import web

USER, PASSWORD, DOMAIN = "cache", "keystone-password", "people"
PROJECT, PROJECT_ID, PROJECT_DOMAIN = "registry", "4711", "projects"
TRUST = "trust-1"
CREDENTIAL, CREDENTIAL_NAME, CREDENTIAL_SECRET = "cred-1", "of-the-cache", "credential-secret"
REGION = "RegionOne"


@dataclass(slots=True)
class Keystone:
    """A running one; `issue` brings a token that the service takes, and where the account is."""

    issue: Callable[[], Any]
    url: str = ""
    life: float = 3600.0
    """Seconds of a token."""
    versions: tuple[str, ...] = ("v3", "v2.0")
    status: int = 0
    """What it answers instead, if anything."""
    before: Callable[[], Any] | None = None
    """Awaited before a token is given."""
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        self.asked.append(f"{request.method} {request.path}")
        if self.status:
            return web.json_response({"error": {"message": "no", "code": self.status}}, status=self.status)
        path = request.path.strip("/")
        if request.method == "GET":
            return self._discovered(path)
        if self.before is not None:
            await self.before()
        body = json.loads(await request.read())
        self.bodies.append(body)
        if path == "v3/auth/tokens" and "v3" in self.versions:
            return await self._version3(body["auth"])
        if path == "v2.0/tokens" and "v2.0" in self.versions:
            return await self._version2(body["auth"])
        return web.json_response({}, status=404)

    def _discovered(self, path: str) -> web.StreamResponse:
        known = {"v3": ("v3.14", "v3"), "v2.0": ("v2.0", "v2.0")}
        values = [
            {
                "id": known[name][0],
                "status": "stable",
                "links": [{"rel": "self", "href": f"{self.url}/{known[name][1]}/"}],
            }
            for name in self.versions
        ]
        if path in self.versions:
            return web.json_response({"version": values[self.versions.index(path)]})
        if path:
            return web.json_response({}, status=404)
        return web.json_response({"versions": {"values": values}}, status=300)

    async def _version3(self, auth: Mapping[str, Any]) -> web.StreamResponse:
        if not _known3(auth["identity"]) or not _scoped3(auth.get("scope"), auth["identity"]["methods"]):
            return web.json_response({"error": {"message": "who?", "code": 401}}, status=401)
        token, url = await self.issue()
        issued, expires = self._times()
        endpoint = {"url": url, "region": REGION, "region_id": REGION, "interface": "public", "id": "e"}
        inside = {**endpoint, "url": url.replace("127.0.0.1", "localhost"), "interface": "internal"}
        catalog = [{"type": "object-store", "name": "swift", "id": "s", "endpoints": [endpoint, inside]}]
        said = {
            "methods": auth["identity"]["methods"],
            "user": {"id": "u", "name": USER, "domain": {"id": "d", "name": DOMAIN}},
            "issued_at": issued,
            "expires_at": expires,
            "catalog": catalog if auth.get("scope") or "application_credential" in auth["identity"] else [],
        }
        return web.json_response({"token": said}, status=201, headers={"X-Subject-Token": token})

    async def _version2(self, auth: Mapping[str, Any]) -> web.StreamResponse:
        named = auth.get("tenantName") == PROJECT or auth.get("tenantId") == PROJECT_ID
        if auth.get("passwordCredentials") != {"username": USER, "password": PASSWORD} or not named:
            return web.json_response({"error": {"message": "who?", "code": 401}}, status=401)
        token, url = await self.issue()
        issued, expires = self._times()
        endpoint = {"publicURL": url, "internalURL": url, "adminURL": url, "region": REGION}
        said = {
            "token": {"id": token, "issued_at": issued, "expires": expires, "tenant": {"id": PROJECT_ID}},
            "user": {"id": "u", "name": USER, "roles": []},
            "serviceCatalog": [{"type": "object-store", "name": "swift", "endpoints": [endpoint]}],
        }
        return web.json_response({"access": said})

    def _times(self) -> tuple[str, str]:
        now = datetime.now(UTC)
        return tuple(  # type: ignore[return-value]  # two
            time.strftime("%Y-%m-%dT%H:%M:%S.%fZ") for time in (now, now + timedelta(seconds=self.life))
        )


def _known3(identity: Mapping[str, Any]) -> bool:
    if identity["methods"] == ["application_credential"]:
        given = identity["application_credential"]
        user = {"name": USER, "domain": {"name": DOMAIN}}
        named = given.get("id") == CREDENTIAL or (given.get("name"), given.get("user")) == (
            CREDENTIAL_NAME,
            user,
        )
        return named and given["secret"] == CREDENTIAL_SECRET
    user = identity["password"]["user"]
    return user == {"name": USER, "password": PASSWORD, "domain": user.get("domain")} and user["domain"] in (
        {"name": DOMAIN},
        {"name": "Default"},
    )


def _scoped3(scope: Mapping[str, Any] | None, methods: list[str]) -> bool:
    if scope is None or methods == ["application_credential"]:
        return scope is None
    if "OS-TRUST:trust" in scope:
        return bool(scope["OS-TRUST:trust"] == {"id": TRUST})
    return scope["project"] in (
        {"id": PROJECT_ID},
        *({"name": PROJECT, "domain": {"name": name}} for name in (PROJECT_DOMAIN, DOMAIN, "Default")),
    )


@asynccontextmanager
async def keystone(authurl: str, user: str, key: str) -> AsyncIterator[Keystone]:
    """One that vouches for a Swift with authentication of its own at `authurl`."""

    async def issue() -> tuple[str, str]:
        headers = {"X-Auth-User": user, "X-Auth-Key": key}
        # A new one each time: what keeps tokens gives the same one again while it lives.
        async with aiohttp.ClientSession() as session, session.get(authurl, headers=headers) as answer:
            return answer.headers["X-Auth-Token"], answer.headers["X-Storage-Url"]

    service = Keystone(issue)
    runner = web.ServerRunner(web.Server(service.serve))
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        service.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield service
    finally:
        await runner.cleanup()
