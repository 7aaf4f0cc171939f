"""The Azure client: with `azuresession`, `azurecredentials` and `azuresigning` all that knows Azure's SDK.

Rules:
1. A request is sent once. Neither the SDK nor its HTTP client repeats one: they cannot know whether a create whose
   reply was lost may be made again. The store above retries. (One exception: a token that the service refuses with
   a challenge is asked for anew, once; nothing has happened then.)
2. Bodies come and go piece by piece. The SDK's own download reads up to 32 MiB into memory and asks for 4 MiB at a
   time after that, its upload reads a part whole: for these two bodies the operations below them are called.

Not here: names and what is asked when (`azurecontainer`), what refusals mean (`azureerrors`).
"""

import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
)
from azure.storage.blob import BlobBlock
from azure.storage.blob._generated.models import ModifiedAccessConditions

from msrcache.storage.azureerrors import (
    NAME,
    Answered,
    CredentialsRefused,
    NoContainer,
    NotImplementedThere,
    Refusal,
    failure,
)
from msrcache.storage.azureparameters import IDENTITIES, AzureParameters
from msrcache.storage.azuresession import AzureSession
from msrcache.storage.azuresituation import Settings
from msrcache.storage.errors import Denied, StorageError, Unavailable
from msrcache.telemetry.logs import get_logger

T = TypeVar("T")

PAGE: Final = 500
"""Names in one answer of a listing: the SDK reads its XML on the loop."""

log = get_logger(__name__)


