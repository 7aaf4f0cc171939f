"""The S3 client: the only module that knows Amazon's SDK.

Rules:
1. The client is made at the first call: the SDK's data models are read in a thread, a service that is away costs
   nothing at the start.
2. A request is sent once. Neither the SDK nor its HTTP client repeats one: they cannot know whether a create whose
   reply was lost may be made again. The store above retries.
3. Credentials come from the parameters, else from the SDK's usual chain (environment, shared file, web identity,
   container, instance), which renews what expires; when the service refuses them, the chain is gone through anew.
4. Bodies are signed by the checksum that goes with them; nothing needs a trailer, which look-alikes refuse.

Not here: what is asked (`s3`), what refusals mean (`s3errors`).
"""

import asyncio
import hashlib
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials, create_credential_resolver
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import (
    ConnectionError as EndpointError,
)
from botocore.parsers import ResponseParserError

from msrcache.storage.errors import StorageError, Unavailable, Unusable
from msrcache.storage.s3errors import NAME, Answered, CredentialsRefused, Refusal, failure
from msrcache.storage.s3parameters import S3Parameters
from msrcache.telemetry.logs import get_logger

CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 60.0
CONNECTIONS: Final = 4096
"""More than clients can be waiting for bodies: the listener bounds those."""
AHEAD: Final = 16 << 10
"""Of a body that a slow client takes: one read of the socket (256 kB) lies in memory. With aiohttp's own 64 KiB it is
three; a thousand slow clients took 700 MB instead of 200. Costs 0.1 CPU seconds per GB."""
CHAIN_PAUSE: Final = 5.0
"""Seconds after which a chain that brought nothing is asked again."""

log = get_logger(__name__)


class OnceSession(AIOHTTPSession):  # type: ignore[misc]  # the SDK ships no types
    """Never sends a request again by itself, and reads little ahead.

    There is no public way to either; tests/storage shows that both hold.
    """

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        session._retry_connection = False  # noqa: SLF001
        session._read_bufsize = AHEAD  # noqa: SLF001
        return session


class Chain(AioCredentials):  # type: ignore[misc]  # the SDK ships no types
    """Credentials of the usual chain, looked for when they are needed and again when they were refused."""

    def __init__(self, session: AioSession) -> None:
        super().__init__("", "")
        self.method = "chain"
        self._session = session
        self._found: Any = None
        self._asked: float | None = None
        self._turn = asyncio.Lock()

    async def get_frozen_credentials(self) -> Any:
        """As AioCredentials. Raises NoCredentialsError."""
        async with self._turn:
            if self._found is None:
                self._found = await self._look()
        return await self._found.get_frozen_credentials()

    def forget(self) -> None:
        """They were refused."""
        self._found = None

    async def _look(self) -> Any:
        now = asyncio.get_running_loop().time()
        if self._asked is not None and now - self._asked < CHAIN_PAUSE:
            raise NoCredentialsError
        self._asked = now
        # The files are small, but may lie on a disk that hangs.
        await asyncio.to_thread(self._session.get_scoped_config)
        found = await create_credential_resolver(self._session).load_credentials()
        if found is None:
            raise NoCredentialsError
        return found


class Sdk:
    """The SDK's session with its data models and the credentials; one for a driver and its twins."""

    def __init__(self, given: S3Parameters) -> None:
        self._given = given
        self._session = AioSession()
        self._chain: Chain | None = None
        self._loading = asyncio.Lock()
        self._loaded = False

    async def session(self) -> AioSession:
        """Ready to make clients: what it reads from its files has been read in a thread."""
        async with self._loading:
            if not self._loaded:
                # The chain asks the token service where there is a web identity.
                for service in ("s3",) if self._given.accesskey else ("s3", "sts"):
                    await asyncio.to_thread(self._session.warm_up_loader_caches, service)
                self._identify()
                self._loaded = True
        return self._session

    def forget_credentials(self) -> None:
        """They were refused: where they come from the chain, it is gone through anew."""
        if self._chain is not None:
            self._chain.forget()

    def _identify(self) -> None:
        given = self._given
        if given.accesskey:
            self._session.set_credentials(given.accesskey, given.secretkey, given.sessiontoken or None)
        else:
            self._chain = Chain(self._session)
            self._session._credentials = self._chain  # noqa: SLF001  as set_credentials does, but with a chain


