"""server.middleware: errors, metrics and the access log, in one place."""

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from msrcache.oci.errors import UpstreamBroken
from msrcache.oci.pulls import Pull
from msrcache.telemetry.accesslog import json_line
from tests.stage.serving import Served, until


async def test_what_nobody_expected(served: Served) -> None:
    """A bug is 500 UNKNOWN with the request's id, logged once with its traceback; the answer tells nothing of it."""
    served.registry.failure = RuntimeError("secret of the house")
    with capture_logs() as logs:
        reply = await (await served.connect()).ask("/v2/a/manifests/v1")
    error = json.loads(reply.body)["errors"][0]
    assert (reply.status, error["code"], error["detail"]["request"]) == (
        500,
        "UNKNOWN",
        reply["X-Request-Id"],
    )
    assert b"secret" not in reply.body
    told = [entry for entry in logs if entry["log_level"] == "error"]
    assert len(told) == 1
    assert told[0]["exc_info"]
    assert served.count("pulls_total", kind="manifest", outcome="none", status="500") == 1


async def test_an_expected_error_has_no_traceback(served: Served) -> None:
    """A broken upstream is an answer, not a bug."""
    served.registry.failure = UpstreamBroken("msr.test gave HTML instead of a manifest")
    with capture_logs() as logs:
        reply = await (await served.connect()).ask("/v2/a/manifests/v1")
    assert (reply.status, b"msr.test" in reply.body) == (502, True)
    assert not [entry for entry in logs if entry.get("exc_info")]


async def test_every_request_is_counted_and_logged(served: Served) -> None:
    """One record and one sample for each, with what they were about."""
    digest = served.registry.hold(b"x" * 5000)
    served.registry.hold_manifest("v1", b"{}")
    client = await served.connect()
    agent = "User-Agent: docker/28\r\nReferer: https://a.test/\r\n"
    await client.ask("/v2/team/app/manifests/v1?ns=a.test", headers=agent)
    await client.ask(f"/v2/team/app/blobs/{digest}")
    await client.ask("/v2/team/app/manifests/absent", method="HEAD")
    manifest, blob, absent = served.records.kept
    assert (manifest.repository, manifest.reference, manifest.outcome) == ("team/app", "v1", "hit")
    assert (manifest.method, manifest.path) == ("GET", "/v2/team/app/manifests/v1?ns=a.test")
    assert (manifest.user_agent, manifest.referer, manifest.protocol) == (
        "docker/28",
        "https://a.test/",
        "HTTP/1.1",
    )
    assert (blob.reference, blob.bytes_sent, blob.status) == (str(digest), 5000, 200)
    assert blob.first_byte is not None
    assert 0 <= blob.first_byte <= blob.duration
    assert (absent.status, absent.bytes_sent, absent.outcome) == (404, 0, "")
    assert json.loads(json_line(blob))["outcome"] == "hit"
    assert served.count("pulls_total", kind="manifest", outcome="hit", status="200") == 1
    assert served.count("pulls_total", kind="manifest", outcome="none", status="404") == 1
    assert served.count("bytes_total", outcome="hit") == 5002
    assert served.count("first_byte_seconds_count", kind="blob", outcome="hit") == 1
    assert served.count("pull_seconds_count", kind="blob", outcome="hit") == 1


async def test_probes_do_not_fill_the_log(served: Served) -> None:
    """Health and metrics are silent while all is well."""
    client = await served.connect()
    for target in ("/", "/readyz", "/healthz", "/metrics"):
        assert (await client.ask(target)).status == 200
    assert served.records.kept == []
    assert (await client.ask("/absent")).status == 404
    assert [record.path for record in served.records.kept] == ["/absent"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_who_leaves_before_the_answer_is_499(served: Served, method: str) -> None:
    """The question is given up when its client has gone, and the log says so."""
    asked, given_up = asyncio.Event(), asyncio.Event()

    async def before(_: Pull) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    served.registry.before = before
    client = await served.connect()
    await client.send(f"{method} /v2/a/manifests/v1 HTTP/1.1\r\nHost: a\r\n\r\n")
    await asked.wait()
    await client.close()
    await given_up.wait()
    await until(lambda: bool(served.records.kept))
    assert served.records.kept[0].status == 499
