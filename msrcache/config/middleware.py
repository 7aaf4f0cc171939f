"""The `middleware:` section: `registry: [{name: downstream}]` names the upstreams of the cache we replace."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Discriminator, Tag

from msrcache.config.fields import FilePath, Flag, Opaque, Seconds, Section, Url


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

    name: str = "downstream"
    """downstream."""
    disabled: Flag = False
    """Accepted without effect, as in Docker Registry, which does not look at it."""
    options: DownstreamOptions


class OtherMiddlewareSection(Section):
    """A middleware that has no effect here."""

    name: str
    """Its name."""
    disabled: Flag = False
    """Accepted without effect."""
    options: Opaque | None = None
    """Accepted without effect."""


def _kind(value: object) -> str:
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", None)
    return "=downstream" if name == "downstream" else "=other"


RegistryMiddleware = Annotated[
    Annotated[DownstreamSection, Tag("=downstream")] | Annotated[OtherMiddlewareSection, Tag("=other")],
    Discriminator(_kind),
]


class MiddlewareSection(Section):
    """Lists of middlewares by what they wrap."""

    registry: tuple[RegistryMiddleware, ...] = ()
    """Only downstream, at most once."""
    repository: tuple[OtherMiddlewareSection, ...] = ()
    """Accepted without effect."""
    storage: tuple[OtherMiddlewareSection, ...] = ()
    """Accepted without effect."""

    @property
    def downstream(self) -> DownstreamOptions | None:
        """The options of the first downstream, if there is one."""
        found: list[Any] = [entry for entry in self.registry if isinstance(entry, DownstreamSection)]
        return found[0].options if found else None
