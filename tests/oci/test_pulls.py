"""Requests as typed pulls."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.oci.digest import Digest
from msrcache.oci.errors import (
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PaginationInvalid,
    RegistryError,
    Unsupported,
)
from msrcache.oci.names import Repository, Tag
from msrcache.oci.pulls import (
    LARGEST_PAGE,
    BlobPull,
    Catalog,
    ManifestPull,
    Ping,
    Pull,
    Referrers,
    TagsList,
    parse_pull,
)
from msrcache.oci.ranges import RangeRequest
from msrcache.oci.right import SERVICE, Credential

DIGEST = Digest.of(b"content")
WIDE = Digest.of(b"content", "sha512")
APP = Repository("team/app")


def get(
    path: str,
    query: Mapping[str, Sequence[str]] | None = None,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
) -> Pull:
    """The pull of a request, GET unless said otherwise."""
    return parse_pull(method, path, query or {}, headers or {})


def path_of(pull: Pull) -> str:
    """The path of a pull, written by another hand than the one that reads it."""
    match pull:
        case Ping():
            return "/v2/"
        case Catalog():
            return "/v2/_catalog"
        case TagsList():
            return f"/v2/{pull.repository}/tags/list"
        case ManifestPull():
            return f"/v2/{pull.repository}/manifests/{pull.reference}"
        case BlobPull():
            return f"/v2/{pull.repository}/blobs/{pull.digest}"
        case Referrers():
            return f"/v2/{pull.repository}/referrers/{pull.digest}"


SEGMENTS = st.sampled_from(
    ["manifests", "blobs", "tags", "list", "referrers", "uploads", "v2", "a", "b-c.d__e"]
)
REPOSITORIES = st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join).map(Repository)
TAGS = st.sampled_from(["list", "latest", "manifests", "a..b", "_"]).map(Tag)
DIGESTS = st.sampled_from([DIGEST, WIDE])
PULLS: st.SearchStrategy[Pull] = st.one_of(
    st.builds(Ping),
    st.builds(Catalog),
    st.builds(TagsList, repository=REPOSITORIES),
    st.builds(ManifestPull, repository=REPOSITORIES, reference=TAGS | DIGESTS),
    st.builds(BlobPull, repository=REPOSITORIES, digest=DIGESTS),
    st.builds(Referrers, repository=REPOSITORIES, digest=DIGESTS),
)


@given(PULLS)
def test_every_pull_is_read_from_its_path(pull: Pull) -> None:
    """Even where the repository's name holds the words of the API: the last of them counts."""
    assert get(path_of(pull)) == pull


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v2", "ping"),
        ("/v2/", "ping"),
        ("/v2/_catalog", "catalog"),
        ("/v2/a/tags/list", "tags"),
        ("/v2/a/manifests/x", "manifest"),
        (f"/v2/a/blobs/{DIGEST}", "blob"),
        (f"/v2/a/referrers/{DIGEST}", "referrers"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_each_address_has_its_kind(path: str, kind: str, method: str) -> None:
    """The metric's label; HEAD is taken wherever GET is."""
    assert get(path, method=method).kind == kind


@pytest.mark.parametrize(
    "path",
    [
        "/v2/a",
        "/v2/a/b",
        "/v2/a/",
        "/v2//",
        "/v2/a/manifests",
        "/v2/a/tags/all",
        "/v2/_catalog/",
        "/v2/a/blobs/uploads/",
        "/v2/a/blobs/uploads/6b3c",
        "/v3/",
        "/",
        "",
        "/v2x/a/manifests/b",
        "v2/a/manifests/b",
        "/v1/a/manifests/b",
    ],
)
def test_an_unknown_address_is_not_found(path: str) -> None:
    """404 with the specification's words, as registries answer; an upload (end-13) never exists here."""
    with pytest.raises(NameUnknown):
        get(path)


@pytest.mark.parametrize(
    "path",
    [
        "/v2/manifests/x",
        "/v2//a/manifests/x",
        "/v2/a/../b/manifests/x",
        "/v2/A/manifests/x",
        "/v2/../manifests/x",
        f"/v2/a%2fb/blobs/{DIGEST}",
        f"/v2/a//b/blobs/{DIGEST}",
        "/v2/./tags/list",
        f"/v2/a\x00/referrers/{DIGEST}",
        "/v2/" + "a" * 256 + "/tags/list",
        "/v2/a/b:c/manifests/x",
    ],
)
def test_a_name_outside_the_grammar_is_refused(path: str) -> None:
    """No dots, no empty segment, nothing encoded: 400 NAME_INVALID."""
    with pytest.raises(NameInvalid):
        get(path)


@pytest.mark.parametrize("word", ["manifests", "blobs", "referrers"])
def test_a_digest_outside_the_grammar_is_refused(word: str) -> None:
    """Upper case, other algorithms and lengths: 400 DIGEST_INVALID."""
    for digest in (str(DIGEST).upper(), f"sha256:{DIGEST.hex.upper()}", "md5:00", "sha256:"):
        with pytest.raises(DigestInvalid):
            get(f"/v2/a/{word}/{digest}")


def test_a_blob_is_named_by_digest_only() -> None:
    """A tag is no name of a blob."""
    for path in ("/v2/a/blobs/latest", "/v2/a/blobs/uploads", "/v2/a/referrers/latest", "/v2/a/blobs/"):
        with pytest.raises(DigestInvalid):
            get(path)


@pytest.mark.parametrize("tag", [".INVALID_MANIFEST_NAME", "-x", "a" * 129, "a b", ""])
def test_a_tag_that_cannot_exist_is_unknown(tag: str) -> None:
    """The conformance suite asks for such a manifest and expects 404."""
    with pytest.raises(ManifestUnknown):
        get(f"/v2/a/manifests/{tag}")


def test_a_tag_has_up_to_128_characters() -> None:
    """The longest tag is a tag."""
    assert get("/v2/a/manifests/" + "x" * 128) == ManifestPull(
        repository=Repository("a"), reference=Tag("x" * 128)
    )


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "", "X\n"]
)
@pytest.mark.parametrize("path", ["/v2/", "/v2/a/blobs/uploads/", "/v2/a/manifests/x", "/v2/nothing"])
def test_only_reading_is_served(method: str, path: str) -> None:
    """405 with Allow and where to push instead (end-4 to end-11)."""
    with pytest.raises(Unsupported, match="push to the registry behind it") as caught:
        get(path, method=method)
    assert caught.value.headers["Allow"] == "GET, HEAD"


