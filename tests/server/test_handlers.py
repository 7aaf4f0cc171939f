"""server.handlers: what each endpoint asks and answers."""

import pytest

from msrcache.oci.digest import Digest
from msrcache.oci.errors import BlobUnknown, Denied, NameUnknown
from msrcache.oci.pulls import Catalog, ManifestPull, Referrers, TagsList
from msrcache.oci.registry import Answer
from msrcache.server.settings import ServerSettings
from tests.stage.serving import Served, serving

INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
DATA = b'{ "schemaVersion": 2,\n "odd":   "spacing" }\n'


async def test_ping(served: Served) -> None:
    """GET and HEAD of /v2/, with and without its slash: 200, {} and the version."""
    client = await served.connect()
    for target in ("/v2/", "/v2"):
        reply = await client.ask(target)
        assert (reply.status, reply.body) == (200, b"{}")
        assert reply["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert (await client.ask("/v2/", method="HEAD")).status == 200
    assert served.registry.ledger == []


@pytest.mark.parametrize("media_type", [INDEX, DOCKER])
async def test_a_manifest_is_as_it_came(served: Served, media_type: str) -> None:
    """Bytes and type as received, whatever Accept says; by tag and by digest, GET and HEAD."""
    digest = served.registry.hold_manifest("v1", DATA, media_type)
    client = await served.connect()
    for reference in ("v1", str(digest)):
        accept = "Accept: application/one, application/two\r\nAccept: application/three\r\n"
        reply = await client.ask(f"/v2/team/app/manifests/{reference}", headers=accept)
        assert (reply.status, reply.body, reply["Content-Type"]) == (200, DATA, media_type)
        assert (reply["Docker-Content-Digest"], reply["ETag"]) == (str(digest), f'"{digest}"')
        head = await client.ask(f"/v2/team/app/manifests/{reference}", method="HEAD")
        assert (head["Content-Length"], head["Docker-Content-Digest"]) == (str(len(DATA)), str(digest))
        assert head["Content-Type"] == media_type
    pull = served.registry.ledger[0]
    assert isinstance(pull, ManifestPull)
    assert pull.accept == ("application/one", "application/two", "application/three")
    assert pull.request_id == served.records.kept[0].request_id


async def test_a_known_manifest_is_not_sent_again(served: Served) -> None:
    """If-None-Match, quoted or not, is 304 for GET and HEAD; another digest gets the manifest."""
    digest = served.registry.hold_manifest("v1", DATA)
    client = await served.connect()
    for method in ("GET", "HEAD"):
        for tag in (f'"{digest}"', str(digest)):
            reply = await client.ask("/v2/a/manifests/v1", method=method, headers=f"If-None-Match: {tag}\r\n")
            assert (reply.status, reply.body) == (304, b"")
    assert (await client.ask("/v2/a/manifests/v1", headers='If-None-Match: "x"\r\n')).body == DATA


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/v2/a/tags/list?n=3&last=x", TagsList),
        ("/v2/_catalog?n=5", Catalog),
        (f"/v2/a/referrers/sha256:{'a' * 64}?artifactType=t", Referrers),
    ],
)
async def test_what_is_not_cached_is_relayed(served: Served, target: str, kind: type) -> None:
    """Status, headers and body of the upstream's answer, for an admitted caller."""
    headers = {"Content-Type": INDEX, "OCI-Filters-Applied": "artifactType", "Content-Length": "99"}
    served.registry.relayed = Answer(200, headers, b'{"manifests":[]}')
    reply = await (await served.connect()).ask(target)
    assert (reply.status, reply.body, reply["Content-Type"]) == (200, b'{"manifests":[]}', INDEX)
    assert reply["OCI-Filters-Applied"] == "artifactType"
    assert isinstance(served.registry.ledger[0], kind)
    assert len(served.gate.callers) == 1


@pytest.mark.parametrize("failure", [Denied("no"), NameUnknown("none"), BlobUnknown("none")])
async def test_who_is_not_admitted_learns_nothing(served: Served, failure: Denied) -> None:
    """The gate's refusal is the whole answer: the registry is not even asked."""
    digest = served.registry.hold(DATA)
    served.gate.failure = failure
    client = await served.connect()
    for target in (f"/v2/a/blobs/{digest}", "/v2/a/manifests/v1", "/v2/a/tags/list"):
        for method in ("GET", "HEAD"):
            reply = await client.ask(target, method=method)
            assert reply.status == failure.status
            assert reply.get("X-Cache") is reply.get("ETag") is reply.get("Docker-Content-Digest") is None
    assert served.registry.ledger == []


async def test_the_credential_reaches_the_gate_and_no_log(served: Served) -> None:
    """The caller carries the Authorization header as it was sent; the access record does not."""
    await (await served.connect()).ask("/v2/", headers="Authorization: Basic c2VjcmV0\r\n")
    assert served.gate.callers[0].credential.header == "Basic c2VjcmV0"
    assert "c2VjcmV0" not in repr(served.records.kept)
    assert served.records.kept[0].caller == "somebody"


async def test_the_registry_is_told_where_a_blob_goes(served: Served) -> None:
    """The client's address stands in the pull: networks may be served in different ways."""
    await (await served.connect()).ask(f"/v2/a/blobs/{Digest.of(DATA)}")
    assert [pull.address for pull in served.registry.ledger] == ["127.0.0.1"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_pushes_are_told_where_to_go(method: str) -> None:
    """405 UNSUPPORTED with the upstream's address."""
    async with serving(ServerSettings(push_to="https://msr.test")) as served:
        reply = await (await served.connect()).ask("/v2/a/blobs/uploads/", method=method)
        assert (reply.status, reply["Allow"]) == (405, "GET, HEAD")
        assert b'"UNSUPPORTED"' in reply.body
        assert b"https://msr.test" in reply.body


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/v2/UPPER/manifests/v1", "NAME_INVALID"),
        ("/v2/a/blobs/sha256:short", "DIGEST_INVALID"),
        ("/v2/a/manifests/-bad", "MANIFEST_UNKNOWN"),
        ("/v2/a/tags/list?n=-1", "PAGINATION_NUMBER_INVALID"),
        ("/v2/nothing", "NAME_UNKNOWN"),
    ],
)
async def test_malformed_pulls(served: Served, target: str, code: str) -> None:
    """The specification's code in JSON, before anybody is asked."""
    reply = await (await served.connect()).ask(target)
    assert 400 <= reply.status < 500
    assert f'"code":"{code}"'.encode() in reply.body
    assert served.gate.callers == []
