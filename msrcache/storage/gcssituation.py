"""What an operator should know of a bucket: settings under which a cache breaks, or costs more than it must.

Pure; `gcsbucket` reads the settings, where the account may (storage.buckets.get, which nothing else needs).
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

FIELDS: Final = (
    "location,locationType,storageClass,retentionPolicy,defaultEventBasedHold,billing,lifecycle,versioning,"
    "softDeletePolicy"
)

_OLD_VERSIONS: Final = frozenset({"numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore"})
"""Conditions of a rule that only versions meet which have been replaced."""


def told(bucket: str, settings: Mapping[str, Any]) -> Sequence[str]:
    """The sentences, the worst first."""
    return [*_broken(bucket, settings), *_paid(bucket, settings), _described(bucket, settings)]


def _broken(bucket: str, settings: Mapping[str, Any]) -> Sequence[str]:
    said = []
    if retention := settings.get("retentionPolicy"):
        kept = _days(retention.get("retentionPeriod"))
        said.append(
            f"a retention policy of bucket {bucket} keeps objects for {kept}: links and leases cannot be replaced;"
            " take a bucket without"
        )
    if settings.get("defaultEventBasedHold"):
        said.append(f"bucket {bucket} holds every new object: links and leases cannot be replaced")
    if settings.get("billing", {}).get("requesterPays"):
        said.append(f"bucket {bucket} makes its readers pay, which this cache does not: switch it off")
    if any(_deletes(rule) for rule in settings.get("lifecycle", {}).get("rule", ())):
        said.append(
            f"a lifecycle rule of bucket {bucket} deletes objects: blobs and the links to them go one without the"
            " other; leave it to blobttl"
        )
    return said


def _paid(bucket: str, settings: Mapping[str, Any]) -> Sequence[str]:
    said = []
    if settings.get("versioning", {}).get("enabled"):
        said.append(
            f"bucket {bucket} keeps and bills every version of what is replaced or deleted: switch versioning off"
        )
    kept = settings.get("softDeletePolicy", {}).get("retentionDurationSeconds")
    if kept and int(kept):
        said.append(
            f"soft delete of bucket {bucket} keeps and bills what is replaced or deleted for {_days(kept)}:"
            " --soft-delete-duration 0"
        )
    if (kind := settings.get("storageClass", "STANDARD")) in ("NEARLINE", "COLDLINE", "ARCHIVE"):
        said.append(
            f"each read from storage class {kind} costs, and so does deleting early: STANDARD is for caches"
        )
    return said


def _described(bucket: str, settings: Mapping[str, Any]) -> str:
    where = (
        f"{settings.get('location', 'a place that is not told')} ({settings.get('locationType', 'region')})"
    )
    return f"bucket {bucket} is in {where}, storage class {settings.get('storageClass', 'STANDARD')}"


def _deletes(rule: Mapping[str, Any]) -> bool:
    """Whether the rule deletes what is in use."""
    condition = rule.get("condition", {})
    old = condition.get("isLive") is False or bool(_OLD_VERSIONS & condition.keys())
    return rule.get("action", {}).get("type") == "Delete" and not old


def _days(seconds: object) -> str:
    text = str(seconds)
    return f"{max(1, int(text) // 86_400)} days" if text.isdigit() else "some time"
