"""Who we are towards Azure: an account key, a shared access signature, or an identity that gets tokens.

Rules:
1. azure-identity is imported only for an identity, in a thread, and asked at the first call only.
2. Tokens are renewed by it before they end; the file of a workload identity is read anew, as it rotates.
3. When the service or the token service refuses us, all is made anew (`azuresession`): what was put right (a role, a
   secret in the environment, a new federation) is found without a restart.

Below storage/azure, for its client. Not here: what is signed with them (`azuresigning`).
"""

import asyncio
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from azure.core.credentials import AzureSasCredential

from msrcache.storage.azureparameters import (
    CLIENT_SECRET,
    DEFAULT,
    IDENTITIES,
    MANAGED,
    SHARED_KEY,
    SIGNATURE,
    WORKLOAD,
    AzureParameters,
    Identity,
)

_CLASSES: Final = {
    CLIENT_SECRET: "ClientSecretCredential",
    MANAGED: "ManagedIdentityCredential",
    WORKLOAD: "WorkloadIdentityCredential",
    DEFAULT: "DefaultAzureCredential",
}
_PEOPLE: Final = (
    "cli", "powershell", "developer_cli", "visual_studio_code", "shared_token_cache", "broker",
)  # fmt: skip
"""Where people who develop are signed in; a server is not asked for these, each of which costs seconds."""


def check_installed(identity: Identity) -> None:
    """Raises ModuleNotFoundError where a package is missing that this one needs."""
    if identity.kind in IDENTITIES and find_spec("azure.identity") is None:
        raise ModuleNotFoundError("No module named 'azure.identity'", name="azure-identity")


async def credential(given: AzureParameters, **more: object) -> Any:
    """What the SDK's clients take; `more` is the transport and the like, for those that ask a token service."""
    identity = given.identity
    if identity.kind == SHARED_KEY:
        return {"account_name": given.account, "account_key": identity.key}
    if identity.kind == SIGNATURE:
        return AzureSasCredential(identity.sas)
    module = await asyncio.to_thread(import_module, "azure.identity.aio")
    make = getattr(module, _CLASSES[identity.kind])
    # Reads the environment, and at most the federated token's file.
    return await asyncio.to_thread(make, **_arguments(identity), **more)


def _arguments(identity: Identity) -> Mapping[str, object]:
    """The constructor's own (pure). Token services are asked once, the store above retries; a machine's own endpoint is
    as slow as it says.
    """
    ids = {"client_id": identity.clientid, "tenant_id": identity.tenantid}
    told = {name: value for name, value in ids.items() if value}
    if identity.kind == CLIENT_SECRET:
        return {**told, "client_secret": identity.secret, "retry_total": 0}
    if identity.kind == MANAGED:
        return {"client_id": identity.clientid} if identity.clientid else {}
    if identity.kind == WORKLOAD:
        return {**told, "retry_total": 0}
    excluded: dict[str, object] = {f"exclude_{name}_credential": True for name in _PEOPLE}
    named = (
        {"managed_identity_client_id": identity.clientid, "workload_identity_client_id": identity.clientid}
        if identity.clientid
        else {}
    )
    return {**excluded, **named}
