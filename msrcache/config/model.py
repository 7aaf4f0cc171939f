"""The whole of config.yml as one frozen value: `Config`.

It says what each key is and its default, and what follows from several keys together (upstreams, access).
It is not where the file is read (load.py) nor where keys are checked against each other (rules.py).
`Config()` is the embedded default. An attribute's key in the file is its name without underscores.
"""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import SecretStr

from msrcache.config.cache import AccessSection, CacheSection, UpstreamEntry
from msrcache.config.fields import Lowercase, Section, without_effect
from msrcache.config.http import HttpSection
from msrcache.config.middleware import MiddlewareSection
from msrcache.config.registry import (
    AuthSection,
    CatalogSection,
    HealthSection,
    LogSection,
    ProxySection,
    TagsSection,
)
from msrcache.config.storage import DEFAULT_ROOT, StorageSection

DEFAULT_SPOOL: Final = Path("/var/lib/msrcache/spool")


class Config(Section):
    """All that an operator can say. Durations are seconds (float), sizes bytes (int)."""

    version: Literal["0.1"] = "0.1"
    """The format of the file: 0.1."""
    log: LogSection = LogSection()
    loglevel: Annotated[Literal["", "error", "warn", "info", "debug"], Lowercase] = ""
    """The old place of log.level; used where that is absent."""
    storage: StorageSection = StorageSection()
    auth: AuthSection = AuthSection()
    middleware: MiddlewareSection = MiddlewareSection()
    http: HttpSection = HttpSection()
    health: HealthSection = HealthSection()
    proxy: ProxySection = ProxySection()
    catalog: CatalogSection = CatalogSection()
    tags: TagsSection = TagsSection()
    cache: CacheSection = CacheSection()
    reporting: Any = without_effect("nothing is reported to Bugsnag or New Relic")
    notifications: Any = without_effect("nothing is announced: pulls stand in the access log and the metrics")
    redis: Any = without_effect("no Redis is needed")
    validation: Any = without_effect("it concerns pushes, and pushes are not accepted")
    policy: Any = without_effect("it concerns pushes, and pushes are not accepted")
    compatibility: Any = without_effect(
        "manifests are served as the upstream gave them, never rewritten or signed"
    )

    @property
    def upstreams(self) -> tuple[UpstreamEntry, ...]:
        """All upstreams: of cache.upstreams, proxy and middleware downstream, each URL once."""
        named = [*self.cache.upstreams, *self._proxied(), *self._downstream()]
        first: dict[str, UpstreamEntry] = {}
        for entry in named:
            first.setdefault(entry.url, entry)
        return tuple(first.values())

    def _proxied(self) -> list[UpstreamEntry]:
        if self.proxy.remoteurl is None:
            return []
        return [
            UpstreamEntry(
                url=self.proxy.remoteurl, username=self.proxy.username, password=self.proxy.password
            )
        ]

    def _downstream(self) -> list[UpstreamEntry]:
        options = self.middleware.downstream
        return [UpstreamEntry(url=url, ca=options.cas) for url in options.urls] if options else []

    @property
    def access(self) -> AccessSection:
        """cache.access with Docker Registry's auth.htpasswd folded in: that section selects mode basic."""
        own = self.cache.access
        if self.auth.htpasswd is None:
            return own
        return own.model_copy(update={"mode": "basic", "htpasswd": self.auth.htpasswd})

    @property
    def blob_ttl(self) -> float | None:
        """Seconds that unused content is kept; None = for ever (always, unless storage.delete.enabled)."""
        options = self.middleware.downstream
        ttl = options.blobttl if options and options.blobttl is not None else self.proxy.ttl
        return ttl if ttl and self.storage.delete_enabled else None

    @property
    def expires(self) -> bool:
        """Whether anything is deleted in time: by its age or by the size of the store."""
        return self.storage.delete_enabled and (self.blob_ttl is not None or self.cache.expiry.budget > 0)

    @property
    def spool_path(self) -> Path:
        """The folder of the spool, with the default resolved."""
        if self.cache.spool.path:
            return Path(self.cache.spool.path)
        if self.storage.driver == "filesystem":
            return (
                Path(str(self.storage.parameters.get("rootdirectory") or DEFAULT_ROOT)) / "msrcache" / "spool"
            )
        return DEFAULT_SPOOL

    @property
    def log_level(self) -> str:
        """log.level, or the old loglevel where log.level is absent."""
        return self.loglevel if self.loglevel and "level" not in self.log.model_fields_set else self.log.level

    @property
    def secret(self) -> SecretStr | None:
        """What replicas sign with among each other; None = no such secret was configured."""
        secret = self.http.secret
        return secret if secret is not None and secret.get_secret_value() else None

    def masked(self) -> dict[str, Any]:
        """The effective settings in the file's own keys and units, every secret masked: may be printed."""
        shown: dict[str, Any] = self.model_dump(mode="json", by_alias=True)
        return shown
