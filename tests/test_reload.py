"""A reload takes over upstreams, access and freshness while pulls are under way; or, where it fails, nothing."""

import asyncio
from pathlib import Path

import pytest

from msrcache.assembly import Application
from msrcache.config.load import Loaded, parse
from msrcache.inquiry import CannotStart
from tests.scenarios.plays import cache, configuration, following, pull, pulling, settled
from tests.stage.certificates import authority
from tests.stage.images import noise
from tests.stage.registries import htpasswd
from tests.stage.scripted import Hold, Scripted, Turn, scripted

DATA = noise(300_000, 21)
OTHER = noise(1_000, 22)
K = 100_000
ALICE = {"Authorization": "Bearer alice"}
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
MANIFEST = (
    b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}'
)


def loaded(folder: Path, *upstreams: Scripted, mode: str = "open", more: str = "") -> Loaded:
    """As read anew from a file."""
    text = configuration(folder, *(upstream.url for upstream in upstreams), mode=mode, more=more)
    return parse(text, "config.yml", {})


def breaker_of(application: Application, upstream: Scripted) -> float | None:
    """The gauge of this upstream, None where there is none."""
    labels = {"upstream": f"127.0.0.1:{upstream.port}"}
    return application.metrics.registry.get_sample_value("msrcache_upstream_breaker_open", labels)


async def test_other_upstreams_while_a_pull_is_under_way(tmp_path: Path) -> None:
    """The pull ends where it began, what comes next is asked of the new one, and the old one is not told any more."""
    async with scripted() as one, scripted() as two, cache(tmp_path, one) as application:
        path, other = one.publish_blob(DATA), two.publish_blob(OTHER)
        hold = Hold(K)
        one.script(path, Turn(hold=hold))
        async with pulling(application, path) as first:
            await first.take(K)
            await application.reload(loaded(tmp_path, two))
            assert (await pull(application, other)).body == OTHER
            hold.go.set()
            assert await first.rest() == DATA[K:]
        await settled(application)
        assert (one.lines, two.lines) == ([f"GET {path}"], [f"GET {other}"])
        assert breaker_of(application, one) is None
        assert breaker_of(application, two) == 0


async def test_an_old_upstream_that_breaks_later_is_resumed_there(tmp_path: Path) -> None:
    """A fill that began before the reload keeps its upstream, also where its body has to be asked for again."""
    async with scripted() as one, scripted() as two, cache(tmp_path, one) as application:
        path = one.publish_blob(DATA)
        hold = Hold(K)
        one.script(path, Turn(hold=hold, cut=K + 5))
        async with pulling(application, path) as first:
            await first.take(K)
            await application.reload(loaded(tmp_path, two))
            hold.go.set()
            assert await first.rest() == DATA[K:]
        assert one.lines == [f"GET {path}", f"GET {path} bytes={K + 5}-"]
        assert two.lines == []


@pytest.mark.parametrize(
    ("was", "now", "words"),
    [
        ("- url: {url}", "- {{url: '{url}', ca: [/no/such/ca.pem]}}", "ca.pem"),
        ("- url: {url}", "- {{url: '{url}', username: u, passwordfile: /no/such/pw}}", "/no/such/pw"),
        ("mode: open", "mode: basic, htpasswd: {{path: /no/such/htpasswd}}", "htpasswd"),
    ],
    ids=["ca", "password-file", "htpasswd"],
)
async def test_what_cannot_be_used_changes_nothing(tmp_path: Path, was: str, now: str, words: str) -> None:
    """A file that is missing is named, and the old upstream and the old access stay."""
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        text = configuration(tmp_path, upstream.url)
        changed = text.replace(was.format(url=upstream.url), now.format(url=upstream.url))
        assert changed != text
        before = application.inquiry.upstream.current
        with pytest.raises(CannotStart, match=words):
            await application.reload(parse(changed, "config.yml", {}))
        path = upstream.publish_blob(OTHER)
        assert (await pull(application, path)).body == OTHER
        assert application.inquiry.upstream.current is before


async def test_a_bad_certificate_keeps_the_upstreams_too(tmp_path: Path) -> None:
    """All or nothing: beside a certificate that does not load, other upstreams are not taken either."""
    pair = authority(tmp_path / "ca").issue("cache")
    tls = f"http: {{tls: {{certificate: {pair.certificate}, key: {pair.key}}}, "
    async with scripted() as one, scripted() as two:
        text = configuration(tmp_path, one.url).replace("http: {", tls)
        async with Application(parse(text, "config.yml", {}).config).running() as application:
            before = application.inquiry.upstream.current
            changed = text.replace(one.url, two.url).replace(str(pair.certificate), "/no/such/cert.pem")
            with pytest.raises(CannotStart, match="no/such/cert"):
                await application.reload(parse(changed, "config.yml", {}))
            assert application.inquiry.upstream.current is before


