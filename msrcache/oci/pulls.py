"""Requests of the distribution API as typed pulls: method, path, query and headers in, one value out.

Path text goes no further than this module before it is parsed. The end-N are those of the OCI distribution
specification 1.1. Who may pull, and where from, is decided elsewhere.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Final, Self

from msrcache.oci.digest import Digest
from msrcache.oci.errors import (
    ManifestUnknown,
    NameUnknown,
    PaginationInvalid,
    TagInvalid,
    Unsupported,
    shown,
)
from msrcache.oci.names import Reference, Repository, parse_host, parse_reference
from msrcache.oci.ranges import RangeRequest, parse_range
from msrcache.oci.right import SERVICE, Right

LARGEST_PAGE: Final = 10_000
"""The largest `n` that is passed on; the upstream's Link header leads to the rest."""

_NUMBER: Final = re.compile(r"[0-9]+")

REMEMBERED: Final = 2048
USUAL: Final = 2048
"""Bytes of an Accept that is remembered when it has been read."""

Rest = tuple[tuple[str, str], ...]
"""Parameters that only the upstream knows: its Link to a next page may lead by `next_page=` as well as by `last=`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What every pull carries: by whose right it is made, the request's id, the client's address ("": unknown),
    the registry `?ns=` names.
    """

    kind: ClassVar[str]

    right: Right = SERVICE
    request_id: str = ""
    address: str = ""
    namespace: str | None = None

    def by(self, right: Right, *, request_id: str | None = None, address: str | None = None) -> Self:
        """The same pull, made by that right; the request's id and the address are kept where none is given."""
        return replace(
            self,
            right=right,
            request_id=self.request_id if request_id is None else request_id,
            address=self.address if address is None else address,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping(_Asked):
    """Is this a registry, and who may talk to it? end-1."""

    kind = "ping"


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestPull(_Asked):
    """A manifest or index. `accept` are the media ranges as the caller sent them, none: anything. end-3."""

    kind = "manifest"

    repository: Repository
    reference: Reference
    accept: tuple[str, ...] = ()
    head: bool = False

    def by(self, right: Right, *, request_id: str | None = None, address: str | None = None) -> Self:
        """As every pull's; spelt out because `replace` is a twentieth of what a manifest's hit costs."""
        return type(self)(
            right=right,
            request_id=self.request_id if request_id is None else request_id,
            address=self.address if address is None else address,
            namespace=self.namespace,
            repository=self.repository,
            reference=self.reference,
            accept=self.accept,
            head=self.head,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobPull(_Asked):
    """A blob or one range of it. end-2."""

    kind = "blob"

    repository: Repository
    digest: Digest
    range: RangeRequest | None = None
    head: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TagsList(_Asked):
    """The tags after `last`, at most `n`. end-8a, end-8b."""

    kind = "tags"

    repository: Repository
    n: int | None = None
    last: str | None = None
    rest: Rest = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrers(_Asked):
    """The manifests whose subject is this digest. end-12a, end-12b."""

    kind = "referrers"

    repository: Repository
    digest: Digest
    artifact_type: str | None = None
    rest: Rest = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog(_Asked):
    """The repositories after `last`, at most `n`. Docker Registry's own, in no specification."""

    kind = "catalog"

    n: int | None = None
    last: str | None = None
    rest: Rest = ()


Relayed = Ping | TagsList | Referrers | Catalog
"""What a cache passes on to its upstream."""

Pull = ManifestPull | BlobPull | Relayed


def parse_pull(
    method: str, path: str, query: Mapping[str, Sequence[str]], headers: Mapping[str, str]
) -> Pull:
    """The pull that a request asks for. Raises RegistryError only.

    `path` starts with /v2 and is percent-decoded once; `query` likewise. A header that came on several lines
    may stand several times in `headers.items()` (Docker sends an Accept line for each media type). Every
    method but GET and HEAD is Unsupported: uploads, mounts and deletions (end-4 to end-7, end-9 to end-11,
    end-13) belong to the upstream. A tag that cannot exist is ManifestUnknown: the conformance suite asks so.
    """
    if method not in {"GET", "HEAD"}:
        raise Unsupported(
            f"{shown(method)} is not served: this is a cache to pull through; push to the registry behind it"
        )
    pull, namespace = _parse(method, path, query, headers), _namespace(query)
    return pull if namespace is None else replace(pull, namespace=namespace)


def _parse(method: str, path: str, query: Mapping[str, Sequence[str]], headers: Mapping[str, str]) -> Pull:
    if path in {"/v2", "/v2/"}:
        return Ping()
    if path == "/v2/_catalog":
        return Catalog(n=_page(query), last=_first(query, "last"), rest=_rest(query, "n", "last"))
    name, word, tail = _split(path)
    match word:
        case "manifests":
            accept = _accepted(headers)
            parse = _manifest if sum(map(len, accept)) <= USUAL else _manifest.__wrapped__
            return parse(name, tail, accept, head=method == "HEAD")
        case "blobs":
            blob = _blob(name, tail, head=method == "HEAD")
            # RFC 9110 14.2: Range is for GET only.
            wanted = _range(headers, blob.digest) if method == "GET" else None
            return blob if wanted is None else replace(blob, range=wanted)
        case "tags" if tail == "list":
            n, last, rest = _page(query), _first(query, "last"), _rest(query, "n", "last")
            return TagsList(repository=Repository.parse(name), n=n, last=last, rest=rest)
        case "referrers":
            kind = _first(query, "artifactType")
            digest, rest = Digest.parse(tail), _rest(query, "artifactType")
            return Referrers(repository=Repository.parse(name), digest=digest, artifact_type=kind, rest=rest)
    raise NameUnknown(f"nothing is served at {shown(path)}")


def _split(path: str) -> tuple[str, str, str]:
    """Name, word and reference, from the right: a name may hold `manifests`, a reference holds no slash."""
    if not path.startswith("/v2/"):
        return "", "", ""
    head, _, tail = path.removeprefix("/v2/").rpartition("/")
    name, _, word = head.rpartition("/")
    return name, word, tail


# The same few names are asked for over and over. What is no name raises, and is not remembered.
@lru_cache(REMEMBERED)
def _manifest(name: str, reference: str, accept: tuple[str, ...], *, head: bool) -> ManifestPull:
    repository = Repository.parse(name)
    try:
        parsed = parse_reference(reference)
    except TagInvalid as error:
        raise ManifestUnknown(error.message) from None
    return ManifestPull(repository=repository, reference=parsed, accept=accept, head=head)


@lru_cache(REMEMBERED)
def _blob(name: str, digest: str, *, head: bool) -> BlobPull:
    parsed = Digest.parse(digest)
    return BlobPull(repository=Repository.parse(name), digest=parsed, head=head)


def _accepted(headers: Mapping[str, str]) -> tuple[str, ...]:
    lines = ",".join(_lines(headers, "accept"))
    return _listed(lines) if len(lines) <= USUAL else _listed.__wrapped__(lines)


@lru_cache(REMEMBERED)
def _listed(line: str) -> tuple[str, ...]:
    return tuple(entry for part in line.split(",") if (entry := part.strip()))


def _range(headers: Mapping[str, str], digest: Digest) -> RangeRequest | None:
    condition = next(iter(_lines(headers, "if-range")), None)
    # RFC 9110 13.1.5: only our own entity tag, the quoted digest, keeps the range; no date, no other tag.
    if condition is not None and condition.strip('" \t') != str(digest):
        return None
    return parse_range(",".join(_lines(headers, "range")))


def _lines(headers: Mapping[str, str], wanted: str) -> list[str]:
    return [value for name, value in headers.items() if name.lower() == wanted]


def _first(query: Mapping[str, Sequence[str]], key: str) -> str | None:
    """The first value as Go reads it; an empty one counts as none."""
    values = query.get(key)
    return (values[0] or None) if values else None


def _rest(query: Mapping[str, Sequence[str]], *known: str) -> Rest:
    return tuple((key, one) for key, values in query.items() if key not in {*known, "ns"} for one in values)


def _page(query: Mapping[str, Sequence[str]]) -> int | None:
    text = _first(query, "n")
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise PaginationInvalid(f"n is {shown(text)}; it should be a number of 0 or more")
    significant = text.lstrip("0") or "0"
    return min(int(significant), LARGEST_PAGE) if len(significant) < 10 else LARGEST_PAGE


def _namespace(query: Mapping[str, Sequence[str]]) -> str | None:
    host = _first(query, "ns")
    return None if host is None else parse_host(host)
