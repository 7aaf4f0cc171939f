"""What an operator should know of a container and its account: settings under which a cache breaks, is read by
strangers, or costs more than it must.

Pure; `azureclient` reads them, each where we may: the cache needs none of these rights for anything else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

CUT: Final = (
    "uploads that were cut are never seen, and cost space until Azure drops them, a week after the last block"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What could be read; empty where we may not."""

    container: Mapping[str, str] = field(default_factory=dict)
    """Get Container Properties: headers, in lower case."""
    account: Mapping[str, str] = field(default_factory=dict)
    """Get Account Information: headers without x-ms-, with underscores."""
    kept_days: int = 0
    """For how long the account keeps what was deleted; 0 where it does not, or does not say."""


def told(container: str, settings: Settings, *, both: bool) -> Sequence[str]:
    """The sentences, the worst first. `both`: names with and without the leading slash are there."""
    said = []
    headers, account = settings.container, settings.account
    if access := headers.get("x-ms-blob-public-access"):
        said.append(
            f"container {container} is public ({access}): whoever knows its address reads every blob, whatever the"
            " upstream allows; switch public access off"
        )
    if _is(headers, "x-ms-has-immutability-policy") or _is(headers, "x-ms-has-legal-hold"):
        said.append(
            f"a policy or legal hold of container {container} keeps what is there: links and leases cannot be"
            " replaced; take a container without"
        )
    if str(account.get("is_hns_enabled", "")).lower() == "true":
        said.append(
            "the account has a hierarchical namespace (Data Lake): folders are blobs there, no name begins with a"
            " slash, and nobody has tried a cache on it; take an account without"
        )
    if settings.kept_days:
        said.append(
            f"soft delete keeps and bills what is replaced or deleted for {settings.kept_days} days: links and leases"
            " are replaced often; switch it off for this account"
        )
    if both:
        said.append(
            "content of Docker Registry 2.8 (leading slash) and of version 3 is there: both is served"
        )
    if account:
        said.append(f"the account is {account.get('account_kind')}, {account.get('sku_name')}")
    return [*said, CUT]


def _is(headers: Mapping[str, str], name: str) -> bool:
    return headers.get(name, "").lower() == "true"
