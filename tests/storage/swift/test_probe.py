"""The probe on a real Swift: everything is kept but exclusive creates, which are not claimed; nothing stays."""

import json
import sys
from pathlib import Path

import pytest

from msrcache.storage.probe import Report, Verdict, probe
from msrcache.storage.promises_large import PROMISES
from msrcache.storage.swift import Swift
from msrcache.storage.swiftparameters import parameters
from msrcache.storage.watched import Ledger
from msrcache.telemetry.clock import SystemClock
from tests.stage.clients import ran
from tests.stage.swiftservices import GUEST, GUEST_KEY, STRANGER, STRANGER_KEY, RunningSwift

pytestmark = pytest.mark.real


async def probed(here: Swift) -> Report:
    """A probe between a driver and its twin."""
    there, ledger = here.twin(), Ledger(SystemClock(), 10.0)
    try:
        return await probe(here, there, PROMISES, prefix="msrcache/probe/0123", ledger=ledger)
    finally:
        await there.close()
        await here.close()


def verdicts(report: Report) -> dict[str, Verdict]:
    """What was not kept."""
    return {row.promise.name: row.verdict for row in report.rows if row.verdict is not Verdict.KEPT}


async def test_a_real_service_keeps_everything_but_one(swift_service: RunningSwift, container: str) -> None:
    """URLs and the clock too; the container is as empty as before. The key that signs stands there already."""
    await swift_service.ask("POST", f"/{container}", headers={"X-Container-Meta-Temp-URL-Key": "signs"})
    report = await probed(swift_service.driver(container, secretkey="signs"))
    assert verdicts(report) == {"exclusive-create": Verdict.UNCLAIMED}
    assert (report.status, list(report.left)) == (0, [])
    assert await swift_service.names(container) == []
    assert all(permission.allowed for permission in report.permissions)


async def test_the_least_rights_suffice(swift_service: RunningSwift, container: str) -> None:
    """A user whom only the container's two ACLs name, as docs/storage.md says; without a key there are no URLs."""
    for header, acl in (("Read", f"{GUEST},.rlistings"), ("Write", GUEST)):
        await swift_service.ask("POST", f"/{container}", headers={f"X-Container-{header}": acl})
    guest = swift_service.settings(container) | {"username": GUEST, "password": GUEST_KEY}
    report = await probed(Swift(parameters(guest)))
    assert verdicts(report) == {"exclusive-create": Verdict.UNCLAIMED, "presign": Verdict.UNCLAIMED}
    assert all(permission.allowed for permission in report.permissions)


async def test_what_is_not_allowed_is_named(swift_service: RunningSwift, container: str) -> None:
    """A user whom nothing names."""
    stranger = swift_service.settings(container) | {"username": STRANGER, "password": STRANGER_KEY}
    report = await probed(Swift(parameters(stranger)))
    assert report.status == 2
    assert set(verdicts(report).values()) <= {Verdict.DENIED, Verdict.UNCLAIMED}
    denied = [permission for permission in report.permissions if permission.allowed is False]
    assert {"open", "put", "commit", "sweep"} <= {permission.operation for permission in denied}
    assert all("ACL name it" in permission.said for permission in denied)


async def test_check_storage_says_it_in_words(
    tmp_path: Path, swift_service: RunningSwift, container: str
) -> None:
    """As the operator runs it: every promise, the one that is not made, and where the store stands."""
    config = {
        "version": "0.1",
        "storage": {"swift": swift_service.settings(container, secretkey="signs")},
        "cache": {"upstreams": [{"url": "http://127.0.0.1:1"}], "spool": {"path": str(tmp_path / "spool")}},
    }
    path = tmp_path / "config.yml"
    path.write_text(json.dumps(config))
    said = await ran(sys.executable, "-m", "msrcache", "check-storage", path)
    assert "creates are not exclusive here" in said.out
    assert "Swift 2.38" in said.out
    assert "not kept" not in said.out