class S3Client:
    """Makes the calls, each once, and translates what goes wrong. `name` is the API's, `key` is for errors."""

    def __init__(self, parameters: S3Parameters, sdk: "Sdk | None" = None) -> None:
        self._parameters = parameters
        self._sdk = sdk or Sdk(parameters)
        self._clients: dict[str, Any] = {}
        """By endpoint; empty is the configured one."""
        self._stack = AsyncExitStack()
        self._making = asyncio.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return f"<S3Client {self._parameters!r} [{len(self._clients)} endpoints]>"

    def twin(self) -> "S3Client":
        """Another with connections of its own; the SDK's models (15 MB) and the credentials are one."""
        return S3Client(self._parameters, self._sdk)

    async def call(self, name: str, key: str, **arguments: object) -> Mapping[str, Any]:
        """One request. Raises StorageError."""
        client = await self._made(key)
        method = getattr(client, _snake(name))
        started = asyncio.get_running_loop().time()
        outcome: object = "cancelled"
        try:
            answer: Mapping[str, Any] = await method(Bucket=self._parameters.bucket, **arguments)
            outcome = answer["ResponseMetadata"]["HTTPStatusCode"]
            return answer
        except (BotoCoreError, ClientError, ResponseParserError, aiohttp.ClientError, TimeoutError) as error:
            failed = self._failed(name, key, error)
            outcome = failed.result
            raise failed from error
        finally:
            if self._parameters.traced:
                seconds = round(asyncio.get_running_loop().time() - started, 4)
                log.info("s3 request", operation=name, key=key, outcome=outcome, seconds=seconds)

    @asynccontextmanager
    async def body(
        self, key: str, **arguments: object
    ) -> AsyncIterator[tuple[Mapping[str, Any], aiohttp.ClientResponse]]:
        """GetObject: its answer and the response whose content is the object's. Raises StorageError."""
        answer = await self.call("GetObject", key, **arguments)
        response: aiohttp.ClientResponse = answer["Body"].raw_stream
        try:
            yield answer, response
        finally:
            # Read to its end, the connection is there for others already; else it must not be read any further.
            response.close()

    async def presigned(self, key: str, *, ttl: float, endpoint: str, **arguments: object) -> str:
        """A URL for GetObject at that endpoint, or at the configured one where it is empty. Raises StorageError."""
        client = await self._made(key, endpoint)
        try:
            url: str = await client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._parameters.bucket, **arguments},
                ExpiresIn=max(1, int(ttl)),
            )
        except (BotoCoreError, ClientError) as error:
            raise self._failed("GetObject", key, error) from error
        return url

    def refused(self, name: str, key: str, details: Mapping[str, Any]) -> StorageError:
        """The error for one key of a request that was answered."""
        code = str(details.get("Code", ""))
        refusal = Refusal(operation=name, key=key, bucket=self._parameters.bucket, code=code, status=0)
        return failure(refusal)

    async def close(self) -> None:
        """Idempotent; calls under way fail."""
        self._closed = True
        await self._stack.aclose()
        self._clients.clear()

    async def _made(self, key: str, endpoint: str = "") -> Any:
        if (client := self._clients.get(endpoint)) is None:
            async with self._making:
                if self._closed:
                    raise StorageError(NAME, key, None, "the driver has been closed")
                if (client := self._clients.get(endpoint)) is None:
                    client = self._clients[endpoint] = await self._make(key, endpoint)
        return client

    async def _make(self, key: str, endpoint: str) -> Any:
        given = self._parameters
        session = await self._sdk.session()
        making = session.create_client(
            "s3",
            region_name=given.region,
            use_ssl=given.secure,
            verify=False if given.skipverify else given.trusted,
            endpoint_url=endpoint or given.regionendpoint or None,
            config=_config(given),
        )
        try:
            client = await self._stack.enter_async_context(making)
        except (BotoCoreError, ValueError, OSError) as error:
            text = f"the client cannot be made from storage.s3's parameters: {error}"
            raise StorageError(NAME, key, None, text) from error
        client.meta.events.register("before-call.s3", _before_call)
        client.meta.events.register_last("before-parameter-build.s3", _stay)
        return client

    def _failed(self, name: str, key: str, error: Exception) -> StorageError:
        if isinstance(error, ClientError):
            failed = failure(self._refusal(name, key, error))
        elif isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
            text = (
                "no credentials: give accesskey and secretkey, or an identity (environment, file, instance)"
            )
            failed = CredentialsRefused(NAME, key, error, text)
        elif isinstance(error, HTTPClientError | EndpointError | aiohttp.ClientError | TimeoutError):
            failed = self._unanswered(name, key, _innermost(error))
        else:
            failed = StorageError(NAME, key, error, f"{name} could not be asked, or its answer not be read")
        if isinstance(failed, CredentialsRefused):
            self._sdk.forget_credentials()
        return failed

    def _unanswered(self, name: str, key: str, cause: BaseException) -> StorageError:
        where = self._parameters.regionendpoint or f"region {self._parameters.region}"
        if isinstance(cause, ssl.SSLCertVerificationError):
            text = f"the certificate of {where} is not trusted ({cause.verify_message}): give its CA as storage.s3.ca"
            return Unusable(NAME, key, None, text)
        if isinstance(cause, ssl.SSLError):
            return Unavailable(NAME, key, None, f"{name}: no TLS with the service at {where}: {cause.reason}")
        return Unavailable(NAME, key, cause, f"{name}: the service at {where} does not answer")

    def _refusal(self, name: str, key: str, error: ClientError) -> Refusal:
        answer = error.response
        metadata = answer.get("ResponseMetadata", {})
        details = answer.get("Error", {})
        return Refusal(
            operation=name,
            key=key,
            bucket=self._parameters.bucket,
            code=str(details.get("Code", "")),
            status=int(metadata.get("HTTPStatusCode", 0)),
            region=self._parameters.region,
            details=details,
            headers=metadata.get("HTTPHeaders", {}),
            cause=Answered(
                f"{metadata.get('HTTPStatusCode', 0)} {details.get('Code')}, {details.get('Message')}"
            ),
        )