async def test_a_yes_outlives_a_reload_that_asks_the_same_upstream(tmp_path: Path) -> None:
    """Verdicts stay, with their new times; where another upstream decides, nothing that was said counts."""
    async with scripted() as one, scripted() as two, cache(tmp_path, one, mode="upstream") as application:
        path = one.publish_blob(OTHER)
        two.publish_blob(OTHER)
        assert (await pull(application, path, **ALICE)).body == OTHER
        await settled(application)
        await application.reload(loaded(tmp_path, one, mode="upstream", more="  fill: {queue: 3s}\n"))
        assert (await pull(application, path, **ALICE)).body == OTHER
        assert one.lines == [f"GET {path}"]
        two.guard = lambda request: Turn(status=403)
        await application.reload(loaded(tmp_path, two, mode="upstream"))
        assert (await pull(application, path, **ALICE)).status == 403
        assert two.lines == [f"HEAD {path}"]


async def test_a_shorter_verdict_holds_for_what_is_remembered(tmp_path: Path) -> None:
    """verdict: 0s asks from now on, although a yes was given for a minute."""
    async with scripted() as upstream, cache(tmp_path, upstream, mode="upstream") as application:
        path = upstream.publish_blob(OTHER)
        assert (await pull(application, path, **ALICE)).body == OTHER
        await settled(application)
        text = configuration(tmp_path, upstream.url, mode="upstream").replace(
            "{mode: upstream}", "{mode: upstream, verdict: 0s}"
        )
        await application.reload(parse(text, "config.yml", {}))
        assert (await pull(application, path, **ALICE)).body == OTHER
        assert upstream.lines == [f"GET {path}", f"HEAD {path}"]


async def test_another_mode_of_access(tmp_path: Path) -> None:
    """From the upstream's decision to accounts of the cache and back, on connections that stay."""
    users = htpasswd(tmp_path / "users", {"carol": "c4rol"})
    async with scripted() as upstream, cache(tmp_path, upstream, mode="upstream") as application:
        path = upstream.publish_blob(OTHER)
        assert (await pull(application, path)).status == 200
        text = configuration(tmp_path, upstream.url, mode="basic").replace(
            "{mode: basic}", f"{{mode: basic, htpasswd: {{path: {users}}}}}"
        )
        await application.reload(parse(text, "config.yml", {}))
        refused = await pull(application, path)
        assert (refused.status, refused.headers["www-authenticate"].split()[0]) == (401, "Basic")
        assert (await pull(application, path, Authorization="Basic Y2Fyb2w6YzRyb2w=")).body == OTHER
        await application.reload(loaded(tmp_path, upstream, mode="upstream"))
        assert (await pull(application, path)).body == OTHER


async def test_freshness_by_the_new_settings(tmp_path: Path) -> None:
    """With a ttl the tag is asked for no more; without one it is asked again; of another upstream in any case."""
    async with scripted() as one, scripted() as two, cache(tmp_path, one) as application:
        path = one.publish_manifest(MANIFEST, MANIFEST_TYPE, "1")
        two.publish_manifest(MANIFEST, MANIFEST_TYPE, "1")

        async def heads(upstream: Scripted) -> int:
            before = len(upstream.ledger)
            assert (await pull(application, path)).body == MANIFEST
            return sum(request.method == "HEAD" for request in upstream.ledger[before:])

        assert (await heads(one), await heads(one)) == (1, 1)
        await application.reload(loaded(tmp_path, one, more="  freshness: {ttl: 1h}\n"))
        assert await heads(one) == 0
        await application.reload(loaded(tmp_path, two, more="  freshness: {ttl: 1h}\n"))
        assert (await heads(two), await heads(two)) == (1, 0)
        await application.reload(loaded(tmp_path, two))
        assert await heads(two) == 1


async def test_many_reloads_leave_nothing_open(tmp_path: Path) -> None:
    """Each replaced upstream is closed once its pulls have ended: one after the other while readers come and go."""
    async with scripted() as upstream, cache(tmp_path, upstream) as application:
        path = upstream.publish_blob(DATA)
        hold = Hold(K)
        upstream.script(path, Turn(hold=hold))
        reading = asyncio.create_task(pull(application, path))
        await following(application, 1)
        for _ in range(5):
            await application.reload(loaded(tmp_path, upstream))
        assert "[1 replaced" in repr(application.inquiry.upstream)
        hold.go.set()
        assert (await reading).body == DATA
        await settled(application)
        assert "[0 replaced" in repr(application.inquiry.upstream)
