"""What is told of a bucket: what breaks a cache, what costs, and where it is; nothing where all is well."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from msrcache.storage.gcssituation import told
from tests.stage.gcsfront import NEEDED
from tests.stage.gcsservices import RunningGcs, fakegcs

PLAIN = {"location": "EUROPE-WEST3", "locationType": "region", "storageClass": "STANDARD"}
DELETE = {"type": "Delete"}


def test_a_plain_bucket_is_described() -> None:
    """And no more."""
    assert told("cache", PLAIN) == ["bucket cache is in EUROPE-WEST3 (region), storage class STANDARD"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"retentionPolicy": {"retentionPeriod": "604800"}},
            "keeps objects for 7 days: links and leases cannot",
        ),
        ({"defaultEventBasedHold": True}, "holds every new object"),
        ({"billing": {"requesterPays": True}}, "makes its readers pay"),
        ({"lifecycle": {"rule": [{"action": DELETE, "condition": {"age": 30}}]}}, "leave it to blobttl"),
        ({"lifecycle": {"rule": [{"action": DELETE, "condition": {"isLive": False, "age": 1}}]}}, None),
        ({"lifecycle": {"rule": [{"action": DELETE, "condition": {"daysSinceNoncurrentTime": 1}}]}}, None),
        ({"lifecycle": {"rule": [{"action": {"type": "AbortIncompleteMultipartUpload"}}]}}, None),
        ({"versioning": {"enabled": True}}, "switch versioning off"),
        ({"versioning": {"enabled": False}}, None),
        (
            {"softDeletePolicy": {"retentionDurationSeconds": "604800"}},
            "for 7 days: --soft-delete-duration 0",
        ),
        ({"softDeletePolicy": {"retentionDurationSeconds": "0"}}, None),
        ({"storageClass": "COLDLINE"}, "each read from storage class COLDLINE costs"),
    ],
)
def test_what_should_be_otherwise_is_told(settings: dict[str, Any], words: str | None) -> None:
    """One sentence each, before the description."""
    *said, _ = told("cache", PLAIN | settings)
    assert len(said) == (words is not None)
    assert (words or "") in "".join(said)


def test_what_breaks_comes_first() -> None:
    """What costs after it."""
    settings = PLAIN | {"versioning": {"enabled": True}, "defaultEventBasedHold": True}
    assert [line.split(" ")[2] for line in told("cache", settings)] == ["holds", "keeps", "is"]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[RunningGcs]:
    """The service with a bucket that keeps versions."""
    async with fakegcs(tmp_path / "gcs") as running:
        await running.make_bucket("versions", versioning={"enabled": True})
        yield running


@pytest.mark.real
async def test_the_settings_are_read_where_they_may_be(service: RunningGcs) -> None:
    """Without the permission, which the cache does not need, that is all that is said."""
    driver = service.driver("versions")
    assert "switch versioning off" in (await driver.situation())[0]
    service.front.allowed = set(NEEDED.values()) - {"storage.buckets.get"}
    assert "needs storage.buckets.get" in (await driver.situation())[0]
    await driver.close()
