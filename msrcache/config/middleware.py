"""The `middleware:` section: `registry: [{name: downstream}]` names the upstreams of the cache we replace,
`storage: [{name: redirect}]` the host that sends its blobs.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Discriminator, Tag

from msrcache.config.fields import FilePath, OptionalUrl, Seconds, Section, Url, without_effect


def _one_shape(value: object) -> object:
    """Addresses, or DTR 2.2's maps; mixed they are refused, as the replaced cache does."""
    if not isinstance(value, list | tuple):
        return value
    maps = [isinstance(item, Mapping | Section) for item in value]
    if any(maps) and not all(maps):
        raise ValueError(
            "should be a list of addresses, or (DTR 2.2) a list of maps with originhost: not both"
        )
    if not value:
        raise ValueError("should name at least one upstream")
    return value


def _shape(value: object) -> str:
    return "=map" if isinstance(value, Mapping | Section) else "=address"


class OriginSection(Section):
    """One upstream in DTR 2.2's shape."""

    originhost: Url
    """The URL of MSR (DTR) itself; asked where upstreamhosts is empty."""
    upstreamhosts: tuple[Url, ...] = ()
    """URLs that are asked in its place, in turn."""


UpstreamEntry = Annotated[
    Annotated[Url, Tag("=address")] | Annotated[OriginSection, Tag("=map")],
    Discriminator(_shape),
]


class DownstreamOptions(Section):
    """The options of `downstream`."""

    upstreams: Annotated[tuple[UpstreamEntry, ...], BeforeValidator(_one_shape)]
    """URLs of MSR or of another cache, asked in turn."""
    cas: tuple[FilePath, ...] = ()
    """PEM files of the authorities that sign the upstreams' certificates, beside the system's own."""
    blobttl: Seconds | None = None
    """How long unused content is kept; needs storage.delete.enabled."""

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses to ask, whichever shape they were written in."""
        found: list[str] = []
        for entry in self.upstreams:
            if isinstance(entry, OriginSection):
                found.extend(entry.upstreamhosts or (entry.originhost,))
            else:
                found.append(entry)
        return tuple(found)


class DownstreamSection(Section):
    """`name: downstream`."""

    name: Literal["downstream"]
    """downstream."""
    disabled: Any = without_effect("Docker Registry does not look at it either: take the entry out")
    options: DownstreamOptions


class StorageOptions(Section):
    """The options of `redirect`."""

    baseurl: OptionalUrl = ""
    """redirect: the host that clients are sent to for blobs, whatever the driver; only scheme and host count."""


class StorageMiddlewareSection(Section):
    """A middleware around the store."""

    name: Literal["redirect", "rewrite", "cloudfront", "alicdn"]
    """redirect; rewrite, cloudfront and alicdn have no effect: URLs are made by the storage driver itself."""
    disabled: Any = without_effect("Docker Registry does not look at it either: take the entry out")
    options: StorageOptions = StorageOptions()


class MiddlewareSection(Section):
    """Lists of middlewares by what they wrap."""

    registry: tuple[DownstreamSection, ...] = ()
    """Only downstream, at most once."""
    repository: Any = without_effect("no such middleware is known here")
    storage: tuple[StorageMiddlewareSection, ...] = ()
    """What stands between the store and its URLs; of several named redirect the last one counts."""

    @property
    def downstream(self) -> DownstreamOptions | None:
        """The options of downstream, if it is there."""
        return self.registry[0].options if self.registry else None

    @property
    def redirect_base(self) -> str:
        """scheme://host that middleware redirect sends clients to; empty without it."""
        bases = [entry.options.baseurl for entry in self.storage if entry.name == "redirect"]
        parts = urlsplit(bases[-1]) if bases else urlsplit("")
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
