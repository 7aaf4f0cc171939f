"""Who we are towards Google Cloud: the only module that knows Google's libraries.

Rules:
1. Credentials come from `credentials` or `keyfile`, else from where Google's programs find them (file of the
   environment, metadata server, workload identity federation). They are looked for at the first request.
2. The libraries block: they run in threads of their own. A token is renewed once, however many wait for it; one that
   is about to end is used while it is renewed.
3. What was refused is forgotten, and looked for anew with the next request, at most once in PAUSE seconds: a new key
   file, account or permission works without a restart.
4. URLs are signed with the private key that we have; without one by the service account's own signBlob, where it may.

Not here: requests for objects (`gcsclient`), what refusals of those mean (`gcserrors`).
"""

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import google.auth
import requests
from google.auth import aws, compute_engine, iam, identity_pool
from google.auth.credentials import Signing, TokenState
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.cloud.storage import Client
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter

from msrcache.storage.errors import StorageError, Unavailable
from msrcache.storage.gcserrors import NAME, Answered, CredentialsRefused
from msrcache.storage.gcsparameters import GcsParameters
from msrcache.telemetry.logs import get_logger

T = TypeVar("T")

STORAGE: Final = "https://www.googleapis.com/auth/devstorage.read_write"
ANYTHING: Final = "https://www.googleapis.com/auth/cloud-platform"
"""What federated and other identities are asked for; what they may is said by their roles."""
PATIENCE: Final = 10.0
"""Seconds for one request to a token service."""
PAUSE: Final = 5.0
"""Seconds after which what failed is tried again."""
NO_SIGNING: Final = 600.0
"""Seconds after which an account that may not sign is asked to sign again."""
SIGNING_AWAY: Final = 30.0
"""The same where it is not known whether it may."""
LONGEST_URL: Final = 604_800
"""Seconds; the service signs for no longer."""

log = get_logger(__name__)


class Impatient(Request):
    """A request of the library's that does not wait for two minutes."""

    def __call__(self, *args: Any, **more: Any) -> Any:
        """As Request."""
        return super().__call__(*args, **{**more, "timeout": PATIENCE})  # type: ignore[no-untyped-call]


class Trusting(HTTPAdapter):
    """Trusts the operator's authority beside the system's."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        """As HTTPAdapter."""
        super().init_poolmanager(*args, **{**more, "ssl_context": self._context})

    def proxy_manager_for(self, *args: Any, **more: Any) -> Any:
        """As HTTPAdapter."""
        return super().proxy_manager_for(*args, **{**more, "ssl_context": self._context})


class SignedThere(Signing):
    """Signs by the service account's own signBlob."""

    def __init__(self, request: Request, credentials: Any, email: str) -> None:
        self._signer = iam.Signer(request, credentials, email)
        self._email = email

    def sign_bytes(self, message: bytes) -> bytes:
        """As Signing."""
        signature: bytes = self._signer.sign(message)
        return signature

    @property
    def signer_email(self) -> str:
        """As Signing."""
        return self._email

    @property
    def signer(self) -> Any:
        """As Signing."""
        return self._signer


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A URL that is to be signed."""

    name: str
    """The object's, in the bucket."""
    ttl: float
    endpoint: str


