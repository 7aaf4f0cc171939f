"""The pull part of the OCI conformance suite against the cache, over content that its upstream has.

The suite's read-only run prints every verdict and then panics while it writes its report, so the verdicts are
read from standard output, and its exit code says nothing.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.stage import clients, images
from tests.stage.cacheprocess import RunningCache, cache
from tests.stage.images import OCI_INDEX, Image
from tests.stage.push import push
from tests.stage.registries import Kind, RunningRegistry, registry
from tests.stage.scripted import Request, Turn, scripted
from tests.stage.tools import need

VERDICT = re.compile(r"^ +OCI Conformance Test/(\S.*): (\w+)$", re.MULTILINE)
PULLS = {
    "ping",
    "empty/tag list",
    "read-only/tag-list",
    "read-only/head/manifest-head-by-tag",
    "read-only/head/manifest-head-by-digest",
    "read-only/head/blob-head",
    "read-only/pull/manifest-by-tag",
    "read-only/pull/manifest-by-digest",
    "read-only/pull/blob-get",
    "missing-manifest/by-digest",
    "missing-manifest/by-tag",
    "invalid-digest-format/manifest-get",
}
OFF = ("PUSH", "BLOBS_DELETE", "MANIFESTS_DELETE", "TAGS_DELETE")  # of no cache


async def _verdicts(
    running: RunningCache,
    results: Path,
    *,
    tag: str,
    manifests: Sequence[str],
    blobs: Sequence[str],
    subjects: Sequence[str] = (),
) -> Mapping[str, list[str]]:
    env = {
        "OCI_REGISTRY": running.host,
        "OCI_TLS": "disabled",
        "OCI_REPO1": "lib/app",
        "OCI_REPO2": "lib/app",
        "OCI_VERSION": "1.1",
        "OCI_LOG": "error",
        "OCI_RESULTS_DIR": str(results),
        "OCI_RO_DATA_TAGS": tag,
        "OCI_RO_DATA_MANIFESTS": " ".join(manifests),
        "OCI_RO_DATA_BLOBS": " ".join(blobs),
        "OCI_RO_DATA_REFERRERS": " ".join(subjects),
        # relayed, and neither Docker Registry nor Distribution has that API
        "OCI_API_REFERRER": "true" if subjects else "false",
    }
    env |= {f"OCI_API_{name}": "false" for name in OFF}
    said = await clients.run(need("conformance"), env=env, seconds=60)
    found: dict[str, list[str]] = {}
    for name, verdict in VERDICT.findall(said.out):
        found.setdefault(name, []).append(verdict)
    assert found, f"no verdicts: {said.out}\n{said.err}"
    return found


def _image() -> Image:
    return images.simple_image(2, seed=77)


async def test_the_pull_part_passes(tmp_path: Path, any_registry: Kind) -> None:
    """All that belongs to pulling passes, cold and warm, a verdict for every blob; nothing fails."""
    image = _image()
    async with registry(any_registry, tmp_path / "registry") as upstream:
        await push(upstream.url, "lib/app", image, "1")
        async with cache(tmp_path / "cache", {"url": upstream.url}) as running:
            for turn in ("cold", "warm"):
                found = await _verdicts(
                    running,
                    tmp_path / turn,
                    tag="1",
                    manifests=[image.digest],
                    blobs=[blob.digest for blob in image.blobs],
                )
                assert {name for name in PULLS if set(found.get(name, ())) != {"Pass"}} == set(), found
                assert {verdict for each in found.values() for verdict in each} == {"Pass", "Disabled"}
                assert len(found["read-only/pull/blob-get"]) == len(image.blobs) == 3


def _empty_list(request: Request) -> Turn | None:
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    headers = (("Content-Type", OCI_INDEX),)
    if "/referrers/" in request.path:
        return Turn(body=json.dumps(index).encode(), headers=headers)
    return None


async def test_referrers_pass_where_the_upstream_has_them(tmp_path: Path) -> None:
    """An upstream of OCI 1.1: the suite is content with lists that came through the cache."""
    image = _image()
    async with scripted() as upstream:
        upstream.guard = _empty_list
        upstream.publish_manifest(
            image.manifest.bytes(), image.manifest.media_type, "1", repository="lib/app"
        )
        async with cache(tmp_path / "cache", {"url": upstream.url}) as running:
            found = await _verdicts(
                running,
                tmp_path / "results",
                tag="1",
                manifests=[image.digest],
                blobs=[],
                subjects=[image.digest],
            )
    assert found["empty/referrers"] == found["read-only/referrers"] == ["Pass"], found


async def test_the_verdicts_can_be_bad(tmp_path: Path, open_registry: RunningRegistry) -> None:
    """What the upstream does not have fails, each in its place: the test above reads real verdicts."""
    image, other = _image(), images.simple_image(1, seed=78)
    await push(open_registry.url, "lib/app", image, "1")
    async with cache(tmp_path / "cache", {"url": open_registry.url}) as running:
        found = await _verdicts(
            running,
            tmp_path / "results",
            tag="never",
            manifests=[other.digest],
            blobs=[image.blobs[0].digest, other.blobs[0].digest],
        )
    assert found["read-only/pull/manifest-by-tag"] == ["FAIL"]
    assert found["read-only/pull/manifest-by-digest"] == ["FAIL"]
    assert sorted(found["read-only/pull/blob-get"]) == ["FAIL", "Pass"]  # the suite keeps no order
    assert found["missing-manifest/by-tag"] == ["Pass"]