class AzureClient:
    """Makes the calls, each once, and translates what goes wrong. `key` is for errors, `name` the blob's."""

    def __init__(self, parameters: AzureParameters) -> None:
        self._parameters = parameters
        self._session = AzureSession(parameters)

    def __repr__(self) -> str:
        return f"<AzureClient {self._parameters!r} [{self._session!r}]>"

    async def properties(self, key: str, name: str) -> Mapping[str, str]:
        """Get Blob Properties: the headers."""

        async def ask(container: Any) -> Mapping[str, str]:
            headers: dict[str, str] = {}
            await container.get_blob_client(name).get_blob_properties(raw_response_hook=_noting(headers))
            return headers

        return await self.call("Get Blob Properties", key, ask)

    @asynccontextmanager
    async def body(
        self, key: str, name: str, *, span: str | None, etag: str | None = None
    ) -> AsyncIterator[tuple[Mapping[str, str], aiohttp.ClientResponse]]:
        """Get Blob: its headers and the response whose content is the blob's. `etag` is what it must still be."""

        async def ask(container: Any) -> aiohttp.ClientResponse:
            operations = container.get_blob_client(name)._client.blob  # noqa: SLF001  see rule 2
            same = ModifiedAccessConditions(if_match=etag) if etag else None
            found: aiohttp.ClientResponse = await operations.download(
                range=span, modified_access_conditions=same, cls=_response
            )
            return found

        response = await self.call("Get Blob", key, ask)
        try:
            yield _lower(response.headers), response
        finally:
            # Read to its end, the connection is there for others already; else it must not be read any further.
            response.close()

    async def put(
        self,
        key: str,
        name: str,
        body: bytes | AsyncIterable[bytes | bytearray],
        *,
        size: int,
        md5: bytes,
        conditional: bool,
    ) -> Mapping[str, str]:
        """Put Blob: the whole blob in one request."""

        async def ask(container: Any) -> Mapping[str, str]:
            operations = container.get_blob_client(name)._client.block_blob  # noqa: SLF001  see rule 2
            absent = ModifiedAccessConditions(if_none_match="*") if conditional else None
            headers: Mapping[str, str] = await operations.upload(
                content_length=size,
                body=body,
                transactional_content_md5=bytearray(md5),
                modified_access_conditions=absent,
                cls=_headers,
            )
            return headers

        return await self.call("Put Blob", key, ask, making=True)

    async def stage(
        self, key: str, name: str, block: str, body: AsyncIterable[bytearray], *, size: int, md5: bytes
    ) -> None:
        """Put Block."""

        async def ask(container: Any) -> None:
            blob = container.get_blob_client(name)
            await blob.stage_block(block, body, length=size, transactional_content_md5=bytearray(md5))

        await self.call("Put Block", key, ask, making=True)

    async def commit(
        self, key: str, name: str, blocks: Sequence[str], *, metadata: Mapping[str, str], conditional: bool
    ) -> Mapping[str, str]:
        """Put Block List."""

        async def ask(container: Any) -> Mapping[str, str]:
            # IfMissing alone: with etag="*" beside it the SDK sends an argument that its HTTP client does not know.
            absent = {"match_condition": MatchConditions.IfMissing} if conditional else {}
            headers: dict[str, str] = {}
            await container.get_blob_client(name).commit_block_list(
                [BlobBlock(block_id=block) for block in blocks],
                metadata=dict(metadata),
                raw_response_hook=_noting(headers),
                **absent,
            )
            return headers

        return await self.call("Put Block List", key, ask)

    async def delete(self, key: str, name: str, *, etag: str | None = None) -> None:
        """Delete Blob, its snapshots too; `etag` is what it must still be."""
        same = {"etag": etag, "match_condition": MatchConditions.IfNotModified} if etag else {}

        async def ask(container: Any) -> None:
            await container.get_blob_client(name).delete_blob(delete_snapshots="include", **same)

        await self.call("Delete Blob", key, ask)

    async def delete_many(self, key: str, names: Sequence[str]) -> Sequence[tuple[int, str]]:
        """Blob Batch: for each name the status and the error's code; at most 256 names."""

        async def ask(container: Any) -> Sequence[tuple[int, str]]:
            parts = await container.delete_blobs(
                *names, delete_snapshots="include", raise_on_any_failure=False
            )
            return [
                (part.status_code, part.headers.get("x-ms-error-code", str(part.status_code)))
                async for part in parts
            ]

        return await self.call("Blob Batch", key, ask)

    async def pages(
        self, key: str, prefix: str, *, size: int = PAGE
    ) -> AsyncIterator[Sequence[tuple[str, Any]]]:
        """List Blobs: names with the SDK's properties, in the order of the names, page by page."""
        marker: str | None = ""

        async def ask(container: Any) -> tuple[Sequence[tuple[str, Any]], str | None]:
            pages = container.list_blobs(name_starts_with=prefix, results_per_page=size).by_page(
                marker or None
            )
            page = await anext(pages)
            return [(blob.name, blob) async for blob in page], pages.continuation_token

        while marker is not None:
            found, marker = await self.call("List Blobs", key, ask)
            yield found

    async def delegation_key(self, key: str, start: Any, end: Any) -> Any:
        """Get User Delegation Key: what an identity signs URLs with."""
        clients = await self._session.clients(key)
        return await self._asked(
            "Get User Delegation Key", key, clients.service.get_user_delegation_key(start, end)
        )

    async def settings(self) -> Settings:
        """Of container and account, each as far as we may read it. Raises StorageError where nobody answers."""
        clients = await self._session.clients("")
        headers: dict[str, str] = {}
        account: Mapping[str, str] = {}
        kept = 0
        with suppress(Denied, NotImplementedThere):
            asked = clients.container.get_container_properties(raw_response_hook=_noting(headers))
            await self._asked("Get Container Properties", "", asked)
        with suppress(Denied, NotImplementedThere):
            asked = clients.container.get_account_information()
            account = await self._asked("Get Account Information", "", asked)
        with suppress(Denied, NotImplementedThere):
            asked = clients.service.get_service_properties()
            policy = (await self._asked("Get Service Properties", "", asked))["delete_retention_policy"]
            kept = policy.days or 0 if policy.enabled else 0
        return Settings(container=headers, account=account, kept_days=kept)

    def refused(self, operation: str, key: str, status: int, code: str) -> StorageError:
        """The error for one name of a request that was answered."""
        return failure(self._refusal(operation, key, status, code, {}))

    async def call(
        self, operation: str, key: str, ask: Callable[[Any], Awaitable[T]], *, making: bool = False
    ) -> T:
        """One request; with `making`, a container that is missing may be made first. Raises StorageError."""
        clients = await self._session.clients(key)
        try:
            return await self._asked(operation, key, ask(clients.container))
        except NoContainer:
            if not (making and self._parameters.makes_container):
                raise
        await self._make_container(key, clients.container)
        return await self._asked(operation, key, ask(clients.container))

    async def close(self) -> None:
        """Idempotent; calls under way fail."""
        await self._session.close()

    async def _make_container(self, key: str, container: Any) -> None:
        given = self._parameters
        log.warning(
            "azure: the container is missing and is made", container=given.container, account=given.account
        )

        async def make() -> None:
            try:
                await container.create_container()
            except ResourceExistsError as error:
                if error.response is None or _code(error.response) != "ContainerAlreadyExists":
                    raise

        await self._asked("Create Container", key, make())

    async def _asked(self, operation: str, key: str, request: Awaitable[T]) -> T:
        try:
            return await request
        except (AzureError, aiohttp.ClientError, TimeoutError, OSError) as error:
            failed = self._failed(operation, key, error)
            raise failed from error

    def _failed(self, operation: str, key: str, error: Exception) -> StorageError:
        failed = self._translated(operation, key, error)
        if isinstance(failed, CredentialsRefused):
            self._session.refused()
        return failed

    def _translated(self, operation: str, key: str, error: Exception) -> StorageError:
        response: Any = error.response if isinstance(error, HttpResponseError) else None
        tokens = isinstance(error, ClientAuthenticationError)
        if response is not None and not (tokens and "x-ms-error-code" not in response.headers):
            return self._answered(operation, key, response)
        if tokens:
            text = (
                "no token for the identity: correct storage.azure.credentials, or what the environment gives"
            )
            return CredentialsRefused(NAME, key, _FirstLine(str(error)), text)
        cause = _innermost(error)
        return Unavailable(NAME, key, _cause(cause), f"{operation}: {self._silent(cause)}")

    def _silent(self, cause: BaseException) -> str:
        """Who did not answer, in words."""
        url = self._parameters.url
        if isinstance(cause, aiohttp.ClientConnectorError) and cause.host != urlsplit(url).hostname:
            return f"the token service or proxy at {cause.host} does not answer"
        if isinstance(cause, aiohttp.ClientConnectorDNSError):
            return f"the service at {url} is not known: is storage.azure.accountname right?"
        return f"the service at {url} does not answer"

    def _answered(self, operation: str, key: str, response: Any) -> StorageError:
        headers = _lower(response.headers)
        return failure(self._refusal(operation, key, response.status_code, _code(response), headers))

    def _refusal(
        self, operation: str, key: str, status: int, code: str, headers: Mapping[str, str]
    ) -> Refusal:
        given = self._parameters
        ends = given.identity.ends
        return Refusal(
            operation=operation,
            key=key,
            account=given.account,
            container=given.container,
            identity="identity" if given.identity.kind in IDENTITIES else given.identity.kind,
            code=code,
            status=status,
            headers=headers,
            expired=ends is not None and ends <= time.time(),
        )