def test_head_is_told_apart() -> None:
    """For manifests and blobs HEAD and GET cost differently."""
    for path in ("/v2/a/manifests/x", f"/v2/a/blobs/{DIGEST}"):
        for method, head in (("HEAD", True), ("GET", False)):
            pull = get(path, method=method)
            assert isinstance(pull, ManifestPull | BlobPull)
            assert pull.head is head


class Lines(dict[str, str]):
    """Headers with a name on several lines, as HTTP libraries give them."""

    def __init__(self, *lines: tuple[str, str]) -> None:
        super().__init__(lines)
        self._lines = lines

    def items(self) -> Iterator[tuple[str, str]]:  # type: ignore[override] # a view is more than is needed
        """Every line, repeated names included."""
        return iter(self._lines)


def accepted(headers: Mapping[str, str]) -> tuple[str, ...]:
    """What a manifest's pull carries as Accept."""
    pull = get("/v2/a/manifests/x", headers=headers)
    assert isinstance(pull, ManifestPull)
    return pull.accept


def test_accept_is_gathered_from_all_lines() -> None:
    """Docker sends a line for each type, others one for all; order and parameters are kept."""
    assert accepted({}) == ()
    assert accepted({"accept": ""}) == ()
    assert accepted({"Accept": "a/b;q=0.5, c/d ,,*/*"}) == ("a/b;q=0.5", "c/d", "*/*")
    assert accepted(Lines(("Accept", "a/b"), ("Host", "x"), ("ACCEPT", "c/d, e/f"))) == ("a/b", "c/d", "e/f")


def asked(headers: Mapping[str, str], method: str = "GET") -> RangeRequest | None:
    """The range that a blob's pull carries."""
    pull = get(f"/v2/a/blobs/{DIGEST}", headers=headers, method=method)
    assert isinstance(pull, BlobPull)
    return pull.range


def test_a_range_is_for_get_only() -> None:
    """RFC 9110 14.2: other methods ignore it."""
    assert asked({"Range": "bytes=1-2"}) == RangeRequest(1, 2)
    assert asked({"range": "bytes=1-"}) == RangeRequest(1, None)
    assert asked({"Range": "bytes=1-2"}, "HEAD") is None
    assert asked({}) is None
    assert asked({"Range": "lines=1-2"}) is None
    assert asked(Lines(("Range", "bytes=1-2"), ("Range", "bytes=4-5"))) is None


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        (f'"{DIGEST}"', True),
        (str(DIGEST), True),  # Docker Registry's answer to a miss has an unquoted Etag
        (f'"{WIDE}"', False),
        (f'W/"{DIGEST}"', False),
        ("Sat, 29 Oct 1994 19:43:31 GMT", False),
        ("", False),
    ],
)
def test_if_range_keeps_the_range_of_this_content_only(condition: str, kept: bool) -> None:  # noqa: FBT001
    """Another entity tag, a weak one or a date: the whole blob."""
    assert (asked({"Range": "bytes=1-2", "If-Range": condition}) is not None) is kept


@pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/team/app/tags/list"])
@pytest.mark.parametrize(
    ("n", "kept"),
    [
        ("0", 0),
        ("1", 1),
        ("007", 7),
        ("", None),
        ("10000", LARGEST_PAGE),
        ("10001", LARGEST_PAGE),
        ("9" * 9000, LARGEST_PAGE),
        ("0" * 9000 + "5", 5),
    ],
)
def test_pages_are_read_and_bounded(path: str, n: str, kept: int | None) -> None:
    """n is a number of 0 or more, clamped; last is passed on as it is."""
    pull = get(path, {"n": [n, "ignored"], "last": ["v1/&x"]})
    assert isinstance(pull, TagsList | Catalog)
    assert (pull.n, pull.last) == (kept, "v1/&x")


@pytest.mark.parametrize("n", ["-1", "x", "1.5", "+1", " 1", "1 ", "0x10", "1e3", "\u0661", "1\n"])
def test_a_page_that_is_no_number_is_refused(n: str) -> None:
    """400 PAGINATION_NUMBER_INVALID."""
    for path in ("/v2/_catalog", "/v2/a/tags/list"):
        with pytest.raises(PaginationInvalid):
            get(path, {"n": [n]})


def test_absent_parameters_are_none() -> None:
    """Not given, given empty, and given as nothing are one."""
    query: dict[str, list[str]] = {"n": [], "last": [""]}
    assert get("/v2/team/app/tags/list", query) == TagsList(repository=APP)
    assert get(f"/v2/team/app/referrers/{DIGEST}", {"artifactType": []}) == Referrers(
        repository=APP, digest=DIGEST
    )


def test_referrers_are_filtered_by_type() -> None:
    """end-12b."""
    pull = get(f"/v2/team/app/referrers/{DIGEST}", {"artifactType": ["a/b+json"]})
    assert pull == Referrers(repository=APP, digest=DIGEST, artifact_type="a/b+json")


@pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/a/tags/list", f"/v2/a/referrers/{DIGEST}"])
def test_what_only_the_upstream_understands_is_kept(path: str) -> None:
    """Else the Link of some upstreams (next_page=...) would lead to the first page for ever; ns is ours."""
    pull = get(path, {"next_page": ["x=", "y"], "ns": ["docker.io"]})
    assert isinstance(pull, TagsList | Catalog | Referrers)
    assert pull.rest == (("next_page", "x="), ("next_page", "y"))


@pytest.mark.parametrize(
    "path", [path_of(Ping()), "/v2/a/manifests/x", f"/v2/a/blobs/{DIGEST}", "/v2/_catalog"]
)
def test_the_namespace_goes_with_every_pull(path: str) -> None:
    """containerd names the image's own host in ?ns=; what is no host is refused: it goes into addresses."""
    assert get(path).namespace is None
    assert get(path, {"ns": ["docker.io"]}).namespace == "docker.io"
    with pytest.raises(NameInvalid):
        get(path, {"ns": ["x\r\nSet-Cookie: a"]})


class Someone:
    """A right that is not the service's."""

    credential = Credential("Bearer secret")
    graced = False

    async def ask(self, pull: Pull, *, unreachable: bool = False) -> bool:
        """Never asked here."""
        raise NotImplementedError

    def granted(self, repository: Repository) -> None:
        """Never told here."""


def test_a_pull_is_made_by_a_right() -> None:
    """by() copies: the pull itself stays the cache's own; the request's id and address are kept unless given."""
    pull = get("/v2/a/manifests/x")
    someone = Someone()
    theirs = pull.by(someone, request_id="r1", address="192.0.2.1")
    assert (pull.address, theirs.address, theirs.by(SERVICE).address) == ("", "192.0.2.1", "192.0.2.1")
    assert (pull.right, pull.request_id) == (SERVICE, "")
    assert (theirs.right, theirs.request_id) == (someone, "r1")
    assert theirs.by(SERVICE).request_id == "r1"
    assert theirs.by(SERVICE, request_id="", address="") == pull


HEADERS = st.dictionaries(st.sampled_from(["Accept", "range", "If-Range", "Host"]), st.text(max_size=20))
QUERIES = st.dictionaries(st.sampled_from(["n", "last", "ns", "artifactType"]), st.lists(st.text(max_size=9)))
WORDS = st.sampled_from(
    ["manifests", "blobs", "tags", "list", "referrers", "_catalog", "..", "", "a", str(DIGEST)]
)
PATHS = st.lists(WORDS | st.text(max_size=5), max_size=6).map(lambda words: "/v2/" + "/".join(words))


@given(st.sampled_from(["GET", "HEAD", "PUT"]) | st.text(max_size=6), PATHS | st.text(), QUERIES, HEADERS)
def test_no_request_raises_anything_else(
    method: str, path: str, query: dict[str, list[str]], headers: dict[str, str]
) -> None:
    """A pull or a 4xx, whatever is sent; and a pull leads back to the path it came from."""
    result: Pull | RegistryError
    try:
        result = parse_pull(method, path, query, headers)
    except RegistryError as error:
        result = error
    if isinstance(result, RegistryError):
        assert 400 <= result.status < 500
        assert str(result).isprintable()
    else:
        assert path_of(result) == ("/v2/" if path == "/v2" else path)
