"""server.answers: headers and small bodies."""

import json

import pytest

from msrcache.oci.errors import (
    Denied,
    RangeInvalid,
    RegistryError,
    TooManyRequests,
    Unauthorized,
    UpstreamUnavailable,
)
from msrcache.oci.registry import Answer
from msrcache.server.settings import ServerSettings
from tests.stage.serving import Served, serving


async def test_a_challenge_is_sent_verbatim(served: Served) -> None:
    """Each WWW-Authenticate value is a header of its own, as the upstream wrote it."""
    challenges = ('Bearer realm="https://auth.test/token",service="msr"', 'Basic realm="msr"')
    served.gate.failure = Unauthorized("log in", challenges)
    reply = await (await served.connect()).ask("/v2/")
    assert (reply.status, reply.headers["www-authenticate"]) == (401, list(challenges))


@pytest.mark.parametrize(
    ("error", "name", "value"),
    [
        (TooManyRequests(7), "Retry-After", "7"),
        (UpstreamUnavailable("away", retry_after=2.5), "Retry-After", "3"),
        (RangeInvalid(5), "Content-Range", "bytes */5"),
    ],
)
async def test_errors_have_their_headers(served: Served, error: RegistryError, name: str, value: str) -> None:
    """What an error says in headers goes out with it."""
    served.gate.failure = error
    reply = await (await served.connect()).ask("/v2/")
    assert (reply.status, reply[name]) == (error.status, value)


async def test_an_error_names_its_request(served: Served) -> None:
    """The id is in the detail where there is room, and a shared error is not written into."""
    served.gate.failure = shared = UpstreamUnavailable("away")
    client = await served.connect()
    replies = [await client.ask("/v2/") for _ in range(2)]
    told = [json.loads(reply.body)["errors"][0]["detail"]["request"] for reply in replies]
    assert told == [reply["X-Request-Id"] for reply in replies]
    assert told[0] != told[1]
    assert shared.detail is None
    served.gate.failure = Denied("no", detail={"name": "a"})
    assert json.loads((await client.ask("/v2/")).body)["errors"][0]["detail"] == {"name": "a"}


@pytest.mark.parametrize(
    ("settings", "link"),
    [
        (ServerSettings(), '</v2/a/tags/list?n=2&last=b>; rel="next"'),
        (
            ServerSettings(host="https://cache.test"),
            '<https://cache.test/v2/a/tags/list?n=2&last=b>; rel="next"',
        ),
        (
            ServerSettings(host="https://cache.test", relative_urls=True),
            '</v2/a/tags/list?n=2&last=b>; rel="next"',
        ),
        (ServerSettings(prefix="/r/"), '</r/v2/a/tags/list?n=2&last=b>; rel="next"'),
    ],
)
@pytest.mark.parametrize("upstream", ["", "https://msr.test", "https://msr.test/below"])
async def test_the_next_page_is_here(settings: ServerSettings, link: str, upstream: str) -> None:
    """The upstream's Link to its next page leads through this cache."""
    async with serving(settings) as served:
        given = f'<{upstream}/v2/a/tags/list?n=2&last=b>; rel="next"'
        served.registry.relayed = Answer(
            200, {"Link": given, "Content-Type": "application/json"}, b'{"tags":[]}'
        )
        reply = await (await served.connect()).ask(f"{settings.prefix}v2/a/tags/list?n=2")
        assert (reply.status, reply["Link"], reply.body) == (200, link, b'{"tags":[]}')


async def test_a_link_that_is_none_is_left(served: Served) -> None:
    """What cannot be read is not made worse."""
    served.registry.relayed = Answer(200, {"link": "nonsense"}, b"{}")
    assert (await (await served.connect()).ask("/v2/_catalog"))["Link"] == "nonsense"


async def test_the_namespace_is_echoed(served: Served) -> None:
    """containerd's ?ns= comes back as OCI-Namespace."""
    served.registry.hold_manifest("v1", b"{}")
    reply = await (await served.connect()).ask("/v2/a/manifests/v1?ns=registry.example.test")
    assert reply["OCI-Namespace"] == "registry.example.test"


async def test_what_is_remembered_of_a_head_is_only_what_is_the_same(served: Served) -> None:
    """The same manifest by GET, HEAD, 304, HTTP/1.0 and after a reload: each answer has its own head."""
    served.registry.hold_manifest("v1", b"{}")
    client = await served.connect()
    first, second = [await client.ask("/v2/a/manifests/v1") for _ in range(2)]
    own = {"x-request-id", "date"}
    assert {k: v for k, v in first.headers.items() if k not in own} == {
        k: v for k, v in second.headers.items() if k not in own
    }
    assert first["X-Request-Id"] != second["X-Request-Id"]
    assert len(second.headers["date"]) == 1
    head = await client.ask("/v2/a/manifests/v1", method="HEAD")
    assert (head.status, head["Content-Length"], head.body) == (200, "2", b"")
    known = await client.ask("/v2/a/manifests/v1", headers=f"If-None-Match: {first['ETag']}\r\n")
    assert (known.status, known.body) == (304, b"")
    await served.service.reload(ServerSettings(headers={"X-Site": ("lyon", "paris")}))
    assert (await client.ask("/v2/a/manifests/v1")).headers["x-site"] == ["lyon", "paris"]
    old = await served.connect()
    await old.send("GET /v2/a/manifests/v1 HTTP/1.0\r\nHost: cache.test\r\n\r\n")
    reply = await old.reply()
    assert (reply["Connection"], reply.body) == ("close", b"{}")


async def test_operators_have_the_last_word_on_headers() -> None:
    """http.headers may say another Date, id and server than ours; each is sent once."""
    own = {"Date": ("never",), "x-request-id": ("one", "two"), "Server": ("other",)}
    async with serving(ServerSettings(headers=own)) as served:
        served.registry.hold_manifest("v1", b"{}")
        client = await served.connect()
        for _ in range(2):
            reply = await client.ask("/v2/a/manifests/v1")
            found = {name: reply.headers[name.lower()] for name in own}
            assert found == {name: list(values) for name, values in own.items()}
