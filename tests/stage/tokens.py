"""A token server of our own: what MSR's /auth/token is to its clients, for real registries in tests.

JWTs are ES256 with the certificate in x5c, which Docker Registry 2.8 and Distribution 3 both accept. GET
takes Basic credentials or none, POST the password and refresh_token grants. Anybody pulls `public/*`; every
account has all rights to `public/*` and `shared/*`, and to the repositories below its own name.

    python -m tests.stage.tokens --port 7413 --folder /tmp/tokens     # prints the registry's auth section
"""

import argparse
import asyncio
import base64
import contextlib
import hmac
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from tests.stage.certificates import authority
from tests.stage.process import free_port

USERS: Mapping[str, str] = {"alice": "s3cret", "bob": "b0b-pass"}
LIFETIME = 300  # seconds, as most token servers


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class Asked:
    """One question the token server got: by which method and grant, as whom ("" for nobody), for which scopes."""

    method: str
    account: str
    scopes: tuple[str, ...]
    status: int
    grant: str = ""


@dataclass(slots=True)
class TokenServer:
    """A running token server; `ledger` is what it was asked, `fault` a status it answers everything with."""

    port: int
    bundle: Path
    key: ec.EllipticCurvePrivateKey
    service: str = "msr-test"
    issuer: str = "test-issuer"
    lifetime: int = LIFETIME
    users: dict[str, str] = field(default_factory=lambda: dict(USERS))
    ledger: list[Asked] = field(default_factory=list)
    fault: int | None = None
    _refresh: dict[str, str] = field(default_factory=dict)

    @property
    def realm(self) -> str:
        """By name: crane refuses a realm that is a loopback address literal."""
        return f"http://localhost:{self.port}/token"

    def registry_section(self) -> dict[str, object]:
        """The `auth` section of a registry that trusts this server."""
        token = {
            "realm": self.realm,
            "service": self.service,
            "issuer": self.issuer,
            "rootcertbundle": str(self.bundle),
        }
        return {"token": token}

    def allowed(self, account: str, scope: str) -> dict[str, object] | None:
        """The part of a scope that the account ("" for nobody) may have; None where nothing is left."""
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        owner = name.split("/", 1)[0]
        wanted = actions.split(",")
        if kind == "registry":
            granted = wanted if account else []
        elif account and owner in (account, "public", "shared"):
            granted = wanted
        else:
            granted = [action for action in wanted if owner == "public" and action == "pull"]
        return {"type": kind, "name": name, "actions": granted} if granted else None

    def token(self, account: str, scopes: Iterable[str], *, audience: str | None = None) -> str:
        """A signed JWT with what the account may have of the scopes."""
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "sub": account,
            "aud": self.service if audience is None else audience,
            "exp": now + self.lifetime,
            "nbf": now - 10,
            "iat": now,
            "jti": uuid.uuid4().hex,
            "access": [granted for scope in scopes if (granted := self.allowed(account, scope))],
        }
        return self._signed(claims)

    def _signed(self, claims: Mapping[str, object]) -> str:
        certificate = x509.load_pem_x509_certificate(self.bundle.read_bytes())
        der = certificate.public_bytes(serialization.Encoding.DER)
        header = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(der).decode()]}
        message = f"{_b64(json.dumps(header).encode())}.{_b64(json.dumps(claims).encode())}"
        r, s = utils.decode_dss_signature(self.key.sign(message.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{message}.{_b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def _right(self, account: str, password: str) -> bool:
        return hmac.compare_digest(self.users.get(account, "\0").encode(), password.encode())

    async def get(self, request: web.Request) -> web.Response:
        """GET: Basic or anonymous."""
        scopes = tuple(" ".join(request.query.getall("scope", [])).split())
        account, password = _basic(request.headers.get("Authorization"))
        if account and not self._right(account, password):
            return self._answer(request, account, scopes, status=401)
        return self._answer(request, account, scopes, offline=request.query.get("offline_token") == "true")

    async def post(self, request: web.Request) -> web.Response:
        """POST: grant_type password or refresh_token, as OAuth 2 at Docker's."""
        form = {key: str(value) for key, value in (await request.post()).items()}
        scopes, grant = tuple(form.get("scope", "").split()), form.get("grant_type", "")
        if grant == "refresh_token":
            account = self._refresh.get(form.get("refresh_token", ""), "")
            right = bool(account)
        else:
            account = form.get("username", "")
            right = self._right(account, form.get("password", ""))
        if not right:
            return self._answer(request, account, scopes, status=401, grant=grant)
        offline = form.get("access_type") == "offline"
        return self._answer(request, account, scopes, offline=offline, grant=grant)

    def withdraw(self) -> None:
        """No refresh token given so far is good any more."""
        self._refresh.clear()

    def _answer(
        self,
        request: web.Request,
        account: str,
        scopes: tuple[str, ...],
        *,
        status: int = 200,
        offline: bool = False,
        grant: str = "",
    ) -> web.Response:
        status = self.fault or status
        self.ledger.append(Asked(request.method, account, scopes, status, grant))
        if status != 200:
            error = {"code": "UNAUTHORIZED", "message": "wrong account or password"}
            return web.json_response({"errors": [error]}, status=status)
        token = self.token(account, scopes)
        issued = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        body = {"token": token, "access_token": token, "expires_in": self.lifetime, "issued_at": issued}
        if offline and account:
            body["refresh_token"] = uuid.uuid4().hex
            self._refresh[str(body["refresh_token"])] = account
        return web.json_response(body)


def _basic(header: str | None) -> tuple[str, str]:
    if not header or not header.lower().startswith("basic "):
        return "", ""
    account, _, password = base64.b64decode(header[6:]).decode().partition(":")
    return account, password


@contextlib.asynccontextmanager
async def token_server(folder: Path, *, port: int | None = None) -> AsyncIterator[TokenServer]:
    """A token server on loopback, in this process; its certificate is in the folder."""
    ca = authority(folder, "token-signer")
    server = TokenServer(port=port or free_port(), bundle=ca.bundle, key=ca.key)
    app = web.Application()
    app.router.add_get("/token", server.get)
    app.router.add_post("/token", server.post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", server.port).start()
        # `localhost` may mean ::1 first; where the machine has no IPv6 nobody will try it
        with contextlib.suppress(OSError):
            await web.TCPSite(runner, "::1", server.port).start()
        yield server
    finally:
        await runner.cleanup()


async def _serve(port: int, folder: Path) -> None:
    async with token_server(folder, port=port) as server:
        print(json.dumps({"auth": server.registry_section()}, indent=2), flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """The server as a program, until it is interrupted."""
    parser = argparse.ArgumentParser(description="A token server for tests; users: " + ", ".join(USERS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options.port, options.folder))


if __name__ == "__main__":
    main()
