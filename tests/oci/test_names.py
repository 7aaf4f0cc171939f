"""Names of repositories, tags, references and whole images."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msrcache.oci.digest import Digest
from msrcache.oci.errors import DigestInvalid, NameInvalid, RegistryError, TagInvalid
from msrcache.oci.names import ImageReference, Repository, Tag, parse_host, parse_reference

SEGMENTS = st.from_regex(r"[a-z0-9]{1,9}((\.|_|__|-{1,3})[a-z0-9]{1,9}){0,3}", fullmatch=True)
NAMES = st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join)
TAGS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
DIGEST = Digest.of(b"content")


@given(NAMES)
def test_every_name_of_the_grammar_is_taken_as_it_is(name: str) -> None:
    """parse gives the very text back, as a Repository."""
    repository = Repository.parse(name)
    assert isinstance(repository, Repository)
    assert repository == name


@given(st.text(max_size=300) | st.text(alphabet="ab/._-%A", max_size=40))
def test_what_is_parsed_can_stand_in_a_key(text: str) -> None:
    """Nothing but NameInvalid is raised, and no parsed name has a segment that a path treats as special."""
    try:
        name = Repository.parse(text)
    except NameInvalid:
        return
    assert name.isascii()
    assert len(name) <= 255
    assert all(segment and segment[0].isalnum() for segment in name.split("/"))
    assert "%" not in name
    assert ".." not in name


@pytest.mark.parametrize(
    "text",
    [
        *("", "/", "a/", "/a", "a//b", "A", "a..b", "../a", "a/../b", ".a", "a.", "a___b", "a_-b", "a%2fb"),
        *("a\n", "a b", "é", "a:b", "a@b", "a" * 256, "_catalog", "a/_b", "a\x00"),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    """Empty segments, dots, upper case, encoded slashes, 256 characters: NAME_INVALID."""
    with pytest.raises(NameInvalid):
        Repository.parse(text)


def test_a_name_of_255_characters_is_a_name() -> None:
    """The limit is the limit, not one less."""
    assert len(Repository.parse("a" * 255)) == 255


def test_a_hostile_name_is_refused_at_once() -> None:
    """The pattern must not backtrack: a quarter of the longest name of separators would never end."""
    with pytest.raises(NameInvalid):
        Repository.parse("a-" * 100 + "_" * 50)


@given(TAGS)
def test_every_tag_of_the_grammar_is_taken_as_it_is(text: str) -> None:
    """parse gives the very text back, as a Tag, and as a reference it is a tag too."""
    assert Tag.parse(text) == text
    assert isinstance(parse_reference(text), Tag)


@pytest.mark.parametrize(
    "text", ["", ".a", "-a", "a" * 129, "a/b", "a:b", "a b", "a\n", "é", "..", ".INVALID"]
)
def test_what_is_no_tag_is_refused(text: str) -> None:
    """128 characters, no slash, no dot in front: TAG_INVALID."""
    with pytest.raises(TagInvalid):
        Tag.parse(text)


def test_a_tag_has_up_to_128_characters() -> None:
    """The limit is the limit, not one less."""
    assert Tag.parse("a" * 128) == "a" * 128


def test_a_reference_with_a_colon_is_a_digest() -> None:
    """No tag has a colon, so a bad digest is told as a digest."""
    assert parse_reference(str(DIGEST)) == DIGEST
    with pytest.raises(DigestInvalid):
        parse_reference("sha256:short")


@given(st.text(max_size=200))
def test_no_reference_raises_anything_else(text: str) -> None:
    """DigestInvalid or TagInvalid, or the text comes back."""
    with suppress(DigestInvalid, TagInvalid):
        assert str(parse_reference(text)) == text


@pytest.mark.parametrize(
    ("text", "host", "name", "reference"),
    [
        ("alpine", "", "alpine", "latest"),
        ("library/alpine:3.20", "", "library/alpine", "3.20"),
        ("localhost/alpine", "localhost", "alpine", "latest"),
        ("msr.example.com/team/app:v1", "msr.example.com", "team/app", "v1"),
        ("msr:5000/app", "msr:5000", "app", "latest"),
        ("MSR.example.com:443/app", "MSR.example.com:443", "app", "latest"),
        ("[::1]:5000/app:x", "[::1]:5000", "app", "x"),
        ("my_host.x/app", "my_host.x", "app", "latest"),
    ],
)
def test_an_image_is_read_as_docker_reads_it(text: str, host: str, name: str, reference: str) -> None:
    """Host, name and tag, with Docker's rule of what a host is."""
    image = ImageReference.parse(text)
    assert (image.host, image.repository, image.reference) == (host, name, reference)


def test_a_digest_counts_more_than_a_tag() -> None:
    """Both may be written; what is pulled is the digest."""
    assert ImageReference.parse(f"h:1/a:tag@{DIGEST}") == ImageReference.parse(f"h:1/a@{DIGEST}")
    assert ImageReference.parse(f"a@{DIGEST}").reference == DIGEST


@pytest.mark.parametrize(
    "text", ["", "a:", "a@", ":x", "h.x/", "a b", "a@b@c", "h:99x/a", "-h.x/a", "h.x/A", "a:b/c"]
)
def test_what_is_no_image_is_refused(text: str) -> None:
    """Each wrong part by its own error, all of them 400."""
    with pytest.raises((NameInvalid, TagInvalid, DigestInvalid)) as caught:
        ImageReference.parse(text)
    assert caught.value.status == 400


@given(NAMES, TAGS | st.just(str(DIGEST)), st.sampled_from(["", "h.x", "localhost:5000", "[fe80::1]"]))
def test_images_are_written_as_they_are_read(name: str, reference: str, host: str) -> None:
    """parse undoes str, with and without a host, for tags and digests."""
    parsed = ImageReference(host, Repository.parse(name), parse_reference(reference))
    first = name.partition("/")[0]
    if host or "/" not in name or ("." not in first and first != "localhost"):
        assert ImageReference.parse(str(parsed)) == parsed


@given(st.text(max_size=100) | st.text(alphabet="a./:@[]", max_size=20))
def test_no_image_raises_anything_else(text: str) -> None:
    """Whatever is typed, the error is one of the registry's."""
    try:
        image = ImageReference.parse(text)
    except RegistryError:
        return
    assert ImageReference.parse(str(image)) == image


def test_a_host_is_no_path() -> None:
    """What passes may go into an address."""
    assert parse_host("registry.example.com:5000") == "registry.example.com:5000"
    for text in ("", "a/b", "a@b", "a b", "a\r\n", "a?b", "a" * 256, "a:123456", "[]"):
        with pytest.raises(NameInvalid):
            parse_host(text)
