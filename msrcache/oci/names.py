"""Names of repositories, tags and whole images: the grammar of the OCI distribution specification.

A parsed name is safe as part of a key or an address: no empty segment, no `.` or `..`, no `%`, nothing that
needs encoding. Whether something of that name exists, only a registry knows.
"""

import re
from dataclasses import dataclass
from typing import Final

from msrcache.oci.digest import Digest
from msrcache.oci.errors import NameInvalid, TagInvalid, shown

LONGEST_NAME: Final = 255
LONGEST_TAG: Final = 128

_SEGMENT: Final = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")
_TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
_HOST: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]{{2,45}}\])(?::[0-9]{{1,5}})?")


class Repository(str):
    """The name of a repository. Made by parse(); the plain constructor checks nothing."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Repository":
        """The text itself, when it is a name of at most 255 characters. Raises NameInvalid."""
        if not text:
            raise NameInvalid("the repository name is missing")
        if len(text) > LONGEST_NAME:
            raise NameInvalid(f"repository name {shown(text)} is longer than {LONGEST_NAME} characters")
        if not _REPOSITORY.fullmatch(text):
            raise NameInvalid(
                f"repository name {shown(text)} should be lower-case letters and digits, "
                "with single '/' or '.', one or two '_', or any '-' between them"
            )
        return cls(text)


class Tag(str):
    """A tag. Made by parse(); the plain constructor checks nothing."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> "Tag":
        """The text itself, when it is a tag of at most 128 characters. Raises TagInvalid."""
        if not _TAG.fullmatch(text):
            raise TagInvalid(
                f"tag {shown(text)} should be 1 to {LONGEST_TAG} letters, digits, '_', '.' or '-', "
                "the first no '.' or '-'"
            )
        return cls(text)


Reference = Tag | Digest
"""What names a manifest in its repository."""


def parse_reference(text: str) -> Reference:
    """A digest where the text has a colon (no tag has), else a tag. Raises DigestInvalid or TagInvalid."""
    return Digest.parse(text) if ":" in text else Tag.parse(text)


def parse_host(text: str) -> str:
    """The text itself, when it is a registry's `host` or `host:port`. Raises NameInvalid."""
    if len(text) > LONGEST_NAME or not _HOST.fullmatch(text):
        raise NameInvalid(
            f"{shown(text)} is no host of a registry; it should be like registry.example.com:5000"
        )
    return text


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image as people write it: `host` is empty where none stands; a digest counts more than a tag."""

    host: str
    repository: Repository
    reference: Reference

    @classmethod
    def parse(cls, text: str) -> "ImageReference":
        """`[host[:port]/]name[:tag][@digest]`, tag `latest` where neither is given.

        The first segment is a host by Docker's rule: it holds a `.` or `:`, or is `localhost`.
        Raises NameInvalid, TagInvalid or DigestInvalid.
        """
        named, at, digest = text.partition("@")
        first, slash, rest = named.partition("/")
        host = ""
        if slash and (first == "localhost" or "." in first or ":" in first):
            host, named = parse_host(first), rest
        name, colon, tag = named.partition(":")
        reference: Reference = Tag.parse(tag) if colon else Tag("latest")
        if at:
            reference = Digest.parse(digest)
        return cls(host, Repository.parse(name), reference)

    def __str__(self) -> str:
        place = f"{self.host}/{self.repository}" if self.host else self.repository
        return f"{place}{'@' if isinstance(self.reference, Digest) else ':'}{self.reference}"
