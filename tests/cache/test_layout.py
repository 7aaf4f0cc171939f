"""The layout: Docker Registry's own keys, and links as it may have left them."""

import pytest

from msrcache.cache.layout import (
    blob_key,
    layer_link,
    lease_key,
    lease_of,
    named_lease,
    parse_link,
    repository_of,
    revision_link,
    tag_index_link,
    tag_link,
)
from msrcache.oci.digest import Digest
from msrcache.oci.names import Repository, Tag

HEX = "ab" * 32
DIGEST = Digest("sha256", HEX)
REPOSITORY = Repository.parse("team/web/app")
V2 = "docker/registry/v2"
OURS = f"{V2}/repositories/team/web/app"


def test_keys_are_docker_registrys() -> None:
    """Content that it left is found, and what we write is found by it."""
    latest = Tag("latest")
    assert blob_key(DIGEST) == f"{V2}/blobs/sha256/ab/{HEX}/data"
    assert layer_link(REPOSITORY, DIGEST) == f"{OURS}/_layers/sha256/{HEX}/link"
    assert revision_link(REPOSITORY, DIGEST) == f"{OURS}/_manifests/revisions/sha256/{HEX}/link"
    assert tag_link(REPOSITORY, latest) == f"{OURS}/_manifests/tags/latest/current/link"
    assert (
        tag_index_link(REPOSITORY, latest, DIGEST) == f"{OURS}/_manifests/tags/latest/index/sha256/{HEX}/link"
    )


def test_rungs_of_leases_are_our_own() -> None:
    """Beside Docker Registry's content, never in it."""
    assert lease_key(lease_of(DIGEST), 2) == f"msrcache/leases/sha256/{HEX}/2"
    assert lease_key(named_lease("janitor"), 0) == "msrcache/leases/named/janitor/0"


@pytest.mark.parametrize("data", [str(DIGEST), f"{DIGEST}\n", f"  {DIGEST} "])
def test_a_link_holds_a_digest(data: str) -> None:
    """With or without white space around it."""
    assert parse_link(data.encode()) == DIGEST


@pytest.mark.parametrize(
    "data", [b"", b"sha256:", b"sha256:abab", b"\xff", b"md5:00", str(DIGEST).upper().encode()]
)
def test_a_broken_link_is_none(data: bytes) -> None:
    """Half-written or strange: as if it were not there."""
    assert parse_link(data) is None


@pytest.mark.parametrize("key", [layer_link(REPOSITORY, DIGEST), revision_link(REPOSITORY, DIGEST)])
def test_a_links_repository_is_found(key: str) -> None:
    """From links of layers and of manifests."""
    assert repository_of(key) == REPOSITORY


@pytest.mark.parametrize(
    "key",
    [
        blob_key(DIGEST),
        tag_link(REPOSITORY, Tag("latest")),
        f"{V2}/repositories/Upper Case/_layers/sha256/{HEX}/link",
        layer_link(REPOSITORY, DIGEST) + "\n",
        layer_link(REPOSITORY, DIGEST).removesuffix("link") + "data",
        "",
    ],
)
def test_other_keys_have_no_repository(key: str) -> None:
    """Strangers' files below our root are no repositories."""
    assert repository_of(key) is None