def _config(given: S3Parameters) -> AioConfig:
    # The SDK's own choice, auto, would sign URLs for the global endpoint, which knows new buckets late.
    style = "path" if given.forcepathstyle else "virtual"
    return AioConfig(
        http_session_cls=OnceSession,
        signature_version="s3v4" if given.v4auth else "s3",
        user_agent=given.useragent,
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        max_pool_connections=CONNECTIONS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        use_dualstack_endpoint=given.usedualstack,
        use_fips_endpoint=given.usefipsendpoint,
        s3={
            "addressing_style": style,
            "us_east_1_regional_endpoint": "regional",
            "use_accelerate_endpoint": given.accelerate,
            "payload_signing_enabled": False,
        },
    )


def _stay(context: dict[str, Any], **_: object) -> None:
    """A bucket in another region is told, not followed: each call would be made twice, and no presigned URL work."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _before_call(params: dict[str, Any], **_: object) -> None:
    """Take out of a request what look-alikes do not bear."""
    # A service that answers no 100 would be waited for: what is sent here is short enough to be refused afterwards.
    params["headers"].pop("Expect", None)
    checksum = params["context"].get("checksum", {})
    if "request_algorithm" in checksum and isinstance(params["body"], bytes):
        # DeleteObjects must have a checksum; the old one is understood everywhere.
        digest = hashlib.md5(params["body"], usedforsecurity=False).digest()
        params["headers"]["Content-MD5"] = b64encode(digest).decode()
        del checksum["request_algorithm"]
        checksum.pop("request_algorithm_header", None)


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("_")


def _innermost(error: BaseException) -> BaseException:
    """What the system said: the SDK wraps it in texts that repeat the URL."""
    inner = getattr(error, "kwargs", {}).get("error") or error.__cause__
    return _innermost(inner) if isinstance(inner, BaseException) else error