class Identity:
    """Tokens and signatures."""

    def __init__(self, given: GcsParameters) -> None:
        self._given = given
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="gcs-identity")
        self._session = requests.Session()
        self._request = Impatient(self._session)
        self._credentials: Any = None
        self._renewing: asyncio.Task[None] | None = None
        self._failed: tuple[float, StorageError] | None = None
        self._silent_until = 0.0

    def __repr__(self) -> str:
        return f"<Identity {type(self._credentials).__name__ if self._credentials else 'not looked for'}>"

    async def token(self, key: str) -> str | None:
        """What goes into the Authorization header; None where nothing does. Raises StorageError."""
        if self._given.anonymous:
            return None
        state = TokenState.INVALID if self._credentials is None else self._credentials.token_state
        if state is not TokenState.FRESH:
            renewing = self._renew(key)
            if state is TokenState.INVALID:
                await asyncio.shield(renewing)
        token: str = self._credentials.token
        return token

    def refused(self, token: str | None) -> None:
        """The service did not accept it."""
        if self._credentials is not None and self._credentials.token == token:
            self._credentials = None

    async def url(self, key: str, wanted: Wanted) -> str | None:
        """A URL for GET, signed; None where nobody here can sign. Raises StorageError."""
        loop = asyncio.get_running_loop()
        if self._given.anonymous or loop.time() < self._silent_until:
            return None
        await self.token(key)
        try:
            return await self._threaded(partial(self._sign, self._credentials, wanted))
        except (GoogleAuthError, requests.RequestException) as error:
            # The library's words for an answer of the service; other errors are outages.
            denied = "Error calling the IAM signBlob API" in str(error)
            self._silent_until = loop.time() + (NO_SIGNING if denied else SIGNING_AWAY)
            log.warning(
                "URLs cannot be signed, so hits are streamed through the cache; give a keyfile, or let the service"
                " account sign for itself (iam.serviceAccounts.signBlob)",
                cause=_first(error),
            )
            return None

    async def close(self) -> None:
        """Idempotent. Threads that wait for a token service end with its time-out."""
        if self._renewing is not None:
            self._renewing.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._session.close()

    def _renew(self, key: str) -> "asyncio.Task[None]":
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renewed(key))
            self._renewing.add_done_callback(_told)
        return self._renewing

    async def _renewed(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        if self._failed is not None and loop.time() < self._failed[0]:
            raise self._failed[1]
        try:
            self._credentials = await self._threaded(partial(self._refreshed, self._credentials))
        except (GoogleAuthError, requests.RequestException, OSError, ValueError) as error:
            failed = translated(key, error)
            self._failed = (loop.time() + PAUSE, failed)
            if isinstance(failed, CredentialsRefused):
                self._credentials = None
            raise failed from error
        self._failed = None

    def _refreshed(self, credentials: Any) -> Any:
        """In a thread."""
        if credentials is None:
            if self._given.trusted is not None:
                self._session.mount("https://", Trusting(trust(self._given.trusted)))
            credentials = found(self._given, self._request)
        credentials.refresh(self._request)
        return credentials

    def _sign(self, credentials: Any, wanted: Wanted) -> str | None:
        """In a thread."""
        signing = self._signing(credentials)
        if signing is None:
            return None
        client = Client(project="none", credentials=credentials)
        try:
            blob = client.bucket(self._given.bucket).blob(wanted.name)
            url: str = blob.generate_signed_url(
                version="v4",
                method="GET",
                expiration=timedelta(seconds=min(LONGEST_URL, max(1, int(wanted.ttl)))),
                api_access_endpoint=wanted.endpoint.rstrip("/"),
                credentials=signing,
            )
        finally:
            client.close()
        return url

    def _signing(self, credentials: Any) -> Any:
        if isinstance(credentials, Signing) and not isinstance(credentials, compute_engine.Credentials):
            return credentials
        email = getattr(credentials, "service_account_email", None)
        return SignedThere(self._request, credentials, email) if email else None

    async def _threaded(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def found(given: GcsParameters, request: Request) -> Any:
    """The credentials, without a token yet. Blocks; raises GoogleAuthError, OSError, ValueError."""
    if not given.keyfile and not given.credentials:
        return google.auth.default(scopes=[ANYTHING], request=request)[0]
    info = given.credentials or json.loads(Path(given.keyfile).read_bytes())
    kind = info.get("type", "nothing") if isinstance(info, Mapping) else "nothing"
    if kind == "service_account":
        return service_account.Credentials.from_service_account_info(dict(info), scopes=[STORAGE])
    if kind == "external_account":
        return _federated(info)
    raise ValueError(f"it is of type {kind}; it should be service_account or external_account")


def _federated(info: Mapping[str, Any]) -> Any:
    subject = str(info.get("subject_token_type", ""))
    kind: Any = aws.Credentials if subject.endswith("aws4_request") else identity_pool.Credentials
    return kind.from_info(dict(info), scopes=[ANYTHING])


def translated(key: str, error: Exception) -> StorageError:
    """What a failed search or renewal means (pure)."""
    said = str(error)
    if isinstance(error, TransportError | requests.RequestException) or getattr(error, "retryable", False):
        return Unavailable(NAME, key, error, "no token: the token service or metadata server does not answer")
    if isinstance(error, OSError | ValueError):
        text = "storage.gcs.keyfile or credentials cannot be used"
    elif isinstance(error, DefaultCredentialsError):
        text = "no credentials: give keyfile or credentials, or run with an identity (workload identity, environment)"
    elif "reasonable timeframe" in said or "Token used too" in said:
        text = "this machine's clock is wrong: the token service refuses the time of our question"
    elif "Invalid JWT Signature" in said:
        text = "the key is not the account's, or no longer: it was deleted or has expired; give a new keyfile"
    elif "account not found" in said:
        text = "the service account is not there any more; give another keyfile"
    elif "invalid_grant" in said:
        text = "the token service refuses the credentials; give others, or look at the account"
    else:
        text = "no token was given for the credentials"
    cause = error if isinstance(error, OSError) and error.errno else Answered(_first(error))
    return CredentialsRefused(NAME, key, cause, text)


def _first(error: Exception) -> str:
    """The error's own sentence, in one line: the library appends whole answers."""
    said = error.args[0] if error.args else str(error)
    return " ".join(str(said).split())[:200]


def trust(authorities: str | None) -> ssl.SSLContext:
    """The system's authorities, and those of that file. Blocks; raises OSError."""
    context = ssl.create_default_context()
    if authorities is not None:
        context.load_verify_locations(authorities)
    return context


def _told(task: "asyncio.Future[Any]") -> None:
    """Its error was told to whoever waited."""
    if not task.cancelled():
        task.exception()
