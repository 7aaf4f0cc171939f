"""A Google service account, and the services that know it: tokens, signBlob, the metadata server, federation.

As Google's documentation has them; what is signed is verified. For `gcsfront`, which has the ledger.
"""

import json
import time
from base64 import b64decode, b64encode, urlsafe_b64decode
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

EMAIL = "cache@project.iam.gserviceaccount.example"
SUBJECT = "subject-token-of-a-workload"
METADATA = "/computeMetadata/v1/"

Turn = Callable[[str], web.Response | None]


class Account:
    """A service account with a private key."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def info(self, token_uri: str) -> dict[str, object]:
        """What stands in its key file."""
        pem = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return {
            "type": "service_account",
            "project_id": "project",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": EMAIL,
            "token_uri": token_uri,
        }

    def signed(self, signature: bytes, message: bytes) -> bool:
        """Whether it has."""
        try:
            self.key.public_key().verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True

    def sign(self, message: bytes) -> bytes:
        """Its signature."""
        return self.key.sign(message, padding.PKCS1v15(), hashes.SHA256())


@cache
def account() -> Account:
    """One for all: a key takes its time."""
    return Account()


@dataclass(slots=True)
class Tokens:
    """Who gives tokens, and which were given."""

    account: Account = field(default_factory=account)
    given: set[str] = field(default_factory=set)
    count: int = 0
    lifetime: int = 3600

    async def serve(self, request: web.BaseRequest, said: Turn) -> web.StreamResponse | None:
        """Answer one request; None where it is none of these."""
        path = request.path
        if path == "/token":
            return said("token") or self._token(dict(parse_qsl(await request.text())))
        if path.endswith(":generateAccessToken"):
            return said("impersonate") or self._impersonated()
        if path.endswith(":signBlob"):
            return said("sign") or self._signed(await request.json())
        if path == "/" or path.startswith(METADATA):
            return self._metadata(path.removeprefix(METADATA), said)
        return None

    def _token(self, form: dict[str, str]) -> web.Response:
        if "subject_token" in form:
            right = form["subject_token"] == SUBJECT
            return self._another() if right else denied("invalid_grant", "The subject token is not valid.")
        message, _, signature = form.get("assertion", "..").rpartition(".")
        claims = json.loads(_decoded(message.rpartition(".")[2]) or b"{}")
        if not self.account.signed(_decoded(signature), message.encode()):
            return denied("invalid_grant", "Invalid JWT Signature.")
        if not claims["iat"] - 300 <= time.time() < claims["exp"]:
            text = (
                "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
            )
            return denied("invalid_grant", text)
        return self._another()

    def _new(self) -> str:
        self.count += 1
        token = f"token-{self.count}"
        self.given.add(token)
        return token

    def _impersonated(self) -> web.Response:
        until = datetime.now(UTC) + timedelta(seconds=self.lifetime)
        told = {"accessToken": self._new(), "expireTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")}
        return web.json_response(told)

    def _another(self) -> web.Response:
        return web.json_response(
            {
                "access_token": self._new(),
                "expires_in": self.lifetime,
                "token_type": "Bearer",
                "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            }
        )

    def _signed(self, asked: dict[str, Any]) -> web.Response:
        signature = self.account.sign(b64decode(asked["payload"]))
        return web.json_response({"keyId": "1", "signedBlob": b64encode(signature).decode()})

    def _metadata(self, path: str, said: Turn) -> web.Response:
        if path.endswith("/token"):
            answer = said("token") or self._another()
        elif path.startswith("instance/service-accounts/"):
            answer = web.json_response({"email": EMAIL, "scopes": [], "aliases": ["default"]})
        else:
            answer = web.Response(status=200 if path == "/" else 404)
        answer.headers["Metadata-Flavor"] = "Google"
        return answer


def denied(error: str, description: str) -> web.Response:
    """As token services refuse."""
    return web.json_response({"error": error, "error_description": description}, status=400)


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
