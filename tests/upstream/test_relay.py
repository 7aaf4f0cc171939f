"""What is not cached is asked as it was asked of us, and nothing leads the client past the cache."""

import pytest

from msrcache.oci.digest import Digest
from msrcache.oci.errors import NameUnknown, UpstreamBroken
from msrcache.oci.pulls import Catalog, Ping, Referrers, Relayed, TagsList
from msrcache.upstream.relay import local_link, relay_path
from tests.upstream.played import REPOSITORY, Say, played, upstream

DIGEST = Digest.of(b"x")


@pytest.mark.parametrize(
    ("pull", "path"),
    [
        (Ping(), "/v2/"),
        (TagsList(repository=REPOSITORY), "/v2/team/app/tags/list"),
        (TagsList(repository=REPOSITORY, n=0, last="a&b"), "/v2/team/app/tags/list?n=0&last=a%26b"),
        (
            TagsList(repository=REPOSITORY, n=1, rest=(("a b", "c&d"),)),
            "/v2/team/app/tags/list?n=1&a%20b=c%26d",
        ),
        (Catalog(n=5), "/v2/_catalog?n=5"),
        (Referrers(repository=REPOSITORY, digest=DIGEST), f"/v2/team/app/referrers/{DIGEST}"),
        (
            Referrers(repository=REPOSITORY, digest=DIGEST, artifact_type="a/b+c"),
            f"/v2/team/app/referrers/{DIGEST}?artifactType=a%2Fb%2Bc",
        ),
    ],
)
async def test_the_same_question(pull: Relayed, path: str) -> None:
    """Each kind arrives at its path, its parameters encoded."""
    assert relay_path(pull) == path
    async with played(lambda _: Say(body=b"{}")) as server, upstream(server) as client:
        assert (await client.relay(pull)).body == b"{}"
        assert server.asked() == [f"GET {path}"]


async def test_what_is_passed_on() -> None:
    """Bytes, type, filters and a Link below our own /v2/; not the upstream's other headers."""
    said = Say(
        body=b'{"tags": []}',
        headers=(
            ("Content-Type", "application/json; charset=utf-8"),
            ("Link", '<https://elsewhere.example/pre/v2/team/app/tags/list?last=b&n=2>; rel="next"'),
            ("OCI-Filters-Applied", "artifactType"),
            ("Set-Cookie", "a=b"),
            ("Server", "x"),
        ),
    )
    async with played(lambda _: said) as server, upstream(server, url=server.url + "/pre/") as client:
        answer = await client.relay(TagsList(repository=REPOSITORY))
        assert server.asked() == ["GET /pre/v2/team/app/tags/list"]
    assert (answer.status, answer.body) == (200, b'{"tags": []}')
    assert dict(answer.headers) == {
        "Content-Type": "application/json; charset=utf-8",
        "OCI-Filters-Applied": "artifactType",
        "Link": '</v2/team/app/tags/list?last=b&n=2>; rel="next"',
    }


@pytest.mark.parametrize("text", ["", "nonsense", "</other/path>; rel=next", "<http://[/v2/>", "<v2/x>"])
def test_a_link_that_leads_nowhere_is_left_out(text: str) -> None:
    """Only what is below /v2/ can be asked of us."""
    assert not local_link(text, prefix="")


async def test_a_login_page_is_no_answer() -> None:
    """HTML is UpstreamBroken with the upstream's name."""
    said = Say(body=b"<html>", headers=(("Content-Type", "text/html; charset=utf-8"),))
    async with played(lambda _: said) as server, upstream(server) as client:
        with pytest.raises(UpstreamBroken, match=server.host):
            await client.relay(Ping())


async def test_an_unknown_repository_is_unknown() -> None:
    """404 of what is not cached is the repository's."""
    async with played(lambda _: Say(404)) as server, upstream(server) as client:
        with pytest.raises(NameUnknown):
            await client.relay(TagsList(repository=REPOSITORY))


async def test_an_answer_too_large_is_cut() -> None:
    """More than 32 MiB is no list of tags."""
    async with played(lambda _: Say(body=bytes(33 << 20))) as server, upstream(server) as client:
        with pytest.raises(UpstreamBroken, match="more than"):
            await client.relay(Catalog())