class _FirstLine(Exception):
    """What a token service said, in short."""

    def __init__(self, text: str) -> None:
        line = text.strip().splitlines()[0] if text.strip() else ""
        super().__init__(line[:200])


def _response(pipeline: Any, _deserialized: object, _headers: object) -> aiohttp.ClientResponse:
    """The HTTP client's own response: its content is read without the SDK between."""
    found: aiohttp.ClientResponse = pipeline.http_response.internal_response
    return found


def _headers(pipeline: Any, _deserialized: object, _headers: object) -> Mapping[str, str]:
    return _lower(pipeline.http_response.headers)


def _noting(headers: dict[str, str]) -> Callable[[Any], None]:
    """A hook that notes an answer's headers."""
    return lambda pipeline: headers.update(_lower(pipeline.http_response.headers))


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _code(response: Any) -> str:
    return str(response.headers.get("x-ms-error-code") or response.status_code)


def _innermost(error: BaseException) -> BaseException:
    """What the HTTP client said: the SDK wraps it in texts that repeat the URL."""
    inner = getattr(error, "inner_exception", None) or error.__cause__
    if isinstance(error, aiohttp.ClientError) or not isinstance(inner, BaseException):
        return error
    return _innermost(inner)


def _cause(error: BaseException) -> BaseException:
    """What the system said, without addresses."""
    system = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(system, OSError) and system.errno is not None and system.errno < 0:
        return Answered(system.strerror)  # the resolver's, which the kernel's table does not have
    return system
